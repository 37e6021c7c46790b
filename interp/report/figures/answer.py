"""The one figure that carries the answer: generalization against sharing, a point per setting."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeAlias

import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import GEOMETRY
from interp.declared.figures import INDEX, PERMUTED, RAW, FigureSpec, Row, threshold_lines
from interp.declared.measures import declared_figure
from interp.declared.writing import number, percent, plain
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import figure_rows
from interp.report.grammar.pieces import Choice, Figure, Trace
from interp.report.loaded import Frame
from interp.report.naming import ordered_settings, setting_name
from interp.report.page_model import PageModel
from interp.report.sections import draw_figure

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
    alt="{points}",
    choices=(),
)


def answer_figure(page: PageModel) -> tuple[Figure | None, str]:
    """The figure of the answer, or why there is none.

    Accuracy against sharing; accuracy alone without an index; sharing by depth for one model.
    """
    figure = _answer(page)
    return figure, "" if figure else _no_answer(page)


def _answer(page: PageModel) -> Figure | None:
    if page.one_model and len(page.subjects) and not page.subjects["learned"].any():
        return None
    if page.one_model:
        return _instead(page, draw_figure(page, declared_figure("similarity")))
    every = _points(page.subjects, page.reached, page.verdicts)
    placed = every.dropna(subset=["value", "index"])
    if placed.empty:
        return _instead(page, draw_figure(page, declared_figure("accuracy")))
    where = sequence(page.tests)
    thresholds = threshold_lines(GEOMETRY)
    lines, notes = pieces.across_lines(thresholds, "x")
    traces: list[Trace] = []
    for place, test_domain in enumerate(page.tests):
        traces += _traces(placed[placed["test_domain"] == test_domain], place)
        traces += _floors(page.reached[page.reached["test_domain"] == test_domain], place)
    shape = pieces.layout(
        260,
        showlegend=False,
        margin={"t": 44},
        xaxis=pieces.axis(f"sharing index, {page.natural} × {where} (0 null, 1 ceiling)")
        | _room_for_names([own for _, own in placed.groupby("test_domain")]),
        yaxis=pieces.axis("accuracy, held-out classes", tickformat=".0%", rangemode="tozero"),
        shapes=lines,
        annotations=[note | {"y": 1} for note in notes],
    )
    missing = every[every["index"].isna()]["name"].tolist()
    failed = page.subjects[~page.subjects["learned"]]["setting"]
    crowded = placed.groupby("test_domain").size().max() > MOST_NAMED
    notes = (
        f" Not shown, for want of an index: {sequence(missing)}." if missing else "",
        f" Left out, since not shown to have learned: {_names(list(failed))}."
        if len(failed)
        else "",
        " Colours are those of the table below; a point says its name." if crowded else "",
    )
    return figure_rows(page, ANSWER).figure(
        traces,
        shape,
        of_rows=page.reached,
        choices=[Choice("Test domain", page.tests)],
        where=where,
        least=thresholds[0].at,
        most=thresholds[1].at,
        points="; ".join(map(_numbers, placed.to_dict("records"))),
        absent="".join(notes),
    )


def _no_answer(page: PageModel) -> str:
    """Why there is no figure of the answer."""
    table = "similarity" if page.one_model else "accuracy"
    rows = page.frame(table)
    reasons = list(dict.fromkeys(reason for reason in rows["reason"] if reason))
    if len(page.subjects) and not page.subjects["learned"].any():
        why = "no model is shown to have learned"
    elif rows.empty:
        what = "how domains share geometry" if page.one_model else "accuracy"
        why = f"{what} was not measured"
    else:
        why = sequence(reasons[:2]) or f"the table {table} holds no number for it"
    return f"The figure of the answer is not drawn: {why}."


def _names(settings: Sequence[str]) -> str:
    return sequence([setting_name(name) for name in ordered_settings(settings)])


def _instead(page: PageModel, figure: Figure | None) -> Figure | None:
    """Another figure in the answer's place: it is made as the answer is."""
    tables = [name for name in ANSWER.tables if name in page.tables]
    return figure and replace(
        figure, name="answer", method=ANSWER.method, null=ANSWER.null, tables=tables
    )


def _points(subjects: Frame, reached: Frame, verdicts: Frame) -> Frame:
    """Accuracy and middle-layer index of every setting that has an accuracy."""
    model = ["setting", "test_domain"]
    accuracy = reached[reached["control"] == ""][[*model, "value", "low", "high"]]
    shared = verdicts[verdicts["rung"] == "R2"][[*model, "index", "low", "high"]]
    shared = shared.rename(columns={"low": "index_low", "high": "index_high"})
    learned = subjects[subjects["learned"]]
    return learned.merge(accuracy, on=model).merge(shared, on=model, how="left")


def _traces(rows: Frame, place: int) -> list[Trace]:
    """A trace per setting, and its name at the end of its interval, where no bar of its own is."""
    traces: list[Trace] = []
    before = _names_before(rows)
    for label, row in rows.iterrows():
        own, name = rows.loc[[label]], plain(row["name"])
        bars = {"error_x": pieces.error_bars(own, INDEX), "error_y": pieces.error_bars(own, RAW)}
        look = row["colour"], row["symbol"]
        at = own["index"], own["value"], [name]
        trace = pieces.points(name, look, *at, [place], size=12, **bars)
        shown = {"hovertext": [plain(_numbers(row), 200)]}
        traces.append(trace | shown | {"hovertemplate": "%{hovertext}<extra></extra>"})
        if len(rows) <= MOST_NAMED:
            traces.append(_name_beside(row, place, before=before[label]))
    return traces


def _name_beside(row: pd.Series, place: int, *, before: bool) -> Trace:
    """A name left of an interval, or right of it; what varies stands in a line of its own."""
    lines = [plain(part) for part in row["name"].split(", ")]
    words = ["<br>".join(f"{line} " if before else f" {line}" for line in lines)]
    at = [_ends(row)[0 if before else 1]], [float(row["value"])]
    side = "middle left" if before else "middle right"
    beside = {"textposition": side, "textfont": {}, "cliponaxis": False}
    return pieces.words_at(*at, words, [place]) | beside


MOST_NAMED = 6
"""Points of a test domain that carry their names; those of more would cover one another."""

LETTER, LINE = 0.029, 0.085
"""What a letter takes of the axis across, on a phone, and a line of a name of the axis up."""


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


def _names_before(rows: Frame) -> dict[Hashable, bool]:
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
    left: dict[Hashable, bool] = {}
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
        left[label] = before = bool(low >= 0.35 and covered[True] <= covered[False])
        taken.append(boxes[before])
    return left


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


def _floors(reached: Frame, place: int) -> list[Trace]:
    """Chance and the untrained models, as lines across."""
    trained = reached["control"] == ""
    levels = (
        ("chance", reached[trained]["null"], "dash"),
        ("untrained", reached[~trained]["value"], "dot"),
    )
    return [
        pieces.level_line(
            name, [-0.1, 1.1], [float(values.mean())] * 2, [place], share=True, dash=dash
        )
        for name, values, dash in levels
        if values.notna().any()
    ]


def _numbers(row: Row | pd.Series) -> str:
    return (
        f"{row['name']}: accuracy {percent(row['value'])} ({percent(row['low'])} to "
        f"{percent(row['high'])}), index {number(row['index'])} ({number(row['index_low'])} to "
        f"{number(row['index_high'])})"
    )
