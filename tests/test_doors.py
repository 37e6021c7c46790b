"""Wrong calls at public doors: each ends in our own error, which says what would be right."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import interp
from interp import circuits, data, load_clip, models, open_images, probes
from interp.circuits import Chain, Target
from interp.core.classifiers import Classifier
from interp.core.errors import InterpError, SpecificationError
from interp.core.images import ImageTable
from interp.measures.ladder import ladder

NAMES = ("red", "lime", "blue")
SITES = ["blocks.*.hook_resid_post"]
TOWER = Chain([torch.nn.Identity()] * 3)
ONES = torch.ones(4, 2, 3)
HEAD = Classifier(torch.eye(3), NAMES, scale=10.0)


def read(image: Image.Image) -> torch.Tensor:
    return torch.tensor([image.getpixel((0, 0))]) / 255


def pictures() -> ImageTable:
    rows = [(c, d, a) for c in NAMES for d in ("real", "sketch") for a in "wxyz"]
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    frame = frame.assign(path=range(len(rows)), split="test", caption="")
    return ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))


def first(outputs: torch.Tensor) -> torch.Tensor:
    return outputs[:, 0]


IMAGES = pictures()
PAIRS = IMAGES.pairs(same="label", differ="domain", clean="real")
SOME = torch.arange(24.0).reshape(4, 2, 3)
RUN: dict[str, Any] = {"clean": ONES, "corrupt": 0 * ONES, "metric": first}
READ: dict[str, Any] = {"preprocess": read}
TASK: dict[str, Any] = {"classifier": HEAD, "preprocess": read}
SWEEP: dict[str, Any] = {**RUN, "sites": "blocks.*.hook_resid_pre", "axes": ("layer",)}
FEATURES = probes.collect(TOWER, IMAGES, SITES, **READ)
LADDER: dict[str, Any] = {"domains": ["real", "sketch"], **TASK}

Call = Callable[[], object]
WRONG: dict[str, tuple[Call, str]] = {
    "sweep: no tower": (lambda: circuits.sweep("ViT-B-32", **SWEEP), "a tower"),
    "sweep: a module": (lambda: circuits.sweep(torch.nn.Linear(2, 2), **SWEEP), "open_tower"),
    "sweep: batch as text": (lambda: circuits.sweep(TOWER, **SWEEP, batch_size="8"), "batch_size"),
    "sweep: batch as a float": (lambda: circuits.sweep(TOWER, **SWEEP, batch_size=8.0), "whole"),
    "sweep: memory as text": (lambda: circuits.sweep(TOWER, **SWEEP, memory="1GB"), "memory"),
    "sweep: a list for clean": (
        lambda: circuits.sweep(TOWER, **{**SWEEP, "clean": [[1.0]]}), "torch.as_tensor",
    ),
    "sweep: an array for corrupt": (
        lambda: circuits.sweep(TOWER, **{**SWEEP, "corrupt": np.ones((4, 2, 3))}), "torch tensor",
    ),
    "sweep: misspelt keyword": (lambda: circuits.sweep(TOWER, **SWEEP, batchsize=8), "batch_size"),
    "sweep: misspelt site": (
        lambda: circuits.sweep(TOWER, **{**SWEEP, "sites": "blocks.*.resid_pre"}), "resid_pre",
    ),
    "sweep: no metric": (
        lambda: circuits.sweep(TOWER, clean=ONES, corrupt=ONES, sites="x"), "metric",
    ),
    "sweep: direction": (lambda: circuits.sweep(TOWER, **SWEEP, direction="both"), "denoise"),
    "sweep: other shapes": (
        lambda: circuits.sweep(TOWER, **{**SWEEP, "corrupt": ONES[:2]}), "shape",
    ),
    "sweep: a metric with labels of its own": (
        lambda: circuits.sweep(TOWER, **{**SWEEP, "clean": SOME, "metric": closure}),
        "by its place",
    ),
    "screen: top as text": (lambda: circuits.screen(TOWER, **SWEEP, top="5"), "top"),
    "screen: confidence": (lambda: circuits.screen(TOWER, **SWEEP, confidence="high"), "number"),
    "ablate: kind": (
        lambda: circuits.ablate(TOWER, ONES, metric=first, kind="zeros", sites="hook_*"),
        "zero",
    ),
    "attribute: steps as text": (lambda: circuits.attribute(TOWER, **RUN, steps="5"), "steps"),
    "attribute: method": (lambda: circuits.attribute(TOWER, **RUN, method="EAPIG"), "EAP"),
    "attribute: no clean": (
        lambda: circuits.attribute(TOWER, corrupt=ONES, metric=first), "clean",
    ),
    "discover: no scores": (lambda: circuits.discover(ONES, n=3), "Attribution"),
    "discover: n as text": (
        lambda: circuits.discover(circuits.attribute(TOWER, **RUN), n="3"), "n = '3'",
    ),
    "path_patch: a bare text": (lambda: circuits.path_patch(TOWER, "a0.h0->m0", **RUN), "list"),
    "read_pairs: a table": (lambda: circuits.read_pairs(TOWER, IMAGES, **TASK), "images.pairs"),
    "read_pairs: names for a classifier": (
        lambda: circuits.read_pairs(TOWER, PAIRS, classifier=["red"], preprocess=read), "zero_shot",
    ),
    "read_pairs: metric": (
        lambda: circuits.read_pairs(TOWER, PAIRS, **TASK, metric="margn"), "mean margin",
    ),
    "localise: a number for a metric": (
        lambda: circuits.localise(TOWER, PAIRS, **TASK, metric=3), "metric",
    ),
    "localise: seed as text": (lambda: circuits.localise(TOWER, PAIRS, **TASK, seed="0"), "seed"),
    "das: domain": (
        lambda: circuits.das(
            TOWER, IMAGES, domain_a="real", domain_b="sketsh", sites=["blocks.1.hook_resid_post"],
            **TASK,
        ),
        "sketch",
    ),
    "das: k as text": (
        lambda: circuits.das(
            TOWER, IMAGES, domain_a="real", domain_b="sketch", sites="blocks.1.hook_resid_post",
            k="2", **TASK,
        ),
        "k = '2'",
    ),
    "das: no classifier": (
        lambda: circuits.das(
            TOWER, IMAGES, domain_a="real", domain_b="sketch", sites="x", preprocess=read
        ),
        "classifier",
    ),
    "transplant: images as a frame": (
        lambda: circuits.transplant(
            TOWER, IMAGES.frame, domain_a="real", domain_b="sketch", sites="x", **TASK
        ),
        "ImageTable",
    ),
    "a target of unknown classes": (lambda: Target(HEAD, labels=["rad"]), "red"),
    "a target of numbers too large": (lambda: Target(HEAD, labels=[3]), "0 to 2"),
    "a classifier without names": (lambda: Classifier(torch.eye(2), ()), "classes"),
    "a classifier of repeated names": (lambda: Classifier(torch.eye(2), ("a", "a")), "once"),
    "score: labels too few": (lambda: HEAD.score(torch.eye(3), ["red"]), "a label for each"),
    "score: unknown label": (lambda: HEAD.score(torch.eye(3), ["red", "lime", "pink"]), "pink"),
    "collect: no tower": (lambda: probes.collect("ViT", IMAGES, SITES, **READ), "a tower"),
    "collect: a folder": (lambda: probes.collect(TOWER, "photos", SITES, **READ), "open_images"),
    "collect: pool": (lambda: probes.collect(TOWER, IMAGES, SITES, **READ, pool="avg"), "mean"),
    "collect: batch": (
        lambda: probes.collect(TOWER, IMAGES, SITES, **READ, batch_size="8"), "batch_size",
    ),
    "similarity: domains as text": (
        lambda: probes.similarity(FEATURES, domains="real"), "list",
    ),
    "similarity: permutations as text": (
        lambda: probes.similarity(FEATURES, n_permutations="99"), "n_permutations",
    ),
    "similarity: measure": (lambda: probes.similarity(FEATURES, measure="cca"), "cca"),
    "transfer: no features": (lambda: probes.transfer(IMAGES), "Features"),
    "directions: domains as text": (lambda: probes.directions(FEATURES, domains="real"), "list"),
    "factorisation: splits as text": (
        lambda: probes.factorisation(FEATURES, n_splits="5"), "n_splits",
    ),
    "select: split": (lambda: IMAGES.select(split="tst"), "test"),
    "select: domain": (lambda: IMAGES.select(domain="foto"), "real"),
    "select: one of several": (lambda: IMAGES.select(label=["red", "rde"]), "mean red"),
    "select: column": (lambda: IMAGES.select(domains="real"), "domain"),
    "pairs: clean": (lambda: IMAGES.pairs(clean="foto"), "real"),
    "pairs: column": (lambda: IMAGES.pairs(same="class"), "label"),
    "ladder: one domain": (lambda: ladder(TOWER, IMAGES, **{**LADDER, "domains": ["real"]}), "two"),
    "ladder: a text of domains": (
        lambda: ladder(TOWER, IMAGES, **{**LADDER, "domains": "real"}), "list",
    ),
    "ladder: n as text": (lambda: ladder(TOWER, IMAGES, **LADDER, n="6"), "n = '6'"),
    "open_images: jobs as text": (lambda: open_images("x", jobs="2"), "jobs"),
    "open_images: no such folder": (lambda: open_images("no/such/folder"), "no/such/folder"),
    "make_mixture: no spec": (lambda: data.make_mixture(IMAGES, "cg-high"), "MixtureSpec"),
    "audit: no table": (lambda: data.audit("photos", "photos"), "ImageTable"),
    "minimality: pairs as a number": (
        lambda: circuits.minimality(TOWER, SOME, **RUN), "Circuit",
    ),
    "overlap: tensors": (lambda: circuits.overlap(SOME, SOME), "Scores"),
    "interchange: no subspace": (
        lambda: circuits.interchange(TOWER, SOME, base=SOME, source=SOME),
        "Subspace",
    ),
    "effects: a frame": (lambda: circuits.effects(FEATURES.frame), "Table"),
    "decompose: a list": (lambda: models.decompose(TOWER, [1.0]), "tensor"),
    "name_heads: words as text": (lambda: models.name_heads(TOWER, IMAGES, "cat"), "into a list"),
    "name_heads: a folder": (lambda: models.name_heads(TOWER, "photos", HEAD), "open_images"),
    "name_heads: a tower that is not taken apart": (
        lambda: models.name_heads(TOWER, IMAGES, HEAD, preprocess=read), "HookedViT",
    ),
    "text_span: no embeddings": (lambda: models.text_span(ONES[:, 0], ["cat"]), "zero_shot"),
    "score: labels as text": (lambda: HEAD.score(SOME[0], "red"), "into a list"),
    "score: places": (lambda: HEAD.score(SOME[0], [0, 1]), "list of texts"),
    "numbers: text": (lambda: HEAD.numbers("red"), "into a list"),
    "classifier: another width": (lambda: HEAD(torch.zeros(2, 7)), "(batch, 3)"),
    "classifier: an array": (lambda: HEAD(np.zeros((2, 3))), "tensor"),
    "Target: labels as text": (lambda: Target(HEAD, labels="red"), "into a list"),
    "Target: no classifier": (lambda: Target(torch.eye(3), labels=[0]), "zero_shot"),
    "Metric: a classifier": (lambda: circuits.Metric("margin", HEAD), "Target"),
    "Metric: of outputs alone": (
        lambda: circuits.Metric(first, Target(HEAD, labels=[0])), "second argument",
    ),
    "sweep: a metric of two": (
        lambda: circuits.sweep(TOWER, **{**SWEEP, "metric": lambda a, b: a[:, 0]}), "Metric(",
    ),
    "effects: of effects": (
        lambda: circuits.effects(circuits.effects(circuits.sweep(TOWER, **SWEEP))), "each example",
    ),
    "collect: no batch": (lambda: probes.collect(TOWER, IMAGES, SITES, **READ, batch_size=0),
                          "at least 1"),
    "collect: device": (lambda: probes.collect(TOWER, IMAGES, SITES, **READ, device="gpu"),
                        "compute on gpu"),
    "few: text": (lambda: IMAGES.few("2"), "per_cell"),
    "few: none": (lambda: IMAGES.few(0), "at least 1"),
    "pairs: n as text": (lambda: IMAGES.pairs(n="3"), "n = '3'"),
    "pairs: by what nobody shares": (lambda: IMAGES.pairs(same="path"), "another in every picture"),
    "picture: beyond the last": (lambda: IMAGES.picture(5000), "0 to 23"),
    "a table by name": (lambda: IMAGES["sketch"], "select("),
    "Patch: a value in words": (lambda: interp.Patch("x", "0"), "value = '0'"),
    "Patch: a place in words": (lambda: interp.Patch("x", 0.0, where={"pos": "1"}), "pos = '1'"),
    "class_circuits: other classes": (
        lambda: circuits.class_circuits(
            circuits.Edges(TOWER), IMAGES, domain="real", preprocess=read,
            classifier=Classifier(torch.eye(2), ("cat", "dog")),
        ),
        "cat",
    ),
    "plot: a sweep": (lambda: circuits.sweep(TOWER, **SWEEP).plot(), "effects(table).plot()"),
    "load_clip: device": (lambda: load_clip("RN50", device="gpu"), "compute on gpu"),
}  # fmt: skip


def closure(outputs: torch.Tensor) -> torch.Tensor:
    """A metric that holds labels and cannot know which rows it is given."""
    labels = torch.tensor([0, 1, 2, 0])
    return outputs.reshape(len(outputs), -1)[range(len(outputs)), labels[: len(outputs)]]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_our_own_error_in_four_parts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    call, said = WRONG[name]
    with pytest.raises(InterpError) as raised:
        call()
    text = str(raised.value)
    assert said in text, text
    assert text.startswith("Cannot ") and ": given " in text and ", right would be " in text


def test_leace_takes_names_for_labels() -> None:
    x, names = torch.rand(8, 3, dtype=torch.float64), np.array(["dog", "cat"] * 4)
    by_name, by_number = probes.leace(x, names), probes.leace(x, np.array([1, 0] * 4))
    torch.testing.assert_close(by_name(x), by_number(x))


@pytest.mark.parametrize("kind", ["batch norm", "dropout"])
def test_a_tower_that_draws_or_learns_while_it_runs_is_refused(kind: str) -> None:
    """In training mode features depend on the batch, and collecting changes the model."""
    body = torch.nn.BatchNorm1d(2) if kind == "batch norm" else torch.nn.Dropout(0.5)
    tower = Chain([torch.nn.Sequential(body)])
    pixels = torch.rand(4, 2, 3)
    words = {"metric": first, "sites": "blocks.*.hook_resid_pre", "axes": ("layer",)}
    calls: list[Call] = [
        lambda: probes.collect(tower, IMAGES, SITES, preprocess=lambda image: pixels[0]),
        lambda: circuits.sweep(tower, clean=pixels, corrupt=0 * pixels, **words),
        lambda: circuits.attribute(tower, clean=pixels, corrupt=0 * pixels, metric=first),
    ]
    for call in calls:
        with pytest.raises(SpecificationError, match=r"training mode.*evaluation mode"):
            call()
    tower.eval()
    for call in calls:
        call()


def test_errors_are_at_hand() -> None:
    assert interp.errors.SpecificationError is SpecificationError
    assert issubclass(interp.errors.DataError, interp.InterpError)
    assert interp.__version__ == version("interp")


def test_a_table_is_a_sequence_of_pictures() -> None:
    assert [one.label.iloc[0] for one in IMAGES][:5] == ["red"] * 5 and len(list(IMAGES)) == 24
    assert len(IMAGES[-1]) == 1 and IMAGES[-1].label.iloc[0] == "blue"


def test_there_are_sixty_of_them() -> None:
    assert len(WRONG) >= 60


def test_a_clip_is_taken_where_a_tower_is_asked_for() -> None:
    class OpenedClip:
        model, visual, text = None, TOWER, Chain([])

    own = circuits.sweep(TOWER, **SWEEP).frame
    through: Any = OpenedClip()
    pd.testing.assert_frame_equal(circuits.sweep(through, **SWEEP).frame, own)
    read_through = probes.collect(through, IMAGES, SITES, **READ)
    assert all(np.array_equal(read_through.values[s], FEATURES.values[s]) for s in FEATURES.sites)
