"""The section of the verdict across checkpoints: accuracy with sharing, and levels of evidence."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.data.mixtures.settings import is_upper_bound
from interp.declared.figures import INDEX, FigureSpec, Scale, SectionSpec
from interp.declared.writing import number, percent, plain
from interp.report.grammar.filled_figures import finished, read_rows
from interp.report.grammar.pieces import (
    GREY,
    Choice,
    DrawnSubject,
    Figure,
    Trace,
    axis,
    error_bars,
    layout,
    points,
    reference_line,
    rows_by_name,
    shade,
    span,
)
from interp.report.grammar.subjects import looks_of
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import SYMBOLS, faded, ordered_settings, setting_name
from interp.verdicts.wording import LEVELS, SMALL

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
    alt="{said}",
    where={"level": list(LEVELS)},
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


def together_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Mean accuracy against mean sharing, a point per mixture and test domain, by rung."""
    rows = read_rows(result, spec)
    if rows.empty:
        return None
    kinds = rungs_shown(rows)
    domains = list(dict.fromkeys(rows["test_domain"]))
    settings = ordered_settings(rows["setting"])
    looks = looks_of(result, settings)
    traces = [
        _mixture(own, setting, looks[setting][0], domains, place)
        for place, (rung, measure) in enumerate(kinds)
        for setting in settings
        for own in [_of(rows, rung, measure, setting)]
        if len(own)
    ]
    shape = layout(
        560,
        xaxis=axis("sharing index (0 null, 1 ceiling)", **_shown(rows, INDEX, -0.5, 1.5)),
        yaxis=axis(
            "balanced accuracy, held-out classes", tickformat=".0%", **_shown(rows, ACCURACY, 0, 1)
        ),
    )
    said = {
        "domains": sequence(domains),
        "runs": span(rows["n_runs"]),
        "mixtures": len(settings),
        "units": "classes" if (rows["unit"] == "class").all() else "blocks",
        "symbols": _symbols(domains),
        "bounds": "Upper bounds saw the held-out classes, and count at no level. "
        if any(is_upper_bound(name) for name in settings)
        else "",
        "extremes": _extremes(rows),
    }
    choices = [Choice("Shared by", [f"{rung} {measure}" for rung, measure in kinds])]
    return finished(spec, result, rows, traces, shape, choices, **said)


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


def _of(rows: Frame, rung: str, measure: str, setting: str) -> Frame:
    same = (rows["rung"] == rung) & (rows["measure"] == measure)
    return rows[same & (rows["setting"] == setting)]


def _mixture(own: Frame, setting: str, colour: str, domains: Sequence[str], place: int) -> Trace:
    """One mixture's points, a symbol per test domain."""
    looks = [SYMBOLS[domains.index(name) % len(SYMBOLS)] for name in own["test_domain"]]
    bar = {"color": faded(colour, 0.45), "thickness": 1.2, "width": 0}
    one = DrawnSubject(plain(setting_name(setting), 44), colour, looks, own)
    said = [_said(row) for _, row in own.iterrows()]
    bars = {"error_x": error_bars(own, INDEX) | bar, "error_y": error_bars(own, ACCURACY) | bar}
    return points(one, own["index"], own["accuracy"], said, [place], size=11, **bars)


def _said(row: pd.Series) -> str:
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


def levels_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Every level's correlation with its interval and its verdict in words, by rung."""
    rows = read_rows(result, spec)
    if rows.empty:
        return None
    rows = pd.concat([rows[rows["level"] != "L4"], _intervened(rows)])
    models = rows[(rows["measure"] != "") & (rows["level"] != "L3")]  # L3 has measures of its own
    kinds = rungs_shown(models) or rungs_shown(rows)
    names = _names(rows)
    traces: list[Trace] = []
    for place, (rung, measure) in enumerate(kinds):
        # a level that is measured otherwise, as L3 is by class, stands beside its rung
        own = rows[(rows["rung"] == rung) & (rows["measure"] == measure)]
        rest = rows[(rows["rung"] == rung) & ~rows["level"].isin(set(own["level"]))]
        other = rest.drop_duplicates(["level", "adjusted"])
        traces += _rows(own, names, place) + _rows(other, names, place)
        known = {*own["level"], *other["level"]}
        traces += _unmeasured([name for name in names if name[0] not in known], names, place)
    line, note = reference_line("x", 0.0, "no link")
    shape = layout(
        120 + 62 * len(names),
        showlegend=False,
        margin={"t": 44},
        xaxis=axis("correlation with sharing", range=[-1.3, 1.3], tickvals=[-1, -0.5, 0, 0.5, 1]),
        yaxis=rows_by_name([])
        | {
            "tickvals": list(range(len(names))),
            "ticktext": [_label(*name) for name in names],
            "range": [len(names) - 0.5, -0.7],
        },
        shapes=[shade(-SMALL, SMALL), line],
        annotations=[note],
    )
    said = {
        "counted": _counted(rows),
        "held": _held(rows),
        "said": "; ".join(
            f"{row['level']} {row['rung']}: {row['verdict']}, {number(row['value'])}"
            for _, row in rows[rows["adjusted"] == ""].iterrows()
        ),
    }
    options = [f"{rung} {measure}".strip() for rung, measure in kinds]
    choices = [Choice("Shared by", options, _most(rows, kinds))]
    return finished(spec, result, rows, traces, shape, choices, **said)


def foremost(rows: Frame) -> Frame:
    """The row of L4 that stands for it: of those decided, if any is, the one of largest weight."""
    own = rows[rows["level"] == "L4"]
    decided = own[own["verdict"] != CANNOT_TELL]
    own = decided if len(decided) else own
    return own.loc[own["weight"].abs().sort_values(na_position="first").index].tail(1)


def _intervened(rows: Frame) -> Frame:
    """L4's verdict without a number: its numbers are differences in points, not correlations."""
    nothing = dict.fromkeys(("value", "low", "high"), math.nan)
    return foremost(rows).assign(measure="", adjusted="", **nothing)


def _names(rows: Frame) -> list[tuple[str, str]]:
    """Rows of the forest: every level, and what else was held constant below it."""
    found = [
        (level, adjusted)
        for level in LEVELS
        for adjusted in dict.fromkeys(["", *rows[rows["level"] == level]["adjusted"]])
    ]
    return found


def _label(level: str, adjusted: str) -> str:
    return f"{level} adjusted" if adjusted else f"<b>{level}</b> {LEVELS[level]}"


def _rows(own: Frame, names: Sequence[tuple[str, str]], place: int) -> list[Trace]:
    """Marks with verdicts above them; where there is no number, the verdict alone."""
    sure = own["low"].notna()
    return [_marks(part, names, place) for part in (own[sure], own[~sure]) if len(part)]


def _marks(own: Frame, names: Sequence[tuple[str, str]], place: int) -> Trace:
    """Rows that all have an interval, or have none."""
    keys = zip(own["level"], own["adjusted"], strict=True)
    at = [names.index(key) for key in keys]
    known = own["value"].notna().to_numpy()
    decided = (own["verdict"] != CANNOT_TELL).to_numpy()
    symbols = ["square" if sure else "square-open" for sure in decided]
    one = DrawnSubject("r", "#0072B2", symbols, own)
    x = [value if has else 0.0 for value, has in zip(own["value"], known, strict=True)]
    words = [plain(word) for word in own["verdict"]]
    trace = points(one, x, at, words, [place], size=[10 if has else 0 for has in known]) | {
        "mode": "markers+text",
        "textposition": "top center",
        "cliponaxis": False,
        "hovertext": [_why(row) for _, row in own.iterrows()],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    if own["low"].notna().all():  # without an interval plotly would draw a bar of no length
        trace["error_x"] = error_bars(own) | {"color": "#0072B2"}
    return trace


def _unmeasured(
    missing: Sequence[tuple[str, str]], names: Sequence[tuple[str, str]], place: int
) -> list[Trace]:
    bare = [name for name in missing if not name[1]]
    if not bare:
        return []
    return [
        {
            "type": "scatter",
            "mode": "text",
            "name": "not measured",
            "x": [0.0] * len(bare),
            "y": [names.index(name) for name in bare],
            "text": ["not measured"] * len(bare),
            "textfont": {"color": GREY},
            "hoverinfo": "skip",
            "meta": [place],
        }
    ]


def _held(rows: Frame) -> str:
    held = [name for name in dict.fromkeys(rows["adjusted"]) if name]
    return f"Adjusted: {sequence(held)} held constant. " if held else ""


def _most(rows: Frame, kinds: Sequence[tuple[str, str]]) -> int:
    """The rung by which most levels were looked at: the one shown first."""
    found = [rows[rows["rung"] == rung]["level"].nunique() for rung, _ in kinds]
    return found.index(max(found))


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
            parts.append(f"{level} {span(own['n_units'])} {unit}")
    runs = rows["n_runs"].dropna()
    models = f", {span(runs[runs > 0])} trained models" if (runs > 0).any() else ""
    return f"n = {', '.join(parts)}{models}." if parts else "n is not recorded."
