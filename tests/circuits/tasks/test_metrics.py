"""Metrics: numbers by hand, gradients by finite difference, and one contract for all of them."""

import math

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from interp.circuits import METRICS, Classifier, Metric, Target
from interp.circuits.tasks.metrics import check_metric, measure
from interp.core.errors import AlikeError, DataError, NumericsError, ShapeError, SpecificationError
from tests.refusals import refuses


@pytest.fixture
def head() -> Classifier:
    return Classifier(torch.eye(3).double(), ("ant", "bee", "cat"), scale=10.0)


@pytest.fixture
def target(head: Classifier) -> Target:
    return Target(
        head, labels=[0, 2], foils=[1, 0], clean=torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).double()
    )


OUTPUT = torch.tensor([[3.0, 4.0, 0.0], [0.0, 6.0, 8.0]]).double()  # cosines .6 .8 0 and 0 .6 .8

BY_HAND = {
    "true_class_cosine": [0.6, 0.8],
    "margin": [6 - 8, 8 - 6],
    "mean_margin": [6 - 4, 8 - 3],
    "logit_difference": [6 - 8, 8 - 0],
    "clean_distance": [1 - 0.6, 1 - 0.6],
    "probability": [float(softmax([6, 8, 0])[0]), float(softmax([0, 6, 8])[2])],
    "kl": [
        float(entropy(softmax([10, 0, 0]), softmax([6, 8, 0]))),
        float(entropy(softmax([0, 10, 0]), softmax([0, 6, 8]))),
    ],
}


@pytest.mark.parametrize("name", METRICS)
def test_contract(name: str, target: Target) -> None:
    """By hand; per example; cut to rows; differentiable (finite differences)."""
    metric = Metric(name, target)
    values = metric(OUTPUT)
    torch.testing.assert_close(values, torch.tensor(BY_HAND[name]).double())
    torch.testing.assert_close(metric[1:](OUTPUT[1:]), values[1:])
    torch.testing.assert_close(metric[[1, 0]](OUTPUT[[1, 0]]), values[[1, 0]])
    check_metric(metric, OUTPUT, OUTPUT.roll(1, dims=1))
    assert torch.autograd.gradcheck(metric, (OUTPUT.clone().requires_grad_(),))
    refuses(ShapeError, r"\(1, 3\)", metric, OUTPUT[:1])


@pytest.mark.parametrize(
    ("name", "field"), [("logit_difference", "foils"), ("clean_distance", "clean"), ("kl", "clean")]
)
def test_what_a_metric_needs_is_named(name: str, field: str, head: Classifier) -> None:
    refuses(SpecificationError, f"without {field}", Metric(name, Target(head, [0, 1])), OUTPUT)


def test_names_become_numbers_and_unknown_names_are_refused(head: Classifier) -> None:
    assert head.numbers(["cat", "ant", "cat"]).tolist() == [2, 0, 2]
    refuses(DataError, "bee", head.numbers, ["beee"])
    refuses(SpecificationError, "margin", Metric, "margins", Target(head, [0]))


def test_standardised_logits_spread_by_one(head: Classifier) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(50, 3).double()
    for scaled in (head, Classifier(head.embeddings, head.names, scale=0.3)):
        logits = scaled.standardised(outputs).logits(outputs)
        assert math.isclose(logits.var(dim=1, correction=0).mean().item(), 1.0)
    same = Classifier(torch.ones(2, 3), ("ant", "bee"))
    refuses(AlikeError, "spread", same.standardised, torch.ones(4, 3))


def test_targets_that_make_no_sense_are_refused(head: Classifier) -> None:
    for labels in ([0, 3], [-1], [0.5], []):
        refuses(ShapeError, "whole number", Target, head, labels)
    refuses(DataError, "foils that are the class", Target, head, [0, 1], foils=[1, 1])
    refuses(ShapeError, "clean", Target, head, [0, 1], clean=OUTPUT[:1])
    refuses(DataError, "two or more", Classifier, torch.eye(2), ("ant", "ant"))
    refuses(ShapeError, "class embeddings", Classifier, torch.eye(3), ("ant", "bee"))
    refuses(NumericsError, "NaN", Classifier, torch.full((2, 2), float("nan")), ("ant", "bee"))


def test_a_metric_that_ignores_the_output_is_refused() -> None:
    with pytest.raises(SpecificationError, match="ignores the output"):
        check_metric(lambda out: torch.ones(len(out)), OUTPUT, 2 * OUTPUT)
    check_metric(lambda out: out[:, 0], OUTPUT, 2 * OUTPUT)
    refuses(ShapeError, "one number per example", measure, lambda out: out.mean(), OUTPUT)
