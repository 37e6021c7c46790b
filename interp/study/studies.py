"""Studies: a specification carried out in resumable steps, up to tables and a page.

    grid of models -> accuracy, similarity, probes, patching -> tables -> page

Every step writes into a folder named by the hash of everything it depends on, under a temporary
name until it is complete. An interrupted study that is started again goes on where it stopped.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from interp.core.artists import artist_column, artist_sides
from interp.core.errors import listed
from interp.core.images import ImageTable
from interp.core.parallel import which_device
from interp.core.progress import say
from interp.core.statistics.index_of_sharing import BARS
from interp.core.storage.store import fingerprint, writable
from interp.core.tables import stacked
from interp.data import open_images
from interp.measures.options import AnalysisSpec
from interp.study.blocks import (
    Block,
    block_numbers,
    check_measurable,
    compared_domains,
    open_blocks,
    open_pool,
)
from interp.study.comparing.with_one_mixture import compare_mixtures, pairs_of
from interp.study.forecasting import cost_of_study
from interp.study.grid_tables import loss_table, mixture_table
from interp.study.grids import (
    Grid,
    GridRun,
    check_trained,
    kept_checkpoints,
    models_by_cell,
    train_cells,
)
from interp.study.machines.finished_runs import FinishedRuns, Taken
from interp.study.measuring import Measurement, Model, measure_models
from interp.study.rehearsal import rehearse
from interp.study.results import Result, contact_sheets, provenance, thumbnails, write_result
from interp.study.setting_contrasts import compare_settings
from interp.study.specification import Specification, TrainingSpec
from interp.verdicts.levels.l4_intervention import intervene, ordinary
from interp.verdicts.rungs import RUNGS


@dataclass(frozen=True)
class Study:
    """A study: the grid of models of a specification, and what is measured on them.

    Args:
        specification: What the study consists of; the default is a small study of the embedded
            pictures.

    >>> Study().specification.mixtures.test_domains
    ('sketch',)
    """

    specification: Specification = field(default_factory=Specification)

    @classmethod
    def of(cls, **sections: Any) -> "Study":
        """A study from the sections of a study file, as keywords.

        Args:
            **sections: `images`, `mixtures`, `training`, `analysis` and others as dictionaries of
                what a study file says there.

        Returns:
            The study.

        Raises:
            SpecificationError: For a section or an entry that a study does not have.

        >>> study = Study.of(images={"n_classes": 12}, training={"steps": 200}, seeds=[0, 1])
        >>> study.specification.images.n_classes, study.specification.seeds
        (12, (0, 1))
        """
        return cls(Specification(**sections))

    @property
    def images(self) -> ImageTable:
        """The pictures of the study (of its first block), rendered or opened when asked for."""
        pool, foreign = open_pool(self.specification.images)
        return Block(0, pool, (), foreign).images

    @classmethod
    def from_toml(cls, path: str | Path) -> "Study":
        """Read a study from a TOML file.

        Args:
            path: The file.

        Returns:
            The study.

        Raises:
            SpecificationError: For a file that does not describe a study.
        """
        return cls(Specification.from_toml(path))

    def run(
        self,
        out: str | Path = "interp-report",
        *,
        jobs: int = 2,
        device: str | None = None,
        command: str = "",
        tables: str | Path | None = None,
        blocks: Sequence[int] | None = None,
    ) -> Result:
        """Carry the study out, or what is left of it.

        Args:
            out: The folder for its steps and its result.
            jobs: Models that are trained and measured side by side, each with its share of the
                cores.
            device: Where models run; None chooses.
            command: The command that started it, for the page.
            tables: A folder for the tables of finished runs, which can be committed. Runs whose
                tables are there, from any machine, are neither trained nor measured again; a few
                runs at a time are trained, measured and kept.
            blocks: Only these of the study's blocks, by their numbers from 0, with the folds of
                classes that all of them have; None takes all.

        Returns:
            The result. Other architectures have results of their own (`replications`), in folders
            of their names.
        """
        return self._carry_out(
            Path(out), jobs=jobs, device=device, command=command, tables=tables, blocks=blocks
        )

    def grid(
        self,
        out: str | Path = "interp-report",
        *,
        jobs: int = 2,
        device: str | None = None,
        command: str = "",
        training: bool = True,
        tables: str | Path | None = None,
        blocks: Sequence[int] | None = None,
    ) -> Result:
        """Train the study's models and measure only their accuracy, at every kept epoch.

        Args:
            out: The folder for its steps and its result.
            jobs: Models that are trained and measured side by side.
            device: Where models run; None chooses.
            command: The command that started it, for the page.
            training: Whether to train models that are missing. Without it all models must be there,
                from this machine or a cluster.
            tables: A folder for the tables of finished runs, as of `run`.
            blocks: Only these blocks, as of `run`.

        Returns:
            The result.

        Raises:
            DataError: Without `training`, if a model is not there; the message names it.
        """
        return self._carry_out(
            Path(out),
            jobs=jobs,
            device=device,
            command=command,
            only=("accuracy",),
            epochs=True,
            training=training,
            tables=tables,
            blocks=blocks,
        )

    def _carry_out(
        self,
        out: Path,
        *,
        jobs: int,
        device: str | None,
        command: str,
        only: tuple[str, ...] = (),
        epochs: bool = False,
        training: bool = True,
        tables: str | Path | None = None,
        blocks: Sequence[int] | None = None,
    ) -> Result:
        folder, clock, where = writable(out, purpose="the study"), Clock(), which_device(device)
        steps = folder / "steps"
        finished = FinishedRuns.open(tables) if tables else None
        asked = partial(self._taken, steps=steps, device=where, only=only, epochs=epochs)
        with clock("pictures and mixtures"):
            grid, numbers = Grid(self.specification), block_numbers(self.specification, blocks)
            if finished:
                cells = finished.plan(grid, steps, asked, numbers=numbers, jobs=jobs)
            else:
                opened = open_blocks(self.specification, jobs, numbers=numbers)
                cells = grid.plan(steps, blocks=opened)
        by_seed = {cell.block.seed: cell.block for cell in cells}
        if not only:
            check_measurable(self.specification, by_seed.values())
        taken = asked(cells)
        if finished:
            taken = finished.filed(taken)
            cost = cost_of_study(self.specification, jobs=jobs, measuring=not only, blocks=blocks)
            minutes = cost.minutes if training else None
            with clock("training and measuring"):
                finished.go_on(taken, jobs=jobs, device=where, training=training, forecast=minutes)
        elif training:
            with clock("training"):
                train_cells(cells, jobs=jobs, device=where)
        if not finished:
            check_trained(cells)
        measured = [each for _, each in taken]
        last = [each for each in measured if each.model.last or only]
        with clock("measuring"):
            frames = measure_models(last, jobs)
            earlier = measure_models(
                [one for one in measured if not (one.model.last or only)], jobs
            )
        frames |= {
            name: stacked([frames[name], earlier[name]])
            for name in ("accuracy", "accuracy_by_class")
            if name in earlier
        }
        results = []
        for place, architecture in enumerate(self.specification.architectures):
            own = [cell for cell in cells if cell.training is architecture and not cell.arm]
            part = self._compared(frames, own, only, finished)
            part |= self._by_epoch(earlier, architecture.name)
            with clock("comparing models"):
                part |= {} if only else self._models_compared(own, steps, finished, jobs, where)
            facts = self.facts(architecture, list(by_seed.values()), clock.seconds, command, where)
            if only:  # the page then asks for no more than that
                domains = self.specification.mixtures.test_domains
                facts |= {"measured": listed(only), "question": question(domains, sharing=False)}
            target = folder / architecture.name if place else folder
            facts |= {"checkpoints": kept_checkpoints(own, target)}
            images = by_seed[own[0].block.seed].images
            moved = [p for m in last if m.model.preset == architecture.name for p in m.plates()]
            plates = [*thumbnails(images), *contact_sheets(images), *moved]
            results.append(write_result(target, part, plates, facts))
        return replace(results[0], replications=tuple(results[1:]))

    def _taken(
        self,
        cells: Sequence[GridRun],
        *,
        steps: Path,
        device: str,
        only: tuple[str, ...],
        epochs: bool,
    ) -> list[Taken]:
        """What is measured on every model, each with its run."""
        kept = self.specification.analysis.epochs
        paired, finals = self._every_pair(cells), {cell.run.final for cell in cells}
        intervened = self.specification.intervention.setting
        blocks = {cell.block.seed: cell.block for cell in cells}
        return [
            (
                cell,
                Measurement(
                    self.specification,
                    model,
                    block.images,
                    block.held_out,
                    steps,
                    only=_asked(model, only or (() if model.last else kept), intervened, finals),
                    device=device,
                    also=("pairs",) if model in paired else (),
                ),
            )
            for cell, model in models_by_cell(cells, epochs=epochs or bool(kept))
            for block in [blocks[model.seed]]
        ]

    def _by_epoch(self, earlier: Mapping[str, Any], architecture: str) -> dict[str, Any]:
        """What kept epochs before the last share, by rung."""
        own = {
            name: frame[frame["architecture"] == architecture] for name, frame in earlier.items()
        }
        shared = {name: own[name] for name in SHARED if len(own.get(name, ()))}
        if not shared:
            return {}
        natural = self.specification.mixtures.natural
        return {"rungs_by_epoch": _climbed(shared, natural)["rungs"]}

    def _models_compared(
        self,
        own: Sequence[GridRun],
        steps: Path,
        finished: FinishedRuns | None,
        jobs: int,
        device: str,
    ) -> dict[str, Any]:
        """The models of one architecture beside those of the reference mixture."""
        spec = self.specification
        if not spec.comparison.setting:
            return {}
        kept = finished.folder if finished else None
        pairs = pairs_of(
            own, spec.comparison.setting, natural=spec.mixtures.natural, steps=steps, kept=kept
        )
        return compare_mixtures(pairs, jobs=jobs, device=device)

    def _compared(
        self,
        frames: Mapping[str, Any],
        own: Sequence[GridRun],
        only: tuple[str, ...],
        finished: FinishedRuns | None,
    ) -> dict[str, Any]:
        """The tables of one architecture: its models', and what is compared across them."""
        part = {
            name: frame[frame["architecture"] == own[0].training.name].reset_index(drop=True)
            for name, frame in frames.items()
        }
        part = {name: frame for name, frame in part.items() if len(frame)}  # a twin has no captions
        spec = self.specification
        arms = (
            intervene(part, spec.intervention, natural=spec.mixtures.natural)
            if spec.intervention.setting
            else {}
        )
        part = ordinary(part)
        if only:  # measured for the arms' sake alone
            part.pop("directions", None)
        part["mixtures"] = mixture_table(own)
        part |= {} if only else _climbed(part, spec.mixtures.natural)
        part = compare_settings(part, own) | {
            "losses": loss_table(own, finished.losses) if finished else loss_table(own)
        }
        part |= {} if only else _levels(part, spec.mixtures.natural)
        return part | _joined(part, arms)

    def _every_pair(self, cells: Sequence[GridRun]) -> list[Model]:
        """The models in which circuits are compared between all pairs of domains."""
        pairs = self.specification.analysis.pairs
        if pairs == "own":
            return []
        if pairs == "all":
            return [cell.model() for cell in cells if not cell.arm]
        found = {}
        for cell in cells:  # the last setting in the first block, for the first test domain
            first = found.setdefault(cell.training.name, cell)
            if not cell.arm and (cell.block.seed, cell.mixture.test_domain) == (
                first.block.seed,
                first.mixture.test_domain,
            ):
                found[cell.training.name] = cell
        return [cell.model() for cell in found.values()]

    def cost(self) -> str:
        """What the study takes, before it begins: a rehearsal, which refuses what it would."""
        return cost_of_study(self.specification, runs=rehearse(self.specification)).text

    def facts(
        self,
        training: TrainingSpec,
        blocks: Sequence[Block],
        seconds: dict[str, float],
        command: str,
        device: str,
    ) -> dict[str, Any]:
        """What a reader needs to repeat the study."""
        spec, images = self.specification, blocks[0].images
        held_out = sorted({label for block in blocks for label in block.held_out})
        return {
            "mode": "study",
            "title": spec.title,
            "question": question(spec.mixtures.test_domains),
            "command": command or "interp.Study(...).run()",
            "specification": {
                "settings": spec.mixtures.names(spec.mixtures.test_domains[0]),
                "test_domains": list(spec.mixtures.test_domains),
                "held_out": {str(block.seed): list(block.held_out) for block in blocks}
                if spec.blocks
                else held_out,
                "natural": spec.mixtures.natural,
                "n_classes": len(images.labels),
                "architecture": training.name,
                **asdict(spec),
            },
            "spec_hash": fingerprint(spec, BARS),
            "held_out": held_out,
            "seed": listed([block.seed for block in blocks]),
            **provenance(images, seconds, device),
        }


SHARED = tuple(dict.fromkeys(measure.table for rung in RUNGS.values() for measure in rung.measures))
"""Tables that the rungs are read from."""


def _asked(
    model: Model, only: tuple[str, ...], intervened: str, finals: Collection[Path]
) -> tuple[str, ...]:
    """The steps to take on a model: of an intervention's arms accuracy and sharing alone, and
    sharing beside accuracy where the arms begin."""
    begins = intervened and model.setting == intervened and model.checkpoint in finals
    if model.arm or (only and begins):
        return ("accuracy", "directions")
    return only


def _climbed(frames: Mapping[str, Any], natural: str) -> dict[str, Any]:
    """The ladder's tables; its imports are more than a mistaken command should wait for."""
    from interp.verdicts.judging import climb

    return climb(frames, natural=natural)


def _joined(part: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an intervention; its rows of `levels` come after those of other levels."""
    import pandas as pd

    if "levels" in part and "levels" in arms:
        both = pd.concat([part["levels"], arms["levels"]], ignore_index=True)
        return {**arms, "levels": both}
    return dict(arms)


def _levels(frames: Mapping[str, Any], natural: str) -> dict[str, Any]:
    """The verdict across checkpoints."""
    from interp.verdicts.levels.across_checkpoints import from_tables, verdict

    found = verdict(*from_tables(frames, natural=natural))
    return {table.name: table.frame for table in (found.table, found.together) if len(table)}


def question(domains: Sequence[str], *, sharing: bool = True) -> str:
    """The question that a study asks, with or without what sharing has to do with it.

    >>> question(["sketch"], sharing=False)
    'Does CLIP recognise classes in sketch that it was never shown there?'
    """
    asked = f"Does CLIP recognise classes in {' and '.join(domains)} that it was never shown there"
    if not sharing:
        return f"{asked}?"
    return (
        f"{asked}, and does that go with representations and circuits that it shares with natural "
        "pictures?"
    )


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


def with_pictures_to_learn_from(images: ImageTable, natural: str, *, seed: int) -> ImageTable:
    """Mark the natural pictures of half of the artists as those that an encoder learns classes by.

    What these artists made in other domains is left out, where artists (or drawings) are known, and
    so is a class that none of them shows.
    """
    frame = images.frame
    theirs = artist_sides(frame, seed=seed) == 0
    learned = theirs & (frame["domain"] == natural).to_numpy()
    known = set(frame["label"][learned])
    strange = sorted(set(frame["label"]) - known)
    if strange:
        say(f"classes without pictures in {natural} to learn from, left out: {listed(strange)}")
    asked = ~learned & frame["label"].isin(list(known)).to_numpy()
    if artist_column(frame) != "picture":
        asked &= ~theirs
    marked = images.with_frame(frame.assign(split=np.where(learned, "train", "test")))
    return marked[learned | asked]


def _learned(images: ImageTable, natural: str) -> dict[str, str]:
    n = len(images.select(split="train", domain=natural))
    return {
        "classes": f"there is no text: the nearest class mean of {n} pictures in {natural}, by "
        "half of the artists; the other half's are asked about"
    }


def examine(
    checkpoint: str | Path,
    images_folder: str | Path,
    out: str | Path = "interp-report",
    *,
    architecture: str | None = None,
    domains: Sequence[str] = (),
    analysis: AnalysisSpec | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
    command: str = "",
) -> Result:
    """Measure one model, without training, on pictures laid out as `domain/class/*`.

    Args:
        checkpoint: What `interp.load_clip` opens: a file, an open_clip name, `hf-hub:...`; or an
            encoder without text, `timm:NAME` or `torchvision:NAME`, which learns the classes from
            half of the artists' natural pictures.
        images_folder: The pictures; all of them serve.
        out: Folder for the result and its page.
        architecture: Architecture of a checkpoint whose run does not say it; `timm:NAME` and
            `torchvision:NAME` as well.
        domains: The natural domain and the one to compare it with; by default `real` (or the
            first) and the next.
        analysis: What is measured, and how often, as in a study's `[analysis]`. Unless its `pairs`
            are "own", circuits are compared between all pairs of domains.
        seed: Seed of all draws.
        device: Where the model runs; None takes what there is.
        command: How it was called, for the page.

    Returns:
        The result, whose page is about this model alone.

    Raises:
        CheckpointError: For a checkpoint that cannot be opened.
        DataError: For pictures or domains that are not there.
        SampleError: For fewer than two domains.

    >>> examine("epoch_32.pt", "no such folder")
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot read pictures from no such folder: ... Check the path.
    """
    from interp.models.loading.load_encoder import is_encoder

    folder, clock, where = writable(Path(out), purpose="the study"), Clock(), which_device(device)
    with clock("pictures"):
        images = open_images(images_folder, seed=seed)
    pair = compared_domains(images, domains)
    everything = images.with_frame(images.frame.assign(split="test"))
    without_text = is_encoder(checkpoint, architecture)
    if without_text:
        everything = with_pictures_to_learn_from(everything, pair[0], seed=seed)
    model = Model(
        Path(checkpoint), "", pair[1], seed, architecture=architecture, supervised=without_text
    )
    asked = (
        AnalysisSpec(**analysis) if isinstance(analysis, Mapping) else analysis or AnalysisSpec()
    )
    spec = Specification(title=f"{checkpoint} on {images.source}", analysis=asked)
    with clock("measuring"):
        step = Measurement(
            spec,
            model,
            everything,
            (),
            folder / "steps",
            natural=pair[0],
            device=where,
            also=("pairs",) if asked.pairs != "own" else (),
        )
        frames = step.run()
        frames |= _climbed(frames, pair[0])
    facts = {
        "mode": "model",
        "title": spec.title,
        "question": question(pair[1:]),
        "command": command or "interp.examine(...)",
        "held_out": [],
        "specification": {"checkpoint": str(checkpoint), "domains": list(pair), "seed": seed}
        | (_learned(everything, pair[0]) if without_text else {}),
        "spec_hash": fingerprint(
            str(checkpoint), architecture, pair, asked, seed, images.fingerprint, BARS
        ),
        "seed": seed,
        **provenance(images, clock.seconds, where),
    }
    plates = [*thumbnails(images), *contact_sheets(images), *step.plates()]
    return write_result(folder, frames, plates, facts)
