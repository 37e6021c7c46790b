"""Grids: the models of a study, one for each architecture, training distribution and block.

    pictures -> blocks -> mixtures -> runs -> accuracy -> tables

Every run lies in a folder named by the hash of all that it depends on, so that runs which two grids
(or two test domains of one) have in common are trained once, and an interrupted grid goes on. A run
is one command, and its folder says when it is finished: on other machines it is started by hand or
through submitit, and nothing need be collected.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import DataError, InterpError, SpecificationError, listed
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.storage.store import fingerprint
from interp.data.leakage.checks import audit
from interp.data.mixtures.basesets import open_base
from interp.data.mixtures.intervention_arms import Arm
from interp.data.mixtures.manifest import Manifest, check_mixture, diff_manifests
from interp.data.mixtures.mixture import make_mixture, make_mixtures
from interp.data.mixtures.settings import BASE, MixtureSpec
from interp.data.mixtures.templates import longest_caption, vocabulary
from interp.measures.subject import AnalysisSpec
from interp.models.loading.presets import PRESETS, is_full_size, write_model_folder
from interp.models.training.journal import read_journal
from interp.models.training.lists import Base
from interp.models.training.run import Run
from interp.models.training.train import check_room, train
from interp.study.blocks import Block, open_blocks
from interp.study.checkpoint import Checkpoint
from interp.study.results import versions
from interp.study.specification import Specification, TrainingSpec

UNTRAINED = "epoch 0"

PLACE = ["architecture", "setting", "test_domain", "seed"]
"""The columns that tell the trainings of a study apart."""


@dataclass(frozen=True)
class Cell:
    """One training of a grid: an architecture, on a mixture, in a block."""

    training: TrainingSpec
    mixture: MixtureSpec
    block: Block
    manifest: Manifest
    run: Run
    arm: str = ""

    @property
    def setting(self) -> str:
        """The mixture's name, and the arm of the intervention behind it."""
        return f"{self.mixture.name}, {self.arm}" if self.arm else self.mixture.name

    @property
    def place(self) -> dict[str, str | int]:
        """The columns that its results are filed under."""
        own = self.training.name, self.setting, self.mixture.test_domain, self.block.seed
        return dict(zip(PLACE, own, strict=True)) | ({"arm": self.arm} if self.arm else {})

    def checkpoint(
        self, analysis: AnalysisSpec, epoch: int | None = None, *, device: str = "cpu"
    ) -> Checkpoint:
        """The model after an epoch, by default the last; of epoch 0 no mixture is named."""
        run, after = self.run, self.run.epochs if epoch is None else epoch
        place = {
            "setting": self.setting if after else "",
            "test_domain": self.mixture.test_domain,
            "seed": self.block.seed,
            "architecture": self.training.name,
            "epoch": after,
        }
        return Checkpoint(
            run.checkpoints / f"epoch_{after}.pt",
            place | ({"arm": self.arm} if self.arm else {}),
            self.block.images,
            (self.mixture.natural, self.mixture.test_domain),
            self.block.held_out,
            analysis,
            run.out,
            control="" if after else UNTRAINED,
            supervised=self.training.objective == "supervised",
            device=device,
        )


@dataclass(frozen=True)
class Grid:
    """The models that a specification asks for.

    >>> Grid().specification.mixtures.test_domains
    ('sketch',)
    """

    specification: Specification = field(default_factory=Specification)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Grid":
        """The grid that a TOML file describes."""
        return cls(Specification.from_toml(path))

    def plan(
        self,
        steps: Path,
        *,
        jobs: int = 2,
        blocks: Sequence[Block] | None = None,
        written: bool = True,
    ) -> list[Cell]:
        """Every run of the grid (or of some of its blocks), its mixture written and checked.

        Without `written`, mixtures are made and counted, no picture is looked at, and no list of
        pictures is kept, unless an intervention has to look into it.
        """
        cells = []
        listed = written or bool(self.specification.intervention.setting)
        for block in open_blocks(self.specification, jobs) if blocks is None else blocks:
            listing = self._mixtures if listed else self._counted
            mixtures = listing(block if written else block.unseen, steps)
            for training in self.specification.architectures:
                _check_labels(training, [spec for spec, _, _ in mixtures])
                model = self._model_folder(block.pool, training, steps)
                for mixture in mixtures:
                    cells += self._cells(training, block, mixture, model, steps)
        for run in {cell.run.name: cell.run for cell in cells if cell.arm}.values():
            run.check()  # what no arm can be is said before anything is trained
        return cells

    def _cells(
        self,
        training: TrainingSpec,
        block: Block,
        mixture: tuple[MixtureSpec, Path, Manifest],
        model: Path,
        steps: Path,
    ) -> list[Cell]:
        """The run on a mixture, and those of the intervention's arms where it is made there."""
        spec, folder, manifest = mixture
        planned, base = self.specification.intervention, manifest["base"]
        shards = base and base["kind"] == "shards"
        cells = []
        for arm in (Arm(0.0), *planned.at(spec)):
            changes = planned.changes(arm) if arm.weight else {}
            recipe = replace(training.recipe, seed=block.seed, negatives=spec.negatives, **changes)
            # a term's cells follow from what is held out where, which a list alone does not say
            own = []
            if arm.weight or spec.negatives != "all":
                own = [spec.natural, spec.test_domain, spec.held_out]
            key = fingerprint(recipe, manifest["tsv_hash"], base, model.name, versions(), *own)
            words = "-".join([spec.slug, *re.findall(r"[a-z0-9]+", arm.name)])
            run = Run(
                f"train-{words}-{block.seed}-{key}",
                model.resolve(),
                (folder / "train.tsv").resolve(),
                manifest["pictures"],
                steps.resolve(),
                recipe,
                Base(base["path"], base["pictures"]) if shards else None,
            )
            cells.append(Cell(training, spec, block, manifest, run, arm.name))
        return cells

    def _specs(self, block: Block) -> list[MixtureSpec]:
        mixtures = self.specification.mixtures
        return [
            spec
            for domain in mixtures.test_domains
            for spec in mixtures.mixture_specs(
                domain, block.held_out, foreign=block.foreign, seed=block.seed
            )
        ]

    def _mixtures(self, block: Block, steps: Path) -> list[tuple[MixtureSpec, Path, Manifest]]:
        """Write the mixtures that are not there yet, and hold each against its manifest."""
        specs = self._specs(block)
        pictures = block.pool.fingerprint, str(block.pool.root)
        bases = [open_base(spec.base).hash if spec.base else "" for spec in specs]
        keys = [
            fingerprint(spec, base, *pictures, versions())
            for spec, base in zip(specs, bases, strict=True)
        ]
        folders = [steps / f"mixture-{key}" for key in keys]
        # the cache may have been emptied since, so pictures that had to be written are looked for
        asked = [not folder.exists() or not block.pool.all_files for folder in folders]
        missing = [spec for spec, is_asked in zip(specs, asked, strict=True) if is_asked]
        if missing:
            made = make_mixtures(block.pool, missing)
            for mixture, folder in zip(made, compress(folders, asked), strict=True):
                mixture.files() if folder.exists() else mixture.write(folder)
        return [
            (spec, folder, check_mixture(folder))
            for spec, folder in zip(specs, folders, strict=True)
        ]

    def _counted(self, block: Block, steps: Path) -> list[tuple[MixtureSpec, Path, Manifest]]:
        """The mixtures as they would be written, known by their pictures and captions."""
        return [
            (made.spec, steps, made.manifest() | {"tsv_hash": made.identity()})
            for made in make_mixtures(block.pool, self._specs(block))
        ]

    def _model_folder(self, pool: ImageTable, training: TrainingSpec, steps: Path) -> Path:
        """The configuration and tokenizer that all models of an architecture share."""
        named = pool.labels, pool.domains
        words, longest = vocabulary(*named), longest_caption(*named)
        size = None if is_full_size(training.preset) else self.specification.images.size
        key = fingerprint(PRESETS[training.preset], words, longest, size, versions())
        folder = steps / f"model-{training.preset}-{key}"
        if not folder.exists():
            write_model_folder(
                folder, training.preset, words=words, longest=longest, image_size=size
            )
        return folder

    def runs(self, steps: Path, *, jobs: int = 2, blocks: Sequence[int] | None = None) -> list[Run]:
        """Every run of the grid (or of some blocks, by number) once, its mixture written."""
        opened = open_blocks(self.specification, jobs, numbers=blocks)
        return distinct(self.plan(steps, jobs=jobs, blocks=opened))


def _check_labels(training: TrainingSpec, mixtures: Sequence[MixtureSpec]) -> None:
    """Refuse to train on labels where a base set has captions only."""
    based = [mixture.name for mixture in mixtures if mixture.base]
    if training.objective == "supervised" and based:
        given = f"{listed(based)}, whose base set has captions and no labels"
        do = "leave the baseline out, or give it a study of its own"
        raise SpecificationError(f"train {training.name}", given, "mixtures without a base set", do)


def distinct(cells: Sequence[Cell]) -> list[Run]:
    """The runs of cells; one that several have in common comes once."""
    return list({cell.run.name: cell.run for cell in cells}.values())


def unfinished(cells: Sequence[Cell]) -> list[Run]:
    """The runs of cells that have not been trained to their end."""
    return [run for run in distinct(cells) if not run.final.exists()]


def check_trained(cells: Sequence[Cell]) -> None:
    """Refuse to tabulate a grid of which some runs are not finished; the error names them."""
    missing = unfinished(cells)
    if missing:
        raise DataError(
            "tabulate a grid",
            f"{len(missing)} of {len(distinct(cells))} runs unfinished "
            f"({listed([run.name for run in missing], limit=3)})",
            "finished runs in this folder",
            "train them here, or wait for those that were handed out",
        )


def train_cells(cells: Sequence[Cell], *, jobs: int, device: str | None) -> None:
    """Train every run that is not finished; a run that cells have in common is trained once."""
    runs, waiting = distinct(cells), unfinished(cells)
    if waiting:
        say(f"{len(waiting)} of {len(runs)} runs to train")
    train(runs, jobs=jobs, device=device)


def kept_checkpoints(cells: Sequence[Cell], folder: Path) -> list[dict[str, object]]:
    """Where the kept checkpoints of cells are, by what their results are filed under."""
    found = []
    for cell in cells:
        for epoch in cell.run.kept_epochs:
            path = cell.run.checkpoints / f"epoch_{epoch}.pt"
            if path.exists():  # a run may be here by its tables alone
                place = {**cell.place, "epoch": epoch, "path": os.path.relpath(path, folder)}
                found.append(place)
    return found


def mixture_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Training pictures by domain, and the optimiser steps taken on them."""
    rows = []
    for cell in cells:
        n_train, recipe = cell.run.pictures, cell.training.recipe
        counts = pd.Series(cell.manifest["counts"])
        by_domain = counts.groupby(counts.index.str.split("/", n=1).str[0]).sum().to_dict()
        base = cell.manifest["base"]
        if base:
            by_domain[BASE] = base["pictures"]
        rows += [
            {
                **cell.place,
                "domain": domain,
                "n_pictures": int(n),
                "n_train": n_train,
                "steps": recipe.epochs_for(n_train) * recipe.batches(n_train),
            }
            for domain, n in by_domain.items()
        ]
    return pd.DataFrame(rows)


def loss_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Training loss per epoch, the mean over its steps, from the runs' journals."""
    frames = []
    for cell in cells:
        steps = read_journal(cell.run.folder).frame
        losses = steps.groupby("epoch", as_index=False)["loss"].mean()
        frames.append(losses.assign(**cell.place))
    return pd.concat(frames, ignore_index=True)[[*cells[0].place, "epoch", "loss"]]


def audit_cells(
    cells: Sequence[Cell], *, jobs: int = 1, tell: Callable[[str], None] = print
) -> pd.DataFrame:
    """The findings about every mixture of a grid, each verdict told as it comes.

    A mixture that several architectures train on is looked at once. After its verdict comes, in one
    line, what sets it apart from the mixture before it in the same block and test domain.
    """
    found: list[pd.DataFrame] = []
    before: dict[tuple[str, int], Cell] = {}
    once = {(cell.mixture, cell.block.seed): cell for cell in cells}
    for cell in once.values():
        made = audit(cell.block.pool, make_mixture(cell.block.pool, cell.mixture), jobs=jobs)
        place = cell.mixture.test_domain, cell.block.seed
        tell(f"{cell.mixture.name} (test domain {place[0]}, block {place[1]}): {made.verdict}")
        if place in before:
            tell(f"  {diff_manifests(before[place].manifest, cell.manifest)}")
        before[place] = cell
        about = {name: value for name, value in cell.place.items() if name != "architecture"}
        found.append(made.frame.assign(**about))
    return pd.concat(found, ignore_index=True)


def commands(runs: Sequence[Run], *, device: str, processes: int = 1) -> list[str]:
    """A line for a shell per unfinished run; its folders must be seen from where it is started."""
    return [
        shlex.join(["python", *run.command(device=device, processes=processes)[1:]])
        for run in _waiting(runs, processes)
    ]


def _waiting(runs: Sequence[Run], processes: int) -> list[Run]:
    """The runs that are not finished, each seen to be one that can be started."""
    waiting = [run for run in runs if not run.final.exists()]
    for run in waiting:
        run.check()
        run.recipe.share(processes)
        run.prepare()
    return waiting


def submit(
    runs: Sequence[Run],
    folder: Path,
    *,
    cluster: str = "slurm",
    device: str = "cuda",
    processes: int = 1,
    **parameters: Any,
) -> list[Any]:
    """Submit unfinished runs through submitit, as one array; the jobs are returned at once.

    `cluster` is submitit's (`slurm`, `local`, `debug`) and `parameters` its executor's
    (`timeout_min`, `slurm_partition`, `gpus_per_node`, ...). Logs go to `folder`. A job that is
    stopped and started again goes on from its latest checkpoint.

    Raises `SpecificationError` without submitit, or for a parameter that it does not know.
    """
    try:
        import submitit
    except ImportError:
        right = "submitit, which hands jobs to a cluster"
        do = "run pip install submitit, or print the commands instead"
        raise SpecificationError("submit runs", "no submitit", right, do) from None
    waiting = _waiting(runs, processes)
    if waiting:  # printed commands may be carried to another disk
        check_room(waiting, jobs=len(waiting))
    try:
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
        executor.update_parameters(name="interp", **parameters)
    except (ValueError, RuntimeError, NameError) as error:
        asked, right = f"submit runs to {cluster}", "what submitit takes"
        raise SpecificationError(asked, str(error), right, "see its documentation") from None
    if not waiting:
        return []
    words = [run.command(device=device, processes=processes) for run in waiting]
    return executor.map_array(carry_out, words)


def carry_out(command: Sequence[str]) -> int:
    """Start one run where the job landed, and wait for it."""
    done = subprocess.run(list(command), check=False)
    if done.returncode:
        given = f"a trainer that ended with status {done.returncode}"
        do = "read the job's log, mend that and submit again"
        raise InterpError("train on the cluster", given, "a finished run", do)
    return done.returncode
