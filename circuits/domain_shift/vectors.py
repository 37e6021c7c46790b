"""Vectors that move pictures from one domain to another at a site, and those they are held against.

A *mean shift* is the mean of the other domain less the mean of the own, over the classes that both
show. Controls have its length: random directions, its channels in another order, and the difference
of two halves of the classes. Others take the mean of a third domain, or of unlabelled pictures.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from interp.core.edits.edits import Edit
from interp.core.edits.erasers import Eraser, Moments
from interp.core.errors import SampleError
from interp.core.seeds import rng

SHIFT, LEACE, CONTRAST = "mean shift", "LEACE of the domain", "text contrast"
CENTRED, UNBALANCED = "centred on unlabelled pictures", "centred on unbalanced pictures"
STANDARD = "logits standardised by class"
RANDOM, PERMUTED, SPLIT = "random direction", "channels permuted", "another split of classes"
OTHER, ONE = "another domain's mean", "one class's vector"
WAYS = (SHIFT, LEACE, CONTRAST, CENTRED, UNBALANCED, STANDARD, PERMUTED, SPLIT, OTHER, ONE)
"""What pictures are moved by."""

AS_LONG = (SHIFT, CONTRAST, PERMUTED, SPLIT)
"""Those as long as the mean shift: random directions of that length are their null."""


@dataclass(frozen=True)
class Move:
    """One way to move pictures of both domains.

    Args:
        way: Which, a name in `WAYS` or random.
        dose: How often the vector is added.
        draw: Which of several draws.
        against: The third domain; empty for others.
        n_fitted: Pictures that the vector was fitted on; 0 where that is all of them.
        vectors: What is added to pictures of either domain, "domain token feature".
        eraser: What is applied instead.
    """

    way: str
    dose: float = 1.0
    draw: int = 0
    against: str = ""
    n_fitted: int = 0
    vectors: Tensor | None = None
    eraser: Eraser | None = None

    @property
    def kind(self) -> tuple[str, float, str, int]:
        """What its draws have in common."""
        return self.way, self.dose, self.against, self.n_fitted

    def edit(self, side: np.ndarray) -> Edit:
        """As an edit of pictures of which `side` says the domain, 0 or 1."""
        if self.eraser is not None:
            eraser = self.eraser
            return lambda x, rows: eraser(x)
        assert self.vectors is not None
        return partial(_added, self.dose * self.vectors, torch.from_numpy(side))


def both(vector: Tensor) -> Tensor:
    """A vector from source to target, and its opposite: "domain token feature"."""
    return torch.stack([vector, -vector])


def _added(vectors: Tensor, side: Tensor, x: Tensor, rows: np.ndarray) -> Tensor:
    return x + vectors.to(x)[side[rows].to(x.device)]


@dataclass(frozen=True)
class SiteCells:
    """Features of pictures at one site, with their domains and classes.

    Args:
        x: Features, "picture token feature".
        domain: Their domains.
        label: Their classes.
        known: Whether a picture's class may be used: it was seen in all domains.

    >>> cells = SiteCells(torch.tensor([[[0.0]], [[2.0]], [[5.0]]]), np.array(["a", "a", "b"]),
    ...                   np.array(["p", "q", "q"]), np.array([True] * 3))
    >>> cells.shift("a", "b").tolist()
    [[3.0]]
    """

    x: Tensor
    domain: np.ndarray
    label: np.ndarray
    known: np.ndarray

    def mean(self, domain: str, labels: Iterable[str]) -> Tensor:
        """The mean of a domain, over classes that count alike: "token feature"."""
        own = [(self.domain == domain) & (self.label == name) for name in labels]
        return torch.stack([self.x[torch.from_numpy(each)].mean(dim=0) for each in own]).mean(dim=0)

    def labels(self, *domains: str) -> list[str]:
        """The classes that may be used and that all of these domains show."""
        shown = [{*self.label[self.known & (self.domain == name)]} for name in domains]
        found = sorted(set.intersection(*shown))
        if not found:
            given = "no seen class with pictures in both"
            do = "give pictures to fit on of classes that are not held out"
            asked = f"move pictures from {domains[0]} to {domains[1]}"
            raise SampleError(asked, given, "one or more", do)
        return found

    def shift(self, source: str, target: str) -> Tensor:
        """Mean of the target less mean of the source, over the classes that both show."""
        labels = self.labels(source, target)
        return self.mean(target, labels) - self.mean(source, labels)

    def unlabelled(
        self, domain: str, n: int, generator: np.random.Generator, *, balanced: bool
    ) -> Tensor:
        """The mean of n pictures of a domain, of whatever class.

        Unbalanced ones are drawn again and again, with weights 1 / rank of their class, ranked at
        random.
        """
        own = np.flatnonzero(self.domain == domain)
        names, code = np.unique(self.label[own], return_inverse=True)
        weight = 1 / (1 + generator.permutation(len(names)))[code]
        shares = None if balanced else weight / weight.sum()
        drawn = generator.choice(own, n, replace=not balanced, p=shares)
        return self.x[torch.from_numpy(drawn)].mean(dim=0)


@dataclass(frozen=True)
class Fitting:
    """What the moves at a site are made from.

    Args:
        cells: Pictures that vectors are fitted on.
        pair: Both domains.
        contrast: Mean text embedding of held-out classes less that of seen ones, "feature"; None
            at every site but the embedding.
        n_controls: Draws of each control.
        seed: Their seed.
    """

    cells: SiteCells
    pair: tuple[str, str]
    contrast: Tensor | None
    n_controls: int
    seed: int

    def moves(
        self, ways: Sequence[str], doses: Sequence[float], n_unlabelled: Sequence[int]
    ) -> Iterator[Move]:
        """All moves of these ways."""
        shift = self.cells.shift(*self.pair)
        for way in ways:
            if way == SHIFT:
                whole = Move(SHIFT, vectors=both(shift))
                yield from (replace(whole, dose=float(dose)) for dose in doses)
            elif way == LEACE:
                yield Move(LEACE, eraser=self._eraser())
            elif way == CONTRAST and self.contrast is not None:
                turned = self.contrast.to(shift).expand_as(shift)
                yield Move(CONTRAST, vectors=both(turned * shift.norm() / turned.norm()))
            elif way in (CENTRED, UNBALANCED):
                yield from self._centred(way, n_unlabelled)
            elif way == OTHER:
                yield from self._other()
            elif way == ONE:
                yield from self._single_classes()
            elif way in (PERMUTED, SPLIT):
                yield from self._controls(way, shift)

    def random(self, doses: Sequence[float], n: int) -> Iterator[Move]:
        """Random directions of the mean shift's length: n at a dose of 1, few at other doses."""
        shift, generator = self.cells.shift(*self.pair), rng("random directions", self.seed)
        for dose in sorted({1.0, *(abs(float(dose)) for dose in doses)} - {0.0}):
            for draw in range(n if dose == 1 else self.n_controls):
                drawn = torch.from_numpy(generator.normal(size=tuple(shift.shape))).to(shift)
                vectors = both(drawn * shift.norm() / drawn.norm())
                yield Move(RANDOM, dose, draw, vectors=vectors)

    def _eraser(self) -> Eraser:
        cells = self.cells
        own = cells.known & np.isin(cells.domain, self.pair)
        code = torch.from_numpy((cells.domain[own] == self.pair[1]).astype(np.int64))
        vectors = cells.x[torch.from_numpy(own)]
        moments = Moments(1, 2)
        moments.update(vectors.flatten(0, 1), code.repeat_interleave(vectors.shape[1])[:, None])
        return moments.leace(0)

    def _centred(self, way: str, n_unlabelled: Sequence[int]) -> Iterator[Move]:
        generator = rng("unlabelled pictures", self.seed)
        cells, (source, target) = self.cells, self.pair
        most = min(int((cells.domain == name).sum()) for name in self.pair)
        whole = {
            name: cells.x[torch.from_numpy(cells.domain == name)].mean(0) for name in self.pair
        }
        for n in sorted({min(int(each), most) for each in n_unlabelled}):
            for draw in range(self.n_controls if way == UNBALANCED or n < most else 1):
                here, there = (
                    cells.unlabelled(name, n, generator, balanced=way == CENTRED)
                    for name in self.pair
                )
                vectors = torch.stack([whole[target] - here, whole[source] - there])
                yield Move(way, draw=draw, n_fitted=n, vectors=vectors)

    def _other(self) -> Iterator[Move]:
        """From either domain to a third."""
        for name in sorted({*self.cells.domain} - {*self.pair}):
            vectors = torch.stack([self.cells.shift(own, name) for own in self.pair])
            yield Move(OTHER, against=name, vectors=vectors)

    def _single_classes(self) -> Iterator[Move]:
        labels = self.cells.labels(*self.pair)
        drawn = rng("single classes", self.seed).permutation(labels)[: self.n_controls]
        for draw, name in enumerate(drawn):
            here, there = (self.cells.mean(domain, [name]) for domain in self.pair)
            yield Move(ONE, draw=draw, vectors=both(there - here))

    def _controls(self, way: str, shift: Tensor) -> Iterator[Move]:
        generator, labels = rng(way, self.seed), self.cells.labels(*self.pair)
        if way == SPLIT and len(labels) < 2:
            return
        for draw in range(self.n_controls):
            if way == PERMUTED:
                vectors = both(shift[:, generator.permutation(shift.shape[1])])
            else:
                mixed = generator.permutation(labels)
                parts = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
                apart = [
                    self.cells.mean(name, parts[0]) - self.cells.mean(name, parts[1])
                    for name in self.pair
                ]
                vectors = torch.stack([each * shift.norm() / each.norm() for each in apart])
            yield Move(way, draw=draw, vectors=vectors)
