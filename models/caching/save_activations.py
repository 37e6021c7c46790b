"""Save the activations of many examples to disk, shard by shard, resuming where it stopped."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import NumericsError, SampleError, ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.parallel import Batching, batches
from interp.core.progress import say, track
from interp.core.storage.activations import ActivationWriter, begin_activations
from interp.core.storage.store import check_room, fingerprint, in_words, tensor_bytes
from interp.core.tower import Tower
from interp.models.caching.keep import Forecast, Keep, forecast, read
from interp.models.caching.saved_activations import SavedActivations, as_array, refuse_shards


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

    def describe(self) -> dict[str, object]:
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

    def describe(self) -> dict[str, object]:
        """What is known of them beside the first."""
        return {"source": "batches", "n_rows": self.n_rows}


Rows = TableRows | BatchRows


def _check_batch(batch: object) -> None:
    if not isinstance(batch, Tensor) or not batch.ndim:
        given = f"a batch of type {type(batch).__name__}"
        right = "an image table, or an iterable of tensors whose first axis is the batch"
        raise ShapeError("read examples", given, right, "pass pictures or tokens as tensors")


def open_examples(examples: Any, preprocess: Preprocess | None, tower: object) -> Rows:
    """Examples by row, on the device and in the format of the tower's weights."""
    parameters = getattr(tower, "parameters", tuple)()
    like = next((p for p in parameters if p.is_floating_point()), torch.empty(0)).detach()
    if isinstance(examples, ImageTable):
        if preprocess is None:
            asked = "read the pictures of an image table"
            do = "pass preprocess=clip.preprocess"
            raise SpecificationError(asked, "no preprocess", "what makes a tensor of a picture", do)
        return TableRows(examples, preprocess, like)
    return BatchRows([examples] if isinstance(examples, Tensor) else examples, like)


@door
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
    """Run a tower over examples and write what is kept to disk.

    Args:
        tower: The tower.
        examples: An image table, a tensor, or an iterable of batches.
        folder: The folder to write; one that was interrupted is continued.
        keep: What to keep of each run.
        preprocess: From a picture to the tower's input; needed for an image table.
        batch_size: Examples in a forward.
        shard_size: Bytes held in memory before they are written, about.

    Returns:
        The activations.

    Raises:
        OutputError: If the disk is too small, which is known before the run for a table or a list,
            or if the folder holds activations of another tower, of other examples, or of another
            selection.
        SpecificationError: For an image table without `preprocess`, or sizes below 1.
        SampleError: For no examples.
        NumericsError: For NaN, or numbers that are infinite in the kept format.

    Notes:
        Stretches of rows of about `shard_size` bytes are written into one file per site.
        Interrupted and started again with the same arguments, the run goes on after the last
        complete stretch, with the same batches, so the files are the same to the bit. (Give an
        iterable that starts at the beginning again.) When memory runs out the batch is halved and a
        line says so; results may then differ in the last bits.

    >>> import open_clip, tempfile
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> tower, x = open_tower(model, "visual"), torch.zeros(3, 3, 64, 64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = save_activations(tower, x, folder, Keep("blocks.*.hook_resid_post", pos=0))
    ...     saved["blocks.3.hook_resid_post"].shape
    (3, 1, 384)
    """
    source = open_examples(examples, preprocess, tower)
    example = source.take(0, 1)
    if not len(example):
        raise SampleError(
            "save activations", "no examples", "at least one", "check the selection of examples"
        )
    one = forecast(tower, example, keep)
    sites = {
        site: {"axes": tower.axes(site), "shape": shape[1:], "dtype": one.dtypes[site]}
        for site, shape in one.shapes.items()
    }
    identity = {
        "tower": describe_tower(tower),
        # the first example, for what its preprocessing makes of it
        "examples": {**source.describe(), "first": blake2b(tensor_bytes(example)).hexdigest()[:16]},
        "selection": keep.describe(),
    }
    target = Path(folder)
    refuse_shards(target)
    begin_activations(target, sites, identity, source.n_rows)
    writer = ActivationWriter(target)
    if not writer.finished:
        shards = _shards(writer, source, one, rows=max(1, shard_size // one.total))
        with closing(writer):
            _write(shards, writer, tower, source, keep, batch_size=batch_size)
        writer.finish(source.n_rows or writer.reach())
    return SavedActivations(target)


def _shards(writer: ActivationWriter, source: Rows, one: Forecast, *, rows: int) -> Iterator[range]:
    """The stretches of rows that are still to be written, without end where nobody knows it."""
    reach = writer.reach() if source.n_rows is None else source.n_rows
    waiting = writer.missing(range(reach))
    total = None
    if source.n_rows is None:
        waiting.append(range(reach, sys.maxsize))
    else:
        left = sum(map(len, waiting))
        check_room(writer.folder, left, one.total)
        said = f"saving {left} examples of {one.tower}, {in_words(left * one.total)}"
        say(f"{said}, in {writer.folder}")
        total = sum(-(-len(stretch) // rows) for stretch in waiting)
    pieces = (stretch[part] for stretch in waiting for part in batches(len(stretch), rows))
    return track(pieces, "save activations", total)


def _write(
    shards: Iterable[range],
    writer: ActivationWriter,
    tower: Tower,
    source: Rows,
    keep: Keep,
    *,
    batch_size: int,
) -> None:
    """Read the shards and write them, as far as there are examples."""
    halved = Batching(batch_size)

    def parts(start: int, stop: int) -> Iterator[dict[str, Tensor]]:
        x = source.take(start, stop)
        for _, made in halved.through(len(x), lambda rows: [read(tower, x[rows], keep)]):
            yield {site: value.cpu() for site, value in made.items()}

    for shard in shards:
        pieces = [shard[part] for part in batches(len(shard), batch_size)]
        values = _joined([part for rows in pieces for part in parts(rows.start, rows.stop)])
        found = len(next(iter(values.values()), ()))
        if found:
            writer.write(shard[:found], {site: as_array(value) for site, value in values.items()})
        if found < len(shard):
            return


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


def describe_tower(tower: object) -> dict[str, str]:
    """The kind of a tower and a hash of all its weights.

    >>> describe_tower(torch.nn.Linear(1, 1))["kind"]
    'Linear'
    """
    source = type(getattr(tower, "source", None)).__name__
    kind = type(tower).__name__ + (f" of {source}" if source != "NoneType" else "")
    digest = blake2b(digest_size=8)
    state = getattr(tower, "state_dict", dict)()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(tensor_bytes(value))
    return {"kind": kind, "weights": digest.hexdigest()}
