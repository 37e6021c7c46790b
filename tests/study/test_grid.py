"""A grid in small: what is trained, what is shared, what is held out when, and how it goes on."""

import gc
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import ImageOps

from interp import Study, open_images
from interp.core.errors import DataError, InterpError, SpecificationError
from interp.core.images import ImageTable
from interp.data.artwork.embedded import study_classes
from interp.data.mixtures.mixture import Mixture, make_mixtures
from interp.data.mixtures.settings import MixtureSpec
from interp.data.mixtures.subsampling import class_folds
from interp.models.training.run import Run
from interp.study.blocks import open_blocks
from interp.study.grid import (
    Grid,
    audit_cells,
    carry_out,
    commands,
    distinct,
    mixture_table,
    submit,
)
from interp.study.results import Result, write_result
from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trains_here")]

TINY = Specification(
    title="A small grid",
    blocks=2,
    images=ImagesSpec(n_classes=6, n_train=8, n_test=3, n_analysis=1, size=32, foreign=2, n_base=0),
    mixtures=MixturesSpec(
        test_domains=("sketch", "quickdraw"),
        settings=("natural-only", {"setting": "cg-high", "domains": 1, "overlap": 0.5}),
    ),
    training=TrainingSpec(steps=12, batch_size=16, warmup=2, precision="fp32", keep=3),
)


@pytest.fixture(scope="module")
def tiny_grid(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return Study(TINY).grid(tmp_path_factory.mktemp("grid"), jobs=1, command="a test")


def test_every_cell_is_tabulated(tiny_grid: Result) -> None:
    frame = tiny_grid.tables["accuracy"].frame
    trained = frame[(frame["control"] == "") & (frame["n_runs"] == 1)]
    cells = set(
        trained[["architecture", "setting", "test_domain", "seed"]].itertuples(
            index=False, name=None
        )
    )
    names = TINY.mixtures.names("sketch")
    assert cells == {
        ("resnet-small", name, domain, block)
        for name in names
        for domain in ("sketch", "quickdraw")
        for block in (0, 1)
    }
    assert (frame.loc[frame["control"] == "epoch 0", "epoch"] == 0).all()


def test_means_over_blocks_are_means_of_the_blocks_means(tiny_grid: Result) -> None:
    """Recomputed from single classes: each block has held-out classes of its own."""
    tables = {name: table.frame for name, table in tiny_grid.tables.items()}
    asked = (
        "setting == 'natural-only' and test_domain == 'sketch' and domain == 'sketch' and "
        "class_set == 'held-out' and candidates == 'all' and prompts == 'neutral' and "
        "classifier == 'text' and control == ''"
    )
    classes = tables["accuracy_by_class"].query(asked)
    top_1 = tables["accuracy"].query(f"{asked} and measure == 'balanced top-1'")
    (row,) = top_1.query("n_runs == 2").itertuples()
    blocks = classes.groupby("seed")["value"].mean()
    assert len(blocks) == row.n_runs == 2 and row.n_units == 6
    assert row.value == pytest.approx(blocks.mean())
    assert row.unit == "class within block"
    assert row.value == pytest.approx(top_1.query("n_runs == 1")["value"].mean())


def test_kept_epochs_are_measured(tiny_grid: Result) -> None:
    """Epoch 0, a middle one and the last; only the last stands among the results."""
    tables = {name: table.frame for name, table in tiny_grid.tables.items()}
    cells = Grid(TINY).plan(tiny_grid.folder / "steps")
    for cell in cells:
        own = pd.Series(cell.place)
        epochs = tables["epochs"][(tables["epochs"][own.index] == own).all(axis=1)]
        assert set(epochs["epoch"]) == set(cell.run.kept_epochs)
        last = tables["accuracy"].query("n_runs == 1")
        last = last[(last[own.index] == own).all(axis=1) & (last["control"] == "")]
        assert set(last["epoch"]) == {cell.run.epochs}


def test_exposure_is_what_the_manifest_counts(tiny_grid: Result) -> None:
    rows = tiny_grid.tables["exposure_classes"].frame
    for cell in Grid(TINY).plan(tiny_grid.folder / "steps"):
        own = pd.Series(cell.place)
        part = rows[(rows[own.index] == own).all(axis=1) & (rows["exposed_in"] == "all domains")]
        tsv = pd.read_csv(cell.run.tsv, sep="\t", keep_default_na=False)["label"].value_counts()
        assert len(part)
        for label, exposure in part[["label", "exposure"]].itertuples(index=False):
            assert exposure == tsv.get(label, 0)


def test_what_domains_have_in_common_is_trained_once(tiny_grid: Result) -> None:
    """Natural pictures of a block are the same whatever the test domain."""
    cells = Grid(TINY).plan(tiny_grid.folder / "steps")
    natural = [cell.run.name for cell in cells if cell.mixture.setting == "natural-only"]
    assert len(cells) == 8 and len(natural) == 4 and len(set(natural)) == 2
    assert len(distinct(cells)) == 6
    second = Grid(TINY).runs(tiny_grid.folder / "steps", blocks=[1])
    assert [run.name for run in second] == [
        run.name for run in distinct([cell for cell in cells if cell.block.seed == 1])
    ]
    folders = list((tiny_grid.folder / "steps").glob("train-*/checkpoints/epoch_0.pt"))
    assert len(folders) == 6


def test_every_class_is_held_out_in_one_block(tiny_grid: Result) -> None:
    blocks = open_blocks(TINY)
    counted = Counter(label for block in blocks for label in block.held_out)
    assert dict(counted) == dict.fromkeys(study_classes(6), 1)


def test_blocks_share_no_rendering(tiny_grid: Result) -> None:
    first, second = (block.images.frame for block in open_blocks(TINY))
    assert not set(first["hash"]) & set(second["hash"])


def test_foreign_classes_are_never_asked_about(tiny_grid: Result) -> None:
    blocks = open_blocks(TINY)
    assert all(len(block.foreign) == 2 for block in blocks)
    assert set(blocks[0].pool.labels) == set(blocks[0].images.labels) | set(blocks[0].foreign)
    asked = set(tiny_grid.tables["accuracy_by_class"].frame["label"])
    assert asked == set(study_classes(6))


@pytest.mark.long
def test_a_second_run_makes_nothing_and_says_the_same(tiny_grid: Result) -> None:
    def written() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (tiny_grid.folder / "steps").rglob("*.pt")}

    before = written()
    again = Study(TINY).grid(tiny_grid.folder, jobs=1, command="a test")
    assert written() == before
    for name, table in tiny_grid.tables.items():
        pd.testing.assert_frame_equal(Result(again.folder).tables[name].frame, table.frame)


@pytest.mark.long  # finished runs that one is missing from are tested in any case
def test_a_lost_run_is_made_again_alone(tiny_grid: Result) -> None:
    run = Grid(TINY).runs(tiny_grid.folder / "steps")[-1]
    others = {p for p in (tiny_grid.folder / "steps").rglob("*.pt") if run.name not in str(p)}
    before = {p: p.stat().st_mtime_ns for p in others}
    shutil.rmtree(run.out / run.name)
    (line,) = commands([run], device="cpu")
    assert run.name in line and line.startswith("python -m interp.models.training.launcher")
    Study(TINY).grid(tiny_grid.folder, jobs=1, command="a test")
    assert run.final.exists() and {p: p.stat().st_mtime_ns for p in others} == before


def test_finished_runs_are_not_handed_out(tiny_grid: Result, tmp_path: Path) -> None:
    runs = Grid(TINY).runs(tiny_grid.folder / "steps")
    assert commands(runs, device="cpu") == []
    assert submit(runs, tmp_path, cluster="debug") == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit's logs
def test_submitted_runs_are_started(
    tiny_grid: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(Grid(TINY).runs(tiny_grid.folder / "steps")[0], out=tmp_path)
    monkeypatch.setattr(Run, "command", lambda self, **options: ["touch", str(tmp_path / "made")])
    (job,) = submit([run], tmp_path, cluster="debug")
    assert job.result() == 0 and (tmp_path / "made").exists()
    gc.collect()  # where the filter above is in force
    with pytest.raises(InterpError, match="status 1"):
        carry_out(["false"])


def test_an_unknown_parameter_of_the_cluster_is_refused(tiny_grid: Result, tmp_path: Path) -> None:
    runs = Grid(TINY).runs(tiny_grid.folder / "steps")
    with pytest.raises(SpecificationError, match="no_such"):
        submit(runs, tmp_path, cluster="debug", no_such=1)
    with pytest.raises(SpecificationError, match="nowhere"):
        submit(runs, tmp_path, cluster="nowhere")


def test_seeds_keep_pictures_and_held_out_classes() -> None:
    blocks = open_blocks(
        replace(TINY, blocks=0, seeds=(3, 4), mixtures=replace(TINY.mixtures, held_out=2))
    )
    assert [block.seed for block in blocks] == [3, 4]
    assert blocks[0].held_out == blocks[1].held_out and len(blocks[0].held_out) == 2
    assert blocks[0].pool.fingerprint == blocks[1].pool.fingerprint


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_mixtures_of_the_committed_grids_can_be_made(name: str) -> None:
    """On a made-up table with as many classes, for every fold: nothing is found out too late."""
    file = Path(__file__).parents[1] / "benchmarks" / "grid" / f"{name}.toml"
    spec = Grid.from_toml(file).specification
    n_foreign = spec.images.foreign if isinstance(spec.images.foreign, int) else 0
    labels = [f"class {number:02}" for number in range(spec.images.n_classes + n_foreign)]
    domains = ("real", "sketch", "quickdraw", "clipart", "painting", "infograph")
    rows = [
        (f"{domain}/{label}/{split}-{number}.png", label, domain, split, "")
        for domain, label, split, number in product(domains, labels, ("train", "test"), range(8))
    ]
    names = ["path", "label", "domain", "split", "caption"]
    pool = ImageTable(pd.DataFrame(rows, columns=names))
    own, foreign = labels[: spec.images.n_classes], labels[spec.images.n_classes :]
    for held_out in class_folds(own, spec.blocks):
        for domain in spec.mixtures.test_domains:
            specs = spec.mixtures.mixture_specs(domain, held_out, foreign=foreign)
            made = list(make_mixtures(pool, specs))
            assert len({mixture.spec.name for mixture in made}) == len(spec.mixtures.settings)


def test_what_another_study_left_is_not_shown_as_this_ones(tmp_path: Path) -> None:
    frame = pd.DataFrame({"value": [1.0]})
    facts: dict[str, Any] = {"spec_hash": "", "versions": {}}
    write_result(tmp_path, {"similarity": frame, "accuracy": frame}, [], facts)
    (tmp_path / "tables" / "audit.csv").write_text("check\n")
    result = write_result(tmp_path, {"accuracy": frame}, [], facts)
    assert {path.name for path in (result.folder / "tables").iterdir()} == {
        "accuracy.csv", "accuracy.json", "audit.csv",
    }  # fmt: skip


def test_a_baseline_on_labels_refuses_a_base_set(tmp_path: Path) -> None:
    (tmp_path / "base.tsv").write_text("filepath\ttitle\na.png\ta cat\n")
    labelled = replace(TINY.training, objective="supervised")
    based = MixturesSpec(settings=("cg-low",), base=str(tmp_path / "base.tsv"))
    with pytest.raises(SpecificationError, match="captions and no labels"):
        Grid(replace(TINY, training=labelled, mixtures=based)).plan(tmp_path / "steps")


def test_a_changed_base_set_makes_another_mixture(tmp_path: Path) -> None:
    base = tmp_path / "base.tsv"
    grid = Grid(replace(TINY, mixtures=MixturesSpec(settings=("cg-low",), base=str(base))))
    counts = []
    for rows in (1, 2):
        base.write_text("filepath\ttitle\n" + "a.png\ta cat\n" * rows)
        counts.append(grid.plan(tmp_path / "steps")[0].manifest["base"]["pictures"])
    assert counts == [1, 2]


def test_a_base_set_is_counted_in_the_table_of_mixtures(tmp_path: Path) -> None:
    (tmp_path / "base.tsv").write_text("filepath\ttitle\n" + "a.png\ta cat\n" * 3)
    based = MixturesSpec(settings=("cg-low",), base=str(tmp_path / "base.tsv"))
    cells = Grid(replace(TINY, mixtures=based)).plan(tmp_path / "steps")
    table = mixture_table(cells)
    rows = pd.read_csv(cells[0].run.tsv, sep="\t", keep_default_na=False)["domain"].value_counts()
    first = table[table["seed"] == cells[0].block.seed].set_index("domain")
    assert first["n_pictures"].to_dict() == rows.to_dict() and first["n_pictures"]["base"] == 3
    assert (first["n_train"] == rows.sum()).all()


def test_mixtures_of_a_block_are_made_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(images: ImageTable, specs: Sequence[MixtureSpec]) -> Iterator[Mixture]:
        asked.append(len(specs))
        return make_mixtures(images, specs)

    monkeypatch.setattr("interp.study.grid.make_mixtures", counted)
    first = Grid(TINY).runs(tmp_path / "steps")
    shutil.rmtree(first[0].tsv.parent)
    assert [run.name for run in Grid(TINY).runs(tmp_path / "steps")] == [run.name for run in first]
    assert asked == [4, 4, 1]


@pytest.mark.long
def test_pictures_that_the_cache_has_lost_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a mixture whose pictures are no files of their own."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    pool = open_images(spec=TINY.images.embedded).prepared(ImageOps.grayscale, name="grey")
    block = replace(open_blocks(TINY)[0], pool=pool)
    (cell, *_) = Grid(TINY).plan(tmp_path / "steps", blocks=[block])
    paths = pd.read_csv(cell.run.tsv, sep="\t")["filepath"]
    shutil.rmtree(tmp_path / "cache" / "pictures")
    assert not Path(paths[0]).exists()
    Grid(TINY).plan(tmp_path / "steps", blocks=[block])
    assert all(Path(path).exists() for path in paths)


def test_a_grid_of_other_machines_is_tabulated_and_not_trained(
    tiny_grid: Result, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="6 of 6 runs unfinished"):
        Study(TINY).grid(tmp_path, training=False)
    assert not list(tmp_path.glob("steps/train-*/checkpoints"))
    again = Study(TINY).grid(tiny_grid.folder, jobs=1, command="a test", training=False)
    frame = tiny_grid.tables["accuracy"].frame
    pd.testing.assert_frame_equal(Result(again.folder).tables["accuracy"].frame, frame)


def test_an_audit_speaks_of_every_mixture_once(tiny_grid: Result) -> None:
    said: list[str] = []
    cells = Grid(TINY).plan(tiny_grid.folder / "steps")
    found = audit_cells(cells, tell=said.append)
    verdicts = [line for line in said if not line.startswith("  ")]
    assert len(verdicts) == 8 and all("No leak was found" in line for line in verdicts)
    assert sum("natural-only → cg-high" in line for line in said) == 4
    assert {"setting", "test_domain", "seed", "check", "ok"} <= set(found.columns)


def test_an_audit_finds_a_test_picture_in_training(tiny_grid: Result, tmp_path: Path) -> None:
    """The twin of the one above: a training picture, saved anew, stands among the test pictures."""
    cell = next(c for c in Grid(TINY).plan(tiny_grid.folder / "steps"))
    frame = cell.block.pool.frame
    train = frame[(frame["split"] == "train") & (frame["domain"] == "real")].iloc[:1]
    cell.block.pool.with_frame(train).picture(0).save(tmp_path / "twin.bmp")
    twin = train.assign(split="test", hash="another", path=str(tmp_path / "twin.bmp"))
    pool = cell.block.pool.with_frame(pd.concat([frame, twin], ignore_index=True))
    leaky = replace(cell, block=replace(cell.block, pool=pool))
    found = audit_cells([leaky], tell=lambda line: None)
    assert (found["check"] == "same pixels").sum() == 1 and not found["ok"].all()
