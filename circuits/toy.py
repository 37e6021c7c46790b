"""A small tower of modules in a row that each add to a residual stream, opened for patching.

The examples of this package run on it. It is also a way to bring a model of one's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.core.classifiers import Classifier
from interp.core.errors import SiteError, check_known
from interp.core.images import ImageTable
from interp.core.tower import Hook


class _Block(HookedRootModule):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.hook_resid_pre = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, stream: Tensor) -> Tensor:
        stream = self.hook_resid_pre(stream)
        return self.hook_resid_post(stream + self.hook_mlp_out(self.body(stream)))


class _Link:
    """A block as a circuit sees it: one reader, one writer."""

    def __init__(self, body: Any, layer: int) -> None:
        self.body, self.layer = body, layer
        self.reads, self.writes = (f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.hook_mlp_out")
        self.readers = self.writers = (f"m{layer}",)
        self.places: tuple[tuple[str, Mapping[str, int]], ...] = ((self.writes, {}),)

    def write(self, activation: Tensor) -> Tensor:
        return activation[:, None]

    def read(self, reader: int, stream: Tensor) -> Tensor:
        return self.body(stream)

    def run(self, streams: Tensor, tokens: Tensor | None = None) -> Tensor:
        return self.body(streams[:, 0])[:, None]


class Chain(HookedRootModule):
    """A tower whose block l computes `stream + blocks[l](stream)`.

    Args:
        blocks: The modules, each from a stream to what is added to it.
        embed: Computes the first stream from the input; None takes the input itself.
        pool: Computes the output, `batch d_embed`, from the last stream; None takes the mean over
            all axes between the first and the last.
        axes: Names of the stream's axes; the default is those of a transformer.

    Notes:
        The sites are `hook_embed`, `blocks.{l}.hook_resid_pre`, `blocks.{l}.hook_mlp_out`,
        `blocks.{l}.hook_resid_post` and `hook_embedding`.

    >>> import torch
    >>> tower = Chain([nn.Identity(), nn.Identity()])
    >>> tower(torch.ones(1, 3, 2)).tolist()
    [[4.0, 4.0]]
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        embed: nn.Module | None = None,
        pool: nn.Module | None = None,
        axes: tuple[str, ...] = ("batch", "pos", "d_model"),
    ) -> None:
        super().__init__()
        self.stream_axes = axes
        self.embed = embed or nn.Identity()
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList([_Block(body) for body in blocks])
        self.pool = pool
        self.hook_embedding = HookPoint()
        self.setup()

    @property
    def sites(self) -> tuple[str, ...]:
        """Every name that may be hooked, in the order of the computation."""
        return tuple(self.hook_dict)

    @property
    def n_layers(self) -> int:
        """How many blocks the chain has."""
        return len(self.blocks)

    @property
    def components(self) -> list[_Link]:
        """Its blocks, each a reader and a writer called `m` and its number."""
        return [_Link(block.body, layer) for layer, block in enumerate(self.blocks)]

    def axes(self, site: str) -> tuple[str, ...]:
        """The axes of a site's activation.

        Args:
            site: The site's name.

        Returns:
            Names of the axes, in order.

        Raises:
            SiteError: For an unknown site.
        """
        check_known("look up axes", "site", [site], self.sites, SiteError)
        return ("batch", "d_embed") if site == "hook_embedding" else self.stream_axes

    def layer(self, site: str) -> int:
        """The block that computes a site.

        Args:
            site: The site's name.

        Returns:
            The block's number: -1 before the chain, `n_layers` after it.

        Raises:
            SiteError: For an unknown site.
        """
        check_known("look up the layer", "site", [site], self.sites, SiteError)
        if site in ("hook_embed", "hook_embedding"):
            return -1 if site == "hook_embed" else self.n_layers
        return int(site.split(".")[1])

    def forward(
        self, x: Tensor, *, start_at_layer: int | None = None, stop_at_layer: int | None = None
    ) -> Tensor:
        """Embed a batch, or run a part of the chain.

        Args:
            x: Inputs, or a stream where `start_at_layer` is given.
            start_at_layer: The block to start at; None starts with the input.
            stop_at_layer: The block to stop before; None runs to the output.

        Returns:
            The output, `batch d_embed`, or the stream that enters block `stop_at_layer`.
        """
        stream = self.hook_embed(self.embed(x)) if start_at_layer is None else x
        for block in self.blocks[start_at_layer or 0 : stop_at_layer]:
            stream = block(stream)
        if stop_at_layer is not None:
            return stream
        if self.pool is not None:
            return self.hook_embedding(self.pool(stream))
        places = tuple(range(1, stream.ndim - 1))
        return self.hook_embedding(stream.mean(dim=places) if places else stream)

    def run_with_hooks(
        self, *args: object, fwd_hooks: Iterable[tuple[str, Hook]] = (), **kwargs: Any
    ) -> Any:
        """Embed a batch while functions read or replace its activations."""
        return super().run_with_hooks(*args, fwd_hooks=list(fwd_hooks), **kwargs)


def toy_shift() -> tuple[SimpleNamespace, ImageTable]:
    """A model that takes sketches of classes c and d for a or b, for one vector, and its pictures.

    >>> clip, images = toy_shift()
    >>> len(images), clip.visual.sites[-1]
    (24, 'hook_embedding')
    """

    def preprocess(picture: Image.Image) -> Tensor:
        class_, sketch, _ = cast("tuple[int, int, int]", picture.getpixel((0, 0)))
        return torch.eye(5)[class_] + sketch * torch.tensor([2.0, 2.0, 0, 0, 1])

    def reader(row: pd.Series) -> Image.Image:
        return Image.new("RGB", (1, 1), ("abcd".index(row.label), int(row.domain == "sketch"), 0))

    def zero_shot(names: Sequence[str], templates: object) -> Classifier:
        return Classifier(torch.eye(5)[: len(names)], names)

    cells = [(c, d, a) for c in "abcd" for d in ("real", "sketch") for a in "xyz"]
    frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    images = ImageTable(frame.assign(split="test", caption="", path=""), reader=reader)
    visual = Chain([nn.Identity()])
    return SimpleNamespace(visual=visual, preprocess=preprocess, zero_shot=zero_shot), images
