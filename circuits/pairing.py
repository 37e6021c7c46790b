"""Pairs of an image table as tensors, with the metric that tells their classes apart."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.donors import embed, read
from interp.circuits.metrics import Classifier, Metric, Target
from interp.core.errors import SpecificationError
from interp.core.images import Pairs, Preprocess
from interp.core.model import Tower


@dataclass(frozen=True)
class Read:
    """Clean and corrupt pictures as the tower takes them, and the metric that scores its outputs.

    `contrast` is the unit of the metric, in logits of the classifier that was given.
    """

    clean: Tensor
    corrupt: Tensor
    metric: Metric
    pairs: Pairs
    contrast: float

    def __getitem__(self, rows: np.ndarray) -> "Read":
        """Some of the pairs."""
        places = torch.as_tensor(rows)
        return replace(
            self,
            clean=self.clean[places],
            corrupt=self.corrupt[places],
            metric=self.metric[rows],
            pairs=self.pairs[rows],
        )

    @property
    def words(self) -> Mapping[str, Any]:
        """What `sweep`, `attribute` and `faithfulness` take: `attribute(tower, **task.words)`."""
        return {
            "clean": self.clean,
            "corrupt": self.corrupt,
            "metric": self.metric,
            "pairs": self.pairs,
        }


def read_pairs(
    tower: Tower,
    pairs: Pairs,
    *,
    classifier: Classifier,
    preprocess: Preprocess,
    metric: str | None = None,
    batch_size: int = 32,
) -> Read:
    """Read the partners of pairs, and bind the metric to their classes.

    The metric is the `margin` of the pairs' class, or, where partners differ in class, the
    `logit_difference` of the clean class against the corrupt one, in units of the model's own
    contrast (`Classifier.standardised`), so that checkpoints compare. Device and dtype are those of
    the classifier's embeddings. Raises `DataError` for classes that the classifier does not know,
    `SpecificationError` for a logit difference between pairs that share their class.
    """
    labels = classifier.numbers(pairs.clean.label.tolist())
    foils = classifier.numbers(pairs.corrupt.label.tolist())
    crossed = bool((labels != foils).all())
    if metric == "logit_difference" and not crossed:
        raise SpecificationError(
            "score clean against corrupt classes",
            "pairs of which some share their class",
            "pairs that differ in class",
            "use metric='margin', or other pairs",
        )
    like = classifier.embeddings
    clean = read(pairs.images, pairs.clean_rows, preprocess, like)
    corrupt = read(pairs.images, pairs.corrupt_rows, preprocess, like)
    outputs = embed(tower, clean, batch_size=batch_size)
    scale = classifier.standardised(outputs)
    target = Target(scale, labels, foils if crossed else None, outputs)
    name = metric or ("logit_difference" if crossed else "margin")
    return Read(clean, corrupt, Metric(name, target), pairs, classifier.scale / scale.scale)
