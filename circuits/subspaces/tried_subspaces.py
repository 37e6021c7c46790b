"""Interchange of subspaces within domains: bases fitted in each domain, tried in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.patching.patched_cells import probe
from interp.circuits.subspaces.fitting import (
    SubspaceTask,
    fit_directions,
    smallest_that_carries,
    varied,
)
from interp.circuits.subspaces.interchanges import DasTask, Domain, Material
from interp.circuits.subspaces.subspace import Subspace, check_k, feature_axis
from interp.circuits.tasks.metrics import measure
from interp.core.errors import NumericsError
from interp.core.runs.batching import Batching
from interp.core.seeds import rng
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
class Tried:
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

    def given(self, domain: str, kind: str) -> Float[np.ndarray, "receiver"]:
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
) -> dict[str, Tried]:
    """Fit a subspace in each domain and on class-free pictures; interchange each in all domains.

    All have as many directions: `k`, or the fewest that carry the class in every domain.
    """
    given = {name: domain.material for name, domain in domains.items()}
    fitted = fit_site(tower, site, given, floors, task, k=k, where=where, rows=rows)
    both = fitted.first(fitted.k)
    del fitted  # it holds activations
    return {
        name: try_subspaces(
            tower,
            domain,
            both[name][0],
            {other: both[other] for other in domains if other != name},
            {kind: both[kind] for kind in floors},
            rows=rows,
            seed=task.seed,
        )
        for name, domain in domains.items()
    }


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
) -> Tried:
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
    if not np.isfinite(after).all():
        raise NumericsError(
            f"interchange activations at {own.site}",
            "NaN or infinity in the outputs",
            "finite numbers",
            "check the pictures, the class embeddings and the tower's own output",
        )
    n, ends = len(domain.base), np.cumsum([len(KINDS), len(FOREIGN) * len(others)])
    kinds, foreign, floor = np.split(after - domain.before, ends)
    return Tried(
        own,
        kinds,
        dict(zip(others, foreign.reshape(len(others), len(FOREIGN), n), strict=True)),
        dict(zip(floors, floor.reshape(len(floors), len(FLOOR), n), strict=True)),
    )
