"""Progress of long work: a bar with remaining time on a terminal, occasional lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any, TypeVar

Item = TypeVar("Item")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence progress for the whole process, or not.

    Args:
        quiet: Whether to silence it (`interp-report --quiet`).
    """
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether progress is silenced."""
    return _quiet


def say(text: str) -> None:
    """Print a line of progress to standard error, unless quiet."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items while reporting how many are done.

    Args:
        items: What to iterate over.
        what: The name of the work.
        total: The number of items, where they have no length.

    Returns:
        The same items.

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


def _lines(
    items: Iterable[Item], what: str, total: int | None, every: float = 15.0
) -> Iterator[Item]:
    """Print a line each `every` seconds, for log files."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    start = last_line = time.monotonic()
    for count, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now - last_line > every and total:
            left = (now - start) / (count + 1) * (total - count - 1)
            say(f"{what}: {count + 1} of {total}, about {left:.0f} s left")
            last_line = now


class Bars:
    """Progress of several things at once: a bar each on a terminal, occasional lines in a log.

    Args:
        what: The name of the work.
        every: Seconds between lines in a log.

    >>> with Bars("train") as bars:
    ...     report = bars.add("run 1")
    ...     report(0.5, "loss 1.0")
    """

    def __init__(self, what: str, every: float = 20.0) -> None:
        self.what, self.every = what, every
        self._start = self._said = time.monotonic()
        self._state: dict[str, tuple[float, str]] = {}
        self._lock = Lock()
        self._rich: Any = None

    def __enter__(self) -> "Bars":
        if not _quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def add(self, name: str) -> Callable[[float, str], None]:
        """Add a thing to follow.

        Args:
            name: Its name.

        Returns:
            A function to call with the share that is done and a note.
        """
        self._state[name] = (0.0, "")
        task = self._rich.add_task(name, total=1.0, note="") if self._rich is not None else None

        def report(share: float, note: str) -> None:
            with self._lock:
                self._state[name] = (share, note)
                if task is not None:
                    self._rich.update(task, completed=share, note=note)
                else:
                    self._say_now_and_then(name, share, note)

        return report

    def _say_now_and_then(self, name: str, share: float, note: str) -> None:
        now = time.monotonic()
        done = sum(each for each, _ in self._state.values()) / len(self._state)
        if now - self._said > self.every and done > 0:
            left = (now - self._start) * (1 - done) / done
            say(f"{self.what} {name}: {share:.0%}, {note}; about {left:.0f} s left in all")
            self._said = now
