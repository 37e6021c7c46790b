"""Tables of layers, epochs, classes, units and features agree with a second computation."""

import re

import pandas as pd
import pytest

from interp.core.seeds import rng
from tests.benchmarks.findings.tables import finished_blocks, tables
from tests.benchmarks.findings.where_and_when import (
    classes_table,
    features_table,
    layers_table,
    parting_table,
    units_table,
)
from tests.study.findings.kept import FINISHED


def test_costs_of_features_are_of_runs_whose_interval_lies_above_zero() -> None:
    shared, ablated = (tables("strong")[name] for name in ("features", "ablated"))
    table = features_table({"features": shared, "ablated": ablated}).splitlines()
    [row] = [line for line in table if line.startswith("| CG high, aligned captions |")]
    own = ablated.query(
        "setting == 'cg-high, aligned captions' and ablated == 'shared less private'"
    )
    own = own.dropna(subset=["value"])
    assert f"{100 * own['value'].mean():.1f} ({100 * own['value'].min():.1f} to" in row
    assert f"above 0 in {(own['low'] > 0).sum()} of {len(own)}" in row
    mine = shared.query("setting == 'cg-high, aligned captions' and code == 'raw units'")
    index = (mine["value"] - mine["null"]) / (mine["ceiling"] - mine["null"])
    assert f".{100 * index.mean():.0f} (" in row and len(mine) == 2 * finished_blocks("strong")


@pytest.mark.skipif("strong" not in FINISHED, reason="no block is finished")
def test_units_that_tell_a_class_in_both_domains_are_counted_as_such() -> None:
    """By hand, unit by unit; so no more tell it in both than where it was chosen."""
    units = tables("strong")["units"]
    table = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:]
             for line in units_table({"units": units}).splitlines()}  # fmt: skip
    own = units[units["role"] == "serves both domains"]
    keys = ["setting", "test_domain", "seed", "feature"]
    expected = []
    for natural in (True, False):
        chosen = own[(own["domain_a"] == "real") == natural]
        home = chosen[chosen["domain_a"] == chosen["domain_b"]].set_index(keys)["p"] < 0.05
        away = chosen[chosen["domain_a"] != chosen["domain_b"]].set_index(keys)["p"] < 0.05
        expected += [home.sum(), sum(home[unit] and away[unit] for unit in home.index)]
    assert len(home) == 12 * finished_blocks("strong")
    assert table["serves both domains"] == [f"{n} of {len(home)}" for n in expected]
    here = units["domain_a"] == units["domain_b"]
    home = units[here].set_index([*keys, "domain_a"])["p"] < 0.05
    away = units[~here].set_index([*keys, "domain_a"])["p"] < 0.05
    shared = int((home & away.loc[home.index]).sum())
    said = units_table({"units": units}).splitlines()[-1]
    assert f"Of {home.sum()} times" in said and f"other domain {shared} times" in said
    first, second = said.split("Shared: ")[1].split(" Not told in the other domain: ")
    assert first.count("(unit ") == min(shared, 10) and second.count("(unit ") == 10


def test_a_unit_is_named_once_the_clearest_first() -> None:
    """One that is shared for a class and not for another counts as shared."""
    place = {
        "setting": "cg-high",
        "test_domain": "sketch",
        "seed": 0,
        "role": "serves both domains",
    }
    rows = [
        place | {"feature": feature, "label": label, "domain_a": "real", "domain_b": domain,
                 "p": p, "value": value}
        for feature, label, value, away in (
            (1, "cup", 0.8, 0.01), (1, "hat", 0.9, 0.5), (2, "key", 0.7, 0.5),
            (3, "bus", 0.99, 0.01), (4, "egg", 0.95, 0.5),
        )
        for domain, p in (("real", 0.01), ("sketch", away))
    ]  # fmt: skip
    there = [row | {"domain_a": "sketch", "p": 0.5} for row in rows]
    said = units_table({"units": pd.DataFrame(rows + there)}).splitlines()[-1]
    first, second = said.split("Shared: ")[1].split(" Not told in the other domain: ")
    assert re.findall(r"(\w+) \(unit", first) == ["bus", "cup"]
    assert re.findall(r"(\w+) \(unit", second) == ["egg", "key"]


def test_classes_stand_in_the_order_of_what_they_share() -> None:
    labels = [f"class {k:02}" for k in range(12)]
    rows = [
        {"label": label, "seed": seed, "value": k / 12 + 0.01 * seed, "n_runs": 8}
        for k, label in enumerate(labels) for seed in (0, 1) if (k, seed) != (3, 1)
    ]  # fmt: skip
    text = classes_table({"classes": pd.DataFrame(rows)})
    assert re.findall(r"class \d\d", text) == [*labels[:-6:-1], *labels[4::-1]]
    assert "r = 1.00 [1.00, 1.00], r and its ends averaged over 1 pair of blocks" in text
    assert "(11 classes)" in text
    assert "Blocks agree" not in classes_table({"classes": pd.DataFrame(rows).query("seed == 0")})


def test_mixtures_are_tabulated_epoch_by_epoch_and_layer_by_layer() -> None:
    """Planted: apart in one layer, at the end alone."""
    draw = rng("parting")
    runs = [
        {"setting": setting, "test_domain": domain, "seed": seed, "epoch": epoch}
        for setting in ("cg-low", "cg-high", "natural-only")
        for domain in ("sketch", "quickdraw")
        for seed in range(4)
        for epoch in (5, 10)
    ]
    what = {"control": "", "rung": "R3", "measure": "cosine"}
    layers = [
        run | what | {"site": site, "depth": depth, "index": apart + 0.05 * draw.normal()}
        for run in runs
        for site, depth in (("stem.hook_pool", 0.1), ("layer4.0.hook_resid_post", 0.8))
        for apart in [(run["setting"] == "cg-low") * (run["epoch"] == 10) * (depth > 0.5)]
    ]
    accuracies = [
        run | {"class_set": "held-out", "value": 0.5 + 0.1 * draw.normal()} for run in runs
    ]
    frame = pd.DataFrame(layers)
    found = {"epochs": pd.DataFrame(accuracies), "rungs_by_epoch": frame.query("epoch == 5"),
             "profile": frame.query("epoch == 10")}  # fmt: skip
    lines = parting_table(found).splitlines()
    assert "| after 50 % of training | p (Holm) | at the end | p (Holm) |" in lines[0]
    cells = {tuple(line.strip("| ").split(" | ")[:2]): line.split(" | ") for line in lines[2:-2]}
    assert list(cells) == [("R3 cosine", "stem.pool"), ("R3 cosine", "layer4.0.resid_post"),
                           ("accuracy of held-out classes", "–")]  # fmt: skip
    late = cells[("R3 cosine", "layer4.0.resid_post")]
    assert late[4].startswith((".9", "1.0")) and not late[2].startswith((".9", "1.0"))
    assert lines[-1] == "n: 3 mixtures, 4 blocks."
    assert "CG low" in layers_table(found).splitlines()[-1].split(" | ")[4]


@pytest.mark.parametrize("name", ["strong", "vit"])
def test_rows_over_all_layers_stand_in_no_table_of_layers(name: str) -> None:
    """Parts and wiring (R5, R6) have them."""
    profile = tables(name)["profile"]
    no_layer = profile["site"].isna()
    assert set(profile.loc[no_layer, "rung"]) >= {"R5", "R6"}
    table = layers_table({"profile": profile})
    assert table == layers_table({"profile": profile[~no_layer]}) and "| embedding |" in table
