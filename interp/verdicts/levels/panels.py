"""The rows of a verdict across checkpoints before they are judged: every level of one measure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, product

import numpy as np
import pandas as pd

from interp.core.errors import InterpError
from interp.core.statistics.correlations import Link
from interp.core.statistics.crossed_model import take_out
from interp.core.statistics.links import (
    LEAST,
    across_mixtures,
    among_classes,
    freed,
    within_mixtures,
)
from interp.core.statistics.power import (
    blocks_for_reliability,
    blocks_needed,
    classes_to_decide,
    mixtures_needed,
)
from interp.core.statistics.reliability import RELIABLE, centred, complete_blocks, gain, measured
from interp.models.evaluation.learning import trained_models
from interp.verdicts.levels.from_tables import ACCURACY, RUN

SEEN = "accuracy of seen classes"
OTHERS = ("accuracy_seen", "accuracy_natural", "exposure", "epoch_0", "pixels")
"""What else may foretell accuracy."""

NULLS = {
    "L1": "mixtures permuted jointly over domains and blocks",
    "L2": "blocks permuted within mixtures, jointly over domains",
    "L3": "t, errors clustered by class and by run",
}
UNITS = {"L1": "mixture", "L2": "block", "L3": "class"}

BETTER = 6
"""Blocks to run where they can be had: three find a correlation of .5 in three studies of five."""

FEW_BLOCKS = f"at least {LEAST['L2']['block']} blocks, {BETTER} or more where they can be had"
FEW_CLASSES = f"at least {LEAST['L3']['class']} classes in {LEAST['L3']['run']} models"


@dataclass(frozen=True)
class LevelRow:
    """A row of the table `levels` before its verdict: what is known, and how more would be."""

    columns: Mapping[str, object]
    link: Link
    needed: Callable[[], str]


class Checkpoints:
    """One measure of sharing and one outcome over the models of a study, as panels."""

    def __init__(
        self, runs: pd.DataFrame, seed: int, n_permutations: int, outcome: str = ACCURACY
    ) -> None:
        self.own, self.outcome = runs.dropna(subset=["index", outcome]), outcome
        self.mixtures, self.domains, self.blocks = (
            list(dict.fromkeys(self.own[name])) for name in RUN
        )
        self.sharing, self.accuracy = self.panel("index"), self.panel(outcome)
        self.seen = self.panel("accuracy_seen")
        self.errors = {name: self.panel(f"{name}_error") ** 2 for name in ("index", outcome)}
        self.seed, self.n_permutations = seed, n_permutations

    def panel(self, column: str) -> np.ndarray:
        """A column as "mixture domain block", NaN where it is not known."""
        keys = pd.MultiIndex.from_product([self.mixtures, self.domains, self.blocks])
        shape = (len(self.mixtures), len(self.domains), len(self.blocks))
        if column not in self.own:
            return np.full(shape, np.nan)
        values = self.own.set_index(RUN)[column].reindex(keys)
        return values.to_numpy(dtype=float).reshape(shape)

    def across(self) -> list[LevelRow]:
        """L1, and L1 with the accuracy of seen classes held constant."""
        asked = partial(across_mixtures, accuracy_error=self.errors[self.outcome])
        return self._rows("L1", asked, len(self.mixtures), self._mixtures_needed)

    def within(self) -> list[LevelRow]:
        """L2, and L2 with the accuracy of seen classes held constant."""
        halves = (self.panel("half_1"), self.panel("half_2"))
        asked = partial(within_mixtures, halves=halves if np.isfinite(halves).any() else None)
        return self._rows("L2", asked, len(self.blocks), self._blocks_needed)

    def _rows(
        self,
        level: str,
        asked: Callable[..., Link],
        most: int,
        needed: Callable[[Link, np.ndarray | None], str],
    ) -> list[LevelRow]:
        """A level as it is, and with the accuracy of seen classes held constant where known."""
        if not self.mixtures:
            return [_unanswered(level, self.outcome)]
        rows = []
        for adjusted, given in {"": None, SEEN: self.seen}.items():
            if given is not None and not np.isfinite(given).any():
                continue
            link = _tried(
                asked,
                self.sharing,
                self.accuracy,
                given=given,
                names=self.mixtures,
                sharing_error=self.errors["index"],
                seed=self.seed,
                n_permutations=self.n_permutations,
            )
            counted = {
                "n_units": link.n.get(UNITS[level], most),
                "n_runs": self._n_models(level if link.n else "", given),
            }
            more = counted | {"outcome": self.outcome, "adjusted": adjusted}
            more |= {"gain": self._gain(level)}
            rows.append(_row(level, link, partial(needed, link, given), **more))
        return rows

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
            return f"at least {LEAST['L1']['mixture']} mixtures"
        tables = self._tables(given)
        cells = compared("L1", tables, by=len(tables))
        size = mixtures_needed(freed([each.mean(axis=1) for each in cells]), seed=self.seed)
        if link.reliability >= RELIABLE:
            return size
        blocks = len(self.blocks)
        known = np.isfinite(link.reliability) and blocks > 1
        return f"{size} in " + (
            blocks_for_reliability(link.reliability, blocks) if known else "3 blocks or more"
        )

    def _blocks_needed(self, link: Link, given: np.ndarray | None) -> str:
        if not link.n or len(self.blocks) < LEAST["L2"]["block"]:
            return FEW_BLOCKS
        tables = self._tables(given)
        own = freed(compared("L2", tables, by=len(tables)))
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


def compared(level: str, tables: Sequence[np.ndarray], *, by: int = 2) -> list[np.ndarray]:
    """The numbers that L1 or L2 compares, freed of what it takes out.

    Args:
        level: `L1`: means over blocks, centred in every domain; `L2`: cells, centred over blocks
            and over mixtures.
        tables: Numbers "mixture domain block".
        by: How many of the first tables choose mixtures and blocks.

    Returns:
        The same tables, "mixture domain" or "mixture domain block"; empty where nothing is left.
    """
    if not tables[0].size:
        return list(tables)
    if level == "L2":
        mixtures, blocks = complete_blocks(tables[:by])
        cells = [each[mixtures][:, :, blocks] for each in tables]
        return [centred(each) for each in cells] if cells[0].size else cells
    mixtures = measured(tables[:by])
    whole = np.all(_known(tables[:by])[mixtures], axis=0)  # domain block
    if not (mixtures.any() and whole.any(axis=1).all()):
        return [each[:0, :, 0] for each in tables]
    cells = [np.where(whole, each[mixtures], 0) for each in tables]
    means = [each.sum(axis=2) / whole.sum(axis=1) for each in cells]
    return [each - each.mean(axis=0) for each in means]


def _known(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Cells "mixture domain block" in which every table has a number."""
    return np.asarray(np.all([np.isfinite(each) for each in tables], axis=0))


def _tried(asked: Callable[..., Link], *numbers: object, **known: object) -> Link:
    """A link, or why there is none."""
    try:
        return asked(*numbers, **known)
    except InterpError as error:
        return Link(reason=f"{error.given}; {error.right} needed")


def _more_drawings(link: Link) -> str:
    return "" if link.reliability >= RELIABLE else ", with more drawings of each class"


def _row(level: str, link: Link, needed: Callable[[], str], **more: object) -> LevelRow:
    known = ("value", "low", "high", "slope", "p", "reliability", "reliability_kind")
    nothing = {"outcome": ACCURACY, "adjusted": "", "gain": np.nan}
    nothing |= {"n_units": 0, "n_classes": np.nan, "n_runs": 0}
    columns = {"level": level, **{name: getattr(link, name) for name in known}, **nothing}
    columns |= {"null": 0.0, "null_kind": NULLS[level], "unit": UNITS[level]}
    return LevelRow({**columns, **more}, link, needed)


def among(own: pd.DataFrame, seed: int) -> LevelRow:
    """L3 from the classes of all models."""
    natural = "accuracy_natural" in own and own["accuracy_natural"].notna().any()
    numbers = ["sharing", "accuracy", *(["accuracy_natural"] if natural else [])]
    rows = own.dropna(subset=numbers)
    codes = [rows["label"].to_numpy(), rows.groupby(RUN, sort=False).ngroup().to_numpy()]
    halves = ("half_1", "half_2")
    link = _tried(
        among_classes,
        rows["sharing"],
        rows["accuracy"],
        label=codes[0],
        run=codes[1],
        natural=rows["accuracy_natural"] if natural else None,
        halves=tuple(rows[name] for name in halves) if set(halves) <= set(rows) else None,
        mixture=rows["setting"],
    )
    n = link.n.get("class", rows["label"].nunique())
    counted = {"n_units": n, "n_classes": n, "n_runs": trained_models(rows).nunique()}
    if not link.n:
        return _row("L3", link, lambda: FEW_CLASSES, **counted)
    arrays = [rows[name].to_numpy(dtype=float) for name in numbers]
    places = [np.unique(code, return_inverse=True)[1] for code in codes]
    free = take_out(arrays, places)
    groups = [rows[name].to_numpy() for name in ("setting", "test_domain")]

    def needed() -> str:
        size = classes_to_decide(free, reliability=link.reliability, seed=seed)
        return size + _more_drawings(link)

    return _row("L3", link, needed, **counted, gain=gain(free.y, free.x, [], groups))


def _unanswered(level: str, outcome: str) -> LevelRow:
    """A level of a measure that no model has both numbers of."""
    link = Link(reason=f"no model has index and {outcome}")
    needed = {"L1": "at least 8 mixtures", "L2": FEW_BLOCKS}[level]
    return _row(level, link, lambda: f"{needed}, with classes enough for an index", outcome=outcome)


def unmeasured() -> LevelRow:
    """L3 where no table has classes."""
    link = Link(reason="no sharing measured class by class")
    return _row("L3", link, lambda: FEW_CLASSES, n_classes=0)
