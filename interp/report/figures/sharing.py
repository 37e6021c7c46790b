"""Figures of sharing: index by depth for rungs R2 to R4, and maps of domain by domain."""

from collections.abc import Callable, Sequence
from itertools import product

import pandas as pd

from interp.core.sites import BAND, LAST
from interp.report.figures.pieces import (
    DEPTH,
    MAP,
    THRESHOLDS,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    depth_lines,
    heat,
    kinds,
    layout,
    named,
    reference_line,
    shade,
    without_twins,
)
from interp.report.figures.subjects import (
    ComparedPair,
    compared_pairs,
    middle_site,
    settings_of,
    sites_by_depth,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import sequence, setting_name, site_label

Rows = Callable[[LoadedResult, ComparedPair], Frame]

WHAT = {
    "R2": ("similarity", "Shared geometry by depth"),
    "R3": ("transfer", "Shared directions by depth: probes"),
    "cosine": ("directions", "Shared directions by depth: cosines"),
    "R4": ("transplant", "Activations taken abroad, by depth"),
    "das": ("das", "Shared causal directions by depth"),
}


def profile(result: LoadedResult, rung: str, *, name: str = "") -> Figure | None:
    """Index by depth, a line per subject with its interval, floors dashed, thresholds marked."""
    table, title = WHAT[rung]
    variants = _variants(result, rung)
    traces: list[Trace] = []
    shown: list[Frame] = []
    for d, test_domain in enumerate(result.test_domains):
        for v, pick in enumerate(variants.values()):
            for one in compared_pairs(result, test_domain):
                rows = pick(result, one)
                shown.append(rows)
                traces += depth_lines(rows, one, [d, v])
    rows: Frame = pd.concat(shown) if shown else pd.DataFrame()
    if rows.empty or rows["index"].notna().sum() == 0:
        return None
    lines = [reference_line("y", at, word) for at, word in zip(THRESHOLDS, _WORDS, strict=True)]
    return Figure(
        name or table,
        f"{title}, {_pair(result)}",
        _caption(rows),
        f"Lines of the index over depth for {sequence([t['name'] for t in named(traces)])}",
        without_twins(traces),
        layout(
            440,
            shapes=[shade(*BAND), *(line for line, _ in lines)],
            annotations=[note for _, note in lines],
            xaxis=axis(DEPTH, range=[-0.03, 1.03]),
            yaxis=axis("index (0 null, 1 ceiling)"),
        ),
        [Choice("Test domain", result.test_domains), Choice("Seen by", list(variants))],
    )


_WORDS = ("not shared below .2", "shared above .5")
COSINES = ("cosine of mean differences", "cosine of LDA directions")


def _variants(result: LoadedResult, rung: str) -> dict[str, Rows]:
    """The ways a rung looks at a pair of domains, by name, the primary one first."""
    if rung == "R2":
        return {"": lambda result, one: one.pair(result.frame("similarity"))}
    if rung == "cosine":
        found = {kind: _measured("directions", kind) for kind in COSINES}
    elif rung in ("R4", "das"):
        found = {
            f"from {'natural' if onwards else 'the other'} domain": _moved(rung, onwards)
            for onwards in (True, False)
        }
    else:
        found = {
            f"{'natural to the other domain' if onwards else 'the other domain to natural'}"
            f"{', each domain centred' if centred else ''}": _probed(onwards, centred)
            for centred, onwards in product((False, True), (True, False))
        }
    alive = {
        name: pick
        for name, pick in found.items()
        if any(
            len(pick(result, one)) for d in result.test_domains for one in compared_pairs(result, d)
        )
    }
    return alive or dict(list(found.items())[:1])


def _measured(table: str, measure: str) -> Rows:
    def pick(result: LoadedResult, one: ComparedPair) -> Frame:
        rows = one.pair(result.frame(table))
        return rows[rows["measure"] == measure]

    return pick


def _moved(rung: str, onwards: bool) -> Rows:
    def pick(result: LoadedResult, one: ComparedPair) -> Frame:
        rows = one.pair(result.frame(WHAT[rung][0]))
        return rows[(rows["domain_a"] == one.natural) == onwards]

    return pick


def _probed(onwards: bool, centred: bool) -> Rows:
    def pick(result: LoadedResult, one: ComparedPair) -> Frame:
        rows = one.of(result.frame("transfer"))
        ends = (one.natural, one.domain) if onwards else (one.domain, one.natural)
        there = (rows["train_domain"] == ends[0]) & (rows["domain"] == ends[1])
        return rows[there & (rows["centred"] == centred)]

    return pick


def _pair(result: LoadedResult) -> str:
    if result.one_model:
        return f"{result.natural} with every other domain"
    return f"{result.natural} × {sequence(result.test_domains)}"


def _caption(rows: Frame) -> str:
    own = rows[rows["control"] == ""]
    withheld = own[own["index"].isna()]
    gaps = f" Gaps: {len(withheld)} values withheld, see the table's reasons." * bool(len(withheld))
    return (
        f"{counts(own)}; shaded ribbons are 95 % intervals of the index, which leave one "
        f"{next((unit for unit in own['unit'] if unit), 'unit')} out at a time. {kinds(own)} Grey: "
        f"the middle layers, by which the verdict is given. Dashed: the same models untrained; "
        f"dotted: raw pixels, where measured.{gaps}"
    )


def domain_map(result: LoadedResult) -> Figure | None:
    """Index of CKA between all domains at one site; the middle site is shown first."""
    frame = result.frame("similarity")
    own = frame[
        (frame["control"] == "") & ((frame["site_b"] == "") | (frame["site_b"] == frame["site"]))
    ]
    if own.empty or own["domain_a"].eq("").all():
        return None
    return _map(
        result, own, ("domain_a", "domain_b"), "index", name="domain-map",
        title="Shared geometry between all domains", legend="index", symmetric=True,
    )  # fmt: skip


def probe_map(result: LoadedResult) -> Figure | None:
    """Accuracy of probes trained in one domain (down) and tested in another (across)."""
    frame = result.frame("transfer")
    own = frame[(frame["control"] == "") & ~frame["centred"]]
    if own.empty or own["train_domain"].eq("").all():
        return None
    return _map(
        result, own, ("train_domain", "domain"), "value", name="probe-map",
        title="Accuracy of probes, trained in one domain (rows), tested in another (columns)",
        legend="balanced accuracy", symmetric=False,
    )  # fmt: skip


def _map(
    result: LoadedResult,
    rows: Frame,
    ends: tuple[str, str],
    value: str,
    *,
    name: str,
    title: str,
    legend: str,
    symmetric: bool,
) -> Figure:
    """A domain by domain map with choices of test domain, setting and site."""
    domains = [one for one in result.domains if one in set(rows[ends[0]]) | set(rows[ends[1]])]
    settings = [one for one in settings_of(result) if one in set(rows["setting"])]
    tests = [one for one in result.test_domains if one in set(rows["test_domain"])] or [""]
    sites = sites_by_depth(rows)
    few = rows[["test_domain", "setting", "site", *ends, value]]  # quicker to cut up than all
    found = dict(iter(few.groupby(["test_domain", "setting", "site"], sort=False)))
    traces = [
        _cells(_grid(chosen, ends, value, domains, symmetric), domains, legend, m, symmetric)
        for (d, test), (s, setting), (p, site) in product(*map(enumerate, (tests, settings, sites)))
        for m in [[d, s, p]]
        for chosen in [found.get((test, setting, site), few.iloc[:0])]
    ]
    middle = middle_site(rows)
    unsure = " A cell with ? was not measured, or its ceiling is too near its null for an index."
    return Figure(
        name,
        title,
        f"{counts(rows)}; intervals are in the table below. {kinds(rows)}{unsure}",
        f"Heat map of {len(domains)} by {len(domains)} domains, {len(sites)} sites to choose from",
        traces,
        layout(
            80 + 50 * len(domains),
            xaxis=MAP,
            yaxis={**MAP, "autorange": "reversed"},
        ),
        [
            Choice("Test domain", tests),
            Choice("Setting", [setting_name(one) for one in settings]),
            Choice(
                "Site",
                [_site_option(rows, site) for site in sites],
                sites.index(middle) if middle in sites else 0,
            ),
        ],
    )


def _cells(
    grid: list[list[float]],
    domains: Sequence[str],
    legend: str,
    meta: Sequence[int | None],
    symmetric: bool,
) -> Trace:
    trace = heat(grid, domains, domains, title=legend, meta=meta)
    if symmetric:  # a domain with itself was never in question
        for place, row in enumerate(trace["text"]):
            row[place] = ""
    return trace


def _site_option(rows: Frame, site: str) -> str:
    depth = rows[rows["site"] == site]["depth"].iloc[0]
    note = ", final embedding" if site == LAST else ""
    return f"{site_label(site)} (depth {depth:.2f}{note})" if pd.notna(depth) else site_label(site)


def _grid(
    rows: Frame,
    ends: tuple[str, str],
    value: str,
    domains: Sequence[str],
    symmetric: bool,
) -> list[list[float]]:
    found = {
        (a, b): float(number)
        for a, b, number in zip(rows[ends[0]], rows[ends[1]], rows[value], strict=True)
    }
    if symmetric:
        found |= {(b, a): number for (a, b), number in found.items()}
    return [[found.get((a, b), float("nan")) for b in domains] for a in domains]
