"""An interrupted sweep goes on; another one starts anew. And tables become PatchingResults."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Classifier, Metric, Target, effects, sweep, to_patching_result
from interp.core.errors import OutputError, SpecificationError
from tests.circuits.conftest import TinyViT, difference
from tests.refusals import refuses


@pytest.fixture
def words(vit: TinyViT, vit_inputs: dict[str, Any]) -> dict[str, Any]:
    return {**vit_inputs, "metric": difference, "sites": "blocks.*.attn.hook_z"}


def test_an_interrupted_sweep_goes_on_where_it_stopped(vit, words, tmp_path) -> None:
    right = sweep(vit, **words).frame
    calls = 0

    def difference(output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 16:  # in the second block
            raise KeyboardInterrupt
        return output[:, 0] - output[:, 1]

    refuses(KeyboardInterrupt, "", sweep, vit, **{**words, "metric": difference}, resume=tmp_path)
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(first) == 1 and not any(".part" in name for name in first)
    found = sweep(vit, **{**words, "metric": difference}, resume=tmp_path).frame
    np.testing.assert_allclose(found["value"], right["value"], atol=1e-12)
    np.testing.assert_allclose(found["clean_metric"], right["clean_metric"], atol=1e-12)
    second = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(second) == 3 and first.items() <= second.items()
    vit.passed = []
    again = sweep(vit, **{**words, "metric": difference}, resume=tmp_path).frame
    assert len(vit.passed) == 3 * 3  # the probe, and the metric tried on both inputs
    assert again["value"].tolist() == found["value"].tolist()


def test_whatever_changes_the_numbers_starts_anew(vit, words, tmp_path) -> None:
    head = Classifier(torch.randn(3, 5).double(), ("ant", "bee", "cat"))
    metric = Metric("mean_margin", Target(head, [0, 1, 2, 1, 0]))
    other = Metric("mean_margin", Target(head, [1, 1, 2, 1, 0]))
    changes: list[dict[str, Any]] = [
        {},
        {"metric": metric},
        {"metric": other},
        {"direction": "noise"},
        {"axes": ("layer", "head")},
        {"sites": "blocks.*.attn.hook_q"},
        {"clean": words["clean"] + 1e-9},
        {"null": words["clean"].roll(1, dims=0)},
    ]
    for number, change in enumerate(changes, start=1):
        found = sweep(vit, **{**words, **change}, resume=tmp_path).frame
        assert len(list(tmp_path.iterdir())) == 3 * number
        np.testing.assert_allclose(found["value"], sweep(vit, **{**words, **change}).frame["value"])
    with torch.no_grad():
        vit.head.bias[0] += 1
    sweep(vit, **words, resume=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3 * len(changes) + 3
    sweep(vit, **words, resume=tmp_path, batch_size=2)  # only the last bits
    assert len(list(tmp_path.iterdir())) == 3 * len(changes) + 3


def test_a_broken_file_is_measured_again_and_a_bad_folder_refused(vit, words, tmp_path) -> None:
    right = sweep(vit, **words, resume=tmp_path).frame
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert sweep(vit, **words, resume=tmp_path).frame["value"].tolist() == right["value"].tolist()
    blocked = tmp_path / "file"
    blocked.write_text("")
    refuses(OutputError, "", sweep, vit, **words, resume=blocked)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_a_patching_result_has_the_same_numbers(vit, words, direction) -> None:
    words |= {"axes": ("layer", "pos", "head"), "direction": direction}
    table = sweep(vit, **words)
    result = to_patching_result(table)
    assert result.values.shape == (3, 4, 2, 5) and result.axis_names == ["layer", "pos", "head"]
    means = effects(table).frame["value"].to_numpy()
    np.testing.assert_allclose(result.effect().mean(dim=-1).flatten(), means, atol=1e-12)
    clean = torch.tensor(table.frame["clean_metric"].to_numpy()[:5])
    corrupt = torch.tensor(table.frame["corrupt_metric"].to_numpy()[:5])
    donor = clean if direction == "denoise" else corrupt
    assert torch.isfinite(result.normalized(donor)).all()
    long = result.to_dataframe()
    np.testing.assert_allclose(long["value"], table.frame["value"])
    assert long["head"].tolist() == table.frame["head"].tolist()


def test_cells_that_are_no_grid_stand_in_one_row(vit: TinyViT, words: dict[str, Any]) -> None:
    both = ["blocks.*.attn.hook_z", "blocks.0.attn.hook_q"]
    result = to_patching_result(sweep(vit, **{**words, "sites": both}))
    assert result.axis_names == [] and result.values.shape == (16, 5)
    assert result.index_df["site"].nunique() == 4
    refuses(SpecificationError, "made by sweep", to_patching_result, effects(sweep(vit, **words)))
