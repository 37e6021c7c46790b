"""Learning rates against their formulas, and what decays."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn

from interp.models.training.launcher import build_optimizer, build_schedule


def args(**changes: object) -> Namespace:
    usual = {
        "optimizer": "adamw", "lr": 0.1, "wd": 0.3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6,
        "warmup": 2, "epochs": 10, "milestones": [],
    }  # fmt: skip
    return Namespace(**{**usual, **changes})


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))


def test_adamw_spares_gains_and_biases() -> None:
    plain, decayed = build_optimizer(model(), args()).param_groups
    assert [p.ndim for p in decayed["params"]] == [2] and decayed["weight_decay"] == 0.3
    assert len(plain["params"]) == 3 and plain["weight_decay"] == 0.0


def test_sgd_is_nesterovs_and_decays_all() -> None:
    optimizer = build_optimizer(model(), args(optimizer="sgd"))
    (group,) = optimizer.param_groups
    assert group["nesterov"] and group["momentum"] == 0.9 and group["weight_decay"] == 0.3
    assert len(group["params"]) == 4


def test_without_milestones_the_rate_is_a_cosine() -> None:
    optimizer = build_optimizer(model(), args())
    schedule = build_schedule(optimizer, args(), 12)
    cosine = [0.05 * (1 + np.cos(np.pi * step / 10)) for step in range(10)]
    assert [schedule(step) for step in range(12)] == pytest.approx([0.05, 0.1, *cosine])
    assert {group["lr"] for group in optimizer.param_groups} == {schedule(11)}


def test_milestones_are_epochs_and_cut_the_rate_to_a_tenth() -> None:
    """90 epochs of 4 steps; the paper's x 0.1 at epochs 30, 50 and 70."""
    options = args(epochs=90, milestones=[30, 50, 70], warmup=0, lr=0.01)
    parameter = nn.Parameter(torch.zeros(1))
    ours = build_schedule(torch.optim.SGD([parameter], lr=0.01), options, 360)
    peer = torch.optim.SGD([parameter], lr=0.01)
    theirs = torch.optim.lr_scheduler.MultiStepLR(peer, [30, 50, 70])
    for epoch in range(90):
        assert ours(4 * epoch) == pytest.approx(peer.param_groups[0]["lr"])
        assert ours(4 * epoch + 3) == pytest.approx(peer.param_groups[0]["lr"])
        peer.step()
        theirs.step()
