"""Figures and sections of the page as data: declared beside a measure, drawn by the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from interp.core.errors import SpecificationError, check_known
from interp.core.statistics.index_of_sharing import AMOUNT, AnswerBars
from interp.declared.writing import CLASS_SETS

Row = Mapping[str, Any]
"""One row of a table."""

Label = str | Sequence[str] | Callable[[Row], str]
"""What a row is called: a column's value, those of several columns, or a function of the row."""

Where = Mapping[str, Any]
"""Rows to keep: a value, or several to choose from, for each column."""

NATURAL, OTHER = "@natural", "@other"
"""In a `Where`, the natural domain of the subject that is drawn, and its other domain."""

PAIR = ("domain_a", "domain_b")
"""The columns in which most tables name two domains."""

NO_NUMBER = "the tables hold no number"


@dataclass(frozen=True)
class Scale:
    """The columns that are drawn: a number and the ends of its interval, times a factor."""

    value: str
    low: str = ""
    high: str = ""
    times: float = 1.0


INDEX = Scale("index", "index_low", "index_high")
RAW = Scale("value", "low", "high")


@dataclass(frozen=True)
class AxisSpec:
    """An axis: its title, its unit, and which values it shows.

    Args:
        title: What is drawn along it, with its unit.
        percent: Whether numbers are shares, written as percentages.
        log: Whether the axis is logarithmic.
        limits: Its ends; None: as far as the numbers reach.
        within: The furthest that it may reach, where a few intervals are very long.
        from_zero: Whether 0 is always on it.
        ticks: Where it carries words, and which.
    """

    title: str = ""
    percent: bool = False
    log: bool = False
    limits: tuple[float, float] | None = None
    within: tuple[float, float] | None = None
    from_zero: bool = False
    ticks: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LineSpec:
    """A line across the figure at a value of its number axis."""

    at: float
    text: str = ""
    dash: str = "dot"


def threshold_lines(bars: AnswerBars = AMOUNT) -> tuple[LineSpec, LineSpec]:
    """An index's interval is "not shared" below the first, "shared" above the second, or in part.

    >>> [line.text for line in threshold_lines()]
    ['not shared below .2', 'shared above .5']
    """
    least, most = (f"{bar:g}".removeprefix("0") for bar in (bars.not_below, bars.shared_above))
    return (
        LineSpec(bars.not_below, f"not shared below {least}"),
        LineSpec(bars.shared_above, f"shared above {most}"),
    )


ZERO = (LineSpec(0),)
NO_CHANGE = (LineSpec(0, dash="solid"),)
NONE_TO_WHOLE = (LineSpec(0), LineSpec(1))

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"
"""Colours of Okabe and Ito, told apart by colour-blind readers, for lines that are no subjects."""


@dataclass(frozen=True)
class Look:
    """One option of a choice: its label, and the rows and columns that it shows.

    `table` and `scale` are the figure's own where they are not given.
    """

    label: str
    where: Where = field(default_factory=dict)
    table: str = ""
    ends: Sequence[str] | None = None
    scale: Scale | None = None


@dataclass(frozen=True)
class ChoiceSpec:
    """A choice above a figure: an option for each value of `columns`, or the `looks` given.

    Args:
        label: What is chosen.
        columns: A column, or several whose combinations are the options; `"model"` stands for the
            compared models.
        names: What values are called, in the order shown; further values come after them.
        named: What a combination of several columns is called.
        looks: Options that are no column's values.
        first: Which option is shown first, from the figure's rows and the options' names; None: the
            first one, or of sites the middle one.
        slider: Whether options are numbers in order, and chosen by a slider.
    """

    label: str
    columns: str | Sequence[str] = ""
    names: Mapping[str, str] = field(default_factory=dict)
    named: Callable[[Row], str] | None = None
    looks: Sequence[Look] = ()
    first: Callable[[Any, Sequence[str]], int] | None = None
    slider: bool = False


def choice(label: str, rows: Mapping[str, Where]) -> ChoiceSpec:
    """A choice among options by what they are called: the rows that each shows."""
    return ChoiceSpec(label, looks=[Look(option, where) for option, where in rows.items()])


TEST_DOMAIN = ChoiceSpec("Test domain", "test_domain")
SETTING = ChoiceSpec("Setting", "setting")
SITE = ChoiceSpec("Site", "site")
MODEL = ChoiceSpec("Model", "model")
PICTURES = ChoiceSpec("Pictures", "domain")
TEST_FIRST = ChoiceSpec("Pictures", "domain", first=lambda rows, names: len(names) - 1)
LAID_OVER = "both domains, laid over one another"
"""The option that shows what is of two domains at once."""

OF_MODEL = (TEST_DOMAIN, MODEL, PICTURES)
OF_CIRCUIT = (TEST_DOMAIN, MODEL, ChoiceSpec("Pictures", "domain", {LAID_OVER: LAID_OVER}))
SEEN_BY = choice(
    "Seen by",
    {"from natural domain": {"domain_a": NATURAL}, "from the other domain": {"domain_a": OTHER}},
)


@dataclass(frozen=True)
class SeriesSpec:
    """A line of a curve: its name, its columns, its rows and its looks."""

    name: str
    scale: Scale
    colour: str
    where: Where = field(default_factory=dict)
    dash: str = "solid"
    symbol: str = "circle"
    mode: str = "lines+markers"


def null_series(name: str, where: Where | None = None) -> SeriesSpec:
    """The line of what chance, or another class, does: grey, without marks or interval."""
    return SeriesSpec(name, Scale("null"), GREY, where or {}, "dot", mode="lines")


ALT = {
    "depth": "Lines over depth for {names}",
    "forest": "Forest of {rows} rows, of {subjects} beside one another",
    "curve": "Lines over {points} places",
    "circuit": "Graph of up to {most} edges between columns of nodes",
}
"""What a figure shows, for whoever cannot see it, by its kind."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure: what it reads, how that is drawn, and every sentence that is said of it.

    `title`, `caption` and `alt` are patterns: `{n}`, `{over}`, `{kinds}`, `{withheld}`, `{sites}`,
    `{where}`, `{pair}`, `{natural}`, `{names}`, `{rows}` and `{subjects}` are filled in from the
    rows, and further fields by functions that the report knows by name.

    Args:
        name: The figure's anchor.
        title: Its heading.
        kind: `"depth"`, `"forest"`, `"map"`, `"curve"`, or the name of a renderer of its own.
        tables: The tables behind it; the first one is read. Empty: the one of the figure's name.
        method: How it was made, in a sentence.
        null: What the numbers are held against, in a sentence.
        caption: What stands under it, with n and interval.
        alt: What it shows, for whoever cannot see it; empty: as `ALT` says of its kind.
        empty: What is said where there is nothing to draw.
        facts: Further fields of its patterns, worked out from the loaded result and the rows.
        where: The rows that are read.
        keep: Filters of rows that the report knows by name, one after the other.
        needs: Columns in which a row must have a number.
        scale: The columns drawn.
        subjects: What is drawn beside one another: `"pairs"` of domains in a model (as always
            over depth), `"settings"`, a column's values, or nothing.
        subject_names: What the values of that column are called, in order.
        least: How many subjects there must be.
        ends: Columns that must name the subject's domains.
        choices: What can be chosen above it.
        labels: What the rows of a forest, or the points of a curve, are called.
        across: The column along a curve, or the columns down and across of a map.
        along: The column that orders a curve's points, where it is another than `across`.
        series: The lines of a curve, where they are no subjects.
        hover: What a curve's point says; None: its numbers.
        mode: How a curve is drawn, in plotly's words.
        floors: Whether the untrained model and chance are drawn in a forest.
        upright: Whether a forest's rows stand side by side.
        symmetric: Whether a map has the same numbers on both sides of its diagonal.
        x: The axis across.
        y: The axis upwards; of a forest, the number axis is `x`.
        lines: Lines across the number axis.
        height: In pixels, of a forest or map without its rows.
    """

    name: str
    title: str
    kind: str
    tables: Sequence[str] = ()
    _: KW_ONLY
    method: str
    null: str
    caption: str = ""
    alt: str = ""
    empty: str = NO_NUMBER
    facts: Mapping[str, Callable[[Any, Any], object]] = field(default_factory=dict)
    where: Where = field(default_factory=dict)
    keep: Sequence[str] = ()
    needs: Sequence[str] = ()
    scale: Scale = RAW
    subjects: str = ""
    subject_names: Mapping[str, str] = field(default_factory=dict)
    least: int = 1
    ends: Sequence[str] = ()
    choices: Sequence[ChoiceSpec] = (TEST_DOMAIN,)
    labels: Label = ""
    across: str | tuple[str, str] = ""
    along: str = ""
    series: Sequence[SeriesSpec] = ()
    hover: Callable[[Row], str] | None = None
    mode: str = "lines+markers"
    floors: bool = False
    upright: bool = False
    symmetric: bool = False
    x: AxisSpec = AxisSpec()
    y: AxisSpec = AxisSpec()
    lines: Sequence[LineSpec] = ()
    height: int = 0

    def __post_init__(self) -> None:
        usual = {
            "tables": (self.name.replace("-", "_"),),
            "alt": ALT.get(self.kind, ""),
            "subjects": "pairs" if self.kind == "depth" else "",
        }
        for name, value in usual.items():
            object.__setattr__(self, name, getattr(self, name) or value)


PARTS = ("verdict", "models", "accuracy", "ladder", "sharing", "checks")
"""Parts of the page, in their order; within one, sections stand in the order of their measures."""


@dataclass(frozen=True)
class GistSpec:
    """A section's answer in one sentence: the range of a number over the models.

    Args:
        table: The table that it is read from.
        text: The sentence, with `{range}`, the least and the most, and `{n}`, the number of rows.
        where: Rows that count, by column; `NATURAL` and `OTHER` stand for the domains.
        column: The number.
        form: "percent", "points" (of a hundred, with a sign), "number" or "count".
        middle: Whether only the middle layers count.
    """

    table: str
    text: str
    where: Mapping[str, Any] = field(default_factory=dict)
    column: str = "value"
    form: str = "number"
    middle: bool = False


@dataclass(frozen=True)
class SectionSpec:
    """A section of the page: what it is about, the figures it draws, the tables it needs.

    Args:
        anchor: Its name in addresses.
        title: Its heading.
        intro: How it was measured.
        tables: Tables that are missed where they are absent.
        figures: What it draws, in order.
        words: Tables of verdicts in words, by the report's names, each with what it is asked.
        note: What the numbers do not say.
        study_only: Whether one checkpoint alone has no such section.
        optional: Tables that a run may do without; empty: the other ones that its figures draw.
        part: The part of the page that it stands in, one of `PARTS`.
        gist: Its answer in one sentence; None where its title names the rungs that give one.
        also: Other words by which the search finds it.
    """

    anchor: str
    title: str
    intro: str
    figures: Sequence[FigureSpec]
    tables: Sequence[str] = ()
    words: Sequence[tuple[str, ...]] = ()
    note: str = ""
    study_only: bool = False
    optional: Sequence[str] = ()
    part: str = "sharing"
    gist: GistSpec | None = None
    also: Sequence[str] = ()

    def __post_init__(self) -> None:
        asked = f"declare the section {self.anchor}"
        check_known(asked, "part of the page", [self.part], PARTS, SpecificationError)
        if not self.optional:
            drawn = dict.fromkeys(name for figure in self.figures for name in figure.tables)
            others = tuple(name for name in drawn if name not in self.tables)
            object.__setattr__(self, "optional", others)


CHANCE = "Chance among the classes that were asked about, and the untrained model."

SHARE = AxisSpec("balanced accuracy", percent=True, from_zero=True)
INDEX_AXIS = AxisSpec("index (0 null, 1 ceiling)")


def size_axis(title: str, sizes: Sequence[float]) -> AxisSpec:
    """An axis of shares, as far apart as they differ by factors."""
    return AxisSpec(
        title, percent=True, log=True, ticks={size: f"{100 * size:g} %" for size in sizes}
    )


CLASSES = ChoiceSpec("Classes", "class_set", CLASS_SETS)
FREE = "None: these are counts or readings, held against nothing."
PERMUTED = "Classes permuted as wholes; index 0 stands for it."
PROFILE = (
    "{n}; shaded ribbons are 95 % intervals of the index, which leave one {unit} out at a time. "
    "{kinds} Grey: the middle layers, by which the verdict is given. Dashed: the same models "
    "untrained; dotted: raw pixels, where measured. {withheld}"
)
LINES = (
    "{n}; ribbons are 95 % intervals over classes. {kinds} Dashed: the same models untrained. "
    "Grey: the middle layers."
)


def profile_spec(
    name: str,
    title: str,
    method: str,
    null: str,
    seen: ChoiceSpec | None = None,
    ends: tuple[str, ...] = PAIR,
    bars: AnswerBars = AMOUNT,
) -> FigureSpec:
    """The index of a rung by depth, a line per compared pair of domains."""
    return FigureSpec(
        name,
        f"{title}, {{pair}}",
        "depth",
        method=method,
        null=null,
        caption=PROFILE,
        scale=INDEX,
        ends=ends,
        choices=(TEST_DOMAIN, *((seen,) if seen else ())),
        y=INDEX_AXIS,
        lines=threshold_lines(bars),
    )
