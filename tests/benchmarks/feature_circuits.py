"""Circuits of features: MLPs' outputs written as sums of parts and an error, some of them kept.

    y = sum over parts of strength * direction + error

The parts may be a transcoder's features, an MLP's neurons or principal components, so that all are
scored and cut by the same rule. The error is what the parts do not write: with it the sum is exact,
and it is a part of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.discovery.criteria import MaskedWindow
from interp.circuits.patching.baselines import with_baselines
from interp.circuits.patching.engine import Change, Prefix
from interp.circuits.tasks.metrics import measure, rows_of
from interp.circuits.tasks.pairs import ComparedRuns
from interp.circuits.units.channel_attribution import mean_gradient
from interp.core.runs.batching import Batching, batches
from interp.core.tower import Tower

ERROR = "error"


@dataclass(frozen=True, eq=False)
class OutputCode:
    """How an MLP's output is written as a sum of parts.

    Args:
        reads: The site that strengths are computed from.
        encode: From its activation to strengths "... part".
        directions: What each part writes, "part d_model".
    """

    reads: str
    encode: Callable[[Tensor], Tensor]
    directions: Float[Tensor, "part d_model"]

    def parts(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Strengths "... part", and the error: the rest of the output, constants among it."""
        z = self.encode(x)
        return z, y - z @ self.directions


@dataclass(frozen=True, eq=False)
class OutputParts:
    """The parts and errors of MLPs' outputs, as a `Cut`.

    Args:
        tower: The tower.
        codes: How the output at each site (`blocks.0.hook_mlp_out`, ...) is written.
        steps: Steps of integration.
        batch_size: Examples in a forward.
        level: The word for the parts in tables.

    Notes:
        A part's score is its change between the corrupt and the clean run times the metric's mean
        gradient along its direction, on the way between the two outputs, one site at a time. Parts
        outside a circuit have their strength of the corrupt run; those inside are computed anew
        from what the run brings. Each site is a group, its error behind its parts.
    """

    tower: Tower
    codes: Mapping[str, OutputCode]
    steps: int = 5
    batch_size: int = 32
    level: str = "feature"

    @property
    def groups(self) -> np.ndarray:
        """The place of its site, for each part."""
        return np.repeat(np.arange(len(self.codes)), self._widths)

    @property
    def names(self) -> Sequence[str]:
        """Every part as `site.number`, and errors as `site.error`."""
        return tuple(
            f"{site}.{part}"
            for site, width in zip(self.codes, self._widths, strict=True)
            for part in [*range(width - 1), ERROR]
        )

    @property
    def errors(self) -> np.ndarray:
        """Which parts are errors."""
        return np.array([name.endswith(ERROR) for name in self.names])

    @property
    def _widths(self) -> list[int]:
        return [len(code.directions) + 1 for code in self.codes.values()]

    @property
    def _sites(self) -> list[str]:
        """The sites that are read and written, each once."""
        return list(dict.fromkeys([*self.codes, *(code.reads for code in self.codes.values())]))

    def score(self, read: ComparedRuns) -> np.ndarray:
        """The parts' scores, `[example part]`."""
        batching = Batching(self.batch_size, stacked=True)

        def scored(window: slice) -> Tensor:
            metric, stack = rows_of(read.metric, window), batching.copies(window)
            with torch.no_grad():
                clean, corrupt = (
                    self.tower.run_with_cache(x[window], names_filter=self._sites)[1]
                    for x in (read.clean, read.corrupt)
                )
            found = {}
            runs = with_baselines(self.tower, read.clean, read.corrupt, window, list(self.codes))
            for held, zero in runs:
                site, code = held.site, self.codes[held.site]
                slope = mean_gradient(held.latest(), zero, metric, self.steps, stack)
                (z, rest), (z0, rest0) = (
                    code.parts(cache[code.reads], cache[site]) for cache in (clean, corrupt)
                )
                parts = (z - z0) * (slope @ code.directions.T)
                error = ((rest - rest0) * slope).sum(dim=-1, keepdim=True)
                found[site] = torch.cat([parts, error], dim=-1).flatten(1, -2).sum(dim=1)
            return torch.cat([found[site] for site in self.codes], dim=1)

        return torch.cat(batching.each(len(read.clean), scored)).double().cpu().numpy()

    def moved(self, read: ComparedRuns) -> np.ndarray:
        """How far each part's strength lies from the corrupt run's, mean over examples, `[part]`.

        It is summed over positions, in lengths of what is written; that of errors as well.
        """
        sums = 0.0
        for window in batches(len(read.clean), self.batch_size):
            with torch.no_grad():
                clean, corrupt = (
                    self.tower.run_with_cache(x[window], names_filter=self._sites)[1]
                    for x in (read.clean, read.corrupt)
                )
            found = []
            for site, code in self.codes.items():
                (z, rest), (z0, rest0) = (
                    code.parts(cache[code.reads], cache[site]) for cache in (clean, corrupt)
                )
                far = (z - z0).abs() * code.directions.norm(dim=1)
                error = (rest - rest0).norm(dim=-1, keepdim=True)
                found.append(torch.cat([far, error], dim=-1).flatten(0, -2).sum(dim=0))
            sums = sums + torch.cat(found).double().cpu().numpy()
        return np.asarray(sums) / len(read.clean)

    def run(self, read: ComparedRuns, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric when only some parts are computed anew, and of the two runs."""
        values = np.full((len(kept), len(read.clean)), np.nan)
        ends = np.full((2, len(read.clean)), np.nan)
        for window, runs, found in self._runs(read.clean, read.corrupt, kept):
            metric = rows_of(read.metric, window)
            with torch.no_grad():
                ends[:, window] = [measure(metric, out).double().cpu().numpy() for out in runs]
                for some, outputs in found:
                    for number, out in zip(some, outputs, strict=True):
                        values[number, window] = measure(metric, out).double().cpu().numpy()
        return values, ends

    def embed(self, clean: Tensor, corrupt: Tensor, kept: np.ndarray) -> Tensor:
        """The outputs when only some parts are computed anew, `[circuit example d_embed]`."""
        parts = [
            torch.cat([outputs for _, outputs in found])
            for _, _, found in self._runs(clean, corrupt, kept[:, None])
        ]
        return torch.cat(parts, dim=1)

    def _runs(self, clean: Tensor, corrupt: Tensor, kept: np.ndarray) -> Iterator[MaskedWindow]:
        """Each window with its clean and corrupt outputs, and those of every circuit in order."""
        first = min(self.tower.layer(site) for site in self._sites)
        ends = np.cumsum(self._widths)[:-1]

        def found(window: slice, runs: Prefix, held: Mapping[str, Tensor]) -> Iterator:
            for number, masks in enumerate(kept):
                own = masks if len(masks) == 1 else masks[window]
                changes: dict[str, Change] = {}
                for (site, code), mask in zip(
                    self.codes.items(), np.split(own, ends, axis=-1), strict=True
                ):
                    changes |= _changes(site, code, mask, held)
                with torch.no_grad():
                    output = runs.changed(changes, Prefix.run)
                yield np.array([number]), output[None]

        for window in batches(len(clean), self.batch_size):
            with torch.no_grad():
                output, held = self.tower.run_with_cache(corrupt[window], names_filter=self._sites)
                runs = Prefix.of(self.tower, clean[window]).forward_to(first)
                full = runs.run()
            yield window, (full, output), found(window, runs, held)


def _changes(
    site: str, code: OutputCode, kept: np.ndarray, corrupt: Mapping[str, Tensor]
) -> dict[str, Change]:
    """What a run does at an MLP: parts that are not kept go back to their corrupt strength."""
    x0, y0 = corrupt[code.reads], corrupt[site]
    z0, rest0 = code.parts(x0, y0)
    shape = (len(kept), *[1] * (y0.ndim - 2), kept.shape[-1])
    gone = torch.as_tensor(~kept, device=y0.device).reshape(shape).to(y0.dtype)
    read: list[Tensor] = []

    def listen(x: Tensor) -> None:
        read.append(x)

    def write(y: Tensor) -> Tensor:
        z, rest = code.parts(y if code.reads == site else read.pop(), y)
        moved = ((z0 - z) * gone[..., :-1]) @ code.directions + (rest0 - rest) * gone[..., -1:]
        return y + moved

    return {site: write} if code.reads == site else {code.reads: listen, site: write}
