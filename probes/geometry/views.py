"""Projections of features to a plane, to look at by domain and class; they are never evidence.

A view shows what two coordinates can show. `domain_test` and `domain_distance` measure, in all
coordinates, whether domains lie apart.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from interp.core.errors import SampleError, SpecificationError
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.tables import Table
from interp.probes.features.features import Features


@door
def pca_view(features: Features, sites: str | Iterable[str] | None = None) -> Table:
    """Project every site to its first two principal components.

    Args:
        features: Features "picture feature".
        sites: Names or patterns of sites; None takes all.

    Returns:
        A table with a row per picture and site. The coordinates `x` and `y` are in the units of the
        features. `explained` is the share of variance that both hold; the facts have it for each.

    Raises:
        SampleError: For fewer than three pictures.
        SiteError: For a site that the features do not have.

    Notes:
        A component's sign is chosen so that its largest weight is positive.

    >>> frame = pd.DataFrame({"label": list("abc"), "domain": "real"})
    >>> table = pca_view(Features({"s": np.array([[3.0, 0, 0], [0, 0, 0], [-3, 0, 0]])}, frame))
    >>> table.frame["x"].abs().tolist(), table.facts["explained"]["s"]
    ([3.0, 0.0, 3.0], [1.0, 0.0])
    """
    explained: dict[str, list[float]] = {}

    def project(site: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=0)
        left, lengths, right = np.linalg.svd(centred, full_matrices=False)
        largest = right[np.arange(len(right)), np.abs(right).argmax(axis=1)]
        total = max(float((lengths**2).sum()), np.finfo(float).tiny)
        explained[site] = [float(length**2 / total) for length in lengths[:2]]
        return (left * lengths * np.sign(largest))[:, :2]

    table = _view("PCA", features, sites, project, {"explained": explained})
    share = {site: sum(each) for site, each in explained.items()}
    return replace(table, frame=table.frame.assign(explained=table.frame["site"].map(share)))


@door
def umap_view(
    features: Features,
    sites: str | Iterable[str] | None = None,
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
) -> Table:
    """Project every site to two dimensions by UMAP.

    Args:
        features: Features "picture feature".
        sites: Names or patterns of sites; None takes all.
        n_neighbors: UMAP's number of neighbours; at most one less than there are pictures is used.
        min_dist: UMAP's least distance between points of the view.
        seed: Seed of the projection.

    Returns:
        A table with a row per picture and site, with the coordinates `x` and `y`.

    Raises:
        SampleError: For fewer than three pictures.
        SiteError: For a site that the features do not have.
        SpecificationError: Where umap-learn is not installed; it is the extra `umap`.

    References:
        McInnes et al. 2018, "UMAP: Uniform manifold approximation and projection for dimension
        reduction".

    Notes:
        Distances between clusters mean nothing in such a view, and clusters may come of nothing.

    >>> table = umap_view(features, "hook_embedding")  # doctest: +SKIP
    """
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        given = "an installation without umap-learn"
        do = "run pip install umap-learn, or use pca_view"
        raise SpecificationError("draw a UMAP view", given, "the package umap-learn", do) from None

    def project(site: str, x: np.ndarray) -> np.ndarray:
        near = min(n_neighbors, len(x) - 1)
        # one thread, which a seed demands; said here, or the library warns that it decides so
        view = UMAP(n_neighbors=near, min_dist=min_dist, random_state=seed, n_jobs=1)
        return np.asarray(view.fit_transform(x))

    notes = {"n_neighbors": n_neighbors, "min_dist": min_dist, "seed": seed}
    return _view("UMAP", features, sites, project, notes)


def _view(
    name: str,
    features: Features,
    sites: str | Iterable[str] | None,
    project: Callable[[str, np.ndarray], np.ndarray],
    notes: Mapping[str, object],
) -> Table:
    """A table of what `project` makes of each site's "picture feature"."""
    chosen = features.only(sites)
    if len(chosen) < 3:
        raise SampleError(
            f"draw a {name} view", f"{len(chosen)} pictures", "three or more", "give more pictures"
        )
    shown = {
        column: chosen.frame[column].to_numpy()
        for column in ("label", "domain")
        if column in chosen.frame.columns
    }
    if "path" in chosen.frame.columns:
        shown["picture"] = chosen.frame["path"].to_numpy()
    parts = []
    for site in track(chosen.sites, f"{name} view"):
        x, y = np.zeros((2, len(chosen)))
        found = project(site, np.asarray(chosen.values[site], dtype=np.float64))
        x, y = found[:, 0], (found[:, 1] if found.shape[1] > 1 else y)
        place = {"site": site, "layer": chosen.layer(site), "depth": chosen.depth(site)}
        parts.append(pd.DataFrame({"measure": name, **place, **shown, "x": x, "y": y}))
    return Table("view", pd.concat(parts, ignore_index=True), {**features.facts, **notes})
