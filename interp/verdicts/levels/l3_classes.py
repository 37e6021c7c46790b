"""L3, within models: accuracy of the classes of a model regressed on their sharing.

Every model and every class is compared with itself, so that neither a mixture nor an easy class can
make the link. Errors are clustered by class and by model: classes that come in groups which
mixtures treat alike are not the independent cases that this takes them for (docs/evidence.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.declared.writing import plural
from interp.verdicts.levels.reliability import HALVES, of_halves
from interp.verdicts.wording import RELIABLE, Link

LEAST = {"class": 10, "run": 8}
"""Errors clustered by fewer classes or runs than these are not to be trusted."""


@dataclass(frozen=True)
class Within:
    """Numbers with their class's and their run's effect taken out, and who they belong to.

    x: sharing, y: accuracy, both also less what natural accuracy explains; scores: x times the
    residual of y, summed over each class and each run.
    """

    x: np.ndarray
    y: np.ndarray
    slope: float
    by_class: np.ndarray
    by_run: np.ndarray


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
    is the partial correlation b sd(x) / sd(y); with `halves`, sharing on two halves without a
    common picture, value / sqrt(reliability) and b / reliability, from a reliability of .6. The
    sign is looked at again without each `mixture`.

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
    _check(numbers, codes)
    n = {"class": int(codes[0].max()) + 1, "run": int(codes[1].max()) + 1}
    own = take_out(list(numbers.values()), codes)
    for name, values in zip(("sharing", "accuracy"), (own.x, own.y), strict=True):
        if (values**2).sum() <= 1e-18 * len(values):
            given = f"{name} that does not vary within classes and runs"
            do = "look whether it was measured at all"
            raise SampleError("compare classes", given, "a number that varies", do)
    square = float((own.x**2).sum())
    error, degrees = clustered(own), min(n.values()) - 1
    ratio = float(np.sqrt(square / (own.y**2).sum()))
    reliability, kind = np.nan, ""
    if halves is not None and np.isfinite(np.asarray(halves, dtype=float)).all():
        others = list(numbers.values())[2:]
        two = [take_out([np.asarray(each, float), *others], codes, lone=True).x for each in halves]
        reliability, kind = of_halves(*two), HALVES
    divisor = reliability if reliability >= RELIABLE else 1.0
    scale = ratio / float(np.sqrt(divisor))
    reach = float(stats.t.ppf(0.975, degrees)) * error
    p = float(2 * stats.t.sf(abs(own.slope) / error, degrees)) if error > 0 else 0.0
    return Link(
        own.slope * scale,
        (own.slope - reach) * scale,
        (own.slope + reach) * scale,
        p,
        n,
        LEAST,
        slope=own.slope / divisor,
        reliability=reliability,
        reliability_kind=kind,
        flips=_flips(list(numbers.values()), codes, own.slope, mixture),
    )


def _check(numbers: dict[str, np.ndarray], codes: Sequence[np.ndarray]) -> None:
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
        given = f"{classes} {plural('class', classes)} in {runs} {plural('run', runs)}"
        right = f"{LEAST['class']} classes in {LEAST['run']} runs"
        do = "hold out more classes, or train more models"
        raise SampleError("compare classes", given, right, do)


def take_out(
    numbers: Sequence[np.ndarray], codes: Sequence[np.ndarray], *, lone: bool = False
) -> Within:
    """Take the effects of class and run out of sharing, accuracy and natural accuracy.

    Class means and run means are taken out in turn until nothing changes; then natural accuracy is
    taken out of the other two (Frisch, Waugh and Lovell). `lone` numbers have no accuracy.
    """
    free = [_two_way(each, codes) for each in numbers]
    if lone:
        free.insert(1, free[0])
    x, y = free[:2]
    if len(free) == 3 and (free[2] ** 2).sum() > 1e-18:
        x, y = (each - (each @ free[2]) / (free[2] @ free[2]) * free[2] for each in (x, y))
    square = float(x @ x)
    slope = float(x @ y) / square if square > 0 else np.nan
    scores = x * (y - slope * x)
    by_class, by_run = (np.bincount(code, weights=scores) for code in codes)
    return Within(x, y, slope, by_class, by_run)


def _two_way(values: np.ndarray, codes: Sequence[np.ndarray]) -> np.ndarray:
    own = values - values.mean()
    sizes = [np.bincount(code) for code in codes]
    for _ in range(2000):
        before = own
        for code, size in zip(codes, sizes, strict=True):
            own = own - (np.bincount(code, weights=own) / size)[code]
        if np.abs(own - before).max() < 1e-13 * max(1.0, np.abs(values).max()):
            break
    return own


def clustered(own: Within) -> float:
    """Standard error of the slope: by class + by run - by row, at least the larger of the two."""
    scores = own.x * (own.y - own.slope * own.x)
    parts = [
        (each**2).sum() * len(each) / max(len(each) - 1, 1)
        for each in (own.by_class, own.by_run, scores)
    ]
    square = max(parts[0], parts[1], parts[0] + parts[1] - parts[2])
    return float(np.sqrt(square)) / float((own.x**2).sum())


def _flips(
    numbers: Sequence[np.ndarray],
    codes: Sequence[np.ndarray],
    slope: float,
    mixture: ArrayLike | None,
) -> str:
    """The first mixture without which the sign is another."""
    if mixture is None:
        return ""
    names = np.asarray(mixture)
    every = dict.fromkeys(names.tolist())
    for name in every if len(every) > 2 else ():
        rest = names != name
        kept = [np.unique(code[rest], return_inverse=True)[1] for code in codes]
        found = take_out([each[rest] for each in numbers], kept)
        if np.sign(found.slope) == -np.sign(slope):
            return str(name)
    return ""
