"""Small towers that nobody wrote hooks for, and what PyTorch's own hooks see in them."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from torch import Tensor, nn
from transformers.models.bert import BertConfig

from interp.models.towers.traced import TracedTower


def swin() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=16,
        depths=(1, 1),
        num_heads=(2, 2),
        num_classes=6,
    ).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2,
        num_classes=6,
    ).eval()  # fmt: skip


def convnext() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=6
    ).eval()


def resnet() -> nn.Module:  # its ReLUs work in place
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=6).eval()


TIMM: dict[str, Callable[[], nn.Module]] = {
    "swin": swin, "vit": vit, "convnext": convnext, "resnet": resnet,
}  # fmt: skip
TEXT: Any = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    vocab_size=50, max_position_embeddings=12,
)  # fmt: skip


def pictures(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def traced(name: str) -> TracedTower:
    return TracedTower(TIMM[name](), pictures(1))


def by_torch(source: nn.Module, path: str, run: Callable[[], Any], end: str = "output") -> list:
    """The second way: what PyTorch's own hooks see, call by call."""
    seen: list[Tensor] = []
    module = source.get_submodule(path)
    if end == "output":
        handle = module.register_forward_hook(lambda _, args, out: seen.append(out.clone()))
    else:
        handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    run()
    handle.remove()
    return seen


def small_timm() -> Any:
    torch.manual_seed(0)
    source: Any = TimmModel("convnext_atto", 6, image_size=32, pool="", proj="linear").eval()
    return source


def bert(kind: Any = BertConfig, pooler: str = "cls_pooler") -> Any:
    torch.manual_seed(0)
    config = kind(**TEXT)
    return HFTextEncoder("", 6, config=config, pooler_type=pooler, proj_type="linear").eval()


VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
WORDS: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
