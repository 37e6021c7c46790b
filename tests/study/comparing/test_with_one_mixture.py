"""A study's models beside those of one mixture: tables, twins, and models that are elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import interp
from interp.core.errors import SpecificationError
from interp.core.tables import Table
from interp.data.mixtures.templates import prompts
from interp.study.comparing import with_one_mixture
from interp.study.comparing.with_one_mixture import compare_mixtures, pairs_of
from interp.study.grids import Grid
from interp.study.results import Result
from interp.study.specification import ComparisonSpec, Specification
from tests.conftest import SMALL


def test_a_study_compares_its_models_with_the_reference(small_study: Result) -> None:
    stitched = small_study.tables["stitching"].frame
    assert set(stitched["setting"]) == {"natural-only"} and set(stitched["model_b"]) == {"cg-high"}
    assert set(stitched["way"]) == {"into the reference", "from the reference"}
    assert {"untrained", "classes exchanged", "there and back"} <= set(stitched["measure"])
    alike = small_study.tables["model_similarity"].frame
    assert set(alike["domain_a"]) == {"real", "sketch"} and alike["value"].notna().all()


@pytest.mark.slow
def test_the_tables_are_those_of_a_call(small_study: Result) -> None:
    """The same two models, opened and compared by hand."""
    [pair] = _pairs(Path(small_study.folder) / "steps")
    models = [interp.load_clip(run.run.final) for run in (pair.cell, pair.reference)]
    floors = [
        interp.load_clip(run.run.checkpoints / "epoch_0.pt") for run in (pair.cell, pair.reference)
    ]
    images = pair.cell.block.images.select(split="test", domain=["real", "sketch"])
    heads = [model.zero_shot(images.labels, prompts("neutral")) for model in models]
    site = "layer2.0.hook_resid_post"
    by_hand = interp.circuits.stitch(
        models[0], models[1], images, sites=[site], heads=(heads[0], heads[1]),
        domains=["real", "sketch"], controls=interp.circuits.Controls(floors[0]),
    ).frame  # fmt: skip
    kept = small_study.tables["stitching"].frame
    kept = kept[(kept["way"] == "into the reference") & (kept["site"] == site)]
    key = ["domain", "measure", "label"]
    pd.testing.assert_series_equal(
        kept.fillna({"label": ""}).set_index(key)["value"].sort_index(),
        by_hand.set_index(key)["value"].sort_index(),
        rtol=1e-6,
    )


def _pairs(steps: Path, kept: Path | None = None, spec: Specification = SMALL) -> Any:
    cells = Grid(spec).plan(steps)
    return pairs_of(cells, "cg-high", natural="real", steps=steps, kept=kept)


@pytest.mark.slow
def test_seeds_of_one_mixture_are_twins_and_blocks_are_not(tmp_path: Path) -> None:
    pairs = _pairs(tmp_path, spec=replace(SMALL, seeds=(0, 1, 2)))
    assert len(pairs) == 3
    for pair in pairs:
        # runs of one seed begin with the same weights: the reference is of another
        assert pair.cell.block.seed != pair.reference.block.seed
        for own, twins in zip((pair.cell, pair.reference), pair.twins, strict=True):
            assert {twin.block.seed for twin in twins} == {0, 1, 2} - {own.block.seed}
            assert {twin.setting for twin in twins} == {own.setting}
    held_out = replace(SMALL.mixtures, held_out=2)
    blocks = _pairs(tmp_path, spec=replace(SMALL, mixtures=held_out, blocks=2))
    assert len(blocks) == 2 and all(pair.twins == ((), ()) for pair in blocks)


def test_models_that_are_elsewhere_are_left_out_unless_their_tables_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(with_one_mixture, "say", said.append)
    [pair] = _pairs(tmp_path / "steps", kept=tmp_path / "kept")
    assert compare_mixtures([pair], jobs=1, device="cpu") == {}
    assert said == ["1 pairs of models are not compared: their models are not here"]
    frame = pd.DataFrame({"setting": ["natural-only"], "value": [0.5]})
    pair.folder.mkdir(parents=True)
    for name in with_one_mixture.TABLES:
        Table(name, frame).save(pair.folder)
    assert compare_mixtures([pair], jobs=1, device="cpu")["stitching"]["value"].tolist() == [0.5]
    moved = _pairs(tmp_path / "elsewhere", kept=tmp_path / "kept")[0]
    assert moved.folder == pair.folder  # no path of a machine is in its name


def test_a_setting_that_the_study_lacks_is_refused() -> None:
    with pytest.raises(SpecificationError, match="leave-out-domain"):
        replace(SMALL, comparison=ComparisonSpec(setting="leave-out-domain"))
