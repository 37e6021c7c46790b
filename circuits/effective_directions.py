"""Directions at a site by which what varies there has an effect.

Two kinds of rows are given: gradients, which say what is read, and centred activations, which say
what varies. A direction may be read but stand still, or vary unread; neither carries anything.
"""

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-300


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
