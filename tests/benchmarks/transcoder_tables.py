"""Tables of what circuits of transcoders' features keep and show, from the rows of every model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife
from tests.benchmarks.recovering import markdown

PLANTED, TRAINED, STUDY = "written by hand", "trained", "study"
EQUAL = (4, 8, 16, 32, 64)
"""Sizes that all codes have, beyond the smallest, at which nobody keeps anything."""

WITHOUT = "recovered without "
"""What is kept of all classes but one, behind which its name stands."""

OURS = "features"
OTHERS = ("neurons", "principal components")
CODES = (OURS, f"{OURS}, errors kept", *OTHERS, "random features", "random features, errors kept")
MEASURES = {"overlap": "overlap above another class", "transfer": "transfer above another class"}
MODEL = ["condition", "tier", "dose", "seed"]


def read(folder: Path) -> pd.DataFrame:
    """The rows of all models."""
    parts = [pd.read_csv(path, keep_default_na=False, na_values=[""])
             for path in sorted(folder.glob("*.csv"))]  # fmt: skip
    rows = pd.concat(parts, ignore_index=True)
    by_hand = ~rows["tier"].isin([TRAINED, STUDY])
    return rows.assign(kind=np.where(by_hand, PLANTED, rows["tier"]))


def tables(rows: pd.DataFrame) -> dict[str, str]:
    """Every table by the name that it has in docs/truth.md."""
    return {
        "transcoders": explained(rows),
        "feature circuits": recovered(rows[rows["kind"] == PLANTED]),
        "feature circuits of trained models": recovered(rows[rows["kind"] != PLANTED]),
        "feature sharing": planted_truth(rows[rows["kind"] == PLANTED]),
    }


def explained(rows: pd.DataFrame) -> str:
    """How much of MLPs' outputs is explained on other artists' pictures: mean, and least."""
    told = rows[rows["measure"].isin(["explained", "active", "dead"])]
    lines = []
    for condition, own in told.groupby(_named(told)):
        wide = own.groupby(["code", "measure"])["value"].agg(["mean", "min"])
        at = wide["mean"].to_dict()
        least = wide["min"].to_dict()
        lines.append([
            condition, len(own.drop_duplicates(MODEL)),
            f"{at['transcoder', 'active']:.1f}", f"{at['transcoder', 'dead']:.1%}",
            *(f"{at[code, 'explained']:.2f} ({least[code, 'explained']:.2f})"
              for code in ("transcoder", "pca", "reduced-rank regression")),
        ])  # fmt: skip
    head = ["models", "n", "active features", "dead", "transcoder", "principal components",
            "reduced-rank regression"]  # fmt: skip
    return markdown(head, lines)


def _named(rows: pd.DataFrame) -> pd.Series:
    """The name of a trained model; those that are written by hand are one group."""
    trained = "planted, " + rows["condition"] + ", trained"
    named = rows["condition"].where(rows["kind"] == STUDY, trained)
    return named.where(rows["kind"] != PLANTED, PLANTED)


def recovered(rows: pd.DataFrame) -> str:
    """Of the metric: what is kept, by size; and the mean over sizes, features less others."""
    without = rows[rows["measure"].str.startswith(WITHOUT)]
    rows, lines = rows[rows["measure"] == "recovered"], []
    for condition, group in rows.groupby(_named(rows)):
        means = _by_model(group)
        for code in CODES:
            own = group[group["code"] == code]
            whole = own[
                own["n"] == own.groupby([*MODEL, "domain"], dropna=False)["n"].transform("max")
            ]
            by_size = own.groupby("n")["value"].mean()
            texts = [f"{by_size[n]:.2f}" if n in by_size else "–" for n in EQUAL]
            everything = "–" if code.startswith("random") else f"{whole['value'].mean():.2f}"
            less = "–"
            if code in OTHERS:
                less = _interval(means[OURS] - means[code])
                left = without[without["condition"].isin(group["condition"])]
                if len(left):
                    less = _over_classes(group, left, code)
            start = [] if condition == PLANTED else [condition]
            lines.append([*start, code, *texts, everything, less])
    named = [] if rows["kind"].eq(PLANTED).all() else ["model"]
    head = [*named, "kept", *(f"{n} parts" for n in EQUAL), "all", "features less these"]
    return markdown(head, lines)


def _by_model(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """For each code the mean over the equal sizes and domains, by model (of a study, by domain)."""
    same = rows[rows["n"].isin(EQUAL)]
    return {
        str(code): own.groupby([*MODEL, "domain"], dropna=False)["value"].mean()
        .groupby(level=MODEL, dropna=False).mean()
        for code, own in same.groupby("code")
    }  # fmt: skip


def _interval(differences: pd.Series) -> str:
    """The mean over models, and where 95 % of 1,000 draws of models lie."""
    values = differences.to_numpy()
    if len(values) < 5:
        return f"{values.mean():+.2f}"
    generator = rng("models of feature circuits", 0)
    drawn = values[generator.integers(len(values), size=(1000, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def _over_classes(rows: pd.DataFrame, without: pd.DataFrame, code: str) -> str:
    """The same difference in one model, with the interval that leaves out one class at a time."""

    def less(some: pd.DataFrame) -> float:
        same = some[some["n"].isin(EQUAL)]
        ours, theirs = (same[same["code"] == name]["value"].mean() for name in (OURS, code))
        return float(ours - theirs)

    spread = jackknife(less(rows), [less(own) for _, own in without.groupby("measure")])
    return f"{spread.value:+.2f} ({spread.low:+.2f} to {spread.high:+.2f})"


def planted_truth(rows: pd.DataFrame) -> str:
    """Do scores show what was planted, and do circuits of two domains tell what they share?"""
    lines = []
    for code in (OURS, *OTHERS):
        own = rows[rows["code"] == code]
        by = {name: each for name, each in own.groupby("measure")}
        texts = [f"{by[name]['value'].mean():.2f}" for name in ("layers", "directions found")]
        texts += [_told(by[name]) if name in by else "–" for name in MEASURES.values()]
        lines.append([code, *texts])
    head = ["parts", "AUROC, MLPs of the circuit", "planted directions found",
            *(f"AUROC of R6 by {name}" for name in MEASURES)]  # fmt: skip
    return markdown(head, lines)


def _told(own: pd.DataFrame) -> str:
    """How well a number tells models that share from those that do not, with models drawn again."""
    shared, value = (own["answer"] == "shared").to_numpy(), own["value"].to_numpy()
    generator, drawn = rng("auroc of feature circuits", 0), []
    for _ in range(1000):
        some = generator.integers(len(own), size=len(own))
        if len(set(shared[some])) == 2:
            drawn.append(roc_auc_score(shared[some], value[some]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{roc_auc_score(shared, value):.2f} ({low:.2f} to {high:.2f}, {len(own)})"


def fill(page: Path, made: Mapping[str, str]) -> None:
    """Write tables between their markers."""
    from tests.benchmarks.judging import filled

    page.write_text(filled(page.read_text(encoding="utf-8"), made), encoding="utf-8")
