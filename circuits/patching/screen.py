"""Screening: gradients rank all cells, and exact patching measures those that matter.

The number of cells that the gradients missed is bounded by measuring a random sample of the cells
that they left out.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import hypergeom, spearmanr
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.circuits.patching.patched_cells import forwards_of, make_plan, measure_cells, swept_axes
from interp.circuits.patching.sweep import DIRECTIONS, check_inputs, frame_of, rehearse
from interp.circuits.tasks.metrics import check_finite, measure, name_of, rows_of
from interp.circuits.tasks.pairs import PairedRuns, PairedRunsKeywords, check_partners
from interp.core.arguments import filled
from interp.core.errors import SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.parallel import Batching
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Tower

METHOD = "attribution patching"


@door
def node_scores(
    tower: Tower,
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    axes: Sequence[str] = ("layer", "pos"),
    direction: str = "denoise",
    batch_size: int = 32,
) -> Float[Tensor, "cell example"]:
    """Estimate what patching each cell of a sweep would change, from one forward and backward.

    score[cell, example] = sum over the cell of (donor - base) * d metric(base) / d base, the first
    term of Taylor's series for `sweep`'s value minus the metric of the run that is patched
    (attribution patching: Nanda 2023; Syed et al. 2023).

    Args:
        tower: The tower.
        clean: Its clean inputs, `batch ...`.
        corrupt: Their corrupt partners, in the same order.
        metric: From outputs `batch d_embed` to one number per example, differentiable.
        sites: Names or patterns of sites.
        axes: `layer` and the axes of a site that cells index.
        direction: `denoise` patches clean activations into the corrupt run, `noise` the reverse.
        batch_size: Examples in a forward.

    Returns:
        Scores in the metric's unit; cells come in `sweep`'s order.

    Raises:
        SiteError: For unknown sites.
        ShapeError: For inputs that differ in shape or dtype.
        SpecificationError: For an unknown direction or axis, or a metric without a gradient.
        NumericsError: For NaN or infinity.

    Notes:
        One donor forward, and one forward and backward of the base, are run for each batch.
        Examples must not depend on one another: no batch normalisation in training mode.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> clean, corrupt = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    >>> clean[0, 1] = 3.0
    >>> node_scores(tower, clean=clean, corrupt=corrupt, metric=lambda output: output[:, 0])
    tensor([[0.],
            [6.],
            [0.],
            [6.]])
    """
    check_known("score cells", "direction", [direction], ("denoise", "noise"), SpecificationError)
    check_partners("corrupt", clean, corrupt)
    names = find_sites(sites, tower.sites)
    kept = {site: _swept_places(tower, site, axes) for site in names}
    base, donor = (corrupt, clean) if direction == "denoise" else (clean, corrupt)

    def window_scores(window: slice) -> Tensor:
        with torch.no_grad():
            _, cache = tower.run_with_cache(donor[window], names_filter=names)
        found = gradients(tower, base[window], names, rows_of(metric, window))
        scores = []
        for site in names:
            activation, gradient = found[site]
            product = (cache[site] - activation) * gradient
            scores.append(_by_cell(product, tower.axes(site), kept[site]))
        return torch.cat(scores)

    whole = torch.cat(Batching(batch_size).each(len(base), window_scores), dim=1)
    check_finite("score cells", {"the estimates": whole})
    return whole


def gradients(
    tower: Tower, x: Tensor, sites: Sequence[str], metric: Callable[[Tensor], Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Activations at some sites and the metric's gradient there, from one forward and backward."""
    points: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: HookPoint) -> Tensor:
        # one copy, since a tower that works in place may use the tensor elsewhere too; another,
        # since it must not write into what is kept
        point = tensor.clone() if tensor.requires_grad else tensor.clone().requires_grad_()
        points[str(hook.name)] = point
        return point.clone()

    with torch.enable_grad(), tower.hooks(fwd_hooks=[(site, keep) for site in sites]):
        values = measure(metric, tower(x))
    if not values.requires_grad:
        given = f"a metric without a gradient at {listed(sites, limit=3)}"
        right = "a differentiable function of the output, and sites that it depends on"
        do = "use one of METRICS, or sweep the cells exactly"
        raise SpecificationError("score cells by gradients", given, right, do)
    found = torch.autograd.grad(
        values.sum(), list(points.values()), allow_unused=True, materialize_grads=True
    )
    return {
        site: (point.detach(), gradient)
        for (site, point), gradient in zip(points.items(), found, strict=True)
    }


def _swept_places(tower: Tower, site: str, axes: Sequence[str]) -> list[int]:
    """Where the swept axes of a site are; unknown axes are refused."""
    names, swept = tower.axes(site), swept_axes("score", axes)
    check_known(f"score {site}", "axis", swept, names, SpecificationError)
    return [names.index(axis) for axis in swept]


def _by_cell(
    product: Tensor, axes: Sequence[str], kept: Sequence[int]
) -> Float[Tensor, "cell example"]:
    """Sum over the axes that no cell cuts, and put the swept ones in the order asked for."""
    batch = list(axes).index("batch")
    gone = [axis for axis in range(product.ndim) if axis not in (batch, *kept)]
    rest = [axis for axis in range(product.ndim) if axis not in gone]
    summed = product.sum(dim=gone) if gone else product
    order = [rest.index(axis) for axis in (*kept, batch)]
    return summed.permute(order).reshape(-1, product.shape[batch])


@door
def screen(
    tower: Tower,
    *,
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    axes: Sequence[str] = ("layer", "pos"),
    top: int = 10,
    sample: int = 59,
    confidence: float = 0.95,
    direction: str = "denoise",
    seed: int = 0,
    **runs: Unpack[PairedRunsKeywords],
) -> Table:
    """Patch only the cells that gradients point at, and say how many others they may have missed.

    Args:
        tower: The tower to run.
        sites: Names of sites or patterns.
        axes: "layer", and axes of the sites along which cells are cut: "pos", "head", "channel".
        top: Cells of the largest |mean estimate|, which are patched exactly.
        sample: Cells of the rest, drawn at random, which are patched exactly as well.
        confidence: Probability with which the bound of the missed cells is to hold.
        direction: "denoise"; with "noise" clean and corrupt change places.
        seed: Seed of the draw.
        **runs: The keywords that follow.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to `[batch]`, differentiable.
        pairs: What the pictures show; None for inputs of which nothing is known.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.

    Returns:
        Rows and columns of `sweep` for the measured cells, with `estimate` and `chosen`. `facts`
        hold `cells`, `threshold`, `missed_in_sample`, `missed_at_most`, `share_missed_at_most`,
        `rank_correlation` (Spearman's, estimate against effect, over the sample) and `forwards`
        beside `forwards_of_all`.

    Raises:
        SpecificationError: For numbers out of range, or a keyword that is unknown or missing;
            `sweep` and `node_scores` have the others.

    Notes:
        Attribution patching estimates every cell's effect from one forward and backward. A missed
        cell is one of the rest whose |mean effect| is above `threshold`, the smallest of the top
        cells'. `missed_at_most` is the largest M for which a sample with so few misses still has
        probability above 1 - confidence (Clopper and Pearson 1934, hypergeometric since cells are
        drawn without replacement). 59 cells without a miss say, at 95 %, that fewer than 5 % of the
        rest were missed. Sampled cells are representative of the rest; the top ones are not.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])
    >>> clean, corrupt = torch.zeros(1, 4, 1), torch.zeros(1, 4, 1)
    >>> clean[0, 1] = 3.0
    >>> table = screen(tower, clean=clean, corrupt=corrupt, metric=lambda out: out[:, 0], top=2)
    >>> table.frame.query("chosen == 'screened'")[["layer", "pos", "value"]].to_numpy().tolist()
    [[0.0, 1.0, 3.0], [1.0, 1.0, 3.0]]
    >>> table.facts["missed_at_most"]
    0
    """
    task = filled(screen, PairedRuns, runs)
    clean, corrupt, metric, pairs = task.clean, task.corrupt, task.metric, task.pairs
    check_known("screen", "direction", [direction], DIRECTIONS, SpecificationError)
    _check_numbers(top, sample, confidence)
    check_inputs(clean, corrupt, None, pairs)
    names = find_sites(sites, tower.sites)
    base, donor = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    plan = make_plan(tower, names, base=base, n_donors=1, room=task, axes=axes)
    started = time.perf_counter()
    scores = node_scores(
        tower,
        clean=clean,
        corrupt=corrupt,
        metric=metric,
        sites=names,
        axes=axes,
        direction=direction,
        batch_size=plan.rows,
    )
    estimates = scores.double().cpu().numpy()
    chosen, screened = choose(estimates.mean(axis=1), top=top, sample=sample, seed=seed)
    cells = [plan.cells[number] for number in chosen]
    # a backward costs two forwards, and the donor runs once more for its activations
    cost = len(base) * (forwards_of(tower, cells) + 4)
    rehearse(tower, clean, corrupt, metric, replace(plan, cells=cells, forwards=cost))
    values = measure_cells(
        tower, cells, base=base, donors=[donor], metric=metric, rows=plan.rows, what="screen"
    )
    frame = frame_of(tower, cells, values, direction, pairs).assign(
        metric=name_of(metric),
        estimate=estimates[chosen].ravel(),
        chosen=np.repeat(np.where(screened, "screened", "sampled"), len(base)),
    )
    effects = (values.patched[0] - values.unpatched[0]).mean(axis=1)
    facts = {
        "axes": list(axes),
        "direction": direction,
        "dtype": str(clean.dtype),
        "method": METHOD,
        "seed": seed,
        **confirm(effects, screened, len(plan.cells), confidence=confidence),
        "rank_correlation": _rank_correlation(estimates.mean(axis=1)[chosen], effects, screened),
        "forwards": cost,
        "forwards_of_all": plan.forwards,
        "seconds": time.perf_counter() - started,
    }
    return Table("screen", frame, facts)


def choose(
    estimates: np.ndarray, *, top: int, sample: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the cells to measure, best estimates first, and which of them were screened.

    >>> chosen, screened = choose(np.array([0.1, -3.0, 0.0, 2.0]), top=2, sample=9, seed=0)
    >>> chosen.tolist()[:2], screened.tolist()
    ([1, 3], [True, True, False, False])
    """
    order = np.argsort(-np.abs(estimates), kind="stable")
    best, rest = order[:top], order[top:]
    drawn = rng("screened out", seed).permutation(rest)[:sample]
    chosen = np.concatenate([best, np.sort(drawn)])
    return chosen, np.arange(len(chosen)) < len(best)


def confirm(
    effects: np.ndarray, screened: np.ndarray, n_cells: int, *, confidence: float
) -> dict[str, object]:
    """How many cells the screening may have missed, from the exact effects of the chosen ones."""
    found, sampled = np.abs(effects[screened]), np.abs(effects[~screened])
    threshold, rest = float(found.min()), n_cells - int(screened.sum())
    # equal but for rounding is not above
    misses = int((sampled > threshold + 1e-9 * np.abs(effects).max()).sum())
    most = missed_at_most(misses, drawn=len(sampled), rest=rest, confidence=confidence)
    return {
        "cells": n_cells,
        "screened": int(screened.sum()),
        "sampled": len(sampled),
        "threshold": threshold,
        "missed_in_sample": misses,
        "missed_at_most": most,
        "share_missed_at_most": most / rest if rest else 0.0,
        "confidence": confidence,
        "largest_in_sample": float(sampled.max()) if len(sampled) else None,
    }


def missed_at_most(misses: int, *, drawn: int, rest: int, confidence: float = 0.95) -> int:
    """The largest number of misses among `rest` cells that `misses` among `drawn` still allow.

    >>> missed_at_most(0, drawn=59, rest=100_000) / 100_000 < 0.05
    True
    >>> missed_at_most(1, drawn=8, rest=8)
    1
    """
    if drawn == rest:
        return misses
    possible = range(misses, rest - (drawn - misses) + 1)

    def unlikelihood(n: int) -> float:
        """How unlikely it is to draw so few misses where there are `n`; it grows with `n`."""
        return 1 - float(hypergeom.cdf(misses, rest, n, drawn))

    return possible[bisect_left(possible, confidence, key=unlikelihood) - 1]


def _rank_correlation(
    estimates: np.ndarray, effects: np.ndarray, screened: np.ndarray
) -> float | None:
    """Over the sampled cells; None where there are too few, or all are alike."""
    one, two = estimates[~screened], effects[~screened]
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    return float(spearmanr(one, two).statistic)


def _check_numbers(top: int, sample: int, confidence: float) -> None:
    if top < 1 or sample < 0 or not 0 < confidence < 1:
        given = f"top={top}, sample={sample}, confidence={confidence}"
        right = "top of 1 or more, a sample of 0 or more, a confidence between 0 and 1"
        do = "keep the defaults, or give such numbers"
        raise SpecificationError("screen cells", given, right, do)
