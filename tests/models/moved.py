"""Small models whose weights were all moved, in every form, and what goes into them."""

from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from interp.models import open_tower

VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
RESNET: Any = {"layers": (2, 1, 2, 1), "width": 8, "image_size": 64, "head_width": 64}
TEXT: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
QUERIES: Any = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5}
VIT_VARIANTS: dict[str, Any] = {
    "class token": {},
    "mean": {"pool_type": "avg"},
    "norm after": {"final_ln_after_pool": True},
    "mean, norm after": {"pool_type": "avg", "final_ln_after_pool": True},
    "no first norm": {"no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.1},
    "oblong": {"image_size": (32, 16)},
    "eps": {"norm_kwargs": {"eps": 1e-2}},
    "queries": QUERIES,
    "queries, mean": QUERIES | {"pool_type": "avg"},
}
TEXT_VARIANTS: dict[str, Any] = {
    "plain": {},
    "eos": {"pool_type": "eos", "eos_id": 5},
    "first": {"pool_type": "first"},
    "last": {"pool_type": "last"},
    "both ways": {"no_causal_mask": True},
    "no projection": {"proj_type": "none"},
    "biased projection": {"proj_bias": True},
    "class token": {"embed_cls": True},
    "layer scale": {"ls_init_value": 0.1},
    "tanh": {"act_kwargs": {"approximate": "tanh"}},
}


def moved(model: nn.Module) -> Any:
    """All weights and statistics off their initial values."""
    for value in model.parameters():
        nn.init.normal_(value, mean=float(value.detach().mean()), std=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            norm: Any = module
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.double().eval()


def visual(vision: Any = VIT, /, n: int = 3, **variant: Any) -> tuple[Any, Any, Tensor]:
    """A model, its image tower, and pictures."""
    torch.manual_seed(0)
    model = moved(CLIP(24, vision | variant, TEXT))
    size = model.visual.image_size
    size = size if isinstance(size, tuple) else (size, size)
    return model, open_tower(model, "visual"), torch.randn(n, 3, *size, dtype=torch.float64)


def text(kind: Any = CLIP, /, **variant: Any) -> tuple[Any, Any, Tensor]:
    """A model, its text tower, and tokens."""
    torch.manual_seed(0)
    model = moved(kind(24, VIT, TEXT | variant))
    return model, open_tower(model, "text"), tokens()


def tokens() -> Tensor:
    """Three texts of different lengths."""
    rows = torch.randint(6, 49, (3, 8), generator=torch.Generator().manual_seed(0))
    for row, end in zip(rows, (2, 4, 7), strict=True):
        row[end:] = 0
        row[end] = 49
    rows[:, 1] = 5
    return rows
