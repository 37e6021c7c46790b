"""Hugging Face data sets: names of classes, columns of pictures, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Features, Sequence, Value
from datasets import Image as ImageFeature

from interp import open_images
from interp.core import progress
from interp.core.errors import DataError
from tests.data import made


def test_the_picture_may_have_any_name() -> None:
    photos = made.hub().rename_column("image", "photo")
    assert made.number_of(open_images(photos).picture(6)) == 6  # by its type
    two = photos.add_column("image", ["x"] * 24)
    named = open_images(two, columns={"image": "photo"})
    assert made.number_of(named.picture(6)) == 6


def test_classes_may_have_another_name() -> None:
    coarse = made.hub().rename_column("label", "species")
    assert open_images(coarse, columns={"label": "species"}).labels == list(made.LABELS)
    with pytest.raises(DataError, match=r'no label in the columns.*columns=\{"label"'):
        open_images(coarse)


def test_undecoded_pictures_are_decoded() -> None:
    raw = made.hub().cast_column("image", ImageFeature(decode=False))
    assert made.number_of(open_images(raw).picture(6)) == 6


def test_a_selection_of_a_data_set_keeps_to_its_own() -> None:
    images = open_images(made.hub().select([20, 3]))
    assert [made.number_of(images.picture(row)) for row in (0, 1)] == [20, 3]


def test_fingerprints_tell_data_sets_apart() -> None:
    whole, part = made.hub(), made.hub().select(range(23))
    assert open_images(whole).fingerprint != open_images(part).fingerprint


def test_columns_that_are_no_words_or_numbers_are_left() -> None:
    boxes = made.hub().add_column("boxes", [[1, 2]] * 24)
    images = open_images(boxes.add_column("artist", ["ann"] * 24))
    assert "boxes" not in images.frame.columns and set(images.artist) == {"ann"}


def test_broken_pictures_are_skipped_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": made.PICTURES[k].png[: None if k else 40]} for k in range(4)],
        "label": ["cat"] * 4,
    }
    features = Features({"image": ImageFeature(), "label": Value("string")})
    progress.set_quiet(False)
    images = open_images(Dataset.from_dict(columns, features=features), domain="photo")
    progress.set_quiet(True)
    assert [made.number_of(images.picture(row)) for row in range(3)] == [1, 2, 3]
    assert "1 broken (0000000)" in capsys.readouterr().err


def plain(**columns: list[Any]) -> Dataset:
    return Dataset.from_dict(columns)


def test_what_is_refused() -> None:
    cases = [
        (plain(label=["cat"], text=["x"]), "no column of pictures .label, text"),
        (plain(image=[7], label=["cat"]), "read the picture of item/0000000: given int"),
        (plain(image=[[1, 2]], label=["cat"]), "read the picture of item/0000000: given list"),
        (made.hub().to_iterable_dataset(), "a stream"),
        (made.hub().select([]), "no row in it"),
        (DatasetDict(), "no data set in it"),
    ]
    for source, words in cases:
        with pytest.raises(DataError, match=words):
            open_images(source, domain="photo")


def test_an_unlabelled_row_is_refused() -> None:
    unlabelled = Dataset.from_dict(
        {**made.hub().select([0]).to_dict(), "label": [-1]}, features=made.hub().features
    )
    with pytest.raises(DataError, match="1 rows without a label"):
        open_images(unlabelled)


def test_a_saved_folder_that_does_not_load_is_refused(tmp_path: Path) -> None:
    folder = made.saved(tmp_path, made.hub())
    for path in folder.glob("*.arrow"):
        path.unlink()
    with pytest.raises(DataError, match="does not load"):
        open_images(folder)


def test_nested_features_do_not_hide_the_picture() -> None:
    features = Features(
        {**made.hub().features, "marks": Sequence(Value("int64"))}  # a list, not a column of ours
    )
    columns = {**made.hub().to_dict(), "marks": [[1]] * 24}
    assert len(open_images(Dataset.from_dict(columns, features=features))) == 24
