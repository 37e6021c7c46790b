"""A stretch of a tower as a plain function: from one activation of a run to a later one.

Gradients between two activations need the blocks between them and nothing else. A walk goes down
the tower once and stops at the sites that were asked for; from each stop, a segment goes on with
another activation in the place of the run's own.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor

from interp.core.errors import (
    DataError,
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
    check_known,
    out_of_memory,
)
from interp.core.progress import say
from interp.core.sites import find_sites
from interp.core.tower import Tower

Baseline = str | Tensor | Mapping[str, Tensor]
"""Where an activation is moved to: "zero"; inputs, for the activations of their run, example by
example; or activations by site, with a batch axis of 1 or of the examples."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stop:
    """A site of a run: its activation, and the stream that enters its block (-1: the input)."""

    site: str
    layer: int
    activation: Tensor
    stream: Tensor
    tokens: Tensor | None

    def words(self, start: int, stop: int | None, copies: int = 1) -> dict[str, Any]:
        """Keywords that run the tower from block `start` for so many copies of the batch."""
        return _words(self.tokens, start, stop, copies)


def _words(tokens: Tensor | None, start: int, stop: int | None, copies: int = 1) -> dict[str, Any]:
    words: dict[str, Any] = {"stop_at_layer": stop}
    if start >= 0:
        words["start_at_layer"] = start
        if tokens is not None:  # a text tower reads its output off where they end
            words["tokens"] = tokens.repeat(copies, 1)
    return words


def behind(tower: Tower, layer: int) -> int | None:
    """Where to stop so that block `layer` is the last that runs; None runs to the output."""
    return layer + 1 if layer < tower.n_layers else None


def walk(tower: Tower, x: Tensor, sites: Sequence[str]) -> Iterator[Stop]:
    """Run `x` through the tower once, and stop at each of the sites in order."""
    forward = getattr(tower, "forward", tower.__call__)
    resumes = not x.is_floating_point() and "tokens" in inspect.signature(forward).parameters
    tokens, stream, at = (x if resumes else None), x, -1
    for layer, names in groupby(sorted(sites, key=tower.layer), key=tower.layer):
        here = list(names)
        with torch.no_grad():
            if layer > at:
                stream, at = tower(stream, **_words(tokens, at, layer)), layer
            out, cache = tower.run_with_cache(
                stream, names_filter=here, **_words(tokens, at, behind(tower, layer))
            )
        for site in here:
            if site not in cache:
                raise _never_came(site, layer)
            yield Stop(site, layer, cache[site], stream, tokens)
        stream, at = out, layer + 1


class Segment:
    """What a run makes of another activation at a stop: the output, or the activation at `until`.

    Called with `[copies * batch ...]`, it gives as many rows; differentiable in every mode. Blocks
    before the stop do not run, nor do those behind `until`.
    """

    def __init__(self, tower: Tower, stop: Stop, until: str | None = None) -> None:
        self.tower, self.stop, self.until = tower, stop, until
        self.last = None if until is None else behind(tower, tower.layer(until))
        self.handed_on = _is_handed_on(tower, stop)

    def __call__(self, value: Tensor) -> Tensor:
        stop, kept, fired = self.stop, [], []

        def replace(activation: Tensor, hook: object) -> Tensor:
            fired.append(True)
            return value.clone()  # a tower may go on in place

        def keep(activation: Tensor, hook: object) -> None:
            # in-place code behind the site would overwrite what is kept
            kept.append(activation.clone())

        hooks: list[Any] = [(self.until, keep)] if self.until is not None else []
        copies = len(value) // len(stop.stream)
        if self.handed_on:
            words = stop.words(stop.layer + 1, self.last, copies)
            out = self.tower.run_with_hooks(value.clone(), fwd_hooks=hooks, **words)
        else:
            stream = stop.stream.repeat(copies, *[1] * (stop.stream.ndim - 1))
            words = stop.words(stop.layer, self.last, copies)
            hooks = [(stop.site, replace), *hooks]
            out = self.tower.run_with_hooks(stream, fwd_hooks=hooks, **words)
            if not fired:
                raise _never_came(stop.site, stop.layer)
        if self.until is not None and not kept:
            raise _never_came(self.until, self.tower.layer(self.until))
        return kept[0] if kept else out


def _is_handed_on(tower: Tower, stop: Stop) -> bool:
    """Whether the site is all that its block hands on, so that runs may start behind the block.

    Found by trial: other numbers at the site come out of the block unchanged.
    """
    if stop.layer >= tower.n_layers:
        return False
    trial = stop.activation[:1].flip(-1) + 1

    def replace(activation: Tensor, hook: object) -> Tensor:
        return trial.clone()

    words = _words(
        None if stop.tokens is None else stop.tokens[:1], stop.layer, behind(tower, stop.layer)
    )
    with torch.no_grad():
        out = tower.run_with_hooks(
            stop.stream[:1].clone(), fwd_hooks=[(stop.site, replace)], **words
        )
    return torch.equal(out, trial)


def _never_came(site: str, layer: int) -> SiteError:
    return SiteError(
        f"replace {site}",
        f"a run of block {layer} that never came there",
        "a site that the run computes",
        "check the tower's layer() of this site",
    )


def baselines(
    tower: Tower, baseline: Baseline, stops: Iterator[Stop], window: slice, sites: Sequence[str]
) -> Iterator[tuple[Stop, Tensor]]:
    """Each stop with the activation it is moved to."""
    if isinstance(baseline, Tensor):
        others = walk(tower, baseline[window], sites)
        yield from ((stop, other.activation) for stop, other in zip(stops, others, strict=True))
        return
    for stop in stops:
        if isinstance(baseline, str):
            yield stop, torch.zeros_like(stop.activation)
        else:
            value = baseline[stop.site].to(stop.activation)
            value = value if len(value) == 1 else value[window]
            yield stop, value.expand_as(stop.activation)


def mean_activations(
    tower: Tower, x: Tensor, *, sites: str | Sequence[str], batch_size: int = 32
) -> dict[str, Tensor]:
    """Mean activation of each site over reference inputs, `[1 ...]`: a baseline.

    `x` are inputs of the tower, `[batch ...]`. Raises `SiteError` for unknown sites, `SampleError`
    without inputs.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()])
    >>> mean_activations(tower, torch.tensor([[[1.0]], [[3.0]]]), sites="hook_embed")
    {'hook_embed': tensor([[[2.]]])}
    """
    names = find_sites(sites, tower.sites)
    _check_some(x, "average activations")
    sums: dict[str, Tensor] = {}
    for part in x.split(batch_size):
        for stop in walk(tower, part, names):
            total = stop.activation.sum(dim=0, keepdim=True)
            sums[stop.site] = sums[stop.site] + total if stop.site in sums else total
    return {site: total / len(x) for site, total in sums.items()}


def _check_some(x: Tensor, asked: str) -> None:
    if len(x) == 0:
        raise SampleError(asked, "no pictures", "at least one", "give more pictures")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise NumericsError(
            asked,
            "inputs with NaN or infinity",
            "finite numbers",
            "check the pictures and their preprocessing",
        )


def check_run(
    asked: str,
    tower: Tower,
    x: Tensor,
    baseline: Baseline,
    *,
    sites: Sequence[str],
    batch_size: int,
) -> None:
    """Refuse inputs and baselines that do not fit one another or the sites."""
    _check_some(x, asked)
    if batch_size < 1:
        raise SpecificationError(
            asked, f"batches of {batch_size}", "at least 1 example", "raise batch_size"
        )
    if isinstance(baseline, str):
        check_known(asked, "baseline", [baseline], ["zero"], SpecificationError)
    elif isinstance(baseline, Tensor):
        if baseline.shape != x.shape or baseline.dtype != x.dtype:
            raise ShapeError(
                asked,
                f"inputs {tuple(x.shape)} {x.dtype}, baseline {tuple(baseline.shape)} "
                f"{baseline.dtype}",
                "one shape and dtype",
                "give every input its own partner, or activations by site",
            )
        _check_some(baseline, asked)
        if torch.equal(baseline, x):
            raise DataError(
                asked, "a baseline equal to the input", "another input", "pair other pictures"
            )
    else:
        check_known(asked, "site", [site for site in sites if site not in baseline], baseline)
        _check_shapes(asked, tower, x, baseline, sites)


def _check_shapes(
    asked: str, tower: Tower, x: Tensor, baseline: Mapping[str, Tensor], sites: Sequence[str]
) -> None:
    for stop in walk(tower, x[:1], sites):
        given, right = baseline[stop.site], stop.activation.shape[1:]
        if given.shape[1:] != right or len(given) not in (1, len(x)):
            raise ShapeError(
                asked,
                f"a baseline of shape {tuple(given.shape)} at {stop.site}",
                f"(1 or {len(x)}, {', '.join(map(str, right))})",
                "use mean_activations, or activations of as many examples",
            )
        if not bool(torch.isfinite(given).all()):
            raise NumericsError(
                asked,
                f"a baseline with NaN or infinity at {stop.site}",
                "finite numbers",
                "check the run that it comes from",
            )


def in_windows(work: Callable[[slice], Result], n: int, rows: int) -> list[Result]:
    """`work` on at most `rows` of `n` examples at a time; halved when memory runs out."""
    results: list[Result] = []
    start = 0
    while start < n:
        window = slice(start, min(start + rows, n))
        try:
            results.append(work(window))
        except (MemoryError, RuntimeError) as error:
            size = window.stop - start
            if size == 1 or not out_of_memory(error):
                raise
            rows = size // 2
            say(f"out of memory: going on with {rows} examples at a time")
            continue
        start = window.stop
    return results
