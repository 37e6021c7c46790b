"""The sections on training and on numerics: mixtures, losses, and the certificate."""

import math
from collections.abc import Sequence

from interp.core.declarations.figures import TEST_DOMAIN, AxisSpec, FigureSpec, Scale, SectionSpec
from interp.report.figures.grammar import finished, read_rows, views
from interp.report.figures.pieces import (
    GREY,
    LEGEND,
    Figure,
    Subject,
    Trace,
    axis,
    layout,
    numbers,
    rows_axis,
    span,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import ordered_settings, plain, sequence, setting_label, setting_name

FREE = "None: these are counts or readings, held against nothing."

MIXTURES = FigureSpec(
    "mixtures",
    "Training pictures by domain",
    "bars",
    ("mixtures",),
    method="The training pictures of each setting are counted.",
    null=FREE,
    caption="Pictures, not steps; n = {totals} per run, counted and so without interval. "
    "Optimiser steps: {steps}.",
    alt="Stacked bars of {settings} by domain",
    needs=("n_pictures",),
    subjects="domain",
    choices=(TEST_DOMAIN,),
)
LOSSES = FigureSpec(
    "losses",
    "Training loss by epoch",
    "curve",
    ("losses",),
    method="The contrastive loss of the training batches is averaged over each epoch.",
    null="None is drawn; random guessing costs the logarithm of the batch size.",
    caption="Training loss, mean over an epoch; n = 1 run per line, so without interval. Further "
    "blocks are faint.",
    alt="Lines of {settings} over {points} epochs",
    needs=("epoch", "loss"),
    scale=Scale("loss"),
    subjects="settings",
    choices=(TEST_DOMAIN,),
    across="epoch",
    x=AxisSpec("epoch"),
    y=AxisSpec("loss, nats"),
    height=320,
)
CERTIFIED = FigureSpec(
    "certificate",
    "Largest difference from the original model, against what may pass",
    "certificate",
    ("certificate",),
    method="Every activation of our towers is held against the original's.",
    null="None: an error is compared with what may pass.",
    caption="n = {checked} sites or parameters per check; of each the one nearest to its own bar, "
    "or furthest beyond, so without interval. Left of the grey bar passes. An error of exactly 0 "
    "is drawn at {least:g}.",
    alt="{said}",
    needs=("error", "bar"),
)

TRAINING = SectionSpec(
    "training",
    "Training distributions",
    "Each setting is a rule on which cells (class × domain) are trained on. All but natural "
    "only are matched in size unless the specification says otherwise (Kempf et al. 2025).",
    (MIXTURES, LOSSES),
    ("mixtures", "losses"),
    study_only=True,
)
CERTIFICATE = SectionSpec(
    "certificate",
    "Numerics certificate",
    "Every opened tower against the original at every site, on weights of which each was moved "
    "off its initial value: error = max |ours − theirs| / max |theirs|.",
    (CERTIFIED,),
    ("certificate",),
    words=(("certificate",),),
)


def mixtures_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Training pictures of each domain in each setting, stacked."""
    rows = read_rows(result, spec)
    if rows.empty:
        return None
    settings = ordered_settings(rows["setting"])
    found, choices = views(result, spec, rows)
    traces = [_bar(one, settings, view.meta) for view in found for one in view.subjects]
    steps = rows.groupby("setting")["steps"].max().dropna()
    trained = sequence(
        [f"{setting_name(name)} {steps[name]:,.0f}" for name in ordered_settings(steps.index)]
    )
    totals = rows.groupby(["test_domain", "setting", "seed"], dropna=False)["n_pictures"].sum()
    shape = layout(
        130 + 46 * len(settings),
        barmode="stack",
        legend={**LEGEND, "traceorder": "normal"},
        xaxis=axis("training pictures"),
        yaxis=rows_axis(len(settings)),
    )
    said = {"totals": span(totals), "steps": trained or "not recorded"}
    return finished(spec, result, rows, traces, shape, choices, **said)


def _bar(one: Subject, settings: Sequence[str], meta: Sequence[int | None]) -> Trace:
    rows = one.rows.drop_duplicates("setting").set_index("setting")
    rows = rows.reindex([name for name in settings if name in set(rows.index)])
    return {
        "type": "bar",
        "orientation": "h",
        "name": one.name,
        "x": numbers(rows["n_pictures"]),
        "y": [setting_label(str(name)) for name in rows.index],
        "marker": {"color": one.colour},
        "hovertemplate": "%{y}: %{x:,} pictures<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


LEAST = 1e-18
"""Where an error of exactly 0 is drawn on the logarithmic axis."""

POWERS = {"exponentformat": "power", "nticks": 5, "tickangle": 0}


def certificate_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Worst error of each check against its bar."""
    rows = read_rows(result, spec)
    if rows.empty:
        return None
    worst = worst_of_checks(rows)
    names = [
        plain(f"{tower} {check}, {str(dtype).removeprefix('torch.')}".strip(), 60)
        for tower, check, dtype in zip(worst["tower"], worst["check"], worst["dtype"], strict=True)
    ]
    errors = [float(value) for value in worst["error"]]
    bars = [float(bar) for bar in worst["bar"]]
    said = "; ".join(
        f"{name}: {value:.2g} {'passes' if value <= bar else 'FAILS'}"
        for name, value, bar in zip(names, errors, bars, strict=True)
    )
    shape = layout(
        120 + 36 * len(names),
        xaxis=axis("relative error", type="log", **POWERS),
        yaxis=rows_axis(len(names)),
    )
    told = {"checked": span(worst["n_sites"]), "least": LEAST, "said": said}
    return finished(spec, result, rows, _traces(names, errors, bars), shape, **told)


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
