"""Ablation: replace what a cell says about its input by a baseline, and measure what is lost.

An ablation is a sweep whose donor is a baseline rather than another run. Which baseline decides
what the answer means: a zero or a mean may be an activation that the tower never sees.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.patching.engine import Activations
from interp.circuits.patching.mean_activations import mean_activations
from interp.circuits.patching.patched_cells import (
    PatchPlace,
    RunPlan,
    make_plan,
    measure_cells,
    patched_outputs,
)
from interp.circuits.patching.sweep import cell_columns
from interp.circuits.tasks.metrics import (
    DISTANCES,
    check_metric,
    measure,
    name_of,
    rows_of,
    tried_rows,
)
from interp.core.arguments import Budget, BudgetKeywords, Named, filled
from interp.core.errors import SampleError, ShapeError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.parallel import batches
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Tower

RATE = 0.1
"""Adam's step for the optimal constants, as a share of the site's standard deviation."""


@dataclass(frozen=True, eq=False)
class AblationRequest:
    """What was asked to be ablated, from which each kind makes its donor."""

    tower: Tower
    inputs: Tensor
    metric: Callable[[Tensor], Tensor]
    plan: RunPlan
    reference: Tensor
    donors: Tensor | None
    labels: np.ndarray | None
    reference_labels: np.ndarray | None
    steps: int
    seed: int

    @property
    def sites(self) -> list[str]:
        """The sites of the cells."""
        return list(dict.fromkeys(cell.site for cell in self.plan.cells))


Baseline = tuple[Tensor | Activations, dict[str, object]]

Labels = Sequence[object] | np.ndarray


class AblationOptionsKeywords(BudgetKeywords, total=False):
    """Where a baseline comes from, and what finding it may cost."""

    reference: Tensor | None
    donors: Tensor | None
    labels: Labels | None
    reference_labels: Labels | None


@dataclass(frozen=True, kw_only=True, eq=False)
class AblationOptions(Budget):
    """Where a baseline comes from, and what finding it may cost.

    Args:
        reference: Inputs over which means are taken and from which donors are drawn.
        donors: Inputs aligned with those that are ablated.
        labels: The class of each input.
        reference_labels: The class of each input of the reference.
    """

    reference: Tensor | None = None
    donors: Tensor | None = None
    labels: Labels | None = None
    reference_labels: Labels | None = None


@door
def ablate(
    tower: Tower,
    inputs: Tensor,
    *,
    metric: Callable[[Tensor], Tensor],
    kind: str = "resample",
    sites: str | Sequence[str] = "blocks.*.hook_mlp_out",
    axes: Sequence[str] = ("layer",),
    steps: int = 50,
    **options: Unpack[AblationOptionsKeywords],
) -> Table:
    """Replace each cell of a grid by a baseline, and measure every example.

    value[cell, example] = metric(tower(inputs) with the cell's activation from the baseline)

    Args:
        tower: The tower to run.
        inputs: Inputs of the tower, `[batch ...]`.
        metric: From outputs `[batch d_embed]` to `[batch]`.
        kind: A name in `ABLATIONS`: "resample", "mean", "zero" or "optimal".
        sites: Names of sites or patterns.
        axes: "layer", and axes of the sites along which cells are cut: "pos", "head", "channel".
        steps: Steps of Adam for "optimal".
        **options: The keywords that follow.
        reference: Inputs over which means are taken and from which donors are drawn; None takes
            `inputs`.
        donors: Inputs aligned with `inputs`, for "resample"; None draws them from the reference.
        labels: The class of each input; donors are then of another one.
        reference_labels: The class of each input of the reference.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.
        seed: Seed of the draw of donors.

    Returns:
        One row per cell and example, for `effects` to summarise. `clean_metric` is the metric of
        the whole tower, `corrupt_metric` that of the donor's own run, where there is one.

    Raises:
        SpecificationError: For an unknown kind or keyword, or a metric that ignores the output.
        SampleError: Where an input has no donor of another class.
        ShapeError: For donors or labels that do not fit.
        SiteError: For unknown sites or axes.
        NumericsError: For NaN.

    Notes:
        "resample" takes the activation of another input. It is the primary baseline; let the
        reference be of the same domain (Chan et al. 2022). "mean" takes the mean activation over
        the reference at each position, "zero" nothing.

        "optimal" takes the constant, one per cell, that serves the metric best on average over the
        inputs: min_c mean loss(tower with the cell at c), the loss being minus the metric (or the
        metric, where that is a distance). It removes what the cell says and nothing else (Li and
        Janson 2024). It is found from the mean; the best constant seen is kept, and `facts` say the
        `steps`, the `loss` and the `loss_at_mean`, averages over cells. It is fitted on the inputs
        that it is measured on, so a lower bound of the loss.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()])  # doubles the stream
    >>> x = torch.tensor([[[1.0]], [[5.0]]])
    >>> table = ablate(tower, x, metric=lambda output: output[:, 0], kind="mean")
    >>> table.frame[["clean_metric", "value"]].to_numpy().tolist()
    [[2.0, 4.0], [10.0, 8.0]]
    """
    how = filled(ablate, AblationOptions, options)
    labels, reference_labels = how.labels, how.reference_labels
    check_known("ablate", "kind", [kind], ABLATIONS, SpecificationError)
    _check(inputs, how, steps)
    if how.reference is None and reference_labels is None:
        reference_labels = labels
    plan = make_plan(
        tower, find_sites(sites, tower.sites), base=inputs, n_donors=1, room=how, axes=axes
    )
    started = time.perf_counter()
    few = tried_rows(metric, len(inputs), plan.rows)
    with torch.no_grad():
        outputs = tower(inputs[few])
        check_metric(rows_of(metric, few), outputs, outputs.roll(1, dims=-1))
    ask = AblationRequest(
        tower,
        inputs,
        metric,
        plan,
        inputs if how.reference is None else how.reference,
        how.donors,
        None if labels is None else np.asarray(labels),
        None if reference_labels is None else np.asarray(reference_labels),
        steps,
        how.seed,
    )
    donor, said = ABLATIONS[kind](ask)
    values = measure_cells(
        tower, plan.cells, base=inputs, donors=[donor], metric=metric, rows=plan.rows, what="ablate"
    )
    columns = cell_columns(tower, plan.cells, len(inputs)) | {
        "measure": f"ablation, {kind}",
        "value": values.patched[0].ravel(),
        "clean_metric": np.tile(values.unpatched[0], len(plan.cells)),
        "corrupt_metric": np.tile(values.unpatched[1], len(plan.cells)),
        "metric": name_of(metric),
        "pairing": said.get("donors", "a constant"),
    }
    if labels is not None:
        columns["clean_label"] = np.tile(np.asarray(labels), len(plan.cells))
    facts = {
        "axes": list(axes),
        "kind": kind,
        "n_reference": len(ask.reference),
        "dtype": str(outputs.dtype),
        "seed": how.seed,
        **said,
        "forwards": plan.forwards,
        "seconds": time.perf_counter() - started,
    }
    return Table("ablation", pd.DataFrame(columns), facts)


def zero(ask: AblationRequest) -> Baseline:
    """Nothing."""
    return _for_all({site: torch.zeros_like(m) for site, m in _means(ask).items()}, ask), {}


def mean(ask: AblationRequest) -> Baseline:
    """The mean activation over the reference."""
    return _for_all(_means(ask), ask), {}


def resample(ask: AblationRequest) -> Baseline:
    """The activation of another input, of another class where classes are known."""
    if ask.donors is not None:
        return ask.donors, {"donors": "given"}
    generator, rows = rng("ablation donors", ask.seed), []
    for place in range(len(ask.inputs)):
        fits = np.ones(len(ask.reference), dtype=bool)
        if ask.labels is not None and ask.reference_labels is not None:
            fits = ask.reference_labels != ask.labels[place]
        elif ask.reference is ask.inputs:
            fits[place] = False  # not its own
        if not fits.any():
            given = "no other input, or none of another class, in the reference"
            right = "a reference with two or more classes"
            do = "give more reference inputs, or donors="
            raise SampleError(f"resample input {place}", given, right, do)
        rows.append(int(generator.choice(np.flatnonzero(fits))))
    kind = "drawn from the reference" + ("" if ask.labels is None else ", of another class")
    return ask.reference[rows], {"donors": kind}


def optimal(ask: AblationRequest) -> Baseline:
    """The constant that serves the metric best, one per cell."""
    best: dict[str, Tensor] = {}
    first, last = [], []
    for site, start in _means(ask).items():
        cells = [cell for cell in ask.plan.cells if cell.site == site]
        best[site], losses = descend(ask, cells, start)
        first.append(losses[0])
        last.append(losses.amin(dim=0))
    loss, before = torch.cat(last).mean().item(), torch.cat(first).mean().item()
    return _for_all(best, ask), {"steps": ask.steps, "loss": loss, "loss_at_mean": before}


ABLATIONS: Named[Callable[[AblationRequest], Baseline]] = Named(
    {"resample": resample, "mean": mean, "zero": zero, "optimal": optimal}
)
"""Every kind by name; each makes the donor of a sweep, and facts about it."""


def descend(
    ask: AblationRequest, cells: Sequence[PatchPlace], start: Tensor
) -> tuple[Tensor, Tensor]:
    """The best constants of a site's cells, and the losses `[step cell]` on the way.

    Cells are parts of one tensor that do not overlap, so all of them descend at once, each on its
    own patched runs.
    """
    constant = start.clone().requires_grad_()
    scale = float(start.std()) if start.numel() > 1 else float(start.abs().max())
    steps = torch.optim.Adam([constant], lr=RATE * (scale or 1.0))
    best, lowest = start.clone(), torch.full((len(cells),), torch.inf, dtype=torch.float64)
    trail = []
    axes = ask.tower.axes(cells[0].site)[1:]
    for step in range(ask.steps + 1):
        losses, gradient = _losses(ask, cells, constant, gradients=step < ask.steps)
        for number, cell in enumerate(cells):
            if losses[number] < lowest[number]:
                index = tuple(dict(cell.index).get(axis, slice(None)) for axis in axes)
                best[index] = constant.detach()[index]
        lowest = torch.minimum(lowest, losses)
        trail.append(losses)
        if step < ask.steps:
            constant.grad = gradient
            steps.step()
    return best, torch.stack(trail)


def _losses(
    ask: AblationRequest, cells: Sequence[PatchPlace], constant: Tensor, *, gradients: bool
) -> tuple[Tensor, Tensor]:
    """Mean loss of each cell over the inputs, and the gradient of their sum."""
    sign = 1.0 if name_of(ask.metric) in DISTANCES else -1.0
    losses, gradient = torch.zeros(len(cells), dtype=torch.float64), torch.zeros_like(constant)
    rows, n = min(ask.plan.rows, len(ask.inputs)), len(ask.inputs)
    for window in batches(n, rows):
        base, metric = ask.inputs[window], rows_of(ask.metric, window)
        with torch.set_grad_enabled(gradients):
            donor = {cells[0].site: constant.expand(len(base), *constant.shape)}
            pieces = patched_outputs(
                ask.tower, cells, base=base, donors=[donor], stack=max(1, ask.plan.rows // rows)
            )
            for piece in pieces:
                if piece.cells is None:
                    continue
                sums = [sign * measure(metric, outputs).sum() / n for outputs in piece.outputs]
                for cell, each in zip(piece.cells, sums, strict=True):
                    losses[cell] += each.detach().double().cpu()
                if gradients:
                    # the donor, and the run up to the patch, are shared by all pieces
                    gradient += torch.autograd.grad(
                        torch.stack(sums).sum(), constant, retain_graph=True
                    )[0]
    return losses, gradient


def _means(ask: AblationRequest) -> dict[str, Tensor]:
    """The mean activation of each site over the reference, `[axes but batch]`."""
    means = mean_activations(ask.tower, ask.reference, sites=ask.sites, batch_size=ask.plan.rows)
    return {site: means[site][0] for site in ask.sites}


def _for_all(constants: dict[str, Tensor], ask: AblationRequest) -> Activations:
    n = len(ask.inputs)
    return {site: value.expand(n, *value.shape) for site, value in constants.items()}


def _check(inputs: Tensor, how: AblationOptions, steps: int) -> None:
    reference, donors, labels = how.reference, how.donors, how.labels
    if not len(inputs) or (reference is not None and not len(reference)):
        raise SampleError("ablate", "no inputs", "at least one", "give more pictures")
    if steps < 0:
        raise SpecificationError("ablate", f"{steps} steps", "0 or more", "keep the default")
    if donors is not None and donors.shape != inputs.shape:
        raise ShapeError(
            "ablate by other inputs",
            f"donors of shape {tuple(donors.shape)} for inputs {tuple(inputs.shape)}",
            "one donor for every input",
            "give aligned donors, or a reference to draw from",
        )
    n_reference = len(inputs if reference is None else reference)
    for what, given, n in (
        ("labels", labels, len(inputs)),
        ("reference_labels", how.reference_labels, n_reference),
    ):
        lonely = given is None and labels is not None and reference is not None and donors is None
        if lonely or (given is not None and len(given) != n):
            raise ShapeError(
                "say the classes of inputs and donors",
                f"{what} for {0 if given is None else len(given)} of {n}",
                "one label for each input, and one for each of a reference to draw from",
                "give both, or neither",
            )
