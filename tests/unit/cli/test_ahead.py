"""Working ahead in a thread."""

import threading

import pytest

from remime.cli.ahead import Ahead, Behind


def test_all_items_come_in_order():
    with Ahead(iter(range(100)), 4) as items:
        assert list(items) == list(range(100))


def test_an_error_comes_where_its_item_would_be():
    def items():
        yield 1
        yield 2
        raise OSError("no more")

    with Ahead(items()) as ahead:
        assert next(ahead) == 1
        assert next(ahead) == 2
        with pytest.raises(OSError, match="no more"):
            next(ahead)
        assert list(ahead) == []


def test_no_more_items_wait_than_allowed():
    made, stalled = [], threading.Event()

    def items():
        for i in range(1000):
            made.append(i)
            if len(made) == 6:  # one was taken, four wait, one is in the thread's hands
                stalled.set()
            yield i

    with Ahead(items(), 4) as ahead:
        next(ahead)
        assert stalled.wait(10)
        assert not ahead._stop.wait(0.2)
        assert len(made) == 6


def test_leaving_early_stops_the_thread_and_closes_the_items_in_it():
    closed_in = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed_in.append(threading.current_thread())

    with Ahead(items(), 2) as ahead:
        next(ahead)
    assert not ahead._thread.is_alive()
    assert closed_in == [ahead._thread]


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
