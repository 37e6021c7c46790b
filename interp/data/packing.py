"""Image tables written as WebDataset shards, which open_clip's own loader trains from."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.core.errors import DataError, OutputError
from interp.core.images import ImageTable
from interp.core.pictures import Stored
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.store import fingerprint, replacing, writable, write_atomic

AS_THEY_ARE = (".jpg", ".jpeg", ".png", ".webp")
"""Files that go into a shard unchanged: those that open_clip looks for."""


def write_shards(
    images: ImageTable,
    folder: str | Path,
    *,
    per_shard: int = 1000,
    captions: Sequence[str] | None = None,
    seed: int | None = None,
) -> list[Path]:
    """Write pictures as `shards-000000.tar` and so on, and return the tars.

    Each example is a picture (the file as it is, or PNG), its caption (`captions`, by row, else the
    column) and a JSON of the other columns, so that `open_images` gives the table back. With a
    `seed` the rows are shuffled first, as training from shards wants. `sizes.json` counts the
    examples of each tar for open_clip, `shards.json` says what was packed.

    A shard has its name only when it is whole: an interrupted call goes on where it stopped.

    Raises `DataError` for captions that do not fit the rows, `OutputError` for a folder that holds
    shards of other pictures.
    """
    words = list(images.caption) if captions is None else list(captions)
    if len(words) != len(images) or per_shard < 1 or not len(images):
        raise DataError(
            "write shards",
            f"{len(images)} pictures, {len(words)} captions, per_shard = {per_shard}",
            "a caption for each of at least one picture, and at least one picture in a shard",
            "correct them",
        )
    target = writable(Path(folder), purpose="shards")
    order = np.arange(len(images)) if seed is None else rng("shards", seed).permutation(len(images))
    starts = range(0, len(images), per_shard)
    _claim(target, images, words, {"per_shard": per_shard, "seed": seed})
    shards = [target / f"shards-{number:06d}.tar" for number in range(len(starts))]
    parts = [order[start : start + per_shard] for start in starts]
    for shard, rows in track(list(zip(shards, parts, strict=True)), "write shards"):
        if not shard.exists():
            with replacing(shard) as temporary:
                _write(temporary, images, rows, words)
    sizes = {shard.name: len(rows) for shard, rows in zip(shards, parts, strict=True)}
    write_atomic(target / "sizes.json", json.dumps(sizes, indent=1))
    return shards


def _claim(target: Path, images: ImageTable, words: list[str], how: dict[str, Any]) -> None:
    """Say in `shards.json` what the folder is for, or refuse one that is for something else."""
    said = images.frame.astype(str).to_csv(index=False)
    facts = {
        "pictures": len(images),
        "source": images.source,
        "source_hash": images.fingerprint,
        **how,
        "hash": fingerprint(images.fingerprint, said, words, how),
    }
    kept = target / "shards.json"
    there = json.loads(kept.read_text()) if kept.is_file() else None
    if there is not None and there.get("hash") != facts["hash"]:
        raise OutputError(
            f"write shards to {target}",
            f"a folder that holds {there.get('pictures')} pictures of {there.get('source')}, packed"
            " from other rows or in another way",
            "an empty folder, or the one of an interrupted call",
            "choose another folder, or remove this one",
        )
    write_atomic(kept, json.dumps(facts, indent=1))


def _write(path: Path, images: ImageTable, rows: np.ndarray, words: list[str]) -> None:
    """One shard; the same rows give the same bytes, whenever they are written."""
    with tarfile.open(path, "w") as tar:
        for row in map(int, rows):
            suffix, data = _encoded(images, row)
            said = images.frame.iloc[row].to_dict()
            about = {k: _plain(v) for k, v in said.items() if k not in ("path", "caption")}
            about = {k: v for k, v in about.items() if k not in ("tar_offset", "tar_size", "item")}
            text = json.dumps({**about, "original": str(said["path"])})
            members = {suffix: data, ".txt": words[row].encode(), ".json": text.encode()}
            for kind, content in members.items():
                member = tarfile.TarInfo(f"{row:08d}{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _encoded(images: ImageTable, row: int) -> tuple[str, bytes]:
    """A picture as bytes: as it is stored where that will do, else as PNG."""
    if not images.preparations:
        path = Path(str(images.path.iloc[row]))
        if images.reader is None and path.suffix.lower() in AS_THEY_ARE:
            images.picture(row)  # what is broken is refused here, not by whoever trains
            return path.suffix.lower(), (images.root / path).read_bytes()
        if isinstance(images.reader, Stored):
            suffix, data = images.reader.stored(images.frame.iloc[row])
            if suffix in AS_THEY_ARE:
                return suffix, data
    buffer = io.BytesIO()
    images.picture(row).save(buffer, format="PNG", compress_level=1)
    return ".png", buffer.getvalue()


def _plain(value: Any) -> Any:
    """A number as JSON writes it; what is missing as nothing."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain
