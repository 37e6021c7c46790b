"""Planted tables of what crosses domains: causal directions, parts, circuits, and the ladder."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.sites import band_of
from interp.verdicts.judging import climb
from tests.report.planted_layers import PAIR, row_of

BACK = {"domain_a": "sketch", "domain_b": "real"}
WHOLE = {"site": "", "band": ""}


def ladder_tables(
    tables: Mapping[str, pd.DataFrame],
    index: Mapping[str, float],
    sites: Mapping[str, float],
    rung4: Mapping[str, float] | None,
) -> dict[str, pd.DataFrame]:
    """The tables of rungs R4 to R6 of settings that share so much, and the ladder of all rungs."""
    stages = {site: depth for site, depth in sites.items() if site.startswith("layer")}
    places = [
        WHOLE,
        *({"site": site, "depth": at, "band": band_of(at)} for site, at in stages.items()),
    ]
    names = ("das", "overlap", "circuit_transfer", "circuit_stability")
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for setting, shared in index.items():
        own = {"setting": setting, "test_domain": "sketch"}
        for ends in (PAIR, BACK):
            made["das"] += [
                row_of(own | {"site": site, "depth": depth} | ends, rung4[setting], measure="das")
                for site, depth in stages.items()
                if rung4 and setting in rung4
            ]
            made["circuit_transfer"] += [
                row_of(
                    own | ends | place | {"share": share, "level": "channel"},
                    shared * share**0.3,
                    measure="circuit transfer",
                    own=0.9,
                    random=0.1,
                )
                for place in places
                for share in (0.05, 0.1, 0.5)
            ]
            made["circuit_transfer"] += [
                row_of(
                    own | ends | place | {"level": "channel"},
                    shared,
                    measure="circuit transfer, mean over sizes",
                )
                for place in places
            ]
        made["overlap"] += [
            row_of(
                own | PAIR | {"site": site, "depth": depth, "level": "channel"},
                shared,
                measure=PRIMARY_OVERLAP,
            )
            for site, depth in stages.items()
        ]
        made["circuit_stability"] += [
            own
            | {"domain": domain, "site": site, "level": "channel", "measure": "parts found again"}
            | {"value": 0.9 - 0.3 * depth, "low": 0.8 - 0.3 * depth, "high": 0.95 - 0.3 * depth}
            | {"null": 0.1, "null_kind": "parts drawn by chance", "ceiling": 1.0, "n_edges": 10}
            | {"n_sure": 6, "n_units": 200, "unit": "draw of pictures", "n_pictures": 240}
            for domain in PAIR.values()
            for site, depth in {"": 0.5, **stages}.items()
        ]
    frames = {name: pd.DataFrame(rows) for name, rows in made.items() if rows}
    return frames | climb(dict(tables) | frames)
