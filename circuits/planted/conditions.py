"""Conditions of planted models: what the two domains may share, one row for each."""

from collections.abc import Sequence
from dataclasses import dataclass

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
