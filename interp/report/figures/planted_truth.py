"""Figures of the validation on planted models: verdicts of sharing and recovery of circuits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED
from interp.declared.figures import BLUE, GREY, INDEX
from interp.report.grammar import pieces
from interp.report.naming import SIGNS

if TYPE_CHECKING:
    import plotly.graph_objects as go

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


def draw_truth(cells: pd.DataFrame, *, title: str = "Held against the truth") -> "go.Figure":
    """Draw how often measures of sharing are right on planted models: conditions by measures.

    Args:
        cells: The frame that `interp.validation.planted_ladder.judge` returns.
        title: The figure's title.

    Returns:
        A plotly figure.

    Notes:
        "● 5/6": "shared" is right, and said in 5 of 6 cells that have an index; "◐ 6/6": "partly
        shared" is, and said in all; "○ 6/6": "not shared"; "○ 0/0": none has an index. Blue: right,
        the fuller the more; grey: unknown, or no index; orange: at least one is wrong. A number
        alone is the mean index where the declared answer lies between. Empty: nothing is declared.

    >>> cells = pd.DataFrame({"condition": "rewired", "tier": "easy", "seed": 1, "dose": None,
    ...     "measure": "das", "expected": "shared", "outcome": ["right", "abstained"],
    ...     "index": [1.0, 0.4]})
    >>> draw_truth(cells).data[0].text[0][0]
    '● 1/2'
    """
    said = (
        f"{len(cells):,} cells. Planted: ● shared, ◐ partly, ○ not; right / with an index. Blue: "
        "right, grey: unknown or no index, orange: wrong"
    )
    return _heatmap(cells, "measure", MEASURES, _cell, title, said)


def draw_recovery(cells: pd.DataFrame, *, title: str = "Circuits found") -> "go.Figure":
    """Draw how well methods find the circuits of planted models: conditions and tiers by methods.

    Args:
        cells: The frame that `interp.validation.recover` returns.
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


@dataclass(frozen=True)
class Dosed:
    """A rung that carries a dose: the condition in which it does, and the measure it goes by.

    The index that is right for a dose is the dose to the `power`.
    """

    name: str
    condition: str
    measure: str
    power: int = 1

    def among(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Its cells with an index, at the sites where some dose is to be seen in part."""
        own = cells[(cells["condition"] == self.condition) & (cells["measure"] == self.measure)]
        sites = own.loc[own["expected"] == PARTLY, "site"].fillna("").unique()
        return own[own["site"].fillna("").isin(sites)].dropna(subset=["index"])


DOSED = (
    Dosed("R2 geometry", "dose of geometry", "cka", power=2),
    Dosed("R3 directions", "dose of parts", "directions"),
    Dosed("R4 causal directions", "dose", "das"),
    Dosed("R5 parts", "dose of parts", "neuron overlap"),
    Dosed("R6 wiring", "dose of parts", "neuron transfer"),
    Dosed("R5 parts, ResNet", "dose of networks", "neuron overlap"),
    Dosed("R6 wiring, ResNet", "dose of networks", "neuron transfer"),
)
"""Every rung that carries a dose."""


def draw_doses(
    cells: pd.DataFrame, *, title: str = "What was planted, and what is read"
) -> "go.Figure":
    """Draw the index of each rung against the planted dose, with the answers given.

    Args:
        cells: The frame that `interp.validation.planted_ladder.judge` returns.
        title: The figure's title.

    Returns:
        A plotly figure: a panel for each of the rungs that carry a dose. A point is the mean over
        sites and seeds, its bar the mean of the intervals' ends, its sign the commonest answer. The
        dotted line is the index that is right: the dose, and its square for R2's CKA.

    >>> cells = pd.DataFrame({"condition": "dose of parts", "measure": "directions", "site": "s",
    ...     "tier": "easy", "seed": 1, "dose": [0.0, 0.5, 1.0], "index": [0.0, 0.5, 1.0],
    ...     "index_low": 0.0, "index_high": 1.0,
    ...     "expected": ["not shared", "partly shared", "shared"],
    ...     "verdict": ["not shared", "partly shared", "shared"]})
    >>> draw_doses(cells).data[0].y.tolist()
    [0.0, 0.5, 1.0]
    """
    from plotly.subplots import make_subplots

    found = [(rung, rows) for rung in DOSED if len(rows := rung.among(cells))]
    names = [rung.name.replace(", ", ",<br>") for rung, _ in found]
    figure = make_subplots(1, len(found) or 1, subplot_titles=names, horizontal_spacing=0.03)
    right = np.linspace(0, 1, 41)
    for column, (rung, rows) in enumerate(found, start=1):
        by_dose = rows.groupby("dose")
        mean = by_dose[["index", "index_low", "index_high"]].mean()
        said = by_dose["verdict"].agg(lambda words: SIGNS[words.mode().iloc[0]])
        bars = pieces.error_bars(mean, INDEX, thickness=None, width=None)
        place = {"row": 1, "col": column, "showlegend": False}
        signs = {"mode": "lines+markers+text", "text": said, "textposition": "bottom right"}
        look = {"line": {"color": BLUE}, "marker": {"size": 8}, "error_y": bars, "name": rung.name}
        figure.add_scatter(x=mean.index, y=mean["index"].round(4), **signs, **look, **place)
        dotted = {"mode": "lines", "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip"}
        figure.add_scatter(x=right, y=right**rung.power, **dotted, **place)
    models = cells[cells["condition"].isin([rung.condition for rung in DOSED])]
    n = len(models.drop_duplicates(["condition", "tier", "dose", "seed"]))
    said = f"{n} planted models; bars: mean 95 % intervals. ● shared, ◐ partly, ○ not, ? unknown"
    figure.update_xaxes(title="planted dose", range=[-0.1, 1.15])
    figure.update_yaxes(range=[-0.4, 1.25])
    figure.update_yaxes(title="index", row=1, col=1)
    size = {"width": 1400, "height": 400, "margin": {"t": 110}}
    title = f"{title}<br><sup>{said}</sup>"
    return figure.update_layout(title=title, template="plotly_white", **size)


LOOK = {
    **{"texttemplate": "%{text}", "textfont": {"size": 11}, "showscale": False},
    **{"zmin": -1, "zmax": 1, "colorscale": SCALE},
}
"""How plotly is told of a map of answers."""

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
) -> "go.Figure":
    """Kinds of planted model against what was asked of them, in the order of `titles`."""
    import plotly.graph_objects as go

    cells = cells.assign(kind=[_kind(*each) for each in cells[KIND].itertuples(index=False)])
    kinds = list(dict.fromkeys(cells["kind"]))
    asked = [name for name in titles if name in set(cells[column])]
    grouped = dict(list(cells.groupby(["kind", column])))
    found = [[cell(grouped.get((kind, name), cells[:0])) for name in asked] for kind in kinds]
    models = cells.drop_duplicates(["condition", "tier", "seed", "dose"])
    trace = pieces.cells(
        [[score for score, _ in row] for row in found],
        [titles[name] for name in asked],
        kinds,
        text=[[text for _, text in row] for row in found],
        hovertemplate="%{y}<br>%{x}: %{text}<extra></extra>",
        **LOOK,
    )
    return go.Figure(
        data=[trace],
        layout={
            "title": f"{title}<br><sup>{len(models)} planted models, {said}</sup>",
            "width": 1000,
            "height": 140 + 24 * len(kinds),
            "margin": {"t": 120, "b": 20, "r": 20},
            "xaxis": {"side": "top", "type": "category"},
            "plot_bgcolor": "white",
            "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        },
    )


def _cell(own: pd.DataFrame) -> Cell:
    told = own[own["expected"].isin(ANSWERS)]
    if told.empty:
        between = own[own["expected"] == "in part"]["index"].dropna()
        return None, f"{between.mean():.2f}" if len(between) else ""
    said = []
    for answer in ANSWERS:
        came = told[told["expected"] == answer]["outcome"]
        if len(came):
            judged = int((came != "refused").sum())
            said.append(f"{SIGNS[answer]} {int((came == 'right').sum())}/{judged}")
    judged = told[told["outcome"] != "refused"]["outcome"]
    score = float((judged == "right").mean()) if len(judged) else 0.0
    return -1.0 if (judged == "wrong").any() else score, " ".join(said)


def _recovered(own: pd.DataFrame) -> Cell:
    if own.empty:
        return None, ""
    mean, lowest = own["auroc"].mean(), own["auroc"].min()
    asked = own.dropna(subset=["least"])
    if asked.empty:
        return 0.0, f"{mean:.2f}"
    short = bool((asked["auroc"] < asked["least"]).any())
    return (-1.0, f"{mean:.2f} ({lowest:.2f})") if short else (1.0, f"{mean:.2f}")
