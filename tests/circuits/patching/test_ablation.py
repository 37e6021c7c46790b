"""Ablations: by hand, by the naive loop, by closed form, and one contract for every kind."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import ABLATIONS, Chain, Classifier, Metric, Target, ablate
from interp.core.errors import SampleError, ShapeError, SpecificationError
from interp.core.tower import part
from tests.circuits.conftest import Function, TinyViT, first
from tests.refusals import refuses

GRIDS = [
    ("blocks.*.attn.hook_z", ("layer", "head")),
    ("blocks.*.hook_resid_pre", ("layer", "pos")),
    ("blocks.1.attn.hook_pattern", ("layer", "head", "query")),
]


@pytest.mark.parametrize("kind", ABLATIONS)
@pytest.mark.parametrize(("sites", "axes"), GRIDS)
def test_contract(kind, sites, axes, vit, vit_inputs) -> None:
    """One row per cell and example; the batch does not matter; nothing stays installed."""
    words: dict[str, Any] = {"metric": first, "kind": kind, "sites": sites, "axes": axes}
    words |= {"reference": vit_inputs["corrupt"], "steps": 2}
    tables = [ablate(vit, vit_inputs["clean"], **words, batch_size=size) for size in (2, 40)]
    one, two = (table.frame for table in tables)
    np.testing.assert_allclose(one["value"], two["value"], atol=1e-10)
    assert len(one) % 5 == 0 and set(one["measure"]) == {f"ablation, {kind}"}
    plain = first(vit(vit_inputs["clean"])).detach().numpy()
    np.testing.assert_allclose(one["clean_metric"].iloc[:5], plain, atol=1e-12)
    assert (one["value"] - one["clean_metric"]).abs().to_numpy().max() > 1e-4
    assert not any(point.fwd_hooks for point in vit.hook_points())


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
@pytest.mark.parametrize(("sites", "axes"), GRIDS)
def test_equals_the_naive_loop(kind, sites, axes, vit, vit_inputs) -> None:
    x, other = vit_inputs["clean"], vit_inputs["corrupt"]
    words: dict[str, Any] = {"metric": first, "kind": kind, "sites": sites, "axes": axes}
    words |= {"donors": other} if kind == "resample" else {"reference": other}
    frame = ablate(vit, x, **words).frame
    _, cache = vit.run_with_cache(other)
    swept = [axis for axis in axes if axis != "layer"]
    for (site, *place), rows in frame.groupby(["site", *swept], sort=False):
        held = cache[str(site)]
        baseline = {
            "zero": torch.zeros_like(held),
            "mean": held.mean(dim=0, keepdim=True).expand_as(held),
            "resample": held,
        }[kind]
        where = dict(zip(swept, map(int, place), strict=True))
        index = part(where, axes=vit.axes(str(site)), site=str(site))

        def put(a: Tensor, hook: object, index: Any = index, baseline: Tensor = baseline) -> Tensor:
            a = a.clone()
            a[index] = baseline[index]
            return a

        out = first(vit.run_with_hooks(x, fwd_hooks=[(str(site), put)]))
        np.testing.assert_allclose(rows["value"], out.detach().numpy(), atol=1e-10)


def squares() -> Chain:
    """Output is -(x - target)^2 with the target at position 1, which no patch changes."""
    nothing = Function(torch.zeros_like)
    return Chain([nothing], pool=Function(lambda x: -((x[:, 0] - x[:, 1]) ** 2)))


@pytest.mark.slow
def test_the_optimal_constant_is_the_one_of_the_closed_form() -> None:
    """mean -(c - t)^2 is best at c = mean t, whatever the site's own mean: loss var t."""
    torch.manual_seed(0)
    x = torch.randn(40, 2, 1).double()
    x[:, 0] += 3
    words: dict[str, Any] = {"sites": "blocks.0.hook_resid_pre", "axes": ("layer", "pos")}
    table = ablate(squares(), x, metric=first, kind="optimal", steps=400, **words)
    at_first = table.frame.query("pos == 0")["value"].to_numpy()
    assert -at_first.mean() == pytest.approx(x[:, 1].var(correction=0).item(), rel=1e-3)
    mean = ablate(squares(), x, metric=first, kind="mean", **words).frame
    mean_loss = -mean["value"].mean()
    assert table.facts["loss"] < table.facts["loss_at_mean"] == pytest.approx(mean_loss)
    assert table.facts["steps"] == 400
    assert -table.frame["value"].mean() == pytest.approx(table.facts["loss"])


def test_no_steps_is_the_mean_and_steps_never_harm(vit, vit_inputs) -> None:
    torch.manual_seed(3)
    head = Classifier(torch.randn(3, 5).double(), ("ant", "bee", "cat"))
    clean = vit(vit_inputs["clean"]).detach()
    for name, sign in (("mean_margin", -1), ("kl", 1)):
        metric = Metric(name, Target(head, [0, 1, 2, 1, 0], clean=clean))
        words: dict[str, Any] = {"metric": metric, "sites": "blocks.*.hook_mlp_out"}
        mean = ablate(vit, vit_inputs["clean"], kind="mean", **words).frame
        still = ablate(vit, vit_inputs["clean"], kind="optimal", steps=0, **words).frame
        np.testing.assert_allclose(still["value"], mean["value"], atol=1e-12)
        moved = ablate(vit, vit_inputs["clean"], kind="optimal", steps=8, **words)
        better = sign * (moved.frame["value"] - mean["value"]).groupby(mean["layer"]).mean()
        assert (better <= 1e-12).all() and better.min() < -1e-6


@pytest.mark.parametrize("read", [True, False])
def test_only_what_is_read_is_worth_something(read: bool) -> None:
    tower = Chain(
        [Function(torch.zeros_like)], pool=Function(lambda x: x[:, 0] + (x[:, 1] if read else 0))
    )
    x = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))
    for kind in ABLATIONS:
        words: dict[str, Any] = {"sites": "blocks.0.hook_resid_pre", "axes": ("layer", "pos")}
        frame = ablate(tower, x, metric=first, kind=kind, steps=1, **words).frame
        moved = (frame["value"] != frame["clean_metric"]).groupby(frame["pos"]).any()
        assert moved.tolist() == [True, read, False]


def test_donors_are_of_another_class() -> None:
    tower, x = Chain([Function(torch.zeros_like)]), torch.arange(6.0).reshape(6, 1, 1)
    labels = np.array(["ant", "ant", "bee", "bee", "cat", "cat"])
    words: dict[str, Any] = {"metric": first, "sites": "hook_embed", "reference": x}
    drawn = []
    for seed in range(20):
        frame = ablate(tower, x, labels=labels, reference_labels=labels, seed=seed, **words).frame
        donors = labels[frame["value"].astype(int)]
        assert (donors != labels).all()
        drawn.append(tuple(donors))
    assert len(set(drawn)) > 5
    alone = ablate(tower, x, metric=first, sites="hook_embed").frame
    assert (alone["value"] != alone["clean_metric"]).all()  # never its own


def test_refusals(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    def refuse(error: Any, match: str, **words: Any) -> None:
        refuses(error, match, ablate, vit, vit_inputs["clean"], **{"metric": first, **words})

    x = vit_inputs["clean"]
    refuse(SpecificationError, "resample", kind="resampled")
    refuse(SpecificationError, "ignores", metric=lambda out: 0 * out[:, 0])
    refuse(SpecificationError, "-1 steps", kind="optimal", steps=-1)
    refuse(ShapeError, "one donor for every input", donors=x[:2])
    refuse(ShapeError, "[Gg]ive both", labels=["a"] * 5, reference=x)
    refuse(ShapeError, "[Gg]ive both", labels=["a"] * 4, reference_labels=["b"] * 5)
    refuse(SampleError, "another class", labels=["a"] * 5, reference_labels=["a"] * 5)
    refuse(SampleError, "no inputs", reference=x[:0])
