"""The stages of a planted circuit, each written for a lane: domain A, domain B, or both at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.planted_weights import CONSTANT, D_EMBED, LAYERS, Draft
from interp.circuits.planted_world import AMPLITUDE, CARRIERS, CLASSES, PARTS, PATCH, World
from interp.core.seeds import rng

SECOND = {"AB": 0, "A": 0, "B": 1}
"""Which of the places for a stage a lane takes: the second is for domain B on its own."""

COMBINES = {"AB": 2, "A": 2, "B": 1}
"""The block whose neurons combine P and Q; another for domain B, because an MLP is one node."""

BRINGS, CARRIES, WRITES = 1, 2, 3
"""The blocks whose heads bring P and Q, carry K, and write the class."""

K_CODE = 0.5 + np.array([[value >> bit & 1 for bit in range(3)] for value in range(PARTS["K"])])
"""K's eight values as three levels of .5 or 1.5: linear to decode, and never all absent."""


@dataclass(frozen=True)
class Lanes:
    """Which domains each stage serves: one lane `AB` for both, or a lane `A` and a lane `B`."""

    detect: Sequence[str]
    bring: Sequence[str]
    combine: Sequence[str]
    write: Sequence[str]


def feeding(before: Sequence[str], lane: str) -> list[str]:
    """The lanes of an earlier stage that serve a domain of this lane.

    >>> feeding(("A", "B"), "AB"), feeding(("A", "B"), "B"), feeding(("AB",), "B")
    (['A', 'B'], ['B'], ['AB'])
    """
    return [other for other in before if set(other) & set(lane)]


def bringing_head(lane: str, part: str) -> int:
    """The head of block 1 that brings a part, P or Q."""
    return 2 * SECOND[lane] + "PQ".index(part)


def detect(draft: Draft, world: World, lane: str) -> list[int]:
    """Filters for P's and Q's glyphs in the lane's carriers, and neurons that say: it is there.

    seen = gelu(30 x - 12) / 6 - gelu(30 x - 18) / 6 rises from 0 to 1 where the filter's answer x
    goes from .4 to .6: a glyph of any contrast, .8 to 1.2, is seen as 1, and noise as 0.
    """
    neurons = []
    for part in ("P", "Q"):
        for value, glyph in enumerate(world.glyphs[part]):
            raw, seen = f"raw {part}{value} {lane}", f"{part}{value} {lane}"
            draft.filter(_matched(glyph, lane), raw)
            neurons.append(draft.neuron(0, {raw: 30.0}, -12.0, {seen: 1 / 6}))
            neurons.append(draft.neuron(0, {raw: 30.0}, -18.0, {seen: -1 / 6}))
    return neurons


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


def combine(draft: Draft, lane: str, seen_by: Sequence[str]) -> list[int]:
    """A neuron for each class, gelu(8 (P + Q) - 12) / 4: 1 where both are there, 0 otherwise."""
    neurons = []
    for place, (p, q) in enumerate(product(range(PARTS["P"]), range(PARTS["Q"]))):
        read = {f"{part} {by}": 8.0 for part, by in product((f"P{p}", f"Q{q}"), seen_by)}
        neurons.append(draft.neuron(COMBINES[lane], read, -12.0, {f"class {place} {lane}": 1 / 4}))
    return neurons


def write(draft: Draft, lane: str, combined_by: Sequence[str]) -> None:
    """A head of block 3, by which the class token reads its own class and writes the direction."""
    places = range(len(CLASSES))
    move = {f"class {c} {by}": {f"out {c} {lane}": 1.0} for c, by in product(places, combined_by)}
    draft.head(WRITES, SECOND[lane], look={"constant": 1 / CONSTANT}, move=move)


def add_decoys(draft: Draft, lanes: Sequence[str], *, seed: int) -> None:
    """Make all heads and neurons that have no part in a circuit busy, for nobody.

    Otherwise everything outside the circuit would be zero, and finding it no art. A decoy reads
    what one lane sees and writes onto the filters' answers, which nobody reads after block 0's
    neurons. Heads subtract, so that the class token never looks like a glyph to these. All of them
    whisper: what is loud is felt through the layer norms.
    """
    stream = rng("decoys", seed)
    for layer, head in draft.free_heads():
        lane = lanes[head % len(lanes)]
        reads, raw = _seen(lane, layer)[stream.integers(3)], _raw(lane)
        move = {signal: {str(stream.choice(raw)): -stream.uniform(0.1, 0.3)} for signal in reads}
        draft.head(layer, head, look=dict.fromkeys(reads, 1.0), move=move)
    for layer in range(LAYERS):
        for place in range(draft.free_neurons(layer)):
            lane = lanes[place % len(lanes)]
            reads, raw = [signal for kind in _seen(lane, layer) for signal in kind], _raw(lane)
            read = _weights(reads, stream.normal(size=len(reads)))
            write = _weights(raw, stream.normal(0, 0.01, len(raw)))
            draft.neuron(layer, read, float(stream.normal()), write)


def _raw(lane: str) -> list[str]:
    return [f"raw {part}{value} {lane}" for part in ("P", "Q") for value in range(PARTS[part])]


def _seen(lane: str, layer: int) -> list[list[str]]:
    """The signals that tell P's, Q's and K's glyphs in a lane when a block begins."""
    raw = "" if layer else "raw "
    seen = [[f"{raw}{part}{value} {lane}" for value in range(PARTS[part])] for part in ("P", "Q")]
    return [*seen, [f"K{bit} {lane}" for bit in range(3)]]


def _weights(signals: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(signals, values.tolist(), strict=True))


def read_out(draft: Draft, lanes: Sequence[str], *, seed: int) -> Float[Tensor, "class d_embed"]:
    """Project what was written onto the classes' directions, and return these.

    A class's direction is (a + b) / sqrt(2), all a and b orthonormal. A lane for both domains
    writes it, lane A writes a, lane B writes b. To every embedding half a unit is added that says
    nothing, so that an embedding without a class has a direction, too.
    """
    square = rng("class directions", seed).normal(size=(D_EMBED, D_EMBED))
    directions = torch.from_numpy(np.linalg.qr(square)[0])
    n = len(CLASSES)
    own = {"A": directions[:n], "B": directions[n : 2 * n]}
    own["AB"] = (own["A"] + own["B"]) / np.sqrt(2)
    for lane, place in product(lanes, range(n)):
        draft.read_out(f"out {place} {lane}", own[lane][place])
    draft.read_out("constant", directions[-1], gain=0.5 / CONSTANT)
    return own["AB"]


def _matched(glyph: np.ndarray, lane: str) -> np.ndarray:
    """The filter that answers to a glyph by its contrast, in each of the lane's carriers."""
    carrier = np.sum([CARRIERS[domain] for domain in lane], axis=0)
    return np.multiply.outer(carrier, glyph) / (AMPLITUDE * PATCH**2)
