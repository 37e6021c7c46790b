"""The still picture has every point, bar and name where the figure has it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from interp.report.figures.answer import answer_figure
from interp.report.loaded import read_result
from interp.report.stills import still

Build = Callable[..., Path]


def test_points_bars_and_names_stand_in_proportion(build: Build) -> None:
    figure = answer_figure(read_result(build()))
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


def test_names_from_data_stay_text_and_nothing_gives_nothing(
    build: Build, study_frames: Callable[[], dict[str, pd.DataFrame]]
) -> None:
    frames = {
        name: frame.replace({"cg-high": "<b>x</b>"}) for name, frame in study_frames().items()
    }
    figure = answer_figure(read_result(build(replaced=frames)))
    assert figure is not None and "<b>" not in still(figure)
    empty = type(figure)(**{**vars(figure), "data": []})
    assert still(empty) == ""
