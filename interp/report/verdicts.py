"""The verdicts in tables of words: the ladder of rungs, and each rung with its numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interp.core.statistics import CANNOT_TELL, NOT_SHARED, SHARED
from interp.report.figures_certificate import worst_of_checks
from interp.report.naming import MISSING, number, percent
from interp.report.reading import Result
from interp.report.subjects import Subject, band, rung_rows, subjects
from interp.report.words import readable

SIGNS = {SHARED: "●", NOT_SHARED: "○", CANNOT_TELL: "?", "yes": "●", "no": "?"}
"""A sign beside each verdict, so that no reader depends on colour."""

RUNGS = (
    ("R1", "class can be read in both domains"),
    ("R2", "same geometry"),
    ("R3", "same directions"),
    ("R4", "same causal directions"),
    ("R5", "same components"),
    ("R6", "same wiring"),
)


@dataclass(frozen=True)
class Grid:
    """A small table of words for the page."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def ladder(result: Result) -> list[Grid]:
    """Every rung for every subject, one grid per test domain; rungs not measured say so.

    A run that asked for accuracy alone has no ladder to climb.
    """
    grids: list[Grid] = []
    if result.accuracy_only:
        return grids
    for test_domain in result.test_domains:
        compared = subjects(result, test_domain)
        where = f"{result.natural} and {test_domain}" if test_domain else "the domains"
        rows = [
            [f"{rung} {claim}", *(_cell(result, rung, one) for one in compared)]
            for rung, claim in RUNGS
        ]
        caption = f"Are the middle layers shared between {where}? Every rung of the ladder"
        if compared:
            grids.append(Grid(caption, ["Rung", *(one.name for one in compared)], rows))
    return grids


def _cell(result: Result, rung: str, one: Subject) -> str:
    if rung in ("R5", "R6"):
        return "not measured"
    if rung == "R1":
        return _read(result, one)
    summed = band(rung_rows(result, rung, one))
    if summed is None:
        return "not measured"
    index = f" (index {number(summed.index)})" if math.isfinite(summed.index) else ""
    return f"{SIGNS.get(summed.verdict, '?')} {summed.verdict}{index}"


def _read(result: Result, one: Subject) -> str:
    rows = rung_rows(result, "R1", one)
    found = {name: readable(rows[rows["domain"] == name]) for name in (one.natural, one.domain)}
    if not all(verdict for verdict, _ in found.values()):
        return "not measured"
    sure = all(verdict == "yes" for verdict, _ in found.values())
    accuracies = ", ".join(f"{name} {percent(value)}" for name, (_, value) in found.items())
    return f"{SIGNS['yes' if sure else 'no']} {'yes' if sure else CANNOT_TELL} ({accuracies})"


def verdicts(result: Result, rung: str) -> list[Grid]:
    """A rung's verdict in the middle layers, with index, interval, votes and reasons."""
    grids = []
    for test_domain in result.test_domains:
        rows = [
            _verdict(result, rung, one)
            for one in subjects(result, test_domain)
            if len(rung_rows(result, rung, one))
        ]
        if rows:
            where = f", {result.natural} × {test_domain}" if test_domain else ""
            grids.append(Grid(f"Verdict of {rung} in the middle layers{where}", _HEAD, rows))
    return grids


_HEAD = ("", "Verdict", "Mean index", "95 % interval", "Sites", "Why")


def _verdict(result: Result, rung: str, one: Subject) -> list[str]:
    summed = band(rung_rows(result, rung, one))
    if summed is None:
        return [one.name, "? cannot tell", MISSING, MISSING, "0", "no site in the middle layers"]
    ends = MISSING
    if math.isfinite(summed.low) and math.isfinite(summed.high):
        ends = f"{number(summed.low)} to {number(summed.high)}"
    return [
        one.name,
        f"{SIGNS.get(summed.verdict, '?')} {summed.verdict}",
        number(summed.index),
        ends,
        summed.verdicts,
        "; ".join(summed.reasons) or MISSING,
    ]


def certificate_verdict(result: Result) -> list[Grid]:
    """Passed or failed, by check."""
    rows = result.frame("certificate")
    if rows.empty:
        return []
    body = []
    for row in worst_of_checks(rows).itertuples():
        error = f"{row.error:.2g}" if math.isfinite(row.error) else MISSING
        verdict = f"✗ {row.failed} fail" if row.failed else "✓ all pass"
        check = f"{row.tower} {row.check}"
        numbers = [str(row.n_sites), row.site, error, f"{row.bar:.2g}"]
        body.append([check, str(row.dtype), *numbers, verdict])
    head = ("Check", "Precision", "Sites", "Nearest to its bar", "Error", "Bar", "Verdict")
    return [Grid("Certificate", head, body)]
