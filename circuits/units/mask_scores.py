"""Learned masks of units: which units of a class do its work alone.

Attribution scores one unit at a time, at the model as it is. A mask is fitted for all units of all
sites together, to what a circuit is then judged by.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.hard_gates import (
    FLAT,
    MASK_SHARES,
    check_shares,
    class_places,
    climb,
    hard_gate,
    n_kept,
    scaled_ranks,
    to_gain,
    turns,
)
from interp.circuits.patching.engine import Change, Prefix
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import measure, rows_of
from interp.circuits.tasks.pairs import PairTask, PairTaskKeywords
from interp.circuits.units.channel_scores import (
    channel_scores,
    check_finite,
    check_steps,
    unit_axis,
)
from interp.core.arguments import filled
from interp.core.faces.doors import door
from interp.core.sites import find_sites
from interp.core.tower import Tower


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
        sigmoid around the bar (straight-through, Bengio et al. 2013). One below a thousandth of
        what there is to gain is a plateau's, and moves nothing.

        Judge a mask on other pictures, and against a wrong target (`class_faithfulness`): on its
        own it does well by construction.

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
    check_shares(shares)
    names = find_sites(sites, tower.sites)
    axes = {site: unit_axis(tower, site, axis) for site in names}
    labels = None if given.pairs is None else given.pairs.clean.label.to_numpy()
    place = torch.as_tensor(class_places(labels, len(given.clean)), device=given.clean.device)
    gap = to_gain(tower, given.metric, given.clean, given.corrupt, batch_size=batch_size)
    start = channel_scores(
        tower,
        given.clean,
        metric=given.metric,
        sites=names,
        baseline=given.corrupt,
        axis=axis,
        steps=5,
        batch_size=batch_size,
    )
    logits = {site: _ranks(start[site], place).requires_grad_() for site in names}
    sizes = _different(shares, [own.shape[1] for own in logits.values()])

    def gain(step: int, rows: np.ndarray) -> Tensor:
        share = sizes[step % len(sizes)]
        masks = {site: hard_gate(own, share)[place[rows]] for site, own in logits.items()}
        return _alone(tower, given, rows, masks, axes)

    floor = FLAT * gap / (int(place.max()) + 1)
    in_turn = turns(len(place), batch_size, seed)
    climb(list(logits.values()), gain, in_turn, steps=steps, rate=rate, floor=floor)
    with torch.no_grad():
        scores = {site: torch.sigmoid(own)[place].T for site, own in logits.items()}
    check_finite("learn masks", scores)
    return scores


def _different(shares: Sequence[float], widths: Sequence[int]) -> list[float]:
    """The shares that keep different numbers of units: of four heads few do."""
    numbers = {tuple(n_kept(share, n) for n in widths): share for share in reversed(shares)}
    return list(numbers.values())[::-1]


def _ranks(scores: Tensor, place: Tensor) -> Tensor:
    """The ranks of |mean score| among a class's units, scaled to -1 to 1, `class unit`."""
    n = int(place.max()) + 1
    return scaled_ranks(torch.stack([scores[:, place == c].mean(dim=1).abs() for c in range(n)]))


def _alone(
    tower: Tower,
    given: PairTask,
    rows: np.ndarray,
    masks: Mapping[str, Tensor],
    axes: Mapping[str, int],
) -> Tensor:
    """The metric with the circuits alone, the mean over rows."""
    at = torch.as_tensor(rows, device=given.clean.device)
    clean, corrupt, sites = given.clean[at], given.corrupt[at], list(masks)
    metric = rows_of(given.metric, rows)
    with torch.no_grad():
        _, held = tower.run_with_cache(corrupt, names_filter=sites)
        runs = Prefix.of(tower, clean).forward_to(min(tower.layer(site) for site in sites))
    changes = {site: _mix(mask, held[site], axes[site]) for site, mask in masks.items()}
    with torch.enable_grad():
        return measure(metric, runs.changed(changes, Prefix.run)).mean()


def _mix(kept: Tensor, corrupt: Tensor, axis: int) -> Change:
    """The run's own activation where a unit is kept, else that of the corrupt run."""
    shape = [1] * corrupt.ndim
    shape[0], shape[axis] = kept.shape
    here = kept.reshape(shape).to(corrupt)
    return lambda own: corrupt + here * (own - corrupt)
