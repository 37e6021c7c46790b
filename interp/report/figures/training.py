"""Training: mixtures, losses, the intervention on the loss, and the numerics certificate."""

import math
from collections.abc import Sequence

from interp.core.errors import sequence
from interp.declared.figures import FREE, AxisSpec, FigureSpec, GistSpec, Scale, SectionSpec
from interp.declared.writing import number, plain
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.pieces import Choice, Figure, Trace
from interp.report.loaded import Frame
from interp.report.naming import ordered_settings, setting_label, setting_name

MIXTURES = FigureSpec(
    "mixtures",
    "Training pictures by domain",
    "bars",
    ("mixtures",),
    method="The training pictures of each setting are counted.",
    null=FREE,
    caption="Pictures, not steps; n = {totals} per run, counted and so without interval. "
    "Optimiser steps: {steps}.",
    alt="Stacked bars of {settings} by domain",
    needs=("n_pictures",),
    subjects="domain",
)
LOSSES = FigureSpec(
    "losses",
    "Training loss by epoch",
    "curve",
    ("losses",),
    method="The contrastive loss of the training batches is averaged over each epoch.",
    null="None is drawn; random guessing costs the logarithm of the batch size.",
    caption="Training loss, mean over an epoch; n = 1 run per line, so without interval. Single "
    "runs of several are faint.",
    alt="Lines of {settings} over {points} epochs",
    needs=("epoch", "loss"),
    scale=Scale("loss"),
    subjects="settings",
    across="epoch",
    x=AxisSpec("epoch"),
    y=AxisSpec("loss, nats"),
    height=320,
)

TRAINING = SectionSpec(
    "training",
    "Training distributions",
    "Each setting is a rule on which cells (class × domain) are trained on. All but natural "
    "only are matched in size unless the specification says otherwise (Kempf et al. 2025). A base "
    "set, natural pictures of these and other classes, is added whole to each.",
    (MIXTURES, LOSSES),
    ("mixtures", "losses"),
    study_only=True,
    part="models",
    gist=GistSpec(
        "mixtures", "Each model was trained on {range} pictures.", column="n_train", form="count"
    ),
)


DOSE_RESPONSE = FigureSpec(
    "intervention",
    "What aligning classes does: dose and response",
    "dose",
    ("intervention", "intervention_classes", "intervention_directions", "levels"),
    method="Models are trained with a loss term of several weights that pulls classes of two "
    "domains together, once with their own class as partner and once with a wrong one.",
    null="Wrong classes as partners, and the run without the term.",
    caption="Weight of the term, below 0 where it separates, against balanced accuracy (0 to 1) "
    "and the index of shared directions. Bars: 95 % intervals over {over}; those of sharing over "
    "blocks, those of comparisons by one crossed model of all runs. Hollow: no interval. "
    "{of_classes}. {verdicts}",
    alt="{differences}",
    needs=("value", "weight"),
    choices=(),
)
INTERVENTION = SectionSpec(
    "intervention",
    "Made to be shared: the intervention (L4)",
    "At one mixture, a loss term = weight × mean over seen classes of (1 − cosine of a class's "
    "contrasts in natural pictures and in the test domain) at one layer. In the control every "
    "class has a wrong partner, the same in the whole run. Held-out classes never enter it.",
    (DOSE_RESPONSE,),
    note="The mixture is the same and the term was put there: this comparison alone permits "
    "the word “because”, where seen classes stay equally accurate and sharing did move.",
    study_only=True,
    optional=("intervention", "intervention_classes", "intervention_directions"),
    part="verdict",
)


def mixtures_figure(data: FigureRows) -> Figure | None:
    """Training pictures of each domain in each setting, stacked."""
    rows = data.rows
    if rows.empty:
        return None
    settings = ordered_settings(rows["setting"])
    traces = [
        _bar(own, settings, view.meta)
        for view in data.views
        for _, own in view.rows.groupby("key", sort=False)
    ]
    most = rows.groupby("setting")["steps"].max().dropna()
    trained = [f"{setting_name(name)} {most[name]:,.0f}" for name in ordered_settings(most.index)]
    totals = rows.groupby(["test_domain", "setting", "seed"], dropna=False)["n_pictures"].sum()
    shape = pieces.layout(
        130 + 46 * len(settings),
        barmode="stack",
        legend={**pieces.LEGEND, "traceorder": "normal"},
        xaxis=pieces.axis("training pictures"),
        yaxis={"automargin": True, "type": "category", "range": [len(settings) - 0.5, -0.5]},
    )
    steps = sequence(trained) or "not recorded"
    return data.figure(traces, shape, totals=pieces.span(totals), steps=steps)


def _bar(rows: Frame, settings: Sequence[str], meta: Sequence[int | None]) -> Trace:
    rows = rows.drop_duplicates("setting").set_index("setting", drop=False)
    rows = rows.reindex([name for name in settings if name in set(rows.index)])
    names, said = [setting_label(str(name)) for name in rows.index], "%{x:,} pictures"
    first = rows.iloc[0]
    return pieces.bars(first["subject"], first["colour"], rows["n_pictures"], names, said, meta)


LEAST = 1e-18
"""Where an error of exactly 0 is drawn on the logarithmic axis."""


def certificate_figure(data: FigureRows) -> Figure | None:
    """Worst error of each check against its bar."""
    if data.rows.empty:
        return None
    worst = worst_of_checks(data.rows)
    names = [
        f"{tower} {check}, {str(dtype).removeprefix('torch.')}".strip()
        for tower, check, dtype in zip(worst["tower"], worst["check"], worst["dtype"], strict=True)
    ]
    errors, bars = worst["error"].astype(float), worst["bar"].astype(float)
    passed = list(errors <= bars)
    each = [
        f"{name}: {value:.2g} {'passes' if fine else 'FAILS'}"
        for name, value, fine in zip(names, errors, passed, strict=True)
    ]
    look = (
        ["#009E73" if fine else "#D55E00" for fine in passed],
        ["circle" if fine else "x" for fine in passed],
    )
    drawn = [max(value, LEAST) if math.isfinite(value) else math.nan for value in errors]
    at, words = range(len(names)), [f"{value:.2g}" for value in errors]
    marks = pieces.points(
        "bar", (pieces.GREY, "line-ns-open"), bars, at, [f"{b:g}" for b in bars], [], size=20
    )
    marks["marker"]["line"] = {"width": 3}
    powers = {"exponentformat": "power", "nticks": 5, "tickangle": 0}
    shape = pieces.layout(
        120 + 36 * len(names),
        xaxis=pieces.axis("relative error", type="log", **powers),
        yaxis=pieces.rows_by_name(names),
    )
    traces = [pieces.points("worst error", look, drawn, at, words, [], size=11), marks]
    checked, said = pieces.span(worst["n_sites"]), "; ".join(each)
    return data.figure(traces, shape, choices=(), checked=checked, least=LEAST, said=said)


def worst_of_checks(rows: Frame) -> Frame:
    """One row per tower, check and precision: the site whose error is largest for its bar."""
    keys = ["tower", "check", "dtype"]
    ratio = (rows["error"] / rows["bar"]).fillna(math.inf)  # what was not compared fails
    worst = rows.loc[ratio.groupby([rows[key] for key in keys], sort=False).idxmax()]
    sizes = rows.groupby(keys, sort=False).agg(n_sites=("site", "size"), failed=("ok", "sum"))
    sizes["failed"] = sizes["n_sites"] - sizes["failed"]
    return worst.merge(sizes.reset_index(), on=keys)


OWN = ("aligned", "separated", "none")
"""Arms whose classes meet themselves; without the term, all do and none is pulled."""

ARMS = (
    ("own classes as partners", OWN, "#0072B2", "circle"),
    ("wrong classes as partners", ("shuffled", "none"), "#E69F00", "square"),
)
"""The two lines: name, arms, colour, marker. Both begin at the run without the term."""

PER_ARM, GAPS = "each arm", "own less wrong partners"


def dose_response_figure(data: FigureRows) -> Figure | None:
    """Accuracy and sharing against the term's weight, one panel each, one above the other."""
    rows = data.rows
    if rows.empty:
        return None
    measures = list(dict.fromkeys(rows["measure"]))
    room = 0.006 * (rows["weight"].max() - min(rows["weight"].min(), 0.0))  # else bars hide bars
    traces: list[Trace] = []
    for place, measure in enumerate(measures):
        here = rows[rows["measure"] == measure].sort_values("weight", kind="stable")
        for aside, (name, arms, colour, symbol) in zip((-1, 1), ARMS, strict=True):
            part = here[here["arm"].isin(arms)]
            traces.append(_arm(part, name, colour, symbol, place, 1, aside * room))
        gaps = here[here["arm"].str.endswith(" − shuffled")]
        traces.append(_arm(gaps, GAPS, "#009E73", "diamond", place, 0))
    panels, notes = _panels(measures)
    line, label = pieces.reference_line("x", 0.0, "no term")
    shape = pieces.layout(
        150 + 190 * len(measures),
        xaxis=pieces.axis(
            "weight of the term", anchor=_name("y", len(measures) - 1), zeroline=False
        ),
        shapes=[line],
        annotations=[label, *notes],
        **panels,
    )
    levels = data.tables.get("levels", rows[:0])
    return data.figure(
        [trace for trace in traces if trace["x"]],
        shape,
        choices=[Choice("Show", [GAPS, PER_ARM])],
        of_classes=pieces.counts(rows[rows["unit"] != "block"]),
        verdicts=_verdicts(levels[levels["level"] == "L4"]),
        differences=_differences(rows[rows["arm"].str.endswith(" − shuffled")]),
    )


def _name(letter: str, place: int) -> str:
    """What plotly calls an axis: y, y2, y3."""
    return letter if place == 0 else f"{letter}{place + 1}"


def _arm(
    rows: Frame, name: str, colour: str, symbol: str, place: int, choice: int, aside: float = 0.0
) -> Trace:
    """An arm's numbers over weights in one panel, moved aside by so much weight."""
    said = [
        f"{plain(arm)}, weight {number(weight)}: {number(value, 3)}"
        for arm, weight, value in zip(rows["arm"], rows["weight"], rows["value"], strict=True)
    ]
    look = colour, pieces.opened_option(symbol, rows["low"].isna())
    more = {"legendgroup": name, "showlegend": place == 0, "yaxis": _name("y", place)}
    more |= {"line": {"color": colour, "width": 2}, "mode": "lines+markers"}
    more |= {"error_y": pieces.error_bars(rows, color=colour)}
    return pieces.points(name, look, rows["weight"] + aside, rows["value"], said, [choice], **more)


def _panels(measures: Sequence[str]) -> tuple[Trace, list[Trace]]:
    """An axis for each measure, from top to bottom, and its title above it: beside it, long words
    would leave a phone no room."""
    height, gap = 1 / len(measures), 0.3 / len(measures)
    panels: Trace = {}
    notes: list[Trace] = []
    for place, measure in enumerate(measures):
        top = 1 - place * height - gap / 2
        domain = [max(0.0, top - height + gap), top]
        panels[_name("yaxis", place)] = pieces.axis("", domain=domain, anchor="x")
        notes.append(pieces.note(plain(measure, 70), 0, top))
    return panels, notes


def _verdicts(rows: Frame) -> str:
    """The verdicts of the intervention, in the words of the table `levels`."""
    said = []
    for row in rows.itertuples():
        where = str(row.measure).rpartition(", ")[2].capitalize()
        why = f" ({row.reason})" if row.reason else f": {row.licence}"
        needed = f"; needed: {row.needed}" if row.needed else ""
        said.append(f"{where}: {row.verdict}{why}{needed}.")
    return f"Verdicts. {' '.join(said)}" if said else ""


def _differences(gaps: Frame) -> str:
    """The differences at each weight, for whoever cannot see the figure."""
    columns = zip(gaps["measure"], gaps["weight"], gaps["value"], strict=True)
    said = [f"{name} at weight {number(at)}: {number(value, 3)}" for name, at, value in columns]
    return f"Own less wrong partners: {sequence(said)}" if said else "No control was trained"
