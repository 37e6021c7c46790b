"""One self-contained HTML page of a finished run: no network, no model, rebuilt in seconds."""

import math
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from interp.core.errors import OutputError
from interp.core.store import write_atomic
from interp.core.tables import COLUMNS
from interp.report.embedding import downloads, figure_json, script_json, thumbnails
from interp.report.figures_answer import answer_figure
from interp.report.naming import percent, sequence, setting_name
from interp.report.reading import Result, read_result
from interp.report.sections import sections
from interp.report.verdicts import ladder
from interp.report.words import answer

HERE = Path(__file__).parent


def build_page(result: Path, out: Path | None = None) -> Path:
    """Write the page of a result folder; return its path (`report.html` in the folder, or `out`).

    Reads `facts.json`, `tables/` and `plates/` and nothing else. A table that is missing, empty or
    damaged leaves a sentence in its section. Raises `DataError` where the folder has no facts,
    `OutputError` where the page cannot be written.
    """
    folder = Path(result)
    target = Path(out) if out is not None else folder / "report.html"
    text = render(read_result(folder))
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


def render(result: Result) -> str:
    """The whole page as text."""
    first = answer_figure(result)
    filled = sections(result)
    drawn = [first] if first else []
    figures = [*drawn, *(figure for section in filled for figure in section.figures)]
    return _template().render(
        title=_text(result.facts.get("title")) or "interp",
        question=_text(result.facts.get("question")) or "What do the domains share?",
        answer=answer(result),
        first=first,
        ladder=ladder(result),
        sections=filled,
        thumbnails=thumbnails(result),
        strays=_text(result.facts.get("strays")),
        downloads=downloads(result),
        provenance=provenance(result),
        credits=_credits(result),
        figures=figure_json(figures),
        columns=script_json(COLUMNS),
        setup=_setup(result),
        styles=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
        plotly=_plotly(),
    )


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


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


def _setup(result: Result) -> str:
    """One line under the question: on what this was measured."""
    given, facts = result.specification, result.facts
    classes = given.get("n_classes")
    parts = [_text(facts.get("source"))]
    parts += [f"{_text(classes)} classes"] if classes else []
    held_out = given.get("held_out")
    if isinstance(held_out, list) and held_out:
        parts.append(f"{len(held_out)} held out in {sequence(result.test_domains)}")
    settings = given.get("settings")
    if isinstance(settings, list) and settings and not result.one_model:
        parts.append(sequence([setting_name(str(name)) for name in settings]))
    parts.append(_text(given.get("architecture")))
    parts += [f"seed {_text(facts.get('seed'))}"] if facts.get("seed") is not None else []
    return " · ".join(part for part in parts if part)


def provenance(result: Result) -> dict[str, list[tuple[str, str]]]:
    """What made the page: groups of names and values, in the order shown."""
    facts = result.facts
    made = {
        "Command": facts.get("command"),
        "Image set": facts.get("source"),
        "Hash of the image set": facts.get("source_hash"),
        "Hash of the specification": facts.get("spec_hash"),
        "Seed": facts.get("seed"),
        "Machine": facts.get("machine"),
    }
    groups = {
        "Run": made,
        "Specification": result.specification,
        "Versions": facts.get("versions"),
        "Time": _times(facts.get("seconds")),
    }
    return {
        name: [(str(key), _text(value)) for key, value in group.items() if _text(value)]
        for name, group in groups.items()
        if isinstance(group, Mapping) and group
    }


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


def _credits(result: Result) -> list[dict[str, str]]:
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
