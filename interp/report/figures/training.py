"""Figures of training: what each setting was trained on, and how its loss fell."""

import math
from collections.abc import Sequence

from interp.report.figures.pieces import (
    GREY,
    LEGEND,
    Choice,
    Figure,
    Trace,
    axis,
    layout,
    numbers,
    rows_axis,
    span,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import (
    colours,
    ordered_settings,
    plain,
    sequence,
    setting_label,
    setting_look,
    setting_name,
)


def mixtures_figure(result: LoadedResult) -> Figure | None:
    """Training pictures of each domain in each setting, stacked."""
    rows = result.frame("mixtures").dropna(subset=["n_pictures"])
    if rows.empty:
        return None
    options = list(dict.fromkeys(rows["test_domain"]))
    domains = [name for name in result.domains if name in set(rows["domain"])]
    tints = colours(domains)
    settings = ordered_settings(rows["setting"])
    traces: list[Trace] = []
    for place, test_domain in enumerate(options):
        here = rows[rows["test_domain"] == test_domain]
        for domain in domains:
            part = here[here["domain"] == domain].drop_duplicates("setting").set_index("setting")
            part = part.reindex([name for name in settings if name in set(part.index)])
            traces.append(_bar(part, domain, tints[domain], place))
    steps = rows.groupby("setting")["steps"].max().dropna()
    trained = sequence(
        [f"{setting_name(name)} {steps[name]:,.0f}" for name in ordered_settings(steps.index)]
    )
    totals = rows.groupby(["test_domain", "setting", "seed"], dropna=False)["n_pictures"].sum()
    return Figure(
        "mixtures",
        "Training pictures by domain",
        f"Pictures, not steps; n = {span(totals)} per run, counted and so without interval. "
        f"Optimiser steps: {trained or 'not recorded'}.",
        f"Stacked bars of {sequence([setting_name(name) for name in settings])} by domain",
        traces,
        layout(
            130 + 46 * len(settings),
            barmode="stack",
            legend={**LEGEND, "traceorder": "normal"},
            xaxis=axis("training pictures"),
            yaxis=rows_axis(len(settings)),
        ),
        [Choice("Test domain", options)],
    )


def _bar(rows: Frame, domain: str, colour: str, place: int) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(domain),
        "x": numbers(rows["n_pictures"]),
        "y": [setting_label(str(name)) for name in rows.index],
        "marker": {"color": colour},
        "hovertemplate": "%{y}: %{x:,} pictures<extra>%{fullData.name}</extra>",
        "meta": [place],
    }


def losses_figure(result: LoadedResult) -> Figure | None:
    """Training loss by epoch, a line per setting."""
    rows = result.frame("losses").dropna(subset=["epoch", "loss"])
    if rows.empty:
        return None
    options = list(dict.fromkeys(rows["test_domain"]))
    traces: list[Trace] = []
    for place, test_domain in enumerate(options):
        here = rows[rows["test_domain"] == test_domain]
        for number, setting in enumerate(ordered_settings(here["setting"])):
            own = here[here["setting"] == setting]
            for block, (_, line) in enumerate(own.groupby("seed", dropna=False, sort=True)):
                traces.append(_loss(line, setting, setting_look(setting, number), block, place))
    return Figure(
        "losses",
        "Training loss by epoch",
        "Training loss, mean over an epoch; n = 1 run per line, so without interval. Further "
        "blocks are faint.",
        f"Lines for {rows['setting'].nunique()} settings over {rows['epoch'].max():.0f} epochs",
        traces,
        layout(320, xaxis=axis("epoch"), yaxis=axis("loss, nats")),
        [Choice("Test domain", options)],
    )


def _loss(rows: Frame, setting: str, look: tuple[str, str], block: int, place: int) -> Trace:
    """A line of one run; blocks after the first are faint and share the first's legend entry."""
    line = rows.sort_values("epoch", kind="stable")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": setting_label(setting),
        "legendgroup": setting,
        "showlegend": not block,
        "opacity": 0.35 if block else 1.0,
        "x": numbers(line["epoch"]),
        "y": numbers(line["loss"]),
        "line": {"color": look[0], "width": 2},
        "marker": {"symbol": look[1], "size": 6},
        "hovertemplate": "epoch %{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
        "meta": [place],
    }


LEAST = 1e-18
"""Where an error of exactly 0 is drawn on the logarithmic axis."""

POWERS = {"exponentformat": "power", "nticks": 5, "tickangle": 0}


def certificate_figure(result: LoadedResult) -> Figure | None:
    """Worst error of each check against its bar."""
    rows = result.frame("certificate").dropna(subset=["error", "bar"])
    if rows.empty:
        return None
    worst = worst_of_checks(rows)
    names = [
        plain(f"{row.tower} {row.check}, {str(row.dtype).removeprefix('torch.')}".strip(), 60)
        for row in worst.itertuples()
    ]
    errors = [float(value) for value in worst["error"]]
    passed = [value <= bar for value, bar in zip(errors, worst["bar"], strict=True)]
    return Figure(
        "certificate",
        "Largest difference from the original model, against what may pass",
        f"n = {span(worst['n_sites'])} sites or parameters per check; of each the one nearest to "
        "its own bar, or furthest beyond, so without interval. Left of the grey bar passes. An "
        f"error of exactly 0 is drawn at {LEAST:g}.",
        "; ".join(
            f"{name}: {value:.2g} {'passes' if fine else 'FAILS'}"
            for name, value, fine in zip(names, errors, passed, strict=True)
        ),
        _traces(names, errors, [float(bar) for bar in worst["bar"]]),
        layout(
            120 + 36 * len(names),
            xaxis=axis("relative error", type="log", **POWERS),
            yaxis=rows_axis(len(names)),
        ),
    )


def worst_of_checks(rows: Frame) -> Frame:
    """One row per tower, check and precision: the site whose error is largest for its bar."""
    keys = ["tower", "check", "dtype"]
    ratio = (rows["error"] / rows["bar"]).fillna(math.inf)  # what was not compared fails
    worst = rows.loc[ratio.groupby([rows[key] for key in keys], sort=False).idxmax()]
    sizes = rows.groupby(keys, sort=False).agg(n_sites=("site", "size"), failed=("ok", "sum"))
    sizes["failed"] = sizes["n_sites"] - sizes["failed"]
    return worst.merge(sizes.reset_index(), on=keys)


def _traces(names: Sequence[str], errors: Sequence[float], bars: Sequence[float]) -> list[Trace]:
    """The errors, and the bars they must keep below."""
    passed = [value <= bar for value, bar in zip(errors, bars, strict=True)]
    drawn = [max(value, LEAST) if math.isfinite(value) else None for value in errors]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "worst error",
            "x": drawn,
            "y": names,
            "text": [f"{value:.2g}" for value in errors],
            "marker": {
                "size": 11,
                "color": ["#009E73" if fine else "#D55E00" for fine in passed],
                "symbol": ["circle" if fine else "x" for fine in passed],
            },
            "hovertemplate": "%{y}: %{text}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "bar",
            "x": list(bars),
            "y": names,
            "marker": {"size": 20, "color": GREY, "symbol": "line-ns-open", "line": {"width": 3}},
            "hovertemplate": "bar: %{x}<extra></extra>",
        },
    ]
