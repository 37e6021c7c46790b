"""Halves of the pictures that share no artist, from which ceilings are measured.

A measure compared with itself on the same drawings is too good. Here artists are dealt into two
halves, the same deal for every class and domain, and every domain keeps equally many pictures of a
class in each half.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from interp.core.seeds import rng


def artist_column(frame: pd.DataFrame) -> str:
    """The column that says who drew a picture: `artist`, else `drawing`, else none (`picture`)."""
    for name in ("artist", "drawing"):
        if name in frame.columns and frame[name].notna().to_numpy().any():
            return name
    return "picture"


def artists_of(frame: pd.DataFrame) -> np.ndarray:
    """Who drew each picture: its artist where known, else its drawing, else the picture alone.

    >>> frame = pd.DataFrame({"artist": ["ann", None, None], "drawing": ["1", "2", None]})
    >>> artists_of(frame).tolist()
    ['ann', 'drawing 2', 'picture 2']
    >>> artists_of(frame[["drawing"]]).tolist()
    ['1', '2', 'picture 2']
    """
    names = np.array([f"picture {row}" for row in range(len(frame))], dtype=object)
    column = artist_column(frame)
    for name in ("drawing", "artist"):
        if name in frame.columns and column != "picture":
            known = frame[name].notna().to_numpy()
            prefix = "" if name == column else f"{name} "
            said = np.array([f"{prefix}{value}" for value in frame[name].to_numpy(object)], object)
            names = np.where(known, said, names)
    return names


def n_drawings(frame: pd.DataFrame) -> int:
    """How many different drawings the rows show (pictures, where drawings are not known)."""
    if "drawing" not in frame.columns:
        return len(frame)
    known = frame["drawing"].dropna()
    return len(set(known)) + len(frame) - len(known)


def artist_halves(
    frame: pd.DataFrame, domains: Sequence[str], *, seed: int = 0, split: int = 0
) -> np.ndarray:
    """Deal artists into halves 0 and 1, each with all they drew; -1 marks rows that are not used.

    Within a class each half holds the same number of pictures in each of the `domains` that has
    pictures by artists of both halves; in a domain that has not, the class is not used. Another
    `split` is another deal. The deal does not depend on which domains are asked for, as long as the
    artists drew in all of them.

    An artist stands on one side with all classes. Dealt anew for each class, artists with a style
    make halves agree where there is no class at all: who is not in one half of a class is in the
    other, so that the classes' styles differ alike in both (26 classes by five of seven artists:
    debiased CKA of .1 and p < .05 in all of 24 studies without any class structure).

    >>> frame = pd.DataFrame({"label": "cat", "domain": "real", "artist": list("aabbcc")})
    >>> half = artist_halves(frame, ["real"])
    >>> np.bincount(half[half >= 0]).tolist()
    [2, 2]
    """
    half = np.full(len(frame), -1, dtype=np.int8)
    who, label = artists_of(frame), frame["label"].to_numpy(object)
    places = pd.Index(list(domains)).get_indexer(frame["domain"].to_numpy(object))
    sides = _common_sides(who, label, places, rng("artists of several classes", seed, split))
    by_class = pd.Series(label).groupby(label, sort=True).indices
    for name, rows in by_class.items():
        generator = rng(f"artist halves of {name}", seed, split)
        dealt = _deal(who[rows], places[rows], len(domains), generator, sides)
        keep = _equal(dealt, places[rows], len(domains), generator)
        half[rows[keep]] = dealt[keep]
    return half


def dealt_artists(frame: pd.DataFrame, domains: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """Deal all artists into halves 0 and 1, without a thought for classes; no row is left out.

    For statistics that balance their pictures themselves, or ask nothing of single classes.

    >>> frame = pd.DataFrame({"domain": "real", "artist": list("aabb")})
    >>> half = dealt_artists(frame, ["real"])
    >>> bool(half[0] == half[1] != half[2] == half[3])
    True
    """
    places = pd.Index(list(domains)).get_indexer(frame["domain"].to_numpy(object))
    return _deal(artists_of(frame), places, len(domains), rng("dealt artists", seed), {})


def artist_sides(frame: pd.DataFrame, *, seed: int = 0) -> np.ndarray:
    """Deal all artists to sides 0 and 1, the same in all classes and domains; no row is left out.

    Of several random orders the one counts that fills cells (class x domain) most evenly. Side 1
    has the more artists.

    >>> frame = pd.DataFrame({"domain": "real", "label": ["cat", "dog"] * 3,
    ...                       "artist": list("aabbcc")})
    >>> artist_sides(frame).tolist().count(0)
    2
    """
    names, who = np.unique(artists_of(frame).astype(str), return_inverse=True)
    cells = frame["domain"].astype(str) + "/" + frame["label"].astype(str)
    kinds, cell = np.unique(cells.to_numpy(object).astype(str), return_inverse=True)
    share = np.zeros((len(names), len(kinds)))
    np.add.at(share, (who, cell), 1.0)
    share /= share.sum(axis=0)
    generator, best, sides = rng("deal artists", seed), -1.0, np.zeros(len(names), dtype=np.int8)
    for _ in range(ORDERS):
        coin = generator.integers(2, size=len(names))
        dealt, filled = _fill(share, generator.permutation(len(names)), coin)
        even = float(np.minimum(*filled).sum())
        if even > best + 1e-9:
            best, sides = even, dealt
    return sides[who] if 2 * sides.sum() >= len(names) else 1 - sides[who]


ORDERS = 16
"""Random orders in which `artist_sides` deals; the most even one counts."""


def _fill(
    share: np.ndarray, order: np.ndarray, coin: np.ndarray, given: Mapping[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Artists in `order` go to the half where the cells that they drew for are emptier.

    `share` is each artist's share of each cell, "artist cell". A coin decides between halves that
    are equally full; artists whose side is `given` go there. Returns the sides, and how full each
    half's cells are, "half cell".
    """
    sides, filled = np.zeros(len(share), dtype=np.int8), np.zeros((2, share.shape[1]))
    for artist in order:
        zero, one = filled[:, share[artist] > 0].sum(axis=1)
        equal = abs(zero - one) <= 1e-8 + 1e-5 * one
        side = int(coin[artist]) if equal else int(one < zero)
        sides[artist] = side = (given or {}).get(int(artist), side)
        filled[side] += share[artist]
    return sides, filled


def _common_sides(
    who: np.ndarray, label: np.ndarray, places: np.ndarray, generator: np.random.Generator
) -> dict[str, int]:
    """A side for every artist of several classes, so that as many cells as can be have both.

    In random order, each goes where its cells (class x domain) are emptier. The first of `TRIES`
    orders is taken that leaves no cell one-sided which another order would have on both.
    """
    asked = places >= 0
    artist, names = pd.factorize(who[asked].astype(str), sort=True)
    cell = pd.factorize(pd.MultiIndex.from_arrays([label[asked], places[asked]]), sort=True)[0]
    code = pd.factorize(label[asked], sort=True)[0]
    pairs = np.unique(np.stack([artist, code]), axis=1)
    several = np.flatnonzero(np.bincount(pairs[0], minlength=len(names)) > 1)
    if not len(several):
        return {}
    counts = np.zeros((len(names), int(cell.max()) + 1))
    np.add.at(counts, (artist, cell), 1)
    share = counts / counts.sum(axis=0)
    alone = np.delete(counts, several, axis=0) > 0  # who drew one class can still fill a half
    best, sides = -1, np.zeros(len(several), dtype=np.int8)
    for _ in range(TRIES):
        coin = generator.random(len(several)) < 0.5
        dealt, filled = _fill(share[several], generator.permutation(len(several)), coin)
        both = int((((filled > 0).sum(axis=0) + alone.sum(axis=0)) > 1).sum())
        if both > best:
            best, sides = both, dealt
        if best == counts.shape[1]:
            break
    return {str(names[each]): int(side) for each, side in zip(several, sides, strict=True)}


TRIES = 32


def _deal(
    who: np.ndarray,
    places: np.ndarray,
    n_domains: int,
    generator: np.random.Generator,
    given: Mapping[str, int],
) -> np.ndarray:
    """A half for each picture of one class: artists in random order go to the emptier half.

    Those whose side is `given` come first. Then artists who drew in most domains; otherwise one who
    drew in few could leave a domain with an empty half.
    """
    artists, code = np.unique(who.astype(str), return_inverse=True)
    rank, coin = generator.random(len(artists)), generator.random(len(artists)) < 0.5
    asked = places >= 0
    counts = np.zeros((len(artists), n_domains))
    np.add.at(counts, (code[asked], places[asked]), 1)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    fixed = {place: given[name] for place, name in enumerate(artists.tolist()) if name in given}
    free = np.array([place not in fixed for place in range(len(artists))])
    order = np.lexsort((rank, -(counts > 0).sum(axis=1), free))
    return _fill(share, order, coin, fixed)[0][code]


def _equal(
    dealt: np.ndarray, places: np.ndarray, n_domains: int, generator: np.random.Generator
) -> np.ndarray:
    """Rows kept so that all halves of all usable domains hold equally many pictures of a class."""
    cells = [
        [np.flatnonzero((places == place) & (dealt == side)) for side in (0, 1)]
        for place in range(n_domains)
    ]
    usable = [pair for pair in cells if min(len(rows) for rows in pair) > 0]
    if not usable:
        return np.empty(0, dtype=int)
    return np.concatenate(equally_many([rows for pair in usable for rows in pair], generator))


def equally_many(cells: Sequence[np.ndarray], generator: np.random.Generator) -> list[np.ndarray]:
    """As many rows of each cell as the smallest has.

    Without a need to drop pictures nothing is drawn, and domains keep the same drawings.

    >>> cells = [np.array([1, 2]), np.array([3, 4, 5])]
    >>> [len(rows) for rows in equally_many(cells, np.random.default_rng(0))]
    [2, 2]
    """
    n = min(map(len, cells))
    return [
        rows if len(rows) == n else np.sort(generator.choice(rows, n, replace=False))
        for rows in cells
    ]


def halved_classes(
    frame: pd.DataFrame, deals: Sequence[np.ndarray], domains: Sequence[str]
) -> list[str]:
    """The classes that every one of the domains has in both halves of every deal, sorted.

    >>> frame = pd.DataFrame({"label": list("ppq"), "domain": "real"})
    >>> halved_classes(frame, [np.array([0, 1, 0])], ["real"])
    ['p']
    """
    label, domain = frame["label"].to_numpy(object), frame["domain"].to_numpy(object)
    cells = [
        set(label[(deal == half) & (domain == name)])
        for deal in deals
        for half in (0, 1)
        for name in domains
    ]
    return sorted(set.intersection(*cells)) if cells else []


def meeting_halves(frame: pd.DataFrame, a: str, b: str) -> list[tuple[int, int]]:
    """Which halves of A and B may be compared: those that hold no drawing by a common artist.

    >>> frame = pd.DataFrame({"domain": ["real", "sketch"], "artist": ["ann", "ann"]})
    >>> meeting_halves(frame, "real", "sketch")
    [(0, 1), (1, 0)]
    """
    who, domain = artists_of(frame), frame["domain"].to_numpy(object)
    common = set(who[domain == a]) & set(who[domain == b])
    return [(0, 1), (1, 0)] if common else [(0, 0), (0, 1), (1, 0), (1, 1)]
