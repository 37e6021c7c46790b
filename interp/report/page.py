"""One self-contained HTML page of a finished run: no network, no model, rebuilt in seconds."""

import hashlib
import importlib.metadata
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from interp.core.columns import COLUMNS
from interp.core.errors import OutputError, sequence
from interp.core.illustrations import Plate
from interp.core.statistics.index_of_sharing import BARS, CANNOT_TELL, NOT_SHARED, PARTLY, SHARED
from interp.core.storage.store import write_atomic
from interp.declared.figures import FigureSpec
from interp.declared.writing import percent, plural
from interp.report.atlas import map_data
from interp.report.embedding import (
    CUT,
    FRAME_BYTES,
    PAGE_BYTES,
    UNITS,
    Download,
    Thumbnail,
    compressed,
    downloads,
    embedded_thumbnails,
    figure_data,
    glossary_terms,
    script_json,
    sheets,
    strips,
)
from interp.report.figures.answer import answer_figure, no_answer
from interp.report.loaded import UNMADE, LoadedResult, read_result, shown_commands
from interp.report.naming import SIGNS
from interp.report.sections import Section, filled_sections, page_sections
from interp.report.stills import still
from interp.report.verdict_tables import READABLE, ladder_table, overviews
from interp.report.words import answer_sentences, headline, rungs_and_levels
from interp.verdicts.rungs import AMOUNT_RULE, RUNGS, SQUARES

HERE = Path(__file__).parent

SCRIPTS = ("page.js", "terms.js", "board.js", "doors.js", "atlas.js")

READ_SIGNS = {READABLE[word]: SIGNS[word] for word in READABLE}
KINDS = {SHARED: "shared", PARTLY: "partly", NOT_SHARED: "apart", CANNOT_TELL: "open"}
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
        raise OutputError(
            f"write the page {target}",
            error.strerror or str(error),
            "a path that can be written",
            "choose another with --out",
        ) from None
    return target


def render_page(result: LoadedResult) -> str:
    """The whole page as text."""
    first = answer_figure(result)
    filled = filled_sections(result)
    leading = [section for section in filled if section.part == "verdict"]
    others = [section for section in filled if section.part != "verdict"]
    drawn = [first] if first else []
    figures = [*drawn, *(figure for section in filled for figure in section.figures)]
    data, every_class, of_nodes = figure_data(figures, first), sheets(result), strips(result)
    taken = sum(map(len, [*data.values(), *every_class, *of_nodes]))
    plates = embedded_thumbnails(result, PAGE_BYTES - FRAME_BYTES - taken)
    domains = [plate for plate in plates if "kind" not in plate.keys]
    map_ = map_data(result)
    if map_:
        map_["plates"] = {plate.keys.get("domain", ""): plate.name for plate in domains}
    words = dict(
        title=_text(result.facts.get("title")) or "interp",
        question=_text(result.facts.get("question")) or "What do the domains share?",
        headline=headline(result),
        notes=_notes(result),
        answer=answer_sentences(result),
        first=first,
        still=still(first) if first else "",
        no_answer="" if first else no_answer(result),
        ladder=ladder_table(result),
        overviews=overviews(result),
        natural=result.natural,
        tested=result.test_domains,
        by_index=AMOUNT_RULE,
        squares=SQUARES,
        readable=RUNGS["R1"].rule,
        contents=_contents(leading, others, bool(map_)),
        leading=leading,
        sections=others,
        atlas=compressed(map_) if map_ else "",
        map_made=replace(MAP, tables=[name for name in MAP.tables if name in result.tables]),
        commands=shown_commands(result),
        thumbnails=domains,
        examples=_examples(result, plates),
        sheets=every_class,
        strips=of_nodes,
        strays=_text(result.facts.get("strays")),
        provenance=page_provenance(result),
        credits=_credits(result),
        figures=data,
        setup=_setup(result),
    )
    return rendered("page.html", words, result)


def rendered(name: str, words: Mapping[str, Any], result: LoadedResult) -> str:
    """A page of a template's words, with as much of the result's tables as leaves it its size."""
    template = _templates().get_template(name)
    whole = {**_common_words(), **words}
    none = {name: Download(name, 0, 0, "", True) for name in result.tables}
    rest = len(template.render(**whole, downloads=none).encode())
    return template.render(**whole, downloads=downloads(result, PAGE_BYTES - rest))


def _common_words() -> dict[str, Any]:
    """What every page has: styles, scripts, the signs of answers, and the glossary."""
    return dict(
        signs=SIGNS | READ_SIGNS,
        kinds=KINDS,
        short={PARTLY: "partly", NOT_SHARED: "not"},
        glossary=[*glossary_terms(), rungs_and_levels()],
        columns=script_json({name: column.meaning for name, column in COLUMNS.items()}),
        styles=(HERE / "page.css").read_text(),
        script="\n".join((HERE / name).read_text() for name in SCRIPTS),
        plotly=_plotly(),
    )


EXAMPLES = {
    "patching": "Which pictures patching moves most and least",
    UNITS: "What activates them, domains side by side",
}
"""What stands above the pictures of a section, by its anchor."""


@dataclass(frozen=True)
class SectionPictures:
    """The pictures of a section, and how many did not fit."""

    title: str
    plates: Sequence[Thumbnail]
    left_out: int


def _examples(result: LoadedResult, plates: Sequence[Thumbnail]) -> dict[str, SectionPictures]:
    """Pictures by section: by the plate's kind, those of other kinds under patching."""

    def of(plate: Plate | Thumbnail, anchor: str) -> bool:
        kind = plate.keys.get("kind")
        return kind not in (None, *CUT) and anchor == (kind if kind in EXAMPLES else "patching")

    every = {
        anchor: (
            [plate for plate in plates if of(plate, anchor)],
            sum(of(plate, anchor) for plate in result.plates),
        )
        for anchor in EXAMPLES
    }
    return {
        anchor: SectionPictures(EXAMPLES[anchor], shown, n - len(shown))
        for anchor, (shown, n) in every.items()
        if n
    }


def _contents(
    leading: Sequence[Section], others: Sequence[Section], has_map: bool
) -> list[tuple[str, str]]:
    """Anchors and titles, in the order of the page."""
    return [
        ("answer", "The answer"),
        ("verdict", "The verdict"),
        *((section.anchor, section.title) for section in leading),
        *([("map", "The map")] if has_map else []),
        ("pictures", "The pictures"),
        *((section.anchor, section.title) for section in others),
        ("words", "The words"),
        ("provenance", "Provenance"),
    ]


def _notes(result: LoadedResult) -> list[str]:
    """What a reader must know before the first figure."""
    versions = result.facts.get("versions")
    made_by = _text(versions.get("interp")) if isinstance(versions, Mapping) else ""
    here = importlib.metadata.version("interp")
    named = {name for spec in page_sections() for name in (*spec.tables, *spec.optional)}
    notes = [
        f"Missing: the table {name} ({reason})."
        for name, reason in result.absent.items()
        if name not in named and reason != UNMADE
    ]
    if not made_by:
        return [*notes, "Which version of interp measured this is not recorded."]
    if made_by != here:
        notes.append(
            f"Measured by interp {made_by}, page built by interp {here}: the numbers are as they "
            "were measured, the words and figures are this version's."
        )
    if result.facts.get("bars", BARS) != BARS:
        notes.append(
            "The answers of sites and bands were given at other bars than this page says; they "
            "stand under Provenance."
        )
    return notes


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


def _text(fact: Any) -> str:
    """A fact as a line of text; nothing where there is none.

    >>> _text({"cores": 2, "device": "cpu"}), _text(None)
    ('cores 2, device cpu', '')
    """
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {_text(value)}".strip() for name, value in fact.items())
    if isinstance(fact, (list, tuple)):
        return ", ".join(_text(value) for value in fact)
    if isinstance(fact, float):
        return f"{fact:g}"
    return "" if fact is None else str(fact)


def _setup(result: LoadedResult) -> str:
    """One line under the question: on what this was measured."""
    given, facts = result.specification, result.facts
    classes = given.get("n_classes")
    parts = [_text(facts.get("source"))]
    parts += [f"{_text(classes)} classes"] if classes else []
    held_out = given.get("held_out")
    if isinstance(held_out, list) and held_out:
        parts.append(f"{len(held_out)} held out in {sequence(result.test_domains)}")
    settings = given.get("settings")
    architecture = _text(given.get("architecture"))
    if isinstance(settings, list) and settings and not result.one_model:
        parts.append(
            f"CLIPs trained here ({architecture}) on {len(settings)} "
            f"{plural('mixture', len(settings))}"
        )
    else:
        parts.append(architecture)
    parts.append(_repeats(result))
    return " · ".join(part for part in parts if part)


def _repeats(result: LoadedResult) -> str:
    """How many of a study's blocks these are; else the seed."""
    blocks, seed = result.specification.get("blocks"), result.facts.get("seed")
    rows = result.frame("accuracy")
    if isinstance(blocks, int) and blocks and "seed" in rows:
        if "n_runs" in rows:  # the seed of a mean over blocks is its bootstrap's
            rows = rows[rows["n_runs"].fillna(1) == 1]
        return f"{rows['seed'].nunique()} of {blocks} blocks"
    return "" if seed is None else f"seed {_text(seed)}"


def page_provenance(result: LoadedResult) -> dict[str, list[tuple[str, str]]]:
    """What made the page: groups of names and values, in the order shown."""
    facts = result.facts
    made = {
        "Command": facts.get("command"),
        "Image set": facts.get("source"),
        "Hash of the image set": facts.get("source_hash"),
        "Hash of the specification": facts.get("spec_hash"),
        "Seed": facts.get("seed"),
        "Machine": facts.get("machine"),
        "Page built by": f"interp {importlib.metadata.version('interp')}, plotly "
        f"{importlib.metadata.version('plotly')}",
        "Hash of the tables": _tables_hash(result),
    }
    groups = {
        "Run": made,
        "Specification": dict(_flat(result.specification)),
        "Bars of the answers": facts.get("bars"),
        "Versions": facts.get("versions"),
        "Time": _times(facts.get("seconds")),
    }
    return {
        name: [(str(key), _text(value)) for key, value in group.items() if _text(value)]
        for name, group in groups.items()
        if isinstance(group, Mapping) and group
    }


def _flat(given: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested sections as one list of names and values.

    >>> dict(_flat({"images": {"size": 48}, "seed": 0}))
    {'images: size': 48, 'seed': 0}
    """
    for name, value in given.items():
        if isinstance(value, Mapping) and not above:
            yield from _flat(value, f"{name}: ")
        else:
            yield f"{above}{name}", value


def _tables_hash(result: LoadedResult) -> str:
    """What tells these tables from any others, whatever is drawn from them."""
    made = hashlib.sha256()
    for name in sorted(result.tables):
        made.update(name.encode())
        made.update(result.csv(name))
    return made.hexdigest()[:16] if result.tables else ""


def _times(seconds: Any) -> dict[str, str]:
    if not isinstance(seconds, Mapping):
        return {}
    known = {
        str(step): float(value)
        for step, value in seconds.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    total = sum(known.values())
    shown = {
        step: f"{value:.1f} s ({percent(value / total)})" if total else f"{value:.1f} s"
        for step, value in known.items()
    }
    return {**shown, "All steps": str(timedelta(seconds=round(total)))} if known else {}


def _credits(result: LoadedResult) -> list[dict[str, str]]:
    """Artists and licences; an address becomes a link only if it is one of the web."""
    given = result.facts.get("credits")
    rows = given if isinstance(given, list) else []
    found = [
        {key: _text(row.get(key)) for key in ("artist", "licence", "url", "drawings")}
        for row in rows
        if isinstance(row, Mapping)
    ]
    for row in found:
        if not row["url"].startswith(("https://", "http://")):
            row["url"] = ""
    return found
