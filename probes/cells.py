"""Pictures balanced over class and domain, dealt by artists: who is fitted to, who is judged.

And the labels of a concept (domain or class) with permutations that move whole groups.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.probes.halves import dealt_artists, equally_many, hands

LEAST_CLASSES = 4


@dataclass(frozen=True)
class Cells:
    """Balanced pictures: a class has equally many in every domain, within a half of the artists.

    `rows` are places in the frame; aligned with them are `code` (the class's place in `classes`),
    `domain` (its place in `domains`), `half` and `quarter` (of the artists within a half), and
    `labels` "picture labelling": those of the concept, then permuted ones, of `n_values` values.
    `fine` are the classes that every domain has in every quarter.
    """

    classes: list[str]
    domains: list[str]
    rows: np.ndarray
    code: np.ndarray
    domain: np.ndarray
    half: np.ndarray
    quarter: np.ndarray
    labels: np.ndarray
    n_values: int
    left_out: int

    @property
    def fine(self) -> np.ndarray:
        """Codes of the classes that every domain has in every quarter."""
        seen = np.zeros((len(self.classes), len(self.domains), 2, 2), dtype=bool)
        seen[self.code, self.domain, self.half, self.quarter] = True
        return np.flatnonzero(seen.all(axis=(1, 2, 3)))


def balanced_cells(frame: pd.DataFrame, *, concept: str, n_permutations: int, seed: int) -> Cells:
    """Classes that all domains have in both halves of the artists, and equally many pictures.

    Raises `SampleError` for fewer than two domains, or fewer than four such classes.

    >>> frame = pd.DataFrame([(c, d, r) for c in "pqrs" for d in "ab" for r in "wxyz"],
    ...                      columns=["label", "domain", "artist"])
    >>> cells = balanced_cells(frame, concept="domain", n_permutations=1, seed=0)
    >>> len(cells.rows), cells.fine.tolist(), cells.labels.shape
    (32, [0, 1, 2, 3], (32, 2))
    """
    domains = sorted(set(frame["domain"]))
    half = dealt_artists(frame, domains, seed=seed)
    label, domain = frame["label"].to_numpy(object), frame["domain"].to_numpy(object)
    stream = rng("balanced cells", seed)
    kept: list[np.ndarray] = []
    classes: list[str] = []
    for name in sorted(set(label)):
        cells = [
            [np.flatnonzero((label == name) & (half == side) & (domain == d)) for d in domains]
            for side in (0, 1)
        ]
        if min(len(rows) for side in cells for rows in side) == 0:
            continue
        classes.append(name)
        for side in cells:
            kept += equally_many(side, stream)
    if len(domains) < 2 or len(classes) < LEAST_CLASSES:
        raise SampleError(
            f"erase the {concept}",
            f"{len(domains)} domains and {len(classes)} classes by two artists in each of them",
            f"two domains and {LEAST_CLASSES} classes",
            "give more classes, or two artists for each class and domain",
        )
    rows = np.concatenate(kept)
    quarter = np.zeros(len(frame), dtype=np.int8)
    for side in (0, 1):
        mine = np.flatnonzero(half == side)
        part = frame.iloc[mine].reset_index(drop=True)
        quarter[mine] = dealt_artists(part, domains, seed=seed + 1)
    codes = pd.Index(classes).get_indexer(label[rows])
    places = pd.Index(domains).get_indexer(domain[rows])
    labels = _labellings(
        concept, codes, places, half[rows], hands(frame)[rows], n_permutations,
        rng("permuted concept", seed),
    )  # fmt: skip
    return Cells(
        classes, domains, rows, codes, places, half[rows], quarter[rows], labels,
        len(domains) if concept == "domain" else len(classes), len(set(label)) - len(classes),
    )  # fmt: skip


def _labellings(
    concept: str,
    code: np.ndarray,
    domain: np.ndarray,
    half: np.ndarray,
    who: np.ndarray,
    n: int,
    stream: np.random.Generator,
) -> np.ndarray:
    """The concept's labels, then permuted ones: "picture labelling".

    Domains are permuted over the class x artist x domain groups of a class: those of one artist
    among themselves where there are several, the others' together. Classes are permuted over class
    x artist groups, each with all its domains.
    """
    own = domain if concept == "domain" else code
    table = pd.DataFrame({"code": code, "domain": domain, "half": half, "who": who, "own": own})
    keys = ["half", "code", "who", "domain"] if concept == "domain" else ["half", "code", "who"]
    group = table.groupby(keys, sort=True).ngroup().to_numpy()
    first = table.assign(group=group).groupby("group").first()
    if concept == "domain":
        several = first.groupby(["half", "code", "who"])["domain"].transform("size") > 1
        among = [first["half"], first["code"], first["who"].where(several, "alone")]
    else:
        among = [first["half"]]
    members = [np.asarray(rows) for rows in first.groupby(among).indices.values()]
    labellings = [own]
    for _ in range(n):
        drawn = first["own"].to_numpy().copy()
        for rows in members:
            drawn[rows] = stream.permutation(drawn[rows])
        labellings.append(drawn[group])
    return np.stack(labellings, axis=1)
