"""Views: PCA against scikit-learn's, UMAP where it is installed, and what is said where not."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from interp.core.errors import SampleError, SpecificationError
from interp.probes import Features, pca_view, umap_view
from tests.refusals import refuses


def test_pca_is_scikit_learns_up_to_sign(planted) -> None:
    features = planted(0.5, sites=2)
    table = pca_view(features)
    assert len(table) == 2 * len(features)
    for site in features.sites:
        part = table.frame[table.frame["site"] == site]
        peer = PCA(2, svd_solver="full").fit(features.values[site].astype(float))
        theirs = peer.transform(features.values[site].astype(float))
        np.testing.assert_allclose(abs(part[["x", "y"]].to_numpy()), abs(theirs), atol=1e-8)
        np.testing.assert_allclose(table.facts["explained"][site], peer.explained_variance_ratio_)
        assert part["label"].tolist() == features.frame["label"].tolist()
        assert part["picture"].tolist() == features.frame["path"].tolist()


def test_a_view_is_the_same_in_whatever_sign_the_solver_answers(planted) -> None:
    features = planted(0.5)
    turned = Features({"site0": -features.values["site0"]}, features.frame)
    one, other = pca_view(features).frame, pca_view(turned).frame
    np.testing.assert_allclose(one["x"], -other["x"], atol=1e-5)  # not -(-x): weights turned too


def test_features_of_one_column_have_no_second_coordinate() -> None:
    frame = pd.DataFrame({"label": list("abc"), "domain": "real"})
    table = pca_view(Features({"s": np.arange(3.0)[:, None]}, frame))
    assert table.frame["x"].tolist() == pytest.approx([-1.0, 0.0, 1.0])
    assert (table.frame["y"] == 0).all()


def test_views_refuse_what_they_cannot_draw(planted, monkeypatch) -> None:
    refuses(SampleError, "three", pca_view, planted(0.5).rows([0, 1]))
    monkeypatch.setitem(sys.modules, "umap", None)
    refuses(SpecificationError, r"pip install umap-learn", umap_view, planted(0.5))


def test_umap_keeps_apart_what_is_far_apart(planted) -> None:
    pytest.importorskip("umap", reason="the extra umap is not installed")
    features = planted(1.0, rotate=False, offset=30.0)
    frame = umap_view(features, seed=1).frame
    pd.testing.assert_frame_equal(frame, umap_view(features, seed=1).frame)
    means = frame.groupby("domain")[["x", "y"]].mean().to_numpy()
    spread = frame.groupby("domain")[["x", "y"]].std().to_numpy().max()
    assert np.linalg.norm(means[0] - means[1]) > 2 * spread
