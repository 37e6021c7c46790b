"""Sweeps: literal integers, the naive loop, sum rules, planted truth, refusals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Chain, Classifier, Metric, Target, sweep
from interp.circuits.patching.patched_cells import (
    PatchPlace,
    measure_cells,
    patched_outputs,
    reference_outputs,
)
from interp.core.errors import (
    AlikeError,
    InterpError,
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
)
from interp.core.tables import Table
from tests.circuits.conftest import Function, TinyViT, difference
from tests.refusals import refuses

# literal integers, worked out on paper (see `hand` for the tower)

BY_HAND = [
    ("blocks.*.hook_resid_pre", ("layer", "pos"), [123, -36, 33, 34]),
    ("blocks.*.hook_mlp_out", ("layer", "pos"), [24, 114, 30, 24]),
    ("blocks.1.hook_resid_post", ("layer", "pos"), [33, 34]),
    ("blocks.1.hook_resid_pre", ("layer", "d_model"), [-33, 100]),
    ("hook_embed", ("layer", "pos"), [123, -36]),
    ("hook_embedding", ("layer",), [43]),
    ("hook_embedding", ("layer", "d_embed"), [33 - 66, 90 + 10]),
]


@pytest.mark.parametrize(("sites", "axes", "expected"), BY_HAND)
def test_patched_outputs_are_the_integers_of_the_blackboard(
    hand: Chain, hand_inputs: dict[str, Any], sites: str, axes: Sequence[str], expected: list
) -> None:
    table = sweep(hand, **hand_inputs, metric=difference, sites=sites, axes=axes)
    assert table.frame["value"].tolist() == expected
    assert set(table.frame["clean_metric"]) == {43} and set(table.frame["corrupt_metric"]) == {24}


def test_noising_is_denoising_with_the_runs_exchanged(hand, hand_inputs) -> None:
    noise = sweep(hand, **hand_inputs, metric=difference, direction="noise")
    swapped = sweep(
        hand, clean=hand_inputs["corrupt"], corrupt=hand_inputs["clean"], metric=difference
    )
    assert noise.frame["value"].tolist() == swapped.frame["value"].tolist()
    assert set(noise.frame["clean_metric"]) == {43} and set(noise.frame["corrupt_metric"]) == {24}


def test_layers_before_and_behind_the_chain(hand: Chain, hand_inputs: dict[str, Any]) -> None:
    table = sweep(
        hand,
        **hand_inputs,
        metric=difference,
        sites=["hook_embed", "hook_embedding"],
        axes=("layer",),
    )
    assert table.frame["layer"].tolist() == [-1, 2]
    assert table.frame["depth"].tolist() == [0, 1]
    assert table.frame["value"].tolist() == [43, 43]


GRIDS = [
    ("vit", "blocks.*.hook_resid_pre", ("layer", "pos")),
    ("vit", "blocks.*.attn.hook_z", ("layer", "head")),
    ("vit", "blocks.*.attn.hook_q", ("layer", "pos", "head")),
    ("vit", "blocks.1.attn.hook_pattern", ("layer", "head", "query", "key")),
    ("vit", "*", ("layer",)),
    ("maps", "blocks.*.hook_resid_pre", ("layer",)),
    ("maps", "blocks.*.hook_mlp_out", ("layer", "row", "column")),
    ("maps", "blocks.*.hook_resid_post", ("layer", "channel")),
    ("maps", ["hook_embed", "blocks.1.hook_mlp_out"], ("layer", "column", "channel")),
]


def check_against_naive(
    table: Table, tower: Any, inputs: dict[str, Any], metric: Callable, bar: float
) -> None:
    axes = [axis for axis in table.facts["axes"] if axis != "layer"]
    largest = float(table.frame["value"].abs().to_numpy().max())
    for _, rows in table.frame.groupby(["site", *axes], sort=False):
        first = rows.iloc[0].to_dict()
        cell = PatchPlace(str(first["site"]), 0, tuple((axis, int(first[axis])) for axis in axes))
        out = reference_outputs(tower, cell, base=inputs["corrupt"], donor=inputs["clean"])
        expected = metric(out).double().numpy()
        np.testing.assert_allclose(rows["value"].to_numpy(), expected, rtol=0, atol=bar * largest)


@pytest.mark.parametrize(
    ("batch_size", "dtype"), [(2, torch.float64), (64, torch.float64), (64, torch.float32)]
)
@pytest.mark.parametrize(("name", "sites", "axes"), GRIDS)
def test_equals_the_naive_loop(request, name, sites, axes, batch_size, dtype) -> None:
    tower = request.getfixturevalue(name).to(dtype)
    inputs = request.getfixturevalue(f"{name[:3]}_inputs")
    inputs = {key: value[:3].to(dtype) for key, value in inputs.items()}
    with torch.no_grad():
        table = sweep(
            tower, **inputs, metric=difference, sites=sites, axes=axes, batch_size=batch_size
        )
        bar = 1e-10 if dtype == torch.float64 else 5e-6
        check_against_naive(table, tower, inputs, difference, bar)


def test_bound_labels_follow_their_batch(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    torch.manual_seed(4)
    head = Classifier(torch.randn(3, 5).double(), ("ant", "bee", "cat"))
    metric = Metric("margin", Target(head, [0, 1, 2, 1, 0]))
    tables = [sweep(vit, **vit_inputs, metric=metric, batch_size=size) for size in (2, 5, 17)]
    for table in tables[1:]:
        np.testing.assert_allclose(table.frame["value"], tables[0].frame["value"], atol=1e-12)
    assert tables[0].frame["metric"].unique().tolist() == ["margin"]


def test_null_donors_are_patched_the_same_way(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    null = vit_inputs["clean"].roll(1, dims=0)
    both = sweep(vit, **vit_inputs, metric=difference, null=null, null_kind="rolled")
    alone = sweep(vit, clean=null, corrupt=vit_inputs["corrupt"], metric=difference)
    np.testing.assert_allclose(both.frame["null"], alone.frame["value"], atol=1e-12)
    assert set(both.frame["null_kind"]) == {"rolled"}


@pytest.mark.parametrize("name", ["vit", "maps"])
def test_own_activations_change_no_bit(request: pytest.FixtureRequest, name: str) -> None:
    tower, x = request.getfixturevalue(name), request.getfixturevalue(f"{name[:3]}_inputs")["clean"]
    cells = [PatchPlace(site, tower.layer(site)) for site in tower.sites]
    with torch.no_grad():
        plain = tower(x)
        for piece in patched_outputs(tower, cells, base=x, donors=[x]):
            assert torch.equal(piece.outputs[0], plain)


@pytest.mark.parametrize("name", ["vit", "maps"])
def test_the_whole_stream_is_the_whole_input(request: pytest.FixtureRequest, name: str) -> None:
    tower, inputs = request.getfixturevalue(name), request.getfixturevalue(f"{name[:3]}_inputs")
    sites = ["hook_embed", "blocks.*.hook_resid_p*", "hook_embedding"]
    table = sweep(tower, **inputs, metric=difference, sites=sites, axes=("layer",))
    assert len(table.frame["layer"].unique()) == tower.n_layers + 2
    np.testing.assert_allclose(table.frame["value"], table.frame["clean_metric"], atol=1e-12)


def test_prefix_is_not_computed_again(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    """Block passes are counted: a patch in block l runs blocks l to L - 1, all else runs once."""
    sweep(vit, **vit_inputs, metric=difference)  # 4 positions x 3 layers, 5 pairs
    rehearsal = 3 * (1 + 4 + 4)  # one probe of one example, and the metric tried on four pairs
    assert sum(vit.passed) == 4 * 5 * (3 + 2 + 1) + 2 * 5 * 3 + rehearsal


def test_stacked_cells_share_forwards(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    one = {key: value[:1] for key, value in vit_inputs.items()}
    sweep(vit, **one, metric=difference, batch_size=1)
    single, vit.passed = len(vit.passed), []
    sweep(vit, **one, metric=difference, batch_size=4)
    assert len(vit.passed) == single - 3 * (3 + 2 + 1)  # four positions in one forward per layer
    assert vit.largest == 4


def planted(carried: bool) -> Chain:
    """Class lives at position 2, coordinate 1 alone; block 1 brings it to position 0."""

    def fetch(x: Tensor) -> Tensor:
        write = torch.zeros_like(x)
        write[:, 0, 1] = x[:, 2, 1] if carried else 0.0
        return write

    nothing = Function(torch.zeros_like)
    return Chain([nothing, Function(fetch), nothing], pool=Function(lambda x: x[:, 0]))


@pytest.mark.parametrize("carried", [True, False])
def test_planted_class_is_found_exactly_where_it_lives(carried: bool) -> None:
    torch.manual_seed(5)
    clean, corrupt = torch.randn(6, 4, 3), torch.randn(6, 4, 3)
    clean[:, 0], corrupt[:, 0] = 0.0, 0.0  # the class token starts empty
    table = sweep(
        planted(carried),
        clean=clean,
        corrupt=corrupt,
        metric=lambda out: out[:, 1],
        axes=("layer", "pos", "d_model"),
    )
    moved = table.frame.query("value != corrupt_metric")
    found = moved.drop_duplicates(["layer", "pos", "d_model"])[["layer", "pos", "d_model"]]
    expected = [[0, 2, 1], [1, 2, 1], [2, 0, 1]] if carried else []
    assert found.to_numpy().tolist() == expected


def test_planted_channel_of_a_map_is_found() -> None:
    pool = Function(lambda x: x[:, 1, 2, 3, None].repeat(1, 2))
    tower = Chain(
        [Function(torch.zeros_like)], pool=pool, axes=("batch", "channel", "row", "column")
    )
    torch.manual_seed(6)
    clean, corrupt = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    for axes, place in [(("layer", "channel"), [1]), (("layer", "row", "column"), [2, 3])]:
        table = sweep(tower, clean=clean, corrupt=corrupt, metric=lambda out: out[:, 0], axes=axes)
        hit = table.frame.query("value == clean_metric").drop_duplicates(list(axes[1:]))
        assert hit[list(axes[1:])].to_numpy().tolist() == [place]


def refuse(error: type[InterpError], match: str, tower: Any, **words: Any) -> None:
    refuses(error, match, sweep, tower, **{"metric": difference, **words})


def test_inputs_that_cannot_be_swept(hand: Chain, hand_inputs: dict[str, Any]) -> None:
    clean, corrupt = hand_inputs["clean"], hand_inputs["corrupt"]
    refuse(ShapeError, "one shape", hand, clean=clean, corrupt=corrupt.repeat(2, 1, 1))
    refuse(ShapeError, "one shape", hand, clean=clean, corrupt=corrupt, null=corrupt.double())
    refuse(AlikeError, "identical partners .pair 0", hand, clean=clean, corrupt=clean.clone())
    refuse(SampleError, "no pictures", hand, clean=clean[:0], corrupt=corrupt[:0])
    refuse(SiteError, "blocks.0.hook_resid_pre", hand, **hand_inputs, sites="blocks.0.resid_pre")
    refuse(SiteError, "axis head", hand, **hand_inputs, axes=("layer", "head"))
    refuse(SpecificationError, "the axes pos", hand, **hand_inputs, axes=("pos",))
    refuse(SpecificationError, "denoise", hand, **hand_inputs, direction="denoising")
    refuse(SpecificationError, "ignores", hand, **hand_inputs, metric=lambda out: 0 * out[:, 0])
    refuse(ShapeError, "per example", hand, **hand_inputs, metric=lambda out: out.mean())
    nan = corrupt.clone()
    nan[0, 0, 0] = float("nan")
    refuse(NumericsError, "NaN", hand, clean=clean, corrupt=nan)


def test_a_budget_below_one_cell_is_refused_and_one_above_is_kept(vit, vit_inputs) -> None:
    refuse(SpecificationError, "budget", vit, **vit_inputs, memory=100)
    refuse(SpecificationError, "at least 1", vit, **vit_inputs, batch_size=0)
    row = sweep(vit, **vit_inputs, metric=difference, batch_size=1).facts["bytes"]
    free = sweep(vit, **vit_inputs, metric=difference)
    vit.largest = 0
    tight = sweep(vit, **vit_inputs, metric=difference, memory=2 * row)
    assert vit.largest == 2 and tight.facts["bytes"] <= 2 * row
    np.testing.assert_allclose(tight.frame["value"], free.frame["value"], atol=1e-12)


def test_out_of_memory_halves_the_batch(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    whole = sweep(vit, **vit_inputs, metric=difference)
    forward = vit.forward

    def stingy(x: Tensor, **words: Any) -> Tensor:
        if len(x) > limit:
            raise torch.OutOfMemoryError("too much")
        return forward(x, **words)

    vit.forward = stingy
    limit = 2
    cells = [
        PatchPlace(f"blocks.{layer}.hook_resid_pre", layer, (("pos", 1),)) for layer in range(3)
    ]
    words: dict[str, Any] = {
        "base": vit_inputs["corrupt"],
        "donors": [vit_inputs["clean"]],
        "metric": difference,
    }
    values = measure_cells(vit, cells, **words, rows=32)
    expected = whole.frame.query("pos == 1")["value"].to_numpy().reshape(3, 5)
    np.testing.assert_allclose(values.patched[0], expected, atol=1e-12)
    limit = 0
    refuses(torch.OutOfMemoryError, "", measure_cells, vit, cells, **words, rows=32)


def test_no_hook_outlives_an_error(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    calls = 0

    def failing(output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise RuntimeError("metric broke")
        return output[:, 0]

    before = vit(vit_inputs["clean"])
    refuses(RuntimeError, "metric broke", sweep, vit, **vit_inputs, metric=failing)
    assert not any(point.fwd_hooks for point in vit.hook_points())
    wrong = PatchPlace("blocks.0.hook_resid_pre", 2)  # a tower that lies about its layers
    with pytest.raises(SiteError, match="never came there"):
        list(
            patched_outputs(vit, [wrong], base=vit_inputs["clean"], donors=[vit_inputs["corrupt"]])
        )
    assert not any(point.fwd_hooks for point in vit.hook_points())
    assert torch.equal(vit(vit_inputs["clean"]), before)


def test_a_tower_that_works_in_place_does_not_spoil_the_kept_stream() -> None:
    """Its blocks overwrite the stream they are given, from which all cells of a layer start."""
    torch.manual_seed(7)
    inputs: dict[str, Any] = {"clean": torch.randn(3, 4, 2), "corrupt": torch.randn(3, 4, 2)}
    halve = Function(lambda x: x.mul_(-0.5))
    tower = Chain([halve, halve], embed=Function(torch.clone), pool=Function(lambda x: x.sum(1)))
    # one block's write is patched: a cache of the stream itself would hold what was overwritten
    table = sweep(tower, **inputs, metric=difference, sites="blocks.*.hook_mlp_out", batch_size=3)
    check_against_naive(table, tower, inputs, difference, 5e-6)
