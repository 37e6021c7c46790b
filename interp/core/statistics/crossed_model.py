"""Contrasts of settings that were trained in the same blocks, by one crossed model.

A run is a setting in a block, and enters by its mean over test domains and classes. Settings of one
kind have one spread of setting x block, so that the runs of all of them tell how sure a contrast of
two is; three blocks alone would leave two degrees of freedom. `take_out` fits the same two ways as
fixed effects, for a slope within both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from interp.core.errors import SampleError
from interp.core.statistics.replication import (
    CROSSED,
    IN_SOME,
    ONE_BLOCK,
    mean_t,
    of_common_units,
    replicated,
)
from interp.core.statistics.resampling import Interval

CELL = ("test_domain", "seed", "label")
"""What a row of answers is about: test domain, block and class."""

ONE_RUN = "one block: no p, and no interval over runs"


@dataclass(frozen=True)
class ModelledContrast:
    """A contrast of settings: by the crossed model, and by the t of its own blocks.

    Args:
        interval: The contrast and its interval. With one block it is over the classes of these
            runs.
        p: Two-sided p of no difference, from the same t as the interval; NaN with one block.
        degrees: Degrees of freedom of that t.
        n_settings: Settings whose spread over blocks is in the interval.
        paired: The contrast with the interval of the paired t of its own blocks.
        paired_p: p of that t.
        unit: What the runs differ in: "class within block", "class x block", "class in some
            blocks", "block"; "class" with one block.
        n_units: How many of them there are.
        n_blocks: Number of blocks.
        reason: What was left out, and why a number is missing.
        by_classes: The share of its variance that classes add which blocks have in common. More
            blocks of the same classes do not lessen it.
    """

    interval: Interval
    p: float
    degrees: float
    n_settings: int
    paired: Interval
    paired_p: float
    unit: str = "block"
    n_units: int = 0
    n_blocks: int = 0
    reason: str = ""
    by_classes: float = 0.0

    def at(self, confidence: float) -> Interval:
        """The interval over runs that covers with another probability; none with one block."""
        return _interval(self.interval.value, self.interval.error, self.degrees, confidence)

    @property
    def columns(self) -> dict[str, float]:
        """What a table says of it beside its evidence."""
        return {
            "degrees": self.degrees,
            "n_settings": self.n_settings,
            "paired_low": self.paired.low,
            "paired_high": self.paired.high,
            "paired_p": self.paired_p,
        }


def contrast_of_means(
    means: Float[np.ndarray, "block setting"],
    weights: Float[np.ndarray, "setting"],
    kinds: Sequence[str] | None = None,
    *,
    classes: Float[np.ndarray, "unit block"] | None = None,
) -> ModelledContrast:
    """A contrast of settings from the mean of every run, by balanced analysis of variance.

    y(b, s) = setting(s) + block(b) + block x kind(b, k) + e(b, s),    var e = v(k)

    with v(k) = sum over b, s of (y(b, s) - mean(b, k) - mean(s) + mean(k))^2 / ((S_k - 1) (B - 1)).
    A contrast of weights w within one kind is sum w(s) mean(s), with

    se^2 = sum w(s)^2 v(k) / B,    t with (S_k - 1) (B - 1) degrees of freedom.

    Args:
        means: The mean of every run, without gaps.
        weights: The weight of each setting; 0 for those that only lend their spread.
        kinds: The kind of each setting; settings of one kind have one v. None: all are alike.
        classes: The contrast of each class in each block, where blocks have classes in common and
            these are a sample too; NaN where a block lacks a class.

    Returns:
        The contrast. With one block, or with nothing left to estimate a spread from, interval and p
        are NaN.

    Notes:
        Between kinds, what whole kinds do in a block counts as well: with W_k the sum of the
        weights in a kind, se^2 = sum_k v(k) sum (w(s) - W_k / S_k)^2 / B + var_b(sum_k W_k mean(b,
        k)) / B, and Satterthwaite's degrees of freedom. Where every kind has one setting, that is
        the paired t of blocks. Classes that blocks have in common make blocks alike: `classes` add
        the variance of these (`of_common_units`; of a full table var(class means) / C less the mean
        square of their cells / (B C)), where it is above 0.

        A setting whose runs vary more than those of its kind has too short an interval, one whose
        runs vary less too long a one; over the contrasts of a study the rates are right. `paired`
        does not share a spread, and is wide where blocks are few. It takes blocks for independent,
        so it is too short where they have classes in common.

    >>> means = np.array([[0.1, 0.3, 0.2], [0.2, 0.5, 0.2], [0.0, 0.1, 0.2]])
    >>> found = contrast_of_means(means, np.array([-1.0, 1.0, 0.0]))
    >>> round(found.interval.value, 3), round(found.interval.error, 4), found.degrees
    (0.2, 0.0816, 4.0)
    """
    means = np.asarray(means, dtype=float)
    weights = np.asarray(weights, dtype=float)
    own = means @ weights
    value, n_blocks = float(own.mean()), len(means)
    known = np.asarray([""] * means.shape[1] if kinds is None else kinds)
    parts, n_settings = _variances(means, weights, known)
    own_parts = len(parts)
    if classes is not None and n_blocks > 1:
        parts += _of_classes(np.asarray(classes, dtype=float))
    paired = mean_t(own)
    square = sum(part for part, _ in parts)
    by_classes = sum(part for part, _ in parts[own_parts:]) / square if square > 0 else 0.0
    spread = sum(part**2 / free for part, free in parts)
    # Satterthwaite's, which are (S - 1)(B - 1) where there is one part
    degrees = square**2 / spread if spread > 0 else float(sum(free for _, free in parts))
    if n_blocks == 2 and parts:  # what two runs say of their spread is too little to be added to
        degrees = min(degrees, *(free for _, free in parts))
    # a point where all runs agree but for rounding, and none where a part is not known (NaN)
    error = 0.0 if square <= 1e-30 * (1 + value**2) else float(np.sqrt(square))
    interval = _interval(value, error, degrees)
    return ModelledContrast(
        interval,
        _p(interval, degrees),
        degrees if n_blocks > 1 else np.nan,
        n_settings,
        paired,
        _p(paired, n_blocks - 1),
        n_units=n_blocks,
        n_blocks=n_blocks,
        reason="" if n_blocks > 1 else ONE_RUN,
        by_classes=by_classes,
    )


def _variances(
    means: np.ndarray, weights: np.ndarray, kinds: np.ndarray
) -> tuple[list[tuple[float, float]], int]:
    """Parts of a contrast's variance with their degrees of freedom, and the settings they are of.

    Within each kind, what setting x block says; between kinds, what whole kinds say.
    """
    n_blocks = len(means)
    if n_blocks < 2:
        return [], int((weights != 0).sum())
    parts: list[tuple[float, float]] = []
    between, n_settings, apart = np.zeros(n_blocks), 0, False
    for kind in dict.fromkeys(kinds[weights != 0]):
        own, w = means[:, kinds == kind], weights[kinds == kind]
        total, free = w.sum(), (own.shape[1] - 1) * (n_blocks - 1)
        rest = own - own.mean(axis=1, keepdims=True) - own.mean(axis=0) + own.mean()
        square = ((w - w.mean()) ** 2).sum() / n_blocks
        if free and square > 0:
            parts.append((float((rest**2).sum() / free * square), float(free)))
        if abs(total) > 1e-9:
            apart, between = True, between + total * own.mean(axis=1)
        n_settings += own.shape[1]
    if apart:
        parts.append((float(between.var(ddof=1) / n_blocks), n_blocks - 1.0))
    return parts, n_settings


def _of_classes(cells: np.ndarray) -> list[tuple[float, float]]:
    """What a sample of classes adds that blocks have in common: beyond the noise of their cells."""
    more = of_common_units(cells)
    again = int((np.isfinite(cells).sum(axis=1) > 1).sum())
    return [] if more <= 0 or again < 2 else [(more, again - 1.0)]


def _interval(value: float, error: float, degrees: float, confidence: float = 0.95) -> Interval:
    """value +/- t error; none without degrees of freedom."""
    if not degrees > 0:
        return Interval(value, np.nan, np.nan, np.nan)
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * error
    return Interval(value, error, value - reach, value + reach)


def _p(interval: Interval, degrees: float) -> float:
    """Two-sided p of the t whose interval this is: below .05 where 95 % leave zero out."""
    if np.isnan(interval.low):
        return float("nan")
    if interval.error == 0:
        return float(interval.value == 0)
    return float(2 * stats.t.sf(abs(interval.value) / interval.error, degrees))


def contrast_of_settings(
    answers: pd.DataFrame, weights: Mapping[str, float], *, kinds: Mapping[str, str] | None = None
) -> ModelledContrast:
    """A contrast of settings from the accuracy of every class, by the crossed model.

    Test domains are averaged: they are no repetitions, and a model that is asked in two domains is
    one model. Then `contrast_of_means` of what every run comes to.

    Args:
        answers: A column per setting; the index is `CELL`. A label "" stands for a number that is
            no mean over classes.
        weights: The weight of each setting of the contrast.
        kinds: The kind of a setting by name, "" for others. Only settings of one kind share a
            spread.

    Returns:
        The contrast; its reason says what was left out.

    Raises:
        SampleError: If the settings of the contrast have no class of a block in common.

    Notes:
        A class counts where all settings of the contrast answered it, and a block where they did in
        every test domain. Other settings lend their spread where they answered all of that. Where
        blocks have classes in common, these are a sample beside the blocks; where each has its own,
        they are part of what varies between blocks.

    >>> index = pd.MultiIndex.from_product([["sketch"], [0, 1, 2], ["cat", "dog"]], names=CELL)
    >>> high = [0.5, 0.7, 0.4, 0.6, 0.9, 0.7]
    >>> answers = pd.DataFrame({"high": high, "low": 0.3}, index=index)
    >>> found = contrast_of_settings(answers, {"high": 1.0, "low": -1.0})
    >>> round(found.interval.value, 3), found.unit, found.n_blocks
    (0.333, 'class x block', 3)
    """
    named = [name for name, weight in weights.items() if weight]
    common, notes = whole_blocks(answers[named])
    rows = answers.loc[common.index]
    gaps = common @ pd.Series(weights)[named]
    by_class = gaps.groupby(["seed", "label"]).mean()
    blocks = {seed: part.droplevel("seed") for seed, part in by_class.groupby("seed")}
    design = replicated(blocks)  # type: ignore[arg-type]
    again = design.unit in (CROSSED, IN_SOME)  # classes that stand in several blocks
    alike = [name for name in rows if name in named or rows[name].notna().all()]
    means = rows[alike].groupby(["seed", "test_domain"]).mean().groupby("seed").mean()
    found = contrast_of_means(
        means.to_numpy(),
        np.array([weights.get(str(name), 0.0) for name in alike]),
        [(kinds or {}).get(str(name), "") for name in alike],
        classes=by_class.unstack("seed").to_numpy() if again else None,
    )
    if set(rows.index.get_level_values("label")) == {""}:  # one number a run
        return replace(found, reason="; ".join(filter(None, [*notes, found.reason])))
    unknown = design.reason if np.isnan(found.interval.low) else ""
    if design.unit == ONE_BLOCK:
        found = replace(found, interval=design.interval)
        unknown = "" if design.n_units > 1 else "one class: no interval over classes either"
    reason = "; ".join(filter(None, [*notes, found.reason, unknown]))
    return replace(found, unit=design.unit, n_units=design.n_units, reason=reason)


def whole_blocks(answers: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows that all settings answered, of blocks where that is so in every test domain; and notes
    on what that leaves out."""
    rows = answers.dropna()
    if not len(rows):
        given = "no class of a block that all of them answered"
        do = "give models that answered the same question"
        raise SampleError("compare settings", given, "a class, block and test domain in common", do)
    seeds = rows.index.get_level_values("seed")
    asked = pd.Series(rows.index.get_level_values("test_domain"), index=seeds)
    n_domains = asked.groupby(level=0).nunique()
    whole = n_domains.index[n_domains == n_domains.max()]
    tried = answers.dropna(how="all").index.get_level_values("seed").nunique()
    gone = tried - len(whole)
    words = "1 block" if gone == 1 else f"{gone} blocks"
    notes = [f"{words} left out, where some setting or test domain is missing"] if gone else []
    return rows[seeds.isin(whole)], notes


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
