"""What a tree of modules has to offer: its sites, their axes, and what is out of reach and why."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interp.models.towers.tracing import Net, Place, at_rest, first_tensor

SIZES = (2, 3)
"""Two batch sizes; an axis that grows from one to the other as they do runs over the batch."""


@dataclass(frozen=True)
class Found:
    """A site: where it is, its axes, and whether the run writes over its tensor afterwards."""

    place: Place
    axes: tuple[str, ...]
    overwritten: bool


@dataclass(frozen=True)
class Survey:
    """The sites of a module, in order, and by path why a module is none, or not the whole of one.

    `embedding` is the shape of what the module gives for a batch of `SIZES[0]`.
    """

    sites: dict[str, Found]
    embedding: tuple[int, ...]
    unreachable: dict[str, str]


def survey(
    source: nn.Module, net: Net, example: Callable[[int], Tensor], *, foreign: tuple[str, ...] = ()
) -> Survey:
    """Run a module on examples and list what fires.

    `example(n)` gives n rows of input. Modules whose paths begin with a word of `foreign` belong
    to something else and are passed over.
    """
    with at_rest(source):
        everywhere = net.places(example(SIZES[0]))
        places = [at for at in everywhere if not f"{at.path}.".startswith(foreign)]
        few, more = (_look(net, places, example(n)) for n in SIZES)
    calls = Counter(place.path for place in places if place.end == "output")
    sites: dict[str, Found] = {}
    for place in places:
        name = _name(place, calls)
        small, big = few.shapes.get(place), more.shapes.get(place)
        # where a module is called `input`, its output keeps the name
        taken = place.end == "input" and name in calls
        if small is not None and big is not None and not taken:
            sites[name] = Found(place, name_axes(small, big), place in few.overwritten)
    embedding = first_tensor(few.answer)
    shape = () if embedding is None else tuple(embedding.shape)
    return Survey(sites, shape, _unreachable(source, calls, few, foreign))


def _name(place: Place, calls: Counter[str]) -> str:
    number = f"#{place.call}" if calls[place.path] > 1 else ""
    return f"{place.path}{number}{'.input' if place.end == 'input' else ''}"


def name_axes(few: Sequence[int], more: Sequence[int]) -> tuple[str, ...]:
    """Axes from the shapes in batches of the two `SIZES`.

    >>> name_axes((2, 7, 64), (3, 7, 64)), name_axes((128, 49, 96), (192, 49, 96))
    (('batch', 'axis_1', 'axis_2'), ('batch_x_64', 'axis_1', 'axis_2'))
    """
    names: list[str] = []
    for place, length in enumerate(few):
        times = length // SIZES[0]
        here = length, more[place] if place < len(more) else 0
        name = "batch" if times == 1 else f"batch_x_{times}"
        grows = times > 0 and here == (times * SIZES[0], times * SIZES[1])
        names.append(name if grows and name not in names else f"axis_{place}")
    return tuple(names)


@dataclass(frozen=True)
class _Look:
    """One run: the shapes of the tensors it came by, which of them it wrote over, and remarks."""

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
    """What there is to say of an output that is no plain tensor."""
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
