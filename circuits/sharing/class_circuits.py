"""The circuits of a domain's classes, each found twice, on pictures by different artists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from interp.circuits.sharing.cuts import Cut, Edges, Units
from interp.circuits.sharing.overlap import Scores
from interp.circuits.sharing.overlap_measures import best_of_groups, reach
from interp.circuits.tasks.metrics import DISTANCES, Metric, Target, measure
from interp.circuits.tasks.pairs import CORRUPTIONS, Read, embed, read_pairs
from interp.core.artists import artist_sides
from interp.core.classifiers import Classifier
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Pairs, Preprocess
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tower import Tower


class Readout(NamedTuple):
    """Classes that pairs were scored for and do not show, and the scores, `example part`.

    Parts that lead to a class's embedding matter to its metric whatever a picture shows. What they
    have in common in two domains says nothing of how these domains make the class.
    """

    asked: list[str]
    values: np.ndarray


def scored_for_others(read: Read, classes: Sequence[str], *, seed: int = 0) -> Read | None:
    """The same pairs, each scored for a class that neither of its pictures shows.

    All classes are asked for equally often, as far as possible. None where some class could not be
    asked for, and for a metric that asks for no class. The labels of the clean pictures are those
    asked for.
    """
    asked = not_shown(read.pairs, classes, seed=seed)
    target = read.metric.target
    if read.metric.kind in DISTANCES or set(asked) != set(classes):
        return None
    images = read.pairs.images
    labels = images.frame["label"].to_numpy(object).copy()
    labels[read.pairs.clean_rows] = asked
    numbers = target.classifier.numbers(asked)
    scored = Target(target.classifier, numbers, target.foils, target.clean)
    pairs = replace(read.pairs, images=images.with_frame(images.frame.assign(label=labels)))
    return replace(read, metric=Metric(read.metric.kind, scored), pairs=pairs)


def not_shown(pairs: Pairs, classes: Sequence[str], *, seed: int = 0) -> list[str]:
    """For each pair a class that neither picture shows, the one that was asked for least so far."""
    generator = rng("readouts", seed)
    rank = dict(zip(classes, generator.permutation(len(classes)).tolist(), strict=True))
    times = dict.fromkeys(classes, 0)
    shown = list(zip(pairs.clean.label.tolist(), pairs.corrupt.label.tolist(), strict=True))
    asked = [""] * len(shown)
    for place in generator.permutation(len(shown)).tolist():
        others = [name for name in classes if name not in shown[place]]
        asked[place] = min(others, key=lambda name: (times[name], rank[name]))
        times[asked[place]] += 1
    return asked


@dataclass(frozen=True, eq=False)
class ClassCircuits:
    """Scores of each part of a tower for each class of one domain, in two halves of artists.

    Args:
        cut: What the tower is taken apart into.
        domain: The domain.
        halves: For each half of the artists, pairs of a picture of a class (clean) and one of
            another class (corrupt).
        values: For each half the parts' scores, `example part`.
        gaps: For each half how much better the metric of a pair's clean picture is, `example`.
        readouts: For each half the classes that pairs were scored for instead of their own, which
            neither picture shows, and the parts' scores, `example part`; None where there are none.

    Notes:
        `class_circuits` makes them; `overlap` takes their `scores`, `circuit_transfer` takes them
        whole.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Edges, Units, class_circuits
    >>> from interp.core.images import ImageTable
    >>> names = ("red", "lime", "blue", "white")
    >>> frame = pd.DataFrame({"path": range(8), "label": names * 2, "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), names)
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> cut = Edges(Chain([torch.nn.Identity()]))
    >>> found = class_circuits(cut, images, domain="real", classifier=head, preprocess=preprocess)
    >>> found.masks(0.5).shape  # class, half, edge
    (4, 2, 3)
    """

    cut: Cut
    domain: str
    halves: tuple[Read, Read]
    values: tuple[np.ndarray, np.ndarray]
    gaps: tuple[np.ndarray, np.ndarray]
    readouts: tuple[Readout, Readout] | None = None

    def __repr__(self) -> str:
        examples = sum(map(len, self.values))
        return (
            f"ClassCircuits({len(self.classes)} classes of {self.domain}, "
            f"{self.values[0].shape[1]:,} parts ({self.cut.level}s), "
            f"{examples} examples in two halves)"
        )

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
        scores = Scores(
            np.concatenate(self.values),
            [*labels[0], *labels[1]],
            sides,
            self.cut.groups,
            ends,
            np.concatenate(self.gaps),
        )
        if self.readouts is None:
            return scores
        first, second = self.readouts
        values, asked = np.concatenate([first.values, second.values]), first.asked + second.asked
        return replace(scores, readout=Scores(values, asked, sides, self.cut.groups, ends))

    def only(self, sites: Sequence[str]) -> "ClassCircuits":
        """The same circuits cut at some of the sites alone; units elsewhere run as they are.

        Args:
            sites: Names or patterns of sites of the cut.

        Returns:
            The circuits of these sites.

        Raises:
            SpecificationError: For circuits of edges.
            SiteError: For sites that the cut does not have.
        """
        if not isinstance(self.cut, Units):
            given = f"circuits of {self.cut.level}s"
            do = "find them with Units.of"
            raise SpecificationError("cut circuits at some sites", given, "circuits of units", do)
        names = find_sites(list(sites), list(self.cut.widths))
        here = np.isin(np.repeat(list(self.cut.widths), list(self.cut.widths.values())), names)
        cut = replace(self.cut, widths={site: self.cut.widths[site] for site in names})
        first, second = (each[:, here] for each in self.values)
        readouts = None
        if self.readouts is not None:
            one, two = (each._replace(values=each.values[:, here]) for each in self.readouts)
            readouts = one, two
        return replace(self, cut=cut, values=(first, second), readouts=readouts)

    def masks(
        self, share: float, classes: Sequence[str] | None = None, *, signed: bool = False
    ) -> np.ndarray:
        """The circuits of each class and half: the best share of each group's parts.

        Units are left out whose mean score is less than a hundredth of the largest of their group.

        Args:
            share: The share that is kept, rounded up.
            classes: The classes; None takes all.
            signed: Whether only parts that raise the metric are kept: the best scores instead of
                the largest, and none that is not above 0.

        Returns:
            Whether each part is kept, `class half part`.

        Raises:
            SampleError: For a class without examples in a half.
        """
        means = self.scores.means(self.classes if classes is None else classes)
        return best_of_groups(
            means, self.cut.groups, share, signed=signed, negligible=self.scores.negligible
        )

    def read_out(
        self, share: float, classes: Sequence[str] | None = None, *, signed: bool = False
    ) -> np.ndarray | None:
        """The circuits of each class and half on pictures that do not show the class.

        They are what leads to a class whatever is shown: see `readouts`.

        Args:
            share: The share that is kept, as in `kept`.
            classes: The classes; None takes all.
            signed: As in `kept`.

        Returns:
            Whether each part is kept, `class half part`; None where no such pictures were scored.

        Raises:
            SampleError: For a class that was not asked for in a half.
        """
        scores = self.scores.readout
        if scores is None:
            return None
        means = scores.means(self.classes if classes is None else classes)
        return best_of_groups(means, self.cut.groups, share, signed=signed)

    def lifted(self, share: float, classes: Sequence[str] | None = None) -> np.ndarray | None:
        """What pictures that do not show a class lift as high as what is in its circuit.

        On such pictures their |score| is no less than the smallest that the class's own circuit
        keeps in the same group: so many parts of it chance, or the reader, may have put there.

        Args:
            share: The share that is kept, as in `kept`.
            classes: The classes; None takes all.

        Returns:
            Whether each part is lifted, `class half part`; None where no such pictures were scored.

        Raises:
            SampleError: For a class that was not asked for in a half.
        """
        names, scores = self.classes if classes is None else classes, self.scores
        if scores.readout is None:
            return None
        means, others = scores.means(names), scores.readout.means(names)
        return reach(self.masks(share, names), means, others, self.cut.groups)


def check_classes(asked: str, n: int) -> None:
    """Refuse circuits of so few classes that nothing can be left out."""
    if n < 4:
        given = f"{n} classes with pictures by artists of both halves"
        raise SampleError(asked, given, "four or more", "give more classes, or more artists")


@door
def class_circuits(
    cut: Cut,
    images: ImageTable,
    *,
    domain: str,
    classifier: Classifier,
    preprocess: Preprocess,
    n: int | None = None,
    metric: str = "margin",
    corruption: str | None = None,
    seed: int = 0,
) -> ClassCircuits:
    """Score every part of a tower for every class of a domain, in two halves of artists.

    Args:
        cut: `Edges(tower)` or `Units.of(...)`.
        images: The pictures, of which those of the domain and of the classifier's classes are used.
        domain: The domain.
        classifier: The classes.
        preprocess: From a picture to the tower's input.
        n: Pictures of each class in each half, at most; None takes all.
        metric: One of the metrics that `read_pairs` takes.
        corruption: One of `CORRUPTIONS`, which makes the corrupt picture of each pair from its
            clean one. None leaves the partner, a picture of another class.
        seed: Seed of the pairs, and of what a corruption draws.

    Returns:
        The scores, for the classes with pictures in both halves.

    Raises:
        DataError: For an unknown domain.
        SpecificationError: For an unknown metric or corruption.
        SampleError: With fewer than four classes that have pictures in both halves, which is always
            so with a single artist.

    Notes:
        Each picture is paired with one of another class in the same domain and half, so what a
        circuit leaves out runs on as in a picture of another class. Artists are dealt once for all
        classes (drawings, or pictures, where artists are not known).

        With a corruption, what a circuit leaves out runs on as in a picture that nobody took. A
        circuit may then do well by a bias of its class, which a picture of another class has not;
        it is there to see whether a verdict hangs on it. Partners still say which class a pair is
        not scored for, and which class an interval leaves out.

        Every pair is scored once more for a class that neither of its pictures shows, for
        `overlap` to know which parts lead to a class whatever is shown. With very few pairs, where
        some class could not be asked for, there are no such scores.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Edges, Units, class_circuits
    >>> from interp.core.images import ImageTable
    >>> names = ("red", "lime", "blue", "white")
    >>> frame = pd.DataFrame({"path": range(8), "label": names * 2, "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), names)
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> cut = Edges(Chain([torch.nn.Identity()]))
    >>> found = class_circuits(cut, images, domain="real", classifier=head, preprocess=preprocess)
    >>> found.classes, found.values[0].shape  # four pictures in each half, three edges
    (['blue', 'lime', 'red', 'white'], (4, 3))
    """
    check_known("find the circuits of a domain", "domain", [domain], images.domains)
    asked, makers = [corruption] if corruption is not None else [], CORRUPTIONS
    check_known("corrupt pictures", "corruption", asked, makers, SpecificationError)
    known = images[images.label.isin(classifier.class_names).to_numpy()]
    if not len(known):
        strangers = list(images.labels)[:1]
        check_known(f"find the circuits of {domain}", "class", strangers, classifier.class_names)
    here = (known.frame["domain"] == domain).to_numpy()
    own, sides = known[here], artist_sides(known.frame)[here]
    counts = [own.frame["label"][sides == side].value_counts() for side in (0, 1)]
    classes = [
        name for name in own.labels if all(count.get(name, 0) for count in counts)
    ]  # a class whose pictures are all by artists of one half says nothing
    check_classes(f"find the circuits of {domain}'s classes", len(classes))
    tower = cut.tower
    halves, values, gaps, readouts = [], [], [], []
    for side in (0, 1):
        chosen = own[(sides == side) & own.frame["label"].isin(classes).to_numpy()]
        pairs = chosen.pairs(same="domain", differ="label", n=n and n * len(classes), seed=seed)
        read = read_pairs(tower, pairs, classifier=classifier, preprocess=preprocess, metric=metric)
        if corruption is not None:
            read = replace(read, corrupt=CORRUPTIONS[corruption](read.clean, seed=seed))
        halves.append(read)
        values.append(cut.score(read))
        gaps.append(_gap(tower, read))
        if instead := scored_for_others(read, classes, seed=seed):
            readouts.append(Readout(instead.pairs.clean.label.tolist(), cut.score(instead)))
    return ClassCircuits(
        cut,
        domain,
        (halves[0], halves[1]),
        (values[0], values[1]),
        (gaps[0], gaps[1]),
        (readouts[0], readouts[1]) if len(readouts) == 2 else None,
    )


def _gap(tower: Tower, read: Read) -> np.ndarray:
    """How much better the metric of each pair's clean picture is than of its corrupt one."""
    clean, corrupt = (
        measure(read.metric, embed(tower, x, batch_size=32)) for x in (read.clean, read.corrupt)
    )
    better = corrupt - clean if read.metric.kind in DISTANCES else clean - corrupt
    return better.double().cpu().numpy()
