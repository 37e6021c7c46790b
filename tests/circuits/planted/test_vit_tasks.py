"""Planted models as a notebook takes them: pictures, tasks and the true circuit."""

import pytest
import torch

import interp
from interp import circuits
from interp.core.errors import InterpError


@pytest.mark.parametrize("aligned", [True, False])
def test_a_task_is_what_patched_runs_take(aligned: bool) -> None:
    planted = circuits.planted_vit("all separate", seed=4)
    tower = interp.open_tower(planted.source)
    task = planted.task(6, domain="A", aligned=aligned, seed=1)
    clean, corrupt = (task["metric"](tower(task[side])) for side in ("clean", "corrupt"))
    assert (clean > corrupt).all()
    scenes = planted.world.scenes(6, domain="A", seed=1)
    assert torch.equal(task["clean"], planted.world.render(scenes))
    same_places = (task["clean"] - task["corrupt"]).abs().amax((1, 2, 3)) > 0
    assert same_places.all()
    truth = circuits.Circuit.of(circuits.wire(tower), planted.truth("A").units["edge"])
    alone = circuits.faithfulness(tower, truth, **task, n_random=1).frame.iloc[0]
    assert alone["value"] > 0.9


def test_a_disguise_keeps_the_function() -> None:
    plain = circuits.planted_vit("all shared", seed=2, disguised=False)
    hidden = circuits.planted_vit("all shared", seed=2)
    x = torch.stack([plain.preprocess(plain.pictures(2).picture(row)) for row in range(4)])
    torch.testing.assert_close(plain.source(x), hidden.source(x))
    assert plain.truth("A").nodes != hidden.truth("A").nodes


def test_unknown_conditions_are_refused() -> None:
    with pytest.raises(InterpError, match="all shared"):
        circuits.planted_vit("all shred")
