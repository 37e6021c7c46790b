"""Ablation of shared and private features: whether the features that two domains share are used.

Sharing of features says what is there. Whether the model uses it shows when features are replaced
by those of another picture. Shared features should then cost accuracy in both domains. Private
ones, matched in what they remove and in what that costs in their own domain, should cost it in that
domain alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from interp.core.arguments import filled
from interp.core.artists import artist_halves
from interp.core.edits.edits import (
    AS_IT_IS,
    Answering,
    AnsweringKeywords,
    Edit,
    EditedAnswers,
    edited_answers,
    site_rows,
)
from interp.core.errors import DataError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of, leaving_out
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.statistics.resampling import jackknife, sign_flip_p
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.dictionaries.dictionary_quality import by_label
from interp.probes.dictionaries.usage import checked_activity, roles
from interp.probes.features.features import Code
from interp.probes.representational_similarity.halved_pairs import HalvedPair

Ask = Callable[[np.ndarray, Mapping[str, Edit]], EditedAnswers]
"""Runs some of the pictures under edits."""

MEASURES = ("accuracy drop", "margin drop")
SHARED, PRIVATE, LESS = "shared", "private", "shared less private"
ESTIMAND = "what the model loses without the features (causal, within this code)"
WIDEST, FARTHEST = 1.0, 1.0
"""What matched features may differ by: doublings of the variance they remove, and standard
deviations (over features) of the margin they cost."""


@door
def ablate_shared(
    code: Code,
    tower: Tower,
    images: ImageTable,
    site: str,
    *,
    source: str,
    target: str,
    n_donors: int = 3,
    seed: int = 0,
    **answering: Unpack[AnsweringKeywords],
) -> Table:
    """Measure what replacing shared features costs in two domains, against matched private ones.

        index = (value - null) / (ceiling - null)   in the target domain, the cost that carries over

    Args:
        code: Features that can be written back: a `Dictionary`, `raw_units` or `pca`.
        tower: The tower.
        images: The pictures, with labels, domains and artists.
        site: The site.
        source: Domain that features are matched in.
        target: Domain that the cost is carried over to.
        preprocess: From a picture to the tower's input, such as "channel row column".
        classifier: From embeddings "batch d_embed" to logits "batch class", as a zero-shot head
            does.
        class_names: The classes in the order of the logits.
        pool: What the code reads: `mean`, `class`, `space` or `token`, as in `POOLS`.
        n_donors: Pictures that features are replaced from, one after another.
        seed: Seed of deals and donors.
        batch_size: Pictures per forward.

    Returns:
        A table with a row per domain, `measure` and `ablated`. The measures are the drop of
        balanced accuracy (0 to 1) and the drop of the margin, in standard deviations of the
        source's margins as they are. Ablated are the shared features, the private ones, and the
        first less the second. `removed` is the variance that was taken out of the site's
        activations, as a share of theirs.

    Raises:
        SampleError: For fewer than five classes by four artists in both domains.
        SpecificationError: For no donor, two equal domains, or a pool that cannot be edited.
        DataError: For a domain that is not there, or pictures of a class without a name.
        SiteError: For a site that the tower does not have.
        ShapeError: Where logits and class names, or activations and code, do not fit.
        NumericsError: For features that are negative or not finite, or logits that are not finite.

    Notes:
        1. Artists are dealt into two halves. On the first half, features get their roles
           (`feature_roles`): shared by `source` and `target`, or private to `source`.
        2. Each of these features is replaced alone in the source pictures of the first half. That
           removes a variance and costs a margin (true logit less the largest other). Shared and
           private features are paired one to one, as like as possible in both (Hungarian method).
           Pairs that differ by more than a factor of 2 in variance, or one standard deviation in
           cost, are dropped.
        3. On the second half all paired shared features are replaced at once, and then all paired
           private ones. A feature is replaced by that of a picture of the same domain and another
           class, `n_donors` times. Whatever the code does not hold stays.

        In the target domain the ceiling is the same features' cost in the source domain. The null
        of shared features is the private ones' cost in the target; that of private ones is 0.
        Intervals leave one class out at a time; p flips the signs of whole classes. The cost is one
        run over half of the source pictures per feature in use.

    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> from interp.probes import LinearCode
    >>> cells = [(c, d, a) for c in "abcde" for d in ("real", "sketch") for a in "wxyz"]
    >>> frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path="", split="test", caption="")
    >>> def draw(row):  # a class lights one unit in both domains, and another in each of them
    ...     lit, place = np.zeros((1, 15), dtype=np.uint8), "abcde".index(row.label)
    ...     lit[0, [place, place + (5 if row.domain == "real" else 10)]] = 255
    ...     return Image.fromarray(lit)
    >>> table = ablate_shared(
    ...     LinearCode(torch.zeros(15), torch.eye(15), torch.eye(15)),
    ...     Chain([torch.nn.Identity()]), ImageTable(frame, reader=draw),
    ...     "blocks.0.hook_resid_post", source="real", target="sketch", class_names=list("abcde"),
    ...     preprocess=lambda picture: torch.tensor(np.array(picture)[..., 0] / 255).float(),
    ...     classifier=lambda x: x.unflatten(1, (3, 5)).sum(dim=1))
    >>> rows = table.frame.query("domain == 'sketch' and measure == 'margin drop'")
    >>> dict(zip(rows["ablated"], rows["verdict"], strict=True))
    {'shared': 'shared', 'private': 'not shared', 'shared less private': ''}
    """
    how = filled(ablate_shared, Answering, answering)
    if n_donors < 1 or source == target:
        given = f"n_donors={n_donors} between {source} and {target}"
        right = "at least one donor and two domains"
        raise SpecificationError("replace features", given, right, "choose others")
    check_known("replace features", "domain", [source, target], images.domains, DataError)
    here = images[images.frame["domain"].isin([source, target]).to_numpy()]
    seen = site_rows(
        tower, here, site, preprocess=how.preprocess, pool=how.pool, batch_size=how.batch_size
    )
    bench = _Bench.of(code, seen, here.frame, n_donors, seed)

    def answers(rows: np.ndarray, edits: Mapping[str, Edit]) -> EditedAnswers:
        moved = {name: partial(_elsewhere, edit, rows) for name, edit in edits.items()}
        return edited_answers(tower, here[rows], site, moved, **answering)

    half = artist_halves(here.frame, [source, target], seed=seed)
    part = {
        (which, name): np.flatnonzero((half == which) & (here.frame["domain"] == name).to_numpy())
        for which in (0, 1)
        for name in (source, target)
    }
    shared, private = bench.roles(np.flatnonzero(half == 0), source, target)
    both = np.concatenate([shared, private])
    removed, cost = bench.single(answers, part[0, source], both)
    pairs = _paired(removed, cost, len(shared))
    chosen = {SHARED: shared[pairs[:, 0]], PRIVATE: private[pairs[:, 1]]}
    drops = {name: bench.drops(answers, part[1, name], chosen) for name in (source, target)}
    rows = [
        {"measure": measure, "ablated": ablated, "domain": name}
        | {"removed": drops[name].removed.get(ablated, np.nan)}
        | _evidence(drops, measure, ablated, (name, source), here.frame.iloc[part[1, name]], seed)
        for measure, ablated, name in product(MEASURES, (SHARED, PRIVATE, LESS), (source, target))
    ]
    counts = f"{len(pairs)} pairs of {len(shared)} shared and {len(private)} private features"
    if len(shared) and len(private):
        alone = cost[: len(shared)].mean(), cost[len(shared) :].mean()
        counts += f", which alone cost {alone[0]:.2f} and {alone[1]:.2f} logits"
    if not len(pairs):
        blank = {name: np.nan for name in ("value", "low", "high", "null", "ceiling", "index", "p")}
        blank |= {"verdict": UNKNOWN, "removed": np.nan}
        why = f"no shared feature is matched by a private one: {counts}"
        rows = [row | blank | {"reason": why} for row in rows]
    place = {"site": site, "layer": tower.layer(site)}
    frame = pd.DataFrame(rows).assign(**place)
    facts = {name: features.tolist() for name, features in chosen.items()}
    return Table.with_evidence("feature ablation", frame, facts | {"pairs": counts})


def _elsewhere(edit: Edit, rows: np.ndarray, x: Tensor, local: np.ndarray) -> Tensor:
    """An edit of all pictures, applied to some of them."""
    return edit(x, rows[local])


@dataclass(frozen=True)
class _Drops:
    """What is lost per class, measure and set of features, and the variance taken out."""

    lost: dict[tuple[str, str], np.ndarray]
    removed: dict[str, float]
    spread: float


@dataclass(frozen=True)
class _Bench:
    """Activations and features "picture token ..." of all pictures, and who stands in for whom.

    donors: "draw picture", pictures of the same domain and another class.
    """

    code: Code
    seen: Tensor
    features: Tensor
    frame: pd.DataFrame
    donors: np.ndarray
    seed: int

    @classmethod
    def of(cls, code: Code, seen: Tensor, frame: pd.DataFrame, n: int, seed: int) -> "_Bench":
        if moved := getattr(code, "to", None):
            code = moved(seen.device, seen.dtype)
        with torch.no_grad():
            features = code.encode(seen)
        label, domain = frame["label"].to_numpy(object), frame["domain"].to_numpy(object)
        generator = rng("feature donors", seed)
        donors = np.zeros((n, len(frame)), dtype=int)
        for name, one in sorted(set(zip(domain, label, strict=True))):
            mine = np.flatnonzero((domain == name) & (label == one))
            others = np.flatnonzero((domain == name) & (label != one))
            if len(others):  # with one class in a domain there is no other, and no role either
                donors[:, mine] = generator.choice(others, (n, len(mine)))
        return cls(code, seen, features, frame, donors, seed)

    def roles(self, rows: np.ndarray, source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Features shared by the domains and private to the source, on some of the pictures."""
        mean = self.features[torch.as_tensor(rows)].mean(dim=1).cpu().numpy()
        activity = checked_activity(mean, len(rows), "the code")
        part = self.frame.iloc[rows].reset_index(drop=True)
        found = roles(HalvedPair.of(part, source, target, n_splits=5, seed=self.seed), activity)
        return np.flatnonzero(found.shared), np.flatnonzero(found.private_a)

    def replaced(self, chosen: np.ndarray, draw: int) -> Edit:
        """The edit that gives pictures the chosen features of their donors."""

        def edit(x: Tensor, rows: np.ndarray) -> Tensor:
            own = self.code.encode(x)
            new = own.clone()
            new[..., chosen] = self.features[self.donors[draw, rows]][..., chosen].to(new)
            return x + self.code.reconstruct(x, new) - self.code.reconstruct(x, own)

        return edit

    def removed(self, chosen: np.ndarray, rows: np.ndarray) -> float:
        """Variance that the edit takes out of the pictures' activations, a share of theirs."""
        x = self.seen[torch.as_tensor(rows)]
        moved = self.replaced(chosen, 0)(x, rows) - x
        return float(moved.square().sum() / (x - x.mean(dim=(0, 1))).square().sum())

    def single(
        self, answers: Ask, rows: np.ndarray, features: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Variance that each feature alone takes out, and the margin that costs."""
        say(f"replace {len(features)} features one by one in {len(rows)} pictures")
        edits = {str(one): self.replaced(np.array([one]), 0) for one in features}
        edited = answers(rows, edits)
        margin = edited.margin(AS_IT_IS)
        cost = np.array([(margin - edited.margin(name)).mean() for name in edits])
        return np.array([self.removed(np.array([one]), rows) for one in features]), cost

    def drops(self, answers: Ask, rows: np.ndarray, chosen: Mapping[str, np.ndarray]) -> _Drops:
        """What all chosen features at once cost every class, averaged over donors."""
        draws = range(len(self.donors))
        edits = {f"{k} {draw}": self.replaced(v, draw) for k, v in chosen.items() for draw in draws}
        edited = answers(rows, edits)
        margin, right = edited.margin(AS_IT_IS), edited.right(AS_IT_IS).astype(float)
        labels = self.frame["label"].iloc[rows]
        lost = {}
        for name in chosen:
            after = [(edited.margin(f"{name} {n}"), edited.right(f"{name} {n}")) for n in draws]
            lost["margin drop", name] = by_label(
                margin - np.mean([each for each, _ in after], axis=0), labels
            )
            lost["accuracy drop", name] = by_label(
                right - np.mean([each for _, each in after], axis=0), labels
            )
        for measure in MEASURES:
            lost[measure, LESS] = lost[measure, SHARED] - lost[measure, PRIVATE]
        removed = {name: self.removed(features, rows) for name, features in chosen.items()}
        return _Drops(lost, removed, float(margin.std()))


def _paired(removed: np.ndarray, cost: np.ndarray, n_shared: int) -> np.ndarray:
    """Pairs "pair 2" of a shared and a private feature that take away and cost about as much."""
    size = np.log2(np.maximum(removed, 1e-12))
    level = cost / (cost.std() or 1.0) if len(cost) else cost
    apart = [np.abs(each[:n_shared, None] - each[None, n_shared:]) for each in (size, level)]
    mine, partner = linear_sum_assignment(apart[0] / WIDEST + apart[1] / FARTHEST)
    near = (apart[0][mine, partner] <= WIDEST) & (apart[1][mine, partner] <= FARTHEST)
    return np.column_stack([mine[near], partner[near]]).astype(int)


def _evidence(
    drops: Mapping[str, _Drops],
    measure: str,
    ablated: str,
    domains: tuple[str, str],
    part: pd.DataFrame,
    seed: int,
) -> dict[str, object]:
    """One row's numbers: what is lost in a domain, held against the source and the other set."""
    name, source = domains
    unit = drops[source].spread or 1.0 if measure == "margin drop" else 1.0
    lost = drops[name].lost[measure, ablated] / unit
    at_home = drops[source].lost[measure, ablated] / unit
    control = drops[name].lost[measure, PRIVATE] / unit if ablated == SHARED else 0 * lost
    about = Evidence(
        estimand=ESTIMAND,
        seed=seed,
        **counts_of(part, len(lost)),
        null_kind="private features matched in variance removed and in cost in the source domain"
        if ablated == SHARED
        else "nothing replaced",
    )
    p = sign_flip_p(lost, seed=seed)
    if name != source and ablated != LESS and len(lost) == len(at_home):
        carried = replace(about, ceiling_kind="what the same features cost in the source domain")
        return carried.with_verdict(leaving_out(np.stack([lost, control, at_home], axis=1)), p=p)
    value, *left = leaving_out(lost)
    return about.row(jackknife(value, left), null=float(control.mean()), p=p)
