"""Screen and verify: gradients rank all cells, exact patching measures those that matter.

How many cells the gradients missed is not assumed but bounded, by measuring a random sample of the
cells that they left out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import hypergeom, spearmanr
from torch import Tensor

from interp.circuits.gradients import METHOD, node_scores
from interp.circuits.metrics import name_of
from interp.circuits.runs import forwards_of, make_plan, measure_cells, resolve_sites
from interp.circuits.sweep import DIRECTIONS, MEMORY, check_inputs, frame_of, rehearse
from interp.core.errors import SpecificationError, check_known
from interp.core.images import Pairs
from interp.core.model import Tower
from interp.core.seeds import rng
from interp.core.tables import Table


def screen(
    tower: Tower,
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    axes: Sequence[str] = ("layer", "pos"),
    top: int = 10,
    sample: int = 59,
    confidence: float = 0.95,
    direction: str = "denoise",
    pairs: Pairs | None = None,
    seed: int = 0,
    batch_size: int = 32,
    memory: int = MEMORY,
) -> Table:
    """Patch only the cells that gradients point at, and say how many others they may have missed.

    Attribution patching estimates every cell's effect from one forward and backward. The `top`
    cells by |mean estimate| are patched exactly, as `sweep` would, and so are `sample` of the rest,
    drawn at random. A missed cell is one of the rest whose |mean effect| is above `threshold`, the
    smallest of the top cells'. `missed_at_most` bounds their number with the given confidence: the
    largest M for which a sample with so few misses still has probability above 1 - confidence
    (Clopper and Pearson 1934, hypergeometric since cells are drawn without replacement). 59 cells
    without a miss say, at 95 %, that fewer than 5 % of the rest were missed.

    The table has the rows and columns of `sweep` for the measured cells, with `estimate` and
    `chosen` beside them; `facts` hold `cells`, `threshold`, `missed_in_sample`, `missed_at_most`,
    `share_missed_at_most`, `rank_correlation` (Spearman's, estimate against effect, over the
    sample) and `forwards` beside `forwards_of_all`. Sampled cells are representative of the rest;
    the top ones are not.

    Raises what `sweep` and `node_scores` raise, and `SpecificationError` for numbers out of range.

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
    check_known("screen", "direction", [direction], DIRECTIONS, SpecificationError)
    _check_numbers(top, sample, confidence)
    check_inputs(clean, corrupt, None, pairs)
    names = resolve_sites(tower, sites)
    base, donor = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    words: dict[str, Any] = {"batch_size": batch_size, "axes": axes}
    plan = make_plan(tower, names, base=base, n_donors=1, memory=memory, **words)
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
) -> dict[str, Any]:
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
    possible = np.arange(misses, rest - (drawn - misses) + 1)
    chance = hypergeom.cdf(misses, rest, possible, drawn)
    return int(possible[chance > 1 - confidence].max())


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
        raise SpecificationError(
            "screen cells",
            f"top={top}, sample={sample}, confidence={confidence}",
            "top of 1 or more, a sample of 0 or more, a confidence between 0 and 1",
            "keep the defaults, or give such numbers",
        )
