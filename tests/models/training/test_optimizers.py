"""Learning rates against their formulas, and what decays."""

from argparse import Namespace
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from interp.models.training.launcher import MUON_RATE, build_optimizer, build_schedule


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


class Blocks(nn.Module):
    """A transformer block's matrix, and one that is none of a block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.resblocks = nn.Sequential(nn.Linear(4, 6))
        self.head = nn.Linear(6, 3)

    def loss(self) -> torch.Tensor:
        return self.head(self.resblocks(torch.arange(8.0).reshape(2, 4)).relu()).square().sum()


def stepped(blocks: Blocks, optimizer: torch.optim.Optimizer, n: int) -> list[torch.Tensor]:
    for _ in range(n):
        optimizer.zero_grad()
        blocks.loss().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in blocks.parameters()]


def test_muon_takes_matrices_of_blocks_and_adamw_all_else() -> None:
    ours, plain = Blocks(), Blocks()
    optimizer = build_optimizer(ours, args(optimizer="muon", lr=0.01))
    muon = torch.optim.Muon(
        [plain.resblocks[0].weight], lr=0.01 * MUON_RATE, weight_decay=0.3 / MUON_RATE
    )
    adamw = build_optimizer(plain, args(lr=0.01))
    adamw.param_groups[1]["params"] = [plain.head.weight]
    for _ in range(3):
        stepped(ours, optimizer, 1)
        muon.zero_grad()
        adamw.zero_grad()
        plain.loss().backward()
        adamw.step()
        muon.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_muon_goes_on_from_its_state() -> None:
    one, two = Blocks(), Blocks()
    optimizer = build_optimizer(one, args(optimizer="muon", lr=0.01))
    stepped(one, optimizer, 2)
    two.load_state_dict(one.state_dict())
    other = build_optimizer(two, args(optimizer="muon", lr=0.01))
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    build_schedule(other, args(lr=0.02, warmup=0), 12)(0)  # the rate reaches both parts
    build_schedule(optimizer, args(lr=0.02, warmup=0), 12)(0)
    for a, b in zip(stepped(one, optimizer, 2), stepped(two, other, 2), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_muon_without_blocks_is_adamw() -> None:
    assert type(build_optimizer(model(), args(optimizer="muon"))) is torch.optim.AdamW


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
