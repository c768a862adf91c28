"""Videos and images of every kind: the right pixels at the right time, or an error that says why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from remime import video
from remime.errors import InputError, RemimeError
from tests import clips


def frames_of(path: Path, **how: object) -> list[video.Frame]:
    return list(video.read(path, **how))  # type: ignore[arg-type]


def numbers_of(path: Path, **how: object) -> list[int]:
    return [clips.read_number(frame.image) for frame in frames_of(path, **how)]


def decoded_by_ffmpeg(path: Path, width: int, height: int) -> np.ndarray:
    """An independent decoder: the ffmpeg program, which applies rotation flags too."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    command += [
        "-sws_flags",
        "bilinear+accurate_rnd+full_chroma_int",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def assert_close(a: np.ndarray, b: np.ndarray, mean: float) -> None:
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b.astype(int)).mean() < mean


def test_frames_are_those_that_ffmpeg_decodes(tmp_path: Path) -> None:
    path = clips.encode(tmp_path / "a.mp4", clips.moving_face(7, 128), fps=30, audio=True)
    info, frames = video.probe(path), frames_of(path)
    assert (info.width, info.height, info.fps, info.frames) == (128, 128, 30, 7)
    assert (info.has_audio, info.audio_codec, info.codec, info.is_image) == (True, "aac", "h264", False)
    assert info.duration == pytest.approx(7 / 30, abs=0.01)
    assert [frame.index for frame in frames] == list(range(7))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(7) / 30, atol=1e-3)
    expected = decoded_by_ffmpeg(path, 128, 128)
    for frame, truth in zip(frames, expected, strict=True):
        assert frame.image.flags.c_contiguous
        assert frame.image.flags.owndata
        assert_close(frame.image, truth, 1.0)


def test_variable_rate_keeps_its_moments(tmp_path: Path) -> None:
    steady = clips.encode(tmp_path / "steady.mp4", clips.numbered(20), fps=10)
    path = tmp_path / "vfr.mkv"
    clips.ffmpeg(
        "-i", steady, "-vf", "select='not(between(n,3,6)+between(n,10,15))'", "-fps_mode", "vfr", path
    )
    frames = frames_of(path)
    numbers = [0, 1, 2, 7, 8, 9, 16, 17, 18, 19]
    assert [clips.read_number(frame.image) for frame in frames] == numbers
    np.testing.assert_allclose([frame.time for frame in frames], np.array(numbers) / 10, atol=2e-3)
    assert numbers_of(path, start=0.5, end=1.65) == [7, 8, 9, 16]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_flags(tmp_path: Path, rotation: int) -> None:
    flat = clips.encode(tmp_path / "flat.mp4", [f[:96] for f in clips.moving_face(3, 128)])
    path = tmp_path / "turned.mp4"
    clips.ffmpeg("-display_rotation", rotation, "-i", flat, "-c", "copy", path)
    width, height = (128, 96) if rotation == 180 else (96, 128)
    info = video.probe(path)
    assert (info.width, info.height) == (width, height)
    assert info.rotation == rotation
    for frame, truth in zip(frames_of(path), decoded_by_ffmpeg(path, width, height), strict=True):
        assert_close(frame.image, truth, 1.0)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = clips.encode(
        tmp_path / "a.mp4", clips.moving_face(2, 128), codec=("-vf", "setsar=4/3", "-crf", 12)
    )
    assert (video.probe(path).width, video.probe(path).height) == (171, 128)
    assert frames_of(path)[0].image.shape == (128, 171, 3)


@pytest.mark.parametrize(
    ("suffix", "codec", "tolerance"),
    [
        (".mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv420p10le"), 3),
        (".mp4", ("-c:v", "libx264", "-pix_fmt", "yuv422p10le", "-crf", 10), 3),
        (".mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv444p"), 2),
        (".avi", ("-c:v", "mjpeg", "-q:v", 2, "-pix_fmt", "yuvj444p"), 3),
        (".webm", ("-c:v", "libvpx-vp9", "-crf", 15, "-b:v", 0, "-deadline", "realtime"), 5),
        (".mov", ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"), 3),
        (".ts", ("-c:v", "libx264", "-crf", 12), 4),
    ],
)
def test_pixel_formats_and_containers(tmp_path: Path, suffix: str, codec: tuple, tolerance: float) -> None:
    original = [frame[:73, :65] for frame in clips.moving_face(4, 128)]  # odd sizes
    if "420" in str(codec) or "422" in str(codec) or suffix in (".ts", ".webm"):
        original = [frame[:72, :64] for frame in original]
    path = clips.encode(tmp_path / f"a{suffix}", original, codec=codec)
    frames = frames_of(path)
    assert len(frames) == 4
    for frame, truth in zip(frames, original, strict=True):
        assert_close(frame.image, truth, tolerance)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(4) / 25, atol=2e-3)


def test_grey(tmp_path: Path) -> None:
    grey = [frame.mean(axis=2).astype(np.uint8) for frame in clips.moving_face(2, 96)]
    path = clips.encode(tmp_path / "a.mkv", grey, codec=("-c:v", "ffv1", "-pix_fmt", "gray"), pixels="gray")
    image = frames_of(path)[0].image
    assert image.shape == (96, 96, 3)
    assert_close(image, np.repeat(grey[0][..., None], 3, axis=2), 1)


def test_transparency_is_put_on_black(tmp_path: Path) -> None:
    rgba = np.full((64, 64, 4), 200, np.uint8)
    rgba[:, :32, 3] = 0
    rgba[:, 32:, 3] = 255
    path = clips.encode(
        tmp_path / "a.mov", [rgba] * 2, codec=("-c:v", "qtrle", "-pix_fmt", "argb"), pixels="rgba"
    )
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for name in ("a.mov", "a.png"):
        image = frames_of(tmp_path / name)[0].image
        assert image[:, :32].max() == 0, name
        np.testing.assert_allclose(image[:, 32:], 200, atol=1)
    assert path.exists()


def test_cuts_by_time_start_at_the_frame_and_not_at_a_key_frame(tmp_path: Path) -> None:
    path = clips.encode(
        tmp_path / "a.mp4", clips.numbered(100), codec=("-g", 40, "-bf", 3, "-crf", 12), audio=True
    )
    assert numbers_of(path) == list(range(100))
    assert numbers_of(path, start=2.0, end=2.2) == [50, 51, 52, 53, 54]
    assert numbers_of(path, start=1.99, end=2.01) == [50]
    assert numbers_of(path, end=0.08) == [0, 1]
    assert numbers_of(path, start=3.92) == [98, 99]
    assert numbers_of(path, start=9.0) == []
    first = next(video.read(path, start=2.0))
    assert (first.index, round(first.time, 3)) == (0, 2.0)
    with pytest.raises(InputError, match="empty"):
        video.read(path, start=2, end=2)


def test_cut_in_a_stream_without_an_index(tmp_path: Path) -> None:
    path = clips.encode(tmp_path / "a.ts", clips.numbered(60), codec=("-g", 30, "-crf", 12))
    assert numbers_of(path, start=1.0, end=1.2) == [25, 26, 27, 28, 29]


def test_crop_and_size(tmp_path: Path) -> None:
    original = clips.moving_face(1, 128)[0]
    path = clips.encode(tmp_path / "a.mkv", [original], codec=("-c:v", "ffv1", "-pix_fmt", "gbrp"))
    np.testing.assert_array_equal(frames_of(path)[0].image, original)
    np.testing.assert_array_equal(frames_of(path, box=(10, 20, 50, 60))[0].image, original[20:80, 10:60])
    np.testing.assert_array_equal(frames_of(path, box=(100, -5, 99, 25))[0].image, original[:20, 100:])
    assert frames_of(path, box=(0, 0, 128, 64), max_size=32)[0].image.shape == (16, 32, 3)
    assert frames_of(path, max_size=500)[0].image.shape == (128, 128, 3)
    with pytest.raises(InputError, match="outside"):
        frames_of(path, box=(200, 0, 10, 10))


def test_truncated_file_gives_what_it_has_and_counts_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noisy = [
        f // 5 * 4 + np.random.default_rng(i).integers(0, 30, f.shape).astype(np.uint8)
        for i, f in enumerate(clips.numbered(40, 96))
    ]
    path = clips.encode(tmp_path / "a.mp4", noisy, codec=("-g", 10, "-crf", 12, "-movflags", "+faststart"))
    data = path.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    stream = video.read(cut)
    numbers = [clips.read_number(frame.image) for frame in stream]
    assert 5 < len(numbers) < 30
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + stream.failed == 40
    assert "could not be decoded" in caplog.text
    # Asking for a part that is there is not a failure.
    whole = video.read(cut, end=0.2)
    assert len(list(whole)) == 5
    assert whole.failed == 0


def test_damage_in_the_middle_costs_only_what_it_hits(tmp_path: Path) -> None:
    path = clips.encode(tmp_path / "a.mkv", clips.numbered(30, 96), codec=("-c:v", "mjpeg", "-q:v", 3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    path.write_bytes(bytes(data))
    stream = video.read(path)
    frames = list(stream)
    assert len(frames) >= 27
    assert [frame.index for frame in frames] == list(range(len(frames)))


def unreadable(folder: Path) -> dict[str, Path]:
    """Files that are no videos, by what is wrong."""
    cases = {"missing": folder / "none.mp4", "folder": folder / "folder.mp4"}
    cases["folder"].mkdir()
    contents = {
        "empty": b"",
        "text": b"dear diary\n" * 200,
        "noise": np.random.default_rng(0).bytes(5000),
        "header only": clips.encode(folder / "ok.mp4", clips.numbered(3)).read_bytes()[:400],
        "playlist": f"#EXTM3U\n#EXTINF:1,\n{folder / 'ok.mp4'}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile {folder / 'ok.mp4'}\n".encode(),
    }
    for name, data in contents.items():
        cases[name] = folder / f"{name}.mp4"
        cases[name].write_bytes(data)
    cases["sound"] = clips.tone(folder / "sound.mp4")
    cases["image text"] = folder / "a.png"
    cases["image text"].write_bytes(b"not a picture")
    return cases


def test_what_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    for name, path in unreadable(tmp_path).items():
        for ask in (video.probe, video.read):
            with pytest.raises(video.VideoError) as caught:
                ask(path)
            assert str(path) in str(caught.value), name
            assert caught.value.status == "unreadable"
            assert caught.value.fix
    with pytest.raises(video.VideoError, match="only sound"):
        video.probe(tmp_path / "sound.mp4")


def test_a_truncated_image_is_unreadable(tmp_path: Path) -> None:
    Image.fromarray(clips.portrait()).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(video.VideoError, match=r"a\.jpg"):
        video.probe(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
def test_images_are_videos_of_one_frame(tmp_path: Path, suffix: str) -> None:
    original = clips.portrait()[:200, 100:341]
    path = tmp_path / f"a{suffix}"
    Image.fromarray(original).save(path, quality=95)
    info = video.probe(path)
    assert (info.width, info.height, info.frames, info.is_image) == (241, 200, 1, True)
    [frame] = frames_of(path)
    assert frame.time == 0
    assert_close(frame.image, original, 0.01 if suffix in (".png", ".bmp", ".tiff") else 4)


@pytest.mark.parametrize(("orientation", "undo"), [(3, 2), (6, 1), (8, 3)])
def test_exif_orientation(tmp_path: Path, orientation: int, undo: int) -> None:
    original = clips.portrait()[:200, 100:340]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(original, undo)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(frames_of(tmp_path / "a.png")[0].image, original)


def test_image_modes(tmp_path: Path) -> None:
    original = clips.portrait()[:64, 200:264]
    grey = original.mean(axis=2)
    Image.fromarray((grey * 257).astype(np.uint16)).save(tmp_path / "16bit.png")
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(original).convert("CMYK").save(tmp_path / "cmyk.tiff")
    Image.fromarray(original).quantize(64).save(tmp_path / "palette.png")
    for name, truth in [("16bit", grey), ("grey", grey), ("cmyk", original), ("palette", original)]:
        path = next(tmp_path.glob(f"{name}.*"))
        image = frames_of(path)[0].image.astype(float)
        truth = truth if truth.ndim == 3 else np.repeat(truth[..., None], 3, axis=2)
        assert np.abs(image - truth).mean() < 6, name


@pytest.mark.parametrize(
    "name", ["a b.mp4", "ünï ☺.mp4", "http:x.mp4", "-dash.mp4", "100%d.mp4", "q'uo\"te.mp4"]
)
def test_any_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    sound = clips.encode(tmp_path / "sound.mp4", clips.numbered(5), audio=True)
    sound.rename(tmp_path / f"s{name}")
    with video.Writer(Path(name), 25, (64, 64), audio_from=Path(f"s{name}")) as writer:
        for image in clips.numbered(5):
            writer.write(image)
    assert numbers_of(Path(name)) == [0, 1, 2, 3, 4]
    assert video.probe(Path(name)).has_audio


def test_writer_keeps_colours_numbers_and_provenance(tmp_path: Path) -> None:
    colours = [(200, 30, 40), (20, 180, 60), (30, 40, 210), (230, 230, 230), (90, 90, 10)]
    told = {"method": "mapping", "note": 'a "quoted" = ü;#\\ thing', "seed": 3}
    path = tmp_path / "o.mp4"
    with video.Writer(path, 29.97, (64, 48), metadata=told) as writer:
        for colour in colours:
            writer.write(np.full((48, 64, 3), colour, np.uint8))
    info, frames = video.probe(path), frames_of(path)
    assert info.fps == pytest.approx(29.97, abs=0.001)
    assert (info.codec, info.frames, video.provenance(path)) == ("h264", 5, told)
    for frame, colour in zip(frames, colours, strict=True):
        np.testing.assert_allclose(frame.image.reshape(-1, 3).mean(axis=0), colour, atol=4)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_writer_takes_planes_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(16, 235, (48 * 3 // 2, 64)).astype(np.uint8) for _ in range(5)]
    path = tmp_path / "o.mp4"
    # At crf 0 x264 loses nothing.
    with video.Writer(path, 25, (64, 48), crf=0, pixel_format="yuv420p", threads=1) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(path)) as container:
        assert all(
            np.array_equal(decoded.to_ndarray(), frame)
            for decoded, frame in zip(container.decode(video=0), frames, strict=True)
        )


@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv420p"])
def test_writer_says_what_its_colours_mean(tmp_path: Path, pixel_format: str) -> None:
    shape = {"rgb24": (48, 64, 3), "yuv420p": (72, 64)}[pixel_format]
    with video.Writer(tmp_path / "o.mp4", 25, (64, 48), pixel_format=pixel_format) as writer:
        writer.write(np.full(shape, 128, np.uint8))
    with av.open(str(tmp_path / "o.mp4")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "yuv420p"
    assert (frame.colorspace, frame.color_range) == (Colorspace.ITU709, ColorRange.MPEG)
    assert (frame.color_primaries, frame.color_trc) == (1, 1)  # Rec. ITU-T H.264, tables E-3 and E-4


def test_options_of_x264_reach_it(tmp_path: Path) -> None:
    for name, more in (("plain", ""), ("quick", video.NO_CUTS)):
        with video.Writer(tmp_path / f"{name}.mp4", 25, (64, 48), x264=more) as writer:
            writer.write(np.full((48, 64, 3), 128, np.uint8))
    # x264 leaves its settings in the stream.
    told = {name: (tmp_path / f"{name}.mp4").read_bytes() for name in ("plain", "quick")}
    for setting in (b"weightp=0", b"b_adapt=0", b"scenecut=0", b"subme=0"):
        assert setting in told["quick"]
        assert setting not in told["plain"]


def test_writer_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="65x64 is odd"):
        video.Writer(tmp_path / "o.mp4", 25, (65, 64), pixel_format="yuv420p")
    with pytest.raises(ValueError, match="pixel_format: 'nv12' is none of rgb24, yuv420p"):
        video.Writer(tmp_path / "o.mp4", 25, (64, 64), pixel_format="nv12")


def test_writer_with_odd_sizes(tmp_path: Path) -> None:
    image = clips.moving_face(1, 97)[0][:, :65]
    with video.Writer(tmp_path / "o.mp4", 25, (65, 97)) as writer:
        writer.write(image)
    [frame] = frames_of(tmp_path / "o.mp4")
    assert frame.image.shape == (98, 66, 3)
    assert_close(frame.image[:97, :65], image, 5)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_writer_copies_the_sound_of_the_cut(tmp_path: Path, suffix: str) -> None:
    source = clips.encode(tmp_path / f"a{suffix}", clips.numbered(100), audio=True)
    with video.Writer(tmp_path / "o.mp4", 25, (64, 64), audio_from=source, audio_start=1.0) as writer:
        for frame in video.read(source, start=1.0, end=2.0):
            writer.write(frame.image)
    info = video.probe(tmp_path / "o.mp4")
    assert (info.has_audio, info.audio_codec, info.frames) == (True, "aac", 25)
    assert info.duration == pytest.approx(1.0, abs=0.1)
    silent = clips.encode(tmp_path / "silent.mp4", clips.numbered(3))
    with video.Writer(tmp_path / "o2.mp4", 25, (64, 64), audio_from=silent) as writer:
        writer.write(clips.numbered(1)[0])
    assert not video.probe(tmp_path / "o2.mp4").has_audio


def test_writer_holds_frames_of_a_variable_rate(tmp_path: Path) -> None:
    images = clips.numbered(6)
    with video.Writer(tmp_path / "o.mp4", 10, (64, 64)) as writer:
        for image, time in zip(images, [0, 0.1, 0.4, 0.41, 0.5, 0.8], strict=True):
            writer.write(image, time)
    assert numbers_of(tmp_path / "o.mp4") == [0, 1, 1, 1, 2, 4, 4, 4, 5]


def test_writer_leaves_nothing_after_a_failure(tmp_path: Path) -> None:
    image = clips.numbered(1)[0]

    def write(*images: np.ndarray) -> None:
        with video.Writer(tmp_path / "o.mp4", 25, (64, 64)) as writer:
            for each in images:
                writer.write(each)

    with pytest.raises(ValueError, match=r"\(64, 64, 3\).*\(32, 64, 3\)"):
        write(image, image[:32])
    with pytest.raises(RemimeError, match="no frame"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_writer_on_a_full_disk(tmp_path: Path) -> None:
    code = f"""
import resource, signal, numpy as np
from remime import video
from remime.errors import RemimeError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rng = np.random.default_rng(0)
try:
    with video.Writer({str(tmp_path / "o.mp4")!r}, 25, (128, 128)) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 255, (128, 128, 3)).astype(np.uint8))
except RemimeError as error:
    print("told:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be encoded" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    code = """
import resource, sys
from remime import video
n = sum(1 for _ in video.read(sys.argv[1]))
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peak = {}
    for seconds in (2, 40):
        path = tmp_path / f"{seconds}.mp4"
        clips.ffmpeg("-f", "lavfi", "-i", f"testsrc=s=320x240:r=25:d={seconds}", "-preset", "ultrafast", path)
        out = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        n, kilobytes = map(int, out.stdout.split())
        assert n == 25 * seconds
        peak[seconds] = kilobytes
    # All frames of the longer one would be 230 MB.
    assert peak[40] - peak[2] < 40_000


def test_a_shorter_sound_does_not_cut_the_picture(tmp_path):
    source = clips.encode(tmp_path / "a.mp4", clips.numbered(25), audio=True)  # one second
    with video.Writer(tmp_path / "o.mp4", 25, (64, 64), audio_from=source, audio_duration=2.0) as writer:
        for image in clips.numbered(50):
            writer.write(image)
    assert video.probe(tmp_path / "o.mp4").frames == 50


def test_a_longer_sound_is_cut_to_the_picture(tmp_path):
    source = clips.encode(tmp_path / "a.mp4", clips.numbered(100), audio=True)
    with video.Writer(tmp_path / "o.mp4", 25, (64, 64), audio_from=source, audio_duration=1.0) as writer:
        for image in clips.numbered(25):
            writer.write(image)
    with av.open(str(tmp_path / "o.mp4")) as container:
        [sound] = container.streams.audio
        assert float(sound.duration * sound.time_base) == pytest.approx(1.0, abs=0.1)
