"""Hooks by the names of sites, with names, firing and shapes checked.

`run_with_cache`, `run_with_hooks`, `hooks` and `reset_hooks` are TransformerLens's own. Here a name
that matches nothing, a hook that never fires and a hook that returns another shape are errors. A
silent no-op would read as a result ("this head does nothing").
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError, SiteError, SpecificationError, listed
from interp.core.sites import ON_DEMAND, Site, find_sites
from interp.core.tower import Hook, Patch
from interp.models.towers.site_cache import SiteCache

Names = str | Site | Callable[[str], bool]
"""A site, a shell pattern over sites, or a Boolean function of their names."""

Listener = Callable[[str, Tensor], object]
"""Called with a site's name and its activation; it can only look."""


class ListeningPoint(HookPoint):
    """A hook point that costs nothing without hooks, and little with a listener.

    A hook goes through some ten calls of torch's and the library's before it is reached, and as
    many to be installed and removed. That is 50 microseconds a site, a third of a run of a small
    tower that caches everything. A listener cannot change the activation, so it needs none of them.
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


def with_hooks(*points: HookPoint) -> bool:
    """Whether any of the points has a hook or a listener; what nobody reads is not computed.

    Args:
        *points: Hook points.

    Returns:
        True if at least one has.
    """
    for point in points:
        # the lists themselves: the library's has_hooks() makes two functions first
        if point.fwd_hooks or point.bwd_hooks or getattr(point, "listener", None) is not None:
            return True
    return False


def only_heard(*points: HookPoint) -> bool:
    """Whether none of the points has a hook that could change an activation or wants its gradient.

    Args:
        *points: Hook points.

    Returns:
        True if there are listeners at most.
    """
    return not any(point.fwd_hooks or point.bwd_hooks for point in points)


@dataclass(eq=False)
class HookRequest:
    """A hook that a user asked for; at least one of the sites that it matches must fire.

    Args:
        name: The name, pattern or filter, for messages.
        fired: Whether one has fired.
    """

    name: str
    fired: bool = False


class _CheckedHook:
    """A user's hook that marks its requests when it fires and checks the shape it returns."""

    def __init__(self, hook: Hook, requests: Sequence[HookRequest]) -> None:
        self.hook, self.requests = hook, requests

    def __call__(self, tensor: Tensor, hook: HookPoint) -> Any:
        for request in self.requests:
            request.fired = True
        answer = self.hook(tensor, hook=hook)
        # a backward hook may answer with a tuple of one gradient
        value = answer[0] if isinstance(answer, tuple) and len(answer) == 1 else answer
        if value is not None and getattr(value, "shape", None) != tensor.shape:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            right = f"a tensor of shape {tuple(tensor.shape)}"
            do = "return a tensor of that shape, or None to leave it as it is"
            raise ShapeError(f"replace {hook.name}", f"{given} from the hook", right, do)
        return answer


def _listed(patches: Patch | Iterable[Patch]) -> Iterable[Patch]:
    """Patches, where one alone may be given."""
    return [patches] if isinstance(patches, Patch) else patches


class CheckedHooks(HookedRootModule):
    """A root module whose hooks are requested by site and checked.

    Notes:
        A subclass counts its runs in `_forwards`, so that a hook is missed only if a run took
        place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forwards = 0  # counted by whoever defines `forward`

    @property
    def sites(self) -> tuple[str, ...]:
        """Every name that may be hooked, in the order of the computation."""
        return tuple(self.hook_dict)

    def axes(self, site: str | Site) -> tuple[str, ...]:
        """The axes of a site's activation, in order."""
        return Site(self._known(site)).axes

    def _known(self, site: str | Site) -> str:
        name = str(site)
        return name if name in self.hook_dict else self._match(name)[0]

    def _match(self, names: Names) -> list[str]:
        """The sites that a name, pattern or filter stands for; `SiteError` if there are none."""
        if not callable(names):
            # a whole cache names every site: to look each up among all would be quadratic
            name = str(names)
            return [name] if name in self.hook_dict else find_sites(name, self.sites)
        matching = [site for site in self.sites if names(site)]
        if not matching:
            given = f"a filter that refuses all {len(self.sites)} of them"
            right = "a filter that is true of some name"
            raise SiteError("find sites", given, right, f"try it on {listed(self.sites, limit=4)}")
        return matching

    def add_hook(self, name: Names, hook: Hook, *args: Any, **kwargs: Any) -> None:
        """Install a hook until `reset_hooks`, after checking its name.

        Args:
            name: A site, a pattern, or a Boolean function of names.
            hook: Called as `hook(tensor, hook=point)`.
            *args: TransformerLens's options.
            **kwargs: TransformerLens's options.

        Raises:
            SiteError: If nothing matches.
        """
        for site in self._match(name):
            super().add_hook(site, _CheckedHook(hook, ()), *args, **kwargs)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Iterable[tuple[Names, Hook]] = (),
        bwd_hooks: Iterable[tuple[Names, Hook]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        patches: Patch | Iterable[Patch] = (),
    ) -> Iterator[Self]:
        """Keep functions installed for the length of a `with` block.

        Args:
            fwd_hooks: Pairs of a name and a function of the activation.
            bwd_hooks: Pairs of a name and a function of the gradient.
            reset_hooks_end: TransformerLens's option.
            clear_contexts: TransformerLens's option.
            patches: What is put in place of activations, behind the functions.

        Returns:
            A context that yields the tower.

        Raises:
            SiteError: If nothing matches a name, or a forward ran in the block and a hook never
                fired.
            ShapeError: If a hook returns another shape.

        Notes:
            Whether a backward hook fires is not known here, since the backward may come later, but
            the forward must have reached its site.
        """
        requests: list[HookRequest] = []
        forward: list[tuple[str, Hook]] = []
        backward: list[tuple[str, Hook]] = []
        for name, hook in (*fwd_hooks, *map(self._hook_of, _listed(patches))):
            forward += self._watch(name, hook, requests)
        for name, hook in bwd_hooks:
            backward += self._watch(name, hook, [])
            if not isinstance(hook, _CheckedHook):
                forward += self._watch(name, _notice, requests)
        before = self._forwards
        self.context_level += 1
        try:
            for site, hook in forward:
                self._enable_hook(site, hook, "fwd")
            for site, hook in backward:
                self._enable_hook(site, hook, "bwd")
            yield self
        finally:
            if reset_hooks_end:  # the library's own way looks through every point of the tower
                for site, _ in (*forward, *backward):
                    self.hook_dict[site].remove_hooks("both", level=self.context_level)
                if clear_contexts:
                    self.clear_contexts()
            self.context_level -= 1
        if self._forwards > before:
            _check_fired(request.name for request in requests if not request.fired)

    def _hook_of(self, patch: object) -> tuple[str, Hook]:
        if not isinstance(patch, Patch):
            given = f"something of type {type(patch).__name__}"
            do = "write Patch(site, value, where={'pos': 0})"
            raise SpecificationError("patch a run", given, "a list of patches", do)
        return patch.site, lambda tensor, hook: patch.apply(tensor, axes=self.axes(hook.name))

    def _watch(
        self, name: Names, hook: Hook, requests: list[HookRequest]
    ) -> list[tuple[str, Hook]]:
        sites = self._match(name)
        if isinstance(hook, _CheckedHook):  # a caching hook; it has requests of its own
            requests.extend(request for request in hook.requests if request not in requests)
            return [(site, hook) for site in sites]
        request = HookRequest("a filter" if callable(name) else str(name))
        requests.append(request)
        return [(site, _CheckedHook(hook, (request,))) for site in sites]

    def run_with_hooks(
        self,
        *args: object,
        fwd_hooks: Iterable[tuple[Names, Hook]] = (),
        bwd_hooks: Iterable[tuple[Names, Hook]] = (),
        patches: Patch | Iterable[Patch] = (),
        **kwargs: Any,
    ) -> Any:
        """Run the module while functions read or replace its activations.

        Args:
            *args: The module's input.
            fwd_hooks: Pairs of a name and a function of the activation.
            bwd_hooks: Pairs of a name and a function of the gradient.
            patches: What is put in place of activations, at any number of sites; behind the
                functions, and one after the other where they share a site.
            **kwargs: Options of the run.

        Returns:
            The module's output.

        Raises:
            SiteError: If nothing matches a name, or a hook or patch never fired.
            ShapeError: If a value does not fit its place.
        """
        forward: list[Any] = [*fwd_hooks, *map(self._hook_of, _listed(patches))]
        backward: list[Any] = list(bwd_hooks)
        return super().run_with_hooks(*args, fwd_hooks=forward, bwd_hooks=backward, **kwargs)

    def run_with_cache(
        self,
        *args: object,
        names_filter: Any = None,
        patches: Patch | Iterable[Patch] = (),
        **kwargs: Any,
    ) -> Any:
        """Run the module and keep its activations.

        Args:
            *args: The module's input.
            names_filter: What to keep, by name, pattern or filter; None keeps every site but the
                costly ones (`ON_DEMAND`).
            patches: What is put in place of activations in this run; the cache holds what is
                patched as patched.
            **kwargs: Options of the run, and TransformerLens's.

        Returns:
            The module's output, and the activations by site.
        """
        if patches := list(_listed(patches)):
            with self.hooks(patches=patches):
                return self.run_with_cache(*args, names_filter=names_filter, **kwargs)
        if set(kwargs) & STORING:
            return super().run_with_cache(*args, names_filter=names_filter, **kwargs)
        cache = SiteCache(self, args[0] if args else None)
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

        Args:
            listener: Called with every activation; it cannot change them, which makes it cheap.
            names_filter: What to listen to; None takes every site but the costly ones.
            filling: The sites that have been heard, read at the end of the block.

        Returns:
            A context.

        Raises:
            SiteError: If a forward ran and something asked for by name is not in `filling`.
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
            heard = {id(each) for site in wanted if site in filling for each in wanted[site]}
            requests = (each for of_site in wanted.values() for each in of_site)
            _check_fired(each.name for each in requests if id(each) not in heard)

    def get_caching_hooks(
        self,
        names_filter: Names | Iterable[Names] | None = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Tensor], list, list]:
        """Make the hooks that `run_with_cache` installs, with TransformerLens's options.

        Args:
            names_filter: What to keep, by name, pattern or filter; None keeps every site but the
                costly ones (`ON_DEMAND`).
            incl_bwd: Whether to keep gradients as well.
            device: Where to keep them; None leaves them where they are.
            remove_batch_dim: Whether to drop the batch axis.
            cache: Where to put them; None makes a new dictionary.
            pos_slice: Positions to keep.

        Returns:
            The cache, forward hooks and backward hooks.
        """
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
            forward += [(site, _CheckedHook(save, wanted[site])) for site, save in fwd]
            backward += [(site, _CheckedHook(save, wanted[site])) for site, save in bwd]
        return cache, forward, backward

    def add_caching_hooks(
        self, names_filter: Names | Iterable[Names] | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Install caching hooks until `reset_hooks`, after checking their names."""
        return super().add_caching_hooks(list(self._wanted(names_filter)), *args, **kwargs)

    def _wanted(self, names_filter: Names | Iterable[Names] | None) -> dict[str, list[HookRequest]]:
        """The sites to cache in tower order, each with the requests for it."""
        if names_filter is None:  # asked for nothing in particular: whatever the run reaches
            return {site: [] for site in self.sites if not site.endswith(ON_DEMAND)}
        if callable(names_filter) or isinstance(names_filter, (str, Site)):
            names_filter = [names_filter]
        asked: dict[str, list[HookRequest]] = {}
        for name in names_filter:
            request = HookRequest("a filter" if callable(name) else str(name))
            for site in self._match(name):
                asked.setdefault(site, []).append(request)
        if not asked:
            find_sites([], self.sites)  # raises: an empty list requests for nothing
        return {site: asked[site] for site in self.sites if site in asked}


STORING = {
    "device",
    "remove_batch_dim",
    "incl_bwd",
    "reset_hooks_end",
    "clear_contexts",
    "pos_slice",
}
"""The options of `run_with_cache` that need the library's own caching hooks."""


def _check_fired(silent: Iterable[str]) -> None:
    if names := list(dict.fromkeys(silent)):
        given = "a run that never came there"
        do = "move start_at_layer or stop_at_layer, or hook another site"
        raise SiteError(f"hook {listed(names)}", given, "a run that computes the site", do)


def _notice(tensor: Tensor, hook: HookPoint) -> None:
    """A hook that does nothing but fire."""
