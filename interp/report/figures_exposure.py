"""Figure of exposure: is a class that was trained on more often recognised better?"""

from collections.abc import Sequence
from itertools import product

import pandas as pd

from interp.report.figures import Choice, Figure, Trace, axis, layout, numbers, span
from interp.report.naming import (
    CLASS_SETS,
    OKABE_ITO,
    between,
    number,
    ordered_settings,
    plain,
    sequence,
    setting_name,
    some,
)
from interp.report.primary import in_test_domain
from interp.report.reading import Frame, Result


def exposure(result: Result) -> Figure | None:
    """Accuracy of each class against its training pictures."""
    rows = in_test_domain(result.frame("exposure_classes")).dropna(subset=["value", "exposure"])
    rows = rows[rows["candidates"].isin(["all", ""])]
    if rows.empty:
        return None
    options = [
        [name for name in result.test_domains if name in set(rows["test_domain"])],
        ordered_settings(rows["setting"]),
        list(dict.fromkeys(rows["exposed_in"])),
    ]
    classes = rows.groupby(["test_domain", "setting"])["label"].nunique()
    traces = []
    for keys in product(*map(enumerate, options)):
        (d, test_domain), (s, setting), (e, exposed_in) = keys
        own = rows[
            (rows["test_domain"] == test_domain)
            & (rows["setting"] == setting)
            & (rows["exposed_in"] == exposed_in)
        ]
        own = own[own["seed"] == own["seed"].min()] if own["seed"].notna().any() else own
        for n, (class_set, words) in enumerate(CLASS_SETS.items()):
            part = own[own["class_set"] == class_set]
            if len(part):
                traces.append(_classes(part, words, n, [d, s, e]))
    return Figure(
        "exposure",
        "Accuracy of each class against its training pictures",
        f"First block; Spearman over all classes: {_spearman(result)}. n = {span(classes)} "
        "classes per setting; single classes have no interval, those in brackets are 95 % over "
        "classes.",
        f"Accuracy against training pictures for {sequence([setting_name(s) for s in options[1]])}",
        traces,
        layout(
            380,
            xaxis=axis("training pictures of the class", rangemode="tozero"),
            yaxis=axis("accuracy", tickformat=".0%", range=[-0.04, 1.04]),
        ),
        [
            Choice("Test domain", options[0]),
            Choice(
                "Setting",
                [setting_name(one) for one in options[1]],
                _varied(rows, options[1]),
            ),
            Choice("Counted in", options[2]),
        ],
    )


def _classes(rows: Frame, words: str, place: int, meta: Sequence[int]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": words,
        "x": numbers(rows["exposure"]),
        "y": numbers(rows["value"]),
        "text": [plain(name) for name in rows["label"]],
        "marker": {
            "size": 9,
            "color": OKABE_ITO[place],
            "symbol": ("diamond", "circle", "square")[place],
            "opacity": 0.75,
        },
        "hovertemplate": "%{text}: %{y:.1%}, %{x:,} pictures<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


def _spearman(result: Result) -> str:
    """Every correlation with its interval, and where there is none, why."""
    rows = in_test_domain(result.frame("exposure"))
    rows = rows[(rows["class_set"] == "all") & (rows["candidates"].isin(["all", ""]))]
    said: list[str] = []
    without: dict[str, list[str]] = {}
    for _, row in rows.drop_duplicates(["test_domain", "setting", "exposed_in"]).iterrows():
        what = f"{setting_name(row['setting'])}, {row['exposed_in']}"
        what += f", {row['test_domain']}" if len(result.test_domains) > 1 else ""
        if pd.isna(row["value"]):
            without.setdefault(row["reason"] or "no number", []).append(what)
        else:
            ends = between(row["low"], row["high"]).removeprefix("95 % interval ")
            said.append(f"{what}: {number(row['value'])} ({ends})")
    parts = [some(said, "exposure")] if said else []
    parts += [f"none for {len(names)}, where {why}" for why, names in without.items()]
    return "; ".join(parts) if parts else "not measured"


def _varied(rows: Frame, settings: Sequence[str]) -> int:
    """The first setting whose classes were trained on unequally: the one worth showing first."""
    first = rows[rows["exposed_in"] == rows["exposed_in"].iloc[0]]
    varied = first.groupby("setting")["exposure"].nunique() > 1
    return next((place for place, name in enumerate(settings) if varied.get(name)), 0)
