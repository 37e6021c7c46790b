"""Expectations of every measure of sharing, and every search for a circuit, on a planted model.

The declarations are data, with their reasons: `expectations.toml` and `findable.toml`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from interp.circuits.planted.model import PlantedBlueprint
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED

ANSWERS = {"s": SHARED, "d": PARTLY, "n": NOT_SHARED, "p": "in part", "b": "blind"}
"""What a measure must say: a verdict; an index anywhere between the ends; or anything."""

TAKEN_AT = {
    **dict.fromkeys(("probe transfer", "cka", "directions", "das"), "streams"),
    "transplant": "added",
}
"""The measures that are taken at several sites of an `Outlook`; all others once per model.

`probe transfer` is of probes with each domain centred, `directions` the cosine of LDA directions.
`das` is a linear subspace fitted by interchange between A's pictures, tested between B's. Its cells
say what the directions do that are read and vary in A.
`circuit transfer` is the faithfulness, in B, of the circuit from A, cut by edges; `neuron
transfer` cuts by neurons alone, and lets everything else run.
"""


@dataclass(frozen=True)
class Expected:
    """What a measure must say of a planted model at one of its sites, and why."""

    measure: str
    site: str | None
    answer: str
    reason: str


class Finding(NamedTuple):
    """What a method must do on a planted model: reach an AUROC of `least`, or nothing, and why."""

    least: float | None
    reason: str


@cache
def _sections(file: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / file).read_text(encoding="utf-8"))


def declared_for(file: str, *names: str) -> Mapping[str, tuple[Any, str]]:
    """The rows of the first of some sections that a file has, over those that it is `like`.

    >>> declared_for("findable.toml", "steep", "any")["RelP"]
    (0, 'RelP holds attention fixed, and a part is found by keys')
    """
    sections = _sections(file)
    section = sections[next(name for name in names if name in sections)]
    under = section.get("like", [])
    rows: dict[str, tuple[Any, str]] = {}
    for name in [under] if isinstance(under, str) else under:
        rows |= declared_for(file, name)
    return rows | {name: tuple(row) for name, row in section.items() if name != "like"}


def expected(blueprint: PlantedBlueprint) -> tuple[Expected, ...]:
    """What every measure must say of a planted model, at every site where it is taken.

    The answer is `shared`, `partly shared` (by the dose), `not shared`, `in part` (somewhere
    between the ends, and none of these is wrong), or `blind`: the measure cannot tell there, and
    what it says is no evidence either way.

    >>> from interp.circuits.planted.vit import Blueprint
    >>> cells = expected(Blueprint("rotated code"))
    >>> [cell.answer for cell in cells if cell.measure == "das"]
    ['blind', 'not shared', 'not shared', 'shared']
    >>> [cell.answer for cell in cells if cell.measure == "node overlap"]
    ['shared']
    """
    name = blueprint.condition
    dose = "" if blueprint.dose is None else f"{name}, {blueprint.dose:g}"
    rows = declared_for("expectations.toml", dose, f"{name}, {blueprint.tier}", name)
    return tuple(
        Expected(measure, site, ANSWERS[letter], reason)
        for measure, (letters, reason) in rows.items()
        for site, letter in zip(_sites(blueprint, measure), letters, strict=True)
    )


def _sites(blueprint: PlantedBlueprint, measure: str) -> tuple[str | None, ...]:
    where = TAKEN_AT.get(measure)
    return (None,) if where is None else getattr(blueprint.outlook, where)


WAYS = tuple(declared_for("findable.toml", "any"))
"""Every way to a circuit that is scored."""


def findable(blueprint: PlantedBlueprint, method: str) -> Finding:
    """What a method must do on a planted model.

    >>> from interp.circuits.planted.vit import Blueprint
    >>> findable(Blueprint("all shared"), "EAP").least
    0.9
    >>> findable(Blueprint("all shared", tier="steep"), "EAP").least is None
    True
    """
    least, reason = declared_for("findable.toml", blueprint.tier, "any")[method]
    return Finding(least or None, reason)
