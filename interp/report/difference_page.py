"""One page of two results: what changed from A to B, and both answers side by side."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import sequence
from interp.core.tables import CHANGES, Table
from interp.declared.figures import BLUE, GREY, ORANGE
from interp.declared.writing import number, plain, plural
from interp.report.embedding import figure_data
from interp.report.figures.answer import answer_figure
from interp.report.figures.two_models import MODELS_OF_RESULTS
from interp.report.grammar.pieces import (
    Choice,
    Figure,
    Trace,
    axis,
    error_bars,
    layout,
    level_line,
    points,
    rows_by_name,
)
from interp.report.loaded import LoadedResult, read_result
from interp.report.page import rendered, written
from interp.report.page_model import PageModel, page_model
from interp.report.sections import draw_figure
from interp.report.verdict_tables import WordTable, overviews

CHANGED, WITHIN, NO_INTERVAL, ONLY_A, ONLY_B = CHANGES
DIFF = ("interp-report", "diff")
TOLD = 12
"""So many of a table's surest changes are drawn."""

METHOD = (
    "Rows are matched by what was measured on what. Where classes are kept, the difference is "
    "paired by class (Student's t); else its interval is made of both intervals, which is too wide "
    "for two results on the same pictures. Results of several blocks each, none in common, are "
    "compared over their blocks. p is Holm's over the rows of a table, times the tables."
)
NULL = "No difference but that of the drawn classes. Another training seed changes the model."


def build_difference_page(
    a: Path,
    b: Path,
    table: Table,
    *,
    facts: Sequence[tuple[str, str, str]] = (),
    rest: Mapping[str, str] | None = None,
    models: Mapping[str, Table] | None = None,
    out: Path,
) -> Path:
    """Write one offline page of two results and of the differences between them.

    Args:
        a: The folder of result A.
        b: The folder of result B.
        table: The differences, a row for each number, as `interp-report diff` finds them.
        facts: Facts that differ: name, A's value, B's value.
        rest: What was not compared, and why, by table.
        models: What comparing the models themselves gave, by table; None where they were not.
        out: The page's file.

    Returns:
        The page.
    """
    results = {"A": read_result(a), "B": read_result(b)}
    pages = {side: page_model(result) for side, result in results.items()}
    frame = table.frame
    surest, against = surest_figure(frame), against_figure(frame)
    answers = {side: _answer(side, page) for side, page in pages.items()}
    tables = dict(models or {})
    compared = page_model(LoadedResult(out, {"mode": "study"}, tables))
    of_models = [figure for spec in MODELS_OF_RESULTS if (figure := draw_figure(compared, spec))]
    drawn = [one for one in (surest, against, *answers.values(), *of_models) if one]
    words: dict[str, object] = dict(
        title="Two results compared",
        question="What changed from A to B?",
        setup=" · ".join(f"{side}: {_named(one)}" for side, one in results.items()),
        contents=_contents(bool(against), bool(of_models)),
        of_models=of_models,
        headline=headline(frame),
        first=surest,
        against=against,
        sides=[
            (side, _named(one), answers[side], list(overviews(pages[side])))
            for side, one in results.items()
        ],
        counts=_counts(frame),
        facts=_facts(facts),
        rest=[(name, why) for name, why in (rest or {}).items() if why != "the same"],
        same=sequence([name for name, why in (rest or {}).items() if why == "the same"]),
        figures=figure_data(drawn, surest),
        commands=[(_command(a, b, out, models=bool(tables)), "makes this page")],
    )
    # a file: it holds no tables
    made = LoadedResult(out, {"mode": "study"}, {"diff": table, **tables})
    return written(out, rendered("difference.html", words, made))


def _command(a: Path, b: Path, out: Path, *, models: bool) -> str:
    also = ["--models"] if models else []
    return shlex.join([*DIFF, str(a), str(b), *also, "--page", str(out)])


def headline(frame: pd.DataFrame) -> list[str]:
    """What a reader must know first: how many numbers changed, and how many cannot say.

    >>> rows = pd.DataFrame({"table": "cka", "change": [CHANGED, WITHIN, WITHIN, ONLY_A]})
    >>> headline(rows)[0]
    'Of 3 numbers that both results have with an interval, 1 changed beyond noise (1 of cka).'
    """
    told = frame[frame["change"].isin([CHANGED, WITHIN])]
    changed = told[told["change"] == CHANGED]
    by_table = [f"{n} of {name}" for name, n in changed["table"].value_counts().items()]
    where = f" ({sequence(by_table)})" if by_table else ""
    said = [
        f"Of {len(told):,} numbers that both results have with an interval, {len(changed):,} "
        f"changed beyond noise{where}."
        if len(told)
        else "The two results have no number with an interval in common."
    ]
    others = [
        f"{(frame['change'] == kind).sum():,} {words}"
        for kind, words in (
            (NO_INTERVAL, "have no interval to say it by"),
            (ONLY_A, "stand in A alone"),
            (ONLY_B, "stand in B alone"),
        )
        if (frame["change"] == kind).any()
    ]
    return [*said, *([f"Of the others, {sequence(others)}."] if others else [])]


def surest_figure(frame: pd.DataFrame) -> Figure | None:
    """The surest changes of each table with their intervals; None where no number has one."""
    told = _named_rows(frame[frame["p"].notna()])
    tables = _by_changes(told)
    if not tables:
        return None
    surest = told.sort_values(["p_adjusted", "p"], kind="stable").groupby("table").head(TOLD)
    most = int(surest["table"].value_counts().max())
    traces = [_forest(surest[surest["table"] == name], place) for place, name in enumerate(tables)]
    shape = layout(
        90 + 34 * most,
        showlegend=False,
        xaxis=axis("difference, B − A", zeroline=True),
        yaxis=rows_by_name([""] * most),
    )
    caption = (
        f"n and unit of each difference when it is pointed at; bars are 95 % intervals. The "
        f"{TOLD} surest changes of a table; orange changed beyond noise (Holm over all rows and "
        "tables), grey within it. Differences of value or index, in their own units."
    )
    alt, choices = f"Forest of up to {TOLD} differences a table", [Choice("Table", tables)]
    return Figure(
        "surest", "The surest changes", caption, alt, traces, shape, choices, METHOD, NULL, ["diff"]
    )


def against_figure(frame: pd.DataFrame) -> Figure | None:
    """Every number of A against the same of B, table by table."""
    told = _named_rows(frame[frame["value_a"].notna() & frame["value_b"].notna()])
    tables = _by_changes(told)
    if not tables:
        return None
    traces: list[Trace] = []
    for place, name in enumerate(tables):
        rows = told[told["table"] == name]
        for kind, colour in ((NO_INTERVAL, BLUE), (WITHIN, GREY), (CHANGED, ORANGE)):
            own = rows[rows["change"] == kind]
            if len(own):
                traces.append(_cloud(own, kind, colour, place))
        both = rows[["value_a", "value_b"]].astype(float)
        ends = [float(both.min(axis=None)), float(both.max(axis=None))]
        unchanged = level_line("unchanged", ends, ends, [place], dash="dot")
        traces.append(unchanged | {"hoverinfo": "skip", "showlegend": False})
    shape = layout(430, xaxis=axis("in A"), yaxis=axis("in B"))
    caption = (
        "n and interval of each number stand in the results' own tables. A point is a value or "
        "index that both results have; on the dotted line nothing changed."
    )
    alt, choices = "Scatter of numbers in B against the same in A", [Choice("Table", tables)]
    return Figure(
        "against", "A against B", caption, alt, traces, shape, choices, METHOD, NULL, ["diff"]
    )


NUMBERED = "epoch"
"""A key whose value is a number that says nothing without its name; it stands last."""


def _by_key(place: str) -> dict[str, str]:
    """A place's values by name, with the word where a number alone says nothing.

    >>> _by_key("site=a; epoch=9")
    {'site': 'a', 'epoch': 'epoch 9'}
    """
    pairs = (each.partition("=") for each in place.split("; "))
    return {key: f"{key} {value}" if key == NUMBERED else value for key, _, value in pairs}


def _by_changes(told: pd.DataFrame) -> list[str]:
    """Tables, those with most changes first."""
    changed = (told["change"] == CHANGED).groupby(told["table"]).sum()
    return [str(name) for name in changed.sort_values(ascending=False, kind="stable").index]


def _named_rows(told: pd.DataFrame) -> pd.DataFrame:
    """The rows with what each measured as `name`: of its place, what differs within its table.

    >>> rows = pd.DataFrame({"table": "cka", "place": ["site=a; seed=0", "site=b; seed=0"],
    ...                      "quantity": ["value", "index"]})
    >>> _named_rows(rows)["name"].tolist()
    ['a', 'b (index)']
    """
    keys = pd.DataFrame([_by_key(str(place)) for place in told["place"]], index=told.index)
    keys = keys.fillna("")
    names = told["table"].astype(object)
    for _, rows in told.groupby("table"):
        own = keys.loc[rows.index]
        varied = sorted((key for key in own if own[key].nunique() > 1), key=NUMBERED.__eq__)
        if varied:
            names[rows.index] = [", ".join(filter(None, each)) for each in own[varied].to_numpy()]
    names = names.str.replace(".hook_resid_post", "")
    return told.assign(name=names + told["quantity"].map({"index": " (index)"}).fillna(""))


def _hover(row: Any) -> str:
    lines = [plain(row.name, 120), f"{number(row.value_a, 3)} → {number(row.value_b, 3)}"]
    if pd.notna(row.p):
        lines.append(
            f"{number(row.value, 3)} [{number(row.low, 3)}, {number(row.high, 3)}], "
            f"n = {row.n_units:.0f} {plain(plural(str(row.unit), row.n_units), 60)}, "
            f"adjusted p {number(row.p_adjusted, 3)}, {row.method}"
        )
    return "<br>".join([*lines, row.change])


def _forest(rows: pd.DataFrame, place: int) -> Trace:
    """A table's surest changes from the top, each with what it is above its bar."""
    colours = [ORANGE if kind == CHANGED else GREY for kind in rows["change"]]
    names = [plain(name, 70) for name in rows["name"]]
    trace = points("", (colours, "circle"), rows["value"], range(len(rows)), names, [place])
    return trace | {
        "mode": "markers+text",
        "textposition": "top center",
        "textfont": {"size": 10},
        "cliponaxis": False,
        "error_x": error_bars(rows, color=GREY),
        "hovertext": [_hover(row) for row in rows.itertuples(index=False)],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
    }


def _cloud(rows: pd.DataFrame, kind: str, colour: str, place: int) -> Trace:
    said = [_hover(row) for row in rows.itertuples(index=False)]
    look = colour, "circle"
    trace = points(kind, look, rows["value_a"], rows["value_b"], said, [place], size=7)
    trace["marker"]["opacity"] = 0.7
    return trace | {"hovertemplate": "%{text}<extra></extra>"}


def _answer(side: str, page: PageModel) -> Figure | None:
    """A result's own answer, under a name that the page has once."""
    figure, _ = answer_figure(page)
    return figure and replace(
        figure, name=f"answer-{side.lower()}", title=f"{side}: {figure.title}", tables=()
    )


def _named(result: LoadedResult) -> str:
    title = str(result.facts.get("title") or "a result")
    return f"{title} ({result.folder.name})"


def _contents(has_numbers: bool, has_models: bool) -> list[tuple[str, str]]:
    return [
        ("answer", "The answer"),
        *([("numbers", "A against B")] if has_numbers else []),
        *([("models", "The models themselves")] if has_models else []),
        ("sides", "Both answers"),
        ("tables", "Table by table"),
        ("facts", "What differs in how they were made"),
        ("words", "The words"),
    ]


def _counts(frame: pd.DataFrame) -> WordTable:
    counted = pd.crosstab(frame["table"], frame["change"]).reindex(columns=CHANGES, fill_value=0)
    rows = [[str(name), *map(str, counted.loc[name])] for name in counted.index]
    return WordTable("Numbers of each table, by what became of them", ["Table", *CHANGES], rows)


def _facts(facts: Sequence[tuple[str, str, str]]) -> WordTable | None:
    rows = [[name, _short(one), _short(two)] for name, one, two in facts]
    return WordTable("Facts that differ", ["", "A", "B"], rows) if rows else None


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
