"""Everything that is measured on one model, each table a step that is kept when it is complete."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.illustrations import Plate
from interp.core.images import ImageTable
from interp.core.parallel import devices_in_turn, on_threads, side_by_side, threads_each
from interp.core.statistics.index_of_sharing import BARS
from interp.core.storage.kept_tables import keep_model, kept_model, kept_plates
from interp.core.storage.store import complete, file_hash, fingerprint
from interp.core.tables import Table, stacked
from interp.declared.measures import SUPERVISED, TRAINED, UNTRAINED, MeasureSpec, all_measures
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

    last: bool = True

    @property
    def name(self) -> str:
        """A name for messages."""
        return f"{self.setting or self.control or 'model'} ({self.test_domain}, seed {self.seed})"

    @property
    def kind(self) -> str:
        """Which measures it can be asked: trained, untrained or supervised."""
        return UNTRAINED if self.control else SUPERVISED if self.supervised else TRAINED

    @property
    def place(self) -> dict[str, Any]:
        """The columns that its results are filed under."""
        place = {"setting": self.setting, "test_domain": self.test_domain, "seed": self.seed}
        known = {"architecture": self.preset or None, "epoch": self.epoch, "arm": self.arm or None}
        return place | {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Measurement:
    """Everything that is measured on one model, each measure a step of its own.

    Args:
        specification: What the study measures, and how often.
        model: The model.
        images: All pictures.
        held_out: Classes not trained on in the model's test domain.
        steps: The folder that steps are kept in.
        natural: The natural domain; empty for that of the specification.
        only: Names of the measures to take; empty for all that the specification asks for.
        also: Names of measures to take beside those, which are taken only by name.
        device: Where the model runs.
        kept: A folder that its tables are read from, or written to; None keeps them in steps alone.
        pictured: Whether its pictures are kept there too.
    """

    specification: Specification
    model: Model
    images: ImageTable
    held_out: tuple[str, ...]
    steps: Path
    natural: str = ""
    only: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    device: str = "cpu"
    kept: Path | None = None
    pictured: bool = True

    def run(self) -> dict[str, pd.DataFrame]:
        """The model's tables by name, measured or read back."""
        if self.kept is None:
            return self._measured()
        if not self.kept.exists():
            measured = self._measured()
            keep_model(self.kept, measured, self._drawn() if self.pictured else [])
        return kept_model(self.kept)

    def _measured(self) -> dict[str, pd.DataFrame]:
        key = self._key()
        frames: dict[str, list[pd.DataFrame]] = {}
        for measure in self._measures():
            folder = self.steps / f"{measure.name}-{key}"
            if not folder.exists():
                with complete(folder) as temporary, exact_convolutions():
                    for name, frame in measure.function(self.opened).items():
                        _table(measure, name, frame).save(temporary)
            for path in sorted(folder.glob("*.csv")):
                frames.setdefault(path.stem, []).append(Table.load(path).frame)
        made = {name: stacked(parts) for name, parts in frames.items()}
        drawn = [m.plates for m in self._measures() if m.plates and set(m.tables) <= set(made)]
        if drawn and not self._pictures.exists():
            with complete(self._pictures) as temporary:
                for plate in (plate for plates in drawn for plate in plates(self.opened, made)):
                    plate.save(temporary)
        return made

    def _measures(self) -> list[MeasureSpec]:
        """The measures to take, in their order."""
        named = self.only or self.also
        return [
            measure
            for measure in all_measures()
            if self.model.kind in measure.of
            and measure.asked(self.specification.analysis)
            and (not self.only or measure.name in self.only)
            and (not measure.by_name or measure.name in named)
        ]

    @property
    def _pictures(self) -> Path:
        return self.steps / f"pictures-{self._key()}"

    def plates(self) -> list[Plate]:
        """The model's pictures, once it has been measured."""
        return self._drawn() if self.kept is None else kept_plates(self.kept)

    def _drawn(self) -> list[Plate]:
        return [Plate.load(path) for path in sorted(self._pictures.glob("*.png"))]

    def _key(self) -> str:
        return fingerprint(
            checkpoint_hash(self.model.checkpoint),
            self.images.fingerprint,
            self.held_out,
            self.specification.analysis,
            self.pair,
            [self.model.place, self.model.control, self.model.architecture],
            versions(),
            BARS,
        )

    @property
    def asked_hash(self) -> str:
        """What is asked, of which pictures, in a hash that is the same on every machine."""
        model, spec = self.model, self.specification
        return fingerprint(
            self.images.fingerprint,
            self.held_out,
            spec.analysis,
            self.pair,
            [model.control, model.architecture, model.preset],
            sorted(measure.known_as for measure in self._measures()),
            BARS,
        )

    @property
    def pair(self) -> tuple[str, str]:
        """The natural domain and the one that sharing is asked about."""
        return self.natural or self.specification.mixtures.natural, self.model.test_domain

    @cached_property
    def opened(self) -> Any:
        """The opened model with what it is asked about."""
        import torch

        from interp.measures.subject import Subject
        from interp.models.loading.load_encoder import Encoder, load_any

        model = self.model
        clip = load_any(model.checkpoint, model=model.architecture, device=self.device)
        if isinstance(clip, Encoder):
            clip = clip.teach(self.images.select(split="train", domain=self.pair[0]))
        # convolutions take three quarters of the time so; sums add up in another order
        clip.visual.source.to(memory_format=torch.channels_last)
        return Subject(
            clip,
            self.images,
            self.pair,
            self.held_out,
            self.specification.analysis,
            setting_name(self.model.setting),
            self.model.place,
            self.model.control,
        )


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in float32 on GPUs, too: TF32 keeps three digits, where effects are compared."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _table(measure: MeasureSpec, name: str, frame: pd.DataFrame) -> Table:
    """A table of a measure, refused without evidence where the measure declares it.

    A table that holds nothing but reasons why there is no number needs none.
    """
    told = "reason" not in frame or (frame["reason"] == "").any()
    return (Table.with_evidence if name in measure.evidence and told else Table)(name, frame)


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
    # a model of a few measures comes last: until it ends, no other core waits long
    longest_first = sorted(steps, key=lambda step: (not step.also, bool(step.only)))
    devices = devices_in_turn(steps[0].device, len(steps)) if steps else []
    longest_first = [
        replace(step, device=each) for step, each in zip(longest_first, devices, strict=True)
    ]
    measure = partial(_measure_one, threads=threads_each(jobs))
    side_by_side(measure, longest_first, jobs=jobs, what="measure")
    parts = [step.run() for step in steps]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: stacked(part[name] for part in parts if name in part) for name in names}


def _measure_one(step: Measurement, *, threads: int) -> None:
    """Fill a model's step folders; the tables are read back from there."""
    with on_threads(threads):
        step.run()
