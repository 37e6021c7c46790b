"""Erasers of a concept: fitted to vectors, and applied inside a tower."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.core.edits.edits import tokens, untokens
from interp.core.edits.erasers import Eraser, Moments
from interp.core.errors import SiteError, check_known
from interp.core.tower import Tower

POSITIONS = ("every", "class")
"""Which tokens an eraser changes: each of them with one map, or the class token alone."""


def leace(x: ArrayLike, labels: ArrayLike) -> Eraser:
    """Fit the LEACE eraser of one labelling of vectors.

    Args:
        x: Vectors "row feature".
        labels: Labels "row": names, or whole numbers from 0.

    Returns:
        The affine map after which no linear probe reads the labels from these vectors, and that
        changes them least in mean square.

    Raises:
        SampleError: For fewer than two vectors.
        NumericsError: For vectors whose covariance cannot be inverted.

    References:
        Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form".

    Notes:
        The covariance is shrunk, as in the package concept-erasure, since features may outnumber
        vectors. On the vectors that it was fitted to, labels are unreadable either way.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> labels = (x[:, 0] > 0).astype(int)
    >>> erased = leace(x, labels)(torch.as_tensor(x)).numpy()
    >>> gap = erased[labels == 1].mean(axis=0) - erased[labels == 0].mean(axis=0)
    >>> bool(np.abs(gap).max() < 1e-12)
    True
    """
    given = np.asarray(labels)
    if given.dtype.kind in "UO":  # names, in any order
        given = np.unique(given.astype(str), return_inverse=True)[1]
    vectors, places = torch.as_tensor(np.asarray(x)), torch.as_tensor(given)
    moments = Moments(1, int(places.max()) + 1)
    moments.update(vectors, places[:, None])
    return moments.leace(0)


def eraser_hook(
    eraser: Callable[[Tensor], Tensor], axes: tuple[str, ...], *, positions: str = "every"
) -> Callable[..., Tensor]:
    """A hook that erases from an activation: at every position or place, or at the class token."""
    check_positions(axes, positions)

    def hook(activation: Tensor, hook: object = None) -> Tensor:
        x = tokens(activation, axes)
        if positions == "class":
            x = torch.cat([eraser(x[:, :1]), x[:, 1:]], dim=1)
        else:
            x = eraser(x)
        return untokens(x, activation, axes)

    return hook


@contextmanager
def erased(
    tower: Tower, site: str, eraser: Callable[[Tensor], Tensor], *, positions: str = "every"
) -> Iterator[Tower]:
    """Apply an eraser at a site of a tower to everything that runs within the `with` block.

    Args:
        tower: The tower.
        site: The site.
        eraser: From vectors "batch token feature" to vectors of the same shape, such as an
            `Eraser`.
        positions: `every` changes every position (place of a map), `class` the class token alone.

    Returns:
        The tower, from the context manager.

    Raises:
        SiteError: For a site that the tower does not have, other positions, a site that holds no
            vectors (an attention pattern), or a class token on a feature map.

    >>> from interp.circuits import Chain
    >>> eye = torch.eye(2)
    >>> tower, eraser = Chain([torch.nn.Identity()]), Eraser(torch.zeros(2), eye[:, :1], eye[:1])
    >>> with erased(tower, "blocks.0.hook_resid_pre", eraser):
    ...     tower(torch.ones(1, 3, 2)).tolist()
    [[0.0, 2.0]]
    """
    check_known("erase at a site", "site", [site], tower.sites, SiteError)
    hook = eraser_hook(eraser, tower.axes(site), positions=positions)
    with tower.hooks(fwd_hooks=[(site, hook)]):
        yield tower


def check_positions(axes: tuple[str, ...], positions: str) -> None:
    """Refuse sites that hold no vectors, and a class token where there is none."""
    check_known("erase", "positions", [positions], POSITIONS, SiteError)
    if "key" in axes:
        given = f"the axes {', '.join(axes)}"
        right = "vectors: a stream, heads, a map or an embedding"
        raise SiteError("erase from an attention pattern", given, right, "choose another site")
    if positions == "class" and "row" in axes:
        given = "a feature map, which has none"
        right = "positions='every'"
        raise SiteError("erase from the class token", given, right, "erase at every place")
