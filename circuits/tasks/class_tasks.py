"""What it takes to score pictures by class: who says which class it is, and how they are read."""

from dataclasses import dataclass
from typing import Required

from interp.circuits.tasks.metrics import MetricKind
from interp.core.arguments import Budget, BudgetKeywords
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError
from interp.core.images import Preprocess


class ClassTaskKeywords(BudgetKeywords, total=False):
    """Who says which class a picture shows, how it is read, and what that may cost."""

    classifier: Required[Classifier]
    preprocess: Required[Preprocess]


class CrossingKeywords(ClassTaskKeywords, total=False):
    """A class task in which activations of one class go into pictures of another."""

    metric: MetricKind


@dataclass(frozen=True, kw_only=True)
class ClassTask(Budget):
    """Who says which class a picture shows, how it is read, and what that may cost.

    Args:
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
    """

    classifier: Classifier
    preprocess: Preprocess


@dataclass(frozen=True, kw_only=True)
class Crossing(ClassTask):
    """A class task in which activations of one class go into pictures of another.

    Args:
        metric: "margin" or "mean_margin", or a function of outputs and a `Target`.
    """

    metric: MetricKind = "margin"

    def __post_init__(self) -> None:
        if not callable(self.metric) and self.metric not in ("margin", "mean_margin"):
            raise SpecificationError(
                "score activations of another picture",
                f"the metric {self.metric!r}",
                "margin or mean_margin, which score a class against all others, or a function",
                "choose one of the two, or write a function of outputs and a Target",
            )
