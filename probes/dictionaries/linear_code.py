"""Codes: activations as non-negative features, of which raw units and components are the baselines.

A code turns activations into features "picture feature", all of them at least 0. A dictionary is a
code, and has to beat raw units and principal components. Units and components have a sign, so each
gives two features: how far it is above its mean, and how far below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from interp.core.errors import LeakError, NumericsError, ShapeError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.probes.dictionaries.usage import only_site
from interp.probes.features.features import Features

Cells = Sequence[tuple[str, str]]
"""Cells of class and domain, such as `[("axe", "sketch")]`."""


def training_rows(frame: pd.DataFrame, withheld: Cells | None) -> np.ndarray:
    """Rows of the frame that no withheld cell holds: what a dictionary or code may be fitted to.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": ["sketch", "sketch"]})
    >>> training_rows(frame, [("cat", "sketch")]).tolist()
    [1]
    """
    marked = np.zeros(len(frame), dtype=bool)
    if "withheld" in frame.columns:
        marked = frame["withheld"].to_numpy(dtype=bool)
    elif withheld is None:
        given = "nothing that says which cells are withheld"
        right = "the cells (class, domain) that the model was not trained on"
        do = 'pass withheld=[("class", "domain"), ...], or withheld=() if there are none'
        raise LeakError("fit features to these pictures", given, right, do)
    if withheld is None:
        return np.flatnonzero(~marked)
    cells = pd.MultiIndex.from_frame(frame[["label", "domain"]])
    named = cells.isin(list(withheld)) if len(withheld) else np.zeros(len(frame), dtype=bool)
    leaked = sorted({f"{label} x {domain}" for label, domain in cells[marked & ~named]})
    if leaked:
        given = f"pictures of the withheld {listed(leaked)}"
        right = "no picture of a cell that the frame withholds"
        do = "name those cells in `withheld` too; to use them, drop the column `withheld`"
        raise LeakError("fit features to these pictures", given, right, do)
    return np.flatnonzero(~named)


@dataclass(frozen=True)
class LinearCode:
    """Coordinates of activations as a code: two features for each, above and below its mean.

        z = (x - mean) axes;   features max(z, 0) and max(-z, 0);   x^ = mean + z back

    Args:
        mean: The activation whose coordinates are 0, "d_in".
        axes: From activations to coordinates, "d_in coordinate".
        back: From coordinates to activations, "coordinate d_in".

    Notes:
        Features j and j + n belong to coordinate j of n. Called on "picture d_in", the code gives
        "picture 2*coordinate" in numpy.

    >>> code = LinearCode(torch.zeros(2), torch.eye(2), torch.eye(2))
    >>> code([[3.0, -1.0]]).tolist()
    [[3.0, 0.0, 0.0, 1.0]]
    """

    mean: Float[Tensor, " d_in"]
    axes: Float[Tensor, "d_in coordinate"]
    back: Float[Tensor, "coordinate d_in"]

    def encode(self, x: Tensor) -> Tensor:
        """Activations "... d_in" as features "... 2*coordinate"."""
        if x.shape[-1] != len(self.mean):
            given = f"shape {tuple(x.shape)}"
            do = "give the activations of the site that the code was fitted to"
            raise ShapeError("encode activations", given, f"{len(self.mean)} values a row", do)
        z = (x - self.mean.to(x)) @ self.axes.to(x)
        return torch.cat([z.relu(), z.relu() - z], dim=-1)

    def reconstruct(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """What the features (those of x, unless others are given) make of "... d_in"."""
        above, below = (self.encode(x) if features is None else features).chunk(2, dim=-1)
        return (above - below) @ self.back.to(x) + self.mean.to(x)

    def __call__(self, values: ArrayLike) -> np.ndarray:
        return self.encode(torch.as_tensor(np.asarray(values))).numpy()


@door
def raw_units(features: Features, site: str, *, withheld: Cells | None = None) -> LinearCode:
    """Take a site's raw units as a code, each in its own standard deviations from its mean.

    Args:
        features: Features "picture d_in" per site.
        site: The site.
        withheld: Cells (class, domain) that are left out of mean and deviation; None takes them
            from a column `withheld` of the frame, and () says that nothing is withheld.

    Returns:
        The code, with two features per unit. A unit that does not vary is left at 0.

    Raises:
        SiteError: For a site that the features do not have.
        LeakError: Where nothing says which cells are withheld, or where the frame withholds cells
            that `withheld` does not name.
        NumericsError: For activations that do not vary, or fewer than two pictures.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
    >>> features = Features({"site": np.array([[1.0, 0.0], [3.0, 0.0]])}, frame)
    >>> raw_units(features, "site", withheld=())(features.values["site"]).tolist()
    [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """
    x = _training(features, site, withheld)
    deviation = x.std(axis=0)
    small = deviation <= 1e-7 * np.maximum(np.abs(x.mean(axis=0)), deviation.max())
    inverse = np.where(small, 0.0, 1 / np.where(small, 1.0, deviation))
    back = np.where(small, 0.0, deviation)
    return _linear(features, site, x.mean(axis=0), np.diag(inverse), np.diag(back))


@door
def pca(
    features: Features, site: str, *, n_components: int | None = None, withheld: Cells | None = None
) -> LinearCode:
    """Take a site's principal components as a code, in the units of the activations.

    Args:
        features: Features "picture d_in" per site.
        site: The site.
        n_components: Leading components that are kept; None keeps all that vary.
        withheld: Cells (class, domain) that are left out of the fit; None takes them from a column
            `withheld` of the frame, and () says that nothing is withheld.

    Returns:
        The code, with two features per component.

    Raises:
        SiteError: For a site that the features do not have.
        LeakError: Where nothing says which cells are withheld, or where the frame withholds cells
            that `withheld` does not name.
        NumericsError: For activations that do not vary, or fewer than two pictures.
        SpecificationError: For more components than vary, or fewer than one.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
    >>> features = Features({"site": np.array([[1.0, 1.0], [3.0, 3.0]])}, frame)
    >>> np.abs(pca(features, "site", withheld=())(features.values["site"])).max().round(3)
    np.float64(1.414)
    """
    x = _training(features, site, withheld)
    centred = x - x.mean(axis=0)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    varying = int((size > 1e-7 * max(size[0], np.abs(x).max() * np.sqrt(len(x)) * 1e-3)).sum())
    n = varying if n_components is None else n_components
    if not 1 <= n <= varying:
        given = f"n_components={n_components}"
        right = f"1 to {varying}, as many as vary"
        do = "ask for fewer, or for none to have all"
        raise SpecificationError(f"take principal components of {site}", given, right, do)
    return _linear(features, site, x.mean(axis=0), axes[:n].T, axes[:n])


def _training(features: Features, site: str, withheld: Cells | None) -> np.ndarray:
    name = only_site(features, site)
    x = features.values[name][training_rows(features.frame, withheld)].astype(np.float64)
    if len(x) < 2 or not x.std(axis=0).max() > 1e-7 * np.abs(x).max():
        given = f"{len(x)} pictures whose activations do not vary"
        do = "choose another site, or check the model"
        raise NumericsError(f"fit a code to {site}", given, "activations that vary", do)
    return x


def _linear(
    features: Features, site: str, mean: np.ndarray, axes: np.ndarray, back: np.ndarray
) -> LinearCode:
    dtype = torch.as_tensor(features.values[site][:0]).dtype
    return LinearCode(*(torch.as_tensor(each).to(dtype) for each in (mean, axes, back)))
