"""Effective robustness: is a model better outside its domain than its accuracy within foretells?

Models of one kind lie near a line of out-of-domain against in-domain accuracy on logit axes (Taori
et al. 2020). What a model reaches above the line of reference models is robustness of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from interp.core.errors import SampleError
from interp.models.evaluation.accuracies import TOP_1

MODEL = ("setting", "test_domain", "seed", "control", "epoch")
FEWEST = 4
"""Reference models without which no line is fitted: two degrees of freedom for its spread."""


@dataclass(frozen=True)
class Line:
    """Least squares y = intercept + slope x, and what is needed for its intervals."""

    intercept: float
    slope: float
    spread: float
    mean: float
    square: float
    n: int

    @classmethod
    def fit(cls, x: ArrayLike, y: ArrayLike) -> "Line":
        """Fit; `SampleError` with fewer than four points or one x for all."""
        a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        if len(a) < FEWEST or np.ptp(a) == 0:
            raise SampleError(
                "fit a line through reference models",
                f"{len(a)} models with {len(np.unique(a))} in-domain accuracies",
                f"{FEWEST} models that differ",
                "name more reference models, or more of their epochs",
            )
        square = float(((a - a.mean()) ** 2).sum())
        slope = float(((a - a.mean()) * (b - b.mean())).sum() / square)
        intercept = float(b.mean() - slope * a.mean())
        rest = b - intercept - slope * a
        spread = float(np.sqrt((rest**2).sum() / (len(a) - 2)))
        return cls(intercept, slope, spread, float(a.mean()), square, len(a))

    def at(self, x: ArrayLike) -> np.ndarray:
        """The line's height."""
        return np.asarray(self.intercept + self.slope * np.asarray(x, dtype=float))

    def reach(self, x: ArrayLike, *, of_model: bool, confidence: float = 0.95) -> np.ndarray:
        """Half width of the interval of the line, or of one more model about it (`of_model`).

        t_{n-2} s sqrt([1 +] 1/n + (x - mean)^2 / sum of squares).
        """
        far = (np.asarray(x, dtype=float) - self.mean) ** 2 / self.square
        t = stats.t.ppf((1 + confidence) / 2, self.n - 2)
        return np.asarray(t * self.spread * np.sqrt(float(of_model) + 1 / self.n + far))


def logit(share: ArrayLike, n: ArrayLike) -> np.ndarray:
    """log odds of a share of n pictures; half a picture added to either side keeps 0 and 1 finite.

    >>> round(float(logit(0.5, 10)), 6), bool(np.isfinite(logit(1.0, 10)))
    (0.0, True)
    """
    right = np.asarray(share, dtype=float) * np.asarray(n, dtype=float)
    odds = (right + 0.5) / (np.asarray(n, dtype=float) - right + 0.5)
    return np.asarray(np.log(odds))


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
    """How far each model's accuracy `outside` lies above what accuracy `inside` foretells.

    `accuracy` is the table of all models (`setting`, `test_domain`, `seed`, also `control` and
    `epoch` where they tell models apart); `reference` marks the rows of the models that the line is
    fitted to, for example `lambda rows: rows.setting == "natural-only"`. A row per model: `value`
    is its accuracy outside minus the line's (`expected`), in shares; low and high subtract the ends
    of the 95 % prediction interval of one more reference model, so that an interval above 0 says
    that no model of the reference kind would be expected there; p is the two-sided t of the same. A
    reference model is held against the line of the others. `expected_low`, `expected_high` are the
    interval of the line itself. Raises `SampleError` with fewer than four reference models.
    """
    places = _places(accuracy, inside, outside, class_set, prompts, classifier)
    fitted = np.asarray(reference(places), dtype=bool)
    x = logit(places["accuracy_in"], places["n_in"])
    y = logit(places["accuracy_out"], places["n_pictures"])
    line = Line.fit(x[fitted], y[fitted])
    rows = []
    for place in range(len(places)):
        others = fitted & (np.arange(len(places)) != place)
        rows.append(_row(places.iloc[place], x[place], line, x[others], y[others]))
    frame = pd.concat([places, pd.DataFrame(rows, index=places.index)], axis=1)
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


def _places(
    accuracy: pd.DataFrame, inside: str, outside: str, class_set: str, prompts: str, classifier: str
) -> pd.DataFrame:
    """One row per model with its accuracy in either domain."""
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
        raise SampleError(
            "measure effective robustness",
            f"no model with an accuracy in {inside} and in {outside}",
            "models evaluated in both domains",
            "evaluate them there, or name other domains",
        )
    words = {"value_in": "accuracy_in", "value_out": "accuracy_out", "n_pictures_in": "n_in"}
    return both.rename(columns={**words, "n_pictures_out": "n_pictures"}).reset_index()


def _row(
    model: pd.Series, x: float, line: Line, others_x: np.ndarray, others_y: np.ndarray
) -> dict[str, object]:
    """Residual of one model, and the whole line at its place."""
    at, around = float(line.at(x)), float(line.reach(x, of_model=False))
    drawn = {
        "expected": special.expit(at),
        "expected_low": special.expit(at - around),
        "expected_high": special.expit(at + around),
    }
    try:
        own = Line.fit(others_x, others_y)
    except SampleError:
        few = f"{len(others_x)} other reference models that differ, {FEWEST} are needed"
        value = float(model["accuracy_out"] - special.expit(at))
        return drawn | {"value": value, "low": np.nan, "high": np.nan, "p": np.nan, "reason": few}
    centre, reach = float(own.at(x)), float(own.reach(x, of_model=True))
    reached = float(logit(model["accuracy_out"], model["n_pictures"]))
    t = (reached - centre) * stats.t.ppf(0.975, own.n - 2) / reach if reach else np.nan
    return drawn | {
        "value": float(model["accuracy_out"] - special.expit(centre)),
        "low": float(model["accuracy_out"] - special.expit(centre + reach)),
        "high": float(model["accuracy_out"] - special.expit(centre - reach)),
        "p": float(2 * stats.t.sf(abs(t), own.n - 2)),
        "reason": "",
    }
