"""Work in processes of its own, each piece with a limit on its time: it may fail, hang or die."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

FIRST = 60.0
"""Seconds that a process has to begin, in which it imports what it needs."""

READY = "ready"


@dataclass(frozen=True)
class Failure:
    """Why a piece of work has no outcome.

    Args:
        reason: What happened, in a line.
    """

    reason: str


@dataclass
class _Worker(Generic[Item]):
    """A process with a pipe to it, and what it is at."""

    work: Callable[[Item], object]
    start: Callable[[], object] | None
    seconds: float
    process: Any = field(init=False)
    pipe: Connection = field(init=False)
    place: int = -1
    until: float = 0.0

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        served = (self.work, self.start, there)
        self.process = context.Process(target=_serve, args=served, daemon=True)
        self.process.start()
        there.close()
        self.ready = False

    def give(self, place: int, item: Item) -> None:
        self.place = place
        self.until = time.monotonic() + (self.seconds if self.ready else FIRST)
        self.pipe.send(item)

    def read(self) -> tuple[bool, Any]:
        """Whether there is an outcome, and it; the time counts from when the process is ready."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            died = Failure(f"its process died (exit status {self.process.exitcode})")
            self.stop()
            return True, died
        if self.ready:
            return True, said
        self.ready, self.until = True, time.monotonic() + self.seconds
        return False, None

    def end(self) -> Failure:
        """End what takes too long."""
        self.stop()
        if self.ready:
            return Failure(f"no answer within {self.seconds:g} s")
        return Failure(f"its process did not begin within {FIRST:g} s")

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def time_limited(
    work: Callable[[Item], Outcome],
    items: Sequence[Item],
    *,
    seconds: float,
    jobs: int,
    start: Callable[[], object] | None = None,
) -> Iterator[tuple[Item, Outcome | Failure]]:
    """Apply a function to every item in other processes, and go on where one fails.

    Args:
        work: An importable function, or one that survives pickling.
        items: Its arguments.
        seconds: How long one of them may take; its process is ended then, and another one begun.
        jobs: Number of processes.
        start: What each process does first, such as its imports, outside of that time.

    Yields:
        Each item with its outcome, or with the reason why there is none, in the items' order.

    >>> from math import sqrt
    >>> [outcome for _, outcome in time_limited(sqrt, [4.0, -1.0], seconds=20, jobs=1)]
    [2.0, Failure(reason='ValueError: math domain error')]
    """
    found: dict[int, Outcome | Failure] = {}
    waiting, told = list(range(len(items)))[::-1], 0
    workers: list[_Worker[Item]] = []
    try:
        workers += [_Worker(work, start, seconds) for _ in range(min(jobs, len(items)))]
        for worker in workers:
            place = waiting.pop()
            worker.give(place, items[place])
        while told < len(items):
            while told in found:
                yield items[told], found.pop(told)
                told += 1
            if told < len(items):
                _await(workers, found)
                for number, worker in enumerate(workers):
                    if worker.place < 0 and waiting:
                        if not worker.process.is_alive():
                            workers[number] = worker = _Worker(work, start, seconds)
                        place = waiting.pop()
                        worker.give(place, items[place])
    finally:
        for worker in workers:
            worker.stop()


def _await(workers: Sequence[_Worker[Any]], found: dict[int, Any]) -> None:
    """Wait for the next outcome or the next limit; who is done is at no place."""
    busy = [worker for worker in workers if worker.place >= 0]
    left = max(0.0, min(worker.until for worker in busy) - time.monotonic())
    ready = wait([worker.pipe for worker in busy], timeout=left)
    for worker in busy:
        if worker.pipe in ready:
            told, outcome = worker.read()
        else:
            told = time.monotonic() >= worker.until
            outcome = worker.end() if told else None
        if told:
            found[worker.place] = outcome
            worker.place = -1


def _serve(
    work: Callable[[Item], object], start: Callable[[], object] | None, pipe: Connection
) -> None:
    """Answer one item after another, until the pipe is closed."""
    if start is not None:
        start()
    pipe.send(READY)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            outcome: object = work(item)
        except Exception as error:  # whatever a stranger's function raises
            said = str(error).strip().splitlines()
            outcome = Failure(f"{type(error).__name__}: {said[0] if said else ''}".rstrip(": "))
        try:
            pipe.send(outcome)
        except Exception as error:  # an outcome that cannot be pickled
            pipe.send(Failure(f"an answer that cannot be sent ({type(error).__name__})"))
