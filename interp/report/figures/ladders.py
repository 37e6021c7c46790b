"""Figures of the ladder: what is shared by rung and band, its profile by depth, circuits abroad."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.core.sites import BAND, BANDS, LAST
from interp.core.statistics.resampling import CANNOT_TELL, NOT_SHARED, SHARED
from interp.core.tables import Table
from interp.report.figures.pieces import (
    GREY,
    MAP,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    error_bars,
    kinds,
    layout,
    numbers,
    shade,
    span,
)
from interp.report.figures.subjects import EPOCH_0, settings_of
from interp.report.loaded import Frame, LoadedResult, tidy
from interp.report.naming import number, plain, setting_look, setting_name, site_label
from interp.verdicts.rungs import RUNGS

HEADS = {name: f"{name} {rung.label}".replace(" ", "<br>", 1) for name, rung in RUNGS.items()}
"""What stands above a rung's column."""

SIGNS = {SHARED: "●", NOT_SHARED: "○", CANNOT_TELL: "?"}
LEVELS = {NOT_SHARED: 0.0, CANNOT_TELL: 1.0, SHARED: 2.0}
SCALE = [
    [0.0, "#E69F00"], [0.333, "#E69F00"],
    [0.333, "#BFBFBF"], [0.667, "#BFBFBF"],
    [0.667, "#56B4E9"], [1.0, "#56B4E9"],
]  # fmt: skip
"""Orange, grey, light blue: apart for every eye, and dark text reads on each."""

WHOLE = "whole tower"
ORDER = (*BANDS, WHOLE)


VERDICT = (
    *("control", "rung", "test_domain", "setting", "domain_a", "domain_b", "band", "verdict"),
    *("index", "index_low", "index_high", "claim", "votes", "reason", "n_units"),
)
POINT = (
    *("control", "rung", "site", "band", "depth", "setting", "domain_a", "domain_b", "verdict"),
    *("index", "index_low", "index_high", "unit", "n_units", "n_pictures", "n_drawings", "n_runs"),
)
"""The columns that a map and a profile need: a table with all declared ones is slow to cut up."""


def ladder_map(result: LoadedResult) -> Figure | None:
    """Every pair of domains and band of layers, rung by rung: shared, not shared, cannot tell."""
    rows = result.frame("ladder")[list(VERDICT)]
    rows = rows[(rows["control"] == "") & (rows["rung"] != "")]
    if rows.empty:
        return None
    tests = [name for name in result.test_domains if name in set(rows["test_domain"])] or [""]
    settings = [one for one in settings_of(result) if one in set(rows["setting"])] or [""]
    names = _pairs(rows)
    traces = [
        _verdicts(_of(rows, test, setting), names, [d, s])
        for d, test in enumerate(tests)
        for s, setting in enumerate(settings)
    ]
    n = span(rows["n_units"].dropna()) if rows["n_units"].notna().any() else "?"
    return Figure(
        "ladder",
        "What is shared, rung by rung",
        f"n = {n} classes per verdict. ● blue: shared (the index's 95 % interval lies above .5); "
        "○ orange: not shared (below .2); ? grey: cannot tell, or sites differ; empty: not "
        "measured. In R1 ● and ○ say whether the class can be read in both domains. Point at a "
        "cell for its index, interval and reasons. Only R4 and R6 speak of mechanisms.",
        f"Map of verdicts: {len(names)} pairs and bands by six rungs",
        traces,
        layout(
            120 + 24 * len(names),
            xaxis={**MAP, "side": "top", "tickfont": {"size": 11}},
            yaxis={**MAP, "autorange": "reversed", "tickfont": {"size": 11}},
        ),
        [
            Choice("Test domain", tests),
            Choice(
                "Setting",
                [setting_name(one) or "this model" for one in settings],
                _fullest(rows, settings),
            ),
        ],
    )


def _of(rows: Frame, test: str, setting: str) -> Frame:
    return rows[(rows["test_domain"] == test) & (rows["setting"] == setting)]


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


def _fullest(rows: Frame, settings: Sequence[str]) -> int:
    """The place of the setting on which most was measured, the first of several."""
    counts = rows["setting"].value_counts()
    return max(range(len(settings)), key=lambda place: (counts.get(settings[place], 0), -place))


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
        "colorscale": SCALE, "zmin": 0, "zmax": 2, "showscale": False, "xgap": 2, "ygap": 2,
        "hoverongaps": False, "meta": list(meta),
    }  # fmt: skip


def _agreed(cell: Frame) -> str:
    found = set(cell["verdict"])
    if not found:
        return ""
    return found.pop() if len(found) == 1 else CANNOT_TELL


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
    return f"{rung} {plain(row['claim'], 60)}: {_agreed(cell)}<br>{index}; {votes}{why}"


def rungs_profile(result: LoadedResult) -> Figure | None:
    """Depth against index, a panel per rung, a line per setting; untrained and pixels dashed."""
    rows = result.frame("rungs")[list(POINT)]
    rows = rows[(rows["site"] != "") | rows["band"].isin(list(BANDS))]
    if rows.empty or rows["index"].notna().sum() == 0:
        return None
    names = _pairs(rows.assign(band="middle"))
    pairs = [(a, b) for a, b, _ in names]
    settings = [one for one in settings_of(result) if one in set(rows["setting"])] or [""]
    traces = [
        trace
        for p, (a, b) in enumerate(pairs)
        for trace in _panels(
            rows[rows["domain_a"].isin([a, b]) & rows["domain_b"].isin([a, b])], settings, [p]
        )
    ]
    own = rows[rows["control"] == ""]
    return Figure(
        "sharing-profile",
        "The sharing profile: every rung by depth",
        f"{counts(own)}; bars are 95 % intervals of the index. 0 is the rung's null, 1 its "
        "ceiling; grey the middle layers; dashed the untrained model, dotted raw pixels. R6 is "
        "cut in one third of the layers at a time; directions A to B and B to A are two points. "
        "Of several models of a setting the means are drawn, of their intervals too.",
        f"Six panels of index by depth, {len(pairs)} pairs of domains to choose from",
        traces,
        _panel_layout(),
        [Choice("Domains", [f"{plain(a)} × {plain(b)}" for a, b in pairs])],
    )


MIDDLES = {"early": 1 / 6, "middle": 1 / 2, "late": 5 / 6}


def _panels(rows: Frame, settings: Sequence[str], meta: Sequence[int | None]) -> list[Trace]:
    traces: list[Trace] = []
    rows = rows[rows["site"] != LAST]
    rows = _mean_models(rows.assign(at=_depths(rows)))
    rows = rows.sort_values(["domain_a", "at"], kind="stable")
    parts = dict(iter(rows.groupby(["rung", "setting", "control"], sort=False)))
    nothing = rows.iloc[:0]
    for number_of, rung in enumerate(RUNGS):
        axes = {"xaxis": f"x{number_of + 1}", "yaxis": f"y{number_of + 1}"}
        for place, setting in enumerate(settings):
            colour, symbol = setting_look(setting, place)
            own = parts.get((rung, setting, ""), nothing)
            line = _points(own, "lines+markers", colour, "solid", axes, meta)
            line |= {
                "name": plain(setting_name(setting) or "this model"), "legendgroup": setting,
                "marker": {"symbol": symbol, "size": 7}, "error_y": _bars(own),
                "showlegend": number_of == 1,
            }  # fmt: skip
            traces += [line] if len(own) else []
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


def _mean_models(rows: Frame) -> Frame:
    """One row for each point, where several models of a setting (blocks, test domains) have it."""
    keys = ["rung", "setting", "control", "domain_a", "domain_b", "site", "band", "at"]
    if not rows.duplicated(keys).any():
        return rows
    means = {name: "mean" for name in ("index", "index_low", "index_high")}
    agreed = {"verdict": lambda said: said.iloc[0] if said.nunique() == 1 else CANNOT_TELL}
    return rows.groupby(keys, sort=False, dropna=False, as_index=False).agg({**means, **agreed})


def _points(
    rows: Frame, mode: str, colour: str, dash: str, axes: Trace, meta: Sequence[int | None]
) -> Trace:
    said = [
        f"{site_label(site) or band}, {plain(a)} to {plain(b)}: {number(index)}, {verdict}"
        for site, band, a, b, index, verdict in rows[
            ["site", "band", "domain_a", "domain_b", "index", "verdict"]
        ].itertuples(index=False)
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


def _depths(rows: Frame) -> Frame:
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
    for place, title in enumerate(HEADS.values()):
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
        for at in (0.2, 0.5):
            shapes.append({"type": "line", "x0": 0, "x1": 1, "y0": at, "y1": at, "layer": "below",
                           "xref": f"x{key} domain", "yref": f"y{key}",
                           "line": {"color": GREY, "width": 1, "dash": "dot"}})  # fmt: skip
        notes.append({"text": title.replace("<br>", " "), "x": sum(x) / 2, "y": y[1],
                      "xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "center",
                      "yanchor": "bottom", "font": {"size": 12}})  # fmt: skip
    return {**made, "shapes": shapes, "annotations": notes}


ABROAD = {
    "ceiling": ("the class in B itself, other artists", "#009E73", "solid", "circle"),
    "value": ("the class in A", "#0072B2", "solid", "diamond"),
    "null": ("another class in A", "#D55E00", "dash", "x"),
    "random": ("random parts", GREY, "dot", "square"),
}
"""Whose circuits run on pictures of B: what each is drawn as."""


def abroad(result: LoadedResult) -> Figure | None:
    """Faithfulness against size on pictures of B, for circuits from B, A, another class, chance."""
    rows = result.frame("circuit_transfer")
    rows = rows[(rows["measure"] == "circuit transfer") & (rows["band"] == "")]
    rows = rows[rows["share"].notna() & rows["value"].notna()]
    if rows.empty:
        return None
    tests = [name for name in result.test_domains if name in set(rows["test_domain"])] or [""]
    settings = [one for one in settings_of(result) if one in set(rows["setting"])] or [""]
    ways = list(dict.fromkeys(zip(rows["domain_a"], rows["domain_b"], rows["level"], strict=True)))
    traces: list[Trace] = []
    for d, test in enumerate(tests):
        for s, setting in enumerate(settings):
            for w, (a, b, level) in enumerate(ways):
                chosen = _of(rows, test, setting)
                chosen = chosen[(chosen["domain_a"] == a) & (chosen["domain_b"] == b)]
                chosen = chosen[chosen["level"] == level].sort_values("share")
                traces += _sizes(chosen, [d, s, w]) if len(chosen) else []
    return Figure(
        "circuits-abroad",
        "Circuits of one domain at work in another",
        f"{counts(rows)}; bars are 95 % intervals of the share. Everything outside a circuit runs "
        f"as in a picture of another class. {kinds(rows)}",
        f"Lines of faithfulness by size for four kinds of circuit, {len(ways)} ways to choose from",
        traces,
        layout(
            430,
            xaxis=axis("size, as a share of each layer's parts", type="log",
                       tickvals=[0.02, 0.05, 0.1, 0.2, 0.5],
                       ticktext=["2 %", "5 %", "10 %", "20 %", "50 %"]),
            yaxis=axis("share of the class's work in B"),
        ),
        [
            Choice("Test domain", tests),
            Choice("Setting", [setting_name(one) or "this model" for one in settings]),
            Choice("From A to B", [f"{plain(a)} → {plain(b)}, by {LEVEL_NAMES.get(level, level)}"
                                   for a, b, level in ways]),
        ],
    )  # fmt: skip


LEVEL_NAMES = {"channel": "channels", "d_mlp": "neurons", "edge": "edges"}


def _sizes(rows: Frame, meta: Sequence[int | None]) -> list[Trace]:
    return [
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": numbers(rows["share"]),
            "y": numbers(rows[column]), "line": {"color": colour, "dash": dash, "width": 2.5},
            "marker": {"symbol": symbol, "size": 8}, "meta": list(meta),
            **({"error_y": error_bars(rows, "value", "low", "high")} if column == "value" else {}),
            "hovertemplate": "%{x:.0%}: %{y:.2f}<extra>%{fullData.name}</extra>",
        }
        for column, (name, colour, dash, symbol) in ABROAD.items()
    ]  # fmt: skip


def draw_ladder(table: Table, *, title: str = "What is shared, rung by rung") -> Any:
    """A plotly figure of `interp.ladder(...).table`: pairs of domains and bands by rungs.

    >>> rows = pd.DataFrame({"rung": ["R2"], "domain_a": "real", "domain_b": "sketch",
    ...     "band": "middle", "claim": "same geometry", "verdict": "shared", "index": 0.9,
    ...     "index_low": 0.8, "index_high": 1.0, "votes": "2 of 2 shared", "n_judged": 2,
    ...     "n_units": 8, "reason": ""})
    >>> draw_ladder(Table("ladder", rows)).data[0].type
    'heatmap'
    """
    import plotly.graph_objects as go

    rows = tidy(table.frame)
    names = _pairs(rows)
    trace = {key: value for key, value in _verdicts(rows, names, [None]).items() if key != "meta"}
    n = span(rows["n_units"].dropna()) if rows["n_units"].notna().any() else "?"
    said = f"{title}<br><sup>● shared, ○ not shared, ? cannot tell; n = {n} classes</sup>"
    return go.Figure(
        data=[trace],
        layout={
            "title": said, "height": 190 + 26 * len(names), "margin": {"t": 130},
            "xaxis": {"side": "top", "type": "category"},
            "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        },
    )  # fmt: skip


def draw_profile(table: Table, *, title: str = "The sharing profile") -> Any:
    """A plotly figure of `interp.ladder(...).rungs`: a panel per rung, depth against index.

    >>> rows = pd.DataFrame({"rung": ["R2"], "measure": "CKA", "domain_a": "real",
    ...     "domain_b": "sketch", "site": "blocks.0.hook_resid_post", "band": "middle",
    ...     "depth": 0.5, "index": 0.9, "index_low": 0.8, "index_high": 1.0, "n_units": 8})
    >>> len(draw_profile(Table("rungs", rows)).data)
    1
    """
    import plotly.graph_objects as go

    rows = tidy(table.frame)
    rows = rows[(rows["site"] != "") | rows["band"].isin(list(BANDS))]
    pairs = [(a, b) for a, b, _ in _pairs(rows.assign(band="middle"))]
    traces: list[Trace] = []
    for place, (a, b) in enumerate(pairs):
        own = rows[rows["domain_a"].isin([a, b]) & rows["domain_b"].isin([a, b])]
        for trace in _panels(own, [""], [None]):
            name = f"{plain(a)} × {plain(b)}"
            colour = PAIR_COLOURS[place % len(PAIR_COLOURS)]
            if trace["name"] == "this model":
                trace |= {"name": name, "legendgroup": name, "line": {"color": colour, "width": 2}}
            traces.append({key: value for key, value in trace.items() if key != "meta"})
    n = span(rows["n_units"].dropna()) if rows["n_units"].notna().any() else "?"
    said = f"{title}<br><sup>index: 0 null, 1 ceiling; bars 95 % intervals; n = {n} classes</sup>"
    legend = {"orientation": "h", "y": -0.12, "yanchor": "top"}
    shape = {"title": said, "margin": {"t": 110}, "legend": legend}
    return go.Figure(data=traces, layout=_panel_layout() | shape)


PAIR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
