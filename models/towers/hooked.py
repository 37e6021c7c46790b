"""A hooked tower: an open_clip encoder as a chain of blocks whose activations have names."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig

from interp.core.errors import SiteError
from interp.core.sites import Site
from interp.models.towers.checked_hooks import CheckedHooks, ListeningPoint

Item = TypeVar("Item")


def share(owner: nn.Module, **modules: nn.Module | None) -> None:
    """Let `owner` use modules of the open_clip model without registering them.

    Registered modules would be renamed by TransformerLens's `setup`, listed among the hook points'
    parents, and appear in `parameters()` once for every wrapper that uses them.

    Args:
        owner: The wrapper.
        **modules: Modules by attribute name.
    """
    owner.__dict__.update(modules)


class HookedTower(CheckedHooks, ABC):
    """Base of the towers; a subclass registers its hook points in the order of the computation.

    Args:
        source: The open_clip module that computes the embedding.
        foreign: Beginnings of names in `source` that belong to the other tower.

    Notes:
        The tower shares the open_clip module `source`: their parameters are the same objects, so
        training, loading and moving either one does it to both, and `state_dict` has open_clip's
        keys. Dropout and batch normalisation follow `source`'s own training mode. You pay for what
        you hook: attention and layer norm run fused unless a hook or listener is inside them.
        Results may then differ in the last bits.
    """

    label: str = ""
    """`visual` or `text`."""

    def __init__(self, source: nn.Module, *, foreign: tuple[str, ...] = ()) -> None:
        super().__init__()
        share(self, source=source)
        self.foreign = foreign  # beginnings of names in `source` that belong to the other tower
        self._layers: dict[str, int] = {}

    source: Any

    def __repr__(self) -> str:
        """The sites by the part they belong to, alike blocks together."""
        kinds: dict[str, dict[str, None]] = {}
        for site in self.sites:
            kind = re.sub(r"(?<=\.)\d+(?=\.)|(?<=layer)\d+(?=\.)", "*", site)
            part, _, name = kind.rpartition(".")
            kinds.setdefault(part, {})[name] = None
        lines = [
            f"  {part + ': ' if part else ''}{', '.join(names)}" for part, names in kinds.items()
        ]
        shown = lines if len(lines) <= 13 else [*lines[:12], f"  ... {len(lines) - 12} more parts"]
        return "\n".join([f"{type(self).__name__} of {len(self.sites)} sites:", *shown])

    def over(self, source: nn.Module) -> "HookedTower":
        """The same kind of tower over another copy of its module."""
        return type(self)(source)

    @property
    @abstractmethod
    def cfg(self) -> TransformerBridgeConfig:
        """The tower in TransformerLens's terms, for its tools that read `model.cfg`."""

    @property
    @abstractmethod
    def chain(self) -> list[nn.Module]:
        """The blocks in order."""

    @abstractmethod
    def original(self, x: Tensor) -> Tensor:
        """The embedding as open_clip itself computes it."""

    @abstractmethod
    def _check_input(self, x: Tensor) -> None: ...

    @abstractmethod
    def _check_stream(self, stream: Tensor, layer: int) -> None: ...

    @abstractmethod
    def _embed(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[Tensor | None, ...]:
        """What every block needs besides the stream."""

    @abstractmethod
    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor: ...

    def setup(self) -> None:
        """Name the hook points and note which block computes each."""
        super().setup()
        for point in self.hook_points():
            point.__class__ = ListeningPoint  # the library's own, whichever module made it
        blocks = {f"{block.name}.": index for index, block in enumerate(self.chain)}
        reached = -1
        for site in self.hook_dict:
            here = [index for name, index in blocks.items() if site.startswith(name)]
            reached = here[0] if here else (self.n_layers if reached >= 0 else -1)
            self._layers[site] = reached

    def forward(
        self,
        x: Tensor,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch, or run a part of the chain.

        Args:
            x: Pictures or tokens, or with `start_at_layer` a stream.
            start_at_layer: The block that `x` enters, from 0 to `n_layers`; None starts at the
                input.
            stop_at_layer: The block before which to stop, from 0 to `n_layers`; None goes to the
                end.
            tokens: The tokens of a resumed text tower, which reads the embedding off where they
                end.

        Returns:
            The embedding, or the stream that enters block `stop_at_layer`.

        Raises:
            ShapeError: For an input or stream of another shape.
            SiteError: For layers out of range or order.
        """
        start, stop = self._span(start_at_layer, stop_at_layer)
        self._forwards += 1
        if start_at_layer is None:
            self._check_input(x)
            stream, tokens = self._embed(x), x
        else:
            self._check_stream(x, start)
            stream = x
        if start < stop:
            context = self._context(stream, tokens)
            for block in self.chain[start:stop]:
                stream = block(stream, *context)
        return stream if stop_at_layer is not None else self._read_out(stream, tokens)

    def finish(
        self, stream: Tensor, *, start_at_layer: int, tokens: Tensor | None = None
    ) -> Tensor:
        """The embedding of `tower(stream, start_at_layer=l)`, computed as cheaply as the tower can.

        Args:
            stream: The stream that enters block `start_at_layer`.
            start_at_layer: The block.
            tokens: The tokens, in a text tower.

        Returns:
            The embedding, equal up to the order of sums; hooks and listeners fire as in that run.
        """
        return self(stream, start_at_layer=start_at_layer, tokens=tokens)

    def _span(self, start: int | None, stop: int | None) -> tuple[int, int]:
        n = self.n_layers
        first, last = (0 if start is None else start), (n if stop is None else stop)
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last <= n):
            given = f"start_at_layer={start!r}, stop_at_layer={stop!r}"
            right = f"0 <= start_at_layer <= stop_at_layer <= {n}"
            do = "count the blocks from the beginning, not from the end"
            raise SiteError("run a part of the tower", given, right, do)
        return first, last

    @property
    def n_layers(self) -> int:
        """How many blocks the chain has."""
        return len(self.chain)

    def layer(self, site: str | Site) -> int:
        """The block that computes a site: -1 before the chain, n_layers after it."""
        return self._layers[self._known(site)]

    # parameters: open_clip's own, under open_clip's names

    def _own(self, named: Iterable[tuple[str, Item]], prefix: str) -> Iterator[tuple[str, Item]]:
        dot = "." if prefix else ""
        for name, value in named:
            if not name.startswith(self.foreign):
                yield f"{prefix}{dot}{name}", value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The shared parameters under open_clip's names."""
        return self._own(self.source.named_parameters("", recurse, remove_duplicate), prefix)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The shared buffers under open_clip's names."""
        return self._own(self.source.named_buffers("", recurse, remove_duplicate), prefix)

    def state_dict(  # type: ignore[override]  # torch's own is overloaded for positional use
        self,
        *,
        destination: dict[str, Tensor] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Tensor]:
        """The shared weights under open_clip's names."""
        state = {} if destination is None else destination
        for name, value in self.source.state_dict(keep_vars=keep_vars).items():
            if not name.startswith(self.foreign):
                state[prefix + name] = value
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights into the tower and the open_clip model alike."""
        rest = {
            name: value
            for name, value in self.source.state_dict().items()
            if name.startswith(self.foreign)
        }
        return self.source.load_state_dict({**rest, **state_dict}, strict, assign)

    def train(self, mode: bool = True) -> "HookedTower":
        """Set the training mode of the shared modules."""
        for name, module in self.source.named_modules():
            if not f"{name}.".startswith(self.foreign):
                module.training = mode
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HookedTower":
        self.source._apply(fn, recurse)
        return self

    def extra_repr(self) -> str:
        """One line on the tower, before the tree of its hook points."""
        return f"{self.n_layers} layers, {len(self.sites)} sites"
