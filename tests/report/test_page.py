"""The page as a file: complete, self-contained, escaped, and never broken by what is missing."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.core.errors import DataError, OutputError
from interp.report import build_page
from interp.report.embedding import PAGE_BYTES, downloads, embedded_thumbnails
from interp.report.loaded import expected_tables, read_result, shown_tables
from interp.report.page import HERE, SCRIPTS, render_page
from interp.report.sections import page_sections
from tests.report.planted_levels import level_tables
from tests.report.unpacked import with_figures

Build = Callable[..., Path]
Frames = Callable[[], dict[str, pd.DataFrame]]

NASTY = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "a \"quoted\", 'class' & more",
    "🦒 жираф",
    "זברה",
    "x" * 300,
    "None",
    "007",
)

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
TABLES = expected_tables()
OPTIONAL = [name for name in shown_tables() if name not in TABLES]


def outside_plotly(page: str) -> str:
    """The page without plotly's own source."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.DOTALL)
    longest = max(scripts, key=len)
    assert len(longest) > 3_000_000
    return page.replace(longest, "")


@pytest.fixture(scope="module")
def once() -> dict[str, Path]:
    return {}


@pytest.fixture
def planted(build: Build, once: dict[str, Path]) -> Path:
    """The planted study with its page, which the first test to ask builds; nobody changes it."""
    if not once:
        folder = build(sheets=True)
        assert build_page(folder) == folder / "report.html"
        once["planted"] = folder
    return once["planted"]


@pytest.fixture
def page(planted: Path) -> str:
    return (planted / "report.html").read_text()


def test_one_small_self_contained_file(planted: Path, page: str) -> None:
    assert (planted / "report.html").stat().st_size < 15_000_000
    assert page.count("plotly.js v") == 1
    rest = outside_plotly(page)
    assert not re.findall(r"(?:src|srcset|poster)=[\"']?(?:https?:)?//", rest)
    links = re.findall(r"<(\w+)[^>]*href=[\"']https?:", rest)
    assert links == ["a"]  # the credit; and the one with a javascript: address is no link
    assert "javascript:" not in rest
    assert "url(" not in rest
    assert "default-src 'none'" in rest


def test_it_says_where_it_comes_from(page: str) -> None:
    for fact in ("interp-report run study.toml", "0f1e2d3c4b5a6978", "99aa88bb77cc66dd", "2.8.0"):
        assert fact in page
    assert "Lucide" in page and "ISC" in page and "broken.png" in page
    assert page.count('<figure class="plate">') == 6
    assert "shared mechanism" not in outside_plotly(page)  # there is no R4 in this run


def test_pictures_stand_in_the_section_that_they_belong_to(page: str) -> None:
    for anchor, caption in (("units", "cg-high: units"), ("patching", "cg-high: moved")):
        _, _, rest = page.partition(f'id="{anchor}"')
        section, _, _ = rest.partition("</section>")
        assert f">{caption}</figcaption>" in section
        assert section.count('<figure class="plate">') == 1


@pytest.mark.long
@pytest.mark.slow
def test_pictures_of_units_push_out_no_others_and_what_did_not_fit_is_said(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(sheets=True)
    result = read_result(folder)
    units = [  # of a setting that comes before that of what patching moves
        replace(plate, keys={"kind": "units", "setting": "natural-only"})
        for plate in result.plates
        if plate.keys.get("kind") == "units"
    ]
    more = replace(result, plates=[*units, *units, *result.plates])
    kinds = [plate.keys.get("kind", "") for plate in embedded_thumbnails(more.plates, more.natural)]
    assert kinds == ["", "", "", "", "moved", "units", "units", "units"]
    sizes = [len(plate.source) for plate in embedded_thumbnails(more.plates, more.natural)]
    monkeypatch.setattr("interp.report.embedding.PLATE_BYTES", sum(sizes[:-1]))
    text = render_page(more)
    assert text.count('<figure class="plate">') == 7
    assert "1 more did not fit: they are in the folder plates" in text
    # what figures and other pictures leave is less than that: domains come first
    few = embedded_thumbnails(more.plates, more.natural, sum(sizes[:2]) + 1)
    assert [plate.keys.get("kind", "") for plate in few] == ["", ""]
    monkeypatch.setattr("interp.report.embedding.FRAME_BYTES", PAGE_BYTES)
    assert render_page(more).count('<figure class="plate">') == 0


def test_figures_are_compressed_but_the_first(planted: Path, page: str) -> None:
    """The first is drawn before the page is there; the others are unpacked behind it."""
    found = re.findall(r'"application/(\w+)" id="figure-data-([\w-]+)">(.*?)</script>', page)
    assert [kind for kind, *_ in found] == ["json", *["gzip"] * (len(found) - 1)]
    whole = re.findall(r'id="figure-data-([\w-]+)">(.*?)</script>', with_figures(page))
    assert [name for name, _ in whole] == [name for _, name, _ in found] and len(whole) > 9
    assert all(set(json.loads(text)) == {"data", "layout", "selected"} for _, text in whole)
    assert sum(len(text) for _, text in whole) > 4 * sum(len(text) for *_, text in found)


def test_downloads_are_the_files(planted: Path, page: str) -> None:
    found = dict(
        re.findall(r'<script type="application/gzip" id="table-(\w+)">(.*?)</script>', page)
    )
    assert set(found) == {path.stem for path in (planted / "tables").glob("*.csv")}
    for name, payload in found.items():
        raw = (planted / "tables" / f"{name}.csv").read_bytes()
        assert gzip.decompress(base64.b64decode(payload)) == raw


@pytest.mark.slow
def test_the_largest_table_only_begins_in_the_page(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build()
    monkeypatch.setattr("interp.report.embedding.TABLE_BYTES", 100_000)
    found = downloads(read_result(folder))
    assert found["patching_examples"].cut and not found["differences"].cut
    assert "too large for this page" in build_page(folder).read_text()


@pytest.mark.slow
def test_text_from_data_is_escaped(build: Build, study_frames: Frames) -> None:
    frame = study_frames()["accuracy_by_class"]
    places = {f"class_{n:02d}": name for n, name in enumerate(NASTY)}
    frame["label"] = frame["label"].replace(places)
    similarity = study_frames()["similarity"].assign(reason=NASTY[1], verdict="unknown")
    text = build_page(
        build(
            replaced={"accuracy_by_class": frame, "similarity": similarity},
            question=NASTY[0],
            command=NASTY[1],
            strays=NASTY[2],
            specification={"test_domains": ["sketch"], "held_out": list(NASTY)},
        )
    ).read_text()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &#34;quoted&#34;, &#39;class&#39; &amp; more" in text
    assert "🦒" in text and "007" in text


def spoilt(frame: pd.DataFrame, how: str) -> pd.DataFrame:
    """A table of one row, of no numbers, or of no rows."""
    numbers = frame.select_dtypes("number").columns
    hollow = frame.assign(**dict.fromkeys(numbers, np.nan))
    return {"short": frame.head(1), "hollow": hollow, "empty": frame.head(0)}[how]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["short", *(pytest.param(how, marks=pytest.mark.long) for how in ("hollow", "empty"))]
)
def test_optional_tables_may_all_be_spoilt_at_once(
    build: Build, study_frames: Frames, how: str
) -> None:
    frames = study_frames() | level_tables()
    replaced = {name: spoilt(frame, how) for name, frame in frames.items() if name in OPTIONAL}
    assert {"das", "ladder", "levels", "exposure"} <= set(replaced)
    words: dict[str, Any] = {"rung4": {"cg-high": 0.8}, "replaced": replaced}
    assert "Missing: " not in render_page(read_result(build(**words)))


@pytest.mark.slow
def test_every_damaged_optional_table_is_named(build: Build, study_frames: Frames) -> None:
    folder = build(name="damaged", rung4={"cg-high": 0.8})
    names = [name for name in OPTIONAL if (folder / "tables" / f"{name}.csv").exists()]
    for name in names:
        (folder / "tables" / f"{name}.csv").write_bytes(b"")
    text = render_page(read_result(folder))
    said = " ".join(re.findall(r"Missing: [^<]*", text))
    assert len(names) > 15 and all(name in said for name in names)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", TABLES)
def test_any_table_may_be_missing_short_or_hollow(
    build: Build, study_frames: Frames, name: str
) -> None:
    frame = study_frames()[name]
    missing = render_page(
        read_result(build(rung4={"cg-high": 0.8}, without=(name,), name="missing"))
    )
    assert re.search(rf"Missing: the tables? [^<]*\b{name}\b[^<]*\(", missing)
    numbers = frame.select_dtypes("number").columns
    hollow = frame.assign(**dict.fromkeys(numbers, np.nan))
    for replaced in (frame.head(1), hollow):
        render_page(read_result(build(replaced={name: replaced}, name=f"with-{len(replaced)}")))


def test_all_tables_may_be_empty(build: Build, study_frames: Frames) -> None:
    empty = {name: frame.head(0) for name, frame in study_frames().items()}
    assert "Nothing to draw" in render_page(read_result(build(replaced=empty)))


@pytest.mark.slow
def test_damaged_and_foreign_tables_are_named(build: Build) -> None:
    folder = build()
    (folder / "tables" / "losses.csv").write_text("epok,lose\n1,2\n")
    (folder / "tables" / "mixtures.csv").write_bytes(b"")
    (folder / "plates" / "broken.png").write_bytes(b"no picture")
    text = build_page(folder).read_text()
    assert "undeclared column" in text
    assert "its file is empty" in text


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_tables_are_shown_and_never_missed(
    build: Build, study_frames: Frames, name: str
) -> None:
    nothing = pd.DataFrame({"measure": ["x"], "reason": ["none"]})
    frame = (study_frames() | level_tables()).get(name, nothing)
    assert "Missing: " not in render_page(
        read_result(build(rung4={"cg-high": 0.8}, without=(name,)))
    )
    numbers = frame.select_dtypes("number").columns
    hollow = frame.assign(**dict.fromkeys(numbers, np.nan))
    for number, replaced in enumerate((frame.head(1), hollow, frame.head(0))):
        render_page(read_result(build(replaced={name: replaced}, name=f"with-{number}")))
    folder = build(name="damaged")
    (folder / "tables" / f"{name}.csv").write_bytes(b"")
    assert f"Missing: the table {name} (its file is empty)" in render_page(read_result(folder))


@pytest.mark.slow
def test_a_page_of_an_older_run_has_no_empty_section(build: Build, page: str) -> None:
    old = build_page(build(without=OPTIONAL, name="old")).read_text()
    assert 'id="behind"' not in old and 'id="behind"' in page


def test_nothing_but_facts(build: Build) -> None:
    text = build_page(build(without=(*TABLES, *OPTIONAL), plates=False)).read_text()
    assert text.count("Missing: ") >= 7
    assert 'id="canvas-' not in text


@pytest.mark.slow
def test_one_checkpoint(build: Build) -> None:
    one = build_page(build(accuracy={"cg-high": 0.4}, index={"cg-high": 0.7}, name="one"))
    assert "1 training distribution; chance" in one.read_text()
    model = build_page(
        build(
            mode="model",
            accuracy={"": 0.4},
            index={"": 0.7},
            without=("mixtures", "losses", "differences", "accuracy_by_class", *OPTIONAL),
            specification={"natural": "real"},
            name="model",
        )
    ).read_text()
    assert 'id="training"' not in model
    assert "Missing: the" not in model
    assert "real and sketch" in model


@pytest.mark.long
@pytest.mark.slow
def test_several_test_domains(build: Build, study_frames: Frames) -> None:
    frames = {
        name: pd.concat([frame, frame.replace({"sketch": "painting", "painting": "sketch"})])
        for name, frame in study_frames().items()
        if name != "certificate"
    }
    specification = {"test_domains": ["sketch", "painting"], "natural": "real"}
    text = build_page(build(replaced=frames, specification=specification)).read_text()
    assert text.count("Accuracy on classes held out in") == 2
    assert '<option value="1">painting</option>' in text


@pytest.mark.slow
def test_bad_folders_are_said_in_our_words(build: Build, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"facts\.json"):
        build_page(tmp_path / "nowhere")
    folder = build()
    (folder / "facts.json").write_text("[1]")
    with pytest.raises(DataError, match="holds a list"):
        build_page(folder)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError, match="write the page"):
        build_page(build(name="good"), file / "report.html")


def test_the_words_of_the_page_are_those_of_the_glossary(page: str) -> None:
    terms = re.findall(r"^\*\*(.+?)\*\*:", GLOSSARY.read_text(), re.MULTILINE)
    assert len(terms) > 60 and all(f"<dt>{term}</dt>" in page for term in terms)
    assert 'href="#words"' in page and '<section class="door" id="words">' in page


def test_accuracy_comes_before_what_lies_behind_it() -> None:
    anchors = [section.anchor for section in page_sections()]
    said = ["levels", "mixtures", "generalization", "behind", "ladder", "similarity", "certificate"]
    order = [anchors.index(name) for name in said if name in anchors]
    assert order == sorted(order) and len(order) >= 6
    assert len(set(anchors)) == len(anchors)


def test_no_two_scripts_of_the_page_call_different_things_by_one_name() -> None:
    text = "\n".join((HERE / name).read_text() for name in SCRIPTS)
    names = re.findall(r"^(?:async )?(?:function|const|let) (\w+)", text, re.MULTILINE)
    assert len(names) > 60
    assert sorted(names) == sorted(set(names))
