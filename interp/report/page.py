"""One self-contained HTML page of a finished run: no network, no model, rebuilt in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from interp.core.errors import OutputError
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.core.storage.store import write_atomic
from interp.core.tables import COLUMNS
from interp.declared.figures import FigureSpec
from interp.report import embedding
from interp.report.atlas import map_data
from interp.report.figures.answer import answer_figure
from interp.report.figures.stills import still
from interp.report.loaded import LoadedResult, read_result
from interp.report.naming import SIGNS
from interp.report.page_model import page_model
from interp.report.provenance import provenance
from interp.report.sections import Section, filled_sections
from interp.report.summary import rungs_and_levels, summary, verdict_chips
from interp.report.verdict_tables import READABLE, ladder_table, overviews
from interp.verdicts.rungs import AMOUNT_RULE, RUNGS, SQUARES

HERE = Path(__file__).parent

SCRIPTS = ("page.js", "terms.js", "board.js", "doors.js", "atlas.js")

READ_SIGNS = {READABLE[word]: SIGNS[word] for word in READABLE}
KINDS = {SHARED: "shared", PARTLY: "partly", NOT_SHARED: "apart", UNKNOWN: "open"}
KINDS |= {READABLE[word]: KINDS[word] for word in READABLE}
"""The signs of answers, and how the page's styles call them; R1 has words of its own."""

MAP = FigureSpec(
    "map",
    "The map",
    "atlas",
    tuple(
        dict.fromkeys([*(one.table for rung in RUNGS.values() for one in rung.measures), "ladder"])
    ),
    method="Every measure between two domains becomes an index, 0 at its null and 1 at its "
    "ceiling; the verdict is by where the index's interval lies.",
    null="Each measure's own, said under the map.",
)


def build_page(result: Path, out: Path | None = None) -> Path:
    """Write the page of a result.

    Args:
        result: The result's folder.
        out: Where to write the page; None is `report.html` in the folder.

    Returns:
        The page's path.

    Raises:
        DataError: If the folder has no facts.
        OutputError: If the page cannot be written.

    Notes:
        `facts.json`, `tables/` and `plates/` are read and nothing else. A table that is missing,
        empty or damaged leaves a sentence in its section.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "facts.json").write_text('{"title": "A study"}')
    ...     page = build_page(Path(folder))
    ...     page.name, "<title>A study" in page.read_text()
    ('report.html', True)
    """
    folder = Path(result)
    target = Path(out) if out is not None else folder / "report.html"
    return written(target, render_page(read_result(folder)))


def written(target: Path, text: str) -> Path:
    """Write a page; raises `OutputError` where that cannot be done."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, text)
    except OSError as error:
        given = error.strerror or str(error)
        right = "a path that can be written"
        do = "choose another with --out"
        raise OutputError(f"write the page {target}", given, right, do) from None
    return target


def render_page(result: LoadedResult) -> str:
    """The whole page as text."""
    page = page_model(result)
    first, no_answer = answer_figure(page)
    sections = filled_sections(page, result.absent)
    counted = {"headline": summary(page), "chips": verdict_chips(page)}
    tables = {"ladder": list(ladder_table(page)), "overviews": list(overviews(page))}
    map_ = map_data(page)
    figures = embedding.figure_data(
        [*([first] if first else []), *(one for each in sections for one in each.figures)], first
    )
    pictures = embedding.page_pictures(result.plates, page.natural, sum(map(len, figures.values())))
    if map_:
        map_["plates"] = {each.keys.get("domain", ""): each.name for each in pictures.domains}
    words = dict(
        **provenance(result, page),
        **counted,
        **tables,
        atlas=embedding.compressed(map_) if map_ else "",
        still=still(first) if first else "",
        first=first,
        no_answer=no_answer,
        natural=page.natural,
        tested=page.tests,
        by_index=AMOUNT_RULE,
        squares=SQUARES,
        readable=RUNGS["R1"].rule,
        contents=_contents(sections, bool(map_)),
        leading=[section for section in sections if section.spec.part == "verdict"],
        sections=[section for section in sections if section.spec.part != "verdict"],
        map_made=replace(MAP, tables=[name for name in MAP.tables if name in page.tables]),
        thumbnails=pictures.domains,
        examples=pictures.examples,
        sheets=pictures.sheets,
        strips=pictures.strips,
        figures=figures,
    )
    return rendered("page.html", words, result)


def rendered(name: str, words: Mapping[str, object], result: LoadedResult) -> str:
    """A page of a template's words, with as much of the result's tables as leaves it its size."""
    template = _templates().get_template(name)
    whole = {**_common_words(), **words}
    none = {name: embedding.Download(name, 0, 0, "", True) for name in result.tables}
    rest = len(template.render(**whole, downloads=none).encode())
    return template.render(
        **whole, downloads=embedding.downloads(result, embedding.PAGE_BYTES - rest)
    )


def _common_words() -> dict[str, object]:
    """What every page has: styles, scripts, the signs of answers, and the glossary."""
    return dict(
        signs=SIGNS | READ_SIGNS,
        kinds=KINDS,
        short={PARTLY: "partly", NOT_SHARED: "not"},
        glossary=[*embedding.glossary_terms(), rungs_and_levels()],
        columns=embedding.script_json({name: column.meaning for name, column in COLUMNS.items()}),
        styles=(HERE / "page.css").read_text(),
        script="\n".join((HERE / name).read_text() for name in SCRIPTS),
        plotly=_plotly(),
        **{"still": "", "atlas": "", "strips": [], "sheets": []},  # unless a page has them
    )


def _contents(sections: Sequence[Section], has_map: bool) -> list[tuple[str, str]]:
    """Anchors and titles, in the order of the page."""
    of: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for section in sections:
        spec = section.spec
        of[spec.part == "verdict"].append((spec.anchor, spec.title))
    return [
        ("answer", "The answer"),
        ("verdict", "The verdict"),
        *of[True],
        *([("map", "The map")] if has_map else []),
        ("pictures", "The pictures"),
        *of[False],
        ("words", "The words"),
        ("provenance", "Provenance"),
    ]


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")
