"""Gates of learned masks: hard in the run, soft in the gradient; their ascent; mean ranks.

A hard gate passes a part whole or not at all, as the circuit will that is judged. Its gradient is
that of a sigmoid around the bar (straight-through, Bengio et al. 2013).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from interp.circuits.tasks.metrics import check_finite, check_metric, measure, rows_of
from interp.core.parallel import batches
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.tower import Tower

MASK_SHARES = (0.05, 0.1, 0.2, 0.5)
"""Sizes that a mask is fitted for in turn, so that one order of the parts serves all of them."""

SOFT = 0.3
"""How far from the bar, in ranks scaled to -1 to 1, a part still gives a gradient."""

FLAT = 1e-3
"""A gradient of so small a share of what there is to gain is the slope of a plateau, and noise."""


def number_of(share: float, n: int) -> int:
    """How many of n parts a share keeps, rounded up.

    >>> [number_of(share, 4) for share in (0.05, 0.5, 0.75)]
    [1, 2, 3]
    """
    return int(np.ceil(share * n - 1e-9))


def hard_gate(logits: Tensor, share: float) -> Tensor:
    """Ones for the best parts of each row and zeros for the rest, `[row part]`, which can learn."""
    kept = number_of(share, logits.shape[1])
    ordered = logits.detach().sort(dim=1, descending=True).values
    bar = ordered[:, kept - 1 : kept + 1].mean(dim=1, keepdim=True)
    soft = torch.sigmoid((logits - bar) / SOFT)
    hard = torch.zeros_like(soft).scatter(1, logits.detach().topk(kept, dim=1).indices, 1.0)
    return hard + soft - soft.detach()


def scaled_ranks(size: Tensor) -> Tensor:
    """The ranks of each row's sizes, scaled to -1 to 1, `[row part]`."""
    ranks = size.argsort(dim=1).argsort(dim=1).to(size)
    return (2 * ranks / max(size.shape[1] - 1, 1) - 1).detach()


def class_places(labels: Sequence[object] | np.ndarray | None, n: int) -> np.ndarray:
    """The place of each example's class among the sorted ones; one class where none is known."""
    if labels is None:
        return np.zeros(n, dtype=np.int64)
    return np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1]


def climb(
    logits: Sequence[Tensor],
    gain: Callable[[int, np.ndarray], Tensor],
    turns: Iterator[np.ndarray],
    *,
    steps: int,
    rate: float,
    floor: float,
    size: int | None = None,
) -> None:
    """Move the logits up by Adam: `gain` is the mean of what some examples gain at a step.

    `turns` are the examples of each step, of which `size` share a pass; None takes all. Adam makes
    any gradient a whole step, that of a plateau too; below `floor` it hardly moves.
    """
    adam = torch.optim.Adam(list(logits), lr=rate, eps=floor)
    for step, rows in zip(track(range(steps), "masks"), turns, strict=False):
        grads = [torch.zeros_like(own) for own in logits]
        for part in np.split(rows, range(size or len(rows), len(rows), size or len(rows))):
            value = -gain(step, part) * (len(part) / len(rows))
            found = torch.autograd.grad(value, list(logits), materialize_grads=True)
            grads = [sum_ + own for sum_, own in zip(grads, found, strict=True)]
        for own, grad in zip(logits, grads, strict=True):
            own.grad = grad
        adam.step()


@torch.no_grad()
def to_gain(
    tower: Tower,
    metric: Callable[[Tensor], Tensor],
    clean: Tensor,
    corrupt: Tensor,
    *,
    batch_size: int,
) -> float:
    """How far the metric of the two runs lies apart: the mean over examples of its size."""
    sizes = []
    for rows in batches(len(clean), batch_size):
        ends, part = [tower(x[rows]) for x in (clean, corrupt)], rows_of(metric, rows)
        check_metric(part, ends[0], ends[1])
        sizes.append((measure(part, ends[0]) - measure(part, ends[1])).abs())
    gap = float(torch.cat(sizes).mean())
    check_finite("learn masks", {"the metric": gap})
    return gap


def turns(n: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of rows, each of which comes as often as the others."""
    generator = rng("masks' pairs", seed)
    waiting: list[int] = []
    while True:
        if len(waiting) < min(size, n):
            waiting += generator.permutation(n).tolist()
        rows, waiting = waiting[:size], waiting[size:]
        yield np.array(rows)


def mean_ranks(
    ways: Sequence[np.ndarray],
    labels: Sequence[object] | np.ndarray | None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """The mean over ways of the rank of |a class's mean score|, 0 to 1, `[example part]`.

    Units of the ways differ, ranks compare. `groups` are ranked each on its own, where given; every
    example has the ranks of its class.

    >>> mean_ranks([np.array([[1.0, -3.0, 2.0]]), np.array([[20.0, 30.0, 10.0]])], None).tolist()
    [[0.25, 1.0, 0.25]]
    """
    place = class_places(labels, len(ways[0]))
    whole = np.zeros(ways[0].shape[1]) if groups is None else groups
    ranks = np.zeros((place.max() + 1, ways[0].shape[1]))
    for values in ways:
        for number, own in enumerate(ranks):
            size = np.abs(values[place == number].mean(axis=0))
            for group in np.unique(whole):
                here = whole == group
                own[here] += (rankdata(size[here]) - 1) / max(here.sum() - 1, 1) / len(ways)
    return ranks[place]
