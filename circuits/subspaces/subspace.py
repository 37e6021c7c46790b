"""Subspaces of a site's activation, and their interchange between two inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.core.errors import ShapeError, SiteError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.runs.batching import Batching
from interp.core.tower import Tower, part

FEATURES = ("d_model", "d_mlp", "d_head", "d_embed", "channel", "feature")
"""The axes along which a subspace may lie."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """A subspace of a site's activation: orthonormal directions along its feature axis.

    Args:
        site: The site.
        axes: Its axes in order.
        basis: The directions, orthonormal, `d k`.
        where: The place at which they act, by axis; they act alike at all places of the axes that
            it leaves out. The default leaves out all.
        losses: The losses of the fit, `step`; empty where it was not fitted.
        facts: How it was made.

    >>> plane = Subspace("blocks.0.hook_resid_post", ("batch", "pos", "d_model"),
    ...                  torch.eye(3)[:, :1], where={"pos": 1})
    >>> plane.swap(torch.zeros(1, 2, 3), torch.ones(1, 2, 3)).tolist()
    [[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]
    """

    site: str
    axes: tuple[str, ...]
    basis: Float[Tensor, "d k"]
    where: Mapping[str, int] = field(default_factory=dict)
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        place = f" at {dict(self.where)}" if self.where else ""
        d, k = self.basis.shape
        return f"Subspace({k} of {d} directions of {self.site}{place})"

    def with_basis(self, basis: Float[Tensor, "d k"]) -> "Subspace":
        """Another subspace at the same place, which was not fitted.

        Args:
            basis: Its directions, orthonormal, `d k`.

        Returns:
            The subspace.
        """
        return Subspace(self.site, self.axes, basis.to(self.basis), self.where)

    def first(self, k: int) -> "Subspace":
        """The subspace of its first directions, of which a fitted one has the strongest first.

        Args:
            k: How many.

        Returns:
            The subspace; all of it where it has no more.
        """
        return replace(self, basis=self.basis[:, :k])

    def swap(self, base: Tensor, source: Tensor) -> Tensor:
        """Give a base's activation the part that a source's has in the subspace.

        h_base + R R^T (h_source - h_base), with R the basis.

        Args:
            base: The whole activation of the site in one run, `batch ...`.
            source: The same in another run.

        Returns:
            The changed activation.

        Raises:
            ShapeError: For activations that differ in shape, or have another width than the basis.
        """
        width = dict(zip(self.axes, base.shape, strict=False)).get(feature_axis(self.axes))
        if base.shape != source.shape or base.ndim != len(self.axes) or width != len(self.basis):
            raise ShapeError(
                f"interchange a subspace at {self.site}",
                f"activations {tuple(base.shape)} and {tuple(source.shape)}",
                f"one shape of the axes {listed(self.axes)}, features {len(self.basis)}",
                "take both from this site",
            )
        return swapped(base, source, self.basis, self.axes, self.where)


def swapped(
    base: Tensor, source: Tensor, basis: Tensor, axes: tuple[str, ...], where: Mapping[str, int]
) -> Tensor:
    """The base's activation with the part in the span of `basis`, at the place, the source's."""
    index, place = place_of(axes, where)
    own, turned = base[index], basis.to(base)
    shift = (source[index] - own).movedim(place, -1)
    moved = own + ((shift @ turned) @ turned.T).movedim(-1, place)
    if not where:
        return moved
    patched = base.clone()
    patched[index] = moved
    return patched


def place_of(
    axes: tuple[str, ...], where: Mapping[str, int]
) -> tuple[tuple[int | slice | Tensor, ...], int]:
    """The index of a subspace's place, and which axis of what it gives are the features."""
    rest = [axis for axis in axes if axis not in where]
    return part(where, axes=axes, site="a subspace"), rest.index(feature_axis(axes))


def feature_axis(axes: Sequence[str]) -> str:
    """The axis along which a subspace lies; `SiteError` for a site that has none.

    >>> feature_axis(("batch", "channel", "row", "column"))
    'channel'
    """
    for axis in FEATURES:
        if axis in axes:
            return axis
    raise SiteError(
        "find a subspace",
        f"a site with the axes {listed(axes)}",
        f"a site with one of {listed(FEATURES)}",
        "choose a residual stream, an attention's or an MLP's output, or a feature map; a traced "
        "module's axes are named by open_tower(..., axes=...)",
    )


def read_at(tower: Tower, site: str, x: Tensor) -> dict[str, int]:
    """The place of a site that the embedding depends on, where it depends on one position alone.

    A ViT that pools its class token reads the last stream at position 0; one that averages its
    patches reads it everywhere.

    Args:
        tower: The tower.
        site: The site, usually the last of the stream.
        x: An input, `[1 ...]`.

    Returns:
        The place, as `{"pos": 0}`; empty for a site without positions, or one read at several.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()])
    >>> read_at(tower, "blocks.0.hook_resid_post", torch.ones(1, 3, 2))
    {}
    """
    axes = tower.axes(site)
    if "pos" not in axes:
        return {}
    runs = hold(tower, site, x, rows=1)
    with torch.enable_grad():
        activation = runs.activation.detach().requires_grad_()
        outputs = runs.finish(activation)
        ways = torch.linspace(1, 2, outputs.numel()).to(outputs).view_as(outputs)
        [gradient] = torch.autograd.grad((ways * outputs).sum(), [activation])
    others = [place for place, axis in enumerate(axes) if axis != "pos"]
    read = gradient.abs().amax(dim=others).nonzero().flatten().tolist()
    return {"pos": read[0]} if len(read) == 1 else {}


def check_place(tower: Tower, sites: Sequence[str], where: Mapping[str, int]) -> None:
    """Refuse sites without features, and a place that would cut through a subspace."""
    for site in sites:
        axis = feature_axis(tower.axes(site))
        if {"batch", axis} & set(where):
            raise SpecificationError(
                f"find a subspace at {site}",
                f"the place {dict(where)}",
                f"places of other axes than batch and {axis}, along which the subspace lies",
                'write for example where={"pos": 0}',
            )


def check_k(site: str, k: int, width: int) -> None:
    """Refuse a number of directions that the site does not have."""
    if not 1 <= k <= width:
        raise SpecificationError(
            f"find a subspace at {site}", f"k = {k}", f"1 to {width} directions", "choose another k"
        )


@door
def interchange(
    tower: Tower, subspace: Subspace, *, base: Tensor, source: Tensor, batch_size: int = 32
) -> Float[Tensor, "batch d_embed"]:
    """Run a tower on base inputs with a subspace's part of the activation taken from source inputs.

    Args:
        tower: The tower.
        subspace: The subspace that is exchanged.
        base: Inputs that are run, `batch ...`.
        source: Inputs that the subspace's part comes from, in the same order.
        batch_size: Examples in a forward.

    Returns:
        Outputs of the tower for `base`.

    Raises:
        ShapeError: For inputs that differ in shape, or a subspace of another width.
        NumericsError: For NaN or infinity at the site.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()])  # doubles the stream
    >>> first = Subspace("hook_embed", tower.axes("hook_embed"), torch.eye(2)[:, :1])
    >>> interchange(tower, first, base=torch.zeros(1, 1, 2), source=torch.ones(1, 1, 2)).tolist()
    [[2.0, 0.0]]
    """

    def run(window: slice) -> Tensor:
        own, other = (
            hold(tower, subspace.site, x[window], rows=batch_size) for x in (base, source)
        )
        return own.finish(subspace.swap(own.activation, other.activation))

    with torch.no_grad():
        return torch.cat(Batching(batch_size).each(len(base), run))
