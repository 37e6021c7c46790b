"""L1, across mixtures: means of accuracy and sharing correlated, whole mixtures permuted.

Neither the blocks nor the test domains of a mixture are independent of one another: taken one by
one they reject true nulls ten times too often. So each mixture is one unit, its mean over domains
and blocks, and whole mixtures are permuted. A model that is asked in two domains, as one of natural
pictures alone, counts once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import SampleError, ShapeError
from interp.core.seeds import rng
from interp.core.statistics.resampling import permutation_p
from interp.declared.writing import plural
from interp.verdicts.levels.permuting import SPEARMAN, correlation, permuted_interval, without
from interp.verdicts.levels.reliability import Panel, of_cells
from interp.verdicts.wording import Link

LEAST = {"mixture": 8}
"""With fewer mixtures no permutation test says anything worth its cost."""


def across_mixtures(
    sharing: ArrayLike,
    accuracy: ArrayLike,
    *,
    given: ArrayLike | None = None,
    names: Sequence[str] = (),
    sharing_error: ArrayLike | None = None,
    accuracy_error: ArrayLike | None = None,
    seed: int = 0,
    n_permutations: int = 4999,
) -> Link:
    """Spearman's correlation of mean accuracy with mean sharing over mixtures.

    Tables are "mixture domain block" (accuracy 0 to 1; NaN: not run). Cell means over blocks are
    centred within their domain and averaged over domains; blocks that a mixture lacks are left out,
    since their folds of classes are not the others'. With `given`, a number to hold constant,
    its ranks are taken out of both by least squares (partial rank correlation). p is two-sided,
    mixtures permuted jointly over domains and blocks (residuals, where something is given: Freedman
    and Lane 1983), and the interval holds what the same permutations do not rule out
    (`permuted_interval`). `sharing_error` and `accuracy_error` are squared standard errors of
    single models; with two blocks or more the blocks themselves say how reliable means are. A
    mixture that lacks a domain is left out.

    Raises `ShapeError` where tables do not agree, `SampleError` for fewer than three mixtures,
    mixtures without a block in common, or a number that is the same for all.

    >>> table = np.arange(10.0)[:, None, None] + np.zeros((10, 2, 3))
    >>> found = across_mixtures(table, table**2)
    >>> round(found.value, 2), found.p < 0.01, found.n
    (1.0, True, {'mixture': 10})
    """
    tables = panels("correlate mixtures", sharing, accuracy, given)
    kept = measured(tables)
    n = int(kept.sum())
    if n < 3:
        raise SampleError(
            "correlate mixtures",
            f"{n} {plural('mixture', n)} with both numbers in every domain",
            f"{LEAST['mixture']} or more",
            "train models on more mixtures",
        )
    chosen = in_common([each[kept] for each in tables])
    means = [mixture_means(each) for each in chosen]
    check_varies(means, "mixtures")
    value = float(rank_link(*means))
    left = [float(rank_link(*(np.delete(one, out) for one in means))) for out in range(n)]
    named = names_of(names, kept)
    opposite = np.flatnonzero(np.sign(left) == -np.sign(value))
    drawn = _permuted(means, seed, n_permutations)
    low, high = permuted_interval(value, drawn, bend=SPEARMAN, largest=largest_rho(n))
    reliability, kind, narrow = _trusted(chosen[:2], [sharing_error, accuracy_error], kept)
    return Link(
        value,
        low,
        high,
        permutation_p(abs(value) - 1e-9, np.abs(drawn)),
        {"mixture": n},
        LEAST,
        reliability=reliability,
        reliability_kind=kind,
        narrow=narrow,
        flips=named[opposite[0]] if len(opposite) else "",
    )


def mixture_means(table: Panel) -> np.ndarray:
    """One number per mixture: its cells, centred within their domain, averaged over domains.

    >>> mixture_means(np.array([[[1.0, 3.0], [5.0, 5.0]], [[4.0, 4.0], [9.0, 9.0]]])).tolist()
    [-1.5, 1.5]
    """
    cells = np.nanmean(table, axis=2)
    return np.asarray((cells - cells.mean(axis=0)).mean(axis=1))


def in_common(tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same tables "mixture domain block" without blocks that some mixture lacks.

    Means over different blocks differ by the blocks' folds of classes, which are no mixtures.

    Raises:
        SampleError: If mixtures have no block in common in some domain.

    >>> table = np.array([[[1.0, 2.0]], [[3.0, np.nan]]])
    >>> in_common([table])[0].tolist()
    [[[1.0, nan]], [[3.0, nan]]]
    """
    whole = np.all([np.isfinite(each).all(axis=0) for each in tables], axis=0)  # domain block
    if not whole.any(axis=1).all():
        right = "a block that all mixtures have, in every domain"
        do = "train the missing models, or leave mixtures out"
        raise SampleError("correlate mixtures", "mixtures without a block in common", right, do)
    return [np.where(whole, each, np.nan) for each in tables]


def measured(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Which mixtures have every number in every domain, in one block at least."""
    known = np.stack([np.isfinite(each).any(axis=2) for each in tables])
    return np.asarray(known.reshape(len(known), len(tables[0]), -1).all(axis=(0, 2)))


def names_of(names: Sequence[str], kept: np.ndarray) -> list[str]:
    """What the kept mixtures are called: by their names, or by number."""
    every = names or [f"mixture {place}" for place in np.cumsum(kept) - 1]
    return [name for name, is_kept in zip(every, kept, strict=True) if is_kept]


def panels(
    asked: str, sharing: ArrayLike, accuracy: ArrayLike, given: ArrayLike | None
) -> list[np.ndarray]:
    """Tables "mixture domain block" of sharing, accuracy and what is given, of one shape."""
    tables = [np.asarray(each, float) for each in (sharing, accuracy, given) if each is not None]
    shapes = {each.shape for each in tables}
    if len(shapes) > 1 or tables[0].ndim != 3:
        right = "one shape, mixture by domain by block"
        do = "give a number per mixture, domain and block, NaN where none was measured"
        raise ShapeError(asked, f"shapes {sorted(shapes)}", right, do)
    return tables


def check_varies(numbers: Sequence[np.ndarray], over: str) -> None:
    """Refuse numbers of which one is the same everywhere (but for rounding)."""
    for values, what in zip(
        numbers, ("sharing", "accuracy", "what is held constant"), strict=False
    ):
        if np.abs(values).max(initial=0) <= 1e-12:
            given = f"{what} that is the same for all {over}"
            do = "look whether it was measured at all"
            raise SampleError("correlate accuracy with sharing", given, "a number that varies", do)


def rank_link(x: np.ndarray, y: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
    """(Partial) rank correlations of numbers "... mixture".

    >>> x = np.array([1.0, 2.0, 4.0])
    >>> float(rank_link(x, -x))
    -1.0
    """
    a, b = (ranked(each) for each in (x, y))
    if z is not None:
        a, b = (without(each, ranked(z), axis=-1) for each in (a, b))
    return correlation(a, b, axis=-1, least=1e-9)


def ranked(values: np.ndarray) -> np.ndarray:
    """Centred ranks along the last axis, of values freed of rounding.

    Ties are real: without rounding, centring would break them at random.
    """
    scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-300)
    ranks = stats.rankdata(np.round(values / scale, 10), axis=-1)
    return ranks - ranks.mean(axis=-1, keepdims=True)


def largest_rho(n: int) -> float:
    """What a perfect order of n numbers counts as: half a swap of neighbours short of 1.

    artanh(1) is infinite; a study whose ranks agree but for one swap would otherwise be all the
    less certain for it.

    >>> round(largest_rho(10), 4)
    0.9939
    """
    return 1 - 6 / (n * (n**2 - 1))


def _permuted(means: Sequence[np.ndarray], seed: int, n_permutations: int) -> np.ndarray:
    """Correlations of permuted mixtures; what is held constant is taken out of residuals again."""
    ranks = [ranked(each) for each in means]
    if len(ranks) == 3:
        ranks[:2] = [without(each, ranks[2]) for each in ranks[:2]]
    tiled = np.tile(np.arange(len(means[0])), (n_permutations, 1))
    moved = ranks[0][rng("mixtures", seed).permuted(tiled, axis=1)]
    if len(ranks) == 3:
        moved = without(moved, ranks[2][None], axis=1)
    return np.nan_to_num(correlation(moved, ranks[1][None], axis=1))


def _trusted(
    tables: Sequence[Panel], errors: Sequence[ArrayLike | None], kept: np.ndarray
) -> tuple[float, str, str]:
    """The lower reliability of the two numbers, its source, and which hardly spreads.

    Both are means over domains. The squared errors of a model's domains are averaged, as if they
    erred together: the same classes are asked for in each.
    """
    found, narrow = [], ""
    for values, error, what in zip(tables, errors, ("sharing", "accuracy"), strict=True):
        square = None if error is None else np.asarray(error, dtype=float)[kept]
        whole = np.isfinite(values).all(axis=(0, 1))
        own = values[:, :, whole] if whole.any() else np.nanmean(values, axis=2, keepdims=True)
        own = own.mean(axis=1, keepdims=True)
        if square is not None:
            square = square[:, :, whole] if whole.any() else square
            known = np.isfinite(square).any()
            square = np.full(own.shape, np.nanmean(square)) if known else None
        reliability, noise, source = of_cells(own, square)
        found.append((reliability, f"{what}, by {source}" if source else ""))
        spread = float(np.ptp(own.mean(axis=2), axis=0).mean())
        if spread < 2 * np.sqrt(2 * noise):
            narrow = narrow or (
                f"{what} spreads over {spread:.3f} between mixtures, below two standard errors of "
                f"a difference ({2 * np.sqrt(2 * noise):.3f})"
            )
    if any(np.isnan(value) for value, _ in found):
        return np.nan, "", narrow
    return *min(found), narrow
