"""One page of a judged method: how often it is right, and on which planted models it is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.core.tables import Table
from interp.declared.figures import BLUE, ORANGE, Scale
from interp.declared.writing import MISSING, number, percent, plain
from interp.report.embedding import figure_data
from interp.report.grammar import pieces
from interp.report.grammar.pieces import Choice, Figure, Trace
from interp.report.loaded import LoadedResult
from interp.report.page import rendered, written
from interp.report.verdict_tables import WordTable
from interp.verdicts.rungs import RUNGS

METHOD = (
    "Vision transformers are written by hand so that it is known which parts and directions two "
    "domains share, then disguised. The method was given each with pictures, and no answer."
)
NULL = "An AUROC of .5 is chance. Intervals are of 1,000 draws of models."


def build_judged_page(
    judged: Table, overall: Table, by_kind: Table, *, out: Path, command: str = ""
) -> Path:
    """Write one offline page of what came of a judged method.

    Args:
        judged: What `interp.validation.judge_method` returned.
        overall: Its `standing`.
        by_kind: Its `standing` by condition and tier.
        out: The page's file.
        command: What was typed.

    Returns:
        The page.
    """
    first, kinds = area_figure(overall.frame), kinds_figure(by_kind.frame)
    drawn = [one for one in (first, kinds) if one]
    failures = _failures(judged.frame)
    words: dict[str, object] = dict(
        title="A method, judged",
        question=f"How often is {judged.facts['method']} right?",
        setup=f"{judged.facts['models']:,} planted models, benchmark version "
        f"{judged.facts['benchmark']}, asked about {judged.facts['ask']}",
        contents=[
            ("answer", "The answer"),
            ("kinds", "By kind of model"),
            *([("failures", "Where it failed")] if failures else []),
            ("rows", "Every row"),
            ("words", "The words"),
        ],
        headline=headline(judged, overall.frame),
        first=first,
        overall=_overall(overall.frame),
        kinds=kinds,
        failures=failures,
        figures=figure_data(drawn, first),
        commands=[(command, "makes this page")] if command else [],
    )
    tables = {"judged": judged, "standing": by_kind}
    made = LoadedResult(out, {"mode": "model"}, tables)  # a file: it holds no tables
    return written(out, rendered("judged.html", words, made))


def asked_about(row: Mapping[str, Any]) -> str:
    """What a row of a standing is about: a rung's claim, or the parts of circuits.

    >>> asked_about({"rung": "R3"}), asked_about({"unit": "edge"})
    ('directions (R3)', 'edges')
    """
    rung = row.get("rung")
    return f"{RUNGS[rung].label} ({rung})" if rung else f"{row['unit']}s"


def headline(judged: Table, overall: pd.DataFrame) -> list[str]:
    """What a reader must know first."""
    said = []
    for row in overall.to_dict("records"):
        name, parts = asked_about(row), []
        if np.isfinite(row.get("right", np.nan)):
            parts.append(
                f"right in {percent(row['right'])}, too much said in {percent(row['too_much'])}, "
                f"unknown in {percent(row['unknown'])}"
            )
        if np.isfinite(row["auroc"]):
            ends = f"{number(row['low'])} to {number(row['high'])}"
            parts.append(f"AUROC {number(row['auroc'])} ({ends})")
        if row["failed"]:
            parts.append(f"failed in {row['failed']}")
        if parts:
            said.append(
                f"{name[:1].upper()}{name[1:]}, {row['n_models']:,} models: {'; '.join(parts)}."
            )
    failed = int((judged.frame["outcome"] == "failed").sum())
    if failed == len(judged.frame):
        said = [f"It failed in all {judged.facts['models']:,} models."]
    return said or ["It gave neither a verdict nor enough indices to say how well they rank."]


def area_figure(overall: pd.DataFrame) -> Figure | None:
    """How well the method's numbers rank, rung by rung or by kind of part."""
    names = [asked_about(row) for row in overall.to_dict("records")]
    if not overall["auroc"].notna().any():
        return None
    known = overall.assign(name=names)[overall["auroc"].notna()]
    said = [
        f"{plain(row.name)}: {number(row.auroc, 3)} ({number(row.low, 3)} to "
        f"{number(row.high, 3)}), {row.n_models:,} models"
        for row in known.itertuples(index=False)
    ]
    at = [names.index(name) for name in known["name"]]
    trace = pieces.points("", (BLUE, "circle"), known["auroc"], at, said, [], size=10)
    bars = pieces.error_bars(known, Scale("auroc", "low", "high"), color=BLUE)
    trace |= {"error_x": bars, "showlegend": False}
    line, note = pieces.reference_line("x", 0.5, "chance")
    shape = pieces.layout(
        130 + 44 * len(names),
        xaxis=pieces.axis("AUROC", range=[0, 1.03]),
        yaxis=pieces.rows_by_name(names, room=0.6),
        shapes=[line],
        annotations=[note],
    )
    n = int(overall["n_models"].max())
    caption = (
        f"n = {n:,} planted models at most; bars are 95 % intervals, models drawn anew. How often "
        "what is shared (or a part of the circuit) has the larger number than what is not."
    )
    title, alt = "How well its numbers rank", f"AUROC with intervals, {len(names)} rows"
    return Figure("areas", title, caption, alt, [trace], shape, [], METHOD, NULL, ["standing"])


def kinds_figure(by_kind: pd.DataFrame) -> Figure | None:
    """Share of right answers (or AUROC) for each condition and tier."""
    asked = "rung" if "rung" in by_kind else "unit"
    column = "right" if asked == "rung" and by_kind["right"].notna().any() else "auroc"
    rows = by_kind[by_kind[column].notna()]
    if rows.empty:
        return None
    options = list(dict.fromkeys(rows[asked]))
    kinds = [f"{row.condition} · {row.tier}" for row in by_kind.itertuples(index=False)]
    names = list(dict.fromkeys(kinds))
    traces: list[Trace] = []
    for place, option in enumerate(options):
        own = rows[rows[asked] == option]
        at = [names.index(f"{row.condition} · {row.tier}") for row in own.itertuples(index=False)]
        wrong = (own["too_much"] + own["too_little"] if column == "right" else 1 - own["auroc"]) > 0
        values = [percent(v) if column == "right" else number(v) for v in own[column]]
        said = [
            f"{plain(names[y])}: {value}, {n:,} models" + (f", failed in {f}" if f else "")
            for y, value, n, f in zip(at, values, own["n_models"], own["failed"], strict=True)
        ]
        colours = [ORANGE if bad and column == "right" else BLUE for bad in wrong]
        words = {"text": values, "textposition": "outside", "cliponaxis": False, "hovertext": said}
        traces.append(
            {"type": "bar", "orientation": "h", "x": pieces.numbers(own[column]), "y": at}
            | {"marker": {"color": colours}, "width": 0.7, "showlegend": False, "meta": [place]}
            | {**words, "hovertemplate": "%{hovertext}<extra></extra>"}
        )
    title = "share of its verdicts that are right" if column == "right" else "mean AUROC"
    shape = pieces.layout(
        110 + 22 * len(names),
        xaxis=pieces.axis(
            title, range=[0, 1.1], **({"tickformat": ".0%"} if column == "right" else {})
        ),
        yaxis=pieces.rows_by_name(names, limit=60),
    )
    caption = (
        "n of each kind when it is pointed at; no interval here, the table has those of AUROCs. "
        + ("Orange: some answers are wrong; blue: none is. " if column == "right" else "")
        + "No number: it has no answer there, or none is right by declaration."
    )
    choices = [Choice("Asked about", [asked_about({asked: name}) for name in options])]
    title, alt = "By kind of model", f"Bars of {len(names)} kinds of planted model"
    return Figure("kinds", title, caption, alt, traces, shape, choices, METHOD, NULL, ["standing"])


def _overall(overall: pd.DataFrame) -> WordTable:
    columns = "n_models failed right too_much too_little unknown auroc least seconds".split()
    known = [name for name in columns if name in overall and overall[name].notna().any()]
    heads = [{"n_models": "Models", "auroc": "AUROC"}.get(name, _in_words(name)) for name in known]
    rows = [
        [asked_about(row), *(_result_cell(name, row[name]) for name in known)]
        for row in overall.to_dict("records")
    ]
    return WordTable("What came of it", ["Asked about", *heads], rows)


def _in_words(column: str) -> str:
    return column.replace("_", " ").capitalize()


def _result_cell(name: str, value: float) -> str:
    if pd.isna(value):
        return MISSING
    if name in ("right", "too_much", "too_little", "unknown"):
        return percent(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def _failures(judged: pd.DataFrame) -> WordTable | None:
    rows = judged[judged["outcome"] == "failed"]
    if rows.empty:
        return None
    models = rows.drop_duplicates(["condition", "tier", "dose", "seed", "reason"])
    counted = models.groupby("reason", sort=False)
    lines = [
        [
            str(reason),
            f"{len(own):,}",
            f"{own.iloc[0]['condition']}, {own.iloc[0]['tier']}, seed {own.iloc[0]['seed']}",
        ]
        for reason, own in counted
    ]
    return WordTable("Why it failed", ["Reason", "Models", "For example"], lines)
