"""Kinds of figure that a specification may name: depth, forest and map; curves are in `curves`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.sites import BAND
from interp.declared.figures import FigureSpec, Label, Scale
from interp.declared.writing import number, percent, plain
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import LINE, FigureRows, View
from interp.report.grammar.mean_of_models import OF_MODELS, mean_of_models
from interp.report.grammar.pieces import Figure, Marker, Meta, Trace
from interp.report.loaded import Frame
from interp.report.naming import looks_of, ordered_settings, site_label
from interp.report.rows import EPOCH_0

DEPTH = "depth in the tower (0 picture, 1 embedding)"


def depth_figure(data: FigureRows) -> Figure | None:
    """Lines over depth: one per subject with its interval, floors dashed, middle layers grey."""
    spec = data.spec
    views = [
        _of_models(view, ("control", "site", "site_b"), [view.scale], share=spec.y.percent)
        for view in data.views
    ]
    shown = pd.concat([view.rows for view in views])
    if not any(view.rows[view.scale.value].notna().any() for view in views):
        return None
    traces: list[Trace] = []
    for view in views:
        for _, own in view.rows.groupby("key", sort=False):
            traces += depth_lines(own, view.meta, view.scale)
        if not view.rows[view.scale.value].notna().any():
            none = pieces.words_at(
                [0.5], [0.35], ["no number here: the table has the reasons"], view.meta
            )
            traces.append(none | {"name": "no number"})
    lines, notes = pieces.across_lines(spec.lines, "y")
    shape = pieces.layout(
        spec.height or 430,
        shapes=[pieces.shade(*BAND), *lines],
        annotations=notes,
        xaxis=pieces.axis(DEPTH, range=[-0.03, 1.03]),
        yaxis=pieces.axis_of(spec.y),
    )
    named = {each["name"]: None for each in traces if each.get("showlegend") is not False}
    averaged = [view.rows for view in views]
    return data.figure(
        _without_twins(traces), shape, of_rows=shown, averaged=averaged, names=sequence([*named])
    )


def _of_models(
    view: View, place: Sequence[str], scales: Sequence[Scale], *, share: bool = False
) -> View:
    """A view whose subjects have one row in each place, the mean of their models."""
    keys = [*place, *(["key"] if "key" in view.rows else [])]
    return replace(view, rows=mean_of_models(view.rows, keys, scales, share=share))


def depth_lines(rows: Frame, meta: Meta, scale: Scale) -> list[Trace]:
    """A subject's line with its interval, its untrained self, and the pixels' level."""
    name, colour, symbol, _ = rows[LINE].iloc[0]
    rows = rows[(rows["site_b"] == "") | (rows["site_b"] == rows["site"])]
    rows = rows.sort_values("depth", kind="stable")
    own, untrained = rows[rows["control"] == ""], rows[rows["control"] == EPOCH_0]
    traces: list[Trace] = []
    if len(own):
        group = {"legendgroup": name}
        for part in _stretches(own, scale):
            x, low, high = (pieces.numbers(part[each]) for each in ("depth", scale.low, scale.high))
            band = pieces.ribbon(f"{name}, 95 % interval", x, low, high, colour, **group)
            traces.append(band | {"meta": list(meta)})
        more = {"mode": "lines+markers", "line": {"color": colour, "width": 2.5}, **group}
        at = own["depth"], own[scale.value], hover(own, scale)
        traces.append(pieces.points(name, (colour, symbol), *at, meta, size=8, **more))
    if untrained[scale.value].notna().any():
        x, y = pieces.numbers(untrained["depth"]), pieces.numbers(untrained[scale.value])
        traces.append(_floor("untrained (epoch 0)", x, y, meta, colour, "dash"))
    pixels = pieces.numbers(rows[rows["control"] == "pixels"].head(1)[scale.value])
    if pixels and pixels[0] is not None:
        traces.append(_floor("raw pixels", [0.0, 1.0], pixels * 2, meta, pieces.GREY, "dot"))
    return traces


def _floor(
    name: str, x: Sequence[object], y: Sequence[object], meta: Meta, colour: str, dash: str
) -> Trace:
    line = pieces.level_line(name, x, y, meta, color=colour, width=1.5, dash=dash)
    return line | {"opacity": 0.75, "legendgroup": "floors", "legendrank": 2000}


def _stretches(rows: Frame, scale: Scale) -> list[Frame]:
    """Runs of layers that have an interval: a band must not bridge a layer without one."""
    has = rows[scale.low].notna() & rows[scale.high].notna()
    run = (~has).cumsum()
    return [part for _, part in rows[has].groupby(run[has])]


def hover(rows: Frame, scale: Scale) -> list[str]:
    """What a point says when pointed at: site, number, interval, models, verdict."""
    models = rows[OF_MODELS] if OF_MODELS in rows else [""] * len(rows)
    columns = ("site", scale.value, scale.low, scale.high, "verdict")
    said = []
    for site, value, low, high, verdict, several in zip(
        *(rows[name] for name in columns), models, strict=True
    ):
        ends = f" ({number(low)} to {number(high)})" if pd.notna(low) else ""
        place = plain(site_label(site), 40)
        parts = (place, f"{number(value, 3)}{ends}", several, verdict)
        said.append("<br>".join(part for part in parts if part))
    return said


def _without_twins(traces: Sequence[Trace]) -> list[Trace]:
    """Pixels and untrained models are often the same for all settings: draw and name each once."""
    once: list[Trace] = []
    known: set[str] = set()
    for trace in traces:
        floor, named = trace.get("legendgroup") == "floors", f"{trace['meta']} {trace['name']}"
        key = f"{named} {trace['x']} {trace['y']}"
        if floor and key in known:
            continue
        once.append({**trace, "showlegend": False} if floor and named in known else trace)
        known |= {key, named}
    return once


def forest_figure(data: FigureRows) -> Figure | None:
    """Marks with intervals: a row for each label that has a number, subjects side by side in it."""
    spec, rows = data.spec, data.rows
    if rows.empty or not rows[spec.scale.value].notna().any():
        return None
    place, floors = ("control", "row", "setting"), [Scale("null")] * spec.floors
    views = [
        _of_models(view, place, [view.scale, *floors], share=spec.x.percent) for view in data.views
    ]
    known = rows[[*{view.scale.value for view in views}]].notna().any(axis=1)
    names = _in_order(data, rows[known], spec.labels)
    most = max(1, *(len(view.lines) for view in views))
    if spec.subjects and most < spec.least:
        return None
    traces = [trace for view in views for trace in _marks(data, view, names)]
    lines, notes = pieces.across_lines(spec.lines, "y" if spec.upright else "x")
    words = any(line.text for line in spec.lines)
    across = pieces.axis_of(spec.x)
    down = pieces.rows_by_name(names, room=0.6 * words, limit=28 if spec.upright else 80)
    if spec.upright:
        across, down = {**down, "range": down["range"][::-1]}, across
    shape = pieces.layout(
        spec.height or pieces.height(names, most) + 30 * words,
        shapes=lines,
        annotations=notes,
        xaxis=across,
        yaxis=down,
        meta={"rows": "x" if spec.upright else "y"},
        **({} if spec.subjects or spec.floors else {"showlegend": False}),
    )
    return data.figure(
        traces,
        shape,
        averaged=[view.rows for view in views],
        rows=len(names),
        labels=sequence(names),
        subjects=most,
        names=sequence([*views[0].lines["subject"]]),
        numbers=_numbers(spec, views[0]),
    )


def _in_order(data: FigureRows, rows: Frame, label: Label) -> list[str]:
    """The names in `row`, each once: settings and domains in the order of the page."""
    if label == "setting":
        called = dict(zip(rows["setting"], rows["row"], strict=True))
        return [called[name] for name in ordered_settings(rows["setting"])]
    names = list(dict.fromkeys(rows["row"]))
    known = data.page.domains if label == "domain" else []
    return [*(name for name in known if name in names), *(n for n in names if n not in known)]


def _marks(data: FigureRows, view: View, names: Sequence[str]) -> Iterator[Trace]:
    """The marks of a view, and the floors beside them."""
    spec, scale = data.spec, view.scale
    how = {"upright": spec.upright, "share": spec.x.percent}
    for nth, line in enumerate(view.lines.itertuples()):
        own = view.rows[view.rows["key"] == line.key]
        if len(own):
            look, place = (line.colour, line.symbol), (nth, len(view.lines))
            yield marks(str(line.subject), look, own, names, place, view.meta, scale, **how)
    own = view.rows[view.rows["control"] == ""]
    if not spec.subjects:
        look: Marker = ("#0072B2", "circle")
        if spec.labels == "setting":
            known = looks_of(data.page.settings, data.rows["setting"])
            colours, symbols = ([known[name][at] for name in own["setting"]] for at in (0, 1))
            look = colours, symbols
        called = "trained" if spec.floors else ""
        yield marks(called, look, own, names, (0, 1), view.meta, scale, **how)
    if not spec.floors:
        return
    untrained = view.rows[view.rows["control"] == EPOCH_0].drop_duplicates("setting")
    bare, look = Scale(scale.value, "low", "low"), (pieces.GREY, "circle")
    floor = untrained.assign(low=np.nan)
    yield marks("untrained (epoch 0)", look, floor, names, (0, 1), view.meta, bare, **how) | {
        "cliponaxis": False
    }
    line = pd.concat([own, untrained]).dropna(subset=["null"]).drop_duplicates("row")
    line = line[line["row"].isin(names)]
    if len(line):
        at, chance = [names.index(row) for row in line["row"]], pieces.numbers(line["null"])
        yield pieces.level_line("chance", chance, at, view.meta, share=spec.x.percent, dash="dash")


SPREAD = 0.6
"""How much of a row's height its subjects take."""


def marks(
    name: str,
    look: Marker,
    rows: Frame,
    names: Sequence[str],
    place: tuple[int, int],
    meta: Meta,
    scale: Scale,
    *,
    upright: bool = False,
    share: bool = False,
) -> Trace:
    """A subject's marks, each with its interval; a number whose interval is missing is drawn open.

    Args:
        name: The subject's name.
        look: Its colour and symbol, or one of each for every row.
        rows: Its rows, with a column `row` that is one of `names`.
        names: The names of the rows, in order.
        place: Which of how many subjects it is.
        meta: The options under which it is shown.
        scale: The columns drawn.
        upright: Whether the rows stand side by side, not one below the other.
        share: Whether numbers are said as percentages.
    """
    nth, n = place
    offset = SPREAD * ((nth + 0.5) / n - 0.5)
    digits = 3 if scale.times == 1 else 1
    has = rows[scale.value].notna()
    known = rows[has]
    values = scale.times * known[scale.value]
    models = known[OF_MODELS] if OF_MODELS in known else [""] * len(known)
    said = []
    for row, each, *more in zip(known["row"], values, models, known["verdict"], strict=True):
        told = percent(each) if share else number(float(each), digits)
        said.append("<br>".join([f"{plain(row, 60)}: {told}", *(part for part in more if part)]))
    several = not isinstance(look[0], str)
    colour, symbols = (
        [each for each, there in zip(one, has, strict=True) if there] if several else one
        for one in look
    )
    at = [names.index(row) + offset for row in known["row"]]
    looks = colour, pieces.opened_option(symbols, known[scale.low].isna())
    bars = pieces.error_bars(known, scale, color=pieces.GREY if several else colour)
    if upright:
        return pieces.points(name, looks, at, values, said, meta, error_y=bars)
    return pieces.points(name, looks, values, at, said, meta, error_x=bars)


def _numbers(spec: FigureSpec, view: View) -> str:
    """The trained models' numbers of a view, in words."""
    own = view.rows[view.rows["control"] == ""]
    values = view.scale.times * own[view.scale.value]
    said = [percent(each) if spec.x.percent else number(each, 1) for each in values]
    return "; ".join(f"{row}: {each}" for row, each in zip(own["row"], said, strict=True))


def map_figure(data: FigureRows) -> Figure | None:
    """A heat map of one column of domains against another, with choices."""
    spec, rows = data.spec, data.rows
    down, over = spec.across if isinstance(spec.across, tuple) else (spec.across, spec.across)
    if rows.empty or rows[down].eq("").all():
        return None
    given = dict.fromkeys([*rows[down], *rows[over]])
    domains = sorted(given, key=(*data.page.domains, *given).index)
    ends = list(dict.fromkeys((down, over)))
    views = [_of_models(view, ends, [Scale(view.scale.value)]) for view in data.views]
    traces = [_cells(spec, view, (down, over), domains) for view in views]
    shape = pieces.layout(
        80 + 50 * len(domains), xaxis=pieces.MAP, yaxis={**pieces.MAP, "autorange": "reversed"}
    )
    averaged = [view.rows for view in views]
    return data.figure(traces, shape, averaged=averaged, rows=len(domains))


def _cells(spec: FigureSpec, view: View, ends: tuple[str, str], domains: Sequence[str]) -> Trace:
    """The cells of a view; a domain with itself was never in question in a symmetric map."""
    cells = view.rows[[*ends, view.scale.value]].itertuples(index=False)
    known = {(a, b): float(value) for a, b, value in cells}
    if spec.symmetric:
        known |= {(b, a): value for (a, b), value in known.items()}
    grid = [[known.get((a, b), float("nan")) for b in domains] for a in domains]
    trace = pieces.heat(grid, domains, domains, title=spec.y.title, meta=view.meta)
    if spec.symmetric:
        for place, row in enumerate(trace["text"]):
            row[place] = ""
    return trace
