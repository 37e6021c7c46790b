"""What each place of an input adds to a logit, five ways.

Two are exact sums, two go by gradients (of attention, and on the way from a plain picture), and one
covers place after place and looks what happens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from interp.core.errors import SpecificationError
from interp.core.tower import parameters_at_rest, resumption, straightening
from interp.models.attribution.decompose import decompose
from interp.models.attribution.transformer_parts import pooling_weight
from interp.models.towers.hooked import HookedTower
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.vit import HookedViT

ASKED = "explain a logit"

FINE = 6
"""A ResNet's map has at least so many rows where its places are counted, and a picture is covered
by so many rows of patches where the tower has none of its own."""

STEPS = 32
"""Points on the way of integrated gradients."""

Shares = Float[Tensor, "batch direction place"]
Grid = tuple[int, int]


def straight(
    tower: HookedTower, x: Tensor, directions: Float[Tensor, "direction d_embed"], layer: int
) -> Shares:
    """The stream at each place times its gradient, with norms, attention and gates held.

    The tower is then linear, so that the shares of all places and what biases add sum to
    <embedding, direction> (Ali et al. 2022, "XAI for transformers: better explanations through
    conservative propagation").

    Args:
        tower: A hooked tower.
        x: Pictures or tokens.
        directions: In the embedding.
        layer: The block before which places are counted.

    Returns:
        The share of each place.
    """
    with torch.no_grad():
        stream = tower(x, stop_at_layer=layer)
    leaf = stream.detach().requires_grad_()
    shares = []
    with _straightened(tower, layer):
        out = tower(leaf, start_at_layer=layer, **resumption(tower, x))
        for number, direction in enumerate(directions.to(out)):
            [gradient] = torch.autograd.grad(
                out, leaf, direction.expand_as(out), retain_graph=number + 1 < len(directions)
            )
            shares.append(_by_place(gradient * stream).sum(dim=-1))
    return torch.stack(shares, dim=1)


def straight_vectors(
    tower: HookedTower, x: Tensor, layer: int = 0
) -> Float[Tensor, "batch place d_embed"]:
    """What each place adds to the embedding itself, by running each through the linear tower.

    `straight` is its product with a direction, at the cost of a run a direction instead of a run a
    place.

    Args:
        tower: A hooked tower.
        x: Pictures or tokens.
        layer: The block before which places are counted.

    Returns:
        A vector for each place.
    """
    with torch.no_grad():
        stream = tower(x, stop_at_layer=layer)
    leaf = stream.detach().requires_grad_()
    apart = _by_place(stream)
    vectors = []
    with _straightened(tower, layer):
        out = tower(leaf, start_at_layer=layer, **resumption(tower, x))
        # the gradient is linear in what it is taken along, and its own gradient is the tower
        along = torch.zeros_like(out, requires_grad=True)
        [back] = torch.autograd.grad(out, leaf, along, create_graph=True)
        for place in range(apart.shape[1]):
            alone = torch.zeros_like(apart)
            alone[:, place] = apart[:, place]
            last = place + 1 == apart.shape[1]
            [vector] = torch.autograd.grad(
                back, along, _as_stream(alone, stream), retain_graph=not last
            )
            vectors.append(vector)
    return torch.stack(vectors, dim=1)


@contextmanager
def _straightened(tower: HookedTower, layer: int) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(parameters_at_rest(tower))
        stack.enter_context(tower.hooks(fwd_hooks=straightening(tower, ASKED, layer=layer)))
        yield


def _by_place(stream: Tensor) -> Float[Tensor, "batch place d_model"]:
    """A stream with its places in one axis: tokens, or the positions of a map by rows."""
    if stream.ndim == 4:
        return rearrange(stream, "batch channel row column -> batch (row column) channel")
    return stream


def _as_stream(places: Float[Tensor, "batch place d_model"], like: Tensor) -> Tensor:
    if like.ndim == 4:
        return rearrange(
            places, "batch (row column) channel -> batch channel row column", row=like.shape[2]
        )
    return places


def direct_vectors(tower: HookedTower, x: Tensor) -> Float[Tensor, "batch place d_embed"]:
    """What is read at, or written to, each place for the embedding directly; see `decompose`.

    Args:
        tower: A hooked tower.
        x: Pictures or tokens.

    Returns:
        A vector for each place.
    """
    parts = decompose(tower, x, by="place")
    places = np.flatnonzero(parts.labels["kind"] == "place")
    return parts.parts[:, places.tolist()]


def by_attention(
    tower: HookedTower, x: Tensor, directions: Float[Tensor, "direction d_embed"]
) -> Shares:
    """Attention weighed by the gradient of the logit, rolled out over the blocks.

    R grows from the identity by mean_heads((gradient * pattern)+) R in every block (Chefer, Gur &
    Wolf 2021, "Generic attention-model explainability"); the map is the row of R that is pooled.
    It has no unit, and sums to nothing.

    Args:
        tower: A hooked transformer without learned queries.
        x: Pictures or tokens.
        directions: In the embedding.

    Returns:
        The relevance of each place, without what stands at the pooled place to begin with.
    """
    if not isinstance(tower, (HookedViT, HookedText)) or getattr(tower, "attnpool", None):
        raise SpecificationError(
            ASKED,
            f"gradient x attention of a {type(tower).__name__}"
            + (" with learned queries" if isinstance(tower, HookedViT) else ""),
            "a transformer that pools by position",
            "use method='straight'",
        )
    patterns: list[Tensor] = []

    def keep(tensor: Tensor, hook: object) -> None:
        patterns.append(tensor)

    with torch.no_grad():
        leaf = tower(x, stop_at_layer=0)
    leaf = leaf.detach().requires_grad_()
    sites = [site for site in tower.sites if site.endswith("attn.hook_pattern")]
    shares = []
    with (
        torch.enable_grad(),
        parameters_at_rest(tower),
        tower.hooks(fwd_hooks=[(site, keep) for site in sites]),
    ):
        out = tower(leaf, start_at_layer=0, **resumption(tower, x))
        for number, direction in enumerate(directions.to(out)):
            gradients = torch.autograd.grad(
                out, patterns, direction.expand_as(out), retain_graph=number + 1 < len(directions)
            )
            shares.append(_rolled(tower, x, patterns, gradients))
    return torch.stack(shares, dim=1)


@torch.no_grad()
def _rolled(
    tower: HookedViT | HookedText,
    x: Tensor,
    patterns: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> Float[Tensor, "batch place"]:
    first = patterns[0]
    identity = torch.eye(first.shape[-1], device=first.device, dtype=first.dtype)
    rolled = identity.expand(len(first), -1, -1)
    for pattern, gradient in zip(patterns, gradients, strict=True):
        rolled = rolled + (gradient * pattern).clamp(min=0).mean(dim=1) @ rolled
    reads = pooling_weight(tower, x).to(rolled).expand(len(rolled), -1)
    return einsum(reads, rolled - identity, "batch query, batch query key -> batch key")


def integrated(
    logits: Callable[[Tensor], Tensor], x: Tensor, n: int, grid: Grid, *, steps: int = STEPS
) -> Shares:
    """Gradients of each logit on the way from a plain picture of the mean colour, times the way.

    Integrated gradients (Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks")
    by midpoints, summed over the pixels of each patch: they sum to what the picture's logit has
    over the plain one's, up to the error of steps.

    Args:
        logits: From pictures to logits, with gradients.
        x: The pictures.
        n: How many logits there are.
        grid: Rows and columns of the patches.
        steps: Points on the way.

    Returns:
        What each patch adds.
    """
    plain = x.mean(dim=(2, 3), keepdim=True)
    shares = x.new_zeros(len(x), n, grid[0] * grid[1])
    for step in range(steps):
        at = (plain + (step + 0.5) / steps * (x - plain)).requires_grad_()
        with torch.enable_grad():
            found = logits(at)
        for number in range(n):
            more = number + 1 < n
            [gradient] = torch.autograd.grad(found[:, number].sum(), at, retain_graph=more)
            shares[:, number] += _by_patch(gradient * (x - plain), grid) / steps
    return shares


def _by_patch(pixels: Float[Tensor, "batch channel row column"], grid: Grid) -> Tensor:
    """Sums over the patches that `covered` covers, `batch place`."""
    rows, columns = (
        torch.arange(size, device=pixels.device) * n // size
        for size, n in zip(pixels.shape[2:], grid, strict=True)
    )
    place = rows[:, None] * grid[1] + columns
    sums = pixels.new_zeros(len(pixels), grid[0] * grid[1])
    return sums.index_add_(1, place.flatten(), pixels.sum(dim=1).flatten(1))


def by_covering(logits: Callable[[Tensor], Tensor], x: Tensor, grid: Grid) -> Shares:
    """How far each logit falls when a patch is covered with the picture's mean colour.

    Occlusion (Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks").

    Args:
        logits: From pictures to logits, `batch direction`.
        x: The pictures.
        grid: Rows and columns of the patches.

    Returns:
        The fall, patch by patch.
    """
    whole = logits(x)
    n = grid[0] * grid[1]
    falls = []
    for place in range(n):
        one = torch.zeros(len(x), n, dtype=torch.bool, device=x.device)
        one[:, place] = True
        falls.append(whole - logits(covered(x, one.reshape(-1, *grid))))
    return torch.stack(falls, dim=-1)


def covered(
    x: Float[Tensor, "batch channel row column"], where: Bool[Tensor, "batch grid_row grid_column"]
) -> Float[Tensor, "batch channel row column"]:
    """Pictures whose chosen patches have the picture's mean colour.

    Args:
        x: The pictures.
        where: Which patches of a grid are covered.

    Returns:
        The covered pictures.

    >>> half = covered(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[True, False]]]))
    >>> half.tolist()
    [[[[0.5, 0.0]]]]
    """
    pixels = F.interpolate(where[:, None].to(x), size=x.shape[-2:], mode="nearest").bool()
    return torch.where(pixels, x.mean(dim=(2, 3), keepdim=True), x)


def grid_of(tower: HookedTower, layer: int) -> tuple[Grid | None, int]:
    """The rows and columns of the places before a block, and how many places stand before them.

    Args:
        tower: A tower of pictures.
        layer: The block.

    Returns:
        The grid, None where the tower's own is not known, and the number of places before it.
    """
    if isinstance(tower, HookedViT):
        rows, columns = tower.source.grid_size
        return (int(rows), int(columns)), 1
    if isinstance(tower, HookedResNet):
        return tower._map_shape(layer)[1:], 0
    return None, 0


def where_places_count(tower: HookedTower) -> int:
    """The block before which places are counted where nobody says.

    Args:
        tower: A tower of pictures.

    Returns:
        In a ResNet the last before which the map is fine; in a transformer the second, since the
        first detects what a patch shows, and a saturated detector leaves its input no share.
    """
    if not isinstance(tower, HookedResNet):
        return min(1, tower.n_layers)
    sides = [tower._map_shape(layer)[1] for layer in range(tower.n_layers + 1)]
    fine = np.flatnonzero(np.asarray(sides) >= min(FINE, sides[0]))
    return int(fine[-1])
