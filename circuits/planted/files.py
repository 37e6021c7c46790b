"""Planted models as files that need no code of ours: weights, pictures, classes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from safetensors.torch import load_file, save_file

from interp.circuits.planted.weights import HEADS, LAYERS
from interp.circuits.planted.world import CLASSES, D_EMBED, DOMAINS, PATCH, SIZE
from interp.core.classifiers import Classifier
from interp.core.images import ImageTable

MODEL, SHOWN, CONFIG = "model.safetensors", "pictures.safetensors", "config.json"


@dataclass(frozen=True)
class _Reader:
    """Pictures by their row."""

    pictures: np.ndarray

    def __call__(self, row: pd.Series) -> Image.Image:
        return Image.fromarray(self.pictures[int(row["path"])])


def write_planted(
    folder: Path, source: Any, images: ImageTable, classifier: Classifier, **facts: object
) -> None:
    """Write a planted transformer, its pictures and its classes into a folder.

    Args:
        folder: Where to.
        source: open_clip's module.
        images: Pictures with `label`, `domain` and `artist`.
        classifier: The classes.
        facts: What else `config.json` says.
    """
    weights = {name: value.contiguous() for name, value in source.state_dict().items()}
    save_file(weights, folder / MODEL)
    frame = images.frame
    artists = sorted(frame["artist"].unique())
    places = {"label": list(CLASSES), "domain": list(DOMAINS), "artist": artists}
    shown = {
        name: torch.tensor([known.index(each) for each in frame[name]])
        for name, known in places.items()
    }
    pictures = [np.asarray(images.picture(row)) for row in range(len(frame))]
    shown["pictures"] = torch.from_numpy(np.stack(pictures))
    shown["classes"] = classifier.embeddings.contiguous()
    save_file(shown, folder / SHOWN)
    transformer = {
        "image_size": SIZE,
        "patch_size": PATCH,
        "width": source.conv1.weight.shape[0],
        "layers": LAYERS,
        "heads": HEADS,
        "mlp_ratio": 4.0,
        "output_dim": D_EMBED,
    }
    config = {**facts, "transformer": transformer, **places}
    (folder / CONFIG).write_text(json.dumps(config, indent=1))


def read_planted(folder: Path) -> tuple[VisionTransformer, ImageTable, Classifier]:
    """What `write_planted` wrote: the module, its pictures, and its classes.

    Args:
        folder: Where it is.

    Returns:
        The three, the module in float64 and in eval mode.
    """
    config = json.loads((folder / CONFIG).read_text())
    shown = load_file(folder / SHOWN)
    source = VisionTransformer(**config["transformer"]).double().eval()
    source.load_state_dict(load_file(folder / MODEL))
    columns = {
        name: [config[name][place] for place in shown[name].tolist()]
        for name in ("label", "domain", "artist")
    }
    frame = pd.DataFrame(columns).assign(split="analysis", caption="")
    frame["path"] = [str(number) for number in range(len(frame))]
    images = ImageTable(frame, reader=_Reader(shown["pictures"].numpy()))
    return source, images, Classifier(shown["classes"], tuple(config["label"]))
