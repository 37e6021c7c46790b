"""Small CLIPs by name, and the folders that open_clip opens them from (`local-dir:`)."""

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from interp.core.errors import SpecificationError, check_known
from interp.core.store import complete
from interp.models.vocabulary import write_tokenizer

_TEXT = {"width": 128, "heads": 4, "layers": 1, "hf_tokenizer_name": "."}

PRESETS: dict[str, dict[str, Any]] = {
    # the default study's: one bottleneck per stage, a miniature of CLIP's RN50
    "resnet-small": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 48},
    },
    # average pooling learns from few pictures where a class token does not
    "vit-small": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": {
            "layers": 4,
            "width": 128,
            "head_width": 32,
            "patch_size": 8,
            "image_size": 48,
            "mlp_ratio": 4.0,
            "pool_type": "avg",
            "final_ln_after_pool": True,
        },
    },
}
"""open_clip model configurations without what a study decides: vocabulary and context length."""


def write_model_folder(
    folder: Path, preset: str, *, words: Sequence[str], longest: int, image_size: int | None = None
) -> Path:
    """Write a preset's model folder: `open_clip_config.json` and a tokenizer of the given words.

    `longest` is the number of words in the longest caption; two places are added for the start and
    end tokens.
    """
    check_known("make a model", "preset", [preset], PRESETS, SpecificationError)
    config = deepcopy(PRESETS[preset])
    config["text_cfg"]["context_length"] = longest + 2
    if image_size is not None:
        config["vision_cfg"]["image_size"] = image_size
    with complete(folder) as temporary:
        size = write_tokenizer(temporary, words, context_length=longest + 2)
        config["text_cfg"]["vocab_size"] = size
        (temporary / "open_clip_config.json").write_text(
            json.dumps(
                {
                    "model_cfg": config,
                    "preprocess_cfg": {
                        "mean": [0.5, 0.5, 0.5],
                        "std": [0.5, 0.5, 0.5],
                        "interpolation": "bicubic",
                        "resize_mode": "squash",
                    },
                },
                indent=1,
            )
        )
    return folder
