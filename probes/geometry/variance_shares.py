"""Factorisation of features into class and domain effects: shares of variance, and their angle.

A picture's features are split as mean + class + domain + interaction + residual, a two-way analysis
of variance. Products of two halves of the pictures that share no artist hold no noise, so a share
that is not there is 0 on average.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, artist_halves, halved_classes
from interp.core.errors import SampleError, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence, counts_of
from interp.core.statistics.index_of_sharing import CANNOT_TELL, Index, sharing_index
from interp.core.statistics.resampling import jackknife, max_t
from interp.core.tables import Table
from interp.probes.features.matrices import PIXELS, Features, check_domains
from interp.probes.representational_similarity.kernel_alignment import u_centred
from interp.probes.representational_similarity.rows import varies

LEAST_CLASSES = 5
"""Four for unbiased products of classes, and one to leave out."""

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
    chosen = features if sites is None else features.only(sites)
    names = check_domains(chosen, domains, "factorise features")
    frame = chosen.frame
    deals = [artist_halves(frame, names, seed=seed, split=split) for split in range(n_splits)]
    classes = halved_classes(frame, deals, names)
    _refuse_few(classes, names)
    layouts = [_Layout.of(frame, deal, classes, names) for deal in deals]
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
    counts = {**counts_of(frame[used], len(classes)), "seed": seed}
    rows = []
    for place, (site, each) in enumerate(zip(chosen.sites, found, strict=True)):
        where = {"site": site, "layer": chosen.layer(site), "depth": chosen.depth(site)}
        where["control"] = "pixels" if site == PIXELS else control
        for factor in (*SHARES, "class and domain"):
            adjusted = float(p[factor][place]) if factor in p else np.nan
            row = each.row(factor, adjusted, names, counts)
            rows.append({"measure": row.pop("measure"), "factor": factor} | where | row)
    facts = {**features.facts, "domains": names, "halves by": artist_column(frame)}
    facts |= {"n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("factorisation", pd.DataFrame(rows), facts)


def _refuse_few(classes: Sequence[str], names: Sequence[str]) -> None:
    if len(names) < 2 or len(classes) < LEAST_CLASSES:
        raise SampleError(
            f"factorise {listed(names)}",
            f"{len(names)} domains and {len(classes)} classes with pictures by two artists in each",
            f"at least two domains and {LEAST_CLASSES} classes",
            "give more classes, or leave a domain out that has few",
        )


@dataclass(frozen=True)
class _Layout:
    """The pictures of one deal: their rows, cells (half, class, domain) and classes."""

    rows: np.ndarray
    cell: np.ndarray
    label: np.ndarray
    n: tuple[int, int]

    @staticmethod
    def of(
        frame: pd.DataFrame, deal: np.ndarray, classes: list[str], names: list[str]
    ) -> "_Layout":
        label = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
        domain = pd.Index(names).get_indexer(frame["domain"].to_numpy(object))
        rows = np.flatnonzero((deal >= 0) & (label >= 0) & (domain >= 0))
        n = len(classes), len(names)
        cell = (deal[rows].astype(int) * n[0] + label[rows]) * n[1] + domain[rows]
        return _Layout(rows, cell, label[rows], n)


@dataclass(frozen=True)
class _Products:
    """Inner products of one deal from which everything follows, with any class left out.

    gram: half-1 by half-2 cell means, "class domain class domain"; square: mean |x|^2 "class";
    along: residuals on both halves' class means, "half picture class"; spread: residual |r|^2
    "picture"; label "picture". `degrees`: pictures less cells.
    """

    gram: np.ndarray
    square: np.ndarray
    along: np.ndarray
    spread: np.ndarray
    label: np.ndarray
    residual: np.ndarray

    @staticmethod
    def of(values: np.ndarray, layout: _Layout) -> "_Products":
        x = values[layout.rows].astype(np.float64)
        x -= x.mean(axis=0)
        n_classes, n_domains = layout.n
        counts = np.bincount(layout.cell, minlength=2 * n_classes * n_domains)
        order = np.argsort(layout.cell, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        means = np.add.reduceat(x[order], starts, axis=0) / counts[:, None]
        square = np.bincount(layout.cell, (x**2).sum(axis=1)) / counts
        residual = x - means[layout.cell]
        # a mean takes 1 / n of its own cell's variance out of the residuals
        residual *= np.sqrt(counts / np.maximum(counts - 1, 1))[layout.cell][:, None]
        residual /= np.sqrt(counts[layout.cell])[:, None]  # cells count equally
        cells = means.reshape(2, n_classes, n_domains, -1)
        shape = (n_classes, n_domains, n_classes, n_domains)
        flat = means.reshape(2, n_classes * n_domains, -1)
        return _Products(
            (flat[0] @ flat[1].T).reshape(shape),
            square.reshape(2, n_classes, n_domains).mean(axis=(0, 2)),
            np.stack([residual @ cells[half].mean(axis=1).T for half in (0, 1)]),
            (residual**2).sum(axis=1),
            layout.label,
            residual,
        )

    def effects(self, keep: np.ndarray) -> np.ndarray:
        """Mean squared class, domain and interaction effects, and the total, of some classes."""
        gram = self.gram[keep][:, :, keep]
        everything = gram.mean()
        by_class = np.einsum("cdce->c", gram).mean() / gram.shape[1] ** 2
        by_domain = np.einsum("cdkd->d", gram).mean() / len(keep) ** 2
        by_cell = np.einsum("cdcd->", gram) / (len(keep) * gram.shape[1])
        interaction = by_cell - by_class - by_domain + everything
        total = self.square[keep].mean() - everything
        return np.array([by_class - everything, by_domain - everything, interaction, total])

    def own(self, keep: np.ndarray) -> np.ndarray:
        """Mean squared class effects within each domain, of some classes."""
        within = np.einsum("cdkd->dck", self.gram[keep][:, :, keep])
        return np.einsum("dcc->d", within) / len(keep) - within.mean(axis=(1, 2))

    def angle(self, keep: np.ndarray) -> np.ndarray:
        """beta'S beta summed, tr S W, tr W, tr S and tr S^2, of some classes."""
        n = len(keep)
        gram = self.gram[keep][:, :, keep]
        classes = gram.mean(axis=(1, 3))
        meet = _centred(gram.mean(axis=(1, 2))) * _centred(gram.mean(axis=(0, 3)).T)
        held = np.isin(self.label, keep)
        along = self.along[:, held][:, :, keep]
        along = along - along.mean(axis=2, keepdims=True)
        effect = np.trace(classes) - classes.mean() * n
        square = (u_centred(classes) * u_centred(classes.T)).sum() / (n * (n - 3))
        through = (along[0] * along[1]).sum()
        sums = [meet.sum() / gram.shape[1], through, self.spread[held].sum() * (n - 1), effect]
        return np.array([*(each / (n - 1) for each in sums), square])

    def permuted(self, n_permutations: int, seed: int) -> dict[str, np.ndarray]:
        """Class and domain effects with classes permuted in each domain, domains in each class."""
        n, n_domains = self.gram.shape[:2]
        orders, turns = _exchanges(n, n_domains, n_permutations, seed)
        domain = np.arange(n_domains)
        met = self.gram[orders[:, :, :, None], domain[:, None], orders[:, :, None, :], domain]
        # which cells stand in a domain's place, as ones: "permutation domain cell"
        cells = np.arange(n) * n_domains + turns.swapaxes(1, 2)
        chosen = np.zeros((n_permutations * n_domains, n * n_domains))
        np.put_along_axis(chosen, cells.reshape(len(chosen), n), 1.0, axis=1)
        gram = self.gram.reshape(n * n_domains, n * n_domains)
        moved = np.einsum("pc,pc->p", chosen @ gram, chosen).reshape(n_permutations, n_domains)
        everything = self.gram.mean()
        return {
            "class": met.mean(axis=(1, 2, 3)) - everything,
            "domain": moved.mean(axis=1) / n**2 - everything,
        }

    def random_angles(self, n_draws: int, n_domains: int, seed: int) -> np.ndarray:
        """g'S g / g'g of random directions g within cells, as many at a time as domain effects."""
        weights = rng("directions within cells", seed).normal(
            size=(n_draws, n_domains - 1, len(self.spread))
        )
        along = weights @ (self.along - self.along.mean(axis=2, keepdims=True))[:, None]
        through = (along[0] * along[1]).sum(axis=(1, 2)) / (self.gram.shape[0] - 1)
        length = ((weights @ self.residual) ** 2).sum(axis=(1, 2))
        return np.divide(through, length, out=np.zeros_like(through), where=length > 0)


@lru_cache(maxsize=4)
def _exchanges(
    n: int, n_domains: int, n_permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orders of the classes within domains, and of the domains within classes.

    Both are "permutation class domain".
    """
    generator = rng("class permutations in each domain", seed)
    orders = np.empty((n_permutations, n, n_domains), dtype=np.intp)
    turns = np.empty_like(orders)
    for place in range(n_permutations):
        for domain in range(n_domains):
            orders[place, :, domain] = generator.permutation(n)
        turns[place] = np.argsort(generator.random((n, n_domains)), axis=1)
    return orders, turns


def _centred(table: np.ndarray) -> np.ndarray:
    """A table less its row and column means."""
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    return table - rows - columns + table.mean()


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
        values: np.ndarray, layouts: Sequence[_Layout], n_permutations: int, seed: int
    ) -> "_Site":
        n, n_domains = layouts[0].n
        subsets = [np.arange(n), *(np.delete(np.arange(n), c) for c in range(n))]
        sums: list[np.ndarray] = []
        drawn: list[dict[str, np.ndarray]] = []
        angles = np.empty(0)
        for layout in layouts:
            products = _Products.of(values, layout)
            sums.append(
                np.array(
                    [
                        [*products.effects(keep), *products.angle(keep), *products.own(keep)]
                        for keep in subsets
                    ]
                )
            )
            drawn.append(products.permuted(n_permutations, seed))
            if not angles.size:
                angles = products.random_angles(199, n_domains, seed)
        mean = np.mean(sums, axis=0)
        rows = values[layouts[0].rows]
        constant = not varies(rows - rows.mean(axis=0), float(np.abs(rows).max(initial=0.0)))
        return _Site(
            mean[0], mean[1:],
            {"class": float(mean[0, 0]), "domain": float(mean[0, 1])},
            {name: np.mean([each[name] for each in drawn], axis=0) for name in ("class", "domain")},
            angles, constant,
        )  # fmt: skip

    def row(
        self, factor: str, p: float, names: Sequence[str], counts: dict[str, Any]
    ) -> dict[str, object]:
        """The evidence columns of one factor."""
        everything = np.vstack([self.found, self.left])
        n_classes = len(self.left) - np.r_[0, np.ones(len(self.left))]
        overlap = factor == "class and domain"
        if overlap:
            value, null, ceiling, reason = _overlap(everything)
            p = self._angle_p()
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
            index = Index(np.nan, np.nan, np.nan, CANNOT_TELL, alike)
        if overlap:  # an angle is no question of sharing
            index = Index(index.value, index.low, index.high, "", index.reason)
        about = Evidence(
            estimand=ESTIMANDS[factor], null_kind=NULLS[factor],
            ceiling_kind=CEILINGS.get(factor, "none"), **counts,
        )  # fmt: skip
        null, ceiling = float(null[0]) + missing, float(ceiling[0]) + missing
        return {"measure": "squared cosine" if overlap else "share of variance"} | about.row(
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

    def _angle_p(self) -> float:
        """Share of random directions within cells that lie along class effects at least so much."""
        meet, domain = self.found[4], self.found[1]
        return float((1 + (self.angles * domain >= meet).sum()) / (1 + len(self.angles)))


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
