"""L2, within mixtures: the slope of accuracy on sharing over repetitions of a mixture.

Mixtures cannot confound it, since each is compared with itself; nor can the classes that a block
holds out, since they are the same for all mixtures of the block.
"""

from collections.abc import Sequence
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.verdicts.l1_mixtures import check_panels, check_varies, fisher_interval
from interp.verdicts.reliability import HALVES, INTERVALS, Panel, centred, of_halves
from interp.verdicts.wording import RELIABLE, Link, plural

LEAST = {"block": 6}


def within_mixtures(
    sharing: ArrayLike,
    accuracy: ArrayLike,
    *,
    given: ArrayLike | None = None,
    halves: tuple[ArrayLike, ArrayLike] | None = None,
    sharing_error: ArrayLike | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
    n_permutations: int = 4999,
) -> Link:
    """Slope of accuracy on sharing over blocks, with the effects of cells and folds taken out.

    Tables are "mixture domain block". Of every number its cell's mean (mixture and domain) and its
    fold's (block and domain) are taken out, and `given` by least squares. Noise in sharing flattens
    a slope b, so slope = b / reliability, and value = r / sqrt(reliability): the correlation of
    accuracy with sharing as it would be measured without noise. Reliability is known from `halves`,
    sharing on two halves that have no picture in common; else from `sharing_error`, the squared
    standard errors of single models, which count the choice of classes too: reliability is then at
    least what is said. Below .6 nothing is divided. Intervals leave one block out at a time; p is
    two-sided, whole blocks permuted over all cells at once (all orders, where there are few).

    Mixtures that lack a block are left out. Raises `ShapeError` where tables do not agree and
    `SampleError` for fewer than two mixtures or blocks, or a number that does not vary.

    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(4, 2, 6))
    >>> found = within_mixtures(x, 0.1 * x, halves=(x, x))
    >>> round(found.value, 3), round(found.slope, 3), found.n
    (1.0, 0.1, {'block': 6})
    """
    tables = [np.asarray(each, dtype=float) for each in (sharing, accuracy)]
    tables += [np.asarray(given, dtype=float)] if given is not None else []
    check_panels(tables, "compare blocks")
    kept = complete_blocks(tables)
    mixtures, blocks = (int(each.sum()) for each in kept)
    if min(mixtures, blocks) < 2:
        raise SampleError(
            "compare blocks",
            f"{mixtures} {plural('mixture', mixtures)} run in {blocks} {plural('block', blocks)}",
            f"two mixtures or more in {LEAST['block']} blocks",
            "repeat the study in more blocks",
        )
    own = [centred(_kept(each, kept)) for each in tables]
    for one, what in zip(own, ("sharing", "accuracy", "what is held constant"), strict=False):
        check_varies(one, what, "blocks of a mixture")
    rows = [by_block(each) for each in own]
    found, left = block_link(rows)
    value = float(found)
    x = rows[0] if given is None else _less(rows[0], rows[2])
    y = rows[1] if given is None else _less(rows[1], rows[2])
    free = x.shape[1] * (1 - 1 / mixtures) * (blocks - 1)
    reliability, kind = _reliability(kept, own[0], halves, sharing_error, float((x**2).sum()), free)
    divisor = reliability if reliability >= RELIABLE else 1.0
    root = float(np.sqrt(divisor))
    ends = fisher_interval(value, left) if blocks > 2 else (np.nan, np.nan)
    return Link(
        value / root,
        ends[0] / root,
        ends[1] / root,
        _permuted(rows, seed, n_permutations),
        {"block": blocks},
        LEAST,
        slope=float((x * y).sum() / (x**2).sum()) / divisor,
        reliability=reliability,
        reliability_kind=kind,
        flips=_flips([_kept(each, kept) for each in tables], value, names, kept[0]),
    )


Kept = tuple[np.ndarray, np.ndarray]


def complete_blocks(tables: Sequence[Panel]) -> Kept:
    """Which blocks any mixture was run in, and which mixtures were run in all of those."""
    known = np.all([np.isfinite(each).all(axis=1) for each in tables], axis=0)
    blocks = known.any(axis=0)
    return known[:, blocks].all(axis=1), blocks


def _kept(table: np.ndarray, kept: Kept) -> Panel:
    return table[kept[0]][:, :, kept[1]]


def by_block(table: Panel) -> np.ndarray:
    """A row per block, a column per cell."""
    return table.transpose(2, 0, 1).reshape(table.shape[2], -1)


def block_link(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Correlation over rows "... block cell" that are centred over blocks; and without each block.

    Without a block, the sums of centred products fall by B / (B - 1) times the block's own.
    """
    sums, own = {}, {}
    places = range(len(rows))
    blocks = rows[0].shape[-2]
    for i in places:
        for j in places[i:]:
            product = (rows[i] * rows[j]).sum(axis=-1)
            own[i, j] = product
            sums[i, j] = product.sum(axis=-1)
    value = _partial(sums)
    left = _partial({
        pair: sums[pair][..., None] - blocks / (blocks - 1) * own[pair] for pair in sums
    })  # fmt: skip
    return value, left


def _partial(sums: dict[tuple[int, int], Any]) -> np.ndarray:
    """(Partial) correlation from sums of products."""
    xy, xx, yy = sums[0, 1], sums[0, 0], sums[1, 1]
    if (2, 2) in sums:
        zz = np.maximum(sums[2, 2], 1e-300)
        xy = xy - sums[0, 2] * sums[1, 2] / zz
        xx, yy = xx - sums[0, 2] ** 2 / zz, yy - sums[1, 2] ** 2 / zz
    size = np.sqrt(np.maximum(xx, 0) * np.maximum(yy, 0))
    alive = size > 1e-15
    return np.where(alive, xy / np.where(alive, size, 1.0), np.nan)


def _less(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Residuals of values on another number, over the whole table."""
    return values - (values * given).sum() / (given**2).sum() * given


def _reliability(
    kept: Kept,
    sharing: Panel,
    halves: tuple[ArrayLike, ArrayLike] | None,
    square_error: ArrayLike | None,
    left: float,
    free: float,
) -> tuple[float, str]:
    """Reliability of sharing within cells and folds, `left` being its sum of squares there.

    What is held constant takes true differences out, never noise: its share of noise grows.
    """
    total = float((sharing**2).sum())
    if halves is not None:
        two = [_kept(np.asarray(each, dtype=float), kept) for each in halves]
        if np.isfinite(two).all():
            known = of_halves(*(centred(each) for each in two))
            return max(1 - (1 - known) * total / left, 0.0), HALVES
    if square_error is not None:
        noise = _kept(np.asarray(square_error, dtype=float), kept)
        if np.isfinite(noise).any():
            return max(1 - float(np.nanmean(noise)) / (left / free), 0.0), INTERVALS
    return np.nan, ""


def _permuted(rows: Sequence[np.ndarray], seed: int, n_permutations: int) -> float:
    """Two-sided p, blocks of sharing permuted for all cells at once."""
    blocks = len(rows[0])
    few = factorial(blocks) <= n_permutations + 1
    if few:
        orders = np.array(list(permutations(range(blocks))))
    else:
        tiled = np.tile(np.arange(blocks), (n_permutations, 1))
        drawn = rng("blocks", seed).permuted(tiled, axis=1)
        orders = np.vstack([np.arange(blocks), drawn])
    own = list(rows[:2])
    if len(rows) == 3:
        own = [_less(each, rows[2]) for each in own]
    found = (own[0] @ own[1].T)[orders, np.arange(blocks)].sum(axis=1)
    square = np.full(len(orders), (own[0] ** 2).sum())
    if len(rows) == 3:
        along = (own[0] @ rows[2].T)[orders, np.arange(blocks)].sum(axis=1)
        square = square - along**2 / (rows[2] ** 2).sum()
    size = np.abs(found) / np.sqrt(np.maximum(square, 1e-300))
    return float((size >= size[0] * (1 - 1e-9)).mean())


def _flips(tables: Sequence[Panel], value: float, names: Sequence[str], kept: np.ndarray) -> str:
    """The first mixture without which the sign is another."""
    n = len(tables[0])
    named = [name for name, is_kept in zip(names, kept, strict=True) if is_kept] if names else []
    for out in range(n if n > 2 else 0):
        rows = [by_block(centred(np.delete(each, out, axis=0))) for each in tables]
        if np.sign(block_link(rows)[0]) == -np.sign(value):
            return named[out] if named else f"mixture {out}"
    return ""
