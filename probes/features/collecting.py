"""From pictures to features: one pass over the data for all sites, kept, stored or only passed on.

`collect` keeps the pooled activations in memory or on disk; `batches` hands them on and keeps none,
for statistics that are sums.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.images import ImageTable, Preprocess
from interp.core.parallel import fail_together, gathered, this_rank
from interp.core.progress import say
from interp.core.store import fingerprint, weights_hash
from interp.core.tower import Tower
from interp.probes.features.matrices import PIXELS, Features
from interp.probes.features.reading import (
    Reading,
    Values,
    checked,
    read_from,
    reading_runs,
    refuse_values,
)
from interp.probes.features.storing import StoredPass


def pass_identity(
    reading: Reading, images: ImageTable, preprocess: Preprocess
) -> dict[str, str | list[str]]:
    """Hashes of all that the numbers depend on."""
    picture = preprocess(images.picture(0)).detach().cpu().float().contiguous().numpy()
    return {
        "weights": weights_hash(reading.tower, asked="store activations", leave_out="folder"),
        "configuration": fingerprint(
            type(reading.tower).__name__, list(reading.tower.sites), _configuration(reading.tower)
        ),
        "pictures": fingerprint(
            images.source, images.fingerprint, images.frame["path"].tolist(), _files(images)
        ),
        "preprocess": blake2b(picture.data, digest_size=8).hexdigest(),
        "names": reading.names,
        "pool": reading.pool,
        "dtype": str(reading.dtype),
    }


def _configuration(tower: Any) -> dict[str, str]:
    """What the tower says of itself beside its weights, less where it is."""
    said = vars(tower.cfg) if hasattr(tower, "cfg") and hasattr(tower.cfg, "__dict__") else {}
    return {name: str(said[name]) for name in sorted(said) if "device" not in name}


def _files(images: ImageTable) -> list[tuple[int, int]]:
    """Size and time of each file, for pictures that nobody has taken a fingerprint of."""
    if images.fingerprint or images.reader is not None:
        return []
    stats = [(images.root / str(path)).stat() for path in images.frame["path"]]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def collect(
    tower: Tower,
    images: ImageTable,
    sites: str | Iterable[str],
    *,
    preprocess: Preprocess,
    pool: str = "mean",
    batch_size: int = 256,
    device: str | torch.device | None = None,
    folder: str | Path | None = None,
) -> Features:
    """Run the pictures once through the tower and keep the pooled activations of all `sites`.

    `pool` is one of `mean`, `class`, `space`, `attention` and `token`; `interp.probes.POOLS` says
    what each keeps. Heads stand side by side. The tower runs no further than the last site asked
    for, on the device of its parameters unless `device` says otherwise. When memory runs out the
    batch is halved, and a line says so. One picture is run first, and the cost of all is said.

    With `folder` the matrices are files there, mapped into memory, in a folder named by a hash of
    the tower's weights and configuration, pictures, preprocess, sites, pool and dtype: another
    model gets another. A pass that was stopped goes on where it was stopped; a finished one is
    opened. In either case the first picture is run again and must give the stored numbers.

    Under torchrun, or wherever `torch.distributed` is initialised, every rank runs its share of the
    pictures and returns the features of all.

    Returns float32 "picture feature" per site. Raises `SiteError` for unknown sites,
    `NumericsError` naming site and picture for a NaN, `SampleError` for an empty table,
    `OutputError` for a folder that cannot be written or a disk that is full, `DataError` for
    stored numbers that this tower does not give.

    >>> features = collect(clip.visual, images, "blocks.*.hook_resid_post",
    ...                    preprocess=clip.preprocess)  # doctest: +SKIP
    """
    _refuse_empty(images)
    reading = read_from(tower, sites, pool, device)
    first = next(iter(reading_runs(reading, images, preprocess, 1, [range(1)])))[1]
    refuse_values(first, images, 0)
    widths = {site: row.shape[1] for site, row in first.items()}
    share = this_rank().share(len(images))
    if folder is None:
        _say_cost(images, share, batch_size, widths, "in memory")
        values = _in_memory(reading, images, preprocess, batch_size, widths, share)
    else:
        values = _on_disk(
            reading, images, preprocess, batch_size, widths, share, Path(folder), first
        )
    order = {name: place for place, name in enumerate(tower.sites)}
    return Features(
        values,
        images.frame.reset_index(drop=True),
        {name: tower.layer(name) for name in reading.names},
        {name: order[name] / max(len(order) - 1, 1) for name in reading.names},
        {"pool": pool, "source": images.source, "fingerprint": images.fingerprint},
        reading.shapes if pool == "token" else {},
    )


def batches(
    tower: Tower,
    images: ImageTable,
    sites: str | Iterable[str],
    *,
    preprocess: Preprocess,
    pool: str = "mean",
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Iterator[tuple[range, Values]]:
    """The rows and pooled activations of one batch after another; nothing is kept.

    As `collect`, but memory does not grow with the number of pictures. Of several ranks each gets
    its own share of the rows (`interp.core.parallel.summed` adds what they find).

    >>> total = 0.0
    >>> for rows, values in batches(clip.visual, images, "hook_embedding",
    ...                             preprocess=clip.preprocess):  # doctest: +SKIP
    ...     total += values["hook_embedding"].sum()
    """
    _refuse_empty(images)
    reading = read_from(tower, sites, pool, device)
    share = this_rank().share(len(images))
    return checked(reading_runs(reading, images, preprocess, batch_size, [share]), images)


def pixels(
    images: ImageTable, preprocess: Preprocess, *, batch_size: int = 256, side: int = 64
) -> Features:
    """The pictures themselves as features of a site called "pixels": the floor under a tower.

    Preprocessed values, "picture channel*row*column"; pictures larger than `side` are averaged
    down to it first.

    >>> floor = pixels(images, clip.preprocess)  # doctest: +SKIP
    """

    def embed(batch: Tensor) -> dict[str, Tensor]:
        height, width = (min(side, length) for length in batch.shape[-2:])
        small = torch.nn.functional.adaptive_avg_pool2d(batch, (height, width))
        return {PIXELS: small.flatten(1)}

    _refuse_empty(images)
    made = reading_runs(embed, images, preprocess, batch_size, [range(len(images))])
    matrix = np.concatenate([values[PIXELS] for _, values in checked(made, images)])
    facts = {"source": images.source, "fingerprint": images.fingerprint}
    frame = images.frame.reset_index(drop=True)
    return Features({PIXELS: matrix}, frame, {PIXELS: -1}, {PIXELS: 0.0}, facts)


def as_features(
    source: Tower | Features,
    images: ImageTable | None,
    sites: str | Iterable[str] | None,
    *,
    preprocess: Preprocess | None,
    pool: str,
    batch_size: int,
    device: str | torch.device | None,
) -> Features:
    """Features as they are (some of their sites), or collected from a tower in one pass."""
    if isinstance(source, Features):
        if images is not None:
            raise SpecificationError(
                "measure features",
                "features and an image table",
                "features alone, or a tower with an image table",
                "leave the images out",
            )
        return source if sites is None else source.only(sites)
    if images is None or sites is None or preprocess is None:
        raise SpecificationError(
            "measure a tower",
            "a tower without images, sites or preprocess",
            "all three",
            "pass images, sites and preprocess=...",
        )
    return collect(
        source, images, sites, preprocess=preprocess, pool=pool, batch_size=batch_size,
        device=device,
    )  # fmt: skip


def _in_memory(
    reading: Reading,
    images: ImageTable,
    preprocess: Preprocess,
    batch_size: int,
    widths: Mapping[str, int],
    share: range,
) -> Values:
    """The matrices of all pictures; every rank runs its share and is handed the others'."""
    try:
        values = {
            site: np.empty((len(images), width), np.float32) for site, width in widths.items()
        }
    except MemoryError:
        raise SpecificationError(
            "keep activations in memory",
            f"{_gigabytes(len(images), widths)} of them",
            "less than there is",
            "pass folder=... or choose fewer sites",
        ) from None
    failure = None
    try:
        made = reading_runs(reading, images, preprocess, batch_size, [share])
        for rows, part in checked(made, images):
            for site, matrix in part.items():
                values[site][rows.start : rows.stop] = matrix
    except Exception as error:
        failure = error
    fail_together(failure)
    if len(share) < len(images):
        for matrix in values.values():  # site by site, so that little is held twice
            np.concatenate(gathered(matrix[share.start : share.stop]), out=matrix)
    return values


def _on_disk(
    reading: Reading,
    images: ImageTable,
    preprocess: Preprocess,
    batch_size: int,
    widths: Mapping[str, int],
    share: range,
    folder: Path,
    first: Values,
) -> Values:
    """The same matrices as files: those rows are run that are not there yet."""
    facts = pass_identity(reading, images, preprocess)
    stored = StoredPass(folder, f"features-{fingerprint(facts)}", len(images), widths, facts)
    _check_same(stored, first, reading.dtype)
    waiting = stored.missing(share)
    if not stored.complete:
        count = sum(map(len, waiting))
        if count < len(share):
            say(f"activations: {len(share) - count} of {len(share)} pictures are there already")
        _say_cost(images, range(count), batch_size, widths, f"in {stored.final}")
    failure = None
    try:
        made = reading_runs(reading, images, preprocess, batch_size, waiting)
        for rows, part in checked(made, images):
            stored.write(rows, part)
    except Exception as error:
        failure = error
    finally:
        stored.close()
    fail_together(failure)
    stored.finish()
    return stored.values()


def _check_same(stored: StoredPass, first: Values, dtype: torch.dtype) -> None:
    """Refuse a pass whose first picture has other values than it has now.

    The hashes cannot know all (an activation function leaves no weights); this knows.
    """
    kept = stored.row(0) or {}
    tolerance = 1e-3 if dtype in (torch.float32, torch.float64) else 0.1
    for site, old in kept.items():
        value = first[site][0]
        largest = max(float(np.abs(value).max(initial=0)), 1e-30)
        off = float(np.abs(old - value).max(initial=0)) / largest
        if off > tolerance:
            raise DataError(
                f"use the activations stored in {stored.final.parent}",
                f"numbers at {site} that differ by {off:.1%} from this tower's for one picture",
                "the same tower, pictures and preprocess",
                f"delete {stored.final.name} there, or choose another folder",
            )


def _say_cost(
    images: ImageTable, rows: range, batch_size: int, widths: Mapping[str, int], where: str
) -> None:
    """Say a pass's cost before it begins; a pass of one batch is over before that is read."""
    if len(rows) > batch_size:
        say(
            f"activations: {len(rows)} pictures, {-(-len(rows) // batch_size)} forwards of "
            f"{batch_size}, {len(widths)} sites, {_gigabytes(len(images), widths)} {where}"
        )


def _gigabytes(n: int, widths: Mapping[str, int]) -> str:
    return f"{4e-9 * n * sum(widths.values()):.3g} GB"


def _refuse_empty(images: ImageTable) -> None:
    if not len(images):
        raise SampleError(
            "collect features", "no pictures", "at least one", "check the selection of pictures"
        )
