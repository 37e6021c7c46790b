"""Fitting of subspaces by gradient descent: distributed alignment search (Geiger et al. 2024),
linear.

A subspace is fitted so that the model takes one picture for another when the two exchange it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.patching.engine import Held, hold
from interp.circuits.patching.patched_cells import make_plan
from interp.circuits.subspaces.subspace import (
    TINY,
    Subspace,
    by_effect,
    check_k,
    check_place,
    effective,
    pattern,
    place_of,
    swapped,
)
from interp.circuits.tasks.metrics import DISTANCES, check_finite, measure, name_of
from interp.circuits.tasks.pairs import check_partners
from interp.core.arguments import Budget, BudgetKeywords, check_counts, filled
from interp.core.errors import SampleError, SpecificationError
from interp.core.faces.doors import door
from interp.core.parallel import Batching
from interp.core.seeds import rng
from interp.core.sites import ON_DEMAND, find_sites
from interp.core.tower import Tower

STEPS, RATE, SPAN = 25, 0.05, 0.999
"""In two trained ResNets with 30 classes, 50 steps move ceilings by at most 3 % from where 25 leave
them; in one with 10 classes, 300 steps move them by at most 7 % from where 50 do."""

READINGS = 192
"""Pairs whose gradients say what is read, at least; four for each direction."""


class FitKeywords(BudgetKeywords, total=False):
    """How a subspace is fitted, and what that may cost."""

    steps: int
    learning_rate: float
    span: float


@dataclass(frozen=True, kw_only=True)
class FitRecipe(Budget):
    """How a subspace is fitted; numbers out of range are refused.

    Args:
        steps: Steps of Adam, each on `batch_size` pairs.
        learning_rate: Adam's at the start; it falls as a cosine.
        span: Share of the effects that the directions searched hold; 1 leaves all free.
    """

    steps: int = STEPS
    learning_rate: float = RATE
    span: float = SPAN

    def __post_init__(self) -> None:
        check_counts("fit a subspace", steps=self.steps, batch_size=self.batch_size)
        if not self.learning_rate > 0 or not 0 < self.span <= 1:
            given = f"learning_rate={self.learning_rate}, span={self.span}"
            right = "a rate above 0, and a span above 0, at most 1 (a share of the variance)"
            raise SpecificationError("fit a subspace", given, right, "choose other numbers")

    def rows(self, tower: Tower, site: str, x: Tensor) -> int:
        """How many pairs a forward with gradients may hold."""
        return max(1, min(self.batch_size, self.memory // bytes_with_gradients(tower, site, x)))


@door
def fit_subspace(
    tower: Tower,
    site: str,
    *,
    base: Tensor,
    source: Tensor,
    metric: Callable[[Tensor], Tensor],
    k: int,
    where: Mapping[str, int] | None = None,
    **fit: Unpack[FitKeywords],
) -> Subspace:
    """Find `k` directions at a site that carry what the metric asks for from source to base.

    R `[d k]` with R^T R = 1 minimises the mean over pairs of the metric of the tower's output when
    the site has the activation h_base + R R^T (h_source - h_base).

    Args:
        tower: The tower to run.
        site: The site, which needs a feature axis: d_model, d_mlp, d_head, d_embed or channel.
        base: Inputs of the tower, `[batch ...]`.
        source: Their partners, in the same order.
        metric: A `Metric`, or a function that needs no labels. Distances ("kl",
            "clean_distance") are made small, all others large.
        k: Directions.
        where: The place at which they act, such as `{"pos": 0}`; None lets them act alike
            everywhere.
        **fit: The keywords that follow.
        steps: Steps of Adam, each on `batch_size` pairs.
        learning_rate: Adam's at the start; it falls as a cosine.
        span: Share of the effects that the directions searched hold; 1 leaves R free.
        batch_size: Pairs in a step.
        memory: Bytes of activations held at a time; a step is made of several where it is short.
        seed: Seed of all draws.

    Returns:
        The subspace, with the losses of its fit. It has fewer than `k` directions where fewer are
        left within the span.

    Raises:
        SiteError: For a site without features.
        SpecificationError: For k outside 1 to d, other numbers out of range or an unknown keyword.
        ShapeError: For bases and sources that differ in shape.
        SampleError: For too few activations.
        NumericsError: For NaN.

    Notes:
        "kl" with the sources' own outputs as `clean` asks that the model says of the base what it
        says of the source (Geiger et al. 2024, "Finding alignments between interpretable causal
        variables and distributed neural representations").

        R lies within what varies in the directions that are read, as far as that has effects:
        gradients of the metric at points between bases and sources, times how far the activations
        of `source` go (`effective`). Without this a direction halfway between one that is read, but
        along which the sources do not differ, and one along which they differ, but which is not
        read, does the job as well (Makelov, Lange and Nanda 2023): it carries the class by a way
        that the model does not take. So does one halfway between the code that is read and a copy
        that is not.

        The fit starts from the largest components of these gradients. R is the Q of a QR
        decomposition. Runs begin at the site.

    >>> from interp.circuits import Chain, Classifier, Metric, Target
    >>> base, source = torch.randn(2, 64, 1, 3, generator=torch.Generator().manual_seed(0))
    >>> tower, ways = Chain([torch.nn.Identity()]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> head = Classifier(torch.cat([ways, -ways]), ("right", "left"))
    >>> says = tower(source)
    >>> alike = Metric("kl", Target(head, head.logits(says).argmax(dim=1), clean=says))
    >>> found = fit_subspace(tower, "hook_embed", base=base, source=source, metric=alike, k=1)
    >>> bool(found.basis[0].abs() > 0.9)
    True
    """
    recipe = filled(fit_subspace, FitRecipe, fit)
    [name] = find_sites([site], tower.sites)
    check_partners("source", base, source)
    place = dict(where or {})
    check_place(tower, [name], place)
    plan = make_plan(
        tower, [name], base=base, n_donors=1, room=recipe, axes=("layer",), where=place
    )
    each = np.arange(len(base))
    task = SubspaceTask(
        tower,
        hold(tower, name, base, rows=plan.rows),
        hold(tower, name, source, rows=plan.rows),
        np.stack([each, each], axis=1),
        metric,
        place,
    )
    return fit_directions(task, recipe, k=k, rows=recipe.rows(tower, name, base))


def bytes_with_gradients(tower: Tower, site: str, x: Tensor) -> int:
    """What one example keeps in memory from the site on when gradients will be asked for."""
    layer = tower.layer(site)
    names = [
        name for name in tower.sites if tower.layer(name) >= layer and not name.endswith(ON_DEMAND)
    ]
    with torch.no_grad():
        _, cache = tower.run_with_cache(x[:1], names_filter=names)
    return 2 * sum(value.nbytes for value in cache.values())


@dataclass(frozen=True, eq=False)
class SubspaceTask:
    """What a subspace is fitted on: held runs, and `pairs` of a base's and a source's row in them.

    `metric` scores the pairs, in their order.
    """

    tower: Tower
    base: Held
    source: Held
    pairs: Int[np.ndarray, "pair 2"]
    metric: Callable[[Tensor], Tensor]
    where: Mapping[str, int]

    @property
    def site(self) -> str:
        """The site at which the runs are held."""
        return self.base.site

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the site's activation."""
        return tuple(self.tower.axes(self.site))

    def score(self, some: np.ndarray, outputs: Tensor) -> Float[Tensor, "some"]:
        """What is to become small for some of the pairs: the metric, or its negative."""
        sign = 1.0 if name_of(self.metric) in DISTANCES else -1.0
        scored = self.metric[some] if hasattr(self.metric, "__getitem__") else self.metric  # type: ignore[index]
        return sign * measure(scored, outputs)

    def descend(
        self, weights: Tensor, among: Tensor, chosen: np.ndarray, window: slice
    ) -> tuple[Tensor, float]:
        """The gradient at `weights` of some of the chosen pairs' share of the loss, and the share.

        The basis is what the QR decomposition makes of `weights`, within the directions `among`.
        """
        some = chosen[window]
        base, source = torch.from_numpy(self.pairs[some].T.copy()).to(among.device)
        with torch.enable_grad():
            basis = among @ torch.linalg.qr(weights).Q
            own, other = self.base.activation[base], self.source.activation[source]
            activation = swapped(own, other, basis, self.axes, self.where)
            outputs = self.base[base].finish(activation)
            loss = self.score(some, outputs).sum() / len(chosen)
            [gradient] = torch.autograd.grad(loss, [weights])
        return gradient, loss.item()


def fit_directions(task: SubspaceTask, recipe: FitRecipe, *, k: int, rows: int) -> Subspace:
    """Fit a subspace on held runs, at most `rows` pairs to a forward."""
    site = task.site
    _check_enough(task, k)
    felt = _felt(task, k, rows=rows, seed=recipe.seed)
    among = torch.eye(felt.shape[1]).to(felt)
    if recipe.span < 1 and k < len(among):
        among = effective(felt, _moved(task), span=recipe.span)
    like = torch.promote_types(task.source.activation.dtype, torch.float32)
    weights, among = _start(among, felt, k).to(like).requires_grad_(), among.to(like)
    adam = torch.optim.Adam([weights], lr=recipe.learning_rate, betas=(0.9, 0.99))
    generator, losses = rng("subspace", recipe.seed), []
    order = np.empty(0, dtype=int)
    for step in range(recipe.steps):
        if len(order) < min(recipe.batch_size, len(task.pairs)):
            order = np.concatenate([order, generator.permutation(len(task.pairs))])
        chosen, order = order[: recipe.batch_size], order[recipe.batch_size :]
        found = Batching(rows).each(len(chosen), partial(task.descend, weights, among, chosen))
        losses.append(sum(loss for _, loss in found))
        weights.grad = torch.stack([gradient for gradient, _ in found]).sum(dim=0)
        check_finite(
            f"fit a subspace at {site}", {"the loss": losses[-1], "its gradient": weights.grad}
        )
        falling = (1 + np.cos(np.pi * step / recipe.steps)) / 2
        adam.param_groups[0]["lr"] = recipe.learning_rate * falling
        adam.step()
    basis = by_effect(among @ torch.linalg.qr(weights.detach()).Q, felt, _moved(task))
    facts = {
        "span": recipe.span,
        "within": among.shape[1],
        "steps": recipe.steps,
        "seed": recipe.seed,
    }
    return Subspace(site, task.axes, basis, dict(task.where), np.asarray(losses), facts)


CARRIES = 0.95
"""Of what the largest subspace does, what a smaller one must do to carry the class as well."""


def smallest_that_carries(
    task: SubspaceTask, subspace: Subspace, *, rows: int, n: int = 128
) -> int:
    """How many of a fitted subspace's first directions do nearly all that it does.

    Doubled from 1, until the distance that the fit makes small has fallen by `CARRIES` of what all
    directions together make it fall, over the first `n` pairs.
    """
    pairs = np.arange(min(n, len(task.pairs)))

    def distance(k: int) -> float:
        def run(window: slice) -> Tensor:
            some = pairs[window]
            base, source = torch.from_numpy(task.pairs[some].T.copy())
            own, other = task.base.activation[base], task.source.activation[source]
            basis = subspace.basis[:, :k].to(own)
            outputs = task.base[base].finish(swapped(own, other, basis, task.axes, task.where))
            return task.score(some, outputs)

        return float(torch.cat(Batching(rows).each(len(pairs), run)).mean())

    with torch.no_grad():
        most, start = subspace.basis.shape[1], distance(0)
        fallen = start - distance(most)
        k = 1
        while k < most and start - distance(k) < CARRIES * fallen:
            k *= 2
    return min(k, most) if fallen > 0 else most


def _check_enough(task: SubspaceTask, k: int) -> None:
    index, place = place_of(task.axes, task.where)
    shape = task.source.activation[index].shape
    width, given = shape[place], shape.numel() // shape[place]
    check_k(task.site, k, width)
    if given <= k < width:
        right = f"more than {k}"
        do = "give more pictures"
        raise SampleError(f"find {k} directions at {task.site}", f"{given} activations", right, do)


def _start(
    among: Float[Tensor, "d within"], felt: Float[Tensor, "gradient d"], k: int
) -> Float[Tensor, "within k"]:
    """Where a fit starts: the largest components of the metric's gradients.

    Class means were tried: they also point where the class stands but is not read, and 40 steps do
    not leave that.
    """
    inside = felt @ among
    scatter = inside.T @ inside
    # what gradients leave open goes to what comes first among the directions
    order = torch.linspace(1, 0, len(scatter)).to(scatter)
    scatter = scatter / scatter.trace().clamp_min(TINY) + 1e-6 * order.diag()
    return torch.linalg.eigh(scatter)[1].flip(-1)[:, :k]


def varied(task: SubspaceTask, subspace: Subspace) -> Subspace:
    """The directions that move in a task's sources when what a subspace reads does."""
    moved = _moved(task)
    return subspace.with_basis(pattern(subspace.basis.to(moved), moved))


def _moved(task: SubspaceTask) -> Float[Tensor, "activation d"]:
    """The sources' activations, at each place about its own mean."""
    index, place = place_of(task.axes, task.where)
    values = task.source.activation[index].movedim(place, -1).to(torch.float64)
    return (values - values.mean(dim=0)).flatten(0, -2)


def _felt(task: SubspaceTask, k: int, *, rows: int, seed: int) -> Float[Tensor, "gradient d"]:
    """The metric's gradients at random points between bases and their sources.

    Where there are more than directions, as many rows with the same scatter.
    """
    index, place = place_of(task.axes, task.where)
    generator = rng("between base and source", seed)
    chosen = generator.permutation(len(task.pairs))[: max(READINGS, 4 * k)]
    ways = torch.from_numpy(generator.random(len(chosen)))
    activation = task.base.activation
    n_places, width = activation[0:1][index].movedim(place, -1).flatten(0, -2).shape
    few = len(chosen) * n_places <= width
    kept: list[Tensor] = []
    scatter = torch.zeros(0 if few else width, width).to(activation.device, torch.float64)

    def gather(window: slice) -> None:
        base, source = torch.from_numpy(task.pairs[chosen[window]].T.copy()).to(activation.device)
        own, other = activation[base], task.source.activation[source]
        way = ways[window].to(own).reshape(-1, *[1] * (own.ndim - 1))
        own[index] += (way * (other - own))[index]
        with torch.enable_grad():
            outputs = task.base[base].finish(own.requires_grad_())
            values = task.score(chosen[window], outputs)
            [gradient] = torch.autograd.grad(values.sum(), [own])
        felt = gradient[index].movedim(place, -1).flatten(0, -2).to(torch.float64)
        check_finite(f"fit a subspace at {task.site}", {"the metric's gradient": felt})
        if few:
            kept.append(felt)
        else:
            scatter.addmm_(felt.T, felt)

    Batching(rows).each(len(chosen), gather)
    if few:
        return torch.cat(kept)
    sizes, directions = torch.linalg.eigh(scatter)
    return (directions * sizes.clamp_min(0).sqrt()).T
