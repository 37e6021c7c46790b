"""Where and when in words: layers, epochs, classes, units and features."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.association import spearman
from interp.core.statistics.index_of_sharing import LEVEL
from interp.data.mixtures.settings import NATURAL
from interp.measures.responding_units import serves_more
from interp.report.naming import site_label
from interp.verdicts.levels.over_training import HELD_OUT
from tests.benchmarks.findings.between_mixtures import mixtures_apart, of_epochs, of_layers
from tests.benchmarks.findings.figures import most_and_least
from tests.benchmarks.findings.tables import RUN
from tests.benchmarks.findings.writing import (
    NO_BLOCK,
    correlation,
    counted,
    short,
    spoken,
    units_and_runs,
)
from tests.benchmarks.recovering import markdown


def layers_table(found: Mapping[str, pd.DataFrame]) -> str:
    """At which layers sharing tells mixtures apart, from the first layer to the last."""
    made = mixtures_apart(of_layers(found["profile"])) if found else pd.DataFrame()
    if made.empty:
        return NO_BLOCK
    rows = []
    for row in made.sort_values(["quantity", "depth"]).to_dict("records"):
        ends = [f"{spoken(row[e])} {short(row[f'{e}_value'])}" for e in ("most", "least")]
        rows.append([row["quantity"], site_label(row["site"]), *_apart(row), *ends])
    heads = ["measure", "layer", "share of variance between mixtures", "p (Holm over layers)"]
    return markdown([*heads, "most shared", "least shared"], rows)


def _apart(row: Mapping[str, Any]) -> list[str]:
    """The share of variance between mixtures with its interval, and its p."""
    return [correlation(row), f"{row['p_adjusted']:.2g}"]


def parting_table(found: Mapping[str, pd.DataFrame]) -> str:
    """How far mixtures had come apart after every kept epoch, in accuracy and layer by layer."""
    if "rungs_by_epoch" not in found:
        return NO_BLOCK
    made = mixtures_apart(of_epochs(found))
    if made.empty:
        return NO_BLOCK
    trained = made.groupby("stage")["trained"].mean()
    rows = []
    made = made.sort_values(["quantity", "depth"])
    for (quantity, site), own in made.groupby(["quantity", "site"], sort=False):
        by = {row["stage"]: _apart(row) for row in own.to_dict("records")}
        cells = [cell for stage in trained.index for cell in by.get(stage, ["–", "–"])]
        rows.append([quantity, site_label(site) if site else "–", *cells])
    when = [f"after {100 * part:.0f} % of training" if part < 1 else "at the end"
            for part in trained]  # fmt: skip
    heads = [head for each in when for head in (each, "p (Holm)")]
    n = [counted(made[f"n_{each}s"].max(), each) for each in ("mixture", "block")]
    return f"{markdown(['quantity', 'layer', *heads], rows)}\n\nn: {', '.join(n)}."


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
    own = _roles(found["units"])
    home = own[own["domain_a"] == own["domain_b"]]
    at_home, both = (rows.groupby(UNIT, sort=False)["told"].all() for rows in (home, own))
    rows = [
        [role, *(
            f"{told.sum()} of {len(told)}"
            for chosen in (True, False)
            for told in (each.xs((role, chosen), level=UNIT[:2]) for each in (at_home, both))
        )]
        for role in dict.fromkeys(own["role"])
    ]  # fmt: skip
    heads = ["unit chosen as one that", "selective in natural pictures", "selective in both"]
    heads += ["selective in the test domain", "selective in both"]
    there = int(at_home.sum())
    auroc = home.groupby(UNIT, sort=False)["value"].mean()
    shared, alone = _named(auroc[both]), _named(auroc[at_home & ~both])
    alone = alone.drop(alone.index.intersection(shared.index))
    said = (
        f"Of {there} times that a unit is selective where its class was chosen, it is so for the "
        f"same class in the other domain {int(both.sum())} times; chance would bring about "
        f"{LEVEL * there:.0f}. Each unit once, the clearest first (AUROC). Shared: "
        f"{_first(shared)}. Not told in the other domain: {_first(alone)}."
    )
    return "\n".join([markdown(heads, rows), "", said])


def _roles(units: pd.DataFrame) -> pd.DataFrame:
    """Units by what they serve, whichever the test domain; whether each tells its class there."""
    said = {serves_more(domain): "the test domain" for domain in units["test_domain"].unique()}
    said[serves_more(NATURAL)] = "natural pictures"
    return units.assign(
        role=units["role"].replace({role: serves_more(domain) for role, domain in said.items()}),
        natural=units["domain_a"] == NATURAL,
        told=units["p"] < LEVEL,
    )


UNIT = ["role", "natural", *RUN, "feature", "label"]
"""What names a unit, and the domain that its class was chosen in."""


def _named(auroc: pd.Series) -> pd.Series:
    """Units by their place, each once, from the clearest on: the class that it tells, and where."""
    rows = auroc.sort_values(ascending=False, kind="stable").reset_index()
    either = rows["setting"] == "natural-only"  # one model for both test domains
    rows["test_domain"] = rows["test_domain"].mask(either, "either domain")
    place = ["setting", "test_domain", "seed", "feature"]
    names = {
        tuple(row[each] for each in place): f"{row['label']} (unit {row['feature']} of "
        f"{spoken(row['setting'])}, {row['test_domain']}, block {row['seed']})"
        for row in rows.drop_duplicates(place).to_dict("records")
    }
    return pd.Series(names, dtype=object)


def _first(named: pd.Series) -> str:
    more = f"; and {len(named) - MOST_UNITS} more" if len(named) > MOST_UNITS else ""
    return f"{'; '.join(named[:MOST_UNITS])}{more}" if len(named) else "none"


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
        rows.append([spoken(setting), *cells, cost if len(mine) else "–", runs])
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


def epochs_table(found: Mapping[str, pd.DataFrame]) -> str:
    """How far sharing and accuracy had come at earlier epochs, and what leads."""
    if "lead_and_lag" not in found:
        return NO_BLOCK
    rows = []
    for row in found["lead_and_lag"].dropna(subset=["lead"]).to_dict("records"):
        lead = {"value": row["lead"], "low": row["lead_low"], "high": row["lead_high"]}
        what = f"{row['rung']} {row['measure']}".strip()
        ahead = "–" if row["measure"] == HELD_OUT else correlation(lead)
        rows.append(
            [what, f"{100 * row['trained']:.0f} %", correlation(row), ahead, units_and_runs(row)]
        )
    heads = ["quantity", "of training", "share of its final gain", "ahead of held-out accuracy"]
    return markdown([*heads, "n"], rows)
