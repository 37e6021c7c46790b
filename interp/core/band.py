"""The middle layers: where sharing is asked about, fixed by depth before any result is seen.

Sharing at the final embedding nearly restates accuracy, so it is never among them.
"""

from collections.abc import Mapping

BAND = (1 / 3, 2 / 3)
"""Depth from a third to two thirds."""

LAST = "hook_embedding"
"""The final embedding, never part of the band."""


def middle_of(depths: Mapping[str, float]) -> str:
    """The site nearest to half depth, the final embedding aside; empty where there is none.

    >>> middle_of({"blocks.0.hook_resid_post": 0.4, "hook_embedding": 0.5})
    'blocks.0.hook_resid_post'
    """
    own = {site: depth for site, depth in depths.items() if site != LAST}
    return min(own, key=lambda site: abs(own[site] - 0.5)) if own else ""
