"""What changed between two results: nothing where nothing did, and something where it did."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.errors import DataError
from interp.core.seeds import rng
from interp.core.statistics.resampling import mean_interval
from interp.core.tables import Table
from interp.study.compare_results import (
    CHANGED,
    NO_INTERVAL,
    ONLY_B,
    WITHIN,
    Difference,
    compare_results,
    match,
)


def drawn(generator: np.random.Generator, *, shift: float = 0.0, rows: int = 6, n: int = 20):
    """A table of means of n units, each with its Student interval."""
    values = generator.normal(shift, 1.0, size=(rows, n))
    mean, error = values.mean(1), values.std(1, ddof=1) / n**0.5
    reach = error * stats.t.ppf(0.975, n - 1)
    return pd.DataFrame(
        {"measure": "m", "site": [f"s{row}" for row in range(rows)], "value": mean,
         "low": mean - reach, "high": mean + reach, "unit": "class", "n_units": n}
    )  # fmt: skip


def result(folder: Path, facts: dict | None = None, **tables: pd.DataFrame) -> Path:
    for name, frame in tables.items():
        Table(name, frame).save(folder / "tables")
    (folder / "facts.json").write_text(json.dumps(facts or {}))
    return folder


def compared(tmp_path: Path, one: pd.DataFrame, two: pd.DataFrame) -> Difference:
    a, b = (tmp_path / name for name in "ab")
    return compare_results(result(a, similarity=one), result(b, similarity=two))


def test_a_result_does_not_differ_from_itself(small_study) -> None:
    found = compare_results(small_study, small_study.folder)
    assert not found.changed and not found.facts and len(found.table)
    told = found.table.frame[found.table.frame["p"].notna()]
    assert (told["value"] == 0).all() and (told["change"] == WITHIN).all()


@pytest.mark.slow
def test_two_draws_of_one_truth_are_seldom_told_apart(tmp_path: Path) -> None:
    generator, told = rng("difference test", 0), []
    for _ in range(80):
        told.append(compared(tmp_path, drawn(generator), drawn(generator)).changed)
    assert np.mean(told) <= 0.1  # 5 % at most; two standard errors of 80 draws are 5 %
    moved = [
        compared(tmp_path, drawn(generator), drawn(generator, shift=2)).changed for _ in range(10)
    ]
    assert all(moved)


def test_ends_that_lie_unequally_far_stay_so(tmp_path: Path) -> None:
    one = pd.DataFrame({"measure": "m", "value": [0.0], "low": -0.1, "high": 0.3, "n_units": 20})
    row = compared(tmp_path, one, one.assign(value=1.0, low=0.8, high=1.1)).table.frame.iloc[0]
    assert [row["low"], row["high"]] == pytest.approx([1 - 0.13**0.5, 1 + 0.02**0.5])


def test_the_interval_of_two_holds_the_truth_as_often_as_it_says(tmp_path: Path) -> None:
    generator = rng("difference coverage", 0)
    covered = []
    for _ in range(40):
        frame = compared(tmp_path, drawn(generator), drawn(generator, shift=0.5)).table.frame
        covered += ((frame["low"] < 0.5) & (frame["high"] > 0.5)).tolist()
    assert 0.91 < np.mean(covered) < 0.99


def by_class(values: np.ndarray, setting: str = "cg-high") -> pd.DataFrame:
    return pd.DataFrame(
        {"domain": "sketch", "label": [f"c{place}" for place in range(len(values))],
         "class_set": "held-out", "value": values, "setting": setting, "measure": "balanced top-1"}
    )  # fmt: skip


def accuracy(values: np.ndarray, *, low: float | None = None) -> pd.DataFrame:
    found = mean_interval(values)
    return pd.DataFrame(
        {"domain": "sketch", "class_set": "held-out", "measure": ["balanced top-1"],
         "value": found.value, "low": found.low, "high": found.high, "setting": "cg-high",
         "unit": "class", "n_units": len(values)}
    )  # fmt: skip


def in_blocks(
    generator: np.random.Generator, seeds: range, *, shift: float = 0.0, rows: int = 6
) -> pd.DataFrame:
    """Rows of single runs, whose truth differs from block to block, and their means."""
    runs = pd.concat(
        [drawn(generator, shift=shift + generator.normal(), rows=rows).assign(seed=seed, n_runs=1)
         for seed in seeds]
    )  # fmt: skip
    keys = ["measure", "site", "unit"]
    means = runs.groupby(keys)[["value", "low", "high", "n_units"]].mean().reset_index()
    return pd.concat([runs, means.assign(seed=seeds[0], n_runs=len(seeds))], ignore_index=True)


def test_halves_of_a_study_are_compared_over_their_blocks(tmp_path: Path) -> None:
    generator = rng("halves", 0)
    one, two = in_blocks(generator, range(4)), in_blocks(generator, range(4, 7), shift=9.0)
    frame = compared(tmp_path, one, two).table.frame
    over = frame[frame["method"] == "over blocks"].set_index("place")
    assert len(over) == 6 and set(over["unit"]) == {"block"} and set(over["n_units"]) == {7}
    for site in one["site"].unique():
        groups = [f[(f["site"] == site) & (f["n_runs"] == 1)]["value"] for f in (one, two)]
        by_hand = stats.ttest_ind(groups[1], groups[0])
        interval = by_hand.confidence_interval()
        [row] = over.filter(like=f"site={site}", axis=0).to_dict("records")
        assert row["p"] == pytest.approx(by_hand.pvalue)
        assert row["value"] == pytest.approx(groups[1].mean() - groups[0].mean())
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert (over["change"] == CHANGED).all()
    assert len(frame) == 6  # means over these runs are not told again


def test_what_differs_between_blocks_parts_no_row(tmp_path: Path) -> None:
    """Chance among three classes or four, where blocks hold out other numbers of them."""
    rows = drawn(rng("chance", 0), rows=1).assign(n_runs=1)
    one, two = (
        pd.concat(
            [rows.assign(seed=seed, value=rows["value"] + 0.1 * seed,
                         null_kind=f"chance among {3 + seed % 2} classes") for seed in seeds]
        )
        for seeds in (range(4), range(4, 8))
    )  # fmt: skip
    frame = compared(tmp_path, one, two).table.frame
    assert len(frame) == 1 and frame["n_units"].item() == 8
    assert frame["value"].item() == pytest.approx(0.4)
    # a mean over blocks that belongs to none is no block
    mean = one[:1].assign(seed=np.nan)
    again = compared(tmp_path / "again", pd.concat([one, mean]), two).table.frame
    assert again["n_units"].item() == 8
    # blocks that agree to the last digit but one do not differ
    same = [frame.assign(value=0.025 + 1e-17 * frame["seed"]) for frame in (one, two)]
    equal = compared(tmp_path / "equal", *same).table.frame
    assert equal["p"].item() == 1 and equal["change"].item() == WITHIN


@pytest.mark.long
def test_two_halves_of_one_truth_are_seldom_told_apart(tmp_path: Path) -> None:
    """By intervals of single models they would be: blocks differ by more than those hold."""
    generator, told, alone = rng("halves of one truth", 0), [], []
    for _ in range(80):
        halves = [in_blocks(generator, seeds) for seeds in (range(4), range(4, 8))]
        told.append(compared(tmp_path, *halves).changed)
        halves = [half[half["n_runs"] == 1] for half in halves]
        alone.append(compared(tmp_path, *(half.groupby("site").head(1) for half in halves)).changed)
    assert np.mean(told) <= 0.1 and np.mean(alone) > 0.5


def test_blocks_that_both_results_have_are_compared_block_by_block(tmp_path: Path) -> None:
    generator = rng("blocks in common", 0)
    one, two = in_blocks(generator, range(3)), in_blocks(generator, range(2, 5))
    frame = compared(tmp_path, one, two).table.frame
    assert "over blocks" not in set(frame["method"]) and (frame["change"] == ONLY_B).any()


def test_one_block_and_blocks_without_spread_are_not_judged(tmp_path: Path) -> None:
    rows = drawn(rng("blocks", 1), rows=2).assign(n_runs=1)
    first = pd.concat([rows.assign(seed=seed, value=5.0) for seed in (0, 1)])
    second = pd.concat([rows.assign(seed=2, value=7.0), rows[:1].assign(seed=3, value=7.0)])
    frame = compared(tmp_path, first, second).table.frame.sort_values("place")
    assert frame["reason"].tolist() == [
        "blocks without spread",
        "fewer than two blocks in one of them",
    ]
    assert frame["p"].isna().all() and set(frame["change"]) == {NO_INTERVAL}


def test_parts_that_models_number_by_themselves_are_not_compared_over_blocks(
    tmp_path: Path,
) -> None:
    """Which head does some work is drawn with the weights: in two blocks each, it is another."""
    rows = drawn(rng("heads", 0), rows=2).assign(n_runs=1, head=[2.0, np.nan])
    one, two = (
        pd.concat([rows.assign(seed=seed, value=at + 1e-6 * seed) for seed in seeds])
        for at, seeds in ((0.0, (0, 1)), (9.0, (2, 3)))
    )
    frame = compared(tmp_path, one, two).table.frame
    head = frame["place"].str.contains("head=2")
    assert head.sum() == 1 and frame.loc[head, "p"].isna().all()
    assert frame.loc[head, ["change", "reason"]].to_numpy().tolist() == [
        [NO_INTERVAL, "each block's models number their parts otherwise"]
    ]
    assert frame.loc[~head, "change"].tolist() == [CHANGED]


def test_blocks_that_share_one_line_are_not_compared_over_blocks(tmp_path: Path) -> None:
    """Effective robustness is above a line of all blocks: an error of it moves them together."""
    rows = drawn(rng("robust", 0), rows=2).assign(n_runs=1)
    one, two = (
        pd.concat([rows.assign(seed=seed, value=at + 1e-6 * seed) for seed in seeds])
        for at, seeds in ((0.0, (0, 1)), (9.0, (2, 3)))
    )
    a, b = (result(tmp_path / side, robustness=own, similarity=own)
            for side, own in (("a", one), ("b", two)))  # fmt: skip
    frame = compare_results(a, b).table.frame.set_index("table")
    own = frame.loc["robustness"]
    assert own["p"].isna().all() and set(own["change"]) == {NO_INTERVAL}
    assert set(own["reason"]) == {"blocks of a result share one line, and do not vary apart"}
    assert set(frame.loc["similarity", "change"]) == {CHANGED}


def test_pairing_by_class_sees_what_two_intervals_cannot(tmp_path: Path) -> None:
    generator = rng("paired difference", 0)
    one = generator.uniform(0, 0.8, 12)  # classes differ much, the change little
    two = one + 0.1 + generator.normal(0, 0.01, 12)
    with_units, without = tmp_path / "with", tmp_path / "without"
    pair = []
    for folder, values in ((with_units / "a", one), (with_units / "b", two)):
        pair.append(result(folder, accuracy=accuracy(values), accuracy_by_class=by_class(values)))
    paired = compare_results(*pair).table.frame.iloc[0]
    assert paired["method"] == "paired by class" and paired["change"] == CHANGED
    difference = two - one  # a second way: the one-sample t-test of the differences
    from scipy import stats

    assert paired["p"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert paired["value"] == pytest.approx(difference.mean())
    plain = compare_results(
        result(without / "a", accuracy=accuracy(one)), result(without / "b", accuracy=accuracy(two))
    ).table.frame.iloc[0]
    assert plain["method"] == "from the two intervals" and plain["change"] == WITHIN


def test_units_that_do_not_give_the_value_back_are_not_paired(tmp_path: Path) -> None:
    values = rng("unpaired", 0).uniform(size=12)
    a, b = (
        result(tmp_path / name, accuracy=accuracy(values), accuracy_by_class=by_class(values + by))
        for name, by in (("a", 0.0), ("b", 0.3))
    )
    assert compare_results(a, b).table.frame.iloc[0]["method"] == "from the two intervals"


def test_facts_and_lonely_rows_and_tables_are_said(tmp_path: Path) -> None:
    frame = drawn(rng("lonely", 0))
    a = result(tmp_path / "a", {"versions": {"torch": "1"}, "source_hash": "x"},
               similarity=frame, losses=pd.DataFrame({"epoch": [1], "loss": [0.1]}))  # fmt: skip
    b = result(tmp_path / "b", {"versions": {"torch": "2"}, "source_hash": "x", "seconds": 3},
               similarity=pd.concat([frame, frame.assign(site="new")]).drop_duplicates("site"),
               losses=pd.DataFrame({"epoch": [1], "loss": [0.2]}), das=frame)  # fmt: skip
    found = compare_results(a, b)
    assert found.facts == (("versions.torch", "1", "2"),)
    lonely = found.table.frame[found.table.frame["change"] == ONLY_B]
    assert lonely["place"].tolist() == ["measure=m; site=new"]
    assert found.rest["das"] == "only in B" and found.rest["losses"].startswith("differs")


def test_rows_that_nothing_tells_apart_are_left_out_and_seeds_do_not_part_studies() -> None:
    one = pd.DataFrame({"site": ["a", "a", "b"], "value": [1.0, 2.0, 3.0]})
    assert [list(each.index) for each in match(one, one)] == [["site=b"], ["site=b"]]
    two = one.assign(seed=[0, 1, 0])  # now the seed tells them apart
    assert len(match(two, two)[0]) == 3


def test_few_units_are_not_judged(tmp_path: Path) -> None:
    few = drawn(rng("few", 0), n=3)
    found = compared(tmp_path, few, few.assign(value=9.0, low=8.9, high=9.1))
    assert not found.changed and (found.table.frame["reason"] == "fewer than 4 units").all()


@pytest.mark.parametrize("broken", ["missing", "file", "no facts", "bad facts", "no tables"])
def test_what_is_no_result_is_refused(tmp_path: Path, broken: str) -> None:
    good = result(tmp_path / "good", similarity=drawn(rng("broken", 0)))
    bad = result(tmp_path / "bad", similarity=drawn(rng("broken", 0)))
    if broken == "missing":
        bad = tmp_path / "none"
    elif broken == "file":
        bad = tmp_path / "file"
        bad.write_text("")
    elif broken == "no facts":
        (bad / "facts.json").unlink()
    elif broken == "bad facts":
        (bad / "facts.json").write_bytes(b"\xff{")
    else:
        (bad / "tables" / "similarity.csv").unlink()
    with pytest.raises(DataError, match="open the result"):
        compare_results(good, bad)


def test_a_table_of_another_version_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    frame = drawn(rng("version", 0))
    a = result(tmp_path / "a", similarity=frame, transfer=frame)
    b = result(tmp_path / "b", similarity=frame, transfer=frame)
    (b / "tables" / "transfer.csv").write_text("measure,valeu\nm,1\n")
    found = compare_results(a, b)
    assert "valeu" in found.rest["transfer"] and set(found.table.frame["table"]) == {"similarity"}


def test_rows_that_nothing_tells_apart_are_counted(tmp_path: Path) -> None:
    generator = rng("twins", 0)
    twins = drawn(generator).assign(site=["s0", "s0", "s1", "s2", "s3", "s4"])
    found = compared(tmp_path, twins, twins)
    assert len(found.table) == 4 and found.rest["similarity"].startswith("4 rows")


@pytest.mark.parametrize("column", ["adjusted", "arm", "weight"])
def test_levels_and_arms_of_an_intervention_are_told_apart(tmp_path: Path, column: str) -> None:
    rows = drawn(rng("arms", 0)).assign(site="s0")
    rows[column] = np.arange(len(rows)) * (0.5 if column == "weight" else 1)
    rows[column] = rows[column] if column == "weight" else rows[column].map("arm {:g}".format)
    found = compared(tmp_path, rows, rows)
    assert len(found.table) == len(rows) and "similarity" not in found.rest
