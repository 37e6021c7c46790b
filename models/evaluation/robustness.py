"""Effective robustness: accuracy outside a domain beyond what accuracy inside it predicts.

Models of one kind lie near a line of out-of-domain against in-domain accuracy on logit axes (Taori
et al. 2020). Effective robustness is how far a model lies above the line of reference models.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from interp.core.errors import SampleError
from interp.core.faces.doors import door
from interp.models.evaluation.accuracy import TOP_1

MODEL = ("setting", "test_domain", "seed", "control", "epoch")
FEWEST = 4
"""Reference models without which no line is fitted: two degrees of freedom for its spread."""


@dataclass(frozen=True)
class Line:
    """Least squares y = intercept + slope x, with what its intervals need.

    Args:
        intercept: Value at x = 0.
        slope: Change of y per unit of x.
        spread: Residual standard deviation, with n - 2 degrees of freedom.
        mean: Mean of x.
        square: Sum of squared deviations of x from its mean.
        n: Number of points.
    """

    intercept: float
    slope: float
    spread: float
    mean: float
    square: float
    n: int

    @classmethod
    def fit(cls, x: ArrayLike, y: ArrayLike) -> "Line":
        """Fit a line to points.

        Args:
            x: Coordinates, at least four that are not all equal.
            y: Values.

        Returns:
            The line.

        Raises:
            SampleError: With fewer than four points or a single x.
        """
        a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        if len(a) < FEWEST or np.ptp(a) == 0:
            given = f"{len(a)} models with {len(np.unique(a))} in-domain accuracies"
            right = f"{FEWEST} models that differ"
            do = "name more reference models, or more of their epochs"
            raise SampleError("fit a line through reference models", given, right, do)
        square = float(((a - a.mean()) ** 2).sum())
        slope = float(((a - a.mean()) * (b - b.mean())).sum() / square)
        intercept = float(b.mean() - slope * a.mean())
        rest = b - intercept - slope * a
        spread = float(np.sqrt((rest**2).sum() / (len(a) - 2)))
        return cls(intercept, slope, spread, float(a.mean()), square, len(a))

    def at(self, x: ArrayLike) -> np.ndarray:
        """The value of the line at x."""
        return np.asarray(self.intercept + self.slope * np.asarray(x, dtype=float))

    def reach(self, x: ArrayLike, *, of_model: bool, confidence: float = 0.95) -> np.ndarray:
        """Half width of the interval of the line, or of one more model about it.

        t_{n-2} s sqrt([1 +] 1/n + (x - mean)^2 / sum of squares).

        Args:
            x: Where to take it.
            of_model: Whether the interval is of one more model rather than of the line.
            confidence: Coverage of the interval.

        Returns:
            The half width at each x.
        """
        far = (np.asarray(x, dtype=float) - self.mean) ** 2 / self.square
        t = stats.t.ppf((1 + confidence) / 2, self.n - 2)
        return np.asarray(t * self.spread * np.sqrt(float(of_model) + 1 / self.n + far))


def logit(share: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Log odds of a share, with half a picture added on either side so that 0 and 1 stay finite.

    log((share n + 1/2) / (n - share n + 1/2)).

    Args:
        share: Shares from 0 to 1.
        n: Number of pictures behind each.

    Returns:
        Log odds.

    >>> round(float(logit(0.5, 10)), 6), bool(np.isfinite(logit(1.0, 10)))
    (0.0, True)
    """
    right = np.asarray(share, dtype=float) * np.asarray(n, dtype=float)
    odds = (right + 0.5) / (np.asarray(n, dtype=float) - right + 0.5)
    return np.asarray(np.log(odds))


@door
def robustness(
    accuracy: pd.DataFrame,
    *,
    inside: str,
    outside: str,
    reference: Callable[[pd.DataFrame], pd.Series],
    class_set: str = "all",
    prompts: str = "neutral",
    classifier: str = "text",
) -> pd.DataFrame:
    """How far each model's accuracy in one domain lies above what another domain predicts.

    Args:
        accuracy: The accuracy table of all models, with `setting`, `test_domain`, `seed`, and
            `control` and `epoch` where they tell models apart.
        inside: The domain that predicts.
        outside: The domain that is predicted.
        reference: Marks the rows of the models that the line is fitted to, for example `lambda
            rows: rows.setting == "natural-only"`.
        class_set: The class set compared.
        prompts: The prompt set compared.
        classifier: The classifier compared.

    Returns:
        A row per model. `value` is its accuracy outside minus the line's (`expected`), as a share.
        `low` and `high` subtract the ends of the 95 % prediction interval of one more reference
        model. `p` is the two-sided t of the same. `expected_low` and `expected_high` are the
        interval of the line itself.

    Raises:
        SampleError: With fewer than four reference models, or no model in both domains.

    Notes:
        An interval above 0 means that no model of the reference kind would be expected there. A
        reference model is compared with the line of the others (Taori et al. 2020, "Measuring
        robustness to natural distribution shifts in image classification").

    >>> pairs = [(0.5, 0.3), (0.6, 0.4), (0.7, 0.5), (0.8, 0.6), (0.6, 0.7)]
    >>> rows = [("plain" if seed < 4 else "mixed", seed, domain, value)
    ...         for seed, pair in enumerate(pairs)
    ...         for domain, value in zip(("real", "sketch"), pair)]
    >>> table = pd.DataFrame(rows, columns=["setting", "seed", "domain", "value"]).assign(
    ...     n_pictures=1000, measure="balanced top-1", class_set="all", candidates="all",
    ...     prompts="neutral", classifier="text")
    >>> def plain(rows):
    ...     return rows["setting"] == "plain"
    >>> judged = robustness(table, inside="real", outside="sketch", reference=plain)
    >>> round(float(judged.set_index("setting").loc["mixed", "value"]), 1)
    0.3
    """
    models = _accuracy_pairs(accuracy, inside, outside, class_set, prompts, classifier)
    fitted = np.asarray(reference(models), dtype=bool)
    x = logit(models["accuracy_in"], models["n_in"])
    y = logit(models["accuracy_out"], models["n_pictures"])
    line = Line.fit(x[fitted], y[fitted])
    rows = []
    for number in range(len(models)):
        others = fitted & (np.arange(len(models)) != number)
        rows.append(_row(models.iloc[number], x[number], line, x[others], y[others]))
    frame = pd.concat([models, pd.DataFrame(rows, index=models.index)], axis=1)
    return frame.drop(columns="n_in").assign(
        fitted=fitted,
        domain_a=inside,
        domain_b=outside,
        class_set=class_set,
        candidates="all",
        prompts=prompts,
        classifier=classifier,
        measure="effective robustness",
        null=0.0,
        null_kind=f"on the line of {int(fitted.sum())} reference models",
        ceiling=np.nan,
        ceiling_kind="none: a residual has no ceiling",
        index=np.nan,
        unit="model",
        n_units=int(fitted.sum()),
        n_drawings=np.nan,
        n_runs=1,
        estimand="this model, against models like the reference ones",
    )


def _accuracy_pairs(
    accuracy: pd.DataFrame, inside: str, outside: str, class_set: str, prompts: str, classifier: str
) -> pd.DataFrame:
    """One row per model with its accuracy in both domains."""
    keys = [name for name in MODEL if name in accuracy]
    rows = accuracy[
        (accuracy["measure"] == TOP_1)
        & (accuracy["class_set"] == class_set)
        & (accuracy["candidates"] == "all")
        & (accuracy["prompts"] == prompts)
        & (accuracy["classifier"] == classifier)
    ].fillna({"setting": "", "control": ""})
    ends = [rows[rows["domain"] == domain].set_index(keys) for domain in (inside, outside)]
    both = pd.concat(
        [
            one[["value", "n_pictures"]].add_suffix(end)
            for one, end in zip(ends, ("_in", "_out"), strict=True)
        ],
        axis=1,
        join="inner",
    )
    if both.empty:
        asked = "measure effective robustness"
        given = f"no model with an accuracy in {inside} and in {outside}"
        right = "models evaluated in both domains"
        raise SampleError(asked, given, right, "evaluate them there, or name other domains")
    words = {"value_in": "accuracy_in", "value_out": "accuracy_out", "n_pictures_in": "n_in"}
    return both.rename(columns={**words, "n_pictures_out": "n_pictures"}).reset_index()


def _row(
    model: pd.Series, x: float, line: Line, others_x: np.ndarray, others_y: np.ndarray
) -> dict[str, object]:
    """The residual of one model, and the line at its in-domain accuracy."""
    at, around = float(line.at(x)), float(line.reach(x, of_model=False))
    drawn = {
        "expected": special.expit(at),
        "expected_low": special.expit(at - around),
        "expected_high": special.expit(at + around),
    }
    try:
        line_of_others = Line.fit(others_x, others_y)
    except SampleError:
        few = f"{len(others_x)} other reference models that differ, {FEWEST} are needed"
        value = float(model["accuracy_out"] - special.expit(at))
        return drawn | {"value": value, "low": np.nan, "high": np.nan, "p": np.nan, "reason": few}
    centre, reach = float(line_of_others.at(x)), float(line_of_others.reach(x, of_model=True))
    logit_reached = float(logit(model["accuracy_out"], model["n_pictures"]))
    t = (
        (logit_reached - centre) * stats.t.ppf(0.975, line_of_others.n - 2) / reach
        if reach
        else np.nan
    )
    return drawn | {
        "value": float(model["accuracy_out"] - special.expit(centre)),
        "low": float(model["accuracy_out"] - special.expit(centre + reach)),
        "high": float(model["accuracy_out"] - special.expit(centre - reach)),
        "p": float(2 * stats.t.sf(abs(t), line_of_others.n - 2)),
        "reason": "",
    }
