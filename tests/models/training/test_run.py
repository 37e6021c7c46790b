"""Commands: what torchrun is told, for one process or many machines."""

import sys
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from interp.core.errors import DataError, SpecificationError
from interp.core.storage.store import fingerprint
from interp.models import RECIPES, Recipe, Run
from interp.models.training import launcher
from interp.models.training.lists import Base
from interp.models.training.resume import differing
from tests.refusals import refuses

RUN = Run("n", Path("m"), Path("t.tsv"), 99, Path("o"), Recipe(batch_size=12))


def parsed(command: list[str]) -> Namespace:
    return launcher.prepare(command[command.index("--") + 1 :])


def test_the_command_is_torchruns() -> None:
    command = RUN.command(device="cpu", processes=3)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert "--standalone" in command and command[command.index("--nproc-per-node") + 1] == "3"
    args = parsed(command)
    assert args.batch_size == 4 and args.local_loss and args.gather_with_grad


def test_one_process_starts_at_once() -> None:
    command = RUN.command(device="cpu")
    assert command[:3] == [sys.executable, "-m", "interp.models.training.launcher"]
    assert not parsed(command).local_loss


def test_several_machines_meet() -> None:
    command = RUN.command(device="cpu", processes=2, nodes=3, rendezvous="a.example:29500")
    words = dict(pairwise(command))
    assert "--standalone" not in command
    assert (words["--nnodes"], words["--rdzv-endpoint"]) == ("3", "a.example:29500")
    assert (words["--rdzv-backend"], words["--rdzv-id"]) == ("c10d", "n")
    assert parsed(command).batch_size == 2


@pytest.mark.parametrize("name", RECIPES)
def test_the_launcher_understands_every_recipe(toy: Any, tmp_path: Path, name: str) -> None:
    run = replace(toy.run(tmp_path), recipe=RECIPES[name], n_train=3000)
    args, recipe = parsed(run.command(device="cpu")), run.recipe
    for word in ("lr", "wd", "beta2", "eps", "warmup", "objective", "optimizer", "crop", "seed"):
        assert getattr(args, word) == getattr(recipe, word), word
    assert args.batch_size * args.accum_freq == recipe.batch_size
    assert tuple(args.milestones) == recipe.milestones and tuple(args.keep) == run.kept_epochs
    assert args.epochs == run.epochs and args.workers == recipe.workers
    if recipe.precision != "auto":
        assert args.precision == recipe.precision
    args.global_batch = args.batch_size * args.accum_freq
    assert {word: vars(args)[word] for word in run.decisive()} == run.decisive()


def test_augmentation_that_is_asked_for_is_part_of_a_runs_identity(toy, tmp_path) -> None:
    run = replace(toy.run(tmp_path), recipe=Recipe(steps=20, flip=0.5, grey=0.1), n_train=3000)
    args = parsed(run.command(device="cpu"))
    assert (args.flip, args.colour, args.grey) == (0.5, 0.0, 0.1)
    assert run.decisive()["flip"] == 0.5 and "colour" not in run.decisive()
    assert differing({"flip": 0.0}, run.decisive()) == ["flip 0.0, now 0.5"]
    assert fingerprint(Recipe()) == fingerprint(Recipe(flip=0.0, colour=0.0))  # old runs go on


def test_a_batch_that_processes_do_not_divide_is_refused() -> None:
    refuses(SpecificationError, r"12 pictures in 5 parts", RUN.command, device="cpu", processes=5)


@pytest.mark.parametrize("part", ["tsv", "model_folder"])
def test_what_is_not_there_is_refused_before_the_start(toy: Any, tmp_path: Path, part: str) -> None:
    toy.run(tmp_path).check()
    with pytest.raises(DataError, match="no such thing, which is not there"):
        replace(toy.run(tmp_path), **{part: tmp_path / "no such thing"}).check()


def test_a_base_set_is_trained_on_beside_the_mixture(toy: Any, tmp_path: Path) -> None:
    tsv = tmp_path / "train.tsv"
    tsv.write_text(toy.tsv.read_text())
    run = replace(toy.run(tmp_path, base=Base("base/{0..9}.tar", 152)), tsv=tsv)
    assert run.pictures == 200
    args = parsed(run.command(device="cpu"))
    ours, base = args.train_data.split("::")
    assert base == "base/{0..9}.tar" and ours.startswith(str(tmp_path / "shards"))
    assert args.dataset_type == "webdataset" and args.train_num_samples == 200
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 16
