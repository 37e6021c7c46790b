"""Scores of edges and their exact effects: literal integers, derivatives, sum rules, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import METHODS, Chain, Wiring, attribute, edge_effects, path_patch, wire
from interp.circuits.edges.wire import Flow, open_run, run_masked
from interp.core.errors import DataError, ShapeError, SiteError, SpecificationError
from tests.circuits.conftest import Function, TinyViT, bent, difference, open_vit
from tests.refusals import refuses

# literal integers, worked out on paper (see `hand` for the tower)

EXACT = {
    "input->m0": 70,
    "input->m1": -54,
    "m0->m1": 40,
    "input->logits": -17,
    "m0->logits": 30,
    "m1->logits": 6,
}
FIRST_ORDER = {**EXACT, "input->m0": 50, "input->m1": -58, "m0->m1": 20}


@pytest.mark.parametrize(("method", "expected"), [("exact", EXACT), ("EAP", FIRST_ORDER)])
def test_edges_are_worth_the_integers_of_the_blackboard(
    hand: Chain, hand_inputs: dict[str, Any], method: str, expected: dict[str, int]
) -> None:
    found = attribute(hand, **hand_inputs, metric=difference, method=method)
    assert dict(zip(found.wiring.names, found.values[0].tolist(), strict=True)) == expected


def test_paths_of_the_blackboard(hand: Chain, hand_inputs: dict[str, Any]) -> None:
    """Two edges into m1 make its stream all corrupt: it then writes what the corrupt m1 writes."""
    both = path_patch(hand, ["input->m1", "m0->m1"], **hand_inputs, metric=difference)
    alone = path_patch(hand, ["m1->logits"], **hand_inputs, metric=difference)
    assert both.tolist() == alone.tolist() == [43 - EXACT["m1->logits"]]


def one_edge_cut(wiring: Wiring) -> np.ndarray:
    masks = np.ones((wiring.n_edges, wiring.n_edges), dtype=bool)
    np.fill_diagonal(masks, False)
    return masks


def soft_run(tower: Any, clean: Flow, corrupt: Flow, wiring: Wiring, weights: Tensor) -> Tensor:
    """The definition, in the open: every reader's stream mixed from parts under real weights."""
    parts, reader = (clean.streams[0] - corrupt.streams[0])[:, None], 0
    for number, component in enumerate([*tower.components, None]):
        n = 1 if component is None else len(component.readers)
        here = weights[wiring.offsets[reader] : wiring.offsets[reader + n]].unflatten(0, (n, -1))
        reader += n
        streams = torch.einsum("rw,bwpd->brpd", here, parts) + corrupt.streams[number][:, None]
        if component is None:
            words = clean.words
            return bent(tower(streams[:, 0], start_at_layer=tower.n_layers, **words))
        new = component.run(streams, clean.words.get("tokens"))
        parts = torch.cat([parts, new - component.write(corrupt.written[number])], dim=1)
    raise AssertionError


def test_masked_runs_equal_the_definition(wired: Any) -> None:
    tower, clean, corrupt = wired
    wiring = wire(tower)
    runs = open_run(tower, clean), open_run(tower, corrupt)
    masks = np.random.default_rng(0).random((5, wiring.n_edges)) < 0.6
    outputs = run_masked(tower, wiring, masks, clean=runs[0], corrupt=runs[1])
    for mask, output in zip(masks, outputs, strict=True):
        with torch.no_grad():
            slow = soft_run(tower, *runs, wiring, torch.as_tensor(mask).double())
        torch.testing.assert_close(bent(output), slow, rtol=0, atol=1e-12)


def test_path_patching_equals_a_masked_run_for_every_edge(wired: Any) -> None:
    tower, clean, corrupt = wired
    wiring = wire(tower)
    runs = open_run(tower, clean), open_run(tower, corrupt)
    slow = run_masked(tower, wiring, one_edge_cut(wiring), clean=runs[0], corrupt=runs[1])
    expected = torch.stack([bent(runs[0].output) - bent(output) for output in slow]).T
    for batch_size in (1, 7):
        found = edge_effects(
            tower, clean=clean, corrupt=corrupt, metric=bent, batch_size=batch_size
        )
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("n", [1, 6, 40])
def test_any_set_of_edges_equals_a_masked_run(wired: Any, n: int) -> None:
    tower, clean, corrupt = wired
    wiring = wire(tower)
    cut = np.random.default_rng(n).choice(wiring.n_edges, n, replace=False)
    masks = np.ones((1, wiring.n_edges), dtype=bool)
    masks[0, cut] = False
    runs = open_run(tower, clean), open_run(tower, corrupt)
    slow = bent(run_masked(tower, wiring, masks, clean=runs[0], corrupt=runs[1])[0])
    names = [wiring.names[edge] for edge in cut]
    fast = path_patch(tower, names, clean=clean, corrupt=corrupt, metric=bent, batch_size=2)
    np.testing.assert_allclose(fast, slow.numpy(), rtol=0, atol=1e-12)


def test_eap_is_the_derivative_of_the_definition(wired: Any) -> None:
    tower, clean, corrupt = wired
    wiring = wire(tower)
    runs = open_run(tower, clean), open_run(tower, corrupt)
    slow = torch.autograd.functional.jacobian(
        lambda weights: soft_run(tower, *runs, wiring, weights),
        torch.ones(wiring.n_edges, dtype=torch.float64),
    )
    for batch_size in (1, 3):
        found = attribute(
            tower, clean=clean, corrupt=corrupt, metric=bent, method="EAP", batch_size=batch_size
        )
        np.testing.assert_allclose(found.values, slow.numpy(), rtol=0, atol=1e-12)


def test_a_small_memory_changes_no_score(wired: Any) -> None:
    tower, clean, corrupt = wired
    words = {"clean": clean, "corrupt": corrupt, "metric": bent}
    whole = attribute(tower, **words)
    for memory in (1, 100_000):
        np.testing.assert_allclose(
            attribute(tower, **words, memory=memory).values, whole.values, rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("method", ["EAP", "EAP-IG-inputs"])
def test_edges_that_leave_a_node_sum_to_its_attribution(method: str) -> None:
    """Node by node, in a plain run: the difference of its part times the gradient behind it."""
    tower = open_vit()
    torch.manual_seed(13)
    clean, corrupt = torch.randn(2, 2, 3, 16, 16).double()
    found = attribute(tower, clean=clean, corrupt=corrupt, metric=bent, method=method, steps=4)
    a, b = open_run(tower, clean), open_run(tower, corrupt)
    states = [1.0] if method == "EAP" else [0.25, 0.5, 0.75, 1.0]
    expected = []
    for site, number in (("hook_resid_mid", 0), ("hook_resid_post", 1)):
        for layer in range(tower.n_layers):
            gradient = torch.zeros_like(a.streams[0])
            for state in states:
                start = b.streams[0] + state * (a.streams[0] - b.streams[0])
                kept = {}
                with tower.hooks(
                    fwd_hooks=[(f"blocks.{layer}.{site}", lambda t, hook, k=kept: k.update(at=t))]
                ):
                    values = bent(tower(start.detach().requires_grad_(), start_at_layer=0))
                gradient += torch.autograd.grad(values.sum(), kept["at"])[0] / len(states)
            component = tower.components[2 * layer + number]
            part = component.write(a.written[2 * layer + number] - b.written[2 * layer + number])
            scores = (part * gradient[:, None]).sum(dim=(2, 3)).mean(dim=0)
            expected += list(zip(component.writers, scores.tolist(), strict=True))
    nodes = dict(zip(found.wiring.nodes, found.node_scores, strict=True))
    for name, score in expected:
        assert nodes[name] == pytest.approx(score, abs=1e-12)


@pytest.mark.slow
def test_more_steps_are_more_complete() -> None:
    """All that the output reads sums to the whole difference, as the path is cut finer."""
    tower = open_vit()
    torch.manual_seed(14)
    clean, corrupt = torch.randn(2, 1, 3, 16, 16).double()
    gap = float((bent(tower(clean)) - bent(tower(corrupt))).detach())
    errors = []
    for steps in (4, 256):
        found = attribute(
            tower, clean=clean, corrupt=corrupt, metric=bent, steps=steps, method="EAP-IG-inputs"
        )
        errors.append(abs(found.node_scores[0] - gap))  # all paths begin at the input
    assert errors[1] < 0.02 * abs(gap) < errors[0]


def test_activations_on_the_way_equal_the_naive_loop() -> None:
    tower: Any = open_vit(layers=2)
    torch.manual_seed(15)
    clean, corrupt = torch.randn(2, 2, 3, 16, 16).double()
    found = attribute(
        tower, clean=clean, corrupt=corrupt, metric=bent, method="EAP-IG-activations", steps=3
    )
    a, b = open_run(tower, clean), open_run(tower, corrupt)
    z = "blocks.0.attn.hook_z"
    change = (a.written[0] - b.written[0])[:, :, 1] @ tower.blocks[0].attn.W_O[1]
    slow = torch.zeros(2, dtype=torch.float64)
    for state in (1 / 3, 2 / 3, 1.0):
        kept: dict[str, Tensor] = {}
        mixed = b.written[0] + state * (a.written[0] - b.written[0])
        hooks = [
            (z, lambda t, hook, m=mixed: m.requires_grad_()),
            ("blocks.1.hook_resid_post", lambda t, hook, k=kept: k.update(at=t)),
        ]
        values = bent(tower.run_with_hooks(clean, fwd_hooks=hooks))
        slow += (change * torch.autograd.grad(values.sum(), kept["at"])[0]).sum(dim=(1, 2)) / 3
    edge = found.wiring.edge("a0.h1->logits")
    np.testing.assert_allclose(found.values[:, edge], slow.detach().numpy(), atol=1e-12)


def straight_block(block: Any, streams: list[Tensor], at: Tensor, part: str) -> Tensor:
    """A head's or MLP's work as the linear map that it is at a stream `at`, written out."""

    def norm(own: Any, stream: Tensor) -> Tensor:
        scale = (at.var(dim=-1, keepdim=True, correction=0) + own.source.eps).sqrt()
        return (stream - stream.mean(dim=-1, keepdim=True)) / scale * own.w + own.b

    if part == "mlp":
        before = norm(block.ln2, at) @ block.mlp.W_in + block.mlp.b_in
        gain = torch.nn.functional.gelu(before) / before
        made = norm(block.ln2, streams[0]) @ block.mlp.W_in + block.mlp.b_in
        return ((made * gain) @ block.mlp.W_out + block.mlp.b_out)[:, None]
    attn, seen = block.attn, norm(block.ln1, at)
    heads = []
    for head, stream in enumerate(streams):
        q, k = (seen @ w[head] + b[head] for w, b in ((attn.W_Q, attn.b_Q), (attn.W_K, attn.b_K)))
        pattern = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        values = norm(block.ln1, stream) @ attn.W_V[head] + attn.b_V[head]
        heads.append(pattern @ values @ attn.W_O[head])
    return torch.stack(heads, dim=1)


def test_relp_is_the_derivative_of_the_straight_tower() -> None:
    """The tower is written out as it is at the clean run, and its edges get real weights."""
    tower: Any = open_vit()
    torch.manual_seed(16)
    clean, corrupt = torch.randn(2, 2, 3, 16, 16).double()
    wiring, a, b = wire(tower), open_run(tower, clean), open_run(tower, corrupt)
    differ = [
        c.write(x - y) for c, x, y in zip(tower.components, a.written, b.written, strict=True)
    ]
    start = a.streams[0] - b.streams[0]
    n_heads = 2

    def straight(weights: Tensor) -> Tensor:
        # of a part, 1 - weight is corrupt; what reads it moves by a straight map of that
        corrupted, reader = start[:, None], 0
        moved = torch.zeros_like(corrupted)  # how far each part has moved from the clean run
        for number, component in enumerate([*tower.components, None]):
            n = 1 if component is None else len(component.readers)
            here = weights[wiring.offsets[reader] : wiring.offsets[reader + n]].unflatten(
                0, (n, -1)
            )
            reader += n
            lost = torch.einsum("rw,bwpd->brpd", here - 1, corrupted)
            streams = (a.streams[number] + moved.sum(dim=1))[:, None] + lost
            if component is None:
                last, at = streams[:, 0], a.streams[-1]
                final, source = tower.ln_final, tower.source
                scale = (at.var(dim=-1, keepdim=True, correction=0) + final.source.eps).sqrt()
                pooled = ((last - last.mean(dim=-1, keepdim=True)) / scale * final.w + final.b)[
                    :, 0
                ]
                return bent(pooled @ source.proj)
            block, at = tower.blocks[component.layer], a.streams[number]
            many = n > 1
            which = [streams[:, 2 * n_heads + head] for head in range(n_heads)] if many else None
            part = "attn" if many else "mlp"
            new = straight_block(block, which or [streams[:, 0]], at, part)
            old = straight_block(block, [at] * (n_heads if many else 1), at, part)
            moved = torch.cat([moved, new - old], dim=1)
            corrupted = torch.cat([corrupted, differ[number]], dim=1)
        raise AssertionError

    slow = torch.autograd.functional.jacobian(
        straight, torch.ones(wiring.n_edges, dtype=torch.float64)
    )
    found = attribute(tower, clean=clean, corrupt=corrupt, metric=bent, method="RelP")
    np.testing.assert_allclose(found.values, slow.numpy(), rtol=0, atol=1e-12)
    asked = np.array([("<q>" in name or "<k>" in name) for name in wiring.names])
    assert np.abs(found.values[:, asked]).max() == 0 < np.abs(found.values).max()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_contract(wired: Any, method: str) -> None:
    tower, clean, corrupt = wired
    found = attribute(tower, clean=clean, corrupt=corrupt, metric=bent, method=method, steps=2)
    assert found.values.shape == (3, wire(tower).n_edges) and np.isfinite(found.values).all()
    assert found.method == method and found.metric == "bent"
    assert found.scores.shape == (wire(tower).n_edges,)
    assert all(p.requires_grad for p in tower.parameters())
    assert not any(point.fwd_hooks for point in tower.hook_dict.values())


def test_refusals(hand: Chain, hand_inputs: dict[str, Any]) -> None:
    words: dict[str, Any] = {**hand_inputs, "metric": difference}
    refuses(SpecificationError, "EAP-IG-inputs", attribute, hand, **words, method="EAP-IG-input")
    refuses(SpecificationError, "0 steps", attribute, hand, **words, steps=0)
    with pytest.raises(SpecificationError, match="ignores the output"):
        attribute(hand, **hand_inputs, metric=lambda x: torch.ones(len(x)))
    with pytest.raises(SpecificationError, match="ignores the output"):
        attribute(hand, **hand_inputs, metric=lambda x: torch.ones(len(x)), method="exact")
    with pytest.raises(SpecificationError, match="gradient"):
        attribute(hand, **hand_inputs, metric=lambda x: x.argmax(dim=1).float())
    with pytest.raises(DataError, match="identical"):
        attribute(hand, clean=words["clean"], corrupt=words["clean"], metric=difference)
    refuses(SpecificationError, "RelP", attribute, hand, **words, method="RelP")
    refuses(SiteError, "m0->m1", path_patch, hand, ["m1->m0"], **words)
    refuses(SpecificationError, "no edge", path_patch, hand, [], **words)
    for run in (path_patch, lambda tower, _, **more: edge_effects(tower, **more)):
        with pytest.raises(DataError, match="identical"):
            run(hand, ["m0->m1"], **{**words, "corrupt": words["clean"]})
        with pytest.raises(ShapeError, match="one shape"):
            run(hand, ["m0->m1"], **{**words, "corrupt": words["clean"][:, :1]})


def test_a_tower_without_parts_is_refused(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    refuses(SpecificationError, "TinyViT", attribute, vit, **vit_inputs, metric=difference)


def test_no_hook_or_freeze_outlives_an_error(hand_inputs: dict[str, Any]) -> None:
    class Failing(torch.nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("broken")
            return super().forward(input)

    tower = Chain([Failing(2, 2), Function(torch.relu)])
    refuses(RuntimeError, "broken", attribute, tower, **hand_inputs, metric=difference)
    assert all(p.requires_grad for p in tower.parameters())
    assert not any(point.fwd_hooks for point in tower.hook_dict.values())
