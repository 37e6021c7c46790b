"""Lines over depth: each subject with its interval, its untrained self, and raw pixels."""

from collections.abc import Sequence

from interp.report.figures import GREY, Trace, faded, hover, numbers
from interp.report.naming import plain
from interp.report.primary import EPOCH_0
from interp.report.reading import Frame
from interp.report.subjects import Subject

Scale = tuple[str, str, str]
"""The columns drawn: a number, and the ends of its interval."""

INDEX: Scale = ("index", "index_low", "index_high")
RAW: Scale = ("value", "low", "high")

DEPTH = "depth in the tower (0 picture, 1 embedding)"


def depth_lines(
    rows: Frame, one: Subject, meta: Sequence[int | None], scale: Scale = INDEX
) -> list[Trace]:
    """A subject's line with its interval, its untrained self, and the pixels' level."""
    rows = rows[(rows["site_b"] == "") | (rows["site_b"] == rows["site"])]
    rows = rows.sort_values("depth", kind="stable")
    own, untrained = rows[rows["control"] == ""], rows[rows["control"] == EPOCH_0]
    group = {"legendgroup": plain(one.name), "meta": list(meta)}
    traces: list[Trace] = []
    if len(own):
        traces += [_interval(part, one, group, scale) for part in _stretches(own, scale)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(one.name),
                "x": numbers(own["depth"]),
                "y": numbers(own[scale[0]]),
                "line": {"color": one.colour, "width": 2.5},
                "marker": {"symbol": one.symbol, "size": 8},
                "hovertext": hover(own, *scale),
                "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
                **group,
            }
        )
    for floor, dash, colour in ((untrained, "dash", one.colour), (_pixels(rows), "dot", GREY)):
        if floor[scale[0]].notna().any():
            traces.append(_floor(floor, dash, colour, group, scale[0]))
    return traces


def _floor(rows: Frame, dash: str, colour: str, group: Trace, column: str) -> Trace:
    """An extra floor: the untrained model by depth, or raw pixels right across."""
    pixels = rows["control"].iloc[0] == "pixels"
    level = numbers(rows[column])
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "raw pixels" if pixels else "untrained (epoch 0)",
        "x": [0.0, 1.0] if pixels else numbers(rows["depth"]),
        "y": level[:1] * 2 if pixels else level,
        "line": {"color": colour, "width": 1.5, "dash": dash},
        "opacity": 0.75,
        "hovertemplate": "%{fullData.name}: %{y:.2f}<extra></extra>",
        **group,
        "legendgroup": "floors",
        "legendrank": 2000,
    }


def _pixels(rows: Frame) -> Frame:
    return rows[rows["control"] == "pixels"].head(1)


def _stretches(rows: Frame, scale: Scale) -> list[Frame]:
    """Runs of layers that have an interval: a band must not bridge a layer without one."""
    has = rows[scale[1]].notna() & rows[scale[2]].notna()
    run = (~has).cumsum()
    return [part for _, part in rows[has].groupby(run[has])]


def _interval(rows: Frame, one: Subject, group: Trace, scale: Scale) -> Trace:
    depth = numbers(rows["depth"])
    return {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "x": [*depth, *reversed(depth)],
        "y": [*numbers(rows[scale[2]]), *reversed(numbers(rows[scale[1]]))],
        "fillcolor": faded(one.colour, 0.12),
        "line": {"width": 0, "color": one.colour},
        "hoverinfo": "skip",
        "showlegend": False,
        "name": f"{plain(one.name)}, 95 % interval",
        **group,
    }


def named(traces: Sequence[Trace]) -> list[Trace]:
    once = {trace["name"]: trace for trace in traces if trace.get("showlegend") is not False}
    return list(once.values())


def without_twins(traces: Sequence[Trace]) -> list[Trace]:
    """Pixels and untrained models are often the same for all settings: draw and name each once."""
    kept: list[Trace] = []
    seen: set[str] = set()
    for trace in traces:
        floor = trace.get("legendgroup") == "floors"
        key = f"{trace['meta']} {trace['name']} {trace['x']} {trace['y']}"
        if floor and key in seen:
            continue
        named = f"{trace['meta']} {trace['name']}"
        if floor and named in seen:
            trace = {**trace, "showlegend": False}
        seen |= {key, named}
        kept.append(trace)
    return kept
