"""Pairs scored for classes that they do not show: which ones, and what the scores are."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from interp.circuits import CORRUPTIONS, Chain, Classifier, Units, class_circuits, overlap
from interp.circuits.planted.world import DOMAINS, as_tensor
from interp.circuits.sharing.class_circuits import not_shown, scored_for_others
from interp.circuits.tasks.metrics import Metric, margin
from interp.core.errors import SpecificationError
from interp.models.towers.vit import HookedViT
from tests.circuits.planted_models import NEURONS, found, model, pictures
from tests.refusals import refuses
from tests.tables import image_table

CLASSES = sorted(pictures().labels)


def test_a_class_is_asked_for_that_neither_picture_shows_and_all_as_often() -> None:
    pairs = pictures().pairs(same="domain", differ="label", seed=1)
    asked = np.array(not_shown(pairs, CLASSES, seed=2))
    assert not (asked == pairs.clean.label.to_numpy()).any()
    assert not (asked == pairs.corrupt.label.to_numpy()).any()
    counts = [(asked == name).sum() for name in CLASSES]
    assert max(counts) - min(counts) <= 2
    assert asked.tolist() == not_shown(pairs, CLASSES, seed=2)
    assert asked.tolist() != not_shown(pairs, CLASSES, seed=3)


def test_pairs_keep_their_pictures_and_change_what_they_are_scored_for() -> None:
    read = found("all shared", "d_mlp", "A").halves[0]
    other = scored_for_others(read, CLASSES)
    assert other is not None
    assert other.clean is read.clean and other.corrupt is read.corrupt
    asked = other.pairs.clean.label.tolist()
    outputs = model("all shared")[1](read.clean)
    target = replace(read.metric.target, labels=read.metric.target.classifier.numbers(asked))
    assert torch.equal(other.metric(outputs), margin(outputs, target))
    assert not torch.allclose(other.metric(outputs), read.metric(outputs))


def test_metrics_without_a_class_and_tiny_samples_have_no_readout() -> None:
    read = found("all shared", "d_mlp", "A").halves[0]
    clean = model("all shared")[1](read.clean)
    target = replace(read.metric.target, clean=clean)
    assert scored_for_others(replace(read, metric=Metric("kl", target)), CLASSES) is None
    assert scored_for_others(read[np.arange(2)], CLASSES) is None  # two of eight classes asked for


@pytest.mark.parametrize("level", ["d_mlp", "edge"])
def test_class_circuits_are_scored_so(level: str) -> None:
    circuits = found("all shared", level, "A")
    assert circuits.readouts is not None
    for read, gap, readout in zip(circuits.halves, circuits.gaps, circuits.readouts, strict=True):
        other = scored_for_others(read, circuits.classes)
        assert other is not None and readout.asked == other.pairs.clean.label.tolist()
        np.testing.assert_array_equal(readout.values, circuits.cut.score(other))
        tower = circuits.cut.tower
        slow = read.metric(tower(read.clean)) - read.metric(tower(read.corrupt))
        np.testing.assert_allclose(gap, slow.detach(), atol=1e-9)
    scores = circuits.scores
    assert scores.readout is not None and scores.gap is not None
    assert len(scores.gap) == len(scores.labels) == len(scores.readout.labels)
    if isinstance(circuits.cut, Units):
        some = circuits.only([NEURONS.replace("*", "1")]).scores
        assert some.readout is not None and some.readout.values.shape[1] == some.values.shape[1]


@pytest.mark.parametrize("metric", ["kl", "clean_distance", "mean_margin"])
def test_a_gap_is_above_nought_where_the_model_tells_classes(metric: str) -> None:
    planted, tower = model("all shared")
    cut = Units.of(tower, NEURONS, pictures().tensors(as_tensor, [0]), axis="d_mlp")
    words = {"classifier": planted.classifier, "preprocess": as_tensor, "metric": metric}
    ends = [class_circuits(cut, pictures(), domain=domain, n=2, **words) for domain in DOMAINS]
    assert all((gap > 0).all() for end in ends for gap in end.gaps)
    assert "does not tell" not in overlap(*ends).frame["reason"].iloc[0]


@pytest.mark.slow
def test_random_weights_share_no_parts() -> None:
    """An untrained model's parts agree between domains, and make no class."""
    planted, _ = model("all shared")
    source = deepcopy(planted.source)
    generator = torch.Generator().manual_seed(0)
    for parameter in source.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    cut = Units.of(HookedViT(source), NEURONS, pictures().tensors(as_tensor, [0]), axis="d_mlp")
    words = {"classifier": planted.classifier, "preprocess": as_tensor}
    ends = [class_circuits(cut, pictures(), domain=domain, **words) for domain in DOMAINS]
    rows = [overlap(*(end.only([site]) for end in ends)).frame.iloc[0] for site in cut.widths]
    assert max(row["value"] for row in rows) > 0.1  # by chance, a tenth of the neurons: .05
    assert {row["verdict"] for row in rows} <= {"unknown", "not shared"}


COLOURS = ("red", "lime", "blue", "white")
HEAD = Classifier(torch.tensor([*map(ImageColor.getrgb, COLOURS)]) / 255, COLOURS)


def one_pixel(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0))).reshape(3, 1, 1) / 255


def corrupted(corruption: str | None, **more: Any) -> Any:
    images = image_table(
        zip(COLOURS * 4), "label", lambda row: Image.new("RGB", (1, 1), row["label"])
    )
    tower = Chain(
        [torch.nn.Identity()], axes=("batch", "channel", "row", "column"), pool=torch.nn.Flatten()
    )
    cut = Units.of(tower, "hook_embed", torch.ones(1, 3, 1, 1))
    words: dict[str, Any] = {"classifier": HEAD, "preprocess": one_pixel, "corruption": corruption}
    return class_circuits(cut, images, domain="real", **words, **more)


@pytest.mark.parametrize("name", ["gaussian_noise", "mean_image"])
def test_the_corrupt_picture_is_the_clean_one_corrupted(name: str) -> None:
    own = corrupted(name, seed=3)
    for half, before in zip(own.halves, corrupted(None, seed=3).halves, strict=True):
        assert torch.equal(half.clean, before.clean)
        assert torch.equal(half.corrupt, CORRUPTIONS[name](half.clean, seed=3))
        partners = zip(half.pairs.corrupt.label, half.pairs.clean.label, strict=True)
        assert all(one != other for one, other in partners)


def test_scores_and_runs_are_those_of_the_corrupted_pictures() -> None:
    """With no unit kept, a run is the corrupt one, from which gaps are measured too."""
    own = corrupted("mean_image", metric="mean_margin")
    for half, values, gap in zip(own.halves, own.values, own.gaps, strict=True):
        nothing, ends = own.cut.run(half, np.zeros((1, *values.shape), dtype=bool))
        np.testing.assert_allclose(nothing[0], ends[1], atol=1e-6)
        np.testing.assert_allclose(ends[0] - ends[1], gap, atol=1e-6)


def test_an_unknown_corruption_is_refused() -> None:
    refuses(SpecificationError, "gaussian_noise", corrupted, "noise")
