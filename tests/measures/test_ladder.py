"""The ladder on models whose answer is known, in small; and how rows become answers."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageColor

from interp.circuits import Chain
from interp.circuits.planted.vit import Blueprint, plant
from interp.circuits.planted.weights import disguise
from interp.circuits.planted.world import as_tensor, paint
from interp.circuits.sharing.choices import CHOICES
from interp.core.classifiers import Classifier
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.measures import ladder as climbing
from interp.measures.catalogue.mechanisms import shared_mechanisms
from interp.measures.circuit_tables import CircuitOptions
from interp.measures.ladder import CAUSAL, Ladder, ladder, ladder_tables
from interp.measures.multiverse import multiverse
from interp.measures.subject import Subject
from interp.models.towers.vit import HookedViT
from interp.validation import planted_ladder
from interp.validation.planted_ladder import PlantedLadder
from interp.validation.puzzles import SharingPuzzle
from interp.verdicts.judging import WHOLE, agreement_of_blocks, judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS
from tests.benchmarks import contenders


@cache
def climbed(condition: str) -> Ladder:
    planted = disguise(plant(Blueprint(condition, 2)), seed=1)
    return ladder(
        HookedViT(planted.source),
        paint(planted.world, 6, seed=4),
        domains=["A", "B"],
        classifier=planted.classifier,
        preprocess=as_tensor,
        pool="class",
        n=2,
        n_permutations=99,
        n_splits=2,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [
        ("all shared", "shared", "not shared"),
        pytest.param("all separate", "not shared", "shared", marks=pytest.mark.long),
    ],
)
def test_the_answer_is_the_planted_one(condition: str, right: str, wrong: str) -> None:
    found = climbed(condition)
    assert found.verdict("R5", WHOLE) == found.verdict("R6", WHOLE) == right
    assert found.verdict("R1") == "shared"
    judged = found.rungs.frame
    causal = judged[judged["rung"].isin(["R3", "R5", "R6"])]
    assert wrong not in set(causal["verdict"])
    assert {"R1", "R2", "R3", "R5", "R6"} <= set(found.table.frame["rung"])


@pytest.mark.parametrize("grey", [0, 8])
def test_a_domain_that_the_model_answers_alike_is_a_reason(grey: int) -> None:
    """Black has no logits that differ; other greys make partners that are the same picture."""
    colours = ("red", "lime", "blue", "white", "yellow", "cyan")
    cells = [(name, domain, artist) for name in colours for domain in "AB" for artist in "abcdef"]
    frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    frame = frame.assign(path=range(len(cells)), split="test", caption="")
    alike = Image.new("RGB", (1, 1), (grey,) * 3)
    images = ImageTable(
        frame,
        reader=lambda row: (
            Image.new("RGB", (1, 1), row["label"]) if row["domain"] == "A" else alike
        ),
    )
    found = ladder(
        Chain([torch.nn.Identity()] * 3),
        images,
        domains=["A", "B"],
        classifier=Classifier(torch.tensor([*map(ImageColor.getrgb, colours)]) / 255, colours),
        preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255,
        n=2,
        n_splits=2,
        n_permutations=19,
    )
    rows = found.table.frame
    assert set(rows["verdict"]) == {"unknown"}
    assert rows[rows["rung"].isin(["R2", "R3", "R4", "R6"])]["reason"].ne("").all()


@pytest.mark.slow
def test_geometry_is_blind_to_separate_circuits() -> None:
    """CKA cannot see a rotation: it calls separate circuits shared, as the ladder's page says."""
    assert climbed("all separate").verdict("R2") == "shared"
    with pytest.raises(SpecificationError, match="rung"):
        climbed("all separate").verdict("R7")


@pytest.mark.slow
def test_every_answer_has_a_claim_an_index_or_a_reason() -> None:
    for condition in ("all shared", "all separate"):
        table = climbed(condition).table.frame
        assert (table["claim"] == table["rung"].map(lambda rung: RUNGS[rung].claim)).all()
        assert (table["index"].notna() | (table["reason"] != "")).all()
        assert not table.duplicated(["domain_a", "domain_b", "band", "rung"]).any()
        assert set(table["band"]) <= {"early", "middle", "late", WHOLE}
    assert "factor" in climbed("all shared").tables["factorisation"].frame


def rows(rung: str, verdicts: dict[str, str]) -> pd.DataFrame:
    """Judged rows of one pair, a row per level."""
    index = {"shared": 0.9, "not shared": 0.0, "unknown": np.nan}
    return pd.DataFrame(
        {
            "rung": rung, "level": level, "domain_a": "b", "domain_b": "a", "band": "", "site": "",
            "index": index[verdict], "index_low": index[verdict], "index_high": index[verdict],
            "verdict": verdict, "reason": "" if verdict != "unknown" else "too little room",
            "n_units": 8,
        }
        for level, verdict in verdicts.items()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        ({"channel": "shared", "edge": "unknown"}, "shared"),
        ({"channel": "shared", "edge": "not shared"}, "not shared"),
        ({"channel": "unknown", "edge": "unknown"}, "unknown"),
        ({"channel": "shared", "edge": "shared"}, "shared"),
    ],
)
def test_wiring_is_shared_only_if_no_cut_denies_it(verdicts: dict[str, str], answer: str) -> None:
    found = ladder_rows(rows("R6", verdicts))
    assert found["verdict"].tolist() == [answer]
    assert found[["domain_a", "domain_b"]].iloc[0].tolist() == ["a", "b"]


def test_other_rungs_need_all_their_sites() -> None:
    found = ladder_rows(rows("R3", {"x": "shared", "y": "not shared"})).iloc[0]
    assert found["verdict"] == "unknown" and found["votes"] == "1 of 2 shared, 1 of 2 not shared"


def test_an_undecided_interval_says_how_many_classes_would_decide_it() -> None:
    wide = rows("R3", {"x": "unknown"}).assign(index=0.5, index_low=0.0, index_high=1.0, reason="")
    found = ladder_rows(wide).iloc[0]
    assert found["needed"] == "about 13 classes instead of 8, or more drawings of each"
    both = rows("R3", {"x": "shared", "y": "not shared"})  # more classes would not make them agree
    ends = {"index_low": both["index"] - 0.4, "index_high": both["index"] + 0.4}
    apart = ladder_rows(both.assign(**ends)).iloc[0]
    refused = ladder_rows(rows("R3", {"x": "unknown"})).iloc[0]
    assert (apart["needed"], refused["needed"], refused["reason"]) == ("", "", "too little room")


@pytest.mark.slow
def test_tables_that_are_missing_leave_their_rungs_out() -> None:
    whole = {name: table.frame for name, table in climbed("all shared").tables.items()}
    some = judged_rows({"similarity": whole["similarity"]})
    assert set(some["rung"]) == {"R2"}
    assert judged_rows({}).empty


def test_what_cannot_be_asked_is_refused() -> None:
    planted = plant(Blueprint("all shared", 2))
    images = paint(planted.world, 2, seed=4)
    words = {"classifier": planted.classifier, "preprocess": as_tensor, "pool": "class"}
    tower = HookedViT(planted.source)
    with pytest.raises(DataError, match="domain"):
        ladder(tower, images, domains=["A", "C"], **words)
    with pytest.raises(SpecificationError, match="two or more"):
        ladder(tower, images, domains=["A", "A"], **words)
    with pytest.raises(SpecificationError, match=r"call ladder.* mean n_permutations"):
        ladder(tower, images, domains=["A", "B"], **words, n_permutation=9)
    with pytest.raises(SampleError):
        ladder(tower, images.select(label=images.labels[:1]), domains=["A", "B"], **words)


def test_directions_are_exchanged_where_the_last_stream_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted, asked = plant(Blueprint("all shared", 2)), []

    def refuse(*given: Any, where: dict[str, int], **words: Any) -> None:
        asked.append(where)
        raise SampleError("ask", "nothing", "something", "stop here")

    monkeypatch.setattr(climbing, "das_among", refuse)
    words: dict[str, Any] = {"classifier": planted.classifier, "preprocess": as_tensor}
    images = paint(planted.world, 4, seed=4)
    subject = Subject.of_tower(HookedViT(planted.source), images, domains=("A", "B"), **words)
    ladder_tables(subject, ["das"])
    assert asked == [{"pos": 0}]  # the class token; earlier streams are read everywhere


def test_a_pair_without_enough_classes_is_a_row_that_says_so() -> None:
    planted = plant(Blueprint("all shared", 2))
    images = paint(planted.world, 4, seed=4)
    few = images[(images.frame["domain"].eq("A") | images.frame["label"].str.startswith("p0"))]
    words = {"classifier": planted.classifier, "preprocess": as_tensor}
    subject = Subject.of_tower(HookedViT(planted.source), few, domains=("A", "B"), **words)
    frames = ladder_tables(subject, CAUSAL, options=CircuitOptions(n=2))
    stable = frames.pop("circuit_stability")  # of the domain with classes enough, whatever B has
    assert set(stable["domain"]) == {"A"} and set(stable["level"]) == {"d_mlp", "edge"}
    assert {name: set(frame["domain_b"]) for name, frame in frames.items()} == {
        "das": {"B"}, "overlap": {"B"}, "circuit_transfer": {"B"},
    }  # fmt: skip
    judged = judged_rows(frames)
    assert set(judged["rung"]) == {"R4", "R5", "R6"} and (judged["reason"] != "").all()
    found = ladder_rows(judged)
    assert set(found["verdict"]) == {"unknown"} and found["reason"].str.contains("classes").all()


@pytest.mark.long
@pytest.mark.slow
def test_study_truth_leaderboard_and_multiverse_climb_one_ladder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their tables and verdicts are the ladder's own, whatever else each of them adds."""
    monkeypatch.setattr(planted_ladder, "PICTURES", 4)
    monkeypatch.setattr(climbing, "_causal_directions", lambda subject, pairs: [])  # takes longest
    truth = PlantedLadder(Blueprint("late separate", 2))
    subject = truth.subject
    words: dict[str, Any] = {"classifier": subject.classifier, "preprocess": as_tensor}
    alone = ladder(
        subject.tower, subject.images, domains=["A", "B"], sites=subject.sites, pool="class",
        n_permutations=999, **words,
    )  # fmt: skip
    pd.testing.assert_frame_equal(truth.ladder.table.frame, alone.table.frame)
    study = shared_mechanisms(subject)
    for name in ("overlap", "circuit_transfer", "circuit_stability"):
        frame = alone.tables[name].frame
        pd.testing.assert_frame_equal(study[name][list(frame)], frame, check_dtype=False)
    answers = contenders.our_circuits(SharingPuzzle(subject.tower, subject.images, **words))
    [usual] = [
        rows[rows["default"]].set_index("rung")
        for rows in [multiverse(subject.tower, subject.images, domains=("A", "B"), n_ways=1,
                                choices=dict.fromkeys(CHOICES, ()), **words).frame]
    ]  # fmt: skip
    whole = alone.table.frame[alone.table.frame["band"] == WHOLE].set_index("rung")
    judged = alone.rungs.frame
    units = ladder_rows(judged[(judged["level"] == "d_mlp") & (judged["site"] == "")])
    units = units.set_index("rung")
    for rung in ("R5", "R6"):
        row = whole.loc[rung]
        assert answers[rung] == {"verdict": row["verdict"], "index": row["index"]}
        for name in ("verdict", "index", "index_low", "index_high"):
            assert usual[name][rung] == units[name][rung]


def test_blocks_are_counted_and_their_indices_averaged() -> None:
    """Three blocks, of which one differs; the interval is Student's of .9, .9 and 0."""
    said = {0: "shared", 1: "shared", 2: "not shared"}
    told = pd.concat(
        ladder_rows(rows("R5", {"channel": verdict})).assign(seed=seed, setting="cg-high")
        for seed, verdict in said.items()
    )
    [row] = agreement_of_blocks(told).to_dict("records")
    assert row["votes"] == "2 of 3 shared, 1 of 3 not shared" and row["verdict"] == "unknown"
    assert row["value"] == pytest.approx(2 / 3) and row["n_runs"] == row["n_units"] == 3
    error = np.std([0.9, 0.9, 0.0], ddof=1) / np.sqrt(3)
    assert row["index"] == pytest.approx(0.6)
    assert row["index_high"] == pytest.approx(0.6 + 4.302653 * error)
    agreed = agreement_of_blocks(told[told["seed"] < 2]).iloc[0]
    assert agreed["verdict"] == "shared" and agreed["value"] == 1.0
    assert agreement_of_blocks(told[told["seed"] < 1]).empty
