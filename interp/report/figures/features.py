"""Figures of features: which two domains share, and what those cost that are taken away."""

from collections.abc import Sequence
from itertools import product

import pandas as pd

from interp.report.figures.pieces import (
    INDEX,
    RAW,
    THRESHOLDS,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    height,
    kinds,
    layout,
    marks,
    reference_line,
    rows_by_name,
)
from interp.report.figures.subjects import ComparedPair, compared_pairs
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import number, percent, percents, sequence, site_label

SHARES = {
    "share of the class's own activity": ("shared mass", True),
    "share of all activity": ("shared mass", False),
    "top features of the class": ("shared top features", True),
    "top features of all activity": ("shared top features", False),
}
DROPS = {"margin of the true class": "margin drop", "balanced accuracy": "accuracy drop"}


def shared_features_figure(result: LoadedResult) -> Figure | None:
    """The sharing index of features, for a dictionary and for what it has to beat."""
    frame = result.frame("feature_sharing")
    if frame["index"].notna().sum() == 0:
        return None
    codes = [
        f"{code}, two seeds" if "two seeds" in reading else code
        for code, reading in zip(frame["code"], frame["reading"], strict=True)
    ]
    frame = frame.assign(row=codes)
    names = list(dict.fromkeys(codes))
    traces: list[Trace] = []
    most = 1
    for (d, test_domain), (k, (measure, centred)) in product(
        enumerate(result.test_domains), enumerate(SHARES.values())
    ):
        compared = compared_pairs(result, test_domain)
        most = max(most, len(compared))
        for nth, one in enumerate(compared):
            rows = one.pair(frame)
            rows = rows[(rows["measure"] == measure) & (rows["centred"] == centred)]
            traces.append(marks(rows, names, one, (nth, len(compared)), [d, k], INDEX))
    words = ("not shared<br>below .2", "shared<br>above .5")
    lines = [reference_line("x", at, word) for at, word in zip(THRESHOLDS, words, strict=True)]
    below = {"y": 0, "yanchor": "bottom"}  # above, the legend is in the way
    withheld = int(frame["index"].isna().sum())
    gaps = f" {withheld} values withheld, see the table's reasons." if withheld else ""
    return Figure(
        "feature-sharing",
        f"Features that a class uses in both domains, {_sites(frame)}",
        f"{counts(frame)}; bars are 95 % intervals of the index over classes. {kinds(frame)}{gaps}",
        f"Forest of the sharing index of {sequence(names)} for each of {most} models",
        traces,
        layout(
            height(names, most) + 30,
            shapes=[line for line, _ in lines],
            annotations=[note | below for _, note in lines],
            xaxis=axis("index (0 null, 1 ceiling)"),
            yaxis=rows_by_name(names, room=0.6),
        ),
        [Choice("Test domain", result.test_domains), Choice("Measured by", list(SHARES))],
    )


def ablated_features_figure(result: LoadedResult) -> Figure | None:
    """What replacing shared features costs in either domain, and private ones matched to them."""
    frame = result.frame("feature_ablation")
    if frame["value"].notna().sum() == 0:
        return None
    natural = result.natural
    ends = [
        f"in {natural}" if name == natural else "in the other domain" for name in frame["domain"]
    ]
    frame = frame.assign(
        row=[f"{what} features, {end}" for what, end in zip(frame["ablated"], ends, strict=True)]
    )
    names = list(dict.fromkeys(frame["row"]))
    traces: list[Trace] = []
    most = 1
    for (d, test_domain), (k, measure) in product(
        enumerate(result.test_domains), enumerate(DROPS.values())
    ):
        compared = compared_pairs(result, test_domain)
        most = max(most, len(compared))
        for nth, one in enumerate(compared):
            rows = _of(frame, one)
            rows = rows[rows["measure"] == measure]
            traces.append(marks(rows, names, one, (nth, len(compared)), [d, k], RAW))
    zero, _ = reference_line("x", 0, "", "solid")
    reasons = sequence(sorted({reason for reason in frame["reason"] if "matched" in reason})[:2])
    return Figure(
        "feature-ablation",
        f"What the model loses without shared and without private features, {_sites(frame)}",
        f"Private features are matched one to one to shared ones in the variance they remove and "
        f"in what that costs in {natural}. {counts(frame)}; bars are 95 % intervals over classes. "
        f"{reasons}".strip(),
        f"Forest of {len(names)} drops for each of {most} models",
        traces,
        layout(
            height(names, most),
            shapes=[zero],
            xaxis=axis("drop (standard deviations, or accuracy)"),
            yaxis=rows_by_name(names),
        ),
        [Choice("Test domain", result.test_domains), Choice("Drop of", list(DROPS))],
    )


def dictionary_words(result: LoadedResult) -> list[tuple[str, list[str]]]:
    """Each subject's dictionary: L0, explained variance, dead, recovered accuracy, stability."""
    frame = result.frame("dictionaries")
    found = []
    for test_domain in result.test_domains:
        for one in compared_pairs(result, test_domain):
            own = one.of(frame)
            own = own[(own["control"] == "") & (own["class_set"].isin(["all", ""]))]
            if own["value"].notna().any():
                name = f"{one.name}, {test_domain}" if len(result.test_domains) > 1 else one.name
                found.append((name, _described(own, one)))
    return found


def _described(own: Frame, one: ComparedPair) -> list[str]:
    whole = own[own["domain"] == ""]

    def mean(rows: Frame, measure: str) -> float:
        return float(rows.loc[rows["measure"] == measure, "value"].mean())

    stable, chance = (
        mean(whole, "mean cosine"),
        float(whole.loc[whole["measure"] == "mean cosine", "null"].mean()),
    )
    recovered = [
        f"{name} {percent(mean(own[own['domain'] == name], 'recovered accuracy'))} of "
        f"{percent(float(own.loc[_recovered(own, name), 'ceiling'].mean()))}"
        for name in (one.natural, one.domain)
        if _recovered(own, name).any()
    ]
    width = own["width"].dropna()
    return [
        f"{int(width.iloc[0])}" if len(width) else "–",
        number(mean(whole, "active features"), 1),
        percent(mean(whole, "explained variance")),
        percent(mean(whole, "dead features")),
        "; ".join(recovered) or "–",
        f"{number(stable)} (chance {number(chance)})",
    ]


def _recovered(own: Frame, domain: str) -> "pd.Series[bool]":
    return (own["measure"] == "recovered accuracy") & (own["domain"] == domain)


def _of(frame: Frame, one: ComparedPair) -> Frame:
    rows = one.of(frame)
    return rows[rows["domain"].isin([one.natural, one.domain])]


def _sites(frame: Frame) -> str:
    sites: Sequence[str] = [site for site in dict.fromkeys(frame["site"]) if site]
    return f"at {sequence([site_label(site) for site in sites])}"


BEYOND = ("beyond", "beyond_low", "beyond_high")
CHANGE = ("value", "low", "high")
LOOKS = {
    "beyond LEACE of permuted domains": ("permuted labels", BEYOND),
    "beyond a random subspace of equal variance": ("random subspace", BEYOND),
    "the change itself": ("permuted labels", CHANGE),
}


def erasure_figure(result: LoadedResult) -> Figure | None:
    """Change of accuracy, similarity, transfer and readable domain, with their intervals."""
    frame = result.frame("erasure").dropna(subset=["value"])
    if frame.empty:
        return None
    frame = frame.assign(row=[_row(row) for _, row in frame.iterrows()])
    names = list(dict.fromkeys(frame["row"]))
    traces: list[Trace] = []
    most = 1
    for (d, test_domain), (k, (against, scale)) in product(
        enumerate(result.test_domains), enumerate(LOOKS.values())
    ):
        compared = compared_pairs(result, test_domain)
        most = max(most, len(compared))
        for nth, one in enumerate(compared):
            rows = _erased_of(frame, one)
            rows = rows[rows["against"] == against]
            traces.append(marks(rows, names, one, (nth, len(compared)), [d, k], scale))
    zero, _ = reference_line("x", 0, "", "solid")
    removed = frame["removed"].dropna()
    site = sequence([site_label(name) for name in dict.fromkeys(frame["site"])])
    share = percents(float(removed.min()), float(removed.max()))
    return Figure(
        "erasure",
        f"What changes when the domain is erased at {site}",
        f"{counts(frame)}; bars are 95 % intervals. LEACE takes {share} of the variance out, "
        "fitted on one half of the artists and judged on the other. Beyond: less the same change "
        "under a control, paired by class, over classes and draws of the control.",
        f"Forest of {len(names)} changes for each of {most} models",
        traces,
        layout(
            height(names, most),
            shapes=[zero],
            xaxis=axis("change (accuracy, or CKA)"),
            yaxis=rows_by_name(names),
        ),
        [Choice("Test domain", result.test_domains), Choice("Shown", list(LOOKS))],
    )


def _row(row: Frame) -> str:
    """What a row measures, in words."""
    where = "at the site" if row["read_at"] == "site" else "in the embedding"
    if row["measure"] == "accuracy":
        return f"zero-shot accuracy, {row['domain']}"
    if row["measure"] == "transfer":
        return f"probe {row['train_domain']} → {row['domain']}, {where}"
    if row["measure"] == "similarity":
        return f"debiased CKA, {where}"
    return f"{row['measure']}, {where}"


def _erased_of(frame: Frame, one: ComparedPair) -> Frame:
    """A subject's rows; of one checkpoint, those of its pair of domains."""
    rows = one.of(frame)
    ends = pd.Series([one.natural, one.domain, ""])
    return rows[rows["domain"].isin(ends) & rows["train_domain"].isin(ends)]
