"""Language in words: what labels change in place of captions."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.replication import mean_t
from interp.models.evaluation.learned_models import trained_models
from interp.verdicts.levels.over_training import HELD_OUT
from tests.benchmarks.findings.claims import language_findings, of_quantities, same_order
from tests.benchmarks.findings.tables import RUN
from tests.benchmarks.findings.writing import (
    NO_BLOCK,
    blocks_of,
    correlation,
    counted,
    points,
    short,
    spoken,
    units_and_runs,
)
from tests.benchmarks.recovering import markdown


def language_table(found: Mapping[str, pd.DataFrame]) -> str:
    """Labels less captions, quantity by quantity."""
    if not found:
        return NO_BLOCK
    both = of_quantities(found["runs"]), of_quantities(found["labels_runs"])
    rows = []
    for row in language_findings(*both).to_dict("records"):
        accuracy = row["quantity"] == HELD_OUT
        ends = [f"{100 * row[k]:.1f} %" if accuracy else f"{row[k]:.2f}" for k in KINDS]
        gap = points(row) if accuracy else correlation(row)
        n = f"{counted(int(row['n_blocks']), 'block')}, {row['n_models']:.0f} models"
        p = "–" if np.isnan(row["p_adjusted"]) else f"{row['p_adjusted']:.2g}"
        rows.append([row["quantity"], *ends, gap, p, n])
    heads = ["", *KINDS, "labels − captions", "p (Holm over rungs)", "n"]
    table = markdown(heads, rows)
    orders = [", ".join(map(spoken, order)) for order in same_order(*both)]
    same = "the same" if orders[0] == orders[1] else "another"
    said = (
        f"Mixtures from most to least accurate on held-out classes, {same} order: with captions "
        f"{orders[0]}; with labels {orders[1]}."
    )
    return "\n".join([table, "", said])


KINDS = ("captions", "labels")


def language_linked(found: Mapping[str, pd.DataFrame]) -> str:
    """Whether blocks of one mixture that share more are more accurate, with captions and labels.

    By measures that all runs have: of others, mixtures would not be the same.
    """
    if not found:
        return NO_BLOCK
    both = [
        found[name].query("level == 'L2' and adjusted == ''").set_index(["rung", "measure"])
        for name in ("levels", "labels_levels")
    ]
    rows = []
    for place in both[0].index:
        each = [kind.loc[place] for kind in both]
        if any(kind.loc[place, "n_runs"] < kind["n_runs"].max() for kind in both):
            continue
        told = [
            [correlation(row), f"{row['p_adjusted']:.2g}", short(row["reliability"])]
            for row in each
        ]
        rows.append([" ".join(place), *told[0], *told[1], units_and_runs(each[0])])
    heads = [head for kind in KINDS for head in (f"r, {kind}", "p (Holm)", "reliability")]
    return markdown(["measure", *heads, "n"], rows)


def language_by_mixture(
    found: Mapping[str, pd.DataFrame], captioned: Mapping[str, pd.DataFrame]
) -> str:
    """Accuracy of held-out classes with captions and labels, mixture by mixture.

    CG high stands twice: labels name no domain, and neither do aligned captions.
    """
    if not found:
        return NO_BLOCK
    rows = [
        [
            spoken(row["against"]),
            *(f"{100 * row[kind]:.0f} %" for kind in KINDS),
            points(row),
            f"{counted(row['n_blocks'], 'block')}, {row['n_models']} models"
            + (", labels as in CG high" if ALIGNED in row["against"] else ""),
        ]
        for row in labels_by_mixture(found, captioned)
    ]
    return markdown(["mixture", *KINDS, "labels − captions", "n"], rows)


def labels_by_mixture(
    found: Mapping[str, pd.DataFrame], captioned: Mapping[str, pd.DataFrame]
) -> list[dict[str, Any]]:
    """Labels less captions in accuracy of held-out classes, paired by block, of every mixture of
    labels against its own captions and against aligned ones, where there are any."""
    labels, captions = (
        own.drop_duplicates(RUN).set_index(RUN)["accuracy"]
        for own in (found["labels_runs"], captioned["runs"])
    )
    rows = []
    for setting in labels.index.unique("setting"):
        for against in (setting, f"{setting}, {ALIGNED}"):
            if against not in captions.index.unique("setting"):
                continue
            both = pd.concat([captions[against], labels[setting]], axis=1, keys=KINDS).dropna()
            by_block = (both["labels"] - both["captions"]).groupby("seed").mean()
            n = trained_models(both.reset_index().assign(setting=setting)).nunique()
            counts = {"n_blocks": len(by_block), "n_models": 2 * n}
            rows.append(
                {"against": against, **both.mean(), **asdict(mean_t(by_block.to_numpy()))} | counts
            )
    return rows


def _on_average(found: Mapping[str, pd.DataFrame]) -> str:
    """What labels in place of captions change in accuracy of held-out classes, over mixtures."""
    row = _of_labels(found)
    answer = "Not needed" if row["low"] > 0 else "It helps" if row["high"] < 0 else "Not known"
    return (
        f"{answer} on average: labels − captions {points(row)} "
        f"({blocks_of('twin', row['n_blocks'])} blocks)"
    )


def language_in_words(
    found: Mapping[str, pd.DataFrame],
    captioned: Mapping[str, pd.DataFrame],
    *,
    with_numbers: bool = True,
) -> str:
    """The same, and in which mixtures labels do better than captions, in which worse.

    Captions that name no domain are apart from the average, which was planned without them.
    """
    if not found:
        return NO_BLOCK
    every = labels_by_mixture(found, captioned)
    aligned = [each for each in every if ALIGNED in each["against"]]
    rows = [each for each in every if ALIGNED not in each["against"]]
    sides = {
        "above zero in": [each for each in rows if each["low"] > 0],
        "below zero in": [each for each in rows if each["high"] < 0],
        "may be zero in": [each for each in rows if each["low"] <= 0 <= each["high"]],
    }
    said = [_on_average(found)]
    said += [f"not planned: against {spoken(each['against'])} {points(each)}" for each in aligned]
    for side, some in sides.items():
        told = [
            f"{spoken(each['against'])}{f' ({points(each)})' if with_numbers else ''}"
            for each in some
        ]
        said += [f"{side} {sequence(told)}"] if told else []
    return "; ".join(said)


def language_is_told(found: Mapping[str, pd.DataFrame]) -> bool:
    """Whether labels change accuracy of held-out classes, by an interval that excludes zero."""
    if not found:
        return False
    row = _of_labels(found)
    return row["low"] > 0 or row["high"] < 0  # with one block neither


def _of_labels(found: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    made = language_findings(of_quantities(found["runs"]), of_quantities(found["labels_runs"]))
    [row] = made[made["quantity"] == HELD_OUT].to_dict("records")
    return row


ALIGNED = "aligned captions"
