"""What a model must offer to be patched and probed; `interp.models` provides it, so may a user.

probes and circuits never import models: they take anything that keeps these promises, from a
hand-made two-neuron network to a CLIP tower.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Hook = Callable[..., Tensor | None]
"""Called as `hook(tensor, hook=point)`; what it returns replaces the activation, None leaves it."""


@runtime_checkable
class Tower(Protocol):
    """A chain of blocks with named activations, in TransformerLens's spelling.

    `tower(x, stop_at_layer=m)` returns the stream that enters block m, and
    `tower(stream, start_at_layer=l)` goes on from the stream that enters block l, so
    `tower(tower(x, stop_at_layer=l), start_at_layer=l) == tower(x)`.
    """

    @property
    def sites(self) -> Sequence[str]:
        """Every name that may be hooked, in the order of the computation."""
        ...

    @property
    def n_layers(self) -> int:
        """How many blocks the chain has."""
        ...

    def axes(self, site: str) -> tuple[str, ...]:
        """The axes of a site's activation."""
        ...

    def layer(self, site: str) -> int:
        """The block that computes a site: -1 before the chain, n_layers after it."""
        ...

    def __call__(
        self, x: Tensor, *, start_at_layer: int | None = None, stop_at_layer: int | None = None
    ) -> Tensor:
        """Embed a batch, or run a part of the chain."""
        ...

    def run_with_cache(
        self, *args: Any, names_filter: Any = None, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Embed a batch and keep its activations."""
        ...

    def run_with_hooks(
        self, *args: Any, fwd_hooks: Iterable[tuple[Any, Hook]] = (), **kwargs: Any
    ) -> Any:
        """Embed a batch while functions read or replace its activations."""
        ...

    def hooks(self, fwd_hooks: Any = ..., bwd_hooks: Any = ...) -> AbstractContextManager[Any]:
        """Keep functions installed for the length of a `with` block."""
        ...


@runtime_checkable
class Finishing(Tower, Protocol):
    """A tower that offers one thing more: a cheaper way to the embedding, where it reads little.

    `tower.finish(stream, start_at_layer=l) == tower(stream, start_at_layer=l)` up to the order of
    sums, under whatever hooks are installed. A CLIP's last block has to be computed for one token
    only. Sweeps use it where it is there.
    """

    def finish(self, stream: Tensor, *, start_at_layer: int) -> Tensor:
        """The embedding, from the stream that enters block `start_at_layer`."""
        ...
