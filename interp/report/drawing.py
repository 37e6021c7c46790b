"""The page's figures as plotly figures of their own, to be saved, changed or shown elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.core.errors import SpecificationError, check_known, listed
from interp.core.tables import Table
from interp.declared.figures import PAIR
from interp.declared.measures import declared_figure
from interp.models.evaluation.decision_bias import AS_IS, EXCESS_BIAS, DecisionBias
from interp.report.figures.answer import answer_figure
from interp.report.figures.behind_accuracy import TRADEOFF
from interp.report.figures.circuit_graphs import draw_circuit
from interp.report.figures.ladders import draw_ladder
from interp.report.figures.one_model import draw_effects, draw_faithfulness, draw_match, draw_names
from interp.report.figures.sharing_profiles import draw_profile
from interp.report.figures.specification_curves import choices_figure, in_short
from interp.report.grammar.figure_rows import figure_rows
from interp.report.grammar.pieces import LEGEND, Figure, Trace, bare
from interp.report.loaded import LoadedResult, read_result, whole
from interp.report.page_model import page_model
from interp.report.sections import draw_figure, filled_sections, page_sections

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH, TOP = 900, 110
"""Pixels across, and above the plot for title and legend."""

ENTRY, LETTER, LINE, GAP = 60, 7.5, 17, 8
"""Pixels of a legend: of an entry beside its words, of a letter, of a line, and between rows."""

TITLED = 50
"""Pixels of the title and the choices below it."""

TITLE = {"x": 0.02, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 28}}
"""Where a title stands: from the left, above all."""


def result_figures(folder: str | Path) -> dict[str, "go.Figure"]:
    """Draw every figure of a result's page as a plotly figure of its own.

    Args:
        folder: The result's folder.

    Returns:
        `plotly.graph_objects.Figure` by name.

    Raises:
        DataError: If the folder has no facts.

    Notes:
        Where the page has choices (a layer, a setting), the first choice is drawn, and the title
        says which. A figure's caption, with n, interval and null, is its `layout.meta["caption"]`.

    >>> import tempfile
    >>> import pandas as pd
    >>> from interp.core.tables import Table
    >>> losses = pd.DataFrame({"setting": "cg-high", "test_domain": "sketch", "seed": 0,
    ...                        "epoch": [1, 2], "loss": [2.0, 1.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Table("losses", losses).save(f"{folder}/tables")
    ...     _ = (Path(folder) / "facts.json").write_text("{}")
    ...     list(result_figures(folder))
    ['losses']
    """
    page = page_model(read_result(Path(folder)))
    first, _ = answer_figure(page)
    drawn = [first] if first else []
    drawn += [figure for section in filled_sections(page) for figure in section.figures]
    return {figure.name: draw(figure) for figure in drawn}


def draw_multiverse(table: Table, *, rung: str = "", title: str = "") -> "go.Figure":
    """Draw a specification curve: indices sorted, with the options of each below.

    Args:
        table: `interp.multiverse(...)`.
        rung: `R5` or `R6`; empty takes the stronger one that the table has.
        title: The figure's title; empty takes the page's.

    Returns:
        A plotly figure; the caption is its `layout.meta["caption"]`.

    Raises:
        SpecificationError: For a rung that the table does not have, or one without any index.

    >>> rows = pd.DataFrame({"rung": "R6", "metric": ["margin", "probability"], "index": [0.9, 0.8],
    ...     "index_low": 0.7, "index_high": 1.0, "verdict": "shared", "default": [True, False],
    ...     "n_possible": 2, "n_units": 8, "unit": "class"})
    >>> figure = draw_multiverse(Table("multiverse", rows))
    >>> figure.layout.title.text.split("<br>")[0]
    'Same wiring? Under every choice (R6)'
    """
    known = sorted(set(whole(table.frame)["rung"]))
    if rung:
        check_known("draw a specification curve", "rung", [rung], known, SpecificationError)
    spec = declared_figure(f"choices-{(rung or known[-1]).lower()}")
    page = page_model(LoadedResult(Path(), {"mode": "model"}, {"multiverse": table}))
    figure = choices_figure(figure_rows(page, spec))
    if figure is None:
        given = f"{len(table)} rows without an index of {rung or known[-1]}"
        do = "read the column reason of table.frame"
        raise SpecificationError("draw a specification curve", given, "rows with an index", do)
    said = in_short(whole(table.frame[table.frame["rung"] == (rung or known[-1])]))
    return draw(replace(figure, title=f"{title or figure.title}<br><sup>{said}</sup>"))


OF_ONE: dict[str, Callable[..., "go.Figure"]] = {
    "ladder": draw_ladder,
    "rungs": draw_profile,
    "circuit": draw_circuit,
    "effects": draw_effects,
    "multiverse": draw_multiverse,
    "faithfulness": draw_faithfulness,
    "match_faithfulness": draw_match,
    "named_heads": draw_names,
}
"""Tables of one model that are drawn otherwise than the tables of several on the page."""


def draw_decision_bias(found: Mapping[str, DecisionBias]) -> "go.Figure":
    """Draw held-out against seen accuracy of models under every bias, and as they are.

    Args:
        found: What `models.decision_bias` found, by what the models are called.

    Returns:
        A plotly figure, of the first domain that is not natural and the first prompt set.
    """
    every = {name: each.table.frame for name, each in found.items()}
    tested = [rows.loc[rows["measure"] == EXCESS_BIAS, "domain"] for rows in every.values()]
    domains = list(pd.unique(pd.concat(tested)))
    accuracy, curves = [], []
    for name, rows in every.items():
        as_is = rows[rows["calibration"].isin([AS_IS, ""])].drop(columns="calibration")
        for kept, table in ((accuracy, as_is), (curves, found[name].curves.frame)):
            own = table[table["domain"].isin(domains)]
            kept.append(own.assign(setting=name, test_domain=own["domain"], candidates="all"))
    tables = {
        name: Table(name, pd.concat(parts, ignore_index=True))
        for name, parts in (("tradeoff", curves), ("accuracy", accuracy))
    }
    facts = {"mode": "study", "specification": {"test_domains": domains}}
    figure = draw_figure(page_model(LoadedResult(Path(), facts, tables)), TRADEOFF)
    assert figure is not None
    return draw(figure)


STEPS = {
    name: (
        "a row for each cell and example",
        "a row for each cell, with its evidence",
        "summarise first: circuits.effects(table).plot()",
    )
    for name in ("sweep", "ablation")
}
"""Tables that are drawn once they are summarised: what is given, what is right, what to do."""


def draw_table(table: Table, *, title: str = "") -> "go.Figure":
    """Draw a table by the first of the page's figures that reads it.

    Args:
        table: A table of this toolkit, as a measure returns it.
        title: The figure's title; empty takes the page's.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        SpecificationError: For a table that the page has no figure of.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"measure": "debiased CKA", "domain_a": "real", "domain_b": "sketch",
    ...                      "site": ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"],
    ...                      "depth": [0.3, 0.6], "index": [0.2, 0.7], "index_low": [0.1, 0.5],
    ...                      "index_high": [0.3, 0.9], "n_units": 8, "unit": "class"})
    >>> draw_table(Table("similarity", rows)).layout.title.text
    'Shared geometry by depth, real with every other domain'
    """
    name = table.name.replace(" ", "_")
    frame = table.frame
    several = "setting" in frame and frame["setting"].nunique() > 1
    if name in OF_ONE and len(table) and not several:
        return OF_ONE[name](table, **({"title": title} if title else {}))
    ends = [end for end in ("domain_a", "train_domain", "domain") if end in table.frame]
    natural = str(table.frame[ends[0]].iloc[0]) if ends and len(table) else ""
    facts: dict[str, Any] = {"mode": "model", "specification": {"natural": natural}}
    if several:
        facts["mode"] = "study"
        if "test_domain" in frame:
            facts["specification"]["test_domains"] = list(pd.unique(frame["test_domain"]))
        elif ends:
            named = frame[[end for end in (*PAIR, "train_domain", "domain") if end in frame]]
            others = [end for end in pd.unique(named.to_numpy().ravel()) if end != natural]
            frame = frame.assign(test_domain=others[0] if others else "")
            facts["specification"]["test_domains"] = [str(end) for end in others[:1]]
    page = page_model(LoadedResult(Path(), facts, {name: Table(name, frame)}))
    specs = [spec for section in page_sections() for spec in section.figures]
    for spec in specs:
        figure = draw_figure(page, spec) if spec.tables[0] == name else None
        if figure is not None and figure.data:
            return draw(replace(figure, title=title or figure.title))
    drawn = sorted({*OF_ONE, *(spec.tables[0] for spec in specs)})
    if name in STEPS:
        raise SpecificationError(f"draw the table {table.name!r}", *STEPS[name])
    if name in drawn:
        reasons = list(dict.fromkeys(frame["reason"])) if "reason" in frame else []
        raise SpecificationError(
            f"draw the table {table.name!r}",
            f"{len(table)} rows without a number that its figure shows"
            + (f" ({listed([each for each in reasons if each], limit=2)})" if reasons else ""),
            "rows with an index",
            "read table.frame",
        )
    given = f"{len(table)} rows that no figure of the page shows"
    right = f"one of {listed(drawn, limit=30)}, with numbers"
    do = "draw table.frame with plotly"
    raise SpecificationError(f"draw the table {table.name!r}", given, right, do)


def draw(figure: Figure) -> "go.Figure":
    """One of the page's figures in plotly's white theme, at the choices first shown.

    >>> line = {"type": "scatter", "y": [1, 2]}
    >>> both = [{**line, "meta": [0]}, {**line, "meta": [1]}]
    >>> from interp.report.grammar.pieces import Choice
    >>> one = draw(Figure("a", "Title", "n = 2", "a line", both, {"height": 300},
    ...                   [Choice("Layer", ["first", "last"])]))
    >>> len(one.data), one.layout.title.text
    (1, 'Title<br><sup>Layer: first</sup>')
    """
    import plotly.graph_objects as go

    chosen = [choice.selected for choice in figure.choices]
    traces = [bare(trace) for trace in figure.data if _shown(trace, chosen)]
    said = ", ".join(
        f"{choice.label}: {choice.options[choice.selected]}"
        for choice in figure.choices
        if len(choice.options) > 1
    )
    title = f"{figure.title}<br><sup>{said}</sup>" if said else figure.title
    height = figure.layout.get("height", 430)
    beside = (LEGEND["y"] - 1) * height + GAP  # between legend and plot
    top = max(TOP, int(TITLED + _legend_height(traces) + beside))
    layout = {
        **figure.layout,
        "template": "plotly_white",
        "title": {"text": title, **TITLE},
        "width": WIDTH,
        "height": height + top,
        "margin": {"l": 60, "r": 30, "b": 60, **figure.layout.get("margin", {}), "t": top},
        "font": {"size": 13},
        "meta": {"caption": figure.caption, "alt": figure.alt},
    }
    return go.Figure(data=traces, layout=layout)


def _legend_height(traces: Sequence[Trace]) -> int:
    """Pixels of a legend above the plot, whose entries are as wide as the longest.

    >>> _legend_height([{"name": f"mixture {at}<br>of half the cells"} for at in range(12)])
    134
    """
    shown = [one for one in traces if one.get("showlegend", True) and one.get("name")]
    entries = {one.get("legendgroup") or one["name"]: str(one["name"]) for one in shown}
    if len(entries) < 2:
        return 0
    names = [name.split("<br>") for name in entries.values()]
    widest = ENTRY + LETTER * max(len(line) for name in names for line in name)
    fit = max(1, int((WIDTH - 90) / widest))
    rows = [names[first : first + fit] for first in range(0, len(names), fit)]
    return sum(LINE * max(map(len, row)) + GAP for row in rows) + GAP


def _shown(trace: Trace, chosen: list[int]) -> bool:
    """Whether a trace belongs to the choices; None belongs to all."""
    options = trace.get("meta") or []
    return all(option is None or option == at for option, at in zip(options, chosen, strict=False))
