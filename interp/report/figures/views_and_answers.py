"""Where a model's pictures lie, by principal components, and what they are called while steered."""

from itertools import product

import pandas as pd

from interp.core.errors import sequence
from interp.core.sites import LAST
from interp.declared.figures import GREY
from interp.declared.writing import percents, plain
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.pieces import Choice, Figure, Meta, Trace, axis, bars, layout, points
from interp.report.loaded import Frame
from interp.report.naming import colours, setting_name, site_label
from interp.report.rows import EPOCH_0

UNTRAINED = "untrained (epoch 0)"


def views_figure(data: FigureRows) -> Figure | None:
    """Principal components of the middle site and of the embedding, a point per picture."""
    rows = data.rows
    if rows.empty:
        return None
    tests = [name for name in data.page.tests if name in set(rows["test_domain"])] or [""]
    settings = [name for name in data.page.settings if name in set(rows["setting"])]
    models = [(setting, "") for setting in settings if setting or not rows["control"].eq("").all()]
    models = models or [("", "")]
    if rows["control"].eq(EPOCH_0).any():
        models.append(("", EPOCH_0))
    sites = sorted(set(rows["site"]), key=lambda site: site != LAST)
    tints = colours(data.page.domains)
    keys = ["test_domain", "setting", "control", "site"]
    groups = dict(iter(rows.groupby([*keys, "domain"], sort=False)))
    traces = [
        _pictures(groups[test, *model, site, name], name, tints[name], [d, m, p])
        for (d, test), (m, model), (p, site) in product(*map(enumerate, (tests, models, sites)))
        for name in data.page.domains
        if (test, *model, site, name) in groups
    ]
    shares = rows.groupby("site")["explained"].agg(["min", "max"])
    explained = [
        f"{site_label(str(site))} {percents(float(low), float(high))}"
        for site, low, high in shares.itertuples()
    ]
    choices = [
        Choice("Test domain", tests),
        Choice("Model", [UNTRAINED if control else setting_name(name) for name, control in models]),
        Choice("Site", [site_label(site) for site in sites]),
    ]
    return data.figure(
        traces,
        layout(460, xaxis=axis("first component"), yaxis=axis("second component")),
        choices=choices,
        per_view=int(rows.groupby(keys).size().max()),
        explained=sequence(explained),
        domains=sequence(data.page.domains),
    )


def answers_figure(data: FigureRows) -> Figure | None:
    """Bars of what pictures of each domain are called: a group of bars for each answer."""
    tints = colours(data.page.domains)
    traces = [
        answer_bars(own, str(domain), tints.get(str(domain), GREY), view.meta)
        for view in data.views
        for domain, own in view.rows.groupby("domain", sort=False)
    ]
    if not traces:
        return None
    most = max(len(trace["y"]) for trace in traces)
    shape = layout(
        110 + 46 * most,
        barmode="group",
        margin={"r": 30},
        xaxis=axis("share of the pictures", tickformat=".0%", range=[0, 1]),
        yaxis={"automargin": True, "autorange": "reversed", "type": "category"},
    )
    return data.figure(traces, shape)


def answer_bars(rows: Frame, domain: str, colour: str, meta: Meta) -> Trace:
    """The answers of one domain, the class steered to first, then as the table has them.

    Of several blocks the mean.
    """
    shares = _answers_of_all(rows)
    names = [plain(name, 24) for name in shares.index]
    return bars(plain(domain), colour, shares, names, "%{x:.1%}", meta)


OTHERS = "others"
"""The row of a table of answers that takes together those which it does not list."""


def _answers_of_all(rows: Frame) -> pd.Series:
    """The mean share of every answer whose share all blocks give, and of all others together.

    A block lists its commonest answers; of one that it does not list it gives no share, unless it
    lists all.
    """
    by_block = rows.assign(seed=rows["seed"] if "seed" in rows else 0).pivot(
        index="answer", columns="seed", values="share"
    )
    by_block = by_block.loc[rows["answer"].unique()]
    named = by_block.drop(index=OTHERS, errors="ignore")
    lists_all = ~(by_block.reindex([OTHERS]).iloc[0] > 0)
    named.loc[:, lists_all] = named.loc[:, lists_all].fillna(0.0)
    shares = named.dropna().mean(axis=1)
    rest = by_block.sum().mean() - shares.sum()
    return pd.concat([shares, pd.Series({OTHERS: rest})]) if rest > 1e-9 else shares


def _pictures(rows: Frame, domain: str, colour: str, meta: Meta) -> Trace:
    said = [plain(label) for label in rows["label"]]
    at = rows["x"].round(4), rows["y"].round(4), said
    trace = points(plain(domain), (colour, "circle"), *at, meta, size=6)
    return trace | {"marker": {**trace["marker"], "opacity": 0.75}}
