"""Archives: a result made again from one file, files that are refused, and runs opened."""

import shutil
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest
from PIL import Image

import interp
from interp.core.errors import DataError, SpecificationError
from interp.measures.subject import AnalysisSpec
from interp.study.archive import LOSSES, NAME, RUNS, identity, read_archive, write_archive
from interp.study.blocks import open_blocks
from interp.study.grid import Grid
from interp.study.results import Result
from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec
from interp.study.study import Study
from interp.verdicts.levels.across_checkpoints import from_tables, verdict
from tests.study.test_grid import TINY

LARGE = Path(__file__).parents[1] / "benchmarks" / "large"
ONE = replace(TINY, mixtures=replace(TINY.mixtures, test_domains=("sketch",)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, trains_here: None) -> Result:
    return Study(ONE).grid(tmp_path_factory.mktemp("made"), jobs=1, command="a test")


@pytest.mark.slow
def test_a_result_comes_out_of_its_archive_again_on_another_machine(
    made: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another cache, another folder, no checkpoint: no picture is written, tables are equal."""
    shutil.copy(made.folder / NAME, tmp_path / "kept.zip")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "another cache"))
    words = {"jobs": 1, "command": "a test", "tables": tmp_path / "kept.zip"}
    again = Study(ONE).grid(tmp_path / "out", **words)
    assert not (tmp_path / "another cache").exists() and not (tmp_path / "out" / "steps").exists()
    assert set(again.tables) == set(made.tables)
    for name, table in made.tables.items():
        frame = again.tables[name].frame
        pd.testing.assert_frame_equal(frame, table.frame, check_dtype=False, rtol=1e-5, atol=1e-5)
    assert again.facts["checkpoints"] == [] and made.facts["checkpoints"]
    assert again.report().stat().st_size > 100_000


@pytest.mark.slow
def test_blocks_are_chosen_by_number(made: Result, tmp_path: Path) -> None:
    """A half of the blocks has the rows of these blocks, and the folds that all of them have."""
    half = Study(ONE).grid(tmp_path / "out", tables=made.folder / NAME, blocks=[1])
    whole = made.tables["accuracy_by_class"].frame
    own = whole[whole["seed"] == 1].reset_index(drop=True)
    rows = half.tables["accuracy_by_class"].frame.reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, own, check_categorical=False, rtol=1e-5)
    for wrong in ([2], [], [-1, 0]):
        with pytest.raises(SpecificationError, match="numbers from 0 to 1"):
            Study(ONE).grid(tmp_path / "none", tables=made.folder / NAME, blocks=wrong)


@pytest.mark.slow
def test_the_archive_of_another_study_is_refused(made: Result, tmp_path: Path) -> None:
    longer = replace(ONE, training=replace(ONE.training, steps=13))
    with pytest.raises(DataError, match=r"without 4 of its 4 runs"):
        Study(longer).grid(tmp_path / "out", tables=made.folder / NAME)
    more = replace(ONE, blocks=3, folds=2)
    with pytest.raises(DataError, match=r"without 2 of its 6 runs"):
        Study(more).grid(tmp_path / "out", tables=made.folder / NAME)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("trains_here")
def test_kept_epochs_are_measured_as_is_asked(tmp_path: Path) -> None:
    """Accuracy and a rung of every kept epoch; the last epoch alone is what a verdict is of."""
    off = dict.fromkeys(
        ("transfer", "patching", "representation", "erasure", "features", "circuits"), False
    )
    asked = AnalysisSpec(**off, epochs=("accuracy", "similarity"), n_permutations=19, n_splits=1)
    images = replace(ONE.images, n_analysis=6)
    mixtures = replace(ONE.mixtures, held_out=1, settings=("cg-high",))
    study = Study(replace(ONE, blocks=0, images=images, mixtures=mixtures, analysis=asked))
    result = study.run(tmp_path / "out", jobs=1, command="a test")
    epochs = set(result.tables["epochs"].frame["epoch"])
    assert len(epochs) > 2 and 0 in epochs
    by_epoch = result.tables["rungs_by_epoch"].frame
    assert set(by_epoch["rung"]) == {"R2"}
    assert set(by_epoch["epoch"]) == epochs - {0, max(epochs)}
    last = result.tables["similarity"].frame
    assert set(last[last["control"] == ""]["epoch"]) == {max(epochs)}
    assert result.report().stat().st_size > 100_000
    again = study.run(tmp_path / "again", tables=tmp_path / "out" / NAME)
    rows = again.tables["rungs_by_epoch"].frame
    pd.testing.assert_frame_equal(rows, by_epoch, check_dtype=False, rtol=1e-5)


@pytest.mark.slow
def test_a_run_is_known_by_all_that_makes_it(tmp_path: Path) -> None:
    def identities(spec: Specification) -> set[str]:
        blocks = open_blocks(spec, rendered=False)
        cells = Grid(spec).plan(tmp_path / "steps", blocks=blocks, written=False)
        return {identity(cell, spec) for cell in cells}

    own = identities(ONE)
    assert len(own) == 4 and own == identities(replace(ONE, title="another title"))
    assert not own & identities(replace(ONE, training=replace(ONE.training, steps=13)))
    assert not own & identities(replace(ONE, images=replace(ONE.images, n_train=9)))
    assert not own & identities(replace(ONE, images=replace(ONE.images, size=48)))
    labels = TrainingSpec(**{**ONE.training.__dict__, "objective": "supervised"})
    both = identities(replace(ONE, replications=(labels,)))
    assert own < both and len(both) == 8
    for folder in (tmp_path / "a", tmp_path / "b"):
        for domain in ("real", "sketch"):
            for label in "abcd":
                (folder / domain / label).mkdir(parents=True)
                for n in range(6):
                    picture = Image.new("RGB", (40, 40), (40 * n, ord(label), 0))
                    picture.save(folder / domain / label / f"{n}.png")
    mixtures = MixturesSpec(held_out=1, settings=("cg-high",))
    of_files = [
        identities(
            Specification(
                images=ImagesSpec(source=str(tmp_path / name), size=size),
                mixtures=mixtures,
                training=ONE.training,
            )
        )
        for name, size in (("a", 32), ("b", 32), ("a", 64))
    ]
    assert of_files[0] == of_files[1] and not of_files[0] & of_files[2]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two runs of three epochs, one of them with the untrained model beside it."""
    accuracy, runs = [], []
    for seed in (0, 1):
        place: dict[str, object] = {"setting": "cg-high", "test_domain": "sketch", "seed": seed}
        place |= {"architecture": f"tower {seed}"}
        runs.append({**place, "identity": "x", "n_pictures": 9, "epoch": 5})
        for epoch in (0, 2, 5) if seed == 0 else (2, 5):
            control = "" if epoch else "epoch 0"
            rows = {**place, "epoch": epoch, "control": control, "label": 'a, "b"\n007'}
            accuracy.append({**rows, "value": seed + epoch / 10})
    views = [{**accuracy[-1], "x": 1 / 3}]
    tables = {
        "accuracy": accuracy,
        "views": views,
        RUNS: runs,
        LOSSES: [{**accuracy[-1], "loss": 1.0}],
    }
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    return write_archive(tmp_path / "archive.zip", frames)


def test_what_is_written_is_read_and_the_same_bytes_every_time(
    archive: Path, tmp_path: Path
) -> None:
    tables = read_archive(archive)
    again = write_archive(tmp_path / "again.zip", tables)
    assert again.read_bytes() == archive.read_bytes()
    assert tables["accuracy"]["value"].tolist() == [0.0, 0.2, 0.5, 1.2, 1.5]
    assert set(tables["accuracy"]["label"]) == {'a, "b"\n007'}
    assert tables["views"]["x"].tolist() == [0.333333]


@pytest.mark.parametrize("fault", ["no file", "folder", "text", "truncated", "flipped", "no runs"])
def test_a_file_that_is_no_archive_is_refused(archive: Path, tmp_path: Path, fault: str) -> None:
    path, content = tmp_path / "wrong.zip", archive.read_bytes()
    flipped = bytearray(content)
    flipped[80] ^= 255
    if fault == "folder":
        path.mkdir()
    elif fault == "no runs":
        with ZipFile(path, "w") as empty:
            empty.writestr("accuracy.csv", "value,1\n")
    elif fault != "no file":
        wrong = {"text": b"a,b\n1,2\n", "truncated": content[: len(content) // 2]}
        path.write_bytes(wrong.get(fault, bytes(flipped)))
    for read in (read_archive, interp.open_runs):
        with pytest.raises(DataError) as caught:
            read(path)
        assert "wrong.zip" in str(caught.value) and NAME in caught.value.right


def test_all_runs_stand_under_one_another(archive: Path) -> None:
    last = interp.open_runs(archive)
    assert set(last) == {"accuracy", "views"} and last["accuracy"].facts["n_runs"] == 2
    assert last["accuracy"].frame["value"].tolist() == [0.0, 0.5, 1.5]
    assert last["accuracy"].frame["control"].tolist() == ["epoch 0", "", ""]
    every = interp.open_runs(archive, ["accuracy"], epochs="all")
    assert list(every) == ["accuracy"]
    assert every["accuracy"].frame["value"].tolist() == [0.0, 0.2, 0.5, 1.2, 1.5]
    other = interp.open_runs(archive, ["accuracy"], architecture="tower 1")
    assert other["accuracy"].frame["value"].tolist() == [1.5]


def test_what_is_not_there_is_named(archive: Path) -> None:
    with pytest.raises(SpecificationError, match="Did you mean accuracy"):
        interp.open_runs(archive, ["acuracy"])
    with pytest.raises(SpecificationError, match="tower 2"):
        interp.open_runs(archive, architecture="tower 2")
    with pytest.raises(SpecificationError, match="first"):
        interp.open_runs(archive, epochs="first")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weak", "strong", "twin", "vit", "cause", "gentle"])
def test_the_committed_archives_are_of_their_studies(name: str, tmp_path: Path) -> None:
    """Every planned run is there, as it is planned today; the twin's are those of the strong."""
    spec = Specification.from_toml(LARGE / f"{name}.toml")
    kept = read_archive(LARGE / f"{'strong' if name == 'twin' else name}.zip", [RUNS])[RUNS]
    numbers = [5] if name == "twin" else sorted(set(kept["seed"].astype(int)))[-2:]
    blocks = open_blocks(spec, rendered=False, numbers=numbers)
    cells = Grid(spec).plan(tmp_path, blocks=blocks, written=False)
    assert {identity(cell, spec) for cell in cells} <= set(kept["identity"])


@pytest.mark.long
@pytest.mark.slow
def test_the_verdict_takes_them_as_they_are() -> None:
    """From the committed runs of the weak study: as from a study's own frames."""
    names = ["accuracy", "accuracy_by_class", "class_sharing", "directions", "similarity"]
    runs = interp.open_runs(LARGE / "weak.zip", names)
    rows = interp.verdict(runs, n_permutations=99).table.frame
    frames = {name: table.frame for name, table in runs.items()}
    pd.testing.assert_frame_equal(
        rows, verdict(*from_tables(frames), n_permutations=99).table.frame
    )
    assert set(rows["level"]) == {"L1", "L2", "L3"}


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
         "index_low": 0.0, "index_high": 1.0, "verdict": "unknown", "reason": "", "n_units": 40,
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
              "verdict": "unknown", "reason": "", "n_units": 40}  # fmt: skip
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
