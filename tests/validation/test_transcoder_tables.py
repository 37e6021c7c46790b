"""Tables of feature circuits: those of the page, and numbers that are counted by hand."""

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.judging import DOCS, filled
from tests.benchmarks.transcoder_tables import (
    EQUAL,
    PLANTED,
    STUDY,
    WITHOUT,
    planted_truth,
    read,
    recovered,
    tables,
)
from tests.benchmarks.transcoders import FIRST, FOLDER, TWICE, models


@pytest.mark.slow
def test_the_page_has_the_tables_of_the_committed_rows() -> None:
    page = (DOCS / "truth.md").read_text(encoding="utf-8")
    assert filled(page, tables(read(FOLDER))) == page


def test_models_have_an_answer_and_none_stands_twice() -> None:
    found = models([FIRST])
    assert len({(each.condition, each.dose) for each in found}) == len(found) == 17
    assert not TWICE & {(each.condition, each.dose) for each in found}
    assert set(read(FOLDER).query("tier == 'easy'")["seed"]) == {FIRST}


def rows_of(kept: dict[str, float], *, seed: int = 0, tier: str = "easy") -> list[dict]:
    said = {"condition": "one", "tier": tier, "dose": np.nan, "seed": seed, "domain": "A"}
    return [
        said | {"measure": "recovered", "code": code, "n": n, "value": value}
        for code, value in kept.items()
        for n in (*EQUAL, 999)
    ]


ALL = {"features": 0.5, "features, errors kept": 0.6, "neurons": 0.9, "principal components": 0.4,
       "random features": 0.0, "random features, errors kept": 0.1}  # fmt: skip


def test_differences_are_paired_by_model() -> None:
    """Models differ by far, the difference of two codes never does: the interval has no width."""
    rows = [row for seed in range(6)
            for row in rows_of({code: value + seed for code, value in ALL.items()},
                               seed=seed)]  # fmt: skip
    table = recovered(pd.DataFrame(rows).assign(kind=PLANTED)).splitlines()
    [neurons] = [line for line in table if line.startswith("| neurons")]
    assert "-0.40 (-0.40 to -0.40)" in neurons


def test_one_model_is_judged_over_its_classes() -> None:
    rows = rows_of(ALL, tier=STUDY)
    for label, shift in (("ant", 0.1), ("bee", -0.1)):
        some = rows_of({code: value + shift * (code == "neurons") for code, value in ALL.items()},
                       tier=STUDY)  # fmt: skip
        rows += [row | {"measure": WITHOUT + label} for row in some]
    table = recovered(pd.DataFrame(rows).assign(kind=STUDY)).splitlines()
    [neurons] = [line for line in table if "| neurons" in line]
    # two thetas of -.3 and -.5: standard error .1, t with one degree of freedom 12.7
    assert "-0.40 (-1.67 to +0.87)" in neurons


@pytest.mark.slow
@pytest.mark.parametrize(("turned", "auroc"), [(False, "1.00"), (True, "0.00")])
def test_sharing_is_told_by_rank(turned: bool, auroc: str) -> None:
    rows = []
    for seed in range(6):
        answer = "shared" if seed % 2 else "not shared"
        for code in ("features", "neurons", "principal components"):
            for measure, value in (("layers", 0.5), ("directions found", 0.25),
                                   ("overlap above another class", seed % 2),
                                   ("transfer above another class", seed % 2)):  # fmt: skip
                value = 1 - value if turned else value
                rows.append({"code": code, "measure": measure, "value": value, "answer": answer})
    table = planted_truth(pd.DataFrame(rows)).splitlines()
    [line] = [line for line in table if line.startswith("| neurons")]
    assert line.count(f"{auroc} ({auroc} to {auroc}, 6)") == 2
