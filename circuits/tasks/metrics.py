"""Metrics of patching: one number per picture, from the embedding and what it is scored against.

A metric is a name in `METRICS` and a `Target` that says what to score against. It is per example
and differentiable, and it can be cut to some of its examples, so that a sweep can run in batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from interp.core.arguments import Named
from interp.core.classifiers import Classifier
from interp.core.errors import (
    DataError,
    NumericsError,
    ShapeError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import check_fields

Rows = slice | np.ndarray | Tensor | Sequence[int]
Labels = Tensor | np.ndarray | pd.Series | Sequence[object]


@dataclass(frozen=True, eq=False)
class Target:
    """What outputs are scored against: classes, and for each example its own, a foil or a clean
    run.

    Args:
        classifier: The classes.
        labels: Each example's own class, by place or by name, `batch`.
        foils: Another class for each example, likewise; needed by `logit_difference`.
        clean: Outputs of the clean run, `batch d_embed`; needed by `clean_distance` and `kl`.

    Raises:
        ShapeError: For labels or foils that are no places of classes, or clean outputs of another
            number than the labels.
        DataError: For foils that are the class itself, or of another number than the labels.

    >>> head = Classifier(torch.eye(2), ("cat", "dog"))
    >>> target = Target(head, labels=["cat", "dog"], foils=[1, 0])
    >>> len(target), target[1:].labels.tolist()
    (2, [1])
    """

    classifier: Classifier
    labels: Labels
    foils: Labels | None = None
    clean: Tensor | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.labels, str) or isinstance(self.foils, str):
            given = f"the text {self.labels if isinstance(self.labels, str) else self.foils!r}"
            right = "a class for each example"
            do = "put it into a list"
            raise SpecificationError("score examples against classes", given, right, do)
        if len(self.classifier.names) < 2:
            given = f"the classes {listed(self.classifier.names)}"
            right = "two or more different names"
            do = "name every class once"
            raise DataError("score one class against the others", given, right, do)
        object.__setattr__(self, "labels", self._places("labels", self.labels))
        if self.foils is not None:
            foils = self._places("foils", self.foils)
            object.__setattr__(self, "foils", foils)
            if len(foils) != len(self.labels) or bool(
                torch.eq(foils, torch.as_tensor(self.labels)).any()
            ):
                given = "foils that are the class itself, or of another number than the labels"
                right = "one other class per example"
                do = "choose foils that differ from the labels"
                raise DataError("score a class against a foil", given, right, do)
        if self.clean is not None and len(self.clean) != len(self.labels):
            given = f"{len(self.clean)} of them for {len(self.labels)} labels"
            right = f"{len(self)}, one a label"
            do = "embed the clean pictures in the same order"
            raise ShapeError("score against clean embeddings", given, right, do)

    def __repr__(self) -> str:
        held = [name for name in ("foils", "clean") if getattr(self, name) is not None]
        with_ = "".join(f", with {name}" for name in held)
        return f"Target({len(self)} examples{with_}; {self.classifier!r})"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Rows) -> "Target":
        foils = None if self.foils is None else torch.as_tensor(self.foils)[rows]
        clean = None if self.clean is None else self.clean[rows]
        return Target(self.classifier, torch.as_tensor(self.labels)[rows], foils, clean)

    def _places(self, what: str, values: Labels) -> Tensor:
        if not isinstance(values, Tensor):
            given = np.asarray(values)
            named = given.dtype.kind in "UOT"
            values = self.classifier.numbers(given.tolist()) if named else torch.as_tensor(given)
        places = values
        n = len(self.classifier.names)
        whole = places.ndim == 1 and not places.is_floating_point() and len(places) > 0
        if not whole or int(places.min()) < 0 or int(places.max()) >= n:
            raise ShapeError(
                f"score examples against {n} classes",
                f"{what} {listed(places.flatten().tolist())}",
                f"one whole number from 0 to {n - 1} per example",
                "give names of classes, or their places",
            )
        return places.long()


def _of(logits: Tensor, places: Labels | None, metric: str) -> Tensor:
    if places is None:
        raise _missing(metric, "foils")
    return logits.gather(1, torch.as_tensor(places).to(logits.device)[:, None])[:, 0]


def _missing(metric: str, field: str) -> SpecificationError:
    return SpecificationError(
        f"compute {metric!r}",
        f"a target without {field}",
        f"a target with {field}",
        f"pass Target(..., {field}=...)",
    )


def true_class_cosine(
    embedding: Float[Tensor, "batch d_embed"], target: Target
) -> Float[Tensor, "batch"]:
    """Cosine of the embedding with its own class, without scale: -1 to 1."""
    cosines = replace(target.classifier, scale=1.0).logits(embedding)
    return _of(cosines, target.labels, "true_class_cosine")


def margin(embedding: Float[Tensor, "batch d_embed"], target: Target) -> Float[Tensor, "batch"]:
    """Logit of the own class minus the best of the others: positive where zero-shot is right."""
    logits = target.classifier.logits(embedding)
    places = torch.as_tensor(target.labels).to(logits.device)[:, None]
    others = logits.scatter(1, places, -torch.inf)
    return _of(logits, target.labels, "margin") - others.amax(dim=1)


def mean_margin(
    embedding: Float[Tensor, "batch d_embed"], target: Target
) -> Float[Tensor, "batch"]:
    """Logit of the own class minus the mean of the others; smooth where `margin` has a kink."""
    logits = target.classifier.logits(embedding)
    own = _of(logits, target.labels, "mean_margin")
    return own - (logits.sum(dim=1) - own) / (logits.shape[1] - 1)


def logit_difference(
    embedding: Float[Tensor, "batch d_embed"], target: Target
) -> Float[Tensor, "batch"]:
    """Logit of the own class minus that of the foil; needs `foils`."""
    logits = target.classifier.logits(embedding)
    own = _of(logits, target.labels, "logit_difference")
    return own - _of(logits, target.foils, "logit_difference")


def clean_distance(
    embedding: Float[Tensor, "batch d_embed"], target: Target
) -> Float[Tensor, "batch"]:
    """Cosine distance `1 - cos(embedding, clean)`, 0 to 2; patching towards clean lowers it."""
    if target.clean is None:
        raise _missing("clean_distance", "clean")
    return 1 - cosine_similarity(embedding, target.clean.to(embedding), dim=-1)


def probability(
    embedding: Float[Tensor, "batch d_embed"], target: Target
) -> Float[Tensor, "batch"]:
    """Softmax probability of the own class, 0 to 1; flat, so blind, where the model is sure."""
    return _of(target.classifier.logits(embedding).softmax(dim=1), target.labels, "probability")


def kl(embedding: Float[Tensor, "batch d_embed"], target: Target) -> Float[Tensor, "batch"]:
    """Divergence of the class distribution from the clean run's, nats, 0 or more; needs `clean`.

    KL(clean || patched) = sum over classes of p (log p - log q), p of the clean run, q of this one.
    """
    if target.clean is None:
        raise _missing("kl", "clean")
    log_q = target.classifier.logits(embedding).log_softmax(dim=1)
    log_p = target.classifier.logits(target.clean.to(embedding)).log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


MetricKind = str | Callable[[Tensor, Target], Tensor]
"""A metric by name, or a function of outputs `batch d_embed` and a target."""

METRICS: Named[Callable[[Tensor, Target], Tensor]] = Named(
    {
        "true_class_cosine": true_class_cosine,
        "margin": margin,
        "mean_margin": mean_margin,
        "logit_difference": logit_difference,
        "clean_distance": clean_distance,
        "probability": probability,
        "kl": kl,
    }
)
"""Every metric by name; each takes `[batch d_embed]` and a target, and gives `[batch]`."""


DISTANCES = ("clean_distance", "kl")
"""The metrics that fall where the model does well; all others rise."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric with its target, to be called on outputs of a tower, `batch d_embed`.

    Args:
        kind: One of `METRICS`, or a function of one's own of outputs `batch d_embed` and a target,
            which gives one number per example.
        target: What the outputs are scored against, in the order of the examples.

    Raises:
        SpecificationError: For an unknown metric.

    Notes:
        A call raises `ShapeError` unless there is one output per label. `metric[rows]` is the
        metric of some of the examples: runs are cut into batches, and labels are cut with them.

    >>> head = Classifier(torch.eye(2), ("cat", "dog"), scale=10.0)
    >>> score = Metric("margin", Target(head, labels=[0, 1]))
    >>> score(torch.tensor([[0.0, 3.0], [0.0, 3.0]])).tolist()
    [-10.0, 10.0]
    >>> score[1:](torch.tensor([[0.0, 3.0]])).tolist()
    [10.0]
    >>> def own_logit(outputs, target):
    ...     return target.classifier(outputs)[range(len(outputs)), target.labels]
    >>> Metric(own_logit, score.target)(torch.eye(2)).tolist()
    [10.0, 10.0]
    """

    kind: MetricKind
    target: Target

    def __post_init__(self) -> None:
        check_fields(self)
        check_kind(self.kind)

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.kind if isinstance(self.kind, str) else self.kind.__name__

    def __call__(self, embedding: Tensor) -> Tensor:
        n = len(self.target)
        if embedding.ndim != 2 or len(embedding) != n:
            given = f"outputs of shape {tuple(embedding.shape)}"
            right = f"({len(self.target)}, d_embed): one row per label"
            do = "score the same pictures, in the same order, as the labels"
            raise ShapeError(f"compute {self.name!r}", given, right, do)
        function = METRICS[self.kind] if isinstance(self.kind, str) else self.kind
        return function(embedding, self.target)

    def __getitem__(self, rows: Rows) -> "Metric":
        return Metric(self.kind, self.target[rows])


def check_kind(kind: MetricKind | None) -> None:
    """Refuse what is neither the name of a metric nor a function."""
    asked = "measure patches"
    if isinstance(kind, str):
        check_known(asked, "metric", [kind], METRICS, SpecificationError)
    elif kind is not None and not callable(kind):
        given = f"the metric {kind!r}"
        right = f"one of {listed(METRICS)}, or a function of outputs and a Target"
        raise SpecificationError(asked, given, right, f"name one of {listed(METRICS)}")
    elif kind is not None and _takes(kind) == 1:
        given = f"the function {getattr(kind, '__name__', kind)!r} of one argument"
        do = "let it take a second argument; circuits.sweep takes functions of outputs alone"
        raise SpecificationError(asked, given, "a function of outputs and a Target", do)


def _takes(function: Callable[..., object]) -> int | None:
    """How many arguments a function must be given; None where it does not say."""
    try:
        given = signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_POSITIONAL for each in given):
        return None
    return sum(each.default is each.empty and each.kind <= 1 for each in given)


def name_of(metric: Callable[[Tensor], Tensor]) -> str:
    """What to call a metric in a table."""
    return str(getattr(metric, "name", getattr(metric, "__name__", type(metric).__name__)))


def rows_of(metric: Callable[[Tensor], Tensor], rows: Rows) -> Callable[[Tensor], Tensor]:
    """The metric for some examples, by `metric[rows]`; a plain function stays as it is."""
    return metric[rows] if hasattr(metric, "__getitem__") else metric  # type: ignore[index]


def measure(
    metric: Callable[[Tensor], Tensor], outputs: Float[Tensor, "batch d_embed"]
) -> Float[Tensor, "batch"]:
    """One number per output, or an error that says what the metric gave instead."""
    if not hasattr(metric, "__getitem__") and _takes(metric) == 2:
        given = "a function of two arguments"
        right = "a function of outputs alone, or a Metric, which knows its target"
        do = "write Metric(function, Target(classifier, labels=...))"
        raise SpecificationError(f"measure patches by {name_of(metric)!r}", given, right, do)
    values = metric(outputs)
    if not isinstance(values, Tensor) or values.shape != outputs.shape[:1]:
        given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeError(
            f"measure patches by {name_of(metric)!r}",
            f"{given} from {len(outputs)} outputs",
            f"a tensor of shape ({len(outputs)},)",
            "return one number per example, for any number of examples; labels go into a Target",
        )
    return values


def check_finite(asked: str, values: Mapping[str, Tensor | np.ndarray | float]) -> None:
    """Refuse NaN and infinity, and say in which of the named values they stand."""
    bad = [name for name, each in values.items() if not torch.as_tensor(each).isfinite().all()]
    if bad:
        do = "check the pictures, the class embeddings, the metric and the tower's own output"
        raise NumericsError(asked, f"NaN or infinity in {listed(bad)}", "finite numbers", do)


def check_metric(
    metric: Callable[[Tensor], Tensor],
    clean: Float[Tensor, "batch d_embed"],
    corrupt: Float[Tensor, "batch d_embed"],
) -> None:
    """Refuse a metric that ignores the output, or that scores an example by its place in a batch.

    It is tried on the clean and the corrupt outputs and on each of them mirrored; if each example
    gets one and the same number four times, while the outputs differ, `SpecificationError`. Then
    `check_order` tries it.
    """
    values = torch.stack([measure(metric, out) for out in (clean, corrupt, -clean, -corrupt)])
    if bool((values == values[0]).all()) and not torch.equal(clean, corrupt):
        given = f"a metric that ignores the output (always {listed(values[0].tolist(), limit=3)})"
        right = "a number that changes with the tower's output"
        do = f"use one of {listed(METRICS)}, or return a function of the output"
        raise SpecificationError(f"measure patches by {name_of(metric)!r}", given, right, do)
    check_order(metric, clean)


def check_order(
    metric: Callable[[Tensor], Tensor], outputs: Float[Tensor, "batch d_embed"]
) -> None:
    """Refuse a plain function that scores an example by its place in the batch.

    It is tried on the outputs in another order. Runs are cut into batches, so that it cannot know
    which examples it is given; a metric with `metric[rows]` can.
    """
    if hasattr(metric, "__getitem__") or len(outputs) < 2:
        return
    moved = measure(metric, outputs.roll(1, dims=0)).roll(-1, dims=0)
    if not torch.allclose(moved, measure(metric, outputs), rtol=1e-3, atol=1e-5, equal_nan=True):
        raise SpecificationError(
            f"measure patches by {name_of(metric)!r}",
            "a function that scores an example by its place in the batch",
            "a number that depends on the example's own output alone",
            "runs are cut into batches: for labels, pass Metric(function, Target(classifier, "
            "labels=...)), whose labels are cut with them",
        )


def tried_rows(metric: Callable[[Tensor], Tensor], n: int, most: int) -> slice:
    """The examples that a metric is tried on: a few, or more of a function that may hold labels."""
    held = getattr(metric, "__closure__", None) or ()
    kept = [cell.cell_contents for cell in held] + list(getattr(metric, "__defaults__", None) or ())
    by_example = any(hasattr(each, "__len__") and len(each) == n for each in kept)
    return slice(0, min(64 if by_example else 4, most, n))
