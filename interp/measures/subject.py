"""The model under study, with everything that a measure needs to know of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

import pandas as pd
import pydantic.dataclasses
from torch import Tensor

from interp.core.classifiers import Classifier
from interp.core.errors import InterpError, SampleError, listed
from interp.core.fields import Declared, Flag, Names, Text, at_least, one_of
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import BAND, LAST, present, stream_sites
from interp.core.storage.store import LATER
from interp.core.tables import Table, stacked
from interp.core.tower import Tower
from interp.data.mixtures.templates import fill, prompts

if TYPE_CHECKING:
    from interp.circuits import ClassCircuits
    from interp.probes import Features

Frames: TypeAlias = dict[str, pd.DataFrame]
"""Tables by name."""

PICTURES_PER_CELL = 24
"""At most so many pictures of a class and domain are run again under an intervention."""


PAIRS = ("own", "one model", "all")


@pydantic.dataclasses.dataclass(frozen=True)
class AnalysisSpec(Declared):
    """What is measured on each trained model, and how often.

    `representation` are directions, factors, separation and selectivity by layer; `erasure` takes
    the domain out at the middle site, against `n_controls` draws of each control; `features` trains
    dictionaries there, on `n_dictionary_pictures` of every class and domain; `circuits` finds the
    parts that make the class, and tests them, on `n_circuit_pairs` pairs each.

    Causal directions, parts and wiring (R4 to R6) are compared between the natural and the test
    domain in every model. `pairs` says where also between all others, on `n_pair_classes` classes:
    "own" nowhere, "one model" in the last setting's first model, "all" in every model. Of six
    domains that takes about two minutes a model of one core.

    Of more classes than `n_circuit_classes`, so many are drawn for what runs the model again:
    causal directions, circuits and replaced features. They hold all of these classes' pictures,
    circuits cost in step with classes, and intervals shrink with the square root.

    At most `n_cell_pictures` pictures of a class in a domain are analysed; 0 takes all.

    `multiverse` asks R5 and R6 of that pair again under every reasonable choice, in every trained
    model. It takes many times what they take once, so it is off.

    `epochs` names the measures that are taken on kept epochs before the last as well, such as
    "accuracy", "similarity", "transfer" and "directions" (R1 to R3).
    """

    asked = "measure models"

    n_pairs: Annotated[int, at_least(2)] = 60
    n_transplants: Annotated[int, at_least(2)] = 240
    n_circuit_pairs: Annotated[int, at_least(2)] = 30
    pairs: Annotated[Text, one_of(PAIRS)] = "one model"
    n_pair_classes: Annotated[int, at_least(4)] = 15
    n_circuit_classes: Annotated[int, at_least(4)] = field(default=60, metadata=LATER)
    n_cell_pictures: Annotated[int, at_least(0)] = field(default=0, metadata=LATER)
    n_permutations: Annotated[int, at_least(19)] = 999
    n_splits: Annotated[int, at_least(1)] = 5
    n_controls: Annotated[int, at_least(2)] = 5
    n_dictionary_pictures: Annotated[int, at_least(2)] = 30
    dictionary_seeds: Annotated[int, at_least(2)] = 2
    dictionary_steps: Annotated[int, at_least(1)] = 600
    n_active: Annotated[int, at_least(1)] = 16
    transfer: Flag = True
    patching: Flag = True
    representation: Flag = True
    erasure: Flag = True
    features: Flag = True
    circuits: Flag = True
    multiverse: Flag = field(default=False, metadata=LATER)
    epochs: Names = field(default=(), metadata=LATER)


class Task(TypedDict):
    """What a function that runs the model again takes beside the tower and its pictures."""

    classifier: Classifier
    preprocess: Preprocess
    seed: int


@dataclass(frozen=True)
class ClassifyingTower:
    """A tower with a classifier of its own, in the place of a `Clip`."""

    visual: Tower
    preprocess: Preprocess
    classifier: Classifier

    def zero_shot(self, class_names: Sequence[str], templates: object) -> Classifier:
        """The classifier, whatever is asked for."""
        return self.classifier


@dataclass(frozen=True)
class Subject:
    """The model under study: opened, with its pictures, and where its results are filed.

    Args:
        clip: The model, a `Clip` or a `SupervisedModel`.
        images: All pictures, of every split.
        pair: The natural domain, and the one that sharing is measured with.
        held_out: Classes that were not trained on in the second of these.
        analysis: How many pairs, permutations and splits.
        name: What captions call the model.
        place: The model's place in the study: columns that its results are filed under.
        control: What kind of control the model is; empty for a trained one.
        only: Classes that the model is run again for; empty draws as many as the analysis says.
        sites: Names or patterns of the sites whose activations are read; None takes the stream.
        pool: How an activation becomes a vector, as in `interp.probes.collect`.
    """

    clip: Any
    images: ImageTable
    pair: tuple[str, str]
    held_out: tuple[str, ...] = ()
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)
    name: str = "this model"
    place: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    only: tuple[str, ...] = ()
    sites: Sequence[str] | None = None
    pool: str = "mean"

    @classmethod
    def of_tower(
        cls,
        tower: Tower,
        images: ImageTable,
        *,
        domains: Sequence[str],
        classifier: Classifier,
        preprocess: Preprocess,
        seed: int = 0,
        sites: Sequence[str] | None = None,
        pool: str = "mean",
    ) -> "Subject":
        """A tower with a classifier of its own, analysed on all pictures of some domains.

        Args:
            tower: The tower.
            images: The pictures; those of other classes than the classifier's are left out.
            domains: The domains, of which the first two are the pair.
            classifier: The classes.
            preprocess: From a picture to the tower's input.
            seed: The seed of resampling and pairing.
            sites: As in `Subject`.
            pool: As in `Subject`.

        Returns:
            The subject.
        """
        known = images.label.isin(classifier.class_names) & images.domain.isin(list(domains))
        chosen = images[known.to_numpy()]
        return cls(
            ClassifyingTower(tower, preprocess, classifier),
            chosen.with_frame(chosen.frame.assign(split="analysis")),
            (domains[0], domains[1]),
            place={"seed": seed},
            only=tuple(chosen.labels),
            sites=sites,
            pool=pool,
        )

    @property
    def tower(self) -> Tower:
        """Its image tower, with activations named."""
        return self.clip.visual

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to the tower's input."""
        return self.clip.preprocess

    @property
    def seed(self) -> int:
        """The seed of its block, which resampling and pairing follow."""
        return self.place.get("seed", 0)

    @property
    def task(self) -> Task:
        """Its classes, from a picture to its tower's input, and its seed."""
        return Task(classifier=self.classifier, preprocess=self.preprocess, seed=self.seed)

    @cached_property
    def classifier(self) -> Classifier:
        """Its own zero-shot classifier of all classes, with neutral prompts."""
        templates = [partial(fill, prompt) for prompt in prompts("neutral")]
        return self.clip.zero_shot(self.images.labels, templates)

    @property
    def test(self) -> ImageTable:
        """Pictures that accuracy is measured on."""
        return self.images[(self.images.split == "test").to_numpy()]

    @property
    def training(self) -> ImageTable | None:
        """Pictures for training, where there are any."""
        return self.images.select(split="train") if "train" in set(self.images.split) else None

    @cached_property
    def analysed(self) -> ImageTable:
        """Pictures that sharing is measured on: seen classes, not those accuracy is measured on."""
        pictures = self._not_for_accuracy
        return self._few(pictures[(~pictures.label.isin(self.held_out)).to_numpy()])

    @cached_property
    def _not_for_accuracy(self) -> ImageTable:
        return self.images.select(
            split="analysis" if "analysis" in set(self.images.split) else "test"
        )

    @cached_property
    def some_of_pair(self) -> ImageTable:
        """Some of the analysed pictures of both domains, and as many of every held-out class."""
        every = self._not_for_accuracy
        own = self.analysed, every[every.label.isin(self.held_out).to_numpy()]
        some = [
            images[images.domain.isin(self.pair).to_numpy()].few(PICTURES_PER_CELL, seed=self.seed)
            for images in own
        ]
        return self.images.with_frame(pd.concat([images.frame for images in some]))

    def _few(self, pictures: ImageTable) -> ImageTable:
        """At most as many pictures of each class and domain as are asked for."""
        most = self.analysis.n_cell_pictures
        return pictures.few(most, seed=self.seed) if most else pictures

    @cached_property
    def intervened(self) -> ImageTable:
        """The analysed pictures of the classes that the model is run again for, one by one."""
        own, n = self.analysed, self.analysis.n_circuit_classes
        if self.only:
            return own.select(label=sorted(self.only))
        if len(own.labels) <= n:
            return own
        say(f"causal directions, circuits and replaced features: {n} of {len(own.labels)} classes")
        drawn = rng("classes of circuits", self.seed).permutation(own.labels)[:n]
        return own.select(label=sorted(drawn))

    @cached_property
    def features(self) -> "Features":
        """Pooled activations of the stream, collected once for all measures."""
        return self._read(self.analysed)

    @cached_property
    def features_apart(self) -> "Features | None":
        """The same of every class of the pair, held-out ones too, on pictures for analysis.

        Those of a tested drawing are left out, so that no drawing counts for a prediction and for
        accuracy. None without pictures for analysis.
        """
        if "analysis" not in set(self.images.split):
            return None
        apart = self.images.select(split="analysis").select(domain=list(self.pair))
        test = self.test.frame
        if "drawing" in apart.frame.columns:
            tested = set(test["drawing"].dropna()) if "drawing" in test else set()
            apart = apart[(~apart.frame["drawing"].isin(list(tested))).to_numpy()]
        return self._read(self._few(apart))

    def _read(self, images: ImageTable) -> "Features":
        from interp.probes import collect

        tower, sites = self.tower, self.sites
        names = stream_sites(tower) if sites is None else present(tower, sites)
        return collect(tower, images, names, preprocess=self.preprocess, pool=self.pool)

    @cached_property
    def one(self) -> Tensor:
        """The first picture that the model is run again for, as the tower takes it."""
        return self.intervened.tensors(self.preprocess, [0]).to(self.classifier.embeddings)

    @cached_property
    def circuits(self) -> "dict[tuple[object, ...], ClassCircuits | InterpError]":
        """Class circuits found so far, or why there are none, by what they were found for."""
        return {}

    @property
    def depths(self) -> dict[str, float]:
        """Where in the tower the sites of `features` stand."""
        return {site: self.features.depth(site) for site in self.features.sites}

    def lacks_middle(self, what: str) -> bool:
        """Whether the tower has no site among the middle layers; if so, that is said.

        Such is a tower opened by module path, of which nothing but its ends is known.
        """
        if any(BAND[0] <= d <= BAND[1] for site, d in self.depths.items() if site != LAST):
            return False
        say(f"{what} left out: {type(self.tower).__name__} has no middle site known")
        return True

    def lacks(self, patterns: Sequence[str], what: str) -> bool:
        """Whether the tower has no site that any pattern names; if so, that is said."""
        tower = self.tower
        if present(tower, patterns):
            return False
        say(f"{what} left out: {type(tower).__name__} has none of {listed(patterns)}")
        return True

    def file(self, table: Table | pd.DataFrame) -> pd.DataFrame:
        """Results with the model's place in the study beside them."""
        frame = table.frame if isinstance(table, Table) else table
        rows = frame.assign(**self.place)
        if self.control or "control" not in frame.columns:
            return rows.assign(control=self.control)
        return rows

    def file_parts(self, parts: Mapping[str, Sequence[Callable[[], Table]]]) -> Frames:
        """Tables put together from parts, with the model's place in the study beside them.

        A part for which there are too few pictures or classes is a row with the reason.
        """
        frames = {}
        for name, own in parts.items():
            rows = []
            for part in own:
                try:
                    rows.append(part().frame)
                except SampleError as error:
                    say(f"{name} left out: {error}")
                    rows.append(pd.DataFrame({"measure": [name], "reason": [str(error)]}))
            frames[name] = self.file(stacked(rows))
        return frames
