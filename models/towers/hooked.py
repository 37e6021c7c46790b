"""A hooked tower: an open_clip encoder as a chain of blocks whose activations have names.

`run_with_cache`, `run_with_hooks`, `hooks`, `reset_hooks` are TransformerLens's own. What is added
is refusal: a name that matches nothing, a hook that never fires and a hook that returns another
shape are errors, where a silent no-op would read as a finding ("this head does nothing").
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError, SiteError, listed
from interp.core.sites import ON_DEMAND, Site, find_sites
from interp.core.tower import Hook

Names = str | Site | Callable[[str], bool]
"""A site, a shell pattern over sites, or a Boolean function of their names."""


Listener = Callable[[str, Tensor], object]
"""Called with a site's name and its activation; it can only look."""


class ListeningPoint(HookPoint):
    """A hook point that costs nothing while nobody hooks it, and little where one only listens.

    A hook goes through some ten calls of torch's and the library's before it is reached, and as
    many to be installed and removed: 50 microseconds a site, a third of a run of a small tower that
    caches everything. A listener cannot change the activation, so it needs none of them.
    """

    listener: Listener | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if (
            self._forward_hooks
            or self._backward_hooks
            or self._forward_pre_hooks
            or self._backward_pre_hooks
        ):
            x = super().__call__(x)
        if self.listener is not None:
            self.listener(self.name, x.detach())  # type: ignore[arg-type]  # setup() named it
        return x


def with_hooks(*points: Any) -> bool:
    """Whether anybody hooks or listens at one of the points; what nobody hears is not computed."""
    for point in points:
        # the lists themselves: the library's has_hooks() makes two functions first
        if point.fwd_hooks or point.bwd_hooks or getattr(point, "listener", None) is not None:
            return True
    return False


def only_heard(*points: Any) -> bool:
    """Whether nobody at the points can change what passes, or wants its gradient."""
    return not any(point.fwd_hooks or point.bwd_hooks for point in points)


def share(owner: nn.Module, **modules: Any) -> None:
    """Let `owner` use modules of the open_clip model without adopting them.

    Adopted modules would be renamed by TransformerLens's `setup`, listed among the hook points'
    parents, and appear in `parameters()` once for every wrapper that uses them.
    """
    owner.__dict__.update(modules)


@dataclass(eq=False)
class HookRequest:
    """Something a user asked to hook; at least one of the sites it stands for must fire."""

    name: str
    fired: bool = False


class _Watched:
    """A user's hook, with its asks marked when it fires and the shape it returns checked."""

    def __init__(self, hook: Hook, asks: Sequence[HookRequest]) -> None:
        self.hook, self.asks = hook, asks

    def __call__(self, tensor: Tensor, hook: HookPoint) -> Any:
        for ask in self.asks:
            ask.fired = True
        answer = self.hook(tensor, hook=hook)
        # a backward hook may answer with a tuple of one gradient
        value = answer[0] if isinstance(answer, tuple) and len(answer) == 1 else answer
        if value is not None and getattr(value, "shape", None) != tensor.shape:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(
                f"replace {hook.name}",
                f"{given} from the hook",
                f"a tensor of shape {tuple(tensor.shape)}",
                "return a tensor of that shape, or None to leave it as it is",
            )
        return answer


class HookedTower(HookedRootModule, ABC):
    """Base of the towers; a subclass registers its hook points in the order of the computation.

    The tower shares the open_clip module `source`: their parameters are the same objects, so
    training, loading and moving either one does it to both, and `state_dict` has open_clip's keys.
    Dropout and batch normalisation follow `source`'s own training mode. You pay for what you hook:
    attention and layer norm run fused until something listens inside them; with a listener they
    run in the open, and results may then differ in the last bits.
    """

    label: str = ""
    """`visual` or `text`."""

    def __init__(self, source: nn.Module, *, foreign: tuple[str, ...] = ()) -> None:
        super().__init__()
        share(self, source=source)
        self.foreign = foreign  # beginnings of names in `source` that belong to the other tower
        self._forwards = 0
        self._layers: dict[str, int] = {}

    source: Any

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
    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[Any, ...]:
        """What every block needs beside the stream."""

    @abstractmethod
    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor: ...

    def setup(self) -> None:
        """Name the hook points, then note which block computes each."""
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

        `stop_at_layer=m` returns the stream that enters block m, and no later block runs;
        `start_at_layer=l` takes that stream for x. Both count from 0 to `n_layers`. A text tower
        that resumes needs `tokens` as well, because it reads the embedding off where they end.
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
        """The embedding that `tower(stream, start_at_layer=l)` gives, as cheaply as there is a way.

        Equal up to the order of sums; hooks and listeners fire as in the run it stands for.
        """
        return self(stream, start_at_layer=start_at_layer, tokens=tokens)

    def _span(self, start: int | None, stop: int | None) -> tuple[int, int]:
        n = self.n_layers
        first, last = (0 if start is None else start), (n if stop is None else stop)
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last <= n):
            raise SiteError(
                "run a part of the tower",
                f"start_at_layer={start!r}, stop_at_layer={stop!r}",
                f"0 <= start_at_layer <= stop_at_layer <= {n}",
                "count the blocks from the beginning, not from the end",
            )
        return first, last

    # names

    @property
    def sites(self) -> tuple[str, ...]:
        """Every name that may be hooked, in the order of the computation."""
        return tuple(self.hook_dict)

    @property
    def n_layers(self) -> int:
        """How many blocks the chain has."""
        return len(self.chain)

    def axes(self, site: str | Site) -> tuple[str, ...]:
        """The axes of a site's activation, in order."""
        return Site(self._known(site)).axes

    def layer(self, site: str | Site) -> int:
        """The block that computes a site: -1 before the chain, n_layers after it."""
        return self._layers[self._known(site)]

    def _known(self, site: str | Site) -> str:
        name = str(site)
        return name if name in self.hook_dict else self._match(name)[0]

    def _match(self, names: Names) -> list[str]:
        """The sites a name, pattern or filter stands for; `SiteError` if there are none."""
        if not callable(names):
            # a whole cache names every site: to look each up among all would be quadratic
            name = str(names)
            return [name] if name in self.hook_dict else find_sites(name, self.sites)
        found = [site for site in self.sites if names(site)]
        if not found:
            raise SiteError(
                "find sites",
                f"a filter that refuses all {len(self.sites)} of them",
                "a filter that is true of some name",
                f"try it on {listed(self.sites, limit=4)}",
            )
        return found

    # hooks

    def add_hook(self, name: Names, hook: Hook, *args: Any, **kwargs: Any) -> None:
        """Install a hook until `reset_hooks`, after checking its name."""
        for site in self._match(name):
            super().add_hook(site, _Watched(hook, ()), *args, **kwargs)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Iterable[tuple[Names, Hook]] = (),
        bwd_hooks: Iterable[tuple[Names, Hook]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator["HookedTower"]:
        """Keep functions installed for the length of a `with` block.

        If a forward ran in the block and a hook never fired, that is a `SiteError` at its end.
        Whether a backward hook fires is not known here (the backward may come later), but the
        forward must have reached its site.
        """
        asks: list[HookRequest] = []
        forward: list[Any] = []
        backward: list[Any] = []
        for name, hook in fwd_hooks:
            forward += self._watch(name, hook, asks)
        for name, hook in bwd_hooks:
            backward += self._watch(name, hook, [])
            if not isinstance(hook, _Watched):
                forward += self._watch(name, _read, asks)
        before = self._forwards
        with super().hooks(forward, backward, reset_hooks_end, clear_contexts):
            yield self
        if self._forwards > before:
            _check_fired(ask.name for ask in asks if not ask.fired)

    def _watch(self, name: Names, hook: Hook, asks: list[HookRequest]) -> list[tuple[str, Hook]]:
        sites = self._match(name)
        if isinstance(hook, _Watched):  # a caching hook; it has asks of its own
            asks.extend(ask for ask in hook.asks if ask not in asks)
            return [(site, hook) for site in sites]
        ask = HookRequest("a filter" if callable(name) else str(name))
        asks.append(ask)
        return [(site, _Watched(hook, (ask,))) for site in sites]

    def run_with_hooks(
        self,
        *args: Any,
        fwd_hooks: Iterable[tuple[Names, Hook]] = (),
        bwd_hooks: Iterable[tuple[Names, Hook]] = (),
        **kwargs: Any,
    ) -> Any:
        """Embed a batch while functions read or replace its activations."""
        forward: list[Any] = list(fwd_hooks)
        backward: list[Any] = list(bwd_hooks)
        return super().run_with_hooks(*args, fwd_hooks=forward, bwd_hooks=backward, **kwargs)

    def run_with_cache(self, *args: Any, names_filter: Any = None, **kwargs: Any) -> Any:
        """Embed a batch and keep its activations: those of every site but the costly ones
        (`ON_DEMAND`), or of those that `names_filter` names; options are the library's."""
        if set(kwargs) & _STORING:
            return super().run_with_cache(*args, names_filter=names_filter, **kwargs)
        cache: dict[str, Tensor] = {}
        with self.listening(cache.__setitem__, names_filter, filling=cache):
            out = self(*args, **kwargs)
        return out, cache

    @contextmanager
    def listening(
        self,
        listener: Listener,
        names_filter: Names | Iterable[Names] | None = None,
        *,
        filling: Container[str],
    ) -> Iterator[None]:
        """Call `listener(site, activation)` as sites are computed, during a `with` block.

        A listener cannot change what it sees, which is what makes it cheap. What was asked for by
        name, and is not in `filling` at the end though a forward ran, is a `SiteError`.
        """
        wanted = self._wanted(names_filter)
        states = [self.hook_dict[site].__dict__ for site in wanted]
        before, runs = [state.get("listener") for state in states], self._forwards
        try:
            for state in states:  # by way of `__dict__`, since a module's own setattr is slow
                state["listener"] = listener
            yield
        finally:
            for state, old in zip(states, before, strict=True):
                state["listener"] = old
        if self._forwards > runs:
            heard = {id(ask) for site, asks in wanted.items() if site in filling for ask in asks}
            silent = (ask for asks in wanted.values() for ask in asks if id(ask) not in heard)
            _check_fired(ask.name for ask in silent)

    def get_caching_hooks(
        self,
        names_filter: Names | Iterable[Names] | None = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Tensor], list, list]:
        """Make the hooks that `run_with_cache` installs: for every site but the costly ones
        (`ON_DEMAND`), or for those that `names_filter` names."""
        cache = {} if cache is None else cache
        wanted = self._wanted(names_filter)
        forward: list[tuple[str, Hook]] = []
        backward: list[tuple[str, Hook]] = []
        # The library slices the last axis but one of whatever it meets. In a pooled vector that
        # is the batch, and in a feature map the rows; such sites are kept whole.
        along = [site for site in wanted if {"pos", "query"} & set(self.axes(site))]
        for sites, cut in ((along, pos_slice), ([s for s in wanted if s not in along], None)):
            _, fwd, bwd = super().get_caching_hooks(
                sites, incl_bwd, device, remove_batch_dim, cache, cut
            )
            forward += [(site, _Watched(save, wanted[site])) for site, save in fwd]
            backward += [(site, _Watched(save, wanted[site])) for site, save in bwd]
        return cache, forward, backward

    def add_caching_hooks(
        self, names_filter: Names | Iterable[Names] | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Install caching hooks until `reset_hooks`, after checking their names."""
        return super().add_caching_hooks(list(self._wanted(names_filter)), *args, **kwargs)

    def _wanted(self, names_filter: Names | Iterable[Names] | None) -> dict[str, list[HookRequest]]:
        """The sites to cache, in tower order, each with what asked for it."""
        if names_filter is None:  # asked for nothing in particular: whatever the run reaches
            return {site: [] for site in self.sites if not site.endswith(ON_DEMAND)}
        if callable(names_filter) or isinstance(names_filter, (str, Site)):
            names_filter = [names_filter]
        asked: dict[str, list[HookRequest]] = {}
        for name in names_filter:
            ask = HookRequest("a filter" if callable(name) else str(name))
            for site in self._match(name):
                asked.setdefault(site, []).append(ask)
        if not asked:
            find_sites([], self.sites)  # raises: an empty list asks for nothing
        return {site: asked[site] for site in self.sites if site in asked}

    # parameters: open_clip's own, under open_clip's names

    def _own(self, named: Iterable[tuple[str, Any]], prefix: str) -> Iterator[tuple[str, Any]]:
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
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """The shared weights under open_clip's names."""
        state = {} if destination is None else destination
        for name, value in self.source.state_dict(keep_vars=keep_vars).items():
            if not name.startswith(self.foreign):
                state[prefix + name] = value
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
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


_STORING = {
    "device", "remove_batch_dim", "incl_bwd", "reset_hooks_end", "clear_contexts", "pos_slice",
}  # fmt: skip
"""The options of `run_with_cache` that need the library's own caching hooks."""


def _check_fired(silent: Iterable[str]) -> None:
    names = list(dict.fromkeys(silent))
    if names:
        raise SiteError(
            f"hook {listed(names)}",
            "a run that never came there",
            "a run that computes the site",
            "move start_at_layer or stop_at_layer, or hook another site",
        )


def _read(tensor: Tensor, hook: HookPoint) -> None:
    """A hook that only notices that the run came by."""
