"""Labels stand against captions of the same mixture."""

import numpy as np
import pandas as pd

from tests.benchmarks.findings.language import (
    language_by_mixture,
    language_in_words,
    language_linked,
)
from tests.benchmarks.findings.tables import RUN, finished_blocks, tables
from tests.benchmarks.findings.writing import spoken


def test_labels_stand_against_captions_of_the_same_and_of_no_domain() -> None:
    """Labels four points above captions, and six below aligned ones, in every run but for noise."""
    keys = [(domain, seed) for domain in ("sketch", "quickdraw") for seed in range(3)]

    def of(setting: str, accuracy: float) -> pd.DataFrame:
        rows = [{"setting": setting, "test_domain": d, "seed": k, "accuracy": accuracy + k / 100}
                for d, k in keys]  # fmt: skip
        return pd.concat([pd.DataFrame(rows)] * 2)  # a row for every rung

    aligned = of("cg-high, aligned captions", 0.60)
    captioned = {"runs": pd.concat([of("cg-high", 0.50), aligned])}
    labelled = of("cg-high", 0.54).assign(accuracy=lambda f: 0.54 + f["seed"] / 100)
    table = language_by_mixture({"labels_runs": labelled}, captioned).splitlines()
    assert table[2].startswith("| CG high | 51 % | 55 % | +4.0 [4.0, 4.0]")
    assert table[3].startswith("| CG high, aligned captions | 61 % | 55 % | -6.0 [")
    assert table[2].endswith("| 3 blocks, 12 models |") and len(table) == 4


def test_what_captions_cost_is_told_mixture_by_mixture() -> None:
    """By means of runs, on average and in every mixture; captions that name no domain apart."""
    strong, twin = tables("strong"), tables("twin")
    said = language_in_words(twin, strong)
    by = pd.concat([twin["labels_runs"], strong["runs"]], keys=["labels", "captions"])
    own = by.reset_index(level=0, names="kind").drop_duplicates(["kind", *RUN])
    kept = own[own["seed"] < finished_blocks("twin")]
    means = 100 * kept.groupby(["kind", "setting"])["accuracy"].mean()
    gaps = means["labels"] - means["captions"].reindex(means["labels"].index)
    aligned = means["labels", "cg-high"] - means["captions", "cg-high, aligned captions"]
    assert said.startswith(f"Not needed on average: labels − captions {gaps.mean():+.1f} [")
    for setting, gap in gaps.items():
        assert f"{spoken(str(setting))} ({gap:+.1f} [" in said
    assert f"; not planned: against CG high, aligned captions {aligned:+.1f} [" in said
    better = said.split("above zero in ")[1].split("; may be zero")[0]
    assert "CG low" in better and "CG high" in better and "natural only" not in better
    swapped = {"runs": twin["labels_runs"], "labels_runs": twin["runs"]}
    worse = language_in_words(swapped, {"runs": twin["labels_runs"]})
    assert worse.startswith("It helps on average: ") and "below zero in CG low" in worse


def test_links_with_captions_and_labels_stand_side_by_side() -> None:
    places = {
        "level": "L2",
        "adjusted": "",
        "unit": "block",
        "n_units": 6,
        "low": -0.5,
        "p_adjusted": 0.2,
    }

    def levels(r: float, n_runs: int) -> pd.DataFrame:
        return pd.DataFrame([
            places | {"rung": "R2", "measure": "debiased CKA", "value": r, "high": 0.9,
                      "reliability": 0.7, "n_runs": n_runs},
            places | {"rung": "R4", "measure": "search", "value": np.nan, "high": np.nan,
                      "reliability": np.nan, "n_runs": 0},
            places | {"level": "L1", "rung": "R2", "measure": "debiased CKA", "value": 0.99,
                      "high": 1.0, "reliability": 1.0, "n_runs": 8},
        ])  # fmt: skip

    linked = language_linked({"levels": levels(0.5, 32), "labels_levels": levels(-0.1, 30)})
    [row] = linked.splitlines()[2:]
    told = ".50 [-.50, .90] | 0.2 | .70 | -.10 [-.50, .90] | 0.2 | .70"
    assert row == f"| R2 debiased CKA | {told} | 6 blocks, 32 runs |"
