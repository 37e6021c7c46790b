"""Does a class lie in the same direction in two domains? Cosines of directions fitted in each.

The second measure of rung R3, beside probe transfer: it asks about the direction alone, whatever
the scale and place of the classes along it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, artist_halves, halved_classes, n_drawings
from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.progress import track
from interp.core.sites import LAST, band_of
from interp.core.statistics.resampling import (
    CANNOT_TELL,
    Index,
    class_permutations,
    jackknife,
    max_t,
    sharing_index,
)
from interp.core.tables import Table, evidence
from interp.probes.features.matrices import PIXELS, Features, check_domains

MEAN_DIFFERENCE, DISCRIMINANT = "cosine of mean differences", "cosine of LDA directions"

LEAST_CLASSES = 4

ESTIMAND = "how far a class differs from the others in one direction in two domains (rung R3)"


def directions(
    features: Features,
    sites: str | Iterable[str] | None = None,
    domains: Sequence[str] | None = None,
    *,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Cosine between domains of the directions in which a class differs from the other classes.

    Mean difference: a class's mean less the mean of all. LDA: that, times the inverse of the
    within-class covariance, shrunk as Ledoit and Wolf (2004) and estimated where the means are.
    Both are fitted in half 1 of A's artists and in half 2 of B's, or the reverse, so that no
    drawing meets itself. With the mean over classes,

        value   = cos(A_1, B_2), averaged with cos(A_2, B_1)
        ceiling = sqrt(cos(A_1, A_2) cos(B_1, B_2)), equal n
        null    = mean over permutations of B's classes, exactly
        index   = (value - null) / (ceiling - null)

    averaged over `n_splits` deals of artists. Noise in the estimates shrinks every cosine; the
    ceiling shrinks as the value does, so that the index is the cosine of the true directions. It
    is not clipped. Intervals leave one class out at a time of the whole index (the covariance
    keeps it); p permutes whole classes of B, adjusted by max-T over the sites of a pair and kind.

    Raises `SampleError` when no pair has four classes by two artists in both domains; a pair that
    has not is a row with a `reason`, and so is LDA where a half has one picture per class.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> table = directions(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame["verdict"].tolist()
    ['shared', 'shared']
    """
    chosen = features if sites is None else features.only(sites)
    names = check_domains(chosen, domains, "compare directions")
    pairs = [_Pair.of(chosen, a, b, n_splits, seed) for a, b in combinations(names, 2)]
    most = max((len(pair.classes) for pair in pairs), default=0)
    if most < LEAST_CLASSES:
        raise SampleError(
            f"compare directions between {listed(names)}",
            f"at most {most} classes with pictures by two artists in both of two domains",
            f"at least {LEAST_CLASSES}",
            "give more classes, or two pictures of each class and domain",
        )
    rows: list[dict[str, object]] = []
    for pair in track(pairs, "directions"):
        for kind in (MEAN_DIFFERENCE, DISCRIMINANT):
            rows += _rows(chosen, pair, kind, n_permutations, seed)
    frame = pd.DataFrame(rows)
    frame["control"] = np.where(frame["site"] == PIXELS, "pixels", control)
    facts = {**features.facts, "n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("directions", frame, facts)


@dataclass(frozen=True)
class _Pair:
    """Two domains, the deals of their artists, and the classes that both have in every half."""

    a: str
    b: str
    deals: list[np.ndarray]
    code: np.ndarray
    classes: list[str]
    used: np.ndarray
    left_out: int

    @classmethod
    def of(cls, features: Features, a: str, b: str, n_splits: int, seed: int) -> "_Pair":
        frame = features.frame
        deals = [artist_halves(frame, [a, b], seed=seed, split=split) for split in range(n_splits)]
        label, domain = frame["label"].to_numpy(object), frame["domain"].to_numpy(object)
        classes = halved_classes(frame, deals, (a, b))
        code = pd.Index(classes).get_indexer(label)
        used = np.any([deal >= 0 for deal in deals], axis=0) & (code >= 0)
        everything = set(label[np.isin(domain, (a, b))])
        return cls(a, b, deals, code, classes, used, len(everything) - len(classes))


@dataclass(frozen=True)
class _Cosines:
    """At one site: cosines of A's classes with B's, and of classes between a domain's halves.

    across: "class class"; across_left: mean over classes with one left out, and its null, "class
    2"; within: one per domain; within_left: "class 2".
    """

    across: np.ndarray
    across_left: np.ndarray
    within: np.ndarray
    within_left: np.ndarray
    reason: str = ""


def class_directions(x: np.ndarray, code: np.ndarray, *, shrunk: bool) -> np.ndarray:
    """Directions "class feature" in which each class differs from the mean of all classes.

    With `shrunk`, times the inverse of the pooled within-class covariance, shrunk by Ledoit and
    Wolf's share towards a multiple of the identity. Its length means nothing.

    >>> x = np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 4.0], [3.0, 4.0]])
    >>> class_directions(x, np.array([0, 0, 1, 1]), shrunk=False).tolist()
    [[0.0, -2.0], [0.0, 2.0]]
    """
    rows = np.asarray(x, dtype=np.float64)
    rows = rows - rows.mean(axis=0)  # before anything else: a large common mean costs digits
    counts = np.bincount(code)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, code, rows)
    means /= counts[:, None]
    found = means - means.mean(axis=0)
    if not shrunk:
        return found
    inner = rows - means[code]
    n, width = inner.shape
    _, lengths, axes = np.linalg.svd(inner, full_matrices=False)
    squares = lengths**2 / n
    share, level = _ledoit_wolf(squares, (inner**2).sum(axis=1), width)
    if share * level <= 0:
        return np.zeros_like(found)
    # the covariance is known along `axes`; across them it is the multiple of the identity alone
    along = 1 / ((1 - share) * squares + share * level) - 1 / (share * level)
    return found / (share * level) + ((found @ axes.T) * along) @ axes


def _ledoit_wolf(squares: np.ndarray, norms: np.ndarray, width: int) -> tuple[float, float]:
    """Share of shrinking, and the mean variance shrunk towards, from a covariance's eigenvalues.

    From eigenvalues and squared lengths of rows, so that no "feature feature" matrix is made.
    """
    n, level = len(norms), float(squares.sum()) / width
    total = float((squares**2).sum())
    spread = total / width - level**2
    noise = (float((norms**2).sum()) / n - total) / (width * n)
    if spread <= 1e-15 * level**2:
        return 1.0, level
    # a covariance of few rows may leave nothing to shrink; it must still have an inverse
    return float(np.clip(noise / spread, 1e-6, 1.0)), level


def _cosines(values: np.ndarray, frame: pd.DataFrame, pair: _Pair, *, shrunk: bool) -> _Cosines:
    """All cosines at a site, averaged over deals."""
    k, domain = len(pair.classes), frame["domain"].to_numpy(object)
    across, within = np.zeros((k, k)), np.zeros(2)
    across_left, within_left = np.zeros((k, 2)), np.zeros((k, 2))
    reason = ""
    for deal in pair.deals:
        found = {}
        for (place, name), half in ((each, half) for each in enumerate((pair.a, pair.b))
                                    for half in (0, 1)):  # fmt: skip
            rows = np.flatnonzero((domain == name) & (deal == half) & (pair.code >= 0))
            found[place, half] = class_directions(values[rows], pair.code[rows], shrunk=shrunk)
            if not _varies(found[place, half], values[rows]):
                single = shrunk and len(rows) == k
                reason = (
                    "one picture per class in a half, two are needed for a covariance"
                    if single
                    else f"constant features in {name}"
                )
        if reason:
            blank = np.full((k, 2), np.nan)
            return _Cosines(np.full((k, k), np.nan), blank, np.full(2, np.nan), blank, reason)
        for half in (0, 1):
            one, two = found[0, half], found[1, 1 - half]
            whole, left = _meet(one, two)
            across, across_left = across + whole / 2, across_left + left / 2
        for place in (0, 1):
            whole, left = _meet(found[place, 0], found[place, 1])
            within[place] += np.diag(whole).mean()
            within_left[:, place] += left[:, 0]
    n = len(pair.deals)
    return _Cosines(across / n, across_left / n, within / n, within_left / n)


def _varies(found: np.ndarray, x: np.ndarray) -> bool:
    """Whether classes differ by more than rounding; a zero direction has no cosine."""
    lengths = np.linalg.norm(found, axis=1)
    return bool(lengths.min() > 0 and np.ptp(x, axis=0).max() > 1e-7 * np.abs(x).max())


def _meet(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines "class class"; and with each class left out their mean over classes and its null."""
    grams = [one @ two.T, one @ one.T, two @ two.T]
    k = len(one)
    keep = np.array([[c for c in range(k) if c != out] for out in range(k)])
    left = _cosine(*(gram[keep[:, :, None], keep[:, None, :]] for gram in grams))
    means = np.diagonal(left, axis1=1, axis2=2).mean(axis=1)
    return _cosine(*grams), np.column_stack([means, left.mean(axis=(1, 2))])


def _cosine(across: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Cosines "class class" of directions that are centred over the classes kept, from products."""
    across, one, two = (
        gram
        - gram.mean(axis=-1, keepdims=True)
        - gram.mean(axis=-2, keepdims=True)
        + gram.mean(axis=(-2, -1), keepdims=True)
        for gram in (across, one, two)
    )
    lengths = (np.diagonal(gram, axis1=-2, axis2=-1) for gram in (one, two))
    a, b = (np.sqrt(np.maximum(each, 1e-300)) for each in lengths)
    return across / (a[..., :, None] * b[..., None, :])


def _rows(
    features: Features, pair: _Pair, kind: str, n_permutations: int, seed: int
) -> list[dict[str, object]]:
    """Table rows of one domain pair and kind of direction: all sites, one family for p."""
    k, frame = len(pair.classes), features.frame
    few = f"{k} classes by two artists in both domains, {LEAST_CLASSES} are needed"
    if k < LEAST_CLASSES:
        blank = np.full((k, 2), np.nan)
        nothing = _Cosines(np.full((k, k), np.nan), blank, np.full(2, np.nan), blank, few)
        cells = [nothing for _ in features.sites]
    else:
        cells = [
            _cosines(features.values[site], frame, pair, shrunk=kind == DISCRIMINANT)
            for site in features.sites
        ]
    p = np.full(len(cells), np.nan)
    good = np.array([not cell.reason for cell in cells])
    if good.any():
        across = np.stack([cell.across for cell in cells if not cell.reason])
        orders = class_permutations(k, n_permutations, seed)
        drawn = across[:, np.arange(k), orders].mean(axis=2).T
        p[good] = max_t(np.diagonal(across, axis1=1, axis2=2).mean(axis=1), drawn)
    fewer = f"{pair.left_out} classes left out: not by two artists in both domains"
    rows = []
    for site, cell, each in zip(features.sites, cells, p, strict=True):
        value, null, ceiling, left = _triple(cell)
        if cell.reason:
            index = Index(np.nan, np.nan, np.nan, CANNOT_TELL, cell.reason)
        else:
            index = sharing_index(value, null, ceiling, left_out=left)
        notes = [index.reason, fewer if pair.left_out and k >= LEAST_CLASSES else ""]
        rows.append(
            {
                "measure": kind,
                "site": site,
                "layer": features.layer(site),
                "depth": features.depth(site),
                "domain_a": pair.a,
                "domain_b": pair.b,
            }
            | evidence(
                jackknife(value, left[:, 0]),
                null=null,
                null_kind="whole classes of domain_b permuted: exact mean; p from "
                f"{n_permutations} permutations, max-T over sites",
                ceiling=ceiling,
                ceiling_kind="geometric mean of the cosines within each domain; halves by "
                f"{artist_column(frame)}, equal n",
                index=replace(index, reason="; ".join(note for note in notes if note)),
                p=float(each),
                unit="class",
                n_units=k,
                n_pictures=int(pair.used.sum()),
                n_drawings=n_drawings(frame[pair.used]),
                estimand=ESTIMAND,
                seed=seed,
            )
        )
    return rows


def _triple(cell: _Cosines) -> tuple[float, float, float, np.ndarray]:
    """Value, null and ceiling, and the same with one class left out: "class 3"."""

    def root(pair: np.ndarray) -> np.ndarray:
        """0 where a half says nothing about the other, which refuses the index."""
        return np.asarray(np.sqrt(np.maximum(pair[..., 0], 0) * np.maximum(pair[..., 1], 0)))

    value = float(np.diag(cell.across).mean()) if cell.across.size else np.nan
    null = float(cell.across.mean()) if cell.across.size else np.nan
    left = np.column_stack([cell.across_left, root(cell.within_left)])
    return value, null, float(root(cell.within)), left


MEASURE = "cosine of a class's mean difference"


def class_cosines(
    features: Features,
    domains: Sequence[str],
    *,
    sites: Iterable[str] | None = None,
    n_splits: int = 5,
    seed: int = 0,
) -> Table:
    """Sharing of each class between two domains in the middle layers, beyond that of other classes.

    A class's contrast is its mean less the mean of all classes, in one half of a domain's artists.
    With cos_cd the cosine of c's contrast in A and d's in B, cross-fitted,

        value  = cos_cc           (mean of A_1 with B_2 and A_2 with B_1)
        null   = mean of cos_cd and cos_dc over the other classes d
        beyond = value - null     the class's sharing
        half_1, half_2 = the same from A_1 with B_2, and from A_2 with B_1, of the first deal
        ceiling = sqrt(cos(A_1, A_2) cos(B_1, B_2)), equal n

    averaged over sites, and but for the halves over `n_splits` deals of artists. The two halves
    have no picture in common (drawings that are seen in A in the one are seen in B in the other):
    what they agree in is no noise of pictures. Without `sites`, those of the middle layers are
    read, never the final embedding.

    Raises `SpecificationError` unless two domains are named, `SampleError` when fewer than four
    classes have two artists in both, or when no site lies in the middle.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> read = Features({"blocks.1.hook_resid_post": points.astype(np.float32)}, frame)
    >>> table = class_cosines(read, ["real", "sketch"], sites=read.sites).frame
    >>> len(table), bool(table["beyond"].min() > 0.9)
    (8, True)
    """
    asked = "measure the sharing of each class"
    names = check_domains(features, domains, asked)
    if len(names) != 2:
        raise SpecificationError(asked, f"the domains {listed(names)}", "two", "name two domains")
    chosen = _middle(features) if sites is None else list(sites)
    if not chosen:
        raise SampleError(
            asked, "no site in the middle layers", "a site from a third to two thirds of the depth",
            "collect one, or name `sites`",
        )  # fmt: skip
    frame = features.frame
    deals = [artist_halves(frame, names, seed=seed, split=split) for split in range(n_splits)]
    classes = halved_classes(frame, deals, names)
    if len(classes) < LEAST_CLASSES:
        raise SampleError(
            asked, f"{len(classes)} classes by two artists in both domains",
            f"at least {LEAST_CLASSES}", "give more classes, or pictures by more artists",
        )  # fmt: skip
    code = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
    found = np.mean(
        [[_one_deal(features.values[site], frame, names, code, deal) for deal in deals]
         for site in chosen], axis=0,
    )  # fmt: skip
    value, null, ceiling = found.mean(axis=0)[:3]
    used = frame["domain"].isin(names).to_numpy() & np.isin(code, range(len(classes)))
    counted = frame[used].assign(code=code[used]).groupby("code")
    rows = pd.DataFrame(
        {
            "measure": MEASURE,
            "band": "middle",
            "domain_a": names[0],
            "domain_b": names[1],
            "label": classes,
            "value": value,
            "null": null,
            "null_kind": "contrasts of the other classes",
            "ceiling": ceiling,
            "ceiling_kind": "geometric mean of the cosines within each domain, halves of artists",
            "beyond": value - null,
            "half_1": found[0, 3],
            "half_2": found[0, 4],
            "n_pictures": counted.size().to_numpy(),
            "n_drawings": [n_drawings(part) for _, part in counted],
            "seed": seed,
            "reason": "",
        }
    )
    return Table("class_sharing", rows, {"sites": chosen, "n_splits": n_splits})


def _middle(features: Features) -> list[str]:
    depths = {site: features.depth(site) for site in features.sites if site != LAST}
    return [site for site, depth in depths.items() if band_of(depth) == "middle"]


def _one_deal(
    x: np.ndarray, frame: pd.DataFrame, names: Sequence[str], code: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """Value, null, ceiling and both halves of every class: "5 class"."""
    domain = frame["domain"].to_numpy(object)
    units = {}
    for place, name in enumerate(names):
        for half in (0, 1):
            rows = np.flatnonzero((domain == name) & (deal == half) & (code >= 0))
            own = class_directions(x[rows], code[rows], shrunk=False)
            lengths = np.linalg.norm(own, axis=1, keepdims=True)
            units[place, half] = own / np.maximum(lengths, 1e-300)
    across = [units[0, half] @ units[1, 1 - half].T for half in (0, 1)]
    k = len(across[0])
    own = np.array([np.diag(each) for each in across])
    others = np.array([(each.sum(axis=0) + each.sum(axis=1) - 2 * np.diag(each)) / (2 * (k - 1))
                       for each in across])  # fmt: skip
    within = [np.maximum((units[place, 0] * units[place, 1]).sum(axis=1), 0) for place in (0, 1)]
    return np.array([own.mean(axis=0), others.mean(axis=0), np.sqrt(within[0] * within[1]),
                     *(own - others)])  # fmt: skip
