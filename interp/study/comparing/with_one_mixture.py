"""A study's models compared with that of one of its mixtures, in the same block and test domain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.images import ImageTable
from interp.core.parallel import devices_in_turn, on_threads, side_by_side, threads_each
from interp.core.progress import say
from interp.core.storage.store import complete, fingerprint
from interp.core.tables import Table, stacked
from interp.data.mixtures.templates import prompts
from interp.study.grids import GridRun
from interp.study.machines.finished_runs import run_hash
from interp.study.measuring import checkpoint_hash, exact_convolutions
from interp.study.results import versions

TABLES = ("stitching", "model_similarity")
UNTRAINED = "epoch_0.pt"
FROM, INTO = "from the reference", "into the reference"


@dataclass(frozen=True)
class MixturePair:
    """A model, that of the reference mixture, and other seeds of both.

    Args:
        cell: The model's run.
        reference: The reference's.
        twins: Runs of the same two mixtures on the same pictures, which differ by their seed.
        natural: The natural domain.
        steps: The folder that steps are kept in.
        kept: A folder of finished runs' tables, which can be committed; None keeps them in steps.
        device: Where the models run.
    """

    cell: GridRun
    reference: GridRun
    twins: tuple[tuple[GridRun, ...], tuple[GridRun, ...]]
    natural: str
    steps: Path
    kept: Path | None = None
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """The pair's folder, named by both models and what they are compared on."""
        runs = [self.cell, self.reference, *self.twins[0], *self.twins[1]]
        about = [self.cell.place, self.cell.block.images.fingerprint, self.natural]
        if self.kept:
            return self.kept / f"compared-{fingerprint([run_hash(run) for run in runs], about)}"
        models = [checkpoint_hash(run.run.final) for run in runs]
        return self.steps / f"compared-{fingerprint(models, about, versions())}"

    @property
    def is_possible(self) -> bool:
        """Whether its tables, or all of its models, are here."""
        pair = self.cell.run, self.reference.run
        floors = [run.checkpoints / UNTRAINED for run in pair]
        twins = [twin.run.final for twin in (*self.twins[0], *self.twins[1])]
        there = all(path.exists() for path in (*(run.final for run in pair), *floors, *twins))
        return there or (self.kept is not None and self.folder.exists())

    def tables(self) -> dict[str, pd.DataFrame]:
        """The pair's tables, measured or read back."""
        return made_once(self.folder, self._measured)

    def _measured(self) -> dict[str, pd.DataFrame]:
        both = self.cell.run, self.reference.run
        found = two_checkpoints(
            (both[0].final, both[1].final),
            self.cell.block.images.select(split="test"),
            (self.natural, self.cell.mixture.test_domain),
            untrained=(both[0].checkpoints / UNTRAINED, both[1].checkpoints / UNTRAINED),
            twins=([run.run.final for run in self.twins[0]], [r.run.final for r in self.twins[1]]),
            seed=self.cell.block.seed,
            device=self.device,
        )
        way = found["stitching"]["model_b"].map({"A": FROM, "B": INTO})
        found["stitching"] = found["stitching"].assign(way=way)
        where = {**self.cell.place, "model_b": self.reference.setting}
        return {name: frame.assign(**where) for name, frame in found.items()}


def made_once(
    folder: Path, make: Callable[[], Mapping[str, pd.DataFrame]]
) -> dict[str, pd.DataFrame]:
    """The tables of a comparison from its folder, which is filled where it is not there."""
    if not folder.exists():
        with complete(folder) as temporary:
            for name, frame in make().items():
                Table.with_evidence(name, frame).save(temporary)
    return {name: Table.load(folder / f"{name}.csv").frame for name in TABLES}


def two_checkpoints(
    models: tuple[Path, Path],
    images: ImageTable,
    domains: tuple[str, str],
    *,
    untrained: tuple[Path | None, Path | None] = (None, None),
    twins: tuple[Sequence[Path], Sequence[Path]] = ((), ()),
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, pd.DataFrame]:
    """Two checkpoints compared by `interp.compare`: the tables `stitching` and `model_similarity`.

    Args:
        models: A's checkpoint and B's.
        images: Pictures that neither was trained on.
        domains: The domains to compare in.
        untrained: Both before training; None for shuffled pictures in their place.
        twins: Other seeds of A's mixture and of B's.
        seed: Seed of all draws.
        device: Where the models run.

    Returns:
        The tables by name.
    """
    import interp
    from interp.circuits import Controls
    from interp.models.loading.load_encoder import load_any

    def opened(checkpoint: Path) -> Any:
        return load_any(checkpoint, device=device)

    asked = images.select(domain=list(domains))
    a, b = (opened(path) for path in models)
    heads = [model.zero_shot(asked.labels, prompts("neutral")) for model in (a, b)]
    controls = [
        Controls(opened(floor) if floor else None, [opened(twin) for twin in others])
        for floor, others in zip(untrained, twins, strict=True)
    ]
    with exact_convolutions():
        found = interp.compare(
            a,
            b,
            asked,
            domains=list(domains),
            heads=(heads[0], heads[1]),
            controls=(controls[0], controls[1]),
            seed=seed,
        )
    return {"stitching": found.stitching.frame, "model_similarity": found.similarity.frame}


def pairs_of(
    cells: Sequence[GridRun], setting: str, *, natural: str, steps: Path, kept: Path | None
) -> list[MixturePair]:
    """Every model with that of the mixture `setting` of its architecture, block and test domain."""
    ordinary = [cell for cell in cells if not cell.arm]
    found = []
    for cell in ordinary:
        of_block = [other for other in ordinary if _place(other) == _place(cell)]
        own = next(other for other in of_block if other.mixture.name == setting)
        # of another seed where there is one: runs of one seed begin with the same weights
        others = _twins(own, ordinary)
        later = [other for other in others if other.block.seed > own.block.seed]
        reference = next(iter([*later, *others, own]))
        if cell.run.name != own.run.name:
            twins = tuple(_twins(each, ordinary) for each in (cell, reference))
            both = twins[0], twins[1]
            found.append(MixturePair(cell, reference, both, natural, steps, kept))
    return found


def _place(cell: GridRun) -> tuple[str, str, int]:
    return cell.training.name, cell.mixture.test_domain, cell.block.seed


def _twins(cell: GridRun, cells: Sequence[GridRun]) -> tuple[GridRun, ...]:
    """Runs of a run's mixture, pictures and held-out classes with another seed."""

    def made_of(one: GridRun) -> tuple[object, ...]:
        own = one.block.held_out, one.block.images.fingerprint, one.mixture.test_domain
        return (one.training.name, one.mixture.name, *own)

    return tuple(
        other
        for other in cells
        if made_of(other) == made_of(cell) and other.block.seed != cell.block.seed
    )


def compare_mixtures(
    pairs: Sequence[MixturePair], *, jobs: int, device: str
) -> dict[str, pd.DataFrame]:
    """Compare every pair whose models or tables are here; others are left out, and counted."""
    here = [pair for pair in pairs if pair.is_possible]
    if len(here) < len(pairs):
        say(f"{len(pairs) - len(here)} pairs of models are not compared: their models are not here")
    if not here:
        return {}
    devices = devices_in_turn(device, len(here))
    here = [replace(pair, device=each) for pair, each in zip(here, devices, strict=True)]
    side_by_side(partial(_compare_one, threads=threads_each(jobs)), here, jobs=jobs, what="compare")
    parts = [pair.tables() for pair in here]
    return {name: stacked(part[name] for part in parts) for name in TABLES}


def _compare_one(pair: MixturePair, *, threads: int) -> None:
    """Fill a pair's folder; the tables are read back from there."""
    with on_threads(threads):
        pair.tables()
