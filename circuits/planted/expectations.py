"""Expectations of every measure of sharing, and every search for a circuit, on a planted model.

The declarations are data, with their reasons: `expectations.toml` and `findable.toml`.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from interp.circuits.planted.model import Outlook, PlantedBlueprint, PlantedModel
from interp.core.sites import band_of, find_sites
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED
from interp.core.tower import Tower

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


WHOLE_TOWER = "whole tower"
"""What stands for all bands together."""


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


Rows = dict[str, tuple[Any, str]]
"""Answers or bars of measures, each with its reason."""


@cache
def _sections(file: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / file).read_text(encoding="utf-8"))


def declared_for(file: str, *names: str) -> Rows:
    """The rows of the first of some sections that a file has, over those that it is `like`.

    >>> declared_for("findable.toml", "steep", "any")["RelP"]
    (0, 'RelP holds attention fixed, and a part is found by keys')
    """
    sections = _sections(file)
    section = sections[next(name for name in names if name in sections)]
    under = section.get("like", [])
    rows: Rows = {}
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


RUNG_MEASURES = {"R2": "cka", "R3": "directions", "R4": "das"}
"""The rungs whose answer is declared site by site, and their measure."""


def expected_by_band(
    planted: PlantedModel, tower: Tower, outlook: Outlook
) -> dict[tuple[str, str], list[str]]:
    """What rungs R2 to R6 must say of a planted model in each band of its layers.

    R2 to R4 are declared at the streams of the band; R4 at all but the last, which is read out as
    it is. R5 and R6 are what the true circuits have in common at the sites of the band whose units
    make circuits; for the whole tower they are declared.

    Args:
        planted: The model with its true circuits.
        tower: The same, opened.
        outlook: Where measures look.

    Returns:
        Answers, one for each site (for the whole tower, for each cut), by rung and band.
    """
    answers: dict[tuple[str, str], list[str]] = {}
    cells = expected(planted.blueprint)
    for rung, measure in RUNG_MEASURES.items():
        for cell in cells:
            last = rung == "R4" and cell.site == outlook.streams[-1]
            if cell.measure == measure and cell.site is not None and not last:
                answers.setdefault((rung, _band(tower, cell.site)), []).append(cell.answer)
    for site in find_sites(outlook.neurons, tower.sites):
        for rung in ("R5", "R6"):
            answers.setdefault((rung, _band(tower, site)), []).append(common_units(planted, site))
    wholes = {"neuron overlap": "R5", "neuron transfer": "R6", "circuit transfer": "R6"}
    for cell in cells:
        if rung := wholes.get(cell.measure):
            answers.setdefault((rung, WHOLE_TOWER), []).append(cell.answer)
    return answers


def _band(tower: Tower, site: str) -> str:
    sites = list(tower.sites)
    return band_of(sites.index(site) / max(1, len(sites) - 1))


def common_units(planted: PlantedModel, site: str) -> str:
    """How far the true circuits of two domains have the same units at a site.

    The share 2 |A and B| / (|A| + |B|), mean over classes: all, none, as the dose says, or in part;
    blind where no circuit has a unit there.
    """
    ends = [[truth.at(site) for truth in truths] for truths in planted.by_class.values()]
    shares = [
        2 * len(a & b) / (len(a) + len(b)) for a, b in zip(*ends, strict=True) if len(a) + len(b)
    ]
    if not shares:
        return ANSWERS["b"]
    share = sum(shares) / len(shares)
    if share in (0, 1):
        return SHARED if share else NOT_SHARED
    return ANSWERS["p"] if planted.blueprint.dose is None else PARTLY


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
