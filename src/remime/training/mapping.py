"""Training of P1's mapping: self- and cross-reenactment within a batch (P1, Sec. 3.2)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.catalogue import EMBEDDED
from remime.errors import InputError
from remime.faces.mesh import BLENDSHAPES
from remime.generators.base import Generator
from remime.images import fit
from remime.methods import build_method
from remime.methods.mapping import SIZE, Correction, DirectionMap, Mapping, MeshMotionEncoder
from remime.metrics.temporal import pearson
from remime.progress import track
from remime.shards import stable_hash
from remime.sources.directions import load_directions
from remime.training.data import Crossings, Frames, Pairs, SameMotion
from remime.training.generated import degrade, vary
from remime.training.loop import Task, Updater
from remime.training.losses import ImageLosses, cosface, face_crop
from remime.training.optimizers import Ranger
from remime.training.processes import Processes
from remime.training.truth import lost_by_inversion

DEFAULTS: dict[str, Any] = {
    "batch": 8,
    "validate_batches": 8,
    "learning_rate": 1e-5,
    "variant": "ours",
    "latent_batch": 0,  # further pairs per step for the latent loss, which needs no decode
    "correction_batch": 0,  # targets per step from which the correction learns, and nothing else then
    "correction_resolution": 128,  # at which it looks at faces
    "cross_batch": 0,  # targets per step that two moments of somebody else's clip drive
    "cross_resolution": 128,  # at which these are looked at
    "truth": ["latents", "lids"],  # what the latent loss takes from the truth, of ``training.truth.KINDS``
    "image_every": 1,  # steps between batches with image losses
    "varied": 0.0,  # share of the driving frames that E_m sees with another camera and in other light
    "identity": "dlib-resnet-id",
    "crop": "paper",
    "cos_scale": 5.0,  # a of Eq. 4
    "id_target": "frame",  # g_AB is compared with the target frame (paper) or its inversion (reference code)
    "losses": {
        "l2": 0.0,
        "lpips": 0.05,
        "id": 0.3,
        "l2_crop": 2.0,
        "lpips_crop": 0.3,
        "cos": 0.0,
        "latent": 0.0,
        "same_motion": 0.0,
        "kept_id": 1.0,
        "kept_motion": 1.0,
        "cross_id": 1.0,
        "cross_motion": 1.0,
    },
}
MOMENTS, PEOPLE = 16, 4  # per step, for the loss of the same motion
LEAKING = 32  # moments at most from which the leakage is measured
SPREAD = 512  # frames from which the spread of latents is taken
STATISTICS = 512  # frames from which a new motion encoder takes the statistics of its inputs
AXES = 2048  # latents from which the correction takes its principal axes
NOISE = 0.1  # of its targets, in units of the latents' spread: fitted latents lie beside the generator's own
TRUNCATIONS = (0.7, 0.9)  # of the generator's own faces among them
BLENDSHAPE = 0.1  # difference of a blendshape, of 0 to 1, that counts as much as 1 in a motion code
TURN = math.radians(2)  # difference of a head's turn that counts as much
# Points of the mesh: the outer corners of the eyes (the person's right, left), the forehead's top, the chin.
EYES, FOREHEAD, CHIN = (33, 263), 10, 152
VARIED = 0.02  # standard deviation of a blendshape, of 0 to 1, from which its course is held to be motion


def _turns(points: Tensor) -> Tensor:
    """Yaw and pitch [B,2] of heads in radians, up to sign and offset, from the points [B,478,3] of meshes."""
    across, down = points[:, EYES[1]] - points[:, EYES[0]], points[:, CHIN] - points[:, FOREHEAD]
    return torch.stack([torch.atan2(across[:, 2], across[:, 0]), torch.atan2(down[:, 2], down[:, 1])], 1)


class _Trained(nn.Module):
    def __init__(self, method: Mapping, generator: Generator | None) -> None:
        super().__init__()
        self.method = method
        if generator is not None:
            self.generator = generator


def _crossings(frames: Frames | None, driving: Frames | None) -> Crossings | None:
    if frames is None or not len(frames):
        return None
    try:
        return Crossings(frames, driving, 0)
    except InputError as error:
        print(f"no validation, the last checkpoint is kept: {error.problem}", file=sys.stderr)
        return None


class MappingTask(Task):
    """E_m and M (and G in the variant ``gen``) on pairs of frames.

    The term ``latent`` is ours: the output's latent against the driving frame's, in self-reenactment. It
    needs no decode, and lets the ``small`` preset learn on a CPU. Inversions lose much of lids and lips; for
    frames that were rendered from known latents, the target's inversion plus the true change is wanted. Of
    rendered heads lids and mouths are known: along the directions of these their true change is wanted.

    The term ``same_motion`` is ours, too: the variance, over people who show one moment of one motion, of
    what M adds for it. Self-reenactment leaves that open: what a face's shape adds to E_m's code cancels
    there, but moves the target in cross-reenactment.

    With a ``correction_batch``, only the small M's correction learns, from two terms of ours. ``kept_id``:
    moved targets have the identity of what the generator shows of them before. ``kept_motion``: their mesh
    blendshapes and E_m's codes are those without the correction.

    With a ``cross_batch``, two moments of a clip drive somebody else, two terms of ours. ``cross_motion``:
    what differs between the outputs, in mesh blendshapes and turns of the head, is what differs between the
    moments. How a face rests makes no difference to that. ``cross_id``: outputs have the identity of what the
    generator shows of the target.

    Args:
        options: the flat options of stage ``train``; see ``DEFAULTS``. With ``init`` a model is loaded next,
            which replaces what would be computed as a start.
        generator: frozen unless the variant is ``gen``.
        train: frames with latents.
        validation: frames with latents of other identities; with fewer than two of these, or None, the last
            checkpoint is kept.
        device: where to train.
        processes: those that train together.
        same_motion: rendered people who share motions; needed by that term.
        driving: frames of clips that only drive in validation, or None.
        leaking: rendered people of the validation split who share motions, for the figure of that name; or
            None.

    Raises:
        InputError: too few identities, the processes cannot share a batch evenly, or a correction is to learn
            that is not there, or beside other losses.
    """

    ahead = True

    def __init__(
        self,
        options: dict[str, Any],
        generator: Generator,
        train: Frames,
        validation: Frames | None,
        device: torch.device,
        processes: Processes | None = None,
        same_motion: SameMotion | None = None,
        driving: Frames | None = None,
        leaking: SameMotion | None = None,
    ) -> None:
        losses = {**DEFAULTS["losses"], **options.get("losses", {})}
        self.o = {**DEFAULTS, **options, "losses": losses}
        if self.o["variant"] == "cos" and not losses["cos"]:
            raise InputError(
                "losses.cos", "is 0", "the variant cos needs a weight above 0; the paper prints none"
            )
        self.device, self.generator, self.seed = device, generator, int(options["seed"])
        self.processes = processes or Processes()
        for key in ("batch", "latent_batch", "correction_batch", "cross_batch"):
            self.processes.check(key, self.o[key])
        tuned = self.o["variant"] == "gen"
        if tuned:
            # A frozen generator may be read through its cheapest output; one that learns learns as a whole.
            generator.drop_previews()
        self.resolution = generator.decode_resolution(SIZE)
        method = build_method(options, generator)
        assert isinstance(method, Mapping)
        self.new = not options.get("init", False)
        if (
            isinstance(method.map, DirectionMap)
            and self.new
            and options.get("generator", EMBEDDED) == EMBEDDED
        ):
            # The directions by which the puppets move; in another latent space the map starts from nothing.
            method.map.initialise(torch.from_numpy(load_directions().steps))
        self.method = method.to(device)
        correction = self._new_correction(train)
        self.correction = self._alone(correction) if self.o["correction_batch"] else None
        if self.o["cross_batch"] and not isinstance(self.method.motion_encoder, MeshMotionEncoder):
            raise InputError(
                "cross_batch", f"is {self.o['cross_batch']}", "needs the preset small; set it to 0"
            )
        if tuned:
            # Affines, convolutions and image layers learn; mapping network and constant input do not.
            for name, parameter in generator.named_parameters():
                parameter.requires_grad_(not name.startswith(("map.", "style.", "input")))
        self.module = _Trained(self.method, generator if tuned else None)
        learned = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizers = {"main": Ranger(learned, lr=self.o["learning_rate"])}
        self.losses = ImageLosses(self.o["identity"]).to(device)
        self.pairs = Pairs(train, self.seed)
        self.validation = _crossings(validation, driving)
        self.measured: Tensor | None = None
        self.varied: Tensor | None = None  # as ``measured``, of the frames as another camera sees them
        self.leaking = leaking
        self.leaking_measured: Tensor | None = None
        self.same_motion = same_motion if losses["same_motion"] else None
        self.same_measured: Tensor | None = None
        if isinstance(self.method.motion_encoder, MeshMotionEncoder):
            self._prepare(self.method.motion_encoder, train)
            if self.same_motion is not None:
                frames = self.same_motion.frames
                self.same_measured = self._measure(self.method.motion_encoder, frames, range(len(frames)))
        few = min(len(train), SPREAD)
        self.spread = train.latents(range(few)).half().float().std(0).mean().item() if few > 1 else 1.0
        self.cached_latents: Tensor | None = None
        if self.o["latent_batch"]:
            everything = range(len(train))
            self.cached_latents = torch.cat(
                [train.latents(everything[i : i + 64]).half() for i in range(0, len(train), 64)]
            )
            self.lost = self._lost_by_inversion(train) if self.o["truth"] else None

    def _new_correction(self, train: Frames) -> Correction | None:
        """The small M's correction, if it has one, with the statistics of latents."""
        correction: Correction | None = getattr(self.method.map, "correction", None)
        if correction is not None:
            step = max(1, len(train) // AXES)
            rows = range(0, len(train), step)[:AXES]
            latents = [train.latents(rows[i : i + 64]) for i in range(0, len(rows), 64)]
            correction.initialise(torch.cat(latents))
        return correction

    def _alone(self, correction: Correction | None) -> Correction:
        """Let nothing but the correction learn."""
        if correction is None:
            raise InputError(
                "correction_batch",
                f"is {self.o['correction_batch']}, but the mapping has no correction",
                "set `correction` (preset small), or leave correction_batch at 0",
            )
        beside = [k for k in ("latent_batch", "image_every", "varied", "cross_batch") if self.o[k]]
        if beside or self.o["variant"] != "ours":
            raise InputError(
                "correction_batch",
                f"the correction learns alone, but {', '.join(beside) or 'variant'} asks for more",
                "set latent_batch, image_every, varied and cross_batch to 0 and the variant to ours,"
                " or correction_batch to 0",
            )
        self.method.requires_grad_(False)
        return correction.requires_grad_(True)

    def _lost_by_inversion(self, frames: Frames) -> Tensor | None:
        assert self.cached_latents is not None
        embedded = self.o.get("generator", EMBEDDED) == EMBEDDED
        seen = None if self.measured is None else self.measured[:, -len(BLENDSHAPES) :]
        directions = load_directions() if embedded else None
        return lost_by_inversion(frames, self.cached_latents, seen, directions, self.o["truth"])

    @torch.no_grad()
    def _prepare(self, encoder: MeshMotionEncoder, frames: Frames) -> None:
        """Run the frozen mesh network once over the data; its features are all that the latent loss needs.

        A new encoder takes the statistics of its inputs from them; without a latent loss, some frames do.
        """
        everything = self.o["latent_batch"] or self.o["correction_batch"] or self.o["cross_batch"]
        if not self.new and not everything:
            return
        step = 1 if everything else max(1, len(frames) // STATISTICS)
        chosen = range(0, len(frames), step)
        measured = self._measure(encoder, frames, chosen)
        if self.new:
            encoder.mean.copy_(measured.mean(0))
            encoder.spread.copy_(measured.std(0).clamp_min(1e-3))
        if everything:
            self.measured = measured
        if self.o["latent_batch"] and self.o["varied"]:
            self.varied = self._measure(encoder, frames, chosen, varied=True)

    @torch.no_grad()
    def _measure(
        self, encoder: MeshMotionEncoder, frames: Frames, chosen: Sequence[int], varied: bool = False
    ) -> Tensor:
        own = chosen[self.processes.rows()]
        parts = [torch.empty(0, *encoder.mean.shape)]
        for start in track(range(0, len(own), 16), "mesh of the training frames", unit="batches"):
            rows = own[start : start + 16]
            images = self._varied_images(frames, rows) if varied else frames.images(rows)
            parts.append(encoder.measure(images.to(self.device)).cpu())
        return self.processes.gather(torch.cat(parts), len(chosen))

    def _varied_images(self, frames: Frames, rows: Sequence[int]) -> Tensor:
        """Frames [B,3,256,256] as another camera sees them, each by its own seed, whoever asks."""
        images = fit(frames.images(rows), SIZE)
        return torch.cat([self._another_camera(images[i : i + 1], row) for i, row in enumerate(rows)])

    def _another_camera(
        self, images: Tensor, number: int, total: int | None = None, rows: slice = slice(None)
    ) -> Tensor:
        # Two seeds: from the same random numbers, what is turned to one side would always be blurred.
        camera, quality = (
            stable_hash(f"{self.seed}:{number}:{name}") % 2**62 for name in ("camera", "quality")
        )
        return degrade(vary(images, camera, total, rows, mirror=False), quality, total, rows)

    def _chosen(self, step: int, count: int, rows: slice) -> Tensor:
        """Which of these rows of a batch of ``count`` driving frames E_m sees varied."""
        source = self._source(step, "varied")
        return (torch.rand(count, generator=source) < self.o["varied"])[rows]

    def batch(self, step: int) -> dict[str, Any]:
        """Pairs for the image losses on every ``image_every``-th step, and for the latent loss."""
        out: dict[str, Any] = {}
        if self.o["image_every"] and step % self.o["image_every"] == 0:
            out["pairs"] = self._load(self.pairs, step, self.o["batch"], self.processes.rows())
        if self.o["latent_batch"]:
            where = self.pairs.batch(step + 2**40, self.o["latent_batch"])
            out["latent"] = {k: v[self.processes.rows()] for k, v in where.items()}
            if self.o["varied"]:
                count, rows = self.o["latent_batch"], self.processes.rows()
                out["latent"]["varied"] = self._chosen(step + 2**40, count, rows).int().tolist()
        if self.correction is not None:
            count, source = self.o["correction_batch"], self._source(step, "kept")
            chosen: dict[str, Any] = {"latents": self._targets(step, count, source)}
            chosen["driving"] = torch.randint(len(self.pairs.frames), (count,), generator=source).tolist()
            out["kept"] = {k: v[self.processes.rows()] for k, v in chosen.items()}
        if self.o["cross_batch"]:
            count = self.o["cross_batch"]
            moments = self.pairs.batch(step + 2**41, count)
            chosen = {"one": moments["s_a"], "other": moments["t_a"]}
            chosen["latents"] = self._targets(step, count, self._source(step, "cross"))
            out["cross"] = {k: v[self.processes.rows()] for k, v in chosen.items()}
        if self.same_motion is not None:
            out["same_motion"] = self.same_motion.batch(step, MOMENTS, PEOPLE)[self.processes.rows()]
        return out

    def _load(self, pairs: Pairs, step: int, size: int, rows: slice = slice(None)) -> dict[str, Tensor]:
        where, frames = {k: v[rows] for k, v in pairs.batch(step, size).items()}, pairs.frames
        batch = {f"image_{k}": fit(frames.images(v), SIZE) for k, v in where.items()}
        batch |= {f"latent_{k}": frames.latents(v) for k, v in where.items()}
        if self.o["varied"]:
            plain, chosen = batch["image_s_a"], self._chosen(step, size, rows)[:, None, None, None]
            batch["seen_s_a"] = torch.where(chosen, self._another_camera(plain, step, size, rows), plain)
        return {k: v.to(self.device) for k, v in batch.items()}

    def _source(self, step: int, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(stable_hash(f"{self.seed}:{step}:{name}") % 2**62)

    @torch.no_grad()
    def _targets(self, step: int, count: int, source: torch.Generator) -> Tensor:
        """Targets' latents [count,rows,512], half of them the generator's own faces, with noise."""
        frames, own = self.pairs.frames, count // 2
        z = torch.randn(own, 512, generator=source).to(self.device)
        w = self.generator.truncate(self.generator.mapping(z), TRUNCATIONS[step % len(TRUNCATIONS)])
        chosen = torch.randint(len(frames), (count - own,), generator=source).tolist()
        latents = torch.cat([self.generator.broadcast(w), frames.latents(chosen).to(self.device)])
        noise = torch.randn(latents.shape, generator=source).to(self.device)
        return latents + NOISE * self.spread * noise

    def decode(self, w_plus: Tensor, resolution: int | None = None) -> Tensor:
        """Images [B,3,256,256] of W+ [B,rows,512], decoded at a resolution of their own or the usual one."""
        return fit(self.generator.synthesize(w_plus, resolution=resolution or self.resolution), SIZE)

    def training_step(self, batch: dict[str, Any], step: int, updater: Updater) -> dict[str, Any]:
        figures: dict[str, Any] = {"loss": 0.0}
        if "latent" in batch:
            loss = self.o["losses"]["latent"] * self._latent_loss(batch["latent"])
            updater.backward(loss)
            figures["loss"] += float(loss.detach())
            figures["latent"] = float(loss.detach())
        if "same_motion" in batch:
            loss = self.o["losses"]["same_motion"] * self._same_motion_loss(batch["same_motion"])
            updater.backward(loss)
            figures["loss"] += float(loss.detach())
            figures["same_motion"] = float(loss.detach())
        terms_of = {"pairs": self._image_terms, "kept": self._kept_terms, "cross": self._cross_terms}
        for name in (name for name in terms_of if name in batch):
            terms = terms_of[name](batch[name])
            loss = sum(
                (self.o["losses"][k] * v for k, v in terms.items()), torch.zeros((), device=self.device)
            )
            updater.backward(loss)
            figures["loss"] += float(loss.detach())
            figures |= {k: float(v.detach()) for k, v in terms.items()}
        figures["norm"] = updater.step()
        return figures

    def _latent_loss(self, where: dict[str, list[int]]) -> Tensor:
        assert self.cached_latents is not None
        driving, target = torch.tensor(where["s_a"]), torch.tensor(where["t_a"])
        codes = self._codes(where["s_a"], where.get("varied"))
        own = self._codes(where["t_a"]) if self.method.subtracts else None
        source, wanted = (self.cached_latents[i].to(self.device).float() for i in (target, driving))
        if (lost := self.lost) is not None:
            wanted = wanted + (lost[driving].float() - lost[target].float()).to(self.device)
        return ((self.method(source, codes, own) - wanted) / self.spread).square().mean()

    def _same_motion_loss(self, where: list[list[int]]) -> Tensor:
        """Variance over people, of this process's rows [moments][people], in units of the latents' spread."""
        assert self.same_motion is not None
        rows = [row for moment in where for row in moment]
        codes = self._codes_of(self.same_motion.frames, self.same_measured, rows)
        added = self.method.map.motion(codes) / self.spread  # type: ignore[operator]
        return self.processes.mean(added.view(len(where), PEOPLE, *added.shape[1:]).var(1), MOMENTS)

    def _codes(self, rows: list[int], varied: list[int] | None = None) -> Tensor:
        """Motion codes of training frames, from the cached measurements where there are any.

        Args:
            rows: of the frames.
            varied: 1 for those that another camera sees, 0 for the others; or None.
        """
        encoder, frames = self.method.motion_encoder, self.pairs.frames
        if varied is None:
            return self._codes_of(frames, self.measured, rows)
        chosen = torch.tensor(varied) > 0
        if isinstance(encoder, MeshMotionEncoder):
            assert self.measured is not None
            assert self.varied is not None
            seen = torch.where(chosen[:, None], self.varied[rows], self.measured[rows])
            return encoder.encode(seen.to(self.device))
        images = torch.where(
            chosen[:, None, None, None], self._varied_images(frames, rows), fit(frames.images(rows), SIZE)
        )
        return encoder(images.to(self.device))

    def _codes_of(self, frames: Frames, measured: Tensor | None, rows: list[int]) -> Tensor:
        encoder = self.method.motion_encoder
        if measured is not None and isinstance(encoder, MeshMotionEncoder):
            return encoder.encode(measured[rows].to(self.device))
        return encoder(fit(frames.images(rows), SIZE).to(self.device))

    def _move(self, codes: Tensor, latents: Tensor, targets: Tensor) -> Tensor:
        """W+ of targets (latents [B,rows,512], images [B,3,R,R]) under motion codes."""
        own = self.method.motion_encoder(targets) if self.method.subtracts else None
        return self.method(latents, codes, own)

    def _image_terms(self, b: dict[str, Tensor]) -> dict[str, Tensor]:
        """P1's Eq. 1–6 for (s_A → t_A) and (s_A → t_B)."""
        weights = self.o["losses"]
        codes = self.method.motion_encoder(b.get("seen_s_a", b["image_s_a"]))
        moved = [self._move(codes, b[f"latent_t_{k}"], b[f"image_t_{k}"]) for k in "ab"]
        both = self.decode(torch.cat(moved))
        g_aa, g_ab = both.chunk(2)
        s_a, t_b = b["image_s_a"], b["image_t_b"]
        if self.o["id_target"] == "inversion":
            with torch.no_grad():
                t_b = self.decode(b["latent_t_b"])
        terms = {"id": self.losses.same_person(g_ab, t_b)}
        crops = face_crop(g_aa, self.o["crop"]), face_crop(s_a, self.o["crop"])
        if weights["l2"]:
            terms["l2"] = self.losses.l2(g_aa, s_a)
        if weights["lpips"]:
            terms["lpips"] = self.losses.perceptual(g_aa, s_a)
        if weights["l2_crop"]:
            terms["l2_crop"] = self.losses.l2(*crops)
        if weights["lpips_crop"]:
            terms["lpips_crop"] = self.losses.perceptual(*crops)
        if weights["cos"]:
            terms["cos"] = self._cos(codes, b["image_s_b"], g_aa, g_ab)
        return terms

    def _kept_terms(self, b: dict[str, Any]) -> dict[str, Tensor]:
        """Whether moved targets are still themselves, and move as they would without the correction."""
        assert self.correction is not None
        encoder, latents = self.method.motion_encoder, b["latents"]
        assert isinstance(encoder, MeshMotionEncoder)
        resolution = self.generator.decode_resolution(self.o["correction_resolution"])
        with torch.no_grad():
            kept = self.decode(latents, resolution)
            differences = self._codes(b["driving"]) - encoder(kept)
            plain = latents + self.method.map.motion(differences)  # type: ignore[operator]
            wanted = encoder.measure(self.decode(plain, resolution))
        shown = self.decode(plain + self.correction(latents, differences), resolution)
        found = encoder.measure(shown)
        count = len(BLENDSHAPES)
        shapes = (found[:, -count:] - wanted[:, -count:]) / BLENDSHAPE
        codes = encoder.encode(found) - encoder.encode(wanted)
        return {
            "kept_id": self.losses.same_person(shown, kept),
            "kept_motion": shapes.square().mean() + codes.square().mean(),
        }

    def _cross_terms(self, b: dict[str, Any]) -> dict[str, Tensor]:
        """Whether targets differ between two moments as the driving person does, and are still themselves."""
        encoder, latents = self.method.motion_encoder, b["latents"]
        assert isinstance(encoder, MeshMotionEncoder)
        assert self.measured is not None
        resolution = self.generator.decode_resolution(self.o["cross_resolution"])
        with torch.no_grad():
            kept = self.decode(latents, resolution)
            own = encoder.measure(kept)
        driving = self.measured[b["one"] + b["other"]].to(self.device)
        moved = self.method(
            latents.repeat(2, 1, 1), encoder.encode(driving), encoder.encode(own).repeat(2, 1)
        )
        shown = self.decode(moved, resolution)
        found = encoder.measure(shown)

        def change(values: Tensor) -> Tensor:
            one, other = values.chunk(2)
            return one - other

        count = len(BLENDSHAPES)
        shapes = (change(found) - change(driving))[:, -count:] / BLENDSHAPE
        points = (values[:, :-count].unflatten(1, (-1, 3)) for values in (found, driving))
        of_outputs, of_driving = (change(_turns(p)) for p in points)
        turns = (of_outputs - of_driving) / TURN
        return {
            "cross_id": self.losses.same_person(shown, kept.repeat(2, 1, 1, 1)),
            "cross_motion": shapes.square().mean() + turns.square().mean(),
        }

    def _cos(self, z_a: Tensor, s_b: Tensor, g_aa: Tensor, g_ab: Tensor) -> Tensor:
        encode = self.method.motion_encoder
        z_b, z_aa, z_ab = encode(s_b), encode(g_aa), encode(g_ab)
        flat = [F.normalize(z.flatten(1), dim=1) for z in (z_a, z_b, z_aa, z_ab)]
        a, b, aa, ab = flat
        per_sample = [
            cosface(
                torch.stack([aa[i] @ a[i], ab[i] @ a[i]]),
                torch.stack([aa[i] @ b[i], ab[i] @ b[i]]),
                self.o["cos_scale"],
            )
            for i in range(len(a))
        ]
        return torch.stack(per_sample).mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """P1's choice of a checkpoint: expression transfer and identity on the validation split.

        People of that split drive each other, ``validate_batches`` clips in all. The expression figure is the
        correlation, over a clip's frames, of mesh blendshapes of driving and output: over frames of many
        people, a mapping that copied their resting faces would do best. Identity is the loss network's,
        since the metric's network must never choose a checkpoint that it scores.

        Three figures do not choose. ``amplitude`` is the median, over blendshapes and clips, of the output's
        standard deviation in that of the driving clip. ``turns`` is by how many degrees the head is turned
        away, RMS, where both are counted from their mean over the clip. ``leakage`` is how much more than the
        motion M sees: the standard deviation over people who show one moment of one motion of what M adds for
        it, in units of that over moments.
        """
        from remime.faces.mesh import load_mesh

        leakage = {} if self.leaking is None else self._leakage(self.leaking)
        if self.validation is None:
            return {"score": 0.0, **leakage}
        mesh = load_mesh().to(self.device)
        expressions, amplitudes, identities, turns = [], [], [], []
        for i in range(self.o["validate_batches"]):
            frames, rows, target = self.validation.batch(i)
            driving = fit(frames.images(rows), SIZE).to(self.device)
            latents = self.validation.targets.latents([target]).to(self.device)
            kept = self.decode(latents)
            codes = self.method.motion_encoder(driving)
            out = self.decode(
                self._move(codes, latents.expand(len(rows), -1, -1), kept.expand(len(rows), -1, -1, -1))
            )
            seen = [mesh(images) for images in (driving, out)]
            courses = [_turns(s.points) for s in seen]
            one, other = (course - course.mean(0) for course in courses)
            turns.append(float((one - other).square().mean()))
            wanted, moved = (s.blendshapes.cpu().numpy() for s in seen)
            lively = np.flatnonzero(wanted.std(0) > VARIED)
            expressions += [pearson(wanted[:, j], moved[:, j]) for j in lively]
            amplitudes += (moved[:, lively].std(0) / wanted[:, lively].std(0)).tolist()
            identities.append(1 - float(self.losses.same_person(out, kept.expand_as(out))))
        found = [value for value in expressions if not math.isnan(value)]
        expression = float(np.mean(found)) if found else 0.0
        identity = float(np.mean(identities))
        return {
            "score": -(expression + identity),
            "expression": expression,
            "amplitude": float(np.median(amplitudes)) if amplitudes else 0.0,
            "turns": math.degrees(math.sqrt(np.mean(turns))),
            "identity": identity,
            **leakage,
        }

    @torch.no_grad()
    def _leakage(self, shared: SameMotion) -> dict[str, float]:
        groups = shared.groups[:: -(-len(shared.groups) // LEAKING)]
        if len(groups) < 2:
            return {}  # one moment has no motion
        encoder, rows = self.method.motion_encoder, [row for group in groups for row in group]
        batches = [rows[i : i + 16] for i in range(0, len(rows), 16)]
        if isinstance(encoder, MeshMotionEncoder):
            if self.leaking_measured is None:
                images = (fit(shared.frames.images(batch), SIZE).to(self.device) for batch in batches)
                self.leaking_measured = torch.cat([encoder.measure(batch) for batch in images])
            codes = encoder.encode(self.leaking_measured)
        else:
            codes = torch.cat([self._codes_of(shared.frames, None, batch) for batch in batches])
        moved = self.method.map.motion(codes).flatten(1)  # type: ignore[operator]
        added = moved.split([len(group) for group in groups])
        people = torch.stack([a.var(0, correction=0).sum() for a in added]).mean()
        moments = torch.stack([a.mean(0) for a in added]).var(0, correction=0).sum()
        # A map that adds nothing lets nothing through.
        return {"leakage": float((people / moments).sqrt()) if moments > 0 else 0.0}
