"""A tower whose every activation is a literal function of the picture, and pictures for it."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from interp.core.images import ImageTable


class Toy(nn.Module):
    """A map, tokens, heads and an embedding, each a literal function of the picture."""

    n_layers = 2
    sites: tuple[str, ...] = ("map", "tokens", "heads", "pattern", "hook_embedding")
    kinds = {  # noqa: RUF012
        "map": ("batch", "channel", "row", "column"),
        "tokens": ("batch", "pos", "d_model"),
        "heads": ("batch", "pos", "head", "d_head"),
        "pattern": ("batch", "head", "query", "key"),
        "hook_embedding": ("batch", "d_embed"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.calls: list[tuple[int, int | None]] = []
        self.room = 10**6
        self.poison: float | None = None

    def axes(self, site: str) -> tuple[str, ...]:
        return self.kinds[site]

    def layer(self, site: str) -> int:
        return {"map": -1, "hook_embedding": 2}.get(site, self.sites.index(site) // 2)

    def forward(
        self, x: Tensor, *, start_at_layer: int | None = None, stop_at_layer: int | None = None
    ) -> Tensor:
        return x

    def run_with_cache(self, x: Tensor, *, names_filter, stop_at_layer=None):
        self.calls.append((len(x), stop_at_layer))
        if len(x) > self.room:
            raise RuntimeError("out of memory, says the toy")
        assert x.dtype == torch.float64 and not torch.is_grad_enabled()
        tokens = x.flatten(2).transpose(1, 2) * self.weight
        if self.poison is not None:
            tokens = torch.where(tokens == self.poison, torch.nan, tokens)
        made = {
            "map": x,
            "tokens": tokens,
            "heads": torch.stack([tokens, 2 * tokens], dim=2),
            "pattern": torch.einsum("bqd,bkd->bqk", tokens, tokens)[:, None],
            "hook_embedding": x.sum(dim=(2, 3)),
        }
        return None, {name: made[name] for name in names_filter}

    def run_with_hooks(self, *args, **kwargs):
        raise NotImplementedError

    def hooks(self, fwd_hooks=..., bwd_hooks=...):
        raise NotImplementedError


def preprocess(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1)


def noise(root: Path) -> ImageTable:
    """Twelve 4 x 4 pictures of noise; picture n has n in its first corner."""
    generator = np.random.default_rng(0)
    for n in range(12):
        array = generator.integers(20, 255, size=(4, 4, 3)).astype(np.uint8)
        array[0, 0] = n
        Image.fromarray(array).save(root / f"{n}.png")
    frame = pd.DataFrame({"path": [f"{n}.png" for n in range(12)]})
    frame = frame.assign(label=frame.index % 3, domain="real", split="test", caption="")
    return ImageTable(frame.astype({"label": str}), root)
