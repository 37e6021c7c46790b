"""The models of two results: the same ones agree, others do not, and what cannot be compared."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from interp import Study
from interp.circuits import Controls, stitch
from interp.core.errors import DataError, SpecificationError
from interp.core.tables import Table
from interp.data.mixtures.templates import prompts
from interp.report.difference_page import build_difference_page
from interp.study.comparing import models_of_results
from interp.study.comparing.models_of_results import models_compared
from interp.study.comparing.row_by_row import compare_results
from interp.study.results import Result
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

    monkeypatch.setattr(models_of_results, "two_checkpoints", measured)
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
