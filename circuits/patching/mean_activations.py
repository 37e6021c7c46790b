"""Baselines: the activations that those of a run are replaced by, or moved to."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from interp.circuits.patching.engine import Held, walk
from interp.circuits.tasks.metrics import check_finite
from interp.circuits.tasks.pairs import check_partners
from interp.core.arguments import check_counts
from interp.core.errors import AlikeError, SampleError, ShapeError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.parallel import batches
from interp.core.sites import find_sites
from interp.core.tower import Tower

Baseline = str | Tensor | Mapping[str, Tensor]
"""Where an activation is moved to: "zero"; inputs, for the activations of their run, example by
example; or activations by site, with a batch axis of 1 or of the examples."""


def with_baselines(
    tower: Tower, x: Tensor, baseline: Baseline, window: slice, sites: Sequence[str]
) -> Iterator[tuple[Held, Tensor]]:
    """The runs of a window of `x`, held at each of the sites, and the activation they move to."""
    runs = walk(tower, x[window], sites)
    if isinstance(baseline, Tensor):
        others = walk(tower, baseline[window], sites)
        yield from ((held, other.activation) for held, other in zip(runs, others, strict=True))
        return
    for held in runs:
        if isinstance(baseline, str):
            yield held, torch.zeros_like(held.activation)
        else:
            value = baseline[held.site].to(held.activation)
            value = value if len(value) == 1 else value[window]
            yield held, value.expand_as(held.activation)


@door
def mean_activations(
    tower: Tower, x: Tensor, *, sites: str | Sequence[str], batch_size: int = 32
) -> dict[str, Tensor]:
    """Compute the mean activation of each site over reference inputs, for use as a baseline.

    Args:
        tower: The tower.
        x: Reference inputs, `batch ...`.
        sites: Names or patterns of sites.
        batch_size: Examples in a forward.

    Returns:
        For each site its mean activation, `1 ...`, of the site's own dtype.

    Raises:
        SiteError: For unknown sites.
        SampleError: For no inputs.
        NumericsError: For inputs with NaN or infinity.

    Notes:
        Sums are in float64.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()])
    >>> mean_activations(tower, torch.tensor([[[1.0]], [[3.0]]]), sites="hook_embed")
    {'hook_embed': tensor([[[2.]]])}
    """
    names = find_sites(sites, tower.sites)
    _check_some(x, "average activations")
    sums: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for rows in batches(len(x), batch_size):
        for held in walk(tower, x[rows], names):
            total = held.activation.sum(dim=0, keepdim=True, dtype=torch.float64)
            sums[held.site] = sums[held.site] + total if held.site in sums else total
            dtypes[held.site] = held.activation.dtype
    return {site: (total / len(x)).to(dtypes[site]) for site, total in sums.items()}


def _check_some(x: Tensor, asked: str) -> None:
    if len(x) == 0:
        raise SampleError(asked, "no pictures", "at least one", "give more pictures")
    check_finite(asked, {"the inputs": x})


def check_baseline(
    asked: str,
    tower: Tower,
    x: Tensor,
    baseline: Baseline,
    *,
    sites: Sequence[str],
    batch_size: int,
) -> None:
    """Refuse inputs and baselines that do not fit one another or the sites."""
    _check_some(x, asked)
    check_counts(asked, batch_size=batch_size)
    if isinstance(baseline, str):
        check_known(asked, "baseline", [baseline], ["zero"], SpecificationError)
    elif isinstance(baseline, Tensor):
        check_partners("baseline", x, baseline)
        _check_some(baseline, asked)
        if torch.equal(baseline, x):
            raise AlikeError(
                asked, "a baseline equal to the input", "another input", "pair other pictures"
            )
    else:
        check_known(asked, "site", [site for site in sites if site not in baseline], baseline)
        _check_shapes(asked, tower, x, baseline, sites)


def _check_shapes(
    asked: str, tower: Tower, x: Tensor, baseline: Mapping[str, Tensor], sites: Sequence[str]
) -> None:
    for held in walk(tower, x[:1], sites):
        given, right = baseline[held.site], held.activation.shape[1:]
        if given.shape[1:] != right or len(given) not in (1, len(x)):
            raise ShapeError(
                asked,
                f"a baseline of shape {tuple(given.shape)} at {held.site}",
                f"(1 or {len(x)}, {', '.join(map(str, right))})",
                "use mean_activations, or activations of as many examples",
            )
        check_finite(asked, {f"the baseline at {held.site}": given})
