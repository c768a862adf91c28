"""Render the true answers of a batch of pairs: the target's person in the driving clip's motion and light.

Only rendered heads have such answers. They do not depend on any model, so all models are held against the
same ones. Each finished pair lies in the state folder until all are done, so that a killed job resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remime.archive import AnswerReader, AnswerWriter, Parts, encode_jpeg, encode_labels
from remime.errors import InputError
from remime.pairs import Clips, Pair
from remime.progress import Progress
from remime.runtime import keep_opencv_to_one_thread
from remime.sources import read_clips
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.tables import read_table
from remime.versions import STAGES

if TYPE_CHECKING:
    from remime.heads.take import Take


class _Takes:
    """What the clips of the datasets were rendered from; every list of clips is read once.

    Args:
        datasets: where the lists lie.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self._lists: dict[Path, dict[str, str]] = {}

    def __call__(self, pair: Pair, role: str) -> Take:
        """The take of a pair's ``driving`` or ``target`` clip.

        Raises:
            InputError: the pairs do not fit the datasets, or the clip was not rendered by ``heads``.
        """
        from remime.heads.take import Take

        dataset, shard, clip = (pair[f"{role}_{name}"] for name in ("dataset", "shard", "clip"))
        if dataset not in self._datasets:
            raise InputError("--datasets", f"the pairs use {dataset!r}", "name its folder")
        path = self._datasets[dataset].clips(shard)
        if path not in self._lists:
            self._lists[path] = {each.clip: each.path for each in read_clips(path)}
        try:
            return Take(**json.loads(self._lists[path][clip]))
        except (KeyError, ValueError, TypeError):
            problem = f"does not say what {clip!r} was rendered from"
            raise InputError(path, problem, "a protocol `truth` needs datasets of the source heads") from None


class _Job:
    """Renders pairs into parts."""

    def __init__(self, datasets: Sequence[Dataset], state: Path) -> None:
        self._clips, self._takes = Clips(datasets), _Takes(datasets)
        self.parts = Parts(state, AnswerReader, {name: STAGES[name] for name in ("collect", "answer")})

    def key(self, pair: Pair) -> str:
        """Everything that a pair's answer depends on."""
        reader, rows, _ = self._clips.driving(pair)
        own = slice(rows.start, rows.stop)
        seen = hashlib.blake2b(reader.transform[own].tobytes() + reader.time[own].tobytes(), digest_size=16)
        take, identity = self._takes(pair, "driving"), self._takes(pair, "target").identity
        return f"{pair['pair']} {take} {identity} {reader.resolution} {seen.hexdigest()}"

    def render(self, pair: Pair, done: Callable[[int], None]) -> None:
        """Write the part of a pair, unless it is there."""
        from remime.heads.aligned import aligned_answers
        from remime.heads.renderer import LABELS

        known = self.parts.open(self.key(pair))
        if known is not None:
            known.close()
            done(pair["frames"])
            return
        reader, rows, fps = self._clips.driving(pair)
        own = slice(rows.start, rows.stop)
        take, identity = self._takes(pair, "driving"), self._takes(pair, "target").identity
        with AnswerWriter(self.parts.path(self.key(pair)), LABELS) as writer:
            writer.begin_clip(pair["pair"], fps, pair["target_identity"], {"identity": identity})
            for answer in aligned_answers(
                take, identity, reader.time[own], reader.transform[own], reader.resolution
            ):
                writer.append(
                    frames=encode_jpeg(answer.image),
                    labels=encode_labels(answer.labels),
                    landmarks=answer.landmarks,
                    pose=answer.pose,
                    coefficients=answer.coefficients,
                )
                done(1)

    def merge(self, pairs: Sequence[Pair], output: Path) -> None:
        """Put all parts into one shard."""
        from remime.heads.renderer import LABELS

        with AnswerWriter(output, LABELS) as writer:
            for pair in pairs:
                part = self.parts.open(self.key(pair))
                if part is None:
                    path = self.parts.path(self.key(pair))
                    raise InputError(path, "was damaged while the stage ran", "run it again")
                with part:
                    writer.copy_clip(part, part.clips[0])


def run(pairs: Path, batch: str, datasets: Sequence[Dataset], output: Path, state: Path) -> int:
    """Render the answers of a batch and return how many frames they have.

    Args:
        pairs: the table of pairs.
        batch: which of its batches.
        datasets: where the lists of clips and the aligned driving clips lie.
        output: the shard of answers.
        state: the folder of finished pairs; removed at the end.

    Raises:
        InputError: the pairs do not fit the datasets, or these are no rendered heads.
        WeightsError: what heads are built of is not there.
    """
    todo: list[Mapping[str, Any]] = [
        pair for pair in read_table(pairs, "pairs").to_pylist() if pair["batch"] == batch
    ]
    # A person is built in about a second and the last ones are kept.
    ordered = sorted(todo, key=lambda pair: (pair["target_identity"], pair["pair"]))
    job = _Job(datasets, state)
    total = sum(pair["frames"] for pair in todo)
    with Progress(total, f"answer {batch}", "frames") as progress:
        for pair in ordered:
            job.render(pair, progress.update)
    job.merge(todo, output)
    job.parts.remove()
    return total


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("answer", __doc__)
    add_datasets(parser)
    parser.add_argument("--pairs", type=Path, required=True, help="the benchmark's pairs.parquet")
    parser.add_argument("--batch", required=True, help="name of the batch")
    parser.add_argument("--output", type=Path, required=True, help="the batch's answers")
    parser.add_argument("--state", type=Path, required=True, help="finished pairs of a killed job")
    args = parser.parse_args(argv)
    keep_opencv_to_one_thread()
    run(args.pairs, args.batch, args.datasets, args.output, args.state)


if __name__ == "__main__":
    entry(main)
