"""A sweep's table as TransformerLens's own result, for whoever has tools for that."""

import pandas as pd
import torch
from transformer_lens.patching import PatchingResult

from interp.core.errors import SpecificationError
from interp.core.tables import Table


def to_patching_result(table: Table) -> PatchingResult:
    """A table made by `sweep` as a `PatchingResult`: values `[layer *axes example]`.

    The baseline is the run that was patched (corrupt when denoising). Where a layer has several
    sites, or sites differ in size, cells are one flat axis and `index_df` names the site. Its
    `permutation_pvalue` flips single pairs; `circuits.effects` flips whole classes.

    Raises `SpecificationError` for a table that is no sweep's.

    >>> from interp.circuits import Chain, sweep
    >>> clean, corrupt = torch.ones(4, 1, 1), torch.zeros(4, 1, 1)
    >>> table = sweep(Chain([torch.nn.Identity()]), clean=clean, corrupt=corrupt,
    ...               metric=lambda output: output[:, 0])
    >>> result = to_patching_result(table)
    >>> result.axis_names, result.effect().mean().item()
    (['layer', 'pos'], 2.0)
    """
    frame = table.frame
    if table.name != "sweep" or not len(frame):
        raise SpecificationError(
            "convert to a PatchingResult",
            f"the table {table.name!r} of {len(frame)} rows",
            "a table made by sweep, one row per cell and example",
            "sweep first",
        )
    axes = [str(axis) for axis in table.facts["axes"]]
    swept = [axis for axis in axes if axis != "layer"]
    n = frame["example"].nunique()
    cells = frame.iloc[::n].reset_index(drop=True)  # a cell's examples stand together
    sizes = [int(cells[axis].nunique()) for axis in ("layer", *swept)]
    values = torch.tensor(frame["value"].to_numpy()).reshape(len(cells), n)
    grid = cells["site"].nunique() == sizes[0] and torch.Size(sizes).numel() == len(cells)
    names = ["layer", *swept]
    index = cells[names if grid else ["site", *names]]
    base = "corrupt" if table.facts["direction"] == "denoise" else "clean"
    return PatchingResult(
        values=values.reshape(*sizes, n) if grid else values,
        axis_names=names if grid else [],
        index_df=pd.DataFrame(index),
        metric_names=[str(frame["metric"].iloc[0])],
        reduced=False,
        baseline=torch.tensor(frame[f"{base}_metric"].to_numpy()[:n]),
    )
