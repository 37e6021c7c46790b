"""Tables of finished runs, which can be committed: a study goes on from them on any machine.

A run is known by what it is: its training, its mixture, its pictures and what is measured. No path
of a machine, no library's version and no checkpoint enters its name.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from interp.core.progress import say
from interp.core.storage.kept_tables import DIGITS
from interp.core.storage.store import fingerprint, writable, write_atomic
from interp.data.mixtures.basesets import open_base
from interp.models import train
from interp.models.loading.load_clip import CONFIGURATION
from interp.study.blocks import Block, are_rendered, asked_of, open_blocks
from interp.study.forecasting import minutes_in_words
from interp.study.grid_tables import mean_losses
from interp.study.grids import Grid, GridRun, check_trained, distinct
from interp.study.measuring import Measurement, measure_models
from interp.study.results import versions
from interp.study.specification import Specification

Taken: TypeAlias = tuple[GridRun, Measurement]
"""A run, and what is measured on one of its models."""

FACTS, LOSSES, PICTURES = "run.json", "losses.csv", "pictures.json"


@dataclass(frozen=True)
class FinishedRuns:
    """A folder with a folder for each finished run, and in that one for each of its models.

    Beside them, `pictures.json` says by which fingerprint the pictures of runs are known, so that
    finished runs are found without rendering a picture, whatever version or processor would render
    them: matrix products are summed in another order on processors without AVX-512, where 3 of
    294 pictures in the domain real differed by one level of one pixel.

    Args:
        folder: The folder; it is made where it is not there.
    """

    folder: Path

    @staticmethod
    def open(folder: str | Path) -> "FinishedRuns":
        """The runs of a folder."""
        return FinishedRuns(writable(Path(folder), purpose="tables of finished runs"))

    def plan(
        self,
        grid: Grid,
        steps: Path,
        asked: Callable[[Sequence[GridRun]], list[Taken]],
        *,
        numbers: Sequence[int],
        jobs: int = 2,
    ) -> list[GridRun]:
        """The runs of a grid; pictures are rendered of blocks alone in which some are missing.

        Args:
            grid: The grid.
            steps: The folder that runs are trained in.
            asked: What is measured on runs.
            numbers: Blocks, or seeds.
            jobs: Processes that render.

        Returns:
            The runs in their order.
        """
        spec = grid.specification
        groups = [[number] for number in numbers] if spec.blocks else [list(numbers)]
        cells: list[GridRun] = []
        for own in groups:
            there = are_rendered(spec, own)
            planned = self._plan(grid, steps, own, rendered=there, jobs=jobs)
            taken = asked([*cells, *planned])  # which models are asked more depends on those before
            filed = self.filed([one for one in taken if one[0].block.seed in own])
            if not there and not all(self.holds(cell, [each]) for cell, each in filed):
                planned = self._plan(grid, steps, own, rendered=True, jobs=jobs)
            cells += planned
        return cells

    def _plan(
        self, grid: Grid, steps: Path, numbers: Sequence[int], *, rendered: bool, jobs: int
    ) -> list[GridRun]:
        blocks = open_blocks(grid.specification, jobs, rendered=rendered, numbers=numbers)
        named = [self._named(grid.specification, block, rendered=rendered) for block in blocks]
        return grid.plan(steps, blocks=named, written=rendered)

    def _named(self, spec: Specification, block: Block, *, rendered: bool) -> Block:
        """A block whose pictures are known as when runs on them were first kept here."""
        asked, pictures = asked_of(spec, block.seed), self._pictures
        if not asked or not (rendered or asked in pictures):
            return block
        if asked not in pictures:
            pictures[asked] = block.pool.fingerprint
            text = json.dumps(pictures, indent=1, sort_keys=True)
            write_atomic(self.folder / PICTURES, text + "\n")
        elif rendered and pictures[asked] != block.pool.fingerprint:
            say(
                f"pictures of block {block.seed} are rendered otherwise than those of its finished "
                "runs were (another version of a renderer, or another kind of processor); runs are "
                "named by the first"
            )
        return block.known_as(pictures[asked])

    @property
    def _pictures(self) -> dict[str, str]:
        path = self.folder / PICTURES
        return json.loads(path.read_text()) if path.exists() else {}

    def of(self, cell: GridRun) -> Path:
        """Where a run's tables are or will be."""
        about = f"{cell.training.name} {cell.mixture.slug} {cell.mixture.test_domain} {cell.arm}"
        words = re.findall(r"[a-z0-9]+", about.lower())
        return self.folder / "-".join([*words, str(cell.block.seed), run_hash(cell)])

    def model(self, cell: GridRun, measured: Measurement) -> Path:
        """Where the tables of one of its models are or will be."""
        return self.of(cell) / f"epoch-{measured.model.epoch}-{measured.asked_hash}"

    def holds(self, cell: GridRun, measured: Sequence[Measurement]) -> bool:
        """Whether a run is finished: its losses and the tables of all its models are there."""
        own = self.of(cell)
        places = [own / LOSSES, own / FACTS, *(self.model(cell, each) for each in measured)]
        return all(place.exists() for place in places)

    def keep(self, cell: GridRun, minutes: float | None = None) -> None:
        """Write what a run is, what it took, and its losses, beside the tables of its models.

        `minutes` are its share of what training and measuring its group took; None where it was
        trained before.
        """
        folder = writable(self.of(cell), purpose="tables of a finished run")
        losses = mean_losses(cell).to_csv(index=False, float_format=f"%.{DIGITS}g")
        write_atomic(folder / LOSSES, losses)
        counted: dict[str, float] = {"pictures": cell.run.pictures, "epochs": cell.run.epochs}
        if minutes is not None:
            counted["minutes"] = round(minutes, 2)
        about = {**cell.place, **counted, "versions": versions()}
        write_atomic(folder / FACTS, json.dumps(about, indent=1, sort_keys=True) + "\n")

    def losses(self, cell: GridRun) -> pd.DataFrame | None:
        """A run's mean loss of each epoch; None where it is not finished."""
        path = self.of(cell) / LOSSES
        return pd.read_csv(path) if path.exists() else None

    def filed(self, taken: Sequence[Taken]) -> list[Taken]:
        """The measurements, each with the folder that its tables are read from or written to.

        Of the first of these blocks pictures are kept too, of which a page shows no more.
        """
        first = min((cell.block.seed for cell, _ in taken), default=0)
        return [
            (cell, replace(each, kept=self.model(cell, each), pictured=cell.block.seed == first))
            for cell, each in taken
        ]

    def go_on(
        self,
        taken: Sequence[Taken],
        *,
        jobs: int,
        device: str | None,
        training: bool,
        forecast: float | None = None,
    ) -> None:
        """Train and measure what is not finished, a few runs at a time, each kept when it is done.

        Args:
            taken: All measurements, `filed`.
            jobs: Runs side by side.
            device: Where they are trained.
            training: Whether to train. Without it, runs that are not finished must have been
                trained elsewhere.
            forecast: Minutes that all runs were forecast to take, none of them finished; None says
                nothing of it. Where runs of the same architecture were timed here, their pace is
                said instead.
        """
        of_run: dict[str, list[Taken]] = {}
        for cell, each in taken:
            of_run.setdefault(cell.run.name, []).append((cell, each))
        waiting = [own for own in of_run.values() if not self._finished(own)]
        said = f"{len(of_run) - len(waiting)} of {len(of_run)} runs are finished in {self.folder}"
        if forecast and waiting:
            cells = {self.of(cell): cell for own in waiting for cell, _ in own}
            timed = self._timed({cell.training.name for cell in cells.values()})
            left = forecast * len(waiting) / len(of_run)
            by = "by forecast"
            if timed:
                left = float(np.median(timed)) * len(cells)
                by = f"at the pace of the {len(timed)} that were timed there"
            said += f"; {by} the others take {minutes_in_words(left)}"
        say(said)
        start = time.monotonic()
        for first in range(0, len(waiting), 2 * jobs):
            begun = time.monotonic()
            some = [one for own in waiting[first : first + 2 * jobs] for one in own]
            cells = [cell for cell, _ in some]
            new = {cell.run.name for cell in cells if not cell.run.final.exists()}
            if training:
                for cell in cells:
                    if cell.run.name in new:  # what is there is of another training
                        shutil.rmtree(self.of(cell), ignore_errors=True)
                train(distinct(cells), jobs=jobs, device=device)
            check_trained(cells)
            measure_models([each for _, each in some], jobs)
            kept = {self.of(cell): cell for cell in cells}
            minutes = (time.monotonic() - begun) / 60 / len(kept)
            for cell in kept.values():
                self.keep(cell, minutes if all(each.run.name in new for each in cells) else None)
            done = min(first + 2 * jobs, len(waiting))
            left = (time.monotonic() - start) / done * (len(waiting) - done)
            say(f"runs: {done} of {len(waiting)}, about {left / 60:.0f} min left")

    def _timed(self, architectures: Collection[str]) -> list[float]:
        """What the finished runs of some architectures took, in minutes, where it is known."""
        facts = (json.loads(path.read_text()) for path in sorted(self.folder.glob(f"*/{FACTS}")))
        return [
            about["minutes"]
            for about in facts
            if "minutes" in about and about["architecture"] in architectures
        ]

    def _finished(self, taken: Sequence[Taken]) -> bool:
        by_cell: dict[Path, list[Taken]] = {}
        for one in taken:
            by_cell.setdefault(self.of(one[0]), []).append(one)
        return all(self.holds(own[0][0], [m for _, m in own]) for own in by_cell.values())


def run_hash(cell: GridRun) -> str:
    """What a run is, in a hash that is the same on every machine."""
    base = open_base(cell.mixture.base).hash if cell.mixture.base else ""
    mixture = replace(cell.mixture, base="")  # whose path is of a machine
    towers = (cell.run.model_folder / CONFIGURATION).read_text()
    pictures = cell.block.pool.fingerprint
    return fingerprint(cell.run.recipe, cell.training, mixture, pictures, base, towers)
