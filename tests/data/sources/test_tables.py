"""Tables of pictures: what they must say, what they may call it, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest

from interp import open_images
from interp.core import progress
from interp.core.errors import DataError
from interp.data.mixtures.mixture import make_mixture
from interp.data.mixtures.settings import MixtureSpec
from tests.data import made


def write(root: Path, frame: pd.DataFrame, name: str = "pictures.csv") -> Path:
    frame.to_csv(root / name, index=False)
    return root / name


def test_other_columns_are_kept(tmp_path: Path) -> None:
    made.files(tmp_path)
    frame = made.frame().assign(artist="ann", year=1999, drawing="ann/x")
    images = open_images(write(tmp_path, frame))
    assert set(images.artist) == {"ann"} and set(images.year) == {1999}
    assert set(images.drawing) == {"ann/x"}


def test_paths_may_be_absolute(tmp_path: Path) -> None:
    root = made.files(tmp_path / "pictures")
    frame = made.frame()
    images = open_images(write(tmp_path, frame.assign(path=[str(root / p) for p in frame.path])))
    assert made.number_of(images.picture(7)) == 7


def test_a_drawn_split_is_the_folders(tmp_path: Path) -> None:
    folder = open_images(made.files(tmp_path))
    frame = made.frame().drop(columns="split")
    images = open_images(write(tmp_path, frame))
    assert images.split.tolist() == folder.split.tolist()
    assert open_images(tmp_path / "pictures.csv", seed=1).split.tolist() != folder.split.tolist()
    half = open_images(tmp_path / "pictures.csv", test_share=0.5)
    assert (half.split == "test").sum() == 12


def test_numbered_classes_get_their_names(tmp_path: Path) -> None:
    made.files(tmp_path)
    frame = made.frame()
    numbers = [made.LABELS.index(label) + 1 for label in frame.label]
    path = write(tmp_path, frame.assign(label=numbers))
    assert open_images(path).labels == ["1", "2", "3"]
    named = open_images(path, labels={k + 1: name for k, name in enumerate(made.LABELS)})
    assert named.label.tolist() == frame.label.tolist()
    with pytest.raises(DataError, match=r"without a name in labels \(3\)"):
        open_images(path, labels=["none", "cat", "ice_cream"])


def test_a_class_called_nan_is_a_class(tmp_path: Path) -> None:
    made.files(tmp_path)
    images = open_images(write(tmp_path, made.frame().replace({"label": {"cat": "nan"}})))
    assert images.labels == ["ice_cream", "nan", "owl"]


def test_validation_serves_as_test(tmp_path: Path) -> None:
    made.files(tmp_path)
    frame = made.frame().replace({"split": {"test": "validation"}})
    assert set(open_images(write(tmp_path, frame)).split) == {"train", "test"}
    three = frame.assign(split=["train", "test", "validation"] * 8)
    assert set(open_images(write(tmp_path, three)).split) == {"train", "test", "validation"}


def test_a_mixtures_tsv_can_be_opened(tmp_path: Path) -> None:
    images = open_images(made.files(tmp_path / "pictures"))
    mixture = make_mixture(images, MixtureSpec("cg-low", "sketch", ("owl",)))
    again = open_images(mixture.write(tmp_path / "mixture"))
    assert again.caption.tolist() == mixture.images.caption.tolist()
    assert again.label.tolist() == mixture.images.label.tolist()
    assert made.number_of(again.picture(4)) == made.number_of(mixture.images.picture(4))


def test_broken_pictures_are_skipped_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.table(tmp_path, ".csv")
    (tmp_path / "real/cat/00.png").write_text("x")
    progress.set_quiet(False)
    images = open_images(path)
    progress.set_quiet(True)
    assert len(images) == 23 and made.number_of(images.picture(0)) == 1
    assert "1 broken (00.png)" in capsys.readouterr().err


def test_a_changed_picture_changes_the_fingerprint(tmp_path: Path) -> None:
    path = made.table(tmp_path, ".csv")
    before = open_images(path).fingerprint
    assert open_images(path).fingerprint == before
    made.PICTURES[0].image.resize((50, 50)).save(tmp_path / "real/cat/00.png")
    assert open_images(path).fingerprint != before
    assert open_images(path, domain="photo").fingerprint != open_images(path).fingerprint


FRAME = made.frame()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME.drop(columns="label"), r'no label in the columns.*columns=\{"label": "..."\}'),
        (FRAME.drop(columns="domain"), 'no domain in the columns.*domain="photo"'),
        (FRAME.drop(columns="path"), "no path in the columns"),
        (FRAME.iloc[:0], "no row in it"),
        (FRAME.replace({"label": {"owl": ""}}), r"8 rows without a label \(rows 8, 9, 10 and 5"),
        (FRAME.replace({"domain": {"real": " "}}), "12 rows without a domain"),
        (FRAME.replace({"split": {"train": ""}}), "12 rows without a split"),
        (FRAME.assign(path=[f"{p}x" for p in FRAME.path]), r"24 of 24 .*00.pngx"),
        (
            pd.concat([FRAME, FRAME.iloc[:1].assign(label="owl")]),
            "1 pictures in two classes, domains or splits",
        ),
        (FRAME.assign(label=["cat", "Cat"] * 12), r"labels that differ only by case \(Cat, cat\)"),
        (FRAME.assign(domain=["a", "A"] * 12), "domains that differ only by case"),
    ],
)
def test_what_is_refused(tmp_path: Path, frame: pd.DataFrame, words: str) -> None:
    made.files(tmp_path)
    with pytest.raises(DataError, match=words):
        open_images(write(tmp_path, frame))


def test_repeated_rows_are_dropped(tmp_path: Path) -> None:
    made.files(tmp_path)
    images = open_images(write(tmp_path, pd.concat([made.frame(), made.frame().iloc[:3]])))
    assert images.path.tolist() == made.frame().path.tolist()


def test_no_picture_at_all_is_refused(tmp_path: Path) -> None:
    path = made.table(tmp_path, ".csv")
    for each in tmp_path.glob("*/*/*.png"):
        each.write_text("x")
    with pytest.raises(DataError, match="24 files, none of which is a picture"):
        open_images(path)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00\x01"])
def test_files_that_do_not_read_are_refused(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="does not exist" if content is None else "does not read"):
        open_images(tmp_path / name)


def test_parquet_without_the_columns_says_what_it_has(tmp_path: Path) -> None:
    path = made.table(tmp_path, ".parquet")
    pd.read_parquet(path).rename(columns={"label": "species"}).to_parquet(path)
    with pytest.raises(DataError, match=r"no label in the columns species, domain, split, path"):
        open_images(path)
    assert open_images(path, columns={"label": "species"}).labels == list(made.LABELS)
