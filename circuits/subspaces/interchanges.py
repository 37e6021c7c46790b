"""Pictures that subspaces are fitted on, and those that they are interchanged in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.subspaces.fitting import FitKeywords, FitRecipe
from interp.circuits.subspaces.pictures_without_class import CLASS_FREE, class_free
from interp.circuits.tasks.class_tasks import Crossing, CrossingKeywords
from interp.circuits.tasks.metrics import Metric, Target, measure
from interp.circuits.tasks.pairs import Transplants, draw_transplants, embed, read
from interp.core.artists import artist_column, artist_sides, artists_of
from interp.core.errors import AlikeError, SampleError, SpecificationError, check_known, listed
from interp.core.images import ImageTable
from interp.core.progress import say
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
    cells = pd.DataFrame({"domain": domain, "label": label, "side": side})
    found = cells.groupby(["domain", "label", "side"]).indices
    nobody = np.empty(0, dtype=int)
    rows = {
        (d, c, half): found.get((d, c, half), nobody)
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


@dataclass(frozen=True, eq=False)
class Material:
    """Pictures to fit on, as the tower takes them.

    `pairs` are rows of `pictures`, a base and a source of another class; `alike` is their distance
    from what the model says of the source.
    """

    pictures: Tensor
    pairs: Int[np.ndarray, "pair 2"]
    alike: Metric


@dataclass(frozen=True, eq=False)
class Domain:
    """A domain's pictures to fit on, and receivers with sources, as the tower takes them.

    `metric` scores receivers for class `label`, and is `before` on them as they are.
    """

    material: Material
    base: Tensor
    donor: Tensor
    null: Tensor
    metric: Metric
    before: Float[np.ndarray, "receiver"]


class DasKeywords(CrossingKeywords, FitKeywords, total=False):
    """What subspaces are asked for: the class task, and how they are fitted."""

    k: int | None
    class_free: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class DasTask(Crossing, FitRecipe):
    """What subspaces are asked for: the class task, and how they are fitted.

    Args:
        k: Directions; None takes the fewest that carry the class in every domain compared, at most
            one less than there are classes and half of the features.
        class_free: Kinds of pictures without a class that the null is fitted on, of `CLASS_FREE`;
            none for inputs that are no pictures.
    """

    k: int | None = None
    class_free: Sequence[str] = tuple(CLASS_FREE)

    def __post_init__(self) -> None:
        Crossing.__post_init__(self)
        FitRecipe.__post_init__(self)
        kinds = list(self.class_free)
        check_known("fit a null", "kind of picture", kinds, CLASS_FREE, SpecificationError)


def read_domain(tower: Tower, held: HeldOut, name: str, task: DasTask) -> Domain:
    """Read a domain's pictures and run them once, unpatched; draw the pairs to fit on."""
    classifier, preprocess, rows = task.classifier, task.preprocess, task.batch_size
    like, tested = classifier.embeddings, held.tested[name]
    shown = held.images.frame["label"].to_numpy(object)[held.fitted[name]]
    fitted = read(held.images, held.fitted[name], preprocess, like)
    base, donor, null = (
        read(tested.images, tested.rows[role].to_numpy(), preprocess, like)
        for role in ("target", "donor", "null")
    )
    outputs = embed(tower, base, batch_size=rows)
    scored = classifier.numbers(tested.rows["label"].tolist())
    score = Metric(task.metric, Target(classifier.standardised(outputs), scored))
    return Domain(
        material=material(tower, fitted, classifier.numbers(shown.tolist()).numpy(), task),
        base=base,
        donor=donor,
        null=null,
        metric=score,
        before=measure(score, outputs).double().cpu().numpy(),
    )


def read_class_free(tower: Tower, held: HeldOut, task: DasTask) -> dict[str, Material]:
    """Pictures without a class to fit on, of every kind: as many as of a domain, made from all."""
    each = list(held.fitted.values())
    turn = np.arange(len(each[0])) % len(each)
    rows = np.stack(each)[turn, np.arange(len(turn))]
    shown = [held.images.picture(int(row)) for row in rows]
    found = {}
    for kind in task.class_free:
        made = [task.preprocess(one) for one in class_free(shown, kind, seed=task.seed)]
        pictures = torch.stack(made).to(task.classifier.embeddings)
        try:
            found[kind] = material(tower, pictures, np.arange(len(rows)), task)
        except AlikeError:  # nothing can be fitted to one answer
            say(f"das: no subspace of {kind}, to which the model has one answer")
    return found


def material(tower: Tower, pictures: Tensor, groups: np.ndarray, task: DasTask) -> Material:
    """Pairs of pictures of different groups, and what the model says of each source."""
    pairs = draw_pairs(groups, task.steps * task.batch_size, seed=task.seed)
    says = embed(tower, pictures, batch_size=task.batch_size)
    unit, source = task.classifier.standardised(says), torch.from_numpy(pairs[:, 1])
    clean = says[source.to(says.device)]
    labels = torch.zeros(len(pairs), dtype=torch.long)  # a distance asks for none
    return Material(pictures, pairs, Metric("kl", Target(unit, labels, clean=clean)))


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
