"""Features: one matrix per site with a row per picture, and the table that describes the rows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from interp.core.errors import (
    DataError,
    NumericsError,
    SampleError,
    ShapeError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import door
from interp.core.sites import find_sites
from interp.core.storage.store import complete

PIXELS = "pixels"
"""The site that stands for the raw picture: a floor under every tower."""


@runtime_checkable
class Code(Protocol):
    """Features of activations that can be written back: a `Dictionary`, `units` or `pca`."""

    def encode(self, x: Tensor) -> Tensor:
        """Activations "... d_in" as features "... feature"."""
        ...

    def reconstruct(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """What features make of an activation."""
        ...

    def __call__(self, values: ArrayLike) -> np.ndarray:
        """Activations "picture d_in" as features "picture feature", in numpy."""
        ...


@dataclass(frozen=True)
class Features:
    """Pooled activations of pictures: one matrix per site, with its rows aligned to one frame.

    Args:
        values: The matrix of each site, "picture feature". It may be mapped from disk: then it is
            read where it is used, and was checked when it was written.
        frame: A row per picture, with the columns `label` and `domain`, and `path`, `artist`,
            `drawing` and others where known.
        layers: The block that computes each site; -1 for pixels, and where it is not given.
        depths: The place of each site in its tower, 0 to 1; 0 for pixels, and where it is not
            given.
        facts: What is known of the pass, such as `pool` and `source`.
        shapes: Number and width of the tokens of each site, where every token was kept.

    Raises:
        ShapeError: For a matrix that has not one row per picture.
        NumericsError: For a NaN or infinity, naming site and picture.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": ["real", "real"]})
    >>> features = Features({"hook_embedding": np.eye(2, dtype=np.float32)}, frame)
    >>> features.rows(features.frame["label"] == "dog").values["hook_embedding"].tolist()
    [[0.0, 1.0]]
    """

    values: Mapping[str, np.ndarray]
    frame: pd.DataFrame
    layers: Mapping[str, int] = field(default_factory=dict)
    depths: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site, matrix in self.values.items():
            if matrix.ndim != 2 or len(matrix) != len(self.frame):
                right = f"({len(self.frame)}, features), a row per picture"
                do = "give one row for each row of the frame"
                raise ShapeError(f"keep the features of {site}", f"shape {matrix.shape}", right, do)
            if not isinstance(matrix, np.memmap):
                refuse_nan(site, matrix, self.frame)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        domains = listed(list(dict.fromkeys(self.frame["domain"])), limit=8)
        head = f"Features of {len(self):,} pictures in {domains}, {len(self.values)} sites:"
        lines = [f"  {site}: {matrix.shape[1]:,} wide" for site, matrix in self.values.items()]
        return "\n".join(
            [head, *lines[:3], *([f"  ... {len(lines) - 3} more"] if lines[3:] else [])]
        )

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

    def place(self, site: str, control: str = "") -> dict[str, object]:
        """The columns that say where a row was measured, and which floor it is, if any."""
        floor = PIXELS if site == PIXELS else control
        return {
            "site": site,
            "layer": self.layer(site),
            "depth": self.depth(site),
            "control": floor,
        }

    def rows(self, chosen: pd.Series | np.ndarray | Sequence[int]) -> "Features":
        """Some of the pictures, by mask or by row numbers."""
        keys = np.asarray(chosen)
        places = np.flatnonzero(keys) if keys.dtype == bool else keys
        values = {site: matrix[places] for site, matrix in self.values.items()}
        frame = self.frame.iloc[places].reset_index(drop=True)
        return replace(self, values=values, frame=frame)

    def only(self, sites: str | Iterable[str] | None) -> "Features":
        """Some of the sites, by name or pattern; all for None."""
        if sites is None:
            return self
        names = find_sites(sites, self.sites)
        return replace(self, values={site: self.values[site] for site in names})

    def batches(self, batch_size: int = 256) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
        """Row numbers and their values per site, as `interp.probes.batches` yields them."""
        for start in range(0, len(self), batch_size):
            rows = range(start, min(start + batch_size, len(self)))
            yield (
                rows,
                {
                    site: np.asarray(matrix[rows.start : rows.stop])
                    for site, matrix in self.values.items()
                },
            )

    def tokens(self, site: str) -> "Features":
        """One site with a row per picture and token (column `pos`), where every token was kept.

        >>> frame = pd.DataFrame({"label": ["cat"], "domain": ["real"]})
        >>> kept = Features({"s": np.arange(6.0)[None]}, frame, shapes={"s": (3, 2)})
        >>> kept.tokens("s").values["s"].tolist(), kept.tokens("s").frame["pos"].tolist()
        ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, 2])
        """
        check_known("take tokens apart", "site", [site], self.shapes)
        n, width = self.shapes[site]
        values = {site: self.values[site].reshape(len(self) * n, width)}
        frame = self.frame.loc[self.frame.index.repeat(n)].reset_index(drop=True)
        frame["pos"] = np.tile(np.arange(n), len(self))
        return replace(self, values=values, frame=frame, shapes={})

    def stacked(self, other: "Features") -> "Features":
        """The rows of `other` below these, at the sites both have: prompts below pictures, say.

        >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
        >>> image = Features({"s": np.eye(2)}, frame)
        >>> image.stacked(Features({"s": np.eye(2)}, frame.assign(domain="text"))).domains
        ['real', 'text']
        """
        common = [site for site in self.sites if site in other.values]
        widths = {
            site: (self.values[site].shape[1], other.values[site].shape[1]) for site in common
        }
        unlike = [site for site, (mine, its) in widths.items() if mine != its]
        if unlike or not common:
            given = f"other widths at {listed(unlike)}" if unlike else "no site that both have"
            right = "sites of one name and one width"
            raise ShapeError("stack features", given, right, "choose those with `only`")
        values = {site: np.vstack([self.values[site], other.values[site]]) for site in common}
        frame = pd.concat([self.frame, other.frame], ignore_index=True)
        return replace(self, values=values, frame=frame)

    def joined(self, other: "Features") -> "Features":
        """These sites and those of `other`, measured on the same pictures (`pixels`, say)."""
        same = len(self) == len(other) and all(
            self.frame[name].astype(str).tolist() == other.frame[name].astype(str).tolist()
            for name in ("path", "label", "domain")
            if name in self.frame.columns and name in other.frame.columns
        )
        twice = set(self.values) & set(other.values)
        if not same or twice:
            given = f"the site {listed(sorted(twice))} twice" if same else "features of two tables"
            right = "other sites of the same pictures in the same order"
            raise ShapeError("join features", given, right, "collect both from one image table")
        return replace(
            self,
            values={**self.values, **other.values},
            layers={**self.layers, **other.layers},
            depths={**self.depths, **other.depths},
            shapes={**self.shapes, **other.shapes},
        )


def refuse_nan(site: str, matrix: np.ndarray, frame: pd.DataFrame, first: int = 0) -> None:
    """Refuse values that are not finite, naming site and picture; row 0 is row `first` of `frame`.

    >>> refuse_nan("s", np.array([[0.0], [np.nan]]), pd.DataFrame({"path": ["a.png", "b.png"]}))
    Traceback (most recent call last):
    ...
    interp.core.errors.NumericsError: Cannot read s: given a NaN or infinity for picture b.png ...
    """
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=tuple(range(1, matrix.ndim))))
    if not len(bad):
        return
    row = first + int(bad[0])
    name = frame["path"].iloc[row] if "path" in frame.columns else "?"
    given = f"a NaN or infinity for picture {name} (row {row}; {len(bad)} pictures in this batch)"
    right = "finite activations"
    raise NumericsError(f"read {site}", given, right, "check the checkpoint, or run in float32")


def check_domains(features: Features, domains: Sequence[str] | None, asked: str) -> list[str]:
    """The domains asked for, or all; at least one, each of them there."""
    names = features.domains if domains is None else list(domains)
    check_known(asked, "domain", names, features.domains)
    if len(set(names)) < len(names):
        raise SpecificationError(asked, listed(names), "each domain once", "name others")
    n = int(features.frame["label"].isna().sum())
    if n:
        do = "leave them out: features[features.frame['label'].notna()]"
        raise DataError(asked, f"{n} pictures without a label", "a label for every picture", do)
    return names


FACTS = "features.json"


@door
def save_features(features: Features, folder: str | Path) -> Path:
    """Write features into a folder of their own: a `.npy` file per site, and one file of the rest.

    Args:
        features: The features.
        folder: The folder; one that exists is replaced.

    Returns:
        The folder.

    Raises:
        OutputError: Where the folder cannot be written.

    Notes:
        The folder gets its name only once it is complete, so an interrupted run never leaves a
        folder that looks complete.

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


@door
def open_features(folder: str | Path) -> Features:
    """Open features that `save_features` wrote, with their matrices mapped into memory.

    Args:
        folder: The folder.

    Returns:
        The features.

    Raises:
        DataError: For a folder that holds no features, or not all of them.

    >>> import tempfile
    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
    >>> kept = Features({"hook_embedding": np.eye(2, dtype=np.float32)}, frame)
    >>> folder = save_features(kept, Path(tempfile.mkdtemp()) / "kept")
    >>> open_features(folder).frame["label"].tolist()
    ['cat', 'dog']
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
        given = f"files that do not read ({error})"
        right = "a folder that save_features wrote"
        do = "name that folder, or collect the features again"
        raise DataError(f"open the features in {source}", given, right, do) from None


def paired_rows(
    x: ArrayLike, y: ArrayLike, what: str, *, at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in float64, centred, the largest entry 1; or the error that says why not.

    Shapes: `x` "row d_x", `y` "row d_y". Raises `ShapeError` for other axes or unequal rows,
    `SampleError` below `at_least` rows, `NumericsError` for a NaN and for features that are the
    same in every row.

    >>> paired_rows([[1.0], [3.0]], [[0.0], [5.0]], "an example", at_least=2)[0].tolist()
    [[-1.0], [1.0]]
    """
    asked = f"measure {what}"
    a, b = (np.asarray(side, dtype=np.float64) for side in (x, y))
    for side in (a, b):
        if side.ndim != 2:
            raise ShapeError(asked, f"shape {side.shape}", '"row feature"', "flatten to two axes")
    if len(a) != len(b):
        raise ShapeError(
            asked, f"{len(a)} and {len(b)} rows", "equally many, row by row", "pair the rows first"
        )
    if len(a) < at_least:
        raise SampleError(
            asked, f"{len(a)} rows", f"at least {at_least}", "give more classes or pictures"
        )
    return centred_rows(a, asked), centred_rows(b, asked)


def centred_rows(x: np.ndarray, asked: str) -> np.ndarray:
    """Features "row feature" less their mean, the largest entry 1."""
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        do = "look at that row's picture and at the layer"
        raise NumericsError(asked, f"a NaN or infinity in row {row}", "finite features", do)
    magnitude = float(np.abs(x).max(initial=0.0))
    centred = x - x.mean(axis=0)
    centred -= centred.mean(axis=0)  # a second pass takes out what rounding left of a large mean
    if not varies(centred, magnitude):
        given = "constant features: every row is the same"
        raise NumericsError(asked, given, "features that vary", "leave this site out")
    return centred / np.abs(centred).max()


def varies(centred: np.ndarray, magnitude: float) -> bool:
    """Whether centred features differ between rows by more than rounding."""
    return bool(np.abs(centred).max(initial=0.0) > 1e-10 * magnitude)


def narrowed(centred: np.ndarray) -> np.ndarray:
    """The same geometry in no more columns than rows.

    >>> narrowed(np.eye(2, 7) * 3).shape
    (2, 2)
    """
    if centred.shape[1] <= len(centred):
        return centred
    return np.asarray(np.linalg.qr(centred.T, mode="r")).T
