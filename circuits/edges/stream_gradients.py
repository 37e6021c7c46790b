"""Gradients at every reader's stream, from one backward pass over activations alone.

An ordinary run hands one stream to all readers of a component, and its gradient there is the sum of
theirs. Where a component has several readers it pulls them apart from the gradients behind them; a
single reader's is what the stream's gradient gains from behind the component to before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.tasks.metrics import measure, name_of
from interp.core.errors import SpecificationError
from interp.core.runs.straightened import parameters_at_rest, straightening
from interp.core.tower import Branched, Component, Hook, Tower


@dataclass(frozen=True)
class Gradients:
    """What one backward pass found, and the forward pass it went back through.

    `at_streams` are gradients at the stream before each component and at the end; `inner` and
    `at_inner` are activations and gradients behind the readers, by site; `written` is a `Flow`'s.
    """

    streams: Sequence[Tensor]
    written: Sequence[Tensor]
    at_streams: Sequence[Tensor]
    inner: Mapping[str, Tensor]
    at_inner: Mapping[str, Tensor]
    straight: bool

    def of_readers(
        self, component: Component | None, number: int, rows: slice
    ) -> Float[Tensor, "batch reader *stream"]:
        """The gradient at each reader's stream of component `number`; None is the output."""
        if component is None:
            return self.at_streams[-1][rows, None]
        if isinstance(component, Branched):
            values = [self.inner[site][rows] for site in component.inner]
            grads = [self.at_inner[site][rows] for site in component.inner]
            return component.pull(self.streams[number][rows], values, grads, straight=self.straight)
        return (self.at_streams[number][rows] - self.at_streams[number + 1][rows])[:, None]


def backward(
    tower: Tower,
    components: Sequence[Component],
    stream: Tensor,
    metric: Callable[[Tensor], Tensor],
    *,
    words: Mapping[str, Any],
    straight: bool = False,
    replace: Mapping[str, Tensor] | None = None,
) -> Gradients:
    """Run from the stream that enters block 0, and go back from the metric to all readers.

    `straight` takes norms, attention patterns and activation functions for the linear maps that
    they are at this input (RelP). `replace` puts activations in the place of the run's own.
    """
    inner = [site for c in components if isinstance(c, Branched) for site in c.inner]
    names = dict.fromkeys([*(c.reads for c in components), *(c.writes for c in components), *inner])
    kept: dict[str, Tensor] = {}
    swaps: list[tuple[str, Hook]] = [(s, _put(v)) for s, v in (replace or {}).items()]
    held = straightening(tower, "attribute by RelP") if straight else []
    with torch.enable_grad(), parameters_at_rest(tower):
        leaf = stream.detach().requires_grad_()
        hooks = [*swaps, *held, *((name, _keep(kept)) for name in names)]
        with tower.hooks(fwd_hooks=hooks):
            last = tower(leaf, start_at_layer=0, stop_at_layer=tower.n_layers, **words)
            output = tower(last, start_at_layer=tower.n_layers, **words)
        values = measure(metric, output)
        if not values.requires_grad:
            raise SpecificationError(
                f"attribute {name_of(metric)!r} by its gradient",
                "a metric that ignores the output, or has no gradient",
                "a differentiable function of the tower's output",
                "use a Metric, or method='exact', which needs no gradient",
            )
        wanted = [*(kept[c.reads] for c in components), last, *(kept[site] for site in inner)]
        found = torch.autograd.grad(values.sum(), wanted, allow_unused=True)
    # without gradient: cut off by `straight`, or standing before a replaced activation
    grads = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
    n = len(components) + 1
    return Gradients(
        [w.detach() for w in wanted[:n]],
        [kept[c.writes].detach() for c in components],
        grads[:n],
        {site: kept[site].detach() for site in inner},
        dict(zip(inner, grads[n:], strict=True)),
        straight,
    )


def _keep(kept: dict[str, Tensor]) -> Hook:
    def keep(tensor: Tensor, hook: Any) -> None:
        kept[hook.name] = tensor

    return keep


def _put(value: Tensor) -> Hook:
    return lambda tensor, hook: value
