"""Edge attribution: how much of a clean run's metric each edge of a tower carries.

Every method gives one number per edge and example: an estimate of how much of the metric is lost
when the writer's corrupt part takes the place of its clean one, for that reader alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges.masked_runs import Flow, Parts, open_run
from interp.circuits.edges.path_patching import edge_effects
from interp.circuits.edges.stream_gradients import Gradients, backward
from interp.circuits.edges.wiring import Wiring, parts_of, wire
from interp.circuits.patching.sweeping import check_inputs
from interp.circuits.tasks.metrics import name_of, rows_of
from interp.circuits.tasks.pairs import PairedRuns, PairedRunsKeywords
from interp.core.arguments import filled
from interp.core.batching import Batching, batches
from interp.core.errors import NumericsError, SpecificationError, check_known
from interp.core.faces.by_name import Named
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.tower import Component, Tower


@dataclass(frozen=True, eq=False)
class Attribution:
    """Scores of all edges of a tower, as `attribute` returns them.

    Args:
        wiring: The tower's edges.
        values: Scores, `example edge`, in the metric's unit; positive where the clean part raises
            the metric.
        method: Name of the method.
        metric: Name of the metric.
        labels: The examples' classes; None where they are not known.
        facts: How the scores were computed: steps, seconds, dtype, number of examples, seed.

    >>> wiring = Wiring(("input", "m0"), ("m0", "logits"), (1, 2))
    >>> wiring.names
    ('input->m0', 'input->logits', 'm0->logits')
    >>> found = Attribution(wiring, np.array([[1.0, 2.0, 3.0]]), "EAP", "margin")
    >>> dict(zip(wiring.nodes, found.node_scores.tolist()))
    {'input': 3.0, 'm0': 3.0, 'logits': 5.0}
    """

    wiring: Wiring
    values: np.ndarray
    method: str
    metric: str
    labels: Sequence[str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        n, edges = self.values.shape
        return f"Attribution({n} examples x {edges:,} edges, {self.method}, metric {self.metric})"

    @property
    def scores(self) -> np.ndarray:
        """Mean over examples, or over class means where classes are known, `edge`."""
        return self.values.mean(axis=0) if self.labels is None else self._by_class().mean(axis=0)

    @property
    def node_scores(self) -> np.ndarray:
        """The sum over the edges that leave each node, or enter the output, `node`."""
        leaving = np.zeros(len(self.wiring.nodes))
        np.add.at(leaving, self.wiring.edges[:, 0], self.scores)
        leaving[-1] = self.scores[self.wiring.offsets[-2] :].sum()
        return leaving

    def _by_class(self) -> np.ndarray:
        labels = np.asarray(self.labels)
        return np.stack([self.values[labels == name].mean(axis=0) for name in np.unique(labels)])


@dataclass(frozen=True)
class _Task:
    """What a method is given: a batch of the two runs, and how to go about it."""

    tower: Tower
    components: Sequence[Component]
    wiring: Wiring
    metric: Callable[[Tensor], Tensor]
    clean: Tensor
    corrupt: Tensor
    steps: int
    memory: int
    seed: int


def eap(task: _Task) -> np.ndarray:
    """Part's difference times the gradient of the clean run (Syed, Rager and Conmy 2023)."""
    return _along_input(task, [1.0])


def eap_ig_inputs(task: _Task) -> np.ndarray:
    """The gradient is a mean over inputs between corrupt and clean (Hanna et al. 2024).

    Inputs are corrupt + k/m (clean - corrupt) for k = 1 ... m. Hanna et al.'s library had the same
    until its release 0.2.0, and has since taken k = 0 ... m - 1.
    """
    return _along_input(task, [step / task.steps for step in range(1, task.steps + 1)])


def relp(task: _Task) -> np.ndarray:
    """EAP, with norms, patterns and activation functions held straight (Jafari et al. 2025)."""
    return _along_input(task, [1.0], straight=True)


def eap_ig_activations(task: _Task) -> np.ndarray:
    """The gradient is a mean over runs whose own part lies between corrupt and clean.

    Only edges that leave the component whose part is moved take a run's gradient; Hanna et al.'s
    library adds up all edges in every such run, which is another quantity.
    """
    clean, corrupt = open_run(task.tower, task.clean), open_run(task.tower, task.corrupt)
    moved = [new - old for new, old in zip(_parts(clean), _parts(corrupt), strict=True)]
    total = np.zeros((len(clean), task.wiring.n_edges))
    writer = 1
    states = [step / task.steps for step in range(1, task.steps + 1)]
    for state in states:  # the input's part is the input
        found = _gradients(task, clean.streams[0], corrupt.streams[0], state, words=clean.words)
        total += _score(task, moved, found, only=range(0, 1))
    for number, component in enumerate(task.components):
        mine = range(writer, writer := writer + len(component.writers))
        start, end = corrupt.written[number], clean.written[number]
        for state in states:
            swap = {component.writes: start + state * (end - start)}
            found = backward(
                task.tower,
                task.components,
                clean.streams[0],
                task.metric,
                words=clean.words,
                replace=swap,
            )
            total += _score(task, moved, found, only=mine)
    return total / task.steps


def exact(task: _Task) -> np.ndarray:
    """What the metric loses in a run of its own for every edge: path patching, the slow truth."""
    return edge_effects(
        task.tower,
        clean=task.clean,
        corrupt=task.corrupt,
        metric=task.metric,
        batch_size=len(task.clean) * 8,
    )


def chance(task: _Task) -> np.ndarray:
    """Normal random numbers, the same for every example: what a method must beat."""
    drawn = rng("random attribution", task.seed).standard_normal(task.wiring.n_edges)
    return np.tile(drawn, (len(task.clean), 1))


METHODS: Named[Callable[[_Task], np.ndarray]] = Named(
    {
        "EAP": eap,
        "EAP-IG-inputs": eap_ig_inputs,
        "EAP-IG-activations": eap_ig_activations,
        "RelP": relp,
        "exact": exact,
        "random": chance,
    }
)
"""Every method by name; help, errors and the tests' matrix read it."""


@door
def attribute(
    tower: Tower,
    *,
    method: str = "EAP-IG-inputs",
    steps: int = 5,
    seed: int = 0,
    **runs: Unpack[PairedRunsKeywords],
) -> Attribution:
    r"""Score every edge of a tower by one method of `METHODS`.

    score(u -> v) = sum over the stream of (part of u, clean - corrupt) times the gradient of the
    metric at v's stream

    Args:
        tower: The tower to run.
        method: A name in `METHODS`.
        steps: Inputs over which gradients are averaged, for the methods of integrated gradients.
        seed: Seed of the method "random".
        **runs: The keywords that follow.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to one number per example.
        pairs: What the pictures show, which makes classes the units; None makes each pair a unit.
        batch_size: Examples that share a pass, 8 by default.
        memory: Bytes of activations held beside a pass.

    Returns:
        The scores of all edges, for each example.

    Raises:
        SpecificationError: For an unknown method, a metric that ignores the output, a tower that
            cannot be wired, or a keyword that is unknown or missing.
        ShapeError: For inputs that differ in shape.
        AlikeError: For identical partners.
        NumericsError: For NaN.

    Notes:
        Gradients are taken at the clean run (EAP: Syed, Rager and Conmy 2023), or averaged over
        `steps` inputs $x_k = x_{corrupt} + k/m\,(x_{clean} - x_{corrupt})$, k = 1 ... m
        (EAP-IG-inputs: Hanna et al. 2024). Here x is the stream that enters block 0, as Hanna et
        al. take a text's embeddings; between pixels the numbers would be others, since a ViT
        normalises its patches first. The sum over the readers of u is u's attribution as a
        node. "exact" measures each edge in a run.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> ones = torch.ones(1, 2, 1)
    >>> scores = attribute(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0],
    ...                    method="EAP")
    >>> dict(zip(scores.wiring.names, scores.scores.tolist()))["m0->logits"]
    1.0
    """
    given = filled(attribute, PairedRuns, {"batch_size": 8, **runs})
    clean, corrupt, pairs, batch_size = given.clean, given.corrupt, given.pairs, given.batch_size
    check_known("attribute", "method", [method], METHODS, SpecificationError)
    check_inputs(clean, corrupt, None, pairs)
    if steps < 1 or batch_size < 1:
        raise SpecificationError(
            "attribute",
            f"{steps} steps and batches of {batch_size}",
            "at least 1 of each",
            "leave them at their defaults",
        )
    wiring, components, started = wire(tower), parts_of(tower), perf_counter()
    values = np.zeros((len(clean), wiring.n_edges), dtype=np.float64)

    def scored(window: slice) -> list[np.ndarray]:
        part = rows_of(given.metric, window)
        ends = clean[window], corrupt[window]
        task = _Task(tower, components, wiring, part, *ends, steps, given.memory, seed)
        return [METHODS[method](task)]

    scores = Batching(batch_size).through(len(clean), scored)
    total = -(-len(clean) // batch_size)
    for window, found in track(scores, f"attribute by {method}", total=total):
        values[window] = found
    if not np.isfinite(values).all():
        raise NumericsError(
            "attribute",
            f"NaN or infinity in {np.isnan(values).any(axis=0).sum()} edges",
            "finite scores",
            "check the pictures, the metric and the tower's own output",
        )
    labels = None if pairs is None else pairs.clean.label.tolist()
    facts = {
        "steps": steps if "IG" in method else 1,
        "seconds": perf_counter() - started,
        "dtype": str(clean.dtype),
        "n_examples": len(clean),
        "seed": seed,
    }
    return Attribution(wiring, values, method, name_of(given.metric), labels, facts)


def _along_input(task: _Task, states: Sequence[float], *, straight: bool = False) -> np.ndarray:
    """Mean score over gradients at inputs between corrupt (0) and clean (1, among the states)."""
    corrupt = open_run(task.tower, task.corrupt)
    start, words, before = corrupt.streams[0], corrupt.words, list(corrupt.written)
    del corrupt  # its other streams take memory only
    with torch.no_grad():
        end = task.tower(task.clean, stop_at_layer=0)
    moved: list[Tensor] = []
    total = np.zeros((len(task.clean), task.wiring.n_edges))
    for state in sorted(states, reverse=True):  # the first is the clean run, which serves all
        found = _gradients(task, end, start, state, words=words, straight=straight)
        if not moved:
            moved = [end - start]
            while before:  # what is subtracted goes at once
                moved.append(found.written[len(moved) - 1] - before.pop(0))
        found = replace(found, written=())
        total += _score(task, moved, found)
    return total / len(states)


def _gradients(
    task: _Task,
    clean: Tensor,
    corrupt: Tensor,
    state: float,
    *,
    words: Mapping[str, Any],
    straight: bool = False,
) -> Gradients:
    """The backward pass of a run whose first stream lies between corrupt (0) and clean (1)."""
    stream = clean if state == 1 else corrupt + state * (clean - corrupt)
    return backward(
        task.tower, task.components, stream, task.metric, words=words, straight=straight
    )


def _parts(run: Flow) -> list[Tensor]:
    """What the input and each component put into a run."""
    return [run.streams[0], *run.written]


@torch.no_grad()
def _score(
    task: _Task, moved: Sequence[Tensor], found: Gradients, only: range | None = None
) -> np.ndarray:
    """Differences of parts times gradients, `[example edge]`, a few examples at a time.

    `moved` are the differences of what the input and each component put in, clean - corrupt.
    Whatever is as large as batch x writers x stream is held for one chunk of examples only.
    """
    wiring, first = task.wiring, moved[0]
    chunk = max(1, min(len(first), task.memory // 32 // (len(wiring.writers) * first[0].nbytes)))
    scores = first.new_zeros(len(first), wiring.n_edges)
    for rows in batches(len(first), chunk):
        parts = Parts(len(wiring.writers), first[rows])
        parts.add(first[rows, None])
        reader = 0
        for number, component in enumerate([*task.components, None]):
            n = 1 if component is None else len(component.readers)
            cut = wiring.offsets[[reader, reader + n]]
            reader += n
            seen = range(parts.filled) if only is None else only
            if seen.stop <= parts.filled:
                pulled = found.of_readers(component, number, rows).flatten(2)
                block = torch.bmm(pulled, parts.buffer[:, seen.start : seen.stop].transpose(1, 2))
                target = scores[rows, cut[0] : cut[1]].unflatten(1, (n, -1))
                target[:, :, seen.start : seen.stop] = block
            if component is not None:
                parts.add(component.write(moved[number + 1][rows]))
    return scores.double().cpu().numpy()
