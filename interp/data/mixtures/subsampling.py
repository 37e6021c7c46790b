"""Sizes of mixtures: how many pictures, and which, each cell gives.

Two steps, both on counts alone. The *pool* says how many pictures of every cell (domain x class) a
specification admits; the *quotas* shrink it to the size that is held fixed. A cell then gives its
first so many pictures in the order of the rule, so mixtures of one seed hold the same pictures
wherever they can, and a larger dose holds a smaller one.

The paper's rule (`first`; Kempf et al. 2025) keeps the first ceil(S / pool x n) of a cell's n
pictures in list order, then takes one from each class in the order of `PAPER_ORDER` until S is
exact. It leaves nothing to chance, and shrinks the natural share as diversity grows. The other
(`random`) draws the order of pictures and of surplus cells from the seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from interp.core.errors import DataError, SampleError, SpecificationError, listed
from interp.core.seeds import rng
from interp.data.mixtures.settings import MixtureSpec, drawn

PAPER_ORDER = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")


@dataclass(frozen=True)
class MixtureCells:
    """Pictures per cell, where each cell begins in the list of pictures, and the cell of each.

    >>> labels, domains = pd.Series(["cat", "dog", "cat"]), pd.Series(["real"] * 3)
    >>> MixtureCells.count(labels, domains).counts.tolist()
    [[2, 1]]
    """

    domains: list[str]
    labels: list[str]
    counts: Int[np.ndarray, "domain label"]
    begins: Int[np.ndarray, "domain label"]
    of_picture: Int[np.ndarray, "picture"]

    @classmethod
    def count(cls, labels: pd.Series, domains: pd.Series) -> "MixtureCells":
        """The cells of aligned columns of classes and domains."""
        (label, label_names), (domain, domain_names) = _codes(labels), _codes(domains)
        shape = (len(domain_names), len(label_names))
        cell = domain * shape[1] + label
        counts = np.bincount(cell, minlength=shape[0] * shape[1])
        begins = np.full(shape[0] * shape[1], len(cell))
        found, first = np.unique(cell, return_index=True)
        begins[found] = first
        return cls(domain_names, label_names, counts.reshape(shape), begins.reshape(shape), cell)

    def columns(self, names: "list[str] | tuple[str, ...]") -> Bool[np.ndarray, "label"]:
        """Which classes are among the named ones."""
        return np.isin(np.asarray(self.labels, dtype=object), list(names))

    def row(self, domain: str) -> int:
        """Where a domain stands."""
        return self.domains.index(domain)


def _codes(names: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Each name as its place among the sorted distinct ones."""
    codes, distinct = pd.factorize(names, sort=False)
    words = [str(word) for word in distinct]
    order = np.argsort(np.asarray(words, dtype=object), kind="stable")
    return np.argsort(order)[codes], [words[k] for k in order]


def ranks(cells: MixtureCells, spec: MixtureSpec) -> Int[np.ndarray, "picture"]:
    """The place of every picture within its cell, under the specification's rule.

    A random order is drawn once for all pictures: it depends on the seed, and not on the setting.
    """
    cell, n = cells.of_picture, len(cells.of_picture)
    order = np.arange(n) if spec.rule == "first" else rng("subsample", spec.seed).permutation(n)
    by_cell = order[np.argsort(cell[order], kind="stable")]
    places = np.empty(n, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(cells.counts.ravel())[:-1]])
    places[by_cell] = np.arange(n) - starts[cell[by_cell]]
    return places


def pool(cells: MixtureCells, spec: MixtureSpec) -> Int[np.ndarray, "domain label"]:
    """How many pictures of each cell a specification admits, before any size is matched."""
    admitted = np.zeros_like(cells.counts)
    known = cells.columns(spec.label_set(cells.labels))
    for domain in (spec.natural, *spec.other_domains(cells.domains)):
        admitted[cells.row(domain)] = cells.counts[cells.row(domain)] * known
    if spec.test_domain not in cells.domains:
        return admitted
    test, held_out = cells.row(spec.test_domain), cells.columns(spec.held_out)
    here = cells.counts[test]
    seen = here * (known & ~held_out)
    if spec.overlap < 1:
        seen = _replaced(cells, seen, spec)
    admitted[test] = _dose(seen, spec.seen_share)
    admitted[test] += _dose(here * (known & held_out), spec.held_out_share)
    return admitted


def replacements(cells: MixtureCells, spec: MixtureSpec) -> dict[str, str]:
    """The seen classes that leave the test domain, each with the foreign class in its place.

    An order is drawn from the seed, so that a smaller overlap replaces the classes of a larger one.

    Raises `SampleError` where there are fewer foreign classes than places.
    """
    seen = [c for c in spec.label_set(cells.labels) if c not in spec.held_out]
    leaving = drawn(seen, "classes that leave", spec.seed)[round(spec.overlap * len(seen)) :]
    there = [c for c in spec.foreign if c in cells.labels]
    if len(there) < len(leaving):
        raise SampleError(
            f"keep an overlap of {spec.overlap:g} of {len(seen)} seen classes",
            f"{len(there)} foreign classes",
            f"at least {len(leaving)}, one for each class that leaves",
            "give more foreign classes or a larger overlap",
        )
    joining = drawn(there, "foreign classes", spec.seed)
    # the last to leave meets the first to join, so that smaller overlaps only add pairs
    return dict(zip(reversed(leaving), joining, strict=False))


def _replaced(cells: MixtureCells, seen: np.ndarray, spec: MixtureSpec) -> np.ndarray:
    """The test domain's seen pictures, those of classes that leave given to foreign classes."""
    swaps = replacements(cells, spec)
    leaving = cells.columns(list(swaps))
    joining = cells.counts[cells.row(spec.test_domain)] * cells.columns(list(swaps.values()))
    size = min(int(seen[leaving].sum()), int(joining.sum()))
    generator = rng("surplus/foreign", spec.seed)
    quota = _shrunk(joining, size, generator.permutation(len(joining)))
    return np.where(leaving, 0, seen) + quota


def _dose(counts: np.ndarray, share: float) -> np.ndarray:
    """So much of every cell, and at least one picture unless the share is zero."""
    # 0.1 x 30 is a little over 3 in floating point
    return np.ceil(share * counts - 1e-9).astype(counts.dtype)


def quotas(cells: MixtureCells, spec: MixtureSpec) -> Int[np.ndarray, "domain label"]:
    """How many pictures each cell gives: its pool, shrunk to what `hold` says.

    Each group of cells that has a size of its own (all of them; natural and other; C2 and C1) is
    shrunk by the same share in every cell to the size that it has in cg-low.

    Raises `SampleError` where a group holds fewer pictures than in cg-low.
    """
    admitted = pool(cells, spec)
    if admitted.sum() == 0:
        given = "no training picture in its cells"
        do = "give more pictures or another setting"
        raise SampleError(f"make the mixture {spec.name}", given, "at least one", do)
    if spec.hold == "steps" or not spec.kind.size_matched:
        return admitted
    reference = pool(cells, cg_low(spec))
    kept = np.zeros_like(admitted)
    for name, group in _groups(cells, spec).items():
        size, there = int(reference[group].sum()), int(admitted[group].sum())
        if there < size:
            raise SampleError(
                f"match {spec.name} to cg-low (hold = {spec.hold!r})",
                f"{there} {name}",
                f"at least {size}",
                "give more pictures, larger doses, or hold = 'steps'",
            )
        kept += _shrink(cells, np.where(group, admitted, 0), size, spec)
    return kept


def cg_low(spec: MixtureSpec) -> MixtureSpec:
    """The mixture whose size the others of its test domain are matched to."""
    return replace(
        spec, setting="cg-low", domains=None, seen_dose=1.0, held_out_dose=None, overlap=1.0
    )


def _groups(cells: MixtureCells, spec: MixtureSpec) -> dict[str, np.ndarray]:
    everything = np.ones_like(cells.counts, dtype=bool)
    if spec.hold == "natural":
        natural = everything & (np.asarray(cells.domains, dtype=object) == spec.natural)[:, None]
        return {"natural pictures": natural, "pictures of other domains": ~natural}
    if spec.hold == "exposure":
        held_out = everything & cells.columns(spec.held_out)
        return {"pictures of held-out classes": held_out, "pictures of seen classes": ~held_out}
    return {"pictures in its cells": everything}


def _shrink(cells: MixtureCells, counts: np.ndarray, size: int, spec: MixtureSpec) -> np.ndarray:
    """`size` pictures, the same share of every cell, by the specification's rule."""
    if spec.rule == "random":
        generator = rng(f"surplus/{spec.test_domain}", spec.seed)
        order = generator.permutation(counts.size)
        return _shrunk(counts.ravel(), size, order).reshape(counts.shape)
    known = [domain for domain in PAPER_ORDER if domain in cells.domains]
    others = [domain for domain in cells.domains if domain not in known]
    natural_first = sorted(others, key=lambda domain: (domain != spec.natural, domain))
    turns = [cells.row(domain) for domain in (*known, *natural_first)]
    order = np.concatenate(
        [row * len(cells.labels) + np.argsort(cells.begins[row], kind="stable") for row in turns]
    )
    total = int(counts.sum())
    share = size / total if total else 0.0
    # in floating point, as the paper's: an exact ceiling would differ where share x n is whole
    quota = np.array([math.ceil(share * int(n)) for n in counts.ravel()], dtype=counts.dtype)
    return _without_surplus(quota, size, order).reshape(counts.shape)


def _shrunk(counts: np.ndarray, size: int, order: np.ndarray) -> np.ndarray:
    """ceil(size x n / total) of every count, then one fewer in the order given until exact.

    Counts that would vanish come last, so that no cell is emptied while another can give.
    """
    total = int(counts.sum())
    quota = -(-size * counts // total) if total else counts
    return _without_surplus(quota, size, order[np.argsort(quota[order] == 1, kind="stable")])


def _without_surplus(quota: np.ndarray, size: int, order: np.ndarray) -> np.ndarray:
    giving = order[quota[order] > 0][: int(quota.sum()) - size]
    kept = quota.copy()
    kept[giving] -= 1
    return kept


def check_cells(cells: MixtureCells, spec: MixtureSpec, test: pd.DataFrame) -> None:
    """Refuse classes C2 without pictures in the test domain, or without natural training pictures.

    `test` has the `label` and `domain` of the pictures that models are tested on.
    """
    tested = set(test.loc[test["domain"] == spec.test_domain, "label"])
    natural = cells.counts[cells.row(spec.natural)]
    known = dict(zip(cells.labels, natural, strict=True))
    here = dict(zip(cells.labels, _row(cells, spec.test_domain), strict=True))
    lacking = {
        f"in {spec.test_domain}": [
            c for c in spec.held_out if not here.get(c, 0) and c not in tested
        ],
        f"for training in {spec.natural}": [c for c in spec.held_out if not known.get(c, 0)],
    }
    for where, classes in lacking.items():
        if classes:
            raise DataError(
                f"hold out classes in {spec.test_domain}",
                f"no picture {where} of {listed(classes)}",
                "held-out classes that are seen in natural pictures and tested in the test domain",
                "hold out other classes or add pictures",
            )


def _row(cells: MixtureCells, domain: str) -> np.ndarray:
    there = domain in cells.domains
    return cells.counts[cells.row(domain)] if there else np.zeros(len(cells.labels), dtype=int)


PAPER_HELD_OUT = tuple(
    (
        "aircraft_carrier axe banana barn bed candle lion mountain necklace penguin pizza "
        "saxophone television tractor traffic_light"
    ).split()
)
"""The classes C2 of Kempf et al. (2025), under DomainNet's names."""


def choose_held_out(labels: Sequence[str], n: int, *, seed: int = 0) -> tuple[str, ...]:
    """`n` classes to withhold, drawn at random but repeatably.

    >>> choose_held_out(["cat", "dog", "owl"], 1)
    ('dog',)
    """
    if not 1 <= n < len(labels):
        given = f"{n} of {len(labels)}"
        right = f"1 to {len(labels) - 1}"
        raise SpecificationError("hold out classes", given, right, "choose another number")
    order = rng("held-out classes", seed).permutation(sorted(labels))
    return tuple(str(label) for label in np.sort(order[:n]))


def class_folds(
    labels: Sequence[str], n_folds: int, *, seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """Classes dealt into folds at random but repeatably: every class is held out exactly once.

    Sizes differ by one at most. With one fold per block, a finding does not hang on which classes
    happened to be held out.

    >>> class_folds(["ant", "bee", "cat", "dog", "owl"], 2)
    (('ant', 'dog', 'owl'), ('bee', 'cat'))
    """
    names = sorted(set(labels))
    if not 2 <= n_folds <= len(names):
        given = f"{n_folds} folds of {len(names)} classes"
        right = f"2 to {len(names)} folds"
        raise SpecificationError("deal classes into folds", given, right, "choose another number")
    order = rng("class folds", seed).permutation(names)
    return tuple(
        tuple(sorted(str(label) for label in order[fold::n_folds])) for fold in range(n_folds)
    )
