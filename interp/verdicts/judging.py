"""The ladder: what two domains share in one model, rung by rung and band by band of its layers.

R1 the class can be read, R2 same geometry, R3 same directions, R4 same causal directions,
R5 same parts, R6 same wiring (circuits). Only R4 and R6 speak of mechanisms.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from interp.core.sites import LAST, band_of
from interp.core.statistics.index_of_sharing import (
    NOT_SHARED,
    SHARED,
    UNKNOWN,
    AnswerBars,
    units_to_decide,
)
from interp.core.statistics.replication import mean_t
from interp.core.statistics.resampling import Interval
from interp.declared.writing import told_once
from interp.models.evaluation.learning import learning, why_not
from interp.verdicts.rungs import PLACE, RUNGS, with_words
from interp.verdicts.votes import Votes, agreement, count_votes, of_cuts

WHOLE = "whole tower"


def judged_rows(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows by which each rung is judged, in one table, with the columns `rung` and `band`.

    Tables that are not there leave their rungs out.
    """
    found = [
        rung.judged.select(frames[rung.judged.table]).assign(rung=name)
        for name, rung in RUNGS.items()
        if len(frames.get(rung.judged.table, ()))
    ]
    if not found:
        return pd.DataFrame(columns=["rung", *COLUMNS])
    joined = pd.concat([_filled(rows) for rows in found], ignore_index=True)
    return joined[["rung", *[name for name in COLUMNS if name in joined]]]


COLUMNS = (
    *("measure", "domain_a", "domain_b", "level", "band", "site", "layer", "depth"),
    *("value", "null", "ceiling", "index", "index_low", "index_high", "p", "verdict", "reason"),
    *("unit", "n_units", "n_pictures", "n_drawings", *PLACE),
)


NEEDED = (
    *("band", "level", "site", "depth", "index", "index_low", "index_high", "verdict", "reason"),
    *("n_units", "control"),
)


def _filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Every column that answers rest on, also of rows that only say why nothing was measured."""
    banded = "band" in rows
    rows = rows.reindex(columns=dict.fromkeys([*rows.columns, *NEEDED]))
    rows = with_words(rows, ("level", "site", "reason", "verdict", "control", "band"))
    if not banded or (rows["band"] == "").all():
        places = zip(rows["site"], rows["depth"], strict=True)
        rows["band"] = ["" if site == LAST else band_of(depth) for site, depth in places]
    return rows


def ladder_rows(judged: pd.DataFrame) -> pd.DataFrame:
    """One row for each model, pair of domains, band and rung: the verdict, and by how many votes.

    Directions (A to B, B to A) and sites vote together. R6 by edges knows the whole tower alone,
    where "not shared" by any cut is enough: wiring is the same only if every cut says so.
    """
    rows = judged.copy()
    rows["band"] = rows["band"].where(rows["band"] != "", WHOLE)
    embedding = rows["site"].isin([LAST]) | (rows["site"].isin(["pixels"]))
    rows = rows[~embedding]
    ends = rows[["domain_a", "domain_b"]].to_numpy()
    rows["domain_a"], rows["domain_b"] = [min(pair) for pair in ends], [max(pair) for pair in ends]
    keys = [name for name in PLACE if name in rows] + ["domain_a", "domain_b", "band", "rung"]
    found = []
    for place, group in rows.groupby(keys, dropna=False, sort=False):
        rung = RUNGS[group["rung"].iloc[0]]
        votes = count_votes(group, by_mean=rung.indexed, bars=rung.bars)
        verdict = votes.verdict
        if rung.by_cuts:
            verdict = of_cuts(count_votes(rows).verdict for _, rows in group.groupby("level"))
        found.append(
            {
                **dict(zip(keys, place, strict=True)),
                "claim": rung.claim,
                "verdict": verdict,
                "index": votes.index,
                "index_low": votes.low,
                "index_high": votes.high,
                "votes": votes.verdicts,
                "n_judged": votes.n,
                "n_units": group["n_units"].min(),
                "reason": "; ".join(told_once(votes.reasons)),
                "needed": _needed(votes, group, rung.bars) if verdict == UNKNOWN else "",
            }
        )
    return pd.DataFrame(found)


def _needed(votes: Votes, group: pd.DataFrame, bars: AnswerBars) -> str:
    """What would decide an interval that is too wide; empty where there is another reason."""
    n_units = float(group["n_units"].min())
    units = units_to_decide(votes.index, votes.low, votes.high, n_units, bars)
    contradicted = {SHARED, NOT_SHARED} <= set(group["verdict"])
    if votes.reasons or contradicted or not units > n_units:
        return ""
    return f"about {units:.0f} classes instead of {n_units:.0f}, or more drawings of each"


def climb(frames: Mapping[str, pd.DataFrame], *, natural: str = "real") -> dict[str, pd.DataFrame]:
    """The tables `rungs`, `ladder`, and with several blocks `stability`, of a study's models.

    Nothing is judged for a model that did not learn, by the tables `accuracy` and `mixtures`.
    """
    judged = judged_rows(frames)
    if judged.empty:
        return {}
    if "accuracy" in frames:
        told = learning(frames["accuracy"], frames.get("mixtures"), natural=natural)
        judged = withhold(judged, told)
    told = ladder_rows(judged)
    again = agreement_of_blocks(told)
    return {"rungs": judged, "ladder": told} | ({"stability": again} if len(again) else {})


def withhold(rows: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """Take index and verdict from the rows of models that did not learn.

    Args:
        rows: Judged rows, with `verdict`, `reason` and the columns that tell models apart.
        told: What `learning` returns.

    Returns:
        The rows; those of models that did not learn are "unknown", and say why.

    >>> told = pd.DataFrame({"setting": ["a"], "learned": [False], "reason": ["nothing learned"]})
    >>> rows = pd.DataFrame({"setting": ["a", "b"], "index": 0.9, "index_low": 0.8,
    ...                      "index_high": 1.0, "verdict": "shared", "reason": "", "control": ""})
    >>> withhold(rows, told)[["verdict", "reason"]].values.tolist()
    [['unknown', 'nothing learned'], ['shared', '']]
    """
    failed = why_not(rows, told)
    if failed.isna().all():
        return rows
    made = rows.copy()
    here = failed.notna()
    made.loc[here, ["index", "index_low", "index_high"]] = np.nan
    made.loc[here, "verdict"] = UNKNOWN
    made.loc[here, "reason"] = failed[here]
    return made


def agreement_of_blocks(told: pd.DataFrame) -> pd.DataFrame:
    """What `answers` says of the same question in several blocks: how many agree, and the mean.

    A row for each question that two blocks or more were asked: `value` is the share of blocks that
    give the commonest verdict, `verdict` that on which all agree.
    index and its interval are Student's over blocks, whatever each block's own interval.
    """
    if "seed" not in told:
        return pd.DataFrame()
    places = [name for name in PLACE if name in told and name != "seed"]
    keys = [*places, "domain_a", "domain_b", "band", "rung", "claim"]
    found = []
    for place, group in told.groupby(keys, dropna=False, sort=False):
        if group["seed"].nunique() < 2:
            continue
        verdicts, index = group["verdict"].value_counts(), group["index"].dropna()
        mean = mean_t(index) if len(index) > 1 else Interval(*[float("nan")] * 4)
        found.append(
            {
                **dict(zip(keys, place, strict=True)),
                "measure": "agreement of blocks",
                "value": verdicts.iloc[0] / len(group),
                "verdict": agreement(verdicts.index),
                "index": mean.value,
                "index_low": mean.low,
                "index_high": mean.high,
                "votes": ", ".join(f"{n} of {len(group)} {word}" for word, n in verdicts.items()),
                "unit": "block",
                "n_units": len(index),
                "n_runs": len(group),
                "reason": "" if len(index) > 1 else "fewer than two blocks have an index",
            }
        )
    return pd.DataFrame(found)
