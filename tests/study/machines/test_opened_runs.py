"""Finished runs opened as tables: every row of every file, and a verdict from them."""

import json
from pathlib import Path

import pandas as pd
import pytest

import interp
from interp.core.errors import DataError, SpecificationError
from interp.core.storage.kept_tables import keep_model
from interp.verdicts.levels.across_checkpoints import from_tables, verdict

LARGE = Path(__file__).parents[2] / "benchmarks" / "large"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of three epochs, one of them with the untrained model beside it."""
    for seed in (0, 1):
        run = tmp_path / f"run-{seed}"
        for epoch in (0, 2, 5) if seed == 0 else (2, 5):
            control = "" if epoch else "epoch 0"
            rows = {"setting": "cg-high", "seed": seed, "epoch": epoch, "control": control}
            frames = {"accuracy": pd.DataFrame([{**rows, "value": seed + epoch / 10}])}
            if epoch == 5 and seed:
                frames["views"] = pd.DataFrame([{**rows, "x": 1.0}])
            keep_model(run / f"epoch-{epoch}-abc{epoch}", frames, [])
        about = {"epochs": 5, "seed": seed, "architecture": f"tower {seed}"}
        (run / "run.json").write_text(json.dumps(about))
    (tmp_path / "run-2" / "epoch-5-abc").mkdir(parents=True)  # not finished: no run.json
    return tmp_path


def test_all_runs_stand_under_one_another(folder: Path) -> None:
    last = interp.open_runs(folder)
    assert set(last) == {"accuracy", "views"} and last["accuracy"].facts["n_runs"] == 2
    assert last["accuracy"].frame["value"].tolist() == [0.0, 0.5, 1.5]
    assert last["accuracy"].frame["control"].tolist() == ["epoch 0", "", ""]
    every = interp.open_runs(folder, ["accuracy"], epochs="all")
    assert list(every) == ["accuracy"]
    assert every["accuracy"].frame["value"].tolist() == [0.0, 0.2, 0.5, 1.2, 1.5]
    other = interp.open_runs(folder, ["accuracy"], architecture="tower 1")
    assert other["accuracy"].frame["value"].tolist() == [1.5]


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="where none is"):
        interp.open_runs(tmp_path / "run-0")
    with pytest.raises(SpecificationError, match="Did you mean accuracy"):
        interp.open_runs(folder, ["acuracy"])
    with pytest.raises(SpecificationError, match="tower 2"):
        interp.open_runs(folder, architecture="tower 2")
    with pytest.raises(SpecificationError, match="first"):
        interp.open_runs(folder, epochs="first")


@pytest.mark.slow
def test_the_verdict_takes_them_as_they_are() -> None:
    """From the committed runs of the weak study: as from a study's own frames."""
    names = ["accuracy", "accuracy_by_class", "class_sharing", "directions", "similarity"]
    runs = interp.open_runs(LARGE / "weak", names)
    found = interp.verdict(runs, n_permutations=99).table.frame
    frames = {name: table.frame for name, table in runs.items()}
    pd.testing.assert_frame_equal(
        found, verdict(*from_tables(frames), n_permutations=99).table.frame
    )
    assert set(found["level"]) == {"L1", "L2", "L3"}
    of_a_run = ["setting", "test_domain", "seed"]
    whole = runs["accuracy"].frame[of_a_run].drop_duplicates().groupby("seed").size()
    assert whole.index[whole == whole.max()].tolist() == list(range(8))


def test_a_results_tables_make_a_verdict_too() -> None:
    made = [
        {"setting": f"m{m}", "test_domain": "sketch", "seed": b, "domain": "sketch",
         "class_set": each, "candidates": "all", "prompts": "neutral", "classifier": "text",
         "measure": "balanced top-1", "value": 0.1 * m, "low": 0.0, "high": 1.0, "n_units": 40.0,
         "n_runs": 1, "control": ""}
        for m in range(9) for b in range(3) for each in ("held-out", "seen")
    ]  # fmt: skip
    shared = [
        {"setting": f"m{m}", "test_domain": "sketch", "seed": b, "domain_a": "real",
         "domain_b": "sketch", "measure": "debiased CKA", "site": "x", "depth": 0.5,
         "index": 0.1 * m,
         "index_low": 0.0, "index_high": 1.0, "verdict": "cannot tell", "reason": "", "n_units": 40,
         "control": ""}
        for m in range(9) for b in range(3)
    ]  # fmt: skip
    tables = {"accuracy": pd.DataFrame(made), "similarity": pd.DataFrame(shared)}
    rows = interp.verdict(
        {name: interp.Table(name, frame) for name, frame in tables.items()}, n_permutations=99
    ).table.frame
    link = rows[(rows["level"] == "L1") & (rows["adjusted"] == "")]
    assert link["value"].tolist() == [1.0]


def test_a_verdict_of_tables_leaves_arms_out_and_refuses_several_architectures() -> None:
    one = {"setting": "m", "test_domain": "sketch", "seed": 0, "arm": "", "architecture": "a"}
    arm = {**one, "setting": "m, aligned 1", "arm": "aligned 1"}
    asked = {"domain": "sketch", "class_set": "held-out", "candidates": "all", "prompts": "neutral",
             "classifier": "text", "measure": "balanced top-1", "value": 0.5, "low": 0.4,
             "high": 0.6, "control": "", "n_units": 40.0, "n_runs": 1}  # fmt: skip
    shared = {"domain_a": "photo", "domain_b": "sketch", "measure": "debiased CKA", "site": "x",
              "depth": 0.5, "index": 0.5, "index_low": 0.0, "index_high": 1.0, "control": "",
              "verdict": "cannot tell", "reason": "", "n_units": 40}  # fmt: skip
    both = [pd.DataFrame([{**run, **each} for run in (one, arm)]) for each in (asked, shared)]
    tables = {
        name: interp.Table(name, frame)
        for name, frame in zip(("accuracy", "similarity"), both, strict=True)
    }
    found = interp.verdict(tables, n_permutations=9, natural="photo")
    assert found.together.frame["setting"].tolist() == ["m"]
    assert interp.verdict(tables, n_permutations=9).together.frame.empty  # no "real" is there
    frame = tables["accuracy"].frame.assign(architecture=["a", "b"], arm="")
    with pytest.raises(SpecificationError, match=r"tables of a and b, .* one architecture"):
        interp.verdict({**tables, "accuracy": interp.Table("accuracy", frame)})
