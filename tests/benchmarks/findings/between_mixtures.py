"""How far mixtures lie apart, layer by layer and epoch by epoch: analyses of variance of runs."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy import optimize, stats

from interp.core.statistics.resampling import holm
from interp.data.mixtures.settings import is_upper_bound
from tests.benchmarks.findings.tables import RUN

PLACE = ["quantity", "site", "depth", "stage"]
"""What an analysis is of: a quantity at a layer, after one of the epochs that were kept."""


def of_layers(profile: pd.DataFrame) -> pd.DataFrame:
    """What trained runs share, layer by layer, as `mixtures_apart` takes it.

    Args:
        profile: The table `profile` of a study, or `rungs_by_epoch`.
    """
    own = profile[(profile["control"] == "") & profile["site"].notna()]
    what = own["rung"] + " " + own["measure"]
    return own.assign(quantity=what, value=own["index"])[[*RUN, "epoch", *PLACE[:-1], "value"]]


def of_epochs(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What runs share and how accurate they are after every kept epoch.

    Args:
        found: The tables `epochs`, `rungs_by_epoch` and `profile` of a study.
    """
    accuracy = found["epochs"].query("epoch > 0")
    said = "accuracy of " + accuracy["class_set"] + " classes"
    accuracy = accuracy.assign(quantity=said, site="", depth=np.nan).drop(columns="class_set")
    earlier, last = (of_layers(found[name]) for name in ("rungs_by_epoch", "profile"))
    asked = last["quantity"].isin(earlier["quantity"])
    return pd.concat([accuracy, earlier, last[asked]], ignore_index=True)


def mixtures_apart(runs: pd.DataFrame) -> pd.DataFrame:
    """The share of the variance of run means that lies between mixtures (partial epsilon squared).

    epsilon² = max(0, SS(mixtures) - df(mixtures) MS(rest)) / (SS(mixtures) + SS(rest)),

    about 0 where mixtures are alike, 1 where runs of a mixture differ by their block alone. What a
    block adds to all of its runs is taken out; test domains are averaged, upper bounds left out.

    Args:
        runs: A row per run, quantity, layer and epoch, as `of_layers` and `of_epochs` make it.

    Returns:
        A row per quantity, layer (`site`) and kept epoch (`stage`, from 1; `trained` is its share
        of all epochs, mean over runs): epsilon² with its interval, F's p, `p_adjusted` after Holm
        over the rows of a quantity, and the mixtures that have most and least. One block makes
        none.
    """
    own = runs[~runs["setting"].map(is_upper_bound).astype(bool)]
    by_run = own.groupby(RUN)["epoch"]
    own = own.assign(
        stage=by_run.rank(method="dense").astype(int),
        trained=own["epoch"] / by_run.transform("max"),
    )
    rows = []
    for place, part in own.groupby(PLACE, sort=False, dropna=False):
        wide = part.groupby(["setting", "seed"])["value"].mean().unstack().dropna()
        if min(wide.shape) < 2:
            continue
        rows.append(dict(zip(PLACE, place, strict=True)) | {"trained": part["trained"].mean()}
                    | _between(wide))  # fmt: skip
    found = pd.DataFrame(rows)
    if len(found):
        adjusted = found.groupby("quantity", sort=False)["p"]
        found["p_adjusted"] = adjusted.transform(lambda p: holm(p.to_numpy(dtype=float)))
    return found


def _between(wide: pd.DataFrame) -> dict[str, float | int | str]:
    """One analysis: a row per mixture, a column per block."""
    n, blocks = wide.shape
    values, means = wide.to_numpy(), wide.mean(axis=1)
    rest = values - means.to_numpy()[:, None] - values.mean(axis=0) + values.mean()
    between, within = blocks * float(((means - means.mean()) ** 2).sum()), float((rest**2).sum())
    degrees = n - 1, (n - 1) * (blocks - 1)
    by_chance = degrees[0] * within / degrees[1]
    f = between / by_chance if within else np.nan
    low, high = interval_between(f, *degrees)
    most, least = str(means.idxmax()), str(means.idxmin())
    return {
        "value": max(0.0, (between - by_chance) / (between + within)),
        "low": low,
        "high": high,
        "p": float(stats.f.sf(f, *degrees)),
        "most": most,
        "most_value": float(means[most]),
        "least": least,
        "least_value": float(means[least]),
        "n_mixtures": n,
        "n_blocks": blocks,
    }


def interval_between(f: float, between: int, within: int) -> tuple[float, float]:
    """The 95 % interval of the share of variance between mixtures, by noncentral F.

    lambda / (lambda + between + within), which epsilon² estimates, with lambda such that f is the
    97.5th or 2.5th percentile (Smithson, 2003); 0 where f lies below that percentile of mixtures
    that are alike.

    Args:
        f: The ratio of mean squares; infinite and NaN ones have no interval.
        between: Its degrees of freedom above.
        within: Those below.

    >>> [round(end, 2) for end in interval_between(5.0, 3, 12)], interval_between(0.01, 3, 12)
    ([0.02, 0.71], (0.0, 0.0))
    """
    if not np.isfinite(f):
        return np.nan, np.nan
    ends = [
        _where(lambda shift, p=p: float(stats.ncf.cdf(f, between, within, shift)) - p)
        for p in (0.975, 0.025)
    ]
    low, high = (shift / (shift + between + within) for shift in ends)
    return low, high


def _where(falling: Callable[[float], float]) -> float:
    """Where a falling function of what is not below 0 crosses 0; 0 where it starts below."""
    if falling(0.0) <= 0:
        return 0.0
    end = 1.0
    while falling(end) > 0:
        end *= 2
    return float(optimize.brentq(falling, 0.0, end))
