"""Selection keeps columns aligned, pairs are what they say, and pictures are read when needed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable


def table(n_per_cell: int = 3) -> ImageTable:
    rows = [
        (f"{domain}/{label}/{k}.png", label, domain, "test", "", f"artist/{label}{k}", k)
        for domain in ("real", "sketch")
        for label in ("cat", "dog", "owl")
        for k in range(n_per_cell)
    ]
    columns = ["path", "label", "domain", "split", "caption", "drawing", "warp"]
    return ImageTable(pd.DataFrame(rows, columns=columns))


def test_selection_keeps_columns_aligned() -> None:
    images = table()
    some = images[(images.label == "dog").to_numpy()].select(domain="sketch")
    assert all("sketch/dog" in path for path in some.path)
    assert images.query("label == 'cat'").labels == ["cat"]
    assert len(images[[0, 5]]) == 2 and len(images[2:4]) == 2


def test_unknown_column_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match="domain"):
        table().select(domian="real")


def test_pairs_agree_and_differ_as_asked() -> None:
    pairs = table().pairs(same="label", differ="domain", seed=3)
    assert (pairs.clean.label.to_numpy() == pairs.corrupt.label.to_numpy()).all()
    assert (pairs.clean.domain.to_numpy() != pairs.corrupt.domain.to_numpy()).all()
    assert len(pairs) == 18 and not pairs.aligned


def test_aligned_pairs_show_one_drawing_in_one_pose() -> None:
    pairs = table().pairs(same=("label", "drawing", "warp"), differ="domain")
    assert pairs.aligned
    assert (pairs.clean.drawing.to_numpy() == pairs.corrupt.drawing.to_numpy()).all()


def test_pairs_are_repeatable_and_move_with_the_seed() -> None:
    images = table(6)
    rows = [images.pairs(seed=seed).corrupt_rows.tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_n_pairs_are_spread_evenly_over_classes() -> None:
    counts = table(6).pairs(n=9).clean.label.value_counts()
    assert counts.tolist() == [3, 3, 3]
    assert table(6).pairs().spread(6).clean.label.value_counts().tolist() == [2, 2, 2]


def test_no_partner_is_an_error_not_an_empty_result() -> None:
    images = table().select(domain="real")
    with pytest.raises(SampleError, match="none of which has a partner"):
        images.pairs(same="label", differ="domain")


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "real/cat").mkdir(parents=True)
    (tmp_path / "real/cat/0.png").write_text("no picture")
    images = ImageTable(table().frame.iloc[:1], tmp_path)
    with pytest.raises(DataError, match=r"0\.png"):
        images.picture(0)


def test_tensors_keep_the_order(tmp_path: Path) -> None:
    frame = table(1).frame.iloc[:3]
    for value, path in enumerate(frame["path"]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), value * 50).save(tmp_path / path)
    images = ImageTable(frame, tmp_path)
    import torch

    read = images.tensors(lambda image: torch.from_numpy(np.asarray(image).copy()).float())
    assert read[:, 0, 0, 0].tolist() == [0.0, 50.0, 100.0]
    assert torch.equal(
        torch.cat(
            list(
                images.batches(
                    lambda image: torch.from_numpy(np.asarray(image).copy()).float(), batch_size=2
                )
            )
        ),
        read,
    )
