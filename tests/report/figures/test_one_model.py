"""Figures of one model's tables: every number is the table's, and n is said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.circuits import Chain, Circuit, effects, faithfulness, sweep, wire
from interp.core.errors import SpecificationError
from interp.core.tables import Table
from tests.circuits.conftest import Function, open_vit


@pytest.fixture(scope="module")
def swept() -> Table:
    tower = open_vit()
    torch.manual_seed(0)
    clean, corrupt = torch.rand(2, 6, 3, 16, 16, dtype=torch.float64)
    return effects(
        sweep(tower, clean=clean, corrupt=corrupt, metric=lambda out: out[:, 0],
              sites="blocks.*.hook_resid_pre", axes=("layer", "pos"))
    )  # fmt: skip


def test_a_map_is_the_table(swept: Table) -> None:
    figure = swept.plot(title="Where")
    heat = figure.data[0]
    value = "index" if swept.frame["index"].notna().any() else "value"
    for row in swept.frame.itertuples():
        cell = heat.z[list(heat.y).index(row.site)][list(heat.x).index(row.pos)]
        assert np.allclose(cell, getattr(row, value), equal_nan=True)
    assert figure.layout.title.text.startswith("Where<br>")
    assert "n = 6 pairs" in figure.layout.title.text


def test_a_second_axis_stands_beside_the_site_and_nothing_is_averaged(swept: Table) -> None:
    both = pd.concat(
        [swept.frame.assign(head=head, value=swept.frame["value"] + head) for head in (0, 1)]
    )
    both = both.assign(index=float("nan"))
    heat = Table("effects", both.reset_index(drop=True)).plot().data[0]
    assert len(heat.y) == 2 * swept.frame["site"].nunique()
    for row in both.itertuples():
        cell = heat.z[list(heat.y).index(f"{row.site}, head {row.head}")][row.pos]
        assert cell == pytest.approx(row.value)


def test_effects_of_several_sweeps_are_not_mixed(swept: Table) -> None:
    twice = pd.concat([swept.frame, swept.frame.assign(metric="another")], ignore_index=True)
    with pytest.raises(SpecificationError, match="2 sweeps"):
        Table("effects", twice).plot()
    with pytest.raises(SpecificationError, match="0 of them numbers"):
        Table("effects", swept.frame.assign(value=float("nan"), index=float("nan"))).plot()


def test_points_carry_their_intervals(swept: Table) -> None:
    one = Table("effects", swept.frame[swept.frame["pos"] == 0].reset_index(drop=True))
    points = one.plot().data[0]
    value = "index" if one.frame["index"].notna().any() else "value"
    high = "index_high" if value == "index" else "high"
    assert np.allclose(points.y, one.frame[value], equal_nan=True)
    ends = np.array(points.y) + np.array(points.error_y.array)
    assert np.allclose(ends, one.frame[high], equal_nan=True)


def test_faithfulness_stands_beside_random_circuits() -> None:
    tower: Any = Chain(
        [Function(torch.relu), Function(torch.tanh)], pool=Function(lambda x: x[:, 0])
    )
    torch.manual_seed(0)
    runs: dict[str, Any] = {
        "clean": torch.rand(5, 1, 3), "corrupt": -torch.rand(5, 1, 3),
        "metric": lambda out: out[:, 0],
    }  # fmt: skip
    circuits = [Circuit.of(wire(tower), edges) for edges in (
        ["input->m0"], ["input->m0", "m0->logits"], list(wire(tower).names))]  # fmt: skip
    table = faithfulness(tower, circuits, **runs)
    lines = {trace.name: trace for trace in table.plot().data}
    rows = table.frame[table.frame["measure"] == "circuit alone"]
    assert np.allclose(lines["circuit alone"].y, rows["value"])
    assert np.allclose(lines["random circuits"].y, rows["null"])
    assert set(lines) == {"circuit alone", "model without the circuit", "random circuits"}


def test_a_table_without_a_figure_says_which_have_one() -> None:
    with pytest.raises(SpecificationError, match="effects"):
        Table("something", pd.DataFrame({"value": [1.0]})).plot()
