"""Labels stand against captions of the same mixture."""

import re

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.findings.causes import (
    language_by_mixture,
    language_in_words,
    language_linked,
)
from tests.benchmarks.findings.tables import RUN, finished_blocks, tables


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
    assert table[2].startswith("| CG high diversity | 51 % | 55 % | +4.0 [4.0, 4.0]")
    assert table[3].startswith("| CG high diversity, aligned captions | 61 % | 55 % | -6.0 [")
    assert table[2].endswith("| 3 blocks, 12 models |") and len(table) == 4


def test_what_captions_cost_is_told_by_those_that_name_no_domain() -> None:
    strong, twin = tables("strong"), tables("twin")
    said = language_in_words(twin, strong)
    gaps = re.findall(r"[+-]\d+\.\d(?= \[)", said)
    by = pd.concat([twin["labels_runs"], strong["runs"]], keys=["labels", "captions"])
    own = by.reset_index(level=0, names="kind").drop_duplicates(["kind", *RUN])
    kept = own[own["seed"] < finished_blocks("twin")]
    means = 100 * kept.groupby(["kind", "setting"])["accuracy"].mean()
    high = means["labels", "cg-high"]
    for gap, setting in zip(gaps, ("cg-high", "cg-high, aligned captions"), strict=False):
        assert float(gap) == pytest.approx(high - means["captions", setting], abs=0.06)
    four = means["labels"] - means["captions"].reindex(means["labels"].index)
    assert float(gaps[2]) == pytest.approx(four.mean(), abs=0.06) and len(gaps) == 3


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
