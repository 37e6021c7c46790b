"""Mixtures: which pictures a model is trained on, and which cells (class x domain) are withheld.

    specification -> cells and quotas -> pictures with captions -> train.tsv and manifest.json

`settings` says what can be asked for, `subsampling` how many pictures each cell gives, `manifest`
what is written down and refused, `audit` what may still have leaked.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import pandas as pd

from interp.core.errors import DataError, LeakError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.storage.store import cache_folder, complete, file_hash
from interp.data.mixtures.basesets import BaseSet, open_base, read_base
from interp.data.mixtures.manifest import Manifest, check_manifest, counted
from interp.data.mixtures.settings import BASE, MixtureSpec
from interp.data.mixtures.subsampling import MixtureCells, check_cells, quotas, ranks, replacements
from interp.data.mixtures.templates import captions

COLUMNS = ("filepath", "title", "label", "domain")


Made = TypeVar("Made")


@dataclass(frozen=True)
class Mixture:
    """The pictures of a training distribution and the specification they follow from.

    Args:
        spec: The specification.
        images: The training pictures with their captions; the column `names_domain` says whether a
            caption names the picture's domain.
        resolved: What the specification comes to on these pictures: the `domains` that joined, the
            seen classes that were `replaced`, and the pictures `available` in the test domain.
        own_base: Pictures of the table's split `base`, which are added whole; None for none.

    >>> cells = [(label, domain) for label in ("cat", "dog") for domain in ("real", "sketch")]
    >>> frame = pd.DataFrame(cells, columns=["label", "domain"]).assign(
    ...     path=list("abcd"), split="train", caption="")
    >>> spec = MixtureSpec("cg-low", "sketch", held_out=("dog",))
    >>> make_mixture(ImageTable(frame), spec).manifest()["counts"]
    {'real/cat': 1, 'real/dog': 1, 'sketch/cat': 1}
    """

    spec: MixtureSpec
    images: ImageTable
    resolved: Mapping[str, object] = field(default_factory=dict)
    own_base: ImageTable | None = None

    def base(self) -> BaseSet | None:
        """The base set that is added whole, if there is one."""
        if self.own_base is not None:
            frame = self.own_base.frame
            return BaseSet("the table's own", "split", len(frame), _set_hash(_contents(frame)))
        return open_base(self.spec.base) if self.spec.base else None

    def manifest(self) -> Manifest:
        """Counts per cell, hashes, doses as they came out; `LeakError` if a withheld cell is in.

        `pictures` counts the rows of `train.tsv`, those of a base set among them; `counts` and the
        shares are about all but the base set, `base_counts` about the table's own.
        """
        frame = self.images.frame
        base = self.base()
        rows = base.pictures if base and base.kind != "shards" else 0
        own = {} if self.own_base is None else self.own_base.label.value_counts().to_dict()
        held_out = frame["label"].isin(self.spec.held_out)
        manifest = {
            "name": self.spec.name,
            "specification": asdict(self.spec),
            "counts": counted(frame["domain"], frame["label"]),
            "pictures": len(frame) + rows,
            "drawings": int(frame["drawing"].nunique()) if "drawing" in frame else None,
            "share_natural": float((frame["domain"] == self.spec.natural).mean()),
            "share_held_out": float(held_out.mean()),
            "held_out_pictures": int(held_out.sum()),
            "captions_naming_domain": int(frame["names_domain"].sum()),
            "n_domains": int(frame["domain"].nunique()),
            "base": asdict(base) if base else None,
            **({"base_counts": {str(name): int(own[name]) for name in sorted(own)}} if own else {}),
            **self.resolved,
            "source": self.images.source,
            "source_hash": self.images.fingerprint,
            "pictures_hash": _set_hash(_contents(frame)),
        }
        check_manifest(manifest)
        return manifest

    def identity(self) -> str:
        """A hash of what would be written: the pictures in their order, and their captions."""
        frames = [self.images.frame, *([] if self.own_base is None else [self.own_base.frame])]
        seen = blake2b(digest_size=8)
        for frame in frames:
            for name in ("path", "caption"):
                seen.update("\n".join(map(str, _words(frame[name]))).encode())
        return seen.hexdigest()

    def files(self) -> ImageTable:
        """Its pictures as files, its own base set's last, under the domain `base`.

        What is no file yet is written into the cache.
        """
        folder = cache_folder() / "pictures"
        every = self.images.as_files(folder)
        if self.own_base is None:
            return every
        based = self.own_base.as_files(folder).frame.assign(domain=BASE)
        frames = [frame.astype({"domain": object}) for frame in (every.frame, based)]
        return every.with_frame(pd.concat(frames, ignore_index=True))

    def write(self, folder: Path) -> Path:
        """Write `train.tsv` (open_clip's CSV data set) and `manifest.json`; return the TSV.

        The rows of a base set follow under the domain `base`, those of a TSV without a label. Base
        shards are named in the manifest, and the trainer reads them beside the TSV.
        """
        manifest = self.manifest()
        with complete(folder) as temporary:
            with (temporary / "train.tsv").open("w", encoding="utf-8", newline="") as tsv:
                tsv.write("\t".join(COLUMNS) + "\n")
                _write_rows(tsv, _rows(self.files()))
                if manifest["base"] and manifest["base"]["kind"] == "tsv":
                    for chunk in read_base(self.spec.base):
                        blank = [""] * len(chunk), [BASE] * len(chunk)
                        _write_rows(tsv, [chunk["filepath"], chunk["title"], *blank])
            manifest["tsv_hash"] = file_hash(temporary / "train.tsv")
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        return folder / "train.tsv"


def _rows(images: ImageTable) -> list[Sequence[str]]:
    """The columns of a TSV of pictures that are files."""
    frame, root = images.frame, str(images.root)
    before = "" if root == "." else f"{root.rstrip('/')}/"
    paths = [path if path.startswith("/") else before + path for path in _words(frame["path"])]
    return [paths, *(_words(frame[name]) for name in ("caption", "label", "domain"))]


def _write_rows(tsv: TextIO, columns: Sequence[Iterable[str]]) -> None:
    """Tab-separated lines: plainly, ten times faster, unless a value has to be quoted.

    Plain lines are the bytes that pandas writes. It leaves a carriage return bare, which reads as
    the end of a row, so with values of that kind everything is quoted.
    """
    lines = list(map("\t".join, zip(*columns, strict=True)))
    text = "\n".join(lines)
    plain = text.count("\t") == len(lines) * (len(columns) - 1) and '"' not in text
    if plain and "\r" not in text and text.count("\n") == max(0, len(lines) - 1):
        tsv.write(text + "\n" if lines else "")
        return
    frame = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    quote = csv.QUOTE_ALL
    frame.to_csv(tsv, sep="\t", index=False, header=False, lineterminator="\n", quoting=quote)


def _contents(frame: pd.DataFrame) -> pd.Series:
    """What tells pictures apart: hashes of their content, or their paths."""
    return frame["hash" if "hash" in frame.columns else "path"]


def _set_hash(names: pd.Series) -> str:
    """A hash of names, whatever their order."""
    text = "\n".join(sorted(map(str, _words(names))))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _words(column: pd.Series) -> list[str]:
    """A column's values; going through numpy is thirty times faster than iterating over arrow's."""
    return column.to_numpy(dtype=object).tolist()


@door
def make_mixture(images: ImageTable, spec: MixtureSpec) -> Mixture:
    """Choose and caption the training pictures of a mixture.

    Args:
        images: All pictures; those of the split `train` are chosen from, those of a split `base`
            are added whole.
        spec: The specification.

    Returns:
        The mixture.

    Raises:
        DataError: For classes or domains that are not there, or pictures that are listed twice.
        SampleError: Where a size cannot be matched.
        LeakError: Where a training picture is also kept for testing.

    Notes:
        A picture's caption and its place among those of its cell depend on the seed alone. So two
        mixtures of one seed differ in nothing but what their specifications say.

    >>> cells = [(label, domain) for label in ("cat", "dog") for domain in ("real", "sketch")]
    >>> frame = pd.DataFrame(cells, columns=["label", "domain"]).assign(
    ...     path=list("abcd"), split="train", caption="")
    >>> spec = MixtureSpec("cg-low", "sketch", held_out=("dog",))
    >>> make_mixture(ImageTable(frame), spec).images.path.tolist()
    ['a', 'b', 'c']
    """
    return next(make_mixtures(images, [spec]))


@door
def make_mixtures(images: ImageTable, specs: Iterable[MixtureSpec]) -> Iterator[Mixture]:
    """Make the mixtures of many specifications, one at a time.

    Args:
        images: All pictures; those of the split `train` are chosen from, those of a split `base`
            are added whole.
        specs: The specifications.

    Returns:
        An iterator of mixtures, in the order of the specifications.

    Raises:
        DataError: For classes or domains that are not there, or pictures that are listed twice.
        SampleError: Where a size cannot be matched.
        LeakError: Where a training picture is also kept for testing.

    Notes:
        What the mixtures share (counts, orders and captions of one seed) is made once.

    >>> cells = [(label, domain) for label in ("cat", "dog") for domain in ("real", "sketch")]
    >>> frame = pd.DataFrame(cells, columns=["label", "domain"]).assign(
    ...     path=list("abcd"), split="train", caption="")
    >>> specs = [MixtureSpec(name, "sketch", ("dog",)) for name in ("natural-only", "cg-low")]
    >>> [len(mixture.images) for mixture in make_mixtures(ImageTable(frame), specs)]
    [2, 3]
    """
    table = _Table(images)
    for spec in specs:
        yield table.mixture(spec)


class _Table:
    """A table's training pictures, counted, ranked and captioned once for all its mixtures."""

    def __init__(self, images: ImageTable) -> None:
        frame = images.frame
        repeated = frame["path"][frame["path"].duplicated()]
        if len(repeated):
            given = f"{len(repeated)} rows that stand there before ({listed(repeated, limit=3)})"
            do = "remove the repeated rows"
            raise DataError(f"make a mixture of {images.source}", given, "every picture once", do)
        is_train, is_base = ((frame["split"] == name).to_numpy() for name in ("train", BASE))
        self.images, self.domains, self.labels = images, images.domains, images.labels
        self.train = frame[is_train].reset_index(drop=True)
        self.base = frame[is_base].reset_index(drop=True)
        self.rest = frame[~is_train & ~is_base]
        kept = set(_words(_contents(self.rest)))
        self.is_twin, self.is_base_twin = (
            np.array([word in kept for word in _words(_contents(part))], dtype=bool)
            for part in (self.train, self.base)
        )
        self.cells = MixtureCells.count(self.train["label"], self.train["domain"])
        self._kept: dict[tuple[str, object, int], Any] = {}

    def mixture(self, spec: MixtureSpec) -> Mixture:
        """One mixture."""
        self._check(spec)
        wanted = quotas(self.cells, spec).ravel()
        places = self._once("places", spec.rule, spec, lambda: ranks(self.cells, spec))
        rows = np.flatnonzero(places < wanted[self.cells.of_picture])
        _check_apart(self.train.take(rows), self.is_twin[rows])
        captioned = self._once("captions", spec.words_share, spec, lambda: self._captions(spec))
        chosen = _taken(self.train, rows, *captioned)
        own_base = self._base(spec) if round(spec.base_dose * len(self.base)) else None
        return Mixture(spec, self.images.with_frame(chosen), self._resolved(spec), own_base)

    def _base(self, spec: MixtureSpec) -> ImageTable:
        """The share of the table's own base set that is added: the first so many of an order."""
        if spec.base:
            given = f"the base set {spec.base}, and {len(self.base)} pictures of the split {BASE!r}"
            do = "leave base out, or set base_dose = 0 (for the embedded study, n_base = 0)"
            raise SpecificationError("make a mixture", given, "one base set", do)
        others = sorted(set(_words(self.base["domain"])) - {spec.natural})
        if others:
            given = f"pictures of {listed(others)} in the split {BASE!r}"
            right = f"pictures of {spec.natural} alone, since every mixture holds them"
            do = "move the others to the split train"
            raise LeakError(f"train on the mixture {spec.name}", given, right, do)
        order = rng("base set", spec.seed).permutation(len(self.base))
        rows = np.sort(order[: round(spec.base_dose * len(self.base))])
        _check_apart(self.base.take(rows), self.is_base_twin[rows])
        captioned = self._once(
            "base captions",
            spec.words_share,
            spec,
            lambda: captions(
                self.base["label"],
                self.base["domain"],
                rng("captions of the base set", spec.seed),
                words_share=spec.words_share,
            ),
        )
        return self.images.with_frame(_taken(self.base, rows, *captioned))

    def _once(self, what: str, option: object, spec: MixtureSpec, make: Callable[[], Made]) -> Made:
        """What many mixtures of a seed share, made for the first of them."""
        key = (what, option, spec.seed)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _captions(self, spec: MixtureSpec) -> tuple[np.ndarray, np.ndarray]:
        generator = rng("captions", spec.seed)
        labels, domains = self.train["label"], self.train["domain"]
        return captions(labels, domains, generator, words_share=spec.words_share)

    def _check(self, spec: MixtureSpec) -> None:
        check_known("make a mixture", "domain", [spec.test_domain, spec.natural], self.domains)
        if BASE in self.domains:
            given = f"pictures of a domain called {BASE!r}"
            right = "another name, for this one is the base set's"
            raise DataError("make a mixture", given, right, "rename the domain")
        check_known("hold out a class", "class", spec.held_out, self.labels)
        check_known("take in a foreign class", "class", spec.foreign, self.labels)
        check_known("ask for a class", "class", spec.labels, self.labels)
        check_cells(self.cells, spec, self.rest)

    def _resolved(self, spec: MixtureSpec) -> dict[str, object]:
        """What the specification came to on these pictures."""
        there = spec.test_domain in self.cells.domains
        here = self.cells.counts[self.cells.row(spec.test_domain)] if there else []
        available = dict(zip(self.cells.labels, map(int, here), strict=False))
        return {
            "domains": list(spec.other_domains(self.cells.domains)),
            "replaced": replacements(self.cells, spec) if spec.overlap < 1 else {},
            "available": {label: n for label, n in available.items() if n},
        }


def _taken(
    frame: pd.DataFrame, rows: np.ndarray, texts: np.ndarray, named: np.ndarray
) -> pd.DataFrame:
    """Some rows with their captions."""
    chosen = frame.take(rows).reset_index(drop=True)
    return chosen.assign(caption=texts[rows], names_domain=named[rows])


def _check_apart(chosen: pd.DataFrame, is_twin: np.ndarray) -> None:
    """No training picture may stand among those that models are tested or analysed on."""
    if is_twin.any():
        twins = chosen[is_twin]
        given = f"{len(twins)} that are also kept for testing ({listed(twins['path'])})"
        right = "train and test pictures that differ"
        raise LeakError("train on these pictures", given, right, "remove the duplicates")
