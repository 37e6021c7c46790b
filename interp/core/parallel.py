"""Where work is done: side by side in processes, and on which device."""

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from joblib import Parallel, delayed

from interp.core.errors import SpecificationError
from interp.core.progress import is_quiet, set_quiet, track

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def side_by_side(
    work: Callable[[Item], Outcome], items: Sequence[Item], *, jobs: int, what: str
) -> list[Outcome]:
    """`work` done on every item, in `jobs` processes, the outcomes in the items' order.

    `work` must be importable, and its outcomes small: what is large goes through files.

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


def which_device(device: str | None = None) -> str:
    """The device to compute on: as asked, or else a GPU if there is one, or the CPU.

    Raises `SpecificationError` for a word that names no device, or a GPU that is not there.

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
