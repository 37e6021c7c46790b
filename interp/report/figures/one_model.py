"""Figures of one model's tables, as a notebook draws them: effects of patches, faithfulness."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from interp.core.errors import SpecificationError, listed
from interp.core.tables import Table
from interp.declared.figures import BLUE, GREEN, GREY, INDEX, ORANGE, RAW, Scale
from interp.declared.writing import plural
from interp.report.grammar.pieces import cells, error_bars

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
    gaps = f"; {withheld} of {len(rows)} indices unknown" if withheld else ""
    return f"{title}<br><sup>{_n(rows)}; {intervals}{gaps}</sup>"


def _map(rows: pd.DataFrame, along: str, scale: Scale, title: str, unit: str) -> "go.Figure":
    import plotly.graph_objects as go

    value, ends = scale.value, (scale.low, scale.high)
    sites = list(dict.fromkeys(rows["site"]))
    grids = {
        name: rows.pivot(index="site", columns=along, values=name).loc[sites]
        for name in (value, *ends, "p")
    }
    largest = float(np.nanmax(np.abs(grids[value].to_numpy())))
    heat = go.Heatmap(
        z=grids[value].to_numpy(),
        x=[int(place) for place in grids[value]],
        y=sites,
        customdata=np.stack([grids[name].to_numpy() for name in (*ends, "p")], axis=-1),
        hovertemplate=f"%{{y}}, {along} %{{x}}: %{{z:.2f}} "
        "[%{customdata[0]:.2f}, %{customdata[1]:.2f}], p = %{customdata[2]:.3f}<extra></extra>",
        colorscale="RdBu_r",
        zmid=0,
        zmin=-largest,
        zmax=largest,
        colorbar={"title": unit, "nticks": 3},
    )
    word = "position" if along == "pos" else along
    across = {"title": word, "dtick": max(1, grids[value].shape[1] // 16)}
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


def _by_size(
    parts: Sequence[tuple[str, str, pd.DataFrame]], floor: str, title: str, across: Axis, up: Axis
) -> "go.Figure":
    """Lines with intervals by size; dotted, what random circuits of the first line reach."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, colour, own in (part for part in parts if len(part[2])):
        look = {"mode": "lines+markers", "marker_color": colour, "error_y": error_bars(own)}
        figure.add_scatter(x=own["share"], y=own["value"], name=name, **look)
    for _, _, own in (part for part in parts[:1] if len(part[2])):
        line = {"mode": "lines", "line": {"color": GREY, "dash": "dot"}}
        figure.add_scatter(x=own["share"], y=own["null"], name=floor, **line)
    return _laid_out(figure, title, across, up)


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
    rows = table.frame[table.frame["share"].notna()]
    named = zip(rows.groupby("measure", sort=False), (BLUE, ORANGE), strict=False)
    parts = [(str(name), colour, own) for (name, own), colour in named]
    title = f"{title}<br><sup>{_n(rows)}; 95 % intervals (jackknife)</sup>"
    across = {"title": "size, as a share of all parts", "type": "log", "tickformat": "~p"}
    up = {"title": "share of the model's metric"}
    return _by_size(parts, "random circuits", title, across | {"tickvals": SIZES}, up)


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
    ['in both towers', 'in the text tower', 'random, in both towers']
    """
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
    parts = [(*look, rows[rows["tower"] == tower]) for tower, look in looks.items()]
    across = {"title": "size, as a share of the parts", "tickformat": ".0%", "range": [0, 1.03]}
    up = {"title": "share of the match that remains", "tickformat": ".0%"}
    floor, title = f"random, {parts[0][0]}", _title(title, rows, "95 % intervals")
    return _by_size(parts, floor, title, across, up)


SCALE = [[0, "#f7f7f7"], [1, "#56B4E9"]]
"""From little of a head's variance to much, pale enough to be written on."""

LETTERS = 12
"""So many letters of a word stand in a cell; hovering shows all of it."""

COLUMN, LINE = 84, 15
"""Pixels across a head, and down a line of words."""


def draw_names(table: Table, *, title: str = "Heads named in words") -> "go.Figure":
    """Draw what heads are named: a map of layers by heads for each domain.

    Args:
        table: `interp.models.name_heads(...)`.
        title: The figure's title.

    Returns:
        A plotly figure. A head with a name has it in bold, its further names under it, and a colour
        for the share of its variance that all of them explain. Else the best word stands in grey,
        and a dot for a part that writes nothing.

    Raises:
        SpecificationError: For a table without rows.

    >>> rows = pd.DataFrame({"domain": "real", "layer": 0, "kind": "head", "head": [0, 1],
    ...     "rank": 1, "word": ["cat", "dog"], "verdict": ["cat", "no name"], "value": [0.4, 0.1],
    ...     "low": 0.0, "high": 0.5, "null": 0.1, "p": [0.01, 0.4], "unit": "picture",
    ...     "n_units": 9})
    >>> draw_names(Table("named heads", rows)).data[0].text[0]
    ['<b>cat</b>', "<span style='color:#8c8c8c'>dog</span>"]
    """
    from plotly.subplots import make_subplots

    rows = table.frame
    if not len(rows):
        raise SpecificationError(
            "draw names", "a table without rows", "one of name_heads", "name heads first"
        )
    rows = rows.assign(column=_columns(rows))
    columns = sorted(set(rows["column"]), key=lambda name: (not name.isdigit(), name.zfill(4)))
    domains = list(dict.fromkeys(rows["domain"]))
    grids = {domain: _grid(rows[rows["domain"] == domain], columns) for domain in domains}
    lines = [
        max(text.count("<br>") + 1 for row in grid["text"] for text in row)
        for grid in grids.values()
    ]
    layers = rows["layer"].nunique()
    heights = [layers * (LINE * n + 14) for n in lines]
    figure = make_subplots(
        rows=len(domains),
        row_heights=heights,
        shared_xaxes=True,
        subplot_titles=domains if len(domains) > 1 else None,
        vertical_spacing=34 / (sum(heights) + 34 * len(domains)),
    )
    largest = max(float(np.nanmax([0.0, *np.ravel(grid["z"])])) for grid in grids.values())
    for number, grid in enumerate(grids.values(), start=1):
        look = {"colorscale": SCALE, "zmin": 0, "zmax": largest or 1.0, "showscale": False}
        words = {"texttemplate": "%{text}", "textfont": {"size": 11, "color": "#1a1a1a"}}
        words["hovertemplate"] = "%{customdata}<extra></extra>"
        figure.add_trace(cells(x=columns, **grid, **look, **words), row=number, col=1)
    return _names_laid_out(figure, rows, f"{title}<br><sup>{_named_of(rows)}</sup>", sum(heights))


def _names_laid_out(
    figure: "go.Figure", rows: pd.DataFrame, title: str, height: int
) -> "go.Figure":
    n = rows["domain"].nunique()
    figure.update_yaxes(autorange="reversed", type="category", title="layer", automargin=True)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_xaxes(title="head", row=n, col=1)
    figure.update_yaxes(showgrid=False)
    return figure.update_layout(
        title={"text": title, "y": 1, "yanchor": "top", "pad": {"t": 24}},
        template="plotly_white",
        width=max(620, 110 + COLUMN * rows["column"].nunique()),
        height=height + 34 * n + 170,
        margin={"t": 130, "b": 50, "l": 60, "r": 20},
    )


def _columns(rows: pd.DataFrame) -> list[str]:
    """Heads by number; an MLP or another part by its kind."""
    kinds = {"mlp": "MLP"}
    return [
        f"{int(head)}" if pd.notna(head) else kinds.get(str(kind), str(kind))
        for kind, head in zip(rows["kind"], rows["head"], strict=True)
    ]


def _grid(rows: pd.DataFrame, columns: list[str]) -> dict[str, list[Any]]:
    """Colour, text and hover of every cell, layer by column."""
    layers = sorted(set(rows["layer"]))
    parts = dict(list(rows.sort_values("rank").groupby(["layer", "column"])))
    found = [[_cell(parts.get((layer, name))) for name in columns] for layer in layers]
    return {
        "y": [f"{int(layer)}" for layer in layers],
        "z": [[cell[0] for cell in row] for row in found],
        "text": [[cell[1] for cell in row] for row in found],
        "customdata": [[cell[2] for cell in row] for row in found],
    }


def _cell(own: pd.DataFrame | None) -> tuple[float, str, str]:
    """What a part's names explain (0 without), what stands in its cell, and beside it."""
    if own is None:
        return np.nan, "", ""
    records = own.to_dict("records")
    hover = f"layer {int(records[0]['layer'])}, {records[0]['kind']}"
    if not records[0]["word"]:
        return 0.0, "·", f"{hover}: writes nothing"
    names = [row for row in records if row["verdict"] == row["word"]]
    said = "<br>".join([hover, *map(_hover, records)])
    if not names:
        return 0.0, f"<span style='color:{GREY}'>{_short(records[0]['word'])}</span>", said
    words = [_short(row["word"]) for row in names]
    return sum(row["value"] for row in names), "<br>".join([f"<b>{words[0]}</b>", *words[1:]]), said


def _hover(row: Mapping[str, object]) -> str:
    return (
        f"{escape(str(row['word']))}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], "
        f"null {row['null']:.2f}, p = {row['p']:.3f}"
    )


def _short(word: object) -> str:
    text = str(word)
    return escape(text if len(text) <= LETTERS else text[: LETTERS - 1] + "…")


def _named_of(rows: pd.DataFrame) -> str:
    first = rows[rows["rank"] == 1]
    named = int(((first["verdict"] == first["word"]) & (first["word"] != "")).sum())
    n, unit = int(rows["n_units"].min()), str(rows["unit"].iloc[0])
    return (
        f"{named} of {len(first)} cells have a name: bold, and the bluer the more it explains.<br>"
        "Grey: no better than the best of turned words; ·: writes nothing.<br>"
        f"n = {n} {unit}s by artists that did not choose the words; intervals, null, p on hover"
    )
