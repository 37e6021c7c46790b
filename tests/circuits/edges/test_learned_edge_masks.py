"""Learned masks of edges: the run they are learned in, what they find, and what they must not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Chain, ClassCircuits, Edges, attribute, edge_mask_scores, wire
from interp.circuits.discovery.faithfulness import measure_masks
from interp.circuits.edges import edge_mask_scores as learned_edge_masks
from interp.circuits.edges.edge_mask_scores import _alone, _Gates, _starting, _total
from interp.circuits.edges.edge_scores import EdgeTask
from interp.circuits.edges.wire import open_run, parts_of, run_gated
from interp.circuits.sharing.overlap_measures import best_of_groups
from interp.core.errors import AlikeError, SpecificationError
from interp.models.towers.vit import HookedViT
from tests.circuits.conftest import Function, bent, open_text, open_vit
from tests.circuits.planted_models import found, kept_on_others, model
from tests.refusals import refuses

FEW = {"shares": (0.1, 0.5), "steps": 8}


def by_masks(**options: Any) -> ClassCircuits:
    first, second = (
        edge_mask_scores(found("all shared", "edge", "A").cut.tower, **options, **read.words)
        for read in found("all shared", "edge", "A").halves
    )
    return replace(found("all shared", "edge", "A"), values=(first, second))


@pytest.fixture(params=["vit", "text", "planted"])
def runs(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    """A tower that can be wired, with pairs and a metric."""
    torch.manual_seed(12)
    if request.param == "planted":
        read = found("all shared", "edge", "A").halves[0][np.arange(0, 16, 3)]
        return model()[1], {**read.words, "pairs": None}
    if request.param == "text":
        clean, corrupt = torch.randint(1, 19, (2, 3, 6))
        clean[:, 4] = corrupt[:, 4] = 19  # where the texts end: the largest token
        return open_text(), {"clean": clean, "corrupt": corrupt, "metric": bent}
    clean, corrupt = torch.randn(2, 3, 3, 16, 16).double()
    return open_vit(), {"clean": clean, "corrupt": corrupt, "metric": bent}


def task_of(tower: Any, words: dict[str, Any]) -> EdgeTask:
    ends = words["clean"], words["corrupt"]
    return EdgeTask(tower, parts_of(tower), wire(tower), words["metric"], *ends)


def test_a_hard_mask_gives_the_very_numbers_that_a_circuit_is_judged_by(runs: Any) -> None:
    tower, words = runs
    wiring, n = wire(tower), len(words["clean"])
    for share in (0.2, 0.7, 1.0):
        drawn = np.random.default_rng(3).random((n, wiring.n_edges)) < share
        values, _ = measure_masks(tower, wiring, drawn[None], **words)
        gates = torch.as_tensor(drawn, dtype=torch.float64).requires_grad_()
        ours = _alone(task_of(tower, words), gates)
        np.testing.assert_allclose(ours.detach().numpy(), values[0], rtol=0, atol=1e-9)


def test_gradients_of_gates_are_those_of_differences(runs: Any) -> None:
    tower, words = runs
    wiring, corrupt = wire(tower), open_run(tower, words["corrupt"])
    clean = open_run(tower, words["clean"])
    start, words_of_clean = clean.streams[0], clean.words
    torch.manual_seed(4)
    gates = torch.rand(len(start), wiring.n_edges, dtype=torch.float64)
    way = torch.randn_like(gates)

    def value(own: Tensor) -> Tensor:
        out = run_gated(tower, wiring, own, start=start, corrupt=corrupt, words=words_of_clean)
        return out.pow(2).sum()

    leaf = gates.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-6
    with torch.no_grad():
        rise = (value(gates + step * way) - value(gates - step * way)) / (2 * step)
    assert float((slope * way).sum()) == pytest.approx(float(rise), rel=1e-5, abs=1e-7)
    assert float(slope.abs().max()) > 0


def test_gates_keep_what_a_cut_keeps_and_in_turn_a_share_of_all() -> None:
    wiring = wire(model()[1])
    torch.manual_seed(0)
    logits = torch.randn(2, wiring.n_edges, dtype=torch.float64)
    gates = _Gates.of(wiring, (0.1, 0.5), logits.device)
    sizes = (logits - logits.min()).numpy()  # so that the best are the largest
    for step, share in ((0, 0.1), (1, 0.1), (2, 0.5), (3, 0.5), (4, 0.1)):
        groups = wiring.groups if step % 2 == 0 else np.zeros(wiring.n_edges)
        right = best_of_groups(sizes, groups, share)
        assert np.array_equal(gates.at(step, logits).numpy() > 0.5, right)


def test_a_mask_drops_what_attribution_ranks_first() -> None:
    """Block 0 takes 3 away, block 1 adds 2.5, both from the input: the metric is their sum.

    Attribution ranks the loudest edges first, which are those that do harm.
    """

    def add(to: int, times: float) -> Function:
        unit = torch.eye(3, dtype=torch.float64)[to]
        return Function(lambda x: times * x[..., :1] * unit)

    tower = Chain([add(1, -3.0), add(2, 2.5)])
    clean = torch.zeros(4, 1, 3, dtype=torch.float64)
    clean[..., 0] = 1.0
    words: dict[str, Any] = {
        "clean": clean,
        "corrupt": 0 * clean,
        "metric": lambda out: out.sum(dim=1),
    }
    names = wire(tower).names
    loud = attribute(tower, **words).scores
    assert {names[place] for place in np.argsort(-np.abs(loud))[:2]} == {"input->m0", "m0->logits"}
    learned = edge_mask_scores(tower, shares=(0.5,), steps=60, rate=0.1, **words)
    best = {names[place] for place in np.argsort(-learned[0])[:3]}
    assert best == {"input->m1", "m1->logits", "input->logits"}


def test_planted_circuits_are_learned() -> None:
    learned = by_masks(shares=(0.1, 0.2), steps=8)
    assert kept_on_others(learned, 0.2) > 0.95
    assert all(((0 < each) & (each < 1)).all() for each in learned.values)


def test_a_mask_is_never_worse_on_its_pictures_than_what_it_started_from(monkeypatch) -> None:
    """Steps so large that they throw the order about: what is lost by them is not kept."""
    monkeypatch.setattr("interp.circuits.edges.hard_gates.FLAT", 0.0)
    tower, (read, _) = model()[1], found("all shared", "edge", "A").halves
    task = replace(task_of(tower, {**read.words}), labels=read.pairs.clean.label.tolist())
    _, place = np.unique(task.labels, return_inverse=True)
    gates = _Gates.of(task.wiring, (0.2,), torch.device("cpu"))
    first = _starting(task, place)
    thrown = edge_mask_scores(tower, shares=(0.2,), steps=3, rate=5.0, **read.words)
    each = np.stack([thrown[place == one][0] for one in range(len(first))])
    had, has = (_total(task, gates, one, place, 8) for one in (first, torch.as_tensor(each)))
    assert (has >= had - 1e-9).all()


def small(n: int) -> tuple[HookedViT, dict[str, Any]]:
    """A tower of random weights, with n pairs."""
    torch.manual_seed(12)
    clean, corrupt = torch.randn(2, n, 3, 16, 16).double()
    return open_vit(), {"clean": clean, "corrupt": corrupt, "metric": bent}


def test_passes_of_a_few_examples_add_up_to_a_step() -> None:
    tower, words = small(7)
    whole, parts, least = (
        edge_mask_scores(tower, **FEW, **words, **room)
        for room in ({"batch_size": 32}, {"batch_size": 3}, {"memory": 1})
    )
    np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-6)
    np.testing.assert_allclose(whole, least, rtol=0, atol=1e-6)


def test_the_order_of_pairs_is_the_seeds() -> None:
    tower, words = small(40)  # a step takes 32 of them
    one, same, other = (edge_mask_scores(tower, seed=s, **FEW, **words) for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_attribute_and_cuts_know_learned_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_edge_masks, "STEPS", 4)
    read, tower = found("all shared", "edge", "A").halves[0], model()[1]
    plain = edge_mask_scores(tower, steps=4, **read.words)
    named = attribute(tower, method="learned masks", batch_size=32, **read.words)
    assert np.array_equal(named.values, plain)
    cut: Any = replace(found("all shared", "edge", "A").cut, method="learned masks")  # type: ignore[type-var]
    assert np.array_equal(cut.score(read), plain)


def test_what_cannot_be_learned_is_refused() -> None:
    read, tower = found("all shared", "edge", "A").halves[0], model()[1]

    def refuse(error: type[Exception], words: str, **changes: Any) -> None:
        refuses(error, words, edge_mask_scores, tower, **{**read.words, **changes})

    refuses(SpecificationError, "learned masks", Edges, tower, method="learned mask")
    refuse(SpecificationError, "shares", shares=(0.5, 1.0))
    refuse(SpecificationError, "0 steps", steps=0)
    refuse(AlikeError, "identical", corrupt=read.clean)
    refuse(SpecificationError, "ignores", metric=lambda outputs: torch.ones(len(outputs)))
    refuse(SpecificationError, "gradient", metric=lambda outputs: outputs.argmax(dim=1).double())
