"""Opening of a CLIP from a name, a folder, a checkpoint or an archive."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.core.errors import CheckpointError, nearest
from interp.core.faces.doors import door
from interp.core.progress import say
from interp.models.clip import Clip
from interp.models.loading.checkpoints import (
    WEIGHTS,
    check_finite,
    fill,
    first_line,
    is_archive,
    read_weights,
    run_options,
)

SCHEMAS = ("hf-hub:", "local-dir:")
CONFIGURATION = "open_clip_config.json"

Tokenizers = Callable[[int], Callable[..., Tensor]]
"""From a context length to a tokenizer."""


@door
def load_clip(
    source: str | Path,
    *,
    pretrained: str | Path | None = None,
    model: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Clip:
    """Open a CLIP with hooks on every activation of both towers.

    Args:
        source: An open_clip architecture name; `hf-hub:ORG/REPO`; `local-dir:FOLDER` with an
            `open_clip_config.json`; a checkpoint (`epoch_k.pt` of open_clip's trainer, a bare state
            dict, safetensors); OpenAI's own archive; or a folder of Hugging Face's `CLIPModel`.
        pretrained: A tag of the architecture, or a file of weights; None gives random weights for
            an architecture name.
        model: The architecture of a checkpoint. None reads it, with its overrides, from the
            `params.txt` of its run or from a configuration beside it.
        device: Where the parameters are put.
        dtype: The format that weights of any precision are converted to.

    Returns:
        The opened CLIP, in evaluation mode.

    Raises:
        CheckpointError: For a source that is missing, cut short, or of another architecture.
        NumericsError: For weights that are not finite.

    Notes:
        Files load as weights only: one that needs foreign code to open is refused. GELU or
        QuickGELU leaves no trace in weights, so it comes from the name, tag or configuration; where
        these contradict one another the model is refused.

    >>> load_clip("RN50").visual.n_layers
    16
    >>> load_clip("RN50-quickgelu-no-such")
    Traceback (most recent call last):
    ...
    interp.core.errors.CheckpointError: Cannot open a CLIP: given 'RN50-quickgelu-no-such', ...
    """
    name, path = str(source), Path(source)
    schema = name.startswith(SCHEMAS)
    tokenizer: Tokenizers | None = None
    weights = f"weights of {path.name}" if path.suffix in WEIGHTS else ""
    if pretrained is not None and Path(pretrained).suffix in WEIGHTS:
        clip_model, architecture = _from_file(Path(pretrained), model or name), model or name
        weights = f"weights of {Path(pretrained).name}"
    elif not schema and path.suffix in WEIGHTS and is_archive(path):
        clip_model, architecture = _from_archive(path), f"OpenAI's {path.stem}"
        tokenizer = _plain_tokenizer
    elif not schema and path.suffix in WEIGHTS:
        architecture = model or architecture_of(path)
        clip_model = _from_file(path, architecture)
    elif not schema and path.is_dir():
        clip_model, architecture, tokenizer = _from_folder(path)
    else:
        clip_model, architecture = _from_name(name, pretrained), name
        weights = f"pretrained {pretrained}" if pretrained else "" if schema else "random weights"
    clip_model.eval().to(device=device, dtype=dtype)
    check_finite(clip_model, name)
    return Clip(clip_model, architecture, tokenizer, weights)


def _from_name(name: str, tag: str | Path | None) -> nn.Module:
    """Open by name or schema; a tag must not contradict the name's activation function."""
    import open_clip

    if not name.startswith(SCHEMAS) and name not in open_clip.list_models():
        right = "an open_clip name, hf-hub:…, local-dir:…, a folder or a checkpoint's path"
        do = f"did you mean {nearest(name, open_clip.list_models())}?"
        raise CheckpointError("open a CLIP", repr(name), right, do)
    if tag is None:
        suffixes = {path.suffix for path in Path(name.removeprefix("local-dir:")).glob("*")}
        if name.startswith("local-dir:") and not suffixes & {".safetensors", ".bin", ".pth"}:
            say(f"{name}: a configuration without .safetensors, .bin or .pth: weights are random")
        if not name.startswith(SCHEMAS):
            say(f"{name}: no pretrained= is given: weights are random")
        return create(name, require_pretrained=name.startswith("hf-hub:"))
    known = open_clip.get_pretrained_cfg(name, str(tag))
    if not known:
        given = "a tag that it does not have"
        right = "a tag of this architecture, or a file of weights"
        do = f"try {nearest(str(tag), open_clip.list_pretrained_tags_by_model(name))}"
        raise CheckpointError(f"open {name} with the tag {str(tag)!r}", given, right, do)
    ours = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    theirs = bool(known.get("quick_gelu", False))
    if ours != theirs:
        other = f"{name}-quickgelu" if theirs else name.removesuffix("-quickgelu")
        asked = f"open {name} with the tag {str(tag)!r}"
        given = f"a model with {_gelu(ours)} for weights trained with {_gelu(theirs)}"
        right = "the same activation function in both"
        raise CheckpointError(asked, given, right, f"open {other} instead")
    return create(name, pretrained=str(tag), require_pretrained=True)


def _from_file(path: Path, architecture: str) -> nn.Module:
    """Open a checkpoint, with the overrides that its run was started with."""
    weights, options = read_weights(path), run_options(path)
    if "head.weight" in weights and "logit_scale" not in weights:
        given = "a supervised classifier, which has no text tower"
        do = "open it with interp.models.loading.load_classifier.load_classifier"
        raise CheckpointError(f"open {path} as a CLIP", given, "the checkpoint of a CLIP", do)
    trained = str(options.get("model", architecture))
    forced = options.get("force_quick_gelu") is True
    ours, theirs = _quick_gelu(architecture), _quick_gelu(trained)
    if not forced and None not in (ours, theirs) and ours != theirs:
        asked = f"load {path} into {architecture}"
        given = f"{_gelu(bool(ours))} for weights of {trained}, trained with {_gelu(bool(theirs))}"
        right = "the activation function that the run was trained with"
        raise CheckpointError(asked, given, right, f"pass model={trained!r}, or none")
    overrides: dict[str, Any] = {
        f"force_{name}": options[f"force_{name}"]
        for name in ("quick_gelu", "custom_text", "image_size", "context_length")
        if options.get(f"force_{name}")
    }
    side = overrides.get("force_image_size")
    if isinstance(side, (list, tuple)) and len(side) == 1:
        overrides["force_image_size"] = side[0]
    picture = {
        name: options[f"image_{name}"]
        for name in ("mean", "std", "interpolation", "resize_mode")
        if options.get(f"image_{name}")
    }
    if picture:
        overrides["force_preprocess_cfg"] = picture
    if "logit_bias" in weights:  # SigLIP's loss
        overrides["init_logit_bias"] = 0.0
    clip_model = create(architecture, load_weights=False, **overrides)
    fill(clip_model, weights, path, architecture)
    return clip_model


def _from_archive(path: Path) -> nn.Module:
    """Open OpenAI's archive: sizes are read off the weights, and all of them have QuickGELU."""
    from open_clip.model import build_model_from_openai_state_dict
    from open_clip.transform import PreprocessCfg

    weights = read_weights(path)
    if "input_resolution" not in weights or "visual.conv1.weight" not in weights:
        given = "a TorchScript archive that is not OpenAI's"
        do = "save the model's state_dict, and pass model="
        raise CheckpointError(f"open {path}", given, "OpenAI's archive, or a state dict", do)
    clip_model = build_model_from_openai_state_dict(weights).float()
    clip_model.visual.preprocess_cfg = vars(PreprocessCfg(size=clip_model.visual.image_size))  # type: ignore[assignment]
    return clip_model


def _from_folder(folder: Path) -> tuple[nn.Module, str, Tokenizers | None]:
    """Open a folder in open_clip's own form, or in Hugging Face's."""
    from interp.models.loading.checkpoints import is_clip_folder, open_clip_folder

    if (folder / CONFIGURATION).is_file():
        name = f"local-dir:{folder}"
        return _from_name(name, None), name, None
    if is_clip_folder(folder):
        return open_clip_folder(folder), f"CLIPModel {folder.name}", _tokenizer_of(folder)
    given = f"a folder without {CONFIGURATION} and without a CLIPModel's config.json"
    right = "a folder that open_clip or transformers saved, or the path of a checkpoint"
    raise CheckpointError(f"open {folder}", given, right, "name the file")


def create(name: str, *, device: str = "cpu", **options: Any) -> nn.Module:
    """Create an open_clip model by name or schema.

    Args:
        name: An architecture name, or one with a schema.
        device: Where to create it.
        **options: Further options of `open_clip.create_model`.

    Returns:
        The model.

    Raises:
        CheckpointError: For whatever open_clip refuses.
    """
    import open_clip

    quiet = logging.getLogger().level
    # open_clip warns of random weights; they are asked for
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        return open_clip.create_model(name, device=device, pretrained_text=False, **options)
    except Exception as error:  # whatever a hub, a file system or a pickle can raise
        given = f"what open_clip refuses ({first_line(error)})"
        right = "a complete model folder, or a tag that can be had"
        do = "check the name, the folder, or the network"
        raise CheckpointError(f"open {name!r}", given, right, do) from None
    finally:
        logging.getLogger().setLevel(quiet)


def architecture_of(path: Path) -> str:
    """The architecture of a trainer's checkpoint, from a configuration beside it or from its run.

    Args:
        path: The checkpoint.

    Returns:
        A name for `create`.

    Raises:
        CheckpointError: If the file is missing or nothing says its architecture.
    """
    for folder in (path.parent, path.parent.parent):
        if (folder / CONFIGURATION).is_file():
            return f"local-dir:{folder}"
    trained = run_options(path).get("model")
    if trained is not None:
        return str(trained)
    if not path.is_file():
        given = "a file that does not exist"
        raise CheckpointError(f"open {path}", given, "the path of a checkpoint", "check the path")
    right = "an architecture for its weights, GELU or QuickGELU included"
    do = 'pass model="RN50", model="RN50-quickgelu" or model="local-dir:FOLDER"'
    raise CheckpointError(f"open {path}", "no params.txt of the run that made it", right, do)


def _quick_gelu(architecture: str) -> bool | None:
    """Whether a named architecture has QuickGELU; None where nothing is known of it."""
    import open_clip

    if architecture.startswith(SCHEMAS):
        return None
    config = open_clip.get_model_config(architecture)
    return None if config is None else bool(config.get("quick_gelu", False))


def _gelu(quick: bool) -> str:
    return "QuickGELU" if quick else "GELU"


def _plain_tokenizer(length: int) -> Callable[..., Tensor]:
    import open_clip

    return open_clip.SimpleTokenizer(context_length=length)


def _tokenizer_of(folder: Path) -> Tokenizers:
    """The folder's own tokenizer; without one, CLIP's."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return _plain_tokenizer

    def own(length: int) -> Callable[..., Tensor]:
        from open_clip.tokenizer import HFTokenizer

        return HFTokenizer(str(folder), context_length=length)

    return own
