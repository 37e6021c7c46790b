"""Tables of finished runs: what a run is called, and a study that goes on from them."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.core.errors import SpecificationError
from interp.core.illustrations import Plate
from interp.core.seeds import rng
from interp.core.storage.kept_tables import keep_model, kept_model, kept_plates
from interp.data.artwork import embedded
from interp.measures.options import AnalysisSpec
from interp.study.blocks import block_numbers
from interp.study.grids import Grid
from interp.study.machines import finished_runs
from interp.study.machines.finished_runs import FinishedRuns
from interp.study.results import Result
from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec
from interp.study.studies import Study
from tests.study.test_grids import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trains_here")]

ONE = replace(TINY, mixtures=replace(TINY.mixtures, test_domains=("sketch",)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("finished")
    tables = folder / "tables"
    return Study(ONE).grid(folder / "out", jobs=1, command="a test", tables=tables), tables


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_study_goes_on_from_committed_tables_on_another_machine(
    made: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another cache, another folder, no checkpoint: nothing is trained, the tables are equal."""
    first, tables = made
    before = written(tables)
    shutil.copytree(tables, tmp_path / "committed")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "another cache"))
    again = Study(ONE).grid(
        tmp_path / "out", jobs=1, command="a test", tables=tmp_path / "committed"
    )
    assert not list((tmp_path / "out").rglob("*.pt"))
    assert not (tmp_path / "another cache").exists()  # no picture was rendered
    assert written(tmp_path / "committed") == before
    assert set(again.tables) == set(first.tables)
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(again.tables[name].frame, table.frame)
    assert again.facts["checkpoints"] == [] and first.facts["checkpoints"]


def test_runs_are_found_whatever_version_renders_their_pictures(
    made: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another renderer draws other pixels of the same drawings; finished runs stay finished."""
    _, tables = made
    shutil.copytree(tables, tmp_path / "committed")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "another cache"))
    monkeypatch.setattr(embedded, "version", lambda package: "another version")
    told: list[str] = []
    monkeypatch.setattr(finished_runs, "say", told.append)
    store, spec = FinishedRuns(tmp_path / "committed"), ONE
    runs = {path.parent: json.loads(path.read_text()) for path in tmp_path.rglob("run.json")}
    lost = next(p for p, each in runs.items() if each["seed"] == 1 and "cg-high" in p.name)
    shutil.rmtree(lost)
    steps = tmp_path / "steps"
    asked = partial(Study(spec)._taken, steps=steps, device="cpu", only=("accuracy",), epochs=True)
    cells = store.plan(Grid(spec), steps, asked, numbers=block_numbers(spec), jobs=1)
    assert {store.of(cell) for cell in cells} == set(runs)
    rendered = {cell.block.seed: cell.block.pool.root.name != "planned" for cell in cells}
    assert rendered == {0: False, 1: True}
    assert len(told) == 1 and "pictures of block 1 are rendered otherwise" in told[0]


def test_only_what_is_missing_is_trained(
    made: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, tables = made
    told: list[str] = []
    monkeypatch.setattr(finished_runs, "say", told.append)
    shutil.copytree(tables, tmp_path / "committed")
    facts = {path.parent: json.loads(path.read_text()) for path in tmp_path.rglob("run.json")}
    lost = next(p for p, each in facts.items() if each["seed"] == 1 and "cg-high" in p.name)
    shutil.rmtree(lost)
    again = Study(ONE).grid(
        tmp_path / "out", jobs=1, command="a test", tables=tmp_path / "committed"
    )
    trained = {path.parent.parent.name for path in (tmp_path / "out").rglob("epoch_*.pt")}
    assert len(trained) == 1 and "cg-high" in trained.pop()
    n = len(facts)
    assert f"{n - 1} of {n} runs are finished" in told[0]
    assert told[0].endswith("that were timed there the others take under a minute")
    found = json.loads((lost / "run.json").read_text())
    assert 0 < found.pop("minutes") < 5 and 0 < facts[lost].pop("minutes") < 5
    assert found == facts[lost]
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(again.tables[name].frame, table.frame)


@pytest.mark.parametrize(
    ("timed", "told"),
    [
        ({}, "by forecast the others take about 14 minutes"),
        ({0: 4.0, 2: 3.0, 3: 90.0}, "pace of the 3 that were timed there the others take about 8"),
    ],
)
def test_what_is_left_goes_by_the_runs_that_were_timed(
    timed: dict[int, float],
    told: str,
    made: tuple[Result, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs of seven minutes wait by forecast; of those timed the one in the middle took 4."""
    said: list[str] = []
    monkeypatch.setattr(finished_runs, "say", said.append)
    monkeypatch.setattr(finished_runs, "train", lambda *_, **__: None)
    monkeypatch.setattr(finished_runs, "check_trained", _stops)
    store, steps = FinishedRuns(tmp_path / "tables"), tmp_path / "steps"
    shutil.copytree(made[1], store.folder)
    cells = Grid(ONE).plan(steps, jobs=1)
    asked = partial(Study(ONE)._taken, steps=steps, device="cpu", only=("accuracy",), epochs=True)
    lost = [cell for cell in cells if cell.block.seed == 1]
    for cell in lost:
        (store.of(cell) / "losses.csv").unlink()
    for n, cell in enumerate(cells):
        path = store.of(cell) / "run.json"
        about = {k: v for k, v in json.loads(path.read_text()).items() if k != "minutes"}
        path.write_text(json.dumps(about | ({"minutes": timed[n]} if n in timed else {})))
    with pytest.raises(StopIteration):
        store.go_on(
            store.filed(asked(cells)),
            jobs=1,
            device="cpu",
            training=True,
            forecast=7.0 * len(cells),
        )
    assert f"{len(cells) - len(lost)} of {len(cells)} runs" in said[0] and told in said[0]


def _stops(*_: object) -> None:
    raise StopIteration


def test_blocks_are_chosen_by_number(made: tuple[Result, Path], tmp_path: Path) -> None:
    """A half of the blocks has the rows of these blocks, and the folds that all of them have."""
    first, tables = made
    half = Study(ONE).grid(tmp_path / "out", jobs=1, tables=tables, blocks=[1])
    whole = first.tables["accuracy_by_class"].frame
    own = whole[whole["seed"] == 1].reset_index(drop=True)
    found = half.tables["accuracy_by_class"].frame
    pd.testing.assert_frame_equal(found.reset_index(drop=True), own, check_categorical=False)
    for wrong in ([2], [], [-1, 0]):
        with pytest.raises(SpecificationError, match="numbers from 0 to 1"):
            Study(ONE).grid(tmp_path / "none", jobs=1, tables=tables, blocks=wrong)


def test_tables_of_two_trainings_never_stand_together(
    made: tuple[Result, Path], tmp_path: Path
) -> None:
    """A run that is trained anew forgets the epochs that were kept of another training."""
    _, tables = made
    shutil.copytree(tables, tmp_path / "committed")
    facts = {path.parent: json.loads(path.read_text()) for path in tmp_path.rglob("run.json")}
    lost = next(p for p, each in facts.items() if each["seed"] == 1 and "cg-high" in p.name)
    first, *others = sorted(lost.glob("epoch-*"))
    shutil.rmtree(others[-1])
    (first / "mark").touch()
    Study(ONE).grid(tmp_path / "out", jobs=1, command="a test", tables=tmp_path / "committed")
    assert first.exists() and not (first / "mark").exists()
    (lost / "losses.csv").unlink()
    cells = Grid(ONE).plan(tmp_path / "out" / "steps", jobs=1)
    cell = next(c for c in cells if FinishedRuns(tmp_path / "committed").of(c) == lost)
    assert not FinishedRuns(tmp_path / "committed").holds(cell, [])


def test_a_run_is_named_by_all_that_makes_it(tmp_path: Path) -> None:
    def names(specification: object) -> set[str]:
        cells = Grid(specification).plan(tmp_path / "steps", jobs=1)  # type: ignore[arg-type]
        return {FinishedRuns(tmp_path).of(cell).name for cell in cells}

    own = names(ONE)
    assert len(own) == 4 and own == names(replace(ONE, title="another title"))
    longer = replace(ONE.training, steps=13)
    assert not own & names(replace(ONE, training=longer))
    assert not own & names(replace(ONE, images=replace(ONE.images, n_train=9)))
    smaller = names(replace(ONE, images=replace(ONE.images, size=48)))
    assert not own & smaller and len(smaller) == 4
    labels = TrainingSpec(**{**ONE.training.__dict__, "objective": "supervised"})
    both = names(replace(ONE, replications=(labels,)))
    assert own < both and len(both) == 8


def test_what_is_kept_is_the_same_every_time(tmp_path: Path) -> None:
    frame = pd.DataFrame({"site": ["hook_embedding", ""], "value": [1 / 3, float("nan")]})
    pixels = rng("kept plate", 0).integers(256, size=(40, 40, 3)).astype("uint8")
    plate = Plate("moved-a", Image.fromarray(pixels), "what moved", {"setting": "a"})
    for name in ("a", "b"):
        keep_model(tmp_path / name, {"similarity": frame}, [plate])
    assert written(tmp_path / "a") == written(tmp_path / "b")
    [kept] = kept_plates(tmp_path / "a")
    assert (kept.name, kept.caption, kept.keys) == ("moved-a", "what moved", {"setting": "a"})
    assert len(kept.image.getcolors(40 * 40)) <= 256
    assert abs(np.asarray(kept.image, dtype=float) - pixels).mean() < 40  # the picture it was
    found = kept_model(tmp_path / "a")["similarity"]
    assert found["value"].iloc[0] == pytest.approx(1 / 3, rel=1e-5) and found["site"].iloc[1] == ""


def test_pictures_are_kept_of_the_first_block_alone(tmp_path: Path) -> None:
    cells = Grid(ONE).plan(tmp_path / "steps", jobs=1)
    asked = Study(ONE)._taken(cells, steps=tmp_path, device="cpu", only=("accuracy",), epochs=True)
    filed = FinishedRuns(tmp_path).filed(asked)
    assert {(cell.block.seed, each.pictured) for cell, each in filed} == {(0, True), (1, False)}


def test_kept_epochs_are_measured_as_is_asked(tmp_path: Path) -> None:
    """Accuracy and a rung of every kept epoch; the last epoch alone is what a verdict is of."""
    off = dict.fromkeys(
        ("transfer", "patching", "representation", "erasure", "features", "circuits"), False
    )
    asked = AnalysisSpec(**off, epochs=("accuracy", "similarity"), n_permutations=19, n_splits=1)
    images = replace(ONE.images, n_analysis=6)
    mixtures = replace(ONE.mixtures, held_out=1, settings=("cg-high",))
    study = Study(replace(ONE, blocks=0, images=images, mixtures=mixtures, analysis=asked))
    result = study.run(tmp_path / "out", jobs=1, command="a test", tables=tmp_path / "tables")
    epochs = set(result.tables["epochs"].frame["epoch"])
    assert len(epochs) > 2 and 0 in epochs
    by_epoch = result.tables["rungs_by_epoch"].frame
    assert set(by_epoch["rung"]) == {"R2"}
    assert set(by_epoch["epoch"]) == epochs - {0, max(epochs)}
    last = result.tables["similarity"].frame
    assert set(last[last["control"] == ""]["epoch"]) == {max(epochs)}
    assert result.report().stat().st_size > 100_000


def test_the_size_of_a_folders_pictures_and_no_path_is_in_the_name(tmp_path: Path) -> None:
    for domain in ("real", "sketch"):
        for label in "abcd":
            folder = tmp_path / "pictures" / domain / label
            folder.mkdir(parents=True)
            for n in range(6):
                Image.new("RGB", (40, 40), (40 * n, ord(label), 0)).save(folder / f"{n}.png")

    def names(root: Path, size: int) -> set[str]:
        images = ImagesSpec(source=str(root), size=size)
        mixtures = MixturesSpec(held_out=1, settings=("cg-high",))
        asked = Specification(images=images, mixtures=mixtures, training=ONE.training)
        cells = Grid(asked).plan(tmp_path / "steps", jobs=1)
        return {FinishedRuns(tmp_path).of(cell).name for cell in cells}

    own = names(tmp_path / "pictures", 32)
    assert len(own) == 1 and not own & names(tmp_path / "pictures", 64)
