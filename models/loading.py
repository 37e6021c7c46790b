"""Open a CLIP from wherever it lies: a name, a folder, or a checkpoint of open_clip's trainer."""

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from interp.core.errors import CheckpointError, NumericsError, listed, nearest
from interp.models.clip import Clip

WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")


def load_clip(
    source: str | Path,
    *,
    pretrained: str | None = None,
    model: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Clip:
    """Open a CLIP with hooks on every activation of both towers.

    `source` is an open_clip architecture name (with a `pretrained` tag, or none for random
    weights), `hf-hub:ORG/REPO`, `local-dir:FOLDER`, or the path of a checkpoint. A checkpoint's
    architecture is read from the `params.txt` of its run; without one, pass `model`.

    Checkpoints load as weights only: a file that needs foreign code to open is refused. Raises
    `CheckpointError` for what is missing, cut short, or of another architecture.

    >>> clip = load_clip("RN50-quickgelu-no-such")
    Traceback (most recent call last):
    ...
    interp.core.errors.CheckpointError: Cannot open a CLIP: given 'RN50-quickgelu-no-such', ...
    """
    name = str(source)
    path = Path(name)
    if path.suffix in WEIGHTS and not name.startswith(("hf-hub:", "local-dir:")):
        architecture = model or _architecture_of(path)
        clip_model = _create(architecture, None)
        _fill(clip_model, _read_weights(path), path, architecture)
    else:
        architecture = name
        clip_model = _create(name, pretrained)
    clip_model.eval().to(device=device, dtype=dtype)
    _check_finite(clip_model, name)
    return Clip(clip_model, architecture)


def _create(name: str, pretrained: str | None) -> nn.Module:
    """An open_clip model on the CPU; without `pretrained`, its weights are random."""
    import open_clip

    schema = name.startswith(("hf-hub:", "local-dir:"))
    if not schema and name not in open_clip.list_models():
        raise CheckpointError(
            "open a CLIP",
            repr(name),
            "an open_clip name, hf-hub:…, local-dir:… or a checkpoint's path",
            f"did you mean {nearest(name, open_clip.list_models())}?",
        )
    quiet = logging.getLogger().level
    logging.getLogger().setLevel(
        logging.ERROR
    )  # open_clip warns of random weights; they are asked for
    try:
        return open_clip.create_model(name, pretrained, device="cpu", pretrained_text=False)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"open {name!r}",
            f"what open_clip refuses ({_first_line(error)})",
            "a complete model folder, or a tag that can be had",
            "check the name, the folder, or the network",
        ) from None
    finally:
        logging.getLogger().setLevel(quiet)


def _architecture_of(path: Path) -> str:
    """The architecture of a trainer's checkpoint, from the `params.txt` two folders up."""
    params = path.parent.parent / "params.txt"
    found = re.search(r"^model: (.+)$", params.read_text(), re.M) if params.is_file() else None
    beside = [
        folder
        for folder in (path.parent, path.parent.parent)
        if (folder / "open_clip_config.json").is_file()
    ]
    if beside:
        return f"local-dir:{beside[0]}"
    if found is None:
        if not path.is_file():
            raise CheckpointError(
                f"open {path}",
                "a file that does not exist",
                "the path of a checkpoint",
                "check the path",
            )
        raise CheckpointError(
            f"open {path}",
            "no params.txt of the run that made it",
            "an architecture for its weights",
            'pass model="RN50", or model="local-dir:FOLDER"',
        )
    return found[1].strip()


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """A state dict, never code: `weights_only`, and no `module.` prefixes of DDP."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
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
    except (RuntimeError, OSError, EOFError, ValueError, BadZipFile) as error:
        raise CheckpointError(
            f"open {path}",
            f"a truncated file ({_first_line(error)})",
            "a whole checkpoint",
            "take an earlier epoch, or train again",
        ) from None
    except Exception as error:  # safetensors raises a class of its own, outside every hierarchy
        raise CheckpointError(
            f"open {path}",
            f"a broken file ({_first_line(error)})",
            "a whole checkpoint",
            "get the file again",
        ) from None
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise CheckpointError(
            f"open {path}",
            "a file without a state dict",
            "tensors by name",
            "save the model's state_dict",
        )
    return {key.removeprefix("module."): value for key, value in weights.items()}


def _fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Load weights into a model, naming the keys and shapes that do not fit."""
    own = model.state_dict()
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
    model.load_state_dict(dict(weights))


def _check_finite(model: nn.Module, name: str) -> None:
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


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]
