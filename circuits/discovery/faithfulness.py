"""Criteria for a circuit: it does the work alone, the rest does not, and every edge counts.

A circuit alone runs with all other edges carrying the corrupt input's parts; the model without it,
the reverse. What random circuits of the same size and layer profile achieve is the null.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.discovery.curves import counted, curve_table, share_rows, units_of
from interp.circuits.discovery.discover import discover
from interp.circuits.edges.attribute import Attribution
from interp.circuits.edges.wire import (
    Flow,
    Wiring,
    fitting_memory,
    open_pair,
    open_run,
    run_masked,
    wire,
)
from interp.circuits.patching.localise import ROUNDING
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import check_finite, check_metric, measure, name_of, rows_of
from interp.circuits.tasks.pairs import PairedRuns, PairedRunsKeywords
from interp.core.arguments import Room, check_counts, filled
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.parallel import batches
from interp.core.progress import say, track
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.core.tower import Tower

MaskedWindow: TypeAlias = tuple[slice, tuple[Tensor, Tensor], Iterator[tuple[np.ndarray, Tensor]]]
"""A window of examples, its two runs, and the places of masks with their outputs."""

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of circuits as shares of all edges: those of the Mechanistic Interpretability Benchmark."""


@door
def faithfulness(
    tower: Tower,
    circuits: Circuit | Sequence[Circuit] | Attribution,
    *,
    shares: Sequence[float] = SHARES,
    n_random: int = 10,
    seed: int = 0,
    **runs: Unpack[PairedRunsKeywords],
) -> Table:
    r"""Measure how much of the model's metric a circuit keeps alone, and how much is left without.

    value = $(m(C) - m(\emptyset)) / (m(M) - m(\emptyset))$
    index = (value - null) / (ceiling - null)

    Args:
        tower: The tower to run.
        circuits: One circuit, several, or an `Attribution`, of which greedy circuits are taken.
        shares: Sizes of the greedy circuits as shares of all edges.
        n_random: Random circuits for each, which have as many edges between the same layers.
        seed: Seed of the random circuits.
        **runs: The keywords that follow.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to one number per example.
        pairs: What the pictures show, which makes classes the units (of one class: who drew
            it); None makes each pair a unit.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.

    Returns:
        Rows `circuit alone` (faithfulness) and `model without the circuit` (completeness: 0 where
        nothing else does the work), for each circuit; then the curve's areas: CPR, the area under
        it, and CMD, the area between it and 1 (Mueller et al. 2025).

    Raises:
        SpecificationError: For an empty circuit, a budget below one example, or a keyword that is
            unknown or missing; `attribute` has the others.

    Notes:
        m is the mean of the metric over classes, M the whole model and $\emptyset$ no edge (the
        corrupt run): 1 is the model, 0 nothing. null = mean of the random circuits; ceiling = 1,
        the whole model, for a circuit alone, 0 for the model without it. `low, high` leave out a
        class at a time; `p` is two-sided for value = null, by sign flips of whole classes, adjusted
        over the rows (max-T). `reason` says why an index is missing.

    >>> from interp.circuits import Chain, wire
    >>> tower, ones = Chain([torch.nn.Identity(), torch.nn.Identity()]), torch.ones(1, 2, 1)
    >>> circuit = Circuit.of(wire(tower), ["input->logits"])  # carries 1 of the 4
    >>> table = faithfulness(tower, circuit, clean=ones, corrupt=0 * ones,
    ...                      metric=lambda x: x[:, 0], n_random=1)
    >>> table.frame[["measure", "value"]].to_numpy().tolist()
    [['circuit alone', 0.25], ['model without the circuit', 0.75]]
    """
    task = filled(faithfulness, PairedRuns, runs)
    chosen = _as_circuits(circuits, shares)
    check_counts("hold circuits against chance", random_circuits=n_random)
    wiring = chosen[0].wiring
    draws = [_random_masks(circuit, n_random, seed) for circuit in chosen]
    kept = np.stack([circuit.kept for circuit in chosen])
    masks = np.concatenate([kept, ~kept, *draws, *(~draw for draw in draws)])
    values, ends = measure_masks(tower, wiring, masks, what="faithfulness", **runs)
    return curve_table(
        values,
        ends,
        kept.sum(axis=1),
        task,
        total=wiring.n_edges,
        n_random=n_random,
        null_kind=f"mean of {n_random} random circuits with as many edges between the same layers",
        seed=seed,
        facts={"edges": wiring.n_edges, "masks": len(masks), **chosen[0].facts},
    )


@door
def minimality(
    tower: Tower, circuit: Circuit, *, seed: int = 0, **runs: Unpack[PairedRunsKeywords]
) -> Table:
    """Measure what a circuit loses with each of its edges: one that costs nothing is none of it.

    value = (m(C) - m(C without the edge)) / (m(M) - m(none))

    Args:
        tower: The tower to run.
        circuit: The circuit.
        seed: Seed of the sign flips.
        **runs: The keywords that follow.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to one number per example.
        pairs: What the pictures show, which makes classes the units (of one class: who drew
            it); None makes each pair a unit.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.

    Returns:
        One row for every kept edge, with its evidence.

    Raises:
        SpecificationError: For an empty circuit, a budget below one example, or a keyword that is
            unknown or missing; `attribute` has the others.

    Notes:
        null = 0, what an edge outside the circuit would cost; ceiling = all that the circuit does.
        `p` is adjusted over edges (max-T). `faithfulness` says what m, C and M are.

    >>> from interp.circuits import Chain, wire
    >>> tower, ones = Chain([torch.nn.Identity(), torch.nn.Identity()]), torch.ones(1, 2, 1)
    >>> circuit = Circuit.of(wire(tower), ["input->logits"])
    >>> table = minimality(tower, circuit, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0])
    >>> table.frame[["edge", "value"]].to_numpy().tolist()
    [['input->logits', 0.25]]
    """
    task = filled(minimality, PairedRuns, runs)
    _check_size(circuit)
    places = np.flatnonzero(circuit.kept)
    masks = np.tile(circuit.kept, (1 + len(places), 1))
    masks[1 + np.arange(len(places)), places] = False
    values, ends = measure_masks(tower, circuit.wiring, masks, what="minimality", **runs)
    labels, roles = units_of(task.pairs, len(task.clean))
    lost = values[0] - values[1:]
    gap = np.broadcast_to(ends[0] - ends[1], lost.shape)
    triples = np.stack([lost, np.zeros_like(lost), gap], axis=-1).swapaxes(0, 1)
    largest = float(np.abs(ends).max())
    goals = np.ones(len(places))
    frame = share_rows(triples, labels, roles, goals=goals, seed=seed, rounding=ROUNDING * largest)
    frame.insert(0, "edge", [circuit.wiring.names[place] for place in places])
    frame = frame.assign(
        measure="loss of one edge",
        metric=name_of(task.metric),
        null_kind="an edge outside the circuit: 0 by definition",
        ceiling_kind="the whole model",
        estimand="share of the metric's difference that the circuit loses without this edge",
        seed=seed,
        **counted(task.pairs, len(task.clean)),
    )
    return Table.with_evidence("minimality", frame, dict(circuit.facts))


def measure_masks(
    tower: Tower,
    wiring: Wiring,
    masks: np.ndarray,
    *,
    what: str = "run circuits",
    **runs: Unpack[PairedRunsKeywords],
) -> tuple[np.ndarray, np.ndarray]:
    """The metric under each mask `[mask example]`, and on the clean and the corrupt run `[2 ...]`.

    `masks` are `[mask edge]`, or `[mask example edge]`.
    """
    task = filled(measure_masks, PairedRuns, runs)
    check_inputs(task.clean, task.corrupt, None, None)
    values = np.full((len(masks), len(task.clean)), np.nan)
    ends = np.full((2, len(task.clean)), np.nan)
    for window, (clean, corrupt), found in runs_of_masks(
        tower, wiring, masks, clean=task.clean, corrupt=task.corrupt, room=task, what=what
    ):
        check_metric(rows_of(task.metric, window), clean, corrupt)
        ends[:, window] = [_numbers(task.metric, window, output) for output in (clean, corrupt)]
        for some, outputs in found:
            for mask, output in zip(some, outputs, strict=True):
                values[mask, window] = _numbers(task.metric, window, output)
    check_finite(what, {"the metric of a circuit": values, "the metric of whole runs": ends})
    return values, ends


def runs_of_masks(
    tower: Tower,
    wiring: Wiring,
    masks: np.ndarray,
    *,
    clean: Tensor,
    corrupt: Tensor,
    room: Room,
    what: str,
) -> Iterator[MaskedWindow]:
    """For each window of examples its clean and corrupt output, and those of the masks.

    These come as places of masks with their outputs, `[place batch d_embed]`. Masks that keep
    everything, or nothing, cost no run; others share forwards of at most `batch_size` examples.
    """
    if wire(tower) != wiring:
        given = f"a circuit of {wiring.n_edges} edges for a tower of {wire(tower).n_edges}"
        right = "a circuit of this tower, or of one that is wired alike"
        raise SpecificationError(what, given, right, "discover it in this tower")
    inner = tuple(range(1, masks.ndim))
    whole, empty = masks.all(axis=inner), ~masks.any(axis=inner)
    cut = np.flatnonzero(~whole & ~empty)
    limit = fitting_memory(
        wiring, open_run(tower, clean[:1]), memory=room.memory, batch_size=room.batch_size
    )
    size = min(limit, len(clean))
    stack = max(1, limit // size)
    windows = list(batches(len(clean), size))
    if len(cut) * len(clean) > 20_000:
        say(f"{what}: {len(cut)} masks x {len(clean)} pairs, {len(cut) * len(clean):,} forwards")

    def outputs_of(window: slice, a: Flow, b: Flow) -> Iterator[tuple[np.ndarray, Tensor]]:
        for ended, same in ((a, whole), (b, empty)):
            yield np.flatnonzero(same), ended.output.expand(int(same.sum()), *ended.output.shape)
        for some in batches(len(cut), stack):
            kept = masks[cut[some]] if masks.ndim == 2 else masks[cut[some], window]
            yield cut[some], run_masked(tower, wiring, kept, clean=a, corrupt=b)

    for window in track(windows, what, total=len(windows)):
        a, b = open_pair(tower, clean[window], corrupt[window])
        yield window, (a.output, b.output), outputs_of(window, a, b)


@torch.no_grad()
def _numbers(metric: Callable[[Tensor], Tensor], window: slice, output: Tensor) -> np.ndarray:
    return measure(rows_of(metric, window), output).double().cpu().numpy()


def _as_circuits(
    circuits: Circuit | Sequence[Circuit] | Attribution, shares: Sequence[float]
) -> list[Circuit]:
    """The circuits to test, smallest first; from scores, greedy ones of each share."""
    if isinstance(circuits, Circuit):
        chosen = [circuits]
    elif isinstance(circuits, Attribution):
        n_edges = circuits.wiring.n_edges
        sizes = sorted({max(1, round(share * n_edges)) for share in shares})
        chosen = [discover(circuits, n=n, prune=False) for n in sizes]
    else:
        chosen = sorted(circuits, key=len)
    if not chosen:
        raise SpecificationError(
            "test circuits", "none", "a Circuit, several, or an Attribution", "discover one first"
        )
    for circuit in chosen:
        _check_size(circuit)
        if circuit.wiring != chosen[0].wiring:
            given = "circuits of towers that are wired differently"
            do = "test each with its own tower"
            raise SpecificationError("test circuits together", given, "circuits of one tower", do)
    return chosen


def _check_size(circuit: Circuit) -> None:
    if not len(circuit):
        raise SpecificationError(
            "test a circuit", "a circuit without edges", "one edge or more", "keep more edges"
        )


def _random_masks(circuit: Circuit, n: int, seed: int) -> np.ndarray:
    """Circuits with as many edges between the same two layers and kinds of reader, at random."""
    wiring = circuit.wiring
    senders, readers = wiring.edges.T
    kinds = [name.partition("<")[2] or name[0] for name in wiring.readers]
    profile = pd.DataFrame(
        {
            "from": wiring.layers[senders],
            "sender": [wiring.nodes[u][0] for u in senders],
            "to": wiring.layers[wiring.owners[readers]],
            "kind": np.asarray(kinds)[readers],
        }
    )
    groups = [rows.to_numpy() for rows in profile.groupby(list(profile)).groups.values()]
    generator = rng("random circuits", seed)
    masks = np.zeros((n, wiring.n_edges), dtype=bool)
    for rows in groups:
        size = int(circuit.kept[rows].sum())
        for mask in masks if size else ():
            mask[generator.choice(rows, size, replace=False)] = True
    return masks
