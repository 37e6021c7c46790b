"""Runs of any module tree through nnsight, stopping at the places that are asked for.

nnsight puts a forward of its own on every module and leaves it there. Here it is removed again
between runs, so that the model costs, copies and pickles as before. Importing nnsight gives every
Python object of the process a `.save()` and wraps `Tensor.backward`, so it is imported when the
first tower is traced and not before.
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
    """One end of one call of a module.

    Args:
        path: The module's path.
        end: `input` or `output`.
        call: The number of the call in a run, from 0.
    """

    path: str
    end: str
    call: int = 0


Visit = tuple[Place, Callable[[object], object]]
"""A place, and what becomes of the value there; the same object back leaves the run alone."""


def first_tensor(value: object) -> Tensor | None:
    """The tensor itself, or the first one in a tuple, list or dictionary.

    Args:
        value: What a module received or returned.

    Returns:
        The tensor, or None if there is none.

    >>> first_tensor((None, torch.ones(2), torch.zeros(2)))
    tensor([1., 1.])
    """
    return next((part for _, part in _parts(value) if isinstance(part, Tensor)), None)


def _parts(value: object) -> list[tuple[Any, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (tuple, list)) else [(None, value)]


def with_first_tensor(value: Any, tensor: Tensor) -> object:
    """Replace the first tensor of a value, in a container of the same kind.

    Args:
        value: A tensor, tuple, list or dictionary.
        tensor: What takes its place.

    Returns:
        The new value; a list or dictionary is changed in place.

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
    """A module under nnsight, run while values are read and replaced at places of the tree.

    Args:
        source: The module.
        method: The method that a run calls.
    """

    def __init__(self, source: nn.Module, *, method: str = "__call__") -> None:
        from nnsight import NNsight

        before = {module: dict(module.__dict__) for module in source.modules()}
        with catch_warnings():  # a module named `output` is moved; here modules go by their paths
            simplefilter("ignore")
            self._net = NNsight(source)
        self._method = method
        self._envoys = {envoy.path.removeprefix(f"{ROOT}."): envoy for envoy in self._net.modules()}
        self._installed: list[tuple[nn.Module, dict[str, object]]] = []
        for module, old in before.items():
            added = {
                key: value for key, value in module.__dict__.items() if old.get(key) is not value
            }
            self._installed.append((module, added))
            _put(module, {key: old.get(key, _ABSENT) for key in added})
        self._running = False

    def run(self, x: Tensor, visits: Sequence[Visit] = ()) -> object:
        """Run the module, visiting places on the way.

        Args:
            x: The input.
            visits: Places with functions of the value there, in the order of the computation.
                Returning the same object leaves the run unchanged.

        Returns:
            The module's output.

        Raises:
            SiteError: For a place that the run did not reach, or reached earlier.
        """
        from nnsight.intervention.interleaver import OutOfOrderError

        if not visits:
            self._refuse_nesting()
            return getattr(self._net._module, self._method)(x)
        answer: list[object] = []
        waiting: list[Place] = []
        with self._instrumented():
            try:
                with self._net.trace(x, fn=self._method) as tracer:
                    for place, visit in visits:
                        waiting[:] = [place]
                        for _ in tracer.iter[place.call]:
                            self._visit(place, visit)
                    answer.append(tracer.result)
            except OutOfOrderError:
                asked = f"stop at the {waiting[0].end} of {waiting[0].path}"
                given = "a run that did not come there, or not in the order of the run before"
                do = "hook another site, or run in eval mode"
                raise SiteError(asked, given, "a module that runs whatever the input", do) from None
        return answer[0]

    def _visit(self, place: Place, visit: Callable[[object], object]) -> None:
        envoy = self._envoys[place.path]
        value = getattr(envoy, place.end)
        new = visit(value)
        if new is not value:
            setattr(envoy, place.end, new)

    def places(self, x: Tensor) -> list[Place]:
        """Every place that a run on `x` reaches, in order."""
        views = []
        with self._instrumented():
            with self._net.trace(x, fn=self._method) as tracer:
                views.append(tracer.cache(device=None, include_output=False, include_inputs=True))
                views.append(tracer.cache(device=None))
        given, gave = ([key for key in view.keys() if key != ROOT] for view in views)
        calls = {key.removeprefix(f"{ROOT}."): len(views[1][key]) for key in gave}
        first = _nested([key.removeprefix(f"{ROOT}.") for key in given], list(calls))
        again = {path: n for path, n in calls.items() if n > 1}
        return self._in_order(x, first, again) if again else first

    def _in_order(self, x: Tensor, first: list[Place], again: dict[str, int]) -> list[Place]:
        """The first calls in order, with later calls where a run reaches them."""
        log: list[Place] = []
        with self._instrumented():
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
    def _instrumented(self) -> Iterator[None]:
        """Put nnsight's forwards on the modules, and restore afterwards what was there before."""
        self._refuse_nesting()
        before = [
            (module, {key: module.__dict__.get(key, _ABSENT) for key in added})
            for module, added in self._installed
        ]
        self._running = True
        try:
            for module, added in self._installed:
                _put(module, added)
            yield
        finally:
            self._running = False
            for module, old in before:
                _put(module, old)

    def _refuse_nesting(self) -> None:
        if self._running:
            given = "a call from one of its own hooks"
            do = "run it before, and keep what the hook needs"
            raise SpecificationError("run a traced tower", given, "one run at a time", do)


_ABSENT = object()


def _put(module: nn.Module, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        if value is _ABSENT:
            module.__dict__.pop(key, None)
        else:
            module.__dict__[key] = value


def _nested(given: Sequence[str], gave: Sequence[str]) -> list[Place]:
    """Merge the order of inputs and the order of outputs into one.

    Calls are nested: when a module gives its output, its own input was the last to come of all
    those whose outputs are still to come. So inputs are drawn until it is there.

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
    """Set a module to eval mode without gradients for a `with` block, then restore every mode.

    Args:
        source: The module.

    Returns:
        A context.
    """
    modes = {module: module.training for module in source.modules()}
    source.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
