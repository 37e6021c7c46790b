"""Conditions of planted models: what the two domains may share, and what is expected then.

What every measure of sharing and every search for a circuit must say of them is declared as data,
with the reasons: `expectations.toml` and `findable.toml`.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from interp.circuits.planted.model import PlantedBlueprint, PlantedModel
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED

ONE, TWO = ("AB",), ("A", "B")

TIERS = ("easy", "hard", "steep")
"""How hard a planted model is to read: `easy`; `hard`, where the other carrier holds a code too and
the circuit goes by the cue; `steep`, where neurons have no slope in the pictures they work on."""


@dataclass(frozen=True)
class Lanes:
    """Which domains each stage serves, and what else sets a condition apart.

    A stage has one lane `AB` for both domains, or a lane `A` and a lane `B`. `route` names the way
    from the glyphs to the class (see `interp.circuits.planted.routes`). `cued`: neurons that serve
    one domain answer only under its cue. `one_output`: separate lanes write onto one direction.
    `dim`: how much of the class code domain B has. `copied`: the class token gets a class code that
    both domains write alike and nobody reads. `loud`: a domain's own offset, and distractors.
    `noisy`: what R shows moves P and Q as brought in B, and others' signals in A. `driven`: noise
    that shows no glyph writes classes at random, onto the codes of both domains. `dosed`: what the
    blueprint's dose, kept in `dose`, is of: "classes", each with its own combining and writing
    lanes; the "parts" of each class; or the "geometry" of the classes.
    `hushed`: how loud decoys are, which tell classes alike in both domains. `sensitivity`: what
    the filters for P and Q make of domain B's carrier. `tiers` are those it can be planted in,
    `width` that of the stream.
    """

    detect: Sequence[str]
    bring: Sequence[str]
    combine: Sequence[str]
    write: Sequence[str]
    route: str = "lanes"
    cued: bool = False
    one_output: bool = False
    dim: float = 1.0
    copied: bool = False
    loud: bool = False
    noisy: bool = False
    driven: bool = False
    dosed: str = ""
    dose: float = 0.0
    hushed: float = 1.0
    sensitivity: float = 1.0
    tiers: Sequence[str] = ("easy", "steep")
    width: int = 64

    @property
    def needs_cue(self) -> bool:
        """Whether something in the model answers under one domain's cue only."""
        return self.cued or self.loud or self.dim < 1 or self.dosed == "geometry"


SEPARATE = Lanes(TWO, TWO, TWO, TWO, tiers=TIERS)

CONDITIONS = {
    "all shared": Lanes(ONE, ONE, ONE, ONE),
    "all separate": SEPARATE,
    "shared from block 2": Lanes(TWO, TWO, ONE, ONE, tiers=TIERS),
    "separate, one output": Lanes(TWO, TWO, TWO, TWO, one_output=True, tiers=TIERS),
    "one reader": Lanes(TWO, TWO, TWO, ONE, driven=True, width=128),
    "rotated code": Lanes(TWO, ONE, ONE, ONE, route="rotated"),
    "rewired": Lanes(TWO, ONE, ONE, ONE, route="rewired", width=128),
    "shared, quiet in B": Lanes(ONE, ONE, ONE, ONE, dim=0.3, tiers=("easy",)),
    "unread shared copy": Lanes(TWO, TWO, TWO, TWO, copied=True, tiers=TIERS, width=128),
    "offset and distractors": Lanes(ONE, ONE, ONE, ONE, loud=True),
    "unequal noise": Lanes(ONE, ONE, ONE, ONE, noisy=True, tiers=("steep",)),
    "late separate": Lanes(ONE, ONE, TWO, TWO, cued=True),
    "backup": Lanes(ONE, ONE, ONE, ONE, route="backed up", tiers=("easy",)),
    "dose": Lanes(ONE, ONE, TWO, TWO, cued=True, dosed="classes"),
    "dose of parts": Lanes(
        *(ONE, ONE, TWO, ONE),
        "in parts",
        cued=True,
        dosed="parts",
        hushed=0.1,
        tiers=("easy",),
        width=128,
    ),
    "dose of geometry": Lanes(ONE, ONE, ONE, ONE, dosed="geometry"),
    "shared, inaccurate": Lanes(ONE, ONE, ONE, ONE, sensitivity=0.543, tiers=("easy",)),
    "separate, accurate": SEPARATE,
}
"""What the two domains share in a planted model, stage by stage.

`all shared`, `all separate`: every stage; none. `shared from block 2`: P and Q are detected and
brought by separate parts, and combined and written by the same. `separate, one output`: as all
separate, but both lanes write a class onto one direction. `one reader`: as all separate, but one
head reads the codes of both domains, and pictures that are noise drive both. `rotated code`: the
same heads and MLPs, but P, Q and the class stand on other signals in each domain, and are read
under its cue only. `rewired`: the same nodes, each other's in the other domain: who brings P in A,
brings Q in B. `shared, quiet in B`: all shared, with .3 of the class code in B. `unread shared
copy`: as all separate, and a copy of the class, alike in both domains, that nobody reads. `offset
and distractors`: all shared, beside a domain's own constant and loud nuisances. `unequal noise`:
all shared, and P and Q as brought are noisy in B. `late separate`: shared up to the class token,
then combined and written apart. `backup`: all shared; when what combines fails, the next block
mends it. `dose`: a share of the classes is as in all shared, the others as in late separate. `dose
of parts`: a class is combined in twenty parts, of which a share serves both domains; the codes of
the domains have the cosine of that share. `dose of geometry`: all shared, and beside it a loud code
that nobody reads, by which classes lie as much alike in the two domains as by codes of that cosine.
`shared, inaccurate`: all shared, but B's glyphs are half overlooked. `separate, accurate`: all
separate, by the name that stands beside it.
"""

DOSES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The doses that are judged, and all that there are of classes: these are shared two by two."""

PIECES = 20
"""Parts by which a class is combined in the condition `dose of parts`."""


def can_be_planted(lanes: Lanes, dose: float | None) -> bool:
    """Whether the lanes' condition exists with this dose.

    >>> lanes = CONDITIONS["dose of parts"]
    >>> can_be_planted(lanes, 0.3), can_be_planted(lanes, 0.33), can_be_planted(lanes, None)
    (True, False, False)
    """
    if dose is None or not lanes.dosed:
        return dose is None and not lanes.dosed
    pieces = dose * PIECES
    finest = {"classes": dose in DOSES, "parts": abs(pieces - round(pieces)) < 1e-9}
    return 0 <= dose <= 1 and finest.get(lanes.dosed, True)


TRAINED = (
    *("all shared", "all separate", "shared from block 2", "separate, one output"),
    "late separate",
)
"""The conditions of which transformers are trained as well as written."""


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
    between the ends, and none of these is wrong), or `blind`: the answer is unknown there, and
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
