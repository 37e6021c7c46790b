"""What a page says of how it was made: commands, specification, versions, times, artists."""

import hashlib
import importlib.metadata
import math
import shlex
from collections.abc import Iterator, Mapping
from datetime import timedelta

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import BARS
from interp.declared.writing import percent, plural
from interp.report.loaded import UNMADE, Frame, LoadedResult
from interp.report.page_model import PageModel
from interp.report.sections import page_sections


def provenance(result: LoadedResult, page: PageModel) -> dict[str, object]:
    """The words of a page that stand in its facts, by their names in the template."""
    facts = result.facts
    return {
        "title": _text(facts.get("title")) or "interp",
        "question": _text(facts.get("question")) or "What do the domains share?",
        "setup": _setup(result, page),
        "notes": _notes(result),
        "commands": shown_commands(result),
        "strays": _text(facts.get("strays")),
        "provenance": _groups(result),
        "credits": _credits(facts.get("credits")),
    }


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


def shown_commands(result: LoadedResult) -> list[tuple[str, str]]:
    """What to type: the command that measured, and the one that draws the page again.

    >>> from pathlib import Path
    >>> made = LoadedResult(Path("."), {"command": "interp-report run a.toml --out 'my run'"}, {})
    >>> [command for command, _ in shown_commands(made)]
    ["interp-report run a.toml --out 'my run'", "interp-report page --out 'my run'"]
    """
    given = result.facts.get("command")
    measured = given if isinstance(given, str) and given else "interp-report"
    again = f"interp-report page --out {shlex.quote(_out(measured))}"
    return [(measured, "measures it"), (again, "draws it again from the tables")]


def _out(command: str) -> str:
    """The folder that a command names for its results."""
    try:
        words = shlex.split(command)
    except ValueError:  # an unpaired quote
        return "interp-report"
    for place, word in enumerate(words):
        if word == "--out" and place + 1 < len(words):
            return words[place + 1]
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return "interp-report"


def _text(fact: object) -> str:
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


def _setup(result: LoadedResult, page: PageModel) -> str:
    """One line under the question: on what this was measured."""
    given, facts = result.specification, result.facts
    classes = given.get("n_classes")
    parts = [_text(facts.get("source"))]
    parts += [f"{_text(classes)} classes"] if classes else []
    held_out = given.get("held_out")
    if isinstance(held_out, list) and held_out:
        parts.append(f"{len(held_out)} held out in {sequence(page.tests)}")
    settings = given.get("settings")
    architecture = _text(given.get("architecture"))
    if isinstance(settings, list) and settings and not result.one_model:
        parts.append(
            f"CLIPs trained here ({architecture}) on {len(settings)} "
            f"{plural('mixture', len(settings))}"
        )
    else:
        parts.append(architecture)
    parts.append(_repeats(result, page.frame("accuracy")))
    return " · ".join(part for part in parts if part)


def _repeats(result: LoadedResult, rows: Frame) -> str:
    """How many of a study's blocks these are; else the seed."""
    blocks, seed = result.specification.get("blocks"), result.facts.get("seed")
    if isinstance(blocks, int) and blocks and "seed" in rows:
        if "n_runs" in rows:  # the seed of a mean over blocks is its bootstrap's
            rows = rows[rows["n_runs"].fillna(1) == 1]
        return f"{rows['seed'].nunique()} of {blocks} blocks"
    return "" if seed is None else f"seed {_text(seed)}"


def _groups(result: LoadedResult) -> dict[str, list[tuple[str, str]]]:
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


def _flat(given: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
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


def _times(seconds: object) -> dict[str, str]:
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


def _credits(given: object) -> list[dict[str, str]]:
    """Artists and licences; an address becomes a link only if it is one of the web."""
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
