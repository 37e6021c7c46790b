"""A kept model of a study, and everything that is measured on it: each measure a resumable step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from interp.core.illustrations import Plate
from interp.core.images import ImageTable
from interp.core.parallel import devices_in_turn, on_threads, side_by_side, threads_each
from interp.core.statistics.index_of_sharing import BARS
from interp.core.storage.store import complete, file_hash, fingerprint
from interp.core.tables import Table, stacked
from interp.declared.measures import SUPERVISED, TRAINED, UNTRAINED, MeasureSpec, all_measures
from interp.measures.subject import AnalysisSpec
from interp.report.naming import setting_name
from interp.study.results import versions

if TYPE_CHECKING:
    from interp.measures.subject import Subject


@dataclass(frozen=True)
class Tabulated:
    """What keeps its tables in a folder of its own, and where its models run."""

    device: str = field(default="cpu", kw_only=True)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name, measured or read back."""
        raise NotImplementedError


@dataclass(frozen=True)
class Checkpoint(Tabulated):
    """A model of a study, before it is opened, and what is measured on it.

    Args:
        path: The checkpoint, or another name that `interp.load_clip` opens.
        place: The columns that its results are filed under: `setting`, `test_domain`, `seed`, ...
        images: All pictures.
        pair: The natural domain, and the one that sharing is measured with.
        held_out: Classes not trained on in the second of these.
        analysis: What is measured, and how often.
        steps: The folder that steps are kept in.
        control: What it is a control as, such as an untrained model; empty for a trained one.
        supervised: Whether it was trained on labels, and has no text tower.
        architecture: Its architecture, where the checkpoint does not say it.
        only: Names of the measures to take; empty takes all that the analysis asks for.
        also: Names of measures to take beside those, which are taken by name alone.
        device: Where the model runs.
    """

    path: Path
    place: Mapping[str, object]
    images: ImageTable
    pair: tuple[str, str]
    held_out: tuple[str, ...]
    analysis: AnalysisSpec
    steps: Path
    control: str = ""
    supervised: bool = False
    architecture: str | None = None
    only: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def measures(self) -> list[MeasureSpec]:
        """The measures to take, in their order."""
        kind = UNTRAINED if self.control else SUPERVISED if self.supervised else TRAINED
        named = self.only or self.also
        return [
            measure
            for measure in all_measures()
            if kind in measure.of
            and measure.wanted_by(self.analysis)
            and (not self.only or measure.name in self.only)
            and (not measure.by_name or measure.name in named)
        ]

    def tables(self) -> dict[str, pd.DataFrame]:
        """The model's tables by name, measured or read back."""
        frames: dict[str, list[pd.DataFrame]] = {}
        for measure in self.measures:
            folder = self.steps / f"{measure.name}-{self.key}"
            if not folder.exists():
                with complete(folder) as temporary, exact_convolutions():
                    for name, frame in measure.function(self.opened).items():
                        _table(measure, name, frame).save(temporary)
            for path in sorted(folder.glob("*.csv")):
                frames.setdefault(path.stem, []).append(Table.load(path).frame)
        tables = {name: stacked(parts) for name, parts in frames.items()}
        drawn = [m.plates for m in self.measures if m.plates and set(m.tables) <= set(tables)]
        if drawn and not self._pictures.exists():
            with complete(self._pictures) as temporary:
                for plate in (plate for plates in drawn for plate in plates(self.opened, tables)):
                    plate.save(temporary)
        return tables

    def plates(self) -> list[Plate]:
        """The model's pictures, once it has been measured."""
        return [Plate.load(path) for path in sorted(self._pictures.glob("*.png"))]

    @property
    def _pictures(self) -> Path:
        return self.steps / f"pictures-{self.key}"

    @property
    def key(self) -> str:
        """A hash of the model and of all that its measurements depend on."""
        return fingerprint(
            checkpoint_hash(self.path),
            self.images.fingerprint,
            self.held_out,
            self.analysis,
            self.pair,
            [dict(self.place), self.control, self.architecture],
            versions(),
            BARS,
        )

    @cached_property
    def opened(self) -> "Subject":
        """The opened model with the pictures and classes that it is measured on."""
        import torch

        from interp.measures.subject import Subject
        from interp.models.loading.load_encoder import Encoder, load_any

        clip = load_any(self.path, model=self.architecture, device=self.device)
        if isinstance(clip, Encoder):
            clip = clip.teach(self.images.select(split="train", domain=self.pair[0]))
        # convolutions take three quarters of the time so; sums add up in another order
        clip.visual.source.to(memory_format=torch.channels_last)
        return Subject(
            clip,
            self.images,
            self.pair,
            self.held_out,
            self.analysis,
            setting_name(str(self.place["setting"])),
            self.place,
            self.control,
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
    numbers = "reason" not in frame or (frame["reason"] == "").any()
    return (Table.with_evidence if name in measure.evidence and numbers else Table)(name, frame)


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


def measure(checkpoints: Sequence[Checkpoint], jobs: int) -> dict[str, pd.DataFrame]:
    """Measure models side by side, each with its share of the cores; put their tables together."""
    # a model of a few measures comes last: until it ends, no other core waits long
    longest_first = sorted(checkpoints, key=lambda one: (not one.also, bool(one.only)))
    return tables_side_by_side(checkpoints, longest_first, jobs=jobs, what="measure")


def tables_side_by_side(
    things: Sequence[Tabulated], begun: Sequence[Tabulated] = (), *, jobs: int, what: str
) -> dict[str, pd.DataFrame]:
    """The tables of all things, one under another, which are filled in the order `begun`."""
    begun = begun or things
    devices = devices_in_turn(begun[0].device, len(begun)) if begun else []
    spread = [replace(one, device=each) for one, each in zip(begun, devices, strict=True)]
    fill = partial(_fill, threads=threads_each(jobs))
    side_by_side(fill, spread, jobs=jobs, what=what)
    parts = [one.tables() for one in things]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: stacked(part[name] for part in parts if name in part) for name in names}


def _fill(thing: Tabulated, *, threads: int) -> None:
    """Fill a thing's folders; the tables are read back from there."""
    with on_threads(threads):
        thing.tables()
