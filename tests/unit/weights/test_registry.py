"""The table of pretrained files."""

import pytest

from remime.errors import InputError, WeightsError
from remime.weights.recognise import KINDS
from remime.weights.registry import check_licence, default_table, find_entry, read_registry

from .conftest import make_entry, write_table

ROW = {
    "name": "net",
    "role": "pose",
    "member": "a/b.bin",
    "sha256": "0" * 64,
    "converter": "onnx",
    "terms": "permissive",
}


def test_the_projects_table_holds_what_the_project_uses():
    entries = read_registry()
    assert set(entries) >= {
        "mobile-ffhq",
        "dlib-landmarks-68",
        "dlib-resnet-id",
        "sface",
        "edgeface-s",
        "hopenet-lite",
        "face-mesh",
        "blendshapes",
        "lpips-alex",
        "lpips-vgg",
    }
    for entry in entries.values():
        assert entry.weights_terms
        if entry.by_hand:
            assert entry.kind in KINDS
            assert KINDS[entry.kind].role == entry.role
            assert entry.members[0].upstream.startswith("https://")
        else:
            assert entry.mirror
            assert entry.package_terms
    assert len(entries["mobile-ffhq"].members) == 4
    assert entries["face-mesh"].members[0].nested == "face_landmarks_detector.tflite"


def test_default_table_is_the_checkouts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_table().is_file()


def test_several_members_and_a_nested_one(tmp_path):
    row = ROW | {
        "member": "x/a.task!b.tflite;x/c.bin",
        "sha256": "0" * 64 + ";" + "1" * 64,
        "upstream": "https://example.org/a.task;https://example.org/c.bin",
    }
    first, second = find_entry("net", write_table(tmp_path / "t.tsv", row)).members
    assert (first.file, first.nested, first.upstream) == (
        "b.tflite",
        "b.tflite",
        "https://example.org/a.task",
    )
    assert (second.file, second.nested, second.sha256) == ("c.bin", "", "1" * 64)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sha256": "12"}, "'12' is not 64 hexadecimal"),
        ({"member": "../../etc/passwd"}, "not a plain relative path"),
        ({"member": "/etc/passwd"}, "not a plain relative path"),
        ({"member": "a.zip!../b"}, "not a plain relative path"),
        ({"member": "a;b"}, "2 members, 1 sha256"),
        ({"mirror": "pypi:thing"}, "pypi:PACKAGE==VERSION"),
        ({"mirror": "pypi:--index-url==1", "mirror_sha256": "0" * 64}, "pypi:PACKAGE==VERSION"),
        ({"mirror": "pypi:thing==1"}, "mirror_sha256 ''"),
        ({"terms": "free"}, "terms 'free' is not one of permissive"),
        ({"name": "../net"}, "'../net'"),
        ({"converter": "import"}, "kind ''"),
        ({"kind": "hopenet"}, "kind 'hopenet'"),
        ({"bytes": "many"}, "bytes 'many' is not a number"),
        ({"sha256": ""}, "1 members, 0 sha256"),
    ],
)
def test_wrong_rows_are_refused_with_their_line(tmp_path, change, told):
    with pytest.raises(InputError, match="line 2") as error:
        read_registry(write_table(tmp_path / "t.tsv", ROW | change))
    assert told in str(error.value)


def test_a_file_that_is_brought_by_hand_may_have_no_sha256(tmp_path):
    row = ROW | {"sha256": "", "converter": "import", "kind": "hopenet", "bytes": "95"}
    entry = find_entry("net", write_table(tmp_path / "t.tsv", row))
    assert (entry.by_hand, entry.kind, entry.bytes, entry.members[0].sha256) == (True, "hopenet", 95, "")
    wrong = write_table(tmp_path / "t.tsv", row | {"sha256": "12"})
    with pytest.raises(InputError, match="'12' is not 64 hexadecimal"):
        read_registry(wrong)


def test_other_wrong_tables(tmp_path):
    with pytest.raises(InputError, match="repeats the name 'net'"):
        read_registry(write_table(tmp_path / "t.tsv", ROW, ROW))
    with pytest.raises(InputError, match="cannot be read"):
        read_registry(tmp_path / "absent.tsv")
    path = tmp_path / "short.tsv"
    path.write_text("name\trole\nnet\tpose\n")
    with pytest.raises(InputError, match="needed: name, role, version"):
        read_registry(path)
    table = write_table(tmp_path / "t.tsv", ROW)
    table.write_text(table.read_text() + "one\ttwo\n")
    with pytest.raises(InputError, match="line 3: does not have 14 columns"):
        read_registry(table)


def test_unknown_name(tmp_path):
    with pytest.raises(WeightsError, match="known: net"):
        find_entry("nett", write_table(tmp_path / "t.tsv", ROW))


@pytest.mark.parametrize(
    ("licence", "accepted"),
    [
        ("any", {"permissive", "research", "noncommercial", "unknown"}),
        ("research", {"permissive", "research", "noncommercial"}),
        ("permissive", {"permissive"}),
    ],
)
def test_licence_policy(licence, accepted):
    for terms in ("permissive", "research", "noncommercial", "unknown"):
        entry = make_entry(name="net", terms=terms, weights_terms="only on Sundays")
        if terms in accepted:
            check_licence(entry, licence)
        else:
            with pytest.raises(WeightsError, match=r"'net'.*licence: " + licence) as error:
                check_licence(entry, licence)
            assert "only on Sundays" in str(error.value)


def test_unknown_policy():
    with pytest.raises(InputError, match="allowed: any, research, permissive"):
        check_licence(make_entry(), "none")
