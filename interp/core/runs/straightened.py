"""Runs whose gradients take a tower for the linear map that it is at its input.

Norm scales, attention patterns and the gain of every activation function are held at their values,
so that a stream times its gradient sums to the output, up to biases.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import SpecificationError
from interp.core.tower import Hook, Tower


def straightening(tower: Tower, asked: str, *, layer: int = 0) -> list[tuple[str, Hook]]:
    """Hooks that change no activation, but what its gradient takes for granted.

    Args:
        tower: A tower with sites `hook_scale`, `hook_pattern` and `mlp.hook_post`, as far as it has
            norms, attention and MLPs. ReLUs are gates to begin with.
        asked: What was asked for, for the message.
        layer: The block at which the run begins.

    Returns:
        (site, hook) pairs for `tower.hooks`.

    Raises:
        SpecificationError: For a tower without such sites.
    """
    sites = [site for site in tower.sites if tower.layer(site) >= layer]
    scales = [site for site in sites if site.endswith(("hook_scale", "hook_pattern"))]
    if not scales:
        raise SpecificationError(
            asked,
            f"a {type(tower).__name__} without sites for norm scales and patterns",
            "a hooked tower of open_clip's, with sites hook_scale and hook_pattern",
            "use a method that needs no gradient, or another gradient",
        )
    before: dict[str, Tensor] = {}

    def hold(tensor: Tensor, hook: Any) -> Tensor:
        return tensor.detach()

    def remember(tensor: Tensor, hook: Any) -> None:
        before[hook.name.removesuffix("hook_pre")] = tensor

    def gain(tensor: Tensor, hook: Any) -> Tensor:
        x = before[hook.name.removesuffix("hook_post")]
        safe = torch.where(x == 0, torch.ones_like(x), x)
        return x * (tensor / safe).detach()

    hooks: list[tuple[str, Hook]] = [(site, hold) for site in scales]
    hooks += [(site, remember) for site in sites if site.endswith("mlp.hook_pre")]
    return hooks + [(site, gain) for site in sites if site.endswith("mlp.hook_post")]


@contextmanager
def parameters_at_rest(tower: Tower) -> Iterator[None]:
    """Let no parameter of the tower collect gradients, during a `with` block."""
    parameters = [p for p in getattr(tower, "parameters", list)() if p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
