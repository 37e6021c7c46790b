"""The rows of a verdict across checkpoints before they are judged: every level of one measure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress, product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.errors import DataError, InterpError, listed
from interp.core.sites import BAND, LAST
from interp.core.tables import stacked
from interp.models.evaluation.learning import asked_rows, learning, that_learned, trained_models
from interp.probes.geometry.directions import MEAN_DIFFERENCE
from interp.verdicts.judging import judged_rows
from interp.verdicts.levels.l1_mixtures import LEAST as LEAST_MIXTURES
from interp.verdicts.levels.l1_mixtures import across_mixtures, in_common, measured, mixture_means
from interp.verdicts.levels.l2_runs import BETTER, complete_blocks, within_mixtures
from interp.verdicts.levels.l2_runs import LEAST as LEAST_BLOCKS
from interp.verdicts.levels.l3_classes import LEAST as LEAST_CLASSES
from interp.verdicts.levels.l3_classes import among_classes, take_out
from interp.verdicts.levels.power import (
    blocks_for_reliability,
    blocks_needed,
    classes_to_decide,
    mixtures_needed,
)
from interp.verdicts.levels.reliability import centred, gain
from interp.verdicts.rungs import RUNGS
from interp.verdicts.wording import RELIABLE, Link

RUN = ["setting", "test_domain", "seed"]
SEEN = "accuracy of seen classes"
OTHERS = ("accuracy_seen", "accuracy_natural", "exposure", "epoch_0", "pixels")
"""What else may foretell accuracy."""

NULLS = {
    "L1": "mixtures permuted jointly over domains and blocks",
    "L2": "blocks permuted within mixtures, jointly over domains",
    "L3": "t, errors clustered by class and by run",
}
UNITS = {"L1": "mixture", "L2": "block", "L3": "class"}

FEW_BLOCKS = f"at least {LEAST_BLOCKS['block']} blocks, {BETTER} or more where they can be had"

LINK, NEEDED = "_link", "_needed"
"""Columns that a verdict is made from, and that go when it is."""


class Checkpoints:
    """One measure of sharing and accuracy over the models of a study, as panels."""

    def __init__(self, own: pd.DataFrame, seed: int, n_permutations: int) -> None:
        self.own = own
        self.options: dict[str, Any] = {"seed": seed, "n_permutations": n_permutations}
        self.mixtures, self.domains, self.blocks = (list(dict.fromkeys(own[name])) for name in RUN)
        self.sharing, self.accuracy = self.panel("index"), self.panel("accuracy")
        self.seen = self.panel("accuracy_seen")
        self.errors = {name: self.panel(f"{name}_error") ** 2 for name in ("index", "accuracy")}
        self.seed = seed

    def panel(self, column: str) -> np.ndarray:
        """A column as "mixture domain block", NaN where it is not known."""
        keys = pd.MultiIndex.from_product([self.mixtures, self.domains, self.blocks])
        shape = (len(self.mixtures), len(self.domains), len(self.blocks))
        if column not in self.own:
            return np.full(shape, np.nan)
        values = self.own.set_index(RUN)[column].reindex(keys)
        return values.to_numpy(dtype=float).reshape(shape)

    def across(self) -> list[dict[str, Any]]:
        """L1, and L1 with the accuracy of seen classes held constant."""
        if not self.mixtures:
            return [_unanswered("L1")]
        asked = partial(
            across_mixtures,
            self.sharing,
            self.accuracy,
            names=self.mixtures,
            sharing_error=self.errors["index"],
            accuracy_error=self.errors["accuracy"],
            **self.options,
        )
        return [
            self._row("L1", adjusted, _tried(asked, given), self._mixtures_needed, given)
            for adjusted, given in self._adjustments()
        ]

    def within(self) -> list[dict[str, Any]]:
        """L2, and L2 with the accuracy of seen classes held constant."""
        if not self.mixtures:
            return [_unanswered("L2")]
        halves = (self.panel("half_1"), self.panel("half_2"))
        asked = partial(
            within_mixtures,
            self.sharing,
            self.accuracy,
            halves=halves if np.isfinite(halves).any() else None,
            sharing_error=self.errors["index"],
            names=self.mixtures,
            **self.options,
        )
        return [
            self._row("L2", adjusted, _tried(asked, given), self._blocks_needed, given)
            for adjusted, given in self._adjustments()
        ]

    def _adjustments(self) -> list[tuple[str, np.ndarray | None]]:
        known = np.isfinite(self.seen).any()
        return [("", None), *([(SEEN, self.seen)] if known else [])]

    def _row(
        self,
        level: str,
        adjusted: str,
        link: Link,
        needed: Callable[[Link, np.ndarray | None], str],
        given: np.ndarray | None,
    ) -> dict[str, object]:
        row = _row(level, link, adjusted=adjusted)
        small = {"L1": len(self.mixtures), "L2": len(self.blocks)}[level]
        row["n_units"] = link.n.get(UNITS[level], small)
        row["n_runs"] = self._n_models(level if link.n else "", given)
        row["gain"] = self._gain(level)
        return row | {NEEDED: lambda: needed(link, given)}

    def _tables(self, given: np.ndarray | None) -> list[np.ndarray]:
        """Sharing, accuracy, and what is held constant."""
        return [self.sharing, self.accuracy, *([] if given is None else [given])]

    def _n_models(self, level: str, given: np.ndarray | None) -> int:
        """Trained models that a level compares; with no level, all that have both numbers."""
        tables = self._tables(given)
        used = _known(tables)
        if level == "L1":
            kept = measured(tables)
            used &= kept[:, None, None] & used[kept].all(axis=0)
        if level == "L2":
            mixtures, blocks = complete_blocks(tables)
            used &= mixtures[:, None, None] & blocks
        runs = compress(product(self.mixtures, self.domains, self.blocks), used.ravel())
        return trained_models(pd.DataFrame(runs, columns=RUN)).nunique()

    def _mixtures_needed(self, link: Link, given: np.ndarray | None) -> str:
        if not link.n:
            return f"at least {LEAST_MIXTURES['mixture']} mixtures"
        tables = self._tables(given)
        kept = measured(tables)
        size = mixtures_needed(
            _freed([mixture_means(each) for each in in_common([one[kept] for one in tables])]),
            seed=self.seed,
        )
        if link.reliability >= RELIABLE:
            return size
        blocks = len(self.blocks)
        known = np.isfinite(link.reliability) and blocks > 1
        return f"{size} in " + (
            blocks_for_reliability(link.reliability, blocks) if known else "3 blocks or more"
        )

    def _blocks_needed(self, link: Link, given: np.ndarray | None) -> str:
        if not link.n or len(self.blocks) < LEAST_BLOCKS["block"]:
            return FEW_BLOCKS
        tables = self._tables(given)
        mixtures, blocks = complete_blocks(tables)
        own = _freed([centred(each[mixtures][:, :, blocks]) for each in tables])
        size = blocks_needed(own, reliability=link.reliability, seed=self.seed)
        return size + _more_drawings(link)

    def _gain(self, level: str) -> float:
        """What sharing adds to the others where mixtures and domains are left out."""
        others = (self.panel(name) for name in OTHERS)
        y, x, *beside = compared(level, [self.accuracy, self.sharing, *others])
        mixture, domain = np.indices(y.shape)[:2]
        if not y.size or np.abs(x).max() <= 1e-12:
            return np.nan
        groups = [mixture.ravel(), domain.ravel()]
        return gain(y.ravel(), x.ravel(), [each.ravel() for each in beside], groups)


def compared(level: str, tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The numbers that L1 or L2 compares, freed of what it takes out.

    Args:
        level: `L1`: means over blocks, centred in every domain; `L2`: cells, centred over blocks
            and over mixtures.
        tables: Numbers "mixture domain block". The first two choose mixtures and blocks.

    Returns:
        The same tables, "mixture domain" or "mixture domain block"; empty where nothing is left.
    """
    if not tables[0].size:
        return list(tables)
    if level == "L2":
        mixtures, blocks = complete_blocks(tables[:2])
        cells = [each[mixtures][:, :, blocks] for each in tables]
        return [centred(each) for each in cells] if cells[0].size else cells
    mixtures = measured(tables[:2])
    whole = np.all(_known(tables[:2])[mixtures], axis=0)  # domain block
    if not (mixtures.any() and whole.any(axis=1).all()):
        return [each[:0, :, 0] for each in tables]
    cells = [np.where(whole, each[mixtures], 0) for each in tables]
    means = [each.sum(axis=2) / whole.sum(axis=1) for each in cells]
    return [each - each.mean(axis=0) for each in means]


def _known(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Cells "mixture domain block" in which every table has a number."""
    return np.asarray(np.all([np.isfinite(each) for each in tables], axis=0))


def _tried(asked: Callable[..., Link], given: np.ndarray | None = None) -> Link:
    """A link, or why there is none."""
    try:
        return asked(given=given) if given is not None else asked()
    except InterpError as error:
        return Link(np.nan, np.nan, np.nan, np.nan, {}, {}, reason=_why(error))


def _why(error: InterpError) -> str:
    return f"{error.given}; {error.right} needed"


def _freed(numbers: list[np.ndarray]) -> list[np.ndarray]:
    """The first two numbers, less what the third explains of them."""
    if len(numbers) == 2:
        return numbers
    given = numbers[2]
    square = float((given**2).sum()) or 1.0
    return [each - (each * given).sum() / square * given for each in numbers[:2]]


def _more_drawings(link: Link) -> str:
    return "" if link.reliability >= RELIABLE else ", with more drawings of each class"


def _row(level: str, link: Link, *, adjusted: str = "") -> dict[str, object]:
    return {
        "level": level,
        "adjusted": adjusted,
        **{name: getattr(link, name) for name in ("value", "low", "high", "slope", "p")},
        "null": 0.0,
        "null_kind": NULLS[level],
        "unit": UNITS[level],
        "n_classes": np.nan,
        "reliability": link.reliability,
        "reliability_kind": link.reliability_kind,
        "gain": np.nan,
        LINK: link,
    }


def among(own: pd.DataFrame, seed: int) -> dict[str, object]:
    """L3 from the classes of all models."""
    natural = "accuracy_natural" in own and own["accuracy_natural"].notna().any()
    numbers = ["sharing", "accuracy", *(["accuracy_natural"] if natural else [])]
    rows = own.dropna(subset=numbers)
    codes = [rows["label"].to_numpy(), rows.groupby(RUN, sort=False).ngroup().to_numpy()]
    halves = ("half_1", "half_2")
    asked = partial(
        among_classes,
        rows["sharing"],
        rows["accuracy"],
        label=codes[0],
        run=codes[1],
        natural=rows["accuracy_natural"] if natural else None,
        halves=(rows["half_1"], rows["half_2"]) if set(halves) <= set(rows) else None,
        mixture=rows["setting"],
    )
    link = _tried(asked)
    row = _row("L3", link) | {"n_units": link.n.get("class", rows["label"].nunique())}
    row |= {"n_classes": row["n_units"], "n_runs": trained_models(rows).nunique()}
    if not link.n:
        return row | {NEEDED: _least_classes}
    arrays = [rows[name].to_numpy(dtype=float) for name in numbers]
    places = [np.unique(code, return_inverse=True)[1] for code in codes]
    free = take_out(arrays, places)
    groups = [rows[name].to_numpy() for name in ("setting", "test_domain")]
    row["gain"] = gain(free.y, free.x, [], groups)
    return row | {
        NEEDED: lambda: (
            classes_to_decide(free, reliability=link.reliability, seed=seed) + _more_drawings(link)
        )
    }


def _least_classes() -> str:
    return f"at least {LEAST_CLASSES['class']} classes in {LEAST_CLASSES['run']} models"


def _unanswered(level: str) -> dict[str, object]:
    """A level of a measure that no model has both numbers of."""
    link = Link(np.nan, np.nan, np.nan, np.nan, {}, {}, reason="no model has index and accuracy")
    needed = {"L1": "at least 8 mixtures", "L2": FEW_BLOCKS}[level]
    needed = f"{needed}, with classes enough for an index"
    return _row(level, link) | {"n_units": 0, "n_runs": 0, NEEDED: lambda: needed}


def unmeasured() -> dict[str, object]:
    link = Link(np.nan, np.nan, np.nan, np.nan, {}, {}, reason="no sharing measured class by class")
    return _row("L3", link) | {"n_units": 0, "n_runs": 0, "n_classes": 0, NEEDED: _least_classes}


LINKED = tuple(name for name, rung in RUNGS.items() if rung.indexed)
"""Rungs that have an index of sharing; R1 says in each domain whether the class can be read."""

UNTRAINED, PIXELS = "epoch 0", "pixels"
Frames = Mapping[str, pd.DataFrame]


def from_tables(frames: Frames, *, natural: str = "real") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames `runs` and `classes` that `interp.verdict` asks for, from a study's tables.

    `runs` has a row per model (setting, test_domain, seed), rung and measure: the mean index over
    the sites of the middle layers (and both directions) between the natural and the test domain,
    never the final embedding; accuracy of held-out classes in the test domain (balanced top-1
    among all classes, neutral prompts, text head), of seen ones there, and of held-out ones in
    natural pictures; how often held-out classes were trained on; and the index of the untrained
    model and of pixels. `index_error` and `accuracy_error` are standard errors: Student's quantile
    of as many units as a row counts is taken out of an index's interval, and the normal one out of
    the bootstrap of an accuracy. `classes` has a row per model and held-out class: its accuracy,
    its sharing beyond that with other classes, and its accuracy in natural pictures. A model that
    did not learn (`learning`) has no index, and no rows in `classes`.

    Needs `accuracy`; of `similarity`, `transfer`, `directions`, `das`, `overlap` and
    `circuit_transfer` (or of `rungs`, made from them) what is there, of `class_sharing`,
    `accuracy_by_class` and `exposure_classes` likewise. Raises `DataError` without `accuracy`.
    """
    if "accuracy" not in frames:
        raise DataError(
            "hold accuracy against sharing",
            f"the tables {listed(frames)}",
            "accuracy among them",
            "measure accuracy",
        )
    frames = {name: _plain(frame) for name, frame in frames.items()}
    shared = _sharing(frames, natural)
    runs = shared.merge(asked_accuracies(frames, natural), on=RUN, how="inner")
    told = learning(frames["accuracy"], frames.get("mixtures"), natural=natural)
    silent = runs.index.difference(that_learned(runs, told).index)
    given = [name for name in runs if name.startswith(("index", "half_"))]
    runs.loc[silent, given] = np.nan
    return runs, that_learned(_classes(frames, natural), told)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Empty words as "", whether or not the table was read from a file."""
    words = ("setting", "control", "prompts", "classifier", "reason", "test_domain", "site_b")
    present = [name for name in words if name in frame]
    return frame.assign(
        **{name: frame[name].astype(object).where(frame[name].notna(), "") for name in present}
    )


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
    """Sharing on two halves of drawings beside it, known for cosines: the mean over the band."""
    if "half_1" in frames.get("directions", ()):
        rows = of_pair(frames["directions"], natural)
        rows = rows[rows["control"] == ""] if "control" in rows else rows
        halves = in_band(rows)
    elif "half_1" in frames.get("class_sharing", ()):  # of mean differences, over seen classes
        table = frames["class_sharing"]
        halves = table[table["class_set"] == "seen"].assign(measure=MEAN_DIFFERENCE)
    else:
        return found
    key = [*RUN, "measure"]
    means = halves.groupby(key, as_index=False)[["half_1", "half_2"]].mean()
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
    if "exposure_classes" in frames:
        exposed = _exposure(_plain(frames["exposure_classes"]))
        found = found.merge(exposed, on=RUN, how="left")
    return found


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
