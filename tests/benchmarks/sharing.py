"""What the models of the committed grid share, and whether mixtures that share more do better."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.sites import BAND, LAST
from tests.benchmarks.grids import ASKED, HERE

MEASURES = ("debiased CKA", "cosine of mean differences")
BY_CLASS = [
    "setting", "test_domain", "seed", "label", "class_set", "measure", "value", "null", "ceiling",
    "beyond", "half_1", "half_2", "n_pictures", "n_drawings", "reason",
]  # fmt: skip
KEPT = [
    "setting", "test_domain", "seed", "control", "measure", "site", "depth", "value", "low", "high",
    "null", "ceiling", "index", "index_low", "index_high", "p", "verdict", "n_units", "n_pictures",
    "reason",
]  # fmt: skip


def sharing() -> None:
    """Geometry (R2) and directions (R3) of every model of the ResNet grid, by layer and by class.

    Needs the grid that `grids` makes. Takes six seconds a model, and two for its classes.
    """
    made = Path("interp-report") / "benchmarks" / "grid-resnet"
    steps = measurements(made)
    table = measured(steps)
    by_class(steps).to_csv(HERE / "resnet" / "class_sharing.csv", index=False)
    table.round(4).to_csv(HERE / "resnet" / "sharing.csv", index=False)
    for line in together(table, pd.read_csv(HERE / "resnet" / "accuracy.csv")):
        print(line)


def measurements(made: Path) -> list[Any]:
    """What can be measured on each trained model, and on the untrained ones."""
    from interp.study.grids import Grid, check_trained, models_of
    from interp.study.measuring import Measurement
    from interp.study.specification import Specification

    spec = Specification.from_toml(HERE / "resnet.toml")
    cells = Grid(spec).plan(made / "steps")
    check_trained(cells)
    blocks = {cell.block.seed: cell.block for cell in cells}
    return [
        Measurement(spec, model, block.images, block.held_out, made / "steps")
        for model in models_of(cells)
        for block in [blocks[model.seed]]
    ]


def measured(steps: Sequence[Any]) -> pd.DataFrame:
    """Rows of both measures at every site."""
    from interp.core.parallel import side_by_side

    return pd.concat(side_by_side(_shared, steps, jobs=2, what="share"), ignore_index=True)


def _shared(step: Any) -> pd.DataFrame:
    """One model's geometry and directions between its natural and its test domain."""
    import torch

    from interp.probes import directions, similarity

    torch.set_num_threads(1)
    options = {"domains": list(step.pair), "seed": step.model.seed}
    options |= {"control": step.model.control}
    rows = pd.concat(
        [measure(step.features, **options).frame for measure in (similarity, directions)]
    )
    place = {"setting": step.model.setting, "test_domain": step.model.test_domain}
    rows = rows.assign(seed=step.model.seed, **place)
    return rows.loc[rows["measure"].isin(MEASURES), KEPT]


def by_class(steps: Sequence[Any]) -> pd.DataFrame:
    """Sharing of every class in the middle layers of the trained models."""
    from interp.core.parallel import side_by_side

    trained = [step for step in steps if not step.model.control]
    table = pd.concat(side_by_side(_by_class, trained, jobs=2, what="classes"), ignore_index=True)
    return table[BY_CLASS].round(4)


def _by_class(step: Any) -> pd.DataFrame:
    import torch

    from interp.measures.catalogue.layer_contents import class_sharing_tables

    torch.set_num_threads(1)
    return class_sharing_tables(step.opened)["class_sharing"]


def together(table: pd.DataFrame, accuracy: pd.DataFrame) -> list[str]:
    """Does accuracy on held-out classes go with sharing in the middle layers, across mixtures?"""
    from interp.core.statistics.association import joint_spearman

    asked = accuracy.query(f"{ASKED} and class_set == 'held-out' and measure == 'balanced top-1'")
    asked = asked[(asked["domain"] == asked["test_domain"]) & (asked["n_runs"] == 1)]
    reached = asked.pivot_table(index="setting", columns="test_domain", values="value")
    middle = table[table["depth"].between(*BAND) & (table["site"] != LAST)]
    lines = []
    for measure, rows in middle[middle["control"] == ""].groupby("measure"):
        index = rows.pivot_table(index="setting", columns="test_domain", values="index")
        common = index.index.intersection(reached.index)
        found = joint_spearman(reached.loc[common], index.loc[common, reached.columns])
        lines.append(
            f"sharing: {measure}: Spearman {found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
            f", p = {found.p:.3f} over {found.n} mixtures x {reached.shape[1]} domains (cell means "
            f"of blocks, centred by domain, mixtures permuted jointly) {found.reason}".rstrip()
        )
    return lines
