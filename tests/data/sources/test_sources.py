"""Whatever pictures come from, they come out the same: one contract, every source."""

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp import open_images
from interp.core.errors import DataError, SpecificationError
from interp.core.images import ImageTable
from tests.data import made

SOURCES: dict[str, Callable[[Path], Any]] = {
    "folder": made.files,
    "lists": made.lists,
    "csv": lambda root: made.table(root, ".csv"),
    "tsv": lambda root: made.table(root, ".tsv"),
    "parquet": lambda root: made.table(root, ".parquet"),
    "hub": lambda root: made.hub(),
    "hub by split": lambda root: made.hub_dict(),
    "saved": lambda root: made.saved(root, made.hub()),
    "saved by split": lambda root: f"hf:{made.saved(root, made.hub_dict())}",
    "torch": lambda root: made.Items(),
    "torch, tensors": lambda root: made.Items(tensors=True),
    "torch by split": lambda root: {"train": made.Items("train"), "test": made.Items("test")},
    "shards, folder": made.shards,
    "shards, pattern": lambda root: f"{made.shards(root)}/made-{{000..002}}.tar",
    "shards, list": lambda root: sorted(made.shards(root).glob("*.tar")),
}
BY_NUMBER = {each.number: each for each in made.PICTURES}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return SOURCES[request.param](tmp_path)


@pytest.fixture
def images(source: Any) -> ImageTable:
    return open_images(source)


def test_every_picture_stands_once_beside_what_it_shows(
    images: ImageTable, request: pytest.FixtureRequest
) -> None:
    numbers = [made.number_of(images.picture(row)) for row in range(len(images))]
    assert sorted(numbers) == sorted(BY_NUMBER)
    truth = [BY_NUMBER[number] for number in numbers]
    assert images.label.tolist() == [each.label for each in truth]
    assert images.domain.tolist() == [each.domain for each in truth]
    if request.node.callspec.params["source"] == "folder":
        assert set(images.split) == {"train", "test"}  # drawn, since folders have none
    else:
        assert images.split.tolist() == [each.split for each in truth]
    assert images.caption.str.len().min() > 0 and images.path.is_unique


def test_selections_read_the_right_pictures(images: ImageTable) -> None:
    some = images.select(label="owl", domain=["sketch"])
    wanted = {m.number for m in made.PICTURES if (m.label, m.domain) == ("owl", "sketch")}
    assert {made.number_of(some.picture(row)) for row in range(len(some))} == wanted
    assert images.query("domain == 'real'").domains == ["real"]
    order = np.arange(len(images))[::-1].copy()
    assert made.number_of(images[order].picture(0)) == made.number_of(images.picture(23))


def test_cells_are_counted_and_pairs_found(images: ImageTable) -> None:
    counts = images.counts()
    assert counts.to_numpy().tolist() == [[4, 4]] * 3
    assert counts.index.tolist() == list(made.LABELS) == images.labels
    counts["sum"] = counts.sum(axis=1)  # a plain table, that takes new columns
    pairs = images.pairs(same="label", differ="domain")
    assert len(pairs) == 24 and (pairs.clean.domain.to_numpy() != pairs.corrupt.domain).all()
    assert Counter(pairs.spread(6).clean.label) == dict.fromkeys(made.LABELS, 2)


def test_tables_survive_pickling(images: ImageTable) -> None:
    again = pickle.loads(pickle.dumps(images))
    assert made.number_of(again.picture(5)) == made.number_of(images.picture(5))


def test_opening_twice_gives_one_table(source: Any) -> None:
    first, second = open_images(source), open_images(source)
    assert first.fingerprint == second.fingerprint != ""
    assert first.frame.equals(second.frame)


def test_files_hold_the_same_pixels(images: ImageTable, tmp_path: Path) -> None:
    written = images.as_files(tmp_path / "files")
    assert written.reader is None and written.label.equals(images.label)
    for row in (0, 11, 23):
        assert (written.root / written.path.iloc[row]).is_file()
        assert written.picture(row).tobytes() == images.picture(row).tobytes()
    assert (tmp_path / "files").exists() == (images.reader is not None)


def test_preparations_are_applied_and_change_the_fingerprint(
    images: ImageTable, tmp_path: Path
) -> None:
    small = images.prepared(lambda image: image.resize((2, 2)), name="small")
    assert small.picture(3).size == (2, 2) and images.picture(3).size == (8, 6)
    assert small.fingerprint != images.fingerprint
    assert small.select(label="cat").picture(0).size == (2, 2)
    written = small.as_files(tmp_path / "small")
    assert written.picture(3).size == (2, 2)
    assert made.number_of(written.picture(3)) == made.number_of(images.picture(3))


def test_one_domain_can_be_given_to_all_rows(source: Any) -> None:
    assert open_images(source, domain="photo").domains == ["photo"]
    assert set(open_images(source, split="analysis").split) == {"analysis"}


def test_an_unknown_column_is_refused_with_the_nearest(source: Any) -> None:
    with pytest.raises(DataError, match=r"column 'lable'.*Did you mean label"):
        open_images(source, columns={"label": "lable"})


def test_a_label_may_have_another_name(source: Any) -> None:
    assert open_images(source, columns={"label": "domain"}, domain="any").labels == [
        "real",
        "sketch",
    ]


def test_a_name_on_the_hub_is_not_downloaded() -> None:
    with pytest.raises(DataError, match="load_dataset"):
        open_images("hf:someone/pictures")


def test_an_unknown_audit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="pictures, lists"):
        open_images(made.files(tmp_path), audit="none")
