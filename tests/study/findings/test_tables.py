"""What is kept is made from all finished runs, and comes out again."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.study.machines.opened_runs import open_runs
from interp.verdicts.levels.across_checkpoints import from_tables
from tests.benchmarks.findings import tables as findings_tables
from tests.benchmarks.findings.tables import (
    LARGE,
    STUDIES,
    finished_blocks,
    halves,
    is_kept,
    keep,
    kept,
    read,
    read_from,
    tables,
)
from tests.benchmarks.findings.transformers import of_vits
from tests.benchmarks.findings.writing import spoken
from tests.study.findings.kept import FINISHED, TRAINED, claims, kept_tables


@pytest.mark.parametrize("name", FINISHED)
def test_kept_tables_are_of_all_finished_blocks(name: str) -> None:
    assert is_kept(name)


@pytest.mark.parametrize("name", TRAINED)
def test_answers_are_those_of_the_runs(name: str) -> None:
    """Read from every run's own file, past the study: the same accuracy of the same classes."""
    made = tables(name)
    failed = set(made["failed"].itertuples(index=False, name=None))
    answers = made["answers"].query("candidates == 'all'")
    answers = answers.set_index(["setting", "test_domain", "seed", "label"])["value"]
    found = {}
    for folder in (LARGE / STUDIES[name]).glob("*/"):
        facts = pd.read_json(folder / "run.json", typ="series")
        if facts["seed"] >= finished_blocks(name) or "supervised" in facts["architecture"]:
            continue
        place = (facts["setting"], facts["test_domain"], facts["seed"])
        if place in failed:
            continue
        last = max(folder.glob("epoch-*"), key=lambda path: int(path.name.split("-")[1]))
        frame = pd.read_csv(last / "accuracy_by_class.csv.gz")
        rows = frame.query("candidates == 'all' and prompts == 'neutral' and classifier == 'text'")
        rows = rows[(rows["class_set"] == "held-out") & (rows["domain"] == facts["test_domain"])]
        found |= {(*place, row["label"]): row["value"] for _, row in rows.iterrows()}
    assert len(found) == len(answers) > 0
    for place, value in found.items():
        assert answers[place] == pytest.approx(value, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name == "weak" else ())
        for name in TRAINED
        if name != "vit"
    ],
)
def test_what_runs_share_is_read_from_their_own_tables_again(name: str) -> None:
    """Past the study: the tables of all runs at once, and what the verdict is made of."""
    runs = open_runs(LARGE / STUDIES[name], architecture="resnet-small")
    found = from_tables({each: table.frame for each, table in runs.items()})[0]
    kept_runs = tables(name)["runs"]
    keys = ["setting", "test_domain", "seed", "rung", "measure"]
    both = kept_runs.merge(found, on=keys, suffixes=("_kept", ""))
    assert len(both) == len(kept_runs) > 0
    for column in ("index", "accuracy", "accuracy_seen", "half_1"):
        np.testing.assert_allclose(both[f"{column}_kept"], both[column], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif("cause" not in FINISHED, reason="no block is finished")
@pytest.mark.parametrize("part", ["whole", pytest.param("halves", marks=pytest.mark.long)])
def test_what_is_kept_is_read_from_the_runs_again(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intervention, from the tables of its runs: no picture is rendered, nothing is trained."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = tables("cause")
    compared = {"halves": before.pop("halves")}
    made = kept(read("cause")) if part == "whole" else {"halves": halves("cause")}
    assert not (tmp_path / "cache").exists() and not list(tmp_path.rglob("*.pt"))
    expected = before if part == "whole" else compared
    assert set(made) == set(expected)
    for name, frame in expected.items():
        found = made[name].reset_index(drop=True)
        numbers = frame.select_dtypes("number").columns
        assert len(found) == len(frame) > 0
        np.testing.assert_allclose(
            found[numbers].to_numpy(float), frame[numbers].to_numpy(float), rtol=1e-4, atol=1e-4
        )


def test_a_block_counts_when_all_of_its_runs_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight runs of a ViT's block; runs on labels in the same folder are another study's."""
    monkeypatch.setattr(findings_tables, "LARGE", tmp_path)
    (tmp_path / "vit.toml").write_text((LARGE / "vit.toml").read_text())
    for place in range(11):
        run = tmp_path / "vit" / f"run-{place}"
        run.mkdir(parents=True)
        kind = "vit-small" if place < 10 else "vit-small, supervised"
        about = {"seed": 0 if place < 7 or place == 10 else 1, "architecture": kind}
        (run / "run.json").write_text(json.dumps(about))
    assert finished_blocks("vit") == 0 and "run-" not in read_from("vit")
    with pytest.raises(ValueError, match="no block of vit"):
        read("vit")
    late = tmp_path / "vit" / "run-7" / "run.json"
    late.write_text(json.dumps({"seed": 0, "architecture": "vit-small"}))
    assert finished_blocks("vit") == 1 and read_from("vit").count("run-") == 8


def test_what_is_kept_no_longer_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_tables, "KEPT", tmp_path)
    frame = pd.DataFrame({"value": [1 / 3]})
    keep("weak", {"answers": frame, "epochs": frame})
    keep("weak", {"answers": frame})
    assert {path.name for path in (tmp_path / "weak").iterdir()} == {"answers.csv", "read_from.txt"}
    assert tables("weak")["answers"]["value"].tolist() == [0.33333] and is_kept("weak")


@pytest.mark.parametrize("name", ["weak", "strong", "vit"])
def test_nothing_is_judged_for_a_model_that_did_not_learn(name: str) -> None:
    """The same models as by the loss, which stays at that of guessing among a batch's 128."""
    stuck = set()
    for path in (findings_tables.LARGE / name).glob("*/losses.csv"):
        about = json.loads((path.parent / "run.json").read_text())
        if about["architecture"].endswith("-labels") or about["seed"] >= finished_blocks(name):
            continue
        if pd.read_csv(path)["loss"].iloc[-1] > math.log(128) - 0.1:
            stuck.add((about["setting"], about["seed"]))
    made = tables(name)
    failed = set(made["failed"][["setting", "seed"]].itertuples(index=False, name=None))
    assert failed == stuck and (len(failed) > 0) == (name == "vit")
    for table in ("answers", "runs"):
        judged = made[table][["setting", "seed"]].itertuples(index=False, name=None)
        assert not stuck & set(judged)
    if stuck:
        [(setting, block)] = stuck
        said = of_vits({name: claims(name)}, kept_tables())
        assert said.endswith(f"left out: {spoken(setting)} of block {block}.")
        assert (
            f", {finished_blocks(name) - 1} blocks;" in said.split("claim 2")[0]
        )  # leave-out-domain − natural only
