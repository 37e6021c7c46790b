"""Differences between settings: paired, over classes and blocks, adjusted for their family."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.errors import SpecificationError
from interp.core.seeds import rng
from interp.core.statistics.resampling import holm
from interp.models.evaluation.differences import Contrast, differences, over_blocks
from tests.refusals import refuses


def table(rows: list[tuple], n_pictures: int) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["setting", "seed", "label", "value"])
    frame = frame.assign(test_domain="sketch", domain="sketch", candidates="all")
    return frame.assign(prompts="neutral", n_pictures=n_pictures)


def by_class_table(gains: dict[str, float], seeds: int) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for seed, label in product(range(seeds), range(12)):
        hard = 0.3 + 0.2 * generator.normal()
        for setting, gain in gains.items():
            rows.append((setting, seed, f"c{label}", hard + gain + 0.02 * generator.normal()))
    return table(rows, 10)


@pytest.mark.parametrize("seeds", [1, 3])
def test_paired_differences_see_what_separate_intervals_would_not(seeds: int) -> None:
    frame = differences(by_class_table({"high": 0.1, "low": 0.0}, seeds), [("high", "low")])
    row = frame.iloc[0]
    assert row["value"] == pytest.approx(0.1, abs=0.02) and row["low"] > 0.05
    assert row["p"] < 0.01 if seeds > 1 else np.isnan(row["p"])
    assert row["n_runs"] == 2 * seeds and row["n_units"] == 12


def test_no_difference_is_not_found() -> None:
    row = differences(by_class_table({"high": 0.0, "low": 0.0}, 2), [("high", "low")]).iloc[0]
    assert row["low"] < 0 < row["high"] and row["p"] > 0.05


def test_a_missing_setting_gives_no_row() -> None:
    assert len(differences(by_class_table({"high": 0.0}, 1), [("high", "low")])) == 0


def folds(effect: float, n_blocks: int = 3, seed: int = 0) -> pd.DataFrame:
    """Each block holds out four classes of its own."""
    generator = rng("folds", seed)
    rows = []
    for block in range(n_blocks):
        own = 0.05 * generator.normal()
        for place in range(4):
            noise = 0.1 * generator.normal(size=2)
            for setting, gain in (("high", effect + own), ("low", 0.0)):
                value = 0.4 + gain + noise[int(setting == "low")]
                rows.append((setting, block, f"c{block}{place}", value))
    return table(rows, 16)


def test_blocks_with_classes_of_their_own_are_nested_and_said_to_be() -> None:
    frame = folds(0.3)
    row = differences(frame, [("high", "low")]).iloc[0]
    assert row["unit"] == "class within block" and row["n_units"] == 12 and row["n_runs"] == 6
    means = frame.pivot_table(index="seed", columns="setting", values="value")
    assert row["value"] == pytest.approx((means["high"] - means["low"]).mean())
    assert row["low"] > 0


def test_one_block_speaks_of_its_models_and_several_of_settings() -> None:
    one = differences(by_class_table({"high": 0.1, "low": 0.0}, 1), [("high", "low")]).iloc[0]
    assert one["unit"] == "class" and "these two models" in one["estimand"]
    assert "this run, these classes" in one["estimand"] and one["reason"].startswith("one block")
    assert np.isnan(one["p"]) and np.isnan(one["p_adjusted"]) and "0 tests" in one["family"]
    many = differences(by_class_table({"high": 0.1, "low": 0.0}, 3), [("high", "low")]).iloc[0]
    assert many["unit"] == "class x block" and "blocks like these" in many["estimand"]


def test_a_difference_of_blocks_alone_is_not_taken_for_certain() -> None:
    """Two blocks that disagree wildly, though every class agrees within each."""
    frame = by_class_table({"high": 0.0, "low": 0.0}, 2)
    lifted = (frame["setting"] == "high") & (frame["seed"] == 0)
    frame.loc[lifted, "value"] += 0.4
    row = differences(frame, [("high", "low")]).iloc[0]
    assert row["value"] == pytest.approx(0.2, abs=0.02) and row["low"] < 0
    alone = differences(frame[frame["seed"] == 0], [("high", "low")]).iloc[0]
    assert alone["low"] > 0.3  # what the first block by itself would have claimed


def test_every_setting_of_a_kind_lends_its_spread() -> None:
    """Recomputed: the residual of settings and blocks, of three settings, upper bounds apart."""
    parts = [folds(gain, n_blocks=4, seed=seed) for seed, gain in enumerate((0.3, 0.0, 0.4))]
    renamed = [parts[0], *(
        part[part["setting"] == "high"].assign(setting=name)
        for part, name in zip(parts[1:], ("middle", "bound"), strict=True)
    )]  # fmt: skip
    frame = pd.concat(renamed, ignore_index=True)
    kinds = {"bound": "upper bound"}
    row = differences(frame, [("high", "low")], kinds=kinds).iloc[0]
    means = frame.pivot_table(index="seed", columns="setting", values="value")
    means = means[["high", "low", "middle"]]
    rest = means.sub(means.mean(axis=1), axis=0) - means.mean() + means.to_numpy().mean()
    degrees = 2 * 3
    error = np.sqrt(2 * (rest.to_numpy() ** 2).sum() / degrees / 4)
    assert row["degrees"] == degrees and row["n_settings"] == 3
    assert row["high"] - row["value"] == pytest.approx(stats.t.ppf(0.975, degrees) * error)
    assert row["p"] == pytest.approx(2 * stats.t.sf(row["value"] / error, degrees))
    own = stats.ttest_rel(means["high"], means["low"])
    assert row["paired_p"] == pytest.approx(own.pvalue)
    assert row["paired_low"] == pytest.approx(own.confidence_interval().low)
    over = differences(frame, [("bound", "low")], kinds=kinds).iloc[0]
    assert over["degrees"] < degrees + 3 and over["n_settings"] == 4


def test_test_domains_are_averaged_first_and_a_model_of_two_counts_once() -> None:
    sketch = folds(0.3).assign(run=lambda rows: rows["setting"] + rows["seed"].astype(str))
    other = folds(0.1, seed=3).assign(test_domain="quickdraw", domain="quickdraw")
    low = sketch["setting"] == "low"  # one model, asked in both
    other["run"] = np.where(low, sketch["run"], sketch["run"] + " quickdraw")
    found = differences(pd.concat([sketch, other]), [("high", "low")])
    assert found["test_domain"].tolist() == ["sketch and quickdraw", "quickdraw", "sketch"]
    average, *each = found["value"]
    assert average == pytest.approx(np.mean(each)) and found["degrees"].tolist() == [2.0] * 3
    assert found["n_runs"].tolist() == [9, 6, 6] and found["n_units"].tolist() == [12] * 3
    assert found["family"].str.contains("domain by domain: 2 tests").tolist() == [False, True, True]


def test_a_block_that_lacks_a_setting_is_left_out() -> None:
    frame = folds(0.3, n_blocks=4)
    lost = frame[(frame["setting"] == "low") | (frame["seed"] != 3)]
    found, expected = (differences(each, [("high", "low")]).iloc[0]
                       for each in (lost, frame[frame["seed"] != 3]))  # fmt: skip
    assert found["n_runs"] == 6 and found["value"] == expected["value"]
    assert found["low"] == pytest.approx(expected["low"])
    assert found["reason"] == "1 block left out, where some setting or test domain is missing"


def test_a_weighted_contrast_is_the_sum_of_its_parts() -> None:
    frame = by_class_table({"a": 0.3, "b": 0.1, "c": 0.0}, 3)
    mixed = Contrast("a against both", {"a": 1.0, "b": -0.5, "c": -0.5})
    found = differences(frame, [mixed, ("a", "b"), ("a", "c")]).set_index("setting")
    parts = found.loc[["a − b", "a − c"], "value"].mean()
    assert found.loc["a against both", "value"] == pytest.approx(parts)
    assert found.loc["a against both", "n_runs"] == 9
    refuses(SpecificationError, "add up to 1", Contrast, "lopsided", {"a": 1.0})


def test_p_is_adjusted_over_the_family_and_no_further() -> None:
    frame = by_class_table({"a": 0.03, "b": 0.02, "c": 0.0}, 2)
    two = pd.concat([frame, frame.assign(prompts="domain-averaged")])
    found = differences(two, [("a", "b"), ("a", "c"), ("b", "c")], family="settings")
    for _, part in found.groupby("prompts"):
        assert part["p_adjusted"].tolist() == pytest.approx(holm(part["p"]).tolist())
        assert (part["p_adjusted"] >= part["p"]).all()
        assert set(part["family"]) == {"settings: 3 tests"}
    assert (found["p_adjusted"] > found["p"]).any()


def test_settings_over_blocks_average_blocks() -> None:
    frame = by_class_table({"high": 0.1, "low": 0.0}, 3).assign(class_set="held-out", null=0.1)
    found = over_blocks(frame).set_index("setting")
    expected = frame.groupby("setting")["value"].mean()
    assert found["value"].to_dict() == pytest.approx(expected.to_dict())
    assert (found["n_runs"] == 3).all() and (found["unit"] == "class x block").all()
    assert (found["low"] < found["value"]).all() and found["null"].tolist() == pytest.approx(
        [0.1, 0.1]
    )


def test_untrained_models_take_no_part() -> None:
    frame = by_class_table({"high": 0.1, "low": 0.0}, 1).assign(control="")
    floor = frame.assign(control="epoch 0", value=0.0)
    assert differences(pd.concat([frame, floor]), [("high", "low")])["value"].iloc[0] > 0.08
