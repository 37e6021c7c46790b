"""Training as a user starts it: side by side under torchrun, resumable, with errors of our own."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.core.errors import (
    CheckpointError,
    DataError,
    InterpError,
    NumericsError,
    OutputError,
    SpecificationError,
)
from interp.core.images import ImageTable
from interp.core.parallel import threads_each
from interp.data import MixtureSpec, make_mixture
from interp.data.mixtures.templates import vocabulary
from interp.models import Recipe, Run, train, write_model_folder
from interp.models.training import train as training
from tests.refusals import refuses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_folder(small_images: ImageTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = vocabulary(small_images.labels, small_images.domains)
    folder = tmp_path_factory.mktemp("model") / "resnet-small"
    return write_model_folder(folder, "resnet-small", words=words, longest=10)


@pytest.fixture(scope="module")
def tsv(small_images: ImageTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = MixtureSpec("natural-only", "sketch", tuple(small_images.labels[:2]))
    return make_mixture(small_images, spec).write(tmp_path_factory.mktemp("mixture") / "m")


def run_of(name: str, model_folder: Path, tsv: Path, out: Path, steps: int = 12) -> Run:
    recipe = Recipe(steps=steps, batch_size=64, warmup=2, precision="fp32")
    return Run(name, model_folder, tsv, 192, out, recipe)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_does(
    model_folder: Path, tsv: Path, tmp_path: Path
) -> None:
    whole = run_of("whole", model_folder, tsv, tmp_path / "a")
    train([whole], jobs=1, device="cpu")
    part = run_of("whole", model_folder, tsv, tmp_path / "b")
    with subprocess.Popen(
        part.command(device="cpu"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        # as many threads as `train` gives: they add up in another order
        env={**os.environ, "OMP_NUM_THREADS": str(threads_each(1))},
    ) as process:
        while process.poll() is None and not (part.checkpoints / "latest.pt").exists():
            time.sleep(0.05)
        process.kill()
    (part.checkpoints / "writing.tmp").write_bytes(b"half a checkpoint")
    assert not part.final.exists()
    train([part], jobs=1, device="cpu")
    assert "Resuming from epoch" in (part.out / part.name / "out.log").read_text()
    mended, unbroken = weights(part.final), weights(whole.final)
    assert all(torch.equal(mended[key], unbroken[key]) for key in unbroken)


def test_a_finished_run_is_left_alone(model_folder: Path, tsv: Path, tmp_path: Path) -> None:
    run = run_of("done", model_folder, tsv, tmp_path)
    run.checkpoints.mkdir(parents=True)
    run.final.write_bytes(b"finished")
    (run.checkpoints / "latest.pt").write_bytes(b"left by a kill between two files")
    train([run], jobs=1)
    assert run.final.read_bytes() == b"finished"
    assert not (run.checkpoints / "latest.pt").exists()


def test_a_finished_run_of_another_specification_is_refused(toy: Any, tmp_path: Path) -> None:
    run = toy.run(tmp_path)
    run.checkpoints.mkdir(parents=True)
    run.final.write_bytes(b"finished")
    lines = {**run.decisive(), "precision": "computed elsewhere"}
    (run.folder / "params.txt").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    train([run])
    with pytest.raises(SpecificationError, match="seed 0, now 1"):
        train([replace(run, recipe=replace(run.recipe, seed=1))])


def test_a_failing_trainer_shows_the_end_of_its_log(toy: Any, tmp_path: Path) -> None:
    """A tokenizer that does not read: the forecast does not open it, and the trainer fails."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "open_clip_config.json").write_bytes(
        (toy.model / "open_clip_config.json").read_bytes()
    )
    run = replace(toy.run(tmp_path), model_folder=model)
    with pytest.raises(InterpError, match=r"ended with status 1 \(.*Error.*its log is"):
        train([run], jobs=1, device="cpu")


@pytest.mark.long
def test_errors_of_the_trainer_come_as_their_own_kind(toy: Any, tmp_path: Path) -> None:
    """The picture was there when the list was made; the rate makes the weights overflow."""
    tsv = tmp_path / "train.tsv"
    tsv.write_text(toy.tsv.read_text().replace("/7.png", "/no such.png"))
    with pytest.raises(DataError, match=r"no such\.png, which does not read"):
        train([replace(toy.run(tmp_path), tsv=tsv)], device="cpu")
    diverging = toy.run(tmp_path, name="wild", lr=1e300, warmup=0)
    refuses(NumericsError, "the last good epoch is kept", train, [diverging], device="cpu")
    assert [path.name for path in diverging.checkpoints.iterdir()] == ["epoch_0.pt"]


@pytest.mark.long
def test_a_failing_run_leaves_the_others_to_end(toy: Any, tmp_path: Path) -> None:
    wild = [toy.run(tmp_path, name=name, lr=1e300, warmup=0) for name in ("wild", "wilder")]
    tame = toy.run(tmp_path)
    with pytest.raises(InterpError, match=r"train 3 models: given 2 that failed.*others are fin"):
        train([*wild, tame], jobs=1, device="cpu")
    assert tame.final.exists() and not any(run.final.exists() for run in wild)


@pytest.mark.long
def test_a_disk_that_fills_up_is_reported_and_the_run_goes_on_later(toy, tmp_path) -> None:
    run = toy.run(tmp_path)
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "writing.tmp").symlink_to("/dev/full")
    refuses(OutputError, "Make room and run again", train, [run], device="cpu")
    train([run], device="cpu")
    assert run.final.exists()


def test_what_cannot_be_trained_starts_nothing(toy, tmp_path, monkeypatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a trainer was started")

    monkeypatch.setattr(training, "_supervise", started)
    good = toy.run(tmp_path)
    refuses(SpecificationError, "24 pictures in 5 parts", train, [good], processes=5)
    refuses(DataError, "not there", train, [good, replace(good, tsv=tmp_path / "no.tsv")])
    refuses(CheckpointError, "open_clip refuses", train, [replace(good, model_folder=tmp_path)])
    refuses(AssertionError, "started", train, [good], device="cpu")


@pytest.mark.long
def test_two_ranks_train_on_the_cpu(model_folder: Path, tsv: Path, tmp_path: Path) -> None:
    """open_clip's own main crashes here: DDP is told a device id on the CPU."""
    run = run_of("two", model_folder, tsv, tmp_path, steps=3)
    train([run], jobs=1, device="cpu", processes=2)
    assert not any(key.startswith("module.") for key in weights(run.final))


@pytest.mark.parametrize(
    ("processes", "cards"), [(1, ["cuda:0", "cuda:1", "cuda:0"]), (2, ["cuda"] * 3)]
)
def test_each_run_has_the_next_card_unless_it_takes_several(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, cards: list[str]
) -> None:
    started = []

    def note(run: Any, command: list[str], *rest: Any) -> None:
        started.append((run.name, command[command.index("--device") + 1]))

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr("interp.models.training.train._supervise", note)
    train([toy.run(tmp_path, name=name) for name in "abc"], device="cuda", processes=processes)
    assert sorted(started) == list(zip("abc", cards, strict=True))
