"""A table and a specification are enough for a complete figure: no code in the report is added."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.declared.figures import (
    INDEX,
    NATURAL,
    OTHER,
    PAIR,
    TEST_DOMAIN,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    Look,
    Scale,
    SectionSpec,
    SeriesSpec,
    threshold_lines,
)
from interp.report.grammar.pieces import Figure
from interp.report.page_model import PageModel
from interp.report.sections import draw_figure, filled_sections
from tests.report.conftest import page_of

SETTINGS = ("cg-low", "cg-high")
SITES = {"blocks.0.hook_resid_post": 0.25, "blocks.1.hook_resid_post": 0.5, "hook_embedding": 1.0}
SAID = {
    "method": "Toys are counted in both domains.",
    "null": "Toys of other classes.",
    "caption": "{n}; bars are 95 % intervals over {over}. {kinds} {withheld}",
    "alt": "Toys of {settings}",
}
WAYS = ChoiceSpec(
    "From",
    looks=(
        Look("the natural domain", {"domain_a": NATURAL}),
        Look("the other domain", {"domain_a": OTHER}),
        Look("nowhere", {"domain_a": "nowhere"}),
    ),
)
DEPTH = FigureSpec(
    "toy-depth", "Toys, {pair}", "depth", ("toys",), **SAID, scale=INDEX, subjects="pairs",
    ends=PAIR, choices=(TEST_DOMAIN, WAYS), y=AxisSpec("index"), lines=threshold_lines(),
)  # fmt: skip
FOREST = FigureSpec(
    "toy-forest", "Toys at {sites}", "forest", ("toys",), **SAID, scale=INDEX, subjects="pairs",
    ends=PAIR, choices=(TEST_DOMAIN, WAYS), labels="site", x=AxisSpec("index"),
    lines=threshold_lines(),
)  # fmt: skip
MAP = FigureSpec(
    "toy-map", "All toys", "map", ("toys",), **SAID, scale=Scale("value"),
    choices=(TEST_DOMAIN, ChoiceSpec("Setting", "setting"), ChoiceSpec("Site", "site")),
    across=PAIR, y=AxisSpec("toys"),
)  # fmt: skip
CURVE = FigureSpec(
    "toy-curve", "Toys by depth in {where}", "curve", ("toys",), **SAID,
    choices=(TEST_DOMAIN, ChoiceSpec("Model", "model"), WAYS), across="depth",
    series=(SeriesSpec("toys", Scale("value", "low", "high"), "#0072B2"),
            SeriesSpec("others", Scale("null"), "#8c8c8c", dash="dot", mode="lines")),
    x=AxisSpec("depth"), y=AxisSpec("toys"),
)  # fmt: skip
TOYS = SectionSpec("toys", "Toys", "Each toy is seen once.", (DEPTH, FOREST, MAP, CURVE), ("toys",))


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"setting": setting, "test_domain": "sketch", "site": site, "depth": depth}
            | {"domain_a": ends[0], "domain_b": ends[1], "measure": "toys", "verdict": "shared"}
            | {"value": value, "low": value - 0.1, "high": value + 0.1, "null": 0.05}
            | {"index": value, "index_low": value - 0.2, "index_high": value + 0.2}
            | {"null_kind": "other classes", "unit": "class", "n_units": 12, "n_pictures": 48}
            for n, setting in enumerate(SETTINGS)
            for site, depth in SITES.items()
            for m, ends in enumerate((("real", "sketch"), ("sketch", "real")))
            for value in [0.1 + 0.3 * n + 0.2 * depth + 0.01 * m]
        ]
    )


@pytest.fixture
def result(frame: pd.DataFrame) -> PageModel:
    names = pd.DataFrame({"setting": SETTINGS, "test_domain": "sketch", "domain": "sketch"})
    return page_of({"toys": frame, "mixtures": names}, "sketch")


def drawn(result: PageModel, spec: FigureSpec) -> Figure:
    figure = draw_figure(result, spec)
    assert figure is not None
    return figure


@pytest.mark.parametrize("spec", TOYS.figures, ids=lambda spec: spec.name)
def test_it_is_complete(result: PageModel, spec: FigureSpec) -> None:
    figure = drawn(result, spec)
    go.Figure(data=list(figure.data), layout=figure.layout)
    assert "{" not in figure.title + figure.caption + figure.alt
    assert figure.caption.startswith("n = 12 classes, 48 pictures; bars are 95 % intervals")
    assert "Null: other classes." in figure.caption
    assert (figure.method, figure.null, list(figure.tables)) == (
        SAID["method"],
        SAID["null"],
        ["toys"],
    )
    options = [len(choice.options) for choice in figure.choices]
    for trace in figure.data:
        assert all(0 <= at < most for at, most in zip(trace["meta"], options, strict=True))
        if trace.get("hoverinfo") != "skip":
            assert trace["hovertemplate"]


@pytest.mark.parametrize("spec", [DEPTH, FOREST], ids=lambda spec: spec.name)
def test_numbers_intervals_and_words_are_the_table_s(
    result: PageModel, frame: pd.DataFrame, spec: FigureSpec
) -> None:
    figure = drawn(result, spec)
    # a look that shows no number is no option
    assert list(figure.choices[1].options) == ["the natural domain", "the other domain"]
    for way, domain in enumerate(("real", "sketch")):
        own = frame[(frame["setting"] == "cg-high") & (frame["domain_a"] == domain)]
        [trace] = [
            each
            for each in figure.data
            if each["name"] == "CG high diversity" and each["meta"] == [0, way]
        ]
        assert trace["y" if spec is DEPTH else "x"] == pytest.approx(own["index"].tolist())
        assert f"{own['index'].iloc[0]:.3f}" in trace["text"][0]
        if spec is FOREST:
            assert trace["error_x"]["array"] == pytest.approx([0.2] * 3)
    if spec is DEPTH:
        band = next(each for each in figure.data if each["name"].endswith("95 % interval"))
        assert max(band["y"]) - min(band["y"]) > 0.4
    else:
        assert len(figure.layout["yaxis"]["ticktext"]) == 3
    assert [each["text"] for each in figure.layout["annotations"]]


def test_a_map_and_a_curve_are_the_table(result: PageModel, frame: pd.DataFrame) -> None:
    figure = drawn(result, MAP)
    [trace] = [each for each in figure.data if each["meta"] == [0, 1, 1]]
    own = frame[(frame["setting"] == "cg-high") & (frame["site"] == "blocks.1.hook_resid_post")]
    real, sketch = trace["y"].index("real"), trace["y"].index("sketch")
    assert trace["z"][real][sketch] == own["value"].iloc[0]
    assert trace["z"][sketch][real] == own["value"].iloc[1]
    figure = drawn(result, CURVE)
    [line, null] = [each for each in figure.data if each["meta"] == [0, 0, 0]]
    own = frame[(frame["setting"] == "cg-low") & (frame["domain_a"] == "real")]
    assert line["y"] == own["value"].tolist() and null["y"] == [0.05] * 3
    assert line["error_y"]["array"] == pytest.approx([0.1] * 3)


def test_the_section_is_filled_and_says_where_there_is_nothing(
    result: PageModel, frame: pd.DataFrame
) -> None:
    [section] = filled_sections(result, sections=[TOYS])
    assert [figure.name for figure in section.figures] == [spec.name for spec in TOYS.figures]
    hollow = frame.assign(index=None, value=None, domain_a="", reason="no toys")[:1]
    spec = SectionSpec("toys", "Toys", "", (DEPTH,), ("toys",))
    [section] = filled_sections(page_of({"toys": hollow}, "sketch"), sections=[spec])
    assert section.figures == []
    assert section.missing == ["Nothing to draw: the tables hold no number: no toys."]
