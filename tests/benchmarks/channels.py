"""What the edges of a ResNet's channel circuit cost, beside one run per channel."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from interp.circuits.units.channel_circuit import PAPER_SITES, channel_circuit
from interp.circuits.units.channel_edges import MEMORY, Wanted, score_edges
from interp.circuits.units.channel_scores import by_unit, unit_axis
from interp.core.arguments import Room
from interp.core.tower import Tower
from interp.models.towers.resnet import HookedResNet

STEPS = 10
COUNTED = (3, 4, 6, 3)
"""Blocks of each stage: RN50's, at an eighth of its width."""


def channels() -> None:
    """All edges of the paper's circuit: kept channels, ten steps, zero baseline, one picture.

    A forward-equivalent is one picture through the whole tower. It is counted twice: in passes
    through a block, forward or derivative, and in floating-point operations as torch counts them,
    so stem and attention pool are in. The reference runs the whole tower for every kept channel and
    step, and goes back over the one block between the sites. Seconds are processor time.
    """
    torch.set_num_threads(1)
    tower, x = _tower(), 3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    once = _operations(lambda: tower(x))
    wanted = _kept(tower, x)
    n = sum(len(each.receivers) for each in wanted)
    print(
        f"channels: {PAPER_SITES[0]} to {PAPER_SITES[-1]}, {n} kept channels with edges into them"
    )
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "one run per channel": lambda: [
            reference_edges(tower, x, each, baseline="zero", steps=STEPS) for each in wanted
        ],
        "channel_edges": lambda: score_edges(
            tower, x, wanted, Room(memory=MEMORY), baseline="zero", steps=STEPS
        ),
    }
    back = [each for each in wanted if 0 <= tower.layer(each.downstream) < tower.n_layers]
    derivatives = [
        sum(STEPS * len(each.receivers) for each in back),
        sum((STEPS - 1) * min(len(each.senders), len(each.receivers)) + 1 for each in back),
    ]
    operations = [
        sum(_reference_operations(tower, x, each, once) for each in wanted) / once,
        _operations(ways["channel_edges"]) / once,
    ]
    costs, forwards, results = [], [], []
    for (name, work), backward, counted in zip(ways.items(), derivatives, operations, strict=True):
        with _passes(tower) as rows:
            start = time.process_time()
            results.append(work())
            taken = time.process_time() - start
        forward, backward = sum(rows) / tower.n_layers, backward / tower.n_layers
        costs.append((forward + backward, counted, taken))
        forwards.append(forward)
        print(
            f"channels: {name:20} {forward:.1f} forwards + {backward:.1f} derivatives by block "
            f"passes, {counted:.1f} forwards by operations, {taken:.1f} s"
        )
    _compare(costs, forwards[1], 3 * STEPS * n)
    largest = max(
        float((slow - fast).abs().max() / slow.abs().max().clamp(min=1e-30))
        for slow, fast in zip(*results, strict=True)
    )
    print(
        f"channels: largest difference {largest:.1e} of a pair's largest edge (float32, bar 5e-6)"
    )


def _kept(tower: HookedResNet, x: Tensor) -> list[Wanted]:
    """The paper's sites, one after the other, with the channels that its preset keeps."""
    nodes = channel_circuit(tower, x, metric=lambda out: out[:, 0], steps=2).nodes
    return [Wanted(up, down, list(nodes[up]), list(nodes[down])) for up, down in pairwise(nodes)]


def _compare(costs: list[tuple[float, float, float]], forward: float, whole: float) -> None:
    """Ratios of both ways; `whole` is what training's count makes of one run per channel."""
    ratios = [slow / fast for slow, fast in zip(*costs, strict=True)]
    # the other way to count: training's, where a backward is two forwards and goes all the way
    counted = whole / (forward + 2 * (costs[1][0] - forward))
    print(
        f"channels: {ratios[0]:.1f} times fewer block passes, {ratios[1]:.1f} times fewer "
        f"operations, {ratios[2]:.1f} times fewer seconds; {counted:.1f} times (bar 30) where "
        "every derivative counts twice and a run per channel goes back through the whole tower"
    )


def _reference_operations(tower: HookedResNet, x: Tensor, each: Wanted, once: int) -> int:
    """Every run of the reference costs the same, so one is counted, less what comes first."""
    first = Wanted(each.upstream, each.downstream, each.senders, each.receivers[:1])
    counted = _operations(lambda: reference_edges(tower, x, first, baseline="zero", steps=1))
    return (counted - once) * STEPS * len(each.receivers)


def _tower() -> HookedResNet:
    torch.manual_seed(0)
    net = ModifiedResNet(COUNTED, output_dim=128, heads=4, image_size=64, width=8).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh ones shut every residual branch
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.5)
    return HookedResNet(net)


def _operations(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@contextmanager
def _passes(tower: HookedResNet) -> Iterator[list[int]]:
    """Collects how many rows went forward through each block that ran."""
    rows: list[int] = []
    blocks: list[Any] = tower.chain
    handles = [
        block.register_forward_hook(lambda module, given, out: rows.append(len(out)))
        for block in blocks
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def reference_edges(
    tower: Tower, x: Tensor, wanted: Wanted, *, baseline: Tensor | str, steps: int
) -> Tensor:
    """The slow second way: a full run per receiver and step."""
    site, axis_d = wanted.upstream, unit_axis(tower, wanted.downstream)
    names = [wanted.upstream, wanted.downstream]
    _, cache = tower.run_with_cache(x, names_filter=names)
    a, end = cache[site].detach(), cache[wanted.downstream].detach().movedim(axis_d, 0)
    zero = torch.zeros_like(a)
    if isinstance(baseline, Tensor):
        zero = tower.run_with_cache(baseline, names_filter=[site])[1][site].detach()
    columns = []
    for d in wanted.receivers:
        total = torch.zeros_like(a)
        for step in range(steps):
            at = (a + step / steps * (zero - a)).requires_grad_()
            change = _run_moved(tower, x, wanted, at).movedim(axis_d, 0)[d] - end[d]
            loss = change.square().reshape(len(x), -1).mean(dim=1).sum()
            total += torch.autograd.grad(loss, at)[0]
        whole = by_unit((zero - a) * total / steps, unit_axis(tower, site))
        columns.append(whole.sum(dim=-1)[:, wanted.senders].T)
    return torch.stack(columns, dim=1)


def _run_moved(tower: Tower, x: Tensor, wanted: Wanted, at: Tensor) -> Tensor:
    kept: list[Tensor] = []
    replace: Callable[..., Tensor] = lambda activation, hook: at.clone()  # noqa: E731
    keep: Callable[..., None] = lambda activation, hook: kept.append(activation.clone())  # noqa: E731
    with torch.enable_grad():
        tower.run_with_hooks(x, fwd_hooks=[(wanted.upstream, replace), (wanted.downstream, keep)])
    return kept[0]
