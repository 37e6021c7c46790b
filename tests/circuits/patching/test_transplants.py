"""Transplants on towers whose answer is known: shared, separate, and the ways to be fooled."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Chain, Classifier, draw_transplants, transplant
from interp.circuits.patching.patched_cells import PatchPlace, reference_outputs
from interp.circuits.tasks.pairs import read
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import EVIDENCE, Table
from tests.circuits.conftest import CLASSES, Function
from tests.refusals import refuses


def one_hot(level: Tensor) -> Tensor:
    return torch.relu(1 - (level[:, None] / 40 - 1 - torch.arange(5, dtype=level.dtype)).abs())


def tower(shared: bool) -> Chain:
    """Red codes the class in A, blue in B. Block 0 writes the code, block 1 the answer.

    Shared: both codes go to one place. Separate: red's and blue's have places of their own, and
    block 1 reads the one of the colour that it sees at position 1.
    """

    def embed(colour: Tensor) -> Tensor:
        tokens = torch.zeros(len(colour), 2, 18, dtype=colour.dtype)
        tokens[:, 1, 15:] = colour
        tokens[:, 0, 10:15] = colour[:, 1:2] / 1000 * torch.tensor([1, -1, 1, -1, 0.5])
        return tokens

    def encode(x: Tensor) -> Tensor:
        write = torch.zeros_like(x)
        red, blue = one_hot(x[:, 1, 15]), one_hot(x[:, 1, 17])
        write[:, 0, :5] = red + blue if shared else red
        write[:, 0, 5:10] = 0 if shared else blue
        return write

    def answer(x: Tensor) -> Tensor:
        write = torch.zeros_like(x)
        sees_red = (x[:, 1, 15:16] > 0).to(x.dtype)
        own = x[:, 0, :5] if shared else sees_red * x[:, 0, :5] + (1 - sees_red) * x[:, 0, 5:10]
        write[:, 0, 10:15] = own
        return write

    blocks = [Function(encode), Function(answer)]

    def pool(x: Tensor) -> Tensor:  # a constant beside the answer: no answer is a small cosine
        return torch.cat([x[:, 0, 10:15], torch.ones_like(x[:, 0, :1])], dim=1)

    return Chain(blocks, embed=Function(embed), pool=Function(pool))


@pytest.fixture
def head() -> Classifier:
    return Classifier(torch.eye(5, 6).double(), CLASSES)


def run(model: Chain, pictures: ImageTable, head: Classifier, colours: Callable, **words) -> Table:
    arguments = {
        "domain_a": "A",
        "domain_b": "B",
        "sites": "blocks.*.hook_mlp_out",
        "n": 60,
        **words,
    }
    return transplant(model, pictures, classifier=head, preprocess=colours, **arguments)


@pytest.mark.parametrize(("shared", "verdict"), [(True, "shared"), (False, "not shared")])
def test_planted_truth(pictures, head, colours, shared, verdict) -> None:
    table = run(tower(shared), pictures, head, colours)
    code, answer = table.frame.iloc[0], table.frame.iloc[1]
    assert set(EVIDENCE) <= set(table.frame.columns)
    assert code["verdict"] == verdict and code["reason"] == ""
    assert code["index"] == pytest.approx(1.0 if shared else 0.0, abs=0.1)
    assert (code["p"] <= 0.0625) == shared
    assert answer["verdict"] == "shared"  # one output direction serves both, in either tower
    assert (code["unit"], code["n_units"], code["domain_a"]) == ("class", 5, "A")
    assert code["n_pictures"] <= len(pictures) and code["n_drawings"] <= 20


def test_value_null_and_ceiling_are_those_of_single_runs(pictures, head, colours) -> None:
    model = tower(True)
    table = run(model, pictures, head, colours, n=10, seed=4, batch_size=3)
    drawn = draw_transplants(pictures, domain_a="A", domain_b="B", classes=CLASSES, n=10, seed=4)
    like = head.embeddings
    base = read(pictures, drawn.rows["target"].to_numpy(), colours, like)
    unit = head.standardised(model(base))
    labels = drawn.rows["label"]
    numbers = head.numbers(labels.tolist())

    def margins(outputs: Tensor) -> Tensor:
        logits = unit.logits(outputs)
        own = logits[range(10), numbers]
        logits[range(10), numbers] = -torch.inf
        return own - logits.amax(1)

    for role, column in [("donor", "value"), ("null", "null"), ("ceiling", "ceiling")]:
        donor = read(pictures, drawn.rows[role].to_numpy(), colours, like)
        out = reference_outputs(
            model, PatchPlace("blocks.0.hook_mlp_out", 0), base=base, donor=donor
        )
        moved = (margins(out) - margins(model(base))).numpy()
        expected = np.mean([moved[labels == label].mean() for label in sorted(set(labels))])
        assert table.frame[column].iloc[0] == pytest.approx(expected, abs=1e-10)


def test_a_complete_cut_is_named_and_has_no_index(pictures, head, colours) -> None:
    sites = ["hook_embed", "blocks.*.hook_resid_pre", "hook_embedding"]
    whole = run(tower(False), pictures, head, colours, sites=sites).frame
    assert all(reason.startswith("a complete cut") for reason in whole["reason"])
    assert bool(whole["index"].isna().all()) and set(whole["verdict"]) == {"unknown"}
    part = run(
        tower(False), pictures, head, colours, sites="blocks.1.hook_resid_pre", where={"pos": 0}
    ).frame
    assert part["pos"].tolist() == [0] and part["verdict"].tolist() == ["not shared"]


def test_receivers_and_donors_are_who_they_should_be(pictures: ImageTable) -> None:
    drawn = draw_transplants(pictures, domain_a="A", domain_b="B", classes=CLASSES, n=40, seed=2)
    rows, frame = drawn.rows, pictures.frame
    assert len(rows) == 40 and drawn.left_out == 0 and drawn.artists == "artist"
    assert rows["label"].value_counts().tolist() == [8] * 5
    for role, domain, label in [
        ("target", "B", "target_label"),
        ("donor", "A", "label"),
        ("null", "A", "null_label"),
        ("ceiling", "B", "label"),
    ]:
        shown = frame.iloc[rows[role]]
        assert set(shown["domain"]) == {domain}
        assert shown["label"].tolist() == rows[label].tolist()
        if role != "target":
            artists = frame["artist"].iloc[rows["target"]].to_numpy()
            assert (shown["artist"].to_numpy() != artists).all()
    trios = rows[["label", "target_label", "null_label"]].to_numpy()
    assert all(len(set(trio)) == 3 for trio in trios)


def test_refusals(pictures: ImageTable, head: Classifier, colours: Callable) -> None:
    model = tower(True)
    refuses(DataError, "domain 'C'", run, model, pictures, head, colours, domain_b="C")
    with pytest.raises(SampleError, match="2 classes"):
        run(model, pictures.select(label=["ant", "bee"]), head, colours)
    with pytest.raises(SampleError, match="by another artist"):
        run(model, pictures.select(artist="artist 1"), head, colours)
    with pytest.raises(SpecificationError, match="clean_distance"):
        run(model, pictures, head, colours, metric="clean_distance")
    refuses(SpecificationError, "budget", run, model, pictures, head, colours, memory=8)
    few = run(model, pictures.select(label=["ant", "bee", "cat"]), head, colours).frame
    assert set(few["verdict"]) == {"unknown"} and few["reason"].str.contains("3 units").all()
