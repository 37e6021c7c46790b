"""Towers small enough to know: by hand, in float64 with attention, and of feature maps."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from PIL import Image
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.circuits import Chain
from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.core.tower import Hook
from interp.models import HookedText, HookedViT
from tests.tables import image_table


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    set_quiet(True)
    yield
    set_quiet(False)


class Function(nn.Module):
    """A module that computes a plain function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def first(output: Tensor) -> Tensor:
    return output[:, 0]


def difference(output: Tensor) -> Tensor:
    return output[:, 0] - output[:, 1]


def bent(output: Tensor) -> Tensor:
    """A metric that is no linear function of the output."""
    return output[:, 0] - output[:, 1] ** 2


def first_to_second(stream: Tensor) -> Tensor:
    """Position 0 is written to position 1."""
    return torch.stack([torch.zeros_like(stream[:, 0]), stream[:, 0]], dim=1)


@pytest.fixture
def hand() -> Chain:
    """Two blocks, two positions, two coordinates: every patched output is a small integer.

    Block 0 adds position 0 to position 1, block 1 adds 2 relu(x), the output is position 0 plus
    ten times position 1.
    """
    return Chain(
        [Function(first_to_second), Function(lambda x: 2 * x.relu())],
        pool=Function(lambda x: x[:, 0] + 10 * x[:, 1]),
    )


@pytest.fixture
def hand_inputs() -> dict[str, Any]:
    clean = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    corrupt = torch.tensor([[[0.0, 2.0], [3.0, 0.0]]])
    return {"clean": clean, "corrupt": corrupt}


class _Attention(HookedRootModule):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_pattern, self.hook_z = HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            point(part.unflatten(-1, (self.heads, -1)))
            for point, part in zip(
                (self.hook_q, self.hook_k, self.hook_v), self.qkv(x).chunk(3, -1), strict=True
            )
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
        pattern = self.hook_pattern(scores.softmax(-1))
        z = self.hook_z(torch.einsum("bhqk,bkhd->bqhd", pattern, v))
        return self.out(z.flatten(-2))


class _Layer(HookedRootModule):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()
        self.ln1, self.attn, self.hook_attn_out = (
            nn.LayerNorm(width),
            _Attention(width, heads),
            HookPoint(),
        )
        self.hook_resid_mid = HookPoint()
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(x + self.hook_attn_out(self.attn(self.ln1(x))))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(x)))


class TinyViT(HookedRootModule):
    """A transformer over scalar tokens `[batch pos]`, with the sites of the real ones.

    It counts how many examples went through each block, which is what prefix reuse saves.
    """

    AXES: ClassVar = {
        "hook_q": ("batch", "pos", "head", "d_head"),
        "hook_k": ("batch", "pos", "head", "d_head"),
        "hook_v": ("batch", "pos", "head", "d_head"),
        "hook_z": ("batch", "pos", "head", "d_head"),
        "hook_pattern": ("batch", "head", "query", "key"),
        "hook_embedding": ("batch", "d_embed"),
    }

    def __init__(self, *, layers: int = 3, width: int = 8, heads: int = 2, pos: int = 4) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(
            n_layers=layers, n_heads=heads, n_key_value_heads=None, device="cpu"
        )
        self.token, self.place = nn.Linear(1, width), nn.Parameter(torch.randn(pos, width))
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList([_Layer(width, heads) for _ in range(layers)])
        self.head, self.hook_embedding = nn.Linear(width, 5), HookPoint()
        self.passed: list[int] = []
        self.largest = 0
        self.setup()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.hook_dict)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    def axes(self, site: str) -> tuple[str, ...]:
        return self.AXES.get(site.rsplit(".", 1)[-1], ("batch", "pos", "d_model"))

    def layer(self, site: str) -> int:
        ends = {"hook_embed": -1, "hook_embedding": self.n_layers}
        return ends[site] if site in ends else int(site.split(".")[1])

    def forward(
        self, x: Tensor, *, start_at_layer: int | None = None, stop_at_layer: int | None = None
    ) -> Tensor:
        self.largest = max(self.largest, len(x))
        if start_at_layer is None:
            x = self.hook_embed(self.token(x[..., None]) + self.place)
        for block in self.blocks[start_at_layer or 0 : stop_at_layer]:
            self.passed.append(len(x))
            x = block(x)
        return x if stop_at_layer is not None else self.hook_embedding(self.head(x[:, 0]))

    def run_with_hooks(
        self, *args: Any, fwd_hooks: Iterable[tuple[Any, Hook]] = (), **kwargs: Any
    ) -> Any:
        return super().run_with_hooks(*args, fwd_hooks=list(fwd_hooks), **kwargs)


@pytest.fixture
def vit() -> TinyViT:
    torch.manual_seed(0)
    return TinyViT().double().eval()


@pytest.fixture
def vit_inputs() -> dict[str, Any]:
    torch.manual_seed(1)
    return {"clean": torch.randn(5, 4).double(), "corrupt": torch.randn(5, 4).double()}


@pytest.fixture
def maps() -> Chain:
    """A convolutional tower of feature maps `batch channel row column`, in float64."""
    torch.manual_seed(2)
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(3)]
    pool = Function(lambda x: x.mean(dim=(2, 3)))
    tower = Chain(blocks, pool=pool, axes=("batch", "channel", "row", "column"))
    return tower.double().eval()


@pytest.fixture
def map_inputs() -> dict[str, Any]:
    torch.manual_seed(3)
    return {"clean": torch.randn(4, 3, 4, 5).double(), "corrupt": torch.randn(4, 3, 4, 5).double()}


CLASSES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture
def pictures() -> ImageTable:
    """One-pixel pictures: class is the red level in domain A and the blue level in B.

    Green is a nuisance that the artist sets. One drawing (artist and class) stands in both domains.
    """
    rows = [
        (label, domain, f"artist {artist}", take, artist, f"artist {artist}/{label}")
        for artist, label, domain, take in product(range(4), CLASSES, "AB", range(2))
    ]
    return image_table(rows, "label domain artist warp style drawing", coloured)


def coloured(row: pd.Series) -> Image.Image:
    code, nuisance = 40 + 40 * CLASSES.index(row["label"]), 50 * row["style"]
    colour = (code, nuisance, 0) if row["domain"] == "A" else (0, nuisance, code)
    return Image.new("RGB", (1, 1), colour)


def preprocess(image: Image.Image) -> Tensor:
    return torch.as_tensor(np.asarray(image, dtype=np.float32)[0, 0].copy())


@pytest.fixture
def colours() -> Callable[[Image.Image], Tensor]:
    return preprocess


def moved(source: nn.Module) -> nn.Module:
    """The module in float64, every parameter off its initial value."""
    for parameter in source.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return source.double().eval()


def open_vit(**words: Any) -> HookedViT:
    """open_clip's VisionTransformer, small: 3 blocks of 2 heads, 5 positions."""
    torch.manual_seed(10)
    size = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 3, "heads": 2}
    source = VisionTransformer(**{**size, "mlp_ratio": 2.0, "output_dim": 6, **words})
    return HookedViT(moved(source))  # type: ignore[arg-type]


def open_text() -> HookedText:
    """open_clip's causal text transformer, small: 2 blocks of 2 heads, 6 positions."""
    torch.manual_seed(11)
    source = TextTransformer(
        context_length=6, vocab_size=20, width=16, heads=2, layers=2, output_dim=6
    )
    return HookedText(moved(source))  # type: ignore[arg-type]


@pytest.fixture(params=["vit", "text"])
def wired(request: pytest.FixtureRequest) -> tuple[Any, Tensor, Tensor]:
    """A tower that can be wired, with three clean and three corrupt inputs."""
    torch.manual_seed(12)
    if request.param == "vit":
        return open_vit(), torch.randn(3, 3, 16, 16).double(), torch.randn(3, 3, 16, 16).double()
    clean, corrupt = torch.randint(1, 19, (2, 3, 6))
    ends = torch.tensor([3, 5, 4])  # where each text ends: the largest token
    for tokens in (clean, corrupt):
        tokens[torch.arange(3), ends] = 19
    return open_text(), clean, corrupt
