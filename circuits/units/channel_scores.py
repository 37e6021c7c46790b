"""Integrated gradients of a metric for the channels of each site, one site at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interp.circuits.patching.engine import Held
from interp.circuits.patching.mean_activations import Baseline, check_baseline, with_baselines
from interp.circuits.tasks.metrics import check_finite, check_metric, measure, name_of, rows_of
from interp.core.arguments import check_counts
from interp.core.errors import SiteError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.parallel import Batching
from interp.core.sites import find_sites
from interp.core.tower import Tower


@door
def channel_scores(
    tower: Tower,
    x: Tensor,
    *,
    metric: Callable[[Tensor], Tensor],
    sites: str | Sequence[str],
    baseline: Baseline,
    axis: str = "channel",
    steps: int = 10,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    r"""Score the channels of each site by integrated gradients of the metric.

    With $a$ the site's activation, $a^0$ its baseline and $F$ the metric of a run that goes on from
    another activation there, channel $c$ of an example scores

    $$s_c = \sum_\mathrm{space} (a - a^0)_c \cdot \frac{1}{m} \sum_{k=0}^{m-1}
    \frac{\partial F}{\partial a_c} \Big(a^0 + \frac{k}{m} (a - a^0)\Big)$$

    in the metric's unit.

    Args:
        tower: The tower.
        x: Its inputs, `batch ...`.
        metric: From outputs `batch d_embed` to one number per example.
        sites: Names or patterns; each site is scored on its own.
        baseline: "zero"; or inputs aligned with `x`, for the activations of their run (the corrupt
            run); or activations by site, `1 ...` or `batch ...`, such as those of
            `mean_activations`.
        axis: The axis of the site that is kept while all others are summed: `channel` (`d_embed` at
            an embedding), `head`, `d_mlp`, `pos`, ...
        steps: Steps m of integration; the default is the paper's.
        batch_size: Examples in a forward; smaller batches share one among steps.

    Returns:
        For each site its scores, `channel batch`.

    Raises:
        SiteError: For unknown sites, or a site without the axis.
        SpecificationError: For fewer than one step, or a metric that ignores the output or has no
            gradient.
        ShapeError: For a baseline of another shape.
        AlikeError: For a baseline equal to the inputs.
        DataError: For a baseline without a site.
        SampleError: For no inputs.
        NumericsError: For NaN or infinity.

    Notes:
        This is the sum on the left of Sundararajan et al. (2017), which is exact where F is linear.
        Summed over channels it tends to $F(a) - F(a^0)$ as the steps m grow, however F bends in
        between. Where F jumps (a cosine at the zero embedding) it does not.

        The paper (Kempf et al. 2025) takes 10 steps and the baseline "zero", which no run ever
        produces. Activations of another run are the better choice.

        Blocks before a site run once.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "channel", "row", "column"),
    ...               pool=torch.nn.Flatten())
    >>> x = torch.tensor([[[[1.0]], [[3.0]]]])
    >>> scores = channel_scores(tower, x, metric=lambda out: out[:, 0] + 10 * out[:, 1],
    ...                         sites="hook_embed", baseline="zero")
    >>> scores["hook_embed"].tolist()
    [[2.0], [60.0]]
    """
    asked = "score channels"
    names = find_sites(sites, tower.sites)
    axes = {site: unit_axis(tower, site, axis) for site in names}
    check_counts(asked, steps=steps)
    check_baseline(asked, tower, x, baseline, sites=names, batch_size=batch_size)
    with torch.no_grad():
        some = tower(x[:batch_size])
        check_metric(rows_of(metric, slice(0, len(some))), some, some + 1)

    def window_scores(window: slice) -> list[Tensor]:
        score, stack = rows_of(metric, window), batching.copies(window)
        found = []
        for runs, zero in with_baselines(tower, x, baseline, window, names):
            held = runs.latest()
            whole = (held.activation - zero) * mean_gradient(held, zero, score, steps, stack)
            found.append(by_unit(whole, axes[held.site]).sum(dim=-1).T)
        return found

    batching = Batching(batch_size, stacked=True)
    windows = batching.each(len(x), window_scores)
    order = sorted(names, key=tower.layer)
    scores = {site: torch.cat(parts, dim=1) for site, *parts in zip(order, *windows, strict=True)}
    check_finite(asked, scores)
    return {site: scores[site] for site in names}


def mean_gradient(
    held: Held, zero: Tensor, metric: Callable[[Tensor], Tensor], steps: int, stack: int
) -> Tensor:
    """The metric's mean gradient on the way from `zero`; `stack` steps share a forward."""
    a = held.activation
    total = torch.zeros_like(a)
    marks = torch.arange(steps, device=a.device, dtype=a.dtype) / steps
    for some in marks.split(stack):
        path = zero + some.view(-1, *[1] * a.ndim) * (a - zero)
        path = path.flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            outputs = held.go_on(path).unflatten(0, (len(some), len(a)))
            value = torch.stack([measure(metric, each) for each in outputs]).sum()
        if outputs.requires_grad and not value.requires_grad:
            given = "numbers that torch cannot trace to the output"
            right = "a metric made of differentiable steps"
            do = "return tensors; no .detach(), .item(), argmax or numpy"
            raise SpecificationError(f"take gradients of {name_of(metric)!r}", given, right, do)
        if value.requires_grad:  # else the site does not reach the output, and scores 0
            (grad,) = torch.autograd.grad(value, path, allow_unused=True, materialize_grads=True)
            total += grad.unflatten(0, (len(some), len(a))).sum(dim=0)
    return total / steps


def unit_axis(tower: Tower, site: str, axis: str = "channel") -> int:
    """Where a site has the axis of its units; an embedding's coordinates count as channels."""
    axes = tower.axes(site)
    name = "d_embed" if axis == "channel" and axes == ("batch", "d_embed") else axis
    if name not in axes or name == "batch":
        units = [each for each in axes if each != "batch"]
        raise SiteError(
            f"take apart {site} by {axis}",
            f"a site with the axes {listed(axes)}",
            f"a site with the axis {axis}" if axis != "batch" else f"one of {listed(units)}",
            f"choose another site, or one of its axes {listed(units)}; a traced module's axes are "
            f'named by open_tower(..., axes={{"{site}": ("batch", "{axis}")}})',
        )
    return axes.index(name)


def by_unit(activation: Tensor, axis: int, first: int = 1) -> Tensor:
    """`[... channel space]`: the axis of units at place `first`, all behind it laid in one."""
    moved = activation.movedim(axis, first)
    return moved.flatten(first + 1) if moved.ndim > first + 1 else moved.unsqueeze(-1)
