"""Figures of patching: what replacing one activation does, by site, or by layer and position."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from interp.report.figures.pieces import (
    MAP,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    error_bars,
    heat,
    hover,
    kinds,
    layout,
    numbers,
    reference_line,
)
from interp.report.figures.subjects import settings_of, sites_by_depth
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import plain, setting_label, setting_look, setting_name, site_label

MOST_DOTS = 60
"""Examples drawn per site; the table holds them all."""
_INTERVALS = {True: "intervals are in the table", False: "bars are 95 % intervals over classes"}


def patching_figure(result: LoadedResult) -> Figure | None:
    """Share of the gap that a patch closes: points by site, or a map of layer by position."""
    rows = result.frame("patching")
    rows = rows[rows["control"] == ""]
    if rows[["value", "index"]].notna().sum().sum() == 0:
        return None
    scale = "index" if rows["index"].notna().any() else "value"
    options = [
        [name for name in result.test_domains if name in set(rows["test_domain"])] or [""],
        list(dict.fromkeys(rows["pairing"])),
        [name for name in settings_of(result) if name in set(rows["setting"])],
    ]
    by_position = bool(rows["pos"].notna().any())
    traces: list[Trace] = []
    for (d, test), (p, pairing), (s, setting) in product(*map(enumerate, options)):
        chosen = rows[
            (rows["test_domain"] == test)
            & (rows["pairing"] == pairing)
            & (rows["setting"] == setting)
        ]
        if by_position:
            traces.append(_positions(chosen, scale, [d, p, s]))
        elif len(chosen):
            traces += _sites(result, chosen, scale, s, len(options[2]), [d, p])
    return _figure(rows, scale, by_position, options, traces)


def _figure(
    rows: Frame,
    scale: str,
    by_position: bool,
    options: Sequence[Sequence[str]],
    traces: Sequence[Trace],
) -> Figure:
    unit = "share of the gap closed" if scale == "index" else "effect, in units of the metric"
    measures = ", ".join(dict.fromkeys(name for name in rows["measure"] if name))
    settings = [setting_name(name) for name in options[2]]
    choices = [Choice("Test domain", options[0]), Choice("Pairs", options[1])]
    sites, beyond = sites_by_depth(rows), ""
    lines = [reference_line("y", at, "")[0] for at in ((0, 1) if scale == "index" else (0,))]
    if by_position:
        positions = rows["pos"].nunique()
        shape = layout(140 + 34 * len(sites), xaxis=axis("token position (0 is the class token)"))
        shape["yaxis"] = MAP
        alt = f"Heat map of {len(sites)} layers by {positions} positions"
        choices.append(Choice("Setting", settings))
    else:
        ends, beyond = _range(rows, scale, traces)
        shape = layout(430, yaxis=axis(unit, range=ends), shapes=lines)
        ticks = {
            "tickvals": list(range(len(sites))),
            "ticktext": [plain(site_label(s)) for s in sites],
        }
        shape["xaxis"] = axis("site patched, from input to output", **ticks)
        alt = f"Effect at {len(sites)} sites for {len(settings)} settings, with intervals"
    gaps = int(rows[scale].isna().sum())
    notes = f" {gaps} values withheld, see the table's reasons." if gaps else ""
    if not by_position:
        notes += f" Small dots: single pairs, at most {MOST_DOTS} per site{beyond}."
    return Figure(
        "patching",
        "What patching one site does",
        f"{counts(rows)}; {_INTERVALS[by_position]}. Measure: {measures}. 0 is the null, 1 what "
        f"replacing the whole input does. {kinds(rows)}{notes}",
        alt,
        traces,
        shape,
        choices,
    )


def _range(rows: Frame, scale: str, traces: Sequence[Trace]) -> tuple[list[float], str]:
    """Ends of the axis: all intervals and nearly all single pairs; and how many lie beyond."""
    names = [scale, f"{scale}_low", f"{scale}_high"] if scale == "index" else [scale, "low", "high"]
    means = rows[names].to_numpy(float).ravel()
    dots = np.array([y for t in traces if t.get("hoverinfo") == "skip" for y in t["y"]], float)
    dots = dots[np.isfinite(dots)]
    inner = np.quantile(dots, [0.02, 0.98]) if len(dots) else []
    shown = np.concatenate(
        [means[np.isfinite(means)], inner, [0.0, 1.0 if scale == "index" else 0]]
    )
    low, high = float(shown.min()), float(shown.max())
    room = 0.05 * ((high - low) or 1.0)
    low, high = low - room, high + room
    beyond = int(((dots < low) | (dots > high)).sum())
    return [low, high], f"; {beyond} of {len(dots)} lie beyond the axis" if beyond else ""


def _sites(
    result: LoadedResult, rows: Frame, scale: str, place: int, n: int, meta: Sequence[int | None]
) -> list[Trace]:
    """One setting: mean effects with intervals, and its single examples behind them."""
    rows = rows.drop_duplicates("site")
    sites = sites_by_depth(result.frame("patching"))
    setting = rows["setting"].iloc[0]
    colour, symbol = setting_look(setting, place)
    aside = (place - (n - 1) / 2) * min(0.16, 0.7 / n)
    low, high = ("index_low", "index_high") if scale == "index" else ("low", "high")
    name = setting_label(setting)
    dots = _examples(result, rows, scale)
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"{name}, single pairs",
            "x": [sites.index(site) + aside for site in dots["site"]],
            "y": numbers(dots["effect"]),
            "marker": {"color": colour, "size": 4, "opacity": 0.3},
            "hoverinfo": "skip",
            "legendgroup": name,
            "showlegend": False,
            "meta": list(meta),
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [sites.index(site) + aside for site in rows["site"]],
            "y": numbers(rows[scale]),
            "error_y": error_bars(rows, scale, low, high),
            "marker": {"color": colour, "symbol": symbol, "size": 10},
            "hovertext": hover(rows, scale, low, high),
            "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
            "legendgroup": name,
            "meta": list(meta),
        },
    ]


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
        # where the mean has no index, single pairs have none either
        cell = rows.dropna(subset="index").set_index("site")[["null", "ceiling"]]
        cell = cell.reindex(frame["site"])
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
        z, [f"{pos:.0f}" for pos in grid.columns], [site_label(site) for site in sites],
        title="share of the gap" if scale == "index" else "effect", meta=meta,
    )  # fmt: skip
    blank = [["" for _ in row] for row in z]  # too many cells for numbers
    return {**trace, "text": blank, "x": [float(pos) for pos in grid.columns], "xgap": 1, "ygap": 1}
