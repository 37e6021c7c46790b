"""The figure of a gallery: every picture with its class, every number with its interval and n."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.core.errors import DataError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import Table
from tests.probes.galleries.test_gallery import DEAD, PRIVATE, SHARED, found


def drawn(unit: int, **words: Any) -> Any:
    return found().plot(unit, **words)


def test_every_picture_is_drawn_with_its_class_and_place() -> None:
    figure = drawn(SHARED)
    shown = {domain: found().shown(SHARED, domain) for domain in found().domains}
    assert len(figure.layout.images) == sum(map(len, shown.values()))
    words = [
        trace.text for trace in figure.data if trace.type == "scatter" and trace.mode == "text"
    ]
    for number, rows in enumerate(shown.values()):
        assert list(words[2 * number]) == rows["shown"].tolist()
        assert list(words[2 * number + 1]) == rows["label"].tolist()
    assert {image.xref for image in figure.layout.images} == {"x", "x3"}


def test_histograms_count_every_picture_of_a_domain() -> None:
    figure = drawn(SHARED)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    frame = found().images.frame
    for place, domain in enumerate(found().domains):
        others, mine = bars[2 * place : 2 * place + 2]
        label = (frame["label"] == "c02")[frame["domain"] == domain]
        assert (np.sum(mine.y), np.sum(others.y)) == (label.sum(), (~label).sum())
        assert min(x for x, y in zip(mine.x, mine.y, strict=True) if y) > max(
            x for x, y in zip(others.x, others.y, strict=True) if y
        )


def test_what_it_tells_is_said_with_interval_and_n() -> None:
    said = [note.text for note in drawn(SHARED).layout.annotations]
    assert all("tells c02<br>AUROC 1.00 [1.00, 1.00], 6 drawings; another class" in t for t in said)
    real, sketch = (note.text for note in drawn(PRIVATE).layout.annotations)
    assert "no class beyond chance; best" in real and "tells c04<br>AUROC 1.00" in sketch
    assert "the same for all pictures" in drawn(DEAD).layout.annotations[0].text
    assert "144 pictures" in drawn(SHARED).layout.meta["caption"]


def test_names_from_data_are_no_markup_and_may_hold_commas() -> None:
    frame = found().images.frame.replace({"c02": "salt, pepper", "sketch": "<i>sketch"})
    images = ImageTable(frame, reader=lambda row: Image.new("RGB", (4, 4)))
    rows = found().table.frame.replace({"c02": "salt, pepper", "sketch": "<i>sketch"})
    table = Table("gallery", rows)
    named = replace(found(), images=images, domains=("real", "<i>sketch"), table=table)
    figure = named.plot(SHARED)
    said = [note.text for note in figure.layout.annotations]
    assert "tells salt, pepper<br>AUROC" in said[0] and "&lt;i&gt;sketch" in said[1]
    mine = [trace for trace in figure.data if trace.type == "bar" and trace.name == "its class"]
    assert [sum(trace.y) for trace in mine] == [12, 12]


def test_some_domains_may_be_drawn_and_no_others() -> None:
    figure = drawn(SHARED, domains=["sketch"])
    assert len(figure.layout.annotations) == 1 and "sketch" in figure.layout.annotations[0].text
    with pytest.raises(DataError, match="'clipart'"):
        drawn(SHARED, domains=["clipart"])
    with pytest.raises(SpecificationError, match="0 to 2"):
        drawn(9)
