"""Galleries: the right pictures, places and numbers, of every kind of unit; and what is refused."""

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from interp.circuits import Chain
from interp.core.errors import DataError, SampleError, ShapeError, SiteError, SpecificationError
from interp.core.images import ImageTable
from interp.probes import Features, Gallery, gallery, open_gallery, raw_units
from tests.probes.conftest import make_frame
from tests.refusals import refuses

SIDE, MAPS = 4, "blocks.0.hook_resid_pre"
SHARED, PRIVATE, DEAD = 0, 1, 2
LIT = {SHARED: "c02", PRIVATE: "c04"}


def lit(row: pd.Series) -> Image.Image:
    """Noise below 100; the shared channel is lit for c02, the private one for c04 in sketches.

    It is lit at a place of the picture's own: the number that its path ends in.
    """
    draw = np.random.default_rng(zlib.crc32(str(row["path"]).encode()))
    pixels = draw.integers(1, 100, size=(SIDE, SIDE, 3))
    pixels[..., DEAD] = 7
    place = divmod(place_of(row), SIDE)
    if row["label"] == LIT[SHARED]:
        pixels[(*place, SHARED)] = 200
    if row["label"] == LIT[PRIVATE] and row["domain"] == "sketch":
        pixels[(*place, PRIVATE)] = 200
    return Image.fromarray(pixels.astype(np.uint8))


def place_of(row: pd.Series) -> int:
    return sum(map(ord, str(row["path"]))) % SIDE**2


def as_map(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float().movedim(2, 0)


def tower(axes: tuple[str, ...] = ("batch", "channel", "row", "column")) -> Chain:
    return Chain([nn.Identity()], axes=axes)


@cache
def images() -> ImageTable:
    frame = make_frame(6, n_artists=6)
    return ImageTable(frame.assign(split="test", caption=""), reader=lit)


@cache
def found() -> Gallery:
    return gallery(tower(), images(), MAPS, preprocess=as_map, batch_size=50)


def test_numbers_are_the_largest_of_each_picture() -> None:
    """As one picture after another says, and the places too."""
    made = found()
    for row in range(0, len(images()), 17):
        maps = as_map(images().picture(row)).numpy()
        for unit in (SHARED, PRIVATE):
            assert made.peaks.values[row, unit] == maps[unit].max()
            left, top, right, bottom = made.peaks.box(row, unit) or (0, 0, 0, 0)
            assert maps[unit, round(top * SIDE), round(left * SIDE)] == maps[unit].max()
            assert right - left == bottom - top == 1 / SIDE
        assert made.peaks.box(row, DEAD) is None
    assert len(made) == 3 and "3 units" in repr(made) and made.values(DEAD).tolist()[:2] == [7, 7]


def test_a_shared_unit_and_a_private_one_are_told_apart() -> None:
    best = found().selective().set_index("feature")
    assert best.index[0] == SHARED
    assert best.loc[SHARED, ["real", "sketch", "same_class"]].tolist() == ["c02", "c02", True]
    assert best.loc[SHARED, "value"] == 1.0 and best.loc[PRIVATE, "value"] < 0.8
    assert found().selective(within=["sketch"])["value"].nlargest(2).tolist() == [1.0, 1.0]
    rows = found().table.frame
    across = rows[(rows["feature"] == PRIVATE) & (rows["domain_a"] == "sketch")]
    scored = across.set_index("domain_b")["value"]
    assert scored["sketch"] == 1.0 and scored["real"] < 0.8
    dead = rows[rows["feature"] == DEAD]
    assert dead["reason"].str.startswith("the same for all pictures").all()
    assert not best.loc[DEAD, "same_class"]


def test_pictures_go_from_most_to_least_and_a_drawing_counts_once() -> None:
    shown = found().shown(SHARED, "sketch", most=4, least=3, quantiles=(0.25, 0.75))
    names = ["most 1", "most 2", "most 3", "most 4", "75 %", "25 %"]
    assert shown["shown"].tolist() == [*names, "least 3", "least 2", "least 1"]
    assert (np.diff(shown["activation"]) <= 0).all()
    most, least = shown.head(4), shown.tail(3)
    assert set(most["label"]) == {"c02"} and most["drawing"].is_unique
    assert (
        least["drawing"].is_unique
        and least["activation"].min() == found().values(0, "sketch").min()
    )
    assert shown["domain"].unique().tolist() == ["sketch"]
    values = found().values(SHARED, "sketch")
    for share, number in zip((0.75, 0.25), shown["activation"][4:6], strict=True):
        assert (values < number).mean() - 0.02 <= share <= (values <= number).mean() + 0.02
    assert images().frame["path"].iloc[shown["row"]].tolist() == shown["path"].tolist()


def test_a_frame_stands_where_the_unit_is_most_active() -> None:
    row = int(found().shown(SHARED, "real", most=1).iloc[0]["row"])
    framed = np.array(found().picture(row, SHARED, side=64)).astype(int)
    plain = np.array(images().picture(row).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    changed = np.argwhere(np.abs(framed - plain).max(axis=-1) > 0)
    top, left = divmod(place_of(images().frame.iloc[row]), SIDE)
    middle = changed.mean(axis=0) / 64 * SIDE - 0.5
    assert np.abs(middle - [top, left]).max() < 0.5
    dead = np.array(found().picture(row, DEAD, side=64)).astype(int)
    assert (dead == plain).all()


def test_tokens_of_a_transformer_have_a_class_token_before_them() -> None:
    """17 tokens are a class token and 4 x 4 patches, and the class token is at no place."""

    def tokens(picture: Image.Image) -> Tensor:
        patches = as_map(picture).flatten(1).T
        return torch.cat([torch.tensor([[0.0, 250.0, 0.0]]), patches])

    made = gallery(tower(("batch", "pos", "channel")), images(), MAPS, preprocess=tokens)
    assert made.peaks.grid == (SIDE, SIDE) and made.peaks.first == 1
    assert made.peaks.box(0, SHARED) == found().peaks.box(0, SHARED)
    assert made.peaks.box(0, PRIVATE) is None and (made.values(PRIVATE) == 250).all()


def flat(picture: Image.Image) -> Tensor:
    """Four tokens, 12 wide."""
    return as_map(picture).reshape(4, 12)


HEADED = ("batch", "pos", "head", "d_head")


def by_hand(of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The largest over tokens of what `of` makes of "picture token feature"."""
    tokens = np.stack([flat(images().picture(row)).numpy() for row in range(len(images()))])
    return of(tokens.astype(float)).max(axis=1)


def test_every_kind_is_what_its_formula_says() -> None:
    draw = np.random.default_rng(3)
    directions = draw.normal(size=(2, 12))
    basis = draw.normal(size=(3, 12))
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    projector = np.linalg.pinv(basis) @ basis
    made = gallery(tower(("batch", "pos", "channel")), images(), MAPS, directions, preprocess=flat)
    np.testing.assert_allclose(
        made.peaks.values, by_hand(lambda x: x @ unit.T), rtol=1e-5, atol=1e-4
    )
    made = gallery(tower(("batch", "pos", "channel")), images(), MAPS, [basis], preprocess=flat)
    lengths = by_hand(lambda x: np.linalg.norm(x @ projector, axis=-1, keepdims=True))
    np.testing.assert_allclose(made.peaks.values, lengths, rtol=1e-5)
    assert made.kind == "subspace" and len(made) == 1
    frame = images().frame
    code = raw_units(Features({"s": by_hand(lambda x: x)}, frame), "s", withheld=())
    made = gallery(tower(("batch", "pos", "channel")), images(), MAPS, code, preprocess=flat)
    features = by_hand(lambda x: code.encode(torch.from_numpy(x)).numpy())
    np.testing.assert_allclose(made.peaks.values, features, rtol=1e-4, atol=1e-5)
    assert made.kind == "feature" and len(made) == 24


def test_heads_are_told_by_the_length_of_what_they_write() -> None:
    def heads(picture: Image.Image) -> Tensor:
        return flat(picture).reshape(4, 3, 4)

    made = gallery(tower(HEADED), images(), MAPS, "heads", preprocess=heads)
    lengths = by_hand(lambda x: np.linalg.norm(x.reshape(*x.shape[:2], 3, 4), axis=-1))
    np.testing.assert_allclose(made.peaks.values, lengths, rtol=1e-5)
    assert made.kind == "head" and len(made) == 3


def test_random_directions_are_of_length_one_and_drawn_again_alike() -> None:
    from interp.probes.galleries.peaks import units_at

    plain = units_at(None, "s", ("batch", "channel"), (1, 9), 9)
    one, two, other = (plain.at_random(9, 200, seed=seed).read(torch.eye(9)) for seed in (1, 1, 2))
    torch.testing.assert_close(one.norm(dim=0), torch.ones(200))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert (one @ one.T / 200 * 9 - torch.eye(9)).abs().max() < 0.4  # evenly in all directions


def test_a_gallery_is_kept_and_opened_with_more_pictures(tmp_path: Path) -> None:
    some = images()[np.arange(len(images())) % 5 > 0]
    made = gallery(tower(), some, MAPS, preprocess=as_map)
    kept = open_gallery(made.save(tmp_path / "gallery"), images())
    assert np.array_equal(kept.peaks.values, made.peaks.values) and kept.domains == made.domains
    assert kept.peaks.box(3, SHARED) == made.peaks.box(3, SHARED)
    pd.testing.assert_frame_equal(kept.shown(1, "real"), made.shown(1, "real"))
    assert kept.table.frame["value"].tolist() == pytest.approx(made.table.frame["value"].tolist())
    assert repr(kept) == repr(made)
    refuses(DataError, "images without", open_gallery, tmp_path / "gallery", some[np.arange(9)])
    (tmp_path / "gallery" / "values.npy").unlink()
    refuses(DataError, "do not read", open_gallery, tmp_path / "gallery", images())


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"site": "nowhere"}, SiteError, "nowhere"),
        ({"of": "neurons"}, SpecificationError, "'neurons'"),
        ({"of": "heads"}, SiteError, "d_head"),
        ({"of": np.ones((1, 5))}, ShapeError, r"\(1, 5\).*3 features"),
        ({"of": np.zeros((1, 3))}, ShapeError, "0 or not finite"),
        ({"of": [np.ones((2, 3))]}, ShapeError, "basis whose rows"),
    ],
)
def test_what_cannot_be_shown_is_refused(words: dict[str, Any], error: type, said: str) -> None:
    asked = {"site": MAPS, "preprocess": as_map, **words}
    refuses(error, said, gallery, tower(), images(), **asked)


def test_pictures_that_leave_nothing_to_compare_are_refused() -> None:
    alone = images().select(label="c01")
    refuses(SampleError, "1 classes", gallery, tower(), alone, MAPS, preprocess=as_map)
    refuses(SampleError, "no pictures", gallery, tower(), images()[[]], MAPS, preprocess=as_map)


def test_units_and_quantiles_that_there_are_not_are_refused() -> None:
    for wrong in (-1, 3):
        refuses(SpecificationError, "0 to 2", found().shown, wrong, "real")
    refuses(SpecificationError, "shares from 0 to 1", found().shown, 0, "real", quantiles=(90,))
    refuses(DataError, "'clipart'", found().shown, 0, "clipart")
