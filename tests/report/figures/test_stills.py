"""The still picture has every point, bar and name where the figure has it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from interp.report.figures.answer import answer_figure
from interp.report.figures.stills import still
from tests.report.conftest import read

Build = Callable[..., Path]


def test_points_bars_and_names_stand_in_proportion(build: Build) -> None:
    figure, _ = answer_figure(read(build()))
    assert figure is not None
    svg = still(figure)
    points = [trace for trace in figure.data if trace.get("mode") == "markers"]
    given = np.array([(trace["x"][0], trace["y"][0]) for trace in points], dtype=float)
    drawn = np.array(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg), dtype=float)
    assert len(drawn) == len(given) == 4
    for axis, sign in ((0, 1), (1, -1)):  # up is down in an SVG
        slope, base = np.polyfit(given[:, axis], drawn[:, axis], 1)
        assert np.sign(slope) == sign
        np.testing.assert_allclose(base + slope * given[:, axis], drawn[:, axis], atol=0.1)
    across = np.polyfit(given[:, 0], drawn[:, 0], 1)[0]
    bars = re.findall(r"M([\d.]+) [\d.]+H([\d.]+)M", svg)
    for trace, (left, right) in zip(points, bars, strict=True):
        reach = trace["error_x"]
        wide = across * (reach["array"][0] + reach["arrayminus"][0])
        assert abs(float(right) - float(left) - wide) < 0.3
    for trace in figure.data:
        if trace.get("mode") == "text":
            assert trace["text"][0].strip() in svg


def test_a_bar_is_as_long_on_each_side_as_it_is(build: Build) -> None:
    figure, _ = answer_figure(read(build()))
    assert figure is not None
    bars = {"array": [0.1], "arrayminus": [0.3]}
    marks = {"mode": "markers", "x": [0.5], "y": [0.5], "error_x": bars, "error_y": bars}
    frame = {"mode": "markers", "x": [0.0, 1.0], "y": [0.0, 1.0]}
    svg = still(replace(figure, data=[frame, marks]))
    spots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    (x0, y0), (x1, y1), (x, y) = np.array(spots, dtype=float)
    bar = re.findall(r"M([\d.]+) [\d.]+H([\d.]+)M[\d.]+ ([\d.]+)V([\d.]+)", svg)[-1]
    left, right, below, above = map(float, bar)
    np.testing.assert_allclose([x - left, right - x], np.multiply([0.3, 0.1], x1 - x0), atol=0.2)
    np.testing.assert_allclose([below - y, y - above], np.multiply([0.3, 0.1], y0 - y1), atol=0.2)


def test_names_stay_text_and_nothing_gives_nothing(build: Build) -> None:
    figure, _ = answer_figure(read(build()))
    assert figure is not None
    name = {"mode": "text", "x": [0.5], "y": [0.5], "text": ["<b>x</b>"]}
    marks = {"mode": "markers", "x": [0.5], "y": [0.5], "marker": {"color": '"/><script>'}}
    svg = still(replace(figure, data=[marks, name]))
    assert "&lt;b&gt;x&lt;/b&gt;" in svg and "<b>" not in svg and "<script>" not in svg
    assert still(replace(figure, data=[])) == ""
