"""Steering: a class's direction turned up at a site while the model runs on, and what it says then.

A direction is fitted on the drawings of one half of the artists in one domain, and added to
pictures of other classes by the other half, in that domain and in another.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.core.arguments import filled
from interp.core.artists import artist_sides
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.resampling import group_means, mean_interval, sign_flip_p
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.concept_erasure.edits import (
    Answering,
    AnsweringKeywords,
    Edit,
    edited_answers,
    site_rows,
)

ASKED = "steer pictures"
DOSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""How often a class's direction is added: once makes a picture's features those of the class, on
average, where it had none of it."""

SAID = "called the class it is steered to"


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
    """Add classes' directions to pictures of other classes, and count what is then said.

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
        raise SpecificationError(ASKED, "no doses", "one or more", "leave doses out")
    names = list(answering["class_names"])
    asked = list(images.domains if domains is None else domains)
    check_known(ASKED, "domain", asked, images.domains)
    chosen = images.select(domain=asked)
    fitted = fit_directions(tower, chosen, site, asked, **answering)
    steered = chosen[artist_sides(chosen.frame) == 1]
    steered = steered[steered.label.isin(fitted.labels).to_numpy()]
    targets, others = _targets(steered, fitted.labels, seed)
    edits = {
        f"{domain} {dose:g}": fitted.added(domain, targets, dose)
        for domain in asked
        for dose in doses
    }
    found = edited_answers(tower, steered, site, edits, **answering)
    place = {name: number for number, name in enumerate(names)}
    wanted, other = (np.array([place[name] for name in each]) for each in (targets, others))
    rows = []
    for b in asked:
        here = (steered.domain == b).to_numpy()
        about = _about(steered.frame[here], targets[here], seed)
        for dose in doses:
            said = {a: found.logits[f"{a} {dose:g}"].argmax(axis=1) for a in asked}
            own = _share(said[b] == wanted, targets, here)
            for a in asked:
                value = _share(said[a] == wanted, targets, here)
                null = _share(said[a] == other, targets, here)
                key = {"measure": SAID, "site": site, "domain_a": a, "domain_b": b, "dose": dose}
                rows.append(key | _row(about, value, null, own, seed))
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
        place = {name: number for number, name in enumerate(self.labels)}
        wanted = np.array([place[name] for name in targets])
        moved = dose * self.by_domain[domain][wanted][:, None]

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
        raise SampleError(
            ASKED,
            f"{len(labels)} classes that both halves of the artists show in all domains",
            "three or more",
            "give pictures by more artists, or of more classes",
        )
    fitting = images[side == 0]
    how = filled(steering, Answering, answering)
    seen = site_rows(
        tower, fitting, site, preprocess=how.preprocess, pool=how.pool, batch_size=how.batch_size
    )
    features = seen.mean(dim=1).double().cpu().numpy()  # one token where they are pooled
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


def _row(
    about: Evidence, value: np.ndarray, null: np.ndarray, own: np.ndarray, seed: int
) -> dict[str, object]:
    p = sign_flip_p(value - null, seed=seed)
    return about.row(
        mean_interval(value, seed=seed), null=float(null.mean()), ceiling=float(own.mean()), p=p
    )


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
    """What pictures of other classes are called while a class is turned up, dose by dose.

    Args:
        tower: A tower.
        images: The pictures.
        site: Where directions are added.
        labels: The classes that are turned up, one at a time.
        fitted_in: The domain of the directions.
        domains: The domains whose pictures are steered; None takes all.
        doses: How often the direction is added.
        most: Answers that are told apart; the rest is "others".
        preprocess: From a picture to what the tower takes.
        classifier: From embeddings to logits.
        class_names: The classes, in the order of the logits.
        pool: What a direction is added to, as of `steering`.
        batch_size: Pictures in a forward, 256 by default.

    Returns:
        Rows of `label` (turned up), `domain`, `dose`, `answer` and `share`, with `n_pictures`.

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
    asked = list(images.domains if domains is None else domains)
    chosen = images.select(domain=list(dict.fromkeys([fitted_in, *asked])))
    fitted = fit_directions(tower, chosen, site, [fitted_in], **answering)
    check_known("turn a class up", "class", labels, fitted.labels)
    names = np.array(list(answering["class_names"]))
    rows: list[dict[str, object]] = []
    for label in labels:
        steered = chosen[
            (artist_sides(chosen.frame) == 1) & (chosen.label != label).to_numpy()
        ].select(domain=asked)
        targets = [label] * len(steered)
        edits = {f"{dose:g}": fitted.added(fitted_in, targets, dose) for dose in doses}
        found = edited_answers(tower, steered, site, edits, **answering)
        said = {dose: names[found.logits[f"{dose:g}"].argmax(axis=1)] for dose in doses}
        for domain in asked:
            here = (steered.domain == domain).to_numpy()
            key = {"label": label, "domain": domain, "n_pictures": int(here.sum())}
            for dose, answers in said.items():
                shares = _shares(answers[here], _commonest(said, label, most))
                rows += [
                    {**key, "dose": dose, "answer": name, "share": share}
                    for name, share in shares.items()
                ]
    return pd.DataFrame(rows)


def _commonest(said: Mapping[float, np.ndarray], label: str, most: int) -> list[str]:
    """The class that is turned up, and the commonest answers over all doses."""
    total = pd.Series(np.concatenate(list(said.values()))).value_counts()
    return [label, *(name for name in total.index if name != label)][:most]


def _shares(answers: np.ndarray, shown: Sequence[str]) -> dict[str, float]:
    """The share of each answer, and of all others.

    >>> _shares(np.array(["a", "a", "b", "c"]), ["a", "b"])
    {'a': 0.5, 'b': 0.25, 'others': 0.25}
    """
    shares = {name: float(np.mean(answers == name)) for name in shown}
    return shares | {"others": max(0.0, 1 - sum(shares.values()))}
