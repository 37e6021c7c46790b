"""Figures of one model's tables, as a notebook draws them: effects of patches, faithfulness."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from interp.core.errors import SpecificationError, listed
from interp.core.tables import Table
from interp.declared.figures import BLUE, GREEN, GREY, INDEX, ORANGE, RAW, Scale
from interp.declared.writing import plural
from interp.report.grammar.pieces import error_bars

if TYPE_CHECKING:
    import plotly.graph_objects as go

Axis: TypeAlias = Mapping[str, object]
"""An axis in plotly's words."""

CELLS = ("pos", "head", "channel", "row", "column", "query", "key")
"""Axes of a site: the first stands along the figure, the others beside the site's name."""

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Ticks of an axis of sizes."""


def draw_effects(table: Table, *, title: str = "What a patch does, cell by cell") -> "go.Figure":
    """Draw the effects of a sweep: a map of layer by position or head, else points by site.

    Args:
        table: `interp.circuits.effects(...)`.
        title: The figure's title.

    Returns:
        A plotly figure, of the index where it is known, else of the effect itself.

    Raises:
        SpecificationError: For effects of several sweeps, or none that is a number.

    >>> rows = pd.DataFrame({"site": "blocks.0.hook_z", "layer": 0, "head": [0, 1],
    ...     "measure": "denoising", "value": [0.1, 0.4], "low": 0.0, "high": 0.5,
    ...     "index": [0.2, 0.8], "index_low": 0.1, "index_high": 0.9, "p": 0.01, "n_units": 8,
    ...     "unit": "class"})
    >>> draw_effects(Table("effects", rows)).data[0].type
    'heatmap'
    """
    rows = table.frame
    sweeps = [name for name in ("measure", "pairing", "metric") if name in rows]
    n_sweeps = len(rows[sweeps].drop_duplicates())
    if n_sweeps > 1 or rows["value"].isna().all():
        raise SpecificationError(
            "draw effects",
            f"{len(rows)} rows of {n_sweeps} sweeps, {rows['value'].notna().sum()} of them numbers",
            "the effects of one sweep",
            f"keep the rows of one {listed(sweeps)}, or draw table.frame with plotly",
        )
    scale = INDEX if rows["index"].notna().any() else RAW
    unit = (
        "share of the gap closed beyond the null"
        if scale is INDEX
        else "effect, in the metric's units"
    )
    along = [name for name in CELLS if name in rows and rows[name].notna().any()]
    if along and rows[along[0]].nunique() > 1:
        places = rows["site"].astype(str)
        for name in along[1:]:
            places = places + f", {name} " + rows[name].astype(int).astype(str)
        rows = rows.assign(site=places)
        return _map(rows, along[0], scale, _title(title, rows, "intervals on hover"), unit)
    return _points(rows, scale, _title(title, rows, "95 % intervals"), unit)


def _n(rows: pd.DataFrame) -> str:
    unit = str(rows["unit"].iloc[0])
    n = int(rows["n_units"].max())
    return f"n = {n} {plural(unit, n)}"


def _title(title: str, rows: pd.DataFrame, intervals: str) -> str:
    withheld = int(rows["index"].isna().sum())
    gaps = f"; {withheld} of {len(rows)} indices withheld" if withheld else ""
    return f"{title}<br><sup>{_n(rows)}; {intervals}{gaps}</sup>"


def _map(rows: pd.DataFrame, along: str, scale: Scale, title: str, unit: str) -> "go.Figure":
    import plotly.graph_objects as go

    value, ends = scale.value, (scale.low, scale.high)
    sites = list(dict.fromkeys(rows["site"]))
    cells = {
        name: rows.pivot(index="site", columns=along, values=name).loc[sites]
        for name in (value, *ends, "p")
    }
    largest = float(np.nanmax(np.abs(cells[value].to_numpy())))
    heat = go.Heatmap(
        z=cells[value].to_numpy(),
        x=[int(place) for place in cells[value]],
        y=sites,
        customdata=np.stack([cells[name].to_numpy() for name in (*ends, "p")], axis=-1),
        hovertemplate=f"%{{y}}, {along} %{{x}}: %{{z:.2f}} "
        "[%{customdata[0]:.2f}, %{customdata[1]:.2f}], p = %{customdata[2]:.3f}<extra></extra>",
        colorscale="RdBu_r",
        zmid=0,
        zmin=-largest,
        zmax=largest,
        colorbar={"title": unit, "nticks": 3},
    )
    word = "position" if along == "pos" else along
    across = {"title": word, "dtick": max(1, cells[value].shape[1] // 16)}
    up = {"autorange": "reversed", "automargin": True}
    return _laid_out(go.Figure(heat), title, across, up, height=220 + 28 * len(sites))


def _points(rows: pd.DataFrame, scale: Scale, title: str, unit: str) -> "go.Figure":
    import plotly.graph_objects as go

    value, bars = scale.value, error_bars(rows, scale)
    figure = go.Figure(
        go.Scatter(x=rows["site"], y=rows[value], mode="markers", error_y=bars, marker_color=BLUE)
    )
    if "null" in rows and scale is RAW:
        marker = {"color": GREY, "symbol": "line-ew-open"}
        figure.add_scatter(
            x=rows["site"], y=rows["null"], mode="markers", name="null", marker=marker
        )
    up = {"title": unit, "zeroline": True}
    return _laid_out(figure, title, {"automargin": True}, up, showlegend=scale is RAW)


def _laid_out(
    figure: "go.Figure", title: str, across: Axis, up: Axis, **more: object
) -> "go.Figure":
    words = {"title": title, "template": "plotly_white", "height": 430}
    return figure.update_layout(xaxis=across, yaxis=up, **{**words, **more})


def _floor(figure: "go.Figure", rows: pd.DataFrame, name: str) -> None:
    """What random circuits reach, dotted."""
    line = {"color": GREY, "dash": "dot"}
    figure.add_scatter(x=rows["share"], y=rows["null"], name=name, mode="lines", line=line)


def draw_faithfulness(table: Table, *, title: str = "Faithfulness against size") -> "go.Figure":
    """Draw how much of the metric circuits keep alone, and what is left without, by their size.

    Args:
        table: `interp.circuits.faithfulness(...)` or `unit_faithfulness`.
        title: The figure's title.

    Returns:
        A plotly figure with intervals and the random circuits' mean.

    >>> rows = pd.DataFrame({"measure": "circuit alone", "share": [0.1, 1.0], "value": [0.4, 1.0],
    ...     "low": 0.3, "high": 1.0, "null": [0.1, 1.0], "index": [0.3, None], "n_units": 8,
    ...     "unit": "pair"})
    >>> [trace.name for trace in draw_faithfulness(Table("faithfulness", rows)).data]
    ['circuit alone', 'random circuits']
    """
    import plotly.graph_objects as go

    rows = table.frame[table.frame["share"].notna()]
    figure = go.Figure()
    for (name, part), colour in zip(
        rows.groupby("measure", sort=False), (BLUE, ORANGE), strict=False
    ):
        look = {"mode": "lines+markers", "marker_color": colour, "error_y": error_bars(part)}
        figure.add_scatter(x=part["share"], y=part["value"], name=str(name), **look)
    alone = rows[rows["measure"] == rows["measure"].iloc[0]]
    _floor(figure, alone, "random circuits")
    title = f"{title}<br><sup>{_n(rows)}; 95 % intervals (jackknife)</sup>"
    across = {"title": "size, as a share of all parts", "type": "log", "tickformat": "~p"}
    up = {"title": "share of the model's metric"}
    return _laid_out(figure, title, across | {"tickvals": SIZES}, up)


def draw_match(
    table: Table, *, title: str = "How much of the match parts of both towers keep"
) -> "go.Figure":
    """Draw how much of the match circuits of both towers keep, and of either, by their size.

    Args:
        table: `interp.circuits.match_faithfulness(...)`.
        title: The figure's title.

    Returns:
        A plotly figure: lines with intervals, and random circuits of both towers, dotted.

    Raises:
        SpecificationError: For a table without a number.

    >>> rows = pd.DataFrame({"measure": "circuit alone", "tower": ["both", "text"], "share": 0.5,
    ...     "value": [0.6, 0.9], "low": 0.5, "high": 1.0, "null": 0.1, "n_units": 8,
    ...     "unit": "class", "index": 0.6, "n_edges": 4})
    >>> [trace.name for trace in draw_match(Table("match_faithfulness", rows)).data]
    ['in both towers', 'random, in both towers', 'in the text tower']
    """
    import plotly.graph_objects as go

    rows = table.frame
    rows = rows[rows["measure"] == "circuit alone"].sort_values("share", kind="stable")
    if rows["value"].isna().all():
        given = f"{len(rows)} rows without a number ({rows['reason'].iloc[0]})"
        right = "a match that is surely not 0"
        do = "give more pairs, of more classes, or a model that tells them apart"
        raise SpecificationError("draw how much of the match is kept", given, right, do)
    looks = {
        "both": ("in both towers", BLUE),
        "visual": ("in the image tower", ORANGE),
        "text": ("in the text tower", GREEN),
    }
    figure = go.Figure()
    for tower, (name, colour) in looks.items():
        own = rows[rows["tower"] == tower]
        if own.empty:
            continue
        look = {"line": {"color": colour}, "error_y": error_bars(own, RAW)}
        figure.add_scatter(x=own["share"], y=own["value"], name=name, **look)
        if tower == "both":
            _floor(figure, own, "random, in both towers")
    across = {"title": "size, as a share of the parts", "tickformat": ".0%", "range": [0, 1.03]}
    up = {"title": "share of the match that remains", "tickformat": ".0%"}
    return _laid_out(figure, _title(title, rows, "95 % intervals"), across, up)
