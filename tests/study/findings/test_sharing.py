"""Tables on what is shared agree with a second computation."""

import pandas as pd
import pytest
from scipy import stats

from interp.core.seeds import rng
from interp.verdicts.levels.across_checkpoints import verdict
from tests.benchmarks.findings.claims import accuracy_findings
from tests.benchmarks.findings.sharing import (
    domains_apart,
    domains_apart_in_words,
    domains_apart_table,
    foretold_in_words,
    shared_in_words,
    without_each_mixture,
)
from tests.benchmarks.findings.tables import tables


def test_what_foretells_best_is_best_on_mixtures_left_out() -> None:
    rows = tables("weak")["foretelling"]
    said = foretold_in_words({"foretelling": rows})
    names = rows["predictor"].str.replace(r"(R\d) \w+:", r"\1", regex=True)
    names = names.str.replace(" there", " in the test domain")
    said_so = names.str.replace("linearity", "linearity of class and domain")
    rows = rows.assign(predictor=said_so)
    across, within = rows.query("level == 'L1'"), rows.query("level == 'L2'")
    best = across.loc[across["foretold"].idxmax()]
    first, last = said.split(" Best on mixtures left out of the fit, ")
    ties = across[across["foretold"].round(2) == round(best["foretold"], 2)]["predictor"]
    each = " each" if len(ties) > 1 else ""
    assert last.startswith(f"R² {best['foretold']:+.2f}{each}: ")
    assert {name for name in across["predictor"] if name in last} == set(ties)
    told = within[within["p_adjusted"] < 0.05]["predictor"]
    unsaid = set(within["predictor"]) - set(told)
    after, elsewhere = first.split("of one mixture: ")[1].split("; across mixtures: ")
    assert all(name in after for name in told) and not any(name in after for name in unsaid)
    assert elsewhere == "none."
    none = rows.assign(p_adjusted=0.5)
    assert "of one mixture: none; across" in foretold_in_words({"foretelling": none})


def test_how_much_is_shared_is_the_mean_of_mixtures_over_blocks() -> None:
    """Upper bounds aside; a measure that most runs lack is withheld."""
    runs = tables("strong")["runs"]
    own = runs[(runs["measure"] == "dice") & ~runs["setting"].str.startswith("upper")]
    blocks = own.groupby("seed")["index"].mean()  # no run lacks it, and mixtures are alike in size
    low, high = stats.ttest_1samp(blocks, 0).confidence_interval()
    ends = f"{blocks.mean():.2f} [{low:.2f}, {high:.2f}]".replace("0.", ".")
    said = shared_in_words({"runs": runs})
    assert (
        f"R5 parts {ends};" in said
        and "R4 causal directions withheld in 78 of 80 measurements" in said
    )
    lost = runs["index"].mask((runs["measure"] == "dice") & (runs["seed"] < 5))
    assert "R5 parts withheld in 50 of 80 measurements" in shared_in_words(
        {"runs": runs.assign(index=lost)}
    )
    assert said.index("R2 ") < said.index("R3 ") < said.index("R4 ")


def test_a_link_is_looked_at_without_each_of_its_mixtures() -> None:
    """By the verdict on what is left; upper bounds never count."""
    runs = tables("weak")["runs"].query("measure == 'cosine of mean differences' and seed < 4")
    runs = runs[~runs["setting"].str.contains("domains|cells|base|overlap")]
    left = without_each_mixture(runs).set_index("setting")
    assert not any("upper-bound" in name for name in left.index) and len(left) == 5
    rest = verdict(runs[runs["setting"] != "cg-low"]).table.frame
    own = rest.query("level == 'L2' and adjusted == ''").iloc[0]
    assert left.loc["cg-low", ["value", "p"]].tolist() == own[["value", "p"]].tolist()


def test_a_domain_that_shares_less_need_not_fail_more() -> None:
    """Quickdraw planted .2 below sketch in one measure everywhere, in accuracy in one mixture."""
    random, rows = rng("domains apart"), []
    for setting, lower in (("leave-out-domain", 0.0), ("cg-high", 0.1)):
        for domain, less in (("sketch", 0), ("quickdraw", 1)):
            for seed in range(6):
                accuracy = 0.5 - lower * less + seed / 20 + 0.01 * random.normal()
                place = {"setting": setting, "test_domain": domain, "seed": seed}
                for measure, gap in (("CKA", 0.0), ("cosine", 0.2)):
                    index = 0.7 - gap * less + 0.02 * random.normal()
                    rows.append(place | {"rung": "R3", "measure": measure, "index": index}
                                | {"accuracy": accuracy})  # fmt: skip
    runs = pd.DataFrame(rows)
    made = domains_apart(runs).set_index(["quantity", "setting"])
    wide = runs[runs["measure"] == "cosine"].pivot(
        index=["setting", "seed"], columns="test_domain", values="index")  # fmt: skip
    for setting, own in wide.groupby("setting"):
        plain = stats.ttest_rel(own["sketch"], own["quickdraw"]).confidence_interval()
        ends = made.loc[("R3 cosine", setting), ["low", "high"]]
        assert ends.to_numpy(float) == pytest.approx([plain.low, plain.high])
    said = domains_apart_in_words({"runs": runs}, "R3 cosine")
    assert "in 2 of 2 mixtures (R3 cosine), and is less accurate in 1," in said
    assert "in 0 of 2 mixtures" in domains_apart_in_words({"runs": runs}, "R3 CKA")
    [high] = [
        line for line in domains_apart_table({"runs": runs}).splitlines() if "CG high" in line
    ]
    assert high.startswith("| CG high | +") and high.endswith("| 6 blocks |")


@pytest.mark.slow
def test_a_domain_that_is_hard_in_a_block_is_no_difference_of_domains() -> None:
    """Domains alike on average, but one harder in each block: told apart as often as 5 % says."""
    settings, false = ("leave-out-domain", "cg-low", "cg-high", "natural-only"), 0
    for seed in range(40):
        draw, rows = rng("hard domains", seed), []
        for block in range(3):
            for domain, by in zip(("sketch", "quickdraw"), draw.normal(0, 0.1, 2), strict=True):
                for setting in settings:
                    value = 0.5 + by + draw.normal(0, 0.03)
                    rows += [
                        {"setting": setting, "test_domain": domain, "domain": domain,
                         "seed": block, "label": f"{block}-{k}", "candidates": "all",
                         "prompts": "neutral", "classifier": "text", "n_pictures": 16,
                         "run": f"{setting} {domain} {block}", "value": value} for k in range(2)
                    ]  # fmt: skip
        found = accuracy_findings(pd.DataFrame(rows)).set_index("number").loc[6]
        false += found["p"] < 0.05
    assert false <= 6  # of 40; 2 are to be expected
