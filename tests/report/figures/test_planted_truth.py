"""The truth table as a picture says of each cell what was declared and how often it was right."""

import pandas as pd
import pytest

from interp.report import draw_doses, draw_recovery, draw_truth


def cells(measure: str, answer: str, outcomes: list[str], **more: object) -> pd.DataFrame:
    """Cells of one condition and measure, a seed each."""
    return pd.DataFrame(
        {
            "condition": "rewired", "tier": "easy", "dose": None, "measure": measure,
            "seed": range(len(outcomes)), "expected": answer, "outcome": outcomes, "index": 0.5,
        }
    ).assign(**more)  # fmt: skip


def test_cells_say_what_was_declared_and_how_often_it_was_right() -> None:
    figure = draw_truth(
        pd.concat(
            [
                cells("das", "shared", ["right", "right", "abstained"]),
                cells("das", "not shared", ["right"]),
                cells("cka", "not shared", ["right", "wrong"]),
                cells("edge overlap", "in part", ["reported", "reported"]),
                cells("transplant", "blind", ["reported"]),
                cells("cka", "shared", ["abstained", "refused"], tier="hard"),
                cells("das", "partly shared", ["right", "wrong"], tier="hard"),
            ]
        )
    )
    (trace,) = figure.data
    assert trace.x == ("CKA", "DAS", "transplant", "edge<br>overlap")
    assert trace.y == ("rewired · easy", "rewired · hard")
    assert trace.text[0] == ["○ 1/2", "● 2/3 ○ 1/1", "", "0.50"]
    assert trace.z[0] == [-1.0, 0.75, None, None]  # one wrong outweighs what is right
    assert trace.text[1] == ["● 0/1", "◐ 1/2", "", ""] and trace.z[1][:2] == [0, -1]
    assert "5 planted models, 13 cells" in figure.layout.title.text


def circuits(method: str, auroc: list[float], least: float | None, **more: object) -> pd.DataFrame:
    """Circuits of one condition and method, a seed each."""
    return pd.DataFrame(
        {
            "condition": "rewired", "tier": "easy", "dose": None, "seed": range(len(auroc)),
            "domain": "A", "method": method, "auroc": auroc, "least": least,
        }
    ).assign(**more)  # fmt: skip


def test_circuits_that_miss_their_bar_show_the_lowest() -> None:
    figure = draw_recovery(
        pd.concat(
            [
                circuits("path patching", [1.0, 1.0], 0.95),
                circuits("EAP", [0.95, 0.85], 0.9),
                circuits("RelP", [0.8, 0.6], None),
                circuits("EAP", [0.7], None, tier="steep"),
            ]
        )
    )
    (trace,) = figure.data
    assert trace.x == ("path<br>patching", "EAP", "RelP")
    assert [*map(list, trace.text)] == [["1.00", "0.90 (0.85)", "0.70"], ["", "0.70", ""]]
    assert [*map(list, trace.z)] == [[1.0, -1.0, 0.0], [None, 0.0, None]]
    assert "3 planted models, two domains" in figure.layout.title.text


def test_doses_are_drawn_rung_by_rung_at_the_sites_that_carry_them() -> None:
    rows = [
        {"condition": "dose of parts", "tier": "easy", "measure": "directions", "site": site,
         "seed": seed, "dose": dose, "index": dose + 0.1 * seed, "index_low": dose - 0.1,
         "index_high": dose + 0.3, "expected": expected, "verdict": "partly shared"}
        for dose in (0.25, 0.75) for seed in (0, 1)
        for site, expected in (("two", "partly shared"), ("three", "in part"))
    ]  # fmt: skip
    rows.append(rows[0] | {"condition": "dose of geometry", "measure": "cka", "index": 0.06})
    figure = draw_doses(pd.DataFrame(rows))
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["R2 geometry", "R3 directions"]
    assert "5 planted models" in figure.layout.title.text  # of three kinds, two of them twice
    geometry, of_squares, directions, of_doses = figure.data
    half = len(of_doses.x) // 2
    assert (of_doses.y[half], of_squares.y[half]) == (0.5, 0.25)
    assert list(geometry.y) == [0.06] and list(directions.x) == [0.25, 0.75]
    assert list(directions.y) == [0.3, 0.8]  # the mean of two seeds, at the declared site alone
    assert list(directions.text) == ["◐", "◐"]
    assert directions.error_y.array[0] == pytest.approx(0.25)
