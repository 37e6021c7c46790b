"""The figure of all claims."""

from tests.benchmarks.findings.claims import accuracy_findings
from tests.benchmarks.findings.figures import draw_findings
from tests.benchmarks.findings.tables import tables


def test_an_interval_that_goes_on_outside_of_the_figure_has_an_arrow() -> None:
    answers = tables("strong")["answers"].query("seed < 2")  # claim 6 is wide with two blocks
    figure = draw_findings({"strong": answers})
    arrows = {"low": "triangle-left", "high": "triangle-right"}
    found = [accuracy_findings(answers, candidates=each) for each in ("all", "held-out")]
    least, most = (point / 100 for point in figure.layout.xaxis.range)
    for end, symbol in arrows.items():
        told = sum(len(one.x) for one in figure.data if one.marker.symbol == symbol)
        outside = [(own[end] < least) if end == "low" else (own[end] > most) for own in found]
        assert told == sum(map(sum, outside)) > 0
    assert not any(
        len(one.x)
        for one in draw_findings({"weak": tables("weak")["answers"]}).data
        if one.marker.symbol in arrows.values()
    )
