"""Many texts: which of them run together."""

from collections.abc import Iterator, Sequence, Sized


def group_sources(sources: Sequence[Sized], size: int) -> Iterator[list[int]]:
    """Yield the indices of the sources that run together; every one that is not empty, once.

    Args:
        sources: Texts or lists of words.
        size: Most sources in a group. Groups of more than one hold sources of like length, so
            that little is padded; order is kept for groups of one.
    """
    filled = [index for index, source in enumerate(sources) if len(source)]
    if size > 1:
        filled.sort(key=lambda index: len(sources[index]))
    for start in range(0, len(filled), size):
        yield filled[start : start + size]
