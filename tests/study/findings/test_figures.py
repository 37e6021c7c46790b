"""The figure of all claims."""

import numpy as np

from tests.benchmarks.findings.claims import accuracy_findings
from tests.benchmarks.findings.figures import draw_findings
from tests.benchmarks.findings.tables import tables


def test_an_interval_that_goes_on_outside_of_the_figure_has_an_arrow() -> None:
    answers = tables("strong")["answers"].query("seed < 2")  # claim 6 is wide with two blocks
    figure = draw_findings({"strong": answers})
    arrows = {"low": "triangle-left", "high": "triangle-right"}
    drawn = [symbol for one in figure.data for symbol in np.atleast_1d(one.marker.symbol)]
    found = [accuracy_findings(answers, candidates=each) for each in ("all", "held-out")]
    least, most = (point / 100 for point in figure.layout.xaxis.range)
    for end, symbol in arrows.items():
        outside = [(own[end] < least) if end == "low" else (own[end] > most) for own in found]
        assert drawn.count(symbol) == sum(map(sum, outside)) > 0
    weak = draw_findings({"weak": tables("weak")["answers"]})
    assert not any(len(one.x) for one in weak.data if not isinstance(one.marker.symbol, str))
