"""Reading of weights and run options from files and folders, without running any code in them."""

import ast
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import CLIP, convert_to_custom_text_state_dict
from torch import Tensor, nn

from interp.core.errors import CheckpointError, NumericsError, listed

WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""How the names of weight files end."""

PREFIXES = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before every name."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict by open_clip's names from a checkpoint, a state dict or safetensors.

    Args:
        path: The file.

    Returns:
        Tensors by name, without prefixes of DDP and torch.compile.

    Raises:
        CheckpointError: For a file that is missing, cut short, foreign, or without tensors.

    Notes:
        Pickles are read with `weights_only`. A TorchScript archive (OpenAI's files) is opened by
        PyTorch's own reader, which runs no Python.
    """
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        foreign = "weights_only" in str(error).lower() or "unsupported" in str(error).lower()
        given = "a pickle that holds foreign code" if foreign else "a file that is no checkpoint"
        raise CheckpointError(
            f"open {path}", given, "a state dict of tensors", "save the model's state_dict again"
        ) from None
    except FileNotFoundError:
        shown = "a file that does not exist"
        right = "the path of a checkpoint"
        raise CheckpointError(f"open {path}", shown, right, "check the path") from None
    except Exception as error:  # readers raise classes of their own, outside every hierarchy
        shown = f"a truncated or broken file ({first_line(error)})"
        do = "take an earlier epoch, or get the file again"
        raise CheckpointError(f"open {path}", shown, "a whole checkpoint", do) from None
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        do = "save the model's state_dict"
        raise CheckpointError(f"open {path}", "a file without a state dict", "tensors by name", do)
    return {_bare(name): value for name, value in weights.items()}


def read_classes(path: Path) -> list[str]:
    """The class names that a supervised run keeps with its weights.

    Args:
        path: A checkpoint.

    Returns:
        Class names; none for any other file.
    """
    if path.suffix not in (".pt", ".pth") or is_archive(path):
        return []
    content = _read(path)
    return list(content.get("classes", [])) if isinstance(content, dict) else []


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if is_archive(path):
        with warnings.catch_warnings():  # PyTorch deprecates what OpenAI's files are made of
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)  # from PyTorch 2.15 on
            return torch.jit.load(path, map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI released its weights.

    Args:
        path: A file.

    Returns:
        True for such an archive.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def run_options(checkpoint: Path) -> dict[str, object]:
    """The options of the run that made a checkpoint, from open_clip's `params.txt` two folders up.

    Args:
        checkpoint: The checkpoint's path.

    Returns:
        Options by name; empty where there is no such file.
    """
    params = checkpoint.parent.parent / "params.txt"
    if not params.is_file():
        return {}
    lines = [line.partition(": ") for line in params.read_text().splitlines()]
    return {name: _value(word) for name, _, word in lines}


def _value(word: str) -> object:
    try:
        return ast.literal_eval(word.strip())
    except (ValueError, SyntaxError):
        return word.strip()


def fill(model: nn.Module, weights: dict[str, Tensor], path: Path, architecture: str) -> None:
    """Load weights into a model, naming the keys and shapes that do not fit.

    Args:
        model: The model to fill.
        weights: Tensors by name.
        path: Where they come from, for messages.
        architecture: The model's name, for messages.

    Raises:
        CheckpointError: For weights of another architecture.

    Notes:
        As in open_clip, weights of `CLIP` are renamed for a `CustomTextCLIP`, and scales may be
        numbers or vectors of one. Positions are not resized.
    """
    own = model.state_dict()
    weights = convert_state_dict(model, dict(weights))  # type: ignore[arg-type]
    if "positional_embedding" in weights and "positional_embedding" not in own:
        weights = convert_to_custom_text_state_dict(weights)
    weights.pop("text.transformer.embeddings.position_ids", None)
    for name in ("logit_scale", "logit_bias"):
        if name in weights and name in own and weights[name].numel() == own[name].numel() == 1:
            weights[name] = weights[name].reshape(own[name].shape)
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    unlike = [
        f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    if missing or extra or unlike:
        wrong = [f"without {listed(missing, limit=3)}"] * bool(missing)
        wrong += [f"with {listed(extra, limit=3)}"] * bool(extra)
        wrong += [f"shaped {listed(sorted(unlike), limit=3)}"] * bool(unlike)
        asked = f"load {path} into {architecture}"
        given = f"weights {'; '.join(wrong)}"
        right = "weights of that architecture"
        raise CheckpointError(asked, given, right, "pass model= of the architecture")
    model.load_state_dict(weights)


def check_finite(model: nn.Module, name: str) -> None:
    """Refuse weights with NaN or infinity, except the -inf of attention masks.

    Args:
        model: The model.
        name: Its name, for messages.

    Raises:
        NumericsError: If a tensor is not finite.
    """
    bad = [
        key
        for key, value in model.state_dict().items()
        if value.is_floating_point()
        and not torch.isfinite(value).all()
        and not key.endswith("attn_mask")
    ]
    if bad:
        given = f"weights that are not finite ({listed(bad, limit=3)})"
        do = "take an earlier epoch: training diverged"
        raise NumericsError(f"open {name}", given, "finite weights", do)


def first_line(error: Exception) -> str:
    """The first line of an exception's message, at most 160 characters.

    Args:
        error: The exception.

    Returns:
        The line.
    """
    return str(error).strip().split("\n")[0][:160]


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
        folder: A folder.

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
        given = f"what transformers refuses ({first_line(error)})"
        right = "a whole CLIPModel folder: config.json and model.safetensors"
        raise CheckpointError(f"open {folder}", given, right, "get its files again") from None
    source, report = loaded
    if report["missing_keys"]:
        given = f"weights without {sorted(report['missing_keys'])[0]}"
        right = "all weights of its configuration"
        raise CheckpointError(f"open {folder}", given, right, "get its files again")
    model = CLIP(**_configuration(source.config, folder))
    state = model.state_dict()
    weights = _renamed(source.state_dict())
    model.load_state_dict({name: weights[name].reshape(state[name].shape) for name in state})
    return model


def _configuration(config: Any, folder: Path) -> dict[str, object]:
    vision, text = config.vision_config, config.text_config
    functions = {vision.hidden_act, text.hidden_act}
    if not functions <= {"gelu", "quick_gelu"} or len(functions) > 1:
        given = f"activation function {' and '.join(sorted(functions))}"
        do = "open it with transformers, and its towers through nnsight"
        raise CheckpointError(f"open {folder}", given, "gelu or quick_gelu in both towers", do)
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
