"""Sharing in words: whether it goes with accuracy, what foretells accuracy, domain by domain."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import CANNOT_TELL, LEVEL
from interp.core.statistics.replication import mean_t
from interp.data.mixtures.settings import is_upper_bound
from interp.verdicts.levels.over_training import HELD_OUT
from interp.verdicts.levels.panels import Checkpoints
from interp.verdicts.rungs import RUNGS
from interp.verdicts.wording import RELIABLE
from tests.benchmarks.findings.accuracy import in_order
from tests.benchmarks.findings.claims import OPEN, of_quantities
from tests.benchmarks.findings.writing import (
    NO_BLOCK,
    UNRELIABLE,
    bold,
    correlation,
    counted,
    points,
    short,
    spoken,
    units_and_runs,
)
from tests.benchmarks.recovering import markdown

SEEN = "accuracy of seen classes"
LEAST_MIXTURES = 8
"""Of fewer, no correlation over mixtures is decided, and none is shown."""


def levels_table(studies: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """Accuracy with sharing, level by level and rung by rung; below it, what has no number."""
    rows, without = [], []
    for name, found in studies.items():
        levels = found["levels"].query("level != 'L4'")
        keys = ["level", "rung", "measure"]
        for (level, rung, measure), own in levels.groupby(keys, sort=False):
            by = {row["adjusted"]: row for row in own.to_dict("records")}
            plain, adjusted = by[""], by.get(SEEN)
            few = level == "L1" and plain["n_units"] < LEAST_MIXTURES
            if few or not np.isfinite(plain["value"]):
                without.append(f"{name}, {level}, {rung} {measure} ({units_and_runs(plain)})")
                continue
            terms = "in the model" if level == "L3" else "–"
            held = correlation(adjusted) if adjusted else terms
            reliable = short(plain["reliability"]) if plain["reliability"] >= 0 else "–"
            told = bold(told_of(plain))
            said = [correlation(plain), held, reliable, told, units_and_runs(plain)]
            rows.append([name, level, f"{rung} {measure}", *said])
    heads = ["study", "level", "measure", "r", "r at equal seen accuracy", "reliability"]
    table = markdown([*heads, "verdict", "n"], rows) if rows else NO_BLOCK
    return (
        f"{table}\n\nNo number, or of too few mixtures: {'; '.join(without)}." if without else table
    )


def foretelling_table(found: Mapping[str, pd.DataFrame]) -> str:
    """What foretells accuracy on held-out classes, across mixtures and within them."""
    if not found:
        return NO_BLOCK
    rows = []
    for predictor, own in found["foretelling"].groupby("predictor", sort=False):
        by = {row["level"]: row for row in own.to_dict("records")}
        cells = [correlation(by[level]) if level in by else "–" for level in ("L1", "L2")]
        p = [f"{by[level]['p_adjusted']:.2g}" if level in by else "–" for level in ("L1", "L2")]
        foretold = f"{by['L1']['foretold']:+.2f}" if "L1" in by else "–"
        rows.append([predictor, cells[0], p[0], foretold, cells[1], p[1]])
    heads = ["predictor", "across mixtures", "p", "R² on left-out mixtures"]
    return markdown([*heads, "over blocks of a mixture", "p"], rows)


def foretold_in_words(found: Mapping[str, pd.DataFrame]) -> str:
    """What foretells accuracy best across mixtures, and what is told over blocks of one mixture."""
    if not found:
        return NO_BLOCK
    rows = found["foretelling"]
    across, within = (rows[rows["level"] == level] for level in ("L1", "L2"))
    best = across[across["foretold"].round(2) == across["foretold"].round(2).max()]
    told = {
        "over blocks of one mixture": _told_from_zero(within),
        "across mixtures": _told_from_zero(across),
    }
    words = "; ".join(f"{where}: {said}" for where, said in told.items())
    return (
        f"Of {len(within)} predictors of accuracy, told from zero (Benjamini and "
        f"Hochberg) {words}. Best on mixtures left out of the fit, R² "
        f"{best['foretold'].iloc[0]:+.2f}{' each' if len(best) > 1 else ''}: "
        f"{'; '.join(map(_predictor, best['predictor']))}."
    )


def _told_from_zero(rows: pd.DataFrame) -> str:
    first = rows.sort_values("value", key=abs, ascending=False)
    told = first[first["p_adjusted"] < LEVEL].to_dict("records")
    said = [f"{_predictor(row['predictor'])} (r {correlation(row)})" for row in told]
    return ", ".join(said) or "none"


def _predictor(name: str) -> str:
    """A predictor without the words for its rung, and with what it is about.

    >>> _predictor("R3 directions: cosine of LDA directions"), _predictor("linearity, whitened")
    ('R3 cosine of LDA directions', 'linearity of class and domain, whitened')
    """
    rung, _, measure = name.partition(": ")
    told = f"{rung.split()[0]} {measure}" if measure else name
    about = {"seen classes there": "seen classes in the test domain",
             "linearity": "linearity of class and domain"}  # fmt: skip
    return next((told.replace(word, says) for word, says in about.items() if word in told), told)


def told_of(row: Mapping[str, Any] | pd.Series) -> str:
    """The verdict on a correlation, or that its measure is too unreliable for any."""
    if row["reliability"] < RELIABLE:
        return UNRELIABLE
    return OPEN if row["verdict"] == CANNOT_TELL else str(row["verdict"])


def shared_in_words(found: Mapping[str, pd.DataFrame]) -> str:
    """How much the middle layers share, rung by rung: the mean of mixtures, upper bounds aside.

    The interval is the t of blocks.
    """
    runs = found["runs"][~found["runs"]["setting"].map(is_upper_bound).astype(bool)]
    said = []
    for rung, own in runs.groupby("rung"):
        parts = {measure: _index_in_words(part) for measure, part in own.groupby("measure")}
        told = [f"{words} ({measure})" if len(parts) > 1 else words
                for measure, words in parts.items()]  # fmt: skip
        said.append(f"{rung} {RUNGS[str(rung)].label} {sequence(told)}")
    return f"{'; '.join(said)} ({counted(runs['seed'].nunique(), 'block')})"


def _index_in_words(own: pd.DataFrame) -> str:
    """The mean index of mixtures over blocks, or that most models have none in a domain."""
    known = own.dropna(subset=["index"])
    if len(known) < len(own) / 2:
        return f"withheld in {len(own) - len(known)} of {counted(len(own), 'measurement')}"
    of_blocks = known.groupby(["seed", "setting"])["index"].mean().groupby("seed").mean()
    some = (
        f" in {len(known)} of {counted(len(own), 'measurement')}" if len(known) < len(own) else ""
    )
    return f"{correlation(asdict(mean_t(of_blocks.to_numpy())))}{some}"


def without_each_mixture(runs: pd.DataFrame) -> pd.DataFrame:
    """L2 of one measure without each of its mixtures in turn.

    Args:
        runs: What every run shares by the measure, beside its accuracies.

    Returns:
        A row per mixture: `setting`, the correlation `value` without it, and its unadjusted p.
    """
    own = runs[~runs["setting"].map(is_upper_bound).astype(bool)]
    made = []
    for setting in own["setting"].unique():
        left = Checkpoints(own[own["setting"] != setting], seed=0, n_permutations=4999)
        link = left.within()[0]
        made.append({"setting": setting, "value": link["value"], "p": link["p"]})
    return pd.DataFrame(made)


def domains_apart(runs: pd.DataFrame) -> pd.DataFrame:
    """What sketch has more than quickdraw, mixture by mixture, paired by block.

    Args:
        runs: Every run's accuracy of held-out classes, and what it shares by every measure.

    Returns:
        A row per mixture and quantity: the mean difference over blocks, and its t.
    """
    own = of_quantities(runs)
    wide = own.pivot(index=["quantity", "setting", "seed"], columns="test_domain", values="value")
    gap = (wide["sketch"] - wide["quickdraw"]).dropna()
    keys = ["quantity", "setting"]
    return pd.DataFrame(
        dict(zip(keys, place, strict=True)) | asdict(mean_t(part.to_numpy())) | {"n": len(part)}
        for place, part in gap.groupby(keys, sort=False)
    )


def domains_apart_table(found: Mapping[str, pd.DataFrame]) -> str:
    """Sketch minus quickdraw in accuracy and in what is shared with photographs, by mixture."""
    if not found:
        return NO_BLOCK
    made = domains_apart(found["runs"])
    measures = [name for name in dict.fromkeys(made["quantity"]) if name != HELD_OUT]
    by = made.set_index(["setting", "quantity"])
    rows = [
        [spoken(setting), points(by.loc[setting, HELD_OUT])]
        + [correlation(by.loc[setting, measure]) for measure in measures]
        + [counted(int(by.loc[(setting, HELD_OUT), "n"]), "block")]
        for setting in in_order(dict.fromkeys(made["setting"]))
    ]
    return markdown(["mixture", HELD_OUT, *measures, "n"], rows)


def domains_apart_in_words(found: Mapping[str, pd.DataFrame], measure: str) -> str:
    """In how many mixtures quickdraw shares less than sketch, and in how many it fails more."""
    if not found:
        return NO_BLOCK
    made = domains_apart(found["runs"])
    less = {name: set(part.loc[part["low"] > 0, "setting"])
            for name, part in made.groupby("quantity")}  # fmt: skip
    n = counted(made["setting"].nunique(), "mixture")
    sharing, failing = less.get(measure, set()), less.get(HELD_OUT, set())
    return (
        f"In *weak* quickdraw shares less with photographs than sketch in {len(sharing)} of {n} "
        f"({measure}), and is less accurate in {len(failing)}, by a paired t."
    )
