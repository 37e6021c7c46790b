"""Ways to score the edges of a tower: by gradients, by exact runs, by chance.

Each gives one number per edge and example, an estimate of how much of the metric is lost when the
writer's corrupt part takes the place of its clean one, for that reader alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.circuits.edges.path_patch import edge_effects
from interp.circuits.edges.wire import (
    Flow,
    Parts,
    Wiring,
    check_ends,
    open_pair,
    open_run,
    parts_of,
    wire,
)
from interp.circuits.tasks.metrics import measure, name_of, rows_of
from interp.circuits.tasks.pairs import PairedRuns
from interp.core.arguments import MEMORY
from interp.core.errors import SpecificationError
from interp.core.parallel import Batching, batches
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.tower import Branched, Component, Hook, Tower, parameters_at_rest, straightening


@dataclass(frozen=True)
class Gradients:
    """What one backward pass found, and the forward pass it went back through.

    `at_streams` are gradients at the stream before each component and at the end; `inner` and
    `at_inner` are activations and gradients behind the readers, by site; `written` is a `Flow`'s.
    """

    streams: Sequence[Tensor]
    written: Sequence[Tensor]
    at_streams: Sequence[Tensor]
    inner: Mapping[str, Tensor]
    at_inner: Mapping[str, Tensor]
    straight: bool

    def of_readers(
        self, component: Component | None, number: int, rows: slice
    ) -> Float[Tensor, "batch reader *stream"]:
        """The gradient at each reader's stream of component `number`; None is the output.

        A run hands one stream to all readers of a component, and its gradient there is the sum of
        theirs. A component with several readers pulls them apart from the gradients behind them; a
        single reader's is what the stream's gradient gains from behind the component to before it.
        """
        if component is None:
            return self.at_streams[-1][rows, None]
        if isinstance(component, Branched):
            values = [self.inner[site][rows] for site in component.inner]
            grads = [self.at_inner[site][rows] for site in component.inner]
            return component.pull(self.streams[number][rows], values, grads, straight=self.straight)
        return (self.at_streams[number][rows] - self.at_streams[number + 1][rows])[:, None]


def backward(
    tower: Tower,
    components: Sequence[Component],
    stream: Tensor,
    metric: Callable[[Tensor], Tensor],
    *,
    words: Mapping[str, Any],
    straight: bool = False,
    replace: Mapping[str, Tensor] | None = None,
) -> Gradients:
    """Run from the stream that enters block 0, and go back from the metric to all readers.

    `straight` takes norms, attention patterns and activation functions for the linear maps that
    they are at this input (RelP). `replace` puts activations in the place of the run's own.
    """
    inner = [site for c in components if isinstance(c, Branched) for site in c.inner]
    names = dict.fromkeys([*(c.reads for c in components), *(c.writes for c in components), *inner])
    kept: dict[str, Tensor] = {}
    swaps: list[tuple[str, Hook]] = [(s, _put(v)) for s, v in (replace or {}).items()]
    held = straightening(tower, "attribute by RelP") if straight else []
    with torch.enable_grad(), parameters_at_rest(tower):
        leaf = stream.detach().requires_grad_()
        hooks = [*swaps, *held, *((name, _keep(kept)) for name in names)]
        with tower.hooks(fwd_hooks=hooks):
            last = tower(leaf, start_at_layer=0, stop_at_layer=tower.n_layers, **words)
            output = tower(last, start_at_layer=tower.n_layers, **words)
        values = measure(metric, output)
        if not values.requires_grad:
            raise SpecificationError(
                f"attribute {name_of(metric)!r} by its gradient",
                "a metric that ignores the output, or has no gradient",
                "a differentiable function of the tower's output",
                "use a Metric, or method='exact', which needs no gradient",
            )
        wanted = [*(kept[c.reads] for c in components), last, *(kept[site] for site in inner)]
        found = torch.autograd.grad(values.sum(), wanted, allow_unused=True)
    # without gradient: cut off by `straight`, or standing before a replaced activation
    grads = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
    n = len(components) + 1
    return Gradients(
        [w.detach() for w in wanted[:n]],
        [kept[c.writes].detach() for c in components],
        grads[:n],
        {site: kept[site].detach() for site in inner},
        dict(zip(inner, grads[n:], strict=True)),
        straight,
    )


def _keep(kept: dict[str, Tensor]) -> Hook:
    def keep(tensor: Tensor, hook: HookPoint) -> None:
        kept[str(hook.name)] = tensor

    return keep


def _put(value: Tensor) -> Hook:
    return lambda tensor, hook: value


@dataclass(frozen=True, eq=False)
class EdgeTask:
    """What a method is given: the two runs' inputs, and how to go about it.

    `labels` are the examples' classes, None where they are not known; `batch_size` examples share a
    pass.
    """

    tower: Tower
    components: Sequence[Component]
    wiring: Wiring
    metric: Callable[[Tensor], Tensor]
    clean: Tensor
    corrupt: Tensor
    steps: int = 5
    memory: int = MEMORY
    seed: int = 0
    labels: Sequence[object] | None = None
    batch_size: int = 8

    @classmethod
    def of(cls, tower: Tower, runs: PairedRuns, *, steps: int = 5, seed: int = 0) -> "EdgeTask":
        """The task of scoring all edges of a tower on some pairs."""
        labels = None if runs.pairs is None else runs.pairs.clean.label.tolist()
        ends, room = (runs.metric, runs.clean, runs.corrupt), (steps, runs.memory, seed)
        return cls(tower, parts_of(tower), wire(tower), *ends, *room, labels, runs.batch_size)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice | np.ndarray) -> "EdgeTask":
        """The same of some examples."""
        places = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        labels = None if self.labels is None else np.asarray(self.labels, object)[rows].tolist()
        return replace(
            self,
            metric=rows_of(self.metric, rows),
            clean=self.clean[places],
            corrupt=self.corrupt[places],
            labels=labels,
        )


def in_batches(
    task: EdgeTask, score: Callable[[EdgeTask], np.ndarray], what: str | None = None
) -> np.ndarray:
    """Scores of all examples, `[example edge]`, a batch at a time; `what` reports how far it is."""
    values = np.zeros((len(task), task.wiring.n_edges), dtype=np.float64)
    found = Batching(task.batch_size).through(len(task), lambda rows: [score(task[rows])])
    total = -(-len(task) // task.batch_size)
    for rows, each in track(found, what, total=total) if what else found:
        values[rows] = each
    return values


def eap(task: EdgeTask) -> np.ndarray:
    """Part's difference times the gradient of the clean run (Syed, Rager and Conmy 2023)."""
    return _along_input(task, [1.0])


def eap_ig_inputs(task: EdgeTask) -> np.ndarray:
    """The gradient is a mean over inputs between corrupt and clean (Hanna et al. 2024).

    Inputs are corrupt + k/m (clean - corrupt) for k = 1 ... m. Hanna et al.'s library had the same
    until its release 0.2.0, and has since taken k = 0 ... m - 1.
    """
    return _along_input(task, [step / task.steps for step in range(1, task.steps + 1)])


def relp(task: EdgeTask) -> np.ndarray:
    """EAP, with norms, patterns and activation functions held straight (Jafari et al. 2025)."""
    return _along_input(task, [1.0], straight=True)


def eap_ig_activations(task: EdgeTask) -> np.ndarray:
    """The gradient is a mean over runs whose own part lies between corrupt and clean.

    Only edges that leave the component whose part is moved take a run's gradient; Hanna et al.'s
    library adds up all edges in every such run, which is another quantity.
    """
    clean, corrupt = open_pair(task.tower, task.clean, task.corrupt)
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


def exact(task: EdgeTask) -> np.ndarray:
    """What the metric loses in a run of its own for every edge: path patching, the slow truth."""
    return edge_effects(
        task.tower,
        clean=task.clean,
        corrupt=task.corrupt,
        metric=task.metric,
        batch_size=len(task.clean) * 8,
    )


def chance(task: EdgeTask) -> np.ndarray:
    """Normal random numbers, the same for every example: what a method must beat."""
    drawn = rng("random attribution", task.seed).standard_normal(task.wiring.n_edges)
    return np.tile(drawn, (len(task.clean), 1))


def _along_input(task: EdgeTask, states: Sequence[float], *, straight: bool = False) -> np.ndarray:
    """Mean score over gradients at inputs between corrupt (0) and clean (1, among the states)."""
    corrupt = open_run(task.tower, task.corrupt)
    check_ends(task.tower, corrupt, task.clean)
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
    task: EdgeTask,
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
    task: EdgeTask, moved: Sequence[Tensor], found: Gradients, only: range | None = None
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
