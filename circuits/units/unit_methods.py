"""Ways to score units, by name: gradients, exact runs, learned masks and what they must beat.

Attribution scores one unit at a time, at the model as it is. A mask is fitted for all units of all
sites together, to what a circuit is then judged by.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.curves import units_of
from interp.circuits.edges import hard_gates
from interp.circuits.edges.hard_gates import mean_ranks
from interp.circuits.patching.ablate import ablate
from interp.circuits.patching.engine import Change, Prefix
from interp.circuits.patching.screen import gradients
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import check_metric, measure, rows_of
from interp.circuits.tasks.pairs import ComparedRuns, PairTask, PairTaskKeywords
from interp.circuits.units.channel_scores import by_unit, channel_scores, check_finite, unit_axis
from interp.core.arguments import Named, check_counts, check_shares, filled
from interp.core.faces.doors import door
from interp.core.parallel import Batching
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tower import Tower


@door
def mask_scores(
    tower: Tower,
    sites: str | Sequence[str],
    *,
    axis: str = "channel",
    shares: Sequence[float] = hard_gates.MASK_SHARES,
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
    check_counts("learn masks", steps=steps)
    check_shares("learn masks", shares)
    names = find_sites(sites, tower.sites)
    axes = {site: unit_axis(tower, site, axis) for site in names}
    labels = None if given.pairs is None else given.pairs.clean.label.to_numpy()
    place = torch.as_tensor(
        hard_gates.class_places(labels, len(given.clean)), device=given.clean.device
    )
    gap = hard_gates.to_gain(tower, given.metric, given.clean, given.corrupt, batch_size=batch_size)
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
        masks = {
            site: hard_gates.hard_gate(own, share)[place[rows]] for site, own in logits.items()
        }
        return _alone(tower, given, rows, masks, axes)

    floor = hard_gates.FLAT * gap / (int(place.max()) + 1)
    in_turn = hard_gates.turns(len(place), batch_size, seed)
    hard_gates.climb(list(logits.values()), gain, in_turn, steps=steps, rate=rate, floor=floor)
    with torch.no_grad():
        scores = {site: torch.sigmoid(own)[place].T for site, own in logits.items()}
    check_finite("learn masks", scores)
    return scores


def _different(shares: Sequence[float], widths: Sequence[int]) -> list[float]:
    """The shares that keep different numbers of units: of four heads few do."""
    numbers = {
        tuple(hard_gates.number_of(share, n) for n in widths): share for share in reversed(shares)
    }
    return list(numbers.values())[::-1]


def _ranks(scores: Tensor, place: Tensor) -> Tensor:
    """The ranks of |mean score| among a class's units, scaled to -1 to 1, `class unit`."""
    n = int(place.max()) + 1
    return hard_gates.scaled_ranks(
        torch.stack([scores[:, place == c].mean(dim=1).abs() for c in range(n)])
    )


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


UnitScores = dict[str, Tensor]
"""For each site its scores, `unit example`."""


@dataclass(frozen=True, eq=False)
class UnitTask:
    """What a method is given: the units, the pairs, and how to go about it."""

    tower: Tower
    sites: Sequence[str]
    axis: str
    read: ComparedRuns
    steps: int = 5
    batch_size: int = 32


def _integrated(task: UnitTask) -> UnitScores:
    """Integrated gradients between the corrupt run and the clean one, one site at a time."""
    return channel_scores(
        task.tower,
        task.read.clean,
        metric=task.read.metric,
        sites=list(task.sites),
        baseline=task.read.corrupt,
        axis=task.axis,
        steps=task.steps,
        batch_size=task.batch_size,
    )


def _differences(task: UnitTask) -> UnitScores:
    """The difference of the two runs times the gradient of the clean one (Nanda 2023)."""
    axes = {site: unit_axis(task.tower, site, task.axis) for site in task.sites}
    read, tower, sites = task.read, task.tower, list(task.sites)

    def scored(rows: slice) -> list[Tensor]:
        metric = rows_of(read.metric, rows)
        with torch.no_grad():
            output, corrupt = tower.run_with_cache(read.corrupt[rows], names_filter=sites)
            check_metric(metric, tower(read.clean[rows]), output)
        found = gradients(tower, read.clean[rows], sites, metric)
        return [
            by_unit((clean - corrupt[site]) * grad, axes[site]).sum(dim=-1).T
            for site, (clean, grad) in ((site, found[site]) for site in sites)
        ]

    windows = Batching(task.batch_size).each(len(read.clean), scored)
    scores = {site: torch.cat(parts, dim=1) for site, *parts in zip(sites, *windows, strict=True)}
    check_finite("score units by gradients", scores)
    return scores


def _exchanged(task: UnitTask) -> UnitScores:
    """What the metric loses with each unit alone as in the corrupt run: exact, a run a unit."""
    scores = {}
    for site in task.sites:
        axes = task.tower.axes(site)
        table = ablate(
            task.tower,
            task.read.clean,
            metric=task.read.metric,
            sites=site,
            axes=("layer", axes[unit_axis(task.tower, site, task.axis)]),
            donors=task.read.corrupt,
            batch_size=task.batch_size,
        ).frame
        lost = (table["clean_metric"] - table["value"]).to_numpy().reshape(-1, len(task.read.clean))
        scores[site] = torch.tensor(lost)  # a copy: a frame's numbers cannot be written
    return scores


def _masked(task: UnitTask) -> UnitScores:
    """A mask for each class, learned over all sites together to keep the metric alone."""
    words = {"axis": task.axis, "batch_size": task.batch_size}
    return mask_scores(task.tower, list(task.sites), **words, **task.read.words)


def _together(task: UnitTask) -> UnitScores:
    """The mean rank of |score| among a site's units, by integrated gradients and learned masks."""
    labels, _ = units_of(task.read.pairs, len(task.read.clean))
    ways = (_integrated(task), _masked(task))
    scores = {}
    for site in task.sites:
        values = [way[site].T.double().cpu().numpy() for way in ways]
        scores[site] = torch.as_tensor(mean_ranks(values, labels).T)
    return scores


def _by_chance(task: UnitTask) -> UnitScores:
    """Normal random numbers, the same for every example: what a method must beat."""
    generator, n = rng("random units' scores"), len(task.read.clean)
    with torch.no_grad():
        _, cache = task.tower.run_with_cache(task.read.clean[:1], names_filter=list(task.sites))
    widths = {
        site: cache[site].shape[unit_axis(task.tower, site, task.axis)] for site in task.sites
    }
    drawn = {site: generator.standard_normal(width) for site, width in widths.items()}
    return {site: torch.as_tensor(np.tile(own[:, None], (1, n))) for site, own in drawn.items()}


UNIT_METHODS: Named[Callable[[UnitTask], UnitScores]] = Named(
    {
        "integrated gradients": _integrated,
        "gradient x difference": _differences,
        "resample ablation": _exchanged,
        "learned masks": _masked,
        "ensemble": _together,
        "random": _by_chance,
    }
)
"""How units are scored, `unit example` by site; help and errors read it."""
