"""From a figure's specification to the figure: rows, choices, subjects and captions."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from interp.core.errors import sequence
from interp.core.sites import LAST
from interp.declared.figures import (
    NATURAL,
    OTHER,
    ChoiceSpec,
    FigureSpec,
    Label,
    Look,
    Row,
    Scale,
    Where,
)
from interp.declared.writing import percents, plain
from interp.report.grammar.pieces import (
    Choice,
    DrawnSubject,
    Figure,
    Trace,
    counts,
    resampled,
    span,
    trace_kinds,
)
from interp.report.grammar.several_models import means_told
from interp.report.grammar.subjects import (
    FILTERS,
    ComparedPair,
    compared_pairs,
    looks_of,
    middle_site,
    settings_of,
    sites_by_depth,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import (
    SYMBOLS,
    colours,
    ordered_settings,
    setting_label,
    setting_name,
    site_label,
)

FOR_ALL = ("test_domain", "class_set")
"""Columns in which an empty cell belongs to every option."""


@dataclass(frozen=True)
class View:
    """What a figure shows under one option of each choice."""

    meta: list[int | None]
    rows: Frame
    look: Look
    scale: Scale
    test_domain: str
    one: ComparedPair | None = None
    subjects: Sequence[DrawnSubject] = ()


def kept(rows: Frame, where: Where, one: ComparedPair | None = None) -> Frame:
    """The rows in which every column has the value asked for, or one of them."""
    for column, asked in where.items():
        wanted = list(asked) if isinstance(asked, (list, tuple, set)) else [asked]
        if one:
            known = {NATURAL: one.natural, OTHER: one.domain}
            wanted = [known.get(value, value) for value in wanted]
        rows = rows[rows[column].isin(wanted)]
    return rows


def read_rows(result: LoadedResult, spec: FigureSpec, table: str = "") -> Frame:
    """The rows of a specification: of its first table, or of another one."""
    rows = kept(result.frame(table or spec.tables[0]), spec.where)
    for name in spec.keep:
        rows = FILTERS[name](rows)
    return rows.dropna(subset=list(spec.needs))


def views(result: LoadedResult, spec: FigureSpec, rows: Frame) -> tuple[list[View], list[Choice]]:
    """Every combination of options with its rows and subjects, and the choices themselves.

    Looks that would show no number are left out.
    """
    looks = [_looks(result, spec, choice, rows) for choice in spec.choices]
    options = [[look for look in each if _alive(result, spec, look, rows)] for each in looks]
    options = [alive or each[:1] for alive, each in zip(options, looks, strict=True)]
    found = [
        replace(view, subjects=_subjects(result, spec, view, rows))
        for view in _narrowed(result, spec, options, View([], rows, Look(""), spec.scale, ""))
    ]
    choices = [
        Choice(
            choice.label, [look.label for look in each], _start(choice, each, rows), choice.slider
        )
        for choice, each in zip(spec.choices, options, strict=True)
    ]
    return found, choices


def _narrowed(
    result: LoadedResult,
    spec: FigureSpec,
    options: Sequence[Sequence[Look]],
    view: View,
    before: Where | None = None,
) -> Iterator[View]:
    """Views by one choice after the other; a look at another table begins there anew."""
    if not options:
        yield view
        return
    before = before or {}
    for place, look in enumerate(options[0]):
        here = view.rows if not look.table else kept(read_rows(result, spec, look.table), before)
        test_domain, one = str(look.where.get("test_domain", view.test_domain)), view.one
        if "model" in look.where:
            pairs = compared_pairs(result, test_domain)
            one = next((each for each in pairs if each.name == look.where["model"]), None)
            here = one.of(here) if one else here[:0]
        where = {
            key: [value, ""] if key in FOR_ALL and isinstance(value, str) else value
            for key, value in look.where.items()
            if key != "model" and (one or not _relative(value))
        }
        narrowed = View(
            [*view.meta, place],
            kept(here, where, one),
            Look(
                "",
                {**view.look.where, **look.where},
                look.table or view.look.table,
                look.ends if look.ends is not None else view.look.ends,
            ),
            look.scale or view.scale,
            test_domain,
            one,
        )
        yield from _narrowed(result, spec, options[1:], narrowed, {**before, **where})


def _relative(value: object) -> bool:
    return isinstance(value, str) and value in (NATURAL, OTHER)


def _looks(
    result: LoadedResult, spec: FigureSpec, choice: ChoiceSpec, rows: Frame
) -> Sequence[Look]:
    """A choice's options, in order."""
    if choice.looks:
        return choice.looks
    if not isinstance(choice.columns, str):
        columns = list(choice.columns)
        each = rows[columns].drop_duplicates().to_dict("records")
        named = choice.named or (lambda row: ", ".join(map(str, row.values())))
        return [Look(named(row), row) for row in each]  # pyright: ignore[reportArgumentType]
    column = choice.columns
    names = _values(result, spec, column, choice.names, rows)
    return [Look(_called(column, name, choice.names, rows), {column: name}) for name in names]


def _values(
    result: LoadedResult, spec: FigureSpec, column: str, names: Mapping[str, str], rows: Frame
) -> list[Any]:
    """The values of a column that can be chosen, in the order of the page: text, or numbers."""
    if column == "model":
        found = {
            one.name: one
            for test in _values(result, spec, "test_domain", {}, rows)
            for one in compared_pairs(result, test)
            if len(one.of(rows))
        }
        return list(found)[: 1 if result.one_model else None]
    if column == "test_domain":
        if spec.subjects == "pairs":
            return result.test_domains
        known = [name for name in result.test_domains if name in set(rows[column])]
        return known or list(dict.fromkeys(name for name in rows[column] if name)) or [""]
    if column == "setting":
        known = [name for name in settings_of(result) if name in set(rows[column])]
        return known or ordered_settings(rows[column]) or [""]
    if column == "site":
        return list(sites_by_depth(rows))
    given = list(dict.fromkeys(rows[column]))
    names = names or dict.fromkeys(result.domains if column == "domain" else (), "")
    if column in FOR_ALL:
        given = [name for name in given if name]
    return [*(n for n in names if n in given), *(n for n in given if n not in names)] or [""]


def _called(column: str, name: Any, names: Mapping[str, str], rows: Frame) -> str:
    if column == "setting":
        return setting_name(name)
    if column == "model":
        return plain(name)
    if column == "site":
        depth = rows[rows["site"] == name]["depth"].iloc[0]
        note = ", final embedding" if name == LAST else ""
        label = site_label(name)
        return f"{label} (depth {depth:.2f}{note})" if pd.notna(depth) else label
    return names.get(name, name if isinstance(name, str) else f"{name:g}")


def _start(choice: ChoiceSpec, looks: Sequence[Look], rows: Frame) -> int:
    """The option first shown: as the choice says; of sites the middle one."""
    if choice.first:
        return choice.first(rows, [look.label for look in looks])
    sites = [look.where.get("site") for look in looks]
    middle = middle_site(rows) if choice.columns == "site" else ""
    return sites.index(middle) if middle in sites else 0


def _alive(result: LoadedResult, spec: FigureSpec, look: Look, rows: Frame) -> bool:
    """Whether a look shows any number; options that are a column's values always do."""
    if not (look.table or look.scale or look.where) or spec.subjects != "pairs":
        return True
    column = (look.scale or spec.scale).value
    where = {k: v for k, v in look.where.items() if k != "test_domain"}
    here = read_rows(result, spec, look.table) if look.table else rows
    ends = look.ends if look.ends is not None else spec.ends
    return any(
        kept(one.rows(here, ends), where, one)[column].notna().any()
        for test in result.test_domains
        for one in compared_pairs(result, test)
    )


def _subjects(
    result: LoadedResult, spec: FigureSpec, view: View, rows: Frame
) -> list[DrawnSubject]:
    """What a view draws side by side."""
    if spec.subjects == "pairs":
        relative = {k: v for k, v in view.look.where.items() if _relative(v)}
        ends = view.look.ends if view.look.ends is not None else spec.ends
        return [
            DrawnSubject(
                plain(one.name) if result.one_model else setting_label(one.setting),
                one.colour,
                one.symbol,
                kept(one.rows(view.rows, ends), relative, one),
            )
            for one in compared_pairs(result, view.test_domain)
        ]
    if spec.subjects in ("", "settings"):
        names = ordered_settings(rows["setting"]) if spec.subjects else []
        return [
            DrawnSubject(setting_label(name), *look, own, name)
            for name, look in looks_of(result, names).items()
            for own in [view.rows[view.rows["setting"] == name]]
        ]
    column = spec.subjects
    names = _values(result, spec, column, spec.subject_names, rows)
    tints = colours(names)
    return [
        DrawnSubject(
            spec.subject_names.get(name, plain(name)),
            tints[name],
            SYMBOLS[place % len(SYMBOLS)],
            view.rows[view.rows[column] == name],
            name,
        )
        for place, name in enumerate(names)
    ]


def label_rows(rows: Frame, label: Label) -> list[str]:
    """What each row is called.

    Of several columns, those after the first are left out where all rows have the same value.

    >>> rows = pd.DataFrame({"setting": ["a", "b"], "test_domain": ["sketch", "sketch"]})
    >>> label_rows(rows, ("setting", "test_domain"))
    ['a', 'b']
    """
    if callable(label):
        return [label(row) for row in row_records(rows)]
    first, *others = [label] if isinstance(label, str) else label
    columns = [first, *(name for name in others if rows[name].nunique() > 1)]
    words = {
        name: _models(rows) if name == "setting" else list(map(str, rows[name])) for name in columns
    }
    return [", ".join(parts) for parts in zip(*words.values(), strict=True)]


def _models(rows: Frame) -> list[str]:
    """Settings in plain words; beside them, models that belong to none are the untrained ones.

    >>> _models(pd.DataFrame({"setting": ["cg-low", ""]})), _models(pd.DataFrame({"setting": [""]}))
    (['CG low diversity', 'untrained'], ['this model'])
    """
    several = rows["setting"].nunique() > 1
    return ["untrained" if several and not name else setting_name(name) for name in rows["setting"]]


def row_records(rows: Frame) -> list[Row]:
    """Rows as mappings, one after the other."""
    names = list(rows.columns)  # of one array: pandas' own way fetches column by column
    return [dict(zip(names, values, strict=True)) for values in rows.to_numpy(dtype=object)]


def in_order(result: LoadedResult, rows: Frame, label: Label) -> list[str]:
    """The names in `row`, each once: settings and domains in the order of the page."""
    if label == "setting":
        called = dict(zip(rows["setting"], rows["row"], strict=True))
        return [called[name] for name in ordered_settings(rows["setting"])]
    names = list(dict.fromkeys(rows["row"]))
    known = result.domains if label == "domain" else []
    return [*(name for name in known if name in names), *(n for n in names if n not in known)]


Fact = Callable[[LoadedResult, Frame], str]


def finished(
    spec: FigureSpec,
    result: LoadedResult,
    rows: Frame,
    traces: Sequence[Trace],
    shape: dict[str, Any],
    choices: Sequence[Choice] = (),
    averaged: Sequence[Frame] = (),
    /,
    **said: object,
) -> Figure:
    """The figure of a specification: its patterns filled in, its method, null and tables.

    Its caption says so where rows that are drawn (`averaged`) are means of several models.
    """
    own = rows[rows["control"] == ""]
    fields = _Fields(result, own, {**FACTS, **spec.facts}, said)
    title, caption, alt = (
        re.sub(" +", " ", pattern.format_map(fields)).strip()
        for pattern in (spec.title, spec.caption, spec.alt)
    )
    alt = alt.replace("<br>", ", ")  # of labels that plotly breaks
    caption = f"{caption} {means_told(averaged)}".strip()
    present = [name for name in spec.tables if name in result.tables]
    return Figure(
        spec.name, title, caption, alt, traces, shape, choices, spec.method, spec.null, present
    )


class _Fields(dict[str, object]):
    """What stands in the places of a pattern, worked out where it is asked for."""

    def __init__(
        self,
        result: LoadedResult,
        rows: Frame,
        facts: Mapping[str, Callable[..., object]],
        said: Mapping[str, object],
    ) -> None:
        super().__init__(said)
        self.result, self.rows, self.facts = result, rows, facts

    def __missing__(self, name: str) -> object:
        return self.facts[name](self.result, self.rows)


def _withheld(result: LoadedResult, rows: Frame) -> str:
    missing = int(rows["index"].isna().sum())
    return f"{missing} values withheld, see the table's reasons." if missing else ""


def _where(result: LoadedResult, rows: Frame) -> str:
    here = [name for name in result.test_domains if name in set(rows["test_domain"])]
    return sequence(here or result.test_domains)


def _pair(result: LoadedResult, rows: Frame) -> str:
    if result.one_model:
        return f"{result.natural} with every other domain"
    return f"{result.natural} × {sequence(result.test_domains)}"


def _matched(result: LoadedResult, rows: Frame) -> str:
    return sequence(sorted({reason for reason in rows["reason"] if "matched" in reason})[:2])


def _settings(result: LoadedResult, rows: Frame) -> str:
    return sequence([setting_name(name) for name in ordered_settings(rows["setting"])])


def _unit(result: LoadedResult, rows: Frame) -> str:
    return next((unit for unit in rows["unit"] if unit), "unit")


FACTS: dict[str, Fact] = {
    "n": lambda result, rows: counts(rows),
    "over": lambda result, rows: resampled(rows),
    "unit": _unit,
    "pictures": lambda result, rows: span(rows["n_pictures"]),
    "draws": lambda result, rows: span(rows["n_units"]),
    "kinds": lambda result, rows: trace_kinds(rows),
    "withheld": _withheld,
    "where": _where,
    "pair": _pair,
    "matched": _matched,
    "removed": lambda result, rows: percents(rows["removed"].min(), rows["removed"].max()),
    "natural": lambda result, rows: result.natural,
    "settings": _settings,
    "sites": lambda result, rows: sequence(
        [site_label(site) for site in dict.fromkeys(rows["site"]) if site]
    ),
}
"""What a pattern may say of the rows, by field; figures of their own add to it."""
