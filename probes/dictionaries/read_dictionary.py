"""Dictionaries that others trained, whichever library wrote their files."""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from interp.core.errors import CheckpointError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.probes.dictionaries.dictionary import Dictionary
from interp.probes.dictionaries.saelens import (
    CONFIGURATION,
    WEIGHTS,
    folded_dictionary,
    read_saelens,
)

PRISMA = "config.json"


@door
def read_dictionary(
    path: str | Path,
    *,
    kind: str | None = None,
    k: int | None = None,
    threshold: float | None = None,
) -> Dictionary:
    """Read a sparse dictionary that SAELens, ViT-Prisma or overcomplete trained.

    Args:
        path: A folder of SAELens (`cfg.json`, `sae_weights.safetensors`) or ViT-Prisma
            (`config.json` and a `.pt` file); or a `.pt` file of ViT-Prisma or overcomplete.
        kind: The class of an overcomplete model of which only the state dict was saved: `SAE`,
            `TopKSAE`, `BatchTopKSAE` or `JumpSAE`. None where the file says it.
        k: The `top_k` of such a TopKSAE.
        threshold: The `running_threshold` of such a BatchTopKSAE.

    Returns:
        The dictionary, with the site among its facts where the file names it.

    Raises:
        CheckpointError: For files that are missing, cut short or of no such format, and for what a
            `Dictionary` cannot express, such as transcoders; the message names it.
        SpecificationError: For `kind`, `k` or `threshold` beside a file that says them.

    Notes:
        - No code of a file is run. Whole models and configurations are read as bare records.
        - Features are the library's own with two exceptions. Where decoder rows have another norm
          than 1, features are multiplied by it; for SAELens's rows of norm sqrt(d_in) see
          `write_saelens`.
        - A state dict of overcomplete does not say how rows are normalised; it is read as its
          default, norm 1.

    >>> import tempfile
    >>> import torch
    >>> file = f"{tempfile.mkdtemp()}/model.pt"
    >>> linear = "encoder.final_block.0."
    >>> weights = {f"{linear}weight": torch.eye(2), f"{linear}bias": torch.zeros(2)}
    >>> torch.save(weights | {"dictionary._weights": torch.eye(2)}, file)
    >>> read_dictionary(file, kind="TopKSAE", k=1)([[3.0, 1.0]]).tolist()
    [[3.0, 0.0]]
    """
    source = Path(path)
    words = {"kind": kind, "k": k, "threshold": threshold}
    if source.name in (CONFIGURATION, WEIGHTS, PRISMA):
        source = source.parent
    if source.is_dir() and not (source / PRISMA).exists():
        _refuse_words(source, words)
        return read_saelens(source)
    if source.is_dir():
        _refuse_words(source, words)
        return _of_prisma(source, read_torch(_weights_in(source)), source / PRISMA)
    held = read_torch(source)
    if isinstance(held, dict) and ("W_enc" in held or "state_dict" in held):
        _refuse_words(source, words)
        return _of_prisma(source, held, source.parent / PRISMA)
    if isinstance(held, Record):
        _refuse_words(source, words)
    elif not isinstance(held, dict) or "dictionary._weights" not in held:
        given = f"a {type(held).__name__} of unknown format"
        right = "a file of SAELens, ViT-Prisma or overcomplete"
        do = "check what wrote it"
        raise CheckpointError(f"read the dictionary in {source}", given, right, do)
    said, weights = overcomplete_parts(source, held, kind=kind, k=k, threshold=threshold)
    return folded_dictionary(source, said, weights)


def _of_prisma(source: Path, held: object, beside: Path) -> Dictionary:
    configuration = read_configuration(beside) if beside.exists() else None
    return folded_dictionary(source, *prisma_parts(source, held, configuration))


def _weights_in(folder: Path) -> Path:
    """The one file of weights in a folder of ViT-Prisma."""
    found = sorted(folder.glob("*.pt"))
    named = [path for path in found if path.name == "weights.pt"] or found
    if len(named) != 1:
        given = f"{len(found)} files of weights beside {PRISMA}"
        right = "weights.pt"
        raise CheckpointError(f"read the dictionary in {folder}", given, right, "name the file")
    return named[0]


def _refuse_words(source: Path, words: Mapping[str, object]) -> None:
    given = [f"{name}={value!r}" for name, value in words.items() if value is not None]
    if given:
        right = "nothing: the files say it"
        do = "leave it out"
        raise SpecificationError(f"read the dictionary in {source}", ", ".join(given), right, do)


Parts = tuple[dict[str, Any], dict[str, Tensor]]
"""A configuration and weights, in SAELens's terms."""

PREFIXES = ("overcomplete.", "vit_prisma.", "torch.nn.modules.")
"""Where classes come from whose objects are read as records; what else is pickled is refused."""


class Record:
    """What a pickled object held, without its class."""

    def __init__(self, *given: object) -> None:
        self.given = given


def read_torch(source: Path) -> object:
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
            source, f"a file that does not read ({why})", "what torch.save wrote", "fetch it again"
        )


# ViT-Prisma


def prisma_parts(source: Path, held: object, configuration: object = None) -> Parts:
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
            source, "weights without a configuration", "config.json", "fetch it from the same place"
        )
    needed = ("d_in", "expansion_factor", "activation_fn_str", "normalize_activations")
    lacking = [name for name in needed if name not in said]
    if lacking:
        _refuse(source, f"a configuration without {listed(lacking)}", listed(needed), "add it")
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


def read_configuration(source: Path) -> object:
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
            source, f"a configuration that does not read ({error})", "a table", "fetch it again"
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
    source: Path, held: object, *, kind: str | None, k: int | None, threshold: float | None
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
        dictionary = getattr(held, "_modules", {}).get("dictionary")
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
    said: dict[str, object] = {
        "architecture": "standard",
        "d_in": rows.shape[1],
        "d_sae": len(rows),
    }
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
            source, f"a dictionary normalised by {normalised}", listed(_NORMALISED), "train anew"
        )
    rows = _NORMALISED[normalised](_tensor(source, weights, "dictionary._weights"))
    return rows * weights.get("dictionary.multiplier", torch.tensor(0.0)).exp()


def _known(record: Record, name: str, given: object) -> Any:
    """What a whole model says, or else what was given."""
    found = getattr(record, name, None)
    return given if found is None else found


def _state(record: object, prefix: str = "") -> dict[str, Tensor]:
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
        _refuse(source, f"weights without {name}", "all weights of the model", "save it again")
    return weights[name]


def _tensors(source: Path, held: object) -> dict[str, Tensor]:
    if not isinstance(held, Mapping) or not all(isinstance(v, Tensor) for v in held.values()):
        _refuse(source, f"a {type(held).__name__}", "weights by name", "save the state_dict()")
    return {str(name): value.detach() for name, value in held.items()}


def _refuse(source: Path, given: str, right: str, do: str) -> NoReturn:
    raise CheckpointError(f"read the dictionary in {source}", given, right, do)
