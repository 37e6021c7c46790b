"""Ways to score units, by name: gradients, exact runs, learned masks and what they must beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.curves import units_of
from interp.circuits.discovery.hard_gates import mean_ranks
from interp.circuits.patching.ablate import ablate
from interp.circuits.patching.screen import gradients
from interp.circuits.tasks.metrics import check_metric, rows_of
from interp.circuits.tasks.pairs import ComparedRuns
from interp.circuits.units.channel_scores import by_unit, channel_scores, check_finite, unit_axis
from interp.circuits.units.mask_scores import mask_scores
from interp.core.faces.by_name import Named
from interp.core.runs.batching import Batching
from interp.core.seeds import rng
from interp.core.tower import Tower

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
