"""A finished run comes out again where it is trained again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.core.storage.kept_tables import kept_model
from interp.study.blocks import open_block
from interp.study.grid_tables import mean_losses
from interp.study.grids import Grid, train_cells
from interp.study.machines.finished_runs import LOSSES
from interp.study.measuring import Measurement
from interp.study.specification import Specification
from tests.benchmarks.findings.tables import LARGE
from tests.benchmarks.grids import ASKED as PRIMARY


@pytest.mark.slow
def test_one_run_of_the_weak_study_comes_out_again(tmp_path: Path) -> None:
    """Natural pictures alone, block 0, trained anew: its losses, and its accuracy per domain.

    The last digits of training differ from processor to processor, so a model of its own comes out:
    with the same losses, but with other answers at few classes. Five held-out classes are too few.
    """
    spec = Specification.from_toml(LARGE / "weak.toml")
    mixtures = replace(spec.mixtures, test_domains=("sketch",), settings=("natural-only",))
    grid = Grid(replace(spec, mixtures=mixtures))
    block = open_block(grid.specification, 0, rendered=False)  # no picture that is not asked for
    (cell,) = grid.plan(tmp_path / "steps", blocks=[block])
    train_cells([cell], jobs=1, device="cpu")
    step = Measurement(
        spec, cell.model(), block.images, block.held_out, tmp_path / "steps", only=("accuracy",)
    )
    (run,) = LARGE.glob("weak/resnet-small-natural-only-sketch-0-*")
    losses = pd.read_csv(run / LOSSES)["loss"]
    # those of other blocks are more than 1 % away in some epoch
    np.testing.assert_allclose(mean_losses(cell)["loss"], losses, rtol=0.01)
    assert losses.iloc[-1] < losses.iloc[0] / 2  # it has learnt something that can be lost
    asked = f"{PRIMARY} and measure == 'balanced top-1' and class_set == 'all'"
    found = step.run()["accuracy"].query(asked).set_index("domain")["value"]
    (last,) = run.glob(f"epoch-{cell.run.epochs}-*")
    before = kept_model(last)["accuracy"].query(asked)
    assert len(before) == len(found) == 6
    for row in before.itertuples():
        assert row.low <= found[row.domain] <= row.high
    assert found["real"] > 10 * before["null"].iloc[0]
