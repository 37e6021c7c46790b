"""Factorisation of features into class and domain effects: shares of variance, and their angle.

A picture's features are split as mean + class + domain + interaction + residual, a two-way analysis
of variance. Products of two halves of the pictures that share no artist hold no noise, so a share
that is not there is 0 on average.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from interp.core.artists import artist_column
from interp.core.errors import listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence, counts_of
from interp.core.statistics.index_of_sharing import UNKNOWN, Index, sharing_index
from interp.core.statistics.resampling import jackknife, max_t
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains, varies
from interp.probes.geometry.cell_products import CellLayout, CellProducts, dealt_cells

OWN = 9
"""Sums of a site before those of single domains: four effects and five of their angle."""

SHARES = ("class", "domain", "interaction", "residual")
NULLS = {
    "class": "classes permuted within each domain, exact mean; p adjusted by max-T over sites",
    "domain": "domains permuted within each class, exact mean; p adjusted by max-T over sites",
    "interaction": "no interaction: products of two halves are 0 on average",
    "residual": "none",
    "class and domain": "random directions of the pictures' variation within a class and domain",
}
CEILINGS = {
    "class": "all variance between classes (class and interaction) common to the domains",
    "domain": "all variance between domains (domain and interaction) common to the classes",
    "class and domain": "1: domain effects that point as other classes' effects do, by halves",
}
REASONS = {
    "interaction": "no ceiling and no p: it is what class and domain leave of the cells' variance",
    "residual": "no null and no ceiling: it is the pictures' variance within a class and domain",
}
ESTIMANDS = {
    "class": "share of a picture's variance that its class explains in all domains alike",
    "domain": "share of a picture's variance that its domain explains in all classes alike",
    "interaction": "share of a picture's variance that class and domain explain only jointly",
    "residual": "share of a picture's variance within its class and domain",
    "class and domain": "overlap of the directions of class and domain effects (squared cosine)",
}


@door
def factorisation(
    features: Features,
    sites: str | Iterable[str] | None = None,
    *,
    domains: Sequence[str] | None = None,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Shares of each site's variance by class, domain and both, and the angle of their effects.

        class       = mean_c <alpha_c1, alpha_c2> / total        domain likewise by beta
        interaction = mean_cd <gamma_cd1, gamma_cd2> / total
        total       = mean |x - m|^2, cells counting equally;    residual = what is left

    with m_cd the mean features of class c in domain d, m their mean, and alpha, beta and gamma the
    class, domain and interaction effects, each of which sums to 0. Halves 1 and 2 share no artist,
    and products are averaged over `n_splits` deals.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains of the analysis; None takes all.
        n_splits: Deals of artists that are averaged.
        n_permutations: Permutations of classes within domains, and of domains within classes, for
            p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site and `factor`: class, domain, interaction, residual, and "class
        and domain". Shares are unitless.

    Raises:
        SampleError: For fewer than two domains, or fewer than five classes with pictures by two
            artists in each of them.
        DataError: For an unknown domain, or a picture without a label.
        SpecificationError: For a domain named twice.
        SiteError: For a site that the features do not have.

    Notes:
        - With nothing in common between the domains, class effects average to 1 / domains of the
          variance between classes. That is the null, and all of that variance is the ceiling. So
          the class index is 0 where every domain has class effects of its own, and 1 where there is
          no interaction. Domains likewise, with 1 / classes.
        - p permutes whole classes within domains (domains within classes), by max-T over sites.
        - The row "class and domain" asks whether domain effects lie along class effects. With S the
          covariance of class effects, it is (beta'S beta / beta'beta) / (tr S^2 / tr S), averaged
          over domain effects. 0 is orthogonal; 1 is as aligned as classes are among themselves. In
          an isotropic class subspace it is the squared cosine of the domain effect with that
          subspace. Its null are random directions of the variation within cells, from which p comes
          too; lower than the null is more orthogonal than chance. It is unbiased where cells are
          equally noisy.
        - Intervals leave one class out at a time. Classes without pictures by two artists in every
          domain are left out.
        - Where the classes of one domain do not differ by 3 standard errors there is no class
          index: that domain has nothing to be shared.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> table = factorisation(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame.set_index("factor")["value"].round(1)[["class", "residual"]].tolist()
    [1.0, 0.0]
    """
    chosen = features.only(sites)
    names = check_domains(chosen, domains, "factorise features")
    frame = chosen.frame
    classes, layouts = dealt_cells(frame, names, n_splits=n_splits, seed=seed)
    found = [
        _Site.of(chosen.values[site], layouts, n_permutations, seed)
        for site in track(chosen.sites, "factorisation")
    ]
    p = {
        factor: max_t(
            np.array([each.effects[factor] for each in found]),
            np.stack([each.drawn[factor] for each in found], axis=1),
        )
        for factor in ("class", "domain")
    }
    used = np.isin(np.arange(len(frame)), np.concatenate([each.rows for each in layouts]))
    about = partial(Evidence, seed=seed, **counts_of(frame[used], len(classes)))
    rows = []
    for place, (site, each) in enumerate(zip(chosen.sites, found, strict=True)):
        where = chosen.place(site, control)
        for factor in (*SHARES, "class and domain"):
            adjusted = float(p[factor][place]) if factor in p else np.nan
            row = each.row(factor, adjusted, names, about)
            rows.append({"measure": row.pop("measure"), "factor": factor} | where | row)
    facts = {**features.facts, "domains": names, "halves by": artist_column(frame)}
    facts |= {"n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("factorisation", pd.DataFrame(rows), facts)


@dataclass(frozen=True)
class _Site:
    """What one site says: effects, angle and each domain's own effects, of all classes (`found`)
    and with each class left out (`left`)."""

    found: np.ndarray
    left: np.ndarray
    effects: dict[str, float]
    drawn: dict[str, np.ndarray]
    angles: np.ndarray
    constant: bool

    @staticmethod
    def of(
        values: np.ndarray, layouts: Sequence[CellLayout], n_permutations: int, seed: int
    ) -> "_Site":
        sums: list[np.ndarray] = []
        drawn: dict[str, list[np.ndarray]] = {"class": [], "domain": []}
        angles = np.empty(0)
        for layout in layouts:
            products = CellProducts.of(values, layout)
            sums.append(np.hstack([products.effects(), products.angle(), products.own()]))
            drawn["class"].append(products.permuted_classes(n_permutations, seed))
            drawn["domain"].append(products.permuted_domains(n_permutations, seed))
            if not angles.size:
                angles = products.random_angles(199, layout.n[1], seed)
        mean = np.mean(sums, axis=0)
        rows = values[layouts[0].rows]
        constant = not varies(rows - rows.mean(axis=0), float(np.abs(rows).max(initial=0.0)))
        return _Site(
            mean[0],
            mean[1:],
            {"class": float(mean[0, 0]), "domain": float(mean[0, 1])},
            {name: np.mean(moved, axis=0) for name, moved in drawn.items()},
            angles,
            constant,
        )

    def row(
        self, factor: str, p: float, names: Sequence[str], about: Callable[..., Evidence]
    ) -> dict[str, object]:
        """The evidence columns of one factor."""
        everything = np.vstack([self.found, self.left])
        n_classes = len(self.left) - np.r_[0, np.ones(len(self.left))]
        overlap = factor == "class and domain"
        if overlap:
            value, null, ceiling, reason = _overlap(everything)
            # random directions within cells that lie along class effects at least so much
            meet, domain = self.found[4], self.found[1]
            p = float((1 + (self.angles * domain >= meet).sum()) / (1 + len(self.angles)))
        else:
            value, null, ceiling = _share(factor, everything, len(names), n_classes)
            reason = REASONS.get(factor, "")
        if self.constant:
            reason, p = "constant features", np.nan
        missing = np.nan if self.constant or (overlap and reason) else 0.0
        spread = jackknife(float(value[0]) + missing, value[1:] + missing)
        index = NO_VERDICT
        if factor in CEILINGS and not np.isnan(missing):
            left = np.column_stack([value, null, ceiling])
            index = sharing_index(*map(float, left[0]), left_out=left[1:])
        if factor == "class" and not self.constant and (alike := self._without_classes(names)):
            index = Index(np.nan, np.nan, np.nan, UNKNOWN, alike)
        if overlap:  # an angle is no question of sharing
            index = Index(index.value, index.low, index.high, "", index.reason)
        evidence = about(
            estimand=ESTIMANDS[factor],
            null_kind=NULLS[factor],
            ceiling_kind=CEILINGS.get(factor, "none"),
        )
        null, ceiling = float(null[0]) + missing, float(ceiling[0]) + missing
        return {"measure": "squared cosine" if overlap else "share of variance"} | evidence.row(
            spread, null=null, ceiling=ceiling, index=index, p=p + missing, reason=reason
        )

    def _without_classes(self, names: Sequence[str]) -> str:
        """Which domains' classes do not differ by 3 standard errors."""
        own, left = self.found[OWN:], self.left[:, OWN:]
        alike = [
            name
            for name, value, without in zip(names, own, left.T, strict=True)
            if not value > 3 * jackknife(float(value), without).error
        ]
        return f"classes of {listed(alike)} do not differ by 3 standard errors" if alike else ""


def _share(
    factor: str, sums: np.ndarray, n_domains: int, n_classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, null and ceiling of a share of variance, for all classes and with each left out."""
    total = np.where(sums[:, 3] > 0, sums[:, 3], 1.0)  # constant features have a reason instead
    by = {name: sums[:, place] / total for place, name in enumerate(SHARES[:3])}
    by["residual"] = 1 - by["class"] - by["domain"] - by["interaction"]
    blank = np.full(len(sums), np.nan)
    if factor == "residual":
        return by[factor], blank, blank
    if factor == "interaction":
        return by[factor], np.zeros(len(sums)), blank
    between = by[factor] + by["interaction"]
    return by[factor], between / (n_domains if factor == "class" else n_classes), between


def _overlap(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Value, null and ceiling of the overlap of both effects, or the reason for none."""
    domain, (meet, through, spread, effect, square) = sums[:, 1], sums[:, 4:9].T
    reason = ""
    for name, size in (("domain", domain), ("class", effect)):
        if not size[0] > 3 * jackknife(float(size[0]), size[1:]).error or not square.min() > 0:
            reason = f"{name} effects are below 3 standard errors: they have no direction"
    scale = np.divide(effect, square, out=np.zeros_like(effect), where=square > 0)
    meet = np.divide(meet, domain, out=np.zeros_like(meet), where=domain > 0)
    through = np.divide(through, spread, out=np.zeros_like(through), where=spread > 0)
    return meet * scale, through * scale, np.ones(len(sums)), reason
