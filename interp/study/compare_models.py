"""Models compared with one another: with that of one mixture of a study, or of two results.

Two models are compared in the same block and test domain: how alike their layers are, and whether
one goes on from a layer of the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import DataError, SpecificationError
from interp.core.images import ImageTable
from interp.core.parallel import which_device
from interp.core.progress import track
from interp.core.storage.store import complete, fingerprint
from interp.core.tables import Table, stacked
from interp.data.mixtures.templates import prompts
from interp.study.blocks import open_blocks
from interp.study.checkpoint import (
    Tabulated,
    checkpoint_hash,
    exact_convolutions,
    tables_side_by_side,
)
from interp.study.grid import PLACE, Cell
from interp.study.results import Facts, Result, open_result, versions
from interp.study.specification import Specification

TABLES = ("stitching", "model_similarity")
UNTRAINED = "epoch_0.pt"
FROM, INTO = "from the reference", "into the reference"
A_INTO_B, B_INTO_A = "B, from A", "A, from B"


@dataclass(frozen=True)
class MixturePair(Tabulated):
    """A model, that of the reference mixture, and other seeds of both.

    Args:
        cell: The model's run.
        reference: The reference's.
        twins: Runs of the same two mixtures on the same pictures, which differ by their seed.
    """

    cell: Cell
    reference: Cell
    twins: tuple[tuple[Cell, ...], tuple[Cell, ...]]

    @property
    def folder(self) -> Path:
        """The pair's folder, named by both models and what they are compared on."""
        runs = [self.cell, self.reference, *self.twins[0], *self.twins[1]]
        natural = self.cell.mixture.natural
        about = [self.cell.place, self.cell.block.images.fingerprint, natural]
        models = [checkpoint_hash(run.run.final) for run in runs]
        return self.cell.run.out / f"compared-{fingerprint(models, about, versions())}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """The pair's tables, measured or read back."""
        return made_once(self.folder, self._measure)

    def _measure(self) -> dict[str, pd.DataFrame]:
        both = self.cell.run, self.reference.run
        tables = two_checkpoints(
            (both[0].final, both[1].final),
            self.cell.block.images.select(split="test"),
            (self.cell.mixture.natural, self.cell.mixture.test_domain),
            untrained=(both[0].checkpoints / UNTRAINED, both[1].checkpoints / UNTRAINED),
            twins=([run.run.final for run in self.twins[0]], [r.run.final for r in self.twins[1]]),
            seed=self.cell.block.seed,
            device=self.device,
        )
        where = {**self.cell.place, "model_b": self.reference.setting}
        return _filed(tables, {"A": FROM, "B": INTO}, where)


def _filed(
    tables: Mapping[str, pd.DataFrame], ways: Mapping[str, str], where: Mapping[str, object]
) -> dict[str, pd.DataFrame]:
    """A comparison's tables with its place beside them, and which way each stitch goes."""
    way = tables["stitching"]["model_b"].map(dict(ways))
    tables = {**tables, "stitching": tables["stitching"].assign(way=way)}
    return {name: frame.assign(**where) for name, frame in tables.items()}


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
    first, second = (model.zero_shot(asked.labels, prompts("neutral")) for model in (a, b))
    of_a, of_b = (
        Controls(opened(floor) if floor else None, [opened(twin) for twin in others])
        for floor, others in zip(untrained, twins, strict=True)
    )
    with exact_convolutions():
        found = interp.compare(
            a,
            b,
            asked,
            domains=list(domains),
            heads=(first, second),
            controls=(of_a, of_b),
            seed=seed,
        )
    return {"stitching": found.stitching.frame, "model_similarity": found.similarity.frame}


def pairs_of(cells: Sequence[Cell], setting: str) -> list[MixturePair]:
    """Every model with that of the mixture `setting` of its architecture, block and test domain."""
    ordinary = [cell for cell in cells if not cell.arm]
    found = []
    for cell in ordinary:
        here = cell.place | {"setting": setting}
        own = next(other for other in ordinary if other.place == here)
        # of another seed where there is one: runs of one seed begin with the same weights
        others = _twins(own, ordinary)
        later = [other for other in others if other.block.seed > own.block.seed]
        reference = next(iter([*later, *others, own]))
        if cell.run.name != own.run.name:
            twins = tuple(_twins(each, ordinary) for each in (cell, reference))
            found.append(MixturePair(cell, reference, (twins[0], twins[1])))
    return found


def _twins(cell: Cell, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Runs of a run's mixture, pictures and held-out classes with another seed."""

    def made_of(one: Cell) -> tuple[object, ...]:
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
    """Compare every pair, side by side, and put their tables together."""
    on_device = [replace(pair, device=device) for pair in pairs]
    return tables_side_by_side(on_device, jobs=jobs, what="compare")


def models_compared(
    a: Result | str | Path,
    b: Result | str | Path,
    *,
    steps: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Table]:
    """Compare the last models of two results that stand in the same place: similarity and stitches.

    Args:
        a: A result of a study, or its folder.
        b: Another, of the same pictures.
        steps: A folder that every finished pair is kept in, so that a run that was stopped goes on;
            None keeps nothing.
        device: Where the models run; None chooses.

    Returns:
        `stitching` and `model_similarity`, as of `interp.compare`, for every setting, test domain
        and seed of which both have a model.

    Raises:
        SpecificationError: For results that are no studies, or studies of other pictures.
        DataError: For results that have no model in the same place.
    """
    results = [open_result(each) for each in (a, b)]
    facts = [result.facts for result in results]
    asked = "compare the models of two results"
    if any(each.get("mode") != "study" for each in facts):
        given = "a result of one model"
        right = "results of studies, which know their pictures"
        raise SpecificationError(asked, given, right, "use interp.compare in Python")
    if _pictures(facts[0]) != _pictures(facts[1]):
        right = "the same pictures, which neither was trained on"
        do = "use interp.compare with pictures that are new to both"
        raise SpecificationError(asked, "results of other pictures", right, do)
    models = [_models(result) for result in results]
    places = [place for place in models[0] if place in models[1]]
    if not places:
        given = "no checkpoint in both of one setting, test domain and seed"
        right = "the folders that the studies trained in, with their steps"
        raise DataError(asked, given, right, "copy the studies' steps beside their results")
    spec = _specification(facts[0])
    numbers = sorted({place[-1] for place in places}) if spec.blocks else None
    blocks = {block.seed: block for block in open_blocks(spec, numbers=numbers)}
    parts = []
    for place in track(places, "models compared"):
        where = dict(zip(PLACE, place, strict=True))
        own = [side[place] for side in models]
        measured = partial(
            two_checkpoints,
            (own[0][max(own[0])], own[1][max(own[1])]),
            blocks[where["seed"]].images.select(split="test"),
            (spec.mixtures.natural, where["test_domain"]),
            untrained=(own[0].get(0), own[1].get(0)),
            seed=where["seed"],
            device=which_device(device),
        )
        files = [[checkpoint_hash(each[n]) for n in {0, max(each)} if n in each] for each in own]
        about = [where, spec.mixtures.natural, _pictures(facts[0]), versions()]
        name = f"compared-{fingerprint(files, about)}"
        found = made_once(Path(steps) / name, measured) if steps else measured()
        parts.append(_filed(found, {"B": A_INTO_B, "A": B_INTO_A}, {**where, "model_b": "B"}))
    frames = {name: stacked(part[name] for part in parts) for name in TABLES}
    return {name: Table.with_evidence(name, frame) for name, frame in frames.items()}


def _pictures(facts: Facts) -> tuple[object, ...]:
    """What says which pictures every model was trained on and not: blocks draw their own."""
    asked = facts["specification"]
    return facts["source_hash"], asked["images"], bool(asked["blocks"])


def _models(result: Result) -> dict[tuple[Any, ...], dict[int, Path]]:
    """Checkpoints by epoch, by place; places whose last one is there."""
    rows = pd.DataFrame(result.facts.get("checkpoints", []))
    if rows.empty:
        return {}
    found = {}
    for place, own in rows.sort_values("epoch").groupby(PLACE, sort=False):
        paths = zip(own["epoch"], own["path"], strict=True)
        here = {int(epoch): result.folder / path for epoch, path in paths}
        here = {epoch: path for epoch, path in here.items() if path.exists()}
        if int(own["epoch"].max()) in here:
            found[place] = here
    return found


def _specification(facts: Facts) -> Specification:
    """The part of a study's specification that says which pictures its models are asked about."""
    spec = facts["specification"]
    named: Any = {name: spec["mixtures"][name] for name in ("natural", "test_domains", "held_out")}
    own = {name: spec[name] for name in ("images", "seeds", "blocks")}
    return Specification(mixtures=named, **own)
