"""The truth table as a picture says of each cell what was declared and how often it was right."""

import pandas as pd

from interp.report import draw_truth


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
                cells("cka", "shared", ["abstained"], tier="hard"),
            ]
        )
    )
    (trace,) = figure.data
    assert trace.x == ("CKA", "DAS", "transplant", "edge<br>overlap")
    assert trace.y == ("rewired · easy", "rewired · hard")
    assert trace.text[0] == ["○ 1/2", "● 2/3 ○ 1/1", "", "0.50"]
    assert trace.z[0] == [-1.0, 0.75, None, None]  # one wrong outweighs what is right
    assert trace.text[1] == ["● 0/1", "", "", ""] and trace.z[1][0] == 0
    assert "4 planted models, 10 cells" in figure.layout.title.text
