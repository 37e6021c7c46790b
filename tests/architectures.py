"""Every form of model that open_clip can build, made small: what the certificate is held against.

open_clip lists some 140 architectures in about 30 forms; within a form only sizes differ.
"""

import json
from collections import defaultdict
from copy import deepcopy
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch import nn

SIZES = {
    "layers", "width", "image_size", "patch_size", "head_width", "mlp_ratio", "heads",
    "context_length", "vocab_size", "tokenizer_kwargs", "hf_tokenizer_name", "hf_model_name",
}  # fmt: skip
"""What may differ within a form."""


def is_timm(config: dict[str, Any]) -> bool:
    """Whether the image tower is timm's."""
    return "timm_model_name" in config["vision_cfg"]


def is_hugging_face(config: dict[str, Any]) -> bool:
    """Whether the text tower is Hugging Face's, whose configuration would be downloaded."""
    return "hf_model_name" in config["text_cfg"]


def forms() -> dict[str, list[str]]:
    """Architectures by form, each under the first of its names."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        assert config is not None
        vision, text = config["vision_cfg"], config["text_cfg"]
        kept: dict[str, Any] = {
            "quick": config.get("quick_gelu", False),
            "custom": config.get("custom_text", False),
            "text": {key: value for key, value in text.items() if key not in SIZES},
            "hugging face": is_hugging_face(config),
        }
        if is_timm(config):
            kept["timm"] = vision["timm_model_name"].split("_")[0]
        else:
            kept["vision"] = {key: value for key, value in vision.items() if key not in SIZES}
            kept["resnet"] = isinstance(vision["layers"], list)
        found[json.dumps(kept, sort_keys=True)].append(name)
    return {names[0]: names for names in found.values()}


def small(name: str) -> nn.Module:
    """A model of an architecture's form with two narrow layers and a few words; a tower that is
    not open_clip's own (timm's, Hugging Face's) is replaced by a plain one of open_clip's."""
    config = deepcopy(open_clip.get_model_config(name))
    assert config is not None
    vision, text = config["vision_cfg"], config["text_cfg"]
    if is_timm(config):
        vision = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
    elif isinstance(vision["layers"], list):
        vision |= {"layers": (1, 2, 1, 1), "width": 4, "image_size": 64, "head_width": 64}
    else:
        vision |= {"layers": 2, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
        if vision.get("attentional_pool"):
            vision |= {"attn_pooler_heads": 4, "attn_pooler_queries": 6}
    text |= {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
    if is_hugging_face(config):
        text = {key: text[key] for key in ("context_length", "vocab_size", "width", "heads")}
        text["layers"] = 1
    custom = config.pop("custom_text", False)
    kind: Any = CoCa if "multimodal_cfg" in config else CustomTextCLIP if custom else CLIP
    for part in (text, config.get("multimodal_cfg", {})):
        part.pop("hf_tokenizer_name", None)
    more = {"quick_gelu": config.get("quick_gelu", False)}
    if kind is CoCa:
        more["multimodal_cfg"] = text | {"mlp_ratio": 4}
    torch.manual_seed(0)
    return kind(embed_dim=24, vision_cfg=vision, text_cfg=text, **more)
