"""What published metadata asks to be downloaded, and what a source collects in which mode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from remime.errors import InputError, RemimeError
from remime.shards import split_of
from remime.sources import Clip, load_source
from remime.sources.cutting import Cut
from remime.sources.download import Downloads
from remime.sources.fetching import FetchError, Transport
from remime.sources.parts import Part
from tests.unit.sources.published import kinds
from tests.unit.sources.test_hdtf import write_group

PUBLISHED = ("voxceleb1", "voxceleb2", "hdtf", "celebv_hq")
ID = "M2Ohb0FAaJU"


def clips(source: str, metadata: Path, **options: Any) -> Any:
    given = {"mode": "download", "metadata": str(metadata), "terms": "theirs", "seed": 4}
    return load_source(source).clips("d", {**given, "download": options}, None)


def test_hdtf(tmp_path: Path) -> None:
    url = "Radio11 https://www.youtube.com/watch?v=XtySvTwIOfw\n"
    found = clips("hdtf", write_group(tmp_path / "HDTF_dataset", "RD", video_url=url))
    assert [(c.clip, c.video, c.kind, c.identity) for c in found] == [
        ("Radio11_0", "XtySvTwIOfw", "download", "Radio11"),
        ("Radio11_1", "XtySvTwIOfw", "download", "Radio11"),
    ]
    assert Cut.parse(found[0].path) == Cut("XtySvTwIOfw", 30, 60, (412, 0, 599, 599), 720, "head")
    # What the cut applies, `align` does not apply again.
    assert (found[0].start, found[0].end, found[0].box, found[0].terms) == (None, None, (), "theirs")
    assert found[0].split == split_of("Radio11", 4)
    assert kinds(found.problems) == {"incomplete": 1, "no_address": 1}


def utterance(root: Path, rows: Sequence[str]) -> Path:
    path = root / "id00017" / ID / "00001.txt"
    path.parent.mkdir(parents=True)
    header = f"Identity  : \tid00017\nReference : \t{ID}\nOffset : 0\nFV Conf : 1\nASD Conf : 1\n\n"
    path.write_text(header + "FRAME \tX \tY \tW \tH \n" + "".join(f"{row}\n" for row in rows))
    return root


@pytest.mark.parametrize(("source", "lines"), [("voxceleb1", 360), ("voxceleb2", 0)])
def test_voxceleb(tmp_path: Path, source: str, lines: int) -> None:
    rows = ["000050 0.2 0.1 0.3 0.4", "000299 0.25 0.1 0.3 0.4"]
    (clip,) = clips(source, utterance(tmp_path, rows))
    cut = Cut.parse(clip.path)
    assert (cut.video, cut.start, cut.end, cut.lines, cut.margin) == (ID, 2, 12, lines, "face")
    assert cut.box == pytest.approx((0.2, 0.1, 0.35, 0.4))
    (short,) = clips(source, tmp_path, max_seconds=3)
    assert (Cut.parse(short.path).start, Cut.parse(short.path).end) == (2, 5)


def test_celebv_hq(tmp_path: Path) -> None:
    entry = {
        "ytb_id": ID,
        "duration": {"start_sec": 81.62, "end_sec": 86.17},
        "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
    }
    (tmp_path / "info.json").write_text(json.dumps({"clips": {f"{ID}_1": entry, f"{ID}_2": entry}}))
    found = clips("celebv_hq", tmp_path / "info.json")
    assert [(clip.clip, clip.video) for clip in found] == [(f"{ID}_1", ID), (f"{ID}_2", ID)]
    assert Cut.parse(found[0].path).margin == "head"


def test_metadata_without_a_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "info.json").write_text('{"clips": {}}')
    with pytest.raises(InputError, match="no clip is in it"):
        clips("celebv_hq", tmp_path / "info.json")


@pytest.mark.parametrize("source", PUBLISHED)
def test_only_what_is_downloaded_is_collected(source: str) -> None:
    pytest.importorskip("yt_dlp")
    module = load_source(source)
    assert module.collector({"mode": "local"}, {}) is None
    found = module.collector(
        {"mode": "download", "terms": "x", "download": {"height": 720, "max_seconds": 3}}, {"rate": 1}
    )
    assert found is not None
    # Neither terms nor transport change a byte, and the seconds are part of each clip.
    assert found.options == {"height": 720, "min_height": 240}


@pytest.mark.parametrize("source", ["folder", "samples"])
def test_files_on_this_disk_are_not_collected(source: str) -> None:
    assert load_source(source).collector({}, {}) is None


class Moody(Downloads):
    """Downloads whose videos fail with the status that their names say."""

    def __init__(self) -> None:
        pytest.importorskip("yt_dlp")
        super().__init__(720, 0, Transport())
        self._fetcher = self  # type: ignore[assignment]

    def fetch(self, *arguments: Any) -> list[Part]:  # type: ignore[override]
        if isinstance(arguments[0], list):
            return super().fetch(*arguments)
        video = str(arguments[0])
        if video == "ok":
            return [Part(Path("none"), 0, 1, 0, 25, 64, 64, False)]
        raise FetchError(video, video, "was said")

    def had(self, *videos: str) -> None:
        for video in videos:
            with nullcontext() if video == "ok" else pytest.raises(FetchError):
                self.fetch([Cut(video, 0, 1)], Path("none"))


def test_only_failures_in_a_row_that_may_pass_stop_a_job() -> None:
    moody = Moody()
    passing = ["network", "timeout", "rate_limited", "incomplete"]
    moody.had(*passing, "ok", *passing, "private", *passing)
    with pytest.raises(
        RemimeError, match=r"5 videos .* \(2 network, .*\), the last because: was said"
    ) as caught:
        moody.fetch([Cut("network", 0, 1)], Path("none"))
    assert not isinstance(caught.value, InputError), "it would be a clip's failure"


def test_a_video_that_fails_is_asked_for_once(tmp_path: Path) -> None:
    moody = Moody()
    cut = Cut("private", 0, 1).text()
    listed = [Clip(name, "private", "who", "train", "download", cut) for name in "ab"]
    with moody.video(listed, tmp_path) as make:
        for clip in listed:
            with pytest.raises(FetchError, match="was said"):
                make(clip, tmp_path)
        assert make.error is not None  # type: ignore[attr-defined]
