"""Reading of weights and run options from files, without running any code in them."""

import ast
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
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
        raise CheckpointError(
            f"open {path}",
            "a file that does not exist",
            "the path of a checkpoint",
            "check the path",
        ) from None
    except Exception as error:  # readers raise classes of their own, outside every hierarchy
        raise CheckpointError(
            f"open {path}",
            f"a truncated or broken file ({first_line(error)})",
            "a whole checkpoint",
            "take an earlier epoch, or get the file again",
        ) from None
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise CheckpointError(
            f"open {path}",
            "a file without a state dict",
            "tensors by name",
            "save the model's state_dict",
        )
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


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if is_archive(path):
        with warnings.catch_warnings():  # PyTorch deprecates what OpenAI's files are made of
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(path, map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI released its weights.

    Args:
        path: Any file.

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


def run_options(checkpoint: Path) -> dict[str, Any]:
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


def _value(word: str) -> Any:
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
        raise CheckpointError(
            f"load {path} into {architecture}",
            f"weights {'; '.join(wrong)}",
            "weights of that architecture",
            "pass model= of the architecture",
        )
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
        raise NumericsError(
            f"open {name}",
            f"weights that are not finite ({listed(bad, limit=3)})",
            "finite weights",
            "take an earlier epoch: training diverged",
        )


def first_line(error: Exception) -> str:
    """The first line of an exception's message, at most 160 characters.

    Args:
        error: The exception.

    Returns:
        The line.
    """
    return str(error).strip().split("\n")[0][:160]
