"""Progress of long work: a bar with remaining time on a terminal, a line now and then in a log."""

import sys
import time
from typing import Iterable, Iterator, TypeVar

Item = TypeVar("Item")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence progress for the whole process (`interp-report --quiet`)."""
    global _quiet
    _quiet = quiet


def say(text: str) -> None:
    """Print a line of progress to standard error, unless quiet."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items while saying how far along they are.

    >>> list(track([1, 2, 3], "count"))
    [1, 2, 3]
    """
    if _quiet:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, what, total)
    else:
        yield from _lines(items, what, total)


def _bar(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=what, total=total, console=Console(stderr=True))


def _lines(items: Iterable[Item], what: str, total: int | None, every: float = 15.0) -> Iterator[Item]:
    """A line each `every` seconds: what a log file wants."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    start = said = time.monotonic()
    for count, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now - said > every and total:
            left = (now - start) / (count + 1) * (total - count - 1)
            say(f"{what}: {count + 1} of {total}, about {left:.0f} s left")
            said = now
