"""A measure as data: its function, tables, evidence, cost and sections, declared in one file.

The list of all measures is found when it is asked for, so that the page, the comparison of results
and the forecast of costs read it without knowing who measures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from interp.core.errors import SpecificationError, check_known
from interp.core.faces.late import late
from interp.declared.figures import FigureSpec, SectionSpec

TRAINED, UNTRAINED, SUPERVISED = "trained", "untrained", "supervised"
"""Kinds of models: a trained CLIP, the same before training, a classifier without text."""

EVERY_KIND = (TRAINED, UNTRAINED, SUPERVISED)
WITHOUT_TEXT = (TRAINED, SUPERVISED)
"""What is asked of trained models, whether or not they have a text tower."""


@dataclass(frozen=True)
class RowUnits:
    """Where the units of a table's rows are kept: a table, its unit's column, what is averaged.

    Args:
        table: The table with a row for each unit or picture.
        unit: The column that names the unit.
        less: A column that is taken off `value` first.
    """

    table: str
    unit: str
    less: str = ""


@dataclass(frozen=True)
class MeasureSpec:
    """What is measured on one opened model, and where it is stored, compared, drawn and costed.

    Args:
        name: Its step's name; tables are kept in a folder of that name.
        function: From the model under study (`interp.measures.subject.Subject`) to frames by table.
        tables: Names of the tables that it makes and the page shows; empty: those that its sections
            draw.
        seconds: What one small ResNet takes of one core, on the embedded study's analysis pictures.
        on_vits: How many times as long a small ViT takes.
        bare: Tables that are no similarities or effects; others are refused without evidence.
        of: Kinds of models that it is asked of.
        option: The flag of `[analysis]` that leaves it out; empty: none does.
        by_name: Whether it is taken only where it is asked for by name.
        units: Of tables whose rows are means over units, where these are kept.
        sections: What the page shows of it.
        plates: From the opened model and the frames to pictures.
        least_classes: Classes that a model saw in both domains, of which it needs so many.
    """

    name: str
    function: Callable[[Any], Mapping[str, Any]]
    _: KW_ONLY
    tables: Sequence[str] = ()
    seconds: float
    bare: Sequence[str] = ()
    of: Sequence[str] = WITHOUT_TEXT
    option: str = ""
    by_name: bool = False
    on_vits: float = 1.0
    units: Mapping[str, RowUnits] = field(default_factory=dict)
    sections: Sequence[SectionSpec] = ()
    plates: Callable[[Any, Mapping[str, Any]], Sequence[Any]] | None = None
    least_classes: int = 0

    def __post_init__(self) -> None:
        asked = f"declare the measure {self.name}"
        check_known(asked, "kind of model", list(self.of), EVERY_KIND, SpecificationError)
        if not self.tables:
            figures = [figure for section in self.sections for figure in section.figures]
            drawn = dict.fromkeys(name for figure in figures for name in figure.tables)
            object.__setattr__(self, "tables", tuple(drawn))
        check_known(asked, "bare table", list(self.bare), self.tables, SpecificationError)

    @property
    def evidence(self) -> list[str]:
        """Its tables of similarities or effects."""
        return [name for name in self.tables if name not in self.bare]

    def wanted_by(self, options: object) -> bool:
        """Whether the options of `[analysis]` ask for it."""
        return not self.option or bool(getattr(options, self.option))


def all_measures() -> tuple[MeasureSpec, ...]:
    """All declared measures, in the order of the page."""
    return late("MEASURES")


def declared_figure(name: str) -> FigureSpec:
    """The figure of a measure, by its name."""
    every = {
        figure.name: figure
        for measure in all_measures()
        for section in measure.sections
        for figure in section.figures
    }
    check_known("draw a figure", "figure", [name], every)
    return every[name]


def units_of_tables() -> dict[str, RowUnits]:
    """Where the units of means are kept, by table."""
    return {name: units for measure in all_measures() for name, units in measure.units.items()}
