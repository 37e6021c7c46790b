"""Audit what a study trains on, before anything is trained: leaks, and how its mixtures differ."""

from collections.abc import Callable, Sequence

import pandas as pd

from interp.data.audit import Audit, audit
from interp.data.manifest import diff_manifests
from interp.data.mixtures import make_mixture
from interp.grid import Cell


def audit_cells(
    cells: Sequence[Cell], *, jobs: int = 1, tell: Callable[[str], None] = print
) -> pd.DataFrame:
    """The findings about every mixture of a grid, each verdict told as it comes.

    A mixture that several architectures train on is looked at once. After its verdict comes, in one
    line, what sets it apart from the mixture before it in the same block and test domain.
    """
    found: list[pd.DataFrame] = []
    before: dict[tuple[str, int], Cell] = {}
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


def _filed(made: Audit, cell: Cell) -> pd.DataFrame:
    place = {name: value for name, value in cell.place.items() if name != "architecture"}
    return made.frame.assign(**place)
