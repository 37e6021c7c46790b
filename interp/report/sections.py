"""The page's sections in their order, filled with what a result holds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from interp.core.errors import sequence
from interp.declared.figures import PARTS, FigureSpec, SectionSpec
from interp.declared.measures import all_measures
from interp.declared.writing import told_once
from interp.report import verdict_tables
from interp.report.figures import behind_accuracy, training
from interp.report.figures.circuit_graphs import circuit_figure, with_both
from interp.report.figures.ladders import LADDER, ladder_figure
from interp.report.figures.levels_of_evidence import EVIDENCE, levels_figure, together_figure
from interp.report.figures.patching_maps import patching_figure
from interp.report.figures.sharing_profiles import sharing_profile_figure
from interp.report.figures.specification_curves import choices_figure
from interp.report.figures.two_models import TWO_MODELS
from interp.report.figures.views_and_answers import answers_figure, views_figure
from interp.report.grammar.curves import curve_figure
from interp.report.grammar.figure_rows import FigureRows, figure_rows
from interp.report.grammar.kinds import depth_figure, forest_figure, map_figure
from interp.report.grammar.pieces import Figure
from interp.report.page_model import PageModel
from interp.report.summary import Chip, gist, section_chips
from interp.report.verdict_tables import WordTable

OF_STUDIES = (
    training.TRAINING,
    behind_accuracy.BEHIND,
    EVIDENCE,
    LADDER,
    training.INTERVENTION,
    TWO_MODELS,
)
"""Sections on several models or measures; a measure's own is declared beside it."""

RENDERERS: Mapping[str, Callable[[FigureRows], Figure | None]] = {
    "depth": depth_figure,
    "forest": forest_figure,
    "map": map_figure,
    "curve": curve_figure,
    "bars": training.mixtures_figure,
    "certificate": training.certificate_figure,
    "choices": choices_figure,
    "circuit": circuit_figure,
    "classes": behind_accuracy.accuracy_by_class_figure,
    "dose": training.dose_response_figure,
    "ladder": ladder_figure,
    "levels": levels_figure,
    "patching": patching_figure,
    "profile": sharing_profile_figure,
    "robustness": behind_accuracy.robustness_figure,
    "said": answers_figure,
    "together": together_figure,
    "trade-off": behind_accuracy.tradeoff_figure,
    "views": views_figure,
}
"""What draws a figure, by its kind: the four of the grammar, then those of a figure of its own."""

WORD_TABLES: Mapping[str, Callable[..., Iterable[WordTable]]] = {
    "angles": verdict_tables.angles_table,
    "by layer": verdict_tables.by_layer_table,
    "certificate": verdict_tables.certificate_table,
    "dictionaries": verdict_tables.dictionaries_table,
    "levels": verdict_tables.levels_table,
    "answers": verdict_tables.answers_table,
    "verdicts": verdict_tables.verdicts_table,
}
"""Tables of words, by the name that a section calls them."""


@dataclass(frozen=True)
class Section:
    """A section as the page shows it: what it is, and what it holds of a result."""

    spec: SectionSpec
    tables: Sequence[str]
    figures: Sequence[Figure]
    grids: Sequence[WordTable]
    missing: Sequence[str]
    gist: str
    chips: Sequence[Chip]


def draw_figure(page: PageModel, spec: FigureSpec) -> Figure | None:
    """A specified figure of a page; None where its tables hold nothing to draw."""
    prepared = with_both if spec.kind == "circuit" else None
    return RENDERERS[spec.kind](figure_rows(page, spec, prepared))


def page_sections() -> list[SectionSpec]:
    """Every section that a page may have, in order."""
    declared = [section for measure in all_measures() for section in measure.sections]
    return sorted([*declared, *OF_STUDIES], key=lambda section: PARTS.index(section.part))


def filled_sections(
    page: PageModel,
    absent: Mapping[str, str] | None = None,
    sections: Sequence[SectionSpec] | None = None,
) -> list[Section]:
    """Fill sections: for one checkpoint, a grid, and what is optional, only what was measured.

    `absent` says of tables that are missed why they are not there.
    """
    partial = page.one_model or page.accuracy_only
    missed = {} if partial or absent is None else absent
    filled = [
        (spec, _fill(page, spec, missed))
        for spec in (page_sections() if sections is None else sections)
        if not (spec.study_only and page.one_model)
    ]
    return [
        section
        for spec, section in filled
        if section.tables or section.missing or (spec.tables and not partial)
    ]


def _fill(page: PageModel, spec: SectionSpec, absent: Mapping[str, str]) -> Section:
    tables = (*spec.tables, *spec.optional)
    present = [name for name in tables if name in page.tables]
    figures = [(one, draw_figure(page, one)) for one in spec.figures if present]
    drawn = [figure for _, figure in figures if figure]
    missing = [
        f"Missing: the {'table' if len(names) == 1 else 'tables'} {sequence(names)} ({reason})."
        for reason in dict.fromkeys(absent[name] for name in tables if name in absent)
        for names in [[name for name in tables if absent.get(name) == reason]]
    ]
    if present and not drawn and not missing:
        words = sequence(list(dict.fromkeys(one.empty for one in spec.figures)))
        missing.append(f"Nothing to draw: {words}{_reasons(page, tables)}.")
    missing += [
        f"Not drawn, since no row has an index: {one.title}{_reasons(page, one.tables)}."
        for one, figure in figures
        if drawn and not figure and one.kind == "profile"
    ]
    asked = spec.words if present else ()
    grids = [table for name, *more in asked for table in WORD_TABLES[name](page, *more)]
    answer = gist(page, spec.gist) if present else ""
    chips = section_chips(page, spec) if present else ()
    return Section(spec, present, drawn, grids, missing, answer, chips)


def _reasons(page: PageModel, tables: Sequence[str]) -> str:
    """The first few reasons that tables give for what they do not say."""
    known = [page.tables[name] for name in tables if name in page.tables]
    reasons = {reason for frame in known for reason in frame["reason"] if reason}
    first = told_once(sorted(reasons))[:3]
    return f": {sequence(first)}" if first else ""
