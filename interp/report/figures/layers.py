"""Figures of what layers hold: shares of variance, how far domains lie apart, what probes know."""

from collections.abc import Callable, Sequence
from itertools import product

import pandas as pd

from interp.core.sites import BAND, LAST
from interp.report.figures.pieces import (
    DEPTH,
    RAW,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    depth_lines,
    kinds,
    layout,
    named,
    numbers,
    reference_line,
    shade,
    without_twins,
)
from interp.report.figures.subjects import EPOCH_0, ComparedPair, compared_pairs, settings_of
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import colours, percents, plain, sequence, setting_name, site_label

Look = tuple[str, Callable[[LoadedResult, ComparedPair], Frame]]
"""A way to look at a table: its name among the choices, and the rows of a subject."""

FACTORS = {
    "class": "class, in all domains alike",
    "domain": "domain, in all classes alike",
    "interaction": "class and domain only jointly",
    "residual": "pictures within a class and domain",
}


def factors_figure(result: LoadedResult) -> Figure | None:
    """Shares of the pictures' variance by class, domain, both together and the rest, by depth."""
    looks = [(words, _factor(name)) for name, words in FACTORS.items()]
    return _by_depth(
        result, looks, name="factors",
        title="What the pictures' variance at each layer is about", choice="Share of",
        unit="share of variance", limits=(-0.05, 1.05),
        note="Products of two halves of the pictures by other artists hold no noise, so that a "
        "share that is not there reads 0 on average.",
    )  # fmt: skip


def angle_figure(result: LoadedResult) -> Figure | None:
    """Overlap of the directions of class and domain effects, by depth."""
    looks = [("", _factor("class and domain"))]
    return _by_depth(
        result, looks, name="angle",
        title="Do class and domain lie along the same directions?", choice="",
        unit="squared cosine (0 orthogonal)",
        note="Drawn where both effects exceed 3 standard errors: smaller ones have no direction.",
    )  # fmt: skip


def apart_figure(result: LoadedResult) -> Figure | None:
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


def selective_figure(result: LoadedResult) -> Figure | None:
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
    result: LoadedResult,
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
            for one in compared_pairs(result, test_domain):
                rows = pick(result, one)
                shown.append(rows)
                traces += depth_lines(rows, one, [d, v], RAW)
    if not shown:
        return None
    rows: Frame = pd.concat(shown)
    scale = {"range": list(limits)} if limits else {}
    zero, _ = reference_line("y", 0, "")
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


def _any(result: LoadedResult, pick: Callable[[LoadedResult, ComparedPair], Frame]) -> bool:
    return any(
        pick(result, one)["value"].notna().any()
        for test_domain in result.test_domains
        for one in compared_pairs(result, test_domain)
    )


def _factor(factor: str) -> Callable[[LoadedResult, ComparedPair], Frame]:
    def pick(result: LoadedResult, one: ComparedPair) -> Frame:
        rows = one.of(result.frame("factorisation"))
        return rows[rows["factor"] == factor]

    return pick


def _domain_probe(result: LoadedResult, one: ComparedPair) -> Frame:
    return one.of(result.frame("domain_probes"))


def _separated(measure: str) -> Callable[[LoadedResult, ComparedPair], Frame]:
    def pick(result: LoadedResult, one: ComparedPair) -> Frame:
        rows = one.pair(result.frame("separation"))
        return rows[rows["measure"] == measure]

    return pick


def _selective(natural: bool) -> Callable[[LoadedResult, ComparedPair], Frame]:
    def pick(result: LoadedResult, one: ComparedPair) -> Frame:
        rows = one.of(result.frame("selectivity"))
        return rows[rows["domain"] == (one.natural if natural else one.domain)]

    return pick


UNTRAINED = "untrained (epoch 0)"


def views_figure(result: LoadedResult) -> Figure | None:
    """Principal components of the middle site and of the embedding, a point per picture."""
    rows = result.frame("views").dropna(subset=["x", "y"])
    rows = rows[rows["seed"].eq(rows["seed"].min()) | rows["seed"].isna()]
    if rows.empty:
        return None
    tests = [name for name in result.test_domains if name in set(rows["test_domain"])] or [""]
    settings = [name for name in settings_of(result) if name in set(rows["setting"])]
    models = [(setting, "") for setting in settings if setting or not rows["control"].eq("").all()]
    models = models or [("", "")]
    if rows["control"].eq(EPOCH_0).any():
        models.append(("", EPOCH_0))
    sites = sorted(set(rows["site"]), key=lambda site: site != LAST)
    tints = colours(result.domains)
    traces: list[Trace] = []
    for (d, test), (m, (setting, control)), (p, site) in product(
        *map(enumerate, (tests, models, sites))
    ):
        chosen = rows[
            (rows["test_domain"] == test)
            & (rows["setting"] == setting)
            & (rows["control"] == control)
            & (rows["site"] == site)
        ]
        traces += [
            _points(chosen[chosen["domain"] == name], name, tints[name], [d, m, p])
            for name in result.domains
            if chosen["domain"].eq(name).any()
        ]
    per_view = int(rows.groupby(["test_domain", "setting", "control", "site"]).size().max())
    shares = rows.groupby("site")["explained"].agg(["min", "max"])
    said = sequence([
        f"{site_label(str(site))} {percents(float(row['min']), float(row['max']))}"
        for site, row in shares.iterrows()
    ])  # fmt: skip
    names = [UNTRAINED if control else setting_name(setting) for setting, control in models]
    return Figure(
        "views",
        "Pictures by their first two principal components",
        f"n = {per_view} pictures a view, of seen classes, never trained on. A view has no "
        "interval and is no evidence: how far domains lie apart is measured above, in all "
        f"coordinates. Both components hold this share of the variance: {said}.",
        f"Scatter of pictures of {sequence(result.domains)}, coloured by domain",
        traces,
        layout(460, xaxis=axis("first component"), yaxis=axis("second component")),
        [
            Choice("Test domain", tests),
            Choice("Model", names),
            Choice("Site", [site_label(site) for site in sites]),
        ],
    )


def _points(rows: Frame, domain: str, colour: str, meta: list[int | None]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(domain),
        "x": numbers(rows["x"].round(4)),
        "y": numbers(rows["y"].round(4)),
        "text": [plain(label) for label in rows["label"]],
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "marker": {"color": colour, "size": 6, "opacity": 0.75},
        "meta": meta,
    }
