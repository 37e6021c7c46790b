"""A result in other tools' formats: what goes out comes back the same."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from interp.circuits import Circuit, Metric, Target, attribute, discover, wire
from interp.circuits.planted.vit import Blueprint, plant
from interp.circuits.planted.weights import disguise
from interp.core.errors import DataError, SpecificationError
from interp.core.tables import COLUMNS, Table
from interp.models.towers.vit import HookedViT
from interp.report.drawing import result_figures
from interp.study.export import circuit_of, export
from interp.study.results import Result


def test_tables_go_out_byte_for_byte_with_every_column_explained(
    small_study: Result, tmp_path: Path
) -> None:
    paths = export(small_study, tmp_path, ["csv"])["csv"]
    meanings = pd.read_csv(tmp_path / "csv" / "columns.csv", keep_default_na=False)  # "null" is one
    for path in paths[:-1]:
        assert path.read_bytes() == (small_study.folder / "tables" / path.name).read_bytes()
        told = meanings[meanings["table"] == path.stem].set_index("column")["meaning"]
        columns = list(pd.read_csv(path, nrows=1).columns)
        assert list(told.index) == columns
        assert all(told[column] == COLUMNS[column].meaning for column in columns)
    assert {path.stem for path in paths[:-1]} == set(small_study.tables)


@pytest.mark.long
def test_every_figure_of_the_page_goes_out_as_html_that_asks_nothing_of_a_network(
    small_study: Result, tmp_path: Path
) -> None:
    page = small_study.report(tmp_path / "page.html").read_text()
    on_page = set(re.findall(r'id="canvas-([^"]+)"', page))
    export(small_study, tmp_path, ["html"])
    made = {path.stem for path in (tmp_path / "html").glob("*.html")}
    assert made == on_page and len(made) > 10
    for path in (tmp_path / "html").glob("*.html"):
        sources = re.findall(r'<script[^>]*src="([^"]+)"', path.read_text())
        assert set(sources) == {"plotly.min.js"}
    assert (tmp_path / "html" / "plotly.min.js").exists()
    captions = pd.read_csv(tmp_path / "html" / "captions.csv")
    assert set(captions["figure"]) == made and captions["caption"].str.len().min() > 20


@pytest.mark.long
def test_only_the_first_choice_is_drawn(small_study: Result) -> None:
    for name, figure in result_figures(small_study.folder).items():
        assert len(figure.data) and figure.layout.title.text, name
    few = result_figures(small_study.folder)["classifiers"]
    names = [trace.name for trace in few.data]
    assert len(names) == len(set(names))


def test_circuits_of_edges_go_to_mib_and_back(tmp_path: Path) -> None:
    planted = disguise(plant(Blueprint("all shared", seed=4)))
    tower, world = HookedViT(planted.source), planted.world
    scenes = world.scenes(4, domain="A", seed=1)
    runs = {
        "clean": world.render(scenes),
        "corrupt": world.render(
            world.scenes(4, domain="A", labels=((scenes.label + 3) % 8).tolist(), seed=2)
        ),
        "metric": Metric("margin", Target(planted.classifier, scenes.label)),
    }
    circuit = discover(attribute(tower, **runs), n=12, prune=False)
    frame = circuit.to_table().frame[["edge", "score", "kept"]]
    folder = tmp_path / "result"
    place = {"setting": "cg-high", "test_domain": "sketch", "seed": 0, "domain": "real"}
    Table("edges", frame.assign(**place)).save(folder / "tables")
    (folder / "facts.json").write_text("{}")
    (path,) = export(folder, tmp_path / "out", ["mib"])["mib"]
    back = Circuit.from_mib(path, wire(tower))
    assert back.edges == circuit.edges and len(back) == 12
    assert back.scores == pytest.approx(circuit.scores, rel=1e-6, abs=1e-9)
    config = json.loads(path.read_text())["cfg"]
    assert config == {"n_layers": 4, "n_heads": 4}
    assert path.stem == "cg-high-sketch-0-real"
    with pytest.raises(DataError, match="whole wiring"):
        circuit_of(Table("edges", frame.iloc[::-1]))
    for missing in (3, len(frame) // 2, len(frame) - 1):
        with pytest.raises(DataError, match="whole wiring"):
            circuit_of(Table("edges", frame.drop(index=missing)))


def test_a_resnets_channels_are_no_circuit_for_mib(small_study: Result, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="channels"):
        export(small_study, tmp_path, ["mib"])


@pytest.mark.parametrize(
    ("what", "figures", "message"),
    [(["docx"], [], "'docx'"), ([], [], "no format"), (["html"], ["anser"], "mean answer")],
)
def test_what_there_is_not_is_refused(
    small_study: Result, tmp_path: Path, what: list[str], figures: list[str], message: str
) -> None:
    with pytest.raises(SpecificationError, match=message):
        export(small_study, tmp_path, what, figures=figures)


def test_without_kaleido_pictures_say_what_to_install(
    small_study: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(SpecificationError, match=r"pip install kaleido"):
        export(small_study, tmp_path, ["png"], figures=["answer"])


@pytest.mark.filterwarnings("ignore")
def test_pictures_are_drawn_in_their_size(small_study: Result, tmp_path: Path) -> None:
    found = export(small_study, tmp_path, ["png", "svg"], figures=["answer"])
    with Image.open(found["png"][0]) as image:
        assert image.width == 1800 and len(image.convert("RGB").getcolors(10**7) or ()) > 10
    assert "<svg" in found["svg"][0].read_text()[:200]
