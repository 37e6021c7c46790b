"""The leaderboard: methods of others and ours, judged on planted models that nobody tuned on."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from interp.circuits.planted.vit import Blueprint
from interp.core.seeds import rng
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
"""What is judged: functions of `tests.benchmarks.contenders`, and what they are."""

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
            asked = seeds[: int(os.environ.get("SLOW", "1"))] if name in FIRST_SEED else seeds
            _judge(ask, name, blueprints(asked))
    page, made = DOCS / "judging_methods.md", table()
    text = filled(page.read_text(encoding="utf-8"), {"leaderboard": made})
    page.write_text(text, encoding="utf-8")
    return made


def _judge(ask: str, name: str, models: Sequence[Blueprint]) -> None:
    """Judge what is missing; of edges a few models at a time, each kept when it is done.

    In an order drawn at random, so that an entry that was stopped is of all kinds of models. Of
    sharing a model may be asked nothing and leave no row: seeds are judged whole.
    """
    path = FOLDER / f"{ask}-{name}.csv"
    kept = _rows(path) if path.exists() else pd.DataFrame(columns=list(PLACE))
    keys = list(PLACE) if ask == "edges" else ["seed"]
    known = set(kept[keys].fillna(-1).itertuples(index=False, name=None))
    missing = [each for each in models if _place(each)[-len(keys) :] not in known]
    order = rng("the order of a leaderboard", 0).permutation(len(missing))
    method, step = f"tests.benchmarks.contenders:{name}", AT_A_TIME if ask == "edges" else 1000
    for first in range(0, len(missing), step):
        some = [missing[one] for one in order[first : first + step]]
        made = judge_method(method, some, ask=ask, seconds=600).frame.round(4)
        kept = pd.concat([kept, made]) if len(kept) else made
        kept.sort_values(["seed", *PLACE[:3]], kind="stable").to_csv(path, index=False)


AT_A_TIME = 8
"""Models that are judged before their rows are written."""

PLACE = ("condition", "tier", "dose", "seed")


def _place(model: Blueprint) -> tuple[str, str, float, int]:
    return model.condition, model.tier, -1 if model.dose is None else model.dose, model.seed


def _rows(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _judged(ask: str) -> list[tuple[str, str]]:
    """Entries that rows are kept of, and what they are."""
    return [each for each in ENTRIES[ask].items() if (FOLDER / f"{ask}-{each[0]}.csv").exists()]


def _standing(ask: str, name: str) -> pd.DataFrame:
    frame = _rows(FOLDER / f"{ask}-{name}.csv")
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
