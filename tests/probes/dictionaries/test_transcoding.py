"""Transcoders: a planted sparse map is found, noise is not, held-out cells teach nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA

from interp.core.errors import LeakError, NumericsError, SampleError
from interp.probes import Features
from tests.benchmarks.transcoding import (
    Recipe,
    _components,
    _regression,
    quality,
    tokens_of,
    train_transcoder,
)

READS, WRITES = "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"
RECIPE = Recipe(width=16, k=2, steps=800)


def planted(*, noise: bool = False, seed: int = 0, n: int = 3000) -> tuple[Features, np.ndarray]:
    """Eight features, each read off a direction of x of very different size and written to y."""
    generator = np.random.default_rng(seed)
    on = (generator.random((n, 8)) < 0.15) * generator.uniform(1, 2, (n, 8))
    read = np.linalg.qr(generator.normal(size=(16, 16)))[0]
    write = np.linalg.qr(generator.normal(size=(16, 16)))[0][:8]
    rest = generator.normal(size=(n, 8))
    loud = np.geomspace(1, 300, 16)[:, None]
    x = np.concatenate([on, rest], axis=1) @ (read * loud)
    y = generator.normal(size=(n, 16)) if noise else on @ write
    frame = pd.DataFrame({"label": generator.choice(["a", "b"], n), "artist": "someone",
                          "domain": generator.choice(["real", "sketch"], n)})  # fmt: skip
    values = {READS: x.astype(np.float32), WRITES: y.astype(np.float32)}
    return Features(values, frame), write


def halves(features: Features) -> tuple[Features, Features]:
    first = np.arange(len(features)) < len(features) // 2
    return features.rows(first), features.rows(~first)


def test_a_planted_sparse_map_is_found_and_beats_linear_maps_of_its_size() -> None:
    features, write = planted()
    learned, held_out = halves(features)
    made = train_transcoder(learned, READS, writes=WRITES, recipe=RECIPE, withheld=())
    cosines = write @ made.decoder.float().numpy().T
    assert np.median(cosines.max(axis=1)) > 0.95 and cosines.max(axis=1).min() > 0.8
    told = quality(made, learned, held_out).set_index("code")
    assert told.loc["transcoder", "explained"] > 0.9
    for other in ("pca", "reduced-rank regression"):
        assert told.loc[other, "explained"] < told.loc["transcoder", "explained"] - 0.2
    assert 1 < told.loc["transcoder", "active"] < 3


def test_noise_is_not_explained_on_held_out_pictures() -> None:
    learned, held_out = halves(planted(noise=True)[0])
    made = train_transcoder(learned, READS, writes=WRITES, recipe=RECIPE, withheld=())
    told = quality(made, learned, held_out).set_index("code")
    assert told.loc["transcoder", "explained"] < 0.02
    assert told.loc["reduced-rank regression", "explained"] < 0.02


def test_withheld_cells_change_nothing_and_must_be_named() -> None:
    features, _ = planted(n=1200)
    cell = [("a", "sketch")]
    gone = ((features.frame["label"] == "a") & (features.frame["domain"] == "sketch")).to_numpy()
    other = {site: values.copy() for site, values in features.values.items()}
    for values in other.values():
        values[gone] += 7
    recipe = Recipe(width=8, k=2, steps=20)
    one, two, three = (
        train_transcoder(each, READS, writes=WRITES, recipe=recipe, withheld=cells).decoder
        for each, cells in ((features, cell), (Features(other, features.frame), cell),
                            (Features(other, features.frame), ()))
    )  # fmt: skip
    assert torch.equal(one, two) and not torch.allclose(one, three)
    with pytest.raises(LeakError):
        train_transcoder(features, READS, writes=WRITES, recipe=recipe)


def test_too_few_tokens_and_an_output_that_stands_still_are_refused() -> None:
    features, _ = planted(n=100)
    with pytest.raises(SampleError):
        train_transcoder(features, READS, writes=WRITES, recipe=Recipe(width=200), withheld=())
    still = Features({**features.values, WRITES: np.zeros((100, 16))}, features.frame)
    with pytest.raises(NumericsError):
        train_transcoder(still, READS, writes=WRITES, recipe=RECIPE, withheld=())


def test_tokens_of_pictures_stand_one_below_the_other() -> None:
    frame = pd.DataFrame({"label": ["a"], "domain": ["real"]})
    features = Features({READS: np.arange(6.0)[None]}, frame, shapes={READS: (3, 2)})
    assert tokens_of(features, READS).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_the_maps_beside_it_are_those_of_scikit_learn_and_of_least_squares() -> None:
    features, _ = planted(n=600, noise=True)
    (x, y), (x_new, y_new) = (
        (tokens_of(half, READS), tokens_of(half, WRITES)) for half in halves(features)
    )
    peer = PCA(3).fit(y.numpy())
    theirs = peer.inverse_transform(peer.transform(y_new.numpy()))
    np.testing.assert_allclose(_components(y, y_new, 3).numpy(), theirs, atol=1e-8)
    design = np.column_stack([x, np.ones(len(x))])
    slope = np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    whole = np.column_stack([x_new, np.ones(len(x_new))]) @ slope
    np.testing.assert_allclose(_regression(x, y, x_new, 16).numpy(), whole, atol=1e-5)
    fitted = design @ slope
    axes = np.linalg.svd(fitted - fitted.mean(axis=0), full_matrices=False)[2][:2]
    mean = y.numpy().mean(axis=0)
    np.testing.assert_allclose(_regression(x, y, x_new, 2).numpy(),
                               mean + (whole - mean) @ axes.T @ axes, atol=1e-5)  # fmt: skip
