"""Models of two results, and of a study beside those of one mixture: tables, twins, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from interp import Study, load_clip
from interp.circuits import Controls, stitch
from interp.core.errors import DataError, SpecificationError
from interp.core.tables import Table
from interp.data.mixtures.templates import prompts
from interp.report.difference_page import build_difference_page
from interp.study import compare_models
from interp.study.compare_models import MixturePair, models_compared, pairs_of
from interp.study.compare_results import compare_results
from interp.study.grid import Grid
from interp.study.results import Result
from interp.study.specification import ComparisonSpec, Specification
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def natural(small_study: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study with its model of natural pictures alone in both places."""
    folder = tmp_path_factory.mktemp("natural")
    for part in ("tables", "plates"):
        shutil.copytree(small_study.folder / part, folder / part)
    facts = json.loads((small_study.folder / "facts.json").read_text())
    path = {
        row["epoch"] == 0: row["path"]
        for row in facts["checkpoints"]
        if row["setting"] == "natural-only"
    }
    for row in facts["checkpoints"]:
        row["path"] = str(small_study.folder / path[row["epoch"] == 0])
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_models_of_one_place_are_compared(
    small_study: Result, natural: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = models_compared(small_study, natural, steps=tmp_path / "steps")
    stitched = found["stitching"].frame.query("measure == 'stitched' and label == ''")
    assert set(stitched["way"]) == {"B, from A", "A, from B"}
    assert set(stitched["setting"]) == {"natural-only", "cg-high"}
    same = stitched[stitched["setting"] == "natural-only"]
    assert (same["value"] - same["ceiling"]).abs().max() < 0.1
    # A's cg-high model stands beside that of natural pictures alone: a row of each way by hand
    names = ("cg-high", "natural-only")
    a, b = (small_study.load_clip(name) for name in names)
    floors = [small_study.load_clip(name, epoch=0) for name in names]
    images = Study(SMALL).images.select(split="test", domain=["real", "sketch"])
    heads = [model.zero_shot(images.labels, prompts("neutral")) for model in (a, b)]
    site = "layer2.0.hook_resid_post"
    key = ["setting", "way", "site", "domain"]
    changed = stitched.set_index(key)[["value", "null", "ceiling"]]
    for way, ends in (("B, from A", (0, 1)), ("A, from B", (1, 0))):
        first, second = ((a, b)[end] for end in ends)
        by_hand = stitch(
            first, second, images, sites=[site], heads=(heads[ends[0]], heads[ends[1]]),
            domains=["real", "sketch"], controls=Controls(floors[ends[0]]),
        ).frame.query("measure == 'stitched' and label == ''")  # fmt: skip
        for _, row in by_hand.iterrows():
            told = changed.loc[("cg-high", way, site, row["domain"])]
            for name in ("value", "null", "ceiling"):
                assert told[name] == pytest.approx(row[name], rel=1e-6)

    # finished pairs are taken from where they were kept, and say which pair they are of
    def measured(*_: object, **__: object) -> None:
        raise RuntimeError("measured anew")

    monkeypatch.setattr(compare_models, "two_checkpoints", measured)
    again = models_compared(small_study, natural, steps=tmp_path / "steps")
    for name, table in found.items():
        pd.testing.assert_frame_equal(again[name].frame, table.frame)
    with pytest.raises(RuntimeError, match="measured anew"):
        models_compared(natural, small_study, steps=tmp_path / "steps")
    rows = compare_results(small_study, natural).table
    page = build_difference_page(
        small_study.folder, natural, rows, models=found, out=tmp_path / "page.html"
    )
    text = page.read_text()
    assert "The models themselves" in text and "results-stitch-controls" in text
    without = build_difference_page(
        small_study.folder, natural, rows, out=tmp_path / "without.html"
    )
    assert "The models themselves" not in without.read_text()


def test_what_cannot_be_compared_is_said(small_study: Result, tmp_path: Path) -> None:
    def with_facts(name: str, **changes: object) -> Path:
        folder = tmp_path / name
        (folder / "tables").mkdir(parents=True)
        Table.load(small_study.folder / "tables" / "mixtures.csv").save(folder / "tables")
        facts = {**small_study.facts, **changes}
        (folder / "facts.json").write_text(json.dumps(facts))
        return folder

    with pytest.raises(SpecificationError, match="one model"):
        models_compared(small_study, with_facts("alone", mode="model"))
    with pytest.raises(SpecificationError, match="other pictures"):
        models_compared(small_study, with_facts("moved", source_hash="another"))
    told = small_study.facts["specification"]
    for name, changes in (("drawn anew", {"blocks": 3}), ("larger", {"images": {"size": 64}})):
        with pytest.raises(SpecificationError, match="other pictures"):
            models_compared(small_study, with_facts(name, specification={**told, **changes}))
    with pytest.raises(DataError, match="no checkpoint in both"):
        models_compared(small_study, with_facts("tables alone"))


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
    models = [load_clip(run.run.final) for run in (pair.cell, pair.reference)]
    floors = [load_clip(run.run.checkpoints / "epoch_0.pt") for run in (pair.cell, pair.reference)]
    images = pair.cell.block.images.select(split="test", domain=["real", "sketch"])
    heads = [model.zero_shot(images.labels, prompts("neutral")) for model in models]
    site = "layer2.0.hook_resid_post"
    by_hand = stitch(
        models[0], models[1], images, sites=[site], heads=(heads[0], heads[1]),
        domains=["real", "sketch"], controls=Controls(floors[0]),
    ).frame  # fmt: skip
    kept = small_study.tables["stitching"].frame
    kept = kept[(kept["way"] == "into the reference") & (kept["site"] == site)]
    key = ["domain", "measure", "label"]
    pd.testing.assert_series_equal(
        kept.fillna({"label": ""}).set_index(key)["value"].sort_index(),
        by_hand.set_index(key)["value"].sort_index(),
        rtol=1e-6,
    )


def _pairs(steps: Path, spec: Specification = SMALL) -> list[MixturePair]:
    return pairs_of(Grid(spec).plan(steps), "cg-high")


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


def test_a_setting_that_the_study_lacks_is_refused() -> None:
    with pytest.raises(SpecificationError, match="leave-out-domain"):
        replace(SMALL, comparison=ComparisonSpec(setting="leave-out-domain"))
