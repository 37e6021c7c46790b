"""Entries of the leaderboard on models whose answer is planted: what each says and misses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from interp.circuits.planted.vit import Blueprint
from interp.core.tables import Table
from interp.validation import blueprints
from interp.validation.puzzles import circuit_puzzles, sharing_puzzle
from tests.benchmarks import contenders, seed_pairs, standing
from tests.benchmarks.judging import DOCS, filled


@pytest.mark.slow
def test_the_page_has_the_tables_of_the_committed_rows() -> None:
    page = (DOCS / "judging_methods.md").read_text(encoding="utf-8")
    made = {"leaderboard": standing.table(), "seed pairs": seed_pairs.tables()}
    assert filled(page, made) == page


def test_a_model_is_judged_once_and_kept_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of edges a few at a time, so that an entry that was stopped goes on with the rest."""
    models, asked = blueprints([0], conditions=["all shared", "dose"]), []

    def judged(method: str, some: list[Blueprint], **_: object) -> Table:
        asked.append(some)
        if len(asked) == 2:
            raise KeyboardInterrupt
        rows = [{"condition": m.condition, "tier": m.tier, "dose": m.dose, "seed": m.seed,
                 "auroc": 1.0} for m in some]  # fmt: skip
        return Table("judged", pd.DataFrame(rows), own=dict.fromkeys(rows[0], "judged"))

    monkeypatch.setattr(standing, "judge_method", judged)
    monkeypatch.setattr(standing, "FOLDER", tmp_path)
    assert len(models) > standing.AT_A_TIME
    with pytest.raises(KeyboardInterrupt):
        standing._judge("edges", "acdc", models)
    standing._judge("edges", "acdc", models)
    standing._judge("edges", "acdc", models)
    first, _, *rest = asked
    done = [*first, *(model for some in rest for model in some)]
    assert len(done) == len(models) and set(done) == set(models)
    assert len(pd.read_csv(tmp_path / "edges-acdc.csv")) == len(models)


def test_a_stitch_goes_on_as_well_where_nothing_is_shared() -> None:
    shared, separate = (
        contenders.stitching(sharing_puzzle(Blueprint(name, seed=3)))
        for name in ("all shared", "all separate")
    )
    assert shared > 0.95 and separate > 0.95


@pytest.mark.long  # of such models test_climbing asks R5 and R6, test_alignment_search R4
@pytest.mark.parametrize(
    ("name", "said"), [("all shared", "shared"), ("all separate", "not shared")]
)
def test_causal_rungs_tell_what_is_planted(name: str, said: str) -> None:
    puzzle = sharing_puzzle(Blueprint(name, seed=3))
    found = contenders.our_subspaces(puzzle) | contenders.our_circuits(puzzle)
    assert {rung: answer["verdict"] for rung, answer in found.items()} == {
        rung: said for rung in ("R4", "R5", "R6")
    }


@pytest.mark.long
def test_acdc_and_path_patching_find_the_planted_edges() -> None:
    _, puzzle, inside = next(circuit_puzzles(Blueprint("all shared", seed=3), "edge"))
    planted = np.array([name in inside for name in puzzle.parts])
    kept = contenders.acdc(puzzle)
    assert set(np.unique(kept)) <= set(range(len(contenders.THRESHOLDS) + 1)) and kept.any()
    for scores in (kept, np.abs(contenders.path_patching(puzzle))):
        assert roc_auc_score(planted, scores) > 0.95
    assert roc_auc_score(planted, contenders.random_edges(puzzle)) < 0.8
