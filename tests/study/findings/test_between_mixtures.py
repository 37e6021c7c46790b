"""Variance between mixtures agrees with a second computation and covers what was planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.seeds import rng
from tests.benchmarks.findings.between_mixtures import (
    interval_between,
    mixtures_apart,
    of_epochs,
    of_layers,
)
from tests.benchmarks.findings.tables import tables
from tests.study.findings.kept import FINISHED


def test_layers_are_an_analysis_of_variance_with_blocks() -> None:
    draw = rng("planted layers", 2)
    rows = [
        {"setting": setting, "test_domain": domain, "seed": seed, "epoch": 9, "control": "",
         "rung": "R3", "measure": "cosine", "site": site, "depth": depth,
         "index": (setting == "a") * (site == "late") + 0.5 * seed + 0.1 * draw.normal()}
        for setting in "abcd" for domain in ("sketch", "quickdraw") for seed in range(3)
        for site, depth in (("early", 0.2), ("late", 0.8))
    ]  # fmt: skip
    profile = pd.DataFrame([*rows, {**rows[0], "setting": "upper-bound-high", "index": 99.0}])
    found = mixtures_apart(of_layers(profile)).set_index("site")
    for site, own in pd.DataFrame(rows).groupby("site"):
        cells = own.groupby(["setting", "seed"])["index"].mean().reset_index()
        design = {
            "full": pd.get_dummies(cells[["setting", "seed"]].astype(str), drop_first=True),
            "blocks": pd.get_dummies(cells["seed"].astype(str), drop_first=True),
        }
        rest = {}
        for name, columns in design.items():
            x = np.column_stack([np.ones(len(cells)), columns.to_numpy(dtype=float)])
            fit = np.linalg.lstsq(x, cells["index"], rcond=None)[0]
            rest[name] = float(((cells["index"] - x @ fit) ** 2).sum())
        f = (rest["blocks"] - rest["full"]) / 3 / (rest["full"] / 6)
        row, degrees = found.loc[site], (3, 6)
        assert row["p"] == pytest.approx(stats.f.sf(f, *degrees))
        adjusted = 1 - rest["full"] / 6 / (rest["blocks"] / 9)  # by mean squares
        assert row["value"] == pytest.approx(max(0, adjusted))
        assert interval_between(f, *degrees) == pytest.approx((row["low"], row["high"]))
    assert found.loc["late", "p_adjusted"] < 0.01 < found.loc["early", "p_adjusted"]
    assert found.loc["late", "most"] == "a" and found.loc["late", "trained"] == 1
    assert mixtures_apart(of_layers(profile[profile["seed"] == 0])).empty


def test_the_interval_holds_the_planted_share_nineteen_times_in_twenty() -> None:
    """Five mixtures in six blocks, whose means lie so far apart that their share is as planted."""
    draw, blocks, n = rng("epsilon"), 6, 200
    for share in (0.0, 0.3, 0.9):
        effects = np.array([-1, -1, 0, 1, 1.0])
        effects *= np.sqrt(share / (1 - share) / (effects @ effects / 4)) if share else 0
        held, values = 0, []
        for _ in range(n):
            rows = [
                {"setting": f"m{k}", "test_domain": "sketch", "seed": seed, "epoch": 9,
                 "quantity": "R2", "site": "a", "depth": 0.5, "value": value}
                for seed in range(blocks)
                for k, value in enumerate(effects + draw.normal(0, 1, 5) + draw.normal(0, 3))
            ]  # fmt: skip
            [row] = mixtures_apart(pd.DataFrame(rows)).to_dict("records")
            held += row["low"] <= share <= row["high"]
            values.append(row["value"])
        assert 0.9 < held / n < 0.99, share
        assert np.median(values) == pytest.approx(share, abs=0.05)


@pytest.mark.skipif("strong" not in FINISHED, reason="no block is finished")
def test_the_last_epoch_is_the_profile_again() -> None:
    """By both ways to the same runs, so that stages are those of one training; and by hand."""
    own = tables("strong")
    by_epoch, alone = mixtures_apart(of_epochs(own)), mixtures_apart(of_layers(own["profile"]))
    last = by_epoch[by_epoch["stage"] == by_epoch["stage"].max()]
    both = last.merge(alone, on=["quantity", "site"])
    assert len(both) == 12
    assert both["value_x"].to_numpy() == pytest.approx(both["value_y"].to_numpy())
    site = "layer3.0.hook_resid_post"
    runs = own["profile"].query("measure == 'debiased CKA' and control == '' and site == @site")
    runs = runs[~runs["setting"].str.startswith("upper")]
    wide = runs.pivot_table(index="seed", columns="setting", values="index")  # domains averaged
    rest = wide.sub(wide.mean(axis=1), axis=0)  # without what a block adds to all
    between = len(wide) * (rest.mean() ** 2).sum()
    within = ((rest - rest.mean()) ** 2).to_numpy().sum()
    epsilon = (between - within / (len(wide) - 1)) / (between + within)
    told = last[(last["site"] == site) & last["quantity"].str.endswith("CKA")]["value"]
    assert told.tolist() == pytest.approx([epsilon])
    assert set(by_epoch["quantity"]) - set(alone["quantity"]) == {
        "accuracy of held-out classes", "accuracy of seen classes"}  # fmt: skip
