"""What follows from changing an activation, as numbers per class: accuracy, probes, similarity."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from interp.probes.cells import LEAST_CLASSES, Cells
from interp.probes.cka import u_centred
from interp.probes.grams import across
from interp.probes.rows import varies
from interp.probes.separation import ridge

Seen = Mapping[str, Mapping[str, np.ndarray]]
"""Per condition: features "picture d" by where they were read, aligned with the cells' rows."""

CROSSED = ((0, 1), (1, 0))
"""The quarters that meet: they share no artist."""


@dataclass(frozen=True)
class Consequence:
    """One measure under every condition: its value, and its values with one class left out.

    `where` are the table's columns that say of what; a `reason` stands where there are no values.
    """

    measure: str
    where: dict[str, str]
    found: dict[str, tuple[float, np.ndarray]]
    n_classes: int
    reason: str = ""


def consequences(
    seen: Seen, right: Mapping[str, np.ndarray], cells: Cells, concept: str
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
    for read_at in next(iter(seen.values())):
        by_condition = {name: values[read_at].astype(np.float64) for name, values in seen.items()}
        yield from _read_by_probes(by_condition, cells, concept, read_at)
        yield from _similar(by_condition, cells, read_at)


def _over_classes(hits: np.ndarray, code: np.ndarray, n: int) -> tuple[float, np.ndarray]:
    """Mean over classes of the mean over their pictures, and the same without each class."""
    by_class = np.bincount(code, weights=hits, minlength=n) / np.bincount(code, minlength=n)
    return float(by_class.mean()), (by_class.sum() - by_class) / (n - 1)


def _read_by_probes(
    x: Mapping[str, np.ndarray], cells: Cells, concept: str, read_at: str
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
    cells: Cells,
    k: int,
) -> tuple[float, np.ndarray]:
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
    return float(np.mean([value for value, _ in parts])), np.mean([left for _, left in parts], 0)


def _similar(x: Mapping[str, np.ndarray], cells: Cells, read_at: str) -> Iterator[Consequence]:
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
            value, left = across(grams[a], grams[b], CROSSED)
            found = {
                condition: (float(value[place, place]), left[:, place, place])
                for place, condition in enumerate(x)
            }
        where = {"domain_a": cells.domains[a], "domain_b": cells.domains[b], "read_at": read_at}
        yield Consequence("similarity", where, found, k, reason)


def _grams(x: Mapping[str, np.ndarray], cells: Cells) -> tuple[np.ndarray, bool]:
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
