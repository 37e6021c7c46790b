"""The verdict across checkpoints: whether generalization goes with sharing, at three levels.

The levels are never pooled: across mixtures (L1), within a mixture (L2), among the classes of a
model (L3). Each licenses words of its own; "because" needs an intervention (L4), made elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.errors import DataError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.statistics.replication import mean_t
from interp.core.statistics.resampling import holm
from interp.core.tables import Table
from interp.data.mixtures.settings import NATURAL, is_upper_bound
from interp.verdicts.levels.from_tables import ACCURACY, BIAS, KNOWING, RUN, from_tables
from interp.verdicts.levels.l4_intervention import ordinary
from interp.verdicts.levels.panels import Checkpoints, LevelRow, among, unmeasured
from interp.verdicts.wording import LEVELS, disagreement, judge_link, level_sentence, licence

__all__ = ["Verdict", "from_tables", "verdict"]


@dataclass(frozen=True)
class Verdict:
    """The answers of every level, rung by rung.

    Args:
        table: The table `levels`: a row per level, rung, measure and what is held constant.
        together: A row per mixture, test domain, rung and measure, with mean sharing and accuracy.
        headline: Says so where levels are decided with opposite signs; empty otherwise.
    """

    table: Table
    together: Table
    headline: str = ""

    def sentence(
        self,
        level: str,
        rung: str = "",
        *,
        measure: str = "",
        outcome: str = "",
        adjusted: str = "",
    ) -> str:
        """The answer of a level in the words that it licenses.

        Args:
            level: `L1` to `L3`.
            rung: The rung; empty takes the level's first.
            measure: The measure; empty takes the rung's first.
            outcome: `accuracy`, `knowing` or `bias`; empty takes the level's first.
            adjusted: What is held constant; empty is nothing.

        Returns:
            A sentence.

        Raises:
            SpecificationError: For an unknown level, or one without such a row.
        """
        return level_sentence(self._row(level, rung, measure, adjusted, outcome))

    def needed(self, level: str, rung: str = "") -> str:
        """What would have to be run to decide a level, by simulation.

        Args:
            level: `L1` to `L3`.
            rung: The rung; empty takes the level's first.

        Returns:
            The runs in words; empty where the level is decided.

        Raises:
            SpecificationError: For an unknown level, or one without such a row.
        """
        return str(self._row(level, rung, "", "")["needed"])

    def _row(
        self, level: str, rung: str, measure: str, adjusted: str, outcome: str = ""
    ) -> pd.Series:
        check_known("read the verdict", "level", [level], LEVELS, SpecificationError)
        rows = self.table.frame
        rows = rows[(rows["level"] == level) & (rows["adjusted"] == adjusted)]
        found = rows[rows["rung"] == rung] if rung else rows
        for name, wanted in (("measure", measure), ("outcome", outcome)):
            found = found[found[name] == wanted] if wanted else found
        if found.empty:
            given = f"{level} {rung}".strip()
            right = f"one of the rungs {listed(dict.fromkeys(rows['rung']))}"
            raise SpecificationError("read the verdict", given, right, "name another")
        return found.iloc[0]


@door
def verdict(
    runs: pd.DataFrame | Mapping[str, Table],
    classes: pd.DataFrame | None = None,
    *,
    seed: int = 0,
    n_permutations: int = 4999,
    natural: str = NATURAL,
) -> Verdict:
    """Judge across checkpoints whether accuracy on held-out classes goes with what domains share.

    Args:
        runs: A row per model (`setting`, `test_domain`, `seed`, which is the block), `rung` and
            `measure`, with `index` and `accuracy`. Where known also `index_low, index_high, half_1,
            half_2` (sharing on halves of drawings), `knowing` and `bias` (of `from_tables`),
            `accuracy_low, accuracy_high`, the standard errors `index_error, accuracy_error`, and
            what else may predict accuracy:
            `accuracy_seen, accuracy_natural, exposure, epoch_0, pixels`. Or a study's tables by
            name (`open_result(folder).tables`, `open_runs(folder)`), from which both are made;
            arms of an intervention do not count.
        classes: A row per model, measure and class (`label`), with `sharing` and `accuracy`; where
            known also `half_1, half_2, accuracy_natural`. None leaves L3 without an answer.
        seed: Seed of permutations and simulations.
        n_permutations: Permutations behind p.
        natural: The natural domain, where tables are given.

    Returns:
        The answers. What cannot be decided says why, and what would have to be run.

    Raises:
        DataError: For missing columns, or two rows for one model and measure.
        SpecificationError: For tables of several architectures.

    Notes:
        `from_tables`, in the same module, makes both frames from a study's tables.

        L1 is Spearman's correlation of mixtures' means over domains and blocks, mixtures permuted:
        of accuracy or, where they are known, of `knowing` and of `bias` instead, its two parts. L2
        is the slope over blocks with cell and fold effects taken out, blocks permuted within
        mixtures. Intervals of both hold what their permutations do not rule
        out. L3 regresses a class's accuracy on its sharing with fixed effects of class and run and
        natural accuracy as a covariate. L1 and L2 come again with the accuracy of seen classes held
        constant (in L3 run effects hold it). p is adjusted within a level (Holm over rungs). Upper
        bounds, whose "held-out" classes were trained on, are in `together` alone.

    >>> runs = pd.DataFrame([{"setting": f"mixture {m}", "test_domain": d, "seed": b, "rung": "R2",
    ...                       "measure": "CKA", "index": m + 0.01 * b * (m % 3), "accuracy": m**2}
    ...                      for m in range(10) for d in ("sketch", "quickdraw") for b in range(3)])
    >>> found = verdict(runs, n_permutations=999)
    >>> found.table.frame.query("level == 'L1' and adjusted == ''")["verdict"].tolist()
    ['goes together']
    >>> found.table.frame.query("level == 'L2'")["verdict"].tolist()
    ['unknown']
    """
    if not isinstance(runs, pd.DataFrame):
        runs, classes = from_tables(_of_one_architecture(runs), natural=natural)
    _check(runs, [*RUN, "rung", "measure", "index", "accuracy"], [*RUN, "rung", "measure"])
    given = pd.DataFrame() if classes is None else classes
    if len(given):
        needed = [*RUN, "label", "measure", "sharing", "accuracy"]
        _check(given, needed, [*RUN, "label", "measure"])
    given = _without_bounds(given)
    rows: list[tuple[dict[str, object], LevelRow]] = []
    for (rung, measure), own in _without_bounds(runs).groupby(["rung", "measure"], sort=False):
        study = Checkpoints(own, seed, n_permutations)
        parts = [name for name in (KNOWING, BIAS) if name in own and own[name].notna().any()]
        across = [Checkpoints(own, seed, n_permutations, name).across() for name in parts]
        named = {"rung": rung, "measure": measure}
        rows += [(named, row) for part in across or [study.across()] for row in part]
        rows += [(named, row) for row in study.within()]
    if len(given):
        for measure, own in given.groupby("measure", sort=False):
            rung = own["rung"].iloc[0] if "rung" in own else ""
            rows.append(({"rung": rung, "measure": measure}, among(own, seed)))
    elif len(runs):
        rows.append(({"rung": "R3", "measure": ""}, unmeasured()))
    frame = _decided(rows, seed)
    return Verdict(Table("levels", frame), Table("together", _together(runs)), disagreement(frame))


def _of_one_architecture(tables: Mapping[str, Table]) -> dict[str, pd.DataFrame]:
    """A study's frames without arms of an intervention; refused where architectures differ."""
    frames = ordinary({name: table.frame for name, table in tables.items()})
    known = {
        str(name)
        for frame in frames.values()
        if "architecture" in frame
        for name in frame["architecture"].dropna().unique()
    }
    if len(known) > 1:
        given = f"tables of {' and '.join(sorted(known))}"
        do = "take one: open_runs(folder, architecture=...)"
        raise SpecificationError("give a verdict across checkpoints", given, "one architecture", do)
    return frames


COLUMNS = (
    *("level", "rung", "measure", "outcome", "adjusted", "value", "low", "high", "slope"),
    *(
        "null",
        "null_kind",
        "p",
        "p_adjusted",
        "family",
        "unit",
        "n_units",
        "n_runs",
        "n_classes",
        "reliability",
    ),
    *("reliability_kind", "verdict", "reason", "licence", "needed", "gain", "seed"),
)

FAMILY = ["level", "outcome", "adjusted"]


def _check(frame: pd.DataFrame, needed: list[str], key: list[str]) -> None:
    missing = [name for name in needed if name not in frame]
    if missing:
        given = f"a frame without {listed(missing)}"
        right = f"the columns {listed(needed, limit=12)}"
        raise DataError("give a verdict across checkpoints", given, right, "see `from_tables`")
    twice = frame.duplicated(key)
    if twice.any():
        given = f"{int(twice.sum())} rows more than models"
        right = f"one row for each {listed(key)}"
        raise DataError("give a verdict across checkpoints", given, right, "take means first")


def _without_bounds(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of models that never saw the held-out classes in the test domain."""
    if frame.empty:
        return frame
    return frame[~frame["setting"].map(is_upper_bound).astype(bool)]


def _decided(rows: Sequence[tuple[dict[str, object], LevelRow]], seed: int) -> pd.DataFrame:
    """Rows with their p adjusted within the level, their verdict, and what it allows to say."""
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    frame = pd.DataFrame([named | dict(row.columns) for named, row in rows])
    frame = frame.assign(p_adjusted=np.nan, family="", seed=seed)
    for (level, outcome, adjusted), own in frame.groupby(FAMILY, sort=False):
        frame.loc[own.index, "p_adjusted"] = holm(own["p"].to_numpy(dtype=float))
        what = f" of {outcome}" if outcome != ACCURACY else ""
        what += f", {adjusted} held constant" if adjusted else ""
        frame.loc[own.index, "family"] = f"{level} over rungs{what}: {own['p'].count()} tests"
    links = [row.link for _, row in rows]
    frame["verdict"], frame["reason"] = zip(
        *map(judge_link, links, frame["p_adjusted"]), strict=True
    )
    frame["licence"] = list(map(licence, frame["level"], frame["verdict"], frame["outcome"]))
    open_rows = zip(rows, frame["verdict"] == UNKNOWN, strict=True)
    frame["needed"] = [row.needed() if is_open else "" for (_, row), is_open in open_rows]
    return frame.sort_values("level", kind="stable", ignore_index=True)[list(COLUMNS)]


def _together(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean sharing and mean accuracy of every mixture in every test domain, with intervals."""
    rows = []
    keys = ["setting", "test_domain", "rung", "measure"]
    for place, own in runs.groupby(keys, sort=False):
        row: dict[str, object] = dict(zip(keys, place, strict=True))
        for name in ("index", "accuracy"):
            known = own[name].dropna()
            several = len(known) > 1
            if several:
                found = mean_t(known)
                low, high = found.low, found.high
            else:
                ends = (f"{name}_low", f"{name}_high")
                low, high = (own[end].mean() if end in own else np.nan for end in ends)
            row |= {name: known.mean(), f"{name}_low": low, f"{name}_high": high}
        n = int(own[["index", "accuracy"]].notna().all(axis=1).sum())
        row |= {"unit": "block" if n > 1 else "class", "n_runs": n}
        rows.append(row | {"reason": "" if n else "no model with both numbers"})
    return pd.DataFrame(rows)
