"""Directions in which classes differ from the others, compared between two domains.

This is the second measure of rung R3, beside probe transfer. It asks about the direction alone,
whatever the scale and place of the classes along it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, n_drawings
from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.sites import LAST, band_of
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import class_permutations, max_t
from interp.core.tables import Table
from interp.probes.features.features import PIXELS, Features, check_domains
from interp.probes.geometry.cell_products import ShrunkCovariance
from interp.probes.representational_similarity.halved_pairs import HalvedPair, refuse_few_classes

MEAN_DIFFERENCE, DISCRIMINANT = "cosine of mean differences", "cosine of LDA directions"

LEAST_CLASSES = 4
ESTIMAND = "how far a class differs from the others in one direction in two domains (rung R3)"


@door
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

        value   = cos(A_1, B_2), averaged with cos(A_2, B_1)
        ceiling = sqrt(cos(A_1, A_2) cos(B_1, B_2)), equal n
        null    = mean over permutations of B's classes, exactly
        index   = (value - null) / (ceiling - null)

    with cosines averaged over classes and over `n_splits` deals of artists into halves 1 and 2.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains to compare, pair by pair; None takes all.
        n_splits: Deals of artists that are averaged.
        n_permutations: Permutations of whole classes for p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site, pair of domains and kind of direction (`measure`): mean
        difference and LDA. A pair of domains with too few classes is a row with a `reason`, and so
        is LDA where a half has one picture per class. `half_1` and `half_2` are value - null from
        A_1 with B_2, and from A_2 with B_1, of the first deal; they have no picture in common.

    Raises:
        SampleError: Where no pair of domains has four classes by two artists in both.
        DataError: For an unknown domain, or a picture without a label.
        SpecificationError: For a domain named twice.
        SiteError: For a site that the features do not have.

    References:
        The shrunk covariance: Ledoit and Wolf 2004.

    Notes:
        - The mean difference is a class's mean less the mean of all classes. LDA is that, times the
          inverse of the within-class covariance, which is shrunk and estimated where the means are.
        - Directions are fitted in half 1 of A's artists and half 2 of B's, or the reverse, so no
          drawing meets itself.
        - Noise in the estimates shrinks every cosine. The ceiling shrinks as the value does, so the
          index is the cosine of the true directions. It is not clipped.
        - LDA's direction is where a class is told from the others under a domain's own noise. Two
          domains whose noise differs in shape have different ones, though their class means lie
          alike, and the more so the better the noise is known; the mean difference stands beside.
        - Intervals leave one class out at a time, of the whole index; the covariance keeps the
          class. p permutes whole classes of B and is adjusted by max-T over the sites of a pair and
          kind.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> table = directions(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame["verdict"].tolist()
    ['shared', 'shared']
    """
    chosen = features.only(sites)
    names = check_domains(chosen, domains, "compare directions")
    pairs = [_pair(chosen, a, b, n_splits, seed) for a, b in combinations(names, 2)]
    refuse_few_classes(
        [len(pair.classes) for pair in pairs],
        LEAST_CLASSES,
        f"compare directions between {listed(names)}",
    )
    rows: list[dict[str, object]] = []
    fitted = _Fitted(chosen)
    for pair in track(pairs, "directions"):
        for kind in (MEAN_DIFFERENCE, DISCRIMINANT):
            rows += _rows(fitted, pair, kind, n_permutations, seed)
    frame = pd.DataFrame(rows)
    frame["control"] = np.where(frame["site"] == PIXELS, "pixels", control)
    facts = {**features.facts, "n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("directions", frame, facts)


def _pair(features: Features, a: str, b: str, n_splits: int, seed: int) -> HalvedPair:
    """Two domains in halves; the artists of all domains are dealt, whichever two are compared."""
    among = features.domains
    return HalvedPair.of(features.frame, a, b, n_splits=n_splits, seed=seed, among=among)


@dataclass(frozen=True)
class _Cosines:
    """At one site: cosines of A's classes with B's, "class class", and what the index is made of.

    terms: value, null and the cosines between the halves of A and of B, "left 4": of all classes,
    then with each left out. halves: value - null from A_1 with B_2, and from A_2 with B_1, of the
    first deal.
    """

    across: np.ndarray
    terms: np.ndarray
    halves: np.ndarray
    reason: str = ""

    @classmethod
    def nothing(cls, k: int, reason: str) -> "_Cosines":
        across, terms, halves = (np.full(shape, np.nan) for shape in ((k, k), (1 + k, 4), (2,)))
        return cls(across, terms, halves, reason)

    @property
    def evidence(self) -> np.ndarray:
        """Value, null and ceiling, "left 3"."""
        # 0 where a half says nothing about the other, which refuses the index
        ceiling = np.sqrt(np.maximum(self.terms[:, 2:], 0).prod(axis=1))
        return np.column_stack([self.terms[:, :2], ceiling])


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
    return ShrunkCovariance.of(rows - means[code]).times(found, power=-1)


class _Fitted:
    """Directions of the classes by site, kind and pictures, each found once for all pairs."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.known: dict[tuple[str, bool, bytes, bytes], tuple[np.ndarray, bool]] = {}

    def __call__(
        self, site: str, rows: np.ndarray, code: np.ndarray, *, shrunk: bool
    ) -> tuple[np.ndarray, bool]:
        """The directions "class feature", and whether classes differ by more than rounding."""
        key = (site, shrunk, rows.tobytes(), code.tobytes())
        if key not in self.known:
            x = self.features.values[site][rows]
            found = class_directions(x, code, shrunk=shrunk)
            lengths = np.linalg.norm(found, axis=1)  # a zero direction has no cosine
            varies = lengths.min() > 0 and np.ptp(x, axis=0).max() > 1e-7 * np.abs(x).max()
            self.known[key] = found, bool(varies)
        return self.known[key]


def _cosines(fitted: _Fitted, site: str, pair: HalvedPair, *, shrunk: bool) -> _Cosines:
    """All cosines at a site, averaged over deals."""
    k, n = len(pair.classes), len(pair.deals)
    across, terms, halves, reason = np.zeros((k, k)), np.zeros((1 + k, 4)), np.zeros(2), ""
    for split in range(n):
        found = {}
        for (place, name), half in product(enumerate((pair.a, pair.b)), (0, 1)):
            rows = pair.rows(name, split, half)
            found[place, half], varies = fitted(site, rows, pair.code[rows], shrunk=shrunk)
            if not varies:
                single = "one picture per class in a half, two are needed for a covariance"
                reason = single if shrunk and len(rows) == k else f"constant features in {name}"
        if reason:
            return _Cosines.nothing(k, reason)
        for half in (0, 1):
            met, left = _meet(found[0, half], found[1, 1 - half])
            across, terms[:, :2] = across + met / 2, terms[:, :2] + left / 2
            if split == 0:
                halves[half] = left[0, 0] - left[0, 1]
        for place in (0, 1):
            terms[:, 2 + place] += _meet(found[place, 0], found[place, 1])[1][:, 0]
    return _Cosines(across / n, terms / n, halves)


def _meet(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines "class class"; their mean over classes and its null, "left 2"."""
    one, two = (each - each.mean(axis=0) for each in (one, two))
    across = one @ two.T
    scales = [_over_lengths(each @ each.T) for each in (one, two)]
    whole = across * np.outer(scales[0][0], scales[1][0])
    k = len(one)
    # without a class, directions are centred over the others: rows and columns change by their mean
    n, out = k - 1, np.diagonal(across)
    rows = -across.T / n  # "left class": of a row's products, the one with the class left out
    columns = -across / n
    shift = out / n**2  # all products sum to 0
    u, v = (scale[1:] for scale in scales)
    own = out - rows - columns + shift[:, None]
    mean = (own * u * v).sum(axis=1) / n
    total = np.einsum("li,ij,lj->l", u, across, v, optimize=True)
    total -= (u * rows).sum(axis=1) * v.sum(axis=1) + u.sum(axis=1) * (v * columns).sum(axis=1)
    total += shift * u.sum(axis=1) * v.sum(axis=1)
    ends = [np.trace(whole) / k, whole.mean()]
    return whole, np.vstack([ends, np.column_stack([mean, total / n**2])])


def _over_lengths(gram: np.ndarray) -> np.ndarray:
    """One over the lengths of centred directions, "left class": of all, then without each class.

    Of a class that is left out, 0.
    """
    k, squares = len(gram), np.diagonal(gram)
    n = k - 1
    left = squares + 2 * gram.T / n + (squares / n**2)[:, None]
    scale = 1 / np.sqrt(np.maximum(np.vstack([squares, left]), 1e-300))
    scale[1:][np.diag_indices(k)] = 0.0
    return scale


def _rows(
    fitted: _Fitted, pair: HalvedPair, kind: str, n_permutations: int, seed: int
) -> list[dict[str, object]]:
    """Table rows of one domain pair and kind of direction: all sites, one family for p."""
    features = fitted.features
    k, few = len(pair.classes), pair.too_few(LEAST_CLASSES)
    cells = [
        _Cosines.nothing(k, few)
        if few
        else _cosines(fitted, site, pair, shrunk=kind == DISCRIMINANT)
        for site in features.sites
    ]
    p = np.full(len(cells), np.nan)
    good = np.array([not cell.reason for cell in cells])
    if good.any():
        across = np.stack([cell.across for cell in cells if not cell.reason])
        orders = class_permutations(k, n_permutations, seed)
        drawn = across[:, np.arange(k), orders].mean(axis=2).T
        p[good] = max_t(np.diagonal(across, axis1=1, axis2=2).mean(axis=1), drawn)
    about = Evidence(
        estimand=ESTIMAND,
        seed=seed,
        null_kind="whole classes of domain_b permuted: exact mean; p from "
        f"{n_permutations} permutations, max-T over sites",
        ceiling_kind="geometric mean of the cosines within each domain; halves by "
        f"{artist_column(features.frame)}, equal n",
        **pair.counts,
    )
    return [
        {"measure": kind, "site": site}
        | {"layer": features.layer(site), "depth": features.depth(site)}
        | {"domain_a": pair.a, "domain_b": pair.b}
        | about.with_verdict(
            cell.evidence, p=float(each), refused=cell.reason, notes=[] if few else [pair.fewer]
        )
        | dict(zip(("half_1", "half_2"), cell.halves.tolist(), strict=True))
        for site, cell, each in zip(features.sites, cells, p, strict=True)
    ]


MEASURE = "cosine of a class's mean difference"


@door
def class_cosines(
    features: Features,
    domains: Sequence[str],
    *,
    sites: Iterable[str] | None = None,
    n_splits: int = 5,
    seed: int = 0,
) -> Table:
    """Measure the sharing of each class between two domains beyond that of other classes.

        value   = cos_cc           (mean of A_1 with B_2 and A_2 with B_1)
        null    = mean of cos_cd and cos_dc over the other classes d
        beyond  = value - null     the class's sharing
        half_1, half_2 = the same from A_1 with B_2, and from A_2 with B_1, of the first deal
        ceiling = sqrt(cos(A_1, A_2) cos(B_1, B_2)), equal n

    with cos_cd the cosine of c's contrast in A and d's in B. A class's contrast is its mean less
    the mean of all classes, in one half of a domain's artists.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        domains: The two domains.
        sites: Names of sites that are averaged; None takes those of the middle layers (a third to
            two thirds of the depth), never the final embedding.
        n_splits: Deals of artists that are averaged; the two halves are of the first.
        seed: Seed of the deals.

    Returns:
        A table with a row per class.

    Raises:
        SpecificationError: For other than two domains.
        SampleError: For fewer than four classes by two artists in both domains, or no site in the
            middle layers.
        DataError: For an unknown domain, or a picture without a label.
        SpecificationError: For a domain named twice.

    Notes:
        `half_1` and `half_2` have no picture in common: drawings that are seen in A in one are seen
        in B in the other. What the two agree in is therefore no noise of pictures.

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
    inner = [site for site in features.sites if site != LAST]
    middle = [site for site in inner if band_of(features.depth(site)) == "middle"]
    chosen = middle if sites is None else list(sites)
    if not chosen:
        given = "no site in the middle layers"
        right = "a site from a third to two thirds of the depth"
        raise SampleError(asked, given, right, "collect one, or name `sites`")
    frame = features.frame
    pair = _pair(features, names[0], names[1], n_splits, seed)
    classes, code = pair.classes, pair.code
    if len(classes) < LEAST_CLASSES:
        given = f"{len(classes)} classes by two artists in both domains"
        right = f"at least {LEAST_CLASSES}"
        raise SampleError(asked, given, right, "give more classes, or pictures by more artists")
    found = np.mean(
        [
            [_one_deal(features.values[site], pair, split) for split in range(n_splits)]
            for site in chosen
        ],
        axis=0,
    )
    value, null, ceiling = found.mean(axis=0)[:3]
    used = frame["domain"].isin(names).to_numpy() & (code >= 0)
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


def _one_deal(x: np.ndarray, pair: HalvedPair, split: int) -> np.ndarray:
    """Value, null, ceiling and both halves of every class: "5 class"."""
    units = {}
    for (place, name), half in product(enumerate((pair.a, pair.b)), (0, 1)):
        rows = pair.rows(name, split, half)
        own = class_directions(x[rows], pair.code[rows], shrunk=False)
        units[place, half] = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-300)
    across = [units[0, half] @ units[1, 1 - half].T for half in (0, 1)]
    k = len(across[0])
    own = np.array([np.diag(each) for each in across])
    others = np.array(
        [
            (each.sum(axis=0) + each.sum(axis=1) - 2 * np.diag(each)) / (2 * (k - 1))
            for each in across
        ]
    )
    within = [np.maximum((units[place, 0] * units[place, 1]).sum(axis=1), 0) for place in (0, 1)]
    return np.array(
        [own.mean(axis=0), others.mean(axis=0), np.sqrt(within[0] * within[1]), *(own - others)]
    )
