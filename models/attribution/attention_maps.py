"""Attention patterns of every head of a tower, as numbers and drawn over the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.illustrations import Plate
from interp.core.tower import Hook
from interp.models.attribution.overlays import Pictures, drawable, framed, laid_over, sheet
from interp.models.attribution.transformer_parts import pooling_weight
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import check_opened
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.vit import HookedViT


@dataclass(frozen=True)
class AttentionMaps:
    """The attention pattern of every head on a batch, as `attention_maps` returns it.

    Args:
        pattern: Attention weights, `layer batch head query key`; they sum to 1 over the keys.
        layers: The name of each layer.
        reads: How much of each query's position the tower's pooling reads, `batch query`. All of it
            is the class token's or the end token's, or every patch has an even share.
        grid: Rows and columns of the patches; None in a text tower.

    Notes:
        Keys before the patches lie on no grid: the class token, or the mean of the map in a
        ResNet's attention pool. A method called without `query` averages over the queries by
        `reads`.

    >>> pattern = torch.full((1, 1, 2, 5, 5), 0.2)
    >>> reads = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])
    >>> maps = AttentionMaps(pattern, ("blocks.0",), reads, grid=(2, 2))
    >>> maps.maps().shape
    torch.Size([1, 1, 2, 2, 2])
    """

    pattern: Float[Tensor, "layer batch head query key"]
    layers: tuple[str, ...]
    reads: Float[Tensor, "batch query"]
    grid: tuple[int, int] | None

    def __repr__(self) -> str:
        layers, n, heads, queries, keys = self.pattern.shape
        grid = f", patches of {self.grid[0]} x {self.grid[1]}" if self.grid else ""
        return (
            f"AttentionMaps({n} inputs, {layers} layers of {heads} heads, "
            f"{queries} x {keys} positions{grid})"
        )

    def rows(self, query: int | None = None) -> Float[Tensor, "layer batch head key"]:
        """The attention from one query, or averaged over the queries that the pooling reads.

        Args:
            query: The query's position; None averages over the queries by `reads`.

        Returns:
            Attention to every key, `layer batch head key`.
        """
        if query is not None:
            _check_place("take a map", "query", query, self.pattern.shape[3])
            return self.pattern[:, :, :, query]
        return einsum(
            self.pattern,
            self.reads,
            "layer batch head query key, batch query -> layer batch head key",
        )

    def maps(self, query: int | None = None) -> Float[Tensor, "layer batch head row column"]:
        """The attention from a query on the grid of patches.

        Args:
            query: The query's position; None averages over the queries by `reads`.

        Returns:
            Attention to every patch; with `off_grid` it sums to 1.

        Raises:
            SpecificationError: For a text tower, which has no grid.
        """
        return self.on_grid(self.rows(query))

    def off_grid(self, query: int | None = None) -> Float[Tensor, "layer batch head"]:
        """The share of a query's attention that lies on no patch.

        Args:
            query: The query's position; None averages over the queries by `reads`.

        Returns:
            A share from 0 to 1 for each layer, example and head.
        """
        rows, columns = self._need_grid()
        return self.rows(query)[..., : self.pattern.shape[-1] - rows * columns].sum(dim=-1)

    def on_grid(self, keys: Float[Tensor, "*lead key"]) -> Float[Tensor, "*lead row column"]:
        """Arrange one number per key on the grid of patches, leaving out keys that are no patch.

        Args:
            keys: Rows of a pattern or of a rollout, the key axis last.

        Returns:
            The same numbers by row and column.

        Raises:
            ShapeError: If there is not a number for each key.
        """
        rows, columns = self._need_grid()
        if keys.shape[-1] != self.pattern.shape[-1]:
            given = f"shape {tuple(keys.shape)}"
            do = "pass rows of a pattern or of a rollout"
            raise ShapeError("lay keys on the grid", given, f"(…, {self.pattern.shape[-1]})", do)
        return rearrange(
            keys[..., -rows * columns :], "... (row column) -> ... row column", column=columns
        )

    def over(
        self,
        pictures: Pictures | Tensor,
        *,
        layer: int,
        head: int,
        query: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> list[Plate]:
        """Draw a head's map over each picture, beside the plain picture and a colour bar.

        Args:
            pictures: A picture per example, or a tensor `batch 3 row column` of intensities from 0
                to 1.
            layer: The layer's number.
            head: The head's number.
            query: The query's position; None averages over the queries by `reads`.
            mean: Mean per channel to add back to a normalised tensor.
            std: Standard deviation per channel to multiply a normalised tensor by.

        Returns:
            A plate per example. Colours run from 0 to the largest share that any patch of the map
            gets.

        Raises:
            SpecificationError: For a layer, head or query that does not exist.
            ShapeError: If there is not a picture for each example.

        Notes:
            Pictures of another shape than the model sees are cropped to their centre, as
            open_clip's default transform does. Small ones are enlarged.
        """
        self._check(layer, head, query)
        drawn = self._drawable(pictures, mean, std)
        values = self.maps(query)[layer, :, head].float().cpu().numpy()
        apart = self.off_grid(query)[layer, :, head]
        name, asked = self.layers[layer], self._query(query)
        plates = []
        for number, picture in enumerate(drawn):
            top = float(values[number].max())
            note = f"{float(apart[number]):.0%} of the attention is on {self._apart}"
            title = f"{name}, head {head}, from {asked}"
            image = framed(
                picture,
                laid_over(picture, values[number], top=top),
                title=title,
                note=note,
                top=top,
            )
            caption = (
                f"Attention of {title}: dark is 0 and bright is {top:.3g} of the attention on a "
                f"patch; {note}, which is not drawn."
            )
            keys = {"layer": layer, "head": head, "query": "pooled" if query is None else query}
            keys = {word: str(value) for word, value in (keys | {"example": number}).items()}
            plates.append(
                Plate(f"attention-{number}-layer-{layer}-head-{head}", image, caption, keys)
            )
        return plates

    def sheet(
        self,
        pictures: Pictures | Tensor,
        *,
        example: int = 0,
        query: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Plate:
        """Draw the maps of all layers and heads over one picture, in one colour scale.

        Args:
            pictures: A picture per example, or a tensor `batch 3 row column` of intensities from 0
                to 1.
            example: The number of the example to draw.
            query: The query's position; None averages over the queries by `reads`.
            mean: Mean per channel to add back to a normalised tensor.
            std: Standard deviation per channel to multiply a normalised tensor by.

        Returns:
            A plate, layers down and heads across.

        Notes:
            The brightest colour stands for the 99th percentile of all cells and above. With the
            maximum instead, heads that look at a single patch would leave the others black.
        """
        _check_place("draw a sheet", "example", example, self.pattern.shape[1])
        self._check(0, 0, query)
        picture = self._drawable(pictures, mean, std)[example]
        values = self.maps(query)[:, example].float().cpu().numpy()
        top = float(np.quantile(values, 0.99))
        apart = self.off_grid(query)[:, example]
        note = (
            f"{float(apart.mean()):.0%} of the attention is on {self._apart} "
            f"({float(apart.min()):.0%} to {float(apart.max()):.0%} by head), not drawn"
        )
        asked = self._query(query)
        image = sheet(
            picture, values, names=self.layers, title=f"Attention from {asked}", note=note, top=top
        )
        caption = (
            f"Attention from {asked}, {len(self.layers)} layers down and {values.shape[1]} heads "
            f"across: dark is 0 and the brightest {top:.3g} or more (the 99th percentile) of the "
            f"attention on a patch, the largest {float(values.max()):.3g}; {note}."
        )
        keys = {"query": "pooled" if query is None else str(query), "example": str(example)}
        return Plate(f"attention-{example}-all-heads", image, caption, keys)

    @property
    def _apart(self) -> str:
        return "the mean of the map" if self.pattern.shape[3] == 1 else "the class token"

    def _query(self, query: int | None) -> str:
        """The query in words, for titles and captions."""
        rows, columns = self._need_grid()
        first = self.pattern.shape[-1] - rows * columns
        if self.pattern.shape[3] == 1:
            return "the pool's query"
        if query is None:
            if (self.reads[:, :first] == 1).all():
                return "the class token"
            even = (self.reads[:, :1] == 0).all() and self.reads.unique().numel() == 2
            return "all patches, on average" if even else "what the pooling reads, on average"
        if query < first:
            return "the class token"
        return f"the patch in row {(query - first) // columns}, column {(query - first) % columns}"

    def _need_grid(self) -> tuple[int, int]:
        if self.grid is None:
            given = "the attention of a text tower"
            right = "that of an image tower, whose keys are patches"
            raise SpecificationError("draw a map", given, right, "read its numbers with .rows()")
        return self.grid

    def _drawable(
        self, pictures: Pictures | Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> list[Image.Image]:
        # square patches are assumed: the grid's shape is then the picture's
        n, shape = self.pattern.shape[1], self._need_grid()
        return drawable(pictures, n, shape=shape, mean=mean, std=std)

    def _check(self, layer: int, head: int, query: int | None) -> None:
        self._need_grid()
        n_layers, _, n_heads, n_queries, _ = self.pattern.shape
        _check_place("draw a map", "layer", layer, n_layers)
        _check_place("draw a map", "head", head, n_heads)
        if query is not None:
            _check_place("draw a map", "query", query, n_queries)


def _check_place(asked: str, word: str, given: object, n: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < n:
        raise SpecificationError(
            asked, f"{word} {given!r}", f"{word} 0 to {n - 1}", "count from the beginning"
        )


@door
def attention_maps(tower: object, x: Tensor) -> AttentionMaps:
    """Read the attention pattern of every head of every layer from one run of the tower.

    Args:
        tower: A hooked transformer or ResNet.
        x: Pictures or tokens, as the tower takes them.

    Returns:
        The patterns without gradients. A ResNet has one layer, its attention pool, with one query:
        the mean of the map.

    Raises:
        SpecificationError: For another kind of tower, or one that drops patches in training.

    Notes:
        Memory holds `layer batch head query key` numbers.

    >>> import open_clip, torch
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> seen = attention_maps(open_tower(model, "visual"), torch.zeros(1, 3, 64, 64))
    >>> seen.pattern.shape, seen.maps().shape
    (torch.Size([12, 1, 6, 5, 5]), torch.Size([12, 1, 6, 2, 2]))
    """
    opened = check_opened("map a tower's attention", tower)
    dropout = opened.source.patch_dropout if isinstance(opened, HookedViT) else None
    if dropout is not None and getattr(dropout, "prob", 0) and dropout.training:
        given = "a tower that drops patches in training mode"
        right = "evaluation mode, in which every patch is there"
        raise SpecificationError("map a tower's attention", given, right, "call tower.eval()")
    sites = [site for site in opened.sites if site.endswith("attn.hook_pattern")]
    sites = sites or ["attnpool.hook_pattern"]
    held: list[Tensor] = []

    def keep(tensor: Tensor, hook: HookPoint) -> None:
        if not held:  # one block of memory for all, where a list and its stack would take two
            held.append(tensor.new_empty(len(sites), *tensor.shape))
        held[0][sites.index(str(hook.name))] = tensor

    pool: dict[str, Tensor] = {}

    def keep_pool(tensor: Tensor, hook: object) -> None:
        pool["pattern"] = tensor

    hooks: list[tuple[str, Hook]] = [(site, keep) for site in sites]
    if isinstance(opened, HookedViT) and opened.attnpool is not None:
        hooks.append(("attnpool.hook_pattern", keep_pool))
    with torch.no_grad():
        opened.run_with_hooks(x, fwd_hooks=hooks)
        pattern = held[0]
        reads, grid = _reading(opened, x)
        if pool:  # what the learned queries read, on average over the pool's heads
            reads = einsum(
                reads.to(pattern),
                pool["pattern"].mean(dim=1),
                "one query, batch query key -> batch key",
            )
    names = tuple(site.removesuffix(".hook_pattern").removesuffix(".attn") for site in sites)
    return AttentionMaps(pattern, names, reads.to(pattern).expand(len(x), -1), grid)


def _reading(tower: HookedTower, x: Tensor) -> tuple[Tensor, tuple[int, int] | None]:
    """The weight of each query in the embedding, and the grid of patches."""
    if isinstance(tower, HookedResNet):
        _, *shape = tower._map_shape(tower.n_layers)
        return torch.ones(1, 1), (shape[0], shape[1])
    grid = None
    if isinstance(tower, HookedViT):
        rows, columns = tower.source.grid_size
        grid = (int(rows), int(columns))
    assert isinstance(tower, (HookedViT, HookedText))  # no other tower has patterns
    return pooling_weight(tower, x), grid


@door
def attention_rollout(maps: AttentionMaps) -> Float[Tensor, "batch query key"]:
    """How much of each input position reaches each output position through attention alone.

    The product over layers of (mean over heads of the pattern + identity) / 2, where the identity
    stands for the residual stream (Abnar & Zuidema 2020, "Quantifying attention flow in
    transformers").

    Args:
        maps: The patterns of a transformer.

    Returns:
        Shares that sum to 1 over the keys.

    Raises:
        SpecificationError: For a ResNet, whose one layer has one query.

    Notes:
        `maps.on_grid(attention_rollout(maps)[:, 0])` is the class token's map. Rollout ignores
        values, norms and MLPs, so it shows mixing and is no attribution.

    >>> reads = torch.tensor([[1.0, 0.0]])
    >>> maps = AttentionMaps(torch.full((1, 1, 1, 2, 2), 0.5), ("blocks.0",), reads, grid=None)
    >>> attention_rollout(maps).tolist()
    [[[0.75, 0.25], [0.25, 0.75]]]
    """
    pattern = maps.pattern
    if pattern.shape[3] != pattern.shape[4]:
        given = f"{pattern.shape[3]} query and {pattern.shape[4]} keys"
        right = "a transformer, whose positions are queries and keys alike"
        raise SpecificationError("roll attention out", given, right, "use maps() of the pool")
    identity = torch.eye(pattern.shape[-1], device=pattern.device, dtype=pattern.dtype)
    rolled = identity.expand(pattern.shape[1], -1, -1)
    for layer in pattern:
        rolled = (layer.mean(dim=1) + identity) / 2 @ rolled
    return rolled
