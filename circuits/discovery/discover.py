"""Ways to choose the edges of a circuit: by score, by score and connection, or by tested loss."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.edges.attribute import Attribution
from interp.circuits.edges.wire import Wiring, open_pair, run_masked
from interp.circuits.tasks.metrics import measure
from interp.core.errors import SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.progress import say, track
from interp.core.tower import Tower


@dataclass(frozen=True)
class Runs:
    """The runs that a search for a circuit may test edges on.

    Args:
        tower: The tower that was scored.
        clean: Its clean inputs, `batch ...`.
        corrupt: Their corrupt partners, in the same order.
        metric: From outputs `batch d_embed` to one number per example.

    Notes:
        They are the same arguments that `attribute` was given.

    >>> import torch
    >>> from interp.circuits import Chain, attribute
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Threshold(9.0, 0.0)])  # block 1 adds nothing
    >>> ones = torch.ones(1, 2, 1)
    >>> scores = attribute(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0])
    >>> runs = Runs(tower, ones, 0 * ones, lambda x: x[:, 0])
    >>> discover(scores, how="ACDC", threshold=0.5, runs=runs).edges
    ('input->m0', 'input->logits', 'm0->logits')
    """

    tower: Tower
    clean: Tensor
    corrupt: Tensor
    metric: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Task:
    wiring: Wiring
    scores: np.ndarray
    n: int | None
    threshold: float | None
    runs: Runs | None


def top_n(task: _Task) -> np.ndarray:
    """The n edges of the largest |score|."""
    kept = np.zeros(len(task.scores), dtype=bool)
    kept[np.argsort(-np.abs(task.scores), kind="stable")[: _need_n(task, "top-n")]] = True
    return kept


def above(task: _Task) -> np.ndarray:
    """Every edge whose |score| reaches the threshold."""
    return np.abs(task.scores) >= _need_threshold(task, "threshold")


def greedy(task: _Task) -> np.ndarray:
    """From the output backwards, n times the best edge into a node that is already connected."""
    wiring, size = task.wiring, np.abs(task.scores)
    kept = np.zeros(len(size), dtype=bool)
    joined = np.zeros(len(wiring.nodes), dtype=bool)
    joined[-1] = True
    ends = wiring.owners[wiring.edges[:, 1]]
    for _ in range(min(_need_n(task, "greedy"), len(size))):
        open_edges = joined[ends] & ~kept
        best = int(np.argmax(np.where(open_edges, size, -1.0)))
        kept[best] = True
        joined[wiring.edges[best, 0]] = True
    return kept


def acdc(task: _Task) -> np.ndarray:
    """From the output backwards, drop an edge where its loss moves the metric less than threshold.

    The metric's distance from the whole model is the mean over examples of its absolute
    difference; an edge goes if that grows by less than `threshold` (Conmy et al. 2023). Weakest
    scores are tried first; every edge costs a run.
    """
    threshold = _need_threshold(task, "ACDC")
    if task.runs is None:
        right = "the runs to test edges on"
        do = "pass runs=Runs(tower, clean, corrupt, metric)"
        raise SpecificationError("discover a circuit by ACDC", "scores alone", right, do)
    runs, wiring = task.runs, task.wiring
    clean, corrupt = open_pair(runs.tower, runs.clean, runs.corrupt)
    whole = measure(runs.metric, clean.output)

    def distance(kept: np.ndarray) -> float:
        out = run_masked(runs.tower, wiring, kept[None], clean=clean, corrupt=corrupt)[0]
        return float((measure(runs.metric, out) - whole).abs().mean())

    kept = np.ones(wiring.n_edges, dtype=bool)
    now = 0.0
    order = np.lexsort([np.abs(task.scores), -wiring.edges[:, 1]])
    say(f"ACDC: {wiring.n_edges} edges, a run of {len(clean)} examples for each")
    with torch.no_grad():
        for edge in track(order, "ACDC", total=len(order)):
            kept[edge] = False
            then = distance(kept)
            if then - now < threshold:
                now = then
            else:
                kept[edge] = True
    return kept


DISCOVERERS: dict[str, Callable[[_Task], np.ndarray]] = {
    "top-n": top_n,
    "threshold": above,
    "greedy": greedy,
    "ACDC": acdc,
}
"""Every way to choose edges by name; help, errors and the tests' matrix read it."""


@door
def discover(
    attribution: Attribution,
    *,
    how: str = "greedy",
    n: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    runs: Runs | None = None,
    prune: bool = True,
) -> Circuit:
    """Choose a circuit from the scores of all edges.

    Args:
        attribution: The scores, from `attribute`.
        how: `greedy` (from the output backwards, the best edges into nodes already connected),
            `top-n` (the largest |score|), `threshold` (every |score| that reaches it) or `ACDC`
            (edges whose loss moves the metric, tested one by one; Conmy et al. 2023).
        n: How many edges `greedy` and `top-n` choose, before pruning.
        share: The same as a share of all edges; takes the place of `n`.
        threshold: For `threshold` and `ACDC`, in the metric's unit.
        runs: The runs that `ACDC` tests edges on.
        prune: Whether to drop edges that lie on no path from the input to the output.

    Returns:
        The circuit, with the scores of all edges.

    Raises:
        SpecificationError: For an unknown way, a missing or impossible size, `ACDC` without runs,
            or an empty circuit.

    >>> import torch
    >>> from interp.circuits import Chain, attribute
    >>> tower, ones = Chain([torch.nn.Identity(), torch.nn.Identity()]), torch.ones(1, 2, 1)
    >>> scores = attribute(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0])
    >>> discover(scores, n=2).edges
    ('input->m1', 'm1->logits')
    """
    check_known("discover a circuit", "way", [how], DISCOVERERS, SpecificationError)
    wiring = attribution.wiring
    if share is not None:
        n = max(1, round(share * wiring.n_edges))
    if n is not None and not 1 <= n <= wiring.n_edges:
        right = f"1 to {wiring.n_edges}, which the tower has"
        raise SpecificationError("discover a circuit", f"{n} edges", right, "change n or share")
    kept = DISCOVERERS[how](_Task(wiring, attribution.scores, n, threshold, runs))
    facts: dict[str, object] = {
        **attribution.facts,
        "method": attribution.method,
        "metric": attribution.metric,
        "how": how,
        **{k: v for k, v in (("n", n), ("threshold", threshold)) if v is not None},
    }
    circuit = Circuit(wiring, kept, attribution.scores, facts)
    pruned = circuit.pruned() if prune else circuit
    if not len(pruned):
        given = f"{len(circuit)} edges, none of them on a path from the input to the output"
        do = "keep more edges, or use how='greedy', or prune=False to see them"
        raise SpecificationError("discover a circuit", given, "a connected circuit", do)
    return pruned


def _need_n(task: _Task, how: str) -> int:
    if task.n is None:
        raise _missing(how, "n or share")
    return task.n


def _need_threshold(task: _Task, how: str) -> float:
    if task.threshold is None:
        raise _missing(how, "threshold")
    return task.threshold


def _missing(how: str, what: str) -> SpecificationError:
    return SpecificationError(
        f"discover a circuit by {how}", f"no {what}", f"a {what}", f"pass {what.split()[0]}="
    )
