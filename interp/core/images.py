"""The image table: pictures, read when needed, with aligned columns that describe them.

Rows are selected by mask or query, together with their pictures. `pairs` gives clean/corrupt
partners.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from interp.core.errors import DataError, PictureError, check_known, listed
from interp.core.faces.doors import door
from interp.core.parallel import side_by_side
from interp.core.seeds import rng
from interp.core.statistics.partners import partners, spread
from interp.core.storage.pictures import (
    DECODED,
    UNREADABLE,
    Preparation,
    Preprocess,
    Reader,
    by_batch,
    picture_rows,
)
from interp.core.storage.store import fingerprint, replacing, writable

Rows = int | pd.Series | np.ndarray | Sequence[int] | slice

COLUMNS = ("path", "label", "domain", "split", "caption")


@dataclass(frozen=True)
class ImageTable:
    """Pictures with aligned columns `path, label, domain, split, caption` and any others.

    Args:
        frame: A row per picture. The embedded study adds `artist`, `drawing` (artist/glyph), `warp`
            and `style` (the seeds of the picture) and the factors drawn from them.
        root: The folder that paths are relative to.
        source: Where the pictures come from, in words.
        fingerprint: A hash of the contents, for caches.
        reader: Reads the picture of a row; None opens the file `root/path`.
        preparations: Steps applied to every picture that is read.

    Raises:
        DataError: If a column is missing.

    >>> frame = pd.DataFrame({"path": ["a.png", "b.png"], "label": ["cat", "cat"],
    ...                       "domain": ["real", "sketch"], "split": "test", "caption": ""})
    >>> images = ImageTable(frame)
    >>> len(images[images.domain == "sketch"]), images.domains
    (1, ['real', 'sketch'])
    """

    frame: pd.DataFrame
    root: Path = Path()
    source: str = "pictures"
    fingerprint: str = ""
    reader: Reader | None = None
    preparations: tuple[Preparation, ...] = ()

    def __post_init__(self) -> None:
        if missing := [name for name in COLUMNS if name not in self.frame.columns]:
            given = f"a frame without {listed(missing)}"
            right = f"the columns {listed(COLUMNS)}"
            raise DataError("make an image table", given, right, "add the missing columns")

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {name}" for name, n in self.frame["split"].value_counts().items())
        return (
            f"ImageTable: {len(self):,} pictures ({splits}) of {len(self.labels)} classes in "
            f"{listed(self.domains, limit=8)}, from {self.source}"
        )

    def _repr_html_(self) -> str:
        """The first pictures of up to eight cells, for notebooks."""
        cells = self.frame.reset_index().groupby(["label", "domain"], sort=False)["index"]
        rows = self.frame.index.get_indexer(cells.first().head(8))
        return picture_rows([[self._shown(int(row)) for row in rows]], repr(self))

    def _shown(self, row: int) -> tuple[Image.Image, str]:
        """A picture and what it shows."""
        return self.picture(row), f"{self.label.iloc[row]}, {self.domain.iloc[row]}"

    def __getattr__(self, name: str) -> pd.Series:
        if name.startswith("_") or name not in self.frame.columns:
            raise AttributeError(f"an image table has no column {name!r}")
        return self.frame[name]

    def __getitem__(self, rows: Rows) -> "ImageTable":
        if isinstance(rows, slice):
            return self.with_frame(self.frame.iloc[rows])
        keys = np.atleast_1d(np.asarray(rows))
        if keys.dtype.kind not in "biu" and len(keys):
            given = f"[{rows!r}]" if isinstance(rows, str) else f"rows of type {keys.dtype}"
            right = "places, a slice, or a mask of True and False"
            do = "choose by content with images.select(domain=..., label=...)"
            raise DataError("choose pictures", given, right, do)
        if keys.dtype == bool:
            return self.with_frame(self.frame[keys])
        return self.with_frame(self.frame.iloc[keys.astype(int)])

    def query(self, expression: str) -> "ImageTable":
        """Rows for which a pandas expression holds, for example `domain == 'sketch'`."""
        return self.with_frame(self.frame.query(expression))

    def select(self, **wanted: object) -> "ImageTable":
        """Rows whose columns have the wanted values.

        Args:
            **wanted: By column, one value or a list of them.

        Returns:
            The rows.

        Raises:
            DataError: For an unknown column, or a value that the column does not have.

        >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["cat", "dog"], "domain": "real",
        ...                       "split": "test", "caption": ""})
        >>> ImageTable(frame).select(label=["dog"]).path.tolist()
        ['b']
        >>> ImageTable(frame).select(label="dgo")
        Traceback (most recent call last):
        ...
        interp.core.errors.DataError: Cannot select pictures: given label 'dgo', ... mean dog?
        """
        keep = np.ones(len(self), dtype=bool)
        for column, value in wanted.items():
            check_known("select pictures", "column", [column], map(str, self.frame.columns))
            values = [value] if isinstance(value, (str, int, float)) else list(value)  # type: ignore[call-overload]
            known = self.frame[column].dropna().unique()
            if strange := [each for each in values if each not in set(known)]:
                check_known("select pictures", column, map(str, strange[:1]), map(str, known))
            keep &= self.frame[column].isin(values).to_numpy()
        return self.with_frame(self.frame[keep])

    @door
    def few(self, per_cell: int, *, seed: int = 0) -> "ImageTable":
        """At most so many pictures of every class in every domain, drawn at random; in table order.

        Args:
            per_cell: How many, at least 1.
            seed: Seed of the draw.

        Returns:
            The pictures.

        >>> frame = pd.DataFrame({"path": list("abc"), "label": "cat", "split": "train",
        ...                       "domain": ["real", "real", "art"], "caption": ""})
        >>> ImageTable(frame).few(1).domain.tolist()
        ['real', 'art']
        """
        order = rng("pictures for heads", seed).permutation(len(self))
        cells = self.frame[["label", "domain"]].iloc[order].groupby(["label", "domain"])
        return self[np.sort(order[cells.cumcount().to_numpy() < per_cell])]

    def with_frame(self, frame: pd.DataFrame) -> "ImageTable":
        """A table of other rows or columns whose pictures are read in the same way.

        >>> frame = pd.DataFrame({"path": ["a"], "label": "cat", "domain": "real",
        ...                       "split": "train", "caption": ""})
        >>> images = ImageTable(frame)
        >>> images.with_frame(images.frame.assign(split="test")).split.tolist()
        ['test']
        """
        return replace(self, frame=frame)

    @door
    def prepared(
        self, function: Callable[[Image.Image], Image.Image], *, name: str
    ) -> "ImageTable":
        """The same rows, with a function applied to every picture that is read.

        Args:
            function: From picture to picture; importable, if pictures are read in several
                processes.
            name: Enters the fingerprint, so that cached results are not mixed up: change it when
                the function changes.

        Returns:
            The table.

        Raises:
            DataError: For an empty name.

        >>> frame = pd.DataFrame({"path": ["a"], "label": "cat", "domain": "real",
        ...                       "split": "train", "caption": ""})
        >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (8, 8)))
        >>> images.prepared(lambda image: image.resize((4, 4)), name="small").picture(0).size
        (4, 4)
        """
        if not name.strip():
            right = "a name that changes when it does"
            raise DataError("prepare pictures", "a preparation without a name", right, "pass name=")
        mark = fingerprint(self.fingerprint, "prepared", name)
        steps = (*self.preparations, Preparation(name, function))
        return replace(self, fingerprint=mark, preparations=steps)

    @property
    def all_files(self) -> bool:
        """Whether every picture is a file, neither read from elsewhere nor prepared."""
        return self.reader is None and not self.preparations

    @property
    def labels(self) -> list[str]:
        """The class names, sorted."""
        return sorted(self.frame["label"].unique())

    @property
    def domains(self) -> list[str]:
        """The domains, sorted."""
        return sorted(self.frame["domain"].unique())

    def counts(self) -> pd.DataFrame:
        """Pictures per cell, class by domain."""
        # as words: a column of categories would make an index that takes no new names
        return pd.crosstab(self.frame["label"].astype(str), self.frame["domain"].astype(str))

    @door
    def picture(self, row: int) -> Image.Image:
        """Read the picture of a row, as RGB, prepared.

        Args:
            row: The row's position.

        Returns:
            The picture.

        Raises:
            PictureError: If it cannot be read; the message names it.
            DataError: For a row that the table does not have.
        """
        if not -len(self) <= row < len(self):
            given = f"a table of {len(self)}"
            do = "count from the start of the table"
            raise DataError(f"read picture {row}", given, f"0 to {len(self) - 1}", do)
        path = self.root / str(self.frame["path"].iloc[row])
        try:
            if self.reader is None:
                image = DECODED.read(path)
            else:
                image = self.reader(self.frame.iloc[row]).convert("RGB")
        except UNREADABLE as error:
            given = f"a file that is no picture ({error})"
            right = "a jpg, png or other picture"
            raise PictureError(f"read {path}", given, right, "remove or replace the file") from None
        for step in self.preparations:
            image = step.apply(image, path)
        return image

    def as_files(self, folder: str | Path, *, jobs: int = 1) -> "ImageTable":
        """The same rows with every picture a file, for code that must be given paths.

        Args:
            folder: Where pictures that are no files, or are prepared, are written as PNG.
            jobs: Processes that write; reader and preparations must then survive pickling.

        Returns:
            The table.

        Notes:
            Pictures that are files already are not copied. Names depend on the table's fingerprint
            and on `path`, so an interrupted call can be repeated and several tables may share a
            folder.
        """
        if self.all_files:
            return self
        target = writable(Path(folder), purpose="pictures").resolve()
        about = f"{self.source}/{self.fingerprint}/{self.root if self.reader is None else ''}"
        names = [_file_name(about, str(path)) for path in self.frame["path"]]
        first = pd.Series(range(len(names))).groupby(pd.Series(names)).first()
        missing = sorted(int(row) for name, row in first.items() if not (target / name).exists())  # type: ignore[operator]
        chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
        tasks = [(self[rows], target, [names[row] for row in rows]) for rows in chunks]
        side_by_side(_write_pictures, tasks, jobs=jobs, what="write pictures")
        frame = self.frame.assign(path=names)
        return replace(self, frame=frame, root=target, reader=None, preparations=())

    def tensors(self, preprocess: Preprocess, rows: Sequence[int] | None = None) -> Tensor:
        """Preprocess pictures into one tensor.

        Args:
            preprocess: From a picture to `channel row column`.
            rows: The rows; None takes all.

        Returns:
            `batch channel row column`.
        """
        chosen = range(len(self)) if rows is None else rows
        each, together = by_batch(preprocess)
        return together([each(self.picture(int(row))) for row in chosen])

    def batches(self, preprocess: Preprocess, *, batch_size: int = 256) -> Iterator[Tensor]:
        """Preprocessed pictures in table order, `batch_size` at a time."""
        for start in range(0, len(self), batch_size):
            yield self.tensors(preprocess, range(start, min(start + batch_size, len(self))))

    @door
    def pairs(
        self,
        *,
        same: str | Sequence[str] = "label",
        differ: str | Sequence[str] = "domain",
        clean: str | None = None,
        n: int | None = None,
        seed: int = 0,
    ) -> "Pairs":
        """Partner each picture with one that agrees in some columns and differs in others.

        Args:
            same: Columns in which partners agree.
            differ: Columns in which they differ.
            clean: What the clean picture of every pair has in the first of these columns, for
                example "real"; None takes every picture as clean once, so that pairs go both ways.
            n: How many pairs are kept, spread evenly over the classes; None keeps all.
            seed: Seed of the draw.

        Returns:
            The pairs; pictures without a partner are left out.

        Raises:
            DataError: For an unknown column, or an unknown value of `clean`.
            SampleError: If no picture has a partner.

        Notes:
            The partner is drawn at random among all that qualify. With `same=("drawing", "warp")`
            the pairs are aligned: one drawing, one pose, two domains.
        """
        agree = [same] if isinstance(same, str) else list(same)
        disagree = [differ] if isinstance(differ, str) else list(differ)
        check_known("pair pictures", "column", [*agree, *disagree], map(str, self.frame.columns))
        if clean is not None:
            known = self.frame[disagree[0]].dropna().unique()
            check_known("pair pictures", disagree[0], [clean], map(str, known))
        rows = partners(self.frame.reset_index(drop=True), agree, disagree, clean, n, seed)
        return Pairs(self, *rows, same=tuple(agree), differ=tuple(disagree))


_CHUNK = 64
"""Pictures written per task: enough to outweigh handing it over, few enough to show progress."""


def _file_name(about: str, path: str) -> str:
    """A unique name for a picture of a table, in one of 256 folders."""
    key = blake2b(f"{about}\n{path}".encode(), digest_size=12).hexdigest()
    return f"{key[:2]}/{key[2:]}.png"


def _write_pictures(task: tuple["ImageTable", Path, list[str]]) -> None:
    images, target, names = task
    for row, name in enumerate(names):
        (target / name).parent.mkdir(exist_ok=True)
        with replacing(target / name) as temporary:
            images.picture(row).save(temporary, format="PNG", compress_level=1)


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupt partners, aligned rows of one image table.

    Args:
        images: The table.
        clean_rows: Rows of the clean pictures.
        corrupt_rows: Rows of their partners.
        same: Columns in which partners agree.
        differ: Columns in which they differ.
    """

    images: ImageTable
    clean_rows: np.ndarray
    corrupt_rows: np.ndarray
    same: tuple[str, ...]
    differ: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.clean_rows)

    def __repr__(self) -> str:
        same, differ = " and ".join(self.same), " and ".join(self.differ)
        return (
            f"{len(self):,} pairs of the same {same} and different {differ}, from {self.images!r}"
        )

    def _repr_html_(self) -> str:
        """The first eight pairs, clean above corrupt, for notebooks."""
        both = (self.clean_rows[:8], self.corrupt_rows[:8])
        pictures = [[self.images._shown(int(row)) for row in rows] for rows in both]
        return picture_rows(pictures, f"{len(self):,} pairs, clean above corrupt")

    @property
    def clean(self) -> ImageTable:
        """The clean pictures, in pair order."""
        return self.images[self.clean_rows]

    @property
    def corrupt(self) -> ImageTable:
        """Their corrupt partners, in the same order."""
        return self.images[self.corrupt_rows]

    @property
    def aligned(self) -> bool:
        """Whether partners are one drawing in one pose, or one style of two classes."""
        return {"drawing", "warp"} <= set(self.same) or {"style", "domain"} <= set(self.same)

    def spread(self, n: int, *, seed: int = 0) -> "Pairs":
        """At most `n` of the pairs, spread evenly over the clean pictures' classes."""
        return self[spread(self.clean.label.to_numpy(), n, rng("spread", seed))]

    def __getitem__(self, rows: np.ndarray) -> "Pairs":
        return replace(self, clean_rows=self.clean_rows[rows], corrupt_rows=self.corrupt_rows[rows])
