"""What every picture of a table looks like in two hashes, kept in the cache as they are made."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from interp.core.errors import DataError
from interp.core.images import ImageTable
from interp.core.parallel import side_by_side
from interp.core.store import cache_folder, fingerprint, writable, write_atomic
from interp.data.perceptual import perceptual_hash

PART = 1000
"""Pictures per part of the cache: what an interruption may cost."""


@dataclass(frozen=True)
class Part:
    """Some rows of a table to be hashed, the state of their files, and where the result goes."""

    images: ImageTable
    states: list[str]
    folder: Path


def picture_hashes(images: ImageTable, *, jobs: int = 1) -> pd.DataFrame:
    """A row per picture: `pixels` (a hash of its decoded pixels) and `looks` (see `perceptual`).

    Both are empty (`pixels` "", `looks` 0) for a picture that does not read. What was hashed before
    is read from the cache, unless the file has changed since; interrupt it and it goes on.
    """
    folder = cache_folder() / f"hashes-{fingerprint(str(images.root), images.fingerprint)}"
    known = _known(folder)
    states = [_state(images.root / path) for path in images.frame["path"]]
    keys = [f"{path}\n{state}" for path, state in zip(images.frame["path"], states, strict=True)]
    missing = [row for row, key in enumerate(keys) if key not in known]
    parts = [
        Part(images[rows], [states[row] for row in rows], folder)
        for rows in (missing[start : start + PART] for start in range(0, len(missing), PART))
    ]
    if parts:
        writable(folder, purpose="hashes of pictures")
        side_by_side(_hash_part, parts, jobs=jobs, what="hash pictures")
        known = _known(folder)
    found = [known[key] for key in keys]
    return pd.DataFrame(
        {
            "pixels": [pixels for pixels, _ in found],
            "looks": np.array([looks for _, looks in found], dtype=np.uint64),
        }
    )


def _state(path: Path) -> str:
    """Size and time of a file, so that one that changed is hashed again; empty where none is."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return f"{state.st_size}-{state.st_mtime_ns}"


def _known(folder: Path) -> dict[str, tuple[str, int]]:
    """What the cache holds: path and state to the two hashes."""
    known = {}
    for part in sorted(folder.glob("*.csv")):
        rows = pd.read_csv(part, keep_default_na=False, dtype=str)
        columns = (rows[name] for name in ("path", "state", "pixels", "looks"))
        for path, state, pixels, looks in zip(*columns, strict=True):
            known[f"{path}\n{state}"] = (pixels, int(looks, 16))
    return known


def _hash_part(part: Part) -> int:
    """Hash some pictures and file the result under a name of its own."""
    rows = [_both(part.images, row) for row in range(len(part.images))]
    frame = pd.DataFrame(
        {
            "path": part.images.frame["path"].tolist(),
            "state": part.states,
            "pixels": [pixels for pixels, _ in rows],
            "looks": [f"{looks:016x}" for _, looks in rows],
        }
    )
    name = fingerprint(frame["path"].tolist(), part.states)
    write_atomic(part.folder / f"{name}.csv", frame.to_csv(index=False))
    return len(frame)


def _both(images: ImageTable, row: int) -> tuple[str, int]:
    try:
        picture = images.picture(row)
    except DataError:
        return "", 0
    content = picture.tobytes() + repr(picture.size).encode()
    return blake2b(content, digest_size=8).hexdigest(), perceptual_hash(picture)
