"""The protocols of a model that can be patched and probed, which `interp.models` satisfies.

probes and circuits never import models. They take anything that satisfies these protocols, from a
hand-made two-neuron network to a CLIP tower. `straightening` takes one for the
linear map that it is at its input.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from interp.core.errors import ShapeError, SiteError, SpecificationError, listed

Hook = Callable[..., Tensor | None]
"""Called as `hook(tensor, hook=point)`; what it returns replaces the activation, None leaves it."""


@runtime_checkable
class Tower(Protocol):
    """A chain of blocks with named activations, in TransformerLens's spelling.

    `tower(x, stop_at_layer=m)` returns the stream that enters block m, and
    `tower(stream, start_at_layer=l)` goes on from the stream that enters block l, so
    `tower(tower(x, stop_at_layer=l), start_at_layer=l) == tower(x)`. A `TextTower` needs its tokens
    as well to go on; `resumption` gives what a tower needs.
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
class TextTower(Tower, Protocol):
    """A tower of texts, which reads its tokens again when a run goes on: they say where it ends.

    `tower(tower(x, stop_at_layer=l), start_at_layer=l, tokens=x) == tower(x)`.
    """

    rereads_tokens: bool
    """True; what tells a text tower from others."""


def resumption(tower: Tower, x: Tensor) -> dict[str, Any]:
    """Keywords that a run of the inputs `x` needs when it goes on from a stream."""
    return {"tokens": x} if isinstance(tower, TextTower) and tower.rereads_tokens else {}


@runtime_checkable
class Component(Protocol):
    """What reads the stream and adds to it: all heads of an attention, or an MLP.

    Args:
        layer: The block's number.
        reads: The site of the stream that it reads.
        writes: The site from which `write` computes each writer's part.
        readers: Names of the readers.
        writers: Names of the writers.
        places: For each reader, the site and index that hold what `read` computes.

    Notes:
        A *reader* is an input that may be given a stream of its own (a head's query, key or value,
        or an MLP), a *writer* is a part of what is added (a head, an MLP). Streams and parts are
        `[batch reader *stream]` and `[batch writer *stream]`, the stream's own axes last.
    """

    layer: int
    reads: str
    """The site of the stream that it reads."""
    writes: str
    """The site from which `write` tells the writers apart."""
    readers: tuple[str, ...]
    writers: tuple[str, ...]
    places: tuple[tuple[str, Mapping[str, int]], ...]
    """For each reader, the site and place that hold what `read` makes of its stream."""

    def write(self, activation: Tensor) -> Tensor:
        """What each writer adds, from the activation at `writes`; linear."""
        ...

    def read(self, reader: int, stream: Tensor) -> Tensor:
        """What one reader computes from a stream."""
        ...

    def run(self, streams: Tensor, tokens: Tensor | None = None) -> Tensor:
        """What each writer adds when each reader has a stream of its own."""
        ...


@runtime_checkable
class Branched(Component, Protocol):
    """A component of several readers, which in an ordinary run all read the same stream.

    Args:
        inner: The sites, one behind each kind of reader, whose gradients `pull` starts from.

    Notes:
        A gradient at that stream is the sum of theirs; `pull` separates them.
    """

    inner: tuple[str, ...]
    """The sites, one behind each kind of reader, whose gradients `pull` starts from."""

    def pull(
        self,
        stream: Tensor,
        values: Sequence[Tensor],
        gradients: Sequence[Tensor],
        *,
        straight: bool = False,
    ) -> Tensor:
        """Gradients at each reader's stream, from activations and gradients at `inner`.

        Args:
            stream: The stream that all readers read.
            values: Activations at `inner`.
            gradients: Gradients at `inner`.
            straight: Whether to hold the scale of norms fixed.

        Returns:
            `[batch reader *stream]`.
        """
        ...


@runtime_checkable
class Wired(Tower, Protocol):
    """A tower whose stream is a sum of its components' parts, which can be rewired by edge.

    The stream that enters block l is the stream that enters block 0 plus, up to constants, what all
    writers of the components before it have added.
    """

    @property
    def components(self) -> Sequence[Component]:
        """Everything that reads the stream and adds to it, in order."""
        ...


@runtime_checkable
class Finishing(Tower, Protocol):
    """A tower with a cheaper way to the embedding where the read-out needs few positions.

    `tower.finish(stream, start_at_layer=l) == tower(stream, start_at_layer=l)` up to the order of
    sums, under whatever hooks are installed. A CLIP's last block has to be computed for one token
    only. Sweeps use it where it exists.
    """

    def finish(self, stream: Tensor, *, start_at_layer: int) -> Tensor:
        """The embedding, from the stream that enters block `start_at_layer`."""
        ...


@runtime_checkable
class Enterable(Tower, Protocol):
    """A tower whose blocks can be entered in the middle, where what follows mixes no positions.

    With `site` and `stream = tower.added_to(site)` read from one run of `x`,
    `tower.enter(site, cache[site], cache[stream]) == tower(x)` up to the order of sums. A patched
    run then repeats nothing of its block that comes before the patch. Sweeps use it where it
    exists.
    """

    def added_to(self, site: str) -> str | None:
        """The site of the stream that a block adds `site` to; None where no run can enter."""
        ...

    def enter(self, site: str, activation: Tensor, stream: Tensor) -> Tensor:
        """The embedding, from the activation at `site` and the stream that it is added to."""
        ...


def check_evaluation(tower: Any, asked: str) -> None:
    """Refuse a tower in training mode where that makes one run differ from the next.

    Batch norm then normalises by the batch and changes its own statistics; dropout draws.

    Args:
        tower: A tower, or its module.
        asked: What was asked for, for the message.

    Raises:
        SpecificationError: For batch norm or dropout in training mode; the message names it.
    """
    module = getattr(tower, "source", tower)
    foreign = getattr(tower, "foreign", ())
    for name, each in module.named_modules() if isinstance(module, nn.Module) else ():
        rates = [getattr(each, kind, 0) for kind in ("p", "prob", "drop_prob")]
        draws = "Drop" in type(each).__name__ and any(rate and rate > 0 for rate in rates)
        wrong = draws or isinstance(each, nn.modules.batchnorm._BatchNorm)
        if wrong and each.training and not name.startswith(foreign):
            given = f"a tower whose {name} ({type(each).__name__}) is in training mode"
            right = "evaluation mode, in which a picture has one embedding"
            raise SpecificationError(asked, given, right, "call .eval() on the module or tower")


@dataclass(frozen=True)
class Patch:
    """A replacement of part of an activation, which runs take: `tower.run_with_hooks(x, patches=)`.

    Args:
        site: The activation's name, or a pattern for several.
        value: What is put in: a tensor of the shape of the part or one that spreads to it, a
            number, or a function of the part.
        where: An index for some of the site's axes; axes that it leaves out are replaced whole. Two
            lists of places are taken in pairs, as NumPy takes them: a patch a place makes a grid.

    Raises:
        SpecificationError: For text in the place of a value or an index.

    >>> import torch
    >>> stream = torch.zeros(1, 3, 2)
    >>> patch = Patch("blocks.0.hook_resid_pre", torch.ones(2), where={"pos": 1})
    >>> patch.apply(stream, axes=("batch", "pos", "d_model"))[0, :, 0].tolist()
    [0.0, 1.0, 0.0]
    >>> double = Patch("blocks.0.hook_resid_pre", lambda part: part + 2, where={"pos": 2})
    >>> double.apply(stream, axes=("batch", "pos", "d_model"))[0, :, 0].tolist()
    [0.0, 0.0, 2.0]
    """

    site: str
    value: Tensor | float | Callable[[Tensor], Tensor]
    where: Mapping[str, int | slice | Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = self.where if isinstance(self.where, Mapping) else {"where": self.where}
        words = {
            name: given
            for name, given in {"value": self.value, **places}.items()
            if isinstance(given, str) or (given is self.where)
        }
        if not isinstance(self.site, str) or words:
            raise SpecificationError(
                f"patch {self.site!r}",
                ", ".join(f"{name} = {given!r}" for name, given in words.items())
                or f"a site of type {type(self.site).__name__}",
                "a site's name, a tensor, number or function as value, and places by axis",
                "write Patch('blocks.0.hook_resid_pre', 0.0, where={'pos': 1})",
            )

    def apply(self, activation: Tensor, *, axes: tuple[str, ...]) -> Tensor:
        """Put the value into a copy of an activation.

        Args:
            activation: The activation, which is not changed.
            axes: Its axes in order.

        Returns:
            The patched copy.

        Raises:
            SiteError: For an axis that the site does not have.
            ShapeError: If the value does not fit, or for a place that the axis does not have.
        """
        index = part(self.where, axes=axes, site=self.site)
        for axis, place, size in zip(axes, index, activation.shape, strict=True):
            if isinstance(place, int) and not -size <= place < size:
                do = "count from the start of the axis"
                raise ShapeError(f"patch {self.site}", f"{axis} {place}", f"0 to {size - 1}", do)
        patched = activation.clone()
        given: Any = "a function"
        try:
            value = self.value(activation[index]) if callable(self.value) else self.value
            given = torch.as_tensor(value)
            patched[index] = given.to(patched)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            shape = f"a value of shape {tuple(given.shape)}" if isinstance(given, Tensor) else given
            raise ShapeError(
                f"patch {self.site}",
                f"{shape} at {dict(self.where)}",
                f"a part of {dict(zip(axes, activation.shape, strict=True))}",
                f"give a value of that part's shape ({error})",
            ) from None
        return patched


def part(
    where: Mapping[str, int | slice | Tensor], *, axes: tuple[str, ...], site: str
) -> tuple[int | slice | Tensor, ...]:
    """Convert an index by axis name into an index by axis order.

    Args:
        where: An index for some axes.
        axes: The axes in order.
        site: The site's name, for messages.

    Returns:
        An index for every axis.

    Raises:
        SiteError: For an axis that the site does not have.
    """
    unknown = set(where) - set(axes)
    if unknown:
        given = f"axis {listed(sorted(unknown))}"
        raise SiteError(f"index {site}", given, f"one of {listed(axes)}", "use the site's own axes")
    return tuple(where.get(axis, slice(None)) for axis in axes)


def straightening(tower: Tower, asked: str, *, layer: int = 0) -> list[tuple[str, Hook]]:
    """Hooks that change no activation, but what its gradient takes for granted.

    Norm scales, attention patterns and the gain of every activation function are held at their
    values, so that a stream times its gradient sums to the output, up to biases.

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
        given = f"a {type(tower).__name__} without sites for norm scales and patterns"
        right = "a hooked tower of open_clip's, with sites hook_scale and hook_pattern"
        do = "use a method that needs no gradient, or another gradient"
        raise SpecificationError(asked, given, right, do)
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
