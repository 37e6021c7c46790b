"""What the subspaces of one domain do in another, held against what would do it without sharing.

The nulls are another class as donor, a random subspace, and subspaces of pictures without a class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from interp.circuits.patching.localisation import class_mean, index_of, leave_out
from interp.circuits.subspaces.interchanges import HeldOut
from interp.circuits.subspaces.tried_subspaces import FLOOR, Tried
from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    CANNOT_TELL,
    LEAST_ROOM,
    NOT_SHARED,
    PARTLY,
    READER,
    SHARED,
    Index,
)
from interp.core.statistics.resampling import jackknife

APART = "one reader may take two codes: A's and B's classes may lie along different directions"
VARIED = {SHARED: 1 / 3, PARTLY: 0.1}
"""What the index of the varied part must clear for an answer to stand. Of codes that are half
shared it is .37; of one code beside unread ones of each domain's own, .43 to .57."""

NARROW = "the site is so narrow that any directions will do; lower k"
NO_MORE = "A's directions do some of the work in B, but no more than a null does"
OTHER_CLASS, BY_CHANCE = "another class as donor", "a random subspace"

WHOLE = "all directions of the site are interchanged: that compares no subspaces; lower k"


@dataclass(frozen=True, eq=False)
class Receivers:
    """The receivers of a domain: the scored class of each, and every class with a part in it."""

    labels: np.ndarray
    roles: np.ndarray

    @classmethod
    def of(cls, held: HeldOut, domain: str) -> "Receivers":
        rows = held.tested[domain].rows
        roles = rows[["label", "target_label", "null_label"]]
        return cls(rows["label"].to_numpy(), roles.to_numpy())

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.labels)

    def mean(self, effects: np.ndarray) -> float:
        """The mean over classes."""
        return float(class_mean(effects, self.labels))

    def strongest(self, effects: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
        """The name of the effect that is largest in the mean, and the effect."""
        name = max(effects, key=lambda each: self.mean(effects[each]))
        return name, effects[name]

    def means(self, *effects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Several means over classes, and the same with each class left out."""
        table = np.stack(effects, axis=1)
        return class_mean(table, self.labels), leave_out(table, self.labels, self.roles)

    def weak(self, tried: Tried, kind: str) -> str:
        """Why an interchange within a domain is too weak to compare with; empty if it is not."""
        means, left = self.means(tried[kind] - tried[f"{kind} null"])
        error = jackknife(means[0], left[:, 0]).error
        if means[0] > 3 * error or not np.isfinite(error):  # too few classes: the index says so
            return ""
        return f"{means[0]:.2g} beyond another class, below 3 standard errors ({3 * error:.2g})"


@dataclass(frozen=True, eq=False)
class HeldAgainst:
    """What the bases of a domain do in another at one site, held against the strongest null.

    `means` are value, null and ceiling, `left` the same without each class, `beyond` how far each
    receiver moves beyond the null.
    """

    index: Index
    means: np.ndarray
    left: np.ndarray
    beyond: np.ndarray
    null_kind: str


def judge_interchange(
    here: Tried, there: Tried, a: str, own: Receivers, home: Receivers, rounding: float
) -> HeldAgainst:
    """Judge the bases of `a` tried `here`; or say why there is no index, or no "shared"."""
    nulls = {
        kind: {OTHER_CLASS: here.given(a, f"{kind} null"), BY_CHANCE: here["random"]}
        | {f"a subspace of {name}": does for name, does in here.of_floors(kind).items()}
        for kind in FLOOR
    }
    beyond, of_varied = (
        _against(here.given(a, kind), nulls[kind], here, own, rounding) for kind in FLOOR
    )
    plain, plain_varied = (
        _against(here.given(a, kind), {OTHER_CLASS: nulls[kind][OTHER_CLASS]}, here, own, rounding)
        for kind in FLOOR
    )
    width, k = there.subspace.basis.shape
    without = _without_index(own.weak(here, "whole"), home.weak(there, "own"), k == width)
    if without:
        return replace(beyond, index=without)
    if plain.index.verdict == NOT_SHARED:
        return plain
    index = beyond.index
    if index.verdict == NOT_SHARED:
        index = replace(index, verdict=CANNOT_TELL, reason=f"{NO_MORE} ({beyond.null_kind})")
    return replace(beyond, index=of_one_code(index, of_varied.index, plain_varied.index))


def _against(
    value: np.ndarray, nulls: Mapping[str, np.ndarray], here: Tried, own: Receivers, rounding: float
) -> HeldAgainst:
    """An effect against the strongest of its nulls, the first of which is another class's."""
    name, null = own.strongest(nulls)
    means, left = own.means(value, null, here["own"])
    index = index_of(means, left, rounding=rounding)
    room, of_own = means[2] - means[1], means[2] - own.mean(nulls[OTHER_CLASS])
    if name != OTHER_CLASS and (room < LEAST_ROOM * of_own or np.isnan(index.value)):
        why = NARROW if name == BY_CHANCE else READER
        does = f"{why}: {name} does {1 - room / of_own:.0%} of what B's own does"
        reason = "; ".join(filter(None, [does, index.reason]))
        index = Index(np.nan, np.nan, np.nan, CANNOT_TELL, reason)
    return HeldAgainst(index, means, left, value - null, name)


def of_one_code(index: Index, varied: Index, plain: Index) -> Index:
    """An index that finds nothing where what varies in A may carry little in B, or no index at all.

    A subspace may move B because one reader takes two codes. What varies in A then does little in
    B; where that is sure, against another class alone (`plain`), the index is the reader's, and is
    withheld.
    """
    if plain.high < AMOUNT.not_below < index.high:
        found = f"what varies in A does {plain.low:.2f} to {plain.high:.2f} of B's own"
        return Index(np.nan, np.nan, np.nan, CANNOT_TELL, f"{APART} ({found})")
    if index.verdict in VARIED and not varied.low > VARIED[index.verdict]:
        found = f"index of what varies in A: {varied.low:.2f} to {varied.high:.2f}"
        return replace(index, verdict=CANNOT_TELL, reason=f"{APART} ({varied.reason or found})")
    return index


def by_reader(index: Index) -> bool:
    """Whether an index is withheld because a reader of the site would give it, sharing or not."""
    return bool(np.isnan(index.value)) and index.reason.startswith((READER, NARROW, APART))


def _without_index(no_whole: str, no_fit: str, all_of_it: bool) -> Index | None:
    reason = ""
    if all_of_it:
        reason = WHOLE
    elif no_whole:
        reason = f"the whole site does not carry the class: {no_whole}"
    elif no_fit:
        reason = f"the subspace does not carry the class in its own domain: {no_fit}"
    return Index(np.nan, np.nan, np.nan, CANNOT_TELL, reason) if reason else None
