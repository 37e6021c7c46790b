"""Units chosen by what they do for a class in two domains, to be looked at."""

import numpy as np
import pandas as pd

from interp.circuits.sharing.class_circuits import ClassCircuits
from interp.core.errors import SampleError
from interp.core.seeds import rng

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
