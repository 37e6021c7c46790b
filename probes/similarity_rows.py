"""Table rows of two compared domains: value, null, ceiling, index and verdict, or why not."""

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import listed
from interp.core.statistics import CANNOT_TELL, Index, jackknife, sharing_index
from interp.probes.arrangements import CROSS_VALIDATED, title
from interp.probes.comparison import Comparison
from interp.probes.features import PIXELS, Features
from interp.probes.halves import hand_column
from interp.probes.measured import Design
from interp.probes.measures import MEASURES
from interp.probes.reordered import NULL_DRAWS

ESTIMANDS = {
    "class mean": "similarity between two domains of the arrangement of class means (rung R2)",
    "class structure": "similarity between two domains of class means and within-class covariances",
    "picture pair": "similarity between two domains of pictures paired by class",
}
NULL_KIND = (
    "whole classes of domain_b permuted, {mean}; p adjusted by max-T over the layers of a domain "
    "pair"
)


def comparison_rows(
    features: Features,
    other: Features,
    comparison: Comparison,
    design: Design,
    control: str,
) -> list[dict[str, object]]:
    """Table rows of one domain pair, a dict of columns for each pair of sites."""
    hand = hand_column(features.frame)
    sites, others = range(len(features.sites)), range(len(other.sites))
    cells = [(s, s) for s in sites] if design.layers == "same" else list(product(sites, others))
    name = title(design.measure)
    ceiling_kind, null_kind = _kinds(design)
    rows = []
    for s, t in cells:
        site, site_b = features.sites[s], other.sites[t]
        place: dict[str, object] = {"measure": name, "site": site}
        place |= {"layer": features.layer(site), "depth": features.depth(site)}
        if design.layers == "all":
            place |= {"site_b": site_b, "layer_b": other.layer(site_b)}
            place |= {"depth_b": other.depth(site_b)}
        p = float(comparison.p[0 if design.layers == "all" else 1, s, t])
        rows.append(
            place
            | {"domain_a": comparison.a, "domain_b": comparison.b}
            | _evidence(comparison, design, s, t)
            | {
                "p": p,
                "null_kind": null_kind,
                "ceiling_kind": f"{ceiling_kind}; halves by {hand}, equal n",
                "unit": "class",
                "n_units": len(comparison.classes),
                "n_pictures": comparison.n_pictures,
                "n_drawings": comparison.n_drawings,
                "estimand": ESTIMANDS[design.rows],
                "control": "pixels" if PIXELS in (site, site_b) else control,
            }
        )
    return rows


def _kinds(design: Design) -> tuple[str, str]:
    """What ceiling and null are, in words."""
    name = title(design.measure)
    ceiling = f"geometric mean of {name}(A1,A2), {name}(B1,B2)"
    if design.measure == CROSS_VALIDATED:
        ceiling = "1 by construction: scaled by HSIC(A1,A2), HSIC(B1,B2)"
    elif design.measure == "cka":
        ceiling = "geometric mean of CKA(A1,A2), CKA(B1,B2)"
    elif not MEASURES[design.measure].symmetric:
        ceiling += ", over both directions"
    mean = "the exact expectation"
    if not design.by_matrix:
        few = min(NULL_DRAWS, design.n_permutations)
        mean = (
            f"the mean of {design.n_permutations} drawn, with a class left out moved by the mean "
            f"change of {few} of them"
        )
    return ceiling, NULL_KIND.format(mean=mean)


def _evidence(comparison: Comparison, design: Design, s: int, t: int) -> dict[str, object]:
    """Value, ceiling, index, intervals and verdict of a site pair, or the reason for none."""
    reason = _reason(comparison, s, t)
    missing, found = np.nan if reason else 0.0, comparison.found
    value = np.r_[found.value[s, t], found.value_left[:, s, t]] + missing
    null = np.r_[found.null[s, t], found.null_left[:, s, t]] + missing
    ends = [
        np.r_[found.within[side][place], found.within_left[side][:, place]]
        for side, place in ((0, s), (1, t))
    ]
    ceiling = _root(*ends) + missing
    scaled, full = value, ceiling
    if design.measure == CROSS_VALIDATED:
        scaled = np.divide(value, ceiling, out=np.full_like(value, np.nan), where=ceiling > 0)
        full = np.where(ceiling > 0, 1.0, np.nan) + missing
    # an R^2 without relation is below 0, so that a ceiling of 0 would pass for one above the null
    unlike = not reason and not ceiling[0] > 0
    if unlike and (design.measure == CROSS_VALIDATED or null[0] < 0):
        reason = "halves of a domain do not agree"
    spread = jackknife(float(scaled[0]), scaled[1:])
    if reason:
        index = Index(np.nan, np.nan, np.nan, CANNOT_TELL, reason)
    else:
        triples = np.column_stack([value, null, ceiling])
        index = sharing_index(*map(float, triples[0]), left_out=triples[1:])
    fewer = f"{comparison.left_out} classes left out: not by two artists in both domains"
    notes = [index.reason, fewer if comparison.left_out and not reason else ""]
    return {
        "value": spread.value,
        "low": spread.low,
        "high": spread.high,
        "null": float(null[0]),
        "ceiling": float(full[0]),
        "index": index.value,
        "index_low": index.low,
        "index_high": index.high,
        "verdict": index.verdict,
        "reason": "; ".join(note for note in notes if note),
    }


def _root(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Geometric mean; 0 where a half says nothing about the other, which refuses the index."""
    return np.asarray(np.sqrt(np.maximum(a, 0) * np.maximum(b, 0)))


def _reason(comparison: Comparison, s: int, t: int) -> str:
    found = comparison.found
    if found.refused[s, t]:
        return str(found.refused[s, t])
    sides = ((comparison.a, found.failed[0][s]), (comparison.b, found.failed[1][t]))
    failed = {name: why for name, why in sides if why}
    return "; ".join(
        f"{why} in {listed(name for name in failed if failed[name] == why)}"
        for why in dict.fromkeys(failed.values())
    )
