"""Survey of a module tree: its sites, their axes, and which modules cannot be sites and why."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
    return Survey(_with_axes(source, sites, few), shape, _unreachable(source, calls, few, foreign))


def repeated_modules(source: nn.Module) -> list[str]:
    """The paths of a module's blocks: neighbours of one class, each of several parts, outermost.

    Args:
        source: The module.

    Returns:
        The paths, in the module's order.

    Notes:
        - A class counts where it stands at least twice in the whole, so that a stage of one block
          has it too.
        - A class that mostly stands inside others is a part of blocks, such as a gate.
        - What stands beside a stage and in none, or in a stage beside its blocks, is no block, such
          as a downsampling.
        - Where a module holds a row of layers and nothing else, it is the block: it adds the row's
          output to its input.

    >>> block = lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    >>> repeated_modules(nn.Sequential(nn.Linear(3, 4), nn.Sequential(block(), block()), block()))
    ['1.0', '1.1', '2']
    """
    # of a network of nothing else, rows of a convolution, its norm and an activation are the blocks
    return _repeated(source, _is_layer) or _repeated(source, _is_named_layer)


def _repeated(source: nn.Module, is_layer: Callable[[nn.Module], bool]) -> list[str]:
    modules = dict(source.named_modules())
    known = {
        path: (type(module), type(next(iter(module.children()))))
        for path, module in modules.items()
        if path and len(list(module.children())) > 1 and not _holds_blocks(path, module, is_layer)
    }
    kinds = Counter(known.values())
    found = {
        path: kind
        for path, kind in known.items()
        if kinds[kind] > 1
        and not any(its == kind and _inside(other, [path]) for other, its in known.items())
    }
    whole = [path for path in found if type(modules[path]) is not nn.Sequential]
    within = Counter(kind for path, kind in found.items() if _inside(path, whole))
    counts = Counter(found.values())
    found = {path: kind for path, kind in found.items() if 2 * within[kind] <= counts[kind]}
    found = {path: kind for path, kind in found.items() if not _beside_a_row(path, found)}
    while between := [path for path in found if _between_stages(path, found)]:
        found = {path: kind for path, kind in found.items() if path not in between}
    blocks: list[str] = []
    for path in found:
        if not _inside(path, blocks):
            blocks.append(path)
    return [_with_sum(path, modules) for path in blocks]


def _beside_a_row(path: str, found: Collection[str]) -> bool:
    """Whether it lies in a named part of a numbered stage, beside as long a row of the stage's."""
    split = [other.rpartition(".") for other in found]
    rows = Counter(parent for parent, _, own in split if own.isdigit())
    parts = path.split(".")
    for n in range(1, len(parts)):
        stage, own = ".".join(parts[:n]), ".".join(parts[: n + 1])
        if parts[n - 1].isdigit() and not parts[n].isdigit() and own not in rows:
            beside = [length for row, length in rows.items() if row.rpartition(".")[0] == stage]
            if beside and max(beside) >= sum(f"{other}.".startswith(f"{own}.") for other in found):
                return True
    return False


def _between_stages(path: str, found: Mapping[str, object]) -> bool:
    """Whether stages of other blocks stand beside a module, and none of its own kind in them."""
    parent = path.rpartition(".")[0]
    beside = f"{parent}." if parent else ""
    stages = [
        kind
        for other, kind in found.items()
        if other.startswith(beside)
        and "." in (rest := other.removeprefix(beside))
        and beside + rest.partition(".")[0] not in found
    ]
    return bool(stages) and found[path] not in stages


def _with_sum(path: str, modules: Mapping[str, nn.Module]) -> str:
    """Where a block is a plain row of layers, the module that holds nothing but this row."""
    parent = path.rpartition(".")[0]
    around = modules[parent]
    bare = type(modules[path]) is nn.Sequential and len(list(around.children())) == 1
    holds = bare and parent and not isinstance(around, (nn.Sequential, nn.ModuleList))
    return parent if holds else path


def _inside(path: str, others: Sequence[str]) -> bool:
    return path.startswith(tuple(f"{other}." for other in others))


_LAYER = re.compile(r"norm(act|activation)?(\dd)?$", re.IGNORECASE)
"""Ends of the names of norms, and of a convolution with its norm: one layer of several parts."""


def _is_named_layer(module: nn.Module) -> bool:
    return bool(_LAYER.search(type(module).__name__))


def _is_layer(module: nn.Module) -> bool:
    """Whether it is named so, or a row of one map and its norm, with or without an activation."""
    if _is_named_layer(module):
        return True
    parts = list(module.children())
    if type(module) is not nn.Sequential or any(list(part.children()) for part in parts):
        return False
    maps = sum(any(p.ndim > 1 for p in part.parameters(recurse=False)) for part in parts)
    return maps == 1 and any(_is_named_layer(part) for part in parts)


def _holds_blocks(path: str, module: nn.Module, is_layer: Callable[[nn.Module], bool]) -> bool:
    """Whether a module is a row of blocks, a stage that has one, or a layer: no block itself."""
    if is_layer(module) or type(module).__name__.startswith("Downsample"):
        return True
    named = [(path.rpartition(".")[2], module), *module.named_children()]
    return any(_is_row(name, each, is_layer) for name, each in named)


def _is_row(name: str, module: nn.Module, is_layer: Callable[[nn.Module], bool]) -> bool:
    """Whether its parts are several and have parts themselves: all of one class, or a named row.

    A numbered row of different parts, such as attention and an MLP, is a block of a row itself;
    unless some class stands in it twice.
    """
    parts = list(module.children())
    kinds = {type(part) for part in parts}
    whole = [len(list(part.children())) > 1 and not is_layer(part) for part in parts]
    if len(parts) < 2:
        return False
    if len(kinds) == 1:
        return any(whole)
    mixed = type(module) is nn.Sequential and all(whole)
    return mixed and (not name.isdigit() or len(kinds) < len(parts))


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
    """One run: shapes of the tensors, where they lie, which were overwritten, and remarks."""

    shapes: dict[Place, tuple[int, ...]]
    tensors: dict[Place, tuple]
    overwritten: set[Place]
    remarks: dict[str, str]
    answer: object


_MAPS = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
"""Modules that take four axes as batch, channel, row and column."""

_PASSING = (nn.Identity, nn.modules.dropout._DropoutNd)
_PASSING_NAMES = ("DropPath", "StochasticDepth", "LayerScale")
"""Modules, beside activation functions, that work on each number: the axes stay what they are."""


def _with_axes(
    source: nn.Module, sites: Mapping[str, TracedSite], look: _Look
) -> dict[str, TracedSite]:
    """Name axes where modules say what they are; the same tensor has the same axes everywhere."""
    modules = dict(source.named_modules(remove_duplicate=False))
    by_tensor: dict[tuple, set[tuple[str, ...]]] = {}
    for kind in (_of_maps, _of_norms):
        _learn(kind, sites, modules, look, by_tensor)
    lengths = {
        tensor[1][axes.index("pos")] for tensor, (axes, *_) in by_tensor.items() if "pos" in axes
    }
    _learn(partial(_of_linear, lengths=lengths), sites, modules, look, by_tensor)
    passing = [
        (look.tensors[site.place], look.tensors[taken])
        for site in sites.values()
        if site.place.end == "output"
        and _passes(modules[site.place.path])
        and (taken := site.place._replace(end="input")) in look.tensors
    ]
    grown = -1
    while grown != len(by_tensor):  # from tensor to tensor until nothing new is learnt
        grown = len(by_tensor)
        for out, taken in passing:
            if out[1] == taken[1]:
                for known, other in ((out, taken), (taken, out)):
                    if known in by_tensor:
                        by_tensor.setdefault(other, by_tensor[known])
    named = {}
    for name, site in sites.items():
        found = by_tensor.get(look.tensors[site.place], set())
        # two modules that disagree say nothing
        named[name] = replace(site, axes=next(iter(found))) if len(found) == 1 else site
    return named


def _learn(
    kind: Callable[[nn.Module, tuple[str, ...], Sequence[int]], tuple[str, ...] | None],
    sites: Mapping[str, TracedSite],
    modules: Mapping[str, nn.Module],
    look: _Look,
    by_tensor: dict[tuple, set[tuple[str, ...]]],
) -> None:
    for site in sites.values():
        axes = kind(modules[site.place.path], site.axes, look.shapes[site.place])
        if axes is not None:
            by_tensor.setdefault(look.tensors[site.place], set()).add(axes)


def _of_maps(
    module: nn.Module, axes: tuple[str, ...], shape: Sequence[int]
) -> tuple[str, ...] | None:
    channels_first = isinstance(module, _MAPS) or type(module).__name__ == "LayerNorm2d"
    if channels_first and len(axes) == 4 and axes[0].startswith("batch"):
        return (axes[0], "channel", "row", "column")
    return None


def _of_norms(
    module: nn.Module, axes: tuple[str, ...], shape: Sequence[int]
) -> tuple[str, ...] | None:
    """A norm over the last axis says that it holds features; of three axes, one is left."""
    return _tokens(axes) if isinstance(module, nn.LayerNorm) and len(axes) == 3 else None


def _of_linear(
    module: nn.Module, axes: tuple[str, ...], shape: Sequence[int], *, lengths: Container[int]
) -> tuple[str, ...] | None:
    """A linear map also runs over tokens (in a mixer), so its other axis must be long as theirs."""
    found = _tokens(axes) if isinstance(module, nn.Linear) and len(axes) == 3 else None
    if found is None or shape[-1] in lengths or shape[found.index("pos")] not in lengths:
        return None
    return found


def _tokens(axes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Three axes, of which the last is known to be features."""
    first = axes[:2]
    if sum(axis.startswith("batch") for axis in first) != 1:
        return None
    return (*(axis if axis.startswith("batch") else "pos" for axis in first), "feature")


def _passes(module: nn.Module) -> bool:
    return (
        isinstance(module, _PASSING)
        or type(module).__module__ == nn.ReLU.__module__
        or type(module).__name__ in _PASSING_NAMES
    )


def _look(net: Net, places: Sequence[Place], x: Tensor) -> _Look:
    seen: dict[Place, tuple[Tensor, int]] = {}
    remarks: dict[str, str] = {}

    def note(place: Place) -> Callable[[object], object]:
        def look(value: object) -> object:
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
    # all are alive until here, so that one place in memory is one tensor
    lies = {p: (t.data_ptr(), tuple(t.shape), t.stride()) for p, (t, _) in seen.items()}
    return _Look(shapes, lies, written, remarks, answer)


def _remark(value: object) -> str:
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
