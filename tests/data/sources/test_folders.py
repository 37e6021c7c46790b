"""Folders of pictures: strays are skipped and counted, and what cannot be read is said."""

from pathlib import Path

import pytest
from PIL import Image

from interp import open_images
from interp.core import progress
from interp.core.errors import DataError
from interp.data.mixtures.templates import words_for
from interp.data.sources import rows
from tests.data import made


def fill(root: Path, cells: dict[str, int]) -> Path:
    for cell, n in cells.items():
        (root / cell).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            Image.new("RGB", (8, 8), (k, 0, 0)).save(root / cell / f"{k}.png")
    return root


def test_cells_become_rows_and_splits_are_repeatable(tmp_path: Path) -> None:
    fill(tmp_path, {"real/cat": 10, "real/dog": 10, "sketch/cat": 10})
    images = open_images(tmp_path)
    assert images.counts().to_numpy().tolist() == [[10, 10], [10, 0]]
    assert images.frame.groupby(["domain", "label"])["split"].value_counts()["real"][
        "cat"
    ].to_dict() == {"train": 8, "test": 2}
    assert images.frame.equals(open_images(tmp_path).frame)
    assert images.picture(0).size == (8, 8)


def test_a_folder_of_classes_is_one_domain_where_it_is_said(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 4, "dog": 4})
    images = open_images(tmp_path, domain="real")
    assert images.counts()["real"].to_dict() == {"cat": 4, "dog": 4}
    assert images.picture(7).size == (8, 8)
    with pytest.raises(DataError, match="say domain="):
        open_images(tmp_path)


def test_strays_are_skipped_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, {"real/cat": 2, "sketch/cat": 2})
    (tmp_path / "real/cat/notes.txt").write_text("x")
    (tmp_path / "real/cat/.hidden.png").write_text("x")
    (tmp_path / "real/cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    whole = (tmp_path / "real/cat/0.png").read_bytes()
    (tmp_path / "real/cat/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "README.md").write_text("x")
    progress.set_quiet(False)
    images = open_images(tmp_path)
    progress.set_quiet(True)
    assert len(images) == 4
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 1
    for words in ("notes.txt", "1 hidden", "2 broken", "README.md"):
        assert words in lines[0]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({}, "no picture in it"),
        ({"cat": 2}, "some at the first"),
        ({".": 2}, "some in the folder itself"),
        ({"real/Cat": 1, "real/cat": 1}, "differ only by case"),
    ],
)
def test_wrong_layouts_are_errors_in_words(
    tmp_path: Path, cells: dict[str, int], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        open_images(fill(tmp_path, cells))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(DataError, match="a file"):
        open_images(tmp_path / "x")


def test_html_in_a_name_is_legal_data(tmp_path: Path) -> None:
    fill(tmp_path, {"real/<b>cat": 2, "sketch/<b>cat": 2})
    assert open_images(tmp_path).labels == ["<b>cat"]


LAYOUTS = {
    # domains with the word that captions may use for them, classes, and what else lies about
    "PACS": (
        {"art_painting": "painting", "cartoon": "cartoon", "photo": "photo", "sketch": "sketch"},
        ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"],
        ["photo_train_kfold.txt", "photo_test_kfold.txt"],
    ),
    "OfficeHome": (
        {
            "Art": "painting",
            "Clipart": "clipart",
            "Product": "product photo",
            "Real World": "photo",
        },
        ["Alarm_Clock", "Backpack", "Push_Pin", "ToothBrush"],
        ["ImageInfo.csv", "imagelist.txt"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_collections_open_as_they_are_unpacked(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, classes, others = LAYOUTS[name]
    fill(tmp_path, {f"{domain}/{label}": 5 for domain in words for label in classes})
    for other in others:
        (tmp_path / other).write_text("photo/dog/056_0001.jpg 1\n")
    progress.set_quiet(False)
    images = open_images(tmp_path)
    progress.set_quiet(True)
    assert images.domains == sorted(words) and images.labels == sorted(classes)
    assert (images.counts() == 5).all(axis=None)
    assert f"{len(others)} outside the two levels" in capsys.readouterr().err
    for domain, word in words.items():
        assert words_for(domain)[0] == word


def test_an_archive_beside_the_folders_is_a_stray(tmp_path: Path) -> None:
    fill(tmp_path, {"real/cat": 2, "sketch/cat": 2})
    (tmp_path / "pictures.tar").write_bytes(b"the archive it was unpacked from")
    assert len(open_images(tmp_path)) == 4


def test_decoding_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"real/cat": 2, "sketch/cat": 2})
    whole = made.large()
    (tmp_path / "real/cat/cut.png").write_bytes(whole[: len(whole) // 2])
    assert len(open_images(tmp_path)) == 4
    monkeypatch.setattr(rows, "DECODED", 3)
    assert len(open_images(tmp_path)) == 5
