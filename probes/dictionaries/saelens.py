"""Dictionaries on disk, in the files that SAELens writes: `cfg.json` and `sae_weights.safetensors`.

The weights are `W_enc` "d_in d_sae", `W_dec` "d_sae d_in", `b_enc` "d_sae", `b_dec` "d_in" and, for
JumpReLU, `threshold` "d_sae". Beside sizes, the configuration may say:

    architecture            standard; topk (with `k`); jumprelu, which BatchTopK and Matryoshka are
                            saved as; batchtopk with the `topk_threshold` of training; gated
    apply_b_dec_to_input    false: folded into b_enc
    normalize_activations   none; constant_norm_rescale (rows of norm sqrt(d_in)): `unit_rows`;
                            layer_norm: `standard_rows`
    rescale_acts_by_decoder_norm, and decoder rows of any norm: folded, so that rows have norm 1

A gated one (`b_gate`, `r_mag`, `b_mag` in place of `b_enc`) is a JumpReLU: with the gate
g = x W_enc + b_gate, its magnitude exp(r_mag) (g - b_gate) + b_mag counts where g > 0, which is
where it exceeds b_mag - exp(r_mag) b_gate.

What a `Dictionary` cannot express is refused: transcoders and other architectures, an average norm
that was not folded in, a scaling of features that was learnt afterwards.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.core.errors import CheckpointError, OutputError, listed
from interp.core.faces.doors import door
from interp.core.storage.store import replacing, writable
from interp.probes.dictionaries.dictionary import Dictionary

CONFIGURATION, WEIGHTS = "cfg.json", "sae_weights.safetensors"
Configuration = Mapping[str, Any]
"""What `cfg.json` says."""

WRITTEN_AS = "6.0.0"
"""The version of SAELens whose form is written; readers decide by it what a file means."""


@door
def write_saelens(dictionary: Dictionary, folder: str | Path) -> Path:
    """Write a dictionary in the files of SAELens, with its facts as metadata.

    Args:
        dictionary: The dictionary.
        folder: The folder, made where it does not exist.

    Returns:
        The folder.

    Raises:
        OutputError: Where the folder cannot be written.
        CheckpointError: For thresholds below 0 or beside k, which SAELens does not have.

    Notes:
        SAELens reads the same features as `dictionary` gives, except where `unit_rows`: it scales
        such rows to norm sqrt(d_in), so its features are sqrt(d_in) times as strong.

    >>> import tempfile
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> folder = write_saelens(Dictionary(eye, eye, zero, zero, zero), tempfile.mkdtemp())
    >>> sorted(path.name for path in folder.iterdir())
    ['cfg.json', 'sae_weights.safetensors']
    """
    target = writable(Path(folder), purpose="a dictionary")
    scale = dictionary.d_in**0.5 if dictionary.unit_rows else 1.0
    jump = bool((dictionary.threshold != 0).any())
    if (jump and dictionary.k is not None) or bool((dictionary.threshold < 0).any()):
        _refuse(
            target, "write", "a threshold below 0 or beside k", "k, or others", "keep one of them"
        )
    weights = {
        "W_enc": dictionary.encoder,
        "W_dec": dictionary.decoder,
        "b_enc": scale * dictionary.encoder_bias,
        "b_dec": scale * dictionary.decoder_bias,
    }
    if jump:
        weights["threshold"] = scale * dictionary.threshold
    architecture = "jumprelu" if jump else "standard" if dictionary.k is None else "topk"
    facts = {f"interp_{name}": value for name, value in dictionary.facts.items()}
    configuration = {
        "d_in": dictionary.d_in,
        "d_sae": dictionary.width,
        "dtype": str(dictionary.decoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "constant_norm_rescale"
        if dictionary.unit_rows
        else "layer_norm"
        if dictionary.standard_rows
        else "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": WRITTEN_AS,
            "hook_name": str(dictionary.facts.get("site", "")),
            **facts,
        },
        "architecture": architecture,
    }
    if dictionary.k is not None:
        configuration |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    try:
        with replacing(target / WEIGHTS) as temporary:
            copies = {n: t.detach().cpu().clone().contiguous() for n, t in weights.items()}
            save_file(copies, temporary)
        with replacing(target / CONFIGURATION) as temporary:
            temporary.write_text(json.dumps(configuration, indent=1, default=_plain))
    except OSError as error:
        right = "a folder that can be written"
        do = "choose another folder"
        raise OutputError(f"write a dictionary to {target}", str(error), right, do) from None
    return target


@door
def read_saelens(folder: str | Path) -> Dictionary:
    """Read the dictionary in a folder that SAELens or `write_saelens` wrote.

    Args:
        folder: The folder.

    Returns:
        The dictionary, with the site and what `write_saelens` added as its facts.

    Raises:
        CheckpointError: For files that are missing, cut short or of other shapes than they say, and
            for what a `Dictionary` cannot express.

    Notes:
        - Older files (before SAELens 6) are read too: there a TopK is a standard architecture with
          `activation_fn` (or `activation_fn_str`) "topk".
        - Features are SAELens's own, with two exceptions. For rows of norm sqrt(d_in) they differ
          as `write_saelens` says. Where decoder rows have another norm than 1, they are multiplied
          by it.

    >>> import tempfile
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> one = Dictionary(eye, eye, zero, zero, zero, k=1, facts={"site": "hook_embedding"})
    >>> other = read_saelens(write_saelens(one, tempfile.mkdtemp()))
    >>> other.k, other.facts["site"], bool((other.encoder == eye).all())
    (1, 'hook_embedding', True)
    """
    source = Path(folder)
    return folded_dictionary(source, *_read(source))


def folded_dictionary(
    source: Path, configuration: Configuration, weights: Mapping[str, Tensor]
) -> Dictionary:
    """Fold what SAELens's terms say into the one formula of a `Dictionary`.

    Args:
        source: Where they were read, for messages.
        configuration: As in `cfg.json`.
        weights: As in `sae_weights.safetensors`.

    Returns:
        The dictionary.

    Raises:
        CheckpointError: For what a `Dictionary` cannot express, and shapes that do not fit.
    """
    metadata = configuration.get("metadata") or {}
    architecture, k = _architecture(source, configuration)
    _refuse_unsayable(source, configuration, weights)
    _refuse_shapes(source, configuration, weights, architecture)
    facts = {
        name.removeprefix("interp_"): value
        for name, value in metadata.items()
        if name.startswith("interp_")
    }
    site = metadata.get("hook_name") or configuration.get("hook_name")
    return _dictionary(
        configuration, weights, architecture, k, facts | ({"site": site} if site else {})
    )


def _dictionary(
    configuration: Configuration,
    weights: Mapping[str, Tensor],
    architecture: str,
    k: int | None,
    facts: Mapping[str, object],
) -> Dictionary:
    """Everything folded into the one formula of a `Dictionary`."""
    decoder, b_dec = weights["W_dec"], weights["b_dec"]
    rescaled = bool(configuration.get("rescale_acts_by_decoder_norm", False))
    encoder, b_enc, threshold = _read_out(weights, architecture, rescaled)
    if not configuration.get("apply_b_dec_to_input", True):
        b_enc = b_enc + b_dec @ encoder
    norm = decoder.norm(dim=1)
    rows = norm[:, None].where(norm[:, None] > 0, 1)
    # features times the norm of their row, rows divided by it: the same sum. With k this keeps the
    # choice only where SAELens chooses by the same product, or where all norms are alike.
    if not torch.allclose(norm, torch.ones_like(norm), rtol=0, atol=1e-4):
        if k is not None and not rescaled and not torch.allclose(norm, norm[:1], rtol=1e-4):
            k_kept = "decoder rows of one norm, or rescale_acts_by_decoder_norm"
            given = "k strongest features chosen apart from unequal decoder norms"
            do = "rescale the decoder with SAELens's fold_W_dec_norm first"
            raise CheckpointError("read a dictionary", given, k_kept, do)
        encoder, b_enc, threshold = encoder * norm, b_enc * norm, threshold * norm
        decoder = decoder / rows
    unit_rows = configuration.get("normalize_activations") == "constant_norm_rescale"
    scale = decoder.shape[1] ** 0.5 if unit_rows else 1.0
    return Dictionary(
        encoder,
        decoder,
        b_enc / scale,
        b_dec / scale,
        threshold / scale,
        k,
        unit_rows,
        facts,
        standard_rows=configuration.get("normalize_activations") == "layer_norm",
    )


def _read_out(
    weights: Mapping[str, Tensor], architecture: str, rescaled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, biases and thresholds of the strengths, for decoder rows as they are."""
    encoder = weights["W_enc"]
    if architecture == "gated":
        size, gate, bias = weights["r_mag"].exp(), weights["b_gate"], weights["b_mag"]
        return encoder * size, bias, (bias - size * gate).relu()
    bias = weights["b_enc"]
    if architecture == "jumprelu":
        return encoder, bias, weights["threshold"].relu()
    if architecture in TRAINED_BY_BATCH:  # one threshold; of strengths times norms if rescaled
        threshold = torch.ones_like(bias) * weights["topk_threshold"].to(bias).relu()
        norm = weights["W_dec"].norm(dim=1)
        return encoder, bias, threshold / norm.where(norm > 0, 1) if rescaled else threshold
    return encoder, bias, 0 * bias


def _read(source: Path) -> tuple[Configuration, dict[str, Tensor]]:
    try:
        configuration = json.loads((source / CONFIGURATION).read_text())
        weights = load_file(source / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        given = f"files that do not read ({error})"
        right = f"{CONFIGURATION} and {WEIGHTS}, as SAELens writes them"
        do = "check the path, or fetch the files again"
        raise CheckpointError(f"read the dictionary in {source}", given, right, do) from None
    if not isinstance(configuration, dict):
        _refuse(source, "read", f"{CONFIGURATION}, no table", "a table", "fetch the file again")
    return configuration, {
        name: tensor.float() if tensor.dtype in HALF else tensor for name, tensor in weights.items()
    }


HALF = (torch.float16, torch.bfloat16)

TRAINED_BY_BATCH = ("batchtopk", "matryoshka_batchtopk")
"""Architectures of training, whose threshold is a running mean; for use they become jumprelu."""

_ELSEWHERE = "reads one site and writes another"
UNLIKE = {
    "transcoder": _ELSEWHERE,
    "skip_transcoder": _ELSEWHERE,
    "jumprelu_transcoder": _ELSEWHERE,
    "jumprelu_skip_transcoder": _ELSEWHERE,
    "temporal": "attends to earlier tokens",
    "matching_pursuit": "chooses features one after the other",
    "abstopk": "keeps negative strengths as well",
}
"""Why an architecture is no `Dictionary`."""


def _architecture(source: Path, configuration: Configuration) -> tuple[str, int | None]:
    """The architecture, and k where it has one."""
    name = configuration.get("architecture", "standard")
    function = configuration.get("activation_fn_str", configuration.get("activation_fn", "relu"))
    words = configuration.get("activation_fn_kwargs") or {}
    if name == "standard" and function == "topk":
        name = "topk"
    elif name == "standard" and function != "relu":
        name = f"standard with {function}"
    elif name == "gated" and function != "relu":
        name = f"gated with {function}"
    if name not in ("standard", "topk", "jumprelu", "gated", *TRAINED_BY_BATCH):
        why = f", which {UNLIKE[name]}" if name in UNLIKE else ""
        _refuse(
            source,
            "read",
            f"the architecture {name}{why}",
            "standard, topk, jumprelu, gated or batchtopk",
            "train or fetch one of these for the site",
        )
    if name != "topk":
        return name, None
    k = configuration.get("k", words.get("k"))
    if not isinstance(k, int) or k < 1 or k > int(configuration.get("d_sae", k)):
        _refuse(source, "read", f"k={k!r}", "1 to d_sae", "correct the configuration")
    return name, k


def _refuse_unsayable(
    source: Path, configuration: Configuration, weights: Mapping[str, Tensor]
) -> None:
    normalised = configuration.get("normalize_activations", "none")
    if normalised not in ("none", "constant_norm_rescale", "layer_norm", False, None):
        _refuse(
            source,
            "read",
            f"normalize_activations={normalised!r}",
            "none, constant_norm_rescale or layer_norm",
            "fold the scaling in with SAELens first",
        )
    reshaped = configuration.get("reshape_activations", "none")
    if reshaped not in ("none", "hook_z", None):
        _refuse(source, "read", f"reshape_activations={reshaped!r}", "none or hook_z", "convert it")
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights and not torch.allclose(weights[name], torch.ones_like(weights[name])):
            _refuse(source, "read", f"a {name} learnt afterwards", "none", "fold it into W_dec")


def _refuse_shapes(
    source: Path, configuration: Configuration, weights: Mapping[str, Tensor], architecture: str
) -> None:
    d_in, d_sae = configuration.get("d_in"), configuration.get("d_sae")
    wanted = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    if architecture == "jumprelu":
        wanted["threshold"] = (d_sae,)
    elif architecture in TRAINED_BY_BATCH:
        wanted["topk_threshold"] = ()
    elif architecture == "gated":
        del wanted["b_enc"]
        wanted |= {name: (d_sae,) for name in ("b_gate", "r_mag", "b_mag")}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items() if name in wanted}
    if found != wanted:
        wrong = [name for name in wanted if found.get(name) != wanted[name]]
        _refuse(
            source,
            "read",
            listed(f"{n} of shape {found.get(n, 'nothing')}" for n in wrong),
            listed(f"{n} of shape {wanted[n]}" for n in wrong),
            "fetch the files again, or correct the configuration",
        )


def _refuse(source: Path, verb: str, given: str, right: str, do: str) -> None:
    raise CheckpointError(f"{verb} the dictionary in {source}", given, right, do)


def _plain(value: object) -> object:
    """A numpy number as Python's; anything else as words."""
    return value.item() if isinstance(value, np.generic) else str(value)
