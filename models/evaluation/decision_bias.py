"""The decision bias: what a model's logits hold against classes that it never saw in a domain.

A class may be known in a domain and yet never be named there, because the model prefers those that
it saw there. A bias taken off the logits of seen classes undoes that (calibrated stacking, Chao et
al. 2016). The one with the best harmonic mean of seen and held-out accuracy measures how much the
model prefers them; less the same in the natural domain, how much comes with the domain.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from interp.core.artists import artist_halves
from interp.core.errors import SampleError, check_known
from interp.core.faces.doors import door
from interp.core.faces.late import late
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Counts, Evidence, counts_of
from interp.core.statistics.resampling import Interval, permutation_p
from interp.core.tables import Table
from interp.models.evaluation.accuracy import TOP_1
from interp.models.evaluation.ask import HELD_OUT, SEEN, TEXT, Embedded, Prompts, ZeroShotModel
from interp.models.evaluation.tradeoff import AREA, Curve, harmonic_mean

if TYPE_CHECKING:
    import plotly.graph_objects as go

BIAS, EXCESS_BIAS = "bias against held-out classes", "excess bias"
AS_IS, OTHERS = "as it is", "bias set on other pictures"
COST, AMONG = "two points of seen accuracy", "among held-out classes"
POINTS = 0.02
"""What seen classes may lose where accuracy is asked at a price."""


class Split(NamedTuple):
    """Margins of pictures under one division of the classes into seen and held-out ones.

    Each picture has a `margin`, its best seen logit less its best held-out one; `right` says if its
    class is the best of its kind, `held` whether that is held out, and `label` is its number.
    `times` says how often each class counts, "draw class": ones, or a bootstrap's draws.

    >>> logits = np.array([[3.0, 1.0], [2.0, 1.0]])
    >>> split = Split.of(logits, np.array([0, 1]), np.array([False, True]))
    >>> once = np.ones((1, 2))
    >>> split.best(once), split.accuracy(1.5, once)
    (array([1.5]), (array([1.]), array([1.])))
    """

    margin: np.ndarray
    right: np.ndarray
    held: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, true: np.ndarray, withheld: np.ndarray) -> "Split":
        """Divide the classes of logits "picture class" by whether each is `withheld`."""
        seen, held = (logits[:, kind].max(axis=1) for kind in (~withheld, withheld))
        own, kind = logits[np.arange(len(true)), true], withheld[true]
        return cls(seen - held, own >= np.where(kind, held, seen), kind, true)

    def shares(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each picture, where it is right, adds to seen and to held-out accuracy."""
        n = np.bincount(self.label, minlength=times.shape[1])
        parts = []
        for kind in (~self.held, self.held):
            own = np.bincount(self.label[kind], minlength=times.shape[1]) > 0
            total = (times * own).sum(axis=1, keepdims=True)
            each = times[:, self.label] / (n[self.label] * np.maximum(total, 1))
            parts.append(each * (kind & self.right))
        return parts[0], parts[1]

    def accuracy(
        self, bias: np.ndarray | float, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Balanced accuracy of seen and of held-out classes under a bias, or one per picture."""
        seen, held = self.shares(times)
        kept = self.margin > bias
        return (seen * kept).sum(axis=1), (held * ~kept).sum(axis=1)

    def curve(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Margins in order, and both accuracies with 0, 1, ... of them passed, "draw place"."""
        order = np.argsort(self.margin, kind="stable")
        order = order[self.right[order]]
        seen, held = (
            np.pad(np.cumsum(each[:, order], axis=1), ((0, 0), (1, 0)))
            for each in self.shares(times)
        )
        return self.margin[order], seen[:, -1:] - seen, held

    def best(self, times: np.ndarray) -> np.ndarray:
        """The bias with the best harmonic mean, in the middle of where it holds, for each draw."""
        margins, seen, held = self.curve(times)
        if not len(margins):
            return np.full(len(times), np.nan)
        passed = harmonic_mean(seen, held).argmax(axis=1)
        ends = np.pad(margins, 1, mode="edge")
        return (ends[passed] + ends[passed + 1]) / 2

    def area(self, times: np.ndarray) -> np.ndarray:
        """AUSUC, the area under the curve of seen against held-out accuracy."""
        _, seen, held = self.curve(times)
        return (np.diff(held, axis=1) * (seen[:, 1:] + seen[:, :-1]) / 2).sum(axis=1)

    def at_cost(self, points: float, times: np.ndarray) -> np.ndarray:
        """Held-out accuracy under the largest bias that costs seen classes at most `points`."""
        _, seen, held = self.curve(times)
        least = self.accuracy(0.0, times)[0][:, None] - points - 1e-12
        last = np.maximum((seen >= least).sum(axis=1) - 1, 0)
        return held[np.arange(len(times)), last]


@dataclass(frozen=True)
class _Asked:
    """The pictures of one domain, asked with one prompt set."""

    logits: np.ndarray
    true: np.ndarray
    half: np.ndarray

    def split(self, withheld: np.ndarray) -> Split:
        """Its margins where these classes are held out."""
        return Split.of(self.logits, self.true, withheld)

    def among(self, classes: np.ndarray) -> "_Asked":
        """Pictures of these classes, with these alone to choose from."""
        keep = classes[self.true]
        number = np.cumsum(classes) - 1
        return _Asked(self.logits[keep][:, classes], number[self.true[keep]], self.half[keep])

    def crossed(self, withheld: np.ndarray) -> np.ndarray:
        """For each picture the best bias of the artists' other half."""
        once = np.ones((1, len(withheld)))
        found = np.full(2, np.nan)
        for side in (0, 1):
            own = self.half == side
            if len({*withheld[self.true[own]]}) == 2:
                part = _Asked(self.logits[own], self.true[own], self.half[own])
                [found[1 - side]] = part.split(withheld).best(once)
        return np.where(self.half < 0, found.mean(), found[self.half])


def unseen(counts: pd.DataFrame, *, share: float = 0.1) -> dict[str, list[str]]:
    """The classes that a mixture holds back from each domain, by its counts.

    Args:
        counts: Columns `label, domain, n_pictures`, a row per cell of the training set; a cell that
            is absent has none.
        share: A class is held back with at most this share of the domain's median class.

    Returns:
        Classes by domain, for the domains that hold some back and show some.

    >>> cells = [("cat", "real", 9), ("owl", "real", 9), ("cat", "sketch", 9)]
    >>> unseen(pd.DataFrame(cells, columns=["label", "domain", "n_pictures"]))
    {'sketch': ['owl']}
    """
    table = counts.pivot_table(
        index="label", columns="domain", values="n_pictures", aggfunc="sum", fill_value=0
    )
    low = table <= share * table.where(table > 0).median()
    named = {str(domain): [str(name) for name in low.index[low[domain]]] for domain in low}
    return {domain: names for domain, names in named.items() if names}


@door
def decision_bias(
    clip: ZeroShotModel,
    images: ImageTable | Embedded,
    held_out: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    class_names: Sequence[str] = (),
    natural: str = "real",
    prompts: Mapping[str, Prompts] | None = None,
    n_draws: int = 199,
    n_resamples: int = 1000,
    seed: int = 0,
) -> "DecisionBias":
    """Measure whether held-out classes are not known in a domain, or known and not named.

        excess bias = argmax_b H(s(b), h(b)) in the domain - the same in the natural domain

    with s(b), h(b) the balanced accuracies of seen and held-out classes when b is taken off the
    logits of seen classes, and H their harmonic mean.

    Args:
        clip: A `Clip`, or anything that embeds pictures and class names.
        images: Test pictures of the domains and of both kinds of classes.
        held_out: Classes that were not trained on in the domains, or such classes by domain;
            `unseen` finds them from a training set's counts.
        class_names: The classes to choose from; empty takes those of the pictures.
        natural: The domain in which all classes were trained on.
        prompts: By name, the templates for a domain; None asks "an image of a CLASS.".
        n_draws: Random divisions of the seen classes, for the null of the bias.
        n_resamples: Draws of classes for intervals.
        seed: Seed of all draws.

    Returns:
        A `DecisionBias`, with its table and curves.

    Raises:
        SampleError: Where a domain has pictures of one kind of classes alone.
        DataError: For classes or a natural domain that the pictures lack.

    References:
        Chao et al. 2016, "An empirical study and analysis of generalized zero-shot learning for
        object recognition in the wild".

    Notes:
        The table has, for each domain and prompt set: the *bias* and, for all but the natural one,
        the *excess bias*, in logits; AUSUC; and balanced accuracy of seen and held-out classes as
        it is, with the bias set on pictures by other artists, at two points of seen accuracy, and
        among held-out classes alone, whose ceiling is the natural domain's. The null of a bias
        holds out random seen classes; p is its place among these, and its interval has their
        spread. Resampling classes instead leaves out how few pictures a best bias hangs on: such
        intervals held the true one in .80 of 80 made models at high accuracy, these in .88. Other
        intervals resample seen and held-out classes.

    >>> from interp.core.classifiers import Classifier
    >>> class Toy:
    ...     def embed(self, images, *, batch_size=256):
    ...         return torch.eye(4)[[0, 1, 2, 3, 0, 1, 0, 3]] + 0.5 * torch.eye(4)[[2, 3] * 4]
    ...     def zero_shot(self, class_names, templates):
    ...         return Classifier(torch.eye(4), tuple(class_names), 10.0)
    >>> frame = pd.DataFrame({"label": list("abcd") * 2, "domain": ["real"] * 4 + ["sketch"] * 4,
    ...                       "path": "", "split": "test", "caption": ""})
    >>> found = decision_bias(Toy(), ImageTable(frame), ["c", "d"], n_draws=9, n_resamples=9)
    >>> found.table.frame.query("measure == 'excess bias'")["domain"].tolist()
    ['sketch']
    """
    pictures = images if isinstance(images, Embedded) else Embedded.of(clip, images)
    frame, domains = pictures.frame, pictures.images.domains
    names = tuple(class_names) or tuple(pictures.images.labels)
    check_known("measure a decision bias", "domain", [natural], domains)
    by_domain = held_out if isinstance(held_out, Mapping) else dict.fromkeys(domains, held_out)
    check_known("measure a decision bias", "domain", list(by_domain), domains)
    for withheld in by_domain.values():
        check_known("hold out a class", "class", withheld, names)
    prompt_sets = prompts or {"neutral": lambda domain: ["an image of a {}."]}
    half = artist_halves(frame, domains, seed=seed)
    true = pd.Index(names).get_indexer(frame["label"])
    rows: list[dict[str, object]] = []
    points: list[pd.DataFrame] = []
    for prompt, templates in prompt_sets.items():
        asked = {}
        for domain in domains:
            own = np.flatnonzero((frame["domain"] == domain).to_numpy())
            with torch.no_grad():
                logits = clip.zero_shot(names, templates(domain))(pictures.vectors[own.tolist()])
            asked[domain] = _Asked(logits.double().cpu().numpy(), true[own], half[own])
        for domain, classes in by_domain.items():
            withheld = np.isin(names, list(classes))
            _check_kinds(domain, withheld, asked[domain].true)
            trial = _Trial(asked[domain], asked[natural], withheld, seed)
            counted = counts_of(frame[frame["domain"] == domain], len(names))
            place = {"domain": domain, "prompts": prompt}
            rows += [
                {**place, **row}
                for row in trial.rows(counted, n_draws, n_resamples, alone=domain == natural)
            ]
            points.append(trial.points().assign(**place, classifier=TEXT, **counted))
    return DecisionBias(
        Table.with_evidence("decision_bias", pd.DataFrame(rows)),
        Table("tradeoff", pd.concat(points, ignore_index=True)),
    )


def _check_kinds(domain: str, withheld: np.ndarray, true: np.ndarray) -> None:
    """Refuse a domain with pictures of one kind of classes alone."""
    kinds = withheld[true]
    if kinds.all() or not kinds.any():
        given = f"{len(kinds)} pictures of {domain}, {int(kinds.sum())} of held-out classes"
        right = "pictures of seen and held-out classes"
        do = "name the classes that were not trained on there, and give pictures of both"
        raise SampleError("measure a decision bias", given, right, do)


@dataclass(frozen=True)
class _Trial:
    """One domain's pictures and the natural ones under one division of the classes."""

    here: _Asked
    natural: _Asked
    withheld: np.ndarray
    seed: int

    @property
    def kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Held-out classes, and seen ones."""
        return self.withheld, ~self.withheld

    def draws(self, n: int) -> np.ndarray:
        """Every class once, then n bootstrap draws of seen and of held-out classes."""
        generator = rng("classes of a decision bias", self.seed)
        times = np.zeros((n + 1, len(self.withheld)))
        times[0] = 1
        shown = np.isin(np.arange(len(self.withheld)), self.here.true)
        for kind in self.kinds:
            own = np.flatnonzero(shown & kind)
            times[1:, own] = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), n)
        return times

    def null(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Biases in both domains where random seen classes stand for held-out ones."""
        here, natural = (each.among(~self.withheld) for each in (self.here, self.natural))
        n_seen = int((~self.withheld).sum())
        size = min(int(self.withheld.sum()), n_seen // 2)
        generator, once = rng("random held-out classes", self.seed), np.ones((1, n_seen))
        biases = np.full((2, n), np.nan)
        for draw in range(n):
            mask = np.isin(np.arange(n_seen), generator.permutation(n_seen)[:size])
            for place, asked in enumerate((here, natural)):
                biases[place, draw] = asked.split(mask).best(once)[0]
        return biases[0], biases[1]

    def rows(
        self, counted: Counts, n_draws: int, n_resamples: int, *, alone: bool
    ) -> Iterator[dict[str, object]]:
        """A row for each number; `alone` leaves out the excess, in the natural domain itself."""
        times = self.draws(n_resamples)
        here, natural = (self._numbers(each, times) for each in (self.here, self.natural))
        random, random_natural = self.null(n_draws)
        beyond = {BIAS: random}
        if not alone:
            here[EXCESS_BIAS, "", ""] = here[BIAS, "", ""] - natural[BIAS, "", ""]
            beyond[EXCESS_BIAS] = random - random_natural
        chances, top = self._chances(), np.nan
        kinds = [np.isin(np.flatnonzero(k), self.here.true).sum() for k in self.kinds]
        few = "one class of a kind: no interval" if min(kinds) < 2 else ""
        for (measure, kind, how), drawn in here.items():
            value, p, why = float(drawn[0]), np.nan, few
            spread = drawn[1:] if np.isfinite(drawn).all() and not few else np.full(2, np.nan)
            if measure in beyond:
                others, top, why = beyond[measure], np.nan, ""
                null, null_kind = float(others.mean()), "random seen classes held out"
                p = permutation_p(abs(value - null) - 1e-12, abs(others - null))
                spread = value + null - others
            else:
                null, null_kind = chances[measure, kind, how], "random logits"
                top = np.nan if alone else float(natural[measure, kind, how][0])
            low, high = (float(end) for end in np.quantile(spread, [0.025, 0.975]))
            found = Interval(value, float(spread.std(ddof=1)), low, high)
            about = Evidence(
                estimand="this model, over classes like these",
                null_kind=null_kind,
                ceiling_kind="the natural domain" if np.isfinite(top) else "",
                seed=self.seed,
                **counted,
            )
            named = {"measure": measure, "class_set": kind, "calibration": how}
            yield named | about.row(found, null=null, ceiling=top, p=p, reason=why)

    def _numbers(self, asked: _Asked, times: np.ndarray) -> dict[tuple[str, str, str], np.ndarray]:
        """Every number of a domain for every draw, by measure, class set and calibration."""
        split = asked.split(self.withheld)
        found = {(BIAS, "", ""): split.best(times), (AREA, "", ""): split.area(times)}
        for how, bias in ((AS_IS, 0.0), (OTHERS, asked.crossed(self.withheld))):
            known = 1.0 if np.isfinite(bias).all() else np.nan
            seen, held = (known * each for each in split.accuracy(bias, times))
            found |= {(TOP_1, HELD_OUT, how): held, (TOP_1, SEEN, how): seen}
        found[TOP_1, HELD_OUT, COST] = split.at_cost(POINTS, times)
        found[TOP_1, HELD_OUT, AMONG] = split.accuracy(np.inf, times)[1]
        return found

    def _chances(self) -> dict[tuple[str, str, str], float]:
        """What random logits reach: with p of the answers held out, p / n and (1 - p) / m."""
        held, seen = int(self.withheld.sum()), int((~self.withheld).sum())
        n, root = held + seen, (held * seen) ** 0.5
        at_cost = (1 - max(1 / n - POINTS, 0) * seen) / held
        return {
            (AREA, "", ""): 1 / (2 * held * seen),
            (TOP_1, HELD_OUT, AS_IS): 1 / n,
            (TOP_1, SEEN, AS_IS): 1 / n,
            (TOP_1, HELD_OUT, OTHERS): 1 / (held + root),
            (TOP_1, SEEN, OTHERS): 1 / (seen + root),
            (TOP_1, HELD_OUT, COST): at_cost,
            (TOP_1, HELD_OUT, AMONG): 1 / held,
        }

    def points(self) -> pd.DataFrame:
        """The curve of seen against held-out accuracy, at most 101 points."""
        margins, seen, held = self.here.split(self.withheld).curve(np.ones((1, len(self.withheld))))
        thin = Curve(np.concatenate([[-np.inf], margins]), seen[0], held[0]).thinned()
        return pd.DataFrame(
            {"bias": thin.bias, "accuracy_seen": thin.seen, "accuracy_held_out": thin.held_out}
        )


@dataclass(frozen=True)
class DecisionBias:
    """What `decision_bias` found.

    Args:
        table: Biases and accuracies with their evidence.
        curves: Seen and held-out accuracy under every bias, by domain and prompt set.

    >>> empty = pd.DataFrame()
    >>> found = DecisionBias(Table("decision_bias", empty), Table("tradeoff", empty))
    >>> found.table.name
    'decision_bias'
    """

    table: Table
    curves: Table

    def plot(self, name: str = "this model", **others: "DecisionBias") -> "go.Figure":
        """Draw held-out against seen accuracy under every bias, and the models as they are.

        Args:
            name: What this model is called.
            **others: Further models, by what they are called.

        Returns:
            A `plotly.graph_objects.Figure`.
        """
        return late("draw_decision_bias")({name: self, **others})
