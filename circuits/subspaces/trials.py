"""Trials of subspaces: fitted in each domain, interchanged in all, and judged against nulls.

The nulls are another class as donor, a random subspace, and subspaces of pictures without a class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import feature_axis
from interp.circuits.patching.localise import class_mean, index_of, leave_out
from interp.circuits.patching.patched_cells import probe
from interp.circuits.subspaces.fit_subspace import (
    SubspaceTask,
    fit_directions,
    smallest_that_carries,
    varied,
)
from interp.circuits.subspaces.interchanges import DasTask, Domain, HeldOut, Material
from interp.circuits.subspaces.subspace import Subspace, check_k
from interp.circuits.tasks.metrics import check_finite, measure
from interp.core.parallel import Batching
from interp.core.seeds import rng
from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    LEAST_ROOM,
    NOT_SHARED,
    PARTLY,
    READER,
    SHARED,
    UNKNOWN,
    Index,
)
from interp.core.statistics.resampling import jackknife
from interp.core.tower import Tower

KINDS = ("own", "own null", "whole", "whole null", "random")
"""What a receiver is given: the part in its own domain's subspace, or the whole site; from a source
of the scored class or, for a null, of a third class. And the part in a random subspace as large.
"""

FOREIGN = ("fitted", "fitted null", "varied", "varied null")
"""The part in a subspace fitted on other pictures (another domain's, or class-free ones), and in
the directions that vary there when what that subspace reads does; from the same two sources.
"""

FLOOR = ("fitted", "varied")
"""The same of class-free pictures, from a source of the scored class alone."""


@dataclass(frozen=True, eq=False)
class Trial:
    """At one site in one domain: the subspace fitted there, and what subspaces do there.

    `effects` `[kind receiver]` are those of `KINDS`, `foreign[domain]` those of `FOREIGN` with the
    subspace of another domain, `floors[kind]` those of `FLOOR` with that of class-free pictures.
    """

    subspace: Subspace
    effects: Float[np.ndarray, "kind receiver"]
    foreign: Mapping[str, Float[np.ndarray, "role receiver"]]
    floors: Mapping[str, Float[np.ndarray, "part receiver"]]

    def __getitem__(self, kind: str) -> Float[np.ndarray, "receiver"]:
        return self.effects[KINDS.index(kind)]

    def of_other(self, domain: str, kind: str) -> Float[np.ndarray, "receiver"]:
        """What the subspace of another domain does here, by `FOREIGN`'s kinds."""
        return self.foreign[domain][FOREIGN.index(kind)]

    def of_floors(self, kind: str) -> dict[str, Float[np.ndarray, "receiver"]]:
        """What the subspace of each kind of class-free pictures does here, by `FLOOR`'s kinds."""
        return {name: effects[FLOOR.index(kind)] for name, effects in self.floors.items()}


def largest_subspaces(
    tower: Tower, sites: Sequence[str], pictures: Tensor, task: DasTask, *, n_classes: int
) -> dict[str, int]:
    """At each site the directions that are fitted: as asked, or as many as could be needed."""
    shapes = probe(tower, pictures, sites)[0]
    sizes = {}
    for site in sites:
        axes = tower.axes(site)
        width = shapes[site][axes.index(feature_axis(axes))]
        sizes[site] = max(1, min(n_classes - 1, width // 2)) if task.k is None else task.k
        check_k(site, sizes[site], width)
    return sizes


@dataclass(frozen=True, eq=False)
class FittedSite:
    """Subspaces of one site by what they were fitted on, and the runs that they were fitted to.

    `k` is how many of their first directions carry the class in every domain.
    """

    subspaces: Mapping[str, Subspace]
    tasks: Mapping[str, SubspaceTask]
    k: int

    def first(self, k: int) -> dict[str, tuple[Subspace, Subspace]]:
        """The first directions of each, and those that vary where it was fitted when they do."""
        firsts = {name: each.first(k) for name, each in self.subspaces.items()}
        return {name: (each, varied(self.tasks[name], each)) for name, each in firsts.items()}


def fit_site(
    tower: Tower,
    site: str,
    given: Mapping[str, Material],
    floors: Mapping[str, Material],
    task: DasTask,
    *,
    k: int,
    where: Mapping[str, int],
    rows: int,
) -> FittedSite:
    """Fit `k` directions in each domain and on class-free pictures."""
    at_once = task.rows(tower, site, next(iter(given.values())).pictures)
    fitted, tasks, sizes = {}, {}, []
    for name, one in {**given, **floors}.items():
        runs = hold(tower, site, one.pictures, rows=rows)
        tasks[name] = SubspaceTask(tower, runs, runs, one.pairs, one.alike, where)
        fitted[name] = fit_directions(tasks[name], task, k=k, rows=at_once)
        if name in given and task.k is None:
            sizes.append(smallest_that_carries(tasks[name], fitted[name], rows=rows))
    return FittedSite(fitted, tasks, max(sizes, default=k))


def try_site(
    tower: Tower,
    site: str,
    domains: Mapping[str, Domain],
    floors: Mapping[str, Material],
    task: DasTask,
    *,
    k: int,
    where: Mapping[str, int],
    rows: int,
) -> dict[str, Trial]:
    """Fit a subspace in each domain and on class-free pictures; interchange each in all domains.

    All have as many directions: `k`, or the fewest that carry the class in every domain.
    """
    given = {name: domain.material for name, domain in domains.items()}
    fitted = fit_site(tower, site, given, floors, task, k=k, where=where, rows=rows)
    both = fitted.first(fitted.k)
    del fitted  # it holds activations
    chance = {kind: both[kind] for kind in floors}
    trials: dict[str, Trial] = {}
    for name, domain in domains.items():
        foreign = {other: both[other] for other in domains if other != name}
        trials[name] = try_subspaces(
            tower, domain, both[name][0], foreign, chance, rows=rows, seed=task.seed
        )
    return trials


@torch.no_grad()
def try_subspaces(
    tower: Tower,
    domain: Domain,
    own: Subspace,
    others: Mapping[str, tuple[Subspace, Subspace]],
    floors: Mapping[str, tuple[Subspace, Subspace]],
    *,
    rows: int,
    seed: int,
) -> Trial:
    """How far each subspace, and its varied directions, move the metric of the receivers."""
    whole = own.with_basis(torch.eye(len(own.basis)))
    drawn = torch.from_numpy(rng("random subspace", seed).normal(size=own.basis.shape))
    by_chance = own.with_basis(torch.linalg.qr(drawn).Q)
    swaps = [(each, role) for each in (own, whole) for role in ("donor", "null")]
    swaps.append((by_chance, "donor"))
    for pair in others.values():
        swaps += [(each, role) for each in pair for role in ("donor", "null")]
    for pair in floors.values():
        swaps += [(each, "donor") for each in pair]

    def run(window: slice) -> Tensor:
        base, donor, null = (
            hold(tower, own.site, x[window], rows=rows)
            for x in (domain.base, domain.donor, domain.null)
        )
        sources = {"donor": donor.activation, "null": null.activation}
        found = []
        for subspace, role in swaps:
            outputs = base.finish(subspace.swap(base.activation, sources[role]))
            found.append(measure(domain.metric[window], outputs))
        return torch.stack(found)

    after = torch.cat(Batching(rows).each(len(domain.base), run), dim=1).double().cpu().numpy()
    check_finite(f"interchange activations at {own.site}", {"the outputs": after})
    n, ends = len(domain.base), np.cumsum([len(KINDS), len(FOREIGN) * len(others)])
    kinds, foreign, floor = np.split(after - domain.before, ends)
    return Trial(
        own,
        kinds,
        dict(zip(others, foreign.reshape(len(others), len(FOREIGN), n), strict=True)),
        dict(zip(floors, floor.reshape(len(floors), len(FLOOR), n), strict=True)),
    )


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

    def weak(self, tried: Trial, kind: str) -> str:
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
    here: Trial, there: Trial, a: str, own: Receivers, home: Receivers, rounding: float
) -> HeldAgainst:
    """Judge the bases of `a` tried `here`; or say why there is no index, or no "shared"."""
    nulls = {
        kind: {OTHER_CLASS: here.of_other(a, f"{kind} null"), BY_CHANCE: here["random"]}
        | {f"a subspace of {name}": does for name, does in here.of_floors(kind).items()}
        for kind in FLOOR
    }
    beyond, of_varied = (
        _against(here.of_other(a, kind), nulls[kind], here, own, rounding) for kind in FLOOR
    )
    plain, plain_varied = (
        _against(
            here.of_other(a, kind), {OTHER_CLASS: nulls[kind][OTHER_CLASS]}, here, own, rounding
        )
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
        index = replace(index, verdict=UNKNOWN, reason=f"{NO_MORE} ({beyond.null_kind})")
    return replace(beyond, index=of_one_code(index, of_varied.index, plain_varied.index))


def _against(
    value: np.ndarray, nulls: Mapping[str, np.ndarray], here: Trial, own: Receivers, rounding: float
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
        index = Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    return HeldAgainst(index, means, left, value - null, name)


def of_one_code(index: Index, varied: Index, plain: Index) -> Index:
    """An index that finds nothing where what varies in A may carry little in B, or no index at all.

    A subspace may move B because one reader takes two codes. What varies in A then does little in
    B; where that is sure, against another class alone (`plain`), the index is the reader's, and is
    withheld.
    """
    if plain.high < AMOUNT.not_below < index.high:
        found = f"what varies in A does {plain.low:.2f} to {plain.high:.2f} of B's own"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, f"{APART} ({found})")
    if index.verdict in VARIED and not varied.low > VARIED[index.verdict]:
        found = f"index of what varies in A: {varied.low:.2f} to {varied.high:.2f}"
        return replace(index, verdict=UNKNOWN, reason=f"{APART} ({varied.reason or found})")
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
    return Index(np.nan, np.nan, np.nan, UNKNOWN, reason) if reason else None
