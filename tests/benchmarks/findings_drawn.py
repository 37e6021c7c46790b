"""The picture of docs/findings.md: every claim about accuracy in every study, as a forest."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tests.benchmarks.findings import CLAIMS, WORTH, accuracy_findings

LOOKS = {"pilot": ("#8a8a8a", "square"), "weak": ("#0072B2", "circle"),
         "strong": ("#D55E00", "diamond"), "vit": ("#009E73", "triangle-up")}  # fmt: skip
"""Colour and marker of every study."""


def draw_findings(answers: Mapping[str, pd.DataFrame]) -> Any:
    """A row per claim; filled among all classes, hollow among the held-out ones alone."""
    import plotly.graph_objects as go

    shown = [
        (name, candidates, own)
        for name, own in answers.items()
        for candidates in ("all", "held-out")
        if (own["candidates"] == candidates).any()
    ]
    figure = go.Figure()
    for place, (name, candidates, own) in enumerate(shown):
        found = accuracy_findings(own, candidates=candidates)
        colour, symbol = LOOKS[name]
        among = "all classes" if candidates == "all" else "held-out classes alone"
        n = f"{found['n_blocks'].max()} blocks, {own['run'].nunique()} runs"
        aside = 0.62 * (place / max(1, len(shown) - 1) - 0.5)
        figure.add_scatter(
            x=100 * found["value"],
            y=found["number"] + aside,
            error_x={
                "type": "data",
                "symmetric": False,
                "array": 100 * (found["high"] - found["value"]),
                "arrayminus": 100 * (found["value"] - found["low"]),
                "thickness": 1.6,
                "width": 0,
            },
            mode="markers",
            marker={
                "color": colour,
                "size": 10,
                "symbol": symbol if candidates == "all" else f"{symbol}-open",
                "line": {"width": 2, "color": colour},
            },
            name=f"{name}, {among} ({n})",
        )
    ticks = [f"{claim.number}. {claim.says}" for claim in CLAIMS]
    for claim in CLAIMS[:-1]:
        figure.add_hline(claim.number + 0.5, line={"color": "#eee", "width": 1})
    figure.add_vline(0, line={"color": "#555", "width": 1})
    figure.add_vline(100 * WORTH, line={"color": "#999", "width": 1, "dash": "dot"})
    figure.update_layout(
        template="plotly_white",
        width=960,
        height=150 + 75 * len(CLAIMS),
        margin={"l": 10, "r": 20, "t": 20, "b": 110},
        font={"size": 14},
        legend={"orientation": "h", "y": -0.16, "x": 0, "xanchor": "left"},
        xaxis={
            "title": "points of accuracy on held-out classes in the test domain",
        },
        yaxis={
            "tickvals": [claim.number for claim in CLAIMS],
            "ticktext": ticks,
            "autorange": "reversed",
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
    )
    return figure
