"""The wiring of a tower: what writes to its stream, what reads it, and the edges between them.

Nodes carry the field's names: `input` (the stream that enters block 0), `a3.h5` (a head), `m3` (an
MLP), `logits` (what reads the last stream). A head reads three times, as `a3.h5<q>`, `<k>`, `<v>`.

`Flow` holds what every writer of a run added. `run_masked` is the engine behind circuits: a
reader's stream is the corrupt run's, and along each edge that is kept the writer's part in *this*
run takes the place of its part in the corrupt run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.core.errors import ShapeError, SiteError, SpecificationError, listed, nearest
from interp.core.tower import Component, Tower, Wired, check_evaluation, resumption

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class Wiring:
    """The writers, readers and edges of a tower, as `wire` finds them.

    Args:
        writers: Names of the writers in the order of the computation, `input` first.
        readers: Names of the readers in the same order, `logits` last.
        seen: For each reader, how many of the writers come before it.

    Notes:
        There is an edge from a writer to every reader that comes after it. Edges are counted reader
        by reader. `edges` lists them as places of a writer and of a reader, `edge 2`.

    >>> from interp.circuits import Chain, wire
    >>> import torch
    >>> for edge in wire(Chain([torch.nn.Identity(), torch.nn.Identity()])).names:
    ...     print(edge)
    input->m0
    input->m1
    m0->m1
    input->logits
    m0->logits
    m1->logits
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    seen: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Wiring({len(self.nodes)} nodes, {self.n_edges:,} edges)"

    @cached_property
    def edges(self) -> np.ndarray:
        """Places of writer and reader of every edge, `[edge 2]`."""
        pairs = [np.stack([np.arange(n), np.full(n, v)], 1) for v, n in enumerate(self.seen)]
        return np.concatenate(pairs)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each reader's edges begin, and last the number of all edges, `reader + 1`."""
        return np.concatenate([[0], np.cumsum(self.seen)])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every edge as `writer->reader`."""
        return tuple(f"{self.writers[u]}->{self.readers[v]}" for u, v in self.edges)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Every writer, and the output."""
        return (*self.writers, OUTPUT)

    @cached_property
    def owners(self) -> np.ndarray:
        """The place of each reader's node, `reader`."""
        place = {name: number for number, name in enumerate(self.nodes)}
        return np.array([place[node_of(reader)] for reader in self.readers])

    @cached_property
    def layers(self) -> np.ndarray:
        """The block of each node, `node`: -1 for the input, `n_layers` for the output."""
        inner = [int(name[1:].split(".")[0]) for name in self.writers[1:]]
        return np.array([-1, *inner, max(inner, default=-1) + 1])

    @cached_property
    def groups(self) -> np.ndarray:
        """For each edge a number that it shares with all edges between the same two blocks."""
        senders, readers = self.edges.T
        return self.layers[senders] * 1000 + self.layers[self.owners[readers]]

    @property
    def n_edges(self) -> int:
        """The number of edges."""
        return int(self.offsets[-1])

    def edge(self, name: str) -> int:
        """The place of an edge by its name.

        Args:
            name: The edge as `writer->reader`.

        Returns:
            Its number among `names`.

        Raises:
            SiteError: If there is no such edge.
        """
        try:
            return self._places[name]
        except KeyError:
            given = f"a tower of {self.n_edges} edges"
            right = "a writer and a reader behind it, as in 'm0->a1.h0<v>' or 'input->logits'"
            do = f"try {nearest(name, self.names)}"
            raise SiteError(f"find the edge {name!r}", given, right, do) from None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def node_of(reader: str) -> str:
    """The node that a reader belongs to: `a3.h5` of `a3.h5<q>`."""
    return reader.split("<")[0]


def wire(tower: Tower) -> Wiring:
    """Find the writers, readers and edges of a tower.

    Args:
        tower: A tower whose stream is a sum of parts: a ViT, a text transformer or a `Chain`.

    Returns:
        Its wiring.

    Raises:
        SpecificationError: For a tower whose stream is no sum of parts, or whose batch norm or
            dropout is in training mode.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> wire(Chain([torch.nn.Identity()])).names
    ('input->m0', 'input->logits', 'm0->logits')
    """
    check_evaluation(tower, "wire a tower edge by edge")
    writers, readers, seen = [INPUT], [], []
    for component in parts_of(tower):
        readers += component.readers
        seen += [len(writers)] * len(component.readers)
        writers += component.writers
    return Wiring(tuple(writers), (*readers, OUTPUT), (*seen, len(writers)))


def parts_of(tower: Tower) -> Sequence[Component]:
    """The tower's components, or an error that says which towers have some."""
    if not isinstance(tower, Wired):
        raise SpecificationError(
            "wire a tower edge by edge",
            f"a {type(tower).__name__}",
            "a tower whose stream is a sum of what its components add: a ViT or a text transformer",
            "sweep sites or channels instead",
        )
    return tower.components


def check_edges(wiring: Wiring, names: Sequence[str]) -> np.ndarray:
    """Places of edges by name; refuses none at all and unknown ones."""
    if not len(names):
        right = f"one or more of {listed(wiring.names, limit=3)}"
        do = "name some, or take those of a Circuit"
        raise SpecificationError("choose edges", "no edge", right, do)
    return np.array([wiring.edge(name) for name in names])


@dataclass(frozen=True)
class Flow:
    """One run, opened: the stream before each component and at the end, and what each one wrote.

    `streams` has one entry more than there are components; `written[i]` is the activation at
    `components[i].writes`; `words` are the keywords that a resumed run needs.
    """

    streams: Sequence[Tensor]
    written: Sequence[Tensor]
    output: Tensor
    words: dict[str, Any]

    def __len__(self) -> int:
        return len(self.output)

    def __getitem__(self, rows: slice) -> "Flow":
        return Flow(
            [stream[rows] for stream in self.streams],
            [part[rows] for part in self.written],
            self.output[rows],
            {key: tokens[rows] for key, tokens in self.words.items()},
        )

    def resume(self, copies: int = 1) -> dict[str, Any]:
        """The keywords for so many copies of the batch."""
        return {key: tokens.repeat(copies, 1) for key, tokens in self.words.items()}


def open_run(tower: Tower, x: Tensor) -> Flow:
    """Run the tower once, without gradients, and keep what a circuit needs of it."""
    components = parts_of(tower)
    words = resumption(tower, x)
    names = list(dict.fromkeys([c.reads for c in components] + [c.writes for c in components]))
    with torch.no_grad():
        last, cache = tower.run_with_cache(x, names_filter=names, stop_at_layer=tower.n_layers)
        output = tower(last, start_at_layer=tower.n_layers, **words)
    streams = [*(cache[c.reads] for c in components), last]
    return Flow(streams, [cache[c.writes] for c in components], output, words)


def open_pair(tower: Tower, clean: Tensor, corrupt: Tensor) -> tuple[Flow, Flow]:
    """Both runs of some pairs, opened; refuses texts that end at other places than their partners.

    What runs on from the stream of one is read where the text of the other ends.
    """
    runs = open_run(tower, clean), open_run(tower, corrupt)
    check_ends(tower, runs[1], clean)
    return runs


@torch.no_grad()
def check_ends(tower: Tower, run: Flow, partners: Tensor) -> None:
    """Refuse an opened run of texts whose partners end elsewhere."""
    if not run.words:
        return
    read = tower(run.streams[-1], start_at_layer=tower.n_layers, **resumption(tower, partners))
    apart = (read != run.output).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    if apart:
        given = f"partners that end at different places (pair {listed(apart)})"
        right = "partners of as many tokens"
        do = "exchange a word for one of as many tokens, or leave these pairs out"
        raise SpecificationError("compare texts edge by edge", given, right, do)


class Parts:
    """What writers have added so far, as differences between two runs: `[batch writer stream]`."""

    def __init__(self, n_writers: int, stream: Tensor, *, copies: int = 1) -> None:
        rows = copies * len(stream)
        self.buffer = stream.new_empty(rows, n_writers, stream[0].numel())
        self.filled = 0

    def add(self, parts: Tensor) -> None:
        """Take in what a component wrote, for one copy of the batch or for all."""
        n = parts.shape[1]
        here = self.buffer[:, self.filled : self.filled + n].unflatten(0, (-1, len(parts)))
        here.copy_(parts.flatten(2).expand_as(here))
        self.filled += n


def run_masked(
    tower: Tower,
    wiring: Wiring,
    masks: Bool[np.ndarray, "mask *rows edge"],
    *,
    clean: Flow,
    corrupt: Flow,
) -> Float[Tensor, "mask batch d_embed"]:
    """Outputs when only the edges of a mask carry what this run computes, all others the corrupt.

    Masks are the same for every example, `[mask edge]`, or its own for each, `[mask batch edge]`.

    stream[v] = corrupt stream[v] + sum over kept edges (u, v) of (part of u in this run - its part
    in the corrupt run). The input's part is clean. With every edge kept this is the clean run,
    with none the corrupt one. Components before the first edge that any mask cuts are not computed
    again. All masks share one forward, of masks x batch examples.
    """
    right = [(wiring.n_edges,), (len(clean), wiring.n_edges)]
    if masks.shape[1:] not in right:
        raise ShapeError(
            "run a tower under masks",
            f"masks of shape {masks.shape}",
            f"(masks, {wiring.n_edges}), or (masks, {len(clean)}, {wiring.n_edges})",
            "give a Boolean for each edge, in the order of Wiring.edges",
        )
    n = len(masks)
    mixer = _Mixer(wiring, masks, clean.streams[0])
    mixer.add(clean.streams[0][:, None] - corrupt.streams[0][:, None])
    with torch.no_grad():
        for number, component in enumerate(parts_of(tower)):
            streams = mixer.streams(corrupt.streams[number], len(component.readers))
            before = component.write(corrupt.written[number])
            if streams is None:
                mixer.add(component.write(clean.written[number]) - before)
            else:
                added = component.run(streams, clean.resume(n).get("tokens"))
                mixer.add((added.unflatten(0, (n, -1)) - before).flatten(0, 1))
        last = mixer.streams(corrupt.streams[-1], 1)
        if last is None:
            return clean.output.expand(n, *clean.output.shape)
        out = tower(last[:, 0], start_at_layer=tower.n_layers, **clean.resume(n))
    return out.unflatten(0, (n, -1))


def run_gated(
    tower: Tower,
    wiring: Wiring,
    gates: Float[Tensor, "batch edge"],
    *,
    start: Tensor,
    words: Mapping[str, Any],
    corrupt: Flow,
) -> Float[Tensor, "batch d_embed"]:
    """What `run_masked` gives, with gradients: a gate of 1 keeps an edge, one of 0 cuts it.

    Each example has gates of its own. `start` is the clean stream that enters block 0, `words` are
    the keywords that its run needs. Nothing is written in place, since a gradient needs what was
    there.
    """
    parts = [(start - corrupt.streams[0]).flatten(1)[:, None]]
    reader = 0
    for number, component in enumerate(parts_of(tower)):
        streams = _gated_streams(wiring, gates, parts, corrupt.streams[number], component, reader)
        reader += len(component.readers)
        added = component.run(streams, words.get("tokens"))
        parts.append((added - component.write(corrupt.written[number])).flatten(2))
    last = _gated_streams(wiring, gates, parts, corrupt.streams[-1], None, reader)
    return tower(last[:, 0], start_at_layer=tower.n_layers, **words)


def _gated_streams(
    wiring: Wiring,
    gates: Tensor,
    parts: Sequence[Tensor],
    base: Tensor,
    component: Component | None,
    reader: int,
) -> Tensor:
    """The streams of a component's readers, the first of which is number `reader`."""
    n = 1 if component is None else len(component.readers)
    cut = wiring.offsets[[reader, reader + n]]
    kept = gates[:, cut[0] : cut[1]].unflatten(1, (n, -1)).split([p.shape[1] for p in parts], -1)
    mixed = base.flatten(1)[:, None].expand(-1, n, -1)
    for gate, part in zip(kept, parts, strict=True):
        mixed = torch.baddbmm(mixed, gate, part)
    return mixed.unflatten(-1, base.shape[1:])


class _Mixer(Parts):
    """The parts written so far, as differences from the corrupt run, and each reader's mixture."""

    def __init__(self, wiring: Wiring, masks: np.ndarray, stream: Tensor) -> None:
        super().__init__(len(wiring.writers), stream, copies=len(masks))
        self.wiring, self.copies, self.batch = wiring, len(masks), len(stream)
        self.shape = stream.shape[1:]
        self.kept = torch.as_tensor(masks, device=stream.device).to(stream.dtype)
        if masks.ndim == 3:
            self.kept = self.kept.flatten(0, 1)
        self.reader = 0
        self.whole = True

    def streams(self, base: Tensor, n: int) -> Tensor | None:
        """The streams of the next n readers, `[mask*batch reader *stream]`; None while clean."""
        cut = self.wiring.offsets[self.reader : self.reader + n + 1]
        kept = self.kept[:, cut[0] : cut[-1]].unflatten(1, (n, -1))
        self.reader += n
        self.whole = self.whole and bool(kept.all())
        if self.whole:
            return None
        start = base.flatten(1)[None, :, None].expand(self.copies, -1, n, -1).flatten(0, 1)
        if len(kept) < len(self.buffer):
            kept = kept.repeat_interleave(self.batch, dim=0)
        mixed = torch.baddbmm(start, kept, self.buffer[:, : kept.shape[-1]])
        return mixed.unflatten(-1, self.shape)


def fitting_memory(wiring: Wiring, flow: Flow, *, memory: int, batch_size: int) -> int:
    """How many examples (masks x batch) a masked run may hold within `memory` bytes.

    An example holds all writers' parts and, for the readers of one component, three streams.
    """
    stream = flow.streams[0][0]
    readers = max(np.unique(wiring.seen, return_counts=True)[1])
    need = (len(wiring.writers) + 3 * int(readers)) * stream.nbytes
    if batch_size < 1 or memory < need:
        given = f"batches of {batch_size} and a budget of {memory} bytes"
        right = f"at least 1 example and {need} bytes, what one example under one mask needs"
        raise SpecificationError("run a circuit", given, right, "raise batch_size or memory")
    return min(batch_size, memory // need)
