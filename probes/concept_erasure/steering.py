"""Steering: add a class's direction at a site, and see what the model answers.

A direction is fitted on the drawings of one half of the artists in one domain, and added to
pictures of other classes by the other half, in that domain and in another.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.core.arguments import filled
from interp.core.artists import artist_sides
from interp.core.edits.edits import Answering, AnsweringKeywords, Edit, edited_answers, site_rows
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.resampling import group_means, mean_interval, sign_flip_p
from interp.core.tables import Table
from interp.core.tower import Tower

STEER = "steer pictures"
DOSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""How often a class's direction is added: once makes a picture's features those of the class, on
average, where it had none of it."""

MEASURE = "called the class it is steered to"


@door
def steering(
    tower: Tower,
    images: ImageTable,
    site: str,
    *,
    domains: Sequence[str] | None = None,
    doses: Sequence[float] = DOSES,
    seed: int = 0,
    **answering: Unpack[AnsweringKeywords],
) -> Table:
    """Add classes' directions to pictures of other classes, and count the answers.

    direction(class, domain) = mean features of the class - mean over the other classes, on one
    half of the artists. Every picture of the other half is steered to one class drawn for it.

    Args:
        tower: A tower.
        images: Pictures by two artists or more, of three classes or more in each domain.
        site: Where directions are added.
        domains: In which directions are fitted and pictures steered; None takes all.
        doses: How often the direction is added.
        seed: Of the classes that pictures are steered to, and of intervals.
        preprocess: From a picture to what the tower takes.
        classifier: From embeddings to logits.
        class_names: The classes, in the order of the logits.
        pool: What a direction is added to: "mean" (the default) moves all tokens or places alike,
            "class" the first token, "token" each.
        batch_size: Pictures in a forward, 256 by default.

    Returns:
        A row for each domain of the direction (`domain_a`), domain of the pictures (`domain_b`) and
        dose: `value` is the share of pictures called the class they were steered to, a mean over
        these classes. `null` is the share called another class drawn alike, `ceiling` the value of
        the pictures' own domain's direction.

    Raises:
        SpecificationError: Without doses.
        SampleError: For a domain with fewer than three classes on both halves of its artists.
        DataError: For an unknown domain, or a label that is no class name.
        SiteError: For an unknown site.

    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> rows = [(label, domain, artist) for label in "abcd" for domain in ("x", "y")
    ...         for artist in ("one", "two") for _ in range(2)]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(split="analysis", caption="", path=[str(n) for n in range(len(rows))])
    >>> def reader(row):
    ...     return Image.new("L", (1, 1), 50 * "abcd".index(row["label"]))
    >>> def preprocess(picture):
    ...     return torch.eye(4)[picture.getpixel((0, 0))[0] // 50][None]
    >>> table = steering(
    ...     Chain([torch.nn.Identity()]), ImageTable(frame, reader=reader), "hook_embedding",
    ...     preprocess=preprocess, classifier=lambda x: x.flatten(1), class_names=list("abcd"),
    ...     doses=(0.0, 2.0))
    >>> table.frame.groupby("dose")["value"].mean().tolist()
    [0.0, 1.0]
    """
    if not len(doses):
        raise SpecificationError(STEER, "no doses", "one or more", "leave doses out")
    chosen = list(images.domains if domains is None else domains)
    check_known(STEER, "domain", chosen, images.domains)
    pictures = images.select(domain=chosen)
    fitted = fit_directions(tower, pictures, site, chosen, **answering)
    steered = pictures[artist_sides(pictures.frame) == 1]
    steered = steered[steered.label.isin(fitted.labels).to_numpy()]
    targets, others = _targets(steered, fitted.labels, seed)
    edits = {
        f"{domain} {dose:g}": fitted.added(domain, targets, dose)
        for domain, dose in product(chosen, doses)
    }
    edited = edited_answers(tower, steered, site, edits, **answering)
    names = pd.Index(list(answering["class_names"]))
    target, other = names.get_indexer(targets), names.get_indexer(others)
    rows = []
    for b, dose in product(chosen, doses):
        here = (steered.domain == b).to_numpy()
        about = _about(steered.frame[here], targets[here], seed)
        answers = {a: edited.logits[f"{a} {dose:g}"].argmax(axis=1) for a in chosen}
        own = _share(answers[b] == target, targets, here)
        for a, answer in answers.items():
            value, null = (_share(answer == each, targets, here) for each in (target, other))
            place = {"measure": MEASURE, "site": site, "domain_a": a, "domain_b": b, "dose": dose}
            evidence = about.row(
                mean_interval(value, seed=seed),
                null=float(null.mean()),
                ceiling=float(own.mean()),
                p=sign_flip_p(value - null, seed=seed),
            )
            rows.append(place | evidence)
    return Table.with_evidence("steering", pd.DataFrame(rows), {"site": site})


@dataclass(frozen=True)
class Directions:
    """Every class's direction at a site in every domain, from one half of the artists.

    Args:
        by_domain: For each domain `class feature`.
        labels: The classes.
    """

    by_domain: Mapping[str, np.ndarray]
    labels: Sequence[str]

    def added(self, domain: str, targets: Iterable[str], dose: float) -> Edit:
        """The edit that adds each picture's target's direction, `dose` times."""
        places = pd.Index(self.labels).get_indexer(list(targets))
        moved = dose * self.by_domain[domain][places][:, None]

        def edit(x: Tensor, rows: np.ndarray) -> Tensor:
            return x + torch.from_numpy(moved[rows]).to(x)

        return edit


def fit_directions(
    tower: Tower,
    images: ImageTable,
    site: str,
    domains: Sequence[str],
    **answering: Unpack[AnsweringKeywords],
) -> Directions:
    """The directions of the classes that all domains show, from the first half of the artists.

    Args:
        tower: A tower.
        images: The pictures.
        site: The site.
        domains: The domains.
        **answering: As of `steering`.

    Returns:
        The directions.

    Raises:
        SampleError: With fewer than three classes on both halves of the artists in all domains.
    """
    side = artist_sides(images.frame)
    sets = [
        set(images.label[(side == half) & (images.domain == name).to_numpy()])
        for half in (0, 1)
        for name in domains
    ]
    labels = sorted(set.intersection(*sets)) if sets else []
    if len(labels) < 3:
        given = f"{len(labels)} classes that both halves of the artists show in all domains"
        right = "three or more"
        raise SampleError(STEER, given, right, "give pictures by more artists, or of more classes")
    fitting = images[side == 0]
    how = filled(steering, Answering, answering)
    rows = site_rows(
        tower, fitting, site, preprocess=how.preprocess, pool=how.pool, batch_size=how.batch_size
    )
    features = rows.mean(dim=1).double().cpu().numpy()  # one token where they are pooled
    by_domain = {}
    for name in domains:
        here = (fitting.domain == name).to_numpy()
        means = np.stack(
            [features[here & (fitting.label == label).to_numpy()].mean(axis=0) for label in labels]
        )
        by_domain[name] = (means - means.mean(axis=0)) * len(labels) / (len(labels) - 1)
    return Directions(by_domain, labels)


def _targets(images: ImageTable, labels: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each picture a class that it is steered to, and another; neither is its own."""
    generator = rng("classes to steer to", seed)
    drawn = [
        generator.choice([name for name in labels if name != own], size=2, replace=False)
        for own in images.label
    ]
    both = np.array(drawn, dtype=object)
    return both[:, 0], both[:, 1]


def _about(pictures: pd.DataFrame, targets: np.ndarray, seed: int) -> Evidence:
    return Evidence(
        estimand="this model",
        null_kind="called another class drawn alike",
        ceiling_kind="the pictures' own domain's direction",
        seed=seed,
        **counts_of(pictures, len(set(targets))),
    )


def _share(hits: np.ndarray, targets: np.ndarray, here: np.ndarray) -> np.ndarray:
    """The share of hits for each class that pictures are steered to."""
    return group_means(hits[here].astype(float), targets[here].astype(str))


@door
def steered_answers(
    tower: Tower,
    images: ImageTable,
    site: str,
    labels: Sequence[str],
    *,
    fitted_in: str,
    domains: Sequence[str] | None = None,
    doses: Sequence[float] = DOSES,
    most: int = 6,
    **answering: Unpack[AnsweringKeywords],
) -> pd.DataFrame:
    """What pictures of other classes are called as a class's direction is added, dose by dose.

    Args:
        tower: A tower.
        images: The pictures.
        site: Where directions are added.
        labels: The classes whose directions are added, one at a time.
        fitted_in: The domain of the directions.
        domains: The domains whose pictures are steered; None takes all.
        doses: How often the direction is added.
        most: Answers that are listed; the rest is "others".
        preprocess: From a picture to what the tower takes.
        classifier: From embeddings to logits.
        class_names: The classes, in the order of the logits.
        pool: What a direction is added to, as of `steering`.
        batch_size: Pictures in a forward, 256 by default.

    Returns:
        Rows of `label` (the direction), `domain`, `dose`, `answer` and `share`, with `n_pictures`.

    Raises:
        DataError: For a class without a direction.

    >>> from interp.circuits import planted_vit
    >>> from interp.models import open_tower
    >>> planted = planted_vit("all shared", seed=1)
    >>> rows = steered_answers(
    ...     open_tower(planted.source), planted.pictures(4), "blocks.2.hook_resid_post", ["p0 q0"],
    ...     fitted_in="A", doses=(0.0, 2.0), preprocess=planted.preprocess, pool="class",
    ...     classifier=planted.classifier, class_names=list(planted.classifier.names))
    >>> rows[rows["answer"] == "p0 q0"].groupby("dose")["share"].mean().tolist()
    [0.0, 1.0]
    """
    shown = list(images.domains if domains is None else domains)
    pictures = images.select(domain=list(dict.fromkeys([fitted_in, *shown])))
    fitted = fit_directions(tower, pictures, site, [fitted_in], **answering)
    check_known("steer pictures", "class", labels, fitted.labels)
    names = np.array(list(answering["class_names"]))
    rows: list[dict[str, object]] = []
    for label in labels:
        others = (artist_sides(pictures.frame) == 1) & (pictures.label != label).to_numpy()
        steered = pictures[others].select(domain=shown)
        targets = [label] * len(steered)
        edits = {f"{dose:g}": fitted.added(fitted_in, targets, dose) for dose in doses}
        edited = edited_answers(tower, steered, site, edits, **answering)
        answers = {dose: names[edited.logits[f"{dose:g}"].argmax(axis=1)] for dose in doses}
        counts = pd.Series(np.concatenate(list(answers.values()))).value_counts()
        commonest = [label, *(name for name in counts.index if name != label)][:most]
        for domain in shown:
            here = (steered.domain == domain).to_numpy()
            place = {"label": label, "domain": domain, "n_pictures": int(here.sum())}
            rows += [
                {**place, "dose": dose, "answer": name, "share": share}
                for dose, answer in answers.items()
                for name, share in _shares(answer[here], commonest).items()
            ]
    return pd.DataFrame(rows)


def _shares(answers: np.ndarray, shown: Sequence[str]) -> dict[str, float]:
    """The share of each answer, and of all others.

    >>> _shares(np.array(["a", "a", "b", "c"]), ["a", "b"])
    {'a': 0.5, 'b': 0.25, 'others': 0.25}
    """
    shares = {name: float(np.mean(answers == name)) for name in shown}
    return shares | {"others": max(0.0, 1 - sum(shares.values()))}
