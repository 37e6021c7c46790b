"""A study's models compared with that of one of its mixtures, in the same block and test domain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

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
        """Whether its tables, or both models, are here."""
        models = self.cell.run.final, self.reference.run.final
        there = all(model.exists() for model in models)
        return there or (self.kept is not None and self.folder.exists())

    def tables(self) -> dict[str, pd.DataFrame]:
        """The pair's tables, measured or read back."""
        if not self.folder.exists():
            with complete(self.folder) as temporary, exact_convolutions():
                for name, frame in self._measured().items():
                    Table.with_evidence(name, frame).save(temporary)
        return {name: Table.load(self.folder / f"{name}.csv").frame for name in TABLES}

    def _measured(self) -> dict[str, pd.DataFrame]:
        import interp
        from interp.circuits import Controls

        domains = [self.natural, self.cell.mixture.test_domain]
        images = self.cell.block.images.select(split="test", domain=domains)
        models = [self._opened(run.run.final) for run in (self.cell, self.reference)]
        heads = [model.zero_shot(images.labels, prompts("neutral")) for model in models]
        controls = [
            Controls(
                self._opened(run.run.checkpoints / "epoch_0.pt"),
                [self._opened(twin.run.final) for twin in twins],
            )
            for run, twins in zip((self.cell, self.reference), self.twins, strict=True)
        ]
        found = interp.compare(
            models[0], models[1], images, domains=domains, heads=(heads[0], heads[1]),
            controls=(controls[0], controls[1]), seed=self.cell.block.seed,
        )  # fmt: skip
        way = found.stitching.frame["model_b"].map({"A": FROM, "B": INTO})
        stitched = found.stitching.frame.assign(way=way, model_b=self.reference.setting)
        alike = found.similarity.frame.assign(model_b=self.reference.setting)
        return {"stitching": self._filed(stitched), "model_similarity": self._filed(alike)}

    def _filed(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**self.cell.place)

    def _opened(self, checkpoint: Path) -> Any:
        from interp.models.loading.encoders import load_any

        return load_any(checkpoint, device=self.device)


def pairs_of(
    cells: Sequence[GridRun], setting: str, *, natural: str, steps: Path, kept: Path | None
) -> list[MixturePair]:
    """Every model with that of the mixture `setting` of its architecture, block and test domain."""
    ordinary = [cell for cell in cells if not cell.arm]
    found = []
    for cell in ordinary:
        of_block = [other for other in ordinary if _place(other) == _place(cell)]
        reference = next(other for other in of_block if other.mixture.name == setting)
        if cell.run.name != reference.run.name:
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
