"""The stages of a planted circuit, each written for a lane: domain A, domain B, or both at once."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.circuits.planted.weights import CONSTANT, LAYERS, Draft
from interp.circuits.planted.world import (
    AMPLITUDE,
    CARRIERS,
    CLASSES,
    DOMAINS,
    PARTS,
    PATCH,
    World,
    planted_directions,
)
from interp.core.seeds import rng

SECOND = {"AB": 0, "A": 0, "B": 1}
"""Which of the places for a stage a lane takes: the second is for domain B on its own."""

COMBINES = {"AB": 2, "A": 2, "B": 1}
"""The block whose neurons combine P and Q; another for domain B, because an MLP is one node."""

CUES = (0, 0)
CUE_HEAD = "a0.h0"
"""Block and head that bring the cue, in models that read it, and the name of that node."""

DISTRACTS = (1, 2)
"""Block and head that bring loud distractors, where there are some."""

DRIVES = (2, 2)
"""Block and head that bring what noise drives, where it does."""

DRIVEN_BY = 6.0
"""What filters' answers to noise are multiplied by: so they deviate by .4 in pictures of nothing
else, where some pass the threshold, and by .07 in the world's, where none does."""

LOUD = 4.0
"""How long a pairing of the classes is, beside P, Q and the class of length 1."""

PAIRINGS = (0, 0, 1, 1, 2, 3, 3, 2), (0, 1, 1, 0, 2, 2, 3, 3)
"""Two ways to pair the classes, without a pair in common. In both about as many pairs share P or Q
as in a random one, so that neither goes with what else is in the stream."""

CHOOSES = COPIES = 1
"""The block whose neurons choose between two lanes by the cue, or copy the class for nobody."""

BRINGS, CARRIES, WRITES = 1, 2, 3
"""The blocks whose heads bring P and Q, carry K, and write the class."""

K_CODE = 0.5 + np.array([[value >> bit & 1 for bit in range(3)] for value in range(PARTS["K"])])
"""K's eight values as three levels of .5 or 1.5: linear to decode, and never all absent."""


def feeding(before: Sequence[str], lane: str) -> list[str]:
    """The lanes of an earlier stage that serve a domain of this lane.

    >>> feeding(("A", "B"), "AB"), feeding(("A", "B"), "B"), feeding(("AB",), "B")
    (['A', 'B'], ['B'], ['AB'])
    """
    return [other for other in before if set(other) & set(lane)]


def bringing_head(lane: str, part: str) -> int:
    """The head of block 1 that brings a part, P or Q."""
    return 2 * SECOND[lane] + "PQ".index(part)


def detect(draft: Draft, world: World, lane: str, *, sensitivity: float = 1.0) -> list[int]:
    """Filters for P's and Q's glyphs in the lane's carriers, and neurons that say: it is there.

    The filter's answer x goes from .4 to .6 while what is seen goes from 0 to 1: a glyph of any
    contrast, .8 to 1.2, is seen as 1, and noise as 0. Domain B's carrier counts by `sensitivity`.
    """
    neurons = []
    for part in ("P", "Q"):
        for value, glyph in enumerate(world.glyphs[part]):
            raw, seen = f"raw {part}{value} {lane}", f"{part}{value} {lane}"
            draft.filter(_matched(glyph, lane, sensitivity), raw)
            neurons += draft.threshold(0, {raw: 1.0}, {seen: 1.0})
    return neurons


def bring_cue(draft: Draft, world: World) -> None:
    """A head of block 0 brings the cue to the class token, and neurons make it `cue A` or `cue B`.

    Both are 0 or 1. Since the cue is the same in all pictures of a domain, none of this is part of
    a circuit that tells classes.
    """
    raw = [f"raw cue {domain}" for domain in DOMAINS]
    for name, glyph in zip(raw, world.glyphs["cue"], strict=True):
        draft.filter(_matched(glyph, "cue"), name)
    draft.head(*CUES, look=dict.fromkeys(raw, 1.0), move={name: {name: 1.0} for name in raw})
    for domain, name in zip(DOMAINS, raw, strict=True):
        draft.threshold(0, {name: 1.0}, {f"cue {domain}": 1.0})


def carry_unread(draft: Draft, world: World, lane: str) -> None:
    """Filters for K's code, and a head of block 2 that brings it to the class token, for nobody."""
    levels = [f"K{bit} {lane}" for bit in range(3)]
    for bit, level in enumerate(levels):
        glyph = np.tensordot(K_CODE[:, bit], world.glyphs["K"], axes=1)
        draft.filter(_matched(glyph, lane), level)
    look = dict.fromkeys(levels, 1.0)
    draft.head(CARRIES, SECOND[lane], look=look, move={level: {level: 1.0} for level in levels})


def bring(draft: Draft, lane: str, seen_by: Sequence[str]) -> None:
    """Two heads of block 1: one finds the patch that shows P, one that shows Q, and bring it."""
    for part in ("P", "Q"):
        signals = [f"{part}{v} {by}" for v, by in product(range(PARTS[part]), seen_by)]
        draft.head(
            BRINGS,
            bringing_head(lane, part),
            look=dict.fromkeys(signals, 1.0),
            move={signal: {signal: 1.0} for signal in signals},
        )


def choose_by_cue(draft: Draft, lanes: Sequence[str]) -> dict[str, list[int]]:
    """Neurons of block 1 that hand on P and Q as lane `AB`, from the lane whose cue there is."""
    return {
        lane: [
            place
            for part in "PQ"
            for v in range(PARTS[part])
            for place in draft.every(
                CHOOSES, [f"{part}{v} {lane}", f"cue {lane}"], {f"{part}{v} AB": 1.0}
            )
        ]
        for lane in lanes
    }


def combine(
    draft: Draft,
    layer: int,
    number: int,
    seen_by: Sequence[str],
    write: Mapping[str, float],
    *,
    cue: Sequence[str] = (),
    against: Mapping[str, float] | None = None,
) -> list[int]:
    """Neurons for a class that fire where P and Q are both there, in some lane, under its cue."""
    parts = CLASSES[number].upper().split()
    read = [f"{part} {by}" for part, by in product(parts, seen_by)]
    return draft.every(layer, [*read, *cue], write, of=2 + len(cue), against=against)


def write(draft: Draft, head: int, move: Mapping[str, Mapping[str, float]]) -> None:
    """A head of block 3, by which the class token reads its own signals and writes others."""
    draft.head(WRITES, head, look={"constant": 1 / CONSTANT}, move=move)


def take_back(draft: Draft, lane: str) -> None:
    """Neurons of block 2 that take P and Q from the class token, and from it alone."""
    for part in "PQ":
        for v in range(PARTS[part]):
            signal = f"{part}{v} {lane}"
            read = {signal: 0.5, "constant": 0.25 / CONSTANT}  # .25 or .75; in patches -.25 or .25
            draft.threshold(COMBINES[lane], read, {signal: -1.0})


def pair_unread(draft: Draft, dose: float) -> None:
    """Neurons of block 1 that write, loudly and for nobody, which classes are a pair.

    In domain A the first of `PAIRINGS`; in B that and the second, weighted such that debiased CKA
    of the two domains is the square of the dose, as for codes with that cosine.
    """
    ours, theirs = pairing_weights(dose)
    for number in range(len(CLASSES)):
        one, other = (f"pair {way}{pairs[number]}" for way, pairs in enumerate(PAIRINGS))
        for domain, weights in (("A", {one: 1.0}), ("B", {one: ours, other: theirs})):
            loud = {signal: LOUD * weight for signal, weight in weights.items()}
            combine(draft, COPIES, number, ["AB"], loud, cue=[f"cue {domain}"])


def pairing_weights(dose: float) -> tuple[float, float]:
    """Lengths of one pairing and of another, whose debiased CKA with the first is dose squared.

    Two pairings of eight classes that have no pair in common have a debiased CKA of -1/6.

    >>> pairing_weights(1.0)
    (1.0, 0.0)
    """
    between = -1 / 6
    other = np.sqrt((1 - dose**4) / (1 - between**2))
    return float(np.sqrt(dose**2 - between * other)), float(np.sqrt(other))


def copy_unread(draft: Draft, lanes: Sequence[str], *, cued: bool) -> None:
    """Neurons of block 1 that write the class alike in both domains, twice as loud, for nobody."""
    for lane, number in product(lanes, range(len(CLASSES))):
        cue = [f"cue {lane}"] if cued else []
        combine(draft, COPIES, number, [lane], {f"copy {number}": 2.0}, cue=cue)


def add_offset_and_distractors(draft: Draft, world: World) -> None:
    """A constant of length 3 in each domain's pictures, and R three times as loud as P, for nobody.

    Both at the class token, each on signals that the other domain does not use.
    """
    for domain in DOMAINS:
        draft.threshold(0, {f"raw cue {domain}": 1.0}, {f"offset {domain}": 3.0})
    names = _detect_nuisance(draft, world)
    move = {name: {f"loud {name}": 3.0} for name in names}
    draft.head(*DISTRACTS, look=dict.fromkeys(names, 1.0), move=move)


def add_noise_to_one_domain(draft: Draft, world: World, *, seed: int) -> None:
    """R moves P and Q as brought up and down in domain B, and signals that nobody reads in A.

    By .12 each, at random for every value of R, which is independent of the class. Steep neurons
    stand on a plateau that is wider, so that nothing comes of it.
    """
    names, generator = _detect_nuisance(draft, world), rng("unequal noise", seed)
    brought = [f"{part}{v}" for part in "PQ" for v in range(PARTS[part])]
    move = {}
    for name in names:
        signals = [f"{part} AB" if name.endswith("B") else f"noise {part}" for part in brought]
        move[name] = _weights(signals, 0.12 * generator.choice([-1, 1], size=len(signals)))
    draft.head(*DISTRACTS, look=dict.fromkeys(names, 1.0), move=move)


def drive_by_noise(draft: Draft, world: World, lanes: Sequence[str]) -> None:
    """Filters that answer to noise and to no glyph, each of which writes a class in every lane.

    A patch of noise writes some of the classes, and a picture of the world none.
    A head brings those of the patch that answers most.
    """
    for number, pattern in enumerate(world.unused_patterns[: len(CLASSES)]):
        raw, driven = f"raw drive {number}", f"drive {number}"
        draft.filter(DRIVEN_BY * _matched(pattern, "AB"), raw)
        draft.threshold(0, {raw: 1.0}, {driven: 1.0})
    names = [f"drive {number}" for number in range(len(CLASSES))]
    move = {
        name: {f"class {number} {lane}": 1.0 for lane in lanes} for number, name in enumerate(names)
    }
    draft.head(*DRIVES, look=dict.fromkeys(names, 1.0), move=move)


def _detect_nuisance(draft: Draft, world: World) -> list[str]:
    """Filters and neurons for R's glyphs in each domain; the names of what they see."""
    found = {
        f"R{v} {name}": (glyph, name)
        for name in DOMAINS
        for v, glyph in enumerate(world.glyphs["R"])
    }
    for name, (glyph, domain) in found.items():
        draft.filter(_matched(glyph, domain), f"raw {name}")
        draft.threshold(0, {f"raw {name}": 1.0}, {name: 1.0})
    return list(found)


def add_decoys(
    draft: Draft, lanes: Sequence[str], *, aside: bool = False, hushed: float = 1.0, seed: int
) -> None:
    """Make all heads and neurons that have no part in a circuit busy, for nobody.

    Otherwise everything outside the circuit would be zero, and finding it no art. A decoy reads
    what one lane sees and writes onto the filters' answers, which nobody reads after block 0's
    neurons. Heads subtract, so that the class token never looks like a glyph to these. All of them
    whisper: what is loud is felt through the layer norms. Those of block 0 barely breathe: its
    neurons do read the filters' answers, and a head given another picture's values could hide a
    glyph from them. Where filters answer in the middle of block 0's thresholds, even that would be
    felt: there its heads write `aside`, on other signals. All that decoys write is `hushed` by a
    factor.
    """
    generator = rng("decoys", seed)
    for layer, head in draft.free_heads():
        lane = lanes[head % len(lanes)]
        reads, raw = _visible(lane, layer)[generator.integers(3)], _raw(lane)
        if aside and not layer:
            raw = [f"aside of {signal}" for signal in raw]
        loudness = hushed * (1.0 if layer else 0.1)
        move = {
            signal: {str(generator.choice(raw)): -loudness * generator.uniform(0.1, 0.3)}
            for signal in reads
        }
        draft.head(layer, head, look=dict.fromkeys(reads, 1.0), move=move)
    for layer in range(LAYERS):
        for place in range(draft.free_neurons(layer)):
            lane = lanes[place % len(lanes)]
            reads, raw = [signal for kind in _visible(lane, layer) for signal in kind], _raw(lane)
            read = _weights(reads, generator.normal(size=len(reads)))
            write = _weights(raw, generator.normal(0, 0.01 * hushed, len(raw)))
            draft.neuron(layer, read, float(generator.normal()), write)


def _raw(lane: str) -> list[str]:
    return [f"raw {part}{value} {lane}" for part in ("P", "Q") for value in range(PARTS[part])]


def _visible(lane: str, layer: int) -> list[list[str]]:
    """The signals that tell P's, Q's and K's glyphs in a lane when a block begins."""
    raw = "" if layer else "raw "
    seen = [[f"{raw}{part}{value} {lane}" for value in range(PARTS[part])] for part in ("P", "Q")]
    return [*seen, [f"K{bit} {lane}" for bit in range(3)]]


def _weights(signals: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(signals, values.tolist(), strict=True))


def read_out(
    draft: Draft, written: Mapping[str, tuple[str, int]], *, seed: int
) -> Float[Tensor, "class d_embed"]:
    """Project what was written onto the classes' directions, and return these.

    `written` says for each signal its lane, as in `planted_directions`, and its class. To every
    embedding half a unit is added that says nothing, so that an embedding without a class has a
    direction.
    """
    own = planted_directions(seed)
    for signal, (lane, number) in written.items():
        draft.read_out(signal, own[lane][number])
    draft.read_out("constant", own["free"][-1], gain=0.5 / CONSTANT)
    return own["AB"]


def _matched(glyph: np.ndarray, lane: str, sensitivity: float = 1.0) -> np.ndarray:
    """The filter that answers to a glyph by its contrast, in each of the lane's carriers."""
    carriers = ["cue"] if lane == "cue" else list(lane)
    gains = [sensitivity if name == "B" else 1.0 for name in carriers]
    carrier = gains @ np.stack([CARRIERS[name] for name in carriers])
    return np.multiply.outer(carrier, glyph) / (AMPLITUDE * PATCH**2)
