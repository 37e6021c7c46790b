"""Exact path patching: corrupt what travels along some edges, and nothing else.

Along a patched edge a reader gets the writer's part of the corrupt run; everything else is what
the patched run itself computes. One clean and one corrupt run serve all senders, and a patched run
goes on from the first reader's block.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.edges.wire import Flow, Wiring, check_edges, open_pair, parts_of, wire
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import check_metric, measure, rows_of
from interp.core.faces.doors import door
from interp.core.images import Pairs
from interp.core.parallel import batches
from interp.core.progress import say, track
from interp.core.tower import Component, Hook, Patch, Tower


@door
def path_patch(
    tower: Tower,
    edges: Sequence[str],
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    pairs: Pairs | None = None,
    batch_size: int = 32,
) -> Float[np.ndarray, "example"]:
    """Measure the clean run while some edges carry their parts of the corrupt run.

    Args:
        tower: A tower whose stream is a sum of parts.
        edges: Names `writer->reader`, into any readers: `["a0.h1->a2.h0<q>", "input->m3"]`.
        clean: Inputs of the tower, `batch ...`.
        corrupt: Their partners in the same order, of the same shape.
        metric: From outputs `batch d_embed` to one number per example.
        pairs: What the pictures show, so that `**task.words` fits; numbers are per example here.
        batch_size: Examples in a forward.

    Returns:
        The metric of the patched run for each example.

    Raises:
        SiteError: For an edge that the tower does not have.
        SpecificationError: For no edge, or a tower whose stream is no sum of parts.
        ShapeError: For inputs that differ in shape, or a metric that does not give one number per
            example.
        DataError: For a pair of identical inputs.
        SampleError: For no inputs.

    Notes:
        All edges are patched at once; the result equals that of a run masked edge by edge. With all
        edges into one reader this is path patching (Wang et al. 2022; Goldowsky-Dill et al. 2023).
        With all edges but a circuit's it is the ablation of everything outside the circuit.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> ones = torch.ones(1, 2, 1)
    >>> path_patch(tower, ["m0->m1"], clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0])
    array([3.])
    """
    check_inputs(clean, corrupt, None, None)
    wiring = wire(tower)
    chosen = check_edges(wiring, edges)
    values = []
    for window in batches(len(clean), batch_size):
        runs = open_pair(tower, clean[window], corrupt[window])
        with torch.no_grad():
            output = _run_patched(tower, wiring, chosen, *runs)
            values.append(measure(rows_of(metric, window), output).double().cpu().numpy())
    return np.concatenate(values)


@door
def edge_effects(
    tower: Tower,
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    pairs: Pairs | None = None,
    edges: Sequence[str] | None = None,
    batch_size: int = 32,
) -> Float[np.ndarray, "example edge"]:
    """Measure what the metric loses when one edge at a time carries its part of the corrupt run.

    effect[example, edge] = metric of the clean run - metric of the run with that edge patched.

    Args:
        tower: A tower whose stream is a sum of parts.
        clean: Inputs of the tower, `batch ...`.
        corrupt: Their partners in the same order, of the same shape.
        metric: From outputs `batch d_embed` to one number per example.
        pairs: What the pictures show, so that `**task.words` fits; numbers are per example here.
        edges: Names `writer->reader`; None takes every edge, in the order of `wire(tower).names`.
        batch_size: Rows in a forward, which senders into the same reader share.

    Returns:
        Effects in the metric's unit.

    Raises:
        SiteError: For an edge that the tower does not have.
        SpecificationError: For no edge, a tower whose stream is no sum of parts, or a metric that
            ignores the output.
        ShapeError: For inputs that differ in shape, or a metric that does not give one number per
            example.
        DataError: For a pair of identical inputs.
        SampleError: For no inputs.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> ones = torch.ones(1, 2, 1)
    >>> edge_effects(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0],
    ...              edges=["m0->m1", "input->logits"])
    array([[1., 1.]])
    """
    check_inputs(clean, corrupt, None, None)
    wiring = wire(tower)
    chosen = np.arange(wiring.n_edges) if edges is None else check_edges(wiring, edges)
    effects = np.zeros((len(clean), len(chosen)))
    size = min(batch_size, len(clean))
    stack = max(1, batch_size // size)
    windows = list(batches(len(clean), size))
    readers = np.unique(wiring.edges[chosen, 1])
    if len(chosen) * len(clean) > 20_000:
        say(f"path patching: {len(chosen)} edges x {len(clean)} pairs")
    work = ((window, reader) for window in windows for reader in readers)
    opened: tuple[slice, Flow, Flow, np.ndarray] | None = None
    for window, reader in track(work, "path patching", total=len(windows) * len(readers)):
        part = rows_of(metric, window)
        if opened is None or opened[0] != window:
            runs = open_pair(tower, clean[window], corrupt[window])
            check_metric(part, runs[0].output, runs[1].output)
            whole = measure(part, runs[0].output).double().cpu().numpy()
            opened = (window, *runs, whole)
        places = np.flatnonzero(wiring.edges[chosen, 1] == reader)
        for some in batches(len(places), stack):
            here = places[some]
            senders = wiring.edges[chosen[here], 0]
            outputs = _run_senders(tower, wiring, senders, int(reader), *opened[1:3])
            for place, output in zip(here, outputs, strict=True):
                effects[window, place] = opened[3] - measure(part, output).double().cpu().numpy()
    return effects


def _run_senders(
    tower: Tower, wiring: Wiring, senders: np.ndarray, reader: int, clean: Flow, corrupt: Flow
) -> Float[Tensor, "sender batch d_embed"]:
    """One forward for several senders into one reader, each in its own copy of the batch."""
    number, within = locate(tower, reader)
    n, batch = len(senders), len(clean)
    with torch.no_grad():
        shift = torch.stack([_part(tower, int(u), corrupt, clean) for u in senders])
        stream = (clean.streams[number] + shift).flatten(0, 1)
        words = clean.resume(n)
        if within is None:
            out = tower(stream, start_at_layer=tower.n_layers, **words)
            return out.unflatten(0, (n, batch))
        component = parts_of(tower)[number]
        site, index = component.places[within]
        patch = Patch(site, component.read(within, stream), index)
        start = _block_stream(tower, clean, component.layer)
        out = tower.run_with_hooks(
            start.repeat(n, *[1] * (start.ndim - 1)),
            fwd_hooks=[(site, _apply(patch, tower))],
            start_at_layer=component.layer,
            **words,
        )
    return out.unflatten(0, (n, batch))


def _apply(patch: Patch, tower: Tower) -> Hook:
    return lambda tensor, hook: patch.apply(tensor, axes=tower.axes(patch.site))


def locate(tower: Tower, reader: int) -> tuple[int, int | None]:
    """The component of a reader and its place in it; the output is behind the last, at None."""
    for number, component in enumerate(parts_of(tower)):
        if reader < len(component.readers):
            return number, reader
        reader -= len(component.readers)
    return len(parts_of(tower)), None


def _writer(tower: Tower, writer: int) -> tuple[int, int]:
    """The component of a writer and its place in it; the input is component -1."""
    writer -= 1
    for number, component in enumerate(parts_of(tower)):
        if writer < len(component.writers):
            return (number, writer) if writer >= 0 else (-1, 0)
        writer -= len(component.writers)
    raise IndexError(writer)


def _part(tower: Tower, writer: int, to: Flow, since: Flow) -> Tensor:
    """The difference of one writer's part between two runs."""
    number, within = _writer(tower, writer)
    if number < 0:
        return to.streams[0] - since.streams[0]
    component = parts_of(tower)[number]
    return component.write(to.written[number] - since.written[number])[:, within]


def _block_stream(tower: Tower, flow: Flow, layer: int) -> Tensor:
    """The stream that enters a block: its first component's."""
    for number, component in enumerate(parts_of(tower)):
        if component.layer == layer:
            return flow.streams[number]
    return flow.streams[-1]


class _Rerouted:
    """Hooks that give some readers a stream in which some parts are those of the corrupt run."""

    def __init__(
        self, tower: Tower, wiring: Wiring, edges: np.ndarray, clean: Flow, corrupt: Flow
    ) -> None:
        self.tower, self.components, self.corrupt = tower, parts_of(tower), corrupt
        self.stream: Tensor = clean.streams[0]
        self.written: dict[int, Tensor] = {}
        self.senders: dict[int, list[int]] = {}
        for u, v in wiring.edges[edges]:
            self.senders.setdefault(int(v), []).append(int(u))
        self.places = {v: locate(tower, v) for v in self.senders}
        first = min(number for number, _ in self.places.values())
        whole = first == len(self.components)
        self.layer = tower.n_layers if whole else self.components[first].layer
        self.clean = clean

    def hooks(self) -> list[tuple[str, Hook]]:
        """What to install for a run that starts at `layer`."""
        found: list[tuple[str, Hook]] = []
        for number, component in enumerate(self.components):
            here = [(v, w) for v, (n, w) in self.places.items() if n == number and w is not None]
            if here:
                found.append((component.reads, self._see))
            found += [(component.places[w][0], self._give(v, component, w)) for v, w in here]
            if component.layer >= self.layer:
                found.append((component.writes, partial(self._hear, number)))
        return found

    def output(self, last: Tensor) -> Tensor:
        """The stream that the output reads."""
        v = next((v for v, (_, within) in self.places.items() if within is None), None)
        return last if v is None else self._shifted(last, v)

    def _see(self, tensor: Tensor, hook: object) -> None:
        self.stream = tensor

    def _hear(self, number: int, tensor: Tensor, hook: object) -> None:
        self.written[number] = tensor

    def _give(self, v: int, component: Component, within: int) -> Hook:
        site, index = component.places[within]

        def give(tensor: Tensor, hook: object) -> Tensor:
            value = component.read(within, self._shifted(self.stream, v))
            return Patch(site, value, index).apply(tensor, axes=self.tower.axes(site))

        return give

    def _shifted(self, stream: Tensor, v: int) -> Tensor:
        for u in self.senders[v]:
            number, within = _writer(self.tower, u)
            if number < 0:
                stream = stream + self.corrupt.streams[0] - self.clean.streams[0]
                continue
            now = self.written.get(number, self.clean.written[number])
            change = self.corrupt.written[number] - now
            stream = stream + self.components[number].write(change)[:, within]
        return stream


def _run_patched(
    tower: Tower, wiring: Wiring, edges: np.ndarray, clean: Flow, corrupt: Flow
) -> Float[Tensor, "batch d_embed"]:
    """One run in which all of these edges carry their corrupt parts."""
    routes = _Rerouted(tower, wiring, edges, clean, corrupt)
    last = clean.streams[-1]
    if routes.layer < tower.n_layers:
        start = _block_stream(tower, clean, routes.layer)
        last = tower.run_with_hooks(
            start,
            fwd_hooks=routes.hooks(),
            start_at_layer=routes.layer,
            stop_at_layer=tower.n_layers,
            **clean.words,
        )
    return tower(routes.output(last), start_at_layer=tower.n_layers, **clean.words)
