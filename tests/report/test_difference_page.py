"""The page of two results: what changed, told and drawn as the table of differences says."""

import base64
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.core.errors import OutputError
from interp.core.tables import Table
from interp.declared.figures import GREY, ORANGE
from interp.report.difference_page import (
    CHANGED,
    TOLD,
    WITHIN,
    against_figure,
    build_difference_page,
    headline,
    surest_figure,
)
from interp.study.compare_results import Difference, compare_results

Build = Callable[..., Path]


@pytest.fixture
def two(build: Build) -> tuple[Path, Path, Difference]:
    """A planted study, and the same in which one mixture shares less geometry."""
    first = build(name="first")
    frame = Table.load(first / "tables" / "similarity.csv").frame
    moved = frame.assign(
        **{
            name: frame[name] - 0.6 * (frame["setting"] == "cg-low")
            for name in ("value", "low", "high", "index", "index_low", "index_high")
        }
    )
    second = build(name="second", replaced={"similarity": moved}, spec_hash="0000", source_hash="1")
    return first, second, compare_results(first, second)


def test_it_says_how_many_numbers_changed(two: tuple[Path, Path, Difference]) -> None:
    frame = two[2].table.frame
    changed = frame[frame["change"] == CHANGED]
    assert len(changed) and set(changed["table"]) >= {"similarity"}
    told = frame["change"].isin([CHANGED, WITHIN]).sum()
    first, *_ = headline(frame)
    assert f"Of {told:,} numbers" in first and f", {len(changed):,} changed beyond noise" in first
    same = frame.assign(change=frame["change"].replace(CHANGED, WITHIN))
    assert " 0 changed beyond noise." in headline(same)[0]
    assert headline(frame[:0]) == ["The two results have no number with an interval in common."]


def test_the_surest_changes_are_drawn_with_their_intervals(
    two: tuple[Path, Path, Difference],
) -> None:
    frame = two[2].table.frame
    figure = surest_figure(frame)
    assert figure is not None
    go.Figure(data=list(figure.data), layout=figure.layout)
    tables = list(figure.choices[0].options)
    counts = frame[frame["change"] == CHANGED]["table"].value_counts()
    assert tables[0] == counts.index[0] and set(tables) == set(frame[frame["p"].notna()]["table"])
    place = tables.index("similarity")
    [trace] = [each for each in figure.data if each["meta"] == [place]]
    rows = frame[(frame["table"] == "similarity") & frame["p"].notna()]
    rows = rows.sort_values(["p_adjusted", "p"], kind="stable").head(TOLD)
    assert trace["x"] == pytest.approx(rows["value"].tolist())
    assert trace["error_x"]["array"] == pytest.approx((rows["high"] - rows["value"]).tolist())
    assert trace["marker"]["color"] == [
        ORANGE if change == CHANGED else GREY for change in rows["change"]
    ]
    for each in figure.data:
        assert len(set(each["hovertext"])) == len(each["hovertext"])


def test_every_number_of_both_stands_against_the_other(two: tuple[Path, Path, Difference]) -> None:
    frame = two[2].table.frame
    figure = against_figure(frame)
    assert figure is not None
    place = list(figure.choices[0].options).index("similarity")
    clouds = [e for e in figure.data if e["meta"] == [place] and e["mode"] == "markers"]
    drawn = sorted((x, y) for each in clouds for x, y in zip(each["x"], each["y"], strict=True))
    rows = frame[(frame["table"] == "similarity") & frame["value_a"].notna()]
    assert drawn == sorted(zip(rows["value_a"], rows["value_b"], strict=True))
    assert surest_figure(frame[:0]) is None and against_figure(frame[:0]) is None


def test_the_page_holds_both_answers_and_what_differs(
    two: tuple[Path, Path, Difference], tmp_path: Path
) -> None:
    first, second, found = two
    out = tmp_path / "new" / "page.html"
    page = build_difference_page(
        first, second, found.table, facts=found.facts, rest=found.rest, out=out
    ).read_text()
    assert out.stat().st_size < 15_000_000
    for name in ("answer-a", "answer-b", "surest", "against"):
        assert page.count(f'id="canvas-{name}"') == 1
    for name, one, other in found.facts:
        assert f">{name}</th>" in page and one[:20] in page and other[:20] in page
    assert found.facts
    counts = re.search(r'<tr><th scope="row" dir="auto">similarity</th>(.*?)</tr>', page)
    changed = found.counts().loc["similarity", CHANGED]
    assert counts and f">{changed}</td>" in counts[1]
    # the table of this comparison, whatever lies where the command was given
    assert f"Rows of <code>diff</code> ({len(found.table):,}" in page
    assert "report.html" not in page and "http://" not in page.split("<script>")[0]


@pytest.mark.slow
def test_its_table_is_that_of_the_comparison_wherever_the_command_is_given(
    two: tuple[Path, Path, Difference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, found = two
    (first / "tables" / "diff.csv").write_text("of,yesterday\n")
    monkeypatch.chdir(first)
    page = build_difference_page(first, second, found.table, out=tmp_path / "page.html").read_text()
    packed = page.split('id="table-diff">')[1].split("<")[0]
    assert (
        gzip.decompress(base64.b64decode(packed)) == found.table.frame.to_csv(index=False).encode()
    )


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_said(
    two: tuple[Path, Path, Difference], tmp_path: Path
) -> None:
    first, second, found = two
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="write the page"):
        build_difference_page(first, second, found.table, out=tmp_path / "file" / "page.html")


def test_a_result_of_one_table_is_compared_all_the_same(build: Build, tmp_path: Path) -> None:
    first, empty = build(name="first"), tmp_path / "bare"
    Table.load(first / "tables" / "mixtures.csv").save(empty / "tables")
    (empty / "facts.json").write_text('{"title": "Bare"}')
    found = compare_results(first, empty)
    page = build_difference_page(
        first, empty, found.table, facts=found.facts, rest=found.rest, out=tmp_path / "page.html"
    ).read_text()
    assert "The two results have no number with an interval in common." in page
    assert "B has no figure of an answer." in page and isinstance(found.table.frame, pd.DataFrame)
