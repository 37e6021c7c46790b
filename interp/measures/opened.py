"""One opened model with what it is asked about: what every declared measure is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

from interp.core.errors import SampleError, listed
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import BAND, LAST
from interp.core.tables import Table, stacked
from interp.measures.known_sites import present
from interp.measures.options import AnalysisSpec
from interp.measures.subjects import Subject, stream_features

if TYPE_CHECKING:
    from interp.probes import Features

Frames: TypeAlias = dict[str, pd.DataFrame]
"""Tables by name."""


@dataclass(frozen=True)
class OpenedModel:
    """An opened model, the pictures and classes it is asked about, and how often.

    Args:
        subject: The model, and where its results are filed.
        images: All pictures, of every split.
        pair: The natural domain, and the one that sharing is asked about.
        held_out: Classes that were not trained on in the second of these.
        analysis: How many pairs, permutations and splits.
        name: What captions call the model.
    """

    subject: Subject
    images: ImageTable
    pair: tuple[str, str]
    held_out: tuple[str, ...] = ()
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)
    name: str = "this model"

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
        split = "analysis" if "analysis" in set(self.images.split) else "test"
        pictures = self.images.select(split=split)
        return self._few(pictures[(~pictures.label.isin(self.held_out)).to_numpy()])

    def _few(self, pictures: ImageTable) -> ImageTable:
        """At most as many pictures of each class and domain as are asked for."""
        most = self.analysis.n_cell_pictures
        return pictures.few(most, seed=self.subject.seed) if most else pictures

    @cached_property
    def intervened(self) -> ImageTable:
        """The analysed pictures of the classes that the model is run again for, one by one."""
        own, n = self.analysed, self.analysis.n_circuit_classes
        if len(own.labels) <= n:
            return own
        say(f"causal directions, circuits and replaced features: {n} of {len(own.labels)} classes")
        drawn = rng("classes of circuits", self.subject.seed).permutation(own.labels)[:n]
        return own.select(label=sorted(drawn))

    @cached_property
    def features(self) -> "Features":
        """Pooled activations of the stream, collected once for all measures."""
        return stream_features(self.subject, self.analysed)

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
        return stream_features(self.subject, self._few(apart))

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
        say(f"{what} left out: {type(self.subject.clip.visual).__name__} has no middle site known")
        return True

    def lacks(self, patterns: Sequence[str], what: str) -> bool:
        """Whether the tower has no site that any pattern names; if so, that is said."""
        tower = self.subject.clip.visual
        if present(tower, patterns):
            return False
        say(f"{what} left out: {type(tower).__name__} has none of {listed(patterns)}")
        return True

    def filed(self, made: Mapping[str, Sequence[Callable[[], Table]]]) -> Frames:
        """Tables put together from parts, with the model's place in the study beside them.

        A part for which there are too few pictures or classes is a row with the reason.
        """
        frames = {}
        for name, parts in made.items():
            found = []
            for part in parts:
                try:
                    found.append(part().frame)
                except SampleError as error:
                    say(f"{name} left out: {error}")
                    found.append(pd.DataFrame({"measure": [name], "reason": [str(error)]}))
            frames[name] = self.subject.file(stacked(found))
        return frames
