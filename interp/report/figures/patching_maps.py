"""What replacing one activation does: points by site, or a map of layer by position."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.declared.figures import INDEX, RAW, FigureSpec, Scale
from interp.declared.writing import plain
from interp.report.grammar.filled_figures import finished, read_rows, views
from interp.report.grammar.pieces import (
    MAP,
    DrawnSubject,
    Figure,
    Trace,
    axis,
    error_bars,
    heat,
    hover,
    layout,
    points,
    reference_line,
)
from interp.report.grammar.several_models import mean_of_models
from interp.report.grammar.subjects import looks_of, sites_by_depth
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import setting_label, site_label

MOST_DOTS = 60
"""Examples drawn per site; the table holds them all."""
_INTERVALS = {True: "intervals are in the table", False: "bars are 95 % intervals over classes"}


def patching_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Share of the gap that a patch closes: points by site, or a map of layer by position."""
    rows = read_rows(result, spec)
    if rows[["value", "index"]].notna().sum().sum() == 0:
        return None
    scale = INDEX if rows["index"].notna().any() else RAW
    found, choices = views(result, spec, rows)
    sites, settings = sites_by_depth(rows), choices[-1].options
    means: list[Frame] = []
    if rows["pos"].notna().any():
        cells = [name for name in rows if name in ("setting", "site", "pos")]
        means = [mean_of_models(view.rows, cells, [scale]) for view in found]
        traces = [
            _positions(own, scale.value, view.meta) for view, own in zip(found, means, strict=True)
        ]
        shape = layout(140 + 34 * len(sites), xaxis=axis("token position (0 is the class token)"))
        shape["yaxis"] = MAP
        alt = f"Heat map of {len(sites)} layers by {rows['pos'].nunique()} positions"
        bars, dots = _INTERVALS[True], ""
    else:
        looks = looks_of(result, rows["setting"])
        traces = []
        for view in found:
            for setting, own in view.rows.groupby("setting", sort=False):
                place, meta = view.meta[-1] or 0, view.meta[:-1]
                own = own.drop_duplicates(["site", "seed"])
                pairs = _examples(result, own, scale.value)
                means.append(mean_of_models(own, ["site"], [scale]))
                name, look = setting_label(str(setting)), looks[str(setting)]
                one = DrawnSubject(name, *look, means[-1])
                aside = (place - (len(settings) - 1) / 2) * min(0.16, 0.7 / len(settings))
                traces += _sites(one, pairs, sites, scale, aside, meta)
        choices = choices[:-1]  # settings stand side by side
        ends, beyond = _range(pd.concat(means), scale, traces)
        shape = _site_layout(sites, scale, ends)
        alt = f"Effect at {len(sites)} sites for {len(settings)} settings, with intervals"
        bars = _INTERVALS[False]
        dots = f" Small dots: single pairs, at most {MOST_DOTS} per site{beyond}."
    gaps = int(rows[scale.value].isna().sum())
    said = {
        "gaps": (f"{gaps} values withheld, see the table's reasons." if gaps else "") + dots,
        "measures": ", ".join(dict.fromkeys(name for name in rows["measure"] if name)),
        "bars": bars,
        "shape": alt,
    }
    return finished(spec, result, rows, traces, shape, choices, means, **said)


def _site_layout(sites: Sequence[str], scale: Scale, ends: Sequence[float]) -> dict[str, Any]:
    index = scale is INDEX
    unit = "share of the gap closed beyond the null" if index else "effect, in units of the metric"
    words = [plain(site_label(site)) for site in sites]
    places = list(range(len(sites)))
    across = axis("site patched, from input to output", tickvals=places, ticktext=words)
    lines = [reference_line("y", at, "")[0] for at in ((0, 1) if index else (0,))]
    return layout(430, xaxis=across, yaxis=axis(unit, range=list(ends)), shapes=lines)


def _range(rows: Frame, scale: Scale, traces: Sequence[Trace]) -> tuple[list[float], str]:
    """Ends of the axis: all intervals and nearly all single pairs; and how many lie beyond."""
    means = rows[[scale.value, scale.low, scale.high]].to_numpy(float).ravel()
    dots = np.array([y for t in traces if t.get("hoverinfo") == "skip" for y in t["y"]], float)
    dots = dots[np.isfinite(dots)]
    inner = np.quantile(dots, [0.02, 0.98]) if len(dots) else []
    shown = np.concatenate([means[np.isfinite(means)], inner, [0.0, 1.0 if scale is INDEX else 0]])
    low, high = float(shown.min()), float(shown.max())
    room = 0.05 * ((high - low) or 1.0)
    low, high = low - room, high + room
    beyond = int(((dots < low) | (dots > high)).sum())
    return [low, high], f"; {beyond} of {len(dots)} lie beyond the axis" if beyond else ""


def _sites(
    one: DrawnSubject,
    dots: Frame,
    sites: Sequence[str],
    scale: Scale,
    aside: float,
    meta: Sequence[int | None],
) -> list[Trace]:
    """One setting: mean effects with intervals, and its single examples behind them."""
    single = DrawnSubject(f"{one.name}, single pairs", one.colour, "circle", dots)

    def at(frame: Frame) -> list[float]:
        return [sites.index(site) + aside for site in frame["site"]]

    small = points(single, at(dots), dots["effect"], [], meta, size=4, showlegend=False)
    small |= {"marker": {"color": one.colour, "size": 4, "opacity": 0.3}, "hoverinfo": "skip"}
    said, bars = hover(one.rows, scale), error_bars(one.rows, scale)
    values = one.rows[scale.value]
    large = points(one, at(one.rows), values, said, meta, size=10, error_y=bars)
    return [trace | {"legendgroup": one.name} for trace in (small, large)]


def _examples(result: LoadedResult, rows: Frame, scale: str) -> Frame:
    """Single effects on the figure's scale: the cell's own null is 0 and its ceiling 1."""
    frame = result.frame("patching_examples")
    keys = ("setting", "test_domain", "pairing")
    for key in keys:
        frame = frame[frame[key].isin([rows[key].iloc[0], ""])]
    frame = frame[frame["site"].isin(rows["site"]) & (frame["control"] == "")]
    noise = frame["measure"].str.endswith(", noise")
    effect = frame["value"] - frame["corrupt_metric"].where(~noise, frame["clean_metric"])
    if scale == "index":
        # where a model has no index, its single pairs have none either
        keys = ["site", "seed"] if rows["seed"].nunique() > 1 else ["site"]
        cell = rows.dropna(subset="index")[[*keys, "null", "ceiling"]]
        cell = frame[keys].merge(cell, how="left", on=keys)
        null, ceiling = cell["null"].to_numpy(), cell["ceiling"].to_numpy()
        effect = (effect - null) / (ceiling - null)
    found = frame.assign(effect=effect).dropna(subset=["effect"])
    kept = [part.iloc[:: max(1, -(-len(part) // MOST_DOTS))] for _, part in found.groupby("site")]
    return pd.concat(kept) if kept else found


def _positions(rows: Frame, scale: str, meta: Sequence[int | None]) -> Trace:
    """Layer by token position."""
    sites = sites_by_depth(rows)
    grid = rows.pivot_table(index="site", columns="pos", values=scale, dropna=False).reindex(sites)
    z = grid.to_numpy().tolist()
    trace = heat(
        z,
        [f"{pos:.0f}" for pos in grid.columns],
        [site_label(site) for site in sites],
        title="share of the gap" if scale == "index" else "effect",
        meta=meta,
    )
    blank = [["" for _ in row] for row in z]  # too many cells for numbers
    return {**trace, "text": blank, "x": [float(pos) for pos in grid.columns], "xgap": 1, "ygap": 1}
