"""Transfer of circuits: a class's circuit of one domain, at work in another.

Rung R6 of the ladder. Overlap measures whether circuits look alike; here one does the other's work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.circuits.patching.localise import (
    ROUNDING,
    index_of,
    max_t_p,
    no_gap,
    of_its_own,
    rounded,
)
from interp.circuits.sharing.circuit_runs import CircuitRuns, run_circuits, smallest_rows
from interp.circuits.sharing.class_circuits import ClassCircuits, check_classes
from interp.circuits.sharing.overlap_rows import READ_OUT, beyond_readout
from interp.core.arguments import check_counts, check_shares
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.index_of_sharing import NOT_SHARED, UNKNOWN, Index
from interp.core.tables import Table

TRANSFER_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Sizes of circuits, as shares of each group's parts."""

KNOCKED_OUT_SHARES = (0.1, 0.2)
"""Sizes of circuits that are knocked out."""

SMALL = 0.2
"""Circuits up to this size are averaged: half of all parts hold much that belongs to no circuit."""

FAITHFUL, NEEDED = 0.5, 0.2
"""Of the metric, what a domain's own circuit must do alone on other drawings before it says
anything, and what must be lost without it."""


@dataclass(frozen=True)
class _Question:
    """What is asked of circuits: the measure's name, and how its numbers are put in words."""

    measure: str
    estimand: str
    own_work: str
    least: float
    null_kind: str

    @property
    def over_sizes(self) -> str:
        """The name of the mean over sizes."""
        return f"{self.measure}, mean over sizes"


SUFFICIENCY = _Question(
    "circuit transfer",
    "share of the work of a class in B that its circuit of A does",
    "a domain's own circuits do {does} of the metric's work on other drawings",
    FAITHFUL,
    "circuits of other classes in A, as large",
)
NECESSITY = _Question(
    "circuit necessity",
    "share of the work of a class in B that is lost without its circuit of A",
    "without a domain's own circuits {does} of the metric's work on other drawings is lost",
    NEEDED,
    "parts of other classes in A that are none of the class's, as many",
)
MATCHED = 0.9
"""As many parts as the null of necessity needs, as a share of the circuit's."""

BY_CHANCE = "random parts that are none of the class's, as many"
NULLS = {"random": BY_CHANCE, "readout": READ_OUT}
"""What the null is where it is not of other classes."""

COLUMNS_OF_NULLS = {"other": 1, "random": 4, "readout": 6}
"""Where `_Both.terms` has the work of each null."""

NO_MORE_WORK = "circuits of A do no more than the class's readout, which any picture has"
OVER_SIZES, NECESSITY_OVER_SIZES = SUFFICIENCY.over_sizes, NECESSITY.over_sizes


@door
def circuit_transfer(
    a: ClassCircuits,
    b: ClassCircuits,
    *,
    shares: Sequence[float] | None = None,
    removed: bool = False,
    beside: bool = True,
    n_null: int = 3,
    seed: int = 0,
) -> Table:
    r"""Measure how much of a class's work in one domain its circuit of another domain does.

    That is sufficiency. `removed` asks for necessity: how much of it is lost without that circuit.

    With $m(C)$ the mean of the metric over classes, M the whole model and $\emptyset$ no part (the
    corrupt run):

    value = $(m(C_{A,c}) - m(\emptyset)) / (m(M) - m(\emptyset))$ on pictures of (B, c); null = the
    larger of the same for circuits $C_{A,c'}$ of other classes, as large in every group, and for
    the class's readout (the parts that A's pictures of other classes lift as high as those of
    $C_{A,c}$); own = the same for $C_{B,c}$, found on pictures by other artists; ceiling = the
    geometric mean of own in B and own in A; index = (value - null) / (ceiling - null). Of necessity
    $m(C) - m(\emptyset)$ is $m(M) - m(M \setminus C)$ in all of them, and instead of circuits of
    other classes the null has the parts that matter most to c', and random parts, both without
    those of $C_{A,c}$ and $C_{B,c}$, as many as the first has.

    Args:
        a: The circuits of one domain.
        b: The circuits of another domain, found in the same tower with the same cut.
        shares: Sizes of circuits: the share of each group's parts, those with the largest mean
            |score|. None takes `TRANSFER_SHARES`, or `KNOCKED_OUT_SHARES`.
        removed: Whether circuits are knocked out (they alone run as in another class's picture)
            instead of kept. The column `measure` says which.
        beside: Whether `core` and `random` are measured too, which no index needs (where circuits
            are knocked out, random parts are always run).
        n_null: Circuits of other classes behind each null; of necessity also as many random ones.
        seed: Seed of the other classes and of random parts.

    Returns:
        A row for every size and both directions: the circuits are `domain_a`'s, the pictures
        `domain_b`'s. Of several sizes, one more row per direction holds the mean over those up to a
        fifth at which the circuits of both domains are faithful at home; where none is, over the
        larger ones that are. `own` is what B's circuits do in B, `random` what circuits of random
        parts do, as many in every group (of necessity: none of the class's), and `core` what the
        parts do that both domains' circuits of the class have, `core_share` of them. With three
        sizes or more, and circuits that are kept, rows of each domain alone say how sparse they are
        (`SMALLEST`): the smallest share of the parts that does half, and four fifths, of the work.

    Raises:
        SpecificationError: For circuits of different towers or cuts, one domain twice, shares
            outside (0, 1), or `n_null` below 1.
        SampleError: With fewer than four classes in both domains.

    Notes:
        Everything outside a circuit, or inside one that is knocked out, runs as in a picture of
        another class of the same domain.
        Circuits of one half of the artists run on pictures by the other half, in both domains and
        for both halves.

        A circuit is faithful where it does half of the metric's work in its own domain, on pictures
        by other artists, and needed where a fifth is lost without it. Where a domain's are not,
        there is no index: they would be compared in what they do not do. The ceiling is symmetric,
        since a circuit badly found in B would otherwise make A's look good there.

        Intervals leave out a class wherever it stands. p is two-sided for value = null, by sign
        flips of whole classes, adjusted over sizes (max-T).

        Where circuits of other classes do the work as well (ceiling = null), the parts are too
        coarse to tell classes apart, and there is no index. Where they do more than half of it,
        "not shared" is withheld.

        A part that two classes have in common is necessary for both. So the null of necessity
        leaves out what the class's own circuit has. Where a tenth of the circuit has no
        counterpart, because groups are too small, there is no index. Parts that serve every class
        are necessary too: necessity alone does not say that a circuit is a class's own.

    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Units, class_circuits
    >>> from interp.core.images import ImageTable
    >>> names = ("red", "lime", "blue", "white")
    >>> frame = pd.DataFrame({"path": range(16), "label": names * 4, "split": "test", "caption": "",
    ...                       "domain": ["real"] * 8 + ["sketch"] * 8})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), names)
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "pos", "channel"))
    >>> cut = Units.of(tower, "hook_embed", torch.ones(1, 1, 3))
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> real, sketch = (
    ...     class_circuits(cut, images, domain=domain, classifier=head, preprocess=preprocess)
    ...     for domain in ("real", "sketch"))
    >>> table = circuit_transfer(real, sketch, shares=[0.5])
    >>> table.frame[["domain_a", "domain_b", "value", "ceiling"]].round(2).to_numpy().tolist()
    [['real', 'sketch', 0.6, 0.6], ['sketch', 'real', 0.6, 0.6]]
    """
    if shares is None:
        shares = KNOCKED_OUT_SHARES if removed else TRANSFER_SHARES
    _check(a, b, shares, n_null)
    classes = [name for name in a.classes if name in set(b.classes)]
    check_classes(f"run circuits of {a.domain} in {b.domain}", len(classes))
    n_null = min(n_null, len(classes) - 1)
    ways = ((a, b), (b, a))
    runs = [
        run_circuits(*way, classes, shares, n_null, seed, removed=removed, beside=beside)
        for way in ways
    ]
    question = NECESSITY if removed else SUFFICIENCY
    parts = [
        _rows(_Both(here, back, source.domain, target.domain, question), shares, seed).assign(
            n_drawings=_drawings(target)
        )
        for here, back, (source, target) in zip(runs, reversed(runs), ways, strict=True)
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(level=a.cut.level, metric=a.halves[0].metric.name)
    facts = {"shares": list(shares), "removed": removed, "n_null": n_null}
    facts["parts"] = len(a.cut.groups)
    return Table.with_evidence("circuit_transfer", frame, facts)


@dataclass(frozen=True)
class _Both:
    """Circuits of A at work in B (`here`), and those of B at work in A (`back`)."""

    here: CircuitRuns
    back: CircuitRuns
    a: str
    b: str
    question: _Question

    def terms(self, sizes: np.ndarray) -> np.ndarray:
        """Value, null, own in B and in A, random, core, readout: all classes, then without each.

        Shares of the gap; NaN where it is not above 0.
        """
        here, back = (runs.left_out(sizes) for runs in (self.here, self.back))
        shares, home = (
            each / np.where(each[:, 3:4] > 0, each[:, 3:4], np.nan) for each in (here, back)
        )
        return np.column_stack([shares[:, :3], home[:, 2], shares[:, 4:]])

    def faithful(self, sizes: np.ndarray) -> bool:
        """Whether the circuits of both domains do enough of the work at home, at these sizes."""
        return bool((self.terms(sizes)[0, 2:4] >= self.question.least).all())

    def against(self, null: str, sizes: np.ndarray) -> np.ndarray:
        """Value, null and ceiling, of all classes and then without each."""
        ends = self.terms(sizes)
        ceiling = np.sqrt(np.maximum(ends[:, 2], 0) * np.maximum(ends[:, 3], 0))
        return np.column_stack([ends[:, 0], ends[:, COLUMNS_OF_NULLS[null]], ceiling])

    def index(self, null: str, sizes: np.ndarray) -> Index:
        """The index against one null, as if circuits were faithful."""
        terms, gap = self.against(null, sizes), self.here.left_out(sizes)[0, 3]
        index = index_of(terms[0], terms[1:], rounding=self.rounding / abs(gap))
        return of_its_own(index, *terms[0, 1:])

    def null(self, sizes: np.ndarray) -> str:
        """What the work is held against: circuits of others, or what does more.

        That may be random parts where circuits are knocked out, and else the class's readout. It is
        not asked where circuits do no more than another class's: there is nothing to explain.
        """
        more = "random" if self.question is NECESSITY else "readout"
        does = self.terms(sizes)[0]
        if not does[COLUMNS_OF_NULLS[more]] > does[COLUMNS_OF_NULLS["other"]]:
            return "other"
        denied = more == "readout" and self.index("other", sizes).verdict == NOT_SHARED
        return "other" if denied else more

    @property
    def rounding(self) -> float:
        """What is so small beside the metric's gap may be rounding."""
        return ROUNDING * float(np.abs(self.here.gap).max())


def _rows(both: _Both, shares: Sequence[float], seed: int) -> pd.DataFrame:
    """A row for each size, and one for the mean over those at which circuits are faithful."""
    every = [np.array([place]) for place in range(len(shares))]
    name = both.question.measure
    asked = [(name, share, size) for share, size in zip(shares, every, strict=True)]
    if len(shares) > 1:
        asked.append((both.question.over_sizes, np.nan, _judged_sizes(both, shares)))
    shifts = np.stack([both.here.shift(size, both.null(size)) for _, _, size in asked], axis=1)
    tested = max_t_p(rounded(shifts, both.rounding), seed=seed)
    ends = {"domain_a": both.a, "domain_b": both.b}
    rows = [
        {"measure": measure, "share": share, **ends, **_row(both, chosen, seed, p)}
        for (measure, share, chosen), p in zip(asked, tested, strict=True)
    ]
    return pd.DataFrame([*rows, *_sparsity(both, shares, seed)])


def _sparsity(both: _Both, shares: Sequence[float], seed: int) -> list[dict[str, object]]:
    """How few parts of B's circuits do the work in B: rows of B alone."""
    if both.question is NECESSITY or len(shares) < 3:
        return []
    order = np.argsort(shares)
    terms = np.stack([both.terms(np.array([place])) for place in order], axis=2)
    about = Evidence(
        estimand="share of every site's parts that a domain's circuits take",
        null_kind="random parts that do as much",
        seed=seed,
        n_units=both.here.n_classes,
        n_pictures=len(both.here.labels),
    )
    rows = smallest_rows(both.here.sizes[order].tolist(), terms[:, 2], terms[:, 4], about=about)
    return [row | {"domain_a": both.b, "domain_b": both.b} for row in rows]


def _judged_sizes(both: _Both, shares: Sequence[float]) -> np.ndarray:
    """The small sizes at which circuits are faithful, else the large ones, else the largest."""
    good = [place for place in range(len(shares)) if both.faithful(np.array([place]))]
    small = [place for place in good if shares[place] <= SMALL]
    return np.array(small or good or [int(np.argmax(shares))])


def _row(both: _Both, chosen: np.ndarray, seed: int, p: float) -> dict[str, object]:
    runs, null, means = both.here, both.null(chosen), both.terms(chosen)[0]
    gaps, terms = runs.left_out(chosen)[:, 3], both.against(null, chosen)
    small = no_gap(gaps[0], gaps[1:], rounding=both.rounding)
    index = small or _unmatched(runs, chosen) or _unfaithful(both, means)
    if index is None:
        index = both.index(null, chosen)
        if null == "readout":
            plain, other = both.index("other", chosen), both.against("other", chosen)[0]
            index = beyond_readout(index, plain, terms[0], other, p, NO_MORE_WORK)
    about = Evidence(
        estimand=both.question.estimand,
        null_kind=NULLS.get(null, both.question.null_kind),
        ceiling_kind="geometric mean of what the circuits of B do in B and those of A in A, by "
        "other artists",
        seed=seed,
        n_units=runs.n_classes,
        n_pictures=len(runs.labels),
    )
    if small:
        terms, means = np.full_like(terms, np.nan), np.full_like(means, np.nan)
    row = about.with_verdict(terms, index=index, p=p)
    core = {"core": means[5], "core_share": float(runs.common[chosen].mean())}
    halves = (np.nan, np.nan) if small else runs.by_half(chosen, null)
    core |= dict(zip(("half_1", "half_2"), halves, strict=True))
    return row | {"own": means[2], "random": means[4], **core}


def _unmatched(runs: CircuitRuns, sizes: np.ndarray) -> Index | None:
    """Why parts that are knocked out have too few others to compare with; None where enough."""
    least = runs.matched[sizes].min()
    if least >= MATCHED:
        return None
    reason = f"only {least:.0%} as many parts are left that are none of the class's: lower shares"
    return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)


def _unfaithful(both: _Both, means: np.ndarray) -> Index | None:
    """Why circuits say nothing that do not do (or carry) their own work; None where they do."""
    own = {both.b: means[2], both.a: means[3]}
    weak = [
        f"{'nothing' if np.isnan(does) else f'{does:.0%}'} in {name}"
        for name, does in own.items()
        if not does >= both.question.least
    ]
    if not weak:
        return None
    said = both.question.own_work.format(does=" and ".join(weak))
    reason = f"{said}, {both.question.least:.0%} are needed"
    return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)


def _drawings(circuits: ClassCircuits) -> int:
    frames = [read.pairs.clean.frame for read in circuits.halves]
    return sum(frame["drawing"].nunique() if "drawing" in frame else len(frame) for frame in frames)


def _check(a: ClassCircuits, b: ClassCircuits, shares: Sequence[float], n_null: int) -> None:
    asked = f"run circuits of {a.domain} in {b.domain}"
    parts = len(a.cut.names), len(b.cut.names)
    if a.cut.tower is not b.cut.tower or list(a.cut.names) != list(b.cut.names):
        given = f"circuits of {parts[0]} and {parts[1]} parts, or of two towers"
        right = "circuits of the same parts of one tower"
        raise SpecificationError(asked, given, right, "find both with the same cut")
    check_counts(asked, circuits_of_others=n_null)
    check_shares(asked, shares)
    if a.domain == b.domain:
        given = f"{a.domain} twice"
        do = "give the circuits of another domain"
        raise SpecificationError("run circuits in another domain", given, "two domains", do)
