"""Ways of finding circuits held against planted truth: a few models here, all by `make truth`."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp.circuits import Metric, Target, edge_effects, wire
from interp.circuits.planted.certification import draw_partners
from interp.circuits.planted.conditions import WAYS, findable
from interp.circuits.planted.model import TowerOpener
from interp.circuits.planted.recovery import LEARNED, PICTURES
from interp.circuits.planted.vit import Blueprint, Planted, plant
from interp.circuits.planted.world import DOMAINS
from interp.validation import recover
from interp.validation.puzzles import RECOVERED, Opened
from tests.benchmarks import recovering
from tests.benchmarks.planted.resnet import PlantedResNet, ResNetBlueprint, plant_resnet
from tests.benchmarks.planted.trained import TrainedBlueprint


def mean_rank_auroc(scores: np.ndarray, true: np.ndarray) -> float:
    """The share of pairs, one true and one not, in which the true one scores more; ties half."""
    inside, outside = scores[true][:, None], scores[~true]
    return float((inside > outside).mean() + 0.5 * (inside == outside).mean())


@pytest.mark.slow
def test_what_is_planted_is_found_and_chance_finds_nothing() -> None:
    blueprint = Blueprint("all separate", 2)
    found = recover(blueprint)
    assert list(found) == RECOVERED and set(found["domain"]) == set(DOMAINS)
    assert not set(LEARNED) & set(found["method"])  # these take minutes, and are asked for
    by_method = found.set_index("method")["auroc"].groupby("method").min()
    # one pair in the wrong order would cost 1e-4; the area is a sum, which rounds
    assert (by_method[["path patching", "resample ablation"]] > 1 - 1e-9).all()
    assert (found["auroc"] >= found["least"].fillna(0)).all()
    random = found[found["method"] == "random"]
    assert random["least"].isna().all() and (random["auroc"].sub(0.5).abs() < 0.3).all()
    units = found.groupby("unit")["n_units"].first()
    assert units["edge"] == 479 and units["node"] == 20  # 16 heads and 4 MLPs
    truth = plant(blueprint).truth("A")
    sizes = found[found["domain"] == "A"].groupby("unit")["n_true"].first()
    assert sizes["edge"] == len(truth.edges | truth.cue)
    assert sizes["node"] == len(truth.nodes - {"input", "logits"})


@pytest.mark.long
def test_path_patching_is_scored_as_a_plain_recomputation_says() -> None:
    blueprint = Blueprint("rotated code", 3)
    opened = Opened(blueprint)
    planted, tower = opened.planted, opened.tower
    scenes, partners = draw_partners(planted.world, "B", PICTURES, seed=3)
    clean, corrupt = (
        (255 * planted.world.render(each)).clamp(0, 255).round() / 255
        for each in (scenes, partners)
    )
    metric = Metric("margin", Target(planted.classifier, scenes.label))
    effects = edge_effects(tower, clean=clean, corrupt=corrupt, metric=metric).mean(axis=0)
    truth = planted.truth("B")
    names = [f"{sender}->{reader}" for sender, reader in truth.edges | truth.cue]
    true = np.isin(wire(tower).names, names)
    row = recover(blueprint).query("domain == 'B' and method == 'path patching'")
    assert row["auroc"].item() == pytest.approx(mean_rank_auroc(np.abs(effects), true), abs=1e-9)


@pytest.mark.long
@pytest.mark.slow
def test_masks_find_what_is_planted_and_not_the_other_domains_circuit() -> None:
    found = recover(Blueprint("all separate", 2), learned=True)
    assert set(found["method"]) == set(LEARNED) and set(found["unit"]) == {"edge"}
    assert (found["auroc"] >= found["least"]).all() and (found["least"] == 0.9).all()
    other = recover(Swapped("all separate", 17), learned=True)
    assert other["auroc"].max() < 0.8


class Swapped(Blueprint):
    """A blueprint whose model has each domain's truth for the other's."""

    def make(self, open_tower: TowerOpener) -> Planted:
        planted = super().make(open_tower)
        return replace(planted, by_class={"A": planted.by_class["B"], "B": planted.by_class["A"]})


@pytest.mark.long
def test_another_domains_circuit_is_not_found() -> None:
    """The truth of the other domain: of what it names only what both have is seen."""
    found = recover(Swapped("all separate", 17)).set_index("method")["auroc"]
    assert found["path patching"].max() < 0.8 and found["resample ablation"].max() < 0.8


@pytest.mark.long
@pytest.mark.slow
def test_classes_that_go_their_own_ways_are_scored_by_their_own_circuits() -> None:
    blueprint = Blueprint("dose", 2, dose=0.5)
    assert len(plant(blueprint).ways("B")) == 2
    found = recover(blueprint).set_index(["domain", "method"])
    assert (found.loc[(slice(None), "path patching"), "auroc"] > 0.99).all()
    whole = len(plant(blueprint).truth("B").edges | plant(blueprint).truth("B").cue)
    assert found.loc[("B", "path patching"), "n_true"] < whole


class Quick(ResNetBlueprint):
    """A blueprint whose model is trained for a quarter of the time."""

    def make(self, open_tower: TowerOpener) -> PlantedResNet:
        return plant_resnet(self, steps=60)


@pytest.mark.long
@pytest.mark.slow
def test_channels_of_a_resnet_are_scored_too() -> None:
    found = recover(Quick("all separate", 17))
    assert set(found["unit"]) == {"channel"}
    by_method = found.groupby("method")["auroc"].min()
    assert set(by_method.index) == {"integrated gradients", "resample ablation", "random"}
    assert by_method["resample ablation"] > 0.9 and by_method["integrated gradients"] > 0.9
    assert by_method["random"] < 0.7
    learned = recover(Quick("all separate", 17), learned=True).groupby("method")["auroc"].min()
    assert set(learned.index) == set(LEARNED) and (learned > 0.7).all()


def test_every_way_is_declared_and_blind_for_a_reason() -> None:
    for blueprint in (Blueprint("all shared"), TrainedBlueprint("all shared")):
        assert all(findable(blueprint, method).reason for method in WAYS)
    easy, steep = (findable(Blueprint("rewired", tier=tier), "EAP") for tier in ("easy", "steep"))
    assert easy.least == 0.9 and steep.least is None and "slope" in steep.reason
    assert findable(TrainedBlueprint("all shared"), "EAP").least is None
    assert findable(Blueprint("rewired", tier="steep"), "path patching").least == 0.95


def cells(method: str, auroc: list[float], least: float | None) -> pd.DataFrame:
    """Cells of planted models, one domain of each."""
    return pd.DataFrame(
        {
            "condition": "rewired", "tier": "easy", "dose": None, "seed": range(len(auroc)),
            "domain": "A", "method": method, "unit": "edge", "auroc": auroc, "least": least,
        }
    )  # fmt: skip


def test_tables_say_how_well_and_how_often() -> None:
    given = pd.concat([cells("EAP", [0.95, 0.85], 0.9), cells("RelP", [0.8, 0.8], None)])
    condition = recovering.by_condition(given).splitlines()
    assert condition[0] == "| condition | tier | n | EAP | RelP |"
    assert condition[2] == "| rewired | easy | 2 | 0.90 (0.85) | 0.80 (0.80) |"
    _, _, eap, relp = recovering.overall(given).splitlines()
    assert eap == "| EAP | edges | 0.900 [0.850, 0.950] | 2 | 0.9 | 1 of 2 | 0.85 | 0 |"
    assert relp == "| RelP | edges | 0.800 [0.800, 0.800] | 2 | – | – | 0.80 | all |"
