"""Results come in order, whoever is first; little is read ahead, and nothing is lost."""

import threading
import time
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerlet.schedule import run_in_groups, run_in_order


@given(st.lists(st.integers(0, 3)), st.integers(1, 4))
def test_order_is_kept(delays, threads):
    def work(pair):
        time.sleep(pair[1] / 10_000)
        return pair

    pairs = list(enumerate(delays))
    assert list(run_in_order(work, pairs, threads)) == pairs


def test_threads_work_at_once():
    meeting = threading.Barrier(3, timeout=10)
    assert list(run_in_order(lambda _: meeting.wait() >= 0, range(6), 3)) == [True] * 6


@pytest.mark.parametrize("threads", [1, 3])
def test_endless_items_are_read_a_few_ahead(threads):
    read = []

    def items():
        for item in count():
            read.append(item)
            yield item

    results = run_in_order(lambda item: item * 2, items(), threads)
    assert list(islice(results, 50)) == list(range(0, 100, 2))
    assert len(read) <= 51 + 4 * threads
    results.close()
    assert not [own.name for own in threading.enumerate() if own.name.startswith("nerlet")]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_comes_in_its_turn(threads):
    def work(item):
        if item == 7:
            raise ValueError("seven")
        return item

    results = run_in_order(work, range(100), threads)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)


@pytest.mark.parametrize("run", ["order 1", "order 3", "groups"])
def test_what_came_before_a_bad_item_is_not_lost(run):
    def items():
        yield from range(23)
        raise OSError("the disk")

    if run == "groups":
        results = run_in_groups(lambda group: group, items(), 4, lambda _: 1)
    else:
        results = run_in_order(lambda item: item, items(), int(run[-1]))
    assert [next(results) for _ in range(23)] == list(range(23))
    with pytest.raises(OSError, match="the disk"):
        next(results)


@given(st.lists(st.integers(0, 50), max_size=300), st.integers(1, 5))
def test_groups_are_of_like_length_and_in_order(lengths, size):
    groups = []

    def work(group):
        groups.append([length for _, length in group])
        return group

    items = list(enumerate(lengths))
    assert list(run_in_groups(work, items, size, lambda item: item[1])) == items
    assert all(len(group) <= size and group == sorted(group) for group in groups)
