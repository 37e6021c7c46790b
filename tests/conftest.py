"""What tests share: a small rendered study and one really trained CLIP, made once per test run."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.data.artwork.embedded import open_embedded
from interp.data.mixtures.settings import BASE
from interp.measures.subject import AnalysisSpec
from interp.models.training.train import train
from interp.study.grid import Grid
from interp.study.results import Result, open_result
from interp.study.specification import (
    ComparisonSpec,
    ImagesSpec,
    MixturesSpec,
    Specification,
    TrainingSpec,
)
from interp.study.study import Study
from tests.training_here import training_here


def pytest_configure() -> None:
    """Workers take one thread each: with more, those of one core wait for one another."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


START_FIRST = ("test_notebooks.py", "test_trained_again.py")
"""Files that take longest: begun last, one worker would end alone with them."""


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Call slow what needs a trained model, and order files so that no worker waits for the study.

    The first file makes the study; others that need it come after the slow files that do not.
    """
    for item in items:
        if {"small_study", "trained_checkpoint"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.slow)
    studied = [item for item in items if "small_study" in getattr(item, "fixturenames", ())]
    files = {item.path for item in studied}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = min(files, default=None)

    def turn(item: pytest.Item) -> int:
        if item.path == first or item.path.name in START_FIRST:
            return 0
        return 2 if item.path in files else 1 if item.path in slow else 3

    items.sort(key=turn)


SMALL = Specification(
    title="A small study",
    images=ImagesSpec(n_classes=8, n_train=24, n_test=6, n_analysis=8),
    mixtures=MixturesSpec(held_out=2, settings=("natural-only", "cg-high")),
    training=TrainingSpec(steps=40, batch_size=32, warmup=10, precision="fp32"),
    analysis=AnalysisSpec(
        n_pairs=8,
        n_transplants=16,
        n_circuit_pairs=8,
        pairs="own",
        n_permutations=99,
        n_splits=2,
        n_controls=2,
        n_dictionary_pictures=12,
        dictionary_steps=30,
    ),
    comparison=ComparisonSpec(setting="cg-high"),
)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run, the same for all its workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def quiet_and_apart(shared_folder: Path) -> Iterator[None]:
    """No progress lines, and a cache of the test run's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_CACHE", str(shared_folder / "cache"))
        set_quiet(True)
        yield
        set_quiet(False)


@pytest.fixture(scope="module")
def trains_here() -> Iterator[None]:
    """For a module whose studies train; tests/models/training starts trainers as users do."""
    with training_here():
        yield


@pytest.fixture(scope="session")
def small_images(quiet_and_apart: None) -> ImageTable:
    """The embedded study in small: 8 classes, six domains, 38 pictures per cell; no base set."""
    images = open_embedded(SMALL.images.embedded, jobs=2)
    return images[(images.split != BASE).to_numpy()]


@pytest.fixture(scope="session")
def small_study(small_images: ImageTable, shared_folder: Path) -> Result:
    """A whole study in small, two trained models included, made by the first worker to ask."""
    folder = shared_folder / "small-study"
    with FileLock(shared_folder / "small-study.lock"):
        if not (folder / "facts.json").exists():  # the last file that a study writes
            with training_here():
                Study(SMALL).run(folder, jobs=1, command="a test")
    return open_result(folder)


@pytest.fixture(scope="session")
def trained_checkpoint(small_images: ImageTable, shared_folder: Path) -> Path:
    """The last checkpoint of a CLIP that was trained as the small study's CG high-diversity one."""
    alone = replace(SMALL.mixtures, settings=("cg-high",))
    with FileLock(shared_folder / "checkpoint.lock"):
        [run] = Grid(replace(SMALL, mixtures=alone)).runs(shared_folder / "trained", jobs=1)
        with training_here():
            train([run], jobs=1)  # at once, where another worker has trained it
    return run.final
