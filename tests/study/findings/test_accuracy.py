"""Words and tables on accuracy are those of the answers."""

import pandas as pd
import pytest

from tests.benchmarks import grids
from tests.benchmarks.findings.accuracy import (
    afterwards_in_words,
    afterwards_table,
    alone_in_words,
    alone_table,
    at_floor,
    claim_cell,
    errors_table,
    of_errors,
    qualified_cell,
    reached_table,
)
from tests.benchmarks.findings.claims import (
    SEEN_AFTERWARDS,
    accuracy_findings,
    claims_by_domain,
    contrasts_of,
)
from tests.benchmarks.findings.tables import pilot, tables
from tests.study.findings.kept import TRAINED, planted


def test_errors_are_held_against_errors_at_random() -> None:
    """Of half the pictures wrong, nine of ten are seen classes; at random 35 of 39 are."""
    run = {"setting": "cg-high", "test_domain": "sketch", "seed": 0}
    answers = pd.DataFrame(
        [
            run | {"label": str(label), "candidates": candidates, "value": value}
            for candidates, values in (("all", (0.4, 0.6, 0.5, 0.3, 0.7)), ("held-out", [0.9] * 5))
            for label, value in enumerate(values)
        ]
    )
    right = answers.assign(seed=1, value=1.0)  # without an error there is no share
    errors = pd.DataFrame([run | {"value": 0.45}, run | {"seed": 1, "value": 0.0}])
    found = of_errors({"answers": pd.concat([answers, right]), "errors": errors})
    assert found["seen"].tolist() == pytest.approx([0.9])
    assert found["chance"].tolist() == pytest.approx([35 / 39])
    table = errors_table({"made": {"answers": answers, "errors": errors}})
    assert "| CG high | 90 % (90 to 90) |" in table and "| by chance | 90 % |" in table
    assert table.endswith("| blocks | 1 |")


def test_cg_low_is_below_natural_only_as_the_account_says() -> None:
    for name in TRAINED:
        own = tables(name)["answers"].query("candidates == 'all'")
        means = own.groupby("setting")["value"].mean()
        assert means["cg-low"] < means["natural-only"], name


def test_among_held_out_classes_alone_a_claim_is_told_where_all_studies_agree() -> None:
    """By construction: as among all classes, which way round, and both ways in two studies."""
    answers = tables("weak")["answers"]
    whole = answers.query("candidates == 'all'")
    rows = accuracy_findings(answers).set_index("number")

    def told(*times: float, **words: bool) -> str:
        made = (whole.assign(candidates="held-out", value=each * whole["value"]) for each in times)
        own = {str(k): pd.concat([whole, each]) for k, each in enumerate(made)}
        return alone_in_words(own, **words)

    above = [number for number, row in rows.iterrows() if row["low"] > 0]
    assert above == [2, 3, 5] and not (rows["high"] < 0).any()
    said = "above zero: claims 2, 3 and 5; mixed, or may be zero: claims 1, 4 and 6"
    assert told(1, with_numbers=False) == told(1, 2, with_numbers=False) == said
    turned = told(-1)
    for number in above:
        assert f", {-100 * rows.loc[number, 'value']:+.1f} [" in turned
    first = "the other way round: claim 2 (CG low is above CG high, "
    assert turned.startswith(first)
    both = told(1, -1)
    assert both.startswith(
        "mixed, or may be zero: claim 1, claim 2 (above zero in 0, below in 1), claim 3 ("
    )


def test_what_was_not_planned_is_by_the_model_of_the_claims_and_undecided() -> None:
    """Planted: aligned captions .2 above leave-out-domain, quickdraw as sketch in CG high."""
    effects = {"leave-out-domain": 0.1, "cg-high": 0.0, "cg-high, aligned captions": 0.3}
    answers = planted(effects)
    found = contrasts_of(answers, SEEN_AFTERWARDS).set_index("contrast")
    row = found.loc["cg-high, aligned captions − leave-out-domain"]
    family = accuracy_findings(answers).set_index("number")  # and one spread for both
    assert row["high"] - row["low"] == pytest.approx(family.loc[5, "high"] - family.loc[5, "low"])
    assert row["low"] < 0.3 < row["high"]  # quickdraw's .2 lower in leave-out-domain: .1 on average
    assert len(found) == 3  # no mixture with a share of the seen cells
    said = afterwards_in_words({"made": answers})
    assert said.startswith("above zero: *CG without the domain in captions is above DG* (+")
    cells = [line.split(" | ")[1].strip("| ") for line in afterwards_table({"pilot": answers})
             .splitlines()[2:]]  # fmt: skip
    assert cells[2] == "not asked" and not any("**" in cell for cell in cells)
    assert contrasts_of(answers.query("setting == 'natural-only'"), SEEN_AFTERWARDS).empty


def test_a_claim_of_mixtures_at_chance_says_so() -> None:
    low = planted({"cg-high": -0.49, "cg-low": -0.49, "leave-out-domain": 0.0}, spread=0.001)
    assert at_floor(low, 2) == " (neither above chance)"
    assert at_floor(low, 3) == " (CG high not above chance)"
    assert at_floor(low, 1) == at_floor(low, 6) == ""
    found = accuracy_findings(low)
    cells = {number: qualified_cell(found, low, number) for number in (3, 5)}
    assert cells[3].endswith("**holds**† (CG high not above chance)") and cells[5] == "not asked"


def test_a_claim_that_is_told_from_zero_in_one_domain_alone_names_the_other() -> None:
    """Planted: leave-out-domain .15 above CG high in sketch, and .05 below it in quickdraw."""
    answers = planted({"leave-out-domain": 0.25, "cg-high": 0.1}, spread=0.01)
    found = accuracy_findings(answers)
    said = qualified_cell(found, answers, 3)
    quickdraw = 100 * claims_by_domain(answers).set_index("number").loc[3, "quickdraw value"]
    assert f"**holds**† (quickdraw alone {quickdraw:+.1f} [" in said and "sketch" not in said
    assert "alone" not in qualified_cell(found, answers, 1)  # above natural only in both
    still_open = found.assign(decision="open")
    assert "alone" not in qualified_cell(still_open, answers, 3)


def test_the_pilots_means_among_held_out_classes_are_those_of_its_table() -> None:
    alone = pilot()["alone"]
    before = pd.read_csv(grids.HERE / "resnet" / "accuracy.csv", low_memory=False)
    row = before[
        (before["setting"] == "cg-high") & (before["test_domain"] == "sketch")
        & (before["domain"] == "sketch") & (before["class_set"] == "held-out")
        & (before["candidates"] == "held-out") & (before["prompts"] == "neutral")
        & (before["measure"] == "balanced top-1")
    ]  # fmt: skip
    own = alone.query("setting == 'cg-high' and test_domain == 'sketch'")
    assert own["value"].tolist() == row["value"].tolist() and len(own) == 1
    answers = {"pilot": tables("weak")["answers"].query("candidates == 'all'")}
    table = alone_table(answers | {"weak": tables("weak")["answers"]})
    assert "pilot" not in table  # its answers are not kept, and no effect is without an interval


def test_claims_that_hold_by_blocks_alone_have_a_dagger() -> None:
    effects = {"leave-out-domain": 0.2, "cg-low": 0.1, "cg-high": 0.1}
    told = accuracy_findings(planted(effects))
    assert claim_cell(told, 1).endswith("**holds**†") and not claim_cell(told, 2).endswith("†")
    wide = accuracy_findings(planted(effects, blocks=2))  # a t of one degree of freedom
    assert wide.set_index("number").loc[1, "paired_low"] < 0
    assert claim_cell(wide, 1).endswith("**holds**")


def test_accuracies_behind_the_claims_are_means_of_both_domains() -> None:
    effects = {"leave-out-domain": 0.2, "cg-low": -0.4, "cg-high": 0.1}
    answers = planted(effects, spread=0)  # quickdraw is 20 points below in leave-out-domain
    heads, _, row = reached_table({"made": answers}).splitlines()
    assert heads.startswith("| study | natural only | leave-out-domain | CG low | CG high |")
    assert row == "| made | 50 % | 60 % | 10 % | 60 % | – | – |"
    lost = answers[(answers["setting"] != "cg-low") | (answers["seed"] > 0)]
    n = answers["seed"].nunique() - 1
    assert f"| 60 % | 10 % ({n} blocks) | 60 % |" in reached_table({"made": lost})


def test_among_held_out_classes_nothing_is_decided() -> None:
    own = planted({"cg-high": 0.1, "cg-low": -0.1}).assign(candidates="held-out")
    found = accuracy_findings(own, candidates="held-out")
    assert found["p_adjusted"].iloc[0] < 0.001 and set(found["decision"]) == {""}
