"""Every figure says what its table says, is valid plotly, and carries n and its interval."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.report.figures.answer import answer_figure
from interp.report.grammar.pieces import Figure, Trace, heat, height
from interp.report.naming import SETTINGS, setting_name
from interp.report.page_model import PageModel
from interp.report.rows import middle_site
from interp.report.verdict_tables import certificate_table
from tests.report.conftest import figure_of, page_of, read

Build = Callable[..., Path]

DRAWN = (
    *("answer", "mixtures", "losses", "accuracy", "differences", "accuracy-by-domain"),
    *("accuracy-by-class", "similarity", "transfer", "transplant", "domain-map", "probe-map"),
    *("patching", "certificate", "tradeoff", "exposure", "robustness", "epochs"),
)
NAMES = {setting: words for setting, (words, _, _) in SETTINGS.items()}


@pytest.fixture
def result(loaded: Callable[..., PageModel]) -> PageModel:
    return loaded(rung4={"natural-only": 0.05, "cg-high": 0.8})


def drawn(result: PageModel, name: str) -> Figure:
    figure = answer_figure(result)[0] if name == "answer" else figure_of(result, name)
    assert figure is not None
    return figure


def named(figure: Figure, name: str, *meta: int | None) -> Trace:
    """The one trace of a name that shows under the given choices."""
    found = [
        trace
        for trace in figure.data
        if trace.get("name") == name and (not meta or trace["meta"] == list(meta))
    ]
    assert len(found) == 1, [trace.get("name") for trace in figure.data]
    return found[0]


@pytest.mark.parametrize("name", DRAWN)
def test_valid_titled_and_captioned(result: PageModel, name: str) -> None:
    figure = drawn(result, name)
    go.Figure(data=list(figure.data), layout=figure.layout)  # raises on any name plotly lacks
    assert figure.title and figure.alt
    assert "n = " in figure.caption
    assert "interval" in figure.caption
    options = [len(choice.options) for choice in figure.choices]
    for trace in figure.data:
        for option, most in zip(trace.get("meta") or [], options, strict=True):
            assert option is None or 0 <= option < most


def test_accuracy_is_the_tables(result: PageModel) -> None:
    figure = drawn(result, "accuracy")
    frame = result.frame("accuracy")
    for candidates, place in (("all", 0), ("held-out", 1)):
        for prompts, number in (("neutral", 0), ("domain-averaged", 1)):
            trace = named(figure, "trained", 0, place, number)
            asked = (frame["candidates"] == candidates) & (frame["prompts"] == prompts)
            here = (frame["domain"] == "sketch") & (frame["class_set"] == "held-out")
            rows = frame[asked & here & (frame["control"] == "")].set_index("setting")
            rows.index = rows.index.map(NAMES)
            names = figure.layout["yaxis"]["ticktext"]
            rows = rows.loc[[names[int(at)] for at in trace["y"]]]
            assert trace["x"] == pytest.approx(rows["value"].tolist())
            reach = (rows["high"] - rows["value"]).tolist()
            assert trace["error_x"]["array"] == pytest.approx(reach)
            chance = named(figure, "chance", 0, place, number)
            assert chance["x"] == pytest.approx(rows["null"].tolist())
            floor = named(figure, "untrained (epoch 0)", 0, place, number)
            assert floor["x"] == pytest.approx(rows["null"].tolist())


def test_an_untrained_model_of_no_mixture_has_a_row_of_its_own(build: Build) -> None:
    """As a study writes it, where all mixtures of a block begin with the same weights."""
    accuracy = read(build()).frame("accuracy")
    shared = accuracy.assign(setting=accuracy["setting"].mask(accuracy["control"] != "", ""))
    figure = drawn(read(build(replaced={"accuracy": shared}, name="shared")), "accuracy")
    rows = figure.layout["yaxis"]["ticktext"]
    assert rows[-1] == "untrained" and "this model" not in rows
    floor = named(figure, "untrained (epoch 0)", 0, 0, 0)
    assert {rows[int(at)] for at in floor["y"]} == {"untrained"}
    assert not set(named(figure, "trained", 0, 0, 0)["y"]) & set(floor["y"])
    assert set(named(figure, "chance", 0, 0, 0)["y"]) == set(range(len(rows)))


def test_a_row_without_a_number_is_not_drawn(build: Build) -> None:
    accuracy = read(build()).frame("accuracy")
    ends = accuracy[["value", "low", "high"]].mask(accuracy["setting"] == "cg-low")
    some = build(replaced={"accuracy": accuracy.assign(**ends)}, name="some")
    figure = drawn(read(some), "accuracy")
    rows = figure.layout["yaxis"]["ticktext"]
    assert NAMES["cg-low"] not in rows and NAMES["cg-high"] in rows
    assert set(named(figure, "chance", 0, 0, 0)["y"]) == set(range(len(rows)))


def test_answer_places_accuracy_against_the_middle_layers(result: PageModel) -> None:
    figure = drawn(result, "answer")
    similarity, accuracy = result.frame("similarity"), result.frame("accuracy")
    for setting, words in list(NAMES.items())[:4]:
        point = named(figure, words)
        middle = similarity.query(
            "domain_a == 'real' and domain_b == 'sketch' and setting == @setting "
            "and control == '' and depth.between(0.33, 0.67) and site != 'hook_embedding'"
        )
        assert sorted(middle["site"]) == ["layer2.0.hook_resid_post", "layer3.0.hook_resid_post"]
        assert point["x"] == pytest.approx([middle["index"].mean()])
        low = middle["index"].mean() - middle["index_low"].mean()
        assert point["error_x"]["arrayminus"] == pytest.approx([low])
        asked = accuracy.query(
            "domain == 'sketch' and class_set == 'held-out' and candidates == 'all' "
            "and prompts == 'neutral' and control == ''"
        )
        assert point["y"] == asked[asked["setting"] == setting]["value"].tolist()


def test_profile_is_the_table(result: PageModel) -> None:
    figure = drawn(result, "similarity")
    frame = result.frame("similarity")
    pair = (frame["domain_a"] == "real") & (frame["domain_b"] == "sketch")
    rows = frame[pair & (frame["setting"] == "cg-high")].sort_values("depth", kind="stable")
    own, floor = rows[rows["control"] == ""], rows[rows["control"] == "epoch 0"]
    line = named(figure, "CG high diversity")
    assert line["x"] == pytest.approx(own["depth"].tolist())
    assert line["y"] == pytest.approx(own["index"].tolist())
    band = named(figure, "CG high diversity, 95 % interval")
    ends = own["index_high"].tolist() + own["index_low"].tolist()[::-1]
    assert band["y"] == pytest.approx(ends)
    untrained = named(figure, "untrained (epoch 0)")  # once: it is the same for all settings
    assert untrained["y"] == pytest.approx(floor["index"].tolist())
    assert named(figure, "raw pixels")["y"] == pytest.approx([0.12, 0.12])


def test_both_directions_of_probes(result: PageModel) -> None:
    figure = drawn(result, "transfer")
    frame = result.frame("transfer")
    for direction, (train, test) in enumerate((("real", "sketch"), ("sketch", "real"))):
        rows = frame[
            (frame["train_domain"] == train)
            & (frame["domain"] == test)
            & (frame["setting"] == "cg-low")
            & ~frame["centred"]
            & (frame["control"] == "")
        ].sort_values("depth", kind="stable")
        line = named(figure, "CG low diversity", 0, direction)
        assert line["y"] == pytest.approx(rows["index"].tolist())


@pytest.mark.parametrize(("name", "table", "value"), [
    ("domain-map", "similarity", "index"), ("probe-map", "transfer", "value"),
])  # fmt: skip
def test_maps_are_the_table(result: PageModel, name: str, table: str, value: str) -> None:
    figure = drawn(result, name)
    frame = result.frame(table)
    sites = figure.choices[2]
    assert middle_site(frame).replace("hook_", "") in sites.options[sites.selected]
    setting, site = 3, sites.selected
    trace = next(trace for trace in figure.data if trace["meta"] == [0, setting, site])
    rows = frame[
        (frame["setting"] == "cg-high")
        & (frame["site"] == middle_site(frame))
        & (frame["control"] == "")
        & ~frame["centred"]
    ]
    ends = ("domain_a", "domain_b") if table == "similarity" else ("train_domain", "domain")
    for _, row in rows.iterrows():
        y, x = (trace[axis].index(row[end]) for axis, end in zip("yx", ends, strict=True))
        assert trace["z"][y][x] == pytest.approx(row[value])
        if table == "similarity":
            assert trace["z"][x][y] == pytest.approx(row[value])


def test_patching_means_and_dots_share_a_scale(result: PageModel) -> None:
    figure = drawn(result, "patching")
    frame, examples = result.frame("patching"), result.frame("patching_examples")
    pairing = frame["pairing"].iloc[0]
    rows = frame[(frame["pairing"] == pairing) & (frame["setting"] == "cg-high")]
    point = named(figure, "CG high diversity", 0, 0)
    assert point["y"] == pytest.approx(rows["index"].tolist())
    ones = examples[(examples["pairing"] == pairing) & (examples["setting"] == "cg-high")]
    effect = (ones["value"] - ones["corrupt_metric"] - 0.1) / 2.0
    dots = named(figure, "CG high diversity, single pairs", 0, 0)
    assert np.isin(np.round(dots["y"], 9), np.round(effect, 9)).all()
    assert len(dots["y"]) <= 60 * rows["site"].nunique()


def test_patching_by_position_is_a_map(build: Build) -> None:
    rows = pd.DataFrame(
        [
            {
                "setting": "cg-high",
                "test_domain": "sketch",
                "pairing": "aligned",
                "metric": "margin",
            }
            | {"measure": "activation patching, denoise", "site": f"blocks.{b}.hook_resid_pre"}
            | {"layer": b, "depth": b / 4, "pos": p, "value": b + p / 10, "index": (b + p) / 20}
            for b in range(4)
            for p in range(10)
        ]
    )
    figure = figure_of(read(build(replaced={"patching": rows})), "patching")
    assert figure is not None
    (trace,) = figure.data
    assert trace["type"] == "heatmap"
    expected = rows.pivot_table(index="layer", columns="pos", values="index").to_numpy()
    assert np.asarray(trace["z"], dtype=float) == pytest.approx(expected)


def test_bars_and_losses_are_the_tables(result: PageModel) -> None:
    figure = drawn(result, "mixtures")
    rows = result.frame("mixtures")
    for domain in result.domains:
        part = rows[rows["domain"] == domain].set_index("setting").rename(index=NAMES)
        trace = named(figure, domain)
        assert trace["x"] == part["n_pictures"].reindex(trace["y"]).tolist()
    line = named(drawn(result, "losses"), "CG low diversity")
    losses_here = result.frame("losses")
    assert line["y"] == losses_here[losses_here["setting"] == "cg-low"]["loss"].tolist()


def test_differences_are_in_points(result: PageModel) -> None:
    (trace,) = drawn(result, "differences").data
    rows = result.frame("differences")
    assert trace["x"] == pytest.approx((100 * rows["value"]).tolist())
    assert trace["error_x"]["array"] == pytest.approx(
        (100 * (rows["high"] - rows["value"])).tolist()
    )


def test_classes_and_domains_are_the_tables(result: PageModel) -> None:
    (trace,) = drawn(result, "accuracy-by-class").data
    for _, row in result.frame("accuracy_by_class").iterrows():
        y, x = trace["y"].index(row["label"]), trace["x"].index(setting_name(row["setting"]))
        assert trace["z"][y][x] == pytest.approx(row["value"])
    points = named(drawn(result, "accuracy-by-domain"), "CG high diversity", 0, 0)
    rows = result.frame("accuracy").query(
        "setting == 'cg-high' and class_set == 'held-out' and candidates == 'all' "
        "and prompts == 'neutral' and control == ''"
    )
    values = rows.set_index("domain")["value"]
    domains = [said.partition(":")[0] for said in points["text"]]
    assert points["y"] == pytest.approx(values.loc[domains].tolist())


def test_certificate_shows_the_worst_and_marks_failures(build: Build, result: PageModel) -> None:
    worst = result.frame("certificate").groupby(["tower", "check", "dtype"], sort=False)["error"]
    trace = drawn(result, "certificate").data[0]  # all sites of a check have one bar here
    assert trace["x"] == pytest.approx([max(value, 1e-18) for value in worst.max()])
    failing = result.frame("certificate").assign(error=[1.0, *[0.0] * 27])
    figure = figure_of(
        read(build(replaced={"certificate": failing}, name="failing")), "certificate"
    )
    assert figure is not None
    assert figure.data[0]["marker"]["symbol"][0] == "x"
    assert "FAILS" in figure.alt


def test_certificate_holds_each_site_against_its_own_bar(build: Build, result: PageModel) -> None:
    frame = result.frame("certificate").copy()
    # a site whose bar is wide may err more than others' bars allow, and pass
    frame.loc[0, ["error", "bar", "ok"]] = [1.2e-5, 4e-5, True]
    found = read(build(replaced={"certificate": frame}, name="wide"))
    figure = figure_of(found, "certificate")
    assert figure is not None
    error, bar = figure.data[0]["x"][0], figure.data[1]["x"][0]
    assert (error, bar) == pytest.approx((1.2e-5, 4e-5))  # .3 of its bar; the others, .06 of theirs
    assert "FAILS" not in figure.alt
    (grid,) = certificate_table(found)
    assert grid.rows[0][3:] == [frame["site"].iloc[0], "1.2e-05", "4e-05", "✓ all pass"]


def test_single_pairs_do_not_set_the_axis(build: Build, result: PageModel) -> None:
    examples, rows = result.frame("patching_examples").copy(), result.frame("patching").copy()
    examples.loc[0, "value"] = 1e4
    rows.loc[rows["setting"] == "cg-low", ["index", "index_low", "index_high"]] = np.nan
    changed = {"patching": rows, "patching_examples": examples}
    figure = figure_of(read(build(replaced=changed, name="far")), "patching")
    assert figure is not None
    low, high = figure.layout["yaxis"]["range"]
    assert low < 0 and 1 < high < 5
    assert high > rows["index_high"].max() and low < rows["index_low"].min()
    assert "lie beyond the axis" in figure.caption and "values are unknown" in figure.caption
    # a pair has no share where the mean has none
    assert named(figure, "CG low diversity, single pairs", 0, 0)["y"] == []


def test_gaps_are_gaps(build: Build, study_frames: Callable[[], dict[str, pd.DataFrame]]) -> None:
    frame = study_frames()["similarity"]
    gone = frame["site"] == "layer2.0.hook_resid_post"
    frame.loc[gone, ["index", "index_low", "index_high"]] = np.nan
    frame.loc[gone, ["verdict", "reason"]] = ["unknown", "ceiling too low"]
    figure = figure_of(read(build(replaced={"similarity": frame})), "similarity")
    assert figure is not None
    line = named(figure, "CG high diversity")
    assert line["y"][2] is None
    bands = [t for t in figure.data if t["name"] == "CG high diversity, 95 % interval"]
    assert len(bands) == 2
    assert "unknown" in figure.caption


def test_rows_have_room_for_every_line_of_their_names() -> None:
    short, long = ["natural only"], ["leave-out-domain − natural only, sketch and quickdraw"]
    assert height(long, 1) - height(short, 1) >= 16
    assert height(3 * long, 1) - height(2 * long, 1) >= 3 * 16


def test_a_mixtures_variant_stands_on_two_lines_in_the_legend(result: PageModel) -> None:
    rows = result.frame("similarity")
    named = rows["setting"].replace("cg-high", "cg-high, aligned captions")
    figure = figure_of(page_of({"similarity": rows.assign(setting=named)}, "sketch"), "similarity")
    assert figure is not None
    assert "CG high diversity<br>aligned captions" in {trace["name"] for trace in figure.data}
    assert "CG high diversity, aligned captions" in figure.alt and "<br>" not in figure.alt


def test_a_view_without_a_number_says_so(result: PageModel) -> None:
    rows = result.frame("similarity")
    none = {"index": np.nan, "index_low": np.nan, "index_high": np.nan}
    empty = rows.assign(test_domain="clipart", **none)
    both = pd.concat([rows.assign(test_domain="sketch"), empty])
    figure = figure_of(page_of({"similarity": both}, "sketch", "clipart"), "similarity")
    assert figure is not None
    [words] = [trace for trace in figure.data if trace["mode"] == "text"]
    assert words["meta"][0] == 1 and "no number here" in words["text"][0]


def test_long_names_of_rows_and_columns_stay_apart_and_whole() -> None:
    """Two names with one beginning and end are two columns: cut, they were one on the other."""
    names = ["upper bound, low diversity of pictures", "upper bound, high diversity of pictures"]
    map_of_names = heat([[0.1, 0.9], [0.2, 0.3]], names, names, title="accuracy")
    for end, width in (("x", 22), ("y", 26)):
        assert [name.replace("<br>", " ") for name in map_of_names[end]] == names
        assert all(len(line) <= width for name in map_of_names[end] for line in name.split("<br>"))
