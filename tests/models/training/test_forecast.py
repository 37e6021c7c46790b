"""The forecast of disk against what is really written."""

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.core.errors import CheckpointError, OutputError
from interp.models import Recipe, Run, write_model_folder
from interp.models.loading.load_clip import create
from interp.models.training import resume as resuming
from interp.models.training import train as forecast
from interp.models.training.train import check_room, checkpoint_bytes, forecast_disk
from tests.refusals import refuses


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"precision": "fp32"},
        {"optimizer": "sgd"},
        {"objective": "supervised", "precision": "fp32"},
        {"objective": "supervised", "optimizer": "sgd"},
    ],
)
def test_checkpoints_have_the_size_that_was_forecast(
    toy: Any, launch: Callable[[Run], None], tmp_path: Path, recipe: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    latest: list[int] = []
    write = resuming.write

    def watched(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        if path.stem == "latest":
            latest.append(path.stat().st_size)

    monkeypatch.setattr(resuming, "write", watched)
    run = toy.run(tmp_path, keep=3, **recipe)
    weights, states = checkpoint_bytes(run)
    total = forecast_disk([run])
    assert total == 3 * weights + 2 * (weights + states)
    launch(run)
    for epoch in run.kept_epochs:
        size = (run.checkpoints / f"epoch_{epoch}.pt").stat().st_size
        assert size <= weights <= 1.1 * size
    assert latest[-1] <= weights + states <= 1.1 * latest[-1]
    assert forecast_disk([run]) == 0


def test_runs_add_up_and_those_at_work_take_most(toy: Any, tmp_path: Path) -> None:
    small, large = toy.run(tmp_path, precision="fp32"), toy.run(tmp_path, name="b", keep=5)
    (w, o), (wide, states) = checkpoint_bytes(small), checkpoint_bytes(large)
    assert w < wide < 2 * w and o < states < 2 * o
    assert forecast_disk([small, large], jobs=1) == 2 * w + 5 * wide + 2 * (wide + states)
    assert forecast_disk([small, large], jobs=2) == 4 * w + 2 * o + 7 * wide + 2 * states


def test_a_disk_with_less_is_refused_before_the_start(toy, tmp_path, monkeypatch) -> None:
    run = toy.run(tmp_path / "not" / "there yet")
    need = forecast_disk([run])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda path: usage(0, 0, need))
    check_room([run])
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda path: usage(0, 0, need - 1))
    refuses(OutputError, r"MiB of free disk.*keep fewer epochs", check_room, [run])


def test_a_folder_that_is_no_model_is_refused(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 1}}')
    run = Run("n", tmp_path, toy.tsv, 48, tmp_path, toy.run(tmp_path).recipe)
    refuses(CheckpointError, "open_clip refuses", forecast_disk, [run])


def test_a_real_models_checkpoint_is_forecast_within_two_percent(tmp_path: Path) -> None:
    """The values are what counts once a model is not a toy."""
    folder = write_model_folder(tmp_path / "m", "resnet-small", words=["a", "cat"], longest=4)
    run = Run("n", folder, tmp_path / "t.tsv", 64, tmp_path, Recipe(batch_size=64))
    model = create(f"local-dir:{folder}", load_weights=False)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pt")
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "o.pt")
    for forecast_bytes, name in zip(checkpoint_bytes(run), ("w.pt", "o.pt"), strict=True):
        size = (tmp_path / name).stat().st_size
        assert size <= forecast_bytes <= 1.02 * size, name
