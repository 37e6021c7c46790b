"""Features on disk: written once, opened again without the model they came from."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from interp.core.errors import DataError
from interp.core.store import complete
from interp.probes.features import Features

FACTS = "features.json"


def save_features(features: Features, folder: str | Path) -> Path:
    """Write features into a folder of their own: a `.npy` per site, and one file of the rest.

    The folder has its name only once it is whole; one that is there already is replaced. Raises
    `OutputError` where it cannot be written.

    >>> import tempfile
    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
    >>> features = Features({"hook_embedding": np.eye(2, dtype=np.float32)}, frame)
    >>> kept = open_features(save_features(features, Path(tempfile.mkdtemp()) / "kept"))
    >>> kept.sites, kept.values["hook_embedding"].tolist()
    (['hook_embedding'], [[1.0, 0.0], [0.0, 1.0]])
    """
    target = Path(folder)
    about = {
        "sites": features.sites,
        "layers": dict(features.layers),
        "depths": dict(features.depths),
        "shapes": {site: list(shape) for site, shape in features.shapes.items()},
        "facts": dict(features.facts),
        "pictures": {str(name): column.tolist() for name, column in features.frame.items()},
    }
    with complete(target) as temporary:
        for place, matrix in enumerate(features.values.values()):
            np.save(temporary / f"{place:03d}.npy", matrix)
        (temporary / FACTS).write_text(json.dumps(about, indent=1, default=str))
    return target


def open_features(folder: str | Path) -> Features:
    """Features that `save_features` wrote, their matrices mapped into memory.

    Raises `DataError` for a folder that holds none, or not all of them.
    """
    source = Path(folder)
    try:
        about = json.loads((source / FACTS).read_text())
        values = {
            site: np.load(source / f"{place:03d}.npy", mmap_mode="r")
            for place, site in enumerate(about["sites"])
        }
        shapes = {site: (int(n), int(d)) for site, (n, d) in about["shapes"].items()}
        frame = pd.DataFrame(about["pictures"])
        return Features(values, frame, about["layers"], about["depths"], about["facts"], shapes)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"open the features in {source}",
            f"files that do not read ({error})",
            "a folder that save_features wrote",
            "name that folder, or collect the features again",
        ) from None
