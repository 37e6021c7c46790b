"""The answer in two sentences, for the top of the page; the verdict's section says all of it.

A third one says what an intervention did, where the study has one.
"""

import math
from collections.abc import Sequence

from interp.core.statistics import NOT_SHARED, SHARED
from interp.report.figures_levels import foremost
from interp.report.naming import contrast, percent, sequence, setting_name
from interp.report.primary import held_out_accuracy, primary_differences
from interp.report.reading import Frame, Result
from interp.report.subjects import Subject, band, rung_rows, subjects
from interp.report.words import ENOUGH_MIXTURES, answer

ASKED = {
    "R2": "geometry",
    "R3": "directions",
    "R4": "causal directions",
    "R6": "wiring",
}
"""What the headline names of the ladder, in its order."""

MOST_DOMAINS = 2
"""With more test domains than this, only the first ones are in the headline."""


def headline(result: Result) -> list[str]:
    """What generalizes, what is shared and how sure that is, and what an intervention did."""
    tests = result.test_domains[:MOST_DOMAINS]
    compared = {name: subjects(result, name) for name in tests}
    if result.one_model:
        said = answer(result)[:1]
    else:
        said = [_reached(result, tests)]
    if not result.accuracy_only:
        said = [*said, _shared(result, compared)]
    return said + _intervened(result)


def _reached(result: Result, tests: Sequence[str]) -> str:
    """The best and the worst setting on held-out classes, and whether diversity matters."""
    parts = []
    for name in tests:
        rows = held_out_accuracy(result, name).dropna(subset=["value"])
        where = name or "the test domain"
        if rows.empty:
            parts.append(f"in {where} accuracy on held-out classes was not measured")
            continue
        null = float(rows["null"].mean())
        chance = f", chance {percent(null)}" if math.isfinite(null) else ""
        best, worst = rows.loc[rows["value"].idxmax()], rows.loc[rows["value"].idxmin()]
        name_of, value = setting_name(best["setting"]), percent(best["value"])
        if len(rows) > 1:
            reached = f"{name_of} is best ({value}{chance}), {setting_name(worst['setting'])} worst"
            reached += f" ({percent(worst['value'])})"
        else:
            reached = f"{name_of} reaches {value}{chance}"
        parts.append(f"on classes held out in {where}, {reached}{_decided(result, name)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _intervened(result: Result) -> list[str]:
    """What aligning classes did, and what that licenses; L4's sentence."""
    found = foremost(result.frame("levels").dropna(subset=["weight", "value", "low", "high"]))
    if found.empty:
        return []
    row = found.iloc[0]
    value, low, high = (f"{100 * row[each]:+.1f}" for each in ("value", "low", "high"))
    done = "Aligning" if row["weight"] > 0 else "Separating"
    decided = row["licence"] if not row["reason"] else f"what causes that is open: {row['reason']}"
    return [
        f"{done} the seen classes of both domains in training (weight {abs(row['weight']):g}) "
        f"moves accuracy on held-out ones by {value} points ({low} to {high}) more than wrong "
        f"partners do; {decided}."
    ]


def _decided(result: Result, test_domain: str) -> str:
    """What the paired differences allow, in a clause."""
    rows = primary_differences(result, test_domain).dropna(subset=["low", "high"])
    rows = rows[[len(contrast(setting)) == 2 for setting in rows["setting"]]]
    if rows.empty:
        return ""
    sure = [_better(row) for _, row in rows.iterrows() if row["low"] > 0 or row["high"] < 0]
    if not sure:
        return "; no difference between settings has an interval clear of 0"
    return f"; {sequence(sure)} by an interval clear of 0"


def _better(row: Frame) -> str:
    one, other = (setting_name(part) for part in contrast(row["setting"]))
    return f"{one} beats {other}" if row["low"] > 0 else f"{other} beats {one}"


def _shared(result: Result, compared: dict[str, list[Subject]]) -> str:
    """Rung by rung, what the middle layers share; then what that says of generalization."""
    said = []
    for rung, what in ASKED.items():
        found = [
            summed.verdict
            for each in compared.values()
            for one in each
            for summed in [band(rung_rows(result, rung, one))]
            if summed is not None
        ]
        if found:
            said.append(f"{what} in {_tally(found)}")
    if not said:
        return "What the domains share was not measured."
    of = " pairs of domains" if result.one_model else " models"
    said[0] = f"{said[0]}{of}" if "(" not in said[0] else said[0].replace(" (", f"{of} (", 1)
    others = [name for name in compared if name]
    ends = f"{result.natural} and {sequence(others)}" if others else "two domains"
    return f"In the middle layers, {ends} share {sequence(said)}{_link(result)}."


def _tally(verdicts: Sequence[str]) -> str:
    """How many verdicts say what.

    >>> _tally(["shared", "shared"]), _tally(["shared", "cannot tell", "not shared"])
    ('2 of 2', '1 of 3 (1 open)')
    """
    undecided = sum(verdict not in (SHARED, NOT_SHARED) for verdict in verdicts)
    yes = f"{verdicts.count(SHARED)} of {len(verdicts)}"
    return f"{yes} ({undecided} open)" if undecided else yes


def _link(result: Result) -> str:
    if result.one_model:
        return "; what that is good for, one model cannot say"
    n = len(held_out_accuracy(result, result.test_domains[0])["setting"].unique())
    if n < ENOUGH_MIXTURES:
        return (
            f"; whether sharing goes with generalization cannot be told from {n} training "
            f"distribution{'' if n == 1 else 's'}"
        )
    return "; whether that goes with generalization is told by the verdict below"
