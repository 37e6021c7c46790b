"""Features: one pass, the right pooling, and errors that name site and picture."""

import numpy as np
import pytest

from interp.core.errors import (
    DataError,
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
)
from interp.core.images import ImageTable
from interp.probes import Features, collect, directions, factorisation, pixels, similarity
from tests.probes.toy import Toy, noise, preprocess


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageTable:
    return noise(tmp_path_factory.mktemp("pictures"))


def raw(images: ImageTable) -> np.ndarray:
    return images.tensors(preprocess).numpy()


def test_pooling_is_mean_over_space_and_tokens_with_heads_side_by_side(images) -> None:
    got = collect(Toy(), images, "*", preprocess=preprocess, batch_size=5).values
    mean = raw(images).mean(axis=(2, 3))
    np.testing.assert_allclose(got["map"], mean, rtol=1e-6)
    np.testing.assert_allclose(got["tokens"], mean, rtol=1e-6)
    np.testing.assert_allclose(got["heads"], np.hstack([mean, 2 * mean]), rtol=1e-6)
    np.testing.assert_allclose(got["hook_embedding"], 16 * mean, rtol=1e-6)
    tokens = raw(images).reshape(12, 3, 16)
    np.testing.assert_allclose(
        got["pattern"], np.einsum("bdq,bdk->bqk", tokens, tokens).mean(axis=1), rtol=1e-5
    )
    assert all(matrix.dtype == np.float32 for matrix in got.values())


def test_class_pooling_takes_the_first_token_and_leaves_maps_averaged(images) -> None:
    got = collect(Toy(), images, "*", preprocess=preprocess, pool="class").values
    np.testing.assert_allclose(got["tokens"], np.arange(12)[:, None].repeat(3, axis=1))
    np.testing.assert_allclose(got["heads"][:, 3:], 2 * got["tokens"])
    np.testing.assert_allclose(got["map"], raw(images).mean(axis=(2, 3)), rtol=1e-6)


def test_one_pass_serves_all_sites_and_stops_after_the_last(images) -> None:
    toy = Toy()
    features = collect(toy, images, ["map", "tokens"], preprocess=preprocess, batch_size=5)
    assert toy.calls == [(1, 1), (5, 1), (5, 1), (2, 1)]  # one picture first, to say the cost
    assert features.layers == {"map": -1, "tokens": 0}
    assert features.depths == {"map": 0.0, "tokens": 0.25}
    collect(toy, images, "hook_embedding", preprocess=preprocess)
    assert toy.calls[-1] == (12, None)


def test_out_of_memory_halves_the_batch_and_says_so(images, capsys, monkeypatch) -> None:
    monkeypatch.setattr("interp.core.progress._quiet", False)
    toy, plain = Toy(), collect(Toy(), images, "heads", preprocess=preprocess)
    toy.room = 3
    got = collect(toy, images, "heads", preprocess=preprocess, batch_size=12)
    np.testing.assert_array_equal(got.values["heads"], plain.values["heads"])
    assert [n for n, _ in toy.calls] == [1, 12, 6, 3, 3, 3, 3]
    assert "halved to 3" in capsys.readouterr().err
    toy.room = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        collect(toy, images, "heads", preprocess=preprocess)


def test_a_nan_names_its_site_and_picture(images) -> None:
    toy = Toy()
    toy.poison = 7.0  # only picture 7 has it
    with pytest.raises(NumericsError, match=r"heads.*7\.png"):
        collect(toy, images, ["map", "heads"], preprocess=preprocess, batch_size=5)
    with pytest.raises(NumericsError, match="site"):
        Features({"site": np.full((1, 2), np.nan)}, images.frame.iloc[:1])


def test_pixels_are_the_preprocessed_picture_and_join_as_a_site(images) -> None:
    floor = pixels(images, preprocess)
    np.testing.assert_array_equal(floor.values["pixels"], raw(images).reshape(12, -1))
    small = pixels(images, preprocess, side=2).values["pixels"].reshape(12, 3, 2, 2)
    np.testing.assert_allclose(small[:, :, 0, 0], raw(images)[:, :, :2, :2].mean(axis=(2, 3)),
                               rtol=1e-6)  # fmt: skip
    joined = collect(Toy(), images, "map", preprocess=preprocess).joined(floor)
    assert joined.sites == ["map", "pixels"] and joined.layer("pixels") == -1
    with pytest.raises(ShapeError, match="two tables"):
        joined.joined(floor.rows([0, 1]))


def test_pixels_are_named_as_a_control(planted) -> None:
    features = planted(1.0, sites=2)
    values = {"pixels": features.values["site0"], "hook": features.values["site1"]}
    table = similarity(Features(values, features.frame), n_permutations=9, control="epoch 0")
    assert table.frame["control"].tolist() == ["pixels", "epoch 0"]


def test_rows_and_only_keep_frame_and_values_aligned(images) -> None:
    features = collect(Toy(), images, "*", preprocess=preprocess, pool="class")
    part = features.rows(features.frame["label"] == "1").only(["tok*"])
    assert part.sites == ["tokens"] and len(part) == 4
    assert part.frame["path"].tolist() == [f"{int(n)}.png" for n in part.values["tokens"][:, 0]]


def test_doors_refuse_what_cannot_be_done(images) -> None:
    with pytest.raises(SiteError, match="tokens"):
        collect(Toy(), images, "token", preprocess=preprocess)
    with pytest.raises(SpecificationError, match="pool"):
        collect(Toy(), images, "map", preprocess=preprocess, pool="max")
    with pytest.raises(SampleError, match="no pictures"):
        collect(Toy(), images[:0], "map", preprocess=preprocess)
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        Features({"site": np.ones((3, 2), dtype=np.float32)}, images.frame)


def test_similarity_takes_a_tower_directly(images) -> None:
    with pytest.raises(SpecificationError, match="preprocess"):
        similarity(Toy(), images, "map")
    with pytest.raises(SampleError):  # one domain: no pair to compare
        similarity(Toy(), images, "map", preprocess=preprocess)


def test_one_domain_twice_and_a_missing_label_are_refused(planted) -> None:
    features = planted(0.5, n_classes=6)
    for measure in (similarity, directions, factorisation):
        with pytest.raises(SpecificationError, match="each domain once"):
            measure(features, domains=["real", "real"])
    frame = features.frame.copy()
    frame.loc[frame.index[:3], "label"] = None
    with pytest.raises(DataError, match="3 pictures without a label"):
        similarity(Features(features.values, frame))
