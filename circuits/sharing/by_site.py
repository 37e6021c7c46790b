"""Circuits of two domains compared as a whole, and again at each site of units."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from interp.circuits.patching.sweep import depths
from interp.circuits.sharing.circuit_transfer import circuit_transfer
from interp.circuits.sharing.class_circuits import ClassCircuits
from interp.circuits.sharing.cuts import Units
from interp.circuits.sharing.overlap import overlap
from interp.core.sites import band_of
from interp.core.tables import Table

SITE_SHARES = (0.1, 0.2)
"""Sizes of circuits that are run at one site, where smaller ones are few units."""

OTHERS = 3
"""Circuits of other classes behind each null: every class is one of them for two others."""


def places(circuits: ClassCircuits) -> dict[str, dict[str, Any]]:
    """Where the sites of a cut by units stand; nothing for a cut by edges."""
    if not isinstance(circuits.cut, Units):
        return {}
    tower, sites = circuits.cut.tower, list(circuits.cut.widths)
    return {
        site: {"layer": tower.layer(site), "depth": depth, "band": band_of(depth)}
        for site, depth in zip(sites, depths(tower, sites), strict=True)
    }


def overlap_by_site(
    a: ClassCircuits, b: ClassCircuits, *, by_site: bool = True, seed: int = 0, **words: Any
) -> list[pd.DataFrame]:
    """What the circuits of two domains have in common, as a whole and at each site of units.

    Args:
        a: The circuits of one domain.
        b: Those of the other.
        by_site: Whether sites are compared, too.
        seed: Seed of permutations.
        words: Further keywords of `overlap`.

    Returns:
        Its rows, with `site` and where that stands; of the whole tower the site is empty.
    """
    words |= {"domains": (a.domain, b.domain), "level": a.cut.level, "seed": seed}
    return _by_site(a, b, by_site, lambda x, y, whole: overlap(x.scores, y.scores, **words))


def transfer_by_site(
    a: ClassCircuits,
    b: ClassCircuits,
    *,
    by_site: bool = True,
    seed: int = 0,
    shares: Sequence[float] | None = None,
    beside: bool = True,
) -> list[pd.DataFrame]:
    """What A's circuits do alone in B and what is lost without them, whole and at each site.

    Args:
        a: The circuits of A.
        b: Those of B.
        by_site: Whether those at each site are run, too.
        seed: Seed of random draws.
        shares: Sizes of circuits of the whole tower; None takes the usual ones.
        beside: Whether random parts, and sizes that no verdict rests on, are run for these, too.

    Returns:
        The rows of `circuit_transfer`, with `site` and where that stands.
    """
    frames = []
    for removed in (False, True):

        def moved(
            x: ClassCircuits, y: ClassCircuits, whole: bool, removed: bool = removed
        ) -> Table:
            sizes = shares if whole else SITE_SHARES
            return circuit_transfer(
                x,
                y,
                n_null=OTHERS,
                shares=sizes,
                removed=removed,
                beside=whole and beside,
                seed=seed,
            )

        frames += _by_site(a, b, by_site, moved)
    return frames


def _by_site(
    a: ClassCircuits,
    b: ClassCircuits,
    by_site: bool,
    compared: Callable[[ClassCircuits, ClassCircuits, bool], Table],
) -> list[pd.DataFrame]:
    """The whole tower's rows, and those of each site."""
    frames = [compared(a, b, True).frame.assign(site="", band="")]
    for site, place in places(a).items() if by_site else ():
        one = compared(a.only([site]), b.only([site]), False).frame
        frames.append(one.assign(site=site, **place))
    return frames
