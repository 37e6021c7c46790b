"""From a study's tables to what its verdict is about: runs, and the classes of runs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.errors import DataError, listed
from interp.core.sites import BAND, LAST
from interp.core.tables import stacked
from interp.models.evaluation.decision_bias import AMONG, EXCESS_BIAS
from interp.models.evaluation.learning import asked_rows, learning, that_learned
from interp.probes.geometry.directions import MEAN_DIFFERENCE
from interp.verdicts.judging import judged_rows
from interp.verdicts.rungs import RUNGS, with_words

RUN = ["setting", "test_domain", "seed"]

LINKED = tuple(name for name, rung in RUNGS.items() if rung.indexed)
"""Rungs that have an index of sharing; R1 says in each domain whether the class can be read."""

UNTRAINED, PIXELS = "epoch 0", "pixels"
ACCURACY, KNOWING, BIAS = "accuracy", "knowing", "bias"
"""What is held against sharing: accuracy among all classes or, across mixtures where it is known,
its two parts, accuracy among held-out classes alone and the excess bias against them."""

Frames = Mapping[str, pd.DataFrame]


def from_tables(frames: Frames, *, natural: str = "real") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames `runs` and `classes` that `interp.verdict` asks for, from a study's tables.

    `runs` has a row per model (setting, test_domain, seed), rung and measure: the mean index over
    the sites of the middle layers (and both directions) between the natural and the test domain,
    never the final embedding; accuracy of held-out classes in the test domain (balanced top-1
    among all classes, neutral prompts, text head), of seen ones there, and of held-out ones in
    natural pictures; from `decision_bias` `knowing`, accuracy among held-out classes alone, and
    `bias`, the excess bias against them; how often held-out classes were trained on; and the index
    of the untrained model and of pixels. `index_error` and `accuracy_error` are standard errors:
    Student's quantile of as many units as a row counts is taken out of an index's interval, and the
    normal one out of the bootstrap of an accuracy. `classes` has a row per model and held-out
    class: its accuracy, its sharing beyond that with other classes, and its accuracy in natural
    pictures. A model that did not learn (`learning`) has no index, and no rows in `classes`.

    Needs `accuracy`; of `similarity`, `transfer`, `directions`, `das`, `overlap` and
    `circuit_transfer` (or of `rungs`, made from them) what is there, of `class_sharing`,
    `accuracy_by_class` and `exposure_classes` likewise. Raises `DataError` without `accuracy`.
    """
    if "accuracy" not in frames:
        right = "accuracy among them"
        do = "measure accuracy"
        raise DataError("hold accuracy against sharing", f"the tables {listed(frames)}", right, do)
    frames = {name: _plain(frame) for name, frame in frames.items()}
    shared = _sharing(frames, natural)
    runs = shared.merge(asked_accuracies(frames, natural), on=RUN, how="inner")
    told = learning(frames["accuracy"], frames.get("mixtures"), natural=natural)
    silent = runs.index.difference(that_learned(runs, told).index)
    given = [name for name in runs if name.startswith(("index", "half_"))]
    runs.loc[silent, given] = np.nan
    return runs, that_learned(_classes(frames, natural), told)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    words = ("setting", "control", "prompts", "classifier", "reason", "test_domain", "site_b")
    return with_words(frame, words)


def _sharing(frames: Frames, natural: str) -> pd.DataFrame:
    """One row per model, rung and measure, with its floors and halves beside it."""
    judged = frames["rungs"] if "rungs" in frames else judged_rows(frames)
    parts = [in_middle(judged)]
    if "directions" in frames:
        own = in_band(frames["directions"])
        parts.append(own[own["measure"] == MEAN_DIFFERENCE].assign(rung="R3"))
    rows = stacked([part for part in parts if len(part)] or parts[:1])
    measured = ["index", "index_low", "index_high", "index_error"]
    columns = [*RUN, "rung", "measure", *measured, "epoch_0", "pixels"]
    if rows.empty or not {*RUN, "domain_a", "domain_b"} <= set(rows):
        return pd.DataFrame(columns=columns)
    if "control" not in rows:
        rows["control"] = ""
    rows = of_pair(rows, natural)
    key = [*RUN, "rung", "measure"]
    free = rows["n_units"].to_numpy(dtype=float) - 1
    width = rows["index_high"] - rows["index_low"]
    rows["index_error"] = width / (2 * stats.t.ppf(0.975, np.where(free > 0, free, np.nan)))
    trained = rows[rows["control"] == ""].groupby(key, as_index=False, sort=False)
    found = trained[measured].mean()
    for name, control in (("epoch_0", UNTRAINED), ("pixels", PIXELS)):
        floor = rows[rows["control"] == control].groupby(key[1:])["index"].mean()
        found = found.merge(floor.rename(name).reset_index(), on=key[1:], how="left")
    return _with_halves(found, frames, natural)


def _with_halves(found: pd.DataFrame, frames: Frames, natural: str) -> pd.DataFrame:
    """Sharing on two halves of drawings beside it, where measured: the mean over the band."""
    parts = [
        in_band(RUNGS[name].judged.select(frames[RUNGS[name].judged.table])).assign(rung=name)
        for name in LINKED
        if "half_1" in frames.get(RUNGS[name].judged.table, ())
    ]
    if "half_1" in frames.get("directions", ()):
        own = in_band(frames["directions"])
        parts.append(own[own["measure"] == MEAN_DIFFERENCE].assign(rung="R3"))
    parts = [of_pair(rows, natural) for rows in parts]
    parts = [rows[rows["control"] == ""] if "control" in rows else rows for rows in parts]
    if not parts and "half_1" in frames.get("class_sharing", ()):  # over seen classes
        table = frames["class_sharing"]
        parts = [table[table["class_set"] == "seen"].assign(rung="R3", measure=MEAN_DIFFERENCE)]
    if not parts:
        return found
    key = [*RUN, "rung", "measure"]
    means = stacked(parts).groupby(key, as_index=False)[["half_1", "half_2"]].mean()
    return found.merge(means, on=key, how="left")


def in_middle(judged: pd.DataFrame) -> pd.DataFrame:
    """Judged rows of the middle layers, of rungs that have an index."""
    return judged[judged["rung"].isin(LINKED) & (judged["band"] == "middle")]


def in_band(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the middle layers, never of the final embedding."""
    deep = rows["depth"].between(BAND[0] - 1e-9, BAND[1] + 1e-9)
    return rows[deep & (rows["site"] != LAST)]


def of_pair(rows: pd.DataFrame, natural: str) -> pd.DataFrame:
    """Rows of the natural domain and the one that is tested in."""
    ends = rows[["domain_a", "domain_b", "test_domain"]].to_numpy()
    return rows[np.array([{a, b} == {natural, test} for a, b, test in ends], dtype=bool)]


def asked_accuracies(frames: Frames, natural: str) -> pd.DataFrame:
    """Accuracy of every trained model on the questions that a verdict asks, and its exposure."""
    rows = asked_rows(_plain(frames["accuracy"]))
    if "n_runs" in rows:
        rows = rows[rows["n_runs"] == 1]
    here, held = rows["domain"] == rows["test_domain"], rows["class_set"] == "held-out"
    ends = {"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    found = rows[here & held][[*RUN, *ends]].rename(columns=ends)
    width = found["accuracy_high"] - found["accuracy_low"]
    found["accuracy_error"] = width / (2 * stats.norm.ppf(0.975))
    for name, which in (
        ("accuracy_seen", here & (rows["class_set"] == "seen")),
        ("accuracy_natural", (rows["domain"] == natural) & held),
    ):
        other = rows[which][[*RUN, "value"]].rename(columns={"value": name})
        found = found.merge(other, on=RUN, how="left")
    if len(frames.get("decision_bias", ())):
        found = found.merge(_parts_of_accuracy(frames["decision_bias"]), on=RUN, how="left")
    if "exposure_classes" in frames:
        exposed = _exposure(_plain(frames["exposure_classes"]))
        found = found.merge(exposed, on=RUN, how="left")
    return found


def _parts_of_accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy among held-out classes alone, and the excess bias against them."""
    rows = table[(table["domain"] == table["test_domain"]) & (table["prompts"] == "neutral")]
    if "control" in rows:
        rows = rows[rows["control"] == ""]
    known = rows[rows["calibration"] == AMONG].rename(columns={"value": KNOWING})
    said = rows[rows["measure"] == EXCESS_BIAS].rename(columns={"value": BIAS})
    return known[[*RUN, KNOWING]].merge(said[[*RUN, BIAS]], on=RUN, how="outer")


def _exposure(table: pd.DataFrame) -> pd.DataFrame:
    """Training pictures of a held-out class, the mean over them."""
    rows = asked_rows(table)
    rows = rows[(rows["domain"] == rows["test_domain"]) & (rows["class_set"] == "held-out")]
    rows = rows[rows["exposed_in"] == "all domains"]
    return rows.groupby(RUN, as_index=False)["exposure"].mean()


def _classes(frames: Frames, natural: str) -> pd.DataFrame:
    """One row per model and held-out class."""
    key = [*RUN, "label"]
    columns = [*key, "rung", "measure", "sharing", "half_1", "half_2", "accuracy"]
    known = {"class_sharing", "accuracy_by_class"} <= set(frames)
    if not known or "beyond" not in frames["class_sharing"]:
        return pd.DataFrame(columns=[*columns, "accuracy_natural"])
    rows = asked_rows(frames["accuracy_by_class"])
    rows = rows[rows["class_set"] == "held-out"]
    here = rows[rows["domain"] == rows["test_domain"]][[*key, "value"]]
    there = rows[rows["domain"] == natural][[*key, "value"]]
    shared = frames["class_sharing"].dropna(subset=["beyond"]).rename(columns={"beyond": "sharing"})
    found = shared[[*key, "measure", "sharing", "half_1", "half_2"]].assign(rung="R3")
    found = found.merge(here.rename(columns={"value": "accuracy"}), on=key)
    return found.merge(there.rename(columns={"value": "accuracy_natural"}), on=key, how="left")
