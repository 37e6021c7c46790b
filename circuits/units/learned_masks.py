"""Learned masks of units: which units of a class do its work alone.

Attribution scores one unit at a time, at the model as it is. A mask is fitted for all units of all
sites together, to what a circuit is then judged by.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from interp.circuits.patching.engine import Change, Prefix
from interp.circuits.patching.sweeping import check_inputs
from interp.circuits.tasks.metrics import check_metric, measure
from interp.circuits.tasks.pairs import PairTask, PairTaskKeywords
from interp.circuits.units.channel_attribution import (
    channel_scores,
    check_finite,
    check_steps,
    unit_axis,
)
from interp.core.arguments import filled
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tower import Tower

MASK_SHARES = (0.05, 0.1, 0.2, 0.5)
"""Sizes that a mask is fitted for in turn, so that one order of the units serves all of them."""

SOFT = 0.3
"""How far from the bar, in ranks scaled to -1 to 1, a unit still gives a gradient."""


@door
def mask_scores(
    tower: Tower,
    sites: str | Sequence[str],
    *,
    axis: str = "channel",
    shares: Sequence[float] = MASK_SHARES,
    steps: int = 300,
    rate: float = 0.03,
    batch_size: int = 32,
    seed: int = 0,
    **task: Unpack[PairTaskKeywords],
) -> dict[str, Tensor]:
    r"""Score units by a mask for each class, learned over all sites together.

    The mask C of a class maximises the mean over its pictures, and over sizes, of

    $$m(C) - m(\emptyset),$$

    the metric with the circuit alone less that of the corrupt run. All that is left out runs, at
    every site, as in the corrupt picture, one of another class: so nothing is gained by a bias of
    the class, which both runs have.

    Args:
        tower: The tower.
        sites: Names or patterns of sites, of which all are masked at once.
        axis: The axis of the units.
        shares: Sizes of circuits, as shares of each site's units, that take turns.
        steps: Steps of Adam.
        rate: Its learning rate, in units of a ranking that is scaled to -1 to 1.
        batch_size: Pairs in a step.
        seed: Seed of their order.
        **task: The keywords that follow.
        clean: Inputs of the tower, `batch ...`.
        corrupt: Their partners, in the same order.
        metric: From outputs `batch d_embed` to one number per example.
        pairs: What the pictures show: each class has a mask of its own. None fits one for all.

    Returns:
        For each site its scores between 0 and 1, `unit batch`, as `channel_scores` returns them:
        every example has those of its class.

    Raises:
        SiteError: For unknown sites, or a site without the axis.
        SpecificationError: For fewer than one step, a share outside (0, 1), a metric that ignores
            the output, or a keyword that is unknown or missing.
        AlikeError: For identical partners.
        NumericsError: For NaN or infinity.

    Notes:
        Masks start from `channel_scores` (integrated gradients, the corrupt run as baseline), as
        ranks. At each size the best units pass whole and the rest not at all; gradients come from a
        sigmoid around the bar (straight-through, Bengio et al. 2013).

        Judge a mask on other pictures: on its own it does well by construction.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "channel", "row", "column"),
    ...               pool=torch.nn.Flatten())
    >>> clean, corrupt = torch.ones(4, 2, 1, 1), torch.zeros(4, 2, 1, 1)
    >>> scores = mask_scores(tower, "hook_embed", shares=[0.5], steps=5, clean=clean,
    ...                      corrupt=corrupt, metric=lambda out: 3 * out[:, 1])
    >>> scores["hook_embed"].argmax(dim=0).tolist()
    [1, 1, 1, 1]
    """
    given = filled(mask_scores, PairTask, task)
    check_inputs(given.clean, given.corrupt, None, given.pairs)
    check_steps("learn masks", steps, 1)
    if not shares or not all(0 < share < 1 for share in shares):
        raise SpecificationError(
            "learn masks", f"shares {list(shares)}", "shares between 0 and 1", "give others"
        )
    names = find_sites(sites, tower.sites)
    axes = {site: unit_axis(tower, site, axis) for site in names}
    place = _classes(given)
    start = channel_scores(
        tower, given.clean, metric=given.metric, sites=names, baseline=given.corrupt, axis=axis,
        steps=5, batch_size=batch_size,
    )  # fmt: skip
    logits = {site: _ranks(start[site], place).requires_grad_() for site in names}
    adam = torch.optim.Adam(list(logits.values()), lr=rate)
    generator = rng("masks' pairs", seed)
    waiting: list[int] = []
    for step in track(range(steps), "masks"):
        if len(waiting) < min(batch_size, len(place)):
            waiting += generator.permutation(len(place)).tolist()
        rows, waiting = waiting[:batch_size], waiting[batch_size:]
        share = shares[step % len(shares)]
        masks = {site: _gate(own, share)[place[rows]] for site, own in logits.items()}
        gain = _alone(tower, given, np.array(rows), masks, axes, first=step == 0)
        grads = torch.autograd.grad(-gain, list(logits.values()), materialize_grads=True)
        for own, grad in zip(logits.values(), grads, strict=True):
            own.grad = grad
        adam.step()
    with torch.no_grad():
        scores = {site: torch.sigmoid(own)[place].T for site, own in logits.items()}
    check_finite("learn masks", scores)
    return scores


def _classes(given: PairTask) -> Tensor:
    """The place of each example's class."""
    if given.pairs is None:
        return torch.zeros(len(given.clean), dtype=torch.long, device=given.clean.device)
    _, place = np.unique(given.pairs.clean.label.to_numpy(dtype=str), return_inverse=True)
    return torch.as_tensor(place, device=given.clean.device)


def _ranks(scores: Tensor, place: Tensor) -> Tensor:
    """The ranks of |mean score| among a class's units, scaled to -1 to 1, `class unit`."""
    n = int(place.max()) + 1
    means = torch.stack([scores[:, place == one].mean(dim=1).abs() for one in range(n)])
    ranks = means.argsort(dim=1).argsort(dim=1).to(means)
    return (2 * ranks / max(means.shape[1] - 1, 1) - 1).detach()


def _gate(logits: Tensor, share: float) -> Tensor:
    """Ones for a class's best units and zeros for the rest, with the gradient of a sigmoid."""
    kept = int(np.ceil(share * logits.shape[1] - 1e-9))
    ordered = logits.detach().sort(dim=1, descending=True).values
    bar = ordered[:, kept - 1 : kept + 1].mean(dim=1, keepdim=True)
    soft = torch.sigmoid((logits - bar) / SOFT)
    hard = torch.zeros_like(soft).scatter(1, logits.detach().topk(kept, dim=1).indices, 1.0)
    return hard + soft - soft.detach()


def _alone(
    tower: Tower,
    given: PairTask,
    rows: np.ndarray,
    masks: Mapping[str, Tensor],
    axes: Mapping[str, int],
    *,
    first: bool,
) -> Tensor:
    """The metric with the circuits alone, the mean over rows."""
    at = torch.as_tensor(rows, device=given.clean.device)
    clean, corrupt, sites = given.clean[at], given.corrupt[at], list(masks)
    metric = given.metric
    metric = metric[rows] if hasattr(metric, "__getitem__") else metric  # type: ignore[index]
    with torch.no_grad():
        output, held = tower.run_with_cache(corrupt, names_filter=sites)
        runs = Prefix.of(tower, clean).forward_to(min(tower.layer(site) for site in sites))
        if first:
            check_metric(metric, runs.run(), output)
    changes = {site: _mix(mask, held[site], axes[site]) for site, mask in masks.items()}
    with torch.enable_grad():
        return measure(metric, runs.changed(changes, Prefix.run)).mean()


def _mix(kept: Tensor, corrupt: Tensor, axis: int) -> Change:
    """The run's own activation where a unit is kept, else that of the corrupt run."""
    shape = [1] * corrupt.ndim
    shape[0], shape[axis] = kept.shape
    here = kept.reshape(shape).to(corrupt)
    return lambda own: corrupt + here * (own - corrupt)
