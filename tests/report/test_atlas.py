"""The map's data: what the tables say, small, and with the ladder's own verdicts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.report import build_page
from interp.report.atlas import SCALE, map_data
from interp.report.embedding import PAGE_BYTES, compressed
from interp.report.sections import filled_sections
from tests.report.conftest import read
from tests.report.planted_reach import write_reach

pytestmark = pytest.mark.slow

Build = Callable[..., Path]


def rows(found: dict[str, Any], columns: dict[str, Any]) -> pd.DataFrame:
    """Columns read back into a frame, as atlas.js reads them."""
    frame = pd.DataFrame(columns)
    frame["setting"] = [found["models"][m]["setting"] for m in frame["m"]]
    frame["control"] = [found["models"][m]["control"] for m in frame["m"]]
    for name, end in (("domain_a", "a"), ("domain_b", "b")):
        frame[name] = [found["domains"][place] for place in frame[end]]
    frame["place"] = [found["places"][s]["site"] or found["places"][s]["name"] for s in frame["s"]]
    frame["verdict"] = [found["verdicts"][place] for place in frame["verdict"]]
    return frame


KEYS = ["setting", "control", "domain_a", "domain_b"]


def test_numbers_and_verdicts_are_the_table_s(build: Build) -> None:
    result = read(build(rung4={"cg-high": 0.8}))
    found = map_data(result)
    measures = {one["key"]: one for one in found["measures"]}
    assert {
        "R1",
        "R2",
        "R3",
        "R3 difference",
        "R3 probes",
        "R4",
        "R5 channel",
        "R6 channel",
    } <= set(measures)
    got = rows(found, measures["R2"]["columns"]).rename(columns={"place": "site"})
    table = result.frame("similarity")
    both = got.merge(table, on=[*KEYS, "site"], suffixes=("", "_table"))
    assert len(both) == len(got) == len(table)
    for short, name in (("index", "index_table"), ("from", "index_low"), ("null", "null_table")):
        assert (both[short] / SCALE).to_numpy() == pytest.approx(
            both[name].to_numpy(), abs=1 / SCALE, nan_ok=True
        )
    assert (both["verdict"] == both["verdict_table"]).all()


def test_words_are_counted_in_the_order_of_the_map(build: Build) -> None:
    """So that the same result gives the same page, byte for byte, in every process."""
    found = map_data(read(build(rung4={"cg-high": 0.8})))
    columns = [one["columns"] for one in found["measures"]] + list(found["bands"].values())
    for name, known in (("verdict", found["verdicts"]), ("reason", found["texts"])):
        used = dict.fromkeys(place for one in columns for place in one[name] if place)
        assert list(used) == list(range(1, len(known))), name
    assert list(found["bands"]) == sorted(found["bands"])


def test_bands_are_the_ladder_s(build: Build) -> None:
    result = read(build(rung4={"cg-high": 0.8}))
    found = map_data(result)
    for rung, columns in found["bands"].items():
        got = rows(found, columns)
        table = result.frame("ladder")
        table = table[table["rung"] == rung].assign(
            place=lambda frame: frame["band"].map(
                lambda band: f"{band} third" if band != "whole tower" else band
            )
        )
        both = got.merge(table, on=[*KEYS, "place"], suffixes=("", "_table"))
        assert len(both) == len(got) == len(table)
        assert (both["verdict"] == both["verdict_table"]).all()


def test_nothing_between_domains_gives_no_map(build: Build) -> None:
    without = ("similarity", "transfer", "directions", "das", "transplant", "overlap",
               "circuit_transfer", "rungs", "ladder")  # fmt: skip
    folder = build(without=without)
    assert map_data(read(folder)) == {}
    assert 'id="map"' not in build_page(folder).read_text()


def test_every_figure_says_how_it_was_made(build: Build) -> None:
    result = read(build(rung4={"cg-high": 0.8}))
    figures = [figure for section in filled_sections(result) for figure in section.figures]
    assert len(figures) > 20
    for figure in figures:
        assert figure.method.endswith(".") and figure.null and figure.tables, figure.name
        assert "n = " in figure.caption and "interval" in figure.caption.lower(), figure.name


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The large study with few of its checkpoints: all of them are the benchmark's."""
    return write_reach(tmp_path_factory.mktemp("reach"), checkpoints=3)


def test_a_large_study_stays_small(reach: Path) -> None:
    page = build_page(reach)
    assert page.stat().st_size < 15_000_000
    found = map_data(read(reach))
    packed = len(compressed(found))
    columns = [one["columns"] for one in found["measures"]] + list(found["bands"].values())
    assert packed < 25 * sum(len(each["a"]) for each in columns)  # bytes a row; its CSV has 300
    assert len(json.dumps(found)) > 3 * packed


@pytest.mark.long
def test_tables_give_way_where_the_rest_is_large(
    reach: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_page(reach).stat().st_size
    assert whole < PAGE_BYTES
    monkeypatch.setattr("interp.report.embedding.PAGE_BYTES", whole - 300_000)
    text = build_page(reach).read_text()
    assert len(text.encode()) < whole
    assert 'href="tables/' in text and "too large for this page" in text
