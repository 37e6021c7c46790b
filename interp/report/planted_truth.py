"""Figures of the validation on planted models: verdicts of sharing and recovery of circuits."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED
from interp.report.naming import SIGNS

ANSWERS = (SHARED, PARTLY, NOT_SHARED)
"""What is right or wrong."""

MEASURES = {
    "probe transfer": "probe<br>transfer",
    "cka": "CKA",
    "directions": "LDA<br>cosine",
    "das": "DAS",
    "transplant": "transplant",
    "neuron overlap": "neuron<br>overlap",
    "node overlap": "node<br>overlap",
    "edge overlap": "edge<br>overlap",
    "neuron transfer": "neuron<br>transfer",
    "circuit transfer": "circuit<br>transfer",
}
"""What is written over a measure's column, from the ladder's lower rungs to its upper ones."""

METHODS = {
    "path patching": "path<br>patching",
    "resample ablation": "resample<br>ablation",
    "integrated gradients": "integrated<br>gradients",
    "EAP-IG-inputs": "EAP-IG<br>inputs",
    "EAP-IG-activations": "EAP-IG<br>activations",
    "EAP": "EAP",
    "RelP": "RelP",
    "learned masks": "learned<br>masks",
    "ensemble": "ensemble",
    "random": "random",
}
"""What is written over a method's column, from exchanges to chance."""

SCALE = [[0, "#D55E00"], [0.49, "#D55E00"], [0.5, "#E8E8E8"], [1, "#56B4E9"]]
"""Orange where anything is wrong; from grey, where nothing is decided, to blue, all right."""


def draw_truth(cells: pd.DataFrame, *, title: str = "Held against the truth") -> Any:
    """Draw how often measures of sharing are right on planted models: conditions by measures.

    Args:
        cells: The frame that `interp.validation.sharing.judge` returns.
        title: The figure's title.

    Returns:
        A plotly figure.

    Notes:
        "● 5/6": "shared" is right, and said in 5 of 6 cells; "◐ 6/6": "partly shared" is, and said
        in all; "○ 6/6": "not shared". Blue: right, the fuller the more; grey: cannot tell; orange:
        at least one is wrong. A number alone is the mean index where the declared answer lies
        between. Empty: nothing is declared.

    >>> cells = pd.DataFrame({"condition": "rewired", "tier": "easy", "seed": 1, "dose": None,
    ...     "measure": "das", "expected": "shared", "outcome": ["right", "abstained"],
    ...     "index": [1.0, 0.4]})
    >>> draw_truth(cells).data[0].text[0][0]
    '● 1/2'
    """
    said = (
        f"{len(cells):,} cells. Planted: ● shared, ◐ partly, ○ not; right / declared. Blue: right, "
        "grey: cannot tell, orange: wrong"
    )
    return _heatmap(cells, "measure", MEASURES, _cell, title, said)


def draw_recovery(cells: pd.DataFrame, *, title: str = "Circuits found") -> Any:
    """Draw how well methods find the circuits of planted models: conditions and tiers by methods.

    Args:
        cells: The frame that `interp.validation.discovery.recover` returns.
        title: The figure's title.

    Returns:
        A plotly figure.

    Notes:
        A cell is the mean AUROC of the method's scores for belonging to the circuit, over planted
        models and domains. Blue: every one reaches the value that it must; orange: one does not,
        and the lowest stands beside the mean; grey: declared blind; empty: not taken.

    >>> cells = pd.DataFrame({"condition": "rewired", "tier": "easy", "seed": 1, "dose": None,
    ...     "domain": ["A", "B"], "method": "EAP", "auroc": [0.97, 0.95], "least": 0.9})
    >>> draw_recovery(cells).data[0].text[0][0]
    '0.96'
    """
    said = (
        "two domains: mean AUROC of scores for belonging to the circuit. Blue: reaches its bar, "
        "orange: one does not (lowest), grey: declared blind"
    )
    return _heatmap(cells, "method", METHODS, _recovered, title, said)


Cell = tuple[float | None, str]
"""A number for the colour (-1 wrong, else the share that is right), and what is written."""


KIND = ["condition", "tier", "dose"]


def _kind(condition: str, tier: str, dose: float | None) -> str:
    """A kind of planted model in words, each dose one of its own."""
    known = dose is not None and dose == dose
    return f"{condition} {dose:g} · {tier}" if known else f"{condition} · {tier}"


def _heatmap(
    cells: pd.DataFrame,
    column: str,
    titles: Mapping[str, str],
    cell: Callable[[pd.DataFrame], Cell],
    title: str,
    said: str,
) -> Any:
    """Kinds of planted model against what was asked of them, in the order of `titles`."""
    import plotly.graph_objects as go

    cells = cells.assign(kind=[_kind(*each) for each in cells[KIND].itertuples(index=False)])
    kinds = list(dict.fromkeys(cells["kind"]))
    asked = [name for name in titles if name in set(cells[column])]
    grouped = dict(list(cells.groupby(["kind", column])))
    found = [[cell(grouped.get((kind, name), cells[:0])) for name in asked] for kind in kinds]
    models = cells.drop_duplicates(["condition", "tier", "seed", "dose"])
    trace = go.Heatmap(
        x=[titles[name] for name in asked],
        y=kinds,
        z=[[score for score, _ in row] for row in found],
        text=[[text for _, text in row] for row in found],
        texttemplate="%{text}", textfont={"size": 11}, hoverongaps=False,
        hovertemplate="%{y}<br>%{x}: %{text}<extra></extra>",
        zmin=-1, zmax=1, colorscale=SCALE, showscale=False, xgap=2, ygap=2,
    )  # fmt: skip
    return go.Figure(
        data=[trace],
        layout={
            "title": f"{title}<br><sup>{len(models)} planted models, {said}</sup>",
            "width": 1000, "height": 140 + 24 * len(kinds),
            "margin": {"t": 120, "b": 20, "r": 20},
            "xaxis": {"side": "top", "type": "category"}, "plot_bgcolor": "white",
            "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        },
    )  # fmt: skip


def _cell(own: pd.DataFrame) -> Cell:
    told = own[own["expected"].isin(ANSWERS)]
    if told.empty:
        between = own[own["expected"] == "in part"]["index"].dropna()
        return None, f"{between.mean():.2f}" if len(between) else ""
    right = told["outcome"] == "right"
    said = [
        f"{SIGNS[answer]} {int(right[told['expected'] == answer].sum())}/{n}"
        for answer in ANSWERS
        if (n := int((told["expected"] == answer).sum()))
    ]
    wrong = bool((told["outcome"] == "wrong").any())
    return -1.0 if wrong else float(right.mean()), " ".join(said)


def _recovered(own: pd.DataFrame) -> Cell:
    if own.empty:
        return None, ""
    mean, lowest = own["auroc"].mean(), own["auroc"].min()
    asked = own.dropna(subset=["least"])
    if asked.empty:
        return 0.0, f"{mean:.2f}"
    short = bool((asked["auroc"] < asked["least"]).any())
    return (-1.0, f"{mean:.2f} ({lowest:.2f})") if short else (1.0, f"{mean:.2f}")
