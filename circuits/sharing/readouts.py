"""What parts owe to the readout of a class: the same pairs, scored for a class that neither shows.

Parts that lead to a class's embedding matter to its metric whatever a picture shows. What they have
in common in two domains says nothing of how these domains make the class.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from interp.circuits.tasks.metrics import DISTANCES, Metric, Target
from interp.circuits.tasks.pairs import Read
from interp.core.images import Pairs
from interp.core.seeds import rng


class Readout(NamedTuple):
    """Classes that pairs were scored for and do not show, and the scores, `example part`."""

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
