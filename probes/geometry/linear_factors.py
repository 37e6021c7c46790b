"""Linear factors: how far class and domain add up in the features, and in how many directions.

The theory that compositional generalization needs representations of this kind (Uselis et al. 2026)
predicts it from linearity, rank and orthogonality; the angle of both effects stands in the table
`factorisation`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from interp.core.artists import artist_column
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence, counts_of
from interp.core.statistics.index_of_sharing import Index, sharing_index
from interp.core.statistics.resampling import jackknife, max_t
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains, varies
from interp.probes.geometry.cell_products import (
    CellLayout,
    CellProducts,
    ShrunkCovariance,
    dealt_cells,
)

LINEARITY, WHITENED = "linearity", "linearity, whitened"
CLASS_RANK, DOMAIN_RANK = "effective rank of class effects", "effective rank of domain effects"
LINEARITIES, RANKS = (LINEARITY, WHITENED), (CLASS_RANK, DOMAIN_RANK)

ESTIMANDS = {
    LINEARITY: "share of the variance between cells (class in domain) that class plus domain give",
    CLASS_RANK: "number of equally strong directions that class effects amount to",
    DOMAIN_RANK: "number of equally strong directions that domain effects amount to",
}
ESTIMANDS[WHITENED] = f"{ESTIMANDS[LINEARITY]}, in units of the spread within cells"
WIDEST = 1 / 3
"""Standard error of a share beyond which it says nothing."""

CEILINGS = dict.fromkeys(LINEARITIES, "effects that add up")
CEILINGS |= {CLASS_RANK: "the number of features", DOMAIN_RANK: "one less than domains"}
CELL_RANK = "random effects, of the pictures' variation within a class and domain"
ONE_DIRECTION = "two domains differ in one direction"


@door
def linear_factors(
    features: Features,
    sites: str | Iterable[str] | None = None,
    *,
    domains: Sequence[str] | None = None,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Measure at each site how far class and domain effects add up, and their effective rank.

        linearity = (class + domain) / (class + domain + interaction)
        rank      = (tr S)^2 / tr S^2

    with the variances of `factorisation`, and S the covariance of class (or domain) effects. Both
    come from products of halves of the artists, so that noise adds nothing to them.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains of the analysis; None takes all.
        n_splits: Deals of artists that are averaged.
        n_permutations: Permutations of classes within domains, for p of linearity.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with four rows per site (`measure`): linearity, linearity of whitened features, and
        the effective ranks of class and of domain effects.

    Raises:
        SampleError: For fewer than two domains, or fewer than five classes with pictures by two
            artists in each of them.
        DataError: For an unknown domain, or a picture without a label.
        SpecificationError: For a domain named twice.
        SiteError: For a site that the features do not have.

    References:
        The theory: Uselis et al. 2026, arXiv 2602.24264, whose linearity is the share of a
        picture's variance; here it is that of the cells' means, so that pictures may differ within
        a cell as they like. The effective rank is the participation ratio.

    Notes:
        - Linearity is 1 where every class has one effect in all domains. Its null permutes classes
          within each domain, exactly: then class effects are the domains' own, and of the variance
          between classes 1 / domains still adds up. p is by max-T over sites. So its index is that
          of the row "class" in `factorisation`; whitening makes the difference.
        - Whitened features have the same spread in every direction within a cell (covariance shrunk
          by Ledoit and Wolf 2004), so that a direction counts by what can be told along it.
        - A rank of r is that of r equally strong directions. Classes are a sample, of which the
          rank of the population is estimated, at most the number of features; domains are taken as
          they are, at most one less than there are. The null are as many random effects, drawn from
          the pictures' own variation within a cell. There is no index or p: it is no question of
          sharing. The theory asks for a rank below its null.
        - Intervals leave one class out at a time.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 3))[place] @ generator.normal(size=(3, 16))
    >>> points = points + 0.1 * generator.normal(size=points.shape)
    >>> table = linear_factors(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame.set_index("measure")["value"].round(1)[:2].tolist()
    [1.0, 1.0]
    """
    chosen = features.only(sites)
    names = check_domains(chosen, domains, "factorise features")
    frame = chosen.frame
    classes, layouts = dealt_cells(frame, names, n_splits=n_splits, seed=seed)
    found = [
        _Site.of(chosen.values[site], layouts, n_permutations, seed)
        for site in track(chosen.sites, "linear factors")
    ]
    p = {
        measure: max_t(
            np.array([each.drawn[measure][0] for each in found]),
            np.stack([each.drawn[measure][1:] for each in found], axis=1),
        )
        for measure in LINEARITIES
    }
    used = np.isin(np.arange(len(frame)), np.concatenate([each.rows for each in layouts]))
    counts = counts_of(frame[used], len(classes))
    nulls = dict.fromkeys(
        LINEARITIES,
        "classes permuted within each domain, exact mean; p adjusted by max-T over sites",
    ) | dict.fromkeys(RANKS, CELL_RANK)
    rows = []
    for place, (site, each) in enumerate(zip(chosen.sites, found, strict=True)):
        where = chosen.place(site, control)
        for measure in (*LINEARITIES, *RANKS):
            about = Evidence(
                estimand=ESTIMANDS[measure],
                null_kind=nulls[measure],
                ceiling_kind=CEILINGS[measure],
                seed=seed,
                **counts,
            )
            adjusted = float(p[measure][place]) if measure in p else np.nan
            rows.append({"measure": measure} | where | each.row(measure, about, adjusted))
    facts = {**features.facts, "domains": names, "halves by": artist_column(frame)}
    facts |= {"n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("linear_factors", pd.DataFrame(rows), facts)


@dataclass(frozen=True)
class _Site:
    """One site: value, null and ceiling by measure, "left 3" (all classes, then each left out),
    class effects as they are and under permutations, and why a measure has no number."""

    terms: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    reasons: dict[str, str]

    @staticmethod
    def of(
        values: np.ndarray, layouts: Sequence[CellLayout], n_permutations: int, seed: int
    ) -> "_Site":
        n = layouts[0].n[0]
        rows = values[layouts[0].rows]
        if not varies(rows - rows.mean(axis=0), float(np.abs(rows).max(initial=0.0))):
            nothing = np.full((1 + n, 3), np.nan)
            return _Site(
                dict.fromkeys((*LINEARITIES, *RANKS), nothing),
                dict.fromkeys(LINEARITIES, np.zeros(1 + n_permutations)),
                dict.fromkeys((*LINEARITIES, *RANKS), "constant features"),
            )
        terms, drawn, reasons = {}, {}, {}
        plain = [_Sums.of(values, layout, n_permutations, seed, whole=True) for layout in layouts]
        white = [
            _Sums.of(whitened(values, layout), layout.alone, n_permutations, seed)
            for layout in layouts
        ]
        for measure, sums in zip(LINEARITIES, (plain, white), strict=True):
            terms[measure], drawn[measure], why = _linearity(sums, layouts[0].n[1])
            reasons |= {measure: why} if why else {}
        total, square = np.mean([each.within for each in plain], axis=0)
        n_domains, width = layouts[0].n[1], values.shape[1]
        some = square + (square + total**2) / (n_domains - 1)  # of as many random effects
        sizes = {
            CLASS_RANK: ([each.class_sizes for each in plain], _rank(total, square), width),
            DOMAIN_RANK: ([each.domain_sizes for each in plain], _rank(total, some), n_domains - 1),
        }
        for measure, (found, null, most) in sizes.items():
            size, square = np.mean(found, axis=0).T
            blank = np.ones_like(size)
            terms[measure] = np.column_stack([_rank(size, square), null * blank, most * blank])
            small = not size[0] > 3 * jackknife(float(size[0]), size[1:]).error
            if most == 1:
                reasons[measure] = ONE_DIRECTION
            elif small or not square.min() > 0:
                name = measure.removeprefix("effective rank of ")
                reasons[measure] = f"{name} are below 3 standard errors: they have no rank"
        return _Site(terms, drawn, reasons)

    def row(self, measure: str, about: Evidence, p: float) -> dict[str, object]:
        """The evidence columns of one measure."""
        reason, terms = self.reasons.get(measure, ""), self.terms[measure]
        value = float(terms[0, 0]) if not reason else np.nan
        spread = jackknife(value, terms[1:, 0] if not reason else np.full(len(terms) - 1, np.nan))
        index: Index = NO_VERDICT
        if measure in LINEARITIES and not reason:
            index = sharing_index(*map(float, terms[0]), left_out=terms[1:])
            index = Index(index.value, index.low, index.high, "", index.reason)
        null, ceiling = map(float, terms[0, 1:])
        return about.row(
            spread,
            null=null,
            ceiling=ceiling,
            index=index,
            p=np.nan if reason else p,
            reason=reason,
        )


@dataclass(frozen=True)
class _Sums:
    """What one deal says, without its pictures: effects "left 3", class effects under permutations,
    and tr S and tr S^2 of classes and domains "left 2" and within cells."""

    effects: np.ndarray
    moved: np.ndarray
    class_sizes: np.ndarray
    domain_sizes: np.ndarray
    within: np.ndarray

    @staticmethod
    def of(
        values: np.ndarray,
        layout: CellLayout,
        n_permutations: int,
        seed: int,
        *,
        whole: bool = False,
    ) -> "_Sums":
        """With `whole`, sizes as well; else these are empty."""
        products, none = CellProducts.of(values, layout), np.empty(0)
        return _Sums(
            products.effects()[:, :3],
            products.permuted_classes(n_permutations, seed),
            products.angle()[:, 3:] if whole else none,
            products.domain_sizes() if whole else none,
            products.sizes_within() if whole else none,
        )


def whitened(values: np.ndarray, layout: CellLayout) -> np.ndarray:
    """The layout's pictures, with one spread in every direction within a class and domain."""
    x = values[layout.rows].astype(np.float64)
    counts = np.bincount(layout.cell)
    means = np.zeros((len(counts), x.shape[1]))
    np.add.at(means, layout.cell, x)
    inner = x - (means / np.maximum(counts, 1)[:, None])[layout.cell]
    return ShrunkCovariance.of(inner).times(x - x.mean(axis=0), power=-0.5)


def _linearity(found: Sequence[_Sums], n_domains: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Value, null and ceiling, "left 3"; class effects, as they are and with classes permuted in
    each domain, which the value grows with; and why there is no value."""
    sums = np.mean([each.effects for each in found], axis=0)
    by_class, by_domain, both = sums.T
    between = sums.sum(axis=1)
    null = by_domain + (by_class + both) / n_domains
    terms = np.column_stack([(by_class + by_domain) / between, null / between, between / between])
    moved = np.mean([each.moved for each in found], axis=0)
    error = jackknife(float(terms[0, 0]), terms[1:, 0]).error
    why = "" if between[0] > 0 and error < WIDEST else "cells differ too little for a share"
    return terms, np.append(by_class[0], moved), why


def _rank(size: ArrayLike, square: ArrayLike) -> np.ndarray:
    """The number of equally strong directions with this tr S and tr S^2; NaN for none."""
    size, square = np.asarray(size, dtype=float), np.asarray(square, dtype=float)
    return np.divide(size**2, square, out=np.full_like(size, np.nan), where=square > 0)
