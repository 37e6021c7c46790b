"""Effects, intervals and decisions agree with a second computation, and with what was planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.seeds import rng
from interp.verdicts.levels.l4_intervention import TARGET
from interp.verdicts.levels.over_training import HELD_OUT
from tests.benchmarks.findings.claims import (
    CLAIMS,
    Claim,
    accuracy_findings,
    cause_findings,
    claims_by_domain,
    decided,
    language_findings,
)
from tests.benchmarks.findings.still_open import open_cause
from tests.benchmarks.findings.tables import finished_blocks, tables
from tests.study.findings.kept import TRAINED, planted


def by_hand(means: pd.DataFrame, claim: Claim) -> tuple[float, float]:
    """A claim's difference and how far its interval reaches: the balanced analysis of the blocks
    that have both of its mixtures, with every mixture that all of these have."""
    means = means.dropna(subset=[claim.more, claim.less]).dropna(axis=1)
    blocks, n = means.shape
    rest = means.sub(means.mean(axis=1), axis=0) - means.mean() + means.to_numpy().mean()
    degrees = (n - 1) * (blocks - 1)
    error = np.sqrt(2 * (rest.to_numpy() ** 2).sum() / degrees / blocks)
    value = (means[claim.more] - means[claim.less]).mean()
    return value, stats.t.ppf(0.975, degrees) * error


@pytest.mark.parametrize("name", [name for name in TRAINED if finished_blocks(name) > 1])
def test_differences_are_an_analysis_of_variance_of_run_means(name: str) -> None:
    """Two ways to know the intervals: the crossed model, and the balanced analysis by hand."""
    answers = tables(name)["answers"].query("candidates == 'all'")
    means = answers.groupby(["seed", "test_domain", "setting"])["value"].mean()
    means = means.groupby(["seed", "setting"]).mean().unstack()
    means = means[[setting for setting in means if not setting.startswith("upper-bound")]]
    found = accuracy_findings(tables(name)["answers"]).set_index("number")
    for claim in CLAIMS[:5]:
        if claim.number in found.index:
            row = found.loc[claim.number]
            value, reach = by_hand(means, claim)
            assert row["n_blocks"] == len(means.dropna(subset=[claim.more, claim.less]))
            assert row["value"] == pytest.approx(value, abs=1e-4)
            assert row["high"] - row["value"] == pytest.approx(reach, rel=0.02)
    p = found["p"].sort_values()
    holm = np.maximum.accumulate(p.to_numpy() * np.arange(len(p), 0, -1)).clip(max=1)
    np.testing.assert_allclose(found.loc[p.index, "p_adjusted"], holm)


@pytest.mark.parametrize("name", [name for name in TRAINED if finished_blocks(name) > 1])
def test_differences_in_each_domain_are_those_of_its_runs_alone(name: str) -> None:
    """By hand again, domain by domain; and the t of blocks by scipy."""
    answers = tables(name)["answers"].query("candidates == 'all'")
    found = claims_by_domain(answers).set_index("contrast")
    means = answers.groupby(["test_domain", "seed", "setting"])["value"].mean().unstack()
    means = means[[setting for setting in means if not setting.startswith("upper-bound")]]
    both = means.groupby("seed").mean()
    for claim in CLAIMS[:5]:
        if claim.contrast not in found.index:
            continue
        row = found.loc[claim.contrast]
        gaps = (both[claim.more] - both[claim.less]).dropna()
        paired = stats.ttest_1samp(gaps, 0).confidence_interval()
        assert row["paired_low"] == pytest.approx(paired.low, abs=1e-4)
        assert row["paired_high"] == pytest.approx(paired.high, abs=1e-4)
        for domain, own in means.groupby("test_domain"):
            value, reach = by_hand(own, claim)
            assert row[f"{domain} value"] == pytest.approx(value, abs=1e-4)
            assert row[f"{domain} high"] - value == pytest.approx(reach, rel=0.02)


def test_planted_claims_are_decided_as_they_are() -> None:
    effects = {"leave-out-domain": 0.2, "cg-low": 0.1, "cg-high": 0.1}
    effects |= {"cg-high, half class overlap": 0.1, "cg-high, aligned captions": -0.1}
    found = accuracy_findings(planted(effects)).set_index("number")
    assert found["decision"].to_dict() == {
        1: "holds", 2: "does not hold", 3: "does not hold", 4: "does not hold",
        5: "the opposite holds", 6: "holds",
    }  # fmt: skip
    wide = accuracy_findings(planted(effects, blocks=2, spread=0.2)).set_index("number")
    assert set(wide["decision"]) == {"open"}
    assert len(accuracy_findings(planted({"cg-high": 0.1, "cg-low": 0.1}))) == 1


def test_a_claim_is_decided_by_sign_and_by_what_is_worth_having() -> None:
    assert decided(0.2, 0.1, 0.3, 0.04, 0.05) == "holds"
    assert decided(0.2, 0.1, 0.3, 0.06, 0.05) == "open"
    assert decided(0.2, 0.1, 0.3, float("nan"), 0.05) == "open"  # one block
    assert decided(0.0, -0.04, 0.04, float("nan"), 0.05) == "open"
    assert decided(0.0, -0.04, 0.04, 1.0, 0.05) == "does not hold"
    assert decided(0.0, -0.04, 0.04, 1.0, 0.03) == "open"


def test_a_second_study_of_a_cause_doubles_its_p() -> None:
    """Two weights were tried: a p of .03 is .06 for each."""
    measure = {"measure": TARGET.name, "weight": 0.1, "value": 0.03, "low": 0.01, "high": 0.05}
    made = pd.DataFrame([measure | {"arm": "aligned − shuffled", "p": 0.03, "n_runs": 24}])
    made = made.assign(paired_low=0.0, paired_high=0.1)
    level = {"weight": 0.1, "verdict": "goes together", "reason": "", "p_adjusted": 0.03}
    levels = pd.DataFrame([level | {"value": 0.03, "low": 0.01, "high": 0.05, "needed": ""}])
    [once] = cause_findings(made, levels, weight=0.1)["decision"]
    twice = cause_findings(made, levels, weight=0.1, tried=2)
    assert (once, *twice["decision"]) == ("holds", "open")
    said = open_cause({"made": twice})
    assert "p is 0.06 over 2 studies that ask. It takes more blocks." in said
    assert "reaches 2.0 points to either side with 12 blocks." in said


def test_a_cause_is_decided_at_equal_accuracy_of_seen_classes_alone() -> None:
    names = (TARGET.name, "accuracy of seen classes in the test domain")
    made = pd.DataFrame(
        [
            {"measure": name, "arm": arm, "weight": 1.0, "value": 0.2, "low": 0.1, "high": 0.3,
             "p": 0.01, "paired_low": 0.1, "paired_high": 0.3, "n_runs": 8}
            for name in names for arm in ("none", "aligned − shuffled", "aligned − none")
        ]
    )  # fmt: skip
    level = {"level": "L4", "weight": 1.0, "value": 0.2, "low": 0.1, "high": 0.3, "needed": ""}
    unequal, wide = "seen classes differ by -6.0 points", "the interval holds 0"
    for verdict, low, high, reason, said in (
        ("causes", 0.1, 0.3, "", "holds"),
        ("cannot tell", 0.1, 0.3, unequal, "withheld"),
        ("cannot tell", -0.1, 0.02, wide, "does not hold"),
        ("cannot tell", -0.1, 0.02, unequal, "withheld"),
    ):
        row = {
            **level,
            "low": low,
            "high": high,
            "verdict": verdict,
            "reason": reason,
            "p_adjusted": 0.01,
        }
        rows = cause_findings(made, pd.DataFrame([row]))
        assert rows["decision"].tolist() == [said, "", "", ""]


def test_labels_less_captions_are_paired_by_block() -> None:
    draw = rng("planted twins", 1)
    rows = [
        {"setting": setting, "test_domain": domain, "seed": seed, "quantity": quantity,
         "value": draw.normal()}
        for setting in ("cg-low", "cg-high") for domain in ("sketch", "quickdraw")
        for seed in range(4) for quantity in (HELD_OUT, "R2 a", "R3 b")
    ]  # fmt: skip
    captions = pd.DataFrame(rows)
    gaps = draw.normal(0.3, 0.1, size=len(rows))
    labels = captions.assign(value=captions["value"] + gaps)
    found = language_findings(captions, labels).set_index("quantity")
    for quantity, own in captions.assign(gap=gaps).groupby("quantity"):
        blocks = own.groupby("seed")["gap"].mean()
        test = stats.ttest_1samp(blocks, 0)
        row = found.loc[quantity]
        assert row["value"] == pytest.approx(blocks.mean()) and row["n_models"] == 32
        assert row["p"] == pytest.approx(test.pvalue)
        assert row["low"] == pytest.approx(test.confidence_interval().low)
    both = found.loc[["R2 a", "R3 b"]]
    smaller = both["p"].idxmin()
    assert both.loc[smaller, "p_adjusted"] == pytest.approx(min(1, 2 * both.loc[smaller, "p"]))
