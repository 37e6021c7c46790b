"""The answer follows the tables, and says no more than its level licenses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.report.figures.answer import answer_figure
from interp.report.loaded import read_result
from interp.report.page import render_page
from interp.report.sections import filled_sections
from interp.report.words import answer_sentences, headline

Build = Callable[..., Path]
Frames = Callable[[], dict[str, pd.DataFrame]]

ORDER = ("natural-only", "leave-out-domain", "cg-low", "cg-high")


def planted(*values: float) -> dict[str, float]:
    return dict(zip(ORDER, values, strict=True))


def said(folder: Path) -> list[str]:
    return answer_sentences(read_result(folder))


def test_generalization_and_its_twin(build: Build) -> None:
    helps = said(build(name="helps"))[0]
    assert "31.0 % for leave-out-domain" in helps
    assert (
        "leave-out-domain beats natural only by 23.0 points (95 % interval 15.0 to 31.0; of these "
        "runs alone)" in helps
    )
    assert "CG high diversity beats CG low diversity by 24.0 points" in helps
    hurts = said(build(name="hurts", accuracy=planted(0.4, 0.1, 0.5, 0.2)))[0]
    assert "leave-out-domain falls behind natural only by 30.0 points" in hurts
    assert "(95 % interval 22.0 to 38.0; of these runs alone)" in hurts
    equal = said(build(name="equal", accuracy=planted(0.2, 0.22, 0.3, 0.31)))[0]
    assert "whether leave-out-domain beats natural only cannot be told (2.0 points" in equal


def test_a_tie_has_no_best(build: Build) -> None:
    tie = headline(read_result(build(name="tie", accuracy=planted(0.0, 0.0, 0.0, 0.0))))[0]
    assert "all 4 mixtures reach 0.0 %" in tie and "best" not in tie
    apart = headline(read_result(build(name="apart", accuracy=planted(0.1, 0.2, 0.3, 0.6))))[0]
    assert "CG high diversity is best (60.0 %" in apart and "natural only worst (10.0 %)" in apart


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.3, 0.31, 0.32, 0.33), "4 mixtures reach 30.0 % to 33.0 %, chance 1.7 %, with intervals "
         "that overlap"),
        ((0.1, 0.11, 0.12, 0.4), "CG high diversity is best (40.0 %, chance 1.7 %), the others "
         "reach 10.0 % to 12.0 %"),
        ((0.05, 0.4, 0.42, 0.44), "natural only is worst (5.0 %, chance 1.7 %), the others reach "
         "40.0 % to 44.0 %"),
        ((0.1, 0.1, 0.4, 0.4), "4 mixtures reach 10.0 % to 40.0 %"),
    ],
)  # fmt: skip
def test_intervals_that_overlap_have_no_best_or_worst(
    build: Build, values: tuple[float, ...], words: str
) -> None:
    told = headline(read_result(build(accuracy=planted(*values))))[0]
    assert words in told
    assert told.count("best") == words.count("best")
    assert told.count("worst") == words.count("worst")


def at_chance(frames: dict[str, pd.DataFrame], *settings: str) -> pd.DataFrame:
    """The table `accuracy`, with one answer for every picture in some settings."""
    frame = frames["accuracy"]
    own = frame["setting"].isin(settings) & (frame["control"] == "")
    frame.loc[own, ["value", "low", "high"]] = 1 / 15
    return frame


def test_a_model_that_did_not_learn_is_named_first_and_not_judged(
    build: Build, study_frames: Frames
) -> None:
    accuracy = at_chance(study_frames(), "cg-low")
    result = read_result(build(replaced={"accuracy": accuracy}, without=("ladder", "rungs")))
    for told in (headline(result), answer_sentences(result)):
        assert told[0].startswith(
            "Not shown to have learned, so that nothing below is judged for it: CG low"
        )
        assert "6.7 % (95 % interval" in told[0] and "always answering one class" in told[0]
        assert not any("CG low" in sentence for sentence in told[1:])
    assert "46.0 % for CG high diversity" in answer_sentences(result)[1]
    ladder = result.frame("ladder")
    own = ladder[(ladder["setting"] == "cg-low") & (ladder["control"] == "")]
    assert set(own["verdict"]) == {"cannot tell"} and own["index"].isna().all()
    assert own["reason"].str.startswith("not shown to have learned").all()
    assert "shared" in set(ladder[ladder["setting"] == "cg-high"]["verdict"])
    figure = answer_figure(result)
    assert (
        figure is not None and "since not shown to have learned: CG low diversity" in figure.caption
    )
    assert "CG low diversity" not in {trace.get("name") for trace in figure.data}


def test_where_no_model_learned_nothing_else_is_said(build: Build, study_frames: Frames) -> None:
    accuracy = at_chance(study_frames(), *ORDER)
    result = read_result(build(replaced={"accuracy": accuracy}, without=("ladder", "rungs")))
    assert len(headline(result)) == len(answer_sentences(result)) == 1
    ladder = next(one for one in filled_sections(result) if one.anchor == "ladder")
    assert "sharing-profile" not in {figure.name for figure in ladder.figures}
    assert any(
        said.startswith("Not drawn, since no row has an index: The sharing profile")
        and "not shown to have learned" in said
        for said in ladder.missing
    )


def test_an_answer_without_a_figure_says_why(build: Build) -> None:
    nothing = read_result(build(without=("accuracy", "similarity", "ladder", "rungs")))
    assert answer_figure(nothing) is None
    assert "is not drawn: accuracy was not measured." in render_page(nothing)
    assert "is not drawn" not in no_missing(render_page(read_result(build(name="whole"))))


def no_missing(page: str) -> str:
    """The answer's section alone."""
    return page.split('id="answer"')[1].split("</section>")[0]


def test_sharing_and_its_twin(build: Build) -> None:
    first = said(build(name="first", index=planted(-0.05, 0.95, 0.35, 0.05)))[1]
    assert "between real and sketch" in first
    assert "alike (debiased CKA, R2) for leave-out-domain (0.95), partly for CG low" in first
    assert "diversity (0.35), not for natural only (−0.05), undecided for CG high" in first
    twin = said(build(name="twin", index=planted(0.8, -0.05, -0.05, -0.05)))[1]
    assert "for natural only (0.80), not for leave-out-domain (−0.05)" in twin
    none = said(build(name="none", index=planted(-0.05, -0.05, -0.05, -0.05)))[1]
    assert "not arranged alike (debiased CKA, R2) for natural only (−0.05)" in none


def test_only_transplants_speak_of_mechanisms(build: Build) -> None:
    assert "mechanism" not in " ".join(said(build(name="without", index=planted(*[0.9] * 4))))
    shared = said(build(name="shared", rung4=planted(0.9, 0.9, 0.9, 0.9)))[2]
    assert "a shared mechanism for natural only" in shared
    apart = said(build(name="apart", rung4=planted(0.0, 0.0, 0.0, 0.0)))[2]
    assert "shared mechanism" not in apart
    assert "no common mechanism" in apart


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ((0.05, 0.66, 0.35, 0.81), "the same order (Spearman 1.00)"),
        ((0.81, 0.35, 0.66, 0.05), "opposite orders (Spearman −1.00)"),
        ((0.35, 0.05, 0.81, 0.66), "no common order"),
    ],
)
def test_together_is_descriptive(build: Build, index: tuple[float, ...], words: str) -> None:
    last = said(build(index=planted(*index)))[-1]
    assert words in last
    assert "descriptive" in last
    assert "1/24" in last
    assert "cannot be claimed" in last


def test_two_to_four_sentences(build: Build) -> None:
    assert 2 <= len(said(build(name="three"))) <= 4
    assert 2 <= len(said(build(name="four", rung4=planted(0.1, 0.2, 0.3, 0.4)))) <= 4


def test_the_final_embedding_never_decides(build: Build, study_frames: Frames) -> None:
    frame = study_frames()["similarity"]
    last = frame["site"] == "hook_embedding"
    frame.loc[last, ["index", "index_low", "index_high"]] = 0.0
    frame.loc[last, "verdict"] = "not shared"
    changed = said(build(name="changed", replaced={"similarity": frame}))
    assert changed == said(build(name="as it was"))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", "alike (debiased CKA, R2) for CG high diversity"),
        ("why", "undecided for natural only (0.05) and CG high diversity (0.81)"),
    ],
)
def test_one_undecided_site(build: Build, study_frames: Frames, reason: str, words: str) -> None:
    """The mean of the sites decides, unless one has a reason against its verdict."""
    frame = study_frames()["similarity"]
    one = (frame["site"] == "layer2.0.hook_resid_post") & (frame["setting"] == "cg-high")
    frame.loc[one & (frame["control"] == ""), ["verdict", "reason"]] = ["cannot tell", reason]
    assert words in said(build(replaced={"similarity": frame}))[1]


def test_missing_tables_are_said(build: Build) -> None:
    without = ("accuracy", "differences", "similarity", "transfer")
    words = " ".join(said(build(without=without)))
    assert "accuracy was not measured" in words
    assert "was not measured" in words
    assert "cannot be told" in words


def test_one_model(build: Build) -> None:
    without = ("differences", "mixtures", "losses", "accuracy_by_class")
    words = said(build(mode="model", index={"": 0.8}, accuracy={"": 0.5}, without=without))
    assert words[0].startswith("In the middle layers the class can be read in real, clipart")
    assert "real and sketch (0.80)" in words[1]
    assert not any("Across" in sentence or "checkpoint" in sentence for sentence in words)


def test_unknown_numbers_are_no_claims(build: Build, study_frames: Frames) -> None:
    frames = study_frames()
    differences = frames["differences"].assign(low=np.nan, high=np.nan)
    similarity = frames["similarity"].assign(index=np.nan, verdict="cannot tell", reason="few")
    replaced = {"differences": differences, "similarity": similarity}
    words = said(build(replaced=replaced, without=("transfer",)))
    assert "differ by 23.0 points (no interval)" in words[0]
    assert "beats" not in words[0]
    assert "undecided for natural only, leave-out-domain" in words[1]
    assert "nan" not in " ".join(words).lower().replace("natural", "")
