"""Whether sharing goes with accuracy, in a few words: a row per level, and what is left of it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import CANNOT_TELL, LEVEL
from interp.verdicts.wording import TOGETHER
from tests.benchmarks.findings.as_blocks_came import mark_of_link
from tests.benchmarks.findings.claims import OPEN, Decided, of_resnets
from tests.benchmarks.findings.sharing import LEAST_MIXTURES, SEEN, told_of, without_each_mixture
from tests.benchmarks.findings.tables import Tables
from tests.benchmarks.findings.writing import (
    NOT_ASKED,
    UNDECIDED,
    UNRELIABLE,
    bold,
    correlation,
    counted,
    short,
    so_far,
    spoken,
    units_and_runs,
)

LEVELS = {
    "L1": "Mixtures that share more are more accurate (L1)",
    "L2": "Of one mixture, blocks that share more are more accurate (L2)",
    "L3": "Of one model, classes that are shared more are more accurate (L3)",
}


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
    rows = every[every["level"] == level].dropna(subset=["reliability"])
    asked = rows[rows["study"].isin(of_resnets(found))]
    of_all = (asked if len(asked) else rows).groupby("measure")["reliability"].agg(["size", "mean"])
    if of_all.empty:
        return {}
    own = rows[rows["measure"] == of_all.sort_values(["size", "mean"]).index[-1]]
    return {row["study"]: row for _, row in own.iterrows()}


def no_link(levels: pd.DataFrame | None, level: str) -> str:
    """Why a study has no row of a level."""
    own = None if levels is None else levels[levels["level"] == level]
    if own is None or own.empty:
        return NOT_ASKED
    few = level == "L1" and own["n_units"].max() < LEAST_MIXTURES
    return "too few mixtures" if few else "no number"


def link_cell(row: pd.Series) -> str:
    """A correlation with its interval, verdict, and how many units and models it is over."""
    return f"r {correlation(row)} {_verdict(row)}, {units_and_runs(row, 'model')}"


def _verdict(row: pd.Series) -> str:
    """The verdict on a correlation, and p; why it is open where its interval would decide it."""
    told = told_of(row)
    if told not in UNDECIDED:
        return f"{bold(told)} (adjusted p {row['p_adjusted']:.2g})"
    by_interval = row["low"] > 0 or row["high"] < 0
    return why_open(row) if told == OPEN and by_interval else told


def why_open(row: Mapping[str, Any] | pd.Series) -> str:
    by_p = row["p_adjusted"] >= LEVEL
    why = f"adjusted p {row['p_adjusted']:.2g}" if by_p else row["reason"]
    return f"{OPEN} ({why})"


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
    told = [told_of(row) for _, row in every.iterrows()]
    n = {word: told.count(word) for word in (OPEN, UNRELIABLE)}
    chosen = [row["measure"] for row in most_reliable(found, made, "L2").values()]
    none = _none_measurable(every[(every["level"] == "L2") & ~every["measure"].isin(chosen)])
    among = ", among these L2's other measures" if none else ""
    return (
        f"By the most reliable measure ({'; '.join(said)}). Of "
        f"all {counted(len(every), 'correlation')} "
        f"{len(every) - sum(n.values())} are decided, {n[OPEN]} open, {n[UNRELIABLE]} not "
        f"measurable{among}."
    )


def _none_measurable(links: pd.DataFrame) -> bool:
    return len(links) > 0 and all(told_of(row) == UNRELIABLE for _, row in links.iterrows())


def circuits_untold(found: Decided, made: Tables) -> bool:
    """Whether no link of circuits (parts and wiring) to accuracy is measurable in any study."""
    every = levels_of(found, made)
    return _none_measurable(every[every["rung"].isin(["R5", "R6"])])


def _hanging(row: Mapping[str, Any], runs: pd.DataFrame) -> str:
    """On which of its mixtures a decided link over blocks hangs: without it p is above 5 %."""
    own = runs[(runs["rung"] == row["rung"]) & (runs["measure"] == row["measure"])]
    left = without_each_mixture(own)
    hangs = [
        f"*{spoken(one['setting'])}* (r {short(one['value'])}, p {one['p']:.2g})"
        for one in left.to_dict("records")
        if one["p"] >= LEVEL
    ]
    return f"without {' or '.join(hangs)} in {row['study']}" if hangs else ""


def what_is_left(levels: pd.DataFrame, row: Mapping[str, Any]) -> str:
    """What is left of a correlation at equal accuracy of seen classes, where that was asked."""
    same = (levels["level"] == row["level"]) & (levels["measure"] == row["measure"])
    adjusted = levels[same & (levels["adjusted"] == SEEN)].to_dict("records")
    said = [
        f"r {correlation(own)}, {own['verdict']}"
        if own["verdict"] != CANNOT_TELL
        else f"r {correlation(own)}, {why_open(own)}"
        for own in adjusted
    ]
    return "; ".join(said)


def sharing_in_words(found: Decided, made: Tables) -> list[str]:
    """Levels where sharing goes with accuracy, in which studies, and what is left of it there."""
    links = levels_of(found, made)
    told = links[links["verdict"] == TOGETHER].groupby(["level", "rung", "measure"])
    return [_together(rows, made) for _, rows in told] or ["Not shown at any level"]


def _together(links: pd.DataFrame, made: Tables) -> str:
    """One measure's correlations of one level, each at equal accuracy of seen classes, and the
    mixtures without which none would be told."""
    rows = links.to_dict("records")
    says = LEVELS[rows[0]["level"]].removesuffix(")")
    told = ", ".join(
        f"{so_far(row['study'])} r {correlation(row)}{mark_of_link(row, made[row['study']])}"
        for row in rows
    )
    left = {row["study"]: what_is_left(made[row["study"]]["levels"], row) for row in rows}
    rest = ", ".join(f"{study} {words}" for study, words in left.items() if words)
    said = f"{says}, by {rows[0]['rung']} {rows[0]['measure']}, chosen afterwards): {told}"
    said += f"; at equal {SEEN}: {rest}" if rest else ""
    if rows[0]["level"] == "L2":
        hanging = [_hanging(row, made[row["study"]]["runs"]) for row in rows]
        words = ", ".join(each for each in hanging if each)
        said += f"; perhaps zero {words} (p not adjusted)" if words else ""
    return said
