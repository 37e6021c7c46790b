"""Rows worked on in batches, which become smaller where memory runs out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from interp.core.errors import SpecificationError, out_of_memory
from interp.core.progress import say

Item = TypeVar("Item")


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `n` rows.

    >>> [rows.stop for rows in batches(5, 2)]
    [2, 4, 5]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@dataclass
class Batching:
    """Batches of at most `size` rows; the size is halved for good when memory runs out.

    Args:
        size: Rows in a batch, at least 1.
        stacked: Whether a batch of fewer rows is worked on in several copies at once, as many as
            `copies` says.
    """

    size: int
    stacked: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SpecificationError(
                "work in batches", f"batches of {self.size}", "at least 1 row", "raise batch_size"
            )

    def copies(self, rows: slice) -> int:
        """How many copies of a batch have room within `size`, at least 1."""
        return max(1, self.size // (rows.stop - rows.start))

    def through(
        self, n: int, work: Callable[[slice], Iterable[Item]]
    ) -> Iterator[tuple[slice, Item]]:
        """Each batch of `n` rows, with every item that `work` makes of it.

        When memory runs out, a line says so and the batch is worked on again, halved: items that it
        has given already are given again. An error at a single row is let through.

        >>> [item for _, item in Batching(2).through(3, lambda rows: [rows.start, rows.stop])]
        [0, 2, 2, 3]
        """
        start = 0
        while start < n:
            rows = slice(start, min(start + self.size, n))
            try:
                for item in work(rows):
                    yield rows, item
            except (MemoryError, RuntimeError) as error:
                held = (rows.stop - start) * (self.copies(rows) if self.stacked else 1)
                if held == 1 or not out_of_memory(error):
                    raise
                self.size = held // 2
                say(f"out of memory: the batch is halved to {self.size}")
                continue
            start = rows.stop

    def each(self, n: int, work: Callable[[slice], Item]) -> list[Item]:
        """What `work` makes of each batch of `n` rows, in order.

        >>> Batching(2).each(5, lambda rows: rows.stop)
        [2, 4, 5]
        """
        return [item for _, item in self.through(n, lambda rows: [work(rows)])]
