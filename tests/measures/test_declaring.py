"""A measure is declared in one place: its rows are stored, drawn, compared, exported and costed."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from interp import compare_results, export
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.resampling import Interval
from interp.core.tables import COLUMNS, Column
from interp.declared.figures import AxisSpec, FigureSpec, SectionSpec
from interp.declared.measures import MeasureSpec
from interp.measures import catalogue
from interp.measures.subject import Frames, Subject
from interp.report import result_figures
from interp.study.cost import cost_of_study
from interp.study.results import Result
from interp.study.specification import MixturesSpec
from interp.study.study import Study
from tests.conftest import SMALL

pytestmark = pytest.mark.slow


def brightness(opened: Subject) -> Frames:
    """How bright the model's pictures are, by domain."""
    rows = []
    for place, domain in enumerate(opened.pair):
        n = len(opened.analysed.select(domain=domain))
        grey = (0.25, 0.5)[place]
        row = evidence(
            Interval(grey, 0.05, grey - 0.1, grey + 0.1), null=0.0, null_kind="black pictures",
            unit="picture", n_units=n, n_pictures=n, estimand="these pictures", seed=0,
        )  # fmt: skip
        rows.append({"measure": "brightness", "domain": domain, "lux": 100.0, **row})
    return {"brightness": opened.file(pd.DataFrame(rows))}


BRIGHTNESS = MeasureSpec(
    "brightness",
    brightness,
    tables=("brightness",),
    seconds=600_000.0,
    sections=(
        SectionSpec(
            "brightness",
            "How bright are the pictures?",
            "Grey values are averaged.",
            (
                FigureSpec(
                    "brightness",
                    "Brightness by domain",
                    "forest",
                    ("brightness",),
                    method="Grey values are averaged over pictures.",
                    null="Black pictures, 0.",
                    caption="{n}; bars are 95 % intervals.",
                    alt="{numbers}",
                    labels="domain",
                    x=AxisSpec("grey value"),
                ),
            ),
            optional=("brightness",),
        ),
    ),
)
BRIEF = replace(
    SMALL,
    mixtures=MixturesSpec(held_out=2, settings=("cg-high",)),
    training=replace(SMALL.training, steps=4, warmup=1),
    analysis=replace(
        SMALL.analysis, transfer=False, patching=False, representation=False, erasure=False,
        features=False, circuits=False,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def result(
    small_images: ImageTable, tmp_path_factory: pytest.TempPathFactory, trains_here: None
) -> Result:
    """A study that a toy measure is part of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COLUMNS, "lux", Column("light on the picture, lux", "number"))
        patch.setattr(catalogue, "MEASURES", (*catalogue.MEASURES, BRIGHTNESS))
        return Study(BRIEF).run(tmp_path_factory.mktemp("toy"), jobs=1)


@pytest.fixture(autouse=True)
def toy_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COLUMNS, "lux", Column("light on the picture, lux", "number"))
    monkeypatch.setattr(catalogue, "MEASURES", (*catalogue.MEASURES, BRIGHTNESS))


def test_its_rows_are_in_its_table(result: Result) -> None:
    frame = result.tables["brightness"].frame
    assert frame["domain"].tolist() == ["real", "sketch"] and set(frame["setting"]) == {"cg-high"}
    assert frame["value"].tolist() == [0.25, 0.5] and set(frame["lux"]) == {100.0}
    told = json.loads((result.folder / "tables" / "brightness.json").read_text())
    assert told["columns"]["lux"] == "light on the picture, lux"


def test_its_section_and_figure_are_on_the_page(result: Result) -> None:
    page = result.report().read_text()
    assert "How bright are the pictures?" in page and "Brightness by domain" in page
    assert "light on the picture, lux" in page  # a column of its own is explained
    drawn = result_figures(result.folder)["brightness"]
    assert {x for trace in drawn.data for x in trace.x} >= {0.25, 0.5}


def test_its_rows_are_compared(result: Result, tmp_path: Path) -> None:
    same = compare_results(result, result)
    assert same.counts().loc["brightness", "within noise"] == 2
    other = tmp_path / "other"
    moved = result.tables["brightness"].frame.query("domain == 'real'")
    for name, table in result.tables.items():
        replace(table, frame=moved if name == "brightness" else table.frame).save(other / "tables")
    (other / "facts.json").write_text((result.folder / "facts.json").read_text())
    assert compare_results(result, other).counts().loc["brightness", "only in A"] == 1


def test_its_rows_are_exported(result: Result, tmp_path: Path) -> None:
    export(result.folder, tmp_path, what=["csv"])
    (path,) = tmp_path.rglob("brightness.csv")
    assert len(pd.read_csv(path)) == 2


def test_its_cost_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = cost_of_study(BRIEF).measuring_minutes
    monkeypatch.setattr(catalogue, "MEASURES", catalogue.MEASURES[:-1])
    without = cost_of_study(BRIEF).measuring_minutes
    assert with_it is not None and without is not None
    share = BRIEF.images.n_classes * BRIEF.images.n_analysis / 480
    assert with_it - without == pytest.approx(600_000 * share / 60 / 2)


def test_it_is_taken_once_and_read_back(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(opened: Subject) -> Frames:
        raise AssertionError("measured again")

    measures = (*catalogue.MEASURES[:-1], replace(BRIGHTNESS, function=again))
    monkeypatch.setattr(catalogue, "MEASURES", measures)
    assert len(Study(BRIEF).run(result.folder, jobs=1).tables["brightness"]) == 2


def test_values_without_evidence_are_refused(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Result
) -> None:
    def bare(opened: Subject) -> Frames:
        return {"brightness": brightness(opened)["brightness"].drop(columns="null")}

    measures = (*catalogue.MEASURES[:-1], replace(BRIGHTNESS, name="bare", function=bare))
    monkeypatch.setattr(catalogue, "MEASURES", measures)
    with pytest.raises(SpecificationError, match="values without null"):
        Study(BRIEF).run(result.folder, jobs=1)


def test_a_bare_table_must_be_one_that_is_made() -> None:
    with pytest.raises(SpecificationError, match="bare table"):
        replace(BRIGHTNESS, bare=("brightnes",))
