"""Runs of one domain's circuits on another's pictures: alone, or with them knocked out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from interp.circuits.patching.localise import by_class, class_mean
from interp.circuits.sharing.class_circuits import ClassCircuits
from interp.circuits.sharing.cuts import Cut
from interp.circuits.sharing.overlap_measures import first_of_others, matters
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval, jackknife

BESIDE = ("random", "core")
"""Kinds of circuits that are run beside those that the index needs."""


@dataclass(frozen=True)
class CircuitRuns:
    """The work of each kind of circuit, in the metric's unit, and what the examples show.

    It is the metric over the corrupt run with the circuit, or what is missing without it. `work`
    is `[size example]` for the circuits own, ceiling, readout, random and core (what the two
    domains' circuits have in common), of which the last three need not be there, and `[size example
    null]` for other, which are circuits of the classes `others` `[example null]`. `matched` is how
    large these are, and `common` how large the core is, as shares of the class's own, `[size]`;
    `sizes` how large those of the ceiling are, as shares of all parts; `half` says of each example
    which half of the artists drew it, the other having made the circuits.
    """

    work: Mapping[str, np.ndarray]
    gap: np.ndarray
    labels: np.ndarray
    corrupt: np.ndarray
    others: np.ndarray
    matched: np.ndarray
    common: np.ndarray
    sizes: np.ndarray
    half: np.ndarray
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return int(self.labels.max()) + 1

    def left_out(self, sizes: np.ndarray) -> np.ndarray:
        """Value, null, ceiling, gap, random, core and readout, `[1 + class 7]`: means over sizes.

        Of all classes, then without each wherever it stands: shown, in the corrupt picture, or as
        the class of another circuit.
        """
        key = tuple(sizes.tolist())
        if key not in self.known:
            work = {name: each[sizes].mean(axis=0) for name, each in self.work.items()}
            ways = (-2, *range(self.n_classes))
            self.known[key] = np.stack([self._means(work, without) for without in ways])
        return self.known[key]

    def _means(self, work: Mapping[str, np.ndarray], without: int) -> np.ndarray:
        usable = self.others != without
        other = np.where(usable, work["other"], 0).sum(axis=1)
        chance = other / np.maximum(usable.sum(axis=1), 1)
        stay = (self.labels != without) & (self.corrupt != without) & usable.any(axis=1)
        nothing = np.full_like(self.gap, np.nan)
        beside = [work.get(name, nothing) for name in (*BESIDE, "readout")]
        ends = (work["own"], chance, work["ceiling"], self.gap, *beside)
        rows, labels = np.stack(ends, axis=1)[stay], self.labels[stay]
        counts = np.bincount(labels, minlength=self.n_classes)
        if not len(rows):
            return np.full(len(ends), np.nan)
        sums = np.zeros((self.n_classes, len(ends)))
        np.add.at(sums, labels, rows)
        return (sums[counts > 0] / counts[counts > 0, None]).mean(axis=0)

    def shift(self, sizes: np.ndarray, null: str) -> np.ndarray:
        """How much more the class's own circuit does than those of the null, `[class]`."""
        return by_class(self._beyond(sizes, null), self.labels)

    def by_half(self, sizes: np.ndarray, null: str) -> tuple[float, float]:
        """The same of all classes for pictures by each half of the artists, as shares of the gap:
        two numbers without a picture in common."""
        rows = np.stack([self._beyond(sizes, null), self.gap])
        halves = [self.half == side for side in (0, 1)]
        ends = [[class_mean(row[h], self.labels[h]) for row in rows] for h in halves]
        first, second = (more / gap if gap > 0 else np.nan for more, gap in ends)
        return float(first), float(second)

    def _beyond(self, sizes: np.ndarray, null: str) -> np.ndarray:
        work = self.work[null][sizes].mean(axis=0)
        work = work.mean(axis=1) if null == "other" else work
        return self.work["own"][sizes].mean(axis=0) - work


def run_circuits(
    source: ClassCircuits,
    target: ClassCircuits,
    classes: Sequence[str],
    shares: Sequence[float],
    n_null: int,
    seed: int,
    *,
    removed: bool,
    beside: bool = True,
) -> CircuitRuns:
    """Run the circuits of each half of the source on the target's other half, or all but them.

    Without `beside` those are left out that no index needs: the shared core, and random parts where
    circuits are kept.
    """
    left = set() if beside else {"core"} if removed else set(BESIDE)
    steps = 1 + rng("other classes", seed).permutation(len(classes) - 1)[:n_null]
    place = {name: number for number, name in enumerate(classes)}
    kept = [(source.masks(share, classes), target.masks(share, classes)) for share in shares]
    lifted = [None if removed else source.lifted(share, classes) for share in shares]
    generator = rng("random parts", seed)
    halves, matched = [], np.ones((2, len(shares)))
    common, sizes = np.zeros((2, 2, len(shares)))
    for side, read in enumerate(target.halves):
        rows = np.flatnonzero(read.pairs.clean.label.isin(classes).to_numpy())
        part = read[rows]
        labels = part.pairs.clean.label.map(place).to_numpy()
        others = (labels[:, None] + steps) % len(classes)
        chosen = [
            _circuits(theirs[:, 1 - side], mine[:, 1 - side], labels, others, source.cut, generator)
            for theirs, mine in kept
        ]
        if removed:
            means, groups = source.scores.means(classes)[:, 1 - side], source.cut.groups
            size = np.abs(means) / max(np.abs(means).max(), np.finfo(float).tiny)
            counted = matters(means, groups, source.scores.negligible)[others.T]
            by_chance = generator.random(counted.shape)
            by_size = np.where(counted, 1 + size[others.T], by_chance)
            for each in chosen:
                taken = each["own"] | each["ceiling"]  # B's own are necessary in B, whoever asks
                for kind, order in (("other", by_size), ("random", by_chance)):
                    each[kind] = first_of_others(each["own"], taken, order, groups)
            matched[side] = [each["other"].mean() / each["own"].mean() for each in chosen]
        for each, parts in zip(chosen, lifted, strict=True):
            if parts is not None:
                each["readout"] = parts[:, 1 - side][labels][None]
        common[side] = [each["core"].sum() / each["own"].sum() for each in chosen]
        sizes[side] = [each["ceiling"].mean() for each in chosen]
        chosen = [{k: each[k] for k in each if k not in left} for each in chosen]
        kinds = [kind for kind, masks in chosen[0].items() for _ in masks]
        masks = np.concatenate([masks for each in chosen for masks in each.values()])
        if len(masks) * len(rows) > 20_000:
            say(f"{source.domain} in {target.domain}: {len(masks) * len(rows):,} forwards")
        values, ends = source.cut.run(part, masks ^ removed)
        over = ends[0] - values if removed else values - ends[1]
        over = over.reshape(len(shares), len(kinds), -1)
        work = {kind: over[:, np.flatnonzero(np.array(kinds) == kind)] for kind in chosen[0]}
        corrupt = part.pairs.corrupt.label.map(place).fillna(-1).to_numpy()
        half = np.full(len(labels), side)
        halves.append((work, ends[0] - ends[1], labels, corrupt, others, half))
    works, *columns = zip(*halves, strict=True)
    joined = {
        kind: np.concatenate([work[kind] for work in works], axis=2).swapaxes(1, 2)
        for kind in works[0]
    }
    if "random" in joined:
        joined["random"] = joined["random"].mean(axis=2, keepdims=True)
    work = {kind: each if kind == "other" else each[..., 0] for kind, each in joined.items()}
    gap, labels, corrupt, others, half = (np.concatenate(column) for column in columns)
    ends = matched.min(axis=0), common.mean(axis=0), sizes.mean(axis=0)
    return CircuitRuns(work, gap, labels, corrupt, others, *ends, half)


def _circuits(
    theirs: np.ndarray,
    mine: np.ndarray,
    labels: np.ndarray,
    others: np.ndarray,
    cut: Cut,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Every kind of circuit of one size, `[circuit example part]`, from `[class part]`."""
    return {
        "own": theirs[labels][None],
        "other": theirs[others.T],
        "ceiling": mine[labels][None],
        "random": shuffled_in_groups(theirs, cut.groups, generator)[labels][None],
        "core": (theirs & mine)[labels][None],
    }


def shuffled_in_groups(
    kept: np.ndarray, groups: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """For each circuit one of random parts, as many in every group."""
    drawn = kept.copy()
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        drawn[:, own] = generator.permuted(kept[:, own], axis=1)
    return drawn


SMALLEST = {0.5: "parts that do 50 % of the work", 0.8: "parts that do 80 % of the work"}
"""What a circuit must do to count as faithful, and what the share of parts it takes is called."""


def size_reached(shares: Sequence[float], work: np.ndarray, bar: float) -> np.ndarray:
    """The smallest size at which circuits do enough, between two sizes on a scale of logarithms.

    Args:
        shares: Sizes of circuits, in rising order.
        work: What they do of the whole, `[... size]`.
        bar: What is enough.

    Returns:
        The size, `[...]`; NaN where none does enough.

    >>> size_reached([0.01, 0.1], np.array([[0.0, 1.0], [0.0, 0.4]]), 0.5).round(3).tolist()
    [0.032, nan]
    """
    sizes, work = np.log(np.asarray(shares)), np.asarray(work, dtype=float)
    enough = work >= bar
    first = enough.argmax(axis=-1)
    before = np.maximum(first - 1, 0)
    high, low = (np.take_along_axis(work, at[..., None], -1)[..., 0] for at in (first, before))
    part = np.where(first > 0, (bar - low) / np.where(high > low, high - low, 1.0), 1.0)
    size = np.exp(sizes[before] + part * (sizes[first] - sizes[before]))
    return np.where(enough.any(axis=-1), size, np.nan)


def smallest_rows(
    shares: Sequence[float], own: np.ndarray, random: np.ndarray, *, about: Evidence
) -> list[dict[str, object]]:
    """A row for each bar of `SMALLEST`, with what random parts would take as null.

    Args:
        shares: Sizes of circuits, in rising order.
        own: What a domain's circuits do at home, of all classes and then without each,
            `[1 + class, size]`.
        random: The same of random parts, as many.
        about: What the rows have in common.
    """
    rows = []
    for bar, name in SMALLEST.items():
        sizes, by_chance = (size_reached(shares, work, bar) for work in (own, random))
        largest = f"{own[0, -1]:.0%} at {shares[-1]:.0%} of the parts"
        reason = "" if np.isfinite(sizes[0]) else f"no circuit does as much: {largest}"
        if sizes[0] == shares[0]:
            reason = "as few parts at most: no smaller circuits were run"
        row = about.row(_spread(sizes), null=float(by_chance[0]), reason=reason)
        rows.append({"measure": name, **row})
    return rows


def _spread(sizes: np.ndarray) -> Interval:
    """The interval of a size, on the scale of logarithms: that of all classes stands first."""
    found = jackknife(float(np.log(sizes[0])), np.log(sizes[1:]))
    return Interval(float(sizes[0]), found.error, *np.exp([found.low, found.high]).tolist())
