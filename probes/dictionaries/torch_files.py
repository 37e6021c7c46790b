"""Dictionaries in files of torch: ViT-Prisma's and overcomplete's, in the terms of SAELens.

ViT-Prisma keeps a folder with `config.json` and `weights.pt` (`W_enc`, `W_dec`, `b_enc`, `b_dec`),
or one file with its pickled configuration and the weights. overcomplete's models are saved whole or
as a state dict (`encoder.final_block.0.weight` "width d_in", `dictionary._weights` "width d_in").
No class of a file is ever made and none of its code is run: objects become bare records.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from interp.core.errors import CheckpointError, listed

Parts = tuple[dict[str, Any], dict[str, Tensor]]
"""A configuration and weights, in SAELens's terms."""

PREFIXES = ("overcomplete.", "vit_prisma.", "torch.nn.modules.")
"""Where classes come from whose objects are read as records; what else is pickled is refused."""


class Record:
    """What a pickled object held, without its class."""

    def __init__(self, *given: Any) -> None:
        self.given = given


def read_torch(source: Path) -> Any:
    """Read a file of torch, its objects as records.

    Args:
        source: The file.

    Returns:
        What it holds: a dictionary, tensors, or a `Record` of a kind named as its class was.

    Raises:
        CheckpointError: For a file that does not read, or one with objects of other libraries.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(source)
        foreign = [name for name in names if not name.startswith(PREFIXES)]
        if foreign:
            _refuse(
                source,
                f"pickled objects of other kinds ({listed(foreign, limit=3)})",
                "weights, or a model of overcomplete or ViT-Prisma",
                "save the model's state_dict() instead",
            )
        kinds: list[Any] = [
            (type(name.rpartition(".")[2], (Record,), {"__module__": __name__}), name)
            for name in names
        ]
        with torch.serialization.safe_globals(kinds):
            return torch.load(source, weights_only=True, map_location="cpu")
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        _refuse(
            source,
            f"a file that does not read ({why})",
            "a file that torch.save wrote",
            "check the path, or fetch the file again",
        )


# ViT-Prisma


def prisma_parts(source: Path, held: Any, configuration: Any = None) -> Parts:
    """ViT-Prisma's file in SAELens's terms, from which it descends.

    Args:
        source: Where it was read, for messages.
        held: What the file holds: weights by name, or a configuration with them.
        configuration: What `config.json` says; None takes the file's own.

    Returns:
        A configuration and weights.

    Raises:
        CheckpointError: For a configuration that lacks what decides on the features, and for a
            transcoder.
    """
    if isinstance(held, Mapping) and "state_dict" in held:
        configuration = configuration if configuration is not None else held.get("cfg")
        held = held["state_dict"]
    said = vars(configuration) if isinstance(configuration, Record) else configuration
    if not isinstance(said, Mapping):
        _refuse(
            source,
            "weights without a configuration",
            "config.json beside them",
            "fetch config.json from the same place",
        )
    needed = ("d_in", "expansion_factor", "activation_fn_str", "normalize_activations")
    lacking = [name for name in needed if name not in said]
    if lacking:
        _refuse(
            source,
            f"a configuration without {listed(lacking)}",
            f"one with {listed(needed)}",
            "add it to config.json",
        )
    layer = said.get("hook_point_layer")
    layer = layer[0] if isinstance(layer, (list, tuple)) and layer else layer
    site = said.get("hook_point")
    if layer is not None and said.get("layer_subtype"):
        site = f"blocks.{layer}.{said['layer_subtype']}"
    facts = {name: said[name] for name in PRISMA_FACTS if said.get(name) not in (None, False)}
    weights = {
        name: value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
        for name, value in _tensors(source, held).items()
    }
    return {
        "architecture": "transcoder"
        if said.get("is_transcoder")
        else said.get("architecture") or "standard",
        "d_in": said["d_in"],
        "d_sae": said["d_in"] * said["expansion_factor"],
        "activation_fn": said["activation_fn_str"],
        "activation_fn_kwargs": said.get("activation_fn_kwargs"),
        "normalize_activations": said["normalize_activations"],
        "metadata": {"hook_name": site} | {f"interp_{name}": facts[name] for name in facts},
    }, weights


PRISMA_FACTS = ("model_name", "cls_token_only", "use_patches_only", "hook_point_head_index")
"""What is kept of a configuration of ViT-Prisma, beside the site."""


def read_configuration(source: Path) -> Any:
    """What a `config.json` says.

    Args:
        source: The file.

    Returns:
        Its table.

    Raises:
        CheckpointError: For a file that does not read.
    """
    try:
        return json.loads(source.read_text())
    except (OSError, ValueError) as error:
        _refuse(
            source,
            f"a configuration that does not read ({error})",
            "config.json",
            "fetch the file again",
        )


# overcomplete

_NORMALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize_l2": lambda w: w / (w.norm(dim=1, keepdim=True) + 1e-8),
    "normalize_max_l2": lambda w: w / w.norm(dim=1).amax(),
    "normalize_l1": lambda w: w / (w.norm(p=1, dim=1, keepdim=True) + 1e-8),
    "normalize_max_l1": lambda w: w / w.norm(p=1, dim=1).amax(),
    "normalize_identity": lambda w: w,
}
"""What overcomplete makes of a dictionary's rows, by the name of its function."""

_PURSUIT = "finds its codes by a search, not by an encoder"
KINDS = ("SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE")
"""The classes of overcomplete that are a `Dictionary`."""

NO_DICTIONARY = {
    "MpSAE": _PURSUIT,
    "OMPSAE": _PURSUIT,
    "QSAE": "has codes of a few fixed sizes",
    "RATopKSAE": "keeps its dictionary as a mixture of points",
    "RAJumpSAE": "keeps its dictionary as a mixture of points",
}
"""Why others are none."""


def overcomplete_parts(
    source: Path, held: Any, *, kind: str | None, k: int | None, threshold: float | None
) -> Parts:
    """overcomplete's model in SAELens's terms.

    Args:
        source: Where it was read, for messages.
        held: A record of the model, or its state dict.
        kind: The model's class, where only the state dict was saved.
        k: Its `top_k`, likewise.
        threshold: Its `running_threshold`, likewise.

    Returns:
        A configuration and weights.

    Raises:
        CheckpointError: For classes and encoders that are no `Dictionary`, and where a state dict
            leaves open what its class, k or threshold is.
    """
    normalised = "normalize_l2"
    if isinstance(held, Record):
        kind = type(held).__name__
        k, threshold = _known(held, "top_k", k), _known(held, "running_threshold", threshold)
        dictionary = _child(held, "dictionary")
        normalised = getattr(getattr(dictionary, "normalization", None), "__name__", normalised)
        held = _state(held)
    if kind not in KINDS:
        why = f"{kind or 'a state dict alone'}"
        why += f", which {NO_DICTIONARY[kind]}" if kind in NO_DICTIONARY else ""
        _refuse(
            source,
            why,
            f"a model of the class {listed(KINDS)}",
            "say kind='TopKSAE' for a state dict of one, or save the whole model",
        )
    weights = _tensors(source, held)
    rows = _rows(source, weights, normalised)
    parts = {"W_dec": rows, "b_dec": torch.zeros_like(rows[0]), **_encoder(source, weights, rows)}
    said: dict[str, Any] = {"architecture": "standard", "d_in": rows.shape[1], "d_sae": len(rows)}
    if kind == "TopKSAE":
        said |= {"architecture": "topk", "k": k}
    elif kind == "JumpSAE":
        said["architecture"] = "jumprelu"
        parts["threshold"] = _tensor(source, weights, "thresholds").exp()
    elif kind == "BatchTopKSAE":
        if threshold is None:
            _refuse(
                source,
                "a BatchTopKSAE without its running_threshold",
                "the threshold",
                "say threshold=model.running_threshold, or save the whole model",
            )
        # theirs counts from the threshold on, ours above it
        least = torch.as_tensor(threshold).to(rows)
        below = torch.nextafter(least, torch.full_like(least, -torch.inf))
        said["architecture"], parts["threshold"] = "jumprelu", below.expand(len(rows)).clone()
    return said, parts


def _encoder(source: Path, weights: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Weight and bias of one linear map, batch norm folded in."""
    block = "encoder.final_block."
    if any(name.startswith("encoder.tied_to.") for name in weights):
        weight, bias = rows, weights.get("encoder.bias")
    elif "encoder.weight" in weights:
        weight, bias = weights["encoder.weight"], weights.get("encoder.bias")
    else:
        inner = [name for name in weights if name.startswith("encoder.") and block not in name]
        layered = f"{block}1.weight" in weights and f"{block}1.running_var" not in weights
        if inner or layered or f"{block}0.weight" not in weights:
            _refuse(
                source,
                "an encoder of several layers, or with a layer norm",
                "one linear layer, with or without batch norm (linear, mlp_bn_1)",
                "train one with such an encoder",
            )
        weight, bias = weights[f"{block}0.weight"], weights[f"{block}0.bias"]
        if f"{block}1.running_var" in weights:
            gain, shift, mean, variance = (
                weights[f"{block}1.{name}"]
                for name in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gain / (variance + 1e-5).sqrt()
            weight, bias = weight * scale[:, None], (bias - mean) * scale + shift
    return {"W_enc": weight.T, "b_enc": torch.zeros_like(weight[:, 0]) if bias is None else bias}


def _rows(source: Path, weights: Mapping[str, Tensor], normalised: str) -> Tensor:
    if normalised not in _NORMALISED:
        _refuse(
            source,
            f"a dictionary normalised by {normalised}",
            f"{listed(_NORMALISED)}",
            "train it with one of these",
        )
    rows = _NORMALISED[normalised](_tensor(source, weights, "dictionary._weights"))
    return rows * weights.get("dictionary.multiplier", torch.tensor(0.0)).exp()


def _known(record: Record, name: str, given: Any) -> Any:
    """What a whole model says, or else what was given."""
    found = getattr(record, name, None)
    return given if found is None else found


def _child(record: Any, name: str) -> Any:
    return getattr(record, "_modules", {}).get(name)


def _state(record: Any, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a module's record."""
    found = {}
    for group in ("_parameters", "_buffers"):
        for name, value in getattr(record, group, {}).items():
            if isinstance(value, Tensor):
                found[prefix + name] = value
    for name, part in getattr(record, "_modules", {}).items():
        found |= _state(part, f"{prefix}{name}.")
    return found


def _tensor(source: Path, weights: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in weights:
        _refuse(
            source,
            f"weights without {name}",
            "all weights of the model",
            "save its state_dict() again",
        )
    return weights[name]


def _tensors(source: Path, held: Any) -> dict[str, Tensor]:
    if not isinstance(held, Mapping) or not all(isinstance(v, Tensor) for v in held.values()):
        _refuse(source, f"a {type(held).__name__}", "weights by name", "save the state_dict()")
    return {str(name): value.detach() for name, value in held.items()}


def _refuse(source: Path, given: str, right: str, do: str) -> NoReturn:
    raise CheckpointError(f"read the dictionary in {source}", given, right, do)
