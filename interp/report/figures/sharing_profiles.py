"""The sharing profile: every rung's index by depth, a panel each."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.core.sites import BAND, BANDS, LAST
from interp.core.tables import Table
from interp.declared.figures import INDEX, FigureSpec, threshold_lines
from interp.declared.writing import number, plain
from interp.report.grammar.filled_figures import finished, read_rows
from interp.report.grammar.pieces import (
    GREY,
    Choice,
    Figure,
    Trace,
    axis,
    layout,
    numbers,
    shade,
    span,
)
from interp.report.grammar.several_models import OF_MODELS, mean_of_models
from interp.report.grammar.subjects import EPOCH_0, looks_of, settings_of
from interp.report.loaded import Frame, LoadedResult, whole
from interp.report.naming import SYMBOLS, Looks, setting_label, setting_looks, site_label
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement

POINT = (
    *("control", "rung", "site", "band", "depth", "domain_a", "domain_b", "verdict"),
    *("setting", "test_domain", "seed"),
    *("index", "index_low", "index_high", "unit", "n_units", "n_pictures", "n_drawings", "n_runs"),
)
"""The columns that a profile needs: a table with all declared ones is slow to cut up."""

PROFILE = FigureSpec(
    "sharing-profile",
    "The sharing profile: every rung by depth",
    "profile",
    ("rungs",),
    method="Every rung's index is drawn site by site.",
    null="Each rung's own null, at index 0; the untrained model and raw pixels are further floors.",
    caption="{n}; bars are 95 % intervals of the index. 0 is the rung's null, 1 its ceiling; grey "
    "the middle layers; dashed the untrained model, dotted raw pixels. R6 is cut at one site at a "
    "time; directions A to B and B to A are two points.{averaged}",
    alt="Six panels of index by depth, {pairs} pairs of domains to choose from",
)


def sharing_profile_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Depth against index, a panel per rung, a line per setting; untrained and pixels dashed."""
    rows = read_rows(result, spec)[list(POINT)]
    rows = rows[(rows["site"] != "") | rows["band"].isin(list(BANDS))]
    if not rows[rows["control"] == ""]["index"].notna().any():  # floors alone are no profile
        return None
    pairs = ordered_pairs(rows)
    rows = _one_row_each(rows)
    settings = [one for one in settings_of(result) if one in set(rows["setting"])] or [""]
    looks = looks_of(result, settings)
    averaged = (
        " Of a block's test domains the mean is drawn." if len(result.test_domains) > 1 else ""
    )
    traces = [
        trace
        for p, pair in enumerate(pairs)
        for own in [rows[rows["domain_a"].isin(pair) & rows["domain_b"].isin(pair)]]
        for trace in (*_panels(own, looks, [p]), *_empty_panels(own, [p]))
    ]
    choices = [Choice("Domains", [f"{plain(a)} × {plain(b)}" for a, b in pairs])]
    said = {"pairs": len(pairs), "averaged": averaged}
    return finished(spec, result, rows, traces, _panel_layout(), choices, [rows], **said)


def _one_row_each(rows: Frame) -> Frame:
    """One row for each point, where several models of a setting have it: the mean of blocks."""
    keys = ["rung", "setting", "control", "domain_a", "domain_b", "site", "band", "at"]
    rows = rows[rows["site"] != LAST]
    rows = _one_row_a_block(rows.assign(at=_depths(rows)), [*keys, "seed"])
    return mean_of_models(rows, keys, [INDEX], counted="blocks")


def _one_row_a_block(rows: Frame, keys: list[str]) -> Frame:
    """The mean of a block's test domains, whose models are no independent draws.

    So the interval is the mean of theirs. Without test domains a block has one model.
    """
    if rows["test_domain"].nunique() < 2:
        return rows
    alike = rows.groupby(keys, sort=False, dropna=False)
    ends = {name: alike[name].transform("mean") for name in (INDEX.value, INDEX.low, INDEX.high)}
    verdicts = alike["verdict"].transform(lambda own: agreement(own[own != ""]) if any(own) else "")
    return rows.assign(**ends, verdict=verdicts).drop_duplicates(keys)


MIDDLES = {"early": 1 / 6, "middle": 1 / 2, "late": 5 / 6}


def _panels(rows: Frame, looks: Looks, meta: Sequence[int | None]) -> list[Trace]:
    traces: list[Trace] = []
    rows = rows.sort_values(["domain_a", "at"], kind="stable")
    parts = dict(iter(rows.groupby(["rung", "setting", "control"], sort=False)))
    for number_of, rung in enumerate(RUNGS):
        axes = {"xaxis": f"x{number_of + 1}", "yaxis": f"y{number_of + 1}"}
        for setting, (colour, symbol) in looks.items():
            own = parts.get((rung, setting, ""))
            if own is None:
                continue
            line = _points(own, "lines+markers", colour, "solid", axes, meta)
            line |= {
                "name": setting_label(setting),
                "legendgroup": setting,
                "marker": {"symbol": symbol, "size": 7},
                "error_y": _bars(own),
                "showlegend": number_of == 1,
            }
            traces.append(line)
        floor = rows[(rows["rung"] == rung) & (rows["control"] == EPOCH_0)]
        if floor["index"].notna().any():
            dashed = _points(floor, "lines", GREY, "dash", axes, meta)
            traces.append(dashed | {"name": "untrained", "showlegend": number_of == 1})
        pixels = rows[(rows["rung"] == rung) & (rows["control"] == "pixels")]
        if pixels["index"].notna().any():
            level = float(pixels["index"].mean())
            dotted = _points(pixels.iloc[:1], "lines", GREY, "dot", axes, meta)
            traces.append(
                dotted
                | {
                    "x": [0, 1],
                    "y": [level, level],
                    "name": "raw pixels",
                    "showlegend": False,
                    "hovertext": None,
                }
            )
    return traces


def _empty_panels(rows: Frame, meta: Sequence[int | None]) -> list[Trace]:
    """Words in panels without a point: that a rung was not measured here, or has no index."""
    traces: list[Trace] = []
    for number_of, rung in enumerate(RUNGS):
        own = rows[(rows["rung"] == rung) & (rows["control"] == "")]
        if own["index"].notna().any():
            continue
        said = f"no index: {agreement(own['verdict'])}" if len(own) else "not measured"
        traces.append(
            {
                "type": "scatter",
                "mode": "text",
                "x": [0.5],
                "y": [0.5],
                "text": [said],
                "textfont": {"color": GREY, "size": 12},
                "hoverinfo": "skip",
                "showlegend": False,
                "name": said,
                "xaxis": f"x{number_of + 1}",
                "yaxis": f"y{number_of + 1}",
                "meta": list(meta),
            }
        )
    return traces


def _points(
    rows: Frame, mode: str, colour: str, dash: str, axes: Trace, meta: Sequence[int | None]
) -> Trace:
    models = rows[OF_MODELS] if OF_MODELS in rows else [""] * len(rows)
    said = [
        f"{site_label(site) or band}, {plain(a)} to {plain(b)}: {number(index)}, {verdict}"
        + (f"<br>{several}" if several else "")
        for (site, band, a, b, index, verdict), several in zip(
            rows[["site", "band", "domain_a", "domain_b", "index", "verdict"]].to_numpy(),
            models,
            strict=True,
        )
    ]
    xs, ys, texts = [], [], []
    for _, same in rows.assign(said=said).groupby("domain_a", sort=False):  # a line each way
        xs += [*numbers(same["at"]), None]
        ys += [*numbers(same["index"]), None]
        texts += [*same["said"], ""]
    return {
        "type": "scatter",
        "mode": mode,
        "x": xs,
        "y": ys,
        "hovertext": texts,
        "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
        "line": {"color": colour, "width": 2 if dash == "solid" else 1.5, "dash": dash},
        "meta": list(meta),
        **axes,
    }


def _depths(rows: Frame) -> pd.Series:
    return rows["depth"].where(rows["depth"].notna(), rows["band"].map(MIDDLES))


def _bars(rows: Frame) -> dict[str, Any]:
    high: list[float | None] = []
    low: list[float | None] = []
    for _, same in rows.groupby("domain_a", sort=False):
        high += [*numbers(same["index_high"] - same["index"]), None]
        low += [*numbers(same["index"] - same["index_low"]), None]
    return {
        "type": "data",
        "symmetric": False,
        "array": high,
        "arrayminus": low,
        "thickness": 1,
        "width": 2,
    }


def _panel_layout() -> dict[str, Any]:
    """Two rows of three panels, each with its title above."""
    made: dict[str, Any] = layout(620)
    shapes: list[Trace] = []
    notes: list[Trace] = []
    for place, (name, rung) in enumerate(RUNGS.items()):
        row, column = divmod(place, 3)
        x = [column * 0.345, column * 0.345 + 0.31]
        y = [0.56, 0.94] if row == 0 else [0.02, 0.4]
        key = str(place + 1) if place else ""
        made[f"xaxis{key}"] = axis(
            "depth" if row else "", domain=x, range=[-0.03, 1.03], anchor=f"y{key}"
        )
        made[f"yaxis{key}"] = axis(
            "index" if column == 0 else "", domain=y, range=[-0.5, 1.5], anchor=f"x{key}"
        )
        here = {"xref": f"x{key}", "yref": f"y{key} domain"}
        shapes.append({**shade(*BAND), **here})
        bars = threshold_lines(rung.bars) if rung.indexed else ()
        for at in (line.at for line in bars):
            shapes.append(
                {
                    "type": "line",
                    "x0": 0,
                    "x1": 1,
                    "y0": at,
                    "y1": at,
                    "layer": "below",
                    "xref": f"x{key} domain",
                    "yref": f"y{key}",
                    "line": {"color": GREY, "width": 1, "dash": "dot"},
                }
            )
        notes.append(
            {
                "text": f"{name} {rung.label}",
                "x": sum(x) / 2,
                "y": y[1],
                "xref": "paper",
                "yref": "paper",
                "showarrow": False,
                "xanchor": "center",
                "yanchor": "bottom",
                "font": {"size": 12},
            }
        )
    return {**made, "shapes": shapes, "annotations": notes}


def ordered_pairs(rows: Frame) -> list[tuple[str, str]]:
    """Pairs of domains, those first on which most was measured, in most models."""
    measured: dict[tuple[str, str], set[tuple[str, str]]] = {}
    columns = ["domain_a", "domain_b", "rung", "setting"]
    for a, b, rung, setting in rows[columns].itertuples(index=False):
        measured.setdefault((min(a, b), max(a, b)), set()).add((rung, setting))
    return sorted(measured, key=lambda pair: -len(measured[pair]))


def classes_in_words(rows: Frame) -> str:
    """How many classes rows are over: a number, or from the least to the most."""
    known = rows["n_units"].dropna()
    return span(known) if len(known) else "?"


def draw_profile(table: Table, *, title: str = "The sharing profile") -> Any:
    """Draw the sharing profile of a ladder: a panel per rung, depth against index.

    Args:
        table: `interp.ladder(...).rungs`.
        title: The figure's title.

    Returns:
        A plotly figure.

    >>> rows = pd.DataFrame({"rung": ["R2"], "measure": "CKA", "domain_a": "real",
    ...     "domain_b": "sketch", "site": "blocks.0.hook_resid_post", "band": "middle",
    ...     "depth": 0.5, "index": 0.9, "index_low": 0.8, "index_high": 1.0, "n_units": 8})
    >>> [trace.name for trace in draw_profile(Table("rungs", rows)).data][:2]
    ['real × sketch', 'not measured']
    """
    import plotly.graph_objects as go

    rows = whole(table.frame)
    rows = rows[(rows["site"] != "") | rows["band"].isin(list(BANDS))]
    pairs = ordered_pairs(rows)
    rows = _one_row_each(rows.assign(setting=""))  # of one setting, and its line is a pair's
    traces: list[Trace] = []
    for place, (a, b) in enumerate(pairs):
        own = rows[rows["domain_a"].isin([a, b]) & rows["domain_b"].isin([a, b])]
        for trace in _panels(own, setting_looks([""]), [None]):
            name = f"{plain(a)} × {plain(b)}"
            again, at = divmod(place, len(PAIR_COLOURS))
            if trace["name"] == "this model":
                trace |= {
                    "name": name,
                    "legendgroup": name,
                    "line": {"color": PAIR_COLOURS[at], "width": 2},
                    "marker": {"symbol": SYMBOLS[again % len(SYMBOLS)], "size": 7},
                }
            traces.append(trace)
    traces += _empty_panels(rows, [None])
    traces = [{key: value for key, value in trace.items() if key != "meta"} for trace in traces]
    scale = "index: 0 null, 1 ceiling; bars 95 % intervals"
    said = f"{title}<br><sup>{scale}; n = {classes_in_words(rows)} classes</sup>"
    legend = {"orientation": "h", "y": -0.12, "yanchor": "top"}
    shape = {"title": said, "margin": {"t": 110}, "legend": legend}
    return go.Figure(data=traces, layout=_panel_layout() | shape)


PAIR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
