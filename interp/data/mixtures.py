"""Mixtures: which pictures a model is trained on, and which cells (class x domain) are withheld.

A setting is a rule on cells, listed once in `SETTINGS`. A mixture is a folder with an open_clip
TSV and a manifest; the manifest counts every cell, and one that holds a withheld cell is refused
when it is written and again when training opens it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import (
    DataError,
    LeakError,
    SampleError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.store import complete, file_hash, fingerprint
from interp.data.prompts import caption

NATURAL = "real"

CellRule = Callable[[pd.DataFrame, "MixtureSpec"], pd.Series]
"""From a frame with `label` and `domain` to a mask of its rows."""


@dataclass(frozen=True)
class Setting:
    """A training distribution: the cells it draws from, those it must not hold, its size rule."""

    pool: CellRule
    withheld: CellRule
    size_matched: bool
    meaning: str


def _is_test(frame: pd.DataFrame, spec: "MixtureSpec") -> pd.Series:
    return frame["domain"] == spec.test_domain


def _is_held_out(frame: pd.DataFrame, spec: "MixtureSpec") -> pd.Series:
    return _is_test(frame, spec) & frame["label"].isin(spec.held_out)


def _is_narrow(frame: pd.DataFrame, spec: "MixtureSpec") -> pd.Series:
    return (frame["domain"] == spec.natural) | _is_test(frame, spec)


def _is_any(frame: pd.DataFrame, spec: "MixtureSpec") -> pd.Series:
    return pd.Series(True, index=frame.index)


SETTINGS: dict[str, Setting] = {
    "natural-only": Setting(
        lambda frame, spec: frame["domain"] == spec.natural,
        lambda frame, spec: frame["domain"] != spec.natural,
        False,
        "natural pictures of all classes",
    ),
    "cg-low": Setting(
        lambda frame, spec: _is_narrow(frame, spec) & ~_is_held_out(frame, spec),
        _is_held_out,
        True,
        "natural pictures and the seen classes in the test domain",
    ),
    "cg-high": Setting(
        lambda frame, spec: ~_is_held_out(frame, spec),
        _is_held_out,
        True,
        "all domains, with only the seen classes in the test domain",
    ),
    "leave-out-domain": Setting(
        lambda frame, spec: ~_is_test(frame, spec),
        _is_test,
        True,
        "all domains but the test domain",
    ),
    "upper-bound-low": Setting(
        _is_narrow,
        lambda frame, spec: ~_is_any(frame, spec),
        True,
        "natural pictures and all classes in the test domain",
    ),
    "upper-bound-high": Setting(
        _is_any, lambda frame, spec: ~_is_any(frame, spec), True, "all domains, all classes"
    ),
}
"""The paper's four settings and two upper bounds (Kempf et al. 2025)."""


@dataclass(frozen=True)
class MixtureSpec:
    """One training distribution, by name.

    `held_out` are the classes C2 that the compositional settings withhold in `test_domain`. With
    `size_matched`, every setting but natural-only is subsampled to the size of `cg-low`.
    """

    setting: str
    test_domain: str
    held_out: tuple[str, ...]
    natural: str = NATURAL
    size_matched: bool = True
    domain_words: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_known("make a mixture", "setting", [self.setting], SETTINGS, SpecificationError)
        if self.test_domain == self.natural:
            raise SpecificationError(
                "make a mixture",
                f"test domain {self.test_domain!r}",
                "a domain other than the natural one",
                "choose another test domain",
            )


@dataclass(frozen=True)
class Mixture:
    """The pictures of a training distribution and the specification they answer to."""

    spec: MixtureSpec
    images: ImageTable

    def manifest(self) -> dict[str, Any]:
        """Counts per cell, hashes, seed, specification; `LeakError` if it holds a withheld cell."""
        frame = self.images.frame
        counts = {
            f"{domain}/{label}": int(n)
            for (domain, label), n in frame.groupby(["domain", "label"], sort=True).size().items()
        }  # type: ignore[misc]
        content = "hash" if "hash" in frame.columns else "path"
        manifest = {
            "specification": asdict(self.spec),
            "counts": counts,
            "pictures": len(frame),
            "drawings": int(frame["drawing"].nunique()) if "drawing" in frame else None,
            "share_natural": float((frame["domain"] == self.spec.natural).mean()),
            "share_held_out": float(frame["label"].isin(self.spec.held_out).mean()),
            "source": self.images.source,
            "source_hash": self.images.fingerprint,
            "pictures_hash": fingerprint(sorted(map(str, frame[content]))),
        }
        check_manifest(manifest)
        return manifest

    def write(self, folder: Path) -> Path:
        """Write `train.tsv` (open_clip's CSV data set) and `manifest.json`; return the TSV."""
        manifest = self.manifest()
        frame = self.images.frame
        tsv = pd.DataFrame(
            {
                "filepath": [str(self.images.root / path) for path in frame["path"]],
                "title": frame["caption"],
                "label": frame["label"],
                "domain": frame["domain"],
            }
        )
        with complete(folder) as temporary:
            tsv.to_csv(temporary / "train.tsv", sep="\t", index=False)
            manifest["tsv_hash"] = file_hash(temporary / "train.tsv")
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        return folder / "train.tsv"


def make_mixture(images: ImageTable, spec: MixtureSpec) -> Mixture:
    """Choose and caption the training pictures of a mixture.

    Subsampling keeps the same share of every cell: the first ceil(share x n) of a cell's pictures
    in a random but repeatable order, then one fewer in cells drawn at random until it is exact.

    >>> cells = [(label, domain) for label in ("cat", "dog") for domain in ("real", "sketch")]
    >>> frame = pd.DataFrame(cells, columns=["label", "domain"]).assign(
    ...     path=list("abcd"), split="train", caption="")
    >>> spec = MixtureSpec("cg-low", "sketch", held_out=("dog",))
    >>> make_mixture(ImageTable(frame), spec).images.path.tolist()
    ['a', 'b', 'c']
    """
    check_known("make a mixture", "domain", [spec.test_domain, spec.natural], images.domains)
    check_known("hold out a class", "class", spec.held_out, images.labels)
    train = images.frame[images.frame["split"] == "train"].reset_index(drop=True)
    setting = SETTINGS[spec.setting]
    pool = train[setting.pool(train, spec)]
    if pool.empty:
        raise SampleError(
            f"make the mixture {spec.setting}",
            "no training picture in its cells",
            "at least one",
            "give more pictures or another setting",
        )
    if spec.size_matched and setting.size_matched:
        pool = _subsample(pool, _reference_size(train, spec), spec)
    chosen = pool.sort_index().reset_index(drop=True)
    stream = rng(f"captions/{spec.setting}/{spec.test_domain}", spec.seed)
    chosen["caption"] = [
        caption(label, domain, stream, domain_words=spec.domain_words)
        for label, domain in zip(chosen["label"], chosen["domain"], strict=True)
    ]
    mixture = Mixture(spec, ImageTable(chosen, images.root, images.source, images.fingerprint))
    _check_apart(chosen, images.frame[images.frame["split"] != "train"])
    return mixture


def _reference_size(train: pd.DataFrame, spec: MixtureSpec) -> int:
    return int(SETTINGS["cg-low"].pool(train, spec).sum())


def _subsample(pool: pd.DataFrame, size: int, spec: MixtureSpec) -> pd.DataFrame:
    """Keep `size` rows, the same share of each cell."""
    if len(pool) < size:
        raise SampleError(
            f"match the size of {spec.setting} to cg-low",
            f"{len(pool)} pictures in its cells",
            f"at least {size}",
            "give more pictures or set size_matched = false",
        )
    stream = rng(f"subsample/{spec.setting}/{spec.test_domain}", spec.seed)
    shuffled = pool.iloc[stream.permutation(len(pool))]
    cells = shuffled.groupby(["domain", "label"], sort=True)
    rank = cells.cumcount()
    # exact in integers: ceil(size * n / len(pool)) without the rounding of a share
    quota = -(-size * cells["path"].transform("size") // len(pool))
    kept = shuffled[rank < quota]
    last = kept[(rank == quota - 1)[kept.index]]
    surplus = last.index[stream.permutation(len(last))[: len(kept) - size]]
    return kept.drop(surplus)


def _check_apart(train: pd.DataFrame, rest: pd.DataFrame) -> None:
    """No training picture may stand among those that models are tested or analysed on."""
    key = "hash" if "hash" in train.columns else "path"
    twins = train[train[key].isin(set(rest[key]))]
    if len(twins):
        raise LeakError(
            "train on these pictures",
            f"{len(twins)} that are also kept for testing ({listed(twins['path'])})",
            "train and test pictures that differ",
            "remove the duplicates",
        )


def check_manifest(manifest: dict[str, Any]) -> None:
    """Refuse a manifest that trains on a cell which its own specification withholds."""
    spec = MixtureSpec(
        **{**manifest["specification"], "held_out": tuple(manifest["specification"]["held_out"])}
    )
    cells = pd.DataFrame(
        [name.split("/", 1) for name, n in manifest["counts"].items() if n],
        columns=["domain", "label"],
    )
    withheld = cells[SETTINGS[spec.setting].withheld(cells, spec)]
    if len(withheld):
        names = [f"{row.label} in {row.domain}" for row in withheld.itertuples()]
        raise LeakError(
            f"train on the mixture {spec.setting}",
            f"pictures of {listed(names)}",
            "none of a withheld cell",
            "make the mixture again from its specification",
        )


def check_mixture(folder: Path) -> dict[str, Any]:
    """Read a mixture's manifest, see that its TSV is the one it describes, and return it.

    The TSV's own rows are held against the specification too: a manifest can be edited.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        tsv = pd.read_csv(folder / "train.tsv", sep="\t", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"open the mixture {folder}",
            f"files that do not read ({error})",
            "train.tsv and manifest.json",
            "make the mixture again",
        ) from None
    counts = tsv.groupby(["domain", "label"]).size()
    check_manifest({**manifest, "counts": {f"{d}/{c}": int(n) for (d, c), n in counts.items()}})  # type: ignore[misc]
    if file_hash(folder / "train.tsv") != manifest["tsv_hash"]:
        raise LeakError(
            f"train on {folder}",
            "a train.tsv that its manifest does not describe",
            "the TSV as it was written",
            "make the mixture again",
        )
    return manifest


def choose_held_out(labels: list[str], n: int, *, seed: int = 0) -> tuple[str, ...]:
    """`n` classes to withhold, drawn at random but repeatably.

    >>> choose_held_out(["cat", "dog", "owl"], 1)
    ('dog',)
    """
    if not 1 <= n < len(labels):
        raise SpecificationError(
            "hold out classes",
            f"{n} of {len(labels)}",
            f"1 to {len(labels) - 1}",
            "choose another number",
        )
    order = rng("held-out classes", seed).permutation(sorted(labels))
    return tuple(str(label) for label in np.sort(order[:n]))
