"""Activation patching in TransformerLens's spelling: same names, axis order and sign.

Each function takes the corrupt input and the cache of a clean run, patches clean activations into
the corrupt run one cell at a time (denoising: a higher metric means that the cell carries what
raises it), and returns the metric by cell. The runs are those of `sweep`. Heimersheim and Nanda,
"How to use and interpret activation patching" (2024), say how to read them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.patching import PatchingResult

from interp.circuits.patching.patched_cells import list_cells, patched_outputs
from interp.core.errors import ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Tower


def act_patch(
    model: Tower,
    corrupted_tokens: Tensor,
    clean_cache: Mapping[str, Tensor],
    patching_metric: Callable[[Tensor], Tensor | float],
    *,
    sites: str,
    axes: Sequence[str],
    stack: int = 1,
) -> Tensor:
    """Measure the corrupt run after patching each cell from the cache of a clean run.

    Args:
        model: The tower.
        corrupted_tokens: Its corrupt inputs, pictures included.
        clean_cache: From `run_with_cache` on clean inputs of the same shape.
        patching_metric: From outputs `batch d_embed` to one number for the batch, or to `batch`,
            which then is the last axis of the result.
        sites: A pattern of sites, one per layer.
        axes: The axes of a site that cells index.
        stack: Cells that share a forward.

    Returns:
        The metric of each cell, `layer *axes`.

    Raises:
        SiteError: For unknown sites or axes.
        ShapeError: For a cache of another number of inputs.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])
    >>> _, cache = tower.run_with_cache(torch.tensor([[[0.0], [3.0]]]))
    >>> get_act_patch_resid_pre(tower, torch.zeros(1, 2, 1), cache, lambda out: out.mean())
    tensor([[0., 6.],
            [0., 6.]])
    """
    names = find_sites(sites, model.sites)
    shapes = {name: tuple(clean_cache[name].shape) for name in names}
    n = len(corrupted_tokens)
    for name, shape in shapes.items():
        if shape[0] != n:
            given = f"{shape[0]} clean activations for {len(corrupted_tokens)} corrupt inputs"
            right = "one clean partner for each"
            raise ShapeError(f"patch {name}", given, right, "cache a clean run of the same batch")
    cells = list_cells(model, names, shapes, axes=("layer", *axes))
    values = [torch.empty(0)] * len(cells)
    with torch.no_grad():
        for piece in patched_outputs(
            model, cells, base=corrupted_tokens, donors=[clean_cache], stack=stack
        ):
            for cell, outputs in zip(piece.cells or (), piece.outputs, strict=False):
                values[cell] = torch.as_tensor(patching_metric(outputs))
    first = dict(zip(model.axes(names[0]), shapes[names[0]], strict=True))
    result = torch.stack(values)
    return result.reshape(len(names), *(first[axis] for axis in axes), *result.shape[1:])


def _by(sites: str, *axes: str) -> Callable[..., Tensor]:
    return partial(act_patch, sites=sites, axes=axes)


get_act_patch_resid_pre = _by("blocks.*.hook_resid_pre", "pos")
get_act_patch_resid_mid = _by("blocks.*.hook_resid_mid", "pos")
get_act_patch_attn_out = _by("blocks.*.hook_attn_out", "pos")
get_act_patch_mlp_out = _by("blocks.*.hook_mlp_out", "pos")
get_act_patch_attn_head_out_by_pos = _by("blocks.*.attn.hook_z", "pos", "head")
get_act_patch_attn_head_q_by_pos = _by("blocks.*.attn.hook_q", "pos", "head")
get_act_patch_attn_head_k_by_pos = _by("blocks.*.attn.hook_k", "pos", "head")
get_act_patch_attn_head_v_by_pos = _by("blocks.*.attn.hook_v", "pos", "head")
get_act_patch_attn_head_pattern_by_pos = _by("blocks.*.attn.hook_pattern", "head", "query")
get_act_patch_attn_head_pattern_dest_src_pos = _by(
    "blocks.*.attn.hook_pattern", "head", "query", "key"
)
get_act_patch_attn_head_out_all_pos = _by("blocks.*.attn.hook_z", "head")
get_act_patch_attn_head_q_all_pos = _by("blocks.*.attn.hook_q", "head")
get_act_patch_attn_head_k_all_pos = _by("blocks.*.attn.hook_k", "head")
get_act_patch_attn_head_v_all_pos = _by("blocks.*.attn.hook_v", "head")
get_act_patch_attn_head_pattern_all_pos = _by("blocks.*.attn.hook_pattern", "head")

FAMILY: dict[str, Callable[..., Tensor]] = {
    name: value for name, value in globals().items() if name.startswith("get_act_patch_")
}
"""The functions by name; help, exports and the test against TransformerLens all read it."""


@door
def to_patching_result(table: Table) -> PatchingResult:
    """Convert a table made by `sweep` to TransformerLens's `PatchingResult`.

    Args:
        table: The table.

    Returns:
        Values `layer *axes example`; the baseline is the run that was patched (corrupt when
        denoising).

    Raises:
        SpecificationError: For a table that no sweep made.

    Notes:
        Where a layer has several sites, or sites differ in size, cells are one flat axis and
        `index_df` names the site. The result's `permutation_pvalue` flips single pairs;
        `circuits.effects` flips whole classes.

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
        given = f"the table {table.name!r} of {len(frame)} rows"
        right = "a table made by sweep, one row per cell and example"
        raise SpecificationError("convert to a PatchingResult", given, right, "sweep first")
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
