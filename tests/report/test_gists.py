"""A section's answer in one sentence, and every model's in a line, say what the tables say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.core.statistics.index_of_sharing import BARS
from interp.declared.figures import NATURAL, GistSpec, SectionSpec
from interp.report.gists import gist, wanted
from interp.report.loaded import LoadedResult, read_result
from interp.report.page import render_page
from interp.report.sections import page_sections
from interp.report.verdict_tables import overviews

PAIR = ["real", "sketch"]
Build = Callable[..., Path]
Frames = Callable[[], dict[str, pd.DataFrame]]


def section(anchor: str) -> SectionSpec:
    return next(spec for spec in page_sections() if spec.anchor == anchor)


@pytest.fixture
def result(loaded: Callable[..., LoadedResult]) -> LoadedResult:
    return loaded(rung4={"cg-high": 0.8})


def test_a_rung_is_told_as_its_models_are_counted(result: LoadedResult) -> None:
    said = gist(result, section("similarity"))
    ladder = result.frame("ladder")
    own = ladder[
        (ladder["rung"] == "R2") & (ladder["band"] == "middle") & (ladder["control"] == "")
    ]
    own = own[own["domain_a"].isin(["real", "sketch"]) & own["domain_b"].isin(["real", "sketch"])]
    for verdict, n in own["verdict"].value_counts().items():
        assert f"{verdict} in {n}" in said
    assert said.startswith("Same geometry: ") and said.endswith(
        "of 4 models, in the middle layers."
    )


def test_a_range_is_of_the_rows_that_are_asked_for(result: LoadedResult) -> None:
    frame = result.frame("accuracy")
    rows = frame[(frame["domain"] == "real") & (frame["class_set"] == "seen")]
    last = rows.groupby("setting")["epoch"].transform("max")
    values = rows[(rows["control"] == "") & (rows["epoch"].isna() | (rows["epoch"] == last))][
        "value"
    ]
    asked = GistSpec(
        "accuracy", "{range} in {n}.", {"domain": NATURAL, "class_set": "seen"}, form="percent"
    )
    spec = SectionSpec("made-up", "Made up", "", (), gist=asked)
    said = gist(result, spec)
    assert said.startswith(f"{100 * values.min():.1f} % to {100 * values.max():.1f} %")
    assert said.endswith(f"in {len(values)}.")


def test_a_range_is_of_the_last_epoch(build: Build, study_frames: Frames) -> None:
    frame = study_frames()["accuracy"]
    early = frame.assign(epoch=1.0, value=0.99)
    both = pd.concat([frame.assign(epoch=9.0, value=0.5), early], ignore_index=True)
    told = read_result(build(replaced={"accuracy": both}))
    spec = SectionSpec("made-up", "Made up", "", (), gist=GistSpec("accuracy", "{range}."))
    assert gist(told, spec) == "0.50."


def test_what_is_not_there_has_no_sentence(build: Build) -> None:
    tables = ("ladder", "rungs", "similarity", "accuracy", "certificate", "levels")
    bare = read_result(build(without=tables))
    for anchor in ("similarity", "certificate", "levels", "behind"):
        assert gist(bare, section(anchor)) == "" == wanted(bare, section(anchor))


def test_an_intervention_alone_says_nothing_of_what_goes_together(build: Build) -> None:
    level = {"level": "L4", "rung": "R3", "measure": "accuracy", "weight": 1.0, "value": 0.1}
    said = {"verdict": "cannot tell", "licence": "nothing about causes", "reason": "", "needed": ""}
    levels = pd.DataFrame([level | said | {"adjusted": "accuracy of seen classes"}])
    alone = read_result(build(replaced={"levels": levels}))
    assert len(alone.frame("levels")) == 1
    assert gist(alone, section("levels")) == ""  # not a full stop


def test_only_open_questions_of_the_own_pair_say_what_would_decide(
    build: Build, study_frames: Frames
) -> None:
    frame = study_frames()["ladder"]
    frame["needed"] = ""
    r2 = (frame["rung"] == "R2") & (frame["control"] == "")
    own = frame["domain_a"].isin(PAIR) & frame["domain_b"].isin(PAIR)
    frame.loc[r2 & own & (frame["band"] == "early"), ["verdict", "needed"]] = [
        "cannot tell", "about 50 classes"]  # fmt: skip
    frame.loc[r2 & ~own, ["verdict", "needed"]] = ["cannot tell", "about 99 classes"]
    told = read_result(build(replaced={"ladder": frame}))
    said = wanted(told, section("similarity"))
    assert said == "Would decide what is open: R2 (early layers): about 50 classes."
    assert wanted(told, section("das")) == ""


def test_every_model_has_a_line_with_what_it_was_trained_on(result: LoadedResult) -> None:
    [one] = overviews(result)
    lines = {name: (told, answers) for name, _, told, answers in one.rows}
    assert list(lines) == [
        "natural only", "leave-out-domain", "CG low diversity", "CG high diversity"
    ]  # fmt: skip
    assert lines["leave-out-domain"][0][0] == "all domains but sketch"
    assert len(one.head) == 2 + 6 and not one.unmeasured
    assert all(len(answers) == 6 for _, answers in lines.values())
    shown = dict(zip(one.head[2:], lines["CG high diversity"][1], strict=True))
    assert shown["class readable"] == "yes" and shown["causal directions"] != "not measured"
    assert lines["natural only"][1][3] == "not measured"  # R4 was planted in one model


def test_a_rung_of_no_model_has_no_column(loaded: Callable[..., LoadedResult]) -> None:
    result = loaded()
    [one] = overviews(result)
    assert list(one.unmeasured) == ["causal directions"] and "causal directions" not in one.head
    assert len(one.head) == 2 + 5 and all(len(answers) == 5 for *_, answers in one.rows)
    assert "Not measured: causal directions." in render_page(result)


def test_a_model_that_did_not_learn_is_not_judged_in_its_line(
    build: Build, study_frames: Frames
) -> None:
    accuracy = study_frames()["accuracy"]
    one = (accuracy["setting"] == "cg-low") & (accuracy["class_set"] == "seen")
    accuracy.loc[one, ["value", "low", "high"]] = [0.02, 0.0, 0.04]
    [told] = overviews(read_result(build(replaced={"accuracy": accuracy})))
    lines = {name: answers for name, _, _, answers in told.rows}
    assert set(lines["CG low diversity"]) == {"did not learn"}
    assert "did not learn" not in lines["CG high diversity"]


@pytest.mark.parametrize(("bars", "said"), [(BARS, False), ({"shared above": 0.5}, True)])
def test_answers_at_other_bars_are_said(build: Build, bars: dict[str, Any], said: bool) -> None:
    page = render_page(read_result(build(bars=bars)))
    assert ("at other bars" in page.split('id="verdict"')[0]) == said
