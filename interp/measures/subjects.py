"""What is measured on one opened model: joins models, probes and circuits.

Sharing is measured on the seen classes (C1), on pictures that are neither trained on nor used for
accuracy; accuracy on test drawings by other artists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pandas as pd

from interp.circuits import Classifier, effects, localise, transplant
from interp.core.errors import InterpError
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.data.mixtures.templates import PAPER, PROMPT_SETS, fill, prompts
from interp.models.clip import Clip, Sentence, write
from interp.models.evaluation.overview import evaluate
from interp.models.loading.presets import unreadable
from interp.probes import Features, collect, similarity, transfer

STREAM = (
    "stem.hook_pool",
    "layer*.*.hook_resid_post",
    "blocks.*.hook_resid_post",
    "hook_embedding",
)
"""The stream through a tower, stage by stage, and the embedding at its end."""

PATCHED = {"blocks.*.hook_resid_pre": ("layer", "pos"), "layer*.*.hook_out": ("layer",)}
"""Where sweeps look: token by token in a ViT's stream, and at what each ResNet stage adds."""

DONATED = (
    "layer*.*.hook_out",
    "attnpool.hook_z",
    "blocks.*.hook_attn_out",
    "blocks.*.hook_mlp_out",
)
"""What is transplanted: the parts that blocks add; a whole stream would merely replay its donor."""


def present(tower: Tower, patterns: Sequence[str]) -> list[str]:
    """The sites of a tower that any of the patterns names, in tower order; patterns may be absent.

    >>> from interp.circuits import Chain
    >>> import torch
    >>> present(Chain([torch.nn.Identity()]), ["blocks.*.hook_resid_pre", "layer*.*.hook_out"])
    ['blocks.0.hook_resid_pre']
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            found.update(find_sites(pattern, tower.sites))
        except InterpError:
            continue
    return [site for site in tower.sites if site in found]


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
    domains: Sequence[str], clip: Clip | None = None, class_names: Sequence[str] = ()
) -> dict[str, "PromptSet"]:
    """The named prompt sets, neutral first, each asking about pictures of a domain.

    The paper's 86 prompts are among them if `clip` is given and its tokenizer can read them; if it
    cannot (a small model of a study's own words), that is said.
    """
    sets = {name: PromptSet(name, tuple(domains)) for name in PROMPT_SETS if name != PAPER}
    if clip is None:
        return sets
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

    def __call__(self, domain: str) -> list[Sentence]:
        if self.name == PAPER:  # as published: articles are not mended
            return list(prompts(PAPER))
        return [
            lambda label, prompt=prompt: fill(prompt, label)
            for prompt in prompts(self.name, domain=domain, domains=self.domains)
        ]


def evaluation_tables(
    subject: Subject,
    test: ImageTable,
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    training: ImageTable | None = None,
    natural: str = "real",
) -> dict[str, pd.DataFrame]:
    """The model's tables `accuracy`, `accuracy_by_class` and `tradeoff`, filed under its name.

    `training` pictures, where given, also teach classifiers that need no text. A supervised model
    has no text to ask with, and its answers stand as those to neutral prompts.
    """
    if isinstance(subject.clip, Clip):
        sets = prompt_sets(test.domains, subject.clip, class_names)
    else:
        sets = {"neutral": PromptSet("neutral", tuple(test.domains))}
    tables = evaluate(
        subject.clip,
        test,
        sets,
        class_names=class_names,
        held_out=held_out,
        training=training,
        natural=natural,
        seed=subject.seed,
    )
    return {name: subject.file(table) for name, table in tables.items() if len(table)}


def stream_features(subject: Subject, images: ImageTable) -> Features:
    """Pooled activations of the stream, one pass over the pictures."""
    tower = subject.clip.visual
    return collect(tower, images, present(tower, STREAM), preprocess=subject.clip.preprocess)


def representations(
    subject: Subject,
    read: Features,
    *,
    n_splits: int,
    n_permutations: int,
) -> pd.DataFrame:
    """Debiased CKA between all pairs of domains at every site, with its evidence (rung R2)."""
    table = similarity(
        read,
        n_splits=n_splits,
        n_permutations=n_permutations,
        seed=subject.seed,
        control=subject.control,
    )
    return subject.file(table)


def probing(subject: Subject, read: Features, *, n_permutations: int) -> pd.DataFrame:
    """Class probes trained in one domain and tested in every other (rungs R1 and R3)."""
    table = transfer(
        read, n_permutations=n_permutations, seed=subject.seed, control=subject.control
    )
    return subject.file(table)


def classifier(subject: Subject, class_names: Sequence[str], domains: Sequence[str]) -> Classifier:
    """The model's own zero-shot head, with neutral prompts, as patching scores outputs by it."""
    head = subject.clip.zero_shot(class_names, PromptSet("neutral", tuple(domains))(""))
    return Classifier(head.weight, head.class_names, scale=head.logit_scale)


def patching_tables(
    subject: Subject,
    images: ImageTable,
    *,
    domains: tuple[str, str],
    class_names: Sequence[str],
    n_pairs: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sweeps between one class in two domains, and two classes in one domain; effects and examples.

    Partners are aligned where the pictures allow it: one drawing in one pose in both domains, or
    one style for both classes. The clean picture is the natural one, or of the test domain.
    """
    drawn = {"drawing", "warp", "style"} <= set(images.frame.columns)
    within = images.select(domain=domains[1]).pairs(
        same=("domain", "style") if drawn else ("domain",),
        differ="label",
        n=n_pairs,
        seed=subject.seed,
    )
    across = across_domains(images, domains=domains, n_pairs=n_pairs, seed=subject.seed)
    summaries, examples = [], []
    for pairs in (across, within):
        for pattern, axes in PATCHED.items():
            if present(subject.clip.visual, [pattern]):
                swept = localise(
                    subject.clip.visual,
                    pairs,
                    sites=pattern,
                    axes=axes,
                    classifier=classifier(subject, class_names, images.domains),
                    preprocess=subject.clip.preprocess,
                    seed=subject.seed,
                )
                examples.append(subject.file(swept))
                summaries.append(subject.file(effects(swept, seed=subject.seed)))
    return pd.concat(summaries, ignore_index=True), pd.concat(examples, ignore_index=True)


def across_domains(
    images: ImageTable, *, domains: tuple[str, str], n_pairs: int, seed: int
) -> Pairs:
    """Pictures of the first domain with partners of their class in the second, aligned if drawn."""
    drawn = {"drawing", "warp"} <= set(images.frame.columns)
    across = images.select(domain=list(domains)).pairs(
        same=("label", "drawing", "warp") if drawn else ("label",), differ="domain", seed=seed
    )
    return across[(across.clean.domain == domains[0]).to_numpy()].spread(n_pairs, seed=seed)


def transplanting(
    subject: Subject,
    images: ImageTable,
    *,
    domains: tuple[str, str],
    class_names: Sequence[str],
    n_pairs: int,
) -> pd.DataFrame:
    """Activations of a class put from the first domain into the second, part by part (rung R4)."""
    tower = subject.clip.visual
    table = transplant(
        tower,
        images,
        domain_a=domains[0],
        domain_b=domains[1],
        classifier=classifier(subject, class_names, images.domains),
        sites=present(tower, DONATED),
        preprocess=subject.clip.preprocess,
        n=n_pairs,
        seed=subject.seed,
    )
    return subject.file(table)
