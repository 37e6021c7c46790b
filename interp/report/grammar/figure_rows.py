"""The rows of a figure: what its specification asks of the tables, option by option."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.sites import LAST
from interp.declared.figures import NATURAL, OTHER, ChoiceSpec, FigureSpec, Look, Scale, Where
from interp.declared.writing import percents, plain
from interp.report import naming
from interp.report.grammar.mean_of_models import mean_sentence
from interp.report.grammar.pieces import Choice, Figure, Trace, counts, span
from interp.report.loaded import Frame
from interp.report.page_model import PageModel
from interp.report.rows import (
    FILTERS,
    label_rows,
    matches,
    middle_site,
    of_model,
    of_subject,
    sites_by_depth,
)

FOR_ALL = ("test_domain", "class_set")
"""Columns in which an empty cell belongs to every option."""

LINE = ["subject", "colour", "symbol", "key"]
"""The columns that say of a row in which line, or as which mark, it is drawn."""


@dataclass(frozen=True)
class View:
    """What a figure shows under one option of each choice.

    Attributes:
        meta: The number of each option.
        rows: Its rows; where a figure draws subjects, each with its `subject`, `colour`, `symbol`.
        scale: The columns drawn.
        test_domain: Where classes are held out.
        lines: The subjects with their looks, those without rows among them.
    """

    meta: list[int | None]
    rows: Frame
    scale: Scale
    test_domain: str
    lines: Frame = field(default_factory=lambda: pd.DataFrame(columns=LINE))


@dataclass(frozen=True)
class FigureRows:
    """All that a figure is drawn from.

    Attributes:
        spec: What it is.
        rows: Its rows, whatever is chosen.
        views: Its rows for every combination of options.
        choices: What can be chosen.
        tables: The tables behind it, whole.
        page: The page that it stands on.
    """

    spec: FigureSpec
    rows: Frame
    views: Sequence[View]
    choices: Sequence[Choice]
    tables: Mapping[str, Frame]
    page: PageModel

    def figure(
        self,
        traces: Sequence[Trace],
        layout: Trace,
        *,
        of_rows: Frame | None = None,
        choices: Sequence[Choice] | None = None,
        averaged: Sequence[Frame] = (),
        **fields: object,
    ) -> Figure:
        """The figure: its patterns filled in from fields and rows, its method, null and tables.

        Its caption counts the rows (`of_rows`, where others than those read are drawn), and says so
        where some that are drawn (`averaged`) are means of several models.
        """
        spec, every = self.spec, self.rows if of_rows is None else of_rows
        own = every[every["control"] == ""]
        known = {**FACTS, **spec.facts}

        def filled(pattern: str) -> str:
            asked = [name for _, name, _, _ in Formatter().parse(pattern) if name]
            words = {n: fields[n] if n in fields else known[n](self, own) for n in asked}
            return re.sub(" +", " ", pattern.format(**words)).strip()

        caption = f"{filled(spec.caption)} {mean_sentence(averaged)}".strip()
        alt = filled(spec.alt).replace("<br>", ", ")  # of labels that plotly breaks
        given = self.choices if choices is None else choices
        present = list(self.tables)
        title = filled(spec.title)
        return Figure(
            spec.name, title, caption, alt, traces, layout, given, spec.method, spec.null, present
        )


def figure_rows(
    page: PageModel, spec: FigureSpec, prepared: Callable[[Frame], Frame] | None = None
) -> FigureRows:
    """Choose the rows of a specified figure, and the options above it.

    `prepared` is what a figure makes of the rows that it reads before options are taken from them.
    """
    first, *_ = spec.tables
    asked = [look.table for choice in spec.choices for look in choice.looks if look.table]
    read = {name: read_rows(page, spec, name) for name in (first, *asked)}
    read[first] = prepared(read[first]) if prepared else read[first]
    rows = read[first]
    options = [_options(page, spec, choice, read) for choice in spec.choices]
    views = [
        _view(page, spec, [each[place] for each, place in zip(options, at, strict=True)], at, read)
        for at in product(*(range(len(each)) for each in options))
    ]
    choices = [
        Choice(one.label, [look.label for look in each], _start(one, each, rows), one.slider)
        for one, each in zip(spec.choices, options, strict=True)
    ]
    tables = {name: page.tables[name] for name in spec.tables if name in page.tables}
    return FigureRows(spec, rows, views, choices, tables, page)


def read_rows(page: PageModel, spec: FigureSpec, table: str) -> Frame:
    """The rows of a table that a specification reads."""
    frame = page.frame(table)
    rows = frame[matches(frame, spec.where)]
    for name in spec.keep:
        rows = FILTERS[name](rows)
    rows = rows.dropna(subset=list(spec.needs))
    if spec.kind == "forest":
        rows = rows.assign(natural=page.natural)
        rows["row"] = label_rows(rows, spec.labels) if len(rows) else ""
    return rows


def _relative(where: Where) -> Where:
    """What is asked of the subject's own domains."""
    return {column: value for column, value in where.items() if value in (NATURAL, OTHER)}


def _view(
    page: PageModel,
    spec: FigureSpec,
    chosen: Sequence[Look],
    places: Sequence[int],
    read: Mapping[str, Frame],
) -> View:
    """The rows under one option of each choice, by subject."""
    where = {column: value for look in chosen for column, value in look.where.items()}
    test_domain = str(where.get("test_domain", ""))
    subjects = page.subjects[page.subjects["test_domain"] == test_domain]
    rows = read[next((look.table for look in chosen if look.table), spec.tables[0])]
    scale = next((look.scale for look in chosen if look.scale), spec.scale)
    one = None
    if (model := where.pop("model", None)) is not None:
        one = next(subjects[subjects["name"] == model].itertuples(), None)
        rows = rows[:0] if one is None else rows[of_model(rows, one)]
    asked = {
        column: [value, ""] if column in FOR_ALL and isinstance(value, str) else value
        for column, value in where.items()
    }
    relative = {} if one is not None else _relative(asked)
    fixed = {column: value for column, value in asked.items() if column not in relative}
    rows = rows[matches(rows, fixed, one)]
    if not spec.subjects:
        return View([*places], rows, scale, test_domain)
    if spec.subjects == "pairs":
        named = {"label": "subject", "name": "key"}
        lines = subjects.rename(columns=named)[LINE].reset_index(drop=True)
        ends = next((look.ends for look in chosen if look.ends is not None), spec.ends)
        own = [
            of_subject(rows, each, ends) & matches(rows, relative, each)
            for each in subjects.itertuples()
        ]
    else:
        lines = _lines(page, spec, read[spec.tables[0]])
        column = "setting" if spec.subjects == "settings" else spec.subjects
        own = [(rows[column] == name).to_numpy() for name in lines["key"]]
    which = [np.flatnonzero(mask) for mask in own]
    at = np.repeat(np.arange(len(own)), [len(each) for each in which])
    stacked = rows.iloc[np.concatenate([*which, np.array([], dtype=int)])].reset_index(drop=True)
    stacked = stacked.assign(**{name: lines[name].to_numpy()[at] for name in LINE})
    return View([*places], stacked, scale, test_domain, lines)


def _lines(page: PageModel, spec: FigureSpec, every: Frame) -> Frame:
    """What is drawn side by side: settings, or a column's values."""
    if spec.subjects == "settings":
        looks = naming.looks_of(page.settings, every["setting"])
        found = [(naming.setting_label(name), *look, name) for name, look in looks.items()]
        return pd.DataFrame(found, columns=LINE)
    names = _values(page, spec, spec.subjects, spec.subject_names, every)
    looks = zip(naming.colours(names).items(), cycle(naming.SYMBOLS), strict=False)
    found = [
        (spec.subject_names.get(name, plain(name)), tint, symbol, name)
        for (name, tint), symbol in looks
    ]
    return pd.DataFrame(found, columns=LINE)


def _options(
    page: PageModel, spec: FigureSpec, choice: ChoiceSpec, read: Mapping[str, Frame]
) -> Sequence[Look]:
    """A choice's options, in order: of those given, the ones that show a number."""
    rows = read[spec.tables[0]]
    if choice.looks:
        shown = [look for look in choice.looks if _shows(page, spec, look, read)]
        return shown or choice.looks[:1]
    if not isinstance(choice.columns, str):
        each = rows[list(choice.columns)].drop_duplicates().to_dict("records")
        named = choice.named or (lambda row: ", ".join(map(str, row.values())))
        return [Look(named(row), row) for row in each]  # pyright: ignore[reportArgumentType]
    column = choice.columns
    names = _values(page, spec, column, choice.names, rows)
    return [Look(_option(column, name, choice.names, rows), {column: name}) for name in names]


def _shows(page: PageModel, spec: FigureSpec, look: Look, read: Mapping[str, Frame]) -> bool:
    """Whether an option shows any number of some compared pair."""
    if spec.subjects != "pairs":
        return True
    column = (look.scale or spec.scale).value
    rows = read[look.table or spec.tables[0]].dropna(subset=[column])
    ends = look.ends if look.ends is not None else spec.ends
    return any(
        (of_subject(rows, one, ends) & matches(rows, look.where, one)).any()
        for one in page.subjects.itertuples()
    )


def _values(
    page: PageModel, spec: FigureSpec, column: str, names: Mapping[str, str], rows: Frame
) -> list[Any]:
    """The values of a column that can be chosen, in the order of the page: text, or numbers."""
    if column == "model":
        tests = _values(page, spec, "test_domain", {}, rows)
        every = page.subjects[page.subjects["test_domain"].isin(tests)]
        found = [one.name for one in every.itertuples() if of_model(rows, one).any()]
        return list(dict.fromkeys(found))[: 1 if page.one_model else None]
    given = list(dict.fromkeys(rows[column]))
    if column == "test_domain":
        if spec.subjects == "pairs":
            return list(page.tests)
        return [name for name in page.tests if name in given] or [*filter(None, given)] or [""]
    if column == "setting":
        return (
            [name for name in page.settings if name in given]
            or naming.ordered_settings(given)
            or [""]
        )
    if column == "site":
        return list(sites_by_depth(rows))
    names = names or dict.fromkeys(page.domains if column == "domain" else (), "")
    if column in FOR_ALL:
        given = [name for name in given if name]
    return [*(n for n in names if n in given), *(n for n in given if n not in names)] or [""]


def _option(column: str, name: Any, names: Mapping[str, str], rows: Frame) -> str:
    """What a value is called where it is chosen."""
    if column == "setting":
        return naming.setting_name(name)
    if column == "model":
        return plain(name)
    if column == "site":
        depth = rows[rows["site"] == name]["depth"].iloc[0]
        note = ", final embedding" if name == LAST else ""
        label = naming.site_label(name)
        return f"{label} (depth {depth:.2f}{note})" if pd.notna(depth) else label
    return names.get(name, name if isinstance(name, str) else f"{name:g}")


def _start(choice: ChoiceSpec, looks: Sequence[Look], rows: Frame) -> int:
    """The option first shown: as the choice says; of sites the middle one."""
    if choice.first and len(rows):
        return choice.first(rows, [look.label for look in looks])
    sites = [look.where.get("site") for look in looks]
    middle = middle_site(rows) if choice.columns == "site" else ""
    return sites.index(middle) if middle in sites else 0


def _withheld(data: FigureRows, rows: Frame) -> str:
    missing = int(rows["index"].isna().sum())
    return f"{missing} values are unknown: see the table's reasons." if missing else ""


def _kinds(data: FigureRows, rows: Frame) -> str:
    """The null and the ceiling of rows, in the words of their table."""
    parts = []
    for column, what in (("null_kind", "Null"), ("ceiling_kind", "Ceiling")):
        given = [kind for kind in dict.fromkeys(rows[column]) if kind]
        parts += [f"{what}: {given[0]}."] if given else []
    return " ".join(parts)


def _where(data: FigureRows, rows: Frame) -> str:
    here = [name for name in data.page.tests if name in set(rows["test_domain"])]
    return sequence(here or data.page.tests)


def _pair(data: FigureRows, rows: Frame) -> str:
    if data.page.one_model:
        return f"{data.page.natural} with every other domain"
    return f"{data.page.natural} × {sequence(data.page.tests)}"


def _matched(data: FigureRows, rows: Frame) -> str:
    return sequence(sorted({reason for reason in rows["reason"] if "matched" in reason})[:2])


def _over(data: FigureRows, rows: Frame) -> str:
    """What intervals are over, in words: classes, and blocks where there are several."""
    return "classes and blocks" if any("block" in unit for unit in rows["unit"]) else "classes"


FACTS: dict[str, Callable[[FigureRows, Frame], object]] = {
    "n": lambda data, rows: counts(rows),
    "over": _over,
    "unit": lambda data, rows: next((unit for unit in rows["unit"] if unit), "unit"),
    "pictures": lambda data, rows: span(rows["n_pictures"]),
    "draws": lambda data, rows: span(rows["n_units"]),
    "kinds": _kinds,
    "withheld": _withheld,
    "where": _where,
    "pair": _pair,
    "matched": _matched,
    "removed": lambda data, rows: percents(rows["removed"].min(), rows["removed"].max()),
    "natural": lambda data, rows: data.page.natural,
    "settings": lambda data, rows: sequence(
        [naming.setting_name(name) for name in naming.ordered_settings(rows["setting"])]
    ),
    "sites": lambda data, rows: sequence(
        [naming.site_label(site) for site in dict.fromkeys(rows["site"]) if site]
    ),
    "options": lambda data, rows: len(data.choices[-1].options),
}
"""What a pattern may say of the rows, by field; figures of their own add to it."""
