"""Whether sharing goes with accuracy, in a few words: one row per level, and what it hangs on."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import CANNOT_TELL, LEVEL
from interp.report.naming import setting_name
from interp.verdicts.wording import RELIABLE, TOGETHER
from tests.benchmarks.findings.claims import OPEN, Decided, of_resnets
from tests.benchmarks.findings.sharing import LEAST_MIXTURES, SEEN, without_each_mixture
from tests.benchmarks.findings.tables import Tables
from tests.benchmarks.findings.writing import (
    UNRELIABLE,
    bold,
    correlation,
    counted,
    short,
    so_far,
)

LEVELS = {
    "L1": "Mixtures that share more are more accurate (L1)",
    "L2": "Of one mixture, blocks that share more are more accurate (L2)",
    "L3": "Of one model, classes that are shared more are more accurate (L3)",
}

AMONG = {"L1": "mixtures", "L2": "blocks", "L3": "classes"}


def told_of(row: pd.Series) -> str:
    """The verdict on a correlation, or that its measure is too unreliable for any."""
    return UNRELIABLE if row["reliability"] < RELIABLE else str(row["verdict"])


def levels_of(found: Decided, made: Tables) -> pd.DataFrame:
    """The unadjusted rows of L1 to L3 that have a number, of mixtures enough, study by study."""
    every = {name: made[name]["levels"] for name in found if "levels" in made[name]}
    rows = pd.concat(every, names=["study"]).reset_index("study")
    own = (rows["level"] != "L4") & (rows["adjusted"] == "")
    few = (rows["level"] == "L1") & (rows["n_units"] < LEAST_MIXTURES)
    return rows[own & ~few].dropna(subset=["value"])


def most_reliable(found: Decided, made: Tables, level: str) -> dict[str, pd.Series]:
    """A level's row in every study, of the measure that is most reliable where it is decided.

    Of measures that most studies have, mean over studies.
    """
    every = levels_of(found, made)
    rows = every[every["level"] == level]
    asked = rows[rows["study"].isin(of_resnets(found))]
    of_all = (asked if len(asked) else rows).groupby("measure")["reliability"].agg(["size", "mean"])
    if of_all.empty:
        return {}
    own = rows[rows["measure"] == of_all.sort_values(["size", "mean"]).index[-1]]
    return {row["study"]: row for _, row in own.iterrows()}


def link_cell(row: pd.Series | None, level: str) -> str:
    if row is None:
        return f"too few {AMONG[level]}"
    return f"r {correlation(row)} {_verdict(row)}, {_n_units(row)}"


def _verdict(row: pd.Series) -> str:
    """The verdict on a correlation; why it is open, where its interval alone would decide it."""
    if row["verdict"] != CANNOT_TELL:
        return bold(row["verdict"])
    if row["reliability"] < RELIABLE:
        return UNRELIABLE
    return still_open(row) if row["low"] > 0 or row["high"] < 0 else OPEN


def still_open(row: Mapping[str, Any] | pd.Series) -> str:
    by_p = row["p_adjusted"] >= LEVEL
    why = f"adjusted p {row['p_adjusted']:.2g}" if by_p else row["reason"]
    return f"{OPEN} ({why})"


def _n_units(row: pd.Series) -> str:
    """How many mixtures, blocks or classes a correlation is over."""
    return counted(int(row["n_units"]), row["unit"])


def reliable_in_words(found: Decided, made: Tables) -> str:
    """Which measure each level's row is of, how reliable it is, and how many of all are open."""
    by_measure: dict[str, list[str]] = {}
    for level in LEVELS:
        chosen = most_reliable(found, made, level)
        if not chosen:
            continue
        values = [row["reliability"] for row in chosen.values()]
        measure = next(iter(chosen.values()))[["rung", "measure"]].str.cat(sep=" ")
        ends = dict.fromkeys(short(value) for value in (min(values), max(values)))
        by_measure.setdefault(measure, []).append(f"{level} {' to '.join(ends)}")
    said = [f"{measure}, reliability {', '.join(own)}" for measure, own in by_measure.items()]
    every = levels_of(found, made)
    n = int((every["verdict"] == CANNOT_TELL).sum())
    poor = int((every["reliability"] < RELIABLE).sum())
    return (
        f"By the most reliable measure ({'; '.join(said)}). Of "
        f"{counted(len(every), 'correlation')} decided: {len(every) - n}; not measurable: {poor}."
        f"{''.join(_without_one(row, made) for _, row in every.iterrows() if _is_told(row))}"
    )


def _is_told(row: pd.Series) -> bool:
    return row["level"] == "L2" and row["verdict"] != CANNOT_TELL


def _without_one(row: pd.Series, made: Tables) -> str:
    """How far a link within mixtures hangs on one of them."""
    runs = made[row["study"]]["runs"]
    own = runs[(runs["rung"] == row["rung"]) & (runs["measure"] == row["measure"])]
    left = without_each_mixture(own)
    worst = left.loc[left["p"].idxmax()]
    return (
        f" L2 in {row['study']} without one mixture at a time: r {short(left['value'].min())} to "
        f"{short(left['value'].max())}, unadjusted p at most {worst['p']:.2g} (without "
        f"{setting_name(worst['setting'])})."
    )


def what_is_left(levels: pd.DataFrame, row: Mapping[str, Any]) -> str:
    """What is left of a correlation at equal accuracy of seen classes, where that was asked."""
    same = (levels["level"] == row["level"]) & (levels["measure"] == row["measure"])
    adjusted = levels[same & (levels["adjusted"] == SEEN)].to_dict("records")
    said = [
        f"r {correlation(own)}, {own['verdict']}"
        if own["verdict"] != CANNOT_TELL
        else f"r {correlation(own)}, {still_open(own)}"
        for own in adjusted
    ]
    return "; ".join(said)


def sharing_in_words(found: Decided, made: Tables) -> list[str]:
    """Levels where sharing goes with accuracy, in which studies, and what is left of it there."""
    links = levels_of(found, made)
    told = links[links["verdict"] == TOGETHER].groupby(["level", "rung", "measure"])
    return [_together(rows, made) for _, rows in told] or ["Not shown at any level"]


def _together(links: pd.DataFrame, made: Tables) -> str:
    """One measure's correlations of one level, and each at equal accuracy of seen classes."""
    rows = links.to_dict("records")
    says = LEVELS[rows[0]["level"]].removesuffix(")")
    told = ", ".join(f"{so_far(row['study'])}, r {correlation(row)}" for row in rows)
    left = [(row["study"], what_is_left(made[row["study"]]["levels"], row)) for row in rows]
    rest = "; ".join(f"{words} ({study})" for study, words in left if words)
    told = f"{says}, by {rows[0]['rung']} {rows[0]['measure']}): {told}"
    return f"{told}; at equal {SEEN} {rest}" if rest else told
