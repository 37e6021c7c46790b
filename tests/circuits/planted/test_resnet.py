"""ResNets by merging: the merging is exact, the disguise hides, the truth holds and is found."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from sklearn.metrics import roc_auc_score

from interp.circuits import channel_scores
from interp.circuits.planted.certification import CUTS, draw_partners, margin_task
from interp.circuits.planted.model import ChannelTruth, MarginTask
from interp.circuits.planted.weights import disguise
from interp.circuits.planted.world import CLASSES, DOMAINS, World
from interp.circuits.units.unit_faithfulness import measure_units
from interp.core.errors import DataError, SpecificationError
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.models.towers.resnet import HookedResNet
from tests.benchmarks.planted.resnet import (
    DOSE_OF_NETWORKS,
    RESNET_DOSES,
    RESNETS,
    PlantedResNet,
    ResNetBlueprint,
    merge,
    plant_resnet,
)
from tests.benchmarks.planted.resnet_disguise import spaces
from tests.benchmarks.planted.resnet_training import PartTask, Pool, train_part
from tests.refusals import refuses

pytestmark = pytest.mark.slow

# What is trained differs from machine to machine: sums in another order lead descent elsewhere. So
# each bar keeps a margin to 25 models of seeds 0 to 8 (all three conditions, one thread). What was
# worst in them stands in brackets; the tests ask models of seeds 0, 1 and 2.

CONDITIONS = ("all shared", "all separate")

RECOVERY = 0.9
"""Least AUROC of |integrated gradients| for a channel being in the truth [.964; .937 among the 15
models of `make truth`, .946 on another machine]; by chance it is .5."""

INSIDE, OUTSIDE = 1.0, 0.05
"""What an exchange must cost on average inside a circuit [2.02], and may move in any picture
outside it [.0155], in mean margins; a certificate asks for .3 and .02."""


@cache
def plain(condition: str) -> PlantedResNet:
    return plant_resnet(ResNetBlueprint(condition))


@cache
def model(condition: str) -> tuple[PlantedResNet, HookedResNet]:
    planted = disguise(plain(condition), seed=3)
    return planted, HookedResNet(planted.source)


def runs(condition: str, domain: str, n: int = 16) -> MarginTask:
    planted, _ = model(condition)
    return margin_task(planted, *draw_partners(planted.world, domain, n, seed=7))


def narrow(width: int, heads: int, seed: int, size: int = 64, d_embed: int = 6) -> ModifiedResNet:
    """A ResNet of which no parameter and no statistic is at its initial value."""
    torch.manual_seed(seed)
    net = ModifiedResNet([2, 1, 1, 1], d_embed, heads, size, width).double().eval()
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value += 0.1 * torch.rand_like(value) if "running" in name else (
                0.1 * torch.randn_like(value))  # fmt: skip
    return net


def test_merging_is_exact_at_every_site() -> None:
    """Parts of different width, several places in the pool: side by side, nothing else changed."""
    parts = [narrow(4, 2, seed=0), narrow(6, 3, seed=1)]
    merged = merge(parts)
    x = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    towers = [HookedResNet(net) for net in (*parts, merged)]
    axis = {"channel": 1, "head": 2}
    with torch.no_grad():
        (one, first), (two, second), (both, whole) = (t.run_with_cache(x) for t in towers)
    torch.testing.assert_close(both, one + two, rtol=0, atol=1e-10)
    checked = set()
    for site in whole:
        if site == "hook_embedding":
            continue
        along = 1 if site.endswith("pattern") else axis[
            next(name for name in towers[2].axes(site) if name in axis)]  # fmt: skip
        joined = torch.cat([first[site], second[site]], dim=along)
        torch.testing.assert_close(whole[site], joined, rtol=0, atol=1e-10)
        checked.add(site)
    assert {site for space in spaces(merged) for site in space.sites} < checked
    assert whole["attnpool.hook_pattern"].std() > 1e-3  # the pool attends to some places more


@pytest.mark.parametrize(
    "other", [narrow(4, 4, 0), narrow(4, 2, 0, size=32), narrow(4, 2, 0, d_embed=5)]
)
def test_what_cannot_be_merged_is_refused(other: ModifiedResNet) -> None:
    refuses(SpecificationError, "agree", merge, [narrow(4, 2, seed=0), other])
    refuses(SpecificationError, "", merge, [])


def test_training_is_reproduced_and_leaves_torchs_numbers_alone() -> None:
    pool = Pool(World(0), seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    nets = [train_part(PartTask("class", "A"), pool, seed=seed, steps=3) for seed in (1, 1, 2)]
    merge(nets)
    assert torch.equal(before, torch.get_rng_state())
    first, again, other = (net.attnpool.q_proj.weight for net in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    "condition", [CONDITIONS[0], pytest.param(CONDITIONS[1], marks=pytest.mark.long)]
)
def test_classes_are_told_in_both_domains(condition: str) -> None:
    planted, _ = model(condition)
    for domain in DOMAINS:
        scenes = planted.world.scenes(128, domain=domain, seed=9)
        with torch.no_grad():
            logits = planted.classifier.logits(planted.source(planted.world.render(scenes)))
        assert (logits.argmax(dim=1).numpy() == scenes.label).mean() >= 0.95  # [1.0]


@pytest.mark.long
def test_truths_share_all_or_nothing() -> None:
    shared, separate = (plain(condition) for condition in CONDITIONS)
    assert shared.truth("A").channels == shared.truth("B").channels
    a, b = (separate.truth(domain) for domain in DOMAINS)
    assert a.channels and not a.channels & b.channels
    for site, mask in a.masks.items():
        assert (mask ^ b.masks[site]).all()
    refuses(DataError, "domain 'C'", shared.truth, "C")
    refuses(SpecificationError, "all shared", ResNetBlueprint, "all sharde")
    refuses(SpecificationError, "0 steps", plant_resnet, ResNetBlueprint("all shared"), steps=0)


@pytest.mark.parametrize("dose", RESNET_DOSES)
def test_a_dose_is_the_share_of_channels_that_serve_both_domains(dose: float) -> None:
    planted = plant_resnet(ResNetBlueprint(DOSE_OF_NETWORKS, 1, dose), steps=1)
    a, b = (planted.truth(domain).channels for domain in DOMAINS)
    assert len(a) == len(b) and len(a & b) == dose * len(a)


@pytest.mark.parametrize(
    ("condition", "dose"), [(DOSE_OF_NETWORKS, None), (DOSE_OF_NETWORKS, 0.3), ("all shared", 0.5)]
)
def test_doses_of_resnets_are_those_of_their_two_networks(condition, dose) -> None:
    with pytest.raises(SpecificationError, match=r"a dose of 0\.0, 0\.5, 1\.0"):
        ResNetBlueprint(condition, dose=dose)


def test_a_disguise_changes_the_weights_and_not_the_function() -> None:
    net = narrow(8, 4, seed=4, d_embed=32)
    masks = {s: np.arange(space.width) < 3 for space in spaces(net) for s in space.sites}
    blueprint, classes = ResNetBlueprint("all shared"), torch.eye(8, 32, dtype=torch.float64)
    planted = PlantedResNet(blueprint, net, classes, {"A": (ChannelTruth(masks),)})
    hidden = disguise(planted, seed=1)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before, after = (HookedResNet(p.source).run_with_cache(x) for p in (planted, hidden))
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-8)
    for site, mask in hidden.truth("A").masks.items():  # the channels named are still the same
        there, here = after[1][site][:, mask], before[1][site][:, masks[site]]
        if not site.endswith("hook_out"):  # there a branch alone, which is not cut off at 0
            there, here = there > 0, here > 0
        patterns = [sorted(map(tuple, (maps > 0).transpose(0, 1).flatten(1).tolist()))
                    for maps in (there, here)]  # fmt: skip
        assert patterns[0] == patterns[1], site
    for name, weight in hidden.source.named_parameters():
        if name != "attnpool.c_proj.bias":
            assert not torch.equal(weight, net.get_parameter(name)), name
    for module in hidden.source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert module.running_mean is not None and not module.running_mean.any()


def check_certified(table: Table) -> None:
    """Every exchange costs or moves what it must, with a margin for what another machine trains."""
    frame = table.frame
    inside = frame["inside"].astype(bool)
    assert (frame[inside]["value"] >= INSIDE).all(), frame[inside]
    assert (frame[~inside]["error"] <= OUTSIDE).all(), frame[~inside]
    assert min(table.facts["accuracy"].values()) >= 0.95  # [1.0]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_truth_is_certified_and_its_mutants_are_not(condition: str) -> None:
    planted, tower = model(condition)
    table = planted.certify(tower)
    check_certified(table)
    assert set(table.frame.query("inside")["component"]) == set(find_sites(CUTS, tower.sites))
    for harm in (swapped, a_quarter_missing):
        broken = replace(planted, by_class={"A": (harm(planted.truth("A")),) * len(CLASSES)})
        frame = broken.certify(tower, n=8).frame
        assert not frame[frame["component"].str.endswith("resid_post")]["ok"].all()


def swapped(truth: ChannelTruth) -> ChannelTruth:
    return ChannelTruth({site: ~mask for site, mask in truth.masks.items()})


def a_quarter_missing(truth: ChannelTruth) -> ChannelTruth:
    masks = {site: mask.copy() for site, mask in truth.masks.items()}
    for mask in masks.values():
        places = np.nonzero(mask)[0]
        mask[places[: max(1, len(places) // 4)]] = False
    return ChannelTruth(masks)


@pytest.mark.parametrize(("condition", "share"), [("all shared", 1.0), ("all separate", 0.0)])
def test_a_domains_circuit_in_the_other_domain(condition: str, share: float) -> None:
    """Shared: A's channels do B's work. Separate: they do none of it. Nothing in between."""
    planted, tower = model(condition)
    sites = find_sites(CUTS, tower.sites)
    masks = {site: planted.truth("A").masks[site][None] for site in sites}
    values, (full, none) = measure_units(tower, masks, **runs(condition, "B"))
    done = (values[0] - none).mean() / (full - none).mean()
    assert done == pytest.approx(share, abs=0.02)  # [.0001]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_integrated_gradients_find_the_channels(condition: str, domain: str) -> None:
    found = recovery(condition, domain, lambda mask: mask)
    assert found >= RECOVERY
    chance = recovery(condition, domain, np.random.default_rng(0).permutation)
    assert abs(chance - 0.5) < 0.15  # [.034]


def recovery(condition: str, domain: str, truth: Callable[[np.ndarray], np.ndarray]) -> float:
    """AUROC over the channels of all residual streams, scores in units of their site's largest."""
    planted, _ = model(condition)
    scores, masks = channel_sizes(condition, domain), planted.truth(domain).masks
    size = np.concatenate([values / values.max() for values in scores.values()])
    return float(roc_auc_score(np.concatenate([truth(masks[site]) for site in scores]), size))


@cache
def channel_sizes(condition: str, domain: str) -> dict[str, np.ndarray]:
    _, tower = model(condition)
    words = runs(condition, domain)
    scores = channel_scores(
        tower, words["clean"], metric=words["metric"], sites="layer*.*.hook_resid_post",
        baseline=words["corrupt"], steps=5,
    )  # fmt: skip
    return {site: values.mean(dim=1).abs().numpy() for site, values in scores.items()}


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("condition", RESNETS)
def test_other_worlds_are_certified_too(condition: str, seed: int) -> None:
    planted = disguise(plant_resnet(ResNetBlueprint(condition, seed)), seed=seed)
    assert planted.classes.shape == (len(CLASSES), 32)
    check_certified(planted.certify(HookedResNet(planted.source), seed=seed))
