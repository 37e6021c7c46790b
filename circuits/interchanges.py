"""What interchanging subspaces does within domains: bases fitted in each, tried in all."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.donors import embed, read
from interp.circuits.held_out import HeldOut
from interp.circuits.metrics import Classifier, Metric, Target, measure
from interp.circuits.onward import Onward, in_parts
from interp.circuits.subspace_fitting import Recipe, Task, fit, varied
from interp.circuits.subspaces import Subspace
from interp.core.errors import NumericsError
from interp.core.images import Preprocess
from interp.core.model import Tower
from interp.core.seeds import rng

KINDS = ("own", "own null", "whole", "whole null")
"""What a receiver is given: the part in its own domain's subspace, or the whole site; from a source
of the scored class or, for a null, of a third class.
"""

FOREIGN = ("other", "other null", "varied", "varied null", "random")
"""The same in the subspace of another domain, in the directions that vary there when what that one
reads does, and in a random subspace as large.
"""


@dataclass(frozen=True, eq=False)
class Domain:
    """A domain's pictures as the tower takes them: those fitted on, and receivers with sources.

    `pairs` are rows of `fitted`, a base and a source of another class; `alike` is their distance
    from what the model says of the source. `metric` scores receivers for class `label`, and is
    `before` on them as they are.
    """

    fitted: Tensor
    pairs: Int[np.ndarray, "pair 2"]
    alike: Metric
    base: Tensor
    donor: Tensor
    null: Tensor
    metric: Metric
    before: Float[np.ndarray, "receiver"]


def read_domain(
    tower: Tower,
    held: HeldOut,
    name: str,
    *,
    classifier: Classifier,
    preprocess: Preprocess,
    metric: str,
    n_pairs: int,
    rows: int,
    seed: int,
) -> Domain:
    """Read a domain's pictures and run them once, unpatched; draw `n_pairs` to fit on."""
    like, tested = classifier.embeddings, held.tested[name]
    shown = held.images.frame["label"].to_numpy(object)[held.fitted[name]]
    labels = classifier.numbers(shown.tolist())
    pairs = draw_pairs(labels.numpy(), n_pairs, seed=seed)
    fitted = read(held.images, held.fitted[name], preprocess, like)
    says = embed(tower, fitted, batch_size=rows)
    unit, source = classifier.standardised(says), torch.from_numpy(pairs[:, 1])
    base, donor, null = (
        read(tested.images, tested.rows[role].to_numpy(), preprocess, like)
        for role in ("target", "donor", "null")
    )
    outputs = embed(tower, base, batch_size=rows)
    scored = classifier.numbers(tested.rows["label"].tolist())
    score = Metric(metric, Target(classifier.standardised(outputs), scored))
    return Domain(
        fitted=fitted,
        pairs=pairs,
        alike=Metric("kl", Target(unit, labels[source], clean=says[source.to(says.device)])),
        base=base,
        donor=donor,
        null=null,
        metric=score,
        before=measure(score, outputs).double().cpu().numpy(),
    )


def draw_pairs(labels: np.ndarray, n: int, *, seed: int = 0) -> Int[np.ndarray, "pair 2"]:
    """Rows of bases and sources of different classes, sources spread evenly over the classes.

    >>> draw_pairs(np.array([3, 3, 5]), 2)[:, 1].tolist()[1]
    2
    """
    stream, classes = rng("das pairs", seed), np.unique(labels)
    pairs = np.empty((n, 2), dtype=np.int64)
    for place, label in enumerate(classes):
        turn = slice(place, n, len(classes))
        size = len(pairs[turn])
        pairs[turn, 0] = stream.choice(np.flatnonzero(labels != label), size)
        pairs[turn, 1] = stream.choice(np.flatnonzero(labels == label), size)
    return pairs


@dataclass(frozen=True, eq=False)
class Tried:
    """At one site in one domain: the subspace fitted there, and what subspaces do there.

    `effects` `[kind receiver]` are those of `KINDS`, `foreign[domain]` those of `FOREIGN` with the
    subspace of another domain.
    """

    subspace: Subspace
    effects: Float[np.ndarray, "kind receiver"]
    foreign: Mapping[str, Float[np.ndarray, "role receiver"]]

    def __getitem__(self, kind: str) -> Float[np.ndarray, "receiver"]:
        return self.effects[KINDS.index(kind)]

    def given(self, domain: str, kind: str) -> Float[np.ndarray, "receiver"]:
        """What the subspace of another domain does here, by `FOREIGN`'s kinds."""
        return self.foreign[domain][FOREIGN.index(kind)]


def try_site(
    tower: Tower,
    site: str,
    domains: Mapping[str, Domain],
    *,
    k: int,
    where: Mapping[str, int],
    recipe: Recipe,
    rows: int,
    memory: int,
    seed: int,
) -> dict[str, Tried]:
    """Fit a subspace in each domain, and interchange each in all."""
    one = next(iter(domains.values())).fitted
    onward = Onward.from_site(tower, site, one)
    at_once = max(1, min(recipe.batch_size, memory // onward.bytes_with_gradients(one)))
    fitted, moving = {}, {}
    for name, domain in domains.items():
        runs = onward.hold(domain.fitted, rows=rows)
        task = Task(onward, runs, runs, domain.pairs, domain.alike, where)
        fitted[name] = fit(task, k=k, recipe=recipe, rows=at_once, seed=seed)
        moving[name] = varied(task, fitted[name])
    tried = {}
    for name, domain in domains.items():
        others = {each: (fitted[each], moving[each]) for each in fitted if each != name}
        effects = try_subspaces(onward, domain, fitted[name], others, rows=rows, seed=seed)
        foreign = np.split(effects[len(KINDS) :], len(others))
        tried[name] = Tried(
            fitted[name], effects[: len(KINDS)], dict(zip(others, foreign, strict=True))
        )
    return tried


@torch.no_grad()
def try_subspaces(
    onward: Onward,
    domain: Domain,
    own: Subspace,
    others: Mapping[str, tuple[Subspace, Subspace]],
    *,
    rows: int,
    seed: int,
) -> Float[np.ndarray, "kind receiver"]:
    """How far each of `KINDS`, then of `FOREIGN` by domain, moves the metric of the receivers."""
    whole = own.with_basis(torch.eye(len(own.basis)))
    swaps = [(subspace, role) for subspace in (own, whole) for role in ("donor", "null")]
    for other, moving in others.values():
        drawn = torch.from_numpy(rng("random subspace", seed).normal(size=other.basis.shape))
        by_chance = own.with_basis(torch.linalg.qr(drawn).Q)
        swaps += [(subspace, role) for subspace in (other, moving) for role in ("donor", "null")]
        swaps.append((by_chance, "donor"))

    def run(window: slice) -> Tensor:
        base = onward.hold(domain.base[window], rows=rows)
        sources = {
            "donor": onward.hold(domain.donor[window], rows=rows),
            "null": onward.hold(domain.null[window], rows=rows),
        }
        found = []
        for subspace, role in swaps:
            activation = subspace.swap(base.activation, sources[role].activation)
            outputs = onward.outputs(base.stream, activation)
            found.append(measure(domain.metric[window], outputs))
        return torch.stack(found)

    after = torch.cat(in_parts(len(domain.base), rows, run), dim=1).double().cpu().numpy()
    if not np.isfinite(after).all():
        raise NumericsError(
            f"interchange activations at {onward.site}",
            "NaN or infinity in the outputs",
            "finite numbers",
            "check the pictures, the class embeddings and the tower's own output",
        )
    return after - domain.before
