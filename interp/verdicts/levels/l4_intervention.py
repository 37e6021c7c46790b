"""L4, intervention: the effect on generalization of a loss term that aligns two domains' classes.

At one mixture, arms with the term are held against arms whose partners are wrong classes, and
against the run without the term, by one crossed model of all runs. Only this permits "because": the
mixture is the same, the term was put there by us, and the control does all that it does but for
whose classes meet.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from interp.core.sites import band_of
from interp.core.statistics.crossed_model import CELL, contrast_of_settings, whole_blocks
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.statistics.replication import mean_t, replicated
from interp.core.statistics.resampling import Interval, holm
from interp.data.mixtures.intervention_arms import OWN, SHUFFLED, Arm, InterventionSpec
from interp.data.mixtures.settings import NATURAL
from interp.models.evaluation.accuracy import ALL, HELD_OUT, SEEN
from interp.probes.geometry.directions import MEAN_DIFFERENCE
from interp.verdicts.wording import AGAINST, APART, TOGETHER, licence

MARGIN = 0.02
"""Accuracies that differ by less count as equal: two points."""

NONE, SLOPE = "none", "per unit of weight"
Frames = dict[str, pd.DataFrame]
KEYS = [*CELL]


@dataclass(frozen=True)
class Outcome:
    """What is read off every arm: a mean over classes in a domain, or how much is shared."""

    name: str
    class_sets: tuple[str, ...] = ()
    natural: bool = False
    candidates: str = ALL


TARGET = Outcome("accuracy of held-out classes in the test domain", (HELD_OUT,))
HELD_EQUAL = Outcome("accuracy of seen classes in the test domain", (SEEN,))
BEYOND = Outcome("accuracy of held-out classes less that of seen ones in the test domain")
AMONG = replace(TARGET, name="accuracy of held-out classes among themselves", candidates=HELD_OUT)
SHARING = Outcome("index of shared directions, middle layers")
OUTCOMES = (
    TARGET,
    AMONG,
    HELD_EQUAL,
    BEYOND,
    Outcome("accuracy in natural pictures", (HELD_OUT, SEEN), natural=True),
    SHARING,
)
"""The question first; then what must be equal, and what the term was to move."""


def intervene(
    frames: Mapping[str, pd.DataFrame], spec: InterventionSpec, *, natural: str = NATURAL
) -> Frames:
    """The tables of an intervention: `intervention`, its rows of `levels`, and what both follow
    from: `intervention_classes`, the accuracy of each class in each arm, and
    `intervention_directions`, what is shared at each site."""
    made, levels = intervention(frames, spec, natural=natural)
    tables = {
        "intervention": made,
        "levels": levels,
        "intervention_classes": _answers(frames["accuracy_by_class"], spec, natural),
    }
    if "directions" in frames:
        tables["intervention_directions"] = _at_mixture(frames["directions"], spec)
    return tables


def ordinary(frames: Mapping[str, pd.DataFrame]) -> Frames:
    """A study's tables without the arms of its intervention, which no comparison may see."""
    own = {name: frame[frame["arm"] == ""] for name, frame in frames.items() if "arm" in frame}
    return {
        **frames,
        **{name: frame.drop(columns="arm").reset_index(drop=True) for name, frame in own.items()},
    }


def intervention(
    frames: Mapping[str, pd.DataFrame], spec: InterventionSpec, *, natural: str = NATURAL
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the arms came to (`intervention`), and what may be concluded (rows of `levels`).

    `frames` are the tables `accuracy_by_class` and, where sharing was measured, `directions` of one
    architecture, with the arms named in `arm`; `natural` is the natural domain. Rows of
    `intervention`, for each outcome: the mean of every arm; at every weight own less shuffled
    partners, and own partners less the run without the term; and with several weights the slope of
    own less shuffled, through the origin:

        slope = sum_w w difference(w) / sum_w w^2

    One of the outcomes is what held-out classes gain beyond seen ones. Means of arms have intervals
    over classes and blocks (`replication` in core). Interval and p of a comparison are one t of
    the crossed model (`crossed_model` in core) to which every arm lends its spread. A verdict is
    about own less shuffled partners: it needs seen classes to be equally accurate in the test
    domain, within two points (90 % interval inside the margin: two one-sided tests at 5 %), and
    sharing moved as the weight says.
    """
    arms = [Arm(0.0), *spec.arms]
    rows: list[dict[str, object]] = []
    found: dict[tuple[str, float], Effect] = {}
    answers = _answers(frames["accuracy_by_class"], spec, natural)
    every = {
        outcome: _cells(_of_outcome(answers, outcome, natural), arms)
        for outcome in OUTCOMES
        if outcome.class_sets
    }
    every[BEYOND] = _beyond(every[TARGET], every[HELD_EQUAL])
    shared = frames.get("directions")
    every[SHARING] = {} if shared is None else _cells(_shared(shared, spec), arms)
    for outcome in OUTCOMES:
        cells = every[outcome]
        rows += [_row(Effect.of_arm(cells[arm]), outcome, _name(arm), arm.weight) for arm in cells]
        for weight, name, weights in _comparisons(cells, spec):
            effect = Effect.of_contrast(cells, weights)
            rows.append(_row(effect, outcome, name, weight, compared=True))
            if not name.endswith(NONE):
                found[outcome.name, weight if name != SLOPE else np.inf] = effect
    return pd.DataFrame(rows), pd.DataFrame(_levels(found, spec))


def _name(arm: Arm) -> str:
    """An arm without its weight.

    >>> [_name(each) for each in (Arm(0.0), Arm(0.3), Arm(-0.3), Arm(0.3, "shuffled"))]
    ['none', 'aligned', 'separated', 'shuffled']
    """
    return arm.name.split()[0] if arm.weight else NONE


Cells = Mapping[Arm, pd.DataFrame]
"""For each arm that was measured, `value` and `n_pictures` by test domain, block and class."""


def _cells(table: pd.DataFrame, arms: list[Arm]) -> Cells:
    own = {arm: table[table["arm"] == arm.name].set_index(KEYS) for arm in arms}
    return {arm: part[["value", "n_pictures"]] for arm, part in own.items() if len(part)}


def _of_outcome(answers: pd.DataFrame, outcome: Outcome, natural: str) -> pd.DataFrame:
    inside = answers["domain"] == (natural if outcome.natural else answers["test_domain"])
    asked = answers["candidates"] == outcome.candidates
    return answers[inside & asked & answers["class_set"].isin(outcome.class_sets)]


def _beyond(held: Cells, seen: Cells) -> Cells:
    """The accuracy of held-out classes less that of seen ones, run by run."""
    made = {}
    for arm in (arm for arm in held if arm in seen):
        first, second = (cells[arm].groupby(KEYS[:2]) for cells in (held, seen))
        pictures = first["n_pictures"].sum() + second["n_pictures"].sum()
        value = first["value"].mean() - second["value"].mean()  # missing where a run lacks one
        runs = pd.DataFrame({"value": value, "n_pictures": pictures}).dropna()
        made[arm] = runs.assign(label="").set_index("label", append=True)
    return made


def _answers(by_class: pd.DataFrame, spec: InterventionSpec, natural: str) -> pd.DataFrame:
    """Trained models' accuracy of each class in the test and the natural domain, arm by arm.

    Of the last epoch, by neutral prompts (a supervised head's rows stand as such).
    """
    rows = _at_mixture(by_class, spec)
    rows = rows[rows["control"] == ""]
    if "epoch" in rows:
        last = rows.groupby(["arm", "test_domain", "seed"])["epoch"].transform("max")
        rows = rows[rows["epoch"] == last]
    if "classifier" in rows:
        rows = rows[(rows["classifier"] == "text") & (rows["prompts"] == "neutral")]
    here = (rows["domain"] == rows["test_domain"]) | (rows["domain"] == natural)
    return rows[here].reset_index(drop=True)


def _shared(directions: pd.DataFrame, spec: InterventionSpec) -> pd.DataFrame:
    """The index of shared directions in the middle layers, a mean over sites, arm by arm."""
    rows = _at_mixture(directions, spec)
    middle = rows["depth"].map(band_of) == "middle"
    rows = rows[middle & (rows["measure"] == MEAN_DIFFERENCE) & (rows["control"] == "")]
    rows = rows.assign(label="", value=rows["index"]).dropna(subset=["index"])
    return rows.groupby(["arm", *KEYS], as_index=False)[["value", "n_pictures"]].mean()


def _at_mixture(frame: pd.DataFrame, spec: InterventionSpec) -> pd.DataFrame:
    """Rows of the mixture intervened at: of the arms, and of the run without the term."""
    arm = frame["arm"] if "arm" in frame else pd.Series("", index=frame.index)
    own = (arm != "") | (frame["setting"] == spec.setting)
    return frame.assign(arm=arm)[own]


def _comparisons(cells: Cells, spec: InterventionSpec) -> list[tuple[float, str, dict[Arm, float]]]:
    """What is compared where both arms were measured: the weight, its name, the arms' weights."""
    made: list[tuple[float, str, dict[Arm, float]]] = []
    none, paired = Arm(0.0), []
    for weight in sorted(spec.weights):
        own, shuffled = Arm(weight, OWN), Arm(weight, SHUFFLED)
        if own in cells and shuffled in cells:
            paired.append(weight)
            made.append((weight, f"{_name(own)} − shuffled", {own: 1.0, shuffled: -1.0}))
        if own in cells and none in cells:
            made.append((weight, f"{_name(own)} − {NONE}", {own: 1.0, none: -1.0}))
    if len(paired) > 1:
        square = sum(weight**2 for weight in paired)
        signs = ((OWN, 1.0), (SHUFFLED, -1.0))
        slope = {Arm(w, kind): sign * w / square for w in paired for kind, sign in signs}
        made.append((np.nan, SLOPE, slope))
    return made


@dataclass(frozen=True)
class Effect:
    """A mean or a comparison: its 95 % and its 90 % interval, p, and what was counted.

    `more` are further columns of its row, `by_classes` the share of its variance by classes that
    blocks have in common.
    """

    interval: Interval
    narrow: Interval
    p: float
    unit: str
    n_units: int
    n_blocks: int
    n_runs: int
    n_pictures: int
    reason: str
    more: Mapping[str, float] = field(default_factory=dict)
    by_classes: float = 0.0

    @classmethod
    def of_arm(cls, cells: pd.DataFrame) -> "Effect":
        """The mean of `value` by test domain, block and class; test domains are averaged first."""
        n_domains = cells.index.get_level_values("test_domain").nunique()
        means = cells.groupby(["seed", "label"])["value"].mean()
        by_block = {int(seed): part.droplevel("seed") for seed, part in means.groupby("seed")}  # type: ignore[call-overload]
        n_blocks = len(by_block)
        counts = {"n_blocks": n_blocks, "n_runs": n_blocks * n_domains}
        counts["n_pictures"] = int(cells["n_pictures"].sum())
        labels = means.index.get_level_values("label")
        if set(labels) <= {""}:  # one number a run
            wide, narrow = (mean_t(means, confidence=level) for level in (0.95, 0.90))
            reason = "" if n_blocks > 1 else "one block: no interval"
            return cls(wide, narrow, np.nan, "block", n_blocks, **counts, reason=reason)
        wide, narrow = (replicated(by_block, confidence=level) for level in (0.95, 0.90))
        unit = wide.unit, wide.n_units
        return cls(wide.interval, narrow.interval, np.nan, *unit, **counts, reason=wide.reason)

    @classmethod
    def of_contrast(cls, cells: Cells, weights: Mapping[Arm, float]) -> "Effect":
        """A weighted sum of arms by the crossed model of all arms that were measured."""
        answers = pd.DataFrame({arm.name: part["value"] for arm, part in cells.items()})
        named = {arm.name: weight for arm, weight in weights.items()}
        wide = contrast_of_settings(answers, named)
        used = whole_blocks(answers[[*named]])[0].index
        pictures = pd.concat([cells[arm]["n_pictures"].reindex(used) for arm in weights], axis=1)
        runs = used.droplevel("label").nunique()
        return cls(
            wide.interval,
            wide.at(0.90),
            wide.p,
            wide.unit,
            wide.n_units,
            wide.n_blocks,
            len(weights) * runs,
            int(pictures.max(axis=1).sum()),
            wide.reason,
            wide.columns,
            wide.by_classes,
        )


NOTHING = Interval(np.nan, np.nan, np.nan, np.nan)
NO_EFFECT = Effect(NOTHING, NOTHING, np.nan, "", 0, 0, 0, 0, "")
"""Where there is nothing to compare."""


def _row(
    effect: Effect, outcome: Outcome, arm: str, weight: float, *, compared: bool = False
) -> dict[str, object]:
    """A row of `intervention`; only differences and slopes have a null and a p."""
    against = "no term" if arm.endswith(NONE) else "wrong classes as partners"
    return {
        "measure": outcome.name,
        "arm": arm,
        "weight": weight,
        **evidence(
            effect.interval,
            null=0.0 if compared else np.nan,
            null_kind=f"no difference from {against}" if compared else "none: a mean",
            ceiling_kind="none: read against the shuffled arm",
            index=np.nan,
            p=effect.p,
            unit=effect.unit,
            n_units=effect.n_units,
            n_pictures=effect.n_pictures,
            n_runs=effect.n_runs,
            seed=0,
            reason=effect.reason,
            estimand="models of this mixture and arm, over classes and blocks like these"
            if effect.n_blocks > 1
            else "these models of this mixture and arm: this run, these classes",
        ),
        **effect.more,
    }


def _levels(
    found: Mapping[tuple[str, float], Effect], spec: InterventionSpec
) -> list[dict[str, object]]:
    """Rows of level L4: one for each weight, and one for the slope over weights."""
    weights = sorted({weight for name, weight in found if name == TARGET.name})
    if not weights:
        why = "no run with shuffled partners to compare with"
        return [_level(NO_EFFECT, np.nan, UNKNOWN, why, "shuffled = true in [intervention]")]
    single = [weight for weight in weights if np.isfinite(weight)]
    adjusted = dict(zip(single, holm([found[TARGET.name, w].p for w in single]), strict=True))
    rows = []
    for weight in weights:
        p = adjusted.get(weight, found[TARGET.name, weight].p)
        asked = single if weight == np.inf else [weight]
        judged = _judge(found, weight, asked, p)
        rows.append(_level(found[TARGET.name, weight], weight, *judged) | {"p_adjusted": p})
    return rows


def _judge(
    found: Mapping[tuple[str, float], Effect], weight: float, asked: list[float], p: float
) -> tuple[str, str, str]:
    """Verdict, reason and what is needed, at a weight or (infinite) for the slope over `asked`."""
    effect = found[TARGET.name, weight]
    if effect.n_blocks < 2 or not math.isfinite(effect.interval.low):
        return UNKNOWN, effect.reason or "one block: no interval", "two blocks or more"
    for each in asked:
        if unequal := _unequal(found[HELD_EQUAL.name, each], each):
            return UNKNOWN, *unequal
    if unmoved := _unmoved(found.get((SHARING.name, weight)), weight):
        return UNKNOWN, *unmoved
    turned = weight if math.isfinite(weight) else 1.0
    low, high = effect.interval.low, effect.interval.high
    if (low > 0 or high < 0) and p <= 0.05:
        return (TOGETHER if (low > 0) == (turned > 0) else AGAINST), "", ""
    reach = MARGIN / max(map(abs, asked)) if weight == np.inf else MARGIN
    if -reach < low and high < reach:
        return APART, f"the effect is smaller than {100 * MARGIN:g} points", ""
    half = (high - low) / 2
    given = f"an effect of {_points(effect.interval)} may be none, or more than {100 * MARGIN:g}"
    wanted = max(abs(effect.interval.value), reach)
    return UNKNOWN, f"{given} points", _blocks(effect, half, wanted)


def _unequal(effect: Effect, weight: float) -> tuple[str, str] | None:
    """Why seen classes do not count as equally accurate, and what would help; None if they do."""
    narrow = effect.narrow
    if -MARGIN < narrow.low and narrow.high < MARGIN:
        return None
    moved = f"seen classes differ by {_points(narrow, '90 %: ')} at weight {weight:g}"
    reason = f"{moved}, not within two points"
    if abs(narrow.value) > MARGIN:
        return reason, "a weight at which seen classes stay equally accurate"
    return reason, _blocks(effect, (narrow.high - narrow.low) / 2, MARGIN - abs(narrow.value))


def _unmoved(effect: Effect | None, weight: float) -> tuple[str, str] | None:
    """Why the term cannot have worked through sharing, and what would help; None where it did."""
    if effect is None:
        reason = "no index of sharing on the arms: not measured, or its ceiling too near its null"
        return reason, "the table `directions` of every arm, with more classes or pictures"
    low, high = effect.interval.low, effect.interval.high
    if (low > 0) if weight > 0 else (high < 0):
        return None
    ends = f"{effect.interval.value:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"the term did not change sharing: index {ends}", "a larger weight, or more blocks"


def _blocks(effect: Effect, half: float, wanted: float) -> str:
    """How many blocks bring half an interval to what is wanted.

    Its square falls with their number, but for the part of classes that all blocks share.
    """
    stays = effect.by_classes * half**2
    left = max(wanted, 1e-3) ** 2 - stays
    if left <= 0:
        return "more classes: those there are differ too much for any number of blocks"
    n = effect.n_blocks
    return f"about {max(n + 1, math.ceil(n * (half**2 - stays) / left))} blocks"


def _points(interval: Interval, level: str = "") -> str:
    value, low, high = (100 * each for each in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} points ({level}{low:+.1f} to {high:+.1f})"


def _level(
    effect: Effect, weight: float, verdict: str, reason: str, needed: str
) -> dict[str, object]:
    """A row of the table `levels`."""
    where = {np.inf: SLOPE}.get(weight, f"weight {weight:g}") if effect.n_runs else "any weight"
    place: dict[str, object] = {"level": "L4", "rung": "R3", "outcome": "accuracy"}
    return place | {
        "measure": f"{TARGET.name}, own less shuffled partners, {where}",
        "adjusted": "accuracy of seen classes",
        "weight": weight if np.isfinite(weight) else np.nan,
        **{name: getattr(effect.interval, name) for name in ("value", "low", "high")},
        "null": 0.0,
        **{name: getattr(effect, name) for name in ("p", "unit", "n_units", "n_runs")},
        "verdict": verdict,
        "reason": reason,
        "licence": licence("L4", verdict),
        "needed": needed,
        "seed": 0,
    }
