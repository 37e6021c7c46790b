"""Survey of a module tree: its sites, their axes, and which modules cannot be sites and why."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interp.models.towers.tracing import Net, Place, at_rest, first_tensor

SIZES = (2, 3)
"""Two batch sizes; an axis that grows from one to the other as they do runs over the batch."""


@dataclass(frozen=True)
class TracedSite:
    """A site of a traced module.

    Args:
        place: Where it is in the module tree.
        axes: Its axes.
        overwritten: Whether the run overwrites its tensor afterwards.
    """

    place: Place
    axes: tuple[str, ...]
    overwritten: bool


@dataclass(frozen=True)
class Survey:
    """The sites of a module, and the modules that are none.

    Args:
        sites: The sites by name, in the order of the computation.
        embedding: Shape of the module's output for a batch of `SIZES[0]`.
        unreachable: By path, why a module is no site, or not the whole of one.
    """

    sites: dict[str, TracedSite]
    embedding: tuple[int, ...]
    unreachable: dict[str, str]


def survey(
    source: nn.Module, net: Net, example: Callable[[int], Tensor], *, foreign: tuple[str, ...] = ()
) -> Survey:
    """Run a module on examples and list the sites that fire.

    Args:
        source: The module.
        net: The same module under nnsight.
        example: Gives n rows of input.
        foreign: Beginnings of paths that belong to something else and are left out.

    Returns:
        The survey.
    """
    with at_rest(source):
        everywhere = net.places(example(SIZES[0]))
        places = [at for at in everywhere if not f"{at.path}.".startswith(foreign)]
        few, more = (_look(net, places, example(n)) for n in SIZES)
    calls = Counter(place.path for place in places if place.end == "output")
    sites: dict[str, TracedSite] = {}
    for place in places:
        name = _name(place, calls)
        small, big = few.shapes.get(place), more.shapes.get(place)
        # where a module is called `input`, its output keeps the name
        taken = place.end == "input" and name in calls
        if small is not None and big is not None and not taken:
            sites[name] = TracedSite(place, name_axes(small, big), place in few.overwritten)
    embedding = first_tensor(few.answer)
    shape = () if embedding is None else tuple(embedding.shape)
    return Survey(sites, shape, _unreachable(source, calls, few, foreign))


def _name(place: Place, calls: Counter[str]) -> str:
    number = f"#{place.call}" if calls[place.path] > 1 else ""
    return f"{place.path}{number}{'.input' if place.end == 'input' else ''}"


def name_axes(few: Sequence[int], more: Sequence[int]) -> tuple[str, ...]:
    """Name axes from the shapes in batches of the two `SIZES`.

    Args:
        few: Shape in a batch of `SIZES[0]`.
        more: Shape in a batch of `SIZES[1]`.

    Returns:
        `batch` or `batch_x_n` for the axis that grows with the batch, `axis_1`, `axis_2` for
        others.

    >>> name_axes((2, 7, 64), (3, 7, 64)), name_axes((128, 49, 96), (192, 49, 96))
    (('batch', 'axis_1', 'axis_2'), ('batch_x_64', 'axis_1', 'axis_2'))
    """
    names: list[str] = []
    for axis, length in enumerate(few):
        times = length // SIZES[0]
        here = length, more[axis] if axis < len(more) else 0
        name = "batch" if times == 1 else f"batch_x_{times}"
        grows = times > 0 and here == (times * SIZES[0], times * SIZES[1])
        names.append(name if grows and name not in names else f"axis_{axis}")
    return tuple(names)


@dataclass(frozen=True)
class _Look:
    """One run: shapes of the tensors, which of them were overwritten, and remarks on outputs."""

    shapes: dict[Place, tuple[int, ...]]
    overwritten: set[Place]
    remarks: dict[str, str]
    answer: Any


def _look(net: Net, places: Sequence[Place], x: Tensor) -> _Look:
    seen: dict[Place, tuple[Tensor, int]] = {}
    remarks: dict[str, str] = {}

    def note(place: Place) -> Callable[[Any], Any]:
        def look(value: Any) -> Any:
            tensor = first_tensor(value)
            if tensor is not None:
                seen[place] = tensor, tensor._version
            if place.end == "output" and not isinstance(value, Tensor):
                remarks[place.path] = _remark(value)
            return value

        return look

    answer = net.run(x, [(place, note(place)) for place in places])
    shapes = {place: tuple(tensor.shape) for place, (tensor, _) in seen.items()}
    written = {place for place, (tensor, version) in seen.items() if tensor._version != version}
    return _Look(shapes, written, remarks, answer)


def _remark(value: Any) -> str:
    """The remark on an output that is no plain tensor."""
    kind = type(value).__name__
    if first_tensor(value) is None:
        return f"gives a {kind} that holds no tensor"
    return f"gives a {kind}, of which the site is the first tensor"


def _unreachable(
    source: nn.Module, calls: Counter[str], look: _Look, foreign: tuple[str, ...]
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    paths: dict[nn.Module, str] = {}
    fused: set[nn.Module] = set()  # within an attention that reads their weights and no more
    for path, module in source.named_modules(remove_duplicate=False):
        if isinstance(module, nn.MultiheadAttention):
            fused.update(module.children())
        if not path or f"{path}.".startswith(foreign):
            continue
        if module in paths:
            reasons[path] = f"is {paths[module]} under another name"
        elif calls[path] > 1:
            reasons[path] = f"runs {calls[path]} times; its sites are {path}#0 and so on, by call"
        elif calls[path] == 0 and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            reasons[path] = "is never called" + (
                ": fused attention reads its weights" if module in fused else ""
            )
        elif path in look.remarks:
            reasons[path] = look.remarks[path]
        paths.setdefault(module, path)
    return reasons
