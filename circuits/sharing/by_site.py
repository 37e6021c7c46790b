"""Circuits of two domains site by site: compared, and units chosen by what they do for a class."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.circuits.patching.sweep import depths
from interp.circuits.sharing.circuit_transfer import circuit_transfer
from interp.circuits.sharing.class_circuits import ClassCircuits
from interp.circuits.sharing.cuts import Units
from interp.circuits.sharing.overlap import overlap
from interp.core.errors import SampleError
from interp.core.seeds import rng
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


BOTH, DRAWN = "serves both domains", "drawn at random"

N_CHOSEN = 3
"""Units that are chosen, beside the one that is drawn."""


def strength(found: ClassCircuits, site: str) -> pd.DataFrame:
    """What each unit of a site does for each class, on the first half of the artists.

    The mean of its scores over the class's pairs, as a share of what all the site's units do,
    signs aside: `class unit`.
    """
    here = found.only([site])
    labels = here.halves[0].pairs.clean.label.to_numpy()
    means = pd.DataFrame(here.values[0]).groupby(labels).mean()
    return means.div(means.abs().sum(axis=1).replace(0, np.nan), axis=0).dropna()


def serving_units(a: ClassCircuits, b: ClassCircuits, site: str, *, seed: int = 0) -> pd.DataFrame:
    """Choose four units of a site: one that serves both domains, one of each, and one at random.

    Args:
        a: The circuits of one domain.
        b: Those of the other.
        site: The site.
        seed: Seed of the draw.

    Returns:
        `role`, `feature` (its place) and `chosen_for` (a class). The first does most for a class in
        both domains (the least of its two strengths), two do much more in one domain than in the
        other, and one is drawn from the rest.

    Raises:
        SampleError: Where units do nothing for a class in both domains, or are too few.
    """
    first, second = strength(a, site).align(strength(b, site), join="inner", axis=0)
    if first.empty or first.shape[1] <= N_CHOSEN:
        given = f"{len(first)} classes that its {first.shape[1]} units tell in both domains"
        right = f"one or more, and more than {N_CHOSEN} units"
        do = "show the same classes in both domains"
        raise SampleError(f"choose units of {site}", given, right, do)
    by_role = {
        BOTH: np.minimum(first, second),
        serves_more(a.domain): first - second.clip(lower=0),
        serves_more(b.domain): second - first.clip(lower=0),
    }
    rows: list[dict[str, object]] = []
    for role, scores in by_role.items():
        left = scores.drop(columns=[row["feature"] for row in rows])
        label, feature = left.stack().idxmax()
        rows.append({"role": role, "feature": feature, "chosen_for": label})
    rest = first.columns.difference([row["feature"] for row in rows])
    drawn = rng("a unit to look at", seed).choice(rest.to_numpy())
    return pd.DataFrame([*rows, {"role": DRAWN, "feature": int(drawn), "chosen_for": ""}])


def serves_more(domain: str) -> str:
    """The role of a unit that does more for a class in one domain."""
    return f"serves {domain} more"
