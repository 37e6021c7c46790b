"""The circuits of a domain's classes, each found twice, on pictures by different artists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from interp.circuits.artists import artists_of, deal
from interp.circuits.cuts import Cut, Edges, Units
from interp.circuits.metrics import Classifier
from interp.circuits.overlap import Scores, best_of_groups
from interp.circuits.pairing import Read, read_pairs
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.images import ImageTable, Preprocess
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tables import Table


@dataclass(frozen=True, eq=False)
class ClassCircuits:
    """How much each part of a tower matters to each class of one domain, by halves of artists.

    `halves` are pairs of a picture of a class (clean) and one of another class (corrupt) in the
    domain; `values` `[example part]` are the parts' scores for each.
    """

    cut: Cut
    domain: str
    halves: tuple[Read, Read]
    values: tuple[np.ndarray, np.ndarray]

    @property
    def classes(self) -> list[str]:
        """The classes with pictures in both halves, sorted."""
        found = [set(half.pairs.clean.label) for half in self.halves]
        return sorted(found[0] & found[1])

    @cached_property
    def scores(self) -> Scores:
        """Both halves' scores, as `overlap` takes them."""
        labels = [half.pairs.clean.label.tolist() for half in self.halves]
        sides = np.repeat([0, 1], [len(each) for each in labels])
        ends = self.cut.wiring.edges if isinstance(self.cut, Edges) else None
        values = np.concatenate(self.values)
        return Scores(values, [*labels[0], *labels[1]], sides, self.cut.groups, ends)

    def only(self, sites: Sequence[str]) -> "ClassCircuits":
        """The same circuits cut at some of the sites alone; units elsewhere run as they are.

        Raises `SpecificationError` for circuits of edges, `SiteError` for other sites.
        """
        if not isinstance(self.cut, Units):
            raise SpecificationError(
                "cut circuits at some sites",
                f"circuits of {self.cut.level}s",
                "circuits of units",
                "find them with Units.of",
            )
        names = find_sites(list(sites), list(self.cut.widths))
        here = np.isin(np.repeat(list(self.cut.widths), list(self.cut.widths.values())), names)
        cut = replace(self.cut, widths={site: self.cut.widths[site] for site in names})
        first, second = (each[:, here] for each in self.values)
        return replace(self, cut=cut, values=(first, second))

    def kept(self, share: float, classes: Sequence[str] | None = None) -> np.ndarray:
        """The best `share` of each group's parts, `[class half part]`."""
        means = self.scores.means(self.classes if classes is None else classes)
        return best_of_groups(means, self.cut.groups, share)


def class_circuits(
    cut: Cut,
    images: ImageTable,
    *,
    domain: str,
    classifier: Classifier,
    preprocess: Preprocess,
    n: int = 8,
    metric: str = "margin",
    seed: int = 0,
) -> ClassCircuits:
    """Score every part of a tower for every class of a domain, in two halves of artists.

    `cut` is `Edges(tower)`, or `Units.of(...)`. Each half holds up to `n` pictures of each class,
    paired with pictures of other classes in the same domain and half, so what a circuit leaves out
    runs on as in a picture of another class. Artists are dealt once for all classes (drawings, or
    pictures, where artists are not known).

    Raises `DataError` for an unknown domain, `SampleError` for one artist, or fewer than four
    classes with pictures in both halves.
    """
    check_known("find the circuits of a domain", "domain", [domain], images.domains)
    known = images.select(label=list(classifier.names))
    here = (known.frame["domain"] == domain).to_numpy()
    own, sides = known[here], sides_of(known.frame)[here]
    counts = [own.frame["label"][sides == side].value_counts() for side in (0, 1)]
    classes = [
        name for name in own.labels if all(count.get(name, 0) for count in counts)
    ]  # a class whose pictures are all by artists of one half says nothing
    if len(classes) < 4:
        raise SampleError(
            f"find the circuits of {domain}'s classes",
            f"{len(classes)} classes with pictures by artists of both halves",
            "four or more",
            "give more classes, or pictures by more artists",
        )
    tower = cut.tower
    halves, values = [], []
    for side in (0, 1):
        chosen = own[(sides == side) & own.frame["label"].isin(classes).to_numpy()]
        pairs = chosen.pairs(same="domain", differ="label", n=n * len(classes), seed=seed)
        read = read_pairs(tower, pairs, classifier=classifier, preprocess=preprocess, metric=metric)
        halves.append(read)
        values.append(cut.score(read))
    return ClassCircuits(cut, domain, (halves[0], halves[1]), (values[0], values[1]))


def sides_of(frame: pd.DataFrame) -> np.ndarray:
    """Which half, 0 or 1, each picture's artist belongs to, the same in all classes and domains."""
    cells = frame["domain"].astype(str) + "/" + frame["label"].astype(str)
    return deal(artists_of(frame)[1], cells.to_numpy(object))


def inclusion(found: ClassCircuits, *, share: float = 0.1, n: int = 200, seed: int = 0) -> Table:
    """How often each part is among the best when a domain's pictures are drawn again.

    value = share of `n` draws (pictures of each class with replacement, classes kept) in which the
    part is in the circuit, which keeps the `share` of each group with the largest mean |score| over
    classes; null = what a part has by chance, the kept share of its group.

    Raises `SpecificationError` for a share outside (0, 1] or fewer than one draw.
    """
    if not 0 < share <= 1 or n < 1:
        raise SpecificationError(
            "draw circuits again",
            f"a share of {share}, {n} times",
            "a share above 0, up to 1, once or more",
            "leave them at their defaults",
        )
    scores, stream = found.scores, rng("inclusion", seed)
    labels = np.asarray(scores.labels, dtype=object)
    rows = [np.flatnonzero(labels == name) for name in found.classes]
    drawn = np.zeros(scores.values.shape[1])
    for _ in range(n):
        means = [scores.values[stream.choice(own, len(own))].mean(axis=0) for own in rows]
        drawn += best_of_groups(np.mean(np.abs(means), axis=0)[None], found.cut.groups, share)[0]
    kept = best_of_groups(np.abs(scores.means(found.classes)).mean(axis=(0, 1))[None],
                          found.cut.groups, share)[0]  # fmt: skip
    sizes = pd.Series(kept).groupby(found.cut.groups).transform("mean")
    names = "edge" if found.cut.level == "edge" else "node"
    frame = pd.DataFrame(
        {
            names: found.cut.names,
            "measure": "inclusion probability",
            "value": drawn / n,
            "null": sizes,
            "kept": kept,
            "level": found.cut.level,
            "domain": found.domain,
            "n_pictures": len(labels),
            "seed": seed,
        }
    )
    return Table("inclusion", frame, {"share": share, "draws": n})
