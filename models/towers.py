"""Find the hooked tower for a part of an open_clip model."""

from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import nn

from interp.core.errors import SiteError, SpecificationError, check_known, listed
from interp.models.hooked import HookedTower
from interp.models.resnet import HookedResNet
from interp.models.text import HookedText
from interp.models.transformer import unsupported
from interp.models.vit import HookedViT

VISUAL: dict[type[nn.Module], type[HookedTower]] = {
    VisionTransformer: HookedViT,
    ModifiedResNet: HookedResNet,
}
TEXT: dict[type[nn.Module], type[HookedTower]] = {
    TextTransformer: HookedText,
    CLIP: HookedText,  # keeps its text transformer's parts on itself
}


def open_tower(clip_model: nn.Module, which: str) -> HookedTower:
    """Open the `visual` or `text` tower of an open_clip model, sharing its parameters.

    `SpecificationError` names a class that has no hooks yet (timm and Hugging Face towers).
    """
    check_known("open a tower", "tower", [which], ["visual", "text"], SiteError)
    known = VISUAL if which == "visual" else TEXT
    part = getattr(clip_model, which, None)
    part = clip_model if part is None else part
    for kind, hooked in known.items():
        if isinstance(part, kind):
            return hooked(part)
    raise unsupported(
        f"a {which} tower of type {type(part).__name__}",
        f"one of {listed(kind.__name__ for kind in known)}",
    )


def check_opened(asked: str, tower: object) -> None:
    """Refuse what is no tower of ours, such as the model or the Clip that has one."""
    if not isinstance(tower, HookedTower):
        raise SpecificationError(
            asked,
            f"something of type {type(tower).__name__}",
            "a hooked tower",
            "pass clip.visual or clip.text",
        )
