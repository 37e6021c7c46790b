"""Figure of erasure: what changes in the model when the domain is taken out in its middle."""

from itertools import product

import pandas as pd

from interp.report.figures import Choice, Figure, Trace, axis, counts, layout, reference
from interp.report.forest import height, marks, rows_by_name
from interp.report.naming import percents, sequence, site_label
from interp.report.reading import Frame, Result
from interp.report.subjects import Subject, subjects

BEYOND = ("beyond", "beyond_low", "beyond_high")
CHANGE = ("value", "low", "high")
LOOKS = {
    "beyond LEACE of permuted domains": ("permuted labels", BEYOND),
    "beyond a random subspace of equal variance": ("random subspace", BEYOND),
    "the change itself": ("permuted labels", CHANGE),
}


def erased(result: Result) -> Figure | None:
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
        compared = subjects(result, test_domain)
        most = max(most, len(compared))
        for nth, one in enumerate(compared):
            rows = _of(frame, one)
            rows = rows[rows["against"] == against]
            traces.append(marks(rows, names, one, (nth, len(compared)), [d, k], scale))
    zero, _ = reference("x", 0, "", "solid")
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


def _of(frame: Frame, one: Subject) -> Frame:
    """A subject's rows; of one checkpoint, those of its pair of domains."""
    rows = one.of(frame)
    ends = pd.Series([one.natural, one.domain, ""])
    return rows[rows["domain"].isin(ends) & rows["train_domain"].isin(ends)]
