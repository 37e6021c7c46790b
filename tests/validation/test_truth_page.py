"""The page of planted truth: every table is made from the cells that are committed."""

import numpy as np
import pandas as pd
import pytest

from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.validation.planted_ladder import outcome
from tests.benchmarks.judging import (
    BANDS,
    FIRST,
    TRUTH,
    as_csv,
    bands,
    blueprints,
    by_dose,
    circuits_found,
    filled,
    overall,
    path_of,
    read,
    read_cells,
    tables,
)


@pytest.mark.slow
def test_the_tables_are_those_of_the_committed_cells() -> None:
    for name, table in tables(read(), circuits_found()).items():
        assert (TRUTH / f"{name}.csv").read_text(encoding="utf-8") == as_csv(table)
    by_band = as_csv(bands(read_cells(BANDS)))
    assert (TRUTH / "bands.csv").read_text(encoding="utf-8") == by_band


def test_every_kind_of_model_was_judged_after_those_that_chose_thresholds() -> None:
    """But for those that are trained, which take minutes each."""
    kinds = [each for each in blueprints(1) if each.tier != "trained"]
    assert not [str(each) for each in kinds if not path_of(each).exists()]
    assert read()["seed"].min() == FIRST


def test_outcomes_are_those_of_the_answers_and_verdicts() -> None:
    cells = read()
    again = map(outcome, cells["expected"], cells["verdict"], cells["index"])
    assert cells["outcome"].tolist() == list(again)


def a_model(
    seed: int, answer: str, verdict: str, index: float, **more: object
) -> dict[str, object]:
    said = {"condition": "one", "tier": "easy", "dose": np.nan, "seed": seed, "measure": "das"}
    came = outcome(answer, verdict, index)
    told = {"site": "s", "expected": answer, "verdict": verdict, "index": index, "outcome": came}
    return said | told | more


def test_shares_are_of_models_that_have_an_index() -> None:
    """Four models that share nothing: one is told right, one "shared", two have no index."""
    said = [(NOT_SHARED, 0.0), (SHARED, 0.9), (UNKNOWN, np.nan), (UNKNOWN, np.nan)]
    cells = [a_model(seed, NOT_SHARED, *each) for seed, each in enumerate(said)]
    rungs, measures = overall(pd.DataFrame(cells))
    told = [cell.strip() for cell in rungs.splitlines()[2].split("|")[1:-1]]
    assert told[:7] == ["R4", "4", "2", "50%", "50%", "0%", "0%"]
    assert told[8:] == ["1 of 2 (at most 97%)", "0 of 0 (at most 100%)"]
    assert measures.splitlines()[2].startswith("| DAS | 4 | 2 | 50% |")


def test_a_bound_is_the_largest_share_that_such_a_count_allows() -> None:
    cells = [a_model(seed, SHARED, SHARED, 1.0) for seed in range(59)]
    assert "0 of 59 (at most 5%)" in overall(pd.DataFrame(cells))[0]


def test_doses_are_told_with_every_answer() -> None:
    """A site where no dose is to be seen in part is left out."""
    given = [(0.5, "s", 0.4, PARTLY), (0.5, "s", 0.5, SHARED), (1.0, "s", 0.9, SHARED)]
    cells = [
        a_model(seed, PARTLY, verdict, index, condition="dose", dose=dose, site=site)
        for seed, (dose, site, index, verdict) in enumerate(given)
    ]
    cells.append(a_model(9, SHARED, SHARED, 1.0, condition="dose", dose=0.5, site="other"))
    lines = by_dose(pd.DataFrame(cells)).splitlines()
    assert lines[2] == "| 0.5 | – | – | 0.45 ◐ 1/2, ● 1/2 | – | – | – | – |"
    assert lines[3] == "| 1 | – | – | 0.90 ● 1/1 | – | – | – | – |"


def test_a_page_without_the_place_of_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        filled("no place", {"rungs": "| a |"})
