"""Find the W+ latents of a shard's frames and keep them, with their reconstruction errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remime.files import sha256
from remime.stages import entry, stage_parser

if TYPE_CHECKING:
    from torch import Tensor

    from remime.archive import LatentReader, Parts

OPTIONS: dict[str, Any] = {"generator": "mobile-ffhq", "batch": 8, "frames": "selected"}


def _wanted(selected: Path, which: str) -> dict[str, list[int]]:
    """Rows of the aligned shard to invert, by clip."""
    from remime.tables import read_table

    rows: dict[str, list[int]] = {}
    for r in read_table(selected, "selected").to_pylist():
        if r["keep"] and (which == "selected" or r["sampled"]):
            rows.setdefault(r["clip"], []).append(r["row"])
    return {clip: sorted(listed) for clip, listed in rows.items()}


def _finished(parts: Parts[LatentReader], clip: str) -> bool:
    part = parts.open(clip)
    if part is not None:
        part.close()
    return part is not None


def run(
    aligned: Path, selected: Path, inverter: Path, output: Path, state: Path, options: Mapping[str, Any]
) -> int:
    """Invert the selected frames of a shard; returns how many there are.

    Clips that an earlier, killed run finished are taken from ``state``.

    Args:
        aligned: the shard's frames.
        selected: which of them to use.
        inverter: the inverter's model file.
        output: the latent shard.
        state: directory for finished clips.
        options: ``generator``, ``batch``, ``frames`` (selected: all usable ones; sampled: P1's sampling).
    """
    import numpy as np
    import torch

    from remime.archive import AlignedReader, LatentReader, LatentWriter, Parts
    from remime.batches import Batches
    from remime.devices import compute_device
    from remime.encoders.inverter import load_inverter
    from remime.generators import load_generator
    from remime.images import fit, to_tensor
    from remime.perceptual import load_lpips
    from remime.progress import Progress
    from remime.runtime import keep_freed_memory

    keep_freed_memory()
    o = {**OPTIONS, **options}
    device = torch.device(compute_device())
    weights = sha256(inverter)
    wanted = _wanted(selected, o["frames"])
    key = {**o, "weights": weights, "aligned": sha256(aligned), "selected": sha256(selected)}
    parts = Parts(state, LatentReader, key)
    with AlignedReader(aligned) as reader:
        clips = [c for c in reader.clips if c.id in wanted]
        pending = [c for c in clips if not _finished(parts, c.id)]
        if pending:
            network = load_inverter(inverter, load_generator(o["generator"]), device)
            lpips, batches = load_lpips().to(device), Batches()

            def inverted(images: Tensor) -> tuple[Tensor, Tensor]:
                """W+ and the error of its reconstruction."""
                w_plus = network.invert(images, len(images))
                with torch.no_grad():
                    return w_plus, lpips(network.decode(w_plus).clamp(-1, 1), images)

        total = sum(len(wanted[c.id]) for c in clips)
        done = total - sum(len(wanted[c.id]) for c in pending)
        rows = load_rows(inverter) if not pending else network.generator.rows
        with Progress(total, f"invert {aligned.stem}", "frames", done=done) as progress:
            for clip in pending:
                latents, errors = [], []
                for start in range(0, len(wanted[clip.id]), o["batch"]):
                    chosen = wanted[clip.id][start : start + o["batch"]]
                    images = fit(to_tensor(reader.frames(chosen)).to(device), network.size)
                    for w_plus, error in batches(inverted, images, o["batch"]):
                        latents.append(w_plus.cpu().numpy())
                        errors.append(error.cpu().numpy())
                        progress.update(len(error))
                with LatentWriter(parts.path(clip.id), o, rows, inverter.parent.name, weights) as part:
                    part.add_clip(
                        clip.id,
                        clip.fps,
                        clip.identity,
                        np.concatenate(latents),
                        np.array(wanted[clip.id]),
                        np.concatenate(errors),
                    )
    with LatentWriter(output, o, rows, inverter.parent.name, weights) as writer:
        for clip in clips:
            finished = parts.open(clip.id)
            assert finished is not None
            with finished:
                writer.copy_clip(finished, finished.clips[0])
    parts.remove()
    return total


def load_rows(inverter: Path) -> int:
    """Rows of W+ of an inverter, from its file alone."""
    from remime.models import load_model

    return int(load_model(inverter, "inverter").tensors["latent_avg"].shape[0])


def main(argv: Sequence[str] | None = None) -> None:
    parser = stage_parser("invert", __doc__)
    for name in ("aligned", "selected", "inverter", "output", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    a = parser.parse_args(argv)
    run(a.aligned, a.selected, a.inverter, a.output, a.state, a.options)


if __name__ == "__main__":
    entry(main)
