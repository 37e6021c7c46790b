"""Outcomes of changing an activation, as numbers per class: accuracy, probes, similarity."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from interp.core.artists import artists_of, dealt_artists
from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import leaving_out
from interp.probes.features.features import varies
from interp.probes.linear.solver import ridge
from interp.probes.representational_similarity.cka import u_centred
from interp.probes.representational_similarity.halved_pairs import balanced_pictures
from interp.probes.representational_similarity.permuting import across

LEAST_CLASSES = 4


@dataclass(frozen=True)
class BalancedCells:
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


def balanced_cells(
    frame: pd.DataFrame, *, concept: str, n_permutations: int, seed: int
) -> BalancedCells:
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
    generator = rng("balanced cells", seed)
    classes, rows, codes = balanced_pictures(frame, domains, half, generator)
    if len(domains) < 2 or len(classes) < LEAST_CLASSES:
        given = f"{len(domains)} domains and {len(classes)} classes by two artists in each of them"
        right = f"two domains and {LEAST_CLASSES} classes"
        do = "give more classes, or two artists for each class and domain"
        raise SampleError(f"erase the {concept}", given, right, do)
    quarter = np.zeros(len(frame), dtype=np.int8)
    for side in (0, 1):
        mine = np.flatnonzero(half == side)
        part = frame.iloc[mine].reset_index(drop=True)
        quarter[mine] = dealt_artists(part, domains, seed=seed + 1)
    places = pd.Index(domains).get_indexer(frame["domain"].to_numpy(object)[rows])
    labels = _labellings(
        concept,
        codes,
        places,
        half[rows],
        artists_of(frame)[rows],
        n_permutations,
        rng("permuted concept", seed),
    )
    return BalancedCells(
        classes,
        domains,
        rows,
        codes,
        places,
        half[rows],
        quarter[rows],
        labels,
        n_values=len(domains) if concept == "domain" else len(classes),
        left_out=frame["label"].nunique() - len(classes),
    )


def _labellings(
    concept: str,
    code: np.ndarray,
    domain: np.ndarray,
    half: np.ndarray,
    who: np.ndarray,
    n: int,
    generator: np.random.Generator,
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
            drawn[rows] = generator.permutation(drawn[rows])
        labellings.append(drawn[group])
    return np.stack(labellings, axis=1)


Seen = Mapping[str, Mapping[str, np.ndarray]]
"""Per condition: features "picture d" by where they were read, aligned with the cells' rows."""

CROSSED = ((0, 1), (1, 0))
"""The quarters that meet: they share no artist."""


@dataclass(frozen=True)
class Consequence:
    """One measure under every condition: its values "left", of all classes, then each left out.

    `where` are the table's columns that say of what; a `reason` stands where there are no values.
    """

    measure: str
    where: dict[str, str]
    found: dict[str, np.ndarray]
    n_classes: int
    reason: str = ""


def consequences(
    seen: Seen, right: Mapping[str, np.ndarray], cells: BalancedCells, concept: str
) -> Iterator[Consequence]:
    """All measures; `right` says per condition which pictures the classifier names right."""
    for place, name in enumerate(cells.domains if right else ()):
        mine = cells.domain == place
        found = {
            condition: _over_classes(hits[mine], cells.code[mine], len(cells.classes))
            for condition, hits in right.items()
        }
        yield Consequence(
            "accuracy", {"domain": name, "read_at": "embedding"}, found, len(cells.classes)
        )
    for read_at in next(iter(seen.values()), ()):
        by_condition = {name: values[read_at].astype(np.float64) for name, values in seen.items()}
        yield from _read_by_probes(by_condition, cells, concept, read_at)
        yield from _similar(by_condition, cells, read_at)


def _over_classes(hits: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """Mean over classes of the mean over their pictures, and the same without each class."""
    by_class = np.bincount(code, weights=hits, minlength=n) / np.bincount(code, minlength=n)
    return leaving_out(by_class)


def _read_by_probes(
    x: Mapping[str, np.ndarray], cells: BalancedCells, concept: str, read_at: str
) -> Iterator[Consequence]:
    fine = cells.fine
    k, reason = len(fine), ""
    if k < LEAST_CLASSES:
        reason = f"{k} classes by four artists in every domain, {LEAST_CLASSES} are needed"
    known = np.isin(cells.code, fine)
    code = np.searchsorted(fine, cells.code)
    own = code if concept == "class" else cells.domain
    everywhere = np.ones(len(known), dtype=bool)
    asked = [(f"{concept} probe", {"read_at": read_at}, own, everywhere, everywhere)]
    for a, b in permutations(range(len(cells.domains)), 2):
        where = {"read_at": read_at, "train_domain": cells.domains[a], "domain": cells.domains[b]}
        asked.append(("transfer", where, code, cells.domain == a, cells.domain == b))
    for measure, where, labels, trains, tests in asked:
        found = {
            condition: _probed(values, labels, code, trains & known, tests & known, cells, k)
            for condition, values in (x.items() if not reason else ())
        }
        yield Consequence(measure, where, found, k, reason)


def _probed(
    x: np.ndarray,
    labels: np.ndarray,
    code: np.ndarray,
    trains: np.ndarray,
    tests: np.ndarray,
    cells: BalancedCells,
    k: int,
) -> np.ndarray:
    """Accuracy of ridge probes, each trained on a quarter and tested on the other of its half."""
    hits = np.zeros(len(x))
    targets = np.eye(int(labels[trains].max()) + 1)
    for half in (0, 1):
        for train, test in CROSSED:
            here = cells.half == half
            fit = np.flatnonzero(trains & here & (cells.quarter == train))
            check = np.flatnonzero(tests & here & (cells.quarter == test))
            said = ridge(x[fit], x[check], targets[labels[fit]]).argmax(axis=1)
            hits[check] = said == labels[check]
    # a class's domains count equally, whatever number of pictures a quarter holds of each
    parts = [
        _over_classes(hits[chosen], code[chosen], k)
        for place in range(len(cells.domains))
        if (chosen := tests & (cells.domain == place)).any()
    ]
    return np.mean(parts, axis=0)


def _similar(
    x: Mapping[str, np.ndarray], cells: BalancedCells, read_at: str
) -> Iterator[Consequence]:
    """Debiased CKA between two domains' class means, of quarters that share no artist."""
    k, least = len(cells.fine), LEAST_CLASSES + 1
    grams, constant = np.empty(0), False
    if k >= least:
        grams, constant = _grams(x, cells)
    reason = f"{k} classes by four artists in every domain, {least} are needed" if k < least else ""
    reason = reason or ("constant features" if constant else "")
    for a, b in combinations(range(len(cells.domains)), 2):
        found = {}
        if not reason:
            met = across(grams[a], grams[b], CROSSED)
            found = {condition: met[:, place, place] for place, condition in enumerate(x)}
        where = {"domain_a": cells.domains[a], "domain_b": cells.domains[b], "read_at": read_at}
        yield Consequence("similarity", where, found, k, reason)


def _grams(x: Mapping[str, np.ndarray], cells: BalancedCells) -> tuple[np.ndarray, bool]:
    """U-centred Gram matrices of length 1: "domain half quarter condition class class"."""
    fine = cells.fine
    k = len(fine)
    grams = np.zeros((len(cells.domains), 2, 2, len(x), k, k))
    constant = False
    for d, half, quarter in np.ndindex(len(cells.domains), 2, 2):
        rows = np.flatnonzero(
            (cells.domain == d)
            & (cells.half == half)
            & (cells.quarter == quarter)
            & np.isin(cells.code, fine)
        )
        member = (cells.code[rows] == fine[:, None]).astype(float)
        member /= member.sum(axis=1, keepdims=True)
        for place, values in enumerate(x.values()):
            means = member @ values[rows]
            centred = means - means.mean(axis=0)
            gram = u_centred(centred @ centred.T)
            length = float(np.linalg.norm(gram))
            if length > 0 and varies(centred, float(np.abs(values).max())):
                grams[d, half, quarter, place] = gram / length
            else:
                constant = True
    return grams, constant
