"""Save the activations of many examples to disk, shard by shard, resuming where it stopped."""

import json
import os
import shutil
from collections.abc import Iterable
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from interp.core.errors import (
    NumericsError,
    OutputError,
    SampleError,
    ShapeError,
    SpecificationError,
    out_of_memory,
)
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say, track
from interp.core.store import fingerprint, writable, write_atomic
from interp.core.tower import Tower
from interp.models.caching.memory import Forecast, forecast, in_words
from interp.models.caching.selection import Keep, read
from interp.models.caching.stored import INDEX, VERSION, SavedActivations, read_index, shard_name


class TableRows:
    """The pictures of a table, a range of rows at a time."""

    def __init__(self, images: ImageTable, preprocess: Preprocess, like: Tensor) -> None:
        self.images, self.preprocess, self.like = images, preprocess, like
        self.n_rows: int | None = len(images)

    def take(self, start: int, stop: int) -> Tensor:
        """The rows from start to stop, fewer at the end."""
        rows = range(start, min(stop, len(self.images)))
        if not rows:
            return self.like.new_empty(0)
        return self.images.tensors(self.preprocess, rows).to(self.like)

    def describe(self) -> dict[str, Any]:
        """Which pictures these are."""
        images = self.images
        paths = fingerprint(str(images.root), [str(path) for path in images.path])
        return {"source": images.source, "fingerprint": images.fingerprint, "paths": paths}


class BatchRows:
    """The rows of an iterable of batches, cut anew; ranges must be asked for in order."""

    def __init__(self, batches: Iterable[Any], like: Tensor) -> None:
        self.n_rows: int | None = None
        if isinstance(batches, (list, tuple)):
            for batch in batches:
                _check_batch(batch)
            self.n_rows = sum(map(len, batches))
        self.batches, self.like = iter(batches), like
        self.first, self.held = 0, like.new_empty(0)

    def take(self, start: int, stop: int) -> Tensor:
        """The rows from start to stop, fewer at the end."""
        while True:
            gone = min(max(start - self.first, 0), len(self.held))
            self.first, self.held = self.first + gone, self.held[gone:]
            if self.first + len(self.held) >= stop:
                break
            batch = next(self.batches, None)
            if batch is None:
                break
            _check_batch(batch)
            self.held = torch.cat([self.held, batch]) if len(self.held) else batch
        here = self.held[: stop - start]
        return here.to(self.like) if here.is_floating_point() else here.to(self.like.device)

    def describe(self) -> dict[str, Any]:
        """What is known of them beside the first."""
        return {"source": "batches", "n_rows": self.n_rows}


Rows = TableRows | BatchRows


def _check_batch(batch: object) -> None:
    if not isinstance(batch, Tensor) or not batch.ndim:
        raise ShapeError(
            "read examples",
            f"a batch of type {type(batch).__name__}",
            "an image table, or an iterable of tensors whose first axis is the batch",
            "pass pictures or tokens as tensors",
        )


def open_examples(examples: Any, preprocess: Preprocess | None, tower: Any) -> Rows:
    """Examples by row, on the device and in the format of the tower's weights."""
    parameters = tower.parameters() if hasattr(tower, "parameters") else ()
    like = next((p for p in parameters if p.is_floating_point()), torch.empty(0)).detach()
    if isinstance(examples, ImageTable):
        if preprocess is None:
            raise SpecificationError(
                "read the pictures of an image table",
                "no preprocess",
                "what makes a tensor of a picture",
                "pass preprocess=clip.preprocess",
            )
        return TableRows(examples, preprocess, like)
    return BatchRows([examples] if isinstance(examples, Tensor) else examples, like)


def as_bytes(value: Tensor) -> Any:
    """A tensor's numbers as bytes, for a hash."""
    # by way of uint8, since numpy has no bfloat16
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def save_activations(
    tower: Tower,
    examples: ImageTable | Iterable[Any],
    folder: str | Path,
    keep: Keep,
    *,
    preprocess: Preprocess | None = None,
    batch_size: int = 256,
    shard_size: int = 2**28,
) -> SavedActivations:
    """Run a tower over an image table, or an iterable of batches, and write what is kept to disk.

    Shards of about `shard_size` bytes are written whole under a temporary name and then renamed;
    memory holds one of them. Interrupted and started again with the same arguments it goes on
    after the last complete shard, with the same batches, so the files are the same to the bit
    (give an iterable that starts at the beginning again). When memory runs out the batch is halved
    and a line says so; results may then differ in the last bits.

    `OutputError` if the disk is too small, which is known before the run for a table or a list, or
    if the folder holds activations of another tower, of other examples, or of another selection.
    `NumericsError` for a NaN.

    >>> saved = save_activations(clip.visual, images, "activations",  # doctest: +SKIP
    ...                          Keep("blocks.*.hook_resid_post", pos=0, dtype=torch.float16),
    ...                          preprocess=clip.preprocess)
    """
    if batch_size < 1 or shard_size < 1:
        raise SpecificationError(
            "save activations",
            f"batch_size {batch_size} and shard_size {shard_size}",
            "at least 1 example and 1 byte",
            "raise them",
        )
    source = open_examples(examples, preprocess, tower)
    example = source.take(0, 1)
    if not len(example):
        raise SampleError(
            "save activations", "no examples", "at least one", "check the selection of examples"
        )
    one = forecast(tower, example, keep)
    identity = {
        "tower": describe_tower(tower),
        # the first example, for what its preprocessing makes of it
        "examples": {**source.describe(), "first": blake2b(as_bytes(example)).hexdigest()[:16]},
        "selection": keep.describe(),
    }
    target = writable(Path(folder), purpose="activations")
    for left_over in target.glob("activations-*.part-*"):  # of a run that was killed
        left_over.unlink()
    index = _start(target, tower, identity, one, rows=max(1, shard_size // one.total))
    if not index["finished"]:
        _write_shards(target, index, tower, source, keep, one=one, batch_size=batch_size)
    return SavedActivations(target)


def _write_shards(
    folder: Path,
    index: dict[str, Any],
    tower: Tower,
    source: Rows,
    keep: Keep,
    *,
    one: Forecast,
    batch_size: int,
) -> None:
    rows, done, size = index["rows_per_shard"], _done(index), batch_size
    left = None if source.n_rows is None else source.n_rows - done
    if left is not None:
        _check_room(folder, one, rows=left)
        say(f"saving {left} examples of {one.tower}, {in_words(left * one.total)}, in {folder}")
    total = None if left is None else -(-left // rows)
    for number in track(count(len(index["shards"])), "save activations", total):
        kept: list[dict[str, Tensor]] = []
        stop = done + rows
        for start in range(done, stop, batch_size):
            x = source.take(start, min(start + batch_size, stop))
            if not len(x):
                break
            parts, size = _read_in_parts(tower, x, keep, size)
            kept += parts
        shard = _joined(kept)
        found = len(next(iter(shard.values()))) if shard else 0
        if found:
            _check_room(folder, one, rows=found)
            size_on_disk = _write(folder, number, shard)
            index["shards"].append({"rows": found, "bytes": size_on_disk})
        done += found
        index["finished"] = found < rows or done == source.n_rows
        write_atomic(folder / INDEX, json.dumps(index, indent=1))
        if index["finished"]:
            return


def _read_in_parts(
    tower: Tower, x: Tensor, keep: Keep, size: int
) -> tuple[list[dict[str, Tensor]], int]:
    """What is kept of a batch, in parts of at most `size`; halved for good when memory runs out."""
    parts: list[dict[str, Tensor]] = []
    done = 0
    while done < len(x):
        try:
            made = read(tower, x[done : done + size], keep)
            parts.append({site: value.cpu() for site, value in made.items()})
        except (MemoryError, RuntimeError) as error:
            size = min(size, len(x) - done)
            if size == 1 or not out_of_memory(error):
                raise
            size //= 2
            say(f"out of memory: the batch is halved to {size}")
        else:
            done += size
    return parts, size


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The parts of a shard end to end, refusing a NaN."""
    shard = {site: torch.cat([part[site] for part in parts]) for site in (parts or [{}])[0]}
    for site, value in shard.items():
        if value.isnan().any():
            rows = value.isnan().flatten(1).any(dim=1).nonzero()[:, 0]
            raise NumericsError(
                f"save {site}",
                f"NaN in {len(rows)} of the shard's {len(value)} examples, the first its {rows[0]}",
                "numbers",
                "check the weights and the pictures, or run in float32",
            )
    return shard


def _write(folder: Path, number: int, shard: dict[str, Tensor]) -> int:
    """Write a shard under a temporary name, rename it, and return its size in bytes."""
    path = folder / shard_name(number)
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        save_file({site: value.contiguous() for site, value in shard.items()}, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"write {path}", str(error), "room for the shard", "make room and start again to go on"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path.stat().st_size


def _done(index: dict[str, Any]) -> int:
    return sum(shard["rows"] for shard in index["shards"])


def _check_room(folder: Path, one: Forecast, *, rows: int) -> None:
    """Refuse at once what the disk cannot hold."""
    needed, free = rows * one.total, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"save the activations of {rows} examples in {folder}",
            f"{in_words(free)} free",
            f"{in_words(needed)}, {in_words(one.total)} for each",
            "keep fewer sites, positions or heads, keep them as float16, or make room",
        )


def _start(
    folder: Path, tower: Tower, identity: dict[str, Any], one: Forecast, *, rows: int
) -> dict[str, Any]:
    """The index of a folder: the one that is there if it is of the same run, else a new one."""
    if (folder / INDEX).exists():
        index = read_index(folder)
        # what came through JSON has lists for tuples
        same = json.loads(json.dumps(identity))
        other = [name for name in same if same[name] != index["identity"].get(name)]
        if other:
            raise OutputError(
                f"save activations in {folder}",
                f"a folder that holds those of another {' and '.join(other)}",
                "an empty folder, or the one where this run was interrupted",
                "choose another folder, or delete this one",
            )
        return index
    sites = {
        site: {"axes": tower.axes(site), "shape": one.shapes[site][1:], "dtype": one.dtypes[site]}
        for site in one.shapes
    }
    return {
        "version": VERSION,
        "finished": False,
        "identity": identity,
        "rows_per_shard": rows,
        "sites": sites,
        "shards": [],
    }


def describe_tower(tower: Any) -> dict[str, str]:
    """The kind of a tower and a hash of all its weights.

    >>> describe_tower(torch.nn.Linear(1, 1))["kind"]
    'Linear'
    """
    source = type(getattr(tower, "source", None)).__name__
    kind = type(tower).__name__ + (f" of {source}" if source != "NoneType" else "")
    digest = blake2b(digest_size=8)
    state = tower.state_dict() if hasattr(tower, "state_dict") else {}
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(as_bytes(value))
    return {"kind": kind, "weights": digest.hexdigest()}
