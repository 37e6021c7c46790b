"""Links of accuracy with sharing at the three levels that need no intervention.

L1, across mixtures: neither the blocks nor the test domains of a mixture are independent of one
another: taken one by one they reject true nulls ten times too often. So each mixture is one unit,
its mean over domains and blocks, and whole mixtures are permuted. A model that is asked in two
domains, as one of natural pictures alone, counts once.

L2, within mixtures: mixtures cannot confound it, since each is compared with itself; nor can the
classes that a block holds out, as far as they raise or lower all mixtures of the block alike: that
mean is taken out. Where easy classes raise good mixtures more than poor ones, it is not a link's
doing, and L2 takes it for one (docs/evidence.md, limits). Runs are what is permuted: the blocks of
a mixture, in all domains at once.

L3, within models: every model and every class is compared with itself, so that neither a mixture
nor an easy class can make the link. Errors are clustered by class and by model: classes that come
in groups which mixtures treat alike are not the independent cases that this takes them for.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import compress

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.core.seeds import rng
from interp.core.statistics.correlations import (
    SPEARMAN,
    Link,
    correlation,
    largest_rho,
    permuted_interval,
    rank_link,
    ranked,
    without,
)
from interp.core.statistics.crossed_model import clustered, take_out
from interp.core.statistics.reliability import (
    HALVES,
    INTERVALS,
    Kept,
    Panel,
    centred,
    complete_blocks,
    in_common,
    measured,
    mixture_means,
    of_cells,
    of_halves,
    panels,
)
from interp.core.statistics.resampling import permutation_p

LEAST = {"L1": {"mixture": 8}, "L2": {"block": 3}, "L3": {"class": 10, "run": 8}}
"""With fewer mixtures no permutation test says anything worth its cost; errors clustered by fewer
classes or runs are not to be trusted."""


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
    asked = "correlate mixtures"
    tables = panels(asked, sharing, accuracy, given)
    kept = measured(tables)
    n = int(kept.sum())
    if n < 3:
        counted = f"both numbers in every domain for {n} of {len(kept)} mixtures"
        right, do = f"{LEAST['L1']['mixture']} or more", "train models on more mixtures"
        raise SampleError(asked, counted, right, do)
    chosen = in_common([each[kept] for each in tables])
    means = [mixture_means(each) for each in chosen]
    check_varies(means, "is the same for all mixtures")
    value = float(rank_link(*means))
    drawn = _permuted_mixtures(means, seed, n_permutations)
    low, high = permuted_interval(value, drawn, bend=SPEARMAN, largest=largest_rho(n))
    errors = [e if e is None else np.asarray(e)[kept] for e in (sharing_error, accuracy_error)]
    reliability, kind, narrow = _trusted(chosen[:2], errors)
    named = _names(names, kept)
    return Link(
        value,
        low,
        high,
        permutation_p(abs(value) - 1e-9, np.abs(drawn)),
        {"mixture": n},
        LEAST["L1"],
        reliability=reliability,
        reliability_kind=kind,
        narrow=narrow,
        flips=_flips(value, named, lambda out: rank_link(*(np.delete(m, out) for m in means))),
    )


def _names(names: Sequence[str], kept: np.ndarray) -> list[str]:
    """What the kept mixtures are called: by their names, or by number."""
    return list(compress(names or [f"mixture {place}" for place in np.cumsum(kept) - 1], kept))


def check_varies(numbers: Iterable[np.ndarray], how: str, least: float = 1e-12) -> None:
    """Refuse numbers of which one is the same everywhere (but for rounding)."""
    names = ("sharing", "accuracy", "what is held constant")
    for values, what in zip(numbers, names, strict=False):
        if np.abs(values).max(initial=0) <= least:
            do = "look whether it was measured at all"
            given = f"{what} that {how}"
            raise SampleError("correlate accuracy with sharing", given, "a number that varies", do)


def _flips(value: float, names: Sequence[str], left_out: Callable[[int], ArrayLike]) -> str:
    """The first mixture without which the sign is another."""
    for place, name in enumerate(names if len(names) > 2 else ()):
        if np.sign(left_out(place)) == -np.sign(value):
            return str(name)
    return ""


def _permuted_mixtures(means: Sequence[np.ndarray], seed: int, n_permutations: int) -> np.ndarray:
    """Correlations of permuted mixtures; what is held constant is taken out of residuals again."""
    ranks = [ranked(each) for each in means]
    first, second = freed(ranks)
    tiled = np.tile(np.arange(len(first)), (n_permutations, 1))
    moved = first[rng("mixtures", seed).permuted(tiled, axis=1)]
    for each in ranks[2:]:
        moved = without(moved, each[None], axis=1)
    return np.nan_to_num(correlation(moved, second[None], axis=1))


def _trusted(
    tables: Sequence[Panel], errors: Sequence[np.ndarray | None]
) -> tuple[float, str, str]:
    """The lower reliability of the two numbers, its source, and which hardly spreads.

    Both are means over domains. The squared errors of a model's domains are averaged, as if they
    erred together: the same classes are asked for in each.
    """
    found, narrow = [], ""
    for values, square, what in zip(tables, errors, ("sharing", "accuracy"), strict=True):
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
    slope and correlation, which are told as they are, with the reliability beside them: of
    `halves`, sharing on two halves that have no picture in common; else from `sharing_error`, the
    squared standard errors of single models, which count the choice of classes too: it is then at
    least what is said. p is two-sided: in every mixture by itself the blocks of sharing are
    permuted, in all domains at once, and folds taken out again. The interval holds what the same
    permutations do not rule out (`permuted_interval`).

    Every mixture needs every block: of what was run, those are taken that leave most to compare
    (`complete_blocks`). Raises `ShapeError` where tables do not agree and `SampleError` for fewer
    than two mixtures or blocks, or a number that does not vary.

    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(4, 2, 6))
    >>> found = within_mixtures(x, 0.1 * x, halves=(x, x))
    >>> round(found.value, 3), round(found.slope, 3), found.n
    (1.0, 0.1, {'block': 6})
    """
    tables = panels("compare blocks", sharing, accuracy, given)
    kept = complete_blocks(tables)
    mixtures, blocks = (int(each.sum()) for each in kept)
    if min(mixtures, blocks) < 2:
        raise SampleError(
            "compare blocks",
            f"both numbers for {mixtures} of {len(kept[0])} mixtures "
            f"in {blocks} of {len(kept[1])} blocks",
            f"two mixtures or more in {LEAST['L2']['block']} blocks",
            "repeat the study in more blocks",
        )
    chosen = [_selected(each, kept) for each in tables]
    own = [centred(each) for each in chosen]
    check_varies(own, "is the same for all blocks of a mixture")
    x, y = freed(own)
    value = float(correlation(x, y))
    free = x.shape[1] * (mixtures - 1) * (blocks - 1)
    reliability, kind = _reliability(kept, own[0], halves, sharing_error, float((x**2).sum()), free)
    drawn = _permuted_blocks([x, y, *own[2:]], seed, n_permutations)
    ends = permuted_interval(value, drawn)

    def without_mixture(out: int) -> np.ndarray:
        return correlation(*freed([centred(np.delete(each, out, axis=0)) for each in chosen]))

    return Link(
        value,
        *ends,
        permutation_p(abs(value) - 1e-9, np.abs(drawn)),
        {"block": blocks},
        LEAST["L2"],
        slope=float((x * y).sum() / (x**2).sum()),
        reliability=reliability,
        reliability_kind=kind,
        flips=_flips(value, _names(names, kept[0]), without_mixture),
    )


def freed(numbers: list[np.ndarray]) -> list[np.ndarray]:
    """The first two numbers, less what the third explains of them."""
    return [without(each, numbers[2]) for each in numbers[:2]] if numbers[2:] else numbers


def _selected(table: np.ndarray, kept: Kept) -> Panel:
    return table[kept[0]][:, :, kept[1]]


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
        two = [_selected(np.asarray(each, dtype=float), kept) for each in halves]
        if np.isfinite(two).all():
            known = of_halves(*(centred(each) for each in two))
            return max(1 - (1 - known) * total / left, 0.0), HALVES
    if square_error is not None:
        noise = _selected(np.asarray(square_error, dtype=float), kept)
        if np.isfinite(noise).any():
            return max(1 - float(np.nanmean(noise)) / (left / free), 0.0), INTERVALS
    return np.nan, ""


def _permuted_blocks(own: Sequence[Panel], seed: int, n_permutations: int) -> np.ndarray:
    """Correlations of residuals with the blocks of each mixture permuted, in all domains at once.

    What had been taken out of sharing (folds, and what is held constant) is taken out again.
    """
    x, y, *given = own
    mixtures, _, blocks = x.shape
    tiled = np.tile(np.arange(blocks), (n_permutations, mixtures, 1))
    orders = rng("blocks of each mixture", seed).permuted(tiled, axis=2)
    moved = np.take_along_axis(x[None], orders[:, :, None, :], axis=3)
    moved = moved - moved.mean(axis=1, keepdims=True)
    for each in given:
        moved = without(moved, each[None], axis=(1, 2, 3))
    return np.nan_to_num(correlation(moved, y[None], axis=(1, 2, 3)))


def among_classes(
    sharing: ArrayLike,
    accuracy: ArrayLike,
    *,
    label: ArrayLike,
    run: ArrayLike,
    natural: ArrayLike | None = None,
    halves: tuple[ArrayLike, ArrayLike] | None = None,
    mixture: ArrayLike | None = None,
) -> Link:
    """Slope of a class's accuracy on its sharing, with fixed effects of class and run.

        accuracy = b sharing + g natural + class + run + rest

    One row per class and run (a run is one model asked in one domain): accuracy 0 to 1, sharing of
    the class beyond that with other classes, accuracy of the class in natural pictures. Errors are
    clustered by class and by run (Cameron, Gelbach and Miller 2011) and not taken below the larger
    of the two; t has as many degrees of freedom as the smaller number of clusters, less one. value
    is the partial correlation b sd(x) / sd(y), and reliability that of `halves`, sharing on two
    halves without a common picture. The sign is looked at again without each `mixture`.

    Raises `ShapeError` for columns of different lengths, `NumericsError` for missing numbers,
    `SampleError` for fewer than three classes or two runs, or a number that does not vary.

    >>> label, run = np.repeat(np.arange(12), 9), np.tile(np.arange(9), 12)
    >>> x = np.random.default_rng(0).normal(size=108)
    >>> found = among_classes(x, 0.2 * x + label, label=label, run=run, halves=(x, x))
    >>> round(found.value, 3), round(found.slope, 3), found.n
    (1.0, 0.2, {'class': 12, 'run': 9})
    """
    columns = {"sharing": sharing, "accuracy": accuracy}
    columns |= {} if natural is None else {"natural accuracy": natural}
    numbers = {name: np.asarray(each, dtype=float) for name, each in columns.items()}
    codes = [np.unique(np.asarray(each), return_inverse=True)[1] for each in (label, run)]
    _check_columns(numbers, codes)
    n = {"class": int(codes[0].max()) + 1, "run": int(codes[1].max()) + 1}
    own = take_out(list(numbers.values()), codes)
    check_varies([own.x, own.y], "does not vary within classes and runs", 1e-9)
    square = float((own.x**2).sum())
    error, degrees = clustered(own), min(n.values()) - 1
    scale = float(np.sqrt(square / (own.y**2).sum()))
    reliability, kind = np.nan, ""
    if halves is not None and np.isfinite(np.asarray(halves, dtype=float)).all():
        others = list(numbers.values())[2:]
        two = [take_out([np.asarray(each, float), *others], codes, lone=True).x for each in halves]
        reliability, kind = of_halves(*two), HALVES
    reach = float(stats.t.ppf(0.975, degrees)) * error
    p = float(2 * stats.t.sf(abs(own.slope) / error, degrees)) if error > 0 else 0.0
    mixtures = np.asarray([] if mixture is None else mixture)

    def without_mixture(out: int) -> float:
        rest = mixtures != list(dict.fromkeys(mixtures.tolist()))[out]
        kept = [np.unique(code[rest], return_inverse=True)[1] for code in codes]
        return take_out([each[rest] for each in numbers.values()], kept).slope

    return Link(
        own.slope * scale,
        (own.slope - reach) * scale,
        (own.slope + reach) * scale,
        p,
        n,
        LEAST["L3"],
        slope=own.slope,
        reliability=reliability,
        reliability_kind=kind,
        flips=_flips(own.slope, list(dict.fromkeys(mixtures.tolist())), without_mixture),
    )


def _check_columns(numbers: dict[str, np.ndarray], codes: Sequence[np.ndarray]) -> None:
    lengths = {each.shape for each in (*numbers.values(), *codes)}
    if len(lengths) > 1 or numbers["sharing"].ndim != 1:
        given = f"columns of shapes {sorted(lengths)}"
        raise ShapeError("compare classes", given, "one length", "give a row per class and run")
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            given = f"{name} that is missing in {(~np.isfinite(values)).sum()} rows"
            right = "a number in every row"
            raise NumericsError("compare classes", given, right, "leave those rows out")
    classes, runs = (int(each.max(initial=-1)) + 1 for each in codes)
    if classes < 3 or runs < 2:
        given = f"classes = {classes}, runs = {runs}"
        right = f"{LEAST['L3']['class']} classes in {LEAST['L3']['run']} runs"
        do = "hold out more classes, or train more models"
        raise SampleError("compare classes", given, right, do)
