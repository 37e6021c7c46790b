"""What foretells accuracy on held-out classes: sharing and its rivals, one by one."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.tables import Table
from interp.data.mixtures.settings import is_upper_bound
from interp.models.evaluation.learning import learning, that_learned
from interp.probes.geometry.linear_factors import CLASS_RANK, WHITENED
from interp.verdicts.levels.panels import (
    LINK,
    RUN,
    Checkpoints,
    asked_accuracies,
    compared,
    from_tables,
    in_band,
)
from interp.verdicts.levels.reliability import gain
from interp.verdicts.rungs import RUNGS

Frames = Mapping[str, pd.DataFrame]

SHARING, BEHAVIOUR, FACTORS = "sharing", "accuracy and exposure", "linear factors"
"""Kinds of predictors, in the order of the table."""

OTHERS = {
    "accuracy_seen": "accuracy of seen classes there",
    "accuracy_natural": "accuracy of held-out classes in natural pictures",
    "exposure": "training pictures of held-out classes",
}
RIVALS = (
    ("linear_factors", {"measure": WHITENED}, "linearity, whitened"),
    ("linear_factors", {"measure": CLASS_RANK}, "effective rank of class effects"),
    ("factorisation", {"factor": "class and domain"}, "class and domain along one another"),
    ("composition", {}, "accuracy of added effects"),
)
"""Of the linear-factor theory: table, rows, and what the number is called."""

KEPT = ("level", "value", "low", "high", "null", "null_kind", "p", "unit", "n_units", "n_runs",
        "reliability", "reliability_kind")  # fmt: skip


def predictors(frames: Frames, *, natural: str = "real") -> pd.DataFrame:
    """A row per model (setting, test_domain, seed) and predictor, from a study's tables.

    Numbers of layers are means over the middle ones, never of the final embedding. Models that did
    not learn are left out, and so are upper bounds, which saw the held-out classes. What is the
    same for all mixtures, as pixels are, foretells no difference between them and is not asked.
    """
    runs, _ = from_tables(frames, natural=natural)
    known = asked_accuracies(frames, natural)
    told = learning(frames["accuracy"], frames.get("mixtures"), natural=natural)
    labels = runs["rung"].map({name: rung.label for name, rung in RUNGS.items()})
    words = runs["rung"] + " " + labels + ": " + runs["measure"]
    shared = runs.assign(predictor=words, predictor_kind=SHARING)
    shared = shared.rename(columns={"index": "value", "index_error": "error"})
    parts = [shared[[*RUN, "predictor", "predictor_kind", "value", "error"]]]
    parts += [
        known[RUN].assign(predictor=words, predictor_kind=BEHAVIOUR, value=known[name])
        for name, words in OTHERS.items()
        if name in known
    ]
    for table, where, words in RIVALS:
        found = _of_middle(frames.get(table), where)
        if len(found):
            parts.append(found.assign(predictor=words, predictor_kind=FACTORS))
    every = pd.concat([part for part in parts if len(part)], ignore_index=True)
    asked = known.rename(columns={"accuracy_seen": "seen"})
    every = every.merge(asked[[*RUN, "accuracy", "accuracy_error", "seen"]], on=RUN)
    bounds = every["setting"].map(is_upper_bound).astype(bool)
    return that_learned(every[~bounds], told).reset_index(drop=True)


def _of_middle(frame: pd.DataFrame | None, where: Mapping[str, str]) -> pd.DataFrame:
    """The mean over the middle layers of trained models, by model."""
    columns = [*RUN, "value"]
    if frame is None or frame.empty or not {*RUN, "depth"} <= set(frame):
        return pd.DataFrame(columns=columns)
    rows = in_band(frame[frame["control"].fillna("") == ""])
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.dropna(subset=["value"]).groupby(RUN, as_index=False, sort=False)["value"].mean()


def foretelling(rows: pd.DataFrame, *, seed: int = 0, n_permutations: int = 4999) -> Table:
    """Hold the accuracy of held-out classes against each predictor, across mixtures and within.

    Args:
        rows: What `predictors` makes.
        seed: Seed of permutations.
        n_permutations: Permutations behind p and the intervals.

    Returns:
        The table `foretelling`, a row per predictor and level: L1, Spearman's correlation over
        mixtures, and L2, the correlation over the blocks of a mixture, as `verdict` takes them,
        with their 95 % intervals; p also by Benjamini and Hochberg over the predictors of a level.
        `foretold` is the share of the variance of accuracy (of means over blocks in L1) that a
        ridge on the predictor explains in mixtures that it was not fitted to; `beyond_seen` what
        it adds there to the accuracy of seen classes.

    >>> rows = pd.DataFrame([{"setting": f"mixture {m}", "test_domain": "sketch", "seed": b,
    ...                       "predictor": "CKA", "predictor_kind": "sharing", "value": m + 0.1 * b,
    ...                       "accuracy": m**2, "seen": b * (m % 3)}
    ...                      for m in range(10) for b in range(3)])
    >>> found = foretelling(rows, n_permutations=999).frame.set_index("level")
    >>> found.loc["L1", ["value", "foretold"]].round(1).tolist()
    [1.0, 0.9]
    """
    found = []
    for (kind, predictor), own in rows.groupby(["predictor_kind", "predictor"], sort=False):
        own = own.rename(columns={"value": "index", "error": "index_error"})
        study = Checkpoints(own.dropna(subset=["index", "accuracy"]), seed, n_permutations)
        for row in (*study.across(), *study.within()):
            link = row[LINK]
            foretold, beyond = _foretold(study, str(row["level"]))
            kept = {name: row[name] for name in KEPT}
            found.append(
                {"predictor": predictor, "predictor_kind": kind, **kept}
                | {"foretold": foretold, "beyond_seen": beyond, "reason": link.reason, "seed": seed}
            )
    if not found:
        return Table("foretelling", pd.DataFrame())
    frame = pd.DataFrame(found).assign(p_adjusted=np.nan, family="")
    for level, own in frame.groupby("level", sort=False):
        tested = own["p"].dropna()
        if len(tested):
            adjusted = stats.false_discovery_control(tested.astype(float))
            frame.loc[tested.index, "p_adjusted"] = adjusted
            family = f"{level} over predictors (Benjamini and Hochberg): {len(tested)} tests"
            frame.loc[own.index, "family"] = family
    return Table("foretelling", frame)


def _foretold(study: Checkpoints, level: str) -> tuple[float, float]:
    """Explained variance of left-out mixtures: by the predictor, and what it adds to `seen`."""
    y, x, seen = compared(level, [study.accuracy, study.sharing, study.panel("seen")])
    if not y.size or np.abs(x).max() <= 1e-12:
        return np.nan, np.nan
    mixture = np.indices(y.shape)[0].ravel()
    y, x, seen = (each.ravel() for each in (y, x, seen))
    return gain(y, x, [], [mixture]), gain(y, x, [seen], [mixture])
