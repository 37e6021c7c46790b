"""Rehearsals: a study's pictures opened, mixtures made and steps counted, and nothing kept.

A rehearsal takes the way that the run takes, on tables without pictures, in a folder that is
removed. So it refuses what the run would refuse, before anything is rendered or trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from interp.study.blocks import block_numbers, check_measurable, open_blocks
from interp.study.grids import Grid, GridRun, distinct
from interp.study.specification import Specification


@dataclass(frozen=True)
class RehearsedRun:
    """A run that a study would train, and for how long.

    Args:
        architecture: Its name.
        setting: Its mixture, and the arm of an intervention.
        test_domain: The test domain.
        seed: Seed, or number of the block.
        pictures: Training pictures.
        epochs: Whole epochs.
        steps: Optimiser steps in all.
        batch_size: Pictures in a step.
    """

    architecture: str
    setting: str
    test_domain: str
    seed: int
    pictures: int
    epochs: int
    steps: int
    batch_size: int


def rehearse(
    specification: Specification,
    *,
    jobs: int = 2,
    measuring: bool = True,
    blocks: Sequence[int] | None = None,
) -> list[RehearsedRun]:
    """The runs that a study would train, each once.

    Args:
        specification: The study.
        jobs: Processes that read pictures' headers.
        measuring: Whether more than accuracy is measured, which may need more classes.
        blocks: Those of the study's blocks that are asked for, by number; None takes all.

    Returns:
        The runs in their order.

    Raises:
        InterpError: Whatever the study would raise before it trains: pictures, columns, classes or
            domains that are not there, cells too small for a mixture, fewer pictures than a batch,
            fewer classes than a measure needs.
    """
    numbers = block_numbers(specification, blocks)
    opened = open_blocks(specification, jobs, rendered=False, numbers=numbers)
    if measuring:
        check_measurable(specification, opened)
    with TemporaryDirectory() as scratch:
        grid = Grid(specification)
        cells = grid.plan(Path(scratch), jobs=jobs, blocks=opened, written=False)
        first = {cell.run.name: cell for cell in reversed(cells)}
        return [_rehearsed(first[run.name]) for run in distinct(cells)]


def _rehearsed(cell: GridRun) -> RehearsedRun:
    run = cell.run
    return RehearsedRun(
        cell.training.name,
        cell.setting,
        cell.mixture.test_domain,
        cell.block.seed,
        run.pictures,
        run.epochs,
        run.epochs * run.recipe.batches(run.pictures),
        run.recipe.batch_size,
    )


def in_words(runs: Sequence[RehearsedRun]) -> str:
    """A line per architecture and setting: pictures, epochs and steps, as ranges over the rest.

    >>> from dataclasses import replace
    >>> run = RehearsedRun("vit-small", "cg-low", "sketch", 0, 4000, 8, 248, 128)
    >>> print(in_words([run, replace(run, seed=1, pictures=4100, steps=256)]))
    vit-small, cg-low: 4,000 to 4,100 pictures, 8 epochs, 248 to 256 steps of 128
    """
    groups: dict[tuple[str, str], list[RehearsedRun]] = {}
    for run in runs:
        groups.setdefault((run.architecture, run.setting), []).append(run)
    return "\n".join(
        f"{architecture}, {setting}: {_span([run.pictures for run in own])} pictures, "
        f"{_span([run.epochs for run in own])} epochs, {_span([run.steps for run in own])} steps "
        f"of {own[0].batch_size}"
        for (architecture, setting), own in groups.items()
    )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
