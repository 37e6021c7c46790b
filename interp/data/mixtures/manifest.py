"""Manifests: what a mixture holds, counted, hashed, and refused if it holds what it withholds.

A mixture is a folder with an open_clip TSV and `manifest.json`. The manifest is held against its
own specification when it is written and again whenever training opens it, and so are the TSV's
rows, for a manifest can be edited.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from interp.core.errors import DataError, LeakError, listed
from interp.core.faces.doors import door
from interp.core.storage.store import file_hash
from interp.data.mixtures.settings import BASE, MixtureSpec

Manifest: TypeAlias = dict[str, Any]
"""What a mixture holds, as its JSON says it."""


def counted(domains: pd.Series, labels: pd.Series) -> dict[str, int]:
    """Pictures per cell, under the name `domain/label`.

    >>> counted(pd.Series(["real", "real"]), pd.Series(["cat", "cat"]))
    {'real/cat': 2}
    """
    cells = labels.groupby([domains, labels], sort=True, observed=True).size()
    return {f"{domain}/{label}": int(n) for (domain, label), n in cells.items()}  # type: ignore[misc]


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest that trains on a cell which its own specification withholds.

    A cell with a dose is refused if it holds more than that share of its pictures; a dose of zero
    admits none.
    """
    spec = MixtureSpec.from_manifest(manifest["specification"])
    wrong = []
    for name, n in manifest["counts"].items():
        domain, label = name.split("/", 1)
        most = largest(domain, label, spec, manifest)
        if n > most:
            wrong.append(f"{label} in {domain}" + (f" ({n} for {most})" if most else ""))
    others = {name.split("/", 1)[0] for name, n in manifest["counts"].items() if n}
    others -= {spec.natural, spec.test_domain}
    if isinstance(spec.domains, int) and len(others) > spec.domains:
        wrong.append(f"{len(others)} domains ({listed(sorted(others))}) for {spec.domains}")
    if wrong:
        given = f"pictures of {listed(wrong)}"
        do = "make the mixture again from its specification"
        raise LeakError(f"train on the mixture {spec.name}", given, "none of a withheld cell", do)


def largest(domain: str, label: str, spec: MixtureSpec, manifest: Manifest) -> float:
    """The largest number of pictures that a cell may have; infinity where nothing bounds it."""
    replaced = manifest.get("replaced", {})
    available = manifest.get("available", {})
    is_foreign = label in spec.foreign
    if is_foreign or (spec.labels and label not in spec.labels):
        joined = domain == spec.test_domain and label in replaced.values()
        return _dosed(spec.seen_share, available.get(label)) if joined else 0
    if domain == spec.test_domain:
        if label in spec.held_out:
            return _dosed(spec.held_out_share, available.get(label))
        return 0 if label in replaced else _dosed(spec.seen_share, available.get(label))
    if domain == spec.natural:
        return math.inf
    named = spec.domains if isinstance(spec.domains, tuple) else (domain,)
    return math.inf if spec.kind.others and domain in named else 0


def _dosed(share: float, available: int | None) -> float:
    if share in (0, 1) or available is None:
        return math.inf if share else 0
    return math.ceil(share * available - 1e-9)


def check_mixture(folder: Path) -> Manifest:
    """Read a mixture's manifest, see that its TSV is the one it describes, and return it.

    The TSV's own rows are held against the specification too: a manifest can be edited.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        tsv = pd.read_csv(
            folder / "train.tsv",
            sep="\t",
            keep_default_na=False,
            usecols=["label", "domain"],
            dtype="category",
        )
    except (OSError, ValueError) as error:
        given = f"files that do not read ({error})"
        right = "train.tsv and manifest.json"
        do = "make the mixture again"
        raise DataError(f"open the mixture {folder}", given, right, do) from None
    own = tsv[(tsv["domain"] != BASE).to_numpy()]
    check_manifest({**manifest, "counts": counted(own["domain"], own["label"])})
    if file_hash(folder / "train.tsv") != manifest["tsv_hash"]:
        given = "a train.tsv that its manifest does not describe"
        right = "the TSV as it was written"
        raise LeakError(f"train on {folder}", given, right, "make the mixture again")
    return manifest


@door
def diff_manifests(a: Manifest, b: Manifest) -> str:
    """Say in one line what differs between two mixtures, from their manifests.

    Args:
        a: The manifest of the first mixture.
        b: The manifest of the second mixture.

    Returns:
        What `b` has that `a` has not, and the reverse: pictures, cells, shares, captions and base
        set.

    >>> counts = {"real/cat": 4, "sketch/cat": 4}
    >>> a = {"name": "cg-low", "pictures": 8, "counts": counts, "pictures_hash": "1"}
    >>> b = {"name": "cg-high", "pictures": 8, "counts": counts | {"art/cat": 1, "real/cat": 3},
    ...      "pictures_hash": "2"}
    >>> diff_manifests(a, b)
    'cg-low → cg-high: 8 pictures each; 1 cell more (in art); in the cells of both, 0 pictures more
     and 1 fewer'
    """
    names = " → ".join(str(each.get("name", "mixture")) for each in (a, b))
    if a["pictures_hash"] == b["pictures_hash"]:
        words = ["the same pictures"]
    else:
        words = [_sizes(a, b), *_cell_words(a["counts"], b["counts"])]
    for key, what in (
        ("share_natural", "natural share"),
        ("held_out_pictures", "held-out exposure"),
        ("captions_naming_domain", "captions that name their domain"),
    ):
        if a.get(key) != b.get(key):
            words.append(f"{what} {_value(a.get(key))} → {_value(b.get(key))}")
    if a.get("base") != b.get("base"):
        words.append(f"base set {_base(a)} → {_base(b)}")
    if words == ["the same pictures"] and a.get("tsv_hash") != b.get("tsv_hash"):
        words.append("other captions")
    return f"{names}: {'; '.join(words)}"


def _sizes(a: Manifest, b: Manifest) -> str:
    if a["pictures"] == b["pictures"]:
        return f"{a['pictures']} pictures each"
    return f"{a['pictures']} → {b['pictures']} pictures"


def _cell_words(a: Mapping[str, int], b: Mapping[str, int]) -> list[str]:
    """Cells that only one of them has, and the pictures gained and lost in those of both."""
    words = []
    for more, fewer, what in ((b, a, "more"), (a, b, "fewer")):
        only = [name for name, n in more.items() if n and not fewer.get(name)]
        if only:
            domains = sorted({name.split("/", 1)[0] for name in only})
            words.append(f"{_many(len(only), 'cell')} {what} (in {listed(domains)})")
    changes = [b[name] - n for name, n in a.items() if n and b.get(name)]
    gained = sum(change for change in changes if change > 0)
    lost = -sum(change for change in changes if change < 0)
    if gained or lost:
        words.append(f"in the cells of both, {gained} pictures more and {lost} fewer")
    elif not words:
        words.append("as many in every cell, but other pictures")
    return words


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _value(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _base(manifest: Manifest) -> str:
    base = manifest.get("base")
    return f"{base['path']} ({base['pictures']} pictures)" if base else "none"
