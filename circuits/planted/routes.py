"""Routes from the glyphs to the class in planted models, and the circuits that they make."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import sqrt

from interp.circuits.planted import stages
from interp.circuits.planted.conditions import ONE, PIECES, Lanes
from interp.circuits.planted.model import Edge, Neuron, Truth
from interp.circuits.planted.stages import BRINGS, COMBINES, SECOND, WRITES, feeding
from interp.circuits.planted.weights import Draft
from interp.circuits.planted.world import CLASSES, DOMAINS, PARTS, World

QUIET = 2.677
"""What lowers a class's sum in domain B so that gelu(4 - 2.677) / 4 = .3 is left of its code."""

NUMBERS = range(len(CLASSES))


@dataclass
class Laid:
    """What a route has laid: circuits by domain and class, and who wrote what for the read-out.

    `written` says for each signal to be read out the lane and the class it stands for, `cued` which
    circuits go by the cue.
    """

    edges: dict[tuple[str, int], set[Edge]] = field(default_factory=lambda: defaultdict(set))
    neurons: dict[tuple[str, int], set[Neuron]] = field(default_factory=lambda: defaultdict(set))
    written: dict[str, tuple[str, int]] = field(default_factory=dict)
    backup: frozenset[str] = frozenset()
    cued: set[tuple[str, int]] = field(default_factory=set)

    def note(
        self, lane: str, layer: int, places: Sequence[int], numbers: Iterable[int] = NUMBERS
    ) -> None:
        """Neurons that serve the lane's domains, for some classes."""
        for at in product(lane, numbers):
            self.neurons[at].update((layer, place) for place in places)

    def wire(self, lane: str, edges: Iterable[Edge], numbers: Iterable[int] = NUMBERS) -> None:
        """Edges that serve the lane's domains, for some classes."""
        edges = list(edges)
        for at in product(lane, numbers):
            self.edges[at].update(edges)

    def truths(self) -> dict[str, tuple[Truth, ...]]:
        """For every domain the circuit of each class."""
        cue = frozenset(("input", f"{stages.CUE_HEAD}<{role}>") for role in "kv")
        return {
            domain: tuple(
                Truth(
                    frozenset(self.edges[domain, number]),
                    frozenset(self.neurons[domain, number]),
                    self.backup,
                    cue if (domain, number) in self.cued else frozenset(),
                )
                for number in NUMBERS
            )
            for domain in DOMAINS
        }


def by_lanes(draft: Draft, world: World, lanes: Lanes, shared: Collection[int]) -> Laid:
    """Detect, bring, combine, write: each stage by its lanes, for classes in `shared` by one lane.

    Where separate heads bring what one set of neurons combines, and other carriers hold codes, too
    (`cued`), neurons of block 1 first choose by the cue.
    """
    laid = Laid()
    _see(draft, world, lanes, laid, cue=lanes.needs_cue)
    for lane in lanes.bring:
        stages.bring(draft, lane, feeding(lanes.detect, lane))
    if lanes.loud:
        stages.add_offset_and_distractors(draft, world)
    if lanes.noisy:
        stages.add_noise_to_one_domain(draft, world, seed=world.seed)
    if lanes.driven:
        stages.drive_by_noise(draft, world, lanes.combine)
    if lanes.dosed == "geometry":
        stages.pair_unread(draft, lanes.dose)
    if lanes.copied:
        stages.copy_unread(draft, lanes.detect, cued=lanes.cued)
    chooses = lanes.cued and len(lanes.bring) > len(lanes.combine)
    if chooses:
        for lane, places in stages.choose_by_cue(draft, lanes.bring).items():
            laid.note(lane, stages.CHOOSES, places)
    moves: dict[int, dict[str, dict[str, float]]] = defaultdict(dict)
    for number in NUMBERS:
        one = lanes.dosed == "classes" and number in shared
        combine, write = (ONE if one else stage for stage in (lanes.combine, lanes.write))
        for lane in combine:
            places = stages.combine(
                draft,
                COMBINES[lane],
                number,
                ["AB"] if chooses else feeding(lanes.detect, lane),
                {f"class {number} {lane}": 1.0},
                cue=[f"cue {lane}"] if lanes.cued and lane != "AB" else [],
                against={"cue B": QUIET} if lanes.dim < 1 else None,
            )
            laid.note(lane, COMBINES[lane], places, [number])
        for lane in write:
            out = "AB" if lanes.one_output else lane
            for by in feeding(combine, lane):
                moves[SECOND[lane]][f"class {number} {by}"] = {f"out {number} {out}": 1.0}
            laid.written[f"out {number} {out}"] = (out, number)
        for domain in DOMAINS:
            if (lanes.cued and (chooses or domain in combine)) or (lanes.dim < 1 and domain == "B"):
                laid.cued.add((domain, number))
            edges = lane_edges(domain, lanes.bring, combine, write, chooses=chooses)
            laid.wire(domain, edges, [number])
    for head, move in moves.items():
        stages.write(draft, head, move)
    return laid


def rotated(draft: Draft, world: World, lanes: Lanes, shared: Collection[int]) -> Laid:
    """The same heads and MLPs for both domains, on signals of the domain's own.

    Block 1's heads bring P and Q of either lane as they are, block 2's neurons combine them for
    each lane apart, and block 3's neurons write the class, shared, from a lane whose cue there is:
    A's code in a picture under B's cue is not understood. Edges and nodes are the same in both
    domains, neurons all different.
    """
    laid = Laid()
    _see(draft, world, lanes, laid, cue=True)
    laid.cued.update(product(DOMAINS, NUMBERS))
    stages.bring(draft, "AB", lanes.detect)
    for lane, number in product(lanes.detect, NUMBERS):
        code, out = f"class {number} {lane}", f"out {number} AB"
        laid.note(lane, 2, stages.combine(draft, 2, number, [lane], {code: 1.0}), [number])
        laid.note(lane, 3, draft.every(3, [code, f"cue {lane}"], {out: 1.0}), [number])
        laid.written[out] = ("AB", number)
    heads = _bringing("AB")
    laid.wire("AB", [*_brought(heads), *((head, "m2") for head in heads)])
    laid.wire("AB", [("m2", "m3"), ("m3", "logits")])
    return laid


def rewired(draft: Draft, world: World, lanes: Lanes, shared: Collection[int]) -> Laid:
    """The same nodes in both domains, with other edges from block 1's heads to block 3's.

    In A head 0 brings P and head 1 brings Q, in B the other way round. Block 1's neurons read P and
    hand it on, block 2's neurons hand on Q: in A to the first and the second head of block 3, in B,
    by the cue, the other way round. Block 3's neurons combine what the two heads move.
    """
    laid = Laid()
    _see(draft, world, lanes, laid, cue=True)
    laid.cued.update(product(DOMAINS, NUMBERS))
    moves: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for domain, part in product(DOMAINS, "PQ"):
        layer, turn = 1 + "PQ".index(part), ("PQ".index(part) + DOMAINS.index(domain)) % 2
        bringer, mover = f"a{BRINGS}.h{turn}", f"a{WRITES}.h{turn}"
        for v in range(PARTS[part]):
            name = f"{part}{v}"
            moves[bringer][f"{name} {domain}"] = {f"{name} brought": 1.0}
            handed, moved = f"{name} for {turn}", f"{name} moved"
            places = draft.every(layer, [f"{name} brought", f"cue {domain}"], {handed: 1.0})
            laid.note(domain, layer, places)
            moves[mover][handed] = {moved: 1.0}
        laid.wire(domain, _brought([bringer]))
        laid.wire(domain, [(bringer, f"m{layer}"), (f"m{layer}", f"{mover}<v>"), (mover, "m3")])
    for turn in range(2):
        move = moves[f"a{BRINGS}.h{turn}"]
        draft.head(BRINGS, turn, look=dict.fromkeys(move, 1.0), move=move)
        stages.write(draft, turn, moves[f"a{WRITES}.h{turn}"])
    for number in NUMBERS:
        out = f"out {number} AB"
        laid.note("AB", 3, stages.combine(draft, 3, number, ["moved"], {out: 1.0}), [number])
        laid.written[out] = ("AB", number)
    laid.wire("AB", [("m3", "logits")])
    return laid


def backed_up(draft: Draft, world: World, lanes: Lanes, shared: Collection[int]) -> Laid:
    """One lane, in which block 1's neurons combine, and block 2's mend what they find wrong.

    A neuron for each class adds the class where P and Q are there and block 1 has not told it; two
    more take back a class that block 1 has told without P and Q. In a picture as it is they have
    nothing to do; exchange block 1's MLP, and they restore the class.
    """
    laid = Laid(backup=frozenset({"m1", "m2"}))
    _see(draft, world, lanes, laid, cue=False)
    stages.bring(draft, "AB", ["AB"])
    move: dict[str, dict[str, float]] = {}
    for number in NUMBERS:
        code, out = f"class {number} AB", f"out {number} AB"
        both = [f"{part} AB" for part in CLASSES[number].upper().split()]
        laid.note("AB", 1, draft.every(1, both, {code: 1.0}), [number])
        adds = draft.every(2, both, {code: 1.0}, against={code: 8.0})
        excess = {code: 2.0, **dict.fromkeys(both, -1.0)}
        laid.note("AB", 2, adds + draft.threshold(2, excess, {code: -1.0}), [number])
        move[code] = {out: 1.0}
        laid.written[out] = ("AB", number)
    stages.write(draft, 0, move)
    heads, writer = _bringing("AB"), f"a{WRITES}.h0"
    laid.wire("AB", _brought(heads))
    laid.wire("AB", [*product(heads, ("m1", "m2")), ("m1", "m2"), (writer, "logits")])
    laid.wire("AB", [("m1", f"{writer}<v>"), ("m2", f"{writer}<v>")])
    return laid


def in_parts(draft: Draft, world: World, lanes: Lanes, shared: Collection[int]) -> Laid:
    """One lane, in which a class is combined by twenty parts, of which a share serves both domains.

    The others answer under one domain's cue. Of what is written for a class, the shared parts make
    the share d, on a signal of both domains of length sqrt(d), and each domain's own the rest, on
    a signal of its own: so d is the cosine of the two codes, the share of the parts, and that of
    the work they do. P and Q as brought, which the domains share, are taken back.
    """
    laid = Laid()
    laid.note("AB", 0, stages.detect(draft, world, "AB"))
    stages.bring_cue(draft, world)
    stages.bring(draft, "AB", ["AB"])
    stages.take_back(draft, "AB")
    common = round(lanes.dose * PIECES)
    ways = {"AB": common, "A": PIECES - common, "B": PIECES - common}
    move: dict[str, dict[str, float]] = {}
    for number, (lane, n) in product(NUMBERS, ways.items()):
        if not n:
            continue
        code, out, length = f"class {number} {lane}", f"out {number} AB", sqrt(n / PIECES)
        cue = [] if lane == "AB" else [f"cue {lane}"]
        for _ in range(n):
            places = stages.combine(draft, 2, number, ["AB"], {code: length / n}, cue=cue)
            laid.note(lane, 2, places, [number])
        move[code] = {out: length}
        laid.written[out] = ("AB", number)
        if cue:
            laid.cued.update([(lane, number)])
    stages.write(draft, 0, move)
    laid.wire("AB", lane_edges("A", ONE, ONE, ONE))
    return laid


Route = Callable[[Draft, World, Lanes, Collection[int]], Laid]

ROUTES: Mapping[str, Route] = {
    "lanes": by_lanes,
    "rotated": rotated,
    "rewired": rewired,
    "backed up": backed_up,
    "in parts": in_parts,
}
"""How a planted model gets from the glyphs to the class, by the name in `Lanes.route`."""


def _see(draft: Draft, world: World, lanes: Lanes, laid: Laid, *, cue: bool) -> None:
    """Detect P and Q, carry K for nobody, and bring the cue if it is read."""
    for lane in lanes.detect:
        laid.note(lane, 0, stages.detect(draft, world, lane, sensitivity=lanes.sensitivity))
        stages.carry_unread(draft, world, lane)
    if cue:
        stages.bring_cue(draft, world)


def _bringing(lane: str) -> list[str]:
    return [f"a{BRINGS}.h{stages.bringing_head(lane, part)}" for part in "PQ"]


def _brought(heads: Iterable[str]) -> list[Edge]:
    """From the input to heads that bring a part: where it is, and what it is."""
    way = [("m0", f"{head}<{role}>") for head in heads for role in "kv"]
    return [("input", "m0"), *way]


def lane_edges(
    domain: str,
    bring: Sequence[str],
    combine: Sequence[str],
    write: Sequence[str],
    *,
    chooses: bool = False,
) -> list[Edge]:
    """The way from the input to the logits, through the lanes that serve a domain."""
    lanes = [feeding(stage, domain)[0] for stage in (bring, combine, write)]
    heads, combiner = _bringing(lanes[0]), f"m{COMBINES[lanes[1]]}"
    writer = f"a{WRITES}.h{SECOND[lanes[2]]}"
    through = f"m{stages.CHOOSES}" if chooses else combiner
    edges = [*_brought(heads), *((head, through) for head in heads)]
    if chooses:
        edges.append((through, combiner))
    return [*edges, (combiner, f"{writer}<v>"), (writer, "logits")]
