"""A question, asked and answered: a specification becomes resumable steps, tables and a page.

    pictures -> mixtures -> CLIPs -> accuracy, similarity, probes, patching -> tables -> page

Every step writes into a folder named by the hash of everything it depends on, under a temporary
name until it is complete. Interrupt a study anywhere and start it again: it goes on.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import DataError, SampleError, check_known, listed
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.store import fingerprint, writable
from interp.data import open_images
from interp.data.mixtures import (
    NATURAL,
    MixtureSpec,
    check_mixture,
    choose_held_out,
    make_mixture,
)
from interp.data.prompts import DOMAIN_WORDS, TEMPLATES, vocabulary, words_for
from interp.models.presets import write_model_folder
from interp.models.training import Recipe, Run, train
from interp.result import Result, provenance, thumbnails, versions, write_result
from interp.specification import Specification
from interp.steps import Measurement, Model, measure

UNTRAINED = "epoch 0"
PICTURES_PER_SECOND = 1200
"""Rough speed of training the small ResNet at 48 pixels, two runs side by side on two cores."""
MIB_PER_MODEL = 45
"""Rough size of two checkpoints of the small ResNet, with optimizer state."""


@dataclass(frozen=True)
class Study:
    """A study of a specification.

    >>> Study().specification.mixtures.test_domains
    ('sketch',)
    """

    specification: Specification = field(default_factory=Specification)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Study":
        """The study that a TOML file describes."""
        return cls(Specification.from_toml(path))

    def run(
        self,
        out: str | Path = "interp-report",
        *,
        jobs: int = 2,
        device: str | None = None,
        command: str = "",
    ) -> Result:
        """Carry the study out, or what is left of it, and return its result.

        `jobs` models are trained and measured side by side, each with its share of the cores.
        """
        folder = writable(Path(out), purpose="the study")
        clock = Clock()
        with clock("pictures"):
            images = self.images(jobs)
        held_out = self.held_out(images)
        with clock("mixtures"):
            mixtures = self.mixtures(images, held_out, folder / "steps")
        with clock("training"):
            models = self.models(images, mixtures, folder / "steps", jobs=jobs, device=device)
        with clock("measuring"):
            steps = [
                Measurement(self.specification, model, images, held_out, folder / "steps")
                for model in models
            ]
            frames = measure(steps, jobs)
        frames |= {
            "mixtures": _mixture_table(mixtures, self.specification.training),
            "losses": _loss_table(models),
        }
        facts = self.facts(images, held_out, clock.seconds, command)
        return write_result(folder, frames, thumbnails(images), facts)

    def cost(self) -> str:
        """What the study takes, before it begins."""
        spec = self.specification
        mixtures = spec.mixtures
        n_models = len(spec.seeds) * len(mixtures.test_domains) * len(mixtures.settings)
        pictures = n_models * spec.training.steps * spec.training.batch_size
        return (
            f"{n_models} models ({listed(mixtures.settings)}; test domain "
            f"{listed(mixtures.test_domains)}; seeds {listed(spec.seeds)}), {spec.training.steps} "
            f"steps of {spec.training.batch_size} pictures each: about "
            f"{pictures / PICTURES_PER_SECOND / 60:.0f} minutes of training on two cores and "
            f"{n_models * MIB_PER_MODEL} MiB of checkpoints; then measuring"
        )

    def images(self, jobs: int = 2) -> ImageTable:
        """The study's pictures."""
        spec = self.specification.images
        if spec.source:
            return open_images(spec.source, seed=spec.seed)
        return open_images(spec=spec.embedded, jobs=jobs)

    def held_out(self, images: ImageTable) -> tuple[str, ...]:
        """The classes C2: as named, or drawn from those that stand in every domain in question."""
        chosen = self.specification.mixtures.held_out
        if isinstance(chosen, tuple):
            check_known("hold out a class", "class", chosen, images.labels)
            return chosen
        counts = images.counts()
        domains = [self.specification.mixtures.natural, *self.specification.mixtures.test_domains]
        check_known("study a domain", "domain", domains, images.domains)
        common = [label for label in images.labels if (counts.loc[label, domains] > 0).all()]
        return choose_held_out(common, chosen, seed=self.specification.images.seed)

    def mixtures(
        self, images: ImageTable, held_out: tuple[str, ...], steps: Path
    ) -> list[tuple[MixtureSpec, Path, dict[str, Any]]]:
        """Write every mixture that is not there yet, and hold each against its manifest."""
        spec = self.specification.mixtures
        made = []
        for seed in self.specification.seeds:
            for test_domain in spec.test_domains:
                for setting in spec.settings:
                    mixture = MixtureSpec(
                        setting,
                        test_domain,
                        held_out,
                        spec.natural,
                        spec.size_matched,
                        spec.domain_words,
                        seed,
                    )
                    key = fingerprint(mixture, images.fingerprint, str(images.root), versions())
                    folder = steps / f"mixture-{key}"
                    if not folder.exists():
                        make_mixture(images, mixture).write(folder)
                    made.append((mixture, folder, check_mixture(folder)))
        return made

    def models(
        self,
        images: ImageTable,
        mixtures: Sequence[tuple[MixtureSpec, Path, dict[str, Any]]],
        steps: Path,
        *,
        jobs: int,
        device: str | None,
    ) -> list[Model]:
        """Train every model that is not there yet; the untrained one of each seed comes first."""
        model_folder = self._model_folder(images, steps)
        runs = []
        for mixture, folder, manifest in mixtures:
            recipe = replace(self.specification.training.recipe, seed=mixture.seed)
            key = fingerprint(recipe, manifest["tsv_hash"], model_folder.name, versions())
            name = f"train-{mixture.setting}-{mixture.test_domain}-{mixture.seed}-{key}"
            runs.append(
                Run(
                    name,
                    model_folder.resolve(),
                    (folder / "train.tsv").resolve(),
                    manifest["pictures"],
                    steps.resolve(),
                    recipe,
                )
            )
        train(runs, jobs=jobs, device=device)
        trained = [
            Model(run.final, mixture.setting, mixture.test_domain, mixture.seed)
            for run, (mixture, _, _) in zip(runs, mixtures, strict=True)
        ]
        first = {
            (mixture.test_domain, mixture.seed): run.checkpoints / "epoch_0.pt"
            for run, (mixture, _, _) in reversed(list(zip(runs, mixtures, strict=True)))
        }
        untrained = [
            Model(path, "", domain, seed, UNTRAINED)
            for (domain, seed), path in sorted(first.items())
        ]
        return [*untrained, *trained]

    def _model_folder(self, images: ImageTable, steps: Path) -> Path:
        """The configuration and tokenizer that all models of the study share."""
        words = vocabulary(images.labels, images.domains)
        longest = longest_caption(images)
        training, size = self.specification.training, self.specification.images.size
        key = fingerprint(training.preset, words, longest, size, versions())
        folder = steps / f"model-{training.preset}-{key}"
        if not folder.exists():
            write_model_folder(
                folder, training.preset, words=words, longest=longest, image_size=size
            )
        return folder

    def facts(
        self, images: ImageTable, held_out: Sequence[str], seconds: dict[str, float], command: str
    ) -> dict[str, Any]:
        """What a reader needs to repeat the study."""
        spec = self.specification
        return {
            "mode": "study",
            "title": spec.title,
            "question": question(spec.mixtures.test_domains),
            "command": command or "interp.Study(...).run()",
            "specification": {
                "settings": list(spec.mixtures.settings),
                "test_domains": list(spec.mixtures.test_domains),
                "held_out": list(held_out),
                "natural": spec.mixtures.natural,
                "n_classes": len(images.labels),
                "architecture": spec.training.preset,
                **asdict(spec),
            },
            "spec_hash": fingerprint(spec),
            "held_out": list(held_out),
            "seed": listed(spec.seeds),
            **provenance(images, seconds),
        }


def question(domains: Sequence[str]) -> str:
    """The question that a study asks."""
    return (
        f"Does CLIP recognise classes in {' and '.join(domains)} that it was never shown there, "
        "and does that go with representations and circuits that it shares with natural pictures?"
    )


def longest_caption(images: ImageTable) -> int:
    """Words in the longest caption or prompt that these classes and domains can make."""
    template = max(len(each.split()) for each in TEMPLATES)
    label = max(len(each.replace("_", " ").split()) for each in images.labels)
    term = max(
        len(word.split())
        for domain in (*images.domains, *DOMAIN_WORDS)
        for word in words_for(domain)
    )
    return template - 2 + label + term + 1  # TERM and CLASS make way; the final stop is a word


class Clock:
    """Seconds per step, said when each begins.

    >>> clock = Clock()
    >>> with clock("wait"): pass
    >>> list(clock.seconds)
    ['wait']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._start = "", 0.0

    def __call__(self, name: str) -> "Clock":
        self._name = name
        return self

    def __enter__(self) -> None:
        say(f"{self._name} …")
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = round(time.monotonic() - self._start, 1)


def _mixture_table(
    mixtures: Sequence[tuple[MixtureSpec, Path, dict[str, Any]]], recipe: Recipe
) -> pd.DataFrame:
    """Training pictures by domain, and the optimiser steps taken on them."""
    rows = []
    for mixture, _, manifest in mixtures:
        n_train = manifest["pictures"]
        steps = recipe.epochs_for(n_train) * recipe.batches(n_train)
        cells = pd.Series(manifest["counts"])
        by_domain = cells.groupby(cells.index.str.split("/", n=1).str[0]).sum()
        rows += [
            {
                "setting": mixture.setting,
                "test_domain": mixture.test_domain,
                "seed": mixture.seed,
                "domain": domain,
                "n_pictures": int(n),
                "n_train": n_train,
                "steps": steps,
            }
            for domain, n in by_domain.items()
        ]
    return pd.DataFrame(rows)


def _loss_table(models: Sequence[Model]) -> pd.DataFrame:
    """Training loss per epoch, read from open_clip's logs."""
    rows = []
    for model in models:
        log = model.checkpoint.parent.parent / "out.log"
        if model.control or not log.exists():
            continue
        lines = re.findall(
            r"Train Epoch: (\d+) .*?Loss: [\d.e+-]+ \(([\d.e+-]+)\)", log.read_text()
        )
        loss = {int(epoch) + 1: float(value) for epoch, value in lines}
        rows += [
            {
                "setting": model.setting,
                "test_domain": model.test_domain,
                "seed": model.seed,
                "epoch": epoch,
                "loss": value,
            }
            for epoch, value in loss.items()
        ]
    return pd.DataFrame(rows, columns=["setting", "test_domain", "seed", "epoch", "loss"])


def examine(
    checkpoint: str,
    images_folder: str | Path,
    out: str | Path = "interp-report",
    *,
    architecture: str | None = None,
    domains: Sequence[str] = (),
    seed: int = 0,
    command: str = "",
) -> Result:
    """Measure one model, without training, on pictures laid out as `domain/class/*`.

    `domains` are the natural domain and the one to compare it with; by default `real` (or the
    first) and the next. All pictures serve; a page about this model alone is built from them.
    """
    folder = writable(Path(out), purpose="the study")
    clock = Clock()
    with clock("pictures"):
        images = open_images(images_folder, seed=seed)
    check_known("compare domains", "domain", domains, images.domains)
    if len(images.domains) < 2:
        raise SampleError(
            "compare domains",
            f"one domain ({listed(images.domains)})",
            "at least two",
            "add a folder beside it",
        )
    pair = tuple(domains) if len(domains) == 2 else _default_pair(images.domains)
    everything = ImageTable(
        images.frame.assign(split="test"), images.root, images.source, images.fingerprint
    )
    model = Model(Path(checkpoint), "", pair[1], seed, architecture=architecture)
    spec = Specification(title=f"{checkpoint} on {images.source}")
    with clock("measuring"):
        step = Measurement(spec, model, everything, (), folder / "steps", natural=pair[0])
        frames = step.run()
    facts = {
        "mode": "model",
        "title": spec.title,
        "question": question(pair[1:]),
        "command": command or "interp.study.examine(...)",
        "held_out": [],
        "specification": {"checkpoint": checkpoint, "domains": list(pair), "seed": seed},
        "spec_hash": fingerprint(checkpoint, pair, seed),
        "seed": seed,
        **provenance(images, clock.seconds),
    }
    return write_result(folder, frames, thumbnails(images), facts)


def _default_pair(domains: Sequence[str]) -> tuple[str, str]:
    first = NATURAL if NATURAL in domains else domains[0]
    others = [domain for domain in domains if domain != first]
    if not others:
        raise DataError("compare domains", listed(domains), "two domains", "add another")
    return first, others[0]
