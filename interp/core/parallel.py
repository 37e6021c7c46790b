"""Work in parts: over processes, ranks and batches, which become smaller where memory runs out.

The choice of a device is made here, too.
"""

import atexit
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed

from interp.core.errors import SpecificationError, out_of_memory
from interp.core.progress import is_quiet, say, set_quiet, track

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def side_by_side(
    work: Callable[[Item], Outcome], items: Sequence[Item], *, jobs: int, what: str
) -> list[Outcome]:
    """Apply a function to every item, in several processes.

    Args:
        work: An importable function; large outcomes should go through files.
        items: Its arguments.
        jobs: Number of processes; 1 stays in this one.
        what: The name of the work, for the progress bar.

    Returns:
        The outcomes in the items' order.

    >>> side_by_side(abs, [-1, 2], jobs=1, what="absolute values")
    [1, 2]
    """
    if jobs == 1 or len(items) < 2:
        return [work(item) for item in track(items, what)]
    with warnings.catch_warnings():
        # loky replaces a worker whose memory grew, as importing torch makes it grow, and warns
        warnings.filterwarnings("ignore", message="A worker stopped")
        tasks = (delayed(_carry_out)(work, item, is_quiet()) for item in items)
        return list(track(Parallel(n_jobs=jobs, return_as="generator")(tasks), what, len(items)))


def _carry_out(work: Callable[[Item], Outcome], item: Item, quiet: bool) -> Outcome:
    set_quiet(quiet)
    return work(item)


def threads_each(jobs: int) -> int:
    """Threads for each of several processes at work side by side, the cores shared evenly.

    `OMP_NUM_THREADS` stands for the cores where it is set.

    Args:
        jobs: Number of processes.

    Returns:
        Threads of one process, at least 1.
    """
    cores = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, (int(cores) if cores.isdigit() else os.cpu_count() or 1) // jobs)


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """Compute on so many threads; with one job, this is the caller's own process, left as it was.

    >>> import torch
    >>> with on_threads(1):
    ...     torch.get_num_threads()
    1
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def which_device(device: str | None = None) -> str:
    """The device to compute on: as asked, or else a GPU if there is one, or the CPU.

    Args:
        device: A name such as cpu, cuda or cuda:0; None chooses.

    Returns:
        The name.

    Raises:
        SpecificationError: For a word that names no device, or a GPU that does not exist.

    >>> which_device("cpu")
    'cpu'
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if not device:
        return "cuda" if has_gpu else "cpu"
    right = "cpu, cuda, cuda:0 and so on" if has_gpu else "cpu: torch sees no GPU here"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = "unknown"
    if kind == "unknown" or (kind == "cuda" and not has_gpu):
        raise SpecificationError(
            f"compute on {device}", "a device that is not there", right, "choose another"
        )
    return device


def devices_in_turn(device: str, n: int) -> list[str]:
    """A device for each of several pieces of work: the GPUs of this machine in turn.

    Args:
        device: What `which_device` said. A GPU by its number, or the CPU, is for all of them.
        n: How many there are.

    Returns:
        Names of devices.

    >>> devices_in_turn("cuda:1", 2)
    ['cuda:1', 'cuda:1']
    """
    import torch

    cards = torch.cuda.device_count() if device == "cuda" else 0
    return [f"cuda:{place % cards}" if cards > 1 else device for place in range(n)]


@dataclass(frozen=True)
class Rank:
    """This process among those that work together.

    Args:
        place: Its number, from 0.
        count: How many there are.
    """

    place: int = 0
    count: int = 1

    def share(self, n: int) -> range:
        """The rows that this rank works on: contiguous, disjoint, and equally many up to one.

        Args:
            n: Number of rows.

        Returns:
            Their numbers.

        >>> [list(Rank(place, 2).share(5)) for place in (0, 1)]
        [[0, 1], [2, 3, 4]]
        """
        return range(n * self.place // self.count, n * (self.place + 1) // self.count)


def this_rank() -> Rank:
    """Which of the ranks this process is; the only one, unless several were started.

    Returns:
        The rank.

    Notes:
        Where torchrun's `RANK` and `WORLD_SIZE` are set and `torch.distributed` is not initialised,
        it is initialised with gloo, and closed when the process ends.

    >>> this_rank()
    Rank(place=0, count=1)
    """
    from torch import distributed

    if not distributed.is_available():
        return Rank()
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return Rank()
        distributed.init_process_group("gloo")
        # gloo's threads abort a process that ends while they still run
        atexit.register(_leave)
    return Rank(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def gathered(thing: Any) -> list[Any]:
    """Collect an object from every rank; all wait for the last one.

    Args:
        thing: This rank's object.

    Returns:
        All objects in the order of the ranks.

    >>> gathered("one process")
    ['one process']
    """
    rank = this_rank()
    if rank.count == 1:
        return [thing]
    from torch import distributed

    things: list[Any] = [None] * rank.count
    distributed.all_gather_object(things, thing)
    return things


def summed(array: np.ndarray) -> np.ndarray:
    """The sum of every rank's array of one shape, for statistics that are sums over pictures.

    Args:
        array: This rank's array.

    Returns:
        The sum.

    >>> summed(np.ones(2)).tolist()
    [1.0, 1.0]
    """
    return np.sum(gathered(array), axis=0)


def fail_together(failure: Exception | None) -> None:
    """Raise on all ranks what failed on one, so that none waits for another that has stopped.

    Args:
        failure: This rank's exception, or None.

    Raises:
        Exception: The first failure in the order of the ranks.

    >>> fail_together(None)
    """
    for error in gathered(failure):
        if error is not None:
            raise error


def once(work: Callable[[], object]) -> None:
    """Run a function on the first rank while the others wait.

    Args:
        work: The function.

    Raises:
        Exception: On all ranks, what failed on the first.

    >>> once(lambda: print("done"))
    done
    """
    failure = None
    if this_rank().place == 0:
        try:
            work()
        except Exception as error:
            failure = error
    fail_together(failure)


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
