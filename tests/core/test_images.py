"""Selection keeps columns aligned, pairs are what they say, and pictures are read when needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.core.errors import DataError, PictureError, SampleError
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


class Colours:
    """A reader without files: the row's number is its colour."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, row: pd.Series) -> Image.Image:
        self.read.append(row["path"])
        return Image.new("L", (4, 4), int(row["warp"]))


def by_reader(n_per_cell: int = 3) -> ImageTable:
    return replace(table(n_per_cell), reader=Colours(), fingerprint="a")


def test_a_reader_stands_in_for_files() -> None:
    images = by_reader()
    picture = images.select(label="dog")[2:].picture(0)
    assert picture.mode == "RGB" and picture.getpixel((0, 0)) == (2, 2, 2)


def test_a_reader_that_fails_names_the_picture() -> None:
    def torn(row: pd.Series) -> Image.Image:
        raise OSError("torn")

    with pytest.raises(PictureError, match=r"real/cat/0\.png: given a file that is no .*torn"):
        replace(table(), reader=torn).picture(0)


def test_files_are_written_once(tmp_path: Path) -> None:
    images = by_reader()
    written = images.as_files(tmp_path)
    assert isinstance(images.reader, Colours) and len(images.reader.read) == len(images) == 18
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    next(iter(stamps)).unlink()  # as if the call had been interrupted
    images.reader.read.clear()
    again = images.as_files(tmp_path)
    assert again.frame.equals(written.frame) and len(images.reader.read) == 1
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert set(kept) == set(stamps) and sum(kept[p] == stamps[p] for p in kept) == 17
    assert not [path for path in tmp_path.rglob("*") if "part" in path.name]


def test_files_of_parts_and_of_other_tables_share_a_folder(tmp_path: Path) -> None:
    images = by_reader()
    whole = images.as_files(tmp_path)
    part = images.select(label="owl").as_files(tmp_path)
    assert set(part.path) < set(whole.path) and len(list(tmp_path.rglob("*.png"))) == 18
    replace(images, fingerprint="b").as_files(tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 36


def test_several_processes_write_what_one_does(tmp_path: Path) -> None:
    images = by_reader(30)  # several chunks
    one, two = (images.as_files(tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    assert one.path.tolist() == two.path.tolist()
    for row in range(0, len(images), 7):
        assert one.picture(row).tobytes() == two.picture(row).tobytes()


def test_rows_that_are_files_stay_where_they_are(tmp_path: Path) -> None:
    images = table()
    assert images.as_files(tmp_path / "none") is images and not (tmp_path / "none").exists()


def test_preparations_run_in_turn_and_name_themselves() -> None:
    images = by_reader()
    both = images.prepared(lambda p: p.resize((2, 6)), name="flat").prepared(
        lambda p: p.rotate(90, expand=True), name="turned"
    )
    assert both.picture(0).size == (6, 2)
    other = images.prepared(lambda p: p, name="turned").prepared(lambda p: p, name="flat")
    prints = {each.fingerprint for each in (images, both, other)}
    assert len(prints) == 3
    assert images.prepared(lambda p: p, name="flat").select(label="cat").fingerprint in {
        images.prepared(lambda p: p.convert("L"), name="flat").fingerprint
    }  # the name is what counts


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p: None, "with mine: given one that returns NoneType"),
        (lambda p: 1 / 0, r"with mine: given one that fails \(ZeroDivisionError"),
    ],
)
def test_a_preparation_that_fails_is_named(function, words: str) -> None:
    with pytest.raises(DataError, match=words):
        by_reader().prepared(function, name="mine").picture(0)


def test_a_preparation_needs_a_name() -> None:
    with pytest.raises(DataError, match="without a name"):
        by_reader().prepared(lambda p: p, name=" ")


def test_categories_behave_as_words() -> None:
    words = table()
    kinds = {"label": "category", "domain": "category", "split": "category"}
    images = ImageTable(words.frame.astype(kinds))
    part, same = (each.select(label=["cat", "owl"]) for each in (images, words))
    assert part.labels == same.labels == ["cat", "owl"]
    assert part.counts().equals(same.counts())
    for each, other in ((part.pairs(seed=3), same.pairs(seed=3)),):
        assert each.corrupt_rows.tolist() == other.corrupt_rows.tolist()
    assert part.query("domain == 'real'").path.tolist() == same.select(domain="real").path.tolist()


@pytest.mark.parametrize("missing", [False, True])
def test_partners_are_drawn_as_if_each_picture_met_all_others(missing: bool) -> None:
    """The same generator draws the same partners as from the list of all that differ."""
    from interp.core.statistics.partners import _drawn

    keys = np.random.default_rng(1).choice(list("aabbbcd"), size=(60, 1)).astype(object)
    if missing:
        keys[::7] = np.nan
    naive, generator = [], np.random.default_rng(5)
    for key in keys:
        apart = np.flatnonzero((keys != key).all(axis=1))
        naive.append(int(generator.choice(apart)))
    assert list(_drawn(keys, np.random.default_rng(5))) == naive
    assert len(set(naive)) > 20
    alike = np.array([["a"]] * 3, dtype=object)
    assert list(_drawn(alike, np.random.default_rng(5))) == [None] * 3
