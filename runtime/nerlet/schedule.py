"""Many items: which of them run together, and on which thread; results come in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Items begun or done for each thread, of which the first has not been taken yet: enough that a long
# text does not keep the other threads waiting for the one that takes results in order.
_AHEAD = 4
# Groups whose items are sorted by length together: little is padded, and memory is bounded.
_SORTED_GROUPS = 32


def run_in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Generator[_Result, None, None]:
    """Apply a function to items on several threads, and yield the results in order.

    Args:
        work: Called on the threads; most of its time should be outside of Python.
        items: May be endless; read at most 4 items a thread ahead of what is taken.
        threads: How many; 1 is the caller's own.

    Raises:
        Exception: What `work` or `items` raises, after the results of the items before.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="nerlet") as pool:
        begun: deque[Future[_Result]] = deque()
        source = _Source(items)
        try:
            for item in source:
                begun.append(pool.submit(work, item))
                while begun and (begun[0].done() or len(begun) > _AHEAD * threads):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
        source.raise_error()


def run_in_groups(
    work: Callable[[Sequence[_Item]], Sequence[_Result]],
    items: Iterable[_Item],
    size: int,
    length: Callable[[_Item], int],
) -> Iterator[_Result]:
    """Apply a function to groups of items of like length, and yield the results in order.

    Args:
        work: Called on each group; one result an item.
        items: May be endless; read at most 32 groups ahead of what is taken.
        size: Most items in a group.
        length: Of an item; what is like it is padded little.

    Raises:
        Exception: What `items` raises, after the results of the items before; what `work` raises.
    """
    source = _Source(items)
    while chunk := list(islice(source, size * _SORTED_GROUPS)):
        order = sorted(range(len(chunk)), key=lambda place: length(chunk[place]))
        results: dict[int, _Result] = {}
        for begin in range(0, len(order), size):
            group = order[begin : begin + size]
            results.update(zip(group, work([chunk[place] for place in group]), strict=True))
        yield from (results[place] for place in range(len(chunk)))
    source.raise_error()


class _Source(Iterator[_Item]):
    """Items up to the first error, which is kept until the results before it have been taken."""

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self._error: Exception | None = None

    def __next__(self) -> _Item:
        if self._error is not None:
            raise StopIteration
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self._error = error
            raise StopIteration from error

    def raise_error(self) -> None:
        """Raise what ended the items, if anything did."""
        if self._error is not None:
            raise self._error
