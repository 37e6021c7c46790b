"""The section of the verdict across checkpoints: accuracy with sharing, and levels of evidence."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.statistics.power import SMALL
from interp.data.mixtures.settings import is_upper_bound
from interp.declared.figures import INDEX, FigureSpec, Scale, SectionSpec
from interp.declared.writing import number, percent, plain
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.pieces import Choice, Figure, Trace
from interp.report.loaded import Frame
from interp.report.naming import SYMBOLS, faded, looks_of, ordered_settings, setting_name
from interp.report.summary import foremost
from interp.verdicts.wording import LEVELS, OUTCOMES

ACCURACY = Scale("accuracy", "accuracy_low", "accuracy_high")

TOGETHER = FigureSpec(
    "together",
    "Generalization to held-out classes in {domains}, against sharing",
    "together",
    ("together", "levels"),
    method="Each mixture's accuracy and sharing index are averaged over its blocks, and set "
    "against each other.",
    null="None is drawn: the tests, each with its null, are in the forest of levels.",
    caption="A point per mixture and test domain: means over blocks of the sharing index in the "
    "middle layers (never the final embedding) and of balanced accuracy on held-out classes, n = "
    "{runs} trained models per point, {mixtures} mixtures; bars are 95 % intervals over {units}. "
    "{symbols} {bounds}Intervals of single points that overlap say nothing of the difference of "
    "two: the forest below has the tests. The rungs are never pooled.",
    alt="Accuracy against sharing for {mixtures} mixtures in {domains}: {extremes}",
    needs=("index", "accuracy"),
    choices=(),
)
FOREST = FigureSpec(
    "levels",
    "Does accuracy go with sharing? Four levels of evidence",
    "levels",
    ("levels", "together"),
    method="Accuracy and sharing are correlated across mixtures, within a mixture and among "
    "classes; an intervention trains models that differ in sharing alone.",
    null="No link, 0; the caption says what is permuted at each level.",
    caption="{counted} Points are correlations with their 95 % interval; L2 and L3 with the noise "
    "in sharing taken out where it is known. Null: 0, no link (L1: mixtures permuted jointly over "
    "domains and blocks; L2: blocks permuted within mixtures; L3: errors clustered by class and by "
    "model). {held}"
    f"Grey: |r| below {SMALL}, too small to matter: an interval within it says “does not go "
    "together”. L4 compares trained models, and has a figure of its own; only L4 permits "
    "“because”.",
    alt="{verdicts}",
    where={"level": list(LEVELS)},
    choices=(),
)
EVIDENCE = SectionSpec(
    "levels",
    "Does generalization go with sharing?",
    "Four levels, never pooled. L1: Spearman of mixtures' mean accuracy and sharing. L2: slope "
    "over the blocks of a mixture, cells and folds taken out. L3: accuracy of a class on its "
    "sharing, fixed effects of class and model, natural accuracy held constant. L4: a loss "
    "that aligns domains. p by Holm over the rungs of a level.",
    (TOGETHER, FOREST),
    words=(("levels",),),
    note="L1 says “goes with” and no more: mixtures differ in much besides. L2 and L3 compare each "
    "mixture, model and class with itself. Only an intervention says “because”.",
    study_only=True,
    optional=("levels", "together"),
    part="verdict",
)


def together_figure(data: FigureRows) -> Figure | None:
    """Mean accuracy against mean sharing, a point per mixture and test domain, by rung."""
    rows = data.rows
    if rows.empty:
        return None
    kinds = rungs_shown(rows)
    domains = list(dict.fromkeys(rows["test_domain"]))
    settings = ordered_settings(rows["setting"])
    looks = looks_of(data.page.settings, settings)
    parts = dict(iter(rows.groupby(["rung", "measure", "setting"], sort=False)))
    traces = [
        _mixture(parts[*kind, setting], setting, looks[setting][0], domains, place)
        for place, kind in enumerate(kinds)
        for setting in settings
        if (*kind, setting) in parts
    ]
    percents = {"tickformat": ".0%", **_shown(rows, ACCURACY, 0, 1)}
    across = pieces.axis("sharing index (0 null, 1 ceiling)", **_shown(rows, INDEX, -0.5, 1.5))
    bounds = "Upper bounds saw the held-out classes, and count at no level. "
    return data.figure(
        traces,
        pieces.layout(
            560, xaxis=across, yaxis=pieces.axis("balanced accuracy, held-out classes", **percents)
        ),
        choices=[Choice("Shared by", [f"{rung} {measure}" for rung, measure in kinds])],
        domains=sequence(domains),
        runs=pieces.span(rows["n_runs"]),
        mixtures=len(settings),
        units="classes" if (rows["unit"] == "class").all() else "blocks",
        symbols=_symbols(domains),
        bounds=bounds if any(map(is_upper_bound, settings)) else "",
        extremes=_extremes(rows),
    )


def _shown(rows: Frame, scale: Scale, least: float, most: float) -> Trace:
    """The part of an axis that is shown, where intervals reach beyond the ends given: of two
    blocks, one may be many times as wide as what is measured."""
    ends = rows[[scale.value, scale.low, scale.high]].to_numpy(dtype=float)
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    if least <= low and high <= most:
        return {}
    low, high = max(low, least), min(high, most)
    room = 0.04 * (high - low) or 0.04
    return {"range": [low - room, high + room]}


def rungs_shown(rows: Frame) -> list[tuple[str, str]]:
    """Every rung and measure, from weak claims to strong."""
    named = zip(rows["rung"], rows["measure"], strict=True)
    return sorted(dict.fromkeys(named), key=lambda each: each[0])


def _mixture(own: Frame, setting: str, colour: str, domains: Sequence[str], place: int) -> Trace:
    """One mixture's points, a symbol per test domain."""
    symbols = [SYMBOLS[domains.index(name) % len(SYMBOLS)] for name in own["test_domain"]]
    bar = {"color": faded(colour, 0.45), "thickness": 1.2, "width": 0}
    said = [_point(row) for _, row in own.iterrows()]
    bars = {
        "error_x": pieces.error_bars(own, INDEX, **bar),
        "error_y": pieces.error_bars(own, ACCURACY, **bar),
    }
    name, at = plain(setting_name(setting), 44), (own["index"], own["accuracy"], said)
    return pieces.points(name, (colour, symbols), *at, [place], size=11, **bars)


def _point(row: pd.Series) -> str:
    return (
        f"{plain(row['test_domain'])}: accuracy {percent(row['accuracy'])} "
        f"({percent(row['accuracy_low'])} to {percent(row['accuracy_high'])}),<br>index "
        f"{number(row['index'])} ({number(row['index_low'])} to {number(row['index_high'])}), "
        f"n = {row['n_runs']:.0f}"
    )


def _symbols(domains: Sequence[str]) -> str:
    if len(domains) < 2:
        return ""
    shapes = [f"{SYMBOLS[n % len(SYMBOLS)]}s" for n in range(len(domains))]
    named = [f"{shape} {name}" for shape, name in zip(shapes, domains, strict=True)]
    return f"{sequence(named).capitalize()}."


def _extremes(rows: Frame) -> str:
    first = rows[rows["measure"] == rows["measure"].iloc[0]].sort_values("accuracy")
    ends = [first.iloc[0], first.iloc[-1]]
    said = [
        f"{setting_name(row['setting'])} in {row['test_domain']} {percent(row['accuracy'])} at "
        f"{number(row['index'])}"
        for row in ends
    ]
    return f"lowest {said[0]}, highest {said[1]}"


def levels_figure(data: FigureRows) -> Figure | None:
    """Every level's correlation with its interval and its verdict in words, by rung."""
    rows = data.rows
    if rows.empty:
        return None
    rows = pd.concat([rows[rows["level"] != "L4"], _intervened(rows)])
    told = rows.get("outcome", pd.Series("", rows.index))  # older results have accuracy alone
    rows = rows.assign(outcome=told.where(told.isin([*OUTCOMES]), "accuracy"))
    models = rows[(rows["measure"] != "") & (rows["level"] != "L3")]  # L3 has measures of its own
    kinds = rungs_shown(models) or rungs_shown(rows)
    names = [
        key
        for level in LEVELS
        for key in _keys(rows[rows["level"] == level]) or [(level, "accuracy", "")]
    ]
    traces: list[Trace] = []
    for place, (rung, measure) in enumerate(kinds):
        # a level that is measured otherwise, as L3 is by class, stands beside its rung
        own = rows[(rows["rung"] == rung) & (rows["measure"] == measure)]
        rest = rows[(rows["rung"] == rung) & ~rows["level"].isin(set(own["level"]))]
        other = rest.drop_duplicates(KEYS)
        for part in (own, other):  # where there is no interval, the verdict stands without a bar
            sure = part["low"].notna()
            traces += [
                _marks(some, names, place) for some in (part[sure], part[~sure]) if len(some)
            ]
        known = {*own["level"], *other["level"]}
        bare = [at for at, (level, _, held) in enumerate(names) if level not in known and not held]
        if bare:
            traces.append(
                pieces.words_at([0.0] * len(bare), bare, ["not measured"] * len(bare), [place])
            )
    line, note = pieces.reference_line("x", 0.0, "no link")
    labels = [
        (f"{level}{{}} adjusted" if held else f"<b>{level}</b> {LEVELS[level]}{{}}").format(
            "" if outcome == "accuracy" else f", {outcome}"
        )
        for level, outcome, held in names
    ]
    ticks = {"tickvals": list(range(len(names))), "ticktext": labels}
    shape = pieces.layout(
        120 + 62 * len(names),
        showlegend=False,
        margin={"t": 44},
        xaxis=pieces.axis(
            "correlation with sharing", range=[-1.3, 1.3], tickvals=[-1, -0.5, 0, 0.5, 1]
        ),
        yaxis=pieces.rows_by_name([]) | ticks | {"range": [len(names) - 0.5, -0.7]},
        shapes=[pieces.shade(-SMALL, SMALL), line],
        annotations=[note],
    )
    plain_rows = rows[rows["adjusted"] == ""]
    held = [name for name in dict.fromkeys(rows["adjusted"]) if name]
    options = [f"{rung} {measure}".strip() for rung, measure in kinds]
    levels = [rows[rows["rung"] == rung]["level"].nunique() for rung, _ in kinds]
    return data.figure(
        traces,
        shape,
        of_rows=rows,
        choices=[Choice("Shared by", options, levels.index(max(levels)))],
        counted=_counted(rows),
        held=f"Adjusted: {sequence(held)} held constant. " if held else "",
        verdicts="; ".join(
            f"{row.level} {row.rung}: {row.verdict}, {number(row.value)}"
            for row in plain_rows.itertuples()
        ),
    )


def _intervened(rows: Frame) -> Frame:
    """L4's verdict without a number: its numbers are differences in points, not correlations."""
    nothing = dict.fromkeys(("value", "low", "high"), math.nan)
    return foremost(rows).assign(measure="", adjusted="", **nothing)


KEYS = ["level", "outcome", "adjusted"]


def _keys(rows: Frame) -> list[tuple[str, str, str]]:
    """Which rows a level has: of each outcome the plain one first."""
    plain_first = rows.sort_values("adjusted", kind="stable")[KEYS]
    return list(dict.fromkeys(map(tuple, plain_first.to_numpy().tolist())))


def _marks(own: Frame, names: Sequence[tuple[str, str, str]], place: int) -> Trace:
    """Rows that all have an interval, or have none."""
    keys = map(tuple, own[KEYS].to_numpy().tolist())
    at = [names.index(key) for key in keys]
    known = own["value"].notna().to_numpy()
    decided = (own["verdict"] != UNKNOWN).to_numpy()
    symbols = ["square" if sure else "square-open" for sure in decided]
    x = [value if has else 0.0 for value, has in zip(own["value"], known, strict=True)]
    words = [plain(word) for word in own["verdict"]]
    sizes = [10 if has else 0 for has in known]
    trace = pieces.points("r", ("#0072B2", symbols), x, at, words, [place], size=sizes) | {
        "mode": "markers+text",
        "textposition": "top center",
        "cliponaxis": False,
        "hovertext": [_why(row) for _, row in own.iterrows()],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    if own["low"].notna().all():  # without an interval plotly would draw a bar of no length
        trace["error_x"] = pieces.error_bars(own, color="#0072B2")
    return trace


def _why(row: pd.Series) -> str:
    parts = [f"{row['licence']}"]
    if math.isfinite(row["value"]):
        ends = f" ({number(row['low'])} to {number(row['high'])})" * math.isfinite(row["low"])
        parts.append(f"r = {number(row['value'])}{ends}")
    parts += [row["reason"]] if row["reason"] else []
    parts += [f"would decide: {row['needed']}"] if row["needed"] else []
    return "<br>".join(plain(part, 90) for part in parts)


def _counted(rows: Frame) -> str:
    """How much stands behind each level."""
    parts = []
    for level, unit in (("L1", "mixtures"), ("L2", "blocks"), ("L3", "classes"), ("L4", "pairs")):
        own = rows[(rows["level"] == level) & rows["n_units"].notna()]
        if len(own) and own["n_units"].max() > 0:
            parts.append(f"{level} {pieces.span(own['n_units'])} {unit}")
    runs = rows["n_runs"].dropna()
    models = f", {pieces.span(runs[runs > 0])} trained models" if (runs > 0).any() else ""
    return f"n = {', '.join(parts)}{models}." if parts else "n is not recorded."
