"""Examples by row, from an image table or from batches: what a long run reads, and resumes in."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import ShapeError, SpecificationError
from interp.core.images import ImageTable, Preprocess
from interp.core.store import fingerprint


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
