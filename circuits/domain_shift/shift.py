"""Moving pictures from one domain to another inside the model, and what they are then called.

A class that is known in a domain and not named there may be outvoted by the domain itself. Then
moving the stream by one vector, the mean of a domain where all classes are named less the mean of
this one, brings the class back, though the vector was fitted on other classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Required, TypedDict, Unpack, runtime_checkable

import numpy as np
import pandas as pd
import torch

from interp.circuits.domain_shift.vectors import (
    AS_LONG,
    RANDOM,
    STANDARD,
    WAYS,
    Fitting,
    Move,
    SiteCells,
)
from interp.core.arguments import check_counts, filled
from interp.core.artists import artist_sides
from interp.core.classifiers import Classifier
from interp.core.edits.edits import AS_IT_IS, EditedAnswers, edited_answers, site_rows
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.sites import LAST, find_sites
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.resampling import mean_interval, permutation_p
from interp.core.tables import Table
from interp.core.tower import Tower

MOVE = "move pictures to another domain"
TOP_1, HELD_OUT, SEEN = "balanced top-1", "held-out", "seen"
LOGITS = "logits"
"""Where classes are standardised: behind the tower."""


@runtime_checkable
class ZeroShotTower(Protocol):
    """A model with an image tower and classifiers by name: a `Clip`, or a supervised one."""

    @property
    def visual(self) -> Tower: ...

    @property
    def preprocess(self) -> Preprocess: ...

    def zero_shot(self, class_names: Sequence[str], templates: Sequence[str]) -> Classifier:
        """A classifier of class names."""
        ...


class ShiftKeywords(TypedDict, total=False):
    """Which pictures are moved where, and how the model is asked.

    Args:
        source: The domain in which classes were held out.
        target: A domain in which they were trained on.
        held_out: The classes that were held out of the source domain.
        fitted_on: Pictures that vectors are fitted on; None deals `images` by artists into a half
            to fit on and a half to ask. Those of held-out classes serve as unlabelled ones alone.
        class_names: The classes to choose from; empty takes those of the pictures.
        templates: What the model is asked with, "an image of a {}." by default.
        pool: What a vector is added to: "token" each token by its own mean, "mean" all tokens or
            places alike, "class" the first token; None takes tokens, and "mean" of a map.
        batch_size: Pictures in a forward, 256 by default.
        seed: Seed of all draws.
    """

    source: Required[str]
    target: Required[str]
    held_out: Required[Sequence[str]]
    fitted_on: ImageTable | None
    class_names: Sequence[str]
    templates: Sequence[str]
    pool: str | None
    batch_size: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ShiftAsked:
    """`ShiftKeywords`, with their defaults."""

    source: str
    target: str
    held_out: Sequence[str]
    fitted_on: ImageTable | None = None
    class_names: Sequence[str] = ()
    templates: Sequence[str] = ("an image of a {}.",)
    pool: str | None = None
    batch_size: int = 256
    seed: int = 0


@dataclass(frozen=True)
class ShiftRun:
    """The model, the pictures that are asked and those that vectors are fitted on.

    Args:
        clip: The model.
        asked: Pictures of both domains that the model names.
        fitting: Pictures that vectors are fitted on.
        classifier: All classes.
        how: What was asked.
    """

    clip: ZeroShotTower
    asked: ImageTable
    fitting: ImageTable
    classifier: Classifier
    how: ShiftAsked

    @classmethod
    def of(cls, clip: ZeroShotTower, images: ImageTable, how: ShiftAsked) -> "ShiftRun":
        """Check what was asked, and deal pictures by artists if none are given to fit on."""
        pair = [how.source, how.target]
        check_known(MOVE, "domain", pair, images.domains)
        if how.source == how.target:
            given = f"{how.source} as source and as target"
            do = "name the domain that pictures are from, and one where all classes were seen"
            raise SpecificationError(MOVE, given, "two domains", do)
        fitting = images if how.fitted_on is None else how.fitted_on
        check_known(MOVE, "domain", pair, fitting.domains)
        names = tuple(how.class_names) or tuple(sorted({*images.labels, *fitting.labels}))
        check_known(MOVE, "class", how.held_out, names)
        asked = images.select(domain=pair)
        if how.fitted_on is None:
            side = artist_sides(images.frame, seed=how.seed)
            fitting, asked = images[side == 0], images[side == 1].select(domain=pair)
        held = asked.label[(asked.domain == how.source).to_numpy()].isin(list(how.held_out))
        if held.all() or not held.any():
            given = f"{len(held)} pictures of {how.source}, {int(held.sum())} of held-out classes"
            do = "name the classes that were not trained on there, and give pictures of both kinds"
            raise SampleError(MOVE, given, "pictures of seen and of held-out classes", do)
        return cls(clip, asked, fitting, clip.zero_shot(names, how.templates), how)

    @property
    def pair(self) -> tuple[str, str]:
        """The domain that pictures are moved from, and the one that they are moved to."""
        return self.how.source, self.how.target

    @property
    def withheld(self) -> np.ndarray:
        """For each class whether it is held out."""
        return np.isin(self.classifier.class_names, list(self.how.held_out))

    @property
    def side(self) -> np.ndarray:
        """For each asked picture 0 for the source domain, 1 for the target."""
        return (self.asked.domain == self.pair[1]).to_numpy().astype(np.int64)

    def pool(self, site: str) -> str:
        """What a vector is added to at a site: a token by its own mean, a map as a whole."""
        return self.how.pool or ("token" if "pos" in self.clip.visual.axes(site) else "mean")

    def answers(
        self, images: ImageTable, site: str, moves: Mapping[str, Move], side: np.ndarray
    ) -> EditedAnswers:
        """Logits of pictures as they are, and under every move at a site."""
        return edited_answers(
            self.clip.visual,
            images,
            site,
            {name: move.edit(side) for name, move in moves.items()},
            preprocess=self.clip.preprocess,
            classifier=self.classifier,
            class_names=self.classifier.class_names,
            pool=self.pool(site),
            batch_size=self.how.batch_size,
        )

    def fit(self, site: str, n_controls: int) -> Fitting:
        """What the moves at a site are made from."""
        x = site_rows(
            self.clip.visual,
            self.fitting,
            site,
            preprocess=self.clip.preprocess,
            pool=self.pool(site),
            batch_size=self.how.batch_size,
        )
        frame, contrast = self.fitting.frame, None
        if site == LAST:
            text = torch.nn.functional.normalize(self.classifier.embeddings.detach(), dim=-1)
            held = torch.from_numpy(self.withheld).to(text.device)
            contrast = text[held].mean(dim=0) - text[~held].mean(dim=0)
        domain, label = frame["domain"].to_numpy(str), frame["label"].to_numpy(str)
        known = ~np.isin(label, list(self.how.held_out))
        return Fitting(
            SiteCells(x, domain, label, known), self.pair, contrast, n_controls, self.how.seed
        )


@door
def shift_domain(
    clip: ZeroShotTower,
    images: ImageTable,
    *,
    sites: str | Sequence[str],
    ways: Sequence[str] = WAYS,
    doses: Sequence[float] = (1.0,),
    n_unlabelled: Sequence[int] = (1, 10, 100, 1000),
    n_random: int = 19,
    n_controls: int = 3,
    **how: Unpack[ShiftKeywords],
) -> Table:
    """Move pictures from one domain to another at a site, and count which classes they are called.

        x -> x + dose (mean of the target - mean of the source)

    with means over classes that are not held out. Pictures of the target domain are moved the
    other way.

    Args:
        clip: A `Clip`, or anything with `visual`, `preprocess` and `zero_shot`.
        images: Test pictures of both domains, of seen and held-out classes.
        sites: Names or patterns of sites.
        ways: What pictures are moved by, names in `interp.circuits.WAYS`.
        doses: How often the mean shift is added; 0 changes nothing, -1 moves away.
        n_unlabelled: Pictures whose mean is taken where these need no class.
        n_random: Random directions of the mean shift's length, the null.
        n_controls: Draws of each other control, of unlabelled pictures, and of random directions at
            other doses than 1.
        **how: The keywords that follow.
        source: The domain in which classes were held out.
        target: A domain in which they were trained on.
        held_out: The classes that were held out of the source domain.
        fitted_on: Pictures that vectors are fitted on; None deals `images` by artists into a half
            to fit on and a half to ask. Those of held-out classes serve as unlabelled ones alone.
        class_names: The classes to choose from; empty takes those of the pictures.
        templates: What the model is asked with, "an image of a {}." by default.
        pool: What a vector is added to: "token" each token by its own mean, "mean" all tokens or
            places alike, "class" the first token; None takes tokens, and "mean" of a map.
        batch_size: Pictures in a forward, 256 by default.
        seed: Seed of all draws.

    Returns:
        Rows by `site`, `way`, `dose`, `domain` of the pictures and `class_set`: `before` and
        `after` are balanced accuracies among all classes, `value` their difference, `null` the mean
        difference of random directions of the same length and p the value's place among these, for
        ways that are as long as the shift; `ceiling` the most that held-out classes can gain:
        accuracy among them alone, less `before`.

    Raises:
        DataError: For an unknown domain or class, or way.
        SampleError: Where a domain has pictures of one kind of classes alone, or no seen class in
            both domains.
        SiteError: For an unknown site.
        SpecificationError: For the same domain twice, or a count below 1.

    References:
        Mean-difference steering: Turner et al. 2023, "Steering language models with activation
        engineering". LEACE: Belrose et al. 2023. Standardised logits: after Jung et al. 2021,
        "Standardized max logits".

    Notes:
        | way | what is done |
        |---|---|
        | mean shift | the vector, `dose` times |
        | LEACE of the domain | what tells both domains apart is taken out |
        | text contrast | text of held-out less text of seen classes; at the embedding |
        | centred on (un)balanced pictures | as the shift, by means of `n_fitted` of any class |
        | logits standardised by class | over the domain's pictures that vectors are fitted on |
        | channels permuted, another split of classes | controls of the shift's length |
        | another domain's mean | the shift to a third domain, `against` |
        | one class's vector | the shift of a single class's pictures |

    >>> from interp.circuits.toy import toy_shift
    >>> clip, images = toy_shift()
    >>> found = shift_domain(clip, images, source="sketch", target="real",
    ...                      sites="hook_embedding", held_out=["c", "d"])
    >>> row = found.frame.query("way == 'mean shift' and domain == 'sketch'")
    >>> row[["class_set", "before", "after"]].to_numpy().tolist()
    [['held-out', 0.0, 1.0], ['seen', 1.0, 1.0]]
    """
    check_known(MOVE, "way", ways, WAYS)
    check_counts(MOVE, n_random=n_random, n_controls=n_controls)
    for n in n_unlabelled:
        check_counts(MOVE, unlabelled_pictures=n)
    run = ShiftRun.of(clip, images, filled(shift_domain, ShiftAsked, how))
    rows: list[dict[str, object]] = []
    for site in find_sites(sites, run.clip.visual.sites):
        fitting = run.fit(site, n_controls)
        made = [*fitting.moves(ways, doses, n_unlabelled), *fitting.random(doses, n_random)]
        moves = {str(number): move for number, move in enumerate(made)}
        answers = run.answers(run.asked, site, moves, run.side)
        place = {"site": site, "layer": clip.visual.layer(site)}
        rows += [{**place, **row} for row in _rows(run, moves, answers.logits)]
    if STANDARD in ways:
        rows += [{"site": LOGITS, "layer": clip.visual.n_layers, **r} for r in _standardised(run)]
    return Table.with_evidence("domain_shift", pd.DataFrame(rows), {"source": images.source})


def _rows(
    run: ShiftRun, moves: Mapping[str, Move], logits: Mapping[str, np.ndarray]
) -> Iterator[dict[str, object]]:
    """Rows of one site: every kind of move, in both domains, for both kinds of classes."""
    kinds: dict[tuple[str, float, str, int], list[str]] = {}
    for name, move in moves.items():
        kinds.setdefault(move.kind, []).append(name)
    for scored in scored_pictures(run, logits[AS_IT_IS], run.asked):
        change = {name: scored.recalls(logits[name]) - scored.before for name in moves}
        for (way, dose, against, n), names in kinds.items():
            found = np.mean([change[name] for name in names], axis=0)
            kind = {"way": way, "dose": dose, "against": against, "n_fitted": n}
            random = kinds.get((RANDOM, abs(dose), "", 0), []) if way in AS_LONG else []
            null = np.array([change[name].mean() for name in random])
            yield kind | {"n_draws": len(names)} | scored.row(found, null, run.how.seed)


@dataclass(frozen=True)
class ScoredPictures:
    """The pictures of one domain and kind of classes, by class."""

    domain: str
    toward: str
    class_set: str
    own: np.ndarray
    truth: np.ndarray
    before: np.ndarray
    known: float
    about: Evidence

    def recalls(self, logits: np.ndarray) -> np.ndarray:
        """The share of each class's pictures that are named right."""
        hits = logits[self.own].argmax(axis=1) == self.truth
        return np.array([hits[self.truth == code].mean() for code in np.unique(self.truth)])

    def row(self, change: np.ndarray, null: np.ndarray, seed: int) -> dict[str, object]:
        """The evidence of one change of these recalls, and what random directions change."""
        before, value, middle, p = float(self.before.mean()), float(change.mean()), np.nan, np.nan
        if len(null):
            middle = float(null.mean())
            p = permutation_p(abs(value - middle) - 1e-12, abs(null - middle))
        evidence = self.about.row(
            mean_interval(change, seed=seed), null=middle, ceiling=self.known - before, p=p
        )
        where = {"domain": self.domain, "toward": self.toward, "class_set": self.class_set}
        numbers = {"before": before, "after": before + value}
        return {"measure": TOP_1, **where, **numbers, **evidence}


def scored_pictures(
    run: ShiftRun, logits: np.ndarray, asked: ImageTable
) -> Iterator[ScoredPictures]:
    """Both domains and kinds of classes, with accuracies as they are; held-out ones first."""
    truth = np.array([run.classifier.class_names.index(name) for name in asked.label])
    held, domains = run.withheld, asked.domain.to_numpy()
    for domain, toward in (run.pair, run.pair[::-1]):
        for class_set, kind in ((HELD_OUT, held), (SEEN, ~held)):
            own = np.flatnonzero((domains == domain) & kind[truth])
            if not len(own):
                continue
            codes, restored = np.unique(truth[own]), domain == run.pair[0] and kind is held
            among = np.where(kind, logits[own], -np.inf).argmax(axis=1) == truth[own]
            known = np.mean([among[truth[own] == code].mean() for code in codes])
            about = Evidence(
                estimand="this model, over classes like these",
                null_kind="random directions of the mean shift's length",
                ceiling_kind="accuracy among held-out classes" if restored else "",
                seed=run.how.seed,
                **counts_of(asked.frame.iloc[own], len(codes)),
            )
            right = logits[own].argmax(axis=1) == truth[own]
            before = np.array([right[truth[own] == code].mean() for code in codes])
            known = float(known) if restored else np.nan
            yield ScoredPictures(domain, toward, class_set, own, truth[own], before, known, about)


def _standardised(run: ShiftRun) -> Iterator[dict[str, object]]:
    """Each class's logit less its mean over pictures of the domain, over its deviation there."""
    fitting = run.fitting.select(domain=list(run.pair))
    asked, fitted = (
        run.answers(images, LAST, {}, np.zeros(len(images), int)).logits[AS_IT_IS]
        for images in (run.asked, fitting)
    )
    done = asked.copy()
    for side, domain in enumerate(run.pair):
        own = fitted[(fitting.domain == domain).to_numpy()]
        spread = np.maximum(own.std(axis=0), 1e-9)
        done[run.side == side] = (asked[run.side == side] - own.mean(axis=0)) / spread
    for scored in scored_pictures(run, asked, run.asked):
        kind = {"way": STANDARD, "dose": 1.0, "against": "", "n_draws": 1}
        n = int((fitting.domain == scored.domain).sum())
        change = scored.recalls(done) - scored.before
        yield kind | {"n_fitted": n} | scored.row(change, np.array([]), run.how.seed)
