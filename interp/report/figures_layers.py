"""Figures of what layers hold: shares of variance, how far domains lie apart, what probes know."""

from collections.abc import Callable, Sequence

import pandas as pd

from interp.core.band import BAND
from interp.report.depth import DEPTH, RAW, depth_lines, named, without_twins
from interp.report.figures import (
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    kinds,
    layout,
    reference,
    shade,
)
from interp.report.naming import sequence
from interp.report.reading import Frame, Result
from interp.report.subjects import Subject, subjects

Look = tuple[str, Callable[[Result, Subject], Frame]]
"""A way to look at a table: its name among the choices, and the rows of a subject."""

FACTORS = {
    "class": "class, in all domains alike",
    "domain": "domain, in all classes alike",
    "interaction": "class and domain only jointly",
    "residual": "pictures within a class and domain",
}


def factors(result: Result) -> Figure | None:
    """Shares of the pictures' variance by class, domain, both together and the rest, by depth."""
    looks = [(words, _factor(name)) for name, words in FACTORS.items()]
    return _by_depth(
        result, looks, name="factors",
        title="What the pictures' variance at each layer is about", choice="Share of",
        unit="share of variance", limits=(-0.05, 1.05),
        note="Products of two halves of the pictures by other artists hold no noise, so that a "
        "share that is not there reads 0 on average.",
    )  # fmt: skip


def angle(result: Result) -> Figure | None:
    """Overlap of the directions of class and domain effects, by depth."""
    looks = [("", _factor("class and domain"))]
    return _by_depth(
        result, looks, name="angle",
        title="Do class and domain lie along the same directions?", choice="",
        unit="squared cosine (0 orthogonal)",
        note="Drawn where both effects exceed 3 standard errors: smaller ones have no direction.",
    )  # fmt: skip


def apart(result: Result) -> Figure | None:
    """How well the domain can be read, and how far two domains lie apart, by depth."""
    looks: list[Look] = [
        ("which of all domains, classes not trained on", _domain_probe),
        ("which of the two domains, classes not trained on", _separated("domain classifier")),
        ("squared distance of the two domains, in variances within a class",
         _separated("squared distance of domain means")),
    ]  # fmt: skip
    return _by_depth(
        result, looks, name="apart", title="How far do domains lie apart?", choice="Read",
        unit="accuracy, or distance",
    )  # fmt: skip


def selective(result: Result) -> Figure | None:
    """Accuracy of class probes beyond a control task, by depth."""
    looks: list[Look] = [("in the natural domain", _selective(True))]
    looks += [] if result.one_model else [("in the test domain", _selective(False))]
    return _by_depth(
        result, looks, name="selectivity",
        title="Do probes read the class, or memorise drawings?", choice="Probes",
        unit="accuracy beyond a control task",
        note="Both tasks share pictures and probes; the control task gives whole groups of "
        "drawings a class at random (Hewitt and Liang 2019).",
    )  # fmt: skip


def _by_depth(
    result: Result,
    looks: Sequence[Look],
    *,
    name: str,
    title: str,
    choice: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    note: str = "",
) -> Figure | None:
    """Raw numbers by depth: a line per subject with its interval, floors dashed."""
    traces: list[Trace] = []
    shown: list[Frame] = []
    alive = [look for look in looks if _any(result, look[1])]
    for d, test_domain in enumerate(result.test_domains):
        for v, (_, pick) in enumerate(alive):
            for one in subjects(result, test_domain):
                rows = pick(result, one)
                shown.append(rows)
                traces += depth_lines(rows, one, [d, v], RAW)
    if not shown:
        return None
    rows: Frame = pd.concat(shown)
    scale = {"range": list(limits)} if limits else {}
    zero, _ = reference("y", 0, "")
    return Figure(
        name,
        title,
        f"{counts(rows[rows['control'] == ''])}; ribbons are 95 % intervals over classes. "
        f"{kinds(rows)} Dashed: the same models untrained. Grey: the middle layers. {note}".strip(),
        f"Lines over depth for {sequence([trace['name'] for trace in named(traces)])}",
        without_twins(traces),
        layout(
            420,
            shapes=[shade(*BAND), zero],
            xaxis=axis(DEPTH, range=[-0.03, 1.03]),
            yaxis=axis(unit, **scale),
        ),
        [Choice("Test domain", result.test_domains), Choice(choice, [each for each, _ in alive])],
    )


def _any(result: Result, pick: Callable[[Result, Subject], Frame]) -> bool:
    return any(
        pick(result, one)["value"].notna().any()
        for test_domain in result.test_domains
        for one in subjects(result, test_domain)
    )


def _factor(factor: str) -> Callable[[Result, Subject], Frame]:
    def pick(result: Result, one: Subject) -> Frame:
        rows = one.of(result.frame("factorisation"))
        return rows[rows["factor"] == factor]

    return pick


def _domain_probe(result: Result, one: Subject) -> Frame:
    return one.of(result.frame("domain_probes"))


def _separated(measure: str) -> Callable[[Result, Subject], Frame]:
    def pick(result: Result, one: Subject) -> Frame:
        rows = one.pair(result.frame("separation"))
        return rows[rows["measure"] == measure]

    return pick


def _selective(natural: bool) -> Callable[[Result, Subject], Frame]:
    def pick(result: Result, one: Subject) -> Frame:
        rows = one.of(result.frame("selectivity"))
        return rows[rows["domain"] == (one.natural if natural else one.domain)]

    return pick
