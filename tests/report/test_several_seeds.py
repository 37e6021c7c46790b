"""A study of several seeds has one page, on which every table of words and figure stands."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from interp.declared.measures import declared_figure
from interp.report.figures.views_and_answers import answer_bars
from interp.report.page import build_page
from interp.report.sections import draw_figure
from interp.study.results import Result
from tests.report.conftest import read


@pytest.fixture(scope="module")
def twice(small_study: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study as if each model had been trained again with seed 1."""
    folder = tmp_path_factory.mktemp("twice")
    shutil.copytree(small_study.folder / "plates", folder / "plates")
    shutil.copytree(small_study.folder / "tables", folder / "tables")
    for path in (folder / "tables").glob("*.csv"):
        rows = pd.read_csv(path, dtype=object, keep_default_na=False)
        if "seed" in rows and "setting" in rows:
            pd.concat([rows, rows.assign(seed="1")]).to_csv(path, index=False)
    facts = {**small_study.facts, "seed": "0 and 1"}
    facts["specification"] = {**facts["specification"], "seeds": [0, 1]}
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def test_a_page_of_two_seeds_is_built(twice: Path) -> None:
    text = build_page(twice).read_text()
    assert "Squared cosine of class and domain" in text and ", 2 models)" in text
    assert "mixtures · seed 0 and 1" in text


def test_circuits_of_several_seeds_are_the_first_ones(twice: Path, small_study: Result) -> None:
    spec = declared_figure("circuit")
    both, one = (draw_figure(read(folder), spec) for folder in (twice, small_study.folder))
    assert both is not None and one is not None and both.data == one.data


@pytest.mark.long
def test_a_page_of_some_blocks_says_how_many(twice: Path) -> None:
    facts = json.loads((twice / "facts.json").read_text())
    facts["specification"] |= {"seeds": [0], "blocks": 8}
    (twice / "facts.json").write_text(json.dumps(facts))
    assert "mixtures · 2 of 8 blocks" in build_page(twice).read_text()
    table = twice / "tables" / "accuracy.csv"
    rows = pd.read_csv(table)
    mean = rows[rows["seed"] == 0].assign(n_runs=2)  # over blocks 3 and 4, drawn with seed 0
    pd.concat([mean, rows.assign(seed=rows["seed"] + 3)]).to_csv(table, index=False)
    assert "mixtures · 2 of 8 blocks" in build_page(twice).read_text()


def test_answers_of_several_blocks_are_their_mean() -> None:
    rows = pd.DataFrame({
        "seed": [0, 0, 0, 1, 1, 1], "answer": ["cup", "hat", "others", "cup", "key", "others"],
        "share": [0.5, 0.3, 0.2, 0.1, 0.6, 0.3],
    })  # fmt: skip
    bars = answer_bars(rows, "sketch", "red", [None])
    assert bars["y"] == ["cup", "others"]  # how often block 1 said hat, nobody knows
    assert bars["x"] == pytest.approx([0.3, 0.7])
    whole = rows.assign(share=[0.5, 0.5, 0.0, 0.1, 0.6, 0.3])  # block 0 lists all that it said
    bars = answer_bars(whole, "sketch", "red", [None])
    assert bars["y"] == ["cup", "key", "others"]
    assert bars["x"] == pytest.approx([0.3, 0.3, 0.4])
    one = answer_bars(rows[:3].drop(columns="seed"), "sketch", "red", [None])
    assert one["x"] == pytest.approx([0.5, 0.3, 0.2])
