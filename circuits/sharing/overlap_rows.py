"""Overlaps of parts held against another class, the readout, and what one domain finds again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.patching.localise import max_t_p, of_its_own
from interp.circuits.sharing.overlap_measures import (
    MEASURES_OF_OVERLAP,
    best_of_groups,
    jaccard,
    reach,
    rewire,
)
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.index_of_sharing import (
    LEAST_ROOM,
    LEVEL,
    NOT_SHARED,
    READER,
    UNKNOWN,
    Index,
    found_beyond_null,
    sharing_index,
)
from interp.core.statistics.resampling import Interval, permutation_p

REWIRINGS = 20
"""Random rewirings of every circuit."""

OTHER_CLASS = "another class of the other domain"
READ_OUT = "the class's readout, on pictures of other classes"
NO_MORE = "parts overlap no more than the class's readout, which any picture has"

CEILING = "the same class in halves of one domain, by different artists"


@dataclass(frozen=True, eq=False)
class Compared:
    """What `overlap` compares: mean scores `class half unit` of both domains, and of readouts."""

    means: tuple[np.ndarray, np.ndarray]
    readouts: tuple[np.ndarray, np.ndarray] | None
    groups: np.ndarray
    share: float
    negligible: float
    domains: tuple[str, str]
    silent: Index | None

    def circuits(self, means: tuple[np.ndarray, np.ndarray], binary: bool) -> list[np.ndarray]:
        """The units that circuits keep, or the scores themselves."""
        if not binary:
            return list(means)
        groups, least = self.groups, self.negligible
        return [best_of_groups(each, groups, self.share, negligible=least) for each in means]


def overlap_row(name: str, given: Compared, n_permutations: int, seed: int) -> dict[str, object]:
    """One measure's overlap of each class's circuits, judged against the stronger of its nulls."""
    compare, binary = MEASURES_OF_OVERLAP[name]
    halves, n = given.circuits(given.means, binary), len(given.means[0])

    def between(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """`[class class]`, of different halves of the artists."""
        return np.mean([compare(one[:, i], two[:, 1 - i]) for i in (0, 1)], axis=0)

    across = between(*halves)
    apart = [np.diagonal(compare(halves[0][:, i], halves[1][:, 1 - i])).mean() for i in (0, 1)]
    within = [np.diagonal(compare(each[:, 0], each[:, 1])) for each in halves]
    generator = rng("overlap", seed)
    drawn = [across[np.arange(n), generator.permutation(n)].mean() for _ in range(n_permutations)]
    terms, null_kind = _terms(across, within), OTHER_CLASS
    p = permutation_p(terms[0, 0], drawn)
    index = given.silent or _unsteady(across, within, given.domains) or _verdict(terms, p, binary)
    if given.readouts is not None and index.verdict != NOT_SHARED:
        foreign = list(given.readouts)
        if binary:
            lifted = zip(halves, given.means, given.readouts, strict=True)
            foreign = [reach(*each, given.groups) for each in lifted]
        found = between(halves[0], foreign[1]), between(foreign[0], halves[1])
        read_out = np.diagonal(np.mean(found, axis=0))
        if read_out.mean() > terms[0, 1]:
            beyond = np.diagonal(across) - read_out
            flips = float(max_t_p(beyond[:, None], seed=seed)[0])  # two-sided, of whole classes
            p = max(p, flips / 2 if beyond.mean() > 0 else 1 - flips / 2)
            other, terms, null_kind = terms, _terms(across, within, read_out), READ_OUT
            plain, index = index, sharing_index(*terms[0], left_out=terms[1:])
            index = beyond_readout(index, plain, terms[0], other[0], p, NO_MORE)
    if index.reason.startswith(READER):
        p = np.nan
    about = _about("circuits", null_kind, n, seed)
    parts = {f"half_{i + 1}": float(apart[i] - terms[0, 1]) for i in (0, 1)}
    return {"measure": name, **parts, **about.with_verdict(terms, index=index, p=p)}


def _verdict(terms: np.ndarray, p: float, binary: bool) -> Index:
    value, null, ceiling = terms[0]
    index = sharing_index(value, null, ceiling, left_out=terms[1:])
    index = of_its_own(index, null, ceiling) if binary else index
    return found_beyond_null(index, p, value=value, null=null, ceiling=ceiling)


def beyond_readout(
    index: Index, plain: Index, terms: np.ndarray, other: np.ndarray, p: float, no_more: str
) -> Index:
    """An index against the readout, `plain` being that against another class.

    `terms` and `other` are value, null and ceiling of the two. "Not shared" is withheld, with the
    reason `no_more`, unless p finds something beyond the readout.
    """
    if np.isnan(plain.value):
        return plain
    room, of_other = (ceiling - null for _, null, ceiling in (terms, other))
    if room < LEAST_ROOM * of_other:
        makes = f"{1 - room / of_other:.0%} of the room above another class goes to {READ_OUT}"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, f"{READER}: {makes}")
    if index.verdict == NOT_SHARED and not p < LEVEL:
        return replace(index, verdict=UNKNOWN, reason=no_more)
    return index


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
            return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    return None


def _about(what: str, null_kind: str, n_classes: int, seed: int) -> Evidence:
    """What rows have in common; the pictures are counted for all of them at once."""
    return Evidence(
        estimand=f"mean over classes of the overlap of a class's {what} in the two domains",
        null_kind=null_kind,
        ceiling_kind=CEILING,
        seed=seed,
        n_units=n_classes,
        n_pictures=0,
    )


def rewired_row(given: Compared, ends: np.ndarray, seed: int) -> dict[str, object]:
    """Jaccard of a class's edges in the two domains, against rewired edges of the same class."""
    generator, n, groups = rng("rewiring", seed), len(given.means[0]), given.groups
    halves = given.circuits(given.means, True)

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
    return {"measure": "jaccard, nodes given", **about.with_verdict(terms, index=given.silent, p=p)}


def circuits_row(a: Circuit, b: Circuit, seed: int) -> dict[str, object]:
    """Jaccard of two circuits' edges, against edges rewired between each circuit's own nodes."""
    value, generator = a.jaccard(b), rng("rewiring", seed)
    groups, ends = a.wiring.groups, a.wiring.edges
    drawn = []
    for _ in range(REWIRINGS):
        one, two = (
            replace(each, kept=rewire(each.kept, ends, groups, generator)) for each in (a, b)
        )
        drawn.append(one.jaccard(two))
    about = Evidence(
        estimand="overlap of these two circuits",
        null_kind=f"mean of {REWIRINGS} rewirings of the edges between each circuit's own nodes",
        ceiling_kind="the same circuit",
        seed=seed,
        unit="edge",
        n_units=len(a | b),
        n_pictures=0,
    )
    null = float(np.mean(drawn))
    index = (value - null) / (1 - null) if null < 1 else np.nan
    row = about.row(
        Interval(value, np.nan, np.nan, np.nan),
        null=null,
        ceiling=1.0,
        index=index,
        p=permutation_p(value, drawn),
        reason="one circuit of each domain: no interval",
    )
    return {"measure": "jaccard, nodes given", **row}


def _terms(
    across: np.ndarray, within: Sequence[np.ndarray], read_out: np.ndarray | None = None
) -> np.ndarray:
    """Value, null and ceiling: over all classes, then without each; the null by the readout or not.

    `[1 + class, 3]` from `across`, `[class class]`, and `[class]` of each domain and the readout.
    """
    n = len(across)
    some = [np.arange(n), *(np.delete(np.arange(n), c) for c in range(n))]
    return np.stack([_summary(across, within, read_out, classes) for classes in some])


def _summary(
    across: np.ndarray,
    within: Sequence[np.ndarray],
    read_out: np.ndarray | None,
    classes: np.ndarray,
) -> np.ndarray:
    part, n = across[np.ix_(classes, classes)], len(classes)
    value = np.trace(part) / n
    null = (part.sum() - np.trace(part)) / (n * (n - 1))
    if read_out is not None:
        null = read_out[classes].mean()
    product = within[0][classes].mean() * within[1][classes].mean()
    return np.array([value, null, np.sqrt(product) if product > 0 else np.nan])
