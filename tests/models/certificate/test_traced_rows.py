"""Traced towers certified, swept and compared: their certificate, and the other wings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from torch import Tensor

from interp import circuits
from interp.core.errors import SiteError
from interp.models.certificate.certify import COLUMNS, certify
from interp.models.towers.open_tower import trace_pictures, trace_texts
from tests.models.unhooked import TIMM, VIT, WORDS, bert, by_torch, pictures, traced

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", TIMM)
def test_the_certificate_passes(name: str) -> None:
    tower = traced(name)
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    frame = certify(tower, patches=8)
    assert tuple(frame.columns) == COLUMNS and (frame.ok == (frame.error <= frame.bar)).all()
    assert frame.ok.all(), frame[~frame.ok].to_string()
    for check in ("read", "patch with itself", "patch with another"):
        assert list(frame[frame.check == check].site) == list(tower.sites)
    moved = frame[frame.check == "patch with another"]
    assert 8 <= (moved.reference == "patch").sum() < (moved.reference == "gradient").sum()
    lost = frame[frame.check == "out of reach"]
    assert dict(zip(lost.site, lost.reference, strict=True)) == tower.unreachable
    for key, value in tower.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_certificate_of_a_model_with_one_tower_of_each_kind() -> None:
    torch.manual_seed(0)
    frame = certify(CLIP(24, VIT, WORDS | {"qk_norm": True}), patches=8)
    assert frame.ok.all()
    checks = frame.groupby("tower").check.unique()
    assert "gradient" in checks["visual"] and "read" not in checks["visual"]
    assert "read" in checks["text"] and "gradient" not in checks["text"]


def test_a_name_without_effect_is_told_apart() -> None:
    frame = certify(trace_texts(bert(pooler="mean_pooler")))
    stays = frame[~frame.ok]
    assert set(stays.check) == {"patch with another"}
    assert stays.site.str.startswith("transformer.pooler").all() and len(stays) == 5
    assert (stays.error == 1).all() and (stays.reference == "patch").all()


def test_a_read_that_work_in_place_has_spoiled_fails() -> None:
    tower = traced("resnet")
    sites = {site: replace(found, overwritten=False) for site, found in tower.traced_sites.items()}
    tower._survey = replace(tower._survey, sites=sites)
    frame = certify(tower, patches=4)
    spoiled = frame[(frame.check == "read") & ~frame.ok].site
    assert {
        site for site, found in traced("resnet").traced_sites.items() if found.overwritten
    } == set(spoiled)


def test_a_patch_that_arrives_changed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "interp.models.towers.traced.with_first_tensor",
        lambda value, tensor: tensor + 0.01 * tensor.cos(),
    )
    frame = certify(traced("vit"), patches=4)
    same = frame[(frame.check == "patch with itself") & (frame.site != "hook_embedding")]
    assert same.ok.mean() < 0.1  # a softmax does not feel one shift of all keys
    assert frame[frame.check == "read"].ok.all()


def test_patches_that_do_not_arrive_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "interp.models.towers.traced.with_first_tensor", lambda value, tensor: value
    )
    frame = certify(traced("vit"), patches=1000)
    moved = frame[(frame.check == "patch with another") & (frame.site != "hook_embedding")]
    assert not moved.ok.any()
    assert frame[frame.check == "read"].ok.all()


def test_a_sweep_is_a_patched_run_per_cell() -> None:
    tower = trace_pictures(TimmModel("convnext_atto", 6, image_size=32, pool="", proj="linear"))
    tower.source.eval()
    site = "trunk.stages.2.blocks.1"
    tower.name_axes(site, ("batch", "channel", "row", "column"))
    clean, corrupt = pictures(2), pictures(2).flip(0)
    table = circuits.sweep(
        tower, clean=clean, corrupt=corrupt, metric=lambda out: out[:, 0], sites=site,
        axes=("layer", "row", "column"),
    )  # fmt: skip
    with torch.no_grad():
        donor = by_torch(tower.source, site, lambda: tower.source(clean))[0]
        values = []
        for row in range(2):
            for column in range(2):

                def patch(_: Any, args: Any, out: Tensor, at: Any = (row, column)) -> Tensor:
                    new = out.clone()
                    new[:, :, at[0], at[1]] = donor[:, :, at[0], at[1]]
                    return new

                handle = tower.source.get_submodule(site).register_forward_hook(patch)
                values += tower.source(corrupt)[:, 0].tolist()
                handle.remove()
    np.testing.assert_allclose(table.frame["value"], values, rtol=1e-5)
    assert len(set(np.round(values, 6))) > 4  # the cells differ
    whole = circuits.sweep(
        tower, clean=clean, corrupt=corrupt, metric=lambda out: out[:, 0], axes=("layer",),
        sites=["trunk.stages.0", "trunk.head.norm", "hook_embedding"],
    ).frame  # fmt: skip
    np.testing.assert_allclose(whole["value"], whole["clean_metric"], rtol=1e-5)
    assert set(whole["layer"]) == {-1, 0}
    with pytest.raises(SiteError, match="batch_x_4"):
        circuits.sweep(
            traced("swin"), clean=clean, corrupt=corrupt, metric=lambda out: out[:, 0],
            sites="layers.0.blocks.0.attn", axes=("layer",),
        )  # fmt: skip
