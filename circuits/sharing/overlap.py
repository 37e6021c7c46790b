"""Overlap of the parts that two domains use for a class, with its null and ceiling.

Units that matter for everything overlap between any two classes, and those that lead to a class's
embedding do so whatever is shown; so another class and the class's readout are the null. What two
halves of one domain's artists agree on is the ceiling. Overlap says nothing of what the parts do
there: transfer and transplants measure that.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.edges.attribute import Attribution
from interp.circuits.edges.wire import Wiring
from interp.circuits.sharing.overlap_measures import MEASURES_OF_OVERLAP, NEGLIGIBLE
from interp.circuits.sharing.overlap_rows import Compared, circuits_row, overlap_row, rewired_row
from interp.core.errors import DataError, SampleError, ShapeError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.statistics.index_of_sharing import UNKNOWN, Index
from interp.core.tables import Table

LEVELS = ("node", "edge")


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
        gap: How far the metric of each example lies above that of a picture of another class,
            `example`; None where it is not known.
        readout: Scores of the same units for classes that pictures do not show, labelled by these
            classes: what leads to a class whatever is shown. None where they were not taken.

    Raises:
        ShapeError: If there is not a label, a side and a gap per example and a group per unit.

    >>> scores = Scores(np.array([[1.0, 0.0], [3.0, 2.0]]), ["cat", "cat"], [0, 1], np.zeros(2))
    >>> scores.means(["cat"]).tolist()
    [[[1.0, 0.0], [3.0, 2.0]]]
    """

    values: np.ndarray
    labels: Sequence[Hashable] | np.ndarray
    sides: Sequence[int] | np.ndarray
    groups: np.ndarray
    ends: np.ndarray | None = None
    gap: np.ndarray | None = None
    readout: "Scores | None" = None

    def __post_init__(self) -> None:
        n, width = self.values.shape
        gaps = n if self.gap is None else len(self.gap)
        others = width if self.readout is None else self.readout.values.shape[1]
        per_unit = len(self.groups) == width == others
        if not len(self.labels) == len(self.sides) == n == gaps or not per_unit:
            raise ShapeError(
                "compare circuits",
                f"{self.values.shape} scores with {len(self.labels)} labels, {len(self.sides)} "
                f"sides, {gaps} gaps, {len(self.groups)} groups and {others} units read out",
                "a label and a side for every example (and a gap), a group for every unit",
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
            given = "an attribution without labels"
            right = "one made from pairs whose classes are known"
            do = "pass pairs= to attribute"
            raise DataError("compare circuits class by class", given, right, do)
        edges = cls(found.values, list(found.labels), sides, wiring.groups, wiring.edges)
        return edges if level == "edge" else edges.leaving(wiring)

    @property
    def negligible(self) -> float:
        """Below what share of its group's largest |score| a unit is in no circuit; edges may be."""
        return NEGLIGIBLE if self.ends is None else 0.0

    def leaving(self, wiring: Wiring) -> "Scores":
        """Scores of nodes, each the sum over the edges that leave it.

        Args:
            wiring: The edges that these scores are of.

        Returns:
            The scores of every writer; those of a layer form a group.
        """
        sums = np.zeros((wiring.n_edges, len(wiring.writers)))
        sums[np.arange(wiring.n_edges), wiring.edges[:, 0]] = 1
        return replace(
            self,
            values=self.values @ sums,
            groups=wiring.layers[:-1],
            ends=None,
            readout=self.readout and self.readout.leaving(wiring),
        )

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
                    given = f"none in half {side}"
                    right = "one or more of each class in each half"
                    do = "leave the class out, or draw more pictures"
                    raise SampleError(f"halve the examples of {name!r}", given, right, do)
                found.append(rows.mean(axis=0))
        return np.stack(found).reshape(len(classes), 2, -1)


@door
def overlap(
    a: object,
    b: object,
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

    value = mean $S_{AB}[c, c]$; null = the larger of mean $S_{AB}[c, c']$, c' another class, and
    the mean overlap of c in one domain with the readout of c in the other (pictures of other
    classes, scored for c); ceiling = $\sqrt{\mathrm{mean}\,S(A_1, A_2)\ \mathrm{mean}\,S(B_1,
    B_2)}$, the same class in halves of one domain by different artists, at equal n; index = (value
    - null) / (ceiling - null).

    Args:
        a: Scores of domain A: `Scores`, the `ClassCircuits` that hold them, or one `Circuit`.
        b: The same of domain B.
        share: The share of each group's units, those with the largest |score|, that `dice` and
            `jaccard` compare (but for edges, none with less than a hundredth of the largest of
            the group). The other measures need no threshold.
        measures: `dice`, the share of units in common, by which R5 is judged; `jaccard`, `weighted
            jaccard` and `rank correlation`; or some of them.
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
        one-sided; where the readout is the null, it is the larger of this and of p against the
        readout, by sign flips of whole classes (with four classes never below .06). Pictures of a
        class that is left out stay in the readouts of others.

        An artist who drew in both domains is never on both sides of a comparison, provided that the
        sides of both domains are one deal.

        A domain in which the metric of a class does not tell it from other classes, by 3 standard
        errors, has no parts that make the class, and there is no index. Nor is there one where the
        readout leaves less than a fifth of the room above other classes: the reader explains it.

        "Not shared" is withheld where the null of `dice` or `jaccard` is above half of its ceiling:
        most of a class's units then serve other classes as well, and only the rest was compared. It
        is withheld, too, where parts overlap no more than the readout's. Where they overlap no more
        than another class's, the readout is not asked.

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
        row = circuits_row(a, b, seed)
        frame = pd.DataFrame([row]).assign(level=level, domain_a=domains[0], domain_b=domains[1])
        return Table.with_evidence("overlap", frame, {"units": a.wiring.n_edges})
    if domains == ("A", "B"):
        domains = getattr(a, "domain", "A"), getattr(b, "domain", "B")
    a, b = (getattr(each, "scores", each) for each in (a, b))
    if not isinstance(a, Scores) or not isinstance(b, Scores):
        given = f"a {type(a).__name__} and a {type(b).__name__}"
        right = "two Scores, two ClassCircuits or two Circuits"
        do = "find circuits of classes with class_circuits, or one circuit with discover"
        raise SpecificationError("compare circuits", given, right, do)
    check_known("compare circuits", "measure", measures, MEASURES_OF_OVERLAP, SpecificationError)
    if a.values.shape[1] != b.values.shape[1] or (np.asarray(a.groups) != b.groups).any():
        given = f"{a.values.shape[1]} and {b.values.shape[1]} units"
        right = "the same units in both domains"
        raise ShapeError("compare circuits", given, right, "score the same model at the same level")
    classes = sorted(set(a.labels) & set(b.labels), key=str)
    if len(classes) < 4 or not 0 < share <= 1:
        given = f"{len(classes)} classes in both domains, and a share of {share}"
        right = "four or more classes, and a share above 0, up to 1"
        raise SampleError("compare circuits class by class", given, right, "give more classes")
    means = a.means(classes), b.means(classes)
    silent = _silent(a, domains[0], classes) or _silent(b, domains[1], classes)
    readouts = None
    if a.readout is not None and b.readout is not None:
        readouts = a.readout.means(classes), b.readout.means(classes)
    compared = Compared(means, readouts, a.groups, share, a.negligible, domains, silent)
    rows = [overlap_row(name, compared, n_permutations, seed) for name in measures]
    if a.ends is not None and {"dice", "jaccard"} & set(measures):
        rows.append(rewired_row(compared, a.ends, seed))
    frame = pd.DataFrame(rows).assign(
        level=level,
        domain_a=domains[0],
        domain_b=domains[1],
        n_pictures=len(a.values) + len(b.values),
    )
    facts = {"share": share, "units": a.values.shape[1], "n_permutations": n_permutations}
    return Table.with_evidence("overlap", frame, facts)


def _silent(scores: Scores, domain: str, classes: Sequence[Hashable]) -> Index | None:
    """Why no parts make a class in a domain: its metric does not tell it from other classes."""
    if scores.gap is None:
        return None
    labels = np.asarray(scores.labels, dtype=object)
    gaps = np.array([scores.gap[labels == name].mean() for name in classes])
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    if gaps.mean() > 3 * error:
        return None
    reason = (
        f"the model does not tell classes in {domain}: their metric lies {gaps.mean():.2g} above "
        f"that of other classes, below 3 standard errors ({3 * error:.2g})"
    )
    return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
