"""The sharing profile: every rung's index by depth, a panel each."""

from typing import TYPE_CHECKING

from interp.core.sites import BAND, BANDS, LAST
from interp.core.tables import Table
from interp.declared.figures import INDEX, FigureSpec, threshold_lines
from interp.declared.writing import number, plain
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.mean_of_models import OF_MODELS, mean_of_models
from interp.report.grammar.pieces import Choice, Figure, Meta, Trace
from interp.report.loaded import Frame, whole
from interp.report.naming import SYMBOLS, Looks, looks_of, setting_label, setting_looks, site_label
from interp.report.rows import EPOCH_0
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINT = (
    "control rung site band depth domain_a domain_b verdict setting test_domain seed index "
    "index_low index_high unit n_units n_pictures n_drawings n_runs"
).split()
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
    "time; directions A to B and B to A are two points.{averaged_over}",
    alt="Six panels of index by depth, {pairs} pairs of domains to choose from",
    choices=(),
)


def sharing_profile_figure(data: FigureRows) -> Figure | None:
    """Depth against index, a panel per rung, a line per setting; untrained and pixels dashed."""
    rows = _placed(data.rows)
    if not rows[rows["control"] == ""]["index"].notna().any():  # floors alone are no profile
        return None
    pairs = ordered_pairs(rows)
    rows = _one_row_each(rows)
    settings = [name for name in data.page.settings if name in set(rows["setting"])] or [""]
    looks = looks_of(data.page.settings, settings)
    several = " Of a block's test domains the mean is drawn." if len(data.page.tests) > 1 else ""
    traces = [
        trace
        for place, pair in enumerate(pairs)
        for own in [rows[rows["domain_a"].isin(pair) & rows["domain_b"].isin(pair)]]
        for trace in (*_panels(own, looks, [place]), *_empty_panels(own, [place]))
    ]
    return data.figure(
        traces,
        _panel_layout(),
        of_rows=rows,
        choices=[Choice("Domains", [f"{plain(a)} × {plain(b)}" for a, b in pairs])],
        averaged=[rows],
        pairs=len(pairs),
        averaged_over=several,
    )


def _placed(rows: Frame) -> Frame:
    """The rows that stand at a site, or in a band of layers."""
    return rows[(rows["site"] != "") | rows["band"].isin(list(BANDS))][POINT]


def _one_row_each(rows: Frame) -> Frame:
    """One row for each point, where several models of a setting have it: the mean of blocks."""
    keys = ["rung", "setting", "control", "domain_a", "domain_b", "site", "band", "at"]
    rows = rows[rows["site"] != LAST]
    depth = rows["depth"].where(rows["depth"].notna(), rows["band"].map(MIDDLES))
    rows = _one_row_a_block(rows.assign(at=depth), [*keys, "seed"])
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


def _panels(rows: Frame, looks: Looks, meta: Meta) -> list[Trace]:
    """A panel for each rung: a line for each setting, then the floors."""
    traces: list[Trace] = []
    rows = rows.sort_values(["domain_a", "at"], kind="stable")
    parts = dict(iter(rows.groupby(["rung", "setting", "control"], sort=False)))
    for place, rung in enumerate(RUNGS):
        first = {**_axes(place), "showlegend": place == 1}
        for setting, (colour, symbol) in looks.items():
            own = parts.get((rung, setting, ""))
            if own is not None:
                name, look = setting_label(setting), {"symbol": symbol, "size": 7}
                more = {"legendgroup": setting, "marker": look, "error_y": _bars(own), **first}
                traces.append(_line(own, name, "lines+markers", colour, "solid", meta) | more)
        floors = rows[rows["rung"] == rung]
        untrained = floors[floors["control"] == EPOCH_0]
        if untrained["index"].notna().any():
            traces.append(_line(untrained, "untrained", "lines", pieces.GREY, "dash", meta) | first)
        pixels = floors[floors["control"] == "pixels"]
        if pixels["index"].notna().any():
            level = {"x": [0, 1], "y": [float(pixels["index"].mean())] * 2, "hovertext": None}
            dotted = _line(pixels.iloc[:1], "raw pixels", "lines", pieces.GREY, "dot", meta)
            traces.append(dotted | _axes(place) | level | {"showlegend": False})
    return traces


def _axes(place: int) -> Trace:
    return {"xaxis": f"x{place + 1}", "yaxis": f"y{place + 1}"}


def _empty_panels(rows: Frame, meta: Meta) -> list[Trace]:
    """Words in panels without a point: that a rung was not measured here, or has no index."""
    traces: list[Trace] = []
    for place, rung in enumerate(RUNGS):
        own = rows[(rows["rung"] == rung) & (rows["control"] == "")]
        if not own["index"].notna().any():
            words = f"no index: {agreement(own['verdict'])}" if len(own) else "not measured"
            traces.append(pieces.words_at([0.5], [0.5], [words], meta) | _axes(place))
    return traces


def _line(rows: Frame, name: str, mode: str, colour: str, dash: str, meta: Meta) -> Trace:
    """A line for each direction between the domains, with gaps between them."""
    models = rows[OF_MODELS] if OF_MODELS in rows else [""] * len(rows)
    columns = ("site", "band", "domain_a", "domain_b", "index", "verdict")
    said = [
        f"{site_label(site) or band}, {plain(a)} to {plain(b)}: {number(index)}, {verdict}"
        + (f"<br>{several}" if several else "")
        for site, band, a, b, index, verdict, several in zip(
            *(rows[column] for column in columns), models, strict=True
        )
    ]
    ways = rows.assign(said=said).groupby("domain_a", sort=False)
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": [at for _, own in ways for at in (*pieces.numbers(own["at"]), None)],
        "y": [at for _, own in ways for at in (*pieces.numbers(own["index"]), None)],
        "hovertext": [text for _, own in ways for text in (*own["said"], "")],
        "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
        "line": {"color": colour, "width": 2 if dash == "solid" else 1.5, "dash": dash},
        "meta": list(meta),
    }


def _bars(rows: Frame) -> Trace:
    reach = {"array": rows["index_high"] - rows["index"]}
    reach["arrayminus"] = rows["index"] - rows["index_low"]
    ways = [own.index for _, own in rows.groupby("domain_a", sort=False)]
    ends = {
        name: [end for way in ways for end in (*pieces.numbers(values[way]), None)]
        for name, values in reach.items()
    }
    return {"type": "data", "symmetric": False, **ends, "thickness": 1, "width": 2}


def _panel_layout() -> Trace:
    """Two rows of three panels, each with its title above."""
    panels: Trace = pieces.layout(620)
    shapes: list[Trace] = []
    notes: list[Trace] = []
    for place, (name, rung) in enumerate(RUNGS.items()):
        row, column = divmod(place, 3)
        x = [column * 0.345, column * 0.345 + 0.31]
        y = [0.56, 0.94] if row == 0 else [0.02, 0.4]
        key = str(place + 1) if place else ""
        across = {"domain": x, "range": [-0.03, 1.03], "anchor": f"y{key}"}
        up = {"domain": y, "range": [-0.5, 1.5], "anchor": f"x{key}"}
        panels[f"xaxis{key}"] = pieces.axis("depth" if row else "", **across)
        panels[f"yaxis{key}"] = pieces.axis("" if column else "index", **up)
        shapes.append({**pieces.shade(*BAND), "xref": f"x{key}", "yref": f"y{key} domain"})
        for line in threshold_lines(rung.bars) if rung.indexed else ():
            ends = {"x0": 0, "x1": 1, "y0": line.at, "y1": line.at}
            look = {"line": {"color": pieces.GREY, "width": 1, "dash": "dot"}, "layer": "below"}
            shapes.append(
                {"type": "line", **ends, **look, "xref": f"x{key} domain", "yref": f"y{key}"}
            )
        title = f"{name} {rung.label}"
        notes.append(pieces.note(title, sum(x) / 2, y[1], xanchor="center"))
    return {**panels, "shapes": shapes, "annotations": notes}


def ordered_pairs(rows: Frame) -> list[tuple[str, str]]:
    """Pairs of domains, those first on which most was measured, in most models."""
    measured: dict[tuple[str, str], set[tuple[str, str]]] = {}
    columns = ["domain_a", "domain_b", "rung", "setting"]
    for a, b, rung, setting in rows[columns].itertuples(index=False):
        measured.setdefault((min(a, b), max(a, b)), set()).add((rung, setting))
    return sorted(measured, key=lambda pair: -len(measured[pair]))


PAIR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_profile(table: Table, *, title: str = "The sharing profile") -> "go.Figure":
    """Draw the sharing profile of a ladder: a panel per rung, depth against index.

    Args:
        table: `interp.ladder(...).rungs`.
        title: The figure's title.

    Returns:
        A plotly figure.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"rung": ["R2"], "measure": "CKA", "domain_a": "real",
    ...     "domain_b": "sketch", "site": "blocks.0.hook_resid_post", "band": "middle",
    ...     "depth": 0.5, "index": 0.9, "index_low": 0.8, "index_high": 1.0, "n_units": 8})
    >>> [trace.name for trace in draw_profile(Table("rungs", rows)).data][:2]
    ['real × sketch', 'not measured']
    """
    import plotly.graph_objects as go

    rows = _placed(whole(table.frame))
    pairs, counted = ordered_pairs(rows), pieces.span(rows["n_units"].dropna())
    rows = _one_row_each(rows.assign(setting=""))  # of one setting, and its line is a pair's
    traces: list[Trace] = []
    for place, (a, b) in enumerate(pairs):
        own = rows[rows["domain_a"].isin([a, b]) & rows["domain_b"].isin([a, b])]
        again, at = divmod(place, len(PAIR_COLOURS))
        name = f"{plain(a)} × {plain(b)}"
        look = {
            "name": name,
            "legendgroup": name,
            "line": {"color": PAIR_COLOURS[at], "width": 2},
            "marker": {"symbol": SYMBOLS[again % len(SYMBOLS)], "size": 7},
        }
        for trace in _panels(own, setting_looks([""]), [None]):
            traces.append(trace | look if trace["name"] == "this model" else trace)
    traces += _empty_panels(rows, [None])
    scale = "index: 0 null, 1 ceiling; bars 95 % intervals"
    said = f"{title}<br><sup>{scale}; n = {counted} classes</sup>"
    legend = {"orientation": "h", "y": -0.12, "yanchor": "top"}
    shape = {"title": said, "margin": {"t": 110}, "legend": legend}
    return go.Figure(data=list(map(pieces.bare, traces)), layout=_panel_layout() | shape)
