"""Features: one pass, the right pooling, and errors that name site and picture."""

from pathlib import Path

import numpy as np
import pandas as pd
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
from interp.probes import (
    Features,
    collect,
    directions,
    factorisation,
    open_features,
    pixels,
    save_features,
    similarity,
)
from tests.probes.toy import Toy, noise, preprocess
from tests.refusals import refuses


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
    refuses(RuntimeError, "out of memory", collect, toy, images, "heads", preprocess=preprocess)


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
    refuses(ShapeError, "two tables", joined.joined, floor.rows([0, 1]))


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
    refuses(SiteError, "tokens", collect, Toy(), images, "token", preprocess=preprocess)
    with pytest.raises(SpecificationError, match="pool"):
        collect(Toy(), images, "map", preprocess=preprocess, pool="max")
    refuses(SampleError, "no pictures", collect, Toy(), images[:0], "map", preprocess=preprocess)
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        Features({"site": np.ones((3, 2), dtype=np.float32)}, images.frame)


def test_similarity_takes_a_tower_directly(images) -> None:
    refuses(SpecificationError, "preprocess", similarity, Toy(), images, "map")
    with pytest.raises(SampleError):  # one domain: no pair to compare
        similarity(Toy(), images, "map", preprocess=preprocess)


def test_one_domain_twice_and_a_missing_label_are_refused(planted) -> None:
    features = planted(0.5, n_classes=6)
    for measure in (similarity, directions, factorisation):
        refuses(SpecificationError, "each domain once", measure, features, domains=["real", "real"])
    frame = features.frame.copy()
    frame.loc[frame.index[:3], "label"] = None
    refuses(DataError, "3 pictures without a label", similarity, Features(features.values, frame))


def made() -> Features:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(c, d, a) for c in ("None", "007", "NA", "x y", "1.0") for d in ("real", "sketch")
         for a in "wxyz"],
        columns=["label", "domain", "artist"],
    )  # fmt: skip
    frame["withheld"] = frame["label"] == "NA"
    values = {
        "blocks.0.hook_resid_post": generator.normal(size=(40, 6)).astype(np.float32),
        "hook_embedding": generator.normal(size=(40, 3)),
    }
    depths = {"blocks.0.hook_resid_post": 0.5, "hook_embedding": 1.0}
    layers = {"blocks.0.hook_resid_post": 0, "hook_embedding": 1}
    shapes = {"blocks.0.hook_resid_post": (2, 3)}
    return Features(values, frame, layers, depths, {"pool": "token"}, shapes)


def test_everything_comes_back(tmp_path: Path) -> None:
    features = made()
    found = open_features(save_features(features, tmp_path / "kept"))
    pd.testing.assert_frame_equal(found.frame, features.frame)
    assert found.sites == features.sites and found.facts == features.facts
    for site in features.sites:
        np.testing.assert_array_equal(found.values[site], features.values[site])
        assert found.values[site].dtype == features.values[site].dtype
        assert (found.layer(site), found.depth(site)) == (
            features.layer(site),
            features.depth(site),
        )
    assert dict(found.shapes) == dict(features.shapes)
    measured = [directions(each, "hook_embedding").frame for each in (features, found)]
    pd.testing.assert_frame_equal(*measured)


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_features(made(), tmp_path / "kept")
    again = made().only("hook_embedding")
    assert open_features(save_features(again, tmp_path / "kept")).sites == ["hook_embedding"]


def test_what_is_no_such_folder_is_said(tmp_path: Path) -> None:
    refuses(DataError, "save_features", open_features, tmp_path)
    folder = save_features(made(), tmp_path / "kept")
    (folder / "001.npy").write_bytes(b"not numpy")
    refuses(DataError, "do not read", open_features, folder)
    with pytest.raises(DataError, match="do not read"):
        save = save_features(made(), tmp_path / "other")
        (save / "000.npy").unlink()
        open_features(save)
