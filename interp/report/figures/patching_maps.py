"""What replacing one activation does: points by site, or a map of layer by position."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.declared.figures import INDEX, RAW, Scale
from interp.declared.writing import plain
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.kinds import hover
from interp.report.grammar.mean_of_models import mean_of_models
from interp.report.grammar.pieces import Figure, Meta, Trace
from interp.report.loaded import Frame
from interp.report.naming import looks_of, setting_label, site_label
from interp.report.rows import sites_by_depth

MOST_DOTS = 60
"""Examples drawn per site; the table holds them all."""
_INTERVALS = {True: "intervals are in the table", False: "bars are 95 % intervals over classes"}


def patching_figure(data: FigureRows) -> Figure | None:
    """Share of the gap that a patch closes: points by site, or a map of layer by position."""
    rows = data.rows
    if rows[["value", "index"]].notna().sum().sum() == 0:
        return None
    scale = INDEX if rows["index"].notna().any() else RAW
    sites, settings = sites_by_depth(rows), data.choices[-1].options
    if rows["pos"].notna().any():
        cells = ["setting", "site", "pos"]
        means = [mean_of_models(view.rows, cells, [scale]) for view in data.views]
        traces = [
            _positions(own, scale.value, view.meta)
            for view, own in zip(data.views, means, strict=True)
        ]
        across = pieces.axis("token position (0 is the class token)")
        shape = pieces.layout(140 + 34 * len(sites), xaxis=across, yaxis=pieces.MAP)
        alt = f"Heat map of {len(sites)} layers by {rows['pos'].nunique()} positions"
        bars, dots, choices = _INTERVALS[True], "", data.choices
    else:
        examples = data.tables.get("patching_examples", rows[:0])
        looks = looks_of(data.page.settings, rows["setting"])
        means, traces = [], []
        for view in data.views:
            place, meta = view.meta[-1] or 0, view.meta[:-1]
            aside = (place - (len(settings) - 1) / 2) * min(0.16, 0.7 / len(settings))
            for setting, own in view.rows.groupby("setting", sort=False):
                own = own.drop_duplicates(["site", "seed"])
                means.append(mean_of_models(own, ["site"], [scale]))
                name, look = setting_label(str(setting)), looks[str(setting)]
                single = _examples(examples, own, scale.value)
                traces += _sites(name, look, means[-1], single, sites, scale, aside, meta)
        ends, beyond = _range(pd.concat(means), scale, traces)
        shape = _site_layout(sites, scale, ends)
        alt = f"Effect at {len(sites)} sites for {len(settings)} settings, with intervals"
        bars, choices = _INTERVALS[False], data.choices[:-1]  # settings stand side by side
        dots = f" Small dots: single pairs, at most {MOST_DOTS} per site{beyond}."
    gaps = int(rows[scale.value].isna().sum())
    return data.figure(
        traces,
        shape,
        choices=choices,
        averaged=means,
        gaps=(f"{gaps} values are unknown: see the table's reasons." if gaps else "") + dots,
        measures=", ".join(dict.fromkeys(name for name in rows["measure"] if name)),
        bars=bars,
        shape=alt,
    )


def _site_layout(sites: Sequence[str], scale: Scale, ends: Sequence[float]) -> Trace:
    index = scale is INDEX
    unit = "share of the gap closed beyond the null" if index else "effect, in units of the metric"
    words = [plain(site_label(site)) for site in sites]
    places = list(range(len(sites)))
    across = pieces.axis("site patched, from input to output", tickvals=places, ticktext=words)
    lines = [pieces.reference_line("y", at, "")[0] for at in ((0, 1) if index else (0,))]
    return pieces.layout(430, xaxis=across, yaxis=pieces.axis(unit, range=list(ends)), shapes=lines)


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
    name: str,
    look: tuple[str, str],
    rows: Frame,
    dots: Frame,
    sites: Sequence[str],
    scale: Scale,
    aside: float,
    meta: Meta,
) -> list[Trace]:
    """One setting: mean effects with intervals, and its single examples behind them."""

    def at(frame: Frame) -> list[float]:
        return [sites.index(site) + aside for site in frame["site"]]

    group = {"legendgroup": name}
    more = {"hoverinfo": "skip", "showlegend": False, **group}
    single = f"{name}, single pairs"
    small = pieces.points(single, (look[0], "circle"), at(dots), dots["effect"], [], meta, **more)
    small["marker"] = {"color": look[0], "size": 4, "opacity": 0.3}
    places, bars = (at(rows), rows[scale.value], hover(rows, scale)), pieces.error_bars(rows, scale)
    return [small, pieces.points(name, look, *places, meta, size=10, error_y=bars, **group)]


def _examples(examples: Frame, rows: Frame, scale: str) -> Frame:
    """Single effects on the figure's scale: the cell's own null is 0 and its ceiling 1."""
    frame = examples
    for key in ("setting", "test_domain", "pairing"):
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
    known = frame.assign(effect=effect).dropna(subset=["effect"])
    some = [part.iloc[:: max(1, -(-len(part) // MOST_DOTS))] for _, part in known.groupby("site")]
    return pd.concat(some) if some else known


def _positions(rows: Frame, scale: str, meta: Meta) -> Trace:
    """Layer by token position."""
    sites = sites_by_depth(rows)
    grid = rows.pivot_table(index="site", columns="pos", values=scale, dropna=False).reindex(sites)
    z = grid.to_numpy().tolist()
    trace = pieces.heat(
        z,
        [f"{pos:.0f}" for pos in grid.columns],
        [site_label(site) for site in sites],
        title="share of the gap" if scale == "index" else "effect",
        meta=meta,
    )
    blank = [["" for _ in row] for row in z]  # too many cells for numbers
    return {**trace, "text": blank, "x": [float(pos) for pos in grid.columns], "xgap": 1, "ygap": 1}
