"""Features that were saved are the features that are opened."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.core.errors import DataError
from interp.probes import Features, directions, open_features, save_features


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
    with pytest.raises(DataError, match="save_features"):
        open_features(tmp_path)
    folder = save_features(made(), tmp_path / "kept")
    (folder / "001.npy").write_bytes(b"not numpy")
    with pytest.raises(DataError, match="do not read"):
        open_features(folder)
    with pytest.raises(DataError, match="do not read"):
        save = save_features(made(), tmp_path / "other")
        (save / "000.npy").unlink()
        open_features(save)
