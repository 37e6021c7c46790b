"""What each measure of sharing must see in a planted model, what it must not, where it is blind.

Declared by hand from what was planted, one line of reason to each: the measures' known failures are
written down as such.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from interp.circuits.planted.resnet import ResNetBlueprint
from interp.circuits.planted.vit import Blueprint, TrainedBlueprint

ANSWERS = {"s": "shared", "n": "not shared", "p": "in part", "b": "blind"}
"""What a measure must say: an index above .5 or below .2, one between the ends; or anything."""

STREAMS = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(4))
"""Sites at the class token where codes are compared: the stream behind each block."""

STAGES = tuple(f"layer{stage}.0.hook_resid_post" for stage in range(1, 5))
"""Sites of a planted ResNet, at all places: what each stage hands on."""

ADDED = tuple(
    f"blocks.{part}_out"
    for part in ("1.hook_attn", "1.hook_mlp", "2.hook_mlp", "3.hook_attn", "3.hook_mlp")
)
"""Sites at the class token that are transplanted: what blocks add where some model has its code."""

SITES = {
    "probe transfer": STREAMS,
    "cka": STREAMS,
    "das": STREAMS,
    "transplant": ADDED,
    "node overlap": (None,),
    "edge overlap": (None,),
    "neuron overlap": (None,),
    "circuit transfer": (None,),
    "neuron transfer": (None,),
}
"""The measures, and where each is taken: at the class token, or once per model.

`das` is a linear subspace fitted by interchange between A's pictures, tested between B's. Its cells
say what the directions do that are read and vary in A.
`circuit transfer` is the faithfulness, in B, of the circuit from A, cut by edges; `neuron
transfer` cuts by neurons alone, and lets everything else run.
"""


@dataclass(frozen=True)
class Expected:
    """What a measure must say of a planted model at a site of the class token, and why."""

    measure: str
    site: str | None
    answer: str
    reason: str


Row = tuple[str, str]
"""A letter for each site, s, n, p or b, and the reason."""

EVERYWHERE = "one code, one circuit"
GEOMETRY = "the classes lie alike, in whichever directions: CKA does not see these"
UNGATED = "nothing is gated: what either lane writes is understood in any picture"
EITHER = "one writer reads either domain's directions, so a fit cannot tell them from their sum"
OTHER_NEURONS = "what B goes by are other neurons than A's"
NO_TRANSFER = "other heads bring P and Q, so A's bring nothing in B"

SHARED: dict[str, Row] = {
    "probe transfer": ("bsss", EVERYWHERE),
    "cka": ("bsss", EVERYWHERE),
    "das": ("bsss", EVERYWHERE),
    "transplant": ("sbssb", EVERYWHERE),
    "node overlap": ("s", EVERYWHERE),
    "edge overlap": ("s", EVERYWHERE),
    "neuron overlap": ("s", EVERYWHERE),
    "circuit transfer": ("s", EVERYWHERE),
    "neuron transfer": ("s", EVERYWHERE),
}

SEPARATE: dict[str, Row] = {
    "probe transfer": ("bnnn", "each domain has directions of its own"),
    "cka": ("bsss", GEOMETRY),
    "das": ("bnnn", "what is read in A does not vary in B"),
    "transplant": ("bbbbb", UNGATED),
    "node overlap": ("n", "only block 0's MLP is in both"),
    "edge overlap": ("n", "only the edge from the input to block 0's MLP is in both"),
    "neuron overlap": ("n", "each domain has neurons of its own"),
    "circuit transfer": ("n", NO_TRANSFER),
    "neuron transfer": ("n", OTHER_NEURONS),
}

ONE_OUTPUT: dict[str, Row] = {
    **SEPARATE,
    "probe transfer": ("bnns", "the directions that are written last are the same"),
    "das": ("bnbs", f"the directions that are written last are the same; before, {EITHER}"),
    "transplant": ("bbbsb", "both heads write the same; before that, nothing is gated"),
}

FROM_BLOCK_2: dict[str, Row] = {
    **SHARED,
    "probe transfer": ("bnss", "P and Q have directions of their own, the class has not"),
    "cka": ("bsss", GEOMETRY),
    "das": ("bbss", f"from block 2 on one code; before, {EITHER}"),
    "transplant": ("bbssb", "from block 2 on one code; before, either lane's is understood"),
    "node overlap": ("p", "the heads that bring P and Q differ, all else is shared"),
    "edge overlap": ("p", "from the combining block on the same edges"),
    "neuron overlap": ("p", "the detecting neurons differ, the combining ones do not"),
    "circuit transfer": ("n", NO_TRANSFER),
    "neuron transfer": ("n", OTHER_NEURONS),
}

ROTATED: dict[str, Row] = {
    **SHARED,
    "probe transfer": ("bnns", "other directions in each domain, until block 3 writes the class"),
    "cka": ("bsss", GEOMETRY),
    "das": ("bnns", "what is read in A does not vary in B, until block 3 writes the class"),
    "transplant": ("nbnbs", "A's code is not read under B's cue; what block 3 writes is shared"),
    "edge overlap": ("s", "edges say who writes to whom, not what"),
    "neuron overlap": ("n", "each domain has neurons of its own in the same blocks"),
    "circuit transfer": ("s", "A's edges are B's: they carry B's code as well"),
    "neuron transfer": ("n", OTHER_NEURONS),
}

REWIRED: dict[str, Row] = {
    **SHARED,
    "probe transfer": ("bsbs", "P and Q as brought stay in the stream; a probe may weigh others"),
    "das": ("bbbs", f"what block 3 writes is shared; before, {EITHER}"),
    "transplant": ("sbbss", "P and Q as brought and as moved are shared, between them halves"),
    "node overlap": ("s", "the same nodes"),
    "edge overlap": ("p", "before the bringing and behind the moving heads the same, between none"),
    "neuron overlap": ("p", "only block 3's neurons are in both"),
    "circuit transfer": ("n", "the edges that B goes by are not among A's"),
    "neuron transfer": ("n", OTHER_NEURONS),
}

LATE_SEPARATE: dict[str, Row] = {
    **SHARED,
    "probe transfer": ("bsss", "P and Q as brought stay in the stream: the class is read off them"),
    "cka": ("bsss", GEOMETRY),
    "das": ("bnnn", "B's class, which alone is read, has other directions; P and Q are shared"),
    "transplant": ("sbbbb", "P and Q are shared; either lane's class is understood"),
    "node overlap": ("p", "detecting and bringing shared, combining and writing not"),
    "edge overlap": ("p", "detecting and bringing shared, combining and writing not"),
    "neuron overlap": ("p", "the detecting neurons are shared, the combining ones not"),
    "circuit transfer": ("n", "A's combining block has nothing to say under B's cue"),
    "neuron transfer": ("n", OTHER_NEURONS),
}

DOSED: dict[str, Row] = {
    **LATE_SEPARATE,
    "das": ("bppp", "as many classes as the dose says have one code"),
    "transplant": ("sbbbb", "P and Q are shared; either lane's class is understood"),
    "node overlap": ("p", "the union over classes; class by class, as the dose says"),
    "edge overlap": ("p", "the union over classes; class by class, as the dose says"),
    "neuron overlap": ("p", "as many combining neurons are shared as the dose says"),
    "circuit transfer": ("p", "A's circuit tells as many of B's classes as the dose says"),
    "neuron transfer": ("p", "A's neurons tell as many of B's classes as the dose says"),
}

UNREAD_COPY: dict[str, Row] = {
    **SEPARATE,
    "probe transfer": ("bsss", "the copy is alike in both domains, though nobody reads it"),
    "das": ("bnnn", "what is read in A does not vary in B; what varies in both is not read"),
}

QUIET: dict[str, Row] = SHARED | {"transplant": ("sbssb", "A's code is the same, and louder")}

LOUD: dict[str, Row] = SHARED | {
    "probe transfer": ("bsss", "offset and distractors lie beside the code; centred, they go")
}

BACKED_UP: dict[str, Row] = SHARED | {
    "das": ("bbss", "block 2 mends what is exchanged behind block 1"),
    "transplant": ("sbbsb", "block 2 mends what block 1 is given; beside that one circuit"),
}

INACCURATE: dict[str, Row] = SHARED | {
    "probe transfer": ("bsss", "B's code is the same where there is one; its own ceiling is low"),
    "das": ("bsss", "B's code is the same where there is one"),
}

TABLE: dict[str, dict[str, Row]] = {
    "all shared": SHARED,
    "all separate": SEPARATE,
    "shared from block 2": FROM_BLOCK_2,
    "separate, one output": ONE_OUTPUT,
    "rotated code": ROTATED,
    "rewired": REWIRED,
    "shared, quiet in B": QUIET,
    "unread shared copy": UNREAD_COPY,
    "offset and distractors": LOUD,
    "late separate": LATE_SEPARATE,
    "backup": BACKED_UP,
    "dose": DOSED,
    "shared, inaccurate": INACCURATE,
    "separate, accurate": SEPARATE,
}
"""What each measure must say of each condition, site by site."""

GATED = "A's P and Q are not read under B's cue; behind the gate, either lane's class is understood"

HARD: dict[str, dict[str, Row]] = {
    "all separate": {"transplant": ("nbbbb", GATED)},
    "separate, accurate": {"transplant": ("nbbbb", GATED)},
    "unread shared copy": {"transplant": ("nbbbb", GATED)},
    "separate, one output": {
        "probe transfer": ("bnnb", "the last directions are the same; a probe may weigh others"),
        "transplant": ("nbbsb", "A's P and Q are not read under B's cue; both heads write alike"),
    },
    "shared from block 2": {
        "probe transfer": ("bbss", "block 1 writes a shared code beside P and Q as brought"),
        "das": ("bsss", "block 1 chooses by the cue and writes a shared code"),
        "transplant": ("nsssb", "A's P and Q are not read under B's cue; what is chosen, is"),
        "neuron overlap": ("p", "the neurons that detect and choose differ"),
    },
}
"""What is other in the hard tier, where all goes by the cue."""


BESIDE = "what a training may have left beside what it asked for, nobody knows"
PARTS_APART = "what is read in A's part does not vary in B"

SHARED_PART: dict[str, Row] = {
    "probe transfer": ("bbbb", BESIDE),
    "cka": ("bbbb", BESIDE),
    "das": ("ssss", "one part tells the class in both domains"),
    "neuron overlap": ("s", "one part tells the class in both domains"),
    "neuron transfer": ("s", "one part tells the class in both domains"),
}

SEPARATE_PARTS: dict[str, Row] = SHARED_PART | {
    "das": ("nnnn", PARTS_APART),
    "neuron overlap": ("n", "each domain has a part of its own"),
    "neuron transfer": ("n", "each domain has a part of its own"),
}

MERGED: dict[str, dict[str, Row]] = {
    "all shared": SHARED_PART,
    "all separate": SEPARATE_PARTS,
    "separate, one direction": SEPARATE_PARTS
    | {"das": ("nnnb", f"{PARTS_APART}; at the end, {EITHER}")},
}
"""What each measure must say of each planted ResNet, stage by stage."""

TRAINED: dict[str, Row] = {
    "probe transfer": ("bbbb", BESIDE),
    "cka": ("bbbb", BESIDE),
    "transplant": ("bbbbb", BESIDE),
}
"""What is other in transformers that are trained: their circuits are asked for, not their codes."""

AnyBlueprint = Blueprint | TrainedBlueprint | ResNetBlueprint


def expected(blueprint: AnyBlueprint) -> tuple[Expected, ...]:
    """What every measure must say of a planted model, at every site where it is taken.

    The answer is `shared`, `not shared`, `in part` (between the two, or by the dose), or `blind`:
    the measure cannot tell there, and what it says is no evidence either way.

    >>> cells = expected(Blueprint("rotated code"))
    >>> [cell.answer for cell in cells if cell.measure == "das"]
    ['blind', 'not shared', 'not shared', 'shared']
    >>> [cell.answer for cell in cells if cell.measure == "node overlap"]
    ['shared']
    """
    return tuple(_cells(blueprint))


def _cells(blueprint: AnyBlueprint) -> Iterator[Expected]:
    merged = isinstance(blueprint, ResNetBlueprint)
    rows = MERGED[blueprint.condition] if merged else TABLE[blueprint.condition]
    if blueprint.tier == "hard":
        rows = rows | HARD[blueprint.condition]
    if isinstance(blueprint, TrainedBlueprint):
        rows = rows | TRAINED
    if blueprint.dose in (0, 1):
        rows = SHARED if blueprint.dose else LATE_SEPARATE
    for measure, (letters, reason) in rows.items():
        sites = STAGES if merged and len(letters) > 1 else SITES[measure]
        for site, letter in zip(sites, letters, strict=True):
            yield Expected(measure, site, ANSWERS[letter], reason)


EXACT, GRADIENT = 0.95, 0.9
"""Least AUROC of what exchanges activations, and of what estimates that from gradients."""


class Finding(NamedTuple):
    """What a method must do on a planted model: reach an AUROC of `least`, or nothing, and why."""

    least: float | None
    reason: str


FIXED = "RelP holds attention fixed, and a part is found by keys"
PLATEAU = "neurons stand where they have no slope, and plain gradients see none"
SATURATED = "training leaves neurons saturated, and plain gradients see little"
CHANCE = "drawn by chance"

WAYS = {
    "path patching": Finding(EXACT, "every edge is exchanged"),
    "resample ablation": Finding(EXACT, "every node or channel is exchanged"),
    "EAP": Finding(GRADIENT, "gradients at the clean picture"),
    "EAP-IG-inputs": Finding(GRADIENT, "gradients on the way from the partner's picture"),
    "EAP-IG-activations": Finding(GRADIENT, "gradients on the way from the partner's activations"),
    "integrated gradients": Finding(GRADIENT, "gradients on the way from the partner's channels"),
    "RelP": Finding(None, FIXED),
    "random": Finding(None, CHANCE),
}
"""Every way that is scored: of edges and nodes in transformers, of channels in ResNets."""


def findable(blueprint: AnyBlueprint, method: str) -> Finding:
    """What a method must do on a planted model.

    >>> from interp.circuits.planted.vit import Blueprint
    >>> findable(Blueprint("all shared"), "EAP").least
    0.9
    >>> findable(Blueprint("all shared", tier="steep"), "EAP").least is None
    True
    """
    if method == "EAP" and blueprint.tier in ("steep", "trained"):
        return Finding(None, PLATEAU if blueprint.tier == "steep" else SATURATED)
    return WAYS[method]
