"""Sharing in words: whether it goes with accuracy, where, when, in which classes and units."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.association import spearman
from interp.core.statistics.index_of_sharing import LEVEL
from interp.core.statistics.replication import mean_t
from interp.data.mixtures.settings import NATURAL
from interp.measures.responding_units import serves_more
from interp.report.naming import setting_name, site_label
from interp.verdicts.levels.over_training import HELD_OUT
from tests.benchmarks.findings.accuracy import in_order
from tests.benchmarks.findings.claims import layers_findings, of_quantities
from tests.benchmarks.findings.figures import most_and_least
from tests.benchmarks.findings.writing import NO_BLOCK, correlation, counted, points, short
from tests.benchmarks.recovering import markdown

SEEN = "accuracy of seen classes"
LEAST_MIXTURES = 8
"""Of fewer, no correlation over mixtures is decided, and none is shown."""


def levels_table(studies: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """Accuracy with sharing, level by level and rung by rung; below it, what has no number."""
    rows, without = [], []
    for name, found in studies.items():
        levels = found["levels"].query("level != 'L4'")
        keys = ["level", "rung", "measure"]
        for (level, rung, measure), own in levels.groupby(keys, sort=False):
            by = {row["adjusted"]: row for row in own.to_dict("records")}
            plain, adjusted = by[""], by.get(SEEN)
            few = level == "L1" and plain["n_units"] < LEAST_MIXTURES
            if few or not np.isfinite(plain["value"]):
                without.append(f"{name}, {level}, {rung} {measure} ({_units(plain)})")
                continue
            terms = "in the model" if level == "L3" else "–"
            held = correlation(adjusted) if adjusted else terms
            reliable = short(plain["reliability"]) if plain["reliability"] >= 0 else "–"
            said = [correlation(plain), held, reliable, plain["verdict"], _units(plain)]
            rows.append([name, level, f"{rung} {measure}", *said])
    heads = ["study", "level", "measure", "r", "r at equal seen accuracy", "reliability"]
    table = markdown([*heads, "verdict", "n"], rows) if rows else NO_BLOCK
    return (
        f"{table}\n\nNo number, or of too few mixtures: {'; '.join(without)}." if without else table
    )


def _units(row: Mapping[str, Any]) -> str:
    return f"{counted(int(row['n_units']), row['unit'])}, {counted(int(row['n_runs']), 'run')}"


def foretelling_table(found: Mapping[str, pd.DataFrame]) -> str:
    """What foretells accuracy on held-out classes, across mixtures and within them."""
    if not found:
        return NO_BLOCK
    rows = []
    for predictor, own in found["foretelling"].groupby("predictor", sort=False):
        by = {row["level"]: row for row in own.to_dict("records")}
        cells = [correlation(by[level]) if level in by else "–" for level in ("L1", "L2")]
        p = [f"{by[level]['p_adjusted']:.2g}" if level in by else "–" for level in ("L1", "L2")]
        foretold = f"{by['L1']['foretold']:+.2f}" if "L1" in by else "–"
        rows.append([predictor, cells[0], p[0], foretold, cells[1], p[1]])
    heads = ["predictor", "across mixtures", "p", "R² on left-out mixtures"]
    return markdown([*heads, "over blocks of a mixture", "p"], rows)


def foretold_in_words(found: Mapping[str, pd.DataFrame]) -> str:
    """What foretells accuracy best across mixtures, and what is told over blocks of one mixture."""
    if not found:
        return NO_BLOCK
    rows = found["foretelling"]
    across = rows.query("level == 'L1'").sort_values("foretold", ascending=False)
    best = across[across["foretold"].round(2) == across["foretold"].round(2).max()]
    foretold = " and ".join(
        f"{row['predictor']} (r {correlation(row)}, adjusted p {row['p_adjusted']:.2g})"
        for row in best.to_dict("records")
    )
    told = rows.query("level == 'L2' and p_adjusted < @LEVEL").to_dict("records")
    within = ", ".join(f"{row['predictor']} (r {correlation(row)})" for row in told) or "none"
    n = int((rows["level"] == "L2").sum())
    return (
        f"Mixtures left out of the fit are foretold best, R² {best['foretold'].iloc[0]:+.2f}, by "
        f"{foretold}. Told from zero over blocks of one mixture, of {n} predictors (Benjamini "
        f"and Hochberg; uncorrected for noise): {within}."
    )


def domains_apart(runs: pd.DataFrame) -> pd.DataFrame:
    """What quickdraw has more than sketch, mixture by mixture, paired by block.

    Args:
        runs: Every run's accuracy of held-out classes, and what it shares by every measure.

    Returns:
        A row per mixture and quantity: the mean difference over blocks, and its t.
    """
    own = of_quantities(runs)
    wide = own.pivot(index=["quantity", "setting", "seed"], columns="test_domain", values="value")
    gap = (wide["quickdraw"] - wide["sketch"]).dropna()
    keys = ["quantity", "setting"]
    return pd.DataFrame(
        dict(zip(keys, place, strict=True)) | asdict(mean_t(part.to_numpy())) | {"n": len(part)}
        for place, part in gap.groupby(keys, sort=False)
    )


def domains_apart_table(found: Mapping[str, pd.DataFrame]) -> str:
    """Quickdraw minus sketch in accuracy and in what is shared with photographs, by mixture."""
    if not found:
        return NO_BLOCK
    made = domains_apart(found["runs"])
    measures = [name for name in dict.fromkeys(made["quantity"]) if name != HELD_OUT]
    by = made.set_index(["setting", "quantity"])
    rows = [
        [setting_name(setting), points(by.loc[setting, HELD_OUT])]
        + [correlation(by.loc[setting, measure]) for measure in measures]
        + [counted(int(by.loc[(setting, HELD_OUT), "n"]), "block")]
        for setting in in_order(dict.fromkeys(made["setting"]))
    ]
    return markdown(["mixture", HELD_OUT, *measures, "n"], rows)


def domains_apart_in_words(found: Mapping[str, pd.DataFrame], measure: str) -> str:
    """In how many mixtures quickdraw shares less than sketch, and in how many it fails more."""
    if not found:
        return NO_BLOCK
    made = domains_apart(found["runs"])
    less = {name: set(part.loc[part["high"] < 0, "setting"])
            for name, part in made.groupby("quantity")}  # fmt: skip
    n = counted(made["setting"].nunique(), "mixture")
    sharing, failing = less.get(measure, set()), less.get(HELD_OUT, set())
    return (
        f"Quickdraw shares less with photographs than sketch does in {len(sharing)} of {n} "
        f"({measure}), and is less accurate in {len(failing)}, by intervals below zero."
    )


def layers_table(found: Mapping[str, pd.DataFrame]) -> str:
    """At which layers sharing tells mixtures apart, from the first layer to the last."""
    made = layers_findings(found["profile"]) if found else pd.DataFrame()
    if made.empty:
        return NO_BLOCK
    rows = []
    for row in made.sort_values(["rung", "measure", "depth"]).to_dict("records"):
        what, site = f"{row['rung']} {row['measure']}", site_label(row["site"])
        ends = [f"{setting_name(row[e])} {short(row[f'{e}_index'])}" for e in ("most", "least")]
        rows.append([what, site, short(row["value"]), f"{row['p_adjusted']:.2g}", *ends])
    heads = ["measure", "layer", "variance between mixtures", "p (Holm over layers)"]
    return markdown([*heads, "most shared", "least shared"], rows)


def classes_table(found: Mapping[str, pd.DataFrame]) -> str:
    """The classes that are shared most and least, and whether blocks agree on them."""
    if not found:
        return NO_BLOCK
    wide = found["classes"].pivot(index="label", columns="seed", values="value")
    least, most = wide.min(axis=1), wide.max(axis=1)
    rows = [
        [label, short(value), f"{short(least[label])} to {short(most[label])}"]
        for label, value in most_and_least(found["classes"]).items()
    ]
    table = markdown(["class", "shared beyond others", "over blocks"], rows)
    pairs = [
        spearman(wide[one], wide[other]) for one, other in combinations(sorted(wide.columns), 2)
    ]
    if not pairs:
        return table
    agree = pd.DataFrame([asdict(pair) for pair in pairs])[["value", "low", "high"]].mean()
    n = counted(int(np.mean([pair.n for pair in pairs])), "class")
    said = (
        f"Blocks agree on the order of classes: Spearman's r = {correlation(agree)}, r and its "
        f"ends averaged over {counted(len(pairs), 'pair')} of blocks ({n})."
    )
    return "\n".join([table, "", said])


def units_table(found: Mapping[str, pd.DataFrame]) -> str:
    """How many units tell a class in either domain, by what they serve; below it, which by name.

    A unit's class is chosen in one domain and told there (p < .05), and perhaps in both.
    """
    if "units" not in found:
        return NO_BLOCK
    units = found["units"]
    test = units["role"].isin([serves_more(domain) for domain in units["test_domain"].unique()])
    own = units.assign(
        told=units["p"] < LEVEL,
        role=units["role"].mask(test, serves_more("the test domain")).replace(
            serves_more(NATURAL), serves_more("natural pictures")),
        chosen=np.where(units["domain_a"] == NATURAL, "natural", "test"),
        shown=np.where(units["domain_b"] == NATURAL, "natural", "test"),
    )  # fmt: skip
    keys = ["setting", "test_domain", "seed", "role", "feature", "chosen", "label"]
    both = own.groupby(keys, sort=False)["told"].all()
    at_home = own[own["chosen"] == own["shown"]].groupby(["role", "chosen"])["told"]
    there_too = both.groupby(["role", "chosen"])
    rows = [
        [role]
        + [
            f"{each[role, chosen].sum()} of {len(each[role, chosen])}"
            for chosen in ("natural", "test")
            for each in (_groups(at_home), _groups(there_too))
        ]
        for role in dict.fromkeys(own["role"])
    ]
    heads = [
        "unit chosen as one that",
        "selective in natural pictures",
        "selective in both",
    ]
    heads += ["selective in the test domain", "selective in both"]
    alone = own[(own["chosen"] == own["shown"]) & own["told"]].set_index(keys).index
    private = both[~both].loc[lambda rows: rows.index.isin(alone)]
    home = int(own[own["chosen"] == own["shown"]]["told"].sum())
    said = (
        f"Of {home} times that a unit is selective where its class was chosen, it is so for the "
        f"same class in the other domain {int(both.sum())} times; chance would bring about "
        f"{LEVEL * home:.0f}. Each unit once, shared: {_named(both[both])}. Private: "
        f"{_named(private)}."
    )
    return "\n".join([markdown(heads, rows), "", said])


def _named(found: pd.Series) -> str:
    """Units by the class that they tell, each with its place."""
    alone = found.reset_index()
    either = alone["setting"] == "natural-only"  # one model for both test domains
    alone["test_domain"] = alone["test_domain"].mask(either, "either domain")
    rows = alone.drop_duplicates(["setting", "test_domain", "seed", "feature"])
    named = [
        f"{row['label']} (unit {row['feature']} of {setting_name(row['setting'])}, "
        f"{row['test_domain']}, block {row['seed']})"
        for row in rows.sort_values("label").to_dict("records")
    ]
    more = f"; and {len(named) - MOST_UNITS} more" if len(named) > MOST_UNITS else ""
    return f"{'; '.join(named[:MOST_UNITS])}{more}" if named else "none"


MOST_UNITS = 10
"""Units that are named."""


def features_table(found: Mapping[str, pd.DataFrame]) -> str:
    """What a class's features share between domains, by mixture, and what their removal costs.

    An index for each code: features of a sparse dictionary, raw units, principal components. The
    cost is that of features which a class uses in both domains, less that of as many which it uses
    in natural pictures alone, in points of accuracy in the test domain.
    """
    if "features" not in found:
        return NO_BLOCK
    shared, ablated = found["features"], found["ablated"].query("ablated == @BOTH")
    costs = ablated.assign(value=100 * ablated["value"]).dropna(subset=["value"])
    rows = []
    for setting, own in shared.groupby("setting", sort=False):
        cells = [_span(part["index"], short) for part in _by_code(own)]
        mine = costs[costs["setting"] == setting]
        told = int((mine["low"] > 0).sum())
        cost = f"{_span(mine['value'], '{:.1f}'.format)}, above 0 in {told} of {len(mine)}"
        runs = counted(len(own.drop_duplicates(["test_domain", "seed"])), "run")
        rows.append([setting_name(setting), *cells, cost if len(mine) else "–", runs])
    return markdown(["mixture", *CODES.values(), "cost of shared beyond private", "n"], rows)


def _by_code(own: pd.DataFrame) -> list[pd.DataFrame]:
    return [own[own["code"] == code] for code in CODES]


def _span(values: pd.Series, say: Callable[[float], str]) -> str:
    """A mean, and the least and the most."""
    known = values.dropna()
    return f"{say(known.mean())} ({say(known.min())} to {say(known.max())})" if len(known) else "–"


BOTH = "shared less private"
CODES = {
    "dictionary": "dictionary's features",
    "raw units": "units",
    "principal components": "principal components",
}


def _groups(grouped: Any) -> dict[tuple[str, str], pd.Series]:
    return dict(iter(grouped))


def epochs_table(found: Mapping[str, pd.DataFrame]) -> str:
    """How far sharing and accuracy had come at earlier epochs, and what leads."""
    if "lead_and_lag" not in found:
        return NO_BLOCK
    rows = []
    for row in found["lead_and_lag"].dropna(subset=["lead"]).to_dict("records"):
        lead = {"value": row["lead"], "low": row["lead_low"], "high": row["lead_high"]}
        what = f"{row['rung']} {row['measure']}".strip()
        of = _units(row)
        ahead = "–" if row["measure"] == HELD_OUT else correlation(lead)
        rows.append([what, f"{100 * row['trained']:.0f} %", correlation(row), ahead, of])
    heads = ["quantity", "of training", "share of its final gain", "ahead of held-out accuracy"]
    return markdown([*heads, "n"], rows)
