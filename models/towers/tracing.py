"""Any tree of modules, run through nnsight with a stop at each place that somebody asks for.

nnsight puts a forward of its own on every module and leaves it there. Here it is taken off again
between runs, so that the model costs, copies and pickles as it did before. Importing nnsight gives
every Python object of the process a `.save()` and wraps `Tensor.backward`; that is why it is
imported when the first tower is traced and not before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn

from interp.core.errors import SiteError, SpecificationError

ROOT = "model"
"""What nnsight calls the module that it was given; every path starts with it."""


class Place(NamedTuple):
    """One end (`input` or `output`) of one call of a module, the calls counted from 0."""

    path: str
    end: str
    call: int = 0


Visit = tuple[Place, Callable[[Any], Any]]
"""A place, and what becomes of the value there; the same object back leaves the run alone."""


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first one in a tuple, list or dictionary.

    >>> first_tensor((None, torch.ones(2), torch.zeros(2)))
    tensor([1., 1.])
    """
    return next((part for _, part in _parts(value) if isinstance(part, Tensor)), None)


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (tuple, list)) else [(None, value)]


def with_first_tensor(value: Any, tensor: Tensor) -> Any:
    """The value with its first tensor replaced, in a container of the same kind.

    >>> with_first_tensor((None, torch.ones(1)), torch.zeros(1))
    (None, tensor([0.]))
    """
    if isinstance(value, Tensor):
        return tensor
    key = next(key for key, part in _parts(value) if isinstance(part, Tensor))
    if isinstance(value, tuple):
        parts = (*value[:key], tensor, *value[key + 1 :])
        return type(value)(*parts) if hasattr(value, "_fields") else parts
    # a list or dictionary was made for this call: the module's own, whatever its class
    value[key] = tensor
    return value


class Net:
    """A module under nnsight: runs it while values are read and replaced at places of the tree.

    `method` is what a run calls, `__call__` unless the module has no forward of its own for it.
    """

    def __init__(self, source: nn.Module, *, method: str = "__call__") -> None:
        from nnsight import NNsight

        before = {module: dict(module.__dict__) for module in source.modules()}
        with catch_warnings():  # a module named `output` is moved; here modules go by their paths
            simplefilter("ignore")
            self._net = NNsight(source)
        self._method = method
        self._envoys = {envoy.path.removeprefix(f"{ROOT}."): envoy for envoy in self._net.modules()}
        self._laid: list[tuple[nn.Module, dict[str, Any]]] = []
        for module, old in before.items():
            laid = {key: at for key, at in module.__dict__.items() if old.get(key) is not at}
            self._laid.append((module, laid))
            _put(module, {key: old.get(key, _ABSENT) for key in laid})
        self._running = False

    def run(self, x: Tensor, visits: Sequence[Visit] = ()) -> Any:
        """What the module gives for `x`; `visits` are made in the order of the computation.

        `SiteError` names a place that the run did not come to, or came to earlier.
        """
        from nnsight.intervention.interleaver import OutOfOrderError

        if not visits:
            self._refuse_nesting()
            return getattr(self._net._module, self._method)(x)
        answer: list[Any] = []
        waiting: list[Place] = []
        with self._laid_on():
            try:
                with self._net.trace(x, fn=self._method) as tracer:
                    for place, visit in visits:
                        waiting[:] = [place]
                        for _ in tracer.iter[place.call]:
                            self._visit(place, visit)
                    answer.append(tracer.result)
            except OutOfOrderError:
                raise SiteError(
                    f"stop at the {waiting[0].end} of {waiting[0].path}",
                    "a run that did not come there, or not in the order of the run before",
                    "a module that runs whatever the input",
                    "hook another site, or run in eval mode",
                ) from None
        return answer[0]

    def _visit(self, place: Place, visit: Callable[[Any], Any]) -> None:
        envoy = self._envoys[place.path]
        value = getattr(envoy, place.end)
        new = visit(value)
        if new is not value:
            setattr(envoy, place.end, new)

    def places(self, x: Tensor) -> list[Place]:
        """Every place that a run on `x` comes to, in its order."""
        views: list[Any] = []
        with self._laid_on():
            with self._net.trace(x, fn=self._method) as tracer:
                views.append(tracer.cache(device=None, include_output=False, include_inputs=True))
                views.append(tracer.cache(device=None))
        given, gave = ([key for key in view.keys() if key != ROOT] for view in views)
        calls = {key.removeprefix(f"{ROOT}."): len(views[1][key]) for key in gave}
        first = _nested([key.removeprefix(f"{ROOT}.") for key in given], list(calls))
        again = {path: n for path, n in calls.items() if n > 1}
        return self._in_order(x, first, again) if again else first

    def _in_order(self, x: Tensor, first: list[Place], again: dict[str, int]) -> list[Place]:
        """The first calls in order, with the later ones where a run comes to them."""
        log: list[Place] = []
        with self._laid_on():
            with self._net.trace(fn=self._method) as tracer:
                with tracer.invoke(x):
                    pass
                with tracer.invoke():
                    for place in first:
                        getattr(self._envoys[place.path], place.end)
                        log.append(place)
                for path, calls in again.items():
                    with tracer.invoke():
                        for call in tracer.iter[1:calls]:
                            _ = self._envoys[path].input
                            log.append(Place(path, "input", call))
                            _ = self._envoys[path].output
                            log.append(Place(path, "output", call))
        return log

    @contextmanager
    def _laid_on(self) -> Iterator[None]:
        """nnsight's forwards on the modules, and afterwards whatever was there before."""
        self._refuse_nesting()
        before = [
            (module, {key: module.__dict__.get(key, _ABSENT) for key in laid})
            for module, laid in self._laid
        ]
        self._running = True
        try:
            for module, laid in self._laid:
                _put(module, laid)
            yield
        finally:
            self._running = False
            for module, old in before:
                _put(module, old)

    def _refuse_nesting(self) -> None:
        if self._running:
            raise SpecificationError(
                "run a traced tower",
                "a call from one of its own hooks",
                "one run at a time",
                "run it before, and keep what the hook needs",
            )


_ABSENT = object()


def _put(module: nn.Module, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value is _ABSENT:
            module.__dict__.pop(key, None)
        else:
            module.__dict__[key] = value


def _nested(given: Sequence[str], gave: Sequence[str]) -> list[Place]:
    """One order of inputs and outputs, from the order of each.

    Calls lie within one another: before a module gives its output, its own input was the last to
    come of all those whose outputs are still to come, so inputs are drawn until it is there.

    >>> [(place.path, place.end) for place in _nested(["a", "a.b"], ["a.b", "a"])]
    [('a', 'input'), ('a.b', 'input'), ('a.b', 'output'), ('a', 'output')]
    """
    places: list[Place] = []
    coming, begun = iter(given), set()
    for path in gave:
        while path not in begun:
            begun.add(entered := next(coming))
            places.append(Place(entered, "input"))
        places.append(Place(path, "output"))
    return places


@contextmanager
def at_rest(source: nn.Module) -> Iterator[None]:
    """The module in eval mode and without gradients, and every mode put back afterwards."""
    modes = {module: module.training for module in source.modules()}
    source.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
