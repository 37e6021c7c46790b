"""Standing of a judged method: how often it is right, says too much, or "unknown"."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import beta, rankdata

from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.core.tables import Table
from interp.validation.judged_methods import FAILED
from interp.validation.puzzles import PLACE

MUCH = {NOT_SHARED: 0, PARTLY: 1, SHARED: 2}
"""How much an answer says."""

DRAWS = 1000
"""Draws of models for an interval."""

FEW = 3
"""Fewer models than this on either side make no AUROC."""

OWN = {
    "n_models": "how many planted models were asked about",
    "failed": "in how many of them the method failed",
    "right": "share of its verdicts that are right",
    "too_much": "share of its verdicts that say too much",
    "too_little": "share of its verdicts that say too little",
    "unknown": "share of its verdicts that are unknown",
    "auroc": "how often what is shared (or in the circuit) is ranked above what is not",
    "n_auroc": "how many models that is of",
    "least": "the smallest over models and domains",
    "false_shared": "how many models that share nothing it called shared",
    "false_shared_of": "how many share nothing",
    "false_shared_bound": "95 % upper bound of that share",
    "false_not": "how many models that share all it called not shared",
    "false_not_of": "how many share all",
    "false_not_bound": "95 % upper bound of that share",
    "condition": "what two domains share in a planted model, in a word",
    "tier": "how hard a planted model is to read",
}
"""Columns of `standing` that no table of a study has."""


@door
def standing(judged: Table, *, by: Sequence[str] = ()) -> Table:
    """Sum up what came of a judged method, rung by rung (or by kind of part).

    Args:
        judged: What `judge_method` returned, or several such tables with a column `method`.
        by: Columns to tell apart beside method and rung: "condition", "tier".

    Returns:
        Of sharing: `n_models`; how many it `failed` in; shares of its verdicts that are right, say
        too much, say too little, and are unknown; `auroc` of its index for shared against not
        shared, where partly shared models are left out, with the interval of 1,000 draws of models;
        `false_shared` and `false_not`, how many of the models that share nothing (all) were called
        the opposite, with 95 % bounds. Of circuits: `auroc`, the mean over models, with its
        interval, and `least`.

    Raises:
        SpecificationError: For a table of another kind.

    >>> from interp.validation import blueprints, judge_method
    >>> models = blueprints([0], conditions=["all shared", "all separate"], tiers=["easy"])
    >>> table = standing(judge_method(lambda puzzle: "shared", models))
    >>> table.frame.set_index("rung").loc["R6", ["right", "too_much"]].tolist()
    [0.5, 0.5]
    """
    frame = judged.frame
    if not {"method", "outcome"} <= set(frame.columns):
        given = f"the table {judged.name!r}"
        right = "what judge_method returns"
        raise SpecificationError("sum up a judged method", given, right, "judge a method first")
    sharing = "rung" in frame
    keys = ["method", "rung" if sharing else "unit", *by]
    sum_up = _of_sharing if sharing else _of_circuits
    rows = [
        {**dict(zip(keys, names, strict=True)), **sum_up(own.reset_index(drop=True))}
        for names, own in frame.groupby(keys, sort=False)
    ]
    return Table("standing", pd.DataFrame(rows), dict(judged.facts), own=OWN)


def _of_sharing(own: pd.DataFrame) -> dict[str, object]:
    spoken = own[own["verdict"] != ""]
    said, right = (spoken[name].map(MUCH).astype(float) for name in ("verdict", "expected"))
    beyond = said - right
    area, low, high, n = _auroc(own)
    wrong = {"false_shared": (NOT_SHARED, SHARED), "false_not": (SHARED, NOT_SHARED)}
    found: dict[str, object] = {
        "n_models": len(own),
        "failed": int((own["outcome"] == FAILED).sum()),
        "right": _share(spoken["verdict"] == spoken["expected"]),
        "too_much": _share(beyond > 0),
        "too_little": _share(beyond < 0),
        "unknown": _share(spoken["verdict"] == UNKNOWN),
        "auroc": area,
        "low": low,
        "high": high,
        "n_auroc": n,
    }
    for name, (truth, called) in wrong.items():
        told = spoken[spoken["expected"] == truth]["verdict"]
        k, n = int((told == called).sum()), len(told)
        found |= {name: k, f"{name}_of": n, f"{name}_bound": bound(k, n)}
    return found | {"seconds": float(own["seconds"].mean())}


def _share(flags: pd.Series) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def bound(wrong: int, n: int) -> float:
    """A 95 % upper bound of a share of which `wrong` of `n` were seen (Clopper and Pearson 1934).

    >>> round(bound(0, 30), 3), bound(0, 0)
    (0.095, 1.0)
    """
    return float(beta.ppf(0.95, wrong + 1, n - wrong)) if n > wrong else 1.0


def _auroc(own: pd.DataFrame) -> tuple[float, float, float, int]:
    """How well the index tells what is shared from what is not, with models drawn anew."""
    known = own[own["expected"] != PARTLY].dropna(subset=["index"]).reset_index(drop=True)
    shared = (known["expected"] == SHARED).to_numpy()
    if min(shared.sum(), (~shared).sum()) < FEW:
        return np.nan, np.nan, np.nan, len(known)
    index = known["index"].to_numpy(float)
    rows = list(known.groupby(PLACE, dropna=False).indices.values())
    generator, drawn = rng("auroc of a judged method", 0), []
    for _ in range(DRAWS):
        some = np.concatenate([rows[one] for one in generator.integers(len(rows), size=len(rows))])
        if len(set(shared[some])) == 2:
            drawn.append(area_under(shared[some], index[some]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return area_under(shared, index), float(low), float(high), len(known)


def area_under(shared: np.ndarray, index: np.ndarray) -> float:
    """How often what is shared has the larger index; ties count half.

    >>> area_under(np.array([True, False, True]), np.array([0.5, 0.5, 0.9]))
    0.75
    """
    ranks, n = rankdata(index), shared.sum()
    return float((ranks[shared].sum() - n * (n + 1) / 2) / (n * (len(shared) - n)))


def _of_circuits(own: pd.DataFrame) -> dict[str, object]:
    known = own.dropna(subset=["auroc"])
    found: dict[str, object] = {
        "n_models": len(own[PLACE].drop_duplicates()),
        "failed": int((own["outcome"] == FAILED).sum()),
        **dict.fromkeys(("auroc", "low", "high", "least"), np.nan),
        "seconds": float(own["seconds"].mean()),
    }
    if known.empty:
        return found
    means = known.groupby(PLACE, dropna=False)["auroc"].mean().to_numpy()
    generator = rng("auroc of a judged method", 0)
    drawn = means[generator.integers(len(means), size=(DRAWS, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    ends = {"auroc": float(means.mean()), "low": float(low), "high": float(high)}
    return found | ends | {"least": float(known["auroc"].min())}
