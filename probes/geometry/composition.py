"""Composition: whether a class that a domain lacks is found there where both effects add up."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, artist_halves, halved_classes
from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.statistics.evidence_rows import Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import class_permutations, max_t
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains
from interp.probes.geometry.cell_products import CellLayout, ShrunkCovariance

MEASURE = "accuracy of added effects"
LEAST = {"seen": 3, "held-out": 2}
"""Classes of either kind: an offset needs some, and so does an interval."""


@door
def composition(
    features: Features,
    domains: Sequence[str],
    held_out: Sequence[str],
    *,
    sites: str | Iterable[str] | None = None,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Classify pictures of held-out classes by where class and domain effects would put them.

        place of class c in B = mean of c in A + mean over seen classes of (B - A)

    A picture in B gets the class with the nearest place, of all classes, in features of one spread
    in every direction within a class. Places come from one half of the artists, pictures from the
    other.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        domains: A, where all classes are known, and B.
        held_out: Classes whose pictures in B are classified. All others are seen.
        sites: Names or patterns of sites; None takes all.
        n_splits: Deals of artists that are averaged.
        n_permutations: Permutations of which class a place stands for, for p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site: mean over held-out classes of the share of pictures that get
        their class, 0 to 1. The ceiling takes each class's own mean in B for its place; the null
        is that of classes at random. So an index of 1 says that a class that is not trained on in B
        can be read there as well as one that is.

    Raises:
        SampleError: For fewer than three seen classes or two held-out ones that have pictures by
            two artists in both domains.
        DataError: For an unknown domain, or a picture without a label.
        SpecificationError: For other than two domains, or held-out classes without pictures.

    References:
        The prediction of unseen combinations from additive effects: Uselis et al. 2025,
        arXiv 2507.07102.

    Notes:
        p is by max-T over sites. Intervals leave one held-out class out at a time. The covariance
        within classes is that of the pictures that places come from, but for those of held-out
        classes in B; it is shrunk (Ledoit and Wolf 2004).

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> points = points + 3 * (frame[["domain"]] == "sketch").to_numpy()
    >>> read = Features({"hook_embedding": points.astype(np.float32)}, frame)
    >>> composition(read, ["real", "sketch"], ["a", "b"]).frame["value"].tolist()
    [1.0]
    """
    asked = "compose classes and domains"
    chosen = features.only(sites)
    names = check_domains(chosen, domains, asked)
    if len(names) != 2:
        raise SpecificationError(asked, f"the domains {listed(names)}", "two", "name two domains")
    unknown = sorted(set(held_out) - set(chosen.frame["label"]))
    if unknown:
        given = f"the held-out classes {listed(unknown)}, of which there is no picture"
        do = "name others, or give their pictures"
        raise SpecificationError(asked, given, "labels of the pictures", do)
    frame = chosen.frame
    deals = [artist_halves(frame, names, seed=seed, split=split) for split in range(n_splits)]
    classes = halved_classes(frame, deals, names)
    held = np.isin(classes, list(held_out))
    for kind, n in (("seen", int((~held).sum())), ("held-out", int(held.sum()))):
        if n < LEAST[kind]:
            given = f"{n} {kind} classes with pictures by two artists in both domains"
            do = "give more classes, or pictures by more artists"
            raise SampleError(asked, given, f"at least {LEAST[kind]}", do)
    layouts = [CellLayout.of(frame, deal, classes, names) for deal in deals]
    found = [
        np.mean([_confusions(chosen.values[site], layout, held) for layout in layouts], axis=0)
        for site in track(chosen.sites, "composition")
    ]
    k, at = len(classes), np.flatnonzero(held)
    orders = class_permutations(k, n_permutations, seed)
    drawn = np.stack([added[np.arange(len(at)), orders[:, at]].mean(axis=1) for added, _ in found])
    right = [np.stack([each[np.arange(len(at)), at] for each in pair]) for pair in found]
    p = max_t(np.array([each[0].mean() for each in right]), drawn.T)
    used = frame["label"].isin(classes) & frame["domain"].isin(names)
    about = Evidence(
        estimand="accuracy that class and domain effects give where they add up, held-out classes",
        null_kind=f"which class a place stands for permuted: 1 of {k}, exact mean; p from "
        f"{n_permutations} permutations, max-T over sites",
        ceiling_kind="places that are the classes' own means in domain_b; halves by "
        f"{artist_column(frame)}",
        seed=seed,
        **counts_of(frame[used.to_numpy()], len(at)),
    )
    rows = []
    for site, each, adjusted in zip(chosen.sites, right, p, strict=True):
        terms = np.column_stack(
            [leaving_out(each[0]), np.full(1 + len(at), 1 / k), leaving_out(each[1])]
        )
        where = chosen.place(site, control)
        row = about.with_verdict(terms, p=float(adjusted)) | {"verdict": ""}
        ends = {"domain_a": names[0], "domain_b": names[1]}
        rows.append({"measure": MEASURE} | where | ends | row)
    facts = {**features.facts, "n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("composition", pd.DataFrame(rows), facts)


def _confusions(values: np.ndarray, layout: CellLayout, held: np.ndarray) -> np.ndarray:
    """Shares of pictures in B that go to each place, "kind held_out class".

    Kinds: places by adding effects, and the classes' own. Averaged over which half gives places.
    """
    x = values[layout.rows].astype(np.float64)
    x -= x.mean(axis=0)
    kept = np.zeros((2, int(held.sum()), layout.n[0]))
    for half in (0, 1):
        here = layout.half == half
        means = np.stack(
            [
                _means(x[own], layout.label[own], layout.n[0])
                for own in (here & (layout.domain == place) for place in (0, 1))
            ]
        )
        offset = (means[1] - means[0])[~held].mean(axis=0)
        known = here & ~((layout.domain == 1) & held[layout.label])
        inner = x[known] - means[layout.domain[known], layout.label[known]]
        within = ShrunkCovariance.of(inner)
        tested = ~here & (layout.domain == 1) & held[layout.label]
        pictures = within.times(x[tested], power=-0.5)
        codes = np.cumsum(held)[layout.label[tested]] - 1
        for kind, places in enumerate((means[0] + offset, means[1])):
            ends = within.times(places, power=-0.5)
            nearest = ((ends**2).sum(axis=1) - 2 * pictures @ ends.T).argmin(axis=1)
            np.add.at(kept[kind], (codes, nearest), 1.0)
    return kept / kept.sum(axis=2, keepdims=True)


def _means(x: np.ndarray, label: np.ndarray, n_classes: int) -> np.ndarray:
    sums = np.zeros((n_classes, x.shape[1]))
    np.add.at(sums, label, x)
    return sums / np.bincount(label, minlength=n_classes)[:, None]
