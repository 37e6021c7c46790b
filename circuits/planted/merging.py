"""Several narrow ResNets merged in one, and the spaces of channels that a ResNet has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from interp.core.errors import SpecificationError


@dataclass(frozen=True, eq=False)
class Space:
    """Sites that have the same channels, what writes these channels, and what reads them.

    `writers` are convolutions with their batch norms, whose outputs are the channels; `readers` are
    weights whose second axis are the channels; `added` are the attention pool's positions, `[pos
    channel]`, in the one space that it reads.
    """

    sites: tuple[str, ...]
    writers: tuple[tuple[nn.Conv2d, nn.BatchNorm2d], ...]
    readers: tuple[Tensor, ...]
    added: tuple[Tensor, ...] = ()

    @property
    def width(self) -> int:
        """How many channels there are."""
        return self.writers[0][0].out_channels


@torch.no_grad()
def merge(parts: Sequence[ModifiedResNet]) -> ModifiedResNet:
    """One ResNet whose embedding is the sum of the parts' embeddings, in eval mode exactly.

    At every site of the stem and of the bottlenecks the channels of the first part come first, then
    those of the second; so do the heads of the attention pool. The result has the parts' format and
    is in eval mode. Embeddings that lie in orthogonal directions stay apart in the sum.

    Raises `SpecificationError` for no parts, and for parts that differ in blocks, picture size,
    embedding or width of a head (a head's softmax is scaled by its width).

    >>> parts = [ModifiedResNet((1, 1, 1, 1), 6, 2, image_size=32, width=4).eval() for _ in "AB"]
    >>> merged, pictures = merge(parts), torch.rand(2, 3, 32, 32)
    >>> torch.allclose(merged(pictures), parts[0](pictures) + parts[1](pictures), atol=1e-5)
    True
    >>> merged.conv3.weight.shape, merged.attnpool.num_heads
    (torch.Size([8, 4, 3, 3]), 4)
    """
    shapes = {_shape(part) for part in parts}
    if len(shapes) != 1:
        raise SpecificationError(
            "merge ResNets",
            f"parts with (blocks, picture size, d_embed, d_head) of {sorted(shapes)}",
            "one or more parts that agree in these",
            "make all parts alike but for their width, with heads in proportion to it",
        )
    [(layers, size, d_embed, d_head)] = shapes
    width = sum(part.conv3.out_channels for part in parts)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        merged = ModifiedResNet(list(layers), d_embed, 32 * width // d_head, size, width)
    merged = merged.to(parts[0].conv1.weight)
    states = [part.state_dict() for part in parts]
    merged.load_state_dict(
        {name: _joined(name, [state[name] for state in states]) for name in states[0]}
    )
    return merged.eval()


def _shape(part: Any) -> tuple[tuple[int, ...], int, int, int]:
    stages = (part.layer1, part.layer2, part.layer3, part.layer4)
    pool = part.attnpool
    d_head = pool.q_proj.out_features // pool.num_heads
    return tuple(map(len, stages)), part.image_size, part.output_dim, d_head


def _joined(name: str, parts: Sequence[Tensor]) -> Tensor:
    """A weight or buffer of the merged model from those of the parts."""
    if name.endswith("num_batches_tracked"):
        return parts[0]
    if name == "attnpool.c_proj.bias":
        return torch.stack(list(parts)).sum(dim=0)
    if name in ("attnpool.c_proj.weight", "attnpool.positional_embedding"):
        return torch.cat(list(parts), dim=1)
    if name == "conv1.weight" or parts[0].ndim == 1:  # all parts see the whole picture
        return torch.cat(list(parts))
    return _block_diagonal(parts)


def _block_diagonal(parts: Sequence[Tensor]) -> Tensor:
    """Zeros, with the parts along the diagonal of the first two axes."""
    rows, columns = sum(len(part) for part in parts), sum(part.shape[1] for part in parts)
    joined = parts[0].new_zeros(rows, columns, *parts[0].shape[2:])
    row = column = 0
    for part in parts:
        joined[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    return joined


def spaces(model: Any) -> Iterator[Space]:
    """The spaces of channels of a ResNet, from the stem to the last stage.

    Each bottleneck has two of its own. Its output shares one with its shortcut, so a stage has one
    residual stream, from its first block's output to what reads its last block's.

    >>> model = ModifiedResNet((2, 1, 1, 1), 6, 2, image_size=32, width=4)
    >>> [(space.sites[-1], space.width) for space in spaces(model)][2:6]  # doctest: +ELLIPSIS
    [('layer1.0.hook_resid_pre', 4), ('layer1.0.hook_act1', 4), ('layer1.0.hook_act2', 4), ...]
    """
    yield Space(("stem.hook_act1",), ((model.conv1, model.bn1),), (model.conv2.weight,))
    yield Space(("stem.hook_act2",), ((model.conv2, model.bn2),), (model.conv3.weight,))
    sites = ["stem.hook_act3", "stem.hook_pool"]
    writers = [(model.conv3, model.bn3)]
    readers: list[Tensor] = []
    for stage in (1, 2, 3, 4):
        for place, block in enumerate(getattr(model, f"layer{stage}")):
            name = f"layer{stage}.{place}"
            sites.append(f"{name}.hook_resid_pre")
            readers.append(block.conv1.weight)
            if block.downsample is not None:
                *_, conv, norm = block.downsample
                yield Space(tuple(sites), tuple(writers), (*readers, conv.weight))
                sites, writers, readers = [], [(conv, norm)], []
            yield Space((f"{name}.hook_act1",), ((block.conv1, block.bn1),), (block.conv2.weight,))
            yield Space((f"{name}.hook_act2",), ((block.conv2, block.bn2),), (block.conv3.weight,))
            sites += [f"{name}.hook_out", f"{name}.hook_resid_post"]
            writers.append((block.conv3, block.bn3))
    pool = model.attnpool
    weights = (pool.q_proj.weight, pool.k_proj.weight, pool.v_proj.weight)
    yield Space(tuple(sites), tuple(writers), (*readers, *weights), (pool.positional_embedding,))
