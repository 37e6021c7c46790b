"""Which channels or heads of a site carry a domain shift, and how few suffice.

Parts are ranked on pictures of seen classes alone, by what they do to the *lead*: the mean logit of
held-out classes less the mean logit of seen ones, the picture's own aside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.domain_shift.shift import (
    TOP_1,
    ScoredPictures,
    ShiftAsked,
    ShiftKeywords,
    ShiftRun,
    ZeroShotTower,
    scored_pictures,
)
from interp.circuits.domain_shift.vectors import Move, both
from interp.core.arguments import check_counts, filled
from interp.core.edits.edits import AS_IT_IS, edited
from interp.core.errors import check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.statistics.resampling import mean_interval, permutation_p
from interp.core.tables import Table
from interp.core.tower import Tower, parameters_at_rest

ATTRIBUTION, MASK, LENGTH, RANDOM = "attribution", "learned mask", "length", "random parts"
CHOSEN_BY = (ATTRIBUTION, MASK, LENGTH)
"""How parts are ranked: by integrated gradients of the lead, by gates that keep the lead with as
few parts as they can, or by the length of their part of the vector."""

MOVED = ONLY, ALL_BUT = "only these", "all but these"
WHOLE = "whole"
N_PICTURES, PATH, STEPS, PRICE = 128, 5, 60, 0.3


@door
def shift_parts(
    clip: ZeroShotTower,
    images: ImageTable,
    *,
    site: str,
    chosen_by: Sequence[str] = CHOSEN_BY,
    sizes: Sequence[int] = (),
    n_random: int = 19,
    **how: Unpack[ShiftKeywords],
) -> Table:
    """Move pictures by a few parts of the mean shift, or by all but these, and count answers.

    Args:
        clip: A `Clip`, or anything with `visual`, `preprocess` and `zero_shot`.
        images: Test pictures of both domains, of seen and held-out classes.
        site: The site. Its parts are heads where it has any, else channels.
        chosen_by: How parts are ranked, names in `interp.circuits.CHOSEN_BY`.
        sizes: How many parts are moved; empty takes 1, 2, 4, ... and all.
        n_random: Draws of as many random parts, the null.
        **how: `source`, `target`, `held_out` and the others, as of `shift_domain`.

    Returns:
        Rows by `method`, `n_parts`, `moved` ("only these" asks whether they suffice, "all but
        these" whether they are needed): `value` is the change of held-out classes' balanced
        accuracy in the source domain, `ceiling` that of the whole shift, `null` the mean change by
        as many random parts. The first parts are in `facts["parts"]`.

    Raises:
        DataError: For an unknown domain, class or method.
        SampleError: As of `shift_domain`.
        SiteError: For an unknown site.

    References:
        Integrated gradients: Sundararajan et al. 2017, "Axiomatic attribution for deep networks".

    >>> from interp.circuits.toy import toy_shift
    >>> clip, images = toy_shift()
    >>> found = shift_parts(clip, images, source="sketch", target="real", site="hook_embedding",
    ...                     held_out=["c", "d"], chosen_by=["attribution"])
    >>> sorted(found.facts["parts"]["attribution"][:2])
    [0, 1]
    """
    check_known("choose parts of a shift", "method", chosen_by, CHOSEN_BY)
    check_counts("choose parts of a shift", n_random=n_random)
    for n in sizes:
        check_counts("choose parts of a shift", parts=n)
    run = ShiftRun.of(clip, images, filled(shift_parts, ShiftAsked, how))
    check_known("choose parts of a shift", "site", [site], run.clip.visual.sites)
    vector = run.fit(site, 1).cells.shift(*run.pair)
    lead = _Lead.of(run, site, vector)
    orders = {name: lead.order(name) for name in chosen_by}
    n_parts = len(lead.lengths())
    counts = sorted({min(int(n), n_parts) for n in sizes or [2**k for k in range(20)]})
    generator = rng("random parts", run.how.seed)
    drawn = {f"{RANDOM} {k}": generator.permutation(n_parts) for k in range(n_random)}
    moves = {
        f"{name}/{n}/{moved}": Move(name, vectors=lead.part(order[:n], others=moved == ALL_BUT))
        for name, order in (orders | drawn).items()
        for n in counts
        for moved in MOVED
    }
    moves[WHOLE] = Move(WHOLE, vectors=lead.part(np.arange(n_parts)))
    asked = run.asked[(run.side == 0) & np.isin(run.asked.label, list(run.how.held_out))]
    answers = run.answers(asked, site, moves, np.zeros(len(asked), dtype=np.int64))
    scored = next(scored_pictures(run, answers.logits[AS_IT_IS], asked))
    change = {name: scored.recalls(answers.logits[name]) - scored.before for name in moves}
    rows = [
        {**_row(scored, change, name, tuple(drawn), n, moved, run.how.seed), "site": site}
        for n in counts
        for moved in MOVED
        for name in orders
    ]
    facts = {"source": images.source, "parts": {k: o.tolist() for k, o in orders.items()}}
    return Table.with_evidence("shift_parts", pd.DataFrame(rows), facts)


def _row(
    scored: ScoredPictures,
    change: Mapping[str, np.ndarray],
    name: str,
    drawn: Sequence[str],
    n: int,
    moved: str,
    seed: int,
) -> dict[str, object]:
    """The change by some parts of one order, against as many random ones."""
    own = change[f"{name}/{n}/{moved}"]
    null = np.array([change[f"{each}/{n}/{moved}"].mean() for each in drawn])
    about = replace(scored.about, null_kind=RANDOM, ceiling_kind="the whole shift")
    evidence = about.row(
        mean_interval(own, seed=seed),
        null=float(null.mean()),
        ceiling=float(change[WHOLE].mean()),
        p=permutation_p(abs(own.mean() - null.mean()) - 1e-12, abs(null - null.mean())),
    )
    where = {"domain": scored.domain, "toward": scored.toward, "class_set": scored.class_set}
    return {"measure": TOP_1, **where, "method": name, "n_parts": n, "moved": moved, **evidence}


@dataclass(frozen=True)
class _Lead:
    """The lead of held-out classes under parts of a vector, on pictures of seen classes.

    `batch` is what enters the site's block, `start` how to go on from there.
    """

    tower: Tower
    site: str
    pool: str
    vector: Tensor
    batch: Tensor
    start: Mapping[str, int]
    truth: Tensor
    withheld: Tensor
    classifier: Callable[[Tensor], Tensor]
    width: int

    @classmethod
    def of(cls, run: ShiftRun, site: str, vector: Tensor) -> "_Lead":
        """Of pictures that vectors are fitted on, of seen classes in the source domain."""
        tower, frame = run.clip.visual, run.fitting.frame
        own = (frame["domain"] == run.pair[0]) & ~frame["label"].isin(list(run.how.held_out))
        rows = rng("pictures that rank parts", run.how.seed).permutation(np.flatnonzero(own))
        pictures = run.fitting[np.sort(rows[:N_PICTURES])]
        like = run.classifier.embeddings
        x = pictures.tensors(run.clip.preprocess).to(like.device, like.dtype)
        layer = tower.layer(site)
        start: dict[str, int] = {}
        if layer > 0:
            start = {"start_at_layer": min(layer, tower.n_layers)}
            with torch.no_grad():
                x = tower(x, stop_at_layer=start["start_at_layer"])
        names = list(run.classifier.class_names)
        truth = torch.tensor([names.index(name) for name in pictures.label])
        held = torch.from_numpy(run.withheld)
        axes = tower.axes(site)
        width = 1
        if "head" in axes:
            _, cache = tower.run_with_cache(x[:1], names_filter=[site], **start)
            width = vector.shape[1] // cache[site].shape[axes.index("head")]
        return cls(tower, site, run.pool(site), vector, x, start, truth.to(like.device),
                   held.to(like.device), run.classifier, width)  # fmt: skip

    def part(self, kept: np.ndarray, *, others: bool = False) -> Tensor:
        """Some parts of the vector, or all but these: "domain token feature", moving the first."""
        gates = torch.full((len(self.lengths()),), float(others))
        gates[torch.from_numpy(kept.astype(np.int64))] = 1.0 - float(others)
        vector = self._gated(gates.to(self.vector))
        return both(vector)

    def lengths(self) -> Tensor:
        """The length of each part of the vector."""
        return self.vector.unflatten(1, (-1, self.width)).norm(dim=(0, 2))

    def order(self, method: str) -> np.ndarray:
        """The parts, the most important first."""
        score = {ATTRIBUTION: self._attributed, MASK: self._learned, LENGTH: self.lengths}[method]()
        return np.argsort(-score.detach().cpu().double().numpy(), kind="stable")

    def _gated(self, gates: Tensor) -> Tensor:
        return self.vector * gates.repeat_interleave(self.width)

    def _lead(self, gates: Tensor) -> Tensor:
        """The mean lead of held-out classes, when each part is moved by its gate."""
        vector, axes = self._gated(gates), self.tower.axes(self.site)

        def move(activation: Tensor, hook: object = None) -> Tensor:
            return edited(activation, axes, self.pool, lambda x, rows: x + vector.to(x))

        with parameters_at_rest(self.tower):
            x = self.tower.run_with_hooks(self.batch, fwd_hooks=[(self.site, move)], **self.start)
            logits = self.classifier(x)
        own = torch.nn.functional.one_hot(self.truth, len(self.withheld)).bool()
        seen = ~self.withheld & ~own
        weight = self.withheld / self.withheld.sum() - seen / seen.sum(dim=1, keepdim=True)
        return (weight * logits).sum(dim=1).mean()

    def _attributed(self) -> Tensor:
        """Integrated gradients of the lead from no shift to the whole."""
        total = torch.zeros_like(self.lengths())
        for step in range(PATH):
            gates = torch.full_like(total, (step + 0.5) / PATH).requires_grad_()
            total = total + torch.autograd.grad(self._lead(gates), gates)[0] / PATH
        return total

    def _learned(self) -> Tensor:
        """Gates from 0 to 1 that keep the whole shift's lead, at a price for each that is open."""
        one = torch.ones_like(self.lengths())
        with torch.no_grad():
            none, whole = (float(self._lead(each * one)) for each in (0.0, 1.0))
        gates = torch.zeros_like(one).requires_grad_()
        adam = torch.optim.Adam([gates], lr=0.1)
        for _ in range(STEPS):
            share = (self._lead(gates.sigmoid()) - none) / (whole - none or 1.0)
            loss = (1 - share) ** 2 + PRICE * gates.sigmoid().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        return gates.detach().sigmoid()
