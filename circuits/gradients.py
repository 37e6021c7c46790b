"""Every cell's effect at once, to first order: gradient times difference, from two runs.

An estimate to screen with: exact where the tower is linear between the two runs, and wrong where
it saturates. `circuits.screen` confirms what it points at.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.metrics import measure, rows_of
from interp.circuits.runs import resolve_sites
from interp.core.errors import (
    NumericsError,
    ShapeError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.model import Tower

METHOD = "attribution patching"


def node_scores(
    tower: Tower,
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    axes: Sequence[str] = ("layer", "pos"),
    direction: str = "denoise",
    batch_size: int = 32,
) -> Float[Tensor, "cell example"]:
    """Estimate what patching each cell of a sweep would change, from one forward and backward.

    score[cell, example] = sum over the cell of (donor - base) * d metric(base) / d base, the first
    term of Taylor's series for `sweep`'s value minus the metric of the run that is patched (corrupt
    when denoising, clean when noising). Cells come in `sweep`'s order, scores in the metric's unit
    (attribution patching: Nanda 2023; Syed et al. 2023).

    Arguments are those of `sweep`; one donor forward, and one forward and backward of the base, are
    run for each `batch_size` examples. Examples must not depend on one another (no batch
    normalisation in training mode). Raises `SiteError` for unknown sites, `ShapeError` for inputs
    that differ in shape, `SpecificationError` for a metric without a gradient or unknown axes,
    `NumericsError` for NaN.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> clean, corrupt = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    >>> clean[0, 1] = 3.0
    >>> node_scores(tower, clean=clean, corrupt=corrupt, metric=lambda output: output[:, 0])
    tensor([[0.],
            [6.],
            [0.],
            [6.]])
    """
    check_known("score cells", "direction", [direction], ("denoise", "noise"), SpecificationError)
    if clean.shape != corrupt.shape or clean.dtype != corrupt.dtype:
        raise ShapeError(
            "score cells between clean and corrupt",
            f"{tuple(clean.shape)} {clean.dtype} and {tuple(corrupt.shape)} {corrupt.dtype}",
            "one shape and dtype",
            "give every clean input one partner",
        )
    names = resolve_sites(tower, sites)
    kept = {site: _kept(tower, site, axes) for site in names}
    base, donor = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    parts = []
    for start in range(0, len(base), batch_size):
        window = slice(start, min(start + batch_size, len(base)))
        with torch.no_grad():
            _, cache = tower.run_with_cache(donor[window], names_filter=names)
        found = gradients(tower, base[window], names, rows_of(metric, window))
        scores = []
        for site in names:
            activation, gradient = found[site]
            product = (cache[site] - activation) * gradient
            scores.append(_by_cell(product, tower.axes(site), kept[site]))
        parts.append(torch.cat(scores))
    whole = torch.cat(parts, dim=1)
    if not bool(torch.isfinite(whole).all()):
        raise NumericsError(
            "score cells",
            "NaN or infinity in a gradient or activation",
            "finite numbers",
            "check the inputs, the class embeddings and the tower's own output",
        )
    return whole


def gradients(
    tower: Tower, x: Tensor, sites: Sequence[str], metric: Callable[[Tensor], Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Activations at some sites and the metric's gradient there, from one forward and backward."""
    points: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: Any) -> Tensor:
        # one copy, since a tower that works in place may use the tensor elsewhere too; another,
        # since it must not write into what is kept
        point = tensor.clone() if tensor.requires_grad else tensor.clone().requires_grad_()
        points[str(hook.name)] = point
        return point.clone()

    with torch.enable_grad(), tower.hooks(fwd_hooks=[(site, keep) for site in sites]):
        values = measure(metric, tower(x))
    if not values.requires_grad:
        raise SpecificationError(
            "score cells by gradients",
            f"a metric without a gradient at {listed(sites, limit=3)}",
            "a differentiable function of the output, and sites that it depends on",
            "use one of METRICS, or sweep the cells exactly",
        )
    found = torch.autograd.grad(
        values.sum(), list(points.values()), allow_unused=True, materialize_grads=True
    )
    return {
        site: (point.detach(), gradient)
        for (site, point), gradient in zip(points.items(), found, strict=True)
    }


def _kept(tower: Tower, site: str, axes: Sequence[str]) -> list[int]:
    """Where the swept axes of a site are; unknown axes are refused."""
    names = tower.axes(site)
    swept = [axis for axis in axes if axis != "layer"]
    if "layer" not in axes or "batch" in axes or len(set(axes)) < len(axes):
        raise SpecificationError(
            "score the cells of a sweep",
            f"the axes {listed(axes)}",
            "'layer' and axes of the site, such as 'pos', 'head' or 'channel'",
            'write for example axes=("layer", "pos")',
        )
    check_known(f"score {site}", "axis", swept, names, SpecificationError)
    return [names.index(axis) for axis in swept]


def _by_cell(
    product: Tensor, axes: Sequence[str], kept: Sequence[int]
) -> Float[Tensor, "cell example"]:
    """Sum over the axes that no cell cuts, and put the swept ones in the order asked for."""
    batch = list(axes).index("batch")
    gone = [axis for axis in range(product.ndim) if axis not in (batch, *kept)]
    rest = [axis for axis in range(product.ndim) if axis not in gone]
    summed = product.sum(dim=gone) if gone else product
    order = [rest.index(axis) for axis in (*kept, batch)]
    return summed.permute(order).reshape(-1, product.shape[batch])
