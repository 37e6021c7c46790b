"""Collecting features: one pass of the pictures through a tower, for all sites at once.

`collect` keeps the pooled activations, in memory or on disk. `batches` yields them and keeps none,
for statistics that are sums.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.parallel import fail_together, gathered, once, this_rank
from interp.core.progress import say
from interp.core.storage.activations import (
    FACTS,
    ActivationWriter,
    StoredActivations,
    begin_activations,
)
from interp.core.storage.store import fingerprint, weights_hash
from interp.core.tower import Tower, check_evaluation
from interp.probes.features.features import PIXELS, Features
from interp.probes.features.pooling import Reading, Values, read_from, reading_runs


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


def _configuration(tower: Tower) -> dict[str, str]:
    """What the tower says of itself beside its weights, less where it is."""
    facts = getattr(getattr(tower, "cfg", None), "__dict__", {})
    return {name: str(facts[name]) for name in sorted(facts) if "device" not in name}


def _files(images: ImageTable) -> list[tuple[int, int]]:
    """Size and time of each file, for pictures that nobody has taken a fingerprint of."""
    if images.fingerprint or images.reader is not None:
        return []
    stats = [(images.root / str(path)).stat() for path in images.frame["path"]]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


@door
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
    """Run the pictures once through a tower and keep the pooled activations of all sites.

    Args:
        tower: The tower.
        images: The pictures.
        sites: Names or patterns of sites, such as "blocks.*.hook_resid_post".
        preprocess: From a picture to the tower's input, such as "channel row column".
        pool: How tokens become one vector: `mean`, `class`, `space`, `attention` or `token`;
            `POOLS` says what each keeps. Attention heads stand side by side.
        batch_size: Pictures per forward. The batch is halved when memory runs out, and a line says
            so.
        device: Where the tower runs; None takes the device of its parameters.
        folder: Folder under which the matrices are stored and mapped into memory; None keeps them
            in memory.

    Returns:
        Features in float32, "picture feature" per site.

    Raises:
        SiteError: For a site that the tower does not have.
        SpecificationError: For an unknown pool, a tower whose batch norm or dropout is in training
            mode, or matrices that do not fit in memory.
        SampleError: For no pictures.
        NumericsError: For a NaN or infinity, naming site and picture.
        OutputError: For a folder that cannot be written, or a disk that is full.
        DataError: For stored values that this tower does not give.

    Notes:
        - The tower runs no further than the last site asked for. One picture is run first, and the
          cost of all is printed.
        - Stored matrices lie in a folder named by a hash of the tower's weights and configuration,
          the pictures, preprocess, sites, pool and dtype, so another model gets another folder. A
          pass that was interrupted continues; a finished one is opened. In both cases the first
          picture is run again and must give the stored values.
        - Under torchrun, or wherever `torch.distributed` is initialised, every rank runs its share
          of the pictures and returns the features of all.

    >>> import pandas as pd
    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["cat", "dog"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (2, 2), (0, 255, 255)))
    >>> features = collect(
    ...     Chain([torch.nn.Identity()]), images, "blocks.*.hook_resid_post",
    ...     preprocess=lambda picture: torch.tensor(np.array(picture) / 255).flatten(0, 1))
    >>> features.sites, features.values["blocks.0.hook_resid_post"].tolist()
    (['blocks.0.hook_resid_post'], [[0.0, 2.0, 2.0], [0.0, 2.0, 2.0]])
    """
    _refuse_empty(images)
    check_evaluation(tower, "collect features")
    reading = read_from(tower, sites, pool, device)
    _, first = next(reading_runs(reading, images, preprocess, 1, [range(1)]))
    one = _Pass(reading, images, preprocess, batch_size, first)
    values = _in_memory(one) if folder is None else _on_disk(one, Path(folder))
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
    """Yield the pooled activations of one batch of pictures after another, without keeping any.

    Args:
        tower: The tower.
        images: The pictures.
        sites: Names or patterns of sites, such as "blocks.*.hook_resid_post".
        preprocess: From a picture to the tower's input, such as "channel row column".
        pool: How tokens become one vector, one of `POOLS`.
        batch_size: Pictures per forward. The batch is halved when memory runs out, and a line says
            so.
        device: Where the tower runs; None takes the device of its parameters.

    Returns:
        An iterator of row numbers and their values "picture feature" per site, in float32.

    Raises:
        SiteError: For a site that the tower does not have.
        SpecificationError: For an unknown pool.
        SampleError: For no pictures.
        NumericsError: For a NaN or infinity, naming site and picture.

    Notes:
        Memory does not grow with the number of pictures. Where `torch.distributed` is initialised,
        each rank gets its own share of the rows; `interp.core.parallel.summed` adds up what they
        find.

    >>> import pandas as pd
    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> frame = pd.DataFrame({"path": list("abc"), "label": "cat", "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (2, 2), (0, 255, 255)))
    >>> total = np.zeros(3)
    >>> for rows, values in batches(
    ...         Chain([torch.nn.Identity()]), images, "hook_embedding", batch_size=2,
    ...         preprocess=lambda picture: torch.tensor(np.array(picture) / 255).flatten(0, 1)):
    ...     total += values["hook_embedding"].sum(axis=0)
    >>> total.tolist()
    [0.0, 6.0, 6.0]
    """
    _refuse_empty(images)
    reading = read_from(tower, sites, pool, device)
    share = this_rank().share(len(images))
    return reading_runs(reading, images, preprocess, batch_size, [share])


@door
def pixels(
    images: ImageTable, preprocess: Preprocess, *, batch_size: int = 256, side: int = 64
) -> Features:
    """Take the pictures as features of a site called "pixels", a floor under every tower.

    Args:
        images: The pictures.
        preprocess: From a picture to "channel row column".
        batch_size: Pictures that are read at a time.
        side: Largest height and width in pixels; larger pictures are averaged down to it.

    Returns:
        The preprocessed values, "picture channel*row*column" in float32.

    Raises:
        SampleError: For no pictures.
        NumericsError: For a NaN or infinity, naming the picture.

    >>> import pandas as pd
    >>> from PIL import Image
    >>> frame = pd.DataFrame({"path": ["a"], "label": "cat", "domain": "real", "split": "test",
    ...                       "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (8, 8)))
    >>> floor = pixels(images, lambda picture: torch.tensor(np.array(picture)).movedim(2, 0) / 255,
    ...                side=4)
    >>> floor.values["pixels"].shape
    (1, 48)
    """

    def embed(batch: Tensor) -> dict[str, Tensor]:
        height, width = (min(side, length) for length in batch.shape[-2:])
        small = torch.nn.functional.adaptive_avg_pool2d(batch, (height, width))
        return {PIXELS: small.flatten(1)}

    _refuse_empty(images)
    made = reading_runs(embed, images, preprocess, batch_size, [range(len(images))])
    matrix = np.concatenate([values[PIXELS] for _, values in made])
    facts = {"source": images.source, "fingerprint": images.fingerprint}
    frame = images.frame.reset_index(drop=True)
    return Features({PIXELS: matrix}, frame, {PIXELS: -1}, {PIXELS: 0.0}, facts)


@dataclass(frozen=True)
class _Pass:
    """One pass of a tower over pictures, the first of which has been run."""

    reading: Reading
    images: ImageTable
    preprocess: Preprocess
    batch_size: int
    first: Values

    @cached_property
    def share(self) -> range:
        """The pictures that this rank runs."""
        return this_rank().share(len(self.images))

    @cached_property
    def widths(self) -> dict[str, int]:
        """How many numbers a picture has at each site."""
        return {site: row.shape[1] for site, row in self.first.items()}

    @property
    def gigabytes(self) -> str:
        """What the values of all pictures take, in words."""
        return f"{4e-9 * len(self.images) * sum(self.widths.values()):.3g} GB"

    def say_cost(self, n: int, where: str) -> None:
        """Say what `n` pictures cost before they are run; one batch is over before that is read."""
        if n > self.batch_size:
            say(
                f"activations: {n} pictures, {-(-n // self.batch_size)} forwards of "
                f"{self.batch_size}, {len(self.widths)} sites, {self.gigabytes} {where}"
            )

    def run(self, stretches: Iterable[range], keep: Callable[[range, Values], None]) -> None:
        """Hand the values of these rows to `keep`; what fails on one rank is raised on all."""
        failure = None
        try:
            for rows, values in reading_runs(
                self.reading, self.images, self.preprocess, self.batch_size, stretches
            ):
                keep(rows, values)
        except Exception as error:
            failure = error
        fail_together(failure)


def _in_memory(one: _Pass) -> Values:
    """The matrices of all pictures; every rank runs its share and is handed the others'."""
    n, share = len(one.images), one.share
    one.say_cost(len(share), "in memory")
    try:
        matrices = {site: np.empty((n, width), np.float32) for site, width in one.widths.items()}
    except MemoryError:
        given = f"{one.gigabytes} of them"
        right = "less than there is"
        do = "pass folder=... or choose fewer sites"
        raise SpecificationError("keep activations in memory", given, right, do) from None

    def keep(rows: range, values: Values) -> None:
        for site, matrix in values.items():
            matrices[site][rows.start : rows.stop] = matrix

    one.run([share], keep)
    if len(share) < n:
        for matrix in matrices.values():  # site by site, so that little is held twice
            np.concatenate(gathered(matrix[share.start : share.stop]), out=matrix)
    return matrices


def _on_disk(one: _Pass, folder: Path) -> Values:
    """The same matrices as files: those rows are run that are not there yet."""
    identity = pass_identity(one.reading, one.images, one.preprocess)
    final = folder / f"features-{fingerprint(identity)}"
    if (final / FACTS).is_file():
        _check_same(StoredActivations(final), one)
        return StoredActivations(final).matrices()
    part, n, share = final.with_name(f"{final.name}.part"), len(one.images), one.share
    once(lambda: _begin(part, one.widths, identity, n))  # nobody writes before the files are there
    with closing(ActivationWriter(part, place=this_rank().place)) as writer:
        _check_same(writer, one)
        waiting = writer.missing(share)
        there = len(share) - sum(map(len, waiting))
        if there:
            say(f"activations: {there} of {len(share)} pictures are there already")
        one.say_cost(len(share) - there, f"in {final}")
        one.run(waiting, writer.write)
    gathered(None)  # until all have closed their files

    def publish() -> None:  # in place of a folder without facts
        writer.finish(n)
        shutil.rmtree(final, ignore_errors=True)
        writer.folder.rename(final)

    once(publish)
    return StoredActivations(final).matrices()


def _begin(part: Path, widths: Mapping[str, int], identity: Mapping[str, object], n: int) -> None:
    """Begin a pass, or go on with one; where its facts do not read, it is not ours to trust."""
    sites = {site: {"shape": [width], "dtype": "float32"} for site, width in widths.items()}
    try:
        begin_activations(part, sites, identity, n)
    except DataError:
        shutil.rmtree(part)
        begin_activations(part, sites, identity, n)


def _check_same(stored: StoredActivations, one: _Pass) -> None:
    """Refuse a pass whose first picture has other values than it has now.

    The hashes cannot know all (an activation function leaves no weights); this knows.
    """
    if stored.missing(range(1)):
        return
    tolerance = 1e-3 if one.reading.dtype in (torch.float32, torch.float64) else 0.1
    for site, matrix in stored.matrices().items():
        value = one.first[site][0]
        largest = max(float(np.abs(value).max(initial=0)), 1e-30)
        off = float(np.abs(matrix[0] - value).max(initial=0)) / largest
        if off > tolerance:
            raise DataError(
                f"use the activations stored in {stored.folder.parent}",
                f"numbers at {site} that differ by {off:.1%} from this tower's for one picture",
                "the same tower, pictures and preprocess",
                f"delete {stored.folder.name} there, or choose another folder",
            )


def _refuse_empty(images: ImageTable) -> None:
    if not len(images):
        raise SampleError(
            "collect features", "no pictures", "at least one", "check the selection of pictures"
        )
