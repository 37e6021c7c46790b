"""Figure of the intervention: what the term's weight does to accuracy and to sharing."""

from collections.abc import Sequence

from interp.report.figures import (
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    errors,
    layout,
    numbers,
    reference,
    resampled,
)
from interp.report.naming import number, plain, sequence
from interp.report.reading import Frame, Result

OWN = ("aligned", "separated", "none")
"""Arms whose classes meet themselves; without the term, all do and none is pulled."""

ARMS = (
    ("own classes as partners", OWN, "#0072B2", "circle"),
    ("wrong classes as partners", ("shuffled", "none"), "#E69F00", "square"),
)
"""The two lines: name, arms, colour, marker. Both begin at the run without the term."""

LEVELS, GAPS = "each arm", "own less wrong partners"


def dose_response(result: Result) -> Figure | None:
    """Accuracy and sharing against the term's weight, one panel each, one above the other."""
    rows = result.frame("intervention").dropna(subset=["value", "weight"])
    if rows.empty:
        return None
    measures = list(dict.fromkeys(rows["measure"]))
    room = 0.006 * (rows["weight"].max() - min(rows["weight"].min(), 0.0))  # else bars hide bars
    traces: list[Trace] = []
    for place, measure in enumerate(measures):
        here = rows[rows["measure"] == measure]
        for aside, (name, arms, colour, symbol) in zip((-1, 1), ARMS, strict=True):
            part = here[here["arm"].isin(arms)].sort_values("weight", kind="stable")
            traces.append(_line(part, name, colour, symbol, place, 1, aside * room))
        gaps = here[here["arm"].str.contains(" − ", regex=False)].sort_values("weight")
        traces.append(_line(gaps, GAPS, "#009E73", "diamond", place, 0))
    panels, notes = _panels(measures)
    shown = [trace for trace in traces if trace["x"]]
    of_classes = rows[rows["unit"] != "block"]
    line, label = reference("x", 0.0, "no term")
    return Figure(
        "intervention",
        "What aligning classes does: dose and response",
        "Weight of the term, below 0 where it separates, against balanced accuracy (0 to 1) and "
        f"the index of shared directions. Bars: 95 % intervals over {resampled(rows)}; those of "
        f"sharing over blocks. Hollow: no interval. {counts(of_classes)}. {_verdicts(result)}",
        _words(rows),
        shown,
        layout(
            150 + 190 * len(measures),
            xaxis=axis("weight of the term", anchor=_name("y", len(measures) - 1), zeroline=False),
            shapes=[line],
            annotations=[label, *notes],
            **panels,
        ),
        [Choice("Show", [GAPS, LEVELS])],
    )


def _name(letter: str, place: int) -> str:
    """What plotly calls an axis: y, y2, y3."""
    return letter if place == 0 else f"{letter}{place + 1}"


def _line(
    rows: Frame, name: str, colour: str, symbol: str, place: int, choice: int, aside: float = 0.0
) -> Trace:
    """An arm's numbers over weights in one panel, moved aside by so much weight."""
    said = [
        f"{plain(arm)}, weight {number(weight)}: {number(value, 3)}"
        for arm, weight, value in zip(rows["arm"], rows["weight"], rows["value"], strict=True)
    ]
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "legendgroup": name,
        "showlegend": place == 0, "x": numbers(rows["weight"] + aside), "y": numbers(rows["value"]),
        "yaxis": _name("y", place), "line": {"color": colour, "width": 2},
        "error_y": {**errors(rows, "value", "low", "high"), "color": colour},
        "marker": {
            "color": colour, "size": 9,
            "symbol": [symbol + ("-open" if bare else "") for bare in rows["low"].isna()],
        },
        "text": said, "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "meta": [choice],
    }  # fmt: skip


def _panels(measures: Sequence[str]) -> tuple[dict[str, object], list[Trace]]:
    """An axis for each measure, from top to bottom, and its title above it: beside it, long words
    would leave a phone no room."""
    height, gap = 1 / len(measures), 0.3 / len(measures)
    panels: dict[str, object] = {}
    notes: list[Trace] = []
    for place, measure in enumerate(measures):
        top = 1 - place * height - gap / 2
        name = "yaxis" if place == 0 else f"yaxis{place + 1}"
        panels[name] = axis("", domain=[max(0.0, top - height + gap), top], anchor="x")
        notes.append(
            {
                "text": plain(measure, 70), "x": 0, "xref": "paper", "y": top, "yref": "paper",
                "xanchor": "left", "yanchor": "bottom", "showarrow": False, "font": {"size": 12},
            }
        )  # fmt: skip
    return panels, notes


def _verdicts(result: Result) -> str:
    """What may be concluded, in the words of the table `levels`."""
    rows = result.frame("levels")
    rows = rows[rows["level"] == "L4"]
    said = []
    for _, row in rows.iterrows():
        where = row["measure"].rpartition(", ")[2].capitalize()
        why = f" ({row['reason']})" if row["reason"] else f": {row['licence']}"
        needed = f"; needed: {row['needed']}" if row["needed"] else ""
        said.append(f"{where}: {row['verdict']}{why}{needed}.")
    return f"Verdicts. {' '.join(said)}" if said else ""


def _words(rows: Frame) -> str:
    """The differences at each weight, for whoever cannot see the figure."""
    gaps = rows[rows["arm"].str.contains(" − ", regex=False)]
    said = [
        f"{row['measure']} at weight {number(row['weight'])}: {number(row['value'], 3)}"
        for _, row in gaps.iterrows()
    ]
    return f"Own less wrong partners: {sequence(said)}" if said else "No control was trained"
