"""Tables of what a grid's models were trained on: pictures, losses, and an audit of mixtures."""

from collections.abc import Callable, Sequence

import pandas as pd

from interp.data.leakage.checks import Audit, audit
from interp.data.mixtures.manifest import diff_manifests
from interp.data.mixtures.mixture import make_mixture
from interp.data.mixtures.settings import BASE
from interp.models.training.journal import read_journal
from interp.study.grids import GridRun


def mixture_table(cells: Sequence[GridRun]) -> pd.DataFrame:
    """Training pictures by domain, and the optimiser steps taken on them."""
    rows = []
    for cell in cells:
        n_train, recipe = cell.run.pictures, cell.training.recipe
        counts = pd.Series(cell.manifest["counts"])
        by_domain = counts.groupby(counts.index.str.split("/", n=1).str[0]).sum().to_dict()
        base = cell.manifest["base"]
        if base:
            by_domain[BASE] = base["pictures"]
        rows += [
            {
                **cell.place,
                "domain": domain,
                "n_pictures": int(n),
                "n_train": n_train,
                "steps": recipe.epochs_for(n_train) * recipe.batches(n_train),
            }
            for domain, n in by_domain.items()
        ]
    return pd.DataFrame(rows)


def loss_table(
    cells: Sequence[GridRun], kept: Callable[[GridRun], pd.DataFrame | None] = lambda _: None
) -> pd.DataFrame:
    """Training loss per epoch, the mean over its steps: what is kept of a run, or its journal."""
    frames = []
    for cell in cells:
        own = kept(cell)
        frames.append((mean_losses(cell) if own is None else own).assign(**cell.place))
    found = pd.concat(frames, ignore_index=True)
    return found[[*cells[0].place, "epoch", "loss"]]


def mean_losses(cell: GridRun) -> pd.DataFrame:
    """A run's mean loss of each epoch, from its journal."""
    steps = read_journal(cell.run.folder).frame
    return steps.groupby("epoch", as_index=False)["loss"].mean()


def audit_cells(
    cells: Sequence[GridRun], *, jobs: int = 1, tell: Callable[[str], None] = print
) -> pd.DataFrame:
    """The findings about every mixture of a grid, each verdict told as it comes.

    A mixture that several architectures train on is looked at once. After its verdict comes, in one
    line, what sets it apart from the mixture before it in the same block and test domain.
    """
    found: list[pd.DataFrame] = []
    before: dict[tuple[str, int], GridRun] = {}
    once = {(cell.mixture, cell.block.seed): cell for cell in cells}
    for cell in once.values():
        made = audit(cell.block.pool, make_mixture(cell.block.pool, cell.mixture), jobs=jobs)
        place = cell.mixture.test_domain, cell.block.seed
        tell(f"{cell.mixture.name} (test domain {place[0]}, block {place[1]}): {made.verdict}")
        if place in before:
            tell(f"  {diff_manifests(before[place].manifest, cell.manifest)}")
        before[place] = cell
        found.append(_filed(made, cell))
    return pd.concat(found, ignore_index=True)


def _filed(made: Audit, cell: GridRun) -> pd.DataFrame:
    place = {name: value for name, value in cell.place.items() if name != "architecture"}
    return made.frame.assign(**place)
