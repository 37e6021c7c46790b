"""The predictions P1 to P9 of docs/large_study.md, answered from saying's archive.

A prediction has parts, each a number of every block and the range that was foretold for it. A part
is yes where its interval lies inside the range, no where it lies outside, else unknown; a
prediction is yes where all its parts are, and no where one is.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

import interp
from interp.core.statistics.replication import mean_t
from interp.core.statistics.resampling import holm
from interp.verdicts.levels.from_tables import from_tables
from tests.benchmarks.saying import LARGE, NATURAL, OTHERS, biased

YES, NO, UNKNOWN = "yes", "no", "unknown"
SAYING = LARGE / "saying.zip"
SITE = "layer3.0.hook_resid_post"
HELD_OUT, SEEN, EXCESS, KNOWN = "held-out", "seen", "excess bias", "knowing"
SHIFTED, LOST, RANDOM, CALIBRATED = "shifted", "lost", "random", "calibrated"
RUNGS = {"R2": "debiased CKA", "R3": "cosine of LDA directions"}
POINTS = 100.0
"""Accuracies are told in points."""

LOW, HIGH, LEFT_OUT = "cg-low", "cg-high", "leave-out-domain"
NATURAL_ONLY, MIRROR = "natural-only", "cg-high, negatives only"
MASKED, CONTROL = "cg-high, masked negatives", "cg-high, masked random negatives"

TABLES = "accuracy decision_bias domain_shift tradeoff similarity directions".split()


class Part(NamedTuple):
    """What is foretold of one number: that it lies between `low` and `high`."""

    prediction: str
    what: str
    values: pd.Series
    low: float = -np.inf
    high: float = np.inf


def table() -> pd.DataFrame:
    """A row for each part of each prediction, with its answer and its prediction's."""
    return answered(parts(numbers()))


def numbers() -> pd.DataFrame:
    """What a model knows, says, and says after the shift: means of both test domains.

    A row for each mixture and block, a column for each number.
    """
    found = {name: table.frame for name, table in interp.open_runs(SAYING, TABLES).items()}
    trained = {name: frame[frame["control"] == ""] for name, frame in found.items()}
    bias, shift = trained["decision_bias"], trained["domain_shift"]
    bias = bias[(bias["domain"] == bias["test_domain"]) & (bias["prompts"] == "neutral")]
    accuracy = bias[bias["measure"] == "balanced top-1"]
    as_is = accuracy[accuracy["calibration"] == "as it is"]
    shift = shift[(shift["site"] == SITE) & (shift["dose"] == 1)]
    others = biased(trained["tradeoff"])
    parts = {
        EXCESS: bias[bias["measure"] == EXCESS],
        KNOWN: accuracy[accuracy["calibration"] == "among held-out classes"],
        CALIBRATED: others[others["measure"] == OTHERS],
    }
    for kind in (HELD_OUT, SEEN):
        own = shift[shift["class_set"] == kind]
        there, moved = own["domain"] == own["test_domain"], own["way"] == "mean shift"
        parts |= {
            kind: as_is[as_is["class_set"] == kind],
            f"{kind}, {SHIFTED}": own[there & moved],
            f"{kind}, {RANDOM}": own[there & (own["way"] == "random direction")],
            f"{kind}, {LOST}": own[(own["domain"] == NATURAL) & moved],
        }
    runs, _ = from_tables(found)
    for rung, measure in RUNGS.items():
        rows = runs[(runs["rung"] == rung) & (runs["measure"] == measure)]
        parts[rung] = rows.assign(value=rows["index"])
    means = {name: _of_blocks(rows) for name, rows in parts.items()}
    scale = {name: 1.0 if name in {EXCESS, *RUNGS} else POINTS for name in means}
    return pd.DataFrame({name: own * scale[name] for name, own in means.items()})


def _of_blocks(rows: pd.DataFrame) -> pd.Series:
    """Means of both test domains, which stand in one row each."""
    cells = rows.set_index(["setting", "seed", "test_domain"])["value"]
    return cells.unstack("test_domain", sort=True).mean(axis=1, skipna=False)


def parts(of: pd.DataFrame) -> list[Part]:
    """What large_study.md foretells, in its order; differences are paired by block."""

    def number(name: str, more: str, less: str = "") -> pd.Series:
        own = of.loc[more, name]
        return own - of.loc[less, name] if less else own

    held, seen = f"{HELD_OUT}, {SHIFTED}", f"{SEEN}, {SHIFTED}"
    away, away_seen = f"{HELD_OUT}, {LOST}", f"{SEEN}, {LOST}"
    random = of.loc[LOW, f"{HELD_OUT}, {RANDOM}"]
    return [
        Part("P1", "excess bias, CG low", number(EXCESS, LOW), low=3),
        Part("P1", "excess bias, CG high", number(EXCESS, HIGH), low=1),
        Part("P1", "excess bias, leave-out-domain", number(EXCESS, LEFT_OUT), -1, 1),
        Part("P1", "excess bias, natural only", number(EXCESS, NATURAL_ONLY), -1, 1),
        Part("P2", "CG high - leave-out, others' bias", number(CALIBRATED, HIGH, LEFT_OUT), low=0),
        Part("P2", "CG high - leave-out, as is", number(HELD_OUT, HIGH, LEFT_OUT), high=0),
        Part("P3", "shift in CG low, held-out", number(held, LOW), low=40),
        Part("P3", "shift in CG low, seen", number(seen, LOW), low=-10),
        Part("P3", "shift in CG high, held-out", number(held, HIGH), low=20),
        Part("P3", "shift in CG high, seen", number(seen, HIGH), low=-5),
        Part("P4", "shift in leave-out-domain, held-out", number(held, LEFT_OUT), high=10),
        Part("P4", "shift in natural only, held-out", number(held, NATURAL_ONLY), high=10),
        Part("P4", "random - half of the shift, CG low", random - number(held, LOW) / 2, high=0),
        Part("P5", "photographs shifted, CG low, held-out", number(away, LOW), high=-20),
        Part("P5", "photographs shifted, CG low, seen", number(away_seen, LOW), low=-5),
        Part("P6", "masked - CG high, held-out", number(HELD_OUT, MASKED, HIGH), low=25),
        Part("P6", "masked - CG high, seen", number(SEEN, MASKED, HIGH), -2, 2),
        Part("P6", "excess bias, masked", number(EXCESS, MASKED), -0.5, 0.5),
        Part("P7", "masked random - CG high, held-out", number(HELD_OUT, CONTROL, HIGH), high=5),
        Part("P7", "masked random - CG high, excess", number(EXCESS, CONTROL, HIGH), -0.5, 0.5),
        Part("P8", "masked - CG high, R2", number("R2", MASKED, HIGH), -0.05, 0.05),
        Part("P8", "masked - CG high, R3", number("R3", MASKED, HIGH), -0.05, 0.05),
        Part("P9", "excess bias, negatives only", number(EXCESS, MIRROR), low=1),
        Part("P9", "negatives only - leave-out", number(HELD_OUT, MIRROR, LEFT_OUT), high=-10),
    ]


def answered(asked: list[Part]) -> pd.DataFrame:
    """A row for each part; p is that of the nearer bound, Holm's over predictions by their worst.

    >>> answered([Part("P1", "a", pd.Series([3.0, 3.1, 3.2]), low=2)])["answer"].item()
    'yes'
    >>> answered([Part("P1", "a", pd.Series([3.0, 3.1, 3.2]), high=2)])["answer"].item()
    'no'
    """
    rows = pd.DataFrame([_part(part) for part in asked])
    of = rows.groupby("prediction", sort=False)
    worst = of["p"].max()
    adjusted = dict(zip(worst.index, holm(worst.to_numpy()), strict=True))
    whole = {name: _all(own) for name, own in of["part"]}
    told = {"answer": rows["prediction"].map(whole), "p_adjusted": rows["prediction"].map(adjusted)}
    return rows.assign(**told)


def _part(part: Part) -> dict[str, object]:
    found = mean_t(part.values.to_numpy())
    inside = part.low <= found.low and found.high <= part.high
    outside = found.high < part.low or found.low > part.high
    nearest = min((part.low, part.high), key=lambda bound: abs(found.value - bound))
    error = part.values.std(ddof=1) / np.sqrt(len(part.values))
    p = 2 * stats.t.sf(abs(found.value - nearest) / error, len(part.values) - 1)
    return {
        **{"prediction": part.prediction, "what": part.what, "from": part.low, "to": part.high},
        **{"value": found.value, "low": found.low, "high": found.high},
        **{"n_blocks": len(part.values), "part": YES if inside else NO if outside else UNKNOWN},
        "p": p,
    }


def _all(answers: pd.Series) -> str:
    """Yes where all are, no where one is.

    >>> _all(pd.Series(["yes", "unknown"]))
    'unknown'
    """
    return NO if NO in {*answers} else YES if {*answers} == {YES} else UNKNOWN
