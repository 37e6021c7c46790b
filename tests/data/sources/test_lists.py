"""DomainNet's lists: their order, split and numbers are kept, and what contradicts is refused."""

import os
from pathlib import Path

import pandas as pd
import pytest

from interp import open_images
from interp.core import progress
from interp.core.errors import DataError
from interp.core.images import ImageTable
from interp.data.mixtures.mixture import make_mixture
from interp.data.mixtures.settings import MixtureSpec
from tests.data import made

ORDER = ("real_train", "real_test", "sketch_train", "sketch_test")
DOMAINNET = {
    # pictures for training and test, as the data set's authors count them
    "clipart": (33525, 14604),
    "infograph": (36023, 15582),
    "painting": (50416, 21850),
    "quickdraw": (120750, 51750),
    "real": (120906, 52041),
    "sketch": (48212, 20916),
}


def test_rows_stand_in_list_order(tmp_path: Path) -> None:
    root = made.lists(tmp_path)
    lines = [line for name in ORDER for line in (root / f"{name}.txt").read_text().splitlines()]
    images = open_images(root)
    assert images.path.tolist() == [line.split()[0] for line in lines]
    assert images.class_id.tolist() == [int(line.split()[1]) for line in lines]
    assert images.path.tolist() != sorted(images.path)


def test_lists_of_pacs_split_into_training_and_validation(tmp_path: Path) -> None:
    """Its list for tests elsewhere names every picture again, and is left alone."""
    root = made.lists(tmp_path)
    domainnet = open_images(root).frame[["path", "split"]].sort_values("path")
    for domain in ("real", "sketch"):
        train, test = (root / f"{domain}_{name}.txt" for name in ("train", "test"))
        (root / f"{domain}_test_kfold.txt").write_text(train.read_text() + test.read_text())
        train.rename(root / f"{domain}_train_kfold.txt")
        test.rename(root / f"{domain}_crossval_kfold.txt")
    pacs = open_images(root).frame
    assert pacs["split"].tolist()[0] == "train"
    found = pacs[["path", "split"]].sort_values("path")
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), domainnet.reset_index(drop=True), check_like=True
    )


def test_numbers_may_begin_anywhere(tmp_path: Path) -> None:
    root = made.lists(tmp_path)
    for path in root.glob("*.txt"):
        path.write_text(
            "".join(
                f"{name} {int(number) + 1}\n"
                for name, number in (line.split() for line in path.read_text().splitlines())
            )
        )
    images = open_images(root)
    assert sorted(set(images.class_id)) == [1, 2, 3] and images.labels == list(made.LABELS)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "real/cat/00.png 0",
            "real/cat/00.png 1",
            r"contradict the folders \(cat is 1, ice_cream is 1",
        ),
        ("real/cat/00.png 0", "real/dog/00.png 0", r"contradict the folders \(cat is 0, dog is 0"),
        ("real/cat/00.png 0", "real/cat/00.png", r"line 6, 'real/cat/00.png'"),
        ("real/cat/00.png 0", "cat/00.png 0", "line 6"),
        ("real/cat/00.png 0", "sketch/cat/00.png 0", "line 6"),
        ("real/cat/00.png 0", "real/cat/00.png zero", "line 6"),
        ("real/cat/00.png 0", "real/cat/01.png 0", "in two classes, domains or splits.*01.png"),
        ("real/cat/00.png 0", "real/cat/99.png 0", r"1 of 24 pictures.*\(real/cat/99.png"),
        ("real/cat/00.png 0", "real/Cat/00.png 9", "differ only by case"),
    ],
)
def test_lists_that_contradict_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = made.lists(tmp_path) / "real_train.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=words):
        open_images(tmp_path)


def test_repeated_rows_are_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.lists(tmp_path) / "real_train.txt"
    path.write_text(path.read_text() + "real/cat/00.png 0\n\n")
    progress.set_quiet(False)
    images = open_images(tmp_path)
    progress.set_quiet(True)
    assert len(images) == 24
    assert "dropped 1 repeated rows (real/cat/00.png)" in capsys.readouterr().err


def test_lists_alone_open_on_request(tmp_path: Path) -> None:
    made.lists(tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    for path in (tmp_path / "whole").glob("*.txt"):
        (tmp_path / "bare" / path.name).write_text(path.read_text())
    with pytest.raises(DataError, match=r'24 of 24 pictures.*audit="lists"'):
        open_images(tmp_path / "bare")
    bare, whole = open_images(tmp_path / "bare", audit="lists"), open_images(tmp_path / "whole")
    assert bare.frame.equals(whole.frame)


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, listings = made.lists(tmp_path), []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listings.append(path) or listdir(path))
    open_images(root)
    mine = [Path(path) for path in listings if Path(path).parent.parent == root]
    assert len(mine) == len(set(mine)) == 6


def test_broken_pictures_are_skipped(tmp_path: Path) -> None:
    root = made.lists(tmp_path)
    (root / "real/cat/00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    images = open_images(root)
    assert len(images) == 23 and "real/cat/00.png" not in set(images.path)


def test_names_with_spaces_and_windows_line_ends(tmp_path: Path) -> None:
    folder = tmp_path / "Real World" / "Alarm Clock"
    folder.mkdir(parents=True)
    made.PICTURES[0].image.save(folder / "a b.png")
    (tmp_path / "Real World_train.txt").write_bytes(b"Real World/Alarm Clock/a b.png 7\r\n")
    images = open_images(tmp_path)
    assert (images.labels, images.domains) == (["Alarm Clock"], ["Real World"])
    assert images.class_id.tolist() == [7]


@pytest.mark.parametrize("setting", ["natural-only", "cg-low", "cg-high"])
def test_mixtures_of_categories_are_those_of_words(tmp_path: Path, setting: str) -> None:
    images = open_images(made.lists(tmp_path))
    assert {str(images.frame[name].dtype) for name in ("label", "domain", "split")} == {"category"}
    words = images.with_frame(
        images.frame.astype({"label": object, "domain": object, "split": object})
    )
    spec = MixtureSpec(setting, "sketch", ("owl",))
    ours, theirs = (make_mixture(table, spec) for table in (images, words))
    assert ours.images.path.tolist() == theirs.images.path.tolist()
    assert ours.images.caption.tolist() == theirs.images.caption.tolist()
    assert ours.manifest()["counts"] == theirs.manifest()["counts"]


def domainnet_lists(root: Path) -> Path:
    """Lists with DomainNet's counts, over 345 classes; pictures there are none."""
    for domain, sizes in DOMAINNET.items():
        for split, size in zip(("train", "test"), sizes, strict=True):
            numbers = sorted(number % 345 for number in range(size))
            (root / f"{domain}_{split}.txt").write_text(
                "".join(
                    f"{domain}/class_{number:03d}/{domain}_{split}_{place:06d}.jpg {number}\n"
                    for place, number in enumerate(numbers)
                )
            )
    return root


@pytest.mark.slow
def test_lists_of_domainnets_size_stay_small(tmp_path: Path) -> None:
    images: ImageTable = open_images(domainnet_lists(tmp_path), audit="lists")
    counts = images.frame.groupby(["domain", "split"], observed=True).size()
    assert counts.to_dict() == {
        (domain, split): size
        for domain, sizes in DOMAINNET.items()
        for split, size in zip(("train", "test"), sizes, strict=True)
    }
    assert len(images) == 586_575 and len(images.labels) == 345
    by_naive_loop = pd.Series(images.path.str.split("/").str[0]).value_counts()
    assert images.counts().sum().to_dict() == by_naive_loop.to_dict()
    assert images.frame.memory_usage(deep=True).sum() < 256 * 2**20
