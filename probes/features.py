"""From pictures to features: one pass over the data, one matrix per site, a row per picture."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.core.errors import (
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
    check_known,
    listed,
    out_of_memory,
)
from interp.core.images import ImageTable, Preprocess
from interp.core.model import Tower
from interp.core.progress import say, track
from interp.core.sites import find_sites

PIXELS = "pixels"
"""The site that stands for the raw picture: a floor under every tower."""

POOLS = ("mean", "class")


@dataclass(frozen=True)
class Features:
    """Pooled activations of pictures: `values[site]` is "picture feature", aligned with `frame`.

    `layers` and `depths` say where in the tower a site is (-1 and 0 for pixels).

    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": ["real", "real"]})
    >>> features = Features({"hook_embedding": np.eye(2, dtype=np.float32)}, frame)
    >>> features.rows(features.frame["label"] == "dog").values["hook_embedding"].tolist()
    [[0.0, 1.0]]
    """

    values: Mapping[str, np.ndarray]
    frame: pd.DataFrame
    layers: Mapping[str, int] = field(default_factory=dict)
    depths: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site, matrix in self.values.items():
            if matrix.ndim != 2 or len(matrix) != len(self.frame):
                raise ShapeError(
                    f"keep the features of {site}",
                    f"shape {matrix.shape}",
                    f"({len(self.frame)}, features), a row per picture",
                    "give one row for each row of the frame",
                )
            bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
            if len(bad):
                _refuse_nan(site, self.frame, int(bad[0]), len(bad))

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def sites(self) -> list[str]:
        """The sites, in the order they were collected in."""
        return list(self.values)

    @property
    def domains(self) -> list[str]:
        """The domains, sorted."""
        return sorted(self.frame["domain"].unique())

    def layer(self, site: str) -> int:
        """The block that computes a site; -1 where it is not known, as for pixels."""
        return self.layers.get(site, -1)

    def depth(self, site: str) -> float:
        """The place of a site in its tower, 0 to 1; 0 where it is not known, as for pixels."""
        return self.depths.get(site, 0.0)

    def rows(self, chosen: pd.Series | np.ndarray | Sequence[int]) -> "Features":
        """Some of the pictures, by mask or by row numbers."""
        keys = np.asarray(chosen)
        places = np.flatnonzero(keys) if keys.dtype == bool else keys
        values = {site: matrix[places] for site, matrix in self.values.items()}
        frame = self.frame.iloc[places].reset_index(drop=True)
        return replace(self, values=values, frame=frame)

    def only(self, sites: str | Iterable[str]) -> "Features":
        """Some of the sites, by name or pattern."""
        names = find_sites(sites, self.sites)
        return replace(self, values={site: self.values[site] for site in names})

    def joined(self, other: "Features") -> "Features":
        """These sites and those of `other`, measured on the same pictures (`pixels`, say)."""
        same = len(self) == len(other) and all(
            self.frame[name].astype(str).tolist() == other.frame[name].astype(str).tolist()
            for name in ("path", "label", "domain")
            if name in self.frame.columns and name in other.frame.columns
        )
        twice = set(self.values) & set(other.values)
        if not same or twice:
            raise ShapeError(
                "join features",
                f"the site {listed(sorted(twice))} twice" if same else "features of two tables",
                "other sites of the same pictures in the same order",
                "collect both from one image table",
            )
        return replace(
            self,
            values={**self.values, **other.values},
            layers={**self.layers, **other.layers},
            depths={**self.depths, **other.depths},
        )


def collect(
    tower: Tower,
    images: ImageTable,
    sites: str | Iterable[str],
    *,
    preprocess: Preprocess,
    pool: str = "mean",
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Features:
    """Run the pictures once through the tower and keep the pooled activations of all `sites`.

    A map ("batch channel row column") is averaged over rows and columns. Of tokens ("batch pos
    ...") `pool="mean"` takes the mean and `pool="class"` the first; a pattern is pooled over its
    queries. What is left is flattened: heads stand side by side. The tower runs no further than
    the last site asked for, on the device of its parameters unless `device` says otherwise. When
    memory runs out the batch is halved, and a line says so.

    Returns float32 "picture feature" per site. Raises `SiteError` for unknown sites,
    `NumericsError` naming site and picture for a NaN, `SampleError` for an empty table.

    >>> features = collect(clip.visual, images, "blocks.*.hook_resid_post",
    ...                    preprocess=clip.preprocess)  # doctest: +SKIP
    """
    if pool not in POOLS:
        raise SpecificationError(
            "pool features", f"pool={pool!r}", f"one of {listed(POOLS)}", "choose one of them"
        )
    _refuse_empty(images)
    names = find_sites(sites, list(tower.sites))
    last = max(tower.layer(name) for name in names) + 1
    stop = {"stop_at_layer": last} if last < tower.n_layers else {}
    like = _parameter(tower)
    target = torch.device(device) if device is not None else like.device

    def embed(batch: Tensor) -> dict[str, Tensor]:
        x = batch.to(target, like.dtype)
        with torch.no_grad():
            _, cache = tower.run_with_cache(x, names_filter=names, **stop)
        return {name: pooled(cache[name], tower.axes(name), pool) for name in names}

    values: dict[str, np.ndarray] = {}
    for rows, made in _runs(embed, images, preprocess, batch_size):
        _keep(values, made, rows, images)
    order = {name: place for place, name in enumerate(tower.sites)}
    return Features(
        values,
        images.frame.reset_index(drop=True),
        {name: tower.layer(name) for name in names},
        {name: order[name] / max(len(order) - 1, 1) for name in names},
        {"pool": pool, "source": images.source, "fingerprint": images.fingerprint},
    )


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
    values: dict[str, np.ndarray] = {}
    for rows, made in _runs(embed, images, preprocess, batch_size):
        _keep(values, made, rows, images)
    facts = {"source": images.source, "fingerprint": images.fingerprint}
    return Features(values, images.frame.reset_index(drop=True), {PIXELS: -1}, {PIXELS: 0.0}, facts)


def pooled(activation: Tensor, axes: tuple[str, ...], pool: str) -> Tensor:
    """An activation as "batch feature".

    >>> pooled(torch.ones(2, 3, 4, 4), ("batch", "channel", "row", "column"), "mean").shape
    torch.Size([2, 3])
    >>> pooled(torch.ones(2, 5, 3, 4), ("batch", "pos", "head", "d_head"), "class").shape
    torch.Size([2, 12])
    """
    if activation.ndim != len(axes):
        raise SiteError(
            "pool an activation",
            f"shape {tuple(activation.shape)}",
            f"the axes {listed(axes)}",
            "correct the tower's `axes`",
        )
    if axes[:1] != ("batch",):
        raise SiteError(
            "pool an activation",
            f"the axes {listed(axes)}",
            "a row per picture, so that `batch` comes first",
            "choose another site",
        )
    tokens = [place for place, axis in enumerate(axes) if axis in ("pos", "query")]
    space = [place for place, axis in enumerate(axes) if axis in ("row", "column")]
    if tokens and pool == "class":
        activation = activation.select(tokens[0], 0)
    elif tokens or space:
        activation = activation.mean(dim=tokens or space)
    return activation.flatten(1)


def _runs(
    embed: Any, images: ImageTable, preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[range, dict[str, Tensor]]]:
    """Batches of pictures, embedded; the batch is halved for good whenever memory runs out."""
    size = batch_size
    for start in track(range(0, len(images), batch_size), "activations"):
        batch = images.tensors(preprocess, range(start, min(start + batch_size, len(images))))
        done = 0
        while done < len(batch):
            try:
                made = embed(batch[done : done + size])
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
                size = max(1, min(size, len(batch)) // 2)
                say(f"out of memory: the batch is halved to {size}")
                continue
            yield range(start + done, start + min(done + size, len(batch))), made
            done += size


def _keep(
    values: dict[str, np.ndarray], made: Mapping[str, Tensor], rows: range, images: ImageTable
) -> None:
    """Write a batch into its rows, refusing a NaN at once rather than after the whole pass."""
    for site, tensor in made.items():
        part = tensor.detach().float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if len(bad):
            _refuse_nan(site, images.frame, rows.start + int(bad[0]), len(bad))
        if site not in values:
            values[site] = np.empty((len(images), part.shape[1]), dtype=np.float32)
        values[site][rows.start : rows.stop] = part


def _refuse_nan(site: str, frame: pd.DataFrame, row: int, count: int) -> None:
    name = frame["path"].iloc[row] if "path" in frame.columns else "?"
    raise NumericsError(
        f"read {site}",
        f"a NaN or infinity for picture {name} (row {row}; {count} pictures in this batch)",
        "finite activations",
        "check the checkpoint, or run in float32",
    )


def _refuse_empty(images: ImageTable) -> None:
    if not len(images):
        raise SampleError(
            "collect features", "no pictures", "at least one", "check the selection of pictures"
        )


def _parameter(tower: Any) -> Tensor:
    """A floating-point parameter whose device and dtype the pictures take."""
    parameters = tower.parameters() if hasattr(tower, "parameters") else ()
    return next((p for p in parameters if p.is_floating_point()), torch.empty(0))


def check_domains(features: Features, domains: Sequence[str] | None, asked: str) -> list[str]:
    """The domains asked for, or all; at least one, each of them there."""
    names = features.domains if domains is None else list(domains)
    check_known(asked, "domain", names, features.domains)
    return names


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
