"""Interchange of subspaces within domains: bases fitted in each domain, tried in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.subspaces.fitting import (
    FitKeywords,
    FitRecipe,
    SubspaceTask,
    fit_directions,
    varied,
)
from interp.circuits.subspaces.subspace import Subspace
from interp.circuits.tasks.class_tasks import Crossing, CrossingKeywords
from interp.circuits.tasks.metrics import Metric, Target, measure
from interp.circuits.tasks.pairs import Transplants, draw_transplants, embed, read
from interp.core.artists import artist_column, artist_sides, artists_of
from interp.core.batching import Batching
from interp.core.errors import NumericsError, SampleError, SpecificationError, check_known, listed
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.tower import Tower


@dataclass(frozen=True)
class HeldOut:
    """What is fitted on and what is tested on in each domain, by different artists.

    `fitted` are rows of `images`, equally many of each class in all domains. `tested` are
    transplants within a domain: `target` receives from `donor`, which shows `label`, or from
    `null`, which shows a third class.
    """

    images: ImageTable
    classes: Sequence[str]
    fitted: dict[str, np.ndarray]
    tested: dict[str, Transplants]
    artists: str


def hold_out(
    images: ImageTable, domains: Sequence[str], *, classes: Sequence[str], n: int, seed: int = 0
) -> HeldOut:
    """Deal the artists of all domains into those fitted on and those tested on, and draw pictures.

    An artist stands on one side with all classes and domains; the larger side is tested on,
    since base and source are by different artists there. About `n` pictures of each domain are
    fitted on, `n` receivers are tested.

    Raises `DataError` for an unknown domain, `SpecificationError` for one domain twice,
    `SampleError` for fewer than three classes on both sides in every domain, or too few artists.
    """
    check_known("fit a subspace", "domain", domains, images.domains)
    asked = f"compare the subspaces of {' and '.join(domains)}"
    if len(set(domains)) < len(domains) or n < 1:
        raise SpecificationError(
            asked,
            f"{listed(domains)}, n = {n}",
            "different domains, n of at least 1",
            "choose others",
        )
    frame = images.frame
    used = frame["domain"].isin(domains).to_numpy() & frame["label"].isin(classes).to_numpy()
    column, who = artist_column(frame), artists_of(frame)
    label, domain = (frame[name].to_numpy(object) for name in ("label", "domain"))
    side = np.full(len(frame), -1)
    if used.any():
        side[used] = artist_sides(frame[used], seed=seed)
    rows = {
        (d, c, half): np.flatnonzero((domain == d) & (label == c) & (side == half))
        for d in domains
        for c in classes
        for half in (0, 1)
    }
    usable = [c for c in classes if all(len(rows[d, c, h]) for d in domains for h in (0, 1))]
    few = [d for d in domains if len(set(who[(side == 1) & (domain == d)])) < 2]
    if len(usable) < 3 or few:
        n_artists = {d: len(set(who[used & (domain == d)])) for d in domains}
        raise SampleError(
            asked,
            f"{len(usable)} classes by artists fitted on and others, of {n_artists} ({column})",
            "three classes and three artists in every domain: one to fit on, two to test on",
            "give more classes or more artists",
        )
    most, generator = -(-n // len(usable)), rng("fitted on", seed)
    fitted: dict[str, list[np.ndarray]] = {d: [] for d in domains}
    for c in usable:
        count = min(most, *(len(rows[d, c, 0]) for d in domains))
        for d in domains:
            fitted[d].append(np.sort(generator.choice(rows[d, c, 0], count, replace=False)))
    rest = images[np.flatnonzero(side == 1)]
    tested = {
        d: draw_transplants(rest, domain_a=d, domain_b=d, classes=usable, n=n, seed=seed)
        for d in domains
    }
    chosen = {d: np.concatenate(parts) for d, parts in fitted.items()}
    return HeldOut(images, usable, chosen, tested, column)


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


class DasKeywords(CrossingKeywords, FitKeywords, total=False):
    """What subspaces are asked for: the class task, and how they are fitted."""

    k: int | None


@dataclass(frozen=True, kw_only=True)
class DasTask(Crossing, FitRecipe):
    """What subspaces are asked for: the class task, and how they are fitted.

    Args:
        k: Directions; None takes one less than there are classes, at most half of the features.
    """

    k: int | None = None

    def __post_init__(self) -> None:
        Crossing.__post_init__(self)
        FitRecipe.__post_init__(self)


def read_domain(tower: Tower, held: HeldOut, name: str, task: DasTask) -> Domain:
    """Read a domain's pictures and run them once, unpatched; draw the pairs to fit on."""
    classifier, preprocess, rows = task.classifier, task.preprocess, task.batch_size
    like, tested = classifier.embeddings, held.tested[name]
    shown = held.images.frame["label"].to_numpy(object)[held.fitted[name]]
    labels = classifier.numbers(shown.tolist())
    pairs = draw_pairs(labels.numpy(), task.steps * rows, seed=task.seed)
    fitted = read(held.images, held.fitted[name], preprocess, like)
    says = embed(tower, fitted, batch_size=rows)
    unit, source = classifier.standardised(says), torch.from_numpy(pairs[:, 1])
    base, donor, null = (
        read(tested.images, tested.rows[role].to_numpy(), preprocess, like)
        for role in ("target", "donor", "null")
    )
    outputs = embed(tower, base, batch_size=rows)
    scored = classifier.numbers(tested.rows["label"].tolist())
    score = Metric(task.metric, Target(classifier.standardised(outputs), scored))
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
    generator, classes = rng("das pairs", seed), np.unique(labels)
    pairs = np.empty((n, 2), dtype=np.int64)
    for place, label in enumerate(classes):
        turn = slice(place, n, len(classes))
        size = len(pairs[turn])
        pairs[turn, 0] = generator.choice(np.flatnonzero(labels != label), size)
        pairs[turn, 1] = generator.choice(np.flatnonzero(labels == label), size)
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
    recipe: FitRecipe,
    *,
    k: int,
    where: Mapping[str, int],
    rows: int,
) -> dict[str, Tried]:
    """Fit a subspace in each domain, and interchange each in all."""
    at_once = recipe.rows(tower, site, next(iter(domains.values())).fitted)
    fitted, moving = {}, {}
    for name, domain in domains.items():
        runs = hold(tower, site, domain.fitted, rows=rows)
        task = SubspaceTask(tower, runs, runs, domain.pairs, domain.alike, where)
        fitted[name] = fit_directions(task, recipe, k=k, rows=at_once)
        moving[name] = varied(task, fitted[name])
    tried = {}
    for name, domain in domains.items():
        others = {each: (fitted[each], moving[each]) for each in fitted if each != name}
        effects = try_subspaces(tower, domain, fitted[name], others, rows=rows, seed=recipe.seed)
        foreign = np.split(effects[len(KINDS) :], len(others))
        tried[name] = Tried(
            fitted[name], effects[: len(KINDS)], dict(zip(others, foreign, strict=True))
        )
    return tried


@torch.no_grad()
def try_subspaces(
    tower: Tower,
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
        base, donor, null = (
            hold(tower, own.site, x[window], rows=rows)
            for x in (domain.base, domain.donor, domain.null)
        )
        sources = {"donor": donor.activation, "null": null.activation}
        found = []
        for subspace, role in swaps:
            outputs = base.finish(subspace.swap(base.activation, sources[role]))
            found.append(measure(domain.metric[window], outputs))
        return torch.stack(found)

    after = torch.cat(Batching(rows).each(len(domain.base), run), dim=1).double().cpu().numpy()
    if not np.isfinite(after).all():
        raise NumericsError(
            f"interchange activations at {own.site}",
            "NaN or infinity in the outputs",
            "finite numbers",
            "check the pictures, the class embeddings and the tower's own output",
        )
    return after - domain.before
