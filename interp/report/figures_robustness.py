"""Figure of effective robustness: accuracy outside against accuracy inside the natural domain."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from interp.report.figures import GREY, Choice, Figure, Trace, axis, layout, numbers, span
from interp.report.naming import (
    faded,
    number,
    ordered_settings,
    sequence,
    setting_label,
    setting_look,
    setting_name,
)
from interp.report.primary import text_head
from interp.report.reading import Frame, Result

TICKS = (
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99),
    tuple(step / 20 for step in range(1, 20)),
    tuple(step / 50 for step in range(1, 50)),
)
"""Where a logit axis carries a number: the first of these that puts three on it."""


def robustness(result: Result) -> Figure | None:
    """Accuracy in the test domain against accuracy in natural pictures, on logit axes."""
    rows = text_head(result.frame("robustness")).dropna(subset=["accuracy_in", "accuracy_out"])
    if rows.empty:
        return None
    options = list(dict.fromkeys(rows["domain_b"]))
    traces: list[Trace] = []
    for place, domain in enumerate(options):
        here = rows[rows["domain_b"] == domain]
        traces += _fit(here, place)
        for n, setting in enumerate(ordered_settings(here["setting"])):
            traces.append(_models(here[here["setting"] == setting], setting, n, place))
    inside = sequence(list(dict.fromkeys(rows["domain_a"])))
    ends = rows[["accuracy_in", "accuracy_out", "expected_low", "expected_high"]]
    return Figure(
        "robustness",
        f"Accuracy in {sequence(options)} against accuracy in {inside}",
        "Logit axes. Above the line: more robust than accuracy in natural pictures foretells. "
        f"Line: least squares through {span(rows['n_units'].dropna())} reference models (hollow), "
        f"band: its 95 % interval. n = {len(rows)} models, one point each.",
        "; ".join(
            f"{setting_name(setting)}: {number(100 * value, 1)} points above the line"
            for setting, value in rows.groupby("setting")["value"].mean().items()
        ),
        traces,
        layout(
            440,
            xaxis=_logit_axis(f"balanced accuracy, {inside}", [ends["accuracy_in"]]),
            yaxis=_logit_axis(
                "balanced accuracy, test domain", [ends[c] for c in ends.columns[1:]]
            ),
        ),
        [Choice("Test domain", options)],
    )


def _logit(values: Iterable[float]) -> np.ndarray:
    share = np.clip(np.asarray(list(values), dtype=float), 2e-3, 1 - 2e-3)
    return np.log(share / (1 - share))


def _logit_axis(title: str, shown: Sequence[Frame]) -> dict[str, object]:
    """An axis in logits, labelled in percent, over the values shown."""
    known = _logit(pd.concat(list(shown)).dropna())
    room = 0.08 * max(float(np.ptp(known)), 0.5)
    limits = [float(known.min()) - room, float(known.max()) + room]
    inside: list[tuple[float, str]] = []
    for ticks in TICKS:
        placed = zip(ticks, _logit(ticks), strict=True)
        inside = [(float(at), f"{s:.0%}") for s, at in placed if limits[0] <= at <= limits[1]]
        if len(inside) >= 3:
            break
    return axis(
        title,
        range=limits,
        tickvals=[at for at, _ in inside],
        ticktext=[words for _, words in inside],
    )


def _fit(rows: Frame, place: int) -> list[Trace]:
    """The reference models' line, and its interval as a band."""
    line = rows.dropna(subset=["expected"]).sort_values("accuracy_in", kind="stable")
    x = numbers(_logit(line["accuracy_in"]))
    around = [*_logit(line["expected_high"]), *_logit(line["expected_low"])[::-1]]
    return [
        {
            "type": "scatter", "mode": "lines", "name": "95 % interval of the line",
            "x": [*x, *x[::-1]], "y": numbers(around), "fill": "toself", "line": {"width": 0},
            "fillcolor": faded(GREY, 0.2), "hoverinfo": "skip", "showlegend": False,
            "meta": [place],
        },
        {
            "type": "scatter", "mode": "lines", "name": "line of the reference models", "x": x,
            "y": numbers(_logit(line["expected"])), "line": {"color": GREY, "width": 1.5},
            "hoverinfo": "skip", "meta": [place],
        },
    ]  # fmt: skip


def _models(rows: Frame, setting: str, n: int, place: int) -> Trace:
    colour, symbol = setting_look(setting, n)
    said = [
        f"{setting_label(setting)}<br>{100 * inside:.1f} % and {100 * outside:.1f} %, "
        f"{number(100 * above, 1)} points above the line"
        for inside, outside, above in zip(
            rows["accuracy_in"], rows["accuracy_out"], rows["value"], strict=True
        )
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": setting_label(setting),
        "x": numbers(_logit(rows["accuracy_in"])),
        "y": numbers(_logit(rows["accuracy_out"])),
        "marker": {
            "size": 10,
            "color": colour,
            "symbol": [symbol + ("-open" if fitted else "") for fitted in rows["fitted"]],
        },
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "meta": [place],
    }
