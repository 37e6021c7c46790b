"""The section on the ladder: what is shared by rung and band, and its profile by depth."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from interp.core.declarations.figures import (
    INDEX,
    SETTING,
    TEST_DOMAIN,
    FigureSpec,
    SectionSpec,
    threshold_lines,
)
from interp.core.declarations.writing import number, plain
from interp.core.sites import BAND, BANDS, LAST
from interp.core.statistics.index_of_sharing import CANNOT_TELL, NOT_SHARED, PARTLY, SHARED
from interp.core.tables import Table
from interp.report.grammar.filled_figures import finished, read_rows, views
from interp.report.grammar.pieces import (
    GREY,
    MAP,
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
from interp.report.naming import (
    SIGNS,
    Looks,
    setting_label,
    setting_looks,
    setting_name,
    site_label,
)
from interp.verdicts.rungs import AMOUNT_RULE, RUNGS, SQUARES
from interp.verdicts.votes import agreement

HEADS = {name: f"{name} {rung.label}".replace(" ", "<br>", 1) for name, rung in RUNGS.items()}
"""What stands above a rung's column."""

LEVELS = {NOT_SHARED: 0.0, CANNOT_TELL: 1.0, PARTLY: 2.0, SHARED: 3.0}
COLOURS = ("#E69F00", "#BFBFBF", "#B5DCF4", "#56B4E9")
"""Orange, grey, pale and light blue: apart for every eye, and dark text reads on each."""
SCALE = [
    [end / len(COLOURS), colour]
    for place, colour in enumerate(COLOURS)
    for end in (place, place + 1)
]

WHOLE = "whole tower"
ORDER = (*BANDS, WHOLE)


VERDICT = (
    *("control", "rung", "test_domain", "setting", "domain_a", "domain_b", "band", "verdict"),
    *("index", "index_low", "index_high", "claim", "votes", "reason", "needed", "n_units"),
)
POINT = (
    *("control", "rung", "site", "band", "depth", "domain_a", "domain_b", "verdict"),
    *("setting", "test_domain", "seed"),
    *("index", "index_low", "index_high", "unit", "n_units", "n_pictures", "n_drawings", "n_runs"),
)
"""The columns that a map and a profile need: a table with all declared ones is slow to cut up."""


def _fullest(rows: Frame, options: Sequence[str]) -> int:
    """The setting on which most was measured, the first of several."""
    counted = rows["setting"].map(setting_name).value_counts()
    return max(range(len(options)), key=lambda at: (counted.get(options[at], 0), -at))


LADDER_MAP = FigureSpec(
    "ladder",
    "What is shared, rung by rung",
    "ladder",
    ("ladder", "rungs"),
    method="Every measure between two domains is turned into an index, and a band of layers gets "
    "the answer on which all its sites agree, or that of their mean.",
    null="Each rung's own null, at index 0.",
    caption=f"n = {{classes}} classes per verdict. ● blue: shared ({AMOUNT_RULE[SHARED]}); ◐ "
    f"pale blue: partly shared ({AMOUNT_RULE[PARTLY]}); ○ orange: not shared "
    f"({AMOUNT_RULE[NOT_SHARED]}); "
    "? grey: cannot tell, or sites differ; empty: not measured. "
    f"R1: ● {RUNGS['R1'].rule[SHARED]}; ○ {RUNGS['R1'].rule[NOT_SHARED]}. {SQUARES} "
    "Point at a cell for its index, interval and reasons. Only R4 and R6 speak of mechanisms.",
    alt="Map of verdicts: {pairs} pairs and bands by six rungs",
    where={"control": ""},
    choices=(TEST_DOMAIN, replace(SETTING, first=_fullest)),
)
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
LADDER = SectionSpec(
    "ladder",
    "What is shared: the ladder",
    "Six rungs, from weak claims to strong: the class can be read in both domains (R1), same "
    "geometry (R2), same directions (R3), same causal directions (R4), same parts (R5), same "
    "wiring (R6). Each has an index, 0 at its null and 1 at its ceiling; a band of layers has "
    "the answer of all its sites, or of their mean where some cannot tell.",
    (PROFILE, LADDER_MAP),
    words=(("answers",),),
    note="Lower rungs do not license the words of higher ones: geometry may be shared without "
    "directions, and directions without anything that reads them.",
    optional=("ladder", "rungs"),
    part="ladder",
)


def ladder_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Every pair of domains and band of layers, rung by rung: its verdict."""
    rows = read_rows(result, spec)[list(VERDICT)]
    rows = rows[rows["rung"] != ""]
    if rows.empty:
        return None
    names = _pairs(rows)
    found, choices = views(result, spec, rows)
    traces = [_verdicts(view.rows, names, view.meta) for view in found]
    shape = layout(
        120 + 24 * len(names),
        xaxis={**MAP, "side": "top", "tickfont": {"size": 11}},
        yaxis={**MAP, "autorange": "reversed", "tickfont": {"size": 11}},
    )
    said = {"classes": _classes(rows), "pairs": len(names)}
    return finished(spec, result, rows, traces, shape, choices, **said)


def _classes(rows: Frame) -> str:
    known = rows["n_units"].dropna()
    return span(known) if len(known) else "?"


def _pairs(rows: Frame) -> list[tuple[str, str, str]]:
    """Pairs of domains with their bands; those first on which most was measured, in most models."""
    bands: dict[tuple[str, str], set[str]] = {}
    measured: dict[tuple[str, str], set[tuple[str, str]]] = {}
    columns = ["domain_a", "domain_b", "band", "rung", "setting"]
    for a, b, band, rung, setting in rows[columns].itertuples(index=False):
        pair = (min(a, b), max(a, b))
        bands.setdefault(pair, set()).add(band)
        measured.setdefault(pair, set()).add((rung, setting))
    ordered = sorted(bands, key=lambda pair: -len(measured[pair]))
    return [(*pair, band) for pair in ordered for band in ORDER if band in bands[pair]]


def _verdicts(
    rows: Frame, names: Sequence[tuple[str, str, str]], meta: Sequence[int | None]
) -> Trace:
    """A heat map of verdicts; seeds of one model vote together."""
    z: list[list[float | None]] = []
    text: list[list[str]] = []
    said: list[list[str]] = []
    found = dict(iter(rows.groupby(["domain_a", "domain_b", "band", "rung"], sort=False)))
    for a, b, band in names:
        cells = [found.get((a, b, band, rung), rows.iloc[:0]) for rung in RUNGS]
        verdicts = [_agreed(cell) for cell in cells]
        z.append([LEVELS.get(verdict) for verdict in verdicts])
        text.append([SIGNS.get(verdict, "") for verdict in verdicts])
        said.append([_cell(cell, rung) for cell, rung in zip(cells, RUNGS, strict=True)])
    return {
        "type": "heatmap", "z": z, "x": list(HEADS.values()),
        "y": [f"{plain(a, 14)} × {plain(b, 14)}, {band}" for a, b, band in names],
        "text": text, "texttemplate": "%{text}", "textfont": {"color": "#1a1a1a", "size": 14},
        "hovertext": said, "hovertemplate": "%{y}<br>%{hovertext}<extra></extra>",
        "colorscale": SCALE, "zmin": 0, "zmax": 3, "showscale": False, "xgap": 2, "ygap": 2,
        "hoverongaps": False, "meta": list(meta),
    }  # fmt: skip


def _agreed(cell: Frame) -> str:
    return agreement(cell["verdict"]) if len(cell) else ""


def _cell(cell: Frame, rung: str) -> str:
    """What a cell says of one model, or of several: their mean, and how many say what."""
    if cell.empty:
        return f"{rung}: not measured"
    row, several = cell.iloc[0], len(cell) > 1
    means = cell[["index", "index_low", "index_high"]].mean()
    ends = f" ({number(means['index_low'])} to {number(means['index_high'])})"
    index = f"index {number(means['index'])}{ends}" if pd.notna(means["index"]) else "no index"
    votes = row["votes"]
    if several:
        counted = cell["verdict"].value_counts()
        votes = ", ".join(f"{n} of {len(cell)} models {word}" for word, n in counted.items())
    why = f"<br>{plain(row['reason'], 90)}" if row["reason"] else ""
    why += f"<br>would decide: {row['needed']}" if row["needed"] and not several else ""
    return f"{rung} {plain(row['claim'], 60)}: {_agreed(cell)}<br>{index}; {votes}{why}"


def sharing_profile_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Depth against index, a panel per rung, a line per setting; untrained and pixels dashed."""
    rows = read_rows(result, spec)[list(POINT)]
    rows = rows[(rows["site"] != "") | rows["band"].isin(list(BANDS))]
    if not rows[rows["control"] == ""]["index"].notna().any():  # floors alone are no profile
        return None
    pairs = [(a, b) for a, b, _ in _pairs(rows.assign(band="middle"))]
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
                "name": setting_label(setting), "legendgroup": setting,
                "marker": {"symbol": symbol, "size": 7}, "error_y": _bars(own),
                "showlegend": number_of == 1,
            }  # fmt: skip
            traces.append(line)
        floor = rows[(rows["rung"] == rung) & (rows["control"] == EPOCH_0)]
        if floor["index"].notna().any():
            dashed = _points(floor, "lines", GREY, "dash", axes, meta)
            traces.append(dashed | {"name": "untrained", "showlegend": number_of == 1})
        pixels = rows[(rows["rung"] == rung) & (rows["control"] == "pixels")]
        if pixels["index"].notna().any():
            level = float(pixels["index"].mean())
            dotted = _points(pixels.iloc[:1], "lines", GREY, "dot", axes, meta)
            traces.append(dotted | {"x": [0, 1], "y": [level, level], "name": "raw pixels",
                                    "showlegend": False, "hovertext": None})  # fmt: skip
    return traces


def _empty_panels(rows: Frame, meta: Sequence[int | None]) -> list[Trace]:
    """Words in panels without a point: that a rung was not measured here, or has no index."""
    traces: list[Trace] = []
    for number_of, rung in enumerate(RUNGS):
        own = rows[(rows["rung"] == rung) & (rows["control"] == "")]
        if own["index"].notna().any():
            continue
        said = f"no index: {agreement(own['verdict'])}" if len(own) else "not measured"
        traces.append({
            "type": "scatter", "mode": "text", "x": [0.5], "y": [0.5], "text": [said],
            "textfont": {"color": GREY, "size": 12}, "hoverinfo": "skip", "showlegend": False,
            "name": said, "xaxis": f"x{number_of + 1}", "yaxis": f"y{number_of + 1}",
            "meta": list(meta),
        })  # fmt: skip
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
        "type": "scatter", "mode": mode, "x": xs, "y": ys, "hovertext": texts,
        "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
        "line": {"color": colour, "width": 2 if dash == "solid" else 1.5, "dash": dash},
        "meta": list(meta), **axes,
    }  # fmt: skip


def _depths(rows: Frame) -> pd.Series:
    return rows["depth"].where(rows["depth"].notna(), rows["band"].map(MIDDLES))


def _bars(rows: Frame) -> dict[str, Any]:
    high: list[float | None] = []
    low: list[float | None] = []
    for _, same in rows.groupby("domain_a", sort=False):
        high += [*numbers(same["index_high"] - same["index"]), None]
        low += [*numbers(same["index"] - same["index_low"]), None]
    return {"type": "data", "symmetric": False, "array": high, "arrayminus": low,
            "thickness": 1, "width": 2}  # fmt: skip


def _panel_layout() -> dict[str, Any]:
    """Two rows of three panels, each with its title above."""
    made: dict[str, Any] = layout(620)
    shapes: list[Trace] = []
    notes: list[Trace] = []
    for place, (name, title) in enumerate(HEADS.items()):
        row, column = divmod(place, 3)
        x = [column * 0.345, column * 0.345 + 0.31]
        y = [0.56, 0.94] if row == 0 else [0.02, 0.4]
        key = str(place + 1) if place else ""
        made[f"xaxis{key}"] = axis("depth" if row else "", domain=x, range=[-0.03, 1.03],
                                   anchor=f"y{key}")  # fmt: skip
        made[f"yaxis{key}"] = axis("index" if column == 0 else "", domain=y, range=[-0.5, 1.5],
                                   anchor=f"x{key}")  # fmt: skip
        here = {"xref": f"x{key}", "yref": f"y{key} domain"}
        shapes.append({**shade(*BAND), **here})
        bars = threshold_lines(RUNGS[name].bars) if RUNGS[name].indexed else ()
        for at in (line.at for line in bars):
            shapes.append({"type": "line", "x0": 0, "x1": 1, "y0": at, "y1": at, "layer": "below",
                           "xref": f"x{key} domain", "yref": f"y{key}",
                           "line": {"color": GREY, "width": 1, "dash": "dot"}})  # fmt: skip
        notes.append({"text": title.replace("<br>", " "), "x": sum(x) / 2, "y": y[1],
                      "xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "center",
                      "yanchor": "bottom", "font": {"size": 12}})  # fmt: skip
    return {**made, "shapes": shapes, "annotations": notes}


def draw_ladder(table: Table, *, title: str = "What is shared, rung by rung") -> Any:
    """Draw the verdicts of a ladder: pairs of domains and bands of layers by rungs.

    Args:
        table: `interp.ladder(...).table`.
        title: The figure's title.

    Returns:
        A plotly figure.

    >>> rows = pd.DataFrame({"rung": ["R2"], "domain_a": "real", "domain_b": "sketch",
    ...     "band": "middle", "claim": "same geometry", "verdict": "shared", "index": 0.9,
    ...     "index_low": 0.8, "index_high": 1.0, "votes": "2 of 2 shared", "n_judged": 2,
    ...     "n_units": 8, "reason": ""})
    >>> draw_ladder(Table("ladder", rows)).data[0].type
    'heatmap'
    """
    import plotly.graph_objects as go

    rows = whole(table.frame)
    names = _pairs(rows)
    trace = {key: value for key, value in _verdicts(rows, names, [None]).items() if key != "meta"}
    said = (
        f"{title}<br><sup>● shared, ◐ partly, ○ not shared, ? cannot tell; n = {_classes(rows)} "
        "classes</sup>"
    )
    return go.Figure(
        data=[trace],
        layout={
            "title": said, "height": 190 + 26 * len(names), "margin": {"t": 130},
            "xaxis": {"side": "top", "type": "category"},
            "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        },
    )  # fmt: skip


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
    pairs = [(a, b) for a, b, _ in _pairs(rows.assign(band="middle"))]
    rows = _one_row_each(rows.assign(setting=""))  # of one setting, and its line is a pair's
    traces: list[Trace] = []
    for place, (a, b) in enumerate(pairs):
        own = rows[rows["domain_a"].isin([a, b]) & rows["domain_b"].isin([a, b])]
        for trace in _panels(own, setting_looks([""]), [None]):
            name = f"{plain(a)} × {plain(b)}"
            colour = PAIR_COLOURS[place % len(PAIR_COLOURS)]
            if trace["name"] == "this model":
                trace |= {"name": name, "legendgroup": name, "line": {"color": colour, "width": 2}}
            traces.append(trace)
    traces += _empty_panels(rows, [None])
    traces = [{key: value for key, value in trace.items() if key != "meta"} for trace in traces]
    scale = "index: 0 null, 1 ceiling; bars 95 % intervals"
    said = f"{title}<br><sup>{scale}; n = {_classes(rows)} classes</sup>"
    legend = {"orientation": "h", "y": -0.12, "yanchor": "top"}
    shape = {"title": said, "margin": {"t": 110}, "legend": legend}
    return go.Figure(data=traces, layout=_panel_layout() | shape)


PAIR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
