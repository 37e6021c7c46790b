"""Perceptual hashes: equal to a peer library's, steady under resizing; near pairs all found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.data.leakage import hashing as perceptual
from interp.data.leakage.hashing import nearest, perceptual_hash


def scene(seed: int) -> Image.Image:
    """A smooth random picture."""
    coarse = rng("scene", seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


def distance(a: Image.Image, b: Image.Image) -> int:
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def test_the_hash_is_imagehashs(small_images: ImageTable) -> None:
    imagehash = pytest.importorskip("imagehash")
    pictures = [scene(seed) for seed in range(20)]
    pictures += [small_images.picture(row) for row in range(0, len(small_images), 97)]
    for picture in pictures:
        assert f"{perceptual_hash(picture):016x}" == str(imagehash.phash(picture))


def test_a_changed_copy_is_near_and_another_picture_is_far() -> None:
    for seed in range(10):
        picture = scene(seed)
        copies = [picture.resize((200, 150)), ImageEnhance.Brightness(picture).enhance(0.9)]
        assert all(distance(picture, copy) <= 4 for copy in copies)
        assert distance(picture, scene(seed + 100)) > 14


HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=30)


@given(
    ours=HASHES,
    theirs=HASHES,
    flips=st.lists(st.integers(0, 63), max_size=9),
    bits=st.integers(0, 12),
)
def test_near_pairs_are_all_pairs_that_a_naive_search_finds(
    ours: list[int], theirs: list[int], flips: list[int], bits: int
) -> None:
    # copies of ours with some bits turned, or there would be nothing to find
    theirs = [
        *theirs,
        *ours[:5],
        *(one ^ (1 << flip) ^ 1 for one, flip in zip(ours, flips, strict=False)),
    ]
    naive = [
        [i, j, (a ^ b).bit_count()]
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if (a ^ b).bit_count() <= bits
    ]
    left, right = (np.array(each, dtype=np.uint64) for each in (ours, theirs))
    for row, (place, gap, n) in enumerate(nearest(left, right, bits=bits)):
        mine = [(d, j) for i, j, d in naive if i == row]
        assert n == len(mine)
        assert (gap, place) == (min(mine) if mine else (-1, -1))


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = rng("hashes")
    ours = generator.integers(0, 2**64, 300, dtype=np.uint64) >> np.uint64(52)  # many alike
    theirs = generator.integers(0, 2**64, 200, dtype=np.uint64) >> np.uint64(52)
    naive = [
        [i, j, (int(a) ^ int(b)).bit_count()]
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if (int(a) ^ int(b)).bit_count() <= 2
    ]
    monkeypatch.setattr(perceptual, "BLOCK", block)
    counts = np.bincount([i for i, *_ in naive], minlength=len(ours))
    assert len(naive) > 1000 and (nearest(ours, theirs, bits=2)[:, 2] == counts).all()


def test_far_fewer_than_all_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = perceptual._distance
    monkeypatch.setattr(perceptual, "_distance", lambda a, b: compared.append(len(a)) or real(a, b))
    generator = rng("hashes")
    ours, theirs = (generator.integers(0, 2**64, 20_000, dtype=np.uint64) for _ in range(2))
    theirs[:50] = ours[:50] ^ np.uint64(0b1011)
    found = nearest(ours, theirs, bits=4)
    assert (found[:50, 0] == np.arange(50)).all() and (found[:50, 1] == 3).all()
    assert sum(compared) < 20_000**2 / 500


@pytest.mark.parametrize("bits", [-1, 64])
def test_an_impossible_distance_is_refused(bits: int) -> None:
    with pytest.raises(SpecificationError, match="0 to 63"):
        nearest(np.zeros(1, np.uint64), np.zeros(1, np.uint64), bits=bits)
