"""A model under study: where its results are filed, which sites it has, how it is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pandas as pd

from interp import models, probes
from interp.core.classifiers import Classifier
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.tables import Table
from interp.data.mixtures.templates import PAPER, PROMPT_SETS, fill, prompts
from interp.measures.known_sites import stream_sites

PICTURES_PER_CELL = 24
"""At most so many pictures of a class and domain are run again under an intervention."""


@dataclass(frozen=True)
class Subject:
    """A model under study (a `Clip`, or a `SupervisedModel`), and where its results are filed."""

    clip: Any
    place: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""

    @property
    def seed(self) -> int:
        """The seed of its block, which resampling and pairing follow."""
        return self.place.get("seed", 0)

    def file(self, table: Table | pd.DataFrame) -> pd.DataFrame:
        """Results with the model's place in the study beside them."""
        frame = table.frame if isinstance(table, Table) else table
        named = frame.assign(**self.place)
        if self.control or "control" not in frame.columns:
            return named.assign(control=self.control)
        return named


def prompt_sets(
    domains: Sequence[str], clip: "models.Clip | None" = None, class_names: Sequence[str] = ()
) -> dict[str, "PromptSet"]:
    """The named prompt sets, neutral first, each asking about pictures of a domain.

    The paper's 86 prompts are among them if `clip` is given and its tokenizer can read them; if it
    cannot (a small model of a study's own words), that is said.
    """
    sets = {name: PromptSet(name, tuple(domains)) for name in PROMPT_SETS if name != PAPER}
    if clip is None:
        return sets
    from interp.models.clip import write
    from interp.models.loading.presets import unreadable

    asked = PromptSet(PAPER, tuple(domains))
    sentences = [write(template, label) for template in asked("") for label in class_names]
    why = unreadable(clip.tokenizer, sentences)
    if why:
        _say_once(f"the prompt set {PAPER!r} is left out: {why}")
        return sets
    return sets | {PAPER: asked}


@cache
def _say_once(text: str) -> None:
    say(text)


@dataclass(frozen=True)
class PromptSet:
    """The templates of a named prompt set for pictures of a domain."""

    name: str
    domains: tuple[str, ...]

    def __call__(self, domain: str) -> list[str | Callable[[str], str]]:
        if self.name == PAPER:  # as published: articles are not mended
            return list(prompts(PAPER))
        return [
            lambda label, prompt=prompt: fill(prompt, label)
            for prompt in prompts(self.name, domain=domain, domains=self.domains)
        ]


def stream_features(subject: Subject, images: ImageTable) -> "probes.Features":
    """Pooled activations of the stream, one pass over the pictures."""
    tower = subject.clip.visual
    return probes.collect(tower, images, stream_sites(tower), preprocess=subject.clip.preprocess)


def neutral_classifier(
    subject: Subject, class_names: Sequence[str], domains: Sequence[str]
) -> Classifier:
    """The model's own zero-shot classifier, with neutral prompts."""
    return subject.clip.zero_shot(class_names, PromptSet("neutral", tuple(domains))(""))
