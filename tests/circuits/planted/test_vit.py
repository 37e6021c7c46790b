"""Models whose circuits are known: the world, what was planted, its disguise, and the proof."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp import circuits
from interp.circuits import Metric, Target, attribute, edge_effects, wire
from interp.circuits.planted.certification import certify_edges, certify_shared, certify_truth
from interp.circuits.planted.conditions import CONDITIONS, DOSES, PIECES
from interp.circuits.planted.stages import K_CODE
from interp.circuits.planted.vit import Blueprint, Planted, plant
from interp.circuits.planted.weights import disguise
from interp.circuits.planted.world import (
    AMPLITUDE,
    CARRIERS,
    CLASSES,
    DOMAINS,
    PARTS,
    Scenes,
    World,
)
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.models.towers.vit import HookedViT
from tests.refusals import refuses

EVERY = bool(os.environ.get("ALL_BLUEPRINTS"))
"""A few blueprints here; all of them, in an hour, by `ALL_BLUEPRINTS=1 pytest -m "slow or not slow"
tests/circuits/planted/test_vit.py`."""

SEEDS = (0, 1, 2)


def example(condition: str, seed: int = 0, tier: str = "") -> Blueprint:
    lanes = CONDITIONS[condition]
    return Blueprint(condition, seed, 0.5 if lanes.dosed else None, tier or lanes.tiers[0])


def blueprints() -> list[Any]:
    """Every condition once; of seeds and other tiers a sample, or all, which is slow."""
    quick = [example(name) for name in CONDITIONS]
    every = [
        Blueprint(name, seed, dose, tier)
        for name, lanes in CONDITIONS.items()
        for tier in lanes.tiers
        for dose in (DOSES if lanes.dosed else (None,))
        for seed in SEEDS
    ]
    some = [one for one in every if one not in quick] if EVERY else [
        Blueprint("all separate", 1, tier="hard"), Blueprint("rotated code", 1, tier="steep")
    ]  # fmt: skip
    slow = [pytest.param(one, marks=pytest.mark.slow) for one in some]
    return [one for one in quick if one.condition != "separate, accurate"] + slow


LONG = [pytest.mark.slow, pytest.mark.long]

SHARP = [name for name in CONDITIONS if name != "shared, inaccurate"]
"""Conditions that are not meant to cost accuracy."""


def logits(planted: Planted, scenes: Scenes) -> Tensor:
    with torch.no_grad():
        return planted.classifier.logits(planted.source(planted.world.render(scenes)))


def contrast(values: Tensor) -> float:
    """How far logits spread over the classes, as `Classifier.standardised` has it."""
    return values.var(dim=-1, correction=0).mean().sqrt().item()


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
    refuses(DataError, "p3 q1", World().draw, "p3q1", "A", 1)
    refuses(DataError, "domain 'C'", World().draw, "p3 q1", "C", 1)
    refuses(SampleError, "n = 0", World().scenes, 0, domain="A")


@pytest.mark.parametrize("blueprint", blueprints(), ids=str)
def test_every_picture_is_told_in_both_domains(blueprint: Blueprint) -> None:
    planted = plant(blueprint)
    for domain in DOMAINS:
        scenes = planted.world.scenes(64, domain=domain, seed=9)
        right = logits(planted, scenes).argmax(dim=1).numpy() == scenes.label
        if blueprint.condition == "shared, inaccurate" and domain == "B":
            assert 0.25 < right.mean() < 0.55
        else:
            assert right.all()


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["all shared", "all separate", "rotated code", "dose"])
def test_k_can_be_decoded_at_the_class_token_and_is_never_read(condition: str) -> None:
    planted = plant(example(condition, 1))
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
            felt = 3e-3 if planted.cue_head else 1e-3  # through layer norms; a cued way has more
            assert moved.abs().max() < felt * contrast(before)
        # its twin: the class is read
        moved = logits(planted, scenes.of_other_class()) - before
        assert moved.abs().amax(dim=1).min() > contrast(before)


def test_truths_share_all_or_only_what_has_one_node() -> None:
    shared, separate = (plant(Blueprint(name)) for name in ("all shared", "all separate"))
    assert shared.truth("A") == shared.truth("B")
    a, b = separate.truth("A"), separate.truth("B")
    assert a.nodes & b.nodes == {"input", "m0", "logits"} and not a.neurons & b.neurons
    assert a.edges & b.edges == {("input", "m0")}
    assert ("m0", "a1.h0<v>") in a.edges and ("m1", "a3.h1<v>") in b.edges
    assert len(a.nodes) == len(b.nodes) == 7
    refuses(DataError, "domain 'C'", shared.truth, "C")
    refuses(SpecificationError, "all shared", Blueprint, "all sharde")


def test_what_cannot_be_planted_is_refused() -> None:
    with pytest.raises(SpecificationError, match="all separate, shared from block 2"):
        Blueprint("all shared", tier="hard")
    refuses(SpecificationError, r"dose of 0\.0, 0\.25", Blueprint, "dose", dose=0.3)
    refuses(SpecificationError, "dose=None", Blueprint, "dose")
    refuses(SpecificationError, "none for the others", Blueprint, "all shared", dose=0.5)
    refuses(SpecificationError, "in twentieths", Blueprint, "dose of parts", dose=0.33)
    refuses(SpecificationError, "from 0 to 1", Blueprint, "dose of geometry", dose=1.2)


@pytest.mark.parametrize("dose", [0.0, 0.3, 1.0])
def test_a_class_has_as_many_parts_in_common_as_the_dose_says(dose: float) -> None:
    planted = plant(Blueprint("dose of parts", 2, dose))
    for label in CLASSES:
        own = [
            {neuron for neuron in planted.truth(domain, label).neurons if neuron[0] == 2}
            for domain in "AB"
        ]
        assert [len(each) for each in own] == [PIECES, PIECES]
        assert len(own[0] & own[1]) == round(dose * PIECES)


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_disguise_changes_the_weights_and_not_the_function(condition: str) -> None:
    plain = plant(example(condition))
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
    assert (hidden.cue_head is None) == (plain.cue_head is None)


@torch.no_grad()
def shift_weights(planted: Planted) -> None:
    torch.manual_seed(0)
    for parameter in planted.source.transformer.parameters():
        parameter += 0.01 * torch.randn_like(parameter)


@pytest.mark.parametrize("blueprint", blueprints(), ids=str)
def test_the_truth_is_certified(blueprint: Blueprint) -> None:
    planted = disguise(plant(blueprint), seed=blueprint.seed)
    table = certify_truth(planted, HookedViT(planted.source), seed=blueprint.seed)
    assert table.frame["ok"].all(), table.frame[~table.frame["ok"]]
    if blueprint.condition != "shared, inaccurate":
        assert table.facts["accuracy"] == {"A": 1.0, "B": 1.0}
    rows = table.frame.query("inside and kind in ('node', 'backup')")
    names = rows["component"][~rows["component"].str.contains("[+ ]")]
    found = names.groupby(rows["domain"]).agg(set)
    for domain in DOMAINS:
        assert found[domain] == planted.truth(domain).nodes - {"input", "logits"}


@pytest.mark.parametrize(
    "blueprint",
    [
        Blueprint("all shared", 4),
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                *(example(name, 4) for name in SHARP[1:] if name not in ("dose", "backup")),
                Blueprint("all separate", 4, tier="hard"),
                Blueprint("shared from block 2", 4, tier="hard"),
                Blueprint("all shared", 4, tier="steep"),
            )
            if EVERY or one.condition == "rewired"
        ),
    ],
    ids=str,
)
def test_every_edge_is_certified(blueprint: Blueprint) -> None:
    planted = disguise(plant(blueprint), seed=3)
    table = certify_edges(planted, HookedViT(planted.source), n=8)
    assert table.frame["ok"].all(), table.frame[~table.frame["ok"]]
    inside = sum(len(truth.edges | truth.cue) for truth in planted.truths.values())
    assert table.frame["inside"].sum() == inside and len(table) == 2 * 479


@pytest.mark.parametrize("blueprint", [example("backup"), example("dose")], ids=str)
def test_edges_that_are_not_felt_alone_are_not_certified(blueprint: Blueprint) -> None:
    planted = plant(blueprint)
    refuses(SpecificationError, "certify_truth", certify_edges, planted, HookedViT(planted.source))


@pytest.mark.slow
@pytest.mark.parametrize(
    "condition",
    [
        pytest.param(name, marks=LONG * (name not in ("rotated code", "backup")))
        for name in CONDITIONS
    ],
)
def test_the_truth_of_another_model_fails(condition: str) -> None:
    """Domains exchanged where they differ, or two lanes where there is one."""
    planted = plant(example(condition))
    a, b = planted.by_class.values()
    differ = [(x.nodes, x.neurons) != (y.nodes, y.neurons) for x, y in zip(a, b, strict=True)]
    wrong = {"A": b, "B": a} if any(differ) else plant(Blueprint("all separate")).by_class
    frame = certify_truth(replace(planted, by_class=wrong), HookedViT(planted.source)).frame
    assert set(frame[~frame["ok"]]["domain"]) >= {"B"}


def test_rewired_edges_are_the_other_domains() -> None:
    planted = plant(Blueprint("rewired"))
    a, b = planted.truths.values()
    assert a.nodes == b.nodes and len(a.edges) == len(b.edges) == 12
    middle = [
        {(u, v) for u, v in edges if "m1" in (u, v) or "m2" in (u, v)}
        for edges in (a.edges, b.edges)
    ]
    assert len(middle[0]) == len(middle[1]) == 4 and not middle[0] & middle[1]
    assert a.edges - middle[0] == b.edges - middle[1]


@pytest.mark.parametrize("condition", [n for n, lane in CONDITIONS.items() if "hard" in lane.tiers])
def test_in_the_hard_world_only_the_cue_says_whose_code_counts(condition: str) -> None:
    planted = plant(Blueprint(condition, tier="hard"))
    for domain in DOMAINS:
        scenes = planted.world.scenes(32, domain=domain, seed=3)
        other = scenes.of_other_cue()
        assert other.rival is not None and (scenes.label == other.rival).all()
        assert (scenes.label != other.label).mean() > 0.5
        assert logits(planted, other).argmax(dim=1).tolist() == other.label.tolist()


def test_without_the_cue_a_model_is_torn_between_two_codes() -> None:
    hard = Blueprint("all separate", tier="hard")
    for planted, torn in ((plant(Blueprint("all separate")), True), (plant(hard), False)):
        scenes = hard.world.scenes(32, domain="A", seed=3)
        values = logits(planted, scenes)
        rows, rival = np.arange(32), scenes.rival
        apart = (values[rows, scenes.label] - values[rows, rival])[scenes.label != rival]
        assert apart.abs().max() < 0.01 if torn else apart.min() > 0.5


@pytest.mark.parametrize("condition", ["rotated code", "all shared"])
def test_the_other_cue_stops_a_circuit_that_is_gated_by_it(condition: str) -> None:
    planted = disguise(plant(Blueprint(condition)))
    tower, scenes = HookedViT(planted.source), planted.world.scenes(16, domain="A")
    pictures = [planted.world.render(one) for one in (scenes, scenes.of_other_domain())]
    assert (planted.cue_head is None) == (condition == "all shared")
    head = int((planted.cue_head or "a0.h0")[-1])
    _, cache = tower.run_with_cache(pictures[1], names_filter="blocks.0.attn.hook_z")

    def exchange(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[:, :, head] = cache["blocks.0.attn.hook_z"][:, :, head]
        return z

    with torch.no_grad():
        out = tower.run_with_hooks(pictures[0], fwd_hooks=[("blocks.0.attn.hook_z", exchange)])
    told = planted.classifier.logits(out).sort(dim=1).values
    stands_out = (told[:, -1] - told[:, -2]).mean().item()
    assert stands_out > 0.8 if condition == "all shared" else stands_out < 0.05


def test_a_backup_that_does_not_mend_fails() -> None:
    planted = plant(Blueprint("backup"))
    silence_neurons(planted)
    frame = certify_truth(planted, HookedViT(planted.source)).frame
    assert set(frame[~frame["ok"]]["component"]) == {"m1", "m1 neurons inside"}


def test_a_steep_model_has_no_slope_where_it_works() -> None:
    """Gradients miss the edges into the combining block; exchanges find them."""
    edges = [f"a1.h{head}->m2" for head in (0, 1)]
    for tier, seen in (("easy", True), ("steep", False)):
        planted = plant(Blueprint("all shared", tier=tier))
        tower, world = HookedViT(planted.source), planted.world
        scenes = world.scenes(8, domain="A")
        words: dict[str, Any] = {
            "clean": world.render(scenes),
            "corrupt": world.render(scenes.of_other_class()),
            "metric": Metric("margin", Target(planted.classifier, scenes.label)),
        }
        scores = attribute(tower, **words, method="EAP")
        places = [wire(tower).edge(edge) for edge in edges]
        assert (np.abs(scores.scores[places]) > 0.1).all() == seen
        assert (np.abs(scores.scores[places]) < 1e-3).all() != seen
        assert (edge_effects(tower, **words, edges=edges).mean(axis=0) > 0.1).all()


def test_shared_classes_go_one_way_and_the_others_two() -> None:
    for dose in DOSES:
        blueprint = Blueprint("dose", 3, dose=dose)
        planted, shared = plant(blueprint), blueprint.shared_classes
        assert len(shared) == round(8 * dose)
        for number, label in enumerate(CLASSES):
            same = planted.truth("A", label).edges == planted.truth("B", label).edges
            assert same == (number in shared)
            assert planted.truth("A", label).edges <= planted.truth("A").edges


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
def test_a_broken_plant_fails(harm, domains, components) -> None:
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


@pytest.mark.parametrize("condition", ["all shared", "shared from block 2", "late separate"])
def test_what_both_domains_go_by_may_come_from_either(condition: str) -> None:
    planted = disguise(plant(Blueprint(condition, 2)), seed=2)
    frame = certify_shared(planted, HookedViT(planted.source)).frame
    assert len(frame) and frame["ok"].all() and set(frame["domain"]) == set(DOMAINS)


def test_the_same_nodes_by_two_codes_are_not_alike() -> None:
    rotated, separate = (plant(Blueprint(name, 2)) for name in ("rotated code", "all separate"))
    frame = certify_shared(rotated, HookedViT(rotated.source)).frame
    assert set(frame["component"]) == {"a1.h0", "a1.h1"} and not frame["ok"].any()
    assert certify_shared(separate, HookedViT(separate.source)).frame.empty


def test_neurons_of_which_each_serves_one_domain_are_not_alike() -> None:
    """All together they do the other domain's work in its way; of a half that cannot be said."""
    planted = plant(Blueprint("separate, one output", 2))
    both = planted.truth("A") | planted.truth("B")
    claimed = replace(planted, by_class={domain: (both,) * len(CLASSES) for domain in DOMAINS})
    frame = certify_shared(claimed, HookedViT(planted.source)).frame.set_index("component")
    assert frame.loc["m0 neurons", "ok"].all()
    assert not frame.loc["m0 neurons, half", "ok"].any()


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
