"""Conversion of a Hugging Face CLIP folder (`CLIPModel.save_pretrained`) to an open_clip model."""

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from interp.core.errors import CheckpointError
from interp.models.loading.checkpoints import first_line

NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",  # so spelled there
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers": "transformer.resblocks",
    "text_model.final_layer_norm": "ln_final",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
"""Parts of names, theirs and open_clip's."""

LEGACY_END = 2
"""With this `eos_token_id` their model pools where the token number is greatest."""


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder holds a `CLIPModel`.

    Args:
        folder: Any folder.

    Returns:
        True if its `config.json` says so.
    """
    config = folder / "config.json"
    try:
        return json.loads(config.read_text()).get("model_type") == "clip"
    except (OSError, ValueError, AttributeError):
        return False


def open_clip_folder(folder: Path) -> nn.Module:
    """Read a `CLIPModel` with transformers and build the open_clip model of the same weights.

    Args:
        folder: The folder that `save_pretrained` wrote.

    Returns:
        The open_clip model, with the activation function of the configuration.

    Raises:
        CheckpointError: For weights that are missing or broken, and for an activation function that
            open_clip does not have.
    """
    from transformers.models.clip import CLIPModel

    try:
        loaded: Any = CLIPModel.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # safetensors and transformers raise classes of their own
        raise CheckpointError(
            f"open {folder}",
            f"what transformers refuses ({first_line(error)})",
            "a whole CLIPModel folder: config.json and model.safetensors",
            "get its files again",
        ) from None
    source, report = loaded
    if report["missing_keys"]:
        raise CheckpointError(
            f"open {folder}",
            f"weights without {sorted(report['missing_keys'])[0]}",
            "all weights of its configuration",
            "get its files again",
        )
    model = CLIP(**_configuration(source.config, folder))
    state = model.state_dict()
    weights = _renamed(source.state_dict())
    model.load_state_dict({name: weights[name].reshape(state[name].shape) for name in state})
    return model


def _configuration(config: Any, folder: Path) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    functions = {vision.hidden_act, text.hidden_act}
    if not functions <= {"gelu", "quick_gelu"} or len(functions) > 1:
        raise CheckpointError(
            f"open {folder}",
            f"activation function {' and '.join(sorted(functions))}",
            "gelu or quick_gelu in both towers",
            "open it with transformers, and its towers through nnsight",
        )
    end = text.eos_token_id
    pooling = {"pool_type": "argmax"} if end == LEGACY_END else {"pool_type": "eos", "eos_id": end}
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": functions == {"quick_gelu"},
        "vision_cfg": {
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "patch_size": vision.patch_size,
            "image_size": vision.image_size,
            "norm_kwargs": {"eps": vision.layer_norm_eps},
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "norm_kwargs": {"eps": text.layer_norm_eps},
            **pooling,
        },
    }


def _renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's weights by open_clip's names; queries, keys and values become one matrix."""
    weights = {}
    for name, value in theirs.items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        weights[name] = value
    for name in [name for name in weights if ".attn.q_proj." in name]:
        parts = [weights.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        weights[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    weights["visual.proj"] = weights.pop("visual_projection.weight").T
    weights["text_projection"] = weights.pop("text_projection.weight").T
    return weights
