"""Studies: a specification carried out in resumable steps, up to tables and a page.

    pictures -> mixtures -> models -> tables of each -> tables across models -> result

Every step writes into a folder named by the hash of everything it depends on, under a temporary
name until it is complete. An interrupted study that is started again goes on where it stopped.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from interp.core.errors import listed
from interp.core.illustrations import contact_sheets, thumbnails
from interp.core.images import ImageTable
from interp.core.parallel import which_device
from interp.core.progress import say
from interp.core.statistics.index_of_sharing import BARS
from interp.core.storage.store import fingerprint, writable
from interp.study.archive import LOSSES, NAME, RUNS, run_table, tables_of, write_archive
from interp.study.blocks import Block, check_measurable, open_blocks, open_pool
from interp.study.checkpoint import Checkpoint, measure
from interp.study.compare_models import compare_mixtures, pairs_of
from interp.study.compare_settings import Tables, at_the_end, sharing_by_epoch, with_comparisons
from interp.study.cost import OF_ARMS, cost_of_study, rehearse
from interp.study.grid import Cell, Grid, check_trained, kept_checkpoints, loss_table, train_cells
from interp.study.results import Facts, Result, provenance, write_result
from interp.study.specification import Specification, TrainingSpec


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
            out: The folder for its steps and its result. `archive.zip` there has the tables of all
                models, from which the result can be made again.
            jobs: Models that are trained and measured side by side, each with its share of the
                cores.
            device: Where models run; None chooses.
            command: The command that started it, for the page.
            tables: Such a file. Then nothing is trained or measured: the result is made from its
                tables.
            blocks: Only these of the study's blocks, by their numbers from 0, with the folds of
                classes that all of them have; None takes all.

        Returns:
            The result. Other architectures have results of their own (`replications`), in folders
            of their names.

        Raises:
            DataError: For `tables` that do not read, or are of another study.
        """
        folder, where = writable(Path(out), purpose="the study"), which_device(device)
        work = Work(self.specification, folder, jobs, where, command)
        return work.carry_out(tables, blocks)

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
            out: The folder for its steps and its result, and for `archive.zip`, as of `run`.
            jobs: Models that are trained and measured side by side.
            device: Where models run; None chooses.
            command: The command that started it, for the page.
            training: Whether to train models that are missing. Without it all models must be there,
                from this machine or a cluster.
            tables: A file of tables, as of `run`.
            blocks: Only these blocks, as of `run`.

        Returns:
            The result.

        Raises:
            DataError: Without `training`, if a model is not there; the message names it. For
                `tables` that do not read, or are of another study.
        """
        folder, where = writable(Path(out), purpose="the study"), which_device(device)
        work = Work(self.specification, folder, jobs, where, command, ("accuracy",))
        return work.carry_out(tables, blocks, training=training)

    def cost(self) -> str:
        """What the study takes, before it begins: a rehearsal, which refuses what it would."""
        return cost_of_study(self.specification, runs=rehearse(self.specification)).text


class Clock(dict[str, float]):
    """Seconds of each step, which is announced when it begins.

    >>> clock = Clock()
    >>> with clock("wait"): pass
    >>> list(clock)
    ['wait']
    """

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        say(f"{name} …")
        start = time.monotonic()
        yield
        self[name] = round(time.monotonic() - start, 1)


@dataclass(frozen=True)
class Work:
    """A study at work: its folder, its devices, and the seconds that it has taken.

    `only` are names of the measures to take, then at every kept epoch; empty takes all that the
    analysis asks for.
    """

    specification: Specification
    folder: Path
    jobs: int
    device: str
    command: str
    only: tuple[str, ...] = ()
    clock: Clock = field(default_factory=Clock)

    def carry_out(
        self, archive: str | Path | None, blocks: Sequence[int] | None, *, training: bool = True
    ) -> Result:
        """The result of the study or of some blocks, from an archive's tables where one is named.

        Steps that are finished are taken as they are; without `training` all models must be there.
        """
        if archive is not None:
            return self.again(archive, blocks)
        with self.clock("pictures and mixtures"):
            opened = open_blocks(self.specification, self.jobs, numbers=blocks)
            cells = Grid(self.specification).plan(self.folder / "steps", blocks=opened)
        if not self.only:
            check_measurable(self.specification, opened)
        if training:
            with self.clock("training"):
                train_cells(cells, jobs=self.jobs, device=self.device)
        check_trained(cells)
        return self.results(cells, self.tables(cells))

    def tables(self, cells: Sequence[Cell]) -> Tables:
        """The tables of all models: what is measured on each, losses, and pairs of models."""
        with self.clock("measuring"):
            tables = measure(self.checkpoints(cells), self.jobs)
        tables[LOSSES] = loss_table([cell for cell in cells if not cell.arm])
        setting = self.specification.comparison.setting
        if setting and not self.only:
            with self.clock("comparing models"):
                pairs = pairs_of(cells, setting)
                tables |= compare_mixtures(pairs, jobs=self.jobs, device=self.device)
        runs = run_table(cells, self.specification)
        write_archive(self.folder / NAME, {**tables, RUNS: runs})
        return tables

    def checkpoints(self, cells: Sequence[Cell]) -> list[Checkpoint]:
        """The models to measure: the untrained one of each block, the trained ones, then earlier
        epochs of these, if the analysis names measures for them."""
        spec, only = self.specification, self.only
        of_epochs, paired = spec.analysis.epochs, cells_of_pairs(cells, spec.analysis.pairs)
        floors: dict[tuple[str, str, int], Checkpoint] = {}
        last, earlier = [], []
        for cell in cells:
            block = cell.training.name, cell.mixture.test_domain, cell.block.seed
            floor = cell.checkpoint(spec.analysis, 0, device=self.device)
            floors.setdefault(block, replace(floor, only=only))
            end = cell.run.epochs
            begins = bool(only) and cell.setting == spec.intervention.setting
            for epoch in cell.run.kept_epochs if (only or of_epochs) and not cell.arm else (end,):
                # of arms accuracy and sharing alone; both, too, where the arms begin
                if cell.arm or (begins and epoch == end):
                    names = OF_ARMS
                else:
                    names = only or (() if epoch == end else of_epochs)
                model = cell.checkpoint(spec.analysis, epoch, device=self.device)
                pairs = ("pairs",) if cell in paired and epoch == end else ()
                if epoch:
                    group = last if only or epoch == end else earlier
                    group.append(replace(model, only=names, also=pairs))
        return [*floors.values(), *last, *earlier]

    def again(self, archive: str | Path, blocks: Sequence[int] | None) -> Result:
        """The result from the tables of an archive: nothing is rendered, trained or measured."""
        spec = self.specification
        with TemporaryDirectory() as scratch, self.clock("reading tables"):
            opened = open_blocks(spec, self.jobs, rendered=False, numbers=blocks)
            cells = Grid(spec).plan(Path(scratch), blocks=opened, written=False)
            tables = tables_of(archive, cells, spec)
            tables.pop(RUNS)
            return self.results(cells, tables)

    def results(self, cells: Sequence[Cell], tables: Mapping[str, pd.DataFrame]) -> Result:
        """Compare the models of each architecture, and write its result."""
        spec, results = self.specification, []
        for place, architecture in enumerate(spec.architectures):
            own = [cell for cell in cells if cell.training is architecture]
            plain = [cell for cell in own if not cell.arm]
            part, earlier = at_the_end(tables, own)
            with self.clock("comparing"):
                part = with_comparisons(part, plain, spec, accuracy_alone=bool(self.only))
                part |= sharing_by_epoch(earlier, spec.mixtures.natural)
            folder = self.folder / architecture.name if place else self.folder
            facts = self.facts(architecture, blocks_of(cells))
            if self.only:  # the page then asks for no more than that
                asked = question(spec.mixtures.test_domains, sharing=False)
                facts |= {"measured": "accuracy", "question": asked}
            facts |= {"checkpoints": kept_checkpoints(plain, folder)}
            images = own[0].block.images
            whole = replace(self, only=())  # a run of the study in this folder may have left some
            moved = [plate for one in whole.checkpoints(own) for plate in one.plates()]
            plates = [*thumbnails(images), *contact_sheets(images), *moved]
            results.append(write_result(folder, part, plates, facts))
        return replace(results[0], replications=tuple(results[1:]))

    def facts(self, training: TrainingSpec, blocks: Sequence[Block]) -> Facts:
        """What a reader needs to repeat the study."""
        spec, images = self.specification, blocks[0].images
        held_out = sorted({label for block in blocks for label in block.held_out})
        return {
            "mode": "study",
            "title": spec.title,
            "question": question(spec.mixtures.test_domains),
            "command": self.command or "interp.Study(...).run()",
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
            **provenance(images, dict(self.clock), self.device),
        }


def blocks_of(cells: Sequence[Cell]) -> list[Block]:
    """The blocks of cells, each once."""
    return list({cell.block.seed: cell.block for cell in cells}.values())


def cells_of_pairs(cells: Sequence[Cell], pairs: str) -> list[Cell]:
    """The cells in whose models circuits are compared between all pairs of domains."""
    plain = [cell for cell in cells if not cell.arm]
    if pairs != "one model":
        return plain if pairs == "all" else []
    chosen: dict[str, Cell] = {}
    for cell in plain:  # the last setting in the first block, for the first test domain
        first = chosen.setdefault(cell.training.name, cell)
        here, there = ((one.block.seed, one.mixture.test_domain) for one in (cell, first))
        if here == there:
            chosen[cell.training.name] = cell
    return list(chosen.values())


def question(domains: Sequence[str], *, sharing: bool = True) -> str:
    """The question that a study asks, with or without what sharing has to do with it.

    >>> question(["sketch"], sharing=False)
    'Does CLIP recognise classes in sketch that it was never shown there?'
    """
    text = f"Does CLIP recognise classes in {' and '.join(domains)} that it was never shown there"
    if not sharing:
        return f"{text}?"
    return (
        f"{text}, and does that go with representations and circuits that it shares with natural "
        "pictures?"
    )
