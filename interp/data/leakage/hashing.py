"""Perceptual hashes of pictures, and the nearest of those that differ in only a few bits.

The hash is the sign pattern of a picture's low frequencies: grey, 32 x 32, discrete cosine
transform, the lowest 8 x 8 coefficients against their median (the pHash of Zauner 2010). Resizing,
recompression and slight changes of colour leave most bits unchanged.
"""

from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int
from PIL import Image
from scipy.fft import dct

from interp.core.errors import DataError, SpecificationError
from interp.core.images import ImageTable
from interp.core.parallel import side_by_side
from interp.core.storage.store import cache_folder, fingerprint, writable, write_atomic

BITS = 64
SIDE = 32
LOW = 8
BLOCK = 1 << 22
"""Comparisons that are in memory at a time."""


def perceptual_hash(picture: Image.Image) -> int:
    """Hash a picture's appearance into 64 bits.

    Args:
        picture: The picture.

    Returns:
        The bits as a number.

    >>> tiles = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    >>> picture = Image.fromarray(tiles).resize((96, 96))
    >>> (perceptual_hash(picture) ^ perceptual_hash(picture.resize((64, 64)))).bit_count() < 10
    True
    >>> (perceptual_hash(picture) ^ perceptual_hash(picture.rotate(90))).bit_count() > 20
    True
    """
    grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    low = dct(dct(pixels, axis=0), axis=1)[:LOW, :LOW]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def nearest(
    ours: np.ndarray, theirs: np.ndarray, *, bits: int = 4
) -> Int[np.ndarray, "ours place_distance_n"]:
    """For each of our hashes, the nearest of theirs within `bits`.

    Args:
        ours: Hashes.
        theirs: Hashes.
        bits: The largest distance.

    Returns:
        Rows of the position in `theirs`, the distance, and how many are within `bits`. Position and
        distance are -1, and the number 0, where none is. Of several equally near, the first counts.

    Raises:
        SpecificationError: For a distance outside 0 to 63.

    Notes:
        Not all pairs are compared. Cut 64 bits into `bits` + 1 bands: two hashes that differ in at
        most `bits` of them agree in at least one whole band (the pigeonhole principle; Norouzi et
        al. 2012). So only hashes that share a band are compared, band by band. Equal hashes are
        compared once. Unlike a list of all pairs, what is returned does not grow where thousands of
        pictures look alike.

    >>> ours, theirs = np.array([0b1111, 0xFF00], np.uint64), np.array([0b0111, 0b1111], np.uint64)
    >>> nearest(ours, theirs).tolist()
    [[1, 0, 2], [-1, -1, 0]]
    """
    mine, at_mine = np.unique(ours.astype(np.uint64), return_inverse=True)
    other, first, many = np.unique(theirs.astype(np.uint64), return_index=True, return_counts=True)
    pairs = _near(mine, other, bits)
    left, distance, position = pairs[:, 0], pairs[:, 2], first[pairs[:, 1]]
    best = np.full((len(mine), 3), [-1, -1, 0], dtype=np.int64)
    order = np.lexsort((position, distance, left))[::-1]  # the nearest is written last
    best[left[order], 0], best[left[order], 1] = position[order], distance[order]
    best[:, 2] = np.bincount(left, weights=many[pairs[:, 1]], minlength=len(mine))
    return best[at_mine]


def _near(mine: np.ndarray, other: np.ndarray, bits: int) -> np.ndarray:
    """Pairs of distinct hashes within `bits` of one another, and their distance."""
    if not 0 <= bits < BITS:
        given = f"a distance of {bits} bits"
        right = f"0 to {BITS - 1} of {BITS}"
        raise SpecificationError("look for pictures alike", given, right, "choose another number")
    edges = np.linspace(0, BITS, bits + 2).astype(int)
    by_band = [_in_band(mine, other, int(low), int(high), bits) for low, high in pairwise(edges)]
    pairs = np.unique(np.concatenate(by_band), axis=0)
    return np.column_stack([pairs, _distance(mine[pairs[:, 0]], other[pairs[:, 1]])])


def _in_band(mine: np.ndarray, other: np.ndarray, low: int, high: int, bits: int) -> np.ndarray:
    """Pairs of distinct hashes within `bits` that agree in the bits from `low` to `high`."""
    mask = np.uint64((1 << (high - low)) - 1)
    key_mine, key_other = ((each >> np.uint64(low)) & mask for each in (mine, other))
    order_mine = np.argsort(key_mine, kind="stable")
    order_other = np.argsort(key_other, kind="stable")
    sorted_other = key_other[order_other]
    first = np.searchsorted(sorted_other, key_mine[order_mine], side="left")
    last = np.searchsorted(sorted_other, key_mine[order_mine], side="right")
    pairs = [np.empty((0, 2), dtype=np.int64)]
    size = last - first
    done = np.cumsum(size)
    start = 0
    while start < len(size):
        # as many of ours as have a block of partners between them, at least one
        before = done[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(done, before + BLOCK, side="right")))
        n = size[start:stop]
        left = np.repeat(order_mine[start:stop], n)
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        right = order_other[np.repeat(first[start:stop], n) + within]
        near = _distance(mine[left], other[right]) <= bits
        pairs.append(np.column_stack([left[near], right[near]]))
        start = stop
    return np.concatenate(pairs)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ, by sums of bits within bytes (numpy 1 cannot count them)."""
    x = a ^ b
    c = [np.uint64(n) for n in (1, 2, 4, 56)]
    m = [np.uint64(int(word * 8, 16)) for word in ("55", "33", "0f", "01")]
    x = x - ((x >> c[0]) & m[0])
    x = (x & m[1]) + ((x >> c[1]) & m[1])
    x = (x + (x >> c[2])) & m[2]
    return ((x * m[3]) >> c[3]).astype(np.int64)


PART = 1000
"""Pictures per part of the cache: what an interruption may cost."""


@dataclass(frozen=True)
class HashedPart:
    """Some rows of a table to be hashed by one process.

    Args:
        images: The rows.
        states: Size and time of each file.
        folder: Where the result goes.
    """

    images: ImageTable
    states: list[str]
    folder: Path


def picture_hashes(images: ImageTable, *, jobs: int = 1) -> pd.DataFrame:
    """Hash the pixels and the appearance of every picture.

    Args:
        images: The pictures.
        jobs: Processes that hash.

    Returns:
        A row per picture: `pixels`, a hash of its decoded pixels, and `looks`, its
        `perceptual_hash`. They are "" and 0 for a picture that cannot be read.

    Notes:
        Hashes are cached and reused unless the file has changed. An interrupted call can be
        repeated and continues.
    """
    folder = cache_folder() / f"hashes-{fingerprint(str(images.root), images.fingerprint)}"
    known = _known(folder)
    states = [_state(images.root / path) for path in images.frame["path"]]
    keys = [f"{path}\n{state}" for path, state in zip(images.frame["path"], states, strict=True)]
    missing = [row for row, key in enumerate(keys) if key not in known]
    parts = [
        HashedPart(images[rows], [states[row] for row in rows], folder)
        for rows in (missing[start : start + PART] for start in range(0, len(missing), PART))
    ]
    if parts:
        writable(folder, purpose="hashes of pictures")
        side_by_side(_hash_part, parts, jobs=jobs, what="hash pictures")
        known = _known(folder)
    hashes = [known[key] for key in keys]
    return pd.DataFrame(
        {
            "pixels": [pixels for pixels, _ in hashes],
            "looks": np.array([looks for _, looks in hashes], dtype=np.uint64),
        }
    )


def _state(path: Path) -> str:
    """Size and time of a file, so that a changed one is hashed again; empty without a file."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return f"{state.st_size}-{state.st_mtime_ns}"


def _known(folder: Path) -> dict[str, tuple[str, int]]:
    """The cached hashes, by path and state."""
    known = {}
    for part in sorted(folder.glob("*.csv")):
        rows = pd.read_csv(part, keep_default_na=False, dtype=str)
        columns = (rows[name] for name in ("path", "state", "pixels", "looks"))
        for path, state, pixels, looks in zip(*columns, strict=True):
            known[f"{path}\n{state}"] = (pixels, int(looks, 16))
    return known


def _hash_part(part: HashedPart) -> int:
    """Hash some pictures and write the result under a name of its own."""
    rows = [_both(part.images, row) for row in range(len(part.images))]
    frame = pd.DataFrame(
        {
            "path": part.images.frame["path"].tolist(),
            "state": part.states,
            "pixels": [pixels for pixels, _ in rows],
            "looks": [f"{looks:016x}" for _, looks in rows],
        }
    )
    name = fingerprint(frame["path"].tolist(), part.states)
    write_atomic(part.folder / f"{name}.csv", frame.to_csv(index=False))
    return len(frame)


def _both(images: ImageTable, row: int) -> tuple[str, int]:
    try:
        picture = images.picture(row)
    except DataError:
        return "", 0
    content = picture.tobytes() + repr(picture.size).encode()
    return blake2b(content, digest_size=8).hexdigest(), perceptual_hash(picture)
