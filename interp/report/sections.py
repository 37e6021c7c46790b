"""The page's sections in their order, filled with what a result holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from interp.core.errors import sequence
from interp.declared.figures import PARTS, FigureSpec, SectionSpec
from interp.declared.measures import all_measures
from interp.declared.writing import told_once
from interp.report.figures.behind_accuracy import (
    BEHIND,
    accuracy_by_class_figure,
    robustness_figure,
    tradeoff_figure,
)
from interp.report.figures.circuit_graphs import circuit_figure
from interp.report.figures.ladders import LADDER, ladder_figure
from interp.report.figures.levels_of_evidence import EVIDENCE, levels_figure, together_figure
from interp.report.figures.patching_maps import patching_figure
from interp.report.figures.sharing_profiles import sharing_profile_figure
from interp.report.figures.specification_curves import choices_figure
from interp.report.figures.training import (
    INTERVENTION,
    TRAINING,
    certificate_figure,
    dose_response_figure,
    mixtures_figure,
)
from interp.report.figures.two_models import TWO_MODELS
from interp.report.figures.views_and_answers import said_figure, views_figure
from interp.report.gists import gist, wanted
from interp.report.grammar.curves import curve_figure
from interp.report.grammar.kinds import depth_figure, forest_figure, map_figure
from interp.report.grammar.pieces import Figure
from interp.report.loaded import LoadedResult
from interp.report.verdict_tables import (
    WordTable,
    angles_table,
    answers_table,
    by_layer_table,
    certificate_verdict,
    dictionaries_table,
    levels_table,
    verdicts_table,
)

OF_STUDIES = (TRAINING, BEHIND, EVIDENCE, LADDER, INTERVENTION, TWO_MODELS)
"""Sections on several models or measures; a measure's own is declared beside it."""

RENDERERS: Mapping[str, Callable[[LoadedResult, FigureSpec], Figure | None]] = {
    "depth": depth_figure,
    "forest": forest_figure,
    "map": map_figure,
    "curve": curve_figure,
    "bars": mixtures_figure,
    "certificate": certificate_figure,
    "choices": choices_figure,
    "circuit": circuit_figure,
    "classes": accuracy_by_class_figure,
    "dose": dose_response_figure,
    "ladder": ladder_figure,
    "levels": levels_figure,
    "patching": patching_figure,
    "profile": sharing_profile_figure,
    "robustness": robustness_figure,
    "said": said_figure,
    "together": together_figure,
    "trade-off": tradeoff_figure,
    "views": views_figure,
}
"""What draws a figure, by its kind: the four of the grammar, then those of a figure of its own."""

WORD_TABLES: Mapping[str, Callable[..., list[WordTable]]] = {
    "angles": angles_table,
    "by layer": by_layer_table,
    "certificate": certificate_verdict,
    "dictionaries": dictionaries_table,
    "levels": levels_table,
    "answers": answers_table,
    "verdicts": verdicts_table,
}
"""Tables of words, by the name that a section calls them."""


@dataclass(frozen=True)
class Section:
    """A section as the page shows it."""

    anchor: str
    part: str
    title: str
    method: str
    tables: Sequence[str]
    figures: Sequence[Figure]
    grids: Sequence[WordTable]
    missing: Sequence[str] = field(default_factory=tuple)
    note: str = ""
    gist: str = ""
    wanted: str = ""
    also: str = ""


def draw_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """A specified figure of a result; None where its tables hold nothing to draw."""
    return RENDERERS[spec.kind](result, spec)


def page_sections() -> list[SectionSpec]:
    """Every section that a page may have, in order."""
    declared = [section for measure in all_measures() for section in measure.sections]
    return sorted([*declared, *OF_STUDIES], key=lambda section: PARTS.index(section.part))


def filled_sections(
    result: LoadedResult, sections: Sequence[SectionSpec] | None = None
) -> list[Section]:
    """Fill sections: for one checkpoint, a grid, and what is optional, only what was measured."""
    filled = [
        (spec, _fill(result, spec))
        for spec in (page_sections() if sections is None else sections)
        if not (spec.study_only and result.one_model)
    ]
    return [
        section
        for spec, section in filled
        if section.tables or section.missing or (spec.tables and not result.partial)
    ]


def _fill(result: LoadedResult, spec: SectionSpec) -> Section:
    present = [name for name in (*spec.tables, *spec.optional) if name in result.tables]
    each = [draw_figure(result, one) for one in spec.figures] if present else []
    drawn = [figure for figure in each if figure]
    grids = [
        grid for name, *asked in spec.words if present for grid in WORD_TABLES[name](result, *asked)
    ]
    missing = _missing(result, spec, bool(drawn))
    if drawn:
        undrawn = [one for one, figure in zip(spec.figures, each, strict=True) if not figure]
        missing += [_withheld(result, one) for one in undrawn if one.kind == "profile"]
    note = spec.note if present else ""
    told = (gist(result, spec), wanted(result, spec)) if present else ("", "")
    return Section(
        spec.anchor,
        spec.part,
        spec.title,
        spec.intro,
        present,
        drawn,
        grids,
        missing,
        note,
        *told,
        "; ".join(spec.also),
    )


def _missing(result: LoadedResult, spec: SectionSpec, drawn: bool) -> list[str]:
    """What is not here and why, in a sentence for each reason."""
    found = []
    by_reason: dict[str, list[str]] = {}
    tables = (*spec.tables, *spec.optional)
    for name in tables:
        if name in result.absent and not result.partial:
            by_reason.setdefault(result.absent[name], []).append(name)
    for reason, names in by_reason.items():
        noun = "table" if len(names) == 1 else "tables"
        found.append(f"Missing: the {noun} {sequence(names)} ({reason}).")
    if not drawn and not by_reason and any(name in result.tables for name in tables):
        found.append(_nothing(result, spec))
    return found


def _withheld(result: LoadedResult, spec: FigureSpec) -> str:
    """Why a profile is not drawn whose rows are there."""
    reasons = _reasons(result, spec.tables)
    why = f": {sequence(reasons)}" if reasons else ""
    return f"Not drawn, since no row has an index: {spec.title}{why}."


def _reasons(result: LoadedResult, tables: Sequence[str]) -> list[str]:
    """The first few reasons that tables give for what they do not say."""
    known = [name for name in tables if name in result.tables]
    reasons = {reason for name in known for reason in result.frame(name)["reason"] if reason}
    return told_once(sorted(reasons))[:3]


def _nothing(result: LoadedResult, spec: SectionSpec) -> str:
    """Why tables that are there give no figure."""
    reasons = _reasons(result, (*spec.tables, *spec.optional))
    why = f": {sequence(reasons)}" if reasons else ""
    said = sequence(list(dict.fromkeys(one.empty for one in spec.figures)))
    return f"Nothing to draw: {said}{why}."
