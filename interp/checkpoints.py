"""A study's tables as two tidy frames: what every model, and every class, shares and reaches."""

from collections.abc import Mapping

import pandas as pd

from interp.core.band import BAND, LAST
from interp.core.errors import DataError, listed
from interp.sharing import rungs

RUN = ["setting", "test_domain", "seed"]
LINKED = ("R2", "R3", "R4", "R5", "R6")
"""Rungs that have an index of sharing; R1 says in each domain whether the class can be read."""

COSINE = "cosine of mean differences"
UNTRAINED, PIXELS = "epoch 0", "pixels"
Frames = Mapping[str, pd.DataFrame]


def from_tables(frames: Frames, *, natural: str = "real") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames `runs` and `classes` that `interp.verdict` asks for, from a study's tables.

    `runs` has a row per model (setting, test_domain, seed), rung and measure: the mean index over
    the sites of the middle layers (and both directions) between the natural and the test domain,
    never the final embedding; accuracy of held-out classes in the test domain (balanced top-1
    among all classes, neutral prompts, text head), of seen ones there, and of held-out ones in
    natural pictures; how often held-out classes were trained on; and the index of the untrained
    model and of pixels. `classes` has a row per model and held-out class: its accuracy, its sharing
    beyond that with other classes, and its accuracy in natural pictures.

    Needs `accuracy`; of `similarity`, `transfer`, `directions`, `das`, `overlap` and
    `circuit_transfer` (or of `rungs`, made from them) what is there, of `class_sharing`,
    `accuracy_by_class` and `exposure_classes` likewise. Raises `DataError` without `accuracy`.
    """
    if "accuracy" not in frames:
        raise DataError(
            "hold accuracy against sharing", f"the tables {listed(frames)}", "accuracy among them",
            "measure accuracy",
        )  # fmt: skip
    frames = {name: _plain(frame) for name, frame in frames.items()}
    shared = _sharing(frames, natural)
    runs = shared.merge(_accuracies(frames["accuracy"], natural), on=RUN, how="inner")
    if "exposure_classes" in frames:
        runs = runs.merge(_exposure(frames["exposure_classes"]), on=RUN, how="left")
    return runs, _classes(frames, natural)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Empty words as "", whether or not the table was read from a file."""
    words = ("setting", "control", "prompts", "classifier", "reason", "test_domain", "site_b")
    present = [name for name in words if name in frame]
    return frame.assign(**{
        name: frame[name].astype(object).where(frame[name].notna(), "") for name in present
    })  # fmt: skip


def _sharing(frames: Frames, natural: str) -> pd.DataFrame:
    """One row per model, rung and measure, with its floors and halves beside it."""
    judged = frames["rungs"] if "rungs" in frames else rungs(frames)
    parts = [judged[judged["rung"].isin(LINKED) & (judged["band"] == "middle")]]
    if "directions" in frames:
        own = frames["directions"]
        deep = own["depth"].between(BAND[0] - 1e-9, BAND[1] + 1e-9) & (own["site"] != LAST)
        parts.append(own[(own["measure"] == COSINE) & deep].assign(rung="R3"))
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    columns = [*RUN, "rung", "measure", "index", "index_low", "index_high", "epoch_0", "pixels"]
    if rows.empty or not {*RUN, "domain_a", "domain_b"} <= set(rows):
        return pd.DataFrame(columns=columns)
    rows["control"] = rows["control"].fillna("") if "control" in rows else ""
    ends = rows[["domain_a", "domain_b", "test_domain"]].to_numpy()
    rows = rows[[{a, b} == {natural, test} for a, b, test in ends]]
    key = [*RUN, "rung", "measure"]
    trained = rows[rows["control"] == ""].groupby(key, as_index=False, sort=False)
    found = trained[["index", "index_low", "index_high"]].mean()
    for name, control in (("epoch_0", UNTRAINED), ("pixels", PIXELS)):
        floor = rows[rows["control"] == control].groupby(key[1:])["index"].mean()
        found = found.merge(floor.rename(name).reset_index(), on=key[1:], how="left")
    return _with_halves(found, frames)


def _with_halves(found: pd.DataFrame, frames: Frames) -> pd.DataFrame:
    """Sharing on two halves of drawings, known for cosines: the mean over the seen classes."""
    if "class_sharing" not in frames or "half_1" not in frames["class_sharing"]:
        return found
    table = frames["class_sharing"]
    seen = table[table["class_set"] == "seen"]
    halves = seen.groupby(RUN, as_index=False)[["half_1", "half_2"]].mean()
    return found.merge(halves.assign(measure=COSINE), on=[*RUN, "measure"], how="left")


def _asked(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the primary question: among all classes, by text, with neutral prompts."""
    rows = frame
    if "control" in rows:
        rows = rows[rows["control"] == ""]
    for name, wanted in (("candidates", "all"), ("prompts", "neutral"), ("classifier", "text")):
        if name in rows:
            rows = rows[rows[name].isin([wanted])]
    return rows[rows["measure"] == "balanced top-1"] if "measure" in rows else rows


def _accuracies(accuracy: pd.DataFrame, natural: str) -> pd.DataFrame:
    """Accuracy of every trained model on the questions that a verdict asks."""
    rows = _asked(accuracy)
    if "n_runs" in rows:
        rows = rows[rows["n_runs"] == 1]
    here, held = rows["domain"] == rows["test_domain"], rows["class_set"] == "held-out"
    ends = {"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    found = rows[here & held][[*RUN, *ends]].rename(columns=ends)
    for name, which in (
        ("accuracy_seen", here & (rows["class_set"] == "seen")),
        ("accuracy_natural", (rows["domain"] == natural) & held),
    ):
        other = rows[which][[*RUN, "value"]].rename(columns={"value": name})
        found = found.merge(other, on=RUN, how="left")
    return found


def _exposure(table: pd.DataFrame) -> pd.DataFrame:
    """Training pictures of a held-out class, the mean over them."""
    rows = _asked(table)
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
    rows = _asked(frames["accuracy_by_class"])
    rows = rows[rows["class_set"] == "held-out"]
    here = rows[rows["domain"] == rows["test_domain"]][[*key, "value"]]
    there = rows[rows["domain"] == natural][[*key, "value"]]
    shared = frames["class_sharing"].dropna(subset=["beyond"]).rename(columns={"beyond": "sharing"})
    found = shared[[*key, "measure", "sharing", "half_1", "half_2"]].assign(rung="R3")
    found = found.merge(here.rename(columns={"value": "accuracy"}), on=key)
    return found.merge(there.rename(columns={"value": "accuracy_natural"}), on=key, how="left")
