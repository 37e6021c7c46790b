"""Judging a method: answers are read, held against the truth, and no failure stops the rest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.circuits import attribute
from interp.circuits.planted.vit import Blueprint
from interp.core.arguments import numbers_from
from interp.core.errors import DataError, SpecificationError
from interp.core.tables import Table
from interp.validation import (
    CircuitPuzzle,
    SharingPuzzle,
    blueprints,
    judge_method,
    open_benchmark,
    planted_answers,
    standing,
    write_benchmark,
)
from interp.validation.judged_methods import Answer, find_method, read_scores
from interp.validation.puzzles import circuit_puzzles, sharing_puzzle
from interp.validation.standings import bound
from tests.benchmarks import contenders

FEW = ["all shared", "all separate", "rotated code"]


@pytest.fixture(scope="module")
def models() -> list[Blueprint]:
    return blueprints(range(3), conditions=FEW, tiers=["easy"])


@pytest.mark.slow
def test_truth_itself_is_always_right_and_its_contrary_never(models: list[Blueprint]) -> None:
    """A method that looks the answer up, and one that says the opposite of it."""
    answers = iter([planted_answers(model) for model in models])
    right = judge_method(lambda puzzle: next(answers), models)
    assert set(right.frame["outcome"]) == {"right"}
    other = {"shared": "not shared", "not shared": "shared", "partly shared": "unknown"}
    answers = iter([{k: other[v] for k, v in planted_answers(model).items()} for model in models])
    wrong = judge_method(lambda puzzle: next(answers), models)
    assert set(wrong.frame["outcome"]) == {"wrong"}
    rows = standing(wrong).frame.set_index("rung")
    told = right.frame[right.frame["rung"] == "R6"]["expected"].value_counts()
    assert rows.loc["R6", "false_shared"] == told["not shared"] == 6
    assert rows.loc["R6", "false_not"] == told["shared"] == 3
    assert rows.loc["R6", "too_much"] == pytest.approx(6 / 9)
    assert (standing(right).frame["right"] == 1).all()


@pytest.mark.slow
def test_an_index_is_judged_by_how_it_ranks(models: list[Blueprint]) -> None:
    levels = {"shared": 0.9, "partly shared": 0.5, "not shared": 0.1}
    truth = [{k: levels[v] for k, v in planted_answers(model).items()} for model in models]
    for sign, area in ((1, 1.0), (-1, 0.0)):
        turn = iter(truth)
        table = judge_method(
            lambda puzzle, turn=turn, sign=sign: {k: sign * v for k, v in next(turn).items()},
            models,
        )
        row = standing(table).frame.set_index("rung").loc["R6"]
        assert row["auroc"] == row["low"] == row["high"] == area
        assert np.isnan(row["right"]) and row["failed"] == 0
    flat = standing(judge_method(lambda puzzle: 0.5, models)).frame.set_index("rung")
    assert flat.loc["R6", "auroc"] == 0.5


@pytest.mark.parametrize(
    ("given", "verdict", "index"),
    [
        ("shared", "shared", None), ("partly", "partly shared", None), ("not", "not shared", None),
        (0.25, "", 0.25), (np.float32(1), "", 1.0), (torch.tensor(0.5), "", 0.5),
        ({"verdict": "unknown", "index": 0.4}, "unknown", 0.4),
        ({"verdict": "unknown", "index": None}, "unknown", None),
    ],
)  # fmt: skip
def test_answers_are_read(given: Any, verdict: str, index: float | None) -> None:
    answer = Answer.read(given)
    assert answer.verdict == verdict
    assert np.isnan(answer.index) if index is None else answer.index == pytest.approx(index)


@pytest.mark.parametrize(
    "given",
    ["maybe", None, float("nan"), float("inf"), [0.1, 0.2], {}, {"verdict": "shared", "p": 0.1},
     True, {"index": "shared", "verdict": object()}],
)  # fmt: skip
def test_what_is_no_answer_is_a_reason(given: Any, models: list[Blueprint]) -> None:
    frame = judge_method(lambda puzzle: given, models[:1]).frame
    assert set(frame["outcome"]) == {"failed"} and frame["reason"].str.len().min() > 5
    assert frame["rung"].tolist() == list(planted_answers(models[0]))


@pytest.mark.slow
def test_failures_and_silence_leave_the_rest(models: list[Blueprint]) -> None:
    turns = iter(range(len(models)))

    def moody(puzzle: SharingPuzzle) -> Any:
        turn = next(turns)
        if turn == 1:
            raise RuntimeError("out of order\nand more")
        return {"R6": "unknown"} if turn == 2 else "shared"

    frame = judge_method(moody, models).frame
    by_model = frame.groupby(["condition", "seed"], sort=False)["outcome"].agg(set).tolist()
    assert (
        by_model[1] == {"failed"} and by_model[2] == {"abstained"} and len(by_model) == len(models)
    )
    assert set(frame["reason"]) == {"", "RuntimeError: out of order"}
    row = standing(Table("judged", frame, {}, own=dict.fromkeys(frame, ""))).frame
    assert row.set_index("rung").loc["R6", ["failed", "unknown"]].tolist() == [1, 1 / 8]


@pytest.mark.slow
def test_circuits_are_held_against_the_planted_ones(models: list[Blueprint]) -> None:
    """Scores that are the truth rank it first; negative ones too; chance ranks it anywhere."""
    truths = iter([inside for model in models for _, _, inside in circuit_puzzles(model, "edge")])

    def told(puzzle: CircuitPuzzle) -> dict[str, float]:
        inside = next(truths)
        return {name: -1.0 if name in inside else 0.0 for name in puzzle.parts}

    table = judge_method(told, models, ask="edges")
    assert table.frame["auroc"].to_numpy() == pytest.approx(1)
    assert set(table.frame["domain"]) == {"A", "B"}
    random = judge_method("tests.benchmarks.contenders:random_edges", models, ask="edges", jobs=1)
    row = standing(random).frame.iloc[0]
    assert 0.3 < row["auroc"] < 0.7 and row["low"] <= row["auroc"] <= row["high"]


def test_scores_are_those_of_the_library(models: list[Blueprint]) -> None:
    domain, puzzle, inside = next(circuit_puzzles(models[0], "node"))
    assert domain == "A" and inside <= set(puzzle.parts) and "logits" not in puzzle.parts
    _, edges, _ = next(circuit_puzzles(models[0], "edge"))
    own = attribute(edges.tower, **edges.task, method="EAP", batch_size=16).scores
    np.testing.assert_array_equal(contenders.eap(edges), own)


@pytest.mark.parametrize("given", [np.ones(3), [1.0], {"m0": 1.0}, "all", None])
def test_scores_that_do_not_fit_are_refused(given: Any, models: list[Blueprint]) -> None:
    _, puzzle, _ = next(circuit_puzzles(models[0], "node"))
    with pytest.raises((ValueError, TypeError)):
        read_scores(given, puzzle)
    with pytest.raises(ValueError, match="not finite"):
        read_scores(np.full(len(puzzle.parts), np.nan), puzzle)


def test_a_puzzle_does_not_hold_its_answer(models: list[Blueprint]) -> None:
    shown = {name for name in vars(sharing_puzzle(models[0]))}
    assert shown == {"tower", "images", "classifier", "preprocess", "domains"}


@pytest.mark.slow
def test_the_same_seeds_give_the_same_models_to_the_bit(models: list[Blueprint]) -> None:
    one, two = (sharing_puzzle(Blueprint("rewired", 1000)) for _ in range(2))
    for a, b in zip(one.tower.source.parameters(), two.tower.source.parameters(), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(a, b)
    frames = [
        judge_method(contenders.rsa, models[:2]).frame.drop(columns="seconds") for _ in range(2)
    ]
    pd.testing.assert_frame_equal(*frames)


@pytest.mark.slow
def test_entries_see_what_is_declared() -> None:
    """CKA sees geometry and nothing else; our directions tell what is shared from what is not."""
    models = blueprints(range(2), conditions=FEW, tiers=["easy"])
    by_cka = judge_method(contenders.cka, models).frame.groupby("condition")["index"].mean()
    assert by_cka.min() > 0.8  # also where all is separate: CKA does not see a rotation
    ours = judge_method(contenders.our_directions, models).frame
    known = ours[ours["rung"] == "R3"]
    assert len(known) >= 4 and (known["outcome"] == "right").mean() >= 0.75
    assert set(judge_method(contenders.our_geometry, models[:1]).frame["outcome"]) == {"right"}
    transfer = judge_method(contenders.probe_transfer, models).frame.groupby("condition")["index"]
    assert transfer.mean()["all shared"] > transfer.mean()["all separate"] + 0.3


def test_models_as_files_are_the_models(tmp_path: Path) -> None:
    models = blueprints([0], conditions=["all shared", "rewired"], tiers=["easy"])
    folders = write_benchmark(tmp_path, models)
    assert [folder.name for folder in folders] == ["0000", "0001"]
    for blueprint, (_, puzzle, answers) in zip(models, open_benchmark(tmp_path), strict=True):
        own = sharing_puzzle(blueprint)
        pictures = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        assert torch.equal(puzzle.tower(pictures), own.tower(pictures))
        assert puzzle.images.label.tolist() == own.images.label.tolist()
        assert puzzle.images.picture(5).tobytes() == own.images.picture(5).tobytes()
        assert torch.equal(puzzle.classifier.embeddings, own.classifier.embeddings)
        assert answers["shared"] == planted_answers(blueprint)
        edges = next(each for each in answers["circuits"] if each["kind"] == "edge")
        assert set(edges["parts"]) == next(circuit_puzzles(blueprint, "edge"))[2]
    assert "condition" not in json.loads((folders[0] / "config.json").read_text())
    before = folders[0].stat().st_mtime_ns
    write_benchmark(tmp_path, models)  # what is there is not written again
    assert folders[0].stat().st_mtime_ns == before
    (folders[1] / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="Write it again"):
        list(open_benchmark(tmp_path))
    with pytest.raises(DataError, match="which has none"):
        open_benchmark(tmp_path / "nowhere")


def test_what_cannot_be_judged_is_said(models: list[Blueprint]) -> None:
    for name in ("nothing", ":f", "m:", "no_such_module:f", "json:none", "json:__name__"):
        with pytest.raises(SpecificationError):
            find_method(name)
    with pytest.raises(SpecificationError, match="question"):
        judge_method(contenders.cka, models, ask="neurons")
    for wrong in ({"seconds": 0}, {"jobs": 0}):
        with pytest.raises(SpecificationError):
            judge_method(contenders.cka, models, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecificationError):
        judge_method(contenders.cka, [])
    for text in ("", "x", "3-1", "-1", "1-", "1-2-3"):
        with pytest.raises(SpecificationError):
            numbers_from(text, "seeds")
    with pytest.raises(SpecificationError, match="one model or more"):
        blueprints([0], conditions=["backup"], tiers=["hard"])
    with pytest.raises(SpecificationError, match="what judge_method returns"):
        standing(Table("circuits", pd.DataFrame({"score": [1.0]})))


def test_bounds_are_exact() -> None:
    """Three in 300: the rule of three for none seen, and the whole for all seen."""
    assert bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert bound(5, 5) == 1.0 and 0.5 < bound(5, 10) < 0.85
