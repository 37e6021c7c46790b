"""A figure of points as a still picture, for readers whose browser runs no scripts."""

from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite
from typing import Any

from interp.report.grammar.pieces import Figure, Trace

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 300, 56, 40, 12
"""Of the picture, and of its margins, in units of its own."""


def still(figure: Figure) -> str:
    """An SVG of a figure's points with their bars, lines and names; "" where it has no points.

    Only what is shown at first is drawn: the traces of the first option of every choice.
    """
    traces = [trace for trace in figure.data if _first(trace)]
    xs, ys = ([float(v) for trace in traces for v in _known(trace, axis)] for axis in "xy")
    if not xs or not ys:
        return ""
    across, up = (_ends(values, traces, axis) for values, axis in ((xs, "x"), (ys, "y")))
    title, below, beside = (
        escape(text) for text in (figure.title, _words(figure, "xaxis"), _words(figure, "yaxis"))
    )
    parts = [part for trace in traces for part in _marks(trace, across, up)]
    return (
        f'<svg class="still" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}. '
        f'{escape(figure.alt)}"><g fill="none" stroke="currentColor">'
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 8}"/></g>'
        f"{''.join(_ticks(across, up))}{''.join(parts)}"
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{below}</text>'
        f'<text transform="translate(12 {HEIGHT / 2 - 10}) rotate(-90)" text-anchor="middle">'
        f"{beside}</text></svg>"
    )


def _first(trace: Trace) -> bool:
    return all(option in (None, 0) for option in trace.get("meta") or ())


def _words(figure: Figure, axis: str) -> str:
    title = figure.layout.get(axis, {}).get("title", "")
    return str(title.get("text", "") if isinstance(title, dict) else title)


def _known(trace: Trace, axis: str) -> list[Any]:
    return [value for value in trace.get(axis, ()) if value is not None and isfinite(value)]


def _bars(trace: Trace, axis: str, place: int) -> tuple[float, float]:
    """How far the bars of a point reach, downwards and upwards."""
    bars = trace.get(f"error_{axis}") or {}
    reach = [(bars.get(name) or [0.0] * (place + 1))[place] for name in ("arrayminus", "array")]
    down, up = (float(one) if one is not None else 0.0 for one in reach)
    return down, up


def _ends(values: Sequence[float], traces: Sequence[Trace], axis: str) -> tuple[float, float]:
    """The ends of an axis that has room for every point with its bars."""
    low, high = min(0.0, *values), max(values)
    for trace in traces:
        for place, value in enumerate(trace.get(axis, ())):
            if value is not None:
                down, up = _bars(trace, axis, place)
                low, high = min(low, value - down), max(high, value + up)
    room = 0.03 * (high - low) or 1.0
    return low - room, high + room


def _x(value: float, ends: tuple[float, float]) -> float:
    return round(LEFT + (value - ends[0]) / (ends[1] - ends[0]) * (WIDTH - LEFT - 12), 1)


def _y(value: float, ends: tuple[float, float]) -> float:
    share = (value - ends[0]) / (ends[1] - ends[0])
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _ticks(across: tuple[float, float], up: tuple[float, float]) -> Iterator[str]:
    for place in range(6):
        value = round(0.2 * place, 1)
        if across[0] <= value <= across[1]:
            yield (
                f'<text x="{_x(value, across)}" y="{HEIGHT - BOTTOM + 15}" '
                f'text-anchor="middle">{value:g}</text>'
            )
        if up[0] <= value <= up[1]:
            yield (
                f'<text x="{LEFT - 6}" y="{_y(value, up) + 4}" text-anchor="end">'
                f"{100 * value:.0f} %</text>"
            )


def _marks(trace: Trace, across: tuple[float, float], up: tuple[float, float]) -> Iterator[str]:
    """Points with their bars, a line, or a name."""
    points = [
        (place, float(x), float(y))
        for place, (x, y) in enumerate(zip(trace.get("x", ()), trace.get("y", ()), strict=False))
        if x is not None and y is not None and isfinite(x) and isfinite(y)
    ]
    mode = trace.get("mode", "")
    if mode == "lines":
        spots = " ".join(f"{_x(x, across)},{_y(y, up)}" for _, x, y in points)
        yield f'<polyline points="{spots}" fill="none" stroke="#8c8c8c" stroke-dasharray="5 4"/>'
        return
    colour = escape(str((trace.get("marker") or {}).get("color", "currentColor")))
    for place, x, y in points:
        at = _x(x, across), _y(y, up)
        if mode == "text":
            end = "end" if "left" in str(trace.get("textposition")) else "start"
            lines = str(trace["text"][place]).replace(" <br>", ", ").replace("<br> ", ", ")
            text = escape(lines)
            spot = f'x="{at[0]}" y="{at[1] + 4}" text-anchor="{end}" xml:space="preserve"'
            yield f"<text {spot}>{text}</text>"
            continue
        left, right = _bars(trace, "x", place)
        below, above = _bars(trace, "y", place)
        yield (
            f'<path stroke="{colour}" stroke-width="1.5" d="M{_x(x - left, across)} {at[1]}H'
            f'{_x(x + right, across)}M{at[0]} {_y(y - below, up)}V{_y(y + above, up)}"/>'
            f'<circle cx="{at[0]}" cy="{at[1]}" r="5" fill="{colour}"/>'
        )
