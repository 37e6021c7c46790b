"""Everything that is measured on one model, each table a step that is kept when it is complete."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import listed
from interp.core.illustrations import Plate
from interp.core.images import ImageTable
from interp.core.parallel import side_by_side
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.storage.store import complete, file_hash, fingerprint
from interp.core.tables import Table
from interp.report.naming import setting_name
from interp.study.results import versions
from interp.study.specification import Specification


@dataclass(frozen=True)
class Model:
    """One model to measure: its checkpoint, and its place in the study."""

    checkpoint: Path
    setting: str
    test_domain: str
    seed: int
    control: str = ""
    architecture: str | None = None
    preset: str = ""
    epoch: int | None = None
    supervised: bool = False
    arm: str = ""

    @property
    def name(self) -> str:
        """A name for messages."""
        return f"{self.setting or self.control or 'model'} ({self.test_domain}, seed {self.seed})"

    @property
    def place(self) -> dict[str, Any]:
        """The columns that its results are filed under."""
        place = {"setting": self.setting, "test_domain": self.test_domain, "seed": self.seed}
        known = {"architecture": self.preset or None, "epoch": self.epoch, "arm": self.arm or None}
        return place | {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Measurement:
    """Everything that is measured on one model, each table a step of its own.

    `only` names the steps to take; without it, all that the specification asks for. `every_pair`
    compares the circuits of all pairs of domains, not only of the natural and the test domain.
    """

    specification: Specification
    model: Model
    images: ImageTable
    held_out: tuple[str, ...]
    steps: Path
    natural: str = ""
    only: tuple[str, ...] = ()
    device: str = "cpu"
    every_pair: bool = False

    def run(self) -> dict[str, pd.DataFrame]:
        """The model's tables by name, measured or read back."""
        key = self._key()
        frames: dict[str, list[pd.DataFrame]] = {}
        for name, make in self._makers().items():
            folder = self.steps / f"{name}-{key}"
            if not folder.exists():
                with complete(folder) as temporary:
                    for table, frame in make().items():
                        Table(table, frame).save(temporary)
            for path in sorted(folder.glob("*.csv")):
                frames.setdefault(path.stem, []).append(Table.load(path).frame)
        made = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}
        if "patching_examples" in made and not self._pictures.exists():
            with complete(self._pictures) as temporary:
                for plate in self._pictured(made["patching_examples"]):
                    plate.save(temporary)
        return made

    @property
    def _pictures(self) -> Path:
        return self.steps / f"pictures-{self._key()}"

    def plates(self) -> list[Plate]:
        """The model's pictures, once it has been measured."""
        return [Plate.load(path) for path in sorted(self._pictures.glob("*.png"))]

    def _pictured(self, examples: pd.DataFrame) -> list[Plate]:
        """Pictures that patching between the two domains moves most and least."""
        from interp.measures.illustrated import pictured
        from interp.measures.subjects import across_domains

        pairs = across_domains(
            self.analysed,
            domains=self.pair,
            n_pairs=self.specification.analysis.n_pairs,
            seed=self.subject.seed,
        )
        across = examples[examples["pairing"].str.startswith("same label, other domain")]
        return pictured(
            self.subject,
            pairs,
            across,
            class_names=self.images.labels,
            name=setting_name(self.model.setting),
        )

    def _key(self) -> str:
        return fingerprint(
            checkpoint_hash(self.model.checkpoint),
            self.images.fingerprint,
            self.held_out,
            self.specification.analysis,
            self.pair,
            [self.model.place, self.model.control, self.model.architecture],
            versions(),
        )

    @property
    def pair(self) -> tuple[str, str]:
        """The natural domain and the one that sharing is asked about."""
        return self.natural or self.specification.mixtures.natural, self.model.test_domain

    @cached_property
    def subject(self) -> Any:
        """The opened model."""
        from interp.measures.subjects import Subject
        from interp.models.loading.load import load_clip
        from interp.models.loading.supervised import load_classifier

        opened = (load_classifier if self.model.supervised else load_clip)(
            self.model.checkpoint, model=self.model.architecture, device=self.device
        )
        return Subject(opened, self.model.place, self.model.control)

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
        from interp.measures.subjects import stream_features

        return stream_features(self.subject, self.analysed)

    def _makers(self) -> dict[str, Callable[[], dict[str, pd.DataFrame]]]:
        analysis = self.specification.analysis
        makers: dict[str, Callable[[], dict[str, pd.DataFrame]]] = {
            "accuracy": self._accuracy,
            "similarity": self._similarity,
        }
        if analysis.transfer:
            makers["transfer"] = self._transfer
        if analysis.representation:
            makers["representation"] = self._representation
        trained = not self.model.control and not self.model.supervised
        if analysis.erasure and trained:
            makers["erasure"] = self._erasure
        if analysis.features and trained:
            makers["features"] = self._features
        if analysis.circuits and trained:
            makers |= {"circuits": self._circuits, "crossing": self._crossing}
            if self.every_pair:
                makers["pairs"] = self._pairs
        if analysis.circuits and self.model.control and not self.model.supervised:
            makers["crossing"] = self._causal
        if analysis.patching and trained:
            makers |= {
                "patching": self._patching,
                "transplant": self._transplant,
                "certificate": self._certificate,
            }
        if "directions" in self.only:  # else among `representation`
            makers["directions"] = self._directions
        return {name: make for name, make in makers.items() if not self.only or name in self.only}

    def _accuracy(self) -> dict[str, pd.DataFrame]:
        from interp.measures.subjects import evaluation_tables

        splits = set(self.images.split)
        return evaluation_tables(
            self.subject,
            self.images.select(split="test"),
            class_names=self.images.labels,
            held_out=self.held_out,
            training=self.images.select(split="train") if "train" in splits else None,
            natural=self.pair[0],
        )

    def _similarity(self) -> dict[str, pd.DataFrame]:
        from interp.measures.subjects import representations
        from interp.probes import pixels

        analysis = self.specification.analysis
        options = {"n_splits": analysis.n_splits, "n_permutations": analysis.n_permutations}
        parts = [representations(self.subject, self.features, **options)]
        if self.model.control:
            raw = pixels(self.analysed, self.subject.clip.preprocess)
            parts.append(representations(self.subject, raw, **options).assign(control="pixels"))
        return {"similarity": pd.concat(parts, ignore_index=True)}

    def _transfer(self) -> dict[str, pd.DataFrame]:
        from interp.measures.subjects import probing

        return {
            "transfer": probing(
                self.subject,
                self.features,
                n_permutations=self.specification.analysis.n_permutations,
            )
        }

    def _representation(self) -> dict[str, pd.DataFrame]:
        from interp.measures.layers_within import layer_tables

        made = layer_tables(
            self.subject, self.features, pair=self.pair, analysis=self.specification.analysis
        )
        return made | self.class_sharing()

    def class_sharing(self) -> dict[str, pd.DataFrame]:
        """Sharing of every class, where there are pictures apart from those accuracy is about."""
        from interp.measures.layers_within import sharing_by_class

        splits = set(self.images.split)
        if self.model.control or "analysis" not in splits or self._has_no_middle("class_sharing"):
            return {}
        test = self.images.select(split="test").frame
        return sharing_by_class(
            self.subject,
            self.images.select(split="analysis"),
            pair=self.pair,
            held_out=self.held_out,
            tested=sorted(set(test["drawing"].dropna())) if "drawing" in test else (),
            analysis=self.specification.analysis,
        )

    def _directions(self) -> dict[str, pd.DataFrame]:
        from interp.measures.layers_within import class_lines

        return class_lines(
            self.subject, self.features, pair=self.pair, analysis=self.specification.analysis
        )

    def _erasure(self) -> dict[str, pd.DataFrame]:
        from interp.measures.layers_within import erasing

        if self._has_no_middle("erasure"):
            return {}
        return erasing(
            self.subject,
            self.analysed.select(domain=list(self.pair)),
            depths=self._depths,
            class_names=self.images.labels,
            analysis=self.specification.analysis,
        )

    def _features(self) -> dict[str, pd.DataFrame]:
        from interp.measures.layers_within import sharing_features

        if self._has_no_middle("features"):
            return {}
        splits = set(self.images.split)
        return sharing_features(
            self.subject,
            self.features,
            self.analysed.select(domain=list(self.pair)),
            self.images.select(split="train") if "train" in splits else self.analysed,
            pair=self.pair,
            withheld=[(label, self.model.test_domain) for label in self.held_out],
            class_names=self.images.labels,
            analysis=self.specification.analysis,
        )

    @property
    def _depths(self) -> dict[str, float]:
        return {site: self.features.depth(site) for site in self.features.sites}

    def _has_no_middle(self, what: str) -> bool:
        """Say that a tower opened by module path has no stream to look into."""
        from interp.measures.layers_within import has_middle

        if has_middle(self._depths):
            return False
        say(f"{what} left out: {type(self.subject.clip.visual).__name__} has no middle site known")
        return True

    def _patching(self) -> dict[str, pd.DataFrame]:
        from interp.measures.subjects import PATCHED, patching_tables

        if self._has_none_of(PATCHED, "patching"):
            return {}
        effects, examples = patching_tables(
            self.subject,
            self.analysed,
            domains=self.pair,
            class_names=self.images.labels,
            n_pairs=self.specification.analysis.n_pairs,
        )
        return {"patching": effects, "patching_examples": examples}

    def _transplant(self) -> dict[str, pd.DataFrame]:
        from interp.measures.subjects import DONATED, transplanting

        if self._has_none_of(DONATED, "transplants"):
            return {}
        return {
            "transplant": transplanting(
                self.subject,
                self.analysed,
                domains=self.pair,
                class_names=self.images.labels,
                n_pairs=self.specification.analysis.n_transplants,
            )
        }

    def _circuits(self) -> dict[str, pd.DataFrame]:
        from interp.measures.circuits_within import circuitry

        return circuitry(
            self.subject,
            self.analysed,
            domains=self.pair,
            class_names=self.images.labels,
            n_pairs=self.specification.analysis.n_circuit_pairs,
        )

    def _crossing(self) -> dict[str, pd.DataFrame]:
        from interp.measures.mechanisms import crossing

        return self._filed(crossing(self._seen(self.analysed), [self.pair]))

    def _causal(self) -> dict[str, pd.DataFrame]:
        """Causal directions alone: what an untrained model would seem to share."""
        from interp.measures.mechanisms import causal_directions

        return self._filed(causal_directions(self._seen(self.analysed), [self.pair]))

    def _pairs(self) -> dict[str, pd.DataFrame]:
        from interp.measures.mechanisms import crossing

        own, n = self.analysed, self.specification.analysis.n_pair_classes
        chosen = rng("classes of pairs", self.model.seed).permutation(own.labels)[:n]
        others = [pair for pair in combinations(own.domains, 2) if set(pair) != set(self.pair)]
        if not others:
            return {}
        made = crossing(self._seen(own.select(label=sorted(chosen))), others)
        if (stable := made.get("circuit_stability")) is not None:
            # the study's own pair has its rows over all classes already
            made["circuit_stability"] = stable[~stable["domain"].isin(self.pair)]
        return self._filed(made)

    def _seen(self, images: ImageTable) -> Any:
        from interp.measures.mechanisms import Seen
        from interp.measures.subjects import classifier

        clip = self.subject.clip
        head = classifier(self.subject, self.images.labels, self.images.domains)
        n = max(2, 2 * self.specification.analysis.n_circuit_pairs // len(images.labels))
        return Seen(clip.visual, images, head, clip.preprocess, n=n, seed=self.subject.seed)

    def _filed(self, found: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        return {name: self.subject.file(frame) for name, frame in found.items()}

    def _has_none_of(self, patterns: Iterable[str], what: str) -> bool:
        """Say that a tower opened by module path lacks the sites that a measurement is about."""
        from interp.measures.subjects import present

        tower = self.subject.clip.visual
        if present(tower, list(patterns)):
            return False
        say(f"{what} left out: {type(tower).__name__} has none of {listed(patterns)}")
        return True

    def _certificate(self) -> dict[str, pd.DataFrame]:
        return {"certificate": self.subject.file(self.subject.clip.certify())}


def checkpoint_hash(checkpoint: Path) -> str:
    """What identifies a model: a file's content, a folder's files, or else its name.

    >>> checkpoint_hash(Path("hf-hub:org/model"))
    'hf-hub:org/model'
    """
    folder = Path(str(checkpoint).removeprefix("local-dir:"))
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return fingerprint([(path.name, file_hash(path)) for path in files])
    return file_hash(checkpoint) if checkpoint.is_file() else str(checkpoint)


def measure_models(steps: Sequence[Measurement], jobs: int) -> dict[str, pd.DataFrame]:
    """Measure models side by side, each with its share of the cores; put their tables together."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    longest_first = sorted(steps, key=lambda step: not step.every_pair)
    side_by_side(partial(_measure_one, threads=threads), longest_first, jobs=jobs, what="measure")
    parts = [step.run() for step in steps]
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: pd.concat([part[name] for part in parts if name in part], ignore_index=True)
        for name in names
    }


def _measure_one(step: Measurement, *, threads: int) -> None:
    """Fill a model's step folders; the tables are read back from there."""
    import torch

    torch.set_num_threads(threads)
    step.run()
