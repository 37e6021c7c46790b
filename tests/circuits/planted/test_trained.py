"""Training by strict interchange: exchanges are exact, and a model comes to be what is asked."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from interp.circuits import METHODS, Circuit, attribute, faithfulness
from interp.circuits.edges.wire import open_run, run_masked, wire
from interp.circuits.planted.certification import (
    certify_edges,
    certify_shared,
    certify_truth,
    draw_partners,
    margin_task,
)
from interp.circuits.planted.conditions import CONDITIONS, TRAINED
from interp.circuits.planted.model import MarginTask
from interp.circuits.planted.vit import Blueprint, Planted, plant
from interp.circuits.planted.weights import LAYERS, disguise
from interp.circuits.planted.world import CLASSES, DOMAINS, World
from interp.core.errors import SpecificationError
from interp.models.towers.vit import HookedViT
from tests.benchmarks.planted.interchange_training import (
    Exchange,
    draw_exchange,
    keep_run,
    run_exchanged,
)
from tests.benchmarks.planted.trained import NEURONS, TrainedBlueprint, anatomy_of, plant_trained
from tests.refusals import refuses

pytestmark = pytest.mark.slow

N = 5


@cache
def barely(condition: str, seed: int = 0) -> Planted:
    """A model after two steps: nothing is learned, everything is there."""
    return plant_trained(TrainedBlueprint(condition, seed), HookedViT, steps=2)


def pictures(seed: int) -> Tensor:
    world = World(0)
    return world.render(world.scenes(N, domain="A", seed=seed))


def nothing(tower: HookedViT) -> Exchange:
    return Exchange(
        torch.zeros(N, 2, wire(tower).n_edges, dtype=torch.bool),
        torch.zeros(N, LAYERS, 2, NEURONS, dtype=torch.bool),
        torch.arange(N),
        torch.zeros(N, dtype=torch.long),
    )


def test_edges_carry_what_a_masked_run_says() -> None:
    tower = HookedViT(barely("all shared").source)
    clean, corrupt, wiring = pictures(1), pictures(2), wire(tower)
    edges = torch.from_numpy(np.random.default_rng(0).random((N, wiring.n_edges)) < 0.3)
    exchange = nothing(tower)._replace(edges=edges[:, None].expand(-1, 2, -1))
    found = run_exchanged(tower, clean, keep_run(tower, corrupt), exchange)
    flows = {"clean": open_run(tower, clean), "corrupt": open_run(tower, corrupt)}
    right = run_masked(tower, wiring, (~edges).numpy()[None], **flows)[0]
    assert (right - tower(clean)).abs().max() > 0.01
    torch.testing.assert_close(found, right, rtol=0, atol=1e-9)


def test_nothing_exchanged_is_the_run_itself() -> None:
    tower = HookedViT(barely("all shared").source)
    x = pictures(1)
    plain = keep_run(tower, x)
    torch.testing.assert_close(plain.output, barely("all shared").source(x), rtol=0, atol=1e-9)
    same = run_exchanged(tower, x, keep_run(tower, pictures(2)), nothing(tower))
    torch.testing.assert_close(same, plain.output, rtol=0, atol=1e-9)


@pytest.mark.parametrize("place", [0, 1])
def test_neurons_are_exchanged_at_their_place_and_donors_in_their_order(place: int) -> None:
    tower = HookedViT(barely("all shared").source)
    x, donor, site = pictures(1), torch.tensor([2, 0, 1, 4, 3]), "blocks.1.mlp.hook_post"
    taken = torch.from_numpy(np.random.default_rng(1).random((N, NEURONS)) < 0.5)
    exchange = nothing(tower)._replace(donor=donor)
    exchange.neurons[:, 1, place] = taken
    plain = keep_run(tower, x)
    positions = slice(0, 1) if place == 0 else slice(1, None)

    def take(activation: Tensor, hook: object) -> Tensor:
        value, own = activation.clone(), activation[:, positions]
        other = plain.neurons[donor, 1][:, positions]
        value[:, positions] = torch.where(taken[:, None], other, own)
        return value

    right = tower.run_with_hooks(x, fwd_hooks=[(site, take)])
    assert (right - plain.output).abs().max() > 1e-3
    torch.testing.assert_close(run_exchanged(tower, x, plain, exchange), right, rtol=0, atol=1e-9)


def test_an_edge_is_exchanged_at_its_place_alone() -> None:
    tower = HookedViT(barely("all shared").source)
    clean, corrupt, at = pictures(1), pictures(2), wire(tower).edge("m2->m3")
    exchange = nothing(tower)
    exchange.edges[:, 0, at] = True

    # the class token of block 3's MLP reads block 2's MLP as it is in the other picture
    with torch.no_grad():
        own, other = (tower.run_with_cache(x)[1] for x in (clean, corrupt))
        stream, sender = own["blocks.3.hook_resid_mid"], "blocks.2.hook_mlp_out"
        read = stream.clone()
        read[:, 0] += (other[sender] - own[sender])[:, 0]
        block = tower.blocks[3]
        right = tower(stream + block.mlp(block.ln2(read)), start_at_layer=LAYERS)
    found = run_exchanged(tower, clean, keep_run(tower, corrupt), exchange)
    assert (right - tower(clean)).abs().max() > 1e-4
    torch.testing.assert_close(found, right, rtol=0, atol=1e-9)


@pytest.mark.parametrize("condition", TRAINED)
def test_what_an_exchange_brings_is_what_the_circuit_says(condition: str) -> None:
    """By the symbolic circuit: the last of its parts that is exchanged says P, and says Q."""
    planted = barely(condition)
    tower = HookedViT(planted.source)
    wiring = wire(tower)
    anatomy = anatomy_of(CONDITIONS[condition], planted.truths, wiring)
    generator, half = np.random.default_rng(3), 200
    label = torch.from_numpy(generator.integers(len(CLASSES), size=half)).repeat(2)
    exchange = draw_exchange(anatomy, label, generator)
    domains = np.repeat([0, 1], half)
    twins = domains[exchange.donor] != domains
    shares = {"all separate", "separate, one output"}
    assert (twins.mean() > 0.05) == (condition not in shares)
    assert (label[exchange.donor[twins]] == label[twins]).all()
    changed = 0
    counts = wiring.layers[wiring.edges[:, 0]] <= 0  # in patches what is early, else at the class
    for i in range(2 * half):
        truth = planted.by_class[DOMAINS[domains[i]]][0]
        taken = torch.where(torch.from_numpy(counts), exchange.edges[i, 1], exchange.edges[i, 0])
        sent = {tuple(wiring.names[place].split("->")) for place in taken.nonzero()}
        if twins[i]:  # nothing but what the circuit has
            assert sent <= truth.edges and exchange.label[i] == label[i]
            continue
        heads = {sender for sender, _ in sent & truth.edges if sender.startswith("a")}
        layers = {
            layer
            for layer, place in truth.neurons
            if exchange.neurons[i, layer, int(layer == 0), place]
        }
        assert len(heads) + len(layers) <= 1  # of the circuit one part at a time
        (p, q), other = (divmod(int(label[j]), 2) for j in (i, exchange.donor[i]))
        if layers or any(head.startswith("a3") for head in heads):
            p, q = other
        if heads & {"a1.h0", "a1.h2"}:
            p = other[0]
        if heads & {"a1.h1", "a1.h3"}:
            q = other[1]
        assert divmod(int(exchange.label[i]), 2) == (p, q)
        changed += bool(exchange.label[i] != label[i])
    assert changed > half / 2


def test_training_is_reproduced_and_leaves_torchs_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = plant_trained(TrainedBlueprint("all shared"), HookedViT, steps=2)
    assert torch.equal(before, torch.get_rng_state())
    first, other = barely("all shared"), barely("all shared", 1)
    assert torch.equal(again.source.conv1.weight, first.source.conv1.weight)
    assert not torch.equal(other.source.conv1.weight, first.source.conv1.weight)


@pytest.mark.parametrize("condition", TRAINED)
def test_its_truth_is_that_of_the_model_by_hand(condition: str) -> None:
    """The same heads, blocks and edges; neurons are a lane's half instead of those written."""
    trained, written = barely(condition), plant(Blueprint(condition))
    for domain in DOMAINS:
        ours, theirs = trained.truth(domain), written.truth(domain)
        assert ours.edges == theirs.edges
        assert {layer for layer, _ in ours.neurons} == {layer for layer, _ in theirs.neurons}
    a, b = (trained.truth(domain).neurons for domain in DOMAINS)
    a_written, b_written = (written.truth(domain).neurons for domain in DOMAINS)
    for layer in range(LAYERS):
        shared = [
            {place for at, place in x & y if at == layer}
            for x, y in ((a, b), (a_written, b_written))
        ]
        assert bool(shared[0]) == bool(shared[1])


def test_bad_blueprints_are_refused() -> None:
    refuses(SpecificationError, "all separate", TrainedBlueprint, "all seperate")
    refuses(SpecificationError, "rewired", TrainedBlueprint, "rewired")
    with pytest.raises(SpecificationError, match="0 steps"):
        plant_trained(TrainedBlueprint("all shared"), HookedViT, steps=0)


def test_a_disguise_changes_nothing_of_what_it_does() -> None:
    plain = barely("all separate")
    hidden, x = disguise(plain, seed=3), pictures(1)
    with torch.no_grad():
        before, after = plain.source(x), hidden.source(x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    assert not torch.allclose(hidden.source.conv1.weight, plain.source.conv1.weight, atol=0.1)


@cache
def trained(condition: str, seed: int = 0) -> Planted:
    return disguise(plant_trained(TrainedBlueprint(condition, seed), HookedViT), seed=seed)


def one() -> Planted:
    """The model that most tests ask: four minutes on one core.

    Whoever asks it is marked `long`, and `make truth` certifies many such models. A training that
    came to nothing is begun anew: of 19 trainings four did, and which ones do differs from machine
    to machine.
    """
    return trained("shared from block 2")


def check_certified(planted: Planted) -> None:
    """All nodes, neurons and shared parts pass; of 958 edges a few may move the margin by more.

    Of the 15 models of docs/measured.md all did, and 13 of their 14,370 edges moved it by more.
    """
    tower = HookedViT(planted.source)
    for certify, least in ((certify_truth, 1.0), (certify_shared, 1.0), (certify_edges, 0.99)):
        frame = certify(planted, tower, seed=planted.blueprint.seed).frame
        assert frame["ok"].astype(bool).mean() >= least or frame.empty, frame[~frame["ok"]]


@pytest.mark.long
def test_what_was_trained_is_certified() -> None:
    check_certified(one())


@cache
def runs(domain: str) -> MarginTask:
    """Pictures of a domain, and partners that share neither P nor Q, and what tells them apart."""
    planted = one()
    return margin_task(planted, *draw_partners(planted.world, domain, 16, seed=5))


def true_circuit(domain: str) -> tuple[HookedViT, Circuit]:
    planted = one()
    tower, edges = HookedViT(planted.source), planted.truth(domain).edges
    return tower, Circuit.of(wire(tower), [f"{sender}->{reader}" for sender, reader in edges])


@pytest.mark.long
@pytest.mark.parametrize("domain", DOMAINS)
def test_the_circuit_alone_does_the_work_and_nothing_else_does(domain: str) -> None:
    """All outside the circuit exchanged at once, which no certificate asks: measured .997, .000.

    That was the worst of three models; the bars leave room for what another machine trains.
    """
    tower, circuit = true_circuit(domain)
    frame = faithfulness(tower, circuit, **runs(domain), n_random=1, batch_size=16).frame
    values = frame.set_index("measure")["value"]
    assert values["circuit alone"] > 0.98 and abs(values["model without the circuit"]) < 0.02


BARS = {
    "exact": 0.999, "EAP-IG-inputs": 0.95, "EAP-IG-activations": 0.98, "EAP": 0.7, "RelP": 0.8,
    "learned masks": 0.9, "ensemble": 0.9,
}  # fmt: skip
"""Least AUROC of |score| for an edge's being in the circuit, with a margin to the worst of the 15
models of `make truth` in both domains: 1.00, .986, .996, .81, .836."""


@pytest.mark.long
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_find_a_circuit_that_nobody_wrote(method: str, domain: str) -> None:
    tower, circuit = true_circuit(domain)
    scores = attribute(tower, **runs(domain), method=method, batch_size=16).scores
    found = roc_auc_score(circuit.kept, np.abs(scores))
    assert 0.2 < found < 0.8 if method == "random" else found >= BARS[method]


@pytest.mark.long
def test_patches_carry_nothing_behind_the_heads_that_bring() -> None:
    """Behind block 1 all is told at the class token: what patches hold there is felt by nobody."""
    planted = one()
    tower, world = HookedViT(planted.source), planted.world
    for domain in DOMAINS:
        x, y = (world.render(world.scenes(16, domain=domain, seed=seed)) for seed in (1, 2))
        with torch.no_grad():
            streams = [tower(pictures, stop_at_layer=2) for pictures in (x, y.flip(0))]
            mixed = torch.cat([streams[0][:, :1], streams[1][:, 1:]], dim=1)
            before = planted.classifier.logits(tower(x))
            after = planted.classifier.logits(tower(mixed, start_at_layer=2))
        assert (after - before).abs().max() < 0.02 * before.std()


def test_what_was_not_trained_is_not_certified() -> None:
    planted = disguise(barely("shared from block 2"))
    for certify in (certify_truth, certify_edges, certify_shared):
        frame = certify(planted, HookedViT(planted.source)).frame
        assert not frame["ok"].any()


@pytest.mark.long
@pytest.mark.parametrize("condition", TRAINED)
def test_every_condition_is_certified(condition: str) -> None:
    check_certified(trained(condition, 1))
