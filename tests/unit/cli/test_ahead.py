"""Working ahead in a process, and behind in a thread."""

import os
import threading
import time
from pathlib import Path

import pytest

from remime.cli.ahead import Ahead, Behind


def count(end):
    return range(end)


def failing():
    yield from range(3)
    raise OSError("no more")


def noted(folder):
    """Every item says that it was made, and by whom."""
    for i in range(100):
        (Path(folder) / f"{i}").write_text(str(os.getpid()))
        yield i


def test_all_items_come_in_order_and_in_batches():
    with Ahead(count, 10, size=4) as batches:
        assert list(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert list(batches) == []


def test_an_error_comes_where_its_batch_would_be():
    with Ahead(failing, size=2) as batches:
        assert next(batches) == [0, 1]
        with pytest.raises(OSError, match="no more"):
            next(batches)
        assert list(batches) == []


def test_one_batch_is_made_ahead_by_another_process(tmp_path):
    with Ahead(noted, tmp_path, size=3) as batches:
        batches.settle()
        assert len(list(tmp_path.iterdir())) == 3
        assert next(batches) == [0, 1, 2]
        batches.settle()
        time.sleep(0.2)
        assert len(list(tmp_path.iterdir())) == 6
        maker = int((tmp_path / "0").read_text())
        assert maker != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(maker, 0)


def test_two_share_a_process_in_turn(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with Ahead(noted, tmp_path / "a", size=3) as first:
        with Ahead(noted, tmp_path / "b", size=100, beside=first) as second:
            assert next(first) == [0, 1, 2]
            assert list(second) == [list(range(100))]
        assert next(first) == [3, 4, 5]
    assert (tmp_path / "b/0").read_text() == (tmp_path / "a/0").read_text()


def test_those_beside_one_have_items_of_their_own():
    with (
        Ahead(count, 3, size=9) as first,
        Ahead(count, 4, size=9, beside=first) as second,
        Ahead(count, 5, size=9, beside=first) as third,
    ):
        assert [list(each) for each in (third, second, first)] == [[[*range(n)]] for n in (5, 4, 3)]


def test_one_beside_may_end_unread(tmp_path):
    with Ahead(count, 10, size=4) as first:
        with Ahead(noted, tmp_path, size=1, beside=first):
            pass
        assert list(first) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_work_behind_comes_one_after_the_other():
    done, free = [], threading.Event()

    def slow():
        free.wait(5)
        done.append("first")

    with Behind() as behind:
        behind.begin(slow)
        assert done == []
        free.set()
        behind.begin(lambda: done.append("second"))
        behind.wait()
        assert done == ["first", "second"]
        behind.wait()


def test_an_error_behind_is_raised_by_the_next_call():
    with Behind() as behind:
        behind.begin(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            behind.begin(print)
        behind.begin(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            behind.wait()
