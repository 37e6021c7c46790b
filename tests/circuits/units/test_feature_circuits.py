"""Circuits of parts of MLPs' outputs: exact with errors, a plain loop, sum rules, neurons twice."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Cut, Units, class_circuits
from interp.circuits.planted.vit import planted_vit
from interp.circuits.planted.world import as_tensor
from interp.circuits.tasks.pairs import PairTask
from interp.models.towers.opening import open_tower
from tests.benchmarks.feature_circuits import OutputCode, OutputParts
from tests.circuits.conftest import open_vit

OUT = [f"blocks.{layer}.hook_mlp_out" for layer in range(3)]


def first(output: Tensor) -> Tensor:
    return output[:, 0] - output[:, 1].square()


@pytest.fixture
def task() -> PairTask:
    torch.manual_seed(40)
    clean, corrupt = torch.randn(2, 5, 3, 16, 16).double()
    return PairTask(clean=clean, corrupt=corrupt, metric=first)


def coded(tower: Any, *, batch_size: int = 2) -> OutputParts:
    """Six made-up features per MLP, which leave most of the output to the error."""
    torch.manual_seed(41)
    codes = {}
    for layer, site in enumerate(OUT):
        encoder, directions = torch.randn(16, 6).double(), torch.randn(6, 16).double()
        reads = f"blocks.{layer}.ln2.hook_normalized"
        codes[site] = OutputCode(reads, lambda x, a=encoder: (x @ a).relu(), directions)
    return OutputParts(tower, codes, batch_size=batch_size)


def test_all_parts_and_errors_are_the_model_and_none_are_corrupt_mlps(task: PairTask) -> None:
    tower = open_vit()
    cut = coded(tower)
    assert isinstance(cut, Cut)
    n = len(cut.names)
    kept = np.stack([np.ones((5, n), bool), np.zeros((5, n), bool)])
    values, ends = cut.run(task, kept)
    with torch.no_grad():
        clean, corrupt = first(tower(task.clean)), first(tower(task.corrupt))
        _, held = tower.run_with_cache(task.corrupt, names_filter=OUT)
        hooks = [(site, lambda y, hook: held[hook.name]) for site in OUT]
        swapped = first(tower.run_with_hooks(task.clean, fwd_hooks=hooks))
    np.testing.assert_allclose(values[0], clean.numpy(), atol=1e-12)
    np.testing.assert_allclose(values[1], swapped.numpy(), atol=1e-12)
    np.testing.assert_allclose(ends, torch.stack([clean, corrupt]).numpy(), atol=1e-12)
    assert np.abs(values[0] - values[1]).mean() > 1


def test_equals_a_plain_loop_that_rebuilds_every_output(task: PairTask) -> None:
    """Example by example: corrupt strengths where a part is gone, its own where it is kept."""
    tower = open_vit()
    cut = coded(tower)
    kept = np.random.default_rng(0).random((3, 5, len(cut.names))) < 0.5
    values, _ = cut.run(task, kept)
    embedded = cut.embed(task.clean, task.corrupt, kept[:, 0])
    sites = [*OUT, *(code.reads for code in cut.codes.values())]
    for number, example in np.ndindex(3, 5):
        with torch.no_grad():
            _, held = tower.run_with_cache(task.corrupt[[example]], names_filter=sites)
            seen: dict[str, Tensor] = {}

            def rebuilt(y: Tensor, hook: Any, mask: np.ndarray, held: Any, seen: Any) -> Tensor:
                layer = OUT.index(hook.name)
                code, own = cut.codes[hook.name], mask[7 * layer : 7 * layer + 7]
                z, z0 = code.encode(seen["x"]), code.encode(held[code.reads])
                error = y - z @ code.directions if own[6] else (
                    held[hook.name] - z0 @ code.directions)  # fmt: skip
                total = error.clone()
                for part in range(6):
                    strength = (z if own[part] else z0)[..., [part]]
                    total = total + strength * code.directions[part]
                return total

            hooks = []
            for site, code in cut.codes.items():
                hooks.append((code.reads, lambda x, hook, seen=seen: seen.update(x=x)))
                hooks.append((site, lambda y, hook, mask=kept[number, example], held=held,
                              seen=seen: rebuilt(y, hook, mask, held, seen)))  # fmt: skip
            out = first(tower.run_with_hooks(task.clean[[example]], fwd_hooks=hooks))
        assert values[number, example] == pytest.approx(float(out), abs=1e-10)
        if example == 0:
            assert float(first(embedded[number, [0]])) == pytest.approx(float(out), abs=1e-10)


@pytest.mark.slow
def test_scores_of_a_site_add_up_to_what_its_exchange_costs(task: PairTask) -> None:
    """Sum rule of integrated gradients, errors among the parts; with one step it fails."""
    tower = open_vit()
    cut, rough = coded(tower), coded(tower)
    object.__setattr__(cut, "steps", 400)
    object.__setattr__(rough, "steps", 1)
    scores, roughly = cut.score(task), rough.score(task)
    for place, site in enumerate(OUT):
        with torch.no_grad():
            _, held = tower.run_with_cache(task.corrupt, names_filter=[site])
            swapped = tower.run_with_hooks(
                task.clean, fwd_hooks=[(site, lambda y, hook, held=held: held[hook.name])]
            )
            lost = (first(tower(task.clean)) - first(swapped)).numpy()
        own = cut.groups == place
        np.testing.assert_allclose(scores[:, own].sum(axis=1), lost, atol=0.01 * np.abs(lost).max())
        assert np.abs(roughly[:, own].sum(axis=1) - lost).max() > 0.02 * np.abs(lost).max()


def test_neurons_as_parts_are_the_neurons_of_units(task: PairTask) -> None:
    tower = open_vit()
    codes = {
        site: OutputCode(f"blocks.{layer}.mlp.hook_post", lambda x: x, tower.W_out[layer].detach())
        for layer, site in enumerate(OUT)
    }
    ours = OutputParts(tower, codes)
    theirs = Units.of(tower, "blocks.*.mlp.hook_post", task.clean, axis="d_mlp")
    assert len(ours.names) == len(theirs.names) + 3
    kept = np.random.default_rng(1).random((4, 5, len(theirs.names))) < 0.3
    with_errors = np.ones((4, 5, len(ours.names)), bool)
    with_errors[..., ~ours.errors] = kept
    for chosen in (with_errors, with_errors & ~ours.errors):  # a bias is no difference
        np.testing.assert_allclose(ours.run(task, chosen)[0], theirs.run(task, kept)[0], atol=1e-10)
    np.testing.assert_allclose(ours.score(task)[:, ours.errors], 0, atol=1e-10)
    one, two = ours.score(task)[:, ~ours.errors], theirs.score(task)
    np.testing.assert_allclose(one, two, atol=1e-10)


def test_what_moves_is_what_differs_between_the_runs(task: PairTask) -> None:
    cut = coded(open_vit())
    moved = cut.moved(task)
    assert (moved > 0).all() and len(moved) == len(cut.names)
    still = PairTask(clean=task.clean, corrupt=task.clean, metric=first)
    assert not cut.moved(still).any()


@pytest.mark.slow
def test_planted_neurons_are_found_and_do_the_work_and_others_do_none() -> None:
    from tests.benchmarks.transcoders import _as_lively, _work

    planted = planted_vit("all separate", seed=1)
    tower: Any = open_tower(planted.source)
    codes = {
        f"blocks.{layer}.hook_mlp_out": OutputCode(
            f"blocks.{layer}.mlp.hook_post", lambda x: x, tower.W_out[layer].detach()
        )
        for layer in range(4)
    }
    found = class_circuits(OutputParts(tower, codes, batch_size=64), planted.pictures(8),
                           domain="A", classifier=planted.classifier,
                           preprocess=as_tensor)  # fmt: skip
    cut: Any = found.cut
    true = np.zeros(len(cut.names), bool)
    starts = [int(np.flatnonzero(cut.groups == layer)[0]) for layer in range(4)]
    true[[starts[layer] + place for layer, place in planted.truth("A").neurons]] = True
    kept = np.broadcast_to(true, (len(found.classes), 2, len(true)))
    moved = [cut.moved(half) for half in found.halves]
    others = _as_lively(kept, moved, cut)
    assert not (others & kept).any() and (others.sum(-1) == kept.sum(-1)).all()
    work = _work(found, [kept, others])
    assert work[0].min() > 0.99 and work[1].max() < 0.05
