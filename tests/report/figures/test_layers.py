"""Figures of layers, erasure and features say what their tables say."""

from collections.abc import Callable
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.core.errors import SpecificationError
from interp.core.sites import LAST
from interp.core.tables import Table
from interp.declared.figures import LAID_OVER
from interp.declared.writing import number, plain
from interp.report.grammar.pieces import Figure
from interp.report.loaded import Frame
from interp.report.naming import SIGNS
from interp.report.page_model import PageModel
from interp.report.sections import filled_sections
from interp.report.verdict_tables import (
    angles_table,
    answers_table,
    by_layer_table,
    dictionaries_table,
    ladder_table,
)
from tests.report.conftest import INDEX, figure_of, read

Build = Callable[..., Path]

DRAWN = (
    *("factors", "angle", "apart", "selectivity", "directions", "views", "erasure"),
    *("feature-sharing", "feature-ablation", "faithfulness", "circuit", "ladder"),
    *("sharing-profile", "das", "circuits-abroad", "steady", "unit-galleries", "steering"),
    *(
        "steered-answers",
        "match-faithfulness",
        "match-circuit",
        "caption-words",
        "caption-patching",
    ),
)
CG_HIGH = "CG high diversity"


@pytest.fixture
def result(loaded: Callable[..., PageModel]) -> PageModel:
    return loaded(rung4=INDEX)


def shown(figure: Figure, name: str, *meta: int) -> dict:
    found = [each for each in figure.data if each["name"] == name and each["meta"] == list(meta)]
    assert len(found) == 1, [(each["name"], each["meta"]) for each in figure.data]
    return found[0]


def of(result: PageModel, table: str, **keys: object) -> Frame:
    frame = result.frame(table)
    for column, value in ({"setting": "cg-high", "control": ""} | keys).items():
        frame = frame[frame[column] == value]
    assert len(frame)
    return frame


@pytest.mark.parametrize("name", DRAWN)
def test_valid_titled_and_captioned(result: PageModel, name: str) -> None:
    figure = figure_of(result, name)
    assert figure is not None
    go.Figure(data=list(figure.data), layout=figure.layout)
    assert figure.title and figure.alt
    assert "n = " in figure.caption and "interval" in figure.caption
    options = [len(choice.options) for choice in figure.choices]
    for trace in figure.data:
        assert all(0 <= at < most for at, most in zip(trace["meta"], options, strict=True))


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_measured_nothing_drawn(build: Build, name: str) -> None:
    tables = (
        *("factorisation", "directions", "separation", "domain_probes", "selectivity", "views"),
        *("erasure", "feature_sharing", "feature_ablation", "faithfulness", "circuits"),
        *("das", "circuit_transfer", "circuit_stability", "overlap", "rungs", "ladder"),
        *("unit_galleries", "steering", "steered_answers", "match_faithfulness", "match_circuits"),
        *("caption_words", "caption_patching"),
    )
    hollow = pd.DataFrame({"measure": ["x"], "reason": ["too few classes"]})
    replaced = dict.fromkeys(tables, hollow)
    assert figure_of(read(build(replaced=replaced, name="hollow")), name) is None


@pytest.mark.parametrize(
    ("name", "table", "place", "keys"),
    [
        ("factors", "factorisation", 1, {"factor": "domain"}),
        ("angle", "factorisation", 0, {"factor": "class and domain"}),
        ("apart", "domain_probes", 0, {}),
        ("apart", "separation", 1, {"measure": "domain classifier"}),
        ("apart", "separation", 2, {"measure": "squared distance of domain means"}),
        ("selectivity", "selectivity", 1, {"domain": "sketch"}),
        ("directions", "directions", 1, {"measure": "cosine of LDA directions"}),
    ],
)
def test_lines_are_the_table(
    result: PageModel, name: str, table: str, place: int, keys: dict[str, str]
) -> None:
    figure = figure_of(result, name)
    assert figure is not None
    rows = of(result, table, **keys).sort_values("depth", kind="stable")
    column = "index" if name == "directions" else "value"
    line = shown(figure, CG_HIGH, *(0, place)[: len(figure.choices)])
    assert line["x"] == pytest.approx(rows["depth"].tolist())
    assert line["y"] == pytest.approx(rows[column].tolist())


def test_views_hold_every_picture_once(result: PageModel) -> None:
    figure = figure_of(result, "views")
    assert figure is not None
    rows = of(result, "views", site="layer2.0.hook_resid_post", domain="sketch")
    model = list(figure.choices[1].options).index(CG_HIGH)
    site = list(figure.choices[2].options).index("layer2.0.resid_post")
    points = shown(figure, "sketch", 0, model, site)
    assert points["x"] == pytest.approx(rows["x"].tolist(), abs=1e-4)
    assert points["text"] == rows["label"].tolist()
    assert "untrained (epoch 0)" in figure.choices[1].options


def test_erasure_shows_what_is_beyond_each_control(result: PageModel) -> None:
    figure = figure_of(result, "erasure")
    assert figure is not None
    for place, against in enumerate(("permuted labels", "random subspace")):
        rows = of(result, "erasure", against=against)
        found = shown(figure, CG_HIGH, 0, place)
        assert found["x"] == pytest.approx(rows["beyond"].tolist())
        assert found["error_x"]["array"] == pytest.approx([0.03] * len(rows))
    names = figure.layout["yaxis"]["ticktext"]
    assert any("probe real → sketch" in name for name in names)


def test_units_are_told_in_the_domain_of_their_class_and_in_the_other(result: PageModel) -> None:
    figure = figure_of(result, "unit-galleries")
    assert figure is not None
    roles = figure.choices[1].options
    for place, role in enumerate(roles):
        rows = of(result, "unit_galleries", role=role)
        assert shown(figure, CG_HIGH, 0, place)["x"] == pytest.approx(rows["value"].tolist())
    assert len(roles) == 4 and "class chosen in real,<br>told in sketch" in str(figure.layout)


def test_features_are_compared_with_units_and_components(result: PageModel) -> None:
    figure = figure_of(result, "feature-sharing")
    assert figure is not None
    rows = of(result, "feature_sharing", measure="shared mass", centred=True)
    found = shown(figure, CG_HIGH, 0, 0)
    assert found["x"] == pytest.approx(rows["index"].tolist())
    assert len(figure.layout["yaxis"]["ticktext"]) == 4
    # no two subjects of a row lie upon each other
    places = np.concatenate([each["y"] for each in figure.data if each["meta"] == [0, 0]])
    assert len(set(places)) == len(places)


def test_ablation_is_the_table(result: PageModel) -> None:
    figure = figure_of(result, "feature-ablation")
    assert figure is not None
    for place, measure in enumerate(("margin drop", "accuracy drop")):
        rows = of(result, "feature_ablation", measure=measure)
        assert shown(figure, CG_HIGH, 0, place)["x"] == pytest.approx(rows["value"].tolist())


def test_every_layer_has_its_verdict(result: PageModel) -> None:
    (grid,) = by_layer_table(result, "R2")
    frame = of(result, "similarity", domain_a="real", domain_b="sketch").set_index("site")
    column = grid.head.index(CG_HIGH)
    assert "n = 45 classes" in grid.caption
    for row in grid.rows:
        site = row[0].replace("resid_post", "hook_resid_post").replace("pool", "hook_pool")
        site = "hook_embedding" if row[0] == "embedding" else site
        assert frame.loc[site, "verdict"] in row[column]
        assert f"{frame.loc[site, 'index']:.2f}" in row[column]


def test_a_withheld_layer_says_why(
    build: Build, study_frames: Callable[[], dict[str, pd.DataFrame]]
) -> None:
    frame = study_frames()["similarity"]
    gone = (frame["site"] == "layer2.0.hook_resid_post") & (frame["control"] == "")
    frame.loc[gone, ["index", "index_low", "index_high"]] = np.nan
    frame.loc[gone, ["verdict", "reason"]] = ["unknown", "ceiling too low"]
    (grid,) = by_layer_table(read(build(replaced={"similarity": frame})), "R2")
    assert any("unknown: ceiling too low" in row[1] for row in grid.rows)


def test_the_ladder_knows_of_features(result: PageModel) -> None:
    (grid,) = ladder_table(result)
    row = next(row for row in grid.rows if row[0].startswith("R5"))
    assert "not shared" in row[1] and "◐ partly shared" in row[grid.head.index(CG_HIGH)]


def test_every_verdict_of_the_ladder_is_counted_once(result: PageModel) -> None:
    own, every = answers_table(result)
    told = result.frame("ladder")
    told = told[(told["control"] == "") & (told["rung"] != "")]
    assert f"{len(told)} in all" in every.caption and "asked about" in own.caption
    assert every.head == [
        "Rung", "● shared", "◐ partly shared", "○ not shared", "? unknown"
    ]  # fmt: skip
    for rung, *counts in every.rows:
        rows = told[told["rung"] == rung.split()[0]]
        assert sum(map(int, counts)) == len(rows)
        assert int(counts[0]) == (rows["verdict"] == "shared").sum()
        unknown = rows["verdict"] == "unknown"
        assert int(counts[-1]) == unknown.sum()


def test_dictionaries_and_factors_in_words(result: PageModel) -> None:
    (grid,) = dictionaries_table(result)
    row = next(row for row in grid.rows if row[0] == CG_HIGH)
    assert row[1:] == [
        "256", "16.0", "86.0 %", "40.0 %", "real 45.0 % of 50.0 %; sketch 30.0 % of 40.0 %",
        "0.44 (chance 0.36)",
    ]  # fmt: skip
    (factor,) = angles_table(result)
    assert factor.rows[0][1].startswith("20.") and "null" in factor.rows[0][-1]


@pytest.mark.slow
def test_the_sections_are_there_and_an_older_run_lacks_them(build: Build) -> None:
    anchors = [section.spec.anchor for section in filled_sections(read(build()))]
    assert {"layers", "features", "erasure"} <= set(anchors)
    older = build(
        name="older",
        without=(
            *("factorisation", "directions", "separation", "domain_probes", "selectivity"),
            *("views", "erasure", "dictionaries", "feature_sharing", "feature_ablation"),
        ),
    )
    found = filled_sections(read(older))
    assert not {"layers", "features", "erasure"} & {section.spec.anchor for section in found}
    assert not any(section.missing for section in found if section.spec.anchor != "transplant")


def parted(values: list[float | None]) -> list[list[float | None]]:
    """The runs of numbers between gaps."""
    return [list(own) for gap, own in groupby(values, lambda value: value is None) if not gap]


def test_circuits_say_what_their_tables_say(result: PageModel) -> None:
    figure = figure_of(result, "faithfulness")
    assert figure is not None
    assert [choice.label for choice in figure.choices] == ["Test domain", "Model", "Pictures"]
    model = list(figure.choices[1].options).index(CG_HIGH)
    rows = of(result, "faithfulness", domain="sketch", measure="circuit alone")
    line = shown(figure, "circuit alone", 0, model, 1)
    assert line["x"] == sorted(rows["share"]) and line["y"] == sorted(rows["value"])
    chance = shown(figure, "random circuits of the same size", 0, model, 1)
    assert chance["y"] == [0.0] * len(rows)
    graph = figure_of(result, "circuit")
    assert graph is not None
    assert graph.choices[2].options == [LAID_OVER, "real", "sketch"]
    traces = [trace for trace in graph.data if trace["meta"] == [0, model, 2]]
    *looks, middles, nodes = traces
    lines = [  # edges of one look are one trace, with gaps
        {"line": trace["line"], "x": x, "y": y}
        for trace in looks
        for x, y in zip(*(parted(trace[axis]) for axis in "xy"), strict=True)
    ]
    edges = of(result, "circuits", domain="sketch").sort_values("score", key=abs)
    at = dict(zip(nodes["hovertext"], zip(nodes["x"], nodes["y"], strict=True), strict=True))
    ends = [((t["x"][0], t["y"][0]), (t["x"][-1], t["y"][-1])) for t in lines]
    assert ends == [(at[e.node], at[e.node_b]) for e in edges.itertuples()]
    widths = [line["line"]["width"] for line in lines]
    assert widths == [round(9 * s / edges["score"].max(), 1) for s in edges["score"].abs()]
    assert len({line["line"]["color"] for line in lines}) == 2  # one edge lowers the metric
    assert sorted(middles["text"]) == sorted(
        f"{plain(edge.edge)}: {number(edge.score, 3)}" for edge in edges.itertuples()
    )


def test_a_slider_turns_a_class_up_in_both_domains(result: PageModel) -> None:
    figure = figure_of(result, "steered-answers")
    assert figure is not None
    *_, label, dose = figure.choices
    assert (dose.label, dose.slider, list(dose.options)) == ("Dose", True, ["0", "1", "2"])
    assert not label.slider
    model = list(figure.choices[1].options).index(CG_HIGH)
    rows = of(result, "steered_answers", label="class_02", dose=2.0, domain="sketch")
    bars = shown(figure, "sketch", 0, model, 1, 2)
    assert bars["y"] == rows["answer"].tolist() and bars["x"] == rows["share"].tolist()
    curve = figure_of(result, "steering")
    assert curve is not None
    assert curve.choices[4].selected == 1  # behind the last block
    for place, kind in enumerate(("seen", "held-out")):
        line = shown(curve, "the other domain's direction", 0, model, place, 1, 1)
        ends = {"domain_a": "real", "domain_b": "sketch", "class_set": kind}
        assert line["y"] == of(result, "steering", band="late", **ends)["value"].tolist()


# the ladder


def test_a_cell_of_the_ladder_is_the_tables_verdict(result: PageModel) -> None:
    figure = figure_of(result, "ladder")
    assert figure is not None
    for setting, name in ((0, "natural-only"), (3, "cg-high")):
        [trace] = [each for each in figure.data if each["meta"] == [0, setting]]
        rows = of(result, "ladder", setting=name, band="middle", domain_a="real", domain_b="sketch")
        row = trace["y"].index("real × sketch, middle")
        colours = {"not shared": 0.0, "unknown": 1.0, "partly shared": 2.0, "shared": 3.0}
        for column, rung in enumerate(("R1", "R2", "R3", "R4", "R5", "R6")):
            [verdict] = rows[rows["rung"] == rung]["verdict"]
            assert trace["text"][row][column] == SIGNS[verdict]
            assert trace["z"][row][column] == colours[verdict]
            assert verdict in trace["hovertext"][row][column]


def test_what_was_not_measured_is_an_empty_cell(build: Build) -> None:
    hollow = pd.DataFrame({"measure": ["x"], "reason": ["none"]})
    figure = figure_of(read(build(name="some")), "ladder")
    assert figure is not None
    [trace] = [each for each in figure.data if each["meta"] == [0, 0]]
    row = next(n for n, name in enumerate(trace["y"]) if "clipart" in name)
    assert trace["text"][row][3] == "" and trace["hovertext"][row][3] == "R4: not measured"
    assert figure_of(read(build(replaced={"ladder": hollow}, name="no ladder")), "ladder") is None


def test_circuits_abroad_draw_value_null_ceiling_and_chance(result: PageModel) -> None:
    figure = figure_of(result, "circuits-abroad")
    assert figure is not None
    rows = of(result, "circuit_transfer", band="", domain_a="real", measure="circuit transfer")
    ends = {"the class in A": "value", "another class in A": "null", "random parts": "random"}
    for name, column in ends.items():
        line = shown(figure, name, 0, 3, 0)
        assert line["y"] == pytest.approx(rows.sort_values("share")[column].tolist())


@pytest.mark.slow
def test_steady_circuits_are_drawn_site_by_site_beside_chance(result: PageModel) -> None:
    figure = figure_of(result, "steady")
    assert figure is not None and "200 draws of 240 pairs" in figure.caption
    rows = of(result, "circuit_stability", domain="sketch")
    rows = rows[rows["site"] != ""]
    line, chance = shown(figure, "found again", 0, 0, 1), shown(figure, "parts by chance", 0, 0, 1)
    assert line["y"] == pytest.approx(rows["value"].tolist())
    assert line["x"] == chance["x"] == [site.split(".hook")[0] for site in rows["site"]]
    assert all("6 of 10 parts" in said for said in line["text"]) and set(chance["y"]) == {0.1}


def test_the_profile_means_over_models_and_draws_the_untrained(build: Build) -> None:
    """Two blocks of one setting make one line; the untrained model's rows name no setting."""
    words: dict[str, Any] = {"rung4": {"natural-only": 0.05, "cg-high": 0.8}}
    rows = read(build(name="one block", **words)).frame("rungs")
    first = rows[(rows["rung"] == "R4") & (rows["control"] == "")]
    setting, site = first["setting"].iloc[0], first["site"].iloc[0]
    second = first.assign(seed=1, index=first["index"] + 0.2, verdict="unknown")
    untrained = first.assign(setting="", control="epoch 0", index=0.125)
    both = pd.concat([rows, second, untrained])
    figure = figure_of(
        read(build(replaced={"rungs": both}, name="two blocks", **words)), "sharing-profile"
    )
    assert figure is not None
    here = [trace for trace in figure.data if trace["xaxis"] == "x4" and trace["meta"] == [0]]
    [dashed] = [trace for trace in here if trace["name"] == "untrained"]
    assert set(dashed["y"]) == {0.125, None} and dashed["line"]["dash"] == "dash"
    line = next(trace for trace in here if trace["legendgroup"] == setting)
    own = first[(first["setting"] == setting) & (first["site"] == site)]
    asked = own[own["domain_a"] == sorted(own["domain_a"])[0]]["index"].iloc[0] + 0.1
    assert line["y"][0] == pytest.approx(asked, abs=1e-3)
    assert "unknown" in line["hovertext"][0]


def test_a_blocks_test_domains_are_one_draw(build: Build) -> None:
    """Natural only is one model for both, whose rows stand twice: no interval grows narrower."""
    rows = read(build(name="one domain")).frame("rungs")
    own = rows[(rows["control"] == "") & (rows["rung"] == "R2")]
    again = own.assign(test_domain="quickdraw")
    figures = [
        figure_of(read(build(replaced={"rungs": frame}, name=name)), "sharing-profile")
        for name, frame in (("once", own), ("twice", pd.concat([own, again])))
    ]
    lines = [
        [trace for trace in figure.data if trace.get("error_y")] for figure in figures if figure
    ]
    assert lines[0] and len(lines) == 2
    for once, twice in zip(*lines, strict=True):
        assert twice["y"] == once["y"] and twice["error_y"] == once["error_y"]
        assert not any("mean of" in said for said in twice["hovertext"])


def test_bars_are_drawn_where_the_index_is_judged_by_them(result: PageModel) -> None:
    """R1 goes by an interval above permuted labels: "readable" lay far below a line of sharing."""
    figure = figure_of(result, "sharing-profile")
    assert figure is not None
    dotted = [one for one in figure.layout["shapes"] if one["line"].get("dash") == "dot"]
    panels = [one["xref"].split()[0] for one in dotted]
    assert {panel: panels.count(panel) for panel in panels} == {f"x{n}": 2 for n in range(2, 7)}


def test_the_profile_of_one_model_is_its_table(result: PageModel) -> None:
    """Drawn by the table itself: a line for each pair of domains, without the last site."""
    rows = of(result, "rungs")
    known = rows[(rows["rung"] == "R2") & (rows["site"] != LAST)].sort_values("depth")
    drawn = [trace for trace in Table("rungs", rows).plot().data if trace.xaxis == "x2"]
    pairs = known.groupby(["domain_a", "domain_b"])
    assert len(drawn) == len(pairs)
    for (a, b), own in pairs:
        [line] = [trace for trace in drawn if set(trace.name.split(" × ")) == {plain(a), plain(b)}]
        assert [y for y in line.y if y is not None] == pytest.approx(list(own["index"]))
        assert line.x[: len(own)] == pytest.approx(list(own["depth"]))


def test_many_pairs_of_domains_are_told_apart() -> None:
    """Six colours, then another symbol: five domains are ten pairs."""
    domains = ("real", "sketch", "clipart", "painting", "quickdraw")
    point = {"rung": "R2", "measure": "CKA", "site": "blocks.0.hook_resid_post", "band": "middle"}
    point |= {"depth": 0.5, "index": 0.9, "index_low": 0.8, "index_high": 1.0, "n_units": 8}
    pairs = [{"domain_a": a, "domain_b": b} for a, b in combinations(domains, 2)]
    drawn = Table("rungs", pd.DataFrame([point | pair for pair in pairs])).plot().data
    lines = [trace for trace in drawn if "×" in (trace.name or "")]
    looks = {(trace.line.color, trace.marker.symbol) for trace in lines}
    assert len(lines) == len(looks) == 10


def test_a_table_of_several_settings_is_drawn_as_on_the_page(build: Build) -> None:
    """Nothing is averaged over settings, and what cannot be drawn of one table is refused."""
    folder = build(rung4=INDEX) / "tables"
    tables = {name: Table.load(folder / f"{name}.csv") for name in ("rungs", "epochs", "views")}
    profile = tables["rungs"].plot()
    assert {trace.name for trace in profile.data} >= {CG_HIGH, "natural only"}
    assert "sketch" in tables["epochs"].plot().layout.title.text
    with pytest.raises(SpecificationError, match="views"):  # names no domain in `domain_a`
        tables["views"].plot()


def test_a_panel_of_the_profile_without_a_point_says_why(build: Build) -> None:
    words: dict[str, Any] = {"rung4": {"natural-only": 0.05, "cg-high": 0.8}}
    rows = read(build(name="whole", **words)).frame("rungs")
    blank = rows.assign(index=rows["index"].where(rows["rung"] != "R4"))
    blank.loc[blank["rung"] == "R4", "verdict"] = "unknown"
    less = blank[blank["rung"] != "R2"]
    figure = figure_of(
        read(build(replaced={"rungs": less}, name="blank", **words)), "sharing-profile"
    )
    assert figure is not None
    said = {t["xaxis"]: t["text"] for t in figure.data if t["mode"] == "text" and t["meta"] == [0]}
    assert said["x4"] == ["no index: unknown"] and said["x2"] == ["not measured"]
    filled = {t["xaxis"] for t in figure.data if t["mode"] != "text" and any(pd.notna(t["y"]))}
    assert not filled & set(said) and len(filled | set(said)) == 6


def test_the_pair_measured_in_most_models_leads_and_the_fullest_model_is_shown(
    build: Build,
) -> None:
    """Circuits of another pair, in one model alone, do not push the study's own pair back."""
    words: dict[str, Any] = {"rung4": {"natural-only": 0.05, "cg-high": 0.8}}
    rows = read(build(name="own", **words)).frame("ladder")
    one = rows[(rows["setting"] == "cg-high") & (rows["domain_a"] == "real")]
    other = one[one["domain_b"] == "sketch"].assign(domain_a="a", domain_b="b")
    both = pd.concat([other, rows])
    figure = figure_of(read(build(name="all", replaced={"ladder": both}, **words)), "ladder")
    assert figure is not None
    assert figure.data[0]["y"][0].startswith("real × sketch")
    assert any(name.startswith("a × b") for name in figure.data[0]["y"])
    asked = figure.choices[1]
    assert asked.options[asked.selected] == "CG high diversity"
