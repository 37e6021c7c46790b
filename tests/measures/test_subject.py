"""Which pictures a model is asked about, where there are many classes or many pictures."""

from dataclasses import replace

import pandas as pd
import pytest

from interp.core.images import ImageTable
from interp.measures.subject import AnalysisSpec, Subject


def opened(**analysis: int) -> Subject:
    """Seventy classes of two domains, three pictures each; one class is held out."""
    rows = [(f"class {c:02d}", d, k) for c in range(70) for d in ("real", "art") for k in range(3)]
    frame = pd.DataFrame(rows, columns=["label", "domain", "k"])
    frame = frame.assign(path=[str(row) for row in range(len(rows))], split="test", caption="")
    asked = AnalysisSpec(**analysis)
    return Subject(None, ImageTable(frame), ("real", "art"), ("class 00",), asked)


@pytest.mark.parametrize(("most", "there"), [(60, 60), (8, 8), (69, 69), (500, 69)])
def test_so_many_classes_are_intervened_on_and_all_their_pictures(most: int, there: int) -> None:
    model = opened(n_circuit_classes=most)
    chosen = model.intervened
    assert len(chosen.labels) == there and "class 00" not in chosen.labels
    assert (chosen.counts().to_numpy() == 3).all()
    assert (chosen is model.analysed) == (most >= 69)  # else nothing is drawn, and nothing changes


def test_cells_keep_so_many_pictures_and_by_default_all() -> None:
    assert len(opened().analysed) == 69 * 2 * 3
    few = opened(n_cell_pictures=2).analysed
    assert (few.counts().to_numpy() == 2).all() and len(few.labels) == 69


def test_other_seeds_draw_other_classes() -> None:
    model = opened(n_circuit_classes=8)
    other = replace(model, place={"seed": 1})
    assert model.intervened.labels == opened(n_circuit_classes=8).intervened.labels
    assert model.intervened.labels != other.intervened.labels
