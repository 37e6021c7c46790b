"""Edge attribution: how much of a clean run's metric each edge of a tower carries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Unpack

import numpy as np

from interp.circuits.edges.edge_mask_scores import fitted_masks
from interp.circuits.edges.edge_scores import (
    EdgeTask,
    chance,
    eap,
    eap_ig_activations,
    eap_ig_inputs,
    exact,
    in_batches,
    relp,
)
from interp.circuits.edges.hard_gates import mean_ranks
from interp.circuits.edges.wire import Wiring
from interp.circuits.patching.localise import class_mean
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import check_finite, name_of
from interp.circuits.tasks.pairs import PairedRuns, PairedRunsKeywords
from interp.core.arguments import Named, check_counts, filled
from interp.core.errors import SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.tower import Tower


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
    labels: Sequence[object] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        n, edges = self.values.shape
        return f"Attribution({n} examples x {edges:,} edges, {self.method}, metric {self.metric})"

    @property
    def scores(self) -> np.ndarray:
        """Mean over examples, or over class means where classes are known, `edge`."""
        if self.labels is None:
            return self.values.mean(axis=0)
        return class_mean(self.values, np.asarray(self.labels))

    @property
    def node_scores(self) -> np.ndarray:
        """The sum over the edges that leave each node, or enter the output, `node`."""
        leaving = np.zeros(len(self.wiring.nodes))
        np.add.at(leaving, self.wiring.edges[:, 0], self.scores)
        leaving[-1] = self.scores[self.wiring.offsets[-2] :].sum()
        return leaving


def together(task: EdgeTask) -> np.ndarray:
    """The mean rank of |score| by EAP-IG-inputs and learned masks."""
    return mean_ranks([in_batches(task, eap_ig_inputs), fitted_masks(task)], task.labels)


METHODS: Named[Callable[[EdgeTask], np.ndarray]] = Named(
    {
        "EAP": eap,
        "EAP-IG-inputs": eap_ig_inputs,
        "EAP-IG-activations": eap_ig_activations,
        "RelP": relp,
        "exact": exact,
        "learned masks": fitted_masks,
        "ensemble": together,
        "random": chance,
    }
)
"""Every method by name; help, errors and the tests' matrix read it."""

AT_ONCE = ("learned masks", "ensemble")
"""Methods that look at all examples together; all others score a batch at a time."""


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
        seed: Seed of the method "random", and of the order in which masks see the pairs.
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
            cannot be wired, texts of another length than their partners, or a keyword that is
            unknown or missing.
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

        "learned masks" are those of `edge_mask_scores`, a mask for each class where classes are
        known; "ensemble" is the mean rank of |score| by these and EAP-IG-inputs. Both look at all
        examples together, take half a minute for a small tower, and have no unit.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> ones = torch.ones(1, 2, 1)
    >>> scores = attribute(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0],
    ...                    method="EAP")
    >>> dict(zip(scores.wiring.names, scores.scores.tolist()))["m0->logits"]
    1.0
    """
    given = filled(attribute, PairedRuns, {"batch_size": 8, **runs})
    check_known("attribute", "method", [method], METHODS, SpecificationError)
    check_inputs(given.clean, given.corrupt, None, given.pairs)
    check_counts("attribute", steps=steps, batch_size=given.batch_size)
    started = perf_counter()
    task = EdgeTask.of(tower, given, steps=steps, seed=seed)
    score = METHODS[method]
    if method in AT_ONCE:
        values = score(task)
    else:
        values = in_batches(task, score, f"attribute by {method}")
    check_finite("attribute", {f"scores by {method}": values})
    facts = {
        "steps": steps if "IG" in method else 1,
        "seconds": perf_counter() - started,
        "dtype": str(given.clean.dtype),
        "n_examples": len(given.clean),
        "seed": seed,
    }
    return Attribution(task.wiring, values, method, name_of(given.metric), task.labels, facts)
