"""Circuits of units: some channels, heads or neurons at each of several sites, kept or replaced.

The stream need not be a sum of parts, so this serves a ResNet as well. A unit outside the circuit
is given its activation of the corrupt run, at every site, while the rest of the run goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.curves import curve_table
from interp.circuits.discovery.faithfulness import MaskedWindow
from interp.circuits.patching.engine import Change, Prefix
from interp.circuits.patching.sweep import check_inputs
from interp.circuits.tasks.metrics import check_metric, measure, rows_of
from interp.circuits.tasks.pairs import PairTask, PairTaskKeywords
from interp.circuits.units.channel_scores import unit_axis
from interp.core.arguments import filled
from interp.core.errors import ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.parallel import batches
from interp.core.progress import say, track
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.core.tower import Tower

UNIT_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of circuits as shares of the units of each site; the paper keeps a tenth."""


@door
def unit_faithfulness(
    tower: Tower,
    scores: Mapping[str, Tensor | np.ndarray],
    *,
    axis: str = "channel",
    shares: Sequence[float] = UNIT_SHARES,
    n_random: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    **task: Unpack[PairTaskKeywords],
) -> Table:
    """Measure how much of the model's metric its best units keep alone, and how much is left.

    value = (m(C) - m(none)) / (m(M) - m(none)), as in `faithfulness`

    Args:
        tower: The tower to run.
        scores: For each site one number per unit, such as the means of `channel_scores`.
        axis: The axis of the units.
        shares: Sizes of circuits as shares of each site's units, rounded up; the largest |score|
            are kept.
        n_random: Random circuits for each, which have as many units at each site.
        seed: Seed of the random circuits.
        batch_size: Examples in a forward.
        **task: The keywords that follow.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to one number per example.
        pairs: What the pictures show, which makes classes the units (of one class: who drew
            it); None makes each pair a unit.

    Returns:
        The rows, areas and evidence of `faithfulness`; the null are the random circuits.

    Raises:
        ShapeError: For scores that are not one per unit.
        SiteError: For a site without the axis.
        SpecificationError: For no site, a share outside (0, 1], a metric that ignores the output,
            or a keyword that is unknown or missing.

    Notes:
        In the run of a circuit every other unit, at every site, has its activation of the corrupt
        run.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "channel", "row", "column"))
    >>> clean, corrupt = torch.ones(4, 2, 1, 1), torch.zeros(4, 2, 1, 1)
    >>> tower.pool = torch.nn.Flatten()
    >>> table = unit_faithfulness(tower, {"hook_embed": torch.tensor([3.0, 0.0])}, clean=clean,
    ...                           corrupt=corrupt, metric=lambda x: x[:, 0], shares=[0.5])
    >>> table.frame[["measure", "value"]].to_numpy().tolist()
    [['circuit alone', 1.0], ['model without the circuit', 0.0]]
    """
    given = filled(unit_faithfulness, PairTask, task)
    clean, corrupt, metric = given.clean, given.corrupt, given.metric
    check_inputs(clean, corrupt, None, given.pairs)
    sites = [site for site in tower.sites if site in scores]
    _check(tower, scores, sites, shares, axis)
    kept = {site: np.stack([_best(scores[site], share) for share in shares]) for site in sites}
    generator = rng("random units", seed)
    drawn = {
        site: np.stack([generator.permutation(row) for row in masks for _ in range(n_random)])
        for site, masks in kept.items()
    }
    _check_widths(tower, kept, corrupt, axis)
    masks = {s: np.concatenate([kept[s], ~kept[s], drawn[s], ~drawn[s]]) for s in sites}
    values, ends = measure_units(
        tower, masks, clean=clean, corrupt=corrupt, metric=metric, axis=axis, batch_size=batch_size
    )
    total = sum(masks[site].shape[1] for site in sites)
    return curve_table(
        values,
        ends,
        np.sum([kept[site].sum(axis=1) for site in sites], axis=0),
        given,
        total=total,
        n_random=n_random,
        null_kind=f"mean of {n_random} random circuits with as many units at each site",
        seed=seed,
        facts={"units": total, "axis": axis, "sites": sites},
    )


def measure_units(
    tower: Tower,
    masks: Mapping[str, np.ndarray],
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    axis: str = "channel",
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """The metric with only some units kept `[mask example]`, and on the two runs `[2 example]`.

    `masks` are `[mask unit]` of Booleans for each site, or `[mask example unit]`.
    """
    n = len(next(iter(masks.values())))
    values, ends = np.full((n, len(clean)), np.nan), np.full((2, len(clean)), np.nan)
    for window, runs, found in runs_of_units(
        tower, masks, clean=clean, corrupt=corrupt, axis=axis, batch_size=batch_size
    ):
        part = rows_of(metric, window)
        with torch.no_grad():
            check_metric(part, *runs)
            ends[:, window] = [measure(part, output).double().cpu().numpy() for output in runs]
            for some, outputs in found:
                for number, output in zip(some, outputs, strict=True):
                    values[number, window] = measure(part, output).double().cpu().numpy()
    return values, ends


def runs_of_units(
    tower: Tower,
    masks: Mapping[str, np.ndarray],
    *,
    clean: Tensor,
    corrupt: Tensor,
    axis: str = "channel",
    batch_size: int = 32,
) -> Iterator[MaskedWindow]:
    """For each window of examples its clean and corrupt output, and those of the masks.

    These come as places of masks with their outputs, `[place batch d_embed]`. Where all units are
    kept, the clean run answers. Blocks before the first site run once.
    """
    sites = list(masks)
    n = len(masks[sites[0]])
    whole = np.all([own.reshape(n, -1).all(axis=1) for own in masks.values()], axis=0)
    if n * len(clean) > 5_000:
        say(f"units: {n} circuits x {len(clean)} pairs, {n * len(clean):,} forwards")
    axes = {site: unit_axis(tower, site, axis) for site in sites}
    first = min(tower.layer(site) for site in sites)

    def outputs_of(
        window: slice, runs: Prefix, full: Tensor, held: Mapping[str, Tensor]
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        yield np.flatnonzero(whole), full.expand(int(whole.sum()), *full.shape)
        for number in np.flatnonzero(~whole):
            kept = {site: own[number] for site, own in masks.items()}
            changes = {
                site: _replace(own if own.ndim == 1 else own[window], held[site], axes[site])
                for site, own in kept.items()
            }
            with torch.no_grad():  # left before it yields: a generator's context is its reader's
                output = runs.changed(changes, Prefix.run)
            yield np.array([number]), output[None]

    windows = list(batches(len(clean), batch_size))
    for window in track(windows, "circuits of units", total=len(windows)):
        with torch.no_grad():
            output, held = tower.run_with_cache(corrupt[window], names_filter=sites)
            runs = Prefix.of(tower, clean[window]).forward_to(first)
            full = runs.run()
        yield window, (full, output), outputs_of(window, runs, full, held)


def _replace(kept: np.ndarray, corrupt: Tensor, axis: int) -> Change:
    shape = [1] * corrupt.ndim
    shape[0], shape[axis] = (1 if kept.ndim == 1 else -1), kept.shape[-1]
    here = torch.as_tensor(kept, device=corrupt.device).reshape(shape)

    return lambda own: torch.where(here, own, corrupt)


def _best(scores: Tensor | np.ndarray, share: float) -> np.ndarray:
    size = np.abs(np.asarray(scores))
    kept = np.zeros(len(size), dtype=bool)
    kept[np.argsort(-size, kind="stable")[: int(np.ceil(share * len(size) - 1e-9))]] = True
    return kept


def _check_widths(tower: Tower, kept: Mapping[str, np.ndarray], x: Tensor, axis: str) -> None:
    """Scores of another model would broadcast, or fail far from here."""
    with torch.no_grad():
        _, cache = tower.run_with_cache(x[:1], names_filter=list(kept))
    for site, masks in kept.items():
        right = cache[site].shape[tower.axes(site).index(axis)]
        if masks.shape[1] != right:
            given = f"{masks.shape[1]} scores for {right} units"
            do = "take the scores from the same tower"
            raise ShapeError(f"test units at {site}", given, f"{right}, one a unit", do)


def _check(
    tower: Tower,
    scores: Mapping[str, Tensor | np.ndarray],
    sites: Sequence[str],
    shares: Sequence[float],
    axis: str,
) -> None:
    unknown = [site for site in scores if site not in sites]
    if unknown or not sites or not shares or not all(0 < share <= 1 for share in shares):
        given = f"the sites {unknown or list(sites)} and shares {list(shares)}"
        right = "sites of the tower and shares above 0, up to 1"
        do = "take the scores from channel_scores on the same tower"
        raise SpecificationError("test circuits of units", given, right, do)
    for site in sites:
        if axis not in tower.axes(site) or np.ndim(np.asarray(scores[site])) != 1:
            given = f"scores of shape {tuple(np.shape(scores[site]))} along {axis!r}"
            right = f"one number per unit, along one of {tower.axes(site)[1:]}"
            do = "average scores over examples first, or name another axis"
            raise ShapeError(f"test units at {site}", given, right, do)
