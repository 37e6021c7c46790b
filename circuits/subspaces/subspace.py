"""Subspaces of a site's activation, and their interchange between two inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import feature_axis
from interp.core.errors import ShapeError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.parallel import Batching
from interp.core.tower import Tower, part

TINY = 1e-300


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
    facts: Mapping[str, object] = field(default_factory=dict)

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
            given = f"activations {tuple(base.shape)} and {tuple(source.shape)}"
            right = f"one shape of the axes {listed(self.axes)}, features {len(self.basis)}"
            do = "take both from this site"
            raise ShapeError(f"interchange a subspace at {self.site}", given, right, do)
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


def effective(
    felt: Float[Tensor, "gradient d"], moved: Float[Tensor, "activation d"], *, span: float
) -> Float[Tensor, "d within"]:
    """An orthonormal basis of what varies in the directions that are read, where that has effects.

    First L: the gradients' principal components, each counted by how strongly it is read times how
    far activations go along it. Then, within L, with the activations' covariance C = H H^T and the
    gradients' scatter S, the ways of varying H v for the components v of H^T S H. Of both, as many
    as hold the share `span`. So a code with an unread copy beside it gives the code alone, what is
    read but stands still gives nothing, and neither loudness nor a strong reader decides alone.

    >>> felt = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # directions 0 and 2 are read
    >>> moved = torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])  # 0 varies, and 1 with it
    >>> effective(felt, moved, span=0.99).abs().flatten().tolist()
    [1.0, 0.0, 0.0]
    """
    strengths, readers = principal(felt)
    effects = strengths * (moved @ readers).square().sum(dim=0)
    order = effects.argsort(descending=True)
    read = readers[:, order[: count(effects[order], span)]]
    sizes, directions = principal(moved @ read)
    half = directions * sizes.sqrt()
    effects, ways = principal(felt @ read @ half)
    return orthonormal(read @ half @ ways[:, : count(effects, span)])


def by_effect(
    basis: Float[Tensor, "d k"], felt: Float[Tensor, "gradient d"], moved: Float[Tensor, "move d"]
) -> Float[Tensor, "d k"]:
    """The same subspace, its directions in the order of what varying along them does.

    So its first directions are the smaller subspace that does most.

    >>> felt, moved = torch.eye(2), torch.tensor([[1.0, 3.0], [-1.0, -3.0], [1.0, -3.0]])
    >>> by_effect(torch.eye(2), felt, moved)[:, 0].abs().argmax().item()
    1
    """
    turned = basis.to(moved)
    along, read = moved @ turned, felt.to(moved) @ turned
    sizes, directions = torch.linalg.eigh(along.T @ along)
    least = 1e-6 * sizes.max().clamp_min(TINY)  # every direction stays, if last
    half = directions * sizes.clamp_min(least).sqrt()
    ways = torch.linalg.eigh(half.T @ read.T @ read @ half)[1].flip(-1)
    return orthonormal(turned @ half @ ways).to(basis)


def count(sizes: Float[Tensor, "part"], share: float) -> int:
    """How many of the first sizes hold the share of all; every one where there is nothing."""
    held = sizes.cumsum(0) / sizes.sum().clamp_min(TINY)
    return int((held < share).sum()) + 1


def pattern(
    basis: Float[Tensor, "d k"], moved: Float[Tensor, "activation d"]
) -> Float[Tensor, "d k"]:
    """An orthonormal basis of what moves when what a basis reads does: C R, not R.

    What is read says how a code is taken, not how it lies (Haufe et al. 2014, "On the
    interpretation of weight vectors of linear models in multivariate neuroimaging").

    >>> reader, moved = torch.tensor([[0.6], [0.8]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> pattern(reader, moved).abs().flatten().tolist()
    [1.0, 0.0]
    """
    return orthonormal(moved.T @ (moved @ basis))


def principal(
    rows: Float[Tensor, "row d"],
) -> tuple[Float[Tensor, "part"], Float[Tensor, "d part"]]:
    """Sums of squares along principal components, and these, the largest first."""
    if len(rows) < rows.shape[1]:
        _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
        return sizes**2, directions.T
    sizes, directions = torch.linalg.eigh(rows.T @ rows)
    return sizes.flip(0).clamp_min(0), directions.flip(-1)


def orthonormal(columns: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """Orthonormal columns with the same span, whatever the lengths of those given."""
    return torch.linalg.qr(columns / columns.norm(dim=0).clamp_min(TINY)).Q


def read_at(tower: Tower, site: str, x: Tensor) -> dict[str, int]:
    """The place of a site that the embedding depends on, where it depends on one position alone.

    A ViT that pools its class token reads it at position 0; one that averages patches, everywhere.

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
            given = f"the place {dict(where)}"
            right = f"places of other axes than batch and {axis}, along which the subspace lies"
            do = 'write for example where={"pos": 0}'
            raise SpecificationError(f"find a subspace at {site}", given, right, do)


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
