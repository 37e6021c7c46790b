"""Steering: add a class's direction at a site, and see what the model answers.

A direction is fitted on the drawings of one half of the artists in one domain, and added to
pictures of other classes by the other half, in that domain and in another.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

SEEN, HELD_OUT = "seen", "held-out"
MEASURE = "called the class it is steered to"


@door
def steering(
    tower: Tower,
    images: ImageTable,
    site: str,
    *,
    domains: Sequence[str] | None = None,
    doses: Sequence[float] = DOSES,
    held_out: Sequence[str] = (),
    seed: int = 0,
    **answering: Unpack[AnsweringKeywords],
) -> Table:
    """Add classes' directions to pictures of other classes, and count the answers.

    direction(class, domain) = mean features of the class - mean over the other classes, on one
    half of the artists. Every picture of the other half is steered to one class drawn for it, and
    to one of the held-out classes.

    Args:
        tower: A tower.
        images: Pictures by two artists or more, of three classes or more in each domain.
        site: Where directions are added.
        domains: In which directions are fitted and pictures steered; None takes all.
        doses: How often the direction is added.
        held_out: Classes that are steered to apart (`class_set`), two or more; their pictures make
            directions, less the mean over the other classes, and are not steered.
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
        DataError: For an unknown domain or held-out class, or a label that is no class name.
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
    check_known(STEER, "class", held_out, pictures.labels)
    fitted = fit_directions(tower, pictures, site, chosen, held_out=held_out, **answering)
    steered = pictures[artist_sides(pictures.frame) == 1]
    steered = steered[steered.label.isin(fitted.seen).to_numpy()]
    kinds = {SEEN: fitted.seen, HELD_OUT: [name for name in fitted.labels if name in held_out]}
    to = {kind: _targets(steered, own, seed) for kind, own in kinds.items() if len(own) > 1}
    edits = {
        f"{kind} {domain} {dose:g}": fitted.added(domain, targets, dose)
        for (kind, (targets, _)), domain, dose in product(to.items(), chosen, doses)
    }
    edited = edited_answers(tower, steered, site, edits, **answering)
    rows = []
    for kind, b, dose in product(to, chosen, doses):
        answers = {a: edited.logits[f"{kind} {a} {dose:g}"].argmax(axis=1) for a in chosen}
        names = np.array(list(answering["class_names"]))
        said = {a: names[answer] for a, answer in answers.items()}
        place = {"site": site, "class_set": kind, "domain_b": b, "dose": dose}
        here = (steered.domain == b).to_numpy()
        rows += [place | row for row in _called(steered.frame, here, said, b, to[kind], seed)]
    return Table.with_evidence("steering", pd.DataFrame(rows), {"site": site})


def _called(
    frame: pd.DataFrame,
    here: np.ndarray,
    said: Mapping[str, np.ndarray],
    own: str,
    drawn: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Iterator[dict[str, object]]:
    """A row for each domain of the direction: how often pictures are called their target."""
    targets = drawn[0]
    about = _about(frame[here], targets[here], seed)
    ceiling = float(_share(said[own] == targets, targets, here).mean())
    for a, answer in said.items():
        value, null = (_share(answer == each, targets, here) for each in drawn)
        evidence = about.row(
            mean_interval(value, seed=seed),
            null=float(null.mean()),
            ceiling=ceiling,
            p=sign_flip_p(value - null, seed=seed),
        )
        yield {"measure": MEASURE, "domain_a": a, **evidence}


@dataclass(frozen=True)
class Directions:
    """Every class's direction at a site in every domain, from one half of the artists.

    Args:
        by_domain: For each domain `class feature`.
        labels: The classes.
        seen: Those of them that are not held out.
    """

    by_domain: Mapping[str, np.ndarray]
    labels: Sequence[str]
    seen: Sequence[str]

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
    *,
    held_out: Sequence[str] = (),
    **answering: Unpack[AnsweringKeywords],
) -> Directions:
    """The directions of the classes that all domains show, from the first half of the artists.

    Args:
        tower: A tower.
        images: The pictures.
        site: The site.
        domains: The domains.
        held_out: Classes whose directions are taken from the mean over the others.
        **answering: As of `steering`.

    Returns:
        The directions.

    Raises:
        SampleError: With fewer than three other classes on both halves of the artists in all
            domains.
    """
    side = artist_sides(images.frame)
    sets = [
        set(images.label[(side == half) & (images.domain == name).to_numpy()])
        for half in (0, 1)
        for name in domains
    ]
    labels = sorted(set.intersection(*sets)) if sets else []
    seen, apart = ([x for x in labels if (x in held_out) is held] for held in (False, True))
    if len(seen) < 3:
        given = f"{len(seen)} classes that both halves of the artists show in all domains"
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
        means, others = (
            np.array(
                [features[here & (fitting.label == label).to_numpy()].mean(0) for label in own]
            )
            for own in (seen, apart)
        )
        own = (means - means.mean(axis=0)) * len(seen) / (len(seen) - 1)
        by_domain[name] = np.concatenate([own, others.reshape(-1, own.shape[1]) - means.mean(0)])
    return Directions(by_domain, [*seen, *apart], seen)


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
