"""The figure of heads named in words: layers by heads, names in bold, all else in grey."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp.core.errors import SpecificationError
from interp.core.tables import Table
from interp.declared.figures import GREY

if TYPE_CHECKING:
    import plotly.graph_objects as go

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
        figure.add_heatmap(
            **grid, x=columns, row=number, col=1, colorscale=SCALE, zmin=0, zmax=largest or 1.0,
            texttemplate="%{text}", textfont={"size": 11, "color": "#1a1a1a"}, hoverongaps=False,
            hovertemplate="%{customdata}<extra></extra>", showscale=False, xgap=2, ygap=2,
        )  # fmt: skip
    return _laid_out(figure, rows, f"{title}<br><sup>{_caption(rows)}</sup>", sum(heights))


def _laid_out(figure: "go.Figure", rows: pd.DataFrame, title: str, height: int) -> "go.Figure":
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
    cells = dict(list(rows.sort_values("rank").groupby(["layer", "column"])))
    found = [[_cell(cells.get((layer, name))) for name in columns] for layer in layers]
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


def _caption(rows: pd.DataFrame) -> str:
    first = rows[rows["rank"] == 1]
    named = int(((first["verdict"] == first["word"]) & (first["word"] != "")).sum())
    n, unit = int(rows["n_units"].min()), str(rows["unit"].iloc[0])
    return (
        f"{named} of {len(first)} cells have a name: bold, and the bluer the more it explains.<br>"
        "Grey: no better than the best of turned words; ·: writes nothing.<br>"
        f"n = {n} {unit}s by artists that did not choose the words; intervals, null, p on hover"
    )
