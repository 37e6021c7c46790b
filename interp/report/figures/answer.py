"""The one figure that carries the answer: generalization against sharing, a point per setting."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import GEOMETRY
from interp.declared.figures import INDEX, PERMUTED, RAW, FigureSpec, threshold_lines
from interp.declared.measures import declared_figure
from interp.declared.writing import number, percent, plain
from interp.report.grammar.filled_figures import finished
from interp.report.grammar.kinds import across_lines, depth_figure, forest_figure
from interp.report.grammar.pieces import (
    Choice,
    DrawnSubject,
    Figure,
    Trace,
    axis,
    error_bars,
    layout,
    level_line,
    points,
)
from interp.report.grammar.subjects import (
    EPOCH_0,
    compared_pairs,
    held_out_accuracy,
    learned_pairs,
    middle_verdict,
    unlearned_settings,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import ordered_settings, setting_name

ANSWER = FigureSpec(
    "answer",
    "Accuracy in {where} against shared geometry",
    "answer",
    ("accuracy", "similarity"),
    method="Each model's zero-shot accuracy is set against the index of debiased CKA of class "
    "means, averaged over its middle layers; for one checkpoint, that index is drawn by depth.",
    null=f"Across, {PERMUTED[0].lower()}{PERMUTED[1:]} Up, chance and the untrained model.",
    caption="{n}; bars are 95 % intervals. One point per training distribution. Across: index of "
    "debiased CKA between {natural} and {where}, mean over the layers from a third to two thirds "
    "of the depth, and the mean of their intervals, which is never too narrow; below {least} not "
    "shared, above {most} shared (dotted verticals). Up: balanced top-1 among all classes; "
    "dashed chance, dotted untrained.{absent}",
    alt="{said}",
)


def answer_figure(result: LoadedResult) -> Figure | None:
    """Accuracy against sharing; accuracy alone without an index; sharing by depth for one model."""
    if result.one_model and not learned_pairs(result, "") and compared_pairs(result, ""):
        return None
    if result.one_model:
        return _instead(result, depth_figure(result, declared_figure("similarity")))
    found = pd.concat([_points(result, test_domain) for test_domain in result.test_domains])
    placed = found.dropna(subset=["value", "index"])
    if placed.empty:
        return _instead(result, forest_figure(result, declared_figure("accuracy")))
    where = sequence(result.test_domains)
    thresholds = threshold_lines(GEOMETRY)
    lines, notes = across_lines(thresholds, "x")
    traces: list[Trace] = []
    for place, test_domain in enumerate(result.test_domains):
        traces += _traces(placed[placed["test_domain"] == test_domain], place)
        traces += _floors(result, test_domain, place)
    shape = layout(
        260,
        showlegend=False,
        margin={"t": 44},
        xaxis=axis(f"sharing index, {result.natural} × {where} (0 null, 1 ceiling)")
        | _room_for_names([own for _, own in placed.groupby("test_domain")]),
        yaxis=axis("accuracy, held-out classes", tickformat=".0%", rangemode="tozero"),
        shapes=lines,
        annotations=[note | {"y": 1} for note in notes],
    )
    missing = found[found["index"].isna()]["name"].tolist()
    crowded = placed.groupby("test_domain").size().max() > MOST_NAMED
    least, most = (line.at for line in thresholds)
    said = {
        "where": where,
        "least": least,
        "most": most,
        "said": "; ".join(_said(row) for _, row in placed.iterrows()),
        "absent": (f" Not shown, for want of an index: {sequence(missing)}." if missing else "")
        + _unlearned(result)
        + (" Colours are those of the table below; a point says its name." if crowded else ""),
    }
    accuracy = pd.concat([held_out_accuracy(result, name) for name in result.test_domains])
    choices = [Choice("Test domain", result.test_domains)]
    return finished(ANSWER, result, accuracy, traces, shape, choices, **said)


def no_answer(result: LoadedResult) -> str:
    """Why there is no figure of the answer.

    >>> from pathlib import Path
    >>> no_answer(LoadedResult(Path("."), {"title": "A study"}, {}))
    'The figure of the answer is not drawn: accuracy was not measured.'
    """
    table = "similarity" if result.one_model else "accuracy"
    rows = result.frame(table)
    reasons = list(dict.fromkeys(reason for reason in rows["reason"] if reason))
    if all(unlearned_settings(result, name) for name in result.test_domains):
        why = "no model is shown to have learned"
    elif rows.empty:
        what = "how domains share geometry" if result.one_model else "accuracy"
        why = f"{what} was not measured"
    else:
        why = sequence(reasons[:2]) or f"the table {table} holds no number for it"
    return f"The figure of the answer is not drawn: {why}."


def _unlearned(result: LoadedResult) -> str:
    """The settings that are not shown since they did not learn."""
    failed = {name for test in result.test_domains for name in unlearned_settings(result, test)}
    names = [setting_name(name) for name in ordered_settings(failed)]
    return f" Left out, since not shown to have learned: {sequence(names)}." if names else ""


def _instead(result: LoadedResult, figure: Figure | None) -> Figure | None:
    """Another figure in the answer's place: it is made as the answer is."""
    tables = [name for name in ANSWER.tables if name in result.tables]
    return figure and replace(
        figure, name="answer", method=ANSWER.method, null=ANSWER.null, tables=tables
    )


def _points(result: LoadedResult, test_domain: str) -> Frame:
    """Accuracy and middle-layer index of every setting that has an accuracy."""
    accuracy = held_out_accuracy(result, test_domain)
    rows = []
    for one in learned_pairs(result, test_domain):
        if one.setting not in accuracy.index:
            continue
        summed = middle_verdict(result, "R2", one)
        ends = (summed.index, summed.low, summed.high) if summed else (math.nan,) * 3
        rows.append(
            {"name": one.name, "colour": one.colour, "symbol": one.symbol}
            | {"test_domain": test_domain}
            | accuracy.loc[one.setting, ["value", "low", "high"]].to_dict()
            | dict(zip(("index", "index_low", "index_high"), ends, strict=True))
        )
    columns = ["name", "colour", "symbol", "test_domain", "value", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "index", "index_low", "index_high"])


def _traces(rows: Frame, place: int) -> list[Trace]:
    """A trace per setting, and its name at the end of its interval, where no bar of its own is."""
    found: list[Trace] = []
    before = _names_before(rows)
    for label, row in rows.iterrows():
        own = rows.loc[[label]]
        one = DrawnSubject(plain(row["name"]), row["colour"], row["symbol"], own)
        bars = {"error_x": error_bars(own, INDEX), "error_y": error_bars(own, RAW)}
        said = {
            "hovertext": [plain(_said(row), 200)],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        found.append(
            points(one, own["index"], own["value"], [one.name], [place], size=12, **bars)
            | {"mode": "markers", **said}
        )
        if len(rows) <= MOST_NAMED:
            found.append(_name_beside(row, place, before=before[label]))
    return found


def _name_beside(row: pd.Series, place: int, *, before: bool) -> Trace:
    """A name left of an interval, or right of it; what varies stands in a line of its own."""
    lines = [plain(part) for part in row["name"].split(", ")]
    return {
        "type": "scatter",
        "mode": "text",
        "meta": [place],
        "x": [_ends(row)[0 if before else 1]],
        "y": [float(row["value"])],
        "text": ["<br>".join(f"{line} " if before else f" {line}" for line in lines)],
        "textposition": "middle left" if before else "middle right",
        "hoverinfo": "skip",
        "showlegend": False,
        "cliponaxis": False,
    }


MOST_NAMED = 6
"""Points of a test domain that carry their names; those of more would cover one another."""

LETTER = 0.029
"""What a letter takes of the axis across, on a phone."""


def _room_for_names(parts: Sequence[Frame]) -> dict[str, list[float]]:
    """The axis across as wide as the names that stand right of their intervals need it.

    >>> row = {"name": "CG high", "value": 0.3, "low": 0.2, "high": 0.4, "index": 0.9}
    >>> rows = pd.DataFrame([row | {"index_low": 0.3, "index_high": 1.0}])
    >>> round(_room_for_names([rows])["range"][1], 2)
    1.23
    """
    ends = [
        _ends(rows.loc[label])[1] + _width(rows.loc[label])
        for rows in parts
        if len(rows) <= MOST_NAMED
        for label, before in _names_before(rows).items()
        if not before
    ]
    lows = pd.concat(parts)[["index", "index_low"]]
    lowest = min(-0.1, float(lows.min(axis=None)) - 0.03)
    return {"range": [lowest, max([1.1, *ends])]} if ends else {}


LINE = 0.085
"""What a line of a name takes of the axis up."""


def _names_before(rows: Frame) -> dict[Any, bool]:
    """Whether each name stands left of its interval, else right of it.

    From the top each takes the left, where there is room before its interval and it covers neither
    a name so far nor another interval; else the side where it covers less of them.

    >>> row = {"value": 0.5, "low": 0.4, "high": 0.6}
    >>> over = row | {"name": "CG high", "index": 0.95, "index_low": 0.9, "index_high": 1.0}
    >>> under = row | {"name": "natural", "index": 0.8, "index_low": 0.7, "index_high": 0.85}
    >>> list(_names_before(pd.DataFrame([over, under | {"value": 0.49}])).values())
    [False, True]
    """
    height = (rows["high"].max() - rows["low"].min()) or 1.0
    found: dict[Any, bool] = {}
    taken: list[Box] = []  # by names so far
    for label, row in rows.sort_values("value", ascending=False).iterrows():
        wide, (low, high) = _width(row), _ends(row)
        half = LINE * height * len(row["name"].split(", ")) / 2
        bars = [
            (*_ends(one), one["value"] - 0.01 * height, one["value"] + 0.01 * height)
            for other, one in rows.iterrows()
            if other != label
        ]
        up = row["value"] - half, row["value"] + half
        boxes = {True: (low - wide, low, *up), False: (high, high + wide, *up)}
        covered = {
            side: sum(_shared(box, each) for each in [*taken, *bars]) for side, box in boxes.items()
        }
        found[label] = before = bool(low >= 0.35 and covered[True] <= covered[False])
        taken.append(boxes[before])
    return found


def _ends(row: pd.Series) -> tuple[float, float]:
    """From where to where a point's interval goes across; the point where it has none."""
    low, high = (
        float(row[end] if math.isfinite(row[end]) else row["index"])
        for end in ("index_low", "index_high")
    )
    return low, high


def _width(row: pd.Series) -> float:
    """What a name takes of the axis across."""
    return LETTER * (max(map(len, row["name"].split(", "))) + 1)


Box: TypeAlias = tuple[float, float, float, float]
"""From and to across, from and to up."""


def _shared(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    across, up = min(a[1], b[1]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[2], b[2])
    return max(across, 0.0) * max(up, 0.0)


def _floors(result: LoadedResult, test_domain: str, place: int) -> list[Trace]:
    """Chance and the untrained models, as lines across."""
    accuracy = held_out_accuracy(result, test_domain)
    untrained = held_out_accuracy(result, test_domain, control=EPOCH_0)
    levels = (("chance", accuracy["null"], "dash"), ("untrained", untrained["value"], "dot"))
    return [
        level_line(name, [-0.1, 1.1], [float(values.mean())] * 2, [place], share=True, dash=dash)
        for name, values, dash in levels
        if values.notna().any()
    ]


def _said(row: pd.Series) -> str:
    return (
        f"{row['name']}: accuracy {percent(row['value'])} ({percent(row['low'])} to "
        f"{percent(row['high'])}), index {number(row['index'])} ({number(row['index_low'])} to "
        f"{number(row['index_high'])})"
    )
