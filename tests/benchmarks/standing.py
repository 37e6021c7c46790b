"""The leaderboard: methods of others and ours, judged on planted models that nobody tuned on."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from interp.core.tables import Table
from interp.validation import blueprints, judge_method, standing
from interp.validation.puzzles import VERSION
from tests.benchmarks.judging import filled
from tests.benchmarks.recovering import markdown

FOLDER = Path(__file__).parent / "leaderboard"
DOCS = Path(__file__).parents[2] / "docs"
ENTRIES = {
    "sharing": {
        "chance": "random numbers",
        "cka": "CKA of class means, debiased, mean over blocks",
        "rsa": "RSA of class means (Spearman), mean over blocks",
        "probe_transfer": "logistic probe of one domain in the other, mean over blocks",
        "stitching": "stitching of one domain to the other, class by class, mean over blocks",
        "our_geometry": "ours, R2: CKA with null and ceiling",
        "our_directions": "ours, R3: cross-fitted LDA directions",
        "our_subspaces": "ours, R4: DAS across domains",
        "our_circuits": "ours, R5 and R6: circuits of neurons and edges",
    },
    "edges": {
        "random_edges": "random numbers",
        "eap": "EAP (Syed et al. 2023)",
        "eap_ig": "EAP-IG, inputs (Hanna et al. 2024)",
        "relp": "RelP (Jafari et al. 2025)",
        "acdc": "ACDC, edges by how many of six thresholds they survive (Conmy et al. 2023)",
        "path_patching": "path patching, every edge by itself (Goldowsky-Dill et al. 2023)",
    },
}
"""What is judged: functions of `interp.validation.contenders`, and what they are."""

FIRST_SEED = {"our_subspaces", "our_circuits", "acdc", "path_patching"}
"""Entries that take seconds a model: of the first seed alone, unless `SLOW` says how many."""

RUNGS = ("R2", "R3", "R4", "R5", "R6")


def leaderboard() -> str:
    """Judge what is missing (`METHODS=a,b` chooses), on `SEEDS` seeds from 1000 (5); fill the docs.

    An entry that was not judged has no row.
    """
    seeds = range(1000, 1000 + int(os.environ.get("SEEDS", "5")))
    FOLDER.mkdir(exist_ok=True)
    chosen = os.environ.get("METHODS", "").split(",") if "METHODS" in os.environ else None
    for ask, entries in ENTRIES.items():
        for name in entries:
            if chosen and name not in chosen:
                continue
            path = FOLDER / f"{ask}-{name}.csv"
            known = set(pd.read_csv(path)["seed"]) if path.exists() else set()
            asked = seeds[: int(os.environ.get("SLOW", "1"))] if name in FIRST_SEED else seeds
            missing = [seed for seed in asked if seed not in known]
            if missing:
                made = judge_method(
                    f"interp.validation.contenders:{name}",
                    blueprints(missing),
                    ask=ask,
                    seconds=600,
                ).frame
                kept = [pd.read_csv(path, keep_default_na=False, na_values=[""])] if known else []
                pd.concat([*kept, made.round(4)]).to_csv(path, index=False)
    page, made = DOCS / "judging_methods.md", table()
    text = filled(page.read_text(encoding="utf-8"), {"leaderboard": made})
    page.write_text(text, encoding="utf-8")
    return made


def _judged(ask: str) -> list[tuple[str, str]]:
    """Entries that rows are kept of, and what they are."""
    return [each for each in ENTRIES[ask].items() if (FOLDER / f"{ask}-{each[0]}.csv").exists()]


def _standing(ask: str, name: str) -> pd.DataFrame:
    frame = pd.read_csv(FOLDER / f"{ask}-{name}.csv", keep_default_na=False, na_values=[""])
    texts = [column for column in ("verdict", "reason") if column in frame]
    frame[texts] = frame[texts].astype(object).fillna("")
    own = {name: "kept" for name in frame.columns}
    return standing(Table("judged", frame, {"benchmark": VERSION}, own=own)).frame


def table() -> str:
    """Both tables, from what is kept."""
    sharing = []
    for name, words in _judged("sharing"):
        rows = _standing("sharing", name).set_index("rung")
        cells = [_cell(rows.loc[rung]) if rung in rows.index else "–" for rung in RUNGS]
        sharing.append([words, int(rows["n_models"].max()), *cells, f"{rows['seconds'].max():.2f}"])
    edges = []
    for name, words in _judged("edges"):
        [row] = _standing("edges", name).to_dict("records")
        found = f"{row['auroc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        edges.append(
            [words, row["n_models"], found, f"{row['least']:.2f}", f"{row['seconds']:.2f}"]
        )
    heads = ["does it tell what is shared?", "models", *RUNGS, "seconds a model"]
    return "\n\n".join(
        [
            markdown(heads, sharing),
            markdown(["does it find the edges?", "models", "AUROC", "least", "seconds a circuit"],
                     edges),
        ]
    )  # fmt: skip


def _cell(row: pd.Series) -> str:
    """AUROC with its interval; behind it what its verdicts come to, where it gives any."""
    said = "–"
    if np.isfinite(row["auroc"]):
        said = f"{row['auroc']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    if np.isfinite(row["right"]):
        wrong = int(row["false_shared"] + row["false_not"])
        said += f"; {row['right']:.0%} right, {wrong} opposite"
    return said
