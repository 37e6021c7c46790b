"""A question, asked and answered: a specification becomes resumable steps, tables and a page.

    pictures -> mixtures -> CLIPs -> accuracy, similarity, probes, patching -> tables -> page

Every step writes into a folder named by the hash of everything it depends on, under a temporary
name until it is complete. Interrupt a study anywhere and start it again: it goes on.
"""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import DataError, SampleError, check_known, listed
from interp.core.images import ImageTable
from interp.core.plates import Plate
from interp.core.progress import say, track
from interp.core.store import complete, file_hash, fingerprint, writable, write_atomic
from interp.core.tables import Table
from interp.data import open_images
from interp.data.mixtures import (
    NATURAL,
    MixtureSpec,
    check_mixture,
    choose_held_out,
    make_mixture,
)
from interp.data.prompts import DOMAIN_WORDS, TEMPLATES, vocabulary, words_for
from interp.specification import Specification

PACKAGES = (
    "interp",
    "torch",
    "open_clip_torch",
    "transformer_lens",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pillow",
)
CONTRASTS = (("leave-out-domain", "natural-only"), ("cg-high", "cg-low"))
UNTRAINED = "epoch 0"
PICTURES_PER_SECOND = 1200
"""Rough speed of training the small ResNet at 48 pixels, two runs side by side on two cores."""
MIB_PER_MODEL = 45
"""Rough size of two checkpoints of the small ResNet, with optimizer state."""


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@dataclass(frozen=True)
class Model:
    """One model to measure: its checkpoint, and its place in the study."""

    checkpoint: Path
    setting: str
    test_domain: str
    seed: int
    control: str = ""
    architecture: str | None = None

    @property
    def name(self) -> str:
        """A name for messages."""
        return f"{self.setting or self.control or 'model'} ({self.test_domain}, seed {self.seed})"


@dataclass(frozen=True)
class Result:
    """A finished study's folder: `tables`, `plates`, `facts.json`; `report` builds its page."""

    folder: Path

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Every table by name."""
        return {
            path.stem: Table.load(path) for path in sorted((self.folder / "tables").glob("*.csv"))
        }

    def report(self, path: str | Path | None = None) -> Path:
        """Build the page (default: `report.html` in the result's folder) and return its path."""
        from interp.report import build_page

        return build_page(self.folder, Path(path) if path is not None else None)


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
        frames |= {"mixtures": _mixture_table(mixtures), "losses": _loss_table(models)}
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
        from dataclasses import replace

        from interp.models.training import Run, train

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
        from interp.models.presets import write_model_folder

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
        f"Does CLIP recognise classes in {listed(domains)} that it was never shown there, and does "
        "that go with representations and circuits that it shares with natural pictures?"
    )


def provenance(images: ImageTable, seconds: dict[str, float]) -> dict[str, Any]:
    """Versions, machine, seconds, and whose pictures they are."""
    import torch

    return {
        "versions": {**versions(), "python": platform.python_version()},
        "seconds": seconds,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.system(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
        "source": images.source,
        "source_hash": images.fingerprint,
        "strays": "",
        "credits": credit(images),
    }


def credit(images: ImageTable) -> list[dict[str, Any]]:
    """The artists whose drawings the pictures are made from, with their licences."""
    if "artist" not in images.frame.columns:
        return []
    from interp.data.artwork import ARTISTS

    drawn = images.frame.groupby("artist")["drawing"].nunique()
    return [
        {
            "artist": ARTISTS[key].name,
            "licence": ARTISTS[key].licence,
            "url": ARTISTS[key].credit,
            "drawings": int(n),
        }
        for key, n in drawn.items()
        if key in ARTISTS
    ]


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


@dataclass(frozen=True)
class Measurement:
    """Everything that is measured on one model, each table a step of its own."""

    specification: Specification
    model: Model
    images: ImageTable
    held_out: tuple[str, ...]
    steps: Path
    natural: str = ""

    def run(self) -> dict[str, pd.DataFrame]:
        """The model's tables by name, measured or read back."""
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        key = self._key()
        frames: dict[str, pd.DataFrame] = {}
        for name, make in self._makers().items():
            folder = self.steps / f"{name}-{key}"
            if not folder.exists():
                with complete(folder) as temporary:
                    for table, frame in make().items():
                        Table(table, frame).save(temporary)
            frames |= {path.stem: Table.load(path).frame for path in sorted(folder.glob("*.csv"))}
        return frames

    def _key(self) -> str:
        return fingerprint(
            file_hash(self.model.checkpoint),
            self.images.fingerprint,
            self.held_out,
            self.specification.analysis,
            self.pair,
            [self.model.setting, self.model.test_domain, self.model.seed, self.model.control],
            versions(),
        )

    @property
    def pair(self) -> tuple[str, str]:
        """The natural domain and the one that sharing is asked about."""
        return self.natural or self.specification.mixtures.natural, self.model.test_domain

    @cached_property
    def subject(self) -> Any:
        """The opened model."""
        from interp.measurements import Subject
        from interp.models.loading import load_clip

        model = self.model
        clip = load_clip(model.checkpoint, model=model.architecture)
        return Subject(clip, model.setting, model.test_domain, model.seed, model.control)

    @cached_property
    def analysed(self) -> ImageTable:
        """Pictures that sharing is measured on: seen classes, not those accuracy is measured on."""
        splits = set(self.images.split)
        split = "analysis" if "analysis" in splits else "test"
        pictures = self.images.select(split=split)
        return pictures[(~pictures.label.isin(self.held_out)).to_numpy()]

    @cached_property
    def features(self) -> Any:
        """Activations of the stream, collected once for similarity and probes."""
        from interp.measurements import features

        return features(self.subject, self.analysed)

    def _makers(self) -> dict[str, Callable[[], dict[str, pd.DataFrame]]]:
        analysis = self.specification.analysis
        makers: dict[str, Callable[[], dict[str, pd.DataFrame]]] = {
            "accuracy": self._accuracy,
            "similarity": self._similarity,
        }
        if analysis.transfer:
            makers["transfer"] = self._transfer
        if analysis.patching and not self.model.control:
            makers |= {
                "patching": self._patching,
                "transplant": self._transplant,
                "certificate": self._certificate,
            }
        return makers

    def _accuracy(self) -> dict[str, pd.DataFrame]:
        from interp.measurements import answers
        from interp.models.evaluation import accuracy, accuracy_by_class

        got = answers(
            self.subject,
            self.images.select(split="test"),
            class_names=self.images.labels,
            held_out=self.held_out,
        )
        return {
            "accuracy": self.subject.file(accuracy(got, seed=self.model.seed)),
            "accuracy_by_class": self.subject.file(accuracy_by_class(got)),
        }

    def _similarity(self) -> dict[str, pd.DataFrame]:
        from interp.measurements import representations
        from interp.probes import pixels

        analysis = self.specification.analysis
        options = {"n_splits": analysis.n_splits, "n_permutations": analysis.n_permutations}
        parts = [representations(self.subject, self.features, **options)]
        if self.model.control:
            raw = pixels(self.analysed, self.subject.clip.preprocess)
            parts.append(representations(self.subject, raw, **options).assign(control="pixels"))
        return {"similarity": pd.concat(parts, ignore_index=True)}

    def _transfer(self) -> dict[str, pd.DataFrame]:
        from interp.measurements import probing

        return {
            "transfer": probing(
                self.subject,
                self.features,
                n_permutations=self.specification.analysis.n_permutations,
            )
        }

    def _patching(self) -> dict[str, pd.DataFrame]:
        from interp.measurements import patching

        effects, examples = patching(
            self.subject,
            self.analysed,
            domains=self.pair,
            class_names=self.images.labels,
            n_pairs=self.specification.analysis.n_pairs,
        )
        return {"patching": effects, "patching_examples": examples}

    def _transplant(self) -> dict[str, pd.DataFrame]:
        from interp.measurements import transplanting

        return {
            "transplant": transplanting(
                self.subject,
                self.analysed,
                domains=self.pair,
                class_names=self.images.labels,
                n_pairs=self.specification.analysis.n_transplants,
            )
        }

    def _certificate(self) -> dict[str, pd.DataFrame]:
        return {"certificate": self.subject.file(self.subject.clip.certify())}


def measure(steps: Sequence[Measurement], jobs: int) -> dict[str, pd.DataFrame]:
    """Measure models side by side and put their tables together, with the paired differences."""
    from joblib import Parallel, delayed

    if jobs > 1 and len(steps) > 1:
        work = Parallel(n_jobs=jobs, return_as="generator")(delayed(_run)(step) for step in steps)
        each: Iterator[dict[str, pd.DataFrame]] = track(work, "measure", len(steps))  # type: ignore[arg-type]
    else:
        each = (step.run() for step in track(steps, "measure"))
    parts = list(each)
    names = dict.fromkeys(name for part in parts for name in part)
    frames = {
        name: pd.concat([part[name] for part in parts if name in part], ignore_index=True)
        for name in names
    }
    return frames | _differences(frames["accuracy_by_class"], steps[0].held_out)


def _run(step: Measurement) -> dict[str, pd.DataFrame]:
    return step.run()


def _differences(by_class: pd.DataFrame, held_out: Sequence[str]) -> dict[str, pd.DataFrame]:
    """What one setting gains over another on held-out classes in the test domain."""
    from interp.models.evaluation import differences

    own = by_class[
        (by_class["domain"] == by_class["test_domain"]) & by_class["label"].isin(held_out)
    ]
    found = differences(own, CONTRASTS)
    return {"differences": found} if len(found) else {}


def _mixture_table(mixtures: Sequence[tuple[MixtureSpec, Path, dict[str, Any]]]) -> pd.DataFrame:
    rows = []
    for mixture, _, manifest in mixtures:
        cells = pd.Series(manifest["counts"])
        by_domain = cells.groupby(cells.index.str.split("/", n=1).str[0]).sum()
        rows += [
            {
                "setting": mixture.setting,
                "test_domain": mixture.test_domain,
                "seed": mixture.seed,
                "domain": domain,
                "n_pictures": int(n),
                "n_train": manifest["pictures"],
            }
            for domain, n in by_domain.items()
        ]
    return pd.DataFrame(rows)


def _loss_table(models: Sequence[Model]) -> pd.DataFrame:
    """Training loss per epoch, read from open_clip's logs."""
    import re

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


def thumbnails(images: ImageTable, *, n_classes: int = 8, size: int = 96) -> list[Plate]:
    """One plate per domain: a picture each of a few classes, the same classes in every domain."""
    from PIL import Image

    counts = images.counts()
    labels = [label for label in images.labels if (counts.loc[label] > 0).all()] or images.labels
    labels = labels[:: max(1, len(labels) // n_classes)][:n_classes]
    plates = []
    for domain in images.domains:
        sheet = Image.new("RGB", (size * len(labels), size), "white")
        for place, label in enumerate(labels):
            cell = images.select(domain=domain, label=label)
            if len(cell):
                sheet.paste(cell.picture(0).resize((size, size)), (place * size, 0))
        plates.append(
            Plate(f"pictures-{domain}", sheet, f"{domain}: {', '.join(labels)}", {"domain": domain})
        )
    return plates


def write_result(
    folder: Path, frames: dict[str, pd.DataFrame], plates: Sequence[Plate], facts: dict[str, Any]
) -> Result:
    """Write tables, plates and facts, ready for the page."""
    for name, frame in frames.items():
        Table(name, frame, {"spec_hash": facts["spec_hash"], "versions": facts["versions"]}).save(
            folder / "tables"
        )
    for plate in plates:
        plate.save(folder / "plates")
    write_atomic(folder / "facts.json", json.dumps(facts, indent=1, default=str))
    return Result(folder)


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
