"""Overlap of the parts that two domains use for a class, with its null and ceiling.

Units that matter for everything overlap between any two classes, so the null is another class of
the other domain; what two halves of one domain's artists agree on is the ceiling. Overlap says
nothing of what the parts do there: transfer and transplants measure that.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.edges.edge_attribution import Attribution
from interp.circuits.patching.localisation import of_its_own
from interp.circuits.sharing.components import edge_groups
from interp.core.errors import DataError, SampleError, ShapeError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.index_of_sharing import CANNOT_TELL, Index, sharing_index
from interp.core.statistics.resampling import Interval, permutation_p
from interp.core.tables import Table


def rewire(
    kept: np.ndarray, ends: np.ndarray, groups: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Swap edges at random so that every node keeps its number of edges in every group.

    `kept` are Booleans `[edge]`, `ends` `[edge 2]` the writer and reader of each edge. Two kept
    edges u->v and u'->v' of a group become u->v' and u'->v where both exist and neither is kept
    (Maslov and Sneppen 2002); ten attempts per kept edge.

    >>> ends = np.array([[u, v] for u in range(2) for v in range(2)])
    >>> kept = np.array([True, False, False, True])  # 0->0 and 1->1
    >>> rewire(kept, ends, np.zeros(4), np.random.default_rng(0)).tolist()
    [False, True, True, False]
    """
    places = {(int(u), int(v)): edge for edge, (u, v) in enumerate(ends)}
    rewired = kept.copy()
    for group in np.unique(groups[kept]):
        own = np.flatnonzero(rewired & (groups == group)).tolist()
        if len(own) < 2:
            continue
        for first, second in generator.integers(len(own), size=(10 * len(own), 2)):
            (u, v), (x, y) = ends[own[first]], ends[own[second]]
            one, other = places.get((int(u), int(y))), places.get((int(x), int(v)))
            if one is None or other is None or rewired[one] or rewired[other]:
                continue
            rewired[[own[first], own[second]]] = False
            rewired[[one, other]] = True
            own[first], own[second] = one, other
    return rewired


LEVELS = ("node", "edge")

REWIRINGS = 20
"""Random rewirings of every circuit."""

CEILING = "the same class in halves of one domain, by different artists"


@dataclass(frozen=True, eq=False)
class Scores:
    """How much every unit matters to each example of a domain.

    Args:
        values: Scores, `example unit`, in the metric's unit.
        labels: The class of each example.
        sides: The half, 0 or 1, that each example's artist belongs to.
        groups: A number for each unit, `unit`; units of one number, such as those of a layer, are
            ranked together.
        ends: Where units are edges, the writer and reader of each, `unit 2`; None where they are
            not.

    Raises:
        ShapeError: If there is not a label and a side per example and a group per unit.

    >>> scores = Scores(np.array([[1.0, 0.0], [3.0, 2.0]]), ["cat", "cat"], [0, 1], np.zeros(2))
    >>> scores.means(["cat"]).tolist()
    [[[1.0, 0.0], [3.0, 2.0]]]
    """

    values: np.ndarray
    labels: Sequence[Hashable] | np.ndarray
    sides: Sequence[int] | np.ndarray
    groups: np.ndarray
    ends: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, width = self.values.shape
        if not len(self.labels) == len(self.sides) == n or len(self.groups) != width:
            raise ShapeError(
                "compare circuits",
                f"{self.values.shape} scores with {len(self.labels)} labels, {len(self.sides)} "
                f"sides and {len(self.groups)} groups",
                "a label and a side for every example, a group for every unit",
                "give them in the order of the scores",
            )

    @classmethod
    def of(
        cls, found: Attribution, sides: Sequence[int] | np.ndarray, *, level: str = "edge"
    ) -> "Scores":
        """Scores of a tower's edges or nodes, from an attribution.

        Args:
            found: The scores of the edges, made from pairs.
            sides: The half, 0 or 1, that each example's artist belongs to.
            level: `edge`, or `node` for the sum over all edges that leave a node.

        Returns:
            The scores by example, class and half.

        Raises:
            DataError: For an attribution without labels.
            SpecificationError: For another level.
        """
        check_known("compare circuits", "level", [level], LEVELS, SpecificationError)
        wiring = found.wiring
        if found.labels is None:
            raise DataError(
                "compare circuits class by class",
                "an attribution without labels",
                "one made from pairs whose classes are known",
                "pass pairs= to attribute",
            )
        if level == "edge":
            return cls(found.values, list(found.labels), sides, edge_groups(wiring), wiring.edges)
        leaving = np.zeros((wiring.n_edges, len(wiring.writers)))
        leaving[np.arange(wiring.n_edges), wiring.edges[:, 0]] = 1
        return cls(found.values @ leaving, list(found.labels), sides, wiring.layers[:-1])

    def means(self, classes: Sequence[Hashable]) -> np.ndarray:
        """Mean scores of each class and half.

        Args:
            classes: The classes.

        Returns:
            Means, `class half unit`.

        Raises:
            SampleError: For a class without examples in a half.
        """
        labels, sides = np.asarray(self.labels, dtype=object), np.asarray(self.sides)
        found = []
        for name in classes:
            for side in (0, 1):
                rows = self.values[(labels == name) & (sides == side)]
                if not len(rows):
                    raise SampleError(
                        f"halve the examples of {name!r}",
                        f"none in half {side}",
                        "one or more of each class in each half",
                        "leave the class out, or draw more pictures",
                    )
                found.append(rows.mean(axis=0))
        return np.stack(found).reshape(len(classes), 2, -1)


Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared units over all units of two circuits, `[n m]` from Booleans `[n unit]`, `[m unit]`."""
    both = a.astype(float) @ b.astype(float).T
    return both / (a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - both)


def weighted_jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of minima over sum of maxima of |scores|, each scaled to sum to 1 (Ruzicka)."""
    x, y = (np.abs(each) / np.abs(each).sum(axis=1, keepdims=True) for each in (a, b))
    least = np.stack([np.minimum(row, y).sum(axis=1) for row in x])
    return least / (2 - least)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of signed scores: no threshold, and sign counts."""
    x, y = (rankdata(each, axis=1) for each in (a, b))
    x, y = (each - each.mean(axis=1, keepdims=True) for each in (x, y))
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)[None]
    return x @ y.T / scale


MEASURES_OF_OVERLAP: dict[str, tuple[Compare, bool]] = {
    "jaccard": (jaccard, True),
    "weighted jaccard": (weighted_jaccard, False),
    "rank correlation": (rank_correlation, False),
}
"""Every measure by name, and whether it compares the kept units rather than their scores."""

PRIMARY_OVERLAP = "jaccard"
"""The overlap by which rung R5 is judged; the others stand beside it."""


@door
def overlap(
    a: Any,
    b: Any,
    *,
    share: float = 0.1,
    measures: Sequence[str] = tuple(MEASURES_OF_OVERLAP),
    domains: tuple[str, str] = ("A", "B"),
    level: str = "edge",
    n_permutations: int = 999,
    seed: int = 0,
) -> Table:
    r"""Compare each class's circuits of two domains, with the null of other classes.

    With $S_{AB}[c, c']$ the mean of two overlaps, of $A_1$ of class c with $B_2$ of class c' and of
    $A_2$ with $B_1$:

    value = mean $S_{AB}[c, c]$; null = mean $S_{AB}[c, c']$, c' another class; ceiling =
    $\sqrt{\mathrm{mean}\,S(A_1, A_2)\ \mathrm{mean}\,S(B_1, B_2)}$, the same class in halves of one
    domain by different artists, at equal n; index = (value - null) / (ceiling - null).

    Args:
        a: Scores of domain A: `Scores`, the `ClassCircuits` that hold them, or one `Circuit`.
        b: The same of domain B.
        share: The share of each group's units, those with the largest |score|, that `jaccard`
            compares. The other measures need no threshold.
        measures: `jaccard`, `weighted jaccard` and `rank correlation`, or some of them.
        domains: Names of the two domains in the table.
        level: What the units are, in the table.
        n_permutations: Permutations behind p.
        seed: Seed of permutations and rewirings.

    Returns:
        A row for each measure, with evidence columns and a verdict. Where the units are edges, one
        more row, "jaccard, nodes given": the same value against circuits of the same class whose
        edges are rewired at random between their own nodes. Of two circuits, the only row is
        "jaccard, nodes given": one circuit a domain has no interval and no verdict.

    Raises:
        SpecificationError: For an unknown measure, other objects, or circuits of towers that are
            wired differently.
        ShapeError: For scores of different units.
        SampleError: With fewer than four classes in both domains, a class without examples in a
            half, or a share outside (0, 1].

    Notes:
        The interval leaves out a class wherever it stands. p permutes the classes of B whole and is
        one-sided. An artist who drew in both domains is never on both sides of a comparison,
        provided that the sides of both domains are one deal.

        "Not shared" is withheld where the null of `jaccard` is above half of its ceiling: most of a
        class's units then serve other classes as well, and only the rest was compared.

        A rewiring leaves each node its number of edges in each group.

    >>> generator = np.random.default_rng(0)
    >>> truth = generator.normal(size=(6, 200))
    >>> labels, sides = np.repeat(range(6), 8), np.tile([0, 1], 24)
    >>> found = [truth[labels] + generator.normal(size=(48, 200)) for _ in range(2)]
    >>> a, b = (Scores(each, labels, sides, np.zeros(200)) for each in found)
    >>> overlap(a, b).frame["verdict"].unique().tolist()
    ['shared']
    """
    if isinstance(a, Circuit) and isinstance(b, Circuit):
        row = _circuits_row(a, b, seed)
        frame = pd.DataFrame([row]).assign(level=level, domain_a=domains[0], domain_b=domains[1])
        return Table.with_evidence("overlap", frame, {"units": a.wiring.n_edges})
    if domains == ("A", "B"):
        domains = getattr(a, "domain", "A"), getattr(b, "domain", "B")
    a, b = (getattr(each, "scores", each) for each in (a, b))
    if not isinstance(a, Scores) or not isinstance(b, Scores):
        raise SpecificationError(
            "compare circuits",
            f"a {type(a).__name__} and a {type(b).__name__}",
            "two Scores, two ClassCircuits or two Circuits",
            "find circuits of classes with class_circuits, or one circuit with discover",
        )
    check_known("compare circuits", "measure", measures, MEASURES_OF_OVERLAP, SpecificationError)
    if a.values.shape[1] != b.values.shape[1] or (np.asarray(a.groups) != b.groups).any():
        raise ShapeError(
            "compare circuits",
            f"{a.values.shape[1]} and {b.values.shape[1]} units",
            "the same units in both domains",
            "score the same model at the same level",
        )
    classes = sorted(set(a.labels) & set(b.labels), key=str)
    if len(classes) < 4 or not 0 < share <= 1:
        raise SampleError(
            "compare circuits class by class",
            f"{len(classes)} classes in both domains, and a share of {share}",
            "four or more classes, and a share above 0, up to 1",
            "give more classes",
        )
    means = a.means(classes), b.means(classes)
    rows = [_row(name, means, a.groups, share, domains, n_permutations, seed) for name in measures]
    if a.ends is not None and "jaccard" in measures:
        rows.append(_rewired_row(means, a.groups, a.ends, share, seed))
    frame = pd.DataFrame(rows).assign(
        level=level,
        domain_a=domains[0],
        domain_b=domains[1],
        n_pictures=len(a.values) + len(b.values),
    )
    facts = {"share": share, "units": a.values.shape[1], "n_permutations": n_permutations}
    return Table.with_evidence("overlap", frame, facts)


def _row(
    name: str,
    means: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray,
    share: float,
    domains: tuple[str, str],
    n_permutations: int,
    seed: int,
) -> dict[str, Any]:
    compare, binary = MEASURES_OF_OVERLAP[name]
    n = len(means[0])
    halves = [best_of_groups(each, groups, share) if binary else each for each in means]
    across = np.mean([compare(halves[0][:, i], halves[1][:, 1 - i]) for i in (0, 1)], axis=0)
    within = [np.diagonal(compare(each[:, 0], each[:, 1])) for each in halves]
    terms = [_summary(across, within, np.arange(n))]
    terms += [_summary(across, within, np.delete(np.arange(n), c)) for c in range(n)]
    unsteady = _unsteady(across, within, domains)
    index = unsteady or sharing_index(*terms[0], left_out=terms[1:])
    if binary and not unsteady:
        index = of_its_own(index, terms[0][1], terms[0][2])
    generator = rng("overlap", seed)
    drawn = [across[np.arange(n), generator.permutation(n)].mean() for _ in range(n_permutations)]
    about = _about("circuits", "another class of the other domain", n, seed)
    p = permutation_p(terms[0][0], drawn)
    return {"measure": name, **about.judged(terms, index=index, p=p)}


def _unsteady(
    across: np.ndarray, within: Sequence[np.ndarray], domains: tuple[str, str]
) -> Index | None:
    """Why one domain's circuits say nothing; None where those of both are found again.

    Found on other artists, a class's circuit must be nearer to itself than to another class's in
    the other domain, by 3 standard errors over classes.
    """
    n = len(across)
    null = (across.sum() - np.trace(across)) / (n * (n - 1))
    for name, each in zip(domains, within, strict=True):
        room, error = each.mean() - null, each.std(ddof=1) / np.sqrt(n)
        if not room > 3 * error:
            reason = (
                f"circuits of {name} are not found again by other artists: they agree "
                f"{room:.2g} better than another class's, below 3 standard errors ({3 * error:.2g})"
            )
            return Index(np.nan, np.nan, np.nan, CANNOT_TELL, reason)
    return None


def _about(what: str, null_kind: str, n_classes: int, seed: int) -> Evidence:
    """What rows have in common; the pictures are counted for all of them at once."""
    return Evidence(
        estimand=f"mean over classes of the overlap of a class's {what} in the two domains",
        null_kind=null_kind, ceiling_kind=CEILING, seed=seed, n_units=n_classes, n_pictures=0,
    )  # fmt: skip


def _rewired_row(
    means: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray,
    ends: np.ndarray,
    share: float,
    seed: int,
) -> dict[str, Any]:
    """Jaccard of a class's edges in the two domains, against rewired edges of the same class."""
    generator, n = rng("rewiring", seed), len(means[0])
    halves = [best_of_groups(each, groups, share) for each in means]

    def like(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.diagonal(jaccard(x, y))

    value = np.mean([like(halves[0][:, i], halves[1][:, 1 - i]) for i in (0, 1)], axis=0)
    within = [like(each[:, 0], each[:, 1]) for each in halves]
    drawn = []
    for _ in range(REWIRINGS):
        others = np.stack(
            [[rewire(own, ends, groups, generator) for own in one] for one in halves[0]]
        )
        drawn.append(np.mean([like(others[:, i], halves[1][:, 1 - i]) for i in (0, 1)], axis=0))
    per_class = value, np.mean(drawn, axis=0), *within

    def summary(classes: np.ndarray) -> np.ndarray:
        x, null, first, second = (each[classes].mean() for each in per_class)
        return np.array([x, null, np.sqrt(first * second)])

    terms = [summary(np.arange(n)), *(summary(np.delete(np.arange(n), c)) for c in range(n))]
    rewired = f"mean of {REWIRINGS} rewirings of the class's edges between its own nodes"
    about = _about("edges", rewired, n, seed)
    p = permutation_p(terms[0][0], np.mean(drawn, axis=1))
    return {"measure": "jaccard, nodes given", **about.judged(terms, p=p)}


def _circuits_row(a: Circuit, b: Circuit, seed: int) -> dict[str, Any]:
    """Jaccard of two circuits' edges, against edges rewired between each circuit's own nodes."""
    value, generator = a.jaccard(b), rng("rewiring", seed)
    groups, ends = edge_groups(a.wiring), a.wiring.edges
    drawn = []
    for _ in range(REWIRINGS):
        one, two = (
            replace(each, kept=rewire(each.kept, ends, groups, generator)) for each in (a, b)
        )
        drawn.append(one.jaccard(two))
    about = Evidence(
        estimand="overlap of these two circuits",
        null_kind=f"mean of {REWIRINGS} rewirings of the edges between each circuit's own nodes",
        ceiling_kind="the same circuit", seed=seed, unit="edge", n_units=len(a | b), n_pictures=0,
    )  # fmt: skip
    null = float(np.mean(drawn))
    index = (value - null) / (1 - null) if null < 1 else np.nan
    row = about.row(
        Interval(value, np.nan, np.nan, np.nan), null=null, ceiling=1.0, index=index,
        p=permutation_p(value, drawn), reason="one circuit of each domain: no interval",
    )  # fmt: skip
    return {"measure": "jaccard, nodes given", **row}


def best_of_groups(means: np.ndarray, groups: np.ndarray, share: float) -> np.ndarray:
    """In each group of units, the share with the largest |score|, rounded up."""
    kept = np.zeros(means.shape, dtype=bool)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        size = int(np.ceil(share * len(places) - 1e-9))
        best = np.argsort(-np.abs(means[..., places]), axis=-1, kind="stable")[..., :size]
        np.put_along_axis(kept, places[best], True, axis=-1)
    return kept


def _summary(across: np.ndarray, within: Sequence[np.ndarray], classes: np.ndarray) -> np.ndarray:
    """Value, null and ceiling over some classes."""
    part = across[np.ix_(classes, classes)]
    n = len(classes)
    value = np.trace(part) / n
    null = (part.sum() - np.trace(part)) / (n * (n - 1))
    product = within[0][classes].mean() * within[1][classes].mean()
    return np.array([value, null, np.sqrt(product) if product > 0 else np.nan])
