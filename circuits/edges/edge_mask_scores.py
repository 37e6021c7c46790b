"""Learned masks of edges: which edges of a class do its work alone.

Attribution scores one edge at a time, at the model as it is. A mask is fitted for all edges
together, to what a circuit is then judged by: the metric with these edges alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import hard_gates
from interp.circuits.edges.edge_scores import EdgeTask, eap_ig_inputs, in_batches
from interp.circuits.edges.wire import Wiring, check_ends, open_run, run_gated
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import measure
from interp.circuits.tasks.pairs import PairedRuns, PairedRunsKeywords
from interp.core.arguments import check_counts, check_shares, filled
from interp.core.faces.doors import door
from interp.core.parallel import batches
from interp.core.tower import Tower, parameters_at_rest, resumption

STEPS, RATE = 200, 0.03
"""Steps of Adam, and its learning rate in units of ranks scaled to -1 to 1."""

PAIRS = 32
"""Pairs in a step."""


@door
def edge_mask_scores(
    tower: Tower,
    *,
    shares: Sequence[float] = hard_gates.MASK_SHARES,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = 0,
    **runs: Unpack[PairedRunsKeywords],
) -> np.ndarray:
    r"""Score edges by a mask for each class, learned over all edges together.

    The mask C of a class maximises the mean over its pictures, and over sizes, of

    $$m(C) - m(\emptyset),$$

    the metric with the circuit alone less that of the corrupt run. Along every edge that is left
    out a reader gets what the corrupt picture's writer wrote, one of another class: so nothing is
    gained by a bias of the class, which both runs have.

    Args:
        tower: The tower to run.
        shares: Sizes of circuits that take turns: shares of the edges between every two blocks,
            and shares of all edges.
        steps: Steps of Adam.
        rate: Its learning rate, in units of a ranking that is scaled to -1 to 1.
        seed: Seed of the order of pairs.
        **runs: The keywords that follow.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to one number per example.
        pairs: What the pictures show: each class has a mask of its own. None fits one for all.
        batch_size: Examples that share a pass; a step takes 32 in any case.
        memory: Bytes of activations held for a gradient.

    Returns:
        Scores between 0 and 1, `example edge`, in the order of `Wiring.edges`: every example has
        those of its class.

    Raises:
        SpecificationError: For fewer than one step, a share outside (0, 1), a metric that ignores
            the output, a tower that cannot be wired, or a keyword that is unknown or missing.
        AlikeError: For identical partners.
        NumericsError: For NaN.

    Notes:
        Masks start from EAP-IG-inputs, as ranks. At each size the best edges pass whole and the
        rest not at all, in the run that `faithfulness` judges by; gradients come from a sigmoid
        around the bar (straight-through, Bengio et al. 2013), as in edge pruning (Bhaskar et al.
        2024). A gradient below a thousandth of what there is to gain is a plateau's, and moves
        nothing. A class whose mask does no better in the end keeps the order that it started from.

        Judge a mask on other pictures, and against a wrong target (`class_faithfulness`): on its
        own it does well by construction.

    >>> from interp.circuits import Chain, wire
    >>> tower, ones = Chain([torch.nn.Identity(), torch.nn.Identity()]), torch.ones(2, 2, 1)
    >>> scores = edge_mask_scores(tower, steps=4, clean=ones, corrupt=0 * ones,
    ...                           metric=lambda x: x[:, 0])
    >>> wire(tower).names[scores[0].argmax()]
    'm1->logits'
    """
    given = filled(edge_mask_scores, PairedRuns, runs)
    check_inputs(given.clean, given.corrupt, None, given.pairs)
    check_shares("learn masks", shares)
    check_counts("learn masks", steps=steps, batch_size=given.batch_size)
    return _learn(EdgeTask.of(tower, given, seed=seed), shares, steps, rate)


def fitted_masks(task: EdgeTask) -> np.ndarray:
    """A mask for each class, learned over all edges together to keep the metric alone."""
    return _learn(task, hard_gates.MASK_SHARES, STEPS, RATE)


def _learn(task: EdgeTask, shares: Sequence[float], steps: int, rate: float) -> np.ndarray:
    place = hard_gates.class_places(task.labels, len(task))
    gap = hard_gates.to_gain(
        task.tower, task.metric, task.clean, task.corrupt, batch_size=task.batch_size
    )
    before = _starting(task, place)
    gates, chunk = _Gates.of(task.wiring, shares, before.device), _fitting(task)
    logits = before.clone().requires_grad_()

    def gain(step: int, rows: np.ndarray) -> Tensor:
        return _alone(task[rows], gates.at(step, logits)[place[rows]]).mean()

    hard_gates.climb(
        [logits],
        gain,
        hard_gates.turns(len(task), PAIRS, task.seed),
        steps=steps,
        rate=rate,
        size=chunk,
        floor=hard_gates.FLAT * gap / len(logits),
    )
    after = logits.detach()
    gained, had = (_total(task, gates, each, place, chunk) for each in (after, before))
    better = torch.as_tensor(gained > had, device=after.device)[:, None]
    return torch.sigmoid(torch.where(better, after, before)).double().cpu().numpy()[place]


def _starting(task: EdgeTask, place: np.ndarray) -> Tensor:
    """The ranks of each class by EAP-IG-inputs, scaled to -1 to 1, `class edge`."""
    scores = in_batches(task, eap_ig_inputs)
    size = [np.abs(scores[place == one].mean(axis=0)) for one in range(place.max() + 1)]
    return hard_gates.scaled_ranks(torch.as_tensor(np.stack(size)).to(_stream(task)))


def _stream(task: EdgeTask) -> Tensor:
    """The stream of one example as it enters block 0."""
    with torch.no_grad():
        return task.tower(task.clean[:1], stop_at_layer=0)


@dataclass(frozen=True)
class _Gates:
    """Which edges pass at each step: sizes take turns, by groups of edges and over all edges.

    A cut by edges keeps a share of each group, `discover` a share of all.
    """

    groups: Sequence[Tensor]
    shares: Sequence[float]

    @classmethod
    def of(cls, wiring: Wiring, shares: Sequence[float], device: torch.device) -> "_Gates":
        places = [np.flatnonzero(wiring.groups == group) for group in np.unique(wiring.groups)]
        return cls([torch.as_tensor(each, device=device) for each in places], shares)

    def __len__(self) -> int:
        return 2 * len(self.shares)

    def at(self, step: int, logits: Tensor) -> Tensor:
        """The gates of a step, `class edge`."""
        share, over_all = self.shares[step // 2 % len(self.shares)], step % 2
        if over_all:
            return hard_gates.hard_gate(logits, share)
        gates = torch.zeros_like(logits)
        for group in self.groups:
            gates = gates.index_copy(1, group, hard_gates.hard_gate(logits[:, group], share))
        return gates


def _alone(task: EdgeTask, gates: Tensor) -> Tensor:
    """The metric of each example with its circuit alone, all else as in the corrupt run."""
    corrupt = open_run(task.tower, task.corrupt)
    check_ends(task.tower, corrupt, task.clean)
    with torch.no_grad():
        start = task.tower(task.clean, stop_at_layer=0)
    with torch.set_grad_enabled(gates.requires_grad), parameters_at_rest(task.tower):
        outputs = run_gated(
            task.tower,
            task.wiring,
            gates,
            start=start,
            corrupt=corrupt,
            words=resumption(task.tower, task.clean),
        )
        return measure(task.metric, outputs)


def _total(
    task: EdgeTask, gates: _Gates, logits: Tensor, place: np.ndarray, chunk: int
) -> np.ndarray:
    """The mean metric of each class over all sizes of its circuit, `class`."""
    values = np.zeros(len(task))
    for rows in batches(len(task), chunk):
        for step in range(len(gates)):
            values[rows] += _alone(task[rows], gates.at(step, logits)[place[rows]]).cpu().numpy()
    return np.bincount(place, values) / np.bincount(place)


def _fitting(task: EdgeTask) -> int:
    """How many examples share a pass: a gradient needs about six streams of every reader."""
    need = (len(task.wiring.writers) + 6 * len(task.wiring.readers)) * _stream(task).nbytes
    return max(1, min(task.batch_size, task.memory // need))
