"""Dictionaries: the formula in plain numpy, planted features found, dead ones revived, no leak."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp.core.errors import (
    LeakError,
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
)
from interp.probes import (
    L1,
    BatchTopK,
    Dictionary,
    Features,
    TopK,
    paper_dictionary,
    train_dictionaries,
)
from interp.probes.dictionaries import train_dictionaries as dictionary_fitting
from tests.probes.sparse_world import SITE, SparseWorld, sparse_world
from tests.refusals import refuses

KINDS = [L1(0.03), TopK(2), BatchTopK(2)]


@pytest.fixture(scope="module")
def world() -> SparseWorld:
    """1,920 pictures of 24 features in 20 dimensions, 1.4 on at a time, far from the origin."""
    return sparse_world(1.0, n_classes=6, n_artists=20, copies=8, width=20, offset=5.0, on=0.35)


def train(world: SparseWorld, sparsity, **words) -> list[Dictionary]:
    settings = {"width": 24, "withheld": (), "steps": 500, "batch_size": 256, "rate": 0.01} | words
    return train_dictionaries(world.features, SITE, sparsity, **settings)


def plain(dictionary: Dictionary, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and reconstruction by loops over rows, in float64."""
    weight = {name: tensor.double().numpy() for name, tensor in dictionary.tensors.items()}
    codes, made = [], []
    for row in x.astype(np.float64):
        norm = np.linalg.norm(row) if dictionary.unit_rows else 1.0
        a = (row / norm - weight["decoder_bias"]) @ weight["encoder"] + weight["encoder_bias"]
        f = np.where(a > np.maximum(weight["threshold"], 0), a, 0)
        if dictionary.k is not None:
            f[np.argsort(f)[: -dictionary.k]] = 0
        codes.append(f)
        made.append((f @ weight["decoder"] + weight["decoder_bias"]) * norm)
    return np.array(codes), np.array(made)


def test_standard_rows_are_what_they_are_in_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    encoder, decoder = (torch.randn(5, 9, generator=generator).double() for _ in range(2))
    zero = torch.zeros(9).double()
    made = Dictionary(encoder, decoder.T, zero, zero[:5], zero, standard_rows=True)
    bare = Dictionary(encoder, decoder.T, zero, zero[:5], zero)
    x = 3 + 2 * torch.randn(40, 5, generator=generator).double()
    mean, spread = x.numpy().mean(1)[:, None], x.numpy().std(1, ddof=1)[:, None]
    rows = (x.numpy() - mean) / (spread + 1e-5)
    np.testing.assert_allclose(made(x.numpy()), bare(rows), atol=1e-13)
    back = bare.reconstruct(torch.as_tensor(rows)).numpy() * spread + mean
    np.testing.assert_allclose(made.reconstruct(x).numpy(), back, atol=1e-12)
    assert np.abs(made(x.numpy()) - bare(x.numpy())).max() > 0.1
    with pytest.raises(SpecificationError, match="one of them"):
        Dictionary(encoder, decoder.T, zero, zero[:5], zero, None, True, standard_rows=True)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("unit_rows", [False, True])
def test_features_and_reconstruction_are_the_formula_in_numpy(k, unit_rows) -> None:
    generator = torch.Generator().manual_seed(0)
    encoder, decoder = (torch.randn(5, 9, generator=generator).double() for _ in range(2))
    biases = [torch.randn(n, generator=generator).double() for n in (9, 5, 9)]
    one = Dictionary(encoder, decoder.T, *biases[:2], biases[2].abs(), k, unit_rows)
    x = torch.randn(40, 5, generator=generator).double()
    codes, made = plain(one, x.numpy())
    assert 0 < (codes > 0).sum() < codes.size
    np.testing.assert_allclose(one(x.numpy()), codes, atol=1e-13)
    np.testing.assert_allclose(one.reconstruct(x).numpy(), made, atol=1e-13)
    np.testing.assert_allclose(  # any leading axes, such as pictures and tokens
        one.encode(x.view(4, 10, 5)).flatten(0, 1).numpy(), codes, atol=1e-13
    )


@pytest.mark.parametrize("sparsity", KINDS, ids=str)
def test_planted_features_are_found(world, sparsity) -> None:
    for one in train(world, sparsity, seeds=(0, 1)):
        nearest = (world.directions @ one.decoder.numpy().T).max(axis=1)
        assert nearest.mean() > 0.9
        codes = one(world.features.values[SITE])
        assert 1 < (codes > 0).sum(axis=1).mean() < 3  # 1.4 of 24 are on in truth
        np.testing.assert_allclose(one.decoder.norm(dim=1), 1.0, atol=1e-5)


def test_batch_top_k_keeps_its_rate_through_a_threshold(world) -> None:
    (one,) = train(world, BatchTopK(2))
    codes = one(world.features.values[SITE])
    assert (codes > 0).sum() == pytest.approx(2 * len(codes), rel=2e-3)
    assert np.ptp((codes > 0).sum(axis=1)) > 1  # a row may have more, another fewer
    alone = np.concatenate([one(row[None]) for row in world.features.values[SITE][:5]])
    np.testing.assert_allclose(alone, codes[:5], atol=1e-5)
    assert one.threshold.min() == one.threshold.max() > 0


@pytest.mark.parametrize("sparsity", KINDS, ids=str)
def test_dead_features_are_revived(world, sparsity, monkeypatch) -> None:
    begin = dictionary_fitting.begin

    def mostly_dead(x, width, seeds):
        weights = begin(x, width, seeds)
        with torch.no_grad():
            weights.encoder_bias[:, :, 4:] = -30
        return weights

    def dead(one: Dictionary) -> float:
        return (one(world.features.values[SITE]).max(axis=0) == 0).mean()

    monkeypatch.setattr(dictionary_fitting, "begin", mostly_dead)
    assert dead(train(world, sparsity)[0]) < 0.1
    monkeypatch.setattr(dictionary_fitting, "REDRAWN_AT", ())
    assert dead(train(world, sparsity)[0]) > 0.8


def test_seeds_side_by_side_are_the_seeds_alone(world) -> None:
    exact = replace(world.features, values={SITE: world.features.values[SITE].astype(np.float64)})
    both = train(replace(world, features=exact), TopK(2), seeds=(0, 1), steps=40)
    for seed, one in enumerate(both):
        (alone,) = train(replace(world, features=exact), TopK(2), seeds=(seed,), steps=40)
        for name, tensor in one.tensors.items():
            torch.testing.assert_close(tensor, alone.tensors[name], rtol=0, atol=1e-9)
    assert (both[0].decoder - both[1].decoder).abs().max() > 0.1


def test_training_again_gives_the_same_dictionary(world) -> None:
    first, second = (train(world, BatchTopK(2), steps=60)[0] for _ in range(2))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name])


def test_scale_and_offset_of_the_activations_do_not_matter(world) -> None:
    x = world.features.values[SITE].astype(np.float64)
    (first,) = train_of(x)
    (second,) = train_of(1000 * (x - 5) + 1e5)
    np.testing.assert_allclose(second(1000 * (x - 5) + 1e5), 1000 * first(x), atol=1e-3)
    torch.testing.assert_close(first.decoder, second.decoder, rtol=0, atol=1e-6)


def train_of(x: np.ndarray, **words) -> list[Dictionary]:
    frame = pd.DataFrame({"label": ["cat"] * len(x), "domain": "real"})
    settings = {"width": 16, "withheld": (), "steps": 60} | words
    return train_dictionaries(Features({"s": x}, frame), "s", TopK(2), **settings)


def test_the_paper_s_dictionary_is_its_loss_by_hand(world, monkeypatch) -> None:
    """The first Adam step moves every weight by the rate, against the sign of the loss's slope."""
    x = torch.as_tensor(world.features.values[SITE]).double()
    values = replace(world.features, values={SITE: x.numpy()})
    one = paper_dictionary(values, SITE, withheld=(), steps=1)
    assert one.unit_rows and one.width == 4 * 20 and one.k is None
    rows = x / x.norm(dim=1, keepdim=True)
    start = dictionary_fitting.begin(rows, 80, [0])
    encoder, decoder, encoder_bias, decoder_bias = (
        tensor[0].detach().clone().requires_grad_(True) for tensor in start.all()
    )
    f = ((rows - decoder_bias) @ encoder + encoder_bias).relu()
    loss = ((f @ decoder + decoder_bias - rows) ** 2).mean(dim=1) + 1e-4 * f.abs().sum(dim=1)
    loss.mean().backward()
    assert encoder.grad is not None and decoder_bias.grad is not None
    moved = encoder.detach() - 1e-4 * encoder.grad.sign()
    large = encoder.grad.abs() > 1e-6
    torch.testing.assert_close(one.encoder[large], moved[large], rtol=0, atol=1e-6)
    bias = (decoder_bias.detach() - 1e-4 * decoder_bias.grad.sign())[0]
    torch.testing.assert_close(one.decoder_bias, bias, rtol=0, atol=1e-6)


class TestWithheldCells:
    def test_do_not_shape_the_dictionary(self, world) -> None:
        cell = [("c00", "sketch")]
        frame = world.features.frame
        inside = ((frame["label"] == "c00") & (frame["domain"] == "sketch")).to_numpy()
        changed = world.features.values[SITE].copy()
        changed[inside] += 100
        other = replace(world, features=replace(world.features, values={SITE: changed}))
        first, second = (
            train(each, TopK(2), withheld=cell, steps=30)[0] for each in (world, other)
        )
        assert torch.equal(first.decoder, second.decoder)
        assert first.facts["withheld"] == [["c00", "sketch"]]
        assert first.facts["n_rows"] == len(frame) - inside.sum()
        open_ = [train(each, TopK(2), withheld=(), steps=30)[0] for each in (world, other)]
        assert not torch.equal(open_[0].decoder, open_[1].decoder)

    def test_may_be_marked_in_the_frame(self, world) -> None:
        frame = world.features.frame
        marked = frame.assign(withheld=(frame["label"] == "c00") & (frame["domain"] == "sketch"))
        columns = replace(world, features=replace(world.features, frame=marked))
        (one,) = train(columns, TopK(2), withheld=None, steps=2)
        assert one.facts["withheld"] == [["c00", "sketch"]]
        with pytest.raises(LeakError, match=r"c00 x sketch.*drop the column"):
            train(columns, TopK(2), withheld=(), steps=2)

    def test_must_be_known(self, world) -> None:
        refuses(LeakError, r"withheld=\(\) if there are none", train, world, TopK(2), withheld=None)
        refuses(LeakError, "", paper_dictionary, world.features, SITE)


class TestDoors:
    def test_refuse_what_is_no_dictionary(self, world) -> None:
        for width, sparsity in ((0, L1(0.1)), (1, TopK(2)), (1, BatchTopK(2))):
            refuses(SpecificationError, "width", train, world, sparsity, width=width)
        for bad in (lambda: TopK(0), lambda: BatchTopK(0), lambda: L1(-1.0)):
            refuses(SpecificationError, "sparse", bad)
        zeros = torch.zeros(2)
        with pytest.raises(SpecificationError, match="k from 1 to 2"):
            Dictionary(torch.eye(2), torch.eye(2), zeros, zeros, zeros, k=3)
        with pytest.raises(NumericsError, match="encoder_bias"):
            Dictionary(torch.eye(2), torch.eye(2), zeros * torch.nan, zeros, zeros)

    def test_refuse_activations_that_cannot_be_learnt_from(self, world) -> None:
        refuses(SampleError, "at least 5000", train, world, TopK(2), width=5000)
        with pytest.raises(NumericsError, match="same for every picture"):
            train_of(np.full((50, 4), 0.3, dtype=np.float32))
        with pytest.raises(SiteError, match="Did you mean blocks"):
            train_dictionaries(world.features, "blocks.1", TopK(2), width=8, withheld=())
        with pytest.raises(NumericsError, match="loss"):
            train_of(np.random.default_rng(0).normal(size=(50, 4)), rate=1e200)

    def test_refuse_activations_of_another_width(self, world) -> None:
        (one,) = train(world, TopK(2), steps=1)
        refuses(ShapeError, "20 values a row", one, np.zeros((3, 19)))
