"""The middle layers: where sharing is asked about, fixed by depth before any result is seen.

Sharing at the final embedding nearly restates accuracy, so it is never among them.
"""

from collections.abc import Mapping

BAND = (1 / 3, 2 / 3)
"""Depth from a third to two thirds."""

BANDS = {"early": (0.0, BAND[0]), "middle": BAND, "late": (BAND[1], 1.0)}
"""The bands of depth; a site on a border counts as middle."""

LAST = "hook_embedding"
"""The final embedding, never part of the band."""


def middle_of(depths: Mapping[str, float]) -> str:
    """The site nearest to half depth, the final embedding aside; empty where there is none.

    >>> middle_of({"blocks.0.hook_resid_post": 0.4, "hook_embedding": 0.5})
    'blocks.0.hook_resid_post'
    """
    own = {site: depth for site, depth in depths.items() if site != LAST}
    return min(own, key=lambda site: abs(own[site] - 0.5)) if own else ""


def band_of(depth: float) -> str:
    """The name of the band that a depth lies in, "" where it is not known.

    >>> band_of(0.2), band_of(1 / 3), band_of(0.9), band_of(float("nan"))
    ('early', 'middle', 'late', '')
    """
    if not 0 <= depth <= 1:
        return ""
    if BAND[0] - 1e-9 <= depth <= BAND[1] + 1e-9:
        return "middle"
    return "early" if depth < BAND[0] else "late"
