"""The diary of a run: one row a step, whatever interrupts it."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.core.errors import NumericsError
from interp.models.training.journal import LOOK_EVERY, Journal, read_journal
from tests.refusals import refuses


class Loader:
    """Four batches."""

    num_batches, num_samples = 4, 8

    def __iter__(self) -> Any:
        return iter(range(4))


def args(**changes: object) -> Namespace:
    usual = {"rank": 0, "distributed": False, "accum_freq": 1, "global_batch": 2, "name": "n"}
    return Namespace(**{**usual, **changes})


def keep(folder: Path, values: list[float], *, start: int = 0, **changes: Any) -> None:
    """One epoch of open_clip's loop, with these losses."""
    journal = Journal(folder, args(**changes), start)
    steer = journal.steering(lambda step: 0.5**step)
    judge = journal.judging(lambda value: {"a": torch.tensor(value), "b": torch.tensor(0.25)})
    for step, _ in enumerate(journal.feeding(Loader())):
        steer(step // changes.get("accum_freq", 1))
        judge(value=values[step])
    journal.close(start + 1)


def test_every_step_has_its_loss_to_the_last_digit_and_its_rate(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 2e-9, 7.0]
    keep(tmp_path, values)
    frame = read_journal(tmp_path).frame
    exact = [float(torch.tensor(value) + 0.25) for value in values]
    assert frame["loss"].tolist() == exact
    assert frame["lr"].tolist() == [1.0, 0.5, 0.25, 0.125]
    assert frame["step"].tolist() == [0, 1, 2, 3] and set(frame["epoch"]) == {1}
    assert (frame["waiting"] <= frame["seconds"]).all()


def test_parts_of_a_batch_are_one_step(tmp_path: Path) -> None:
    keep(tmp_path, [1.0, 1.0, 2.0, 2.0], accum_freq=2)
    frame = read_journal(tmp_path).frame
    assert frame["loss"].tolist() == [1.25, 2.25] and frame["lr"].tolist() == [1.0, 0.5]


def test_steps_after_the_epoch_that_a_run_goes_on_from_are_forgotten(tmp_path: Path) -> None:
    keep(tmp_path, [1.0] * 4)
    keep(tmp_path, [2.0] * 4, start=1)
    keep(tmp_path, [3.0] * 4, start=1)  # epoch 2 was written down, and its checkpoint was not
    frame = read_journal(tmp_path).frame
    assert frame["loss"].tolist() == [1.25] * 4 + [3.25] * 4
    assert frame["step"].tolist() == list(range(8))


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    keep(tmp_path, [1.0] * 4, rank=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_not_written_down(tmp_path: Path, bad: float) -> None:
    refuses(NumericsError, r"train n.*not finite", keep, tmp_path, [1.0, 1.0, bad, 1.0])
    assert read_journal(tmp_path).frame.empty


def test_a_long_epoch_is_looked_at_on_its_way(tmp_path: Path) -> None:
    judge = Journal(tmp_path, args(), 0).judging(lambda value: {"loss": torch.tensor(value)})
    judge(value=float("nan"))
    with pytest.raises(NumericsError):
        for _ in range(LOOK_EVERY):
            judge(value=1.0)
