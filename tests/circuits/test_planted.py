"""Models whose circuits are known: the world, what was planted, its disguise, and the proof."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits.certification import certify_edges, certify_truth
from interp.circuits.disguise import disguise
from interp.circuits.planted import CONDITIONS, Blueprint, Planted, plant
from interp.circuits.planted_stages import K_CODE
from interp.circuits.planted_weights import Draft, zero_sum_basis
from interp.circuits.planted_world import (
    AMPLITUDE,
    CARRIERS,
    CLASSES,
    DOMAINS,
    PARTS,
    Scenes,
    World,
)
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.models.vit import HookedViT

SEEDS = (0, 1, 2)


def blueprints() -> list[Blueprint]:
    return [Blueprint(condition, seed) for condition in CONDITIONS for seed in SEEDS]


def logits(planted: Planted, scenes: Scenes) -> Tensor:
    with torch.no_grad():
        return planted.classifier.logits(planted.source(planted.world.render(scenes)))


def contrast(values: Tensor) -> float:
    """How far logits spread over the classes, as `Classifier.standardised` has it."""
    return values.var(dim=-1, correction=0).mean().sqrt().item()


# the world


def test_carriers_and_glyphs_are_orthogonal() -> None:
    carriers = np.stack(list(CARRIERS.values()))
    np.testing.assert_allclose(carriers @ carriers.T, np.eye(3), atol=1e-15)
    glyphs = np.concatenate(list(World(3).glyphs.values())).reshape(-1, 64)
    assert len(glyphs) == sum(PARTS.values())
    np.testing.assert_array_equal(glyphs @ glyphs.T, 64 * np.eye(len(glyphs)))
    np.testing.assert_array_equal(glyphs.sum(axis=1), 0)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_picture_holds_its_glyphs_and_nothing_in_the_other_carrier(domain: str) -> None:
    world = World(1)
    scenes = world.scenes(24, domain=domain, seed=2)
    pictures = world.render(replace(scenes, noise=np.zeros_like(scenes.noise))).numpy() - 0.5
    other = "B" if domain == "A" else "A"
    along = {name: np.einsum("n c i j, c -> n i j", pictures, CARRIERS[name]) for name in CARRIERS}
    assert np.abs(along[other]).max() < 1e-12
    for n in range(len(scenes)):
        for column, (part, values) in enumerate(scenes.values().items()):
            row, place = divmod(int(scenes.place[n, column]), 4)
            carrier = along["cue" if part == "cue" else domain][n]
            patch = carrier[8 * row : 8 * row + 8, 8 * place : 8 * place + 8]
            drawn = AMPLITUDE * scenes.contrast[n, column] * world.glyphs[part][values[n]]
            np.testing.assert_allclose(patch, drawn, atol=1e-12)


def test_pictures_are_reproduced_by_seed_and_stay_in_range() -> None:
    world = World(0)
    first, again = (world.draw("p2 q1", "B", 6, seed=4) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, world.draw("p2 q1", "B", 6, seed=5))
    assert first.shape == (6, 3, 32, 32) and 0 < first.min() and first.max() < 1
    assert not np.array_equal(World(0).glyphs["P"], World(1).glyphs["P"])


def test_aligned_partners_differ_in_one_thing() -> None:
    scenes = World(0).scenes(16, domain="A")
    classes, domains = scenes.of_other_class(seed=1), scenes.of_other_domain()
    assert (classes.label != scenes.label).all() and (classes.domain == "A").all()
    assert (domains.label == scenes.label).all() and (domains.domain == "B").all()
    for partner in (classes, domains):
        for same in ("r", "k", "place", "contrast", "noise"):
            assert np.array_equal(getattr(partner, same), getattr(scenes, same))


def test_k_goes_with_the_class_and_r_does_not() -> None:
    scenes = World(0).scenes(4000, domain="B")
    assert (scenes.k == scenes.label).mean() == pytest.approx(0.9, abs=0.02)
    assert all(abs(np.corrcoef(scenes.r, f)[0, 1]) < 0.05 for f in (scenes.label, scenes.k))
    assert all(len(set(places)) == len(PARTS) for places in scenes.place)
    assert np.bincount(scenes.label).tolist() == [500] * 8


def test_what_the_world_does_not_have_is_refused() -> None:
    with pytest.raises(DataError, match="p3 q1"):
        World().draw("p3q1", "A", 1)
    with pytest.raises(DataError, match="domain 'C'"):
        World().draw("p3 q1", "C", 1)
    with pytest.raises(SampleError, match="n = 0"):
        World().scenes(0, domain="A")


# what is planted


@pytest.mark.parametrize("blueprint", blueprints(), ids=str)
def test_every_picture_is_told_in_both_domains(blueprint: Blueprint) -> None:
    planted = plant(blueprint)
    for domain in DOMAINS:
        scenes = planted.world.scenes(64, domain=domain, seed=9)
        assert logits(planted, scenes).argmax(dim=1).tolist() == scenes.label.tolist()


def test_both_domains_answer_alike() -> None:
    for condition, margin in (("all shared", 1 / 1.25**0.5), ("all separate", 1 / 2.5**0.5)):
        planted = plant(Blueprint(condition))
        for domain in DOMAINS:
            values = logits(planted, planted.world.scenes(16, domain=domain)).sort(dim=1).values
            own = values[:, -1] - values[:, -2]  # cos of the class with class + half a unit
            torch.testing.assert_close(own, torch.full_like(own, margin), rtol=1e-3, atol=0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_k_can_be_decoded_at_the_class_token_and_is_never_read(condition: str) -> None:
    planted = plant(Blueprint(condition, 1))
    tower = HookedViT(planted.source)
    for domain in DOMAINS:
        scenes = planted.world.scenes(160, domain=domain)
        site = f"blocks.{tower.n_layers - 1}.hook_resid_post"
        _, cache = tower.run_with_cache(planted.world.render(scenes), names_filter=site)
        token = cache[site][:, 0].detach()
        token = torch.cat([token - token.mean(dim=0), torch.ones(len(token), 1)], dim=1)
        # a level is drawn as .4 to .6 or 1.2 to 1.8; the class alone would be right in .9 of them
        levels = torch.from_numpy(K_CODE[scenes.k] * scenes.contrast[:, 3:4])
        probe = torch.linalg.pinv(token[:80], rtol=0.01) @ levels[:80]
        assert torch.equal(token[80:] @ probe > 0.9, levels[80:] > 0.9)
        before = logits(planted, scenes)
        for k in (scenes.k + 1, scenes.k + 5):
            moved = logits(planted, replace(scenes, k=k % 8)) - before
            assert moved.abs().max() < 1e-3 * contrast(before)
        # its twin: the class is read
        moved = logits(planted, scenes.of_other_class()) - before
        assert moved.abs().amax(dim=1).min() > contrast(before)


def test_truths_share_all_or_only_what_has_one_node() -> None:
    shared, separate = (plant(Blueprint(condition)) for condition in CONDITIONS)
    assert shared.truth("A") == shared.truth("B")
    a, b = separate.truth("A"), separate.truth("B")
    assert a.nodes & b.nodes == {"input", "m0", "logits"} and not a.neurons & b.neurons
    assert a.edges & b.edges == {("input", "m0")}
    assert ("m0", "a1.h0<v>") in a.edges and ("m1", "a3.h1<v>") in b.edges
    assert len(a.nodes) == len(b.nodes) == 7
    with pytest.raises(DataError, match="domain 'C'"):
        shared.truth("C")
    with pytest.raises(SpecificationError, match="all shared"):
        Blueprint("all sharde")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_head_or_neuron_is_idle(condition: str) -> None:
    planted = plant(Blueprint(condition))
    tower, world = HookedViT(planted.source), planted.world
    pictures = torch.cat([world.render(world.scenes(64, domain=domain)) for domain in DOMAINS])
    with torch.no_grad():
        _, cache = tower.run_with_cache(pictures)
    for layer in range(tower.n_layers):
        heads = cache[f"blocks.{layer}.attn.hook_z"][:, 0]
        assert (heads.std(dim=0).amax(dim=-1) > 0.1).all()
        neurons = cache[f"blocks.{layer}.mlp.hook_post"]
        assert (neurons.std(dim=0).amax(dim=0) > 1e-3).all()
        written = cache[f"blocks.{layer}.hook_mlp_out"].std(dim=0).norm(dim=-1)
        assert 0.1 < written.max() < 2


@torch.no_grad()
def test_norms_hand_on_signals_as_they_are() -> None:
    draft = Draft()
    stream = 128 * 2**0.5 * draft.signal("constant")
    for name in ("one", "two", "three"):
        stream = stream + 1.5 * draft.signal(name)
    after = draft.model.ln_post(stream) @ draft.signal("two")
    assert after.item() == pytest.approx(1.5, rel=5e-4)
    basis = zero_sum_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(63).double())
    assert basis.sum(dim=1).abs().max() == 0


# its disguise


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_disguise_changes_the_weights_and_not_the_function(condition: str) -> None:
    plain = plant(Blueprint(condition))
    shift_weights(plain)  # so that nothing is zero where a disguise might forget it
    hidden = disguise(plain, seed=1)
    pictures = torch.cat([plain.world.draw(name, d, 2) for name in CLASSES for d in DOMAINS])
    with torch.no_grad():
        torch.testing.assert_close(
            hidden.source(pictures), plain.source(pictures), rtol=0, atol=1e-9
        )
    for name, weight in hidden.source.named_parameters():
        if name not in ("ln_pre.weight", "ln_pre.bias", "ln_post.bias"):
            assert not torch.equal(weight, plain.source.get_parameter(name)), name
    assert disguise(plain, seed=1).truths == hidden.truths != disguise(plain, seed=2).truths


@torch.no_grad()
def shift_weights(planted: Planted) -> None:
    torch.manual_seed(0)
    for parameter in planted.source.transformer.parameters():
        parameter += 0.01 * torch.randn_like(parameter)


# the proof


@pytest.mark.parametrize("blueprint", blueprints(), ids=str)
def test_the_truth_is_certified(blueprint: Blueprint) -> None:
    planted = disguise(plant(blueprint), seed=blueprint.seed)
    table = certify_truth(planted, HookedViT(planted.source), seed=blueprint.seed)
    assert table.frame["ok"].all(), table.frame[~table.frame["ok"]]
    assert table.facts["accuracy"] == {"A": 1.0, "B": 1.0}
    found = table.frame.query("inside and kind == 'node'").groupby("domain")["component"].agg(set)
    for domain in DOMAINS:
        assert found[domain] == planted.truth(domain).nodes - {"input", "logits"}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_edge_is_certified(condition: str) -> None:
    planted = disguise(plant(Blueprint(condition, 4)), seed=3)
    table = certify_edges(planted, HookedViT(planted.source), n=8)
    assert table.frame["ok"].all(), table.frame[~table.frame["ok"]]
    assert table.frame["inside"].sum() == 2 * 9 and len(table) == 2 * 479


@torch.no_grad()
def silence_a_head(planted: Planted) -> None:
    planted.source.transformer.resblocks[1].attn.out_proj.weight[:, :16] = 0


@torch.no_grad()
def silence_neurons(planted: Planted) -> None:
    planted.source.transformer.resblocks[2].mlp.c_proj.weight.zero_()


@torch.no_grad()
def let_k_be_read(planted: Planted) -> None:
    """The head that carries K writes a class's direction as well; in B it carries noise there."""
    blocks = planted.source.transformer.resblocks
    blocks[2].attn.out_proj.weight[:, 0] += blocks[3].attn.out_proj.weight[:, 0]


@torch.no_grad()
def let_b_use_the_block_of_a(planted: Planted) -> None:
    """Domain B's neurons move from block 1 to block 2: same function, other circuit."""
    one, two = (planted.source.transformer.resblocks[layer].mlp for layer in (1, 2))
    two.c_fc.weight[8:16], two.c_fc.bias[8:16] = one.c_fc.weight[:8], one.c_fc.bias[:8]
    two.c_proj.weight[:, 8:16] = one.c_proj.weight[:, :8]
    one.c_proj.weight.zero_()


@pytest.mark.parametrize(
    ("harm", "domains", "components"),
    [
        (silence_a_head, {"A"}, {"a1.h0", "a1.h1", "m2", "a0.h0"}),  # no margin, nothing passes
        (silence_neurons, {"A"}, {"m2", "a3.h0"}),
        (let_k_be_read, {"A", "B"}, {"a2.h0"}),
        (let_b_use_the_block_of_a, {"B"}, {"m1", "m2"}),
    ],
)
def test_a_broken_plant_fails(
    harm: Callable[[Planted], None], domains: set[str], components: set[str]
) -> None:
    planted = plant(Blueprint("all separate"))
    harm(planted)
    frame = certify_truth(planted, HookedViT(planted.source)).frame
    failed = frame[~frame["ok"]]
    assert set(failed["domain"]) == domains and components <= set(failed["component"])


def test_an_edge_that_bypasses_the_circuit_fails() -> None:
    planted = plant(Blueprint("all shared"))
    with torch.no_grad():  # the writing head reads the heads' P beside the class
        blocks = planted.source.transformer.resblocks
        value = blocks[3].attn.in_proj_weight[2 * 64]
        value += blocks[1].attn.in_proj_weight[2 * 64]
    frame = certify_edges(planted, HookedViT(planted.source), n=8).frame
    assert set(frame[~frame["ok"]]["component"]) == {"a1.h0->a3.h0<v>"}
