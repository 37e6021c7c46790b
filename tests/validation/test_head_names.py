"""Names of heads held against planted truth: a few models here."""

import pytest
import torch

from interp.circuits.planted.vit import Blueprint
from interp.circuits.planted.world import as_tensor
from interp.models import decompose
from interp.validation.puzzles import Opened, open_planted
from tests.benchmarks.head_names import (
    AMONG_CLASSES,
    ANYWHERE,
    AS_PLANTED,
    COLUMNS,
    READINGS,
    _read_by,
    score_names,
)


@pytest.mark.parametrize("reading", [AS_PLANTED, ANYWHERE])
def test_who_writes_a_class_is_named_after_it_and_nobody_else_is(reading: str) -> None:
    found = score_names(Blueprint("rewired", seed=3), reading, n_null=99)
    assert list(found) == COLUMNS and len(found) == 40 and set(found["reading"]) == {reading}
    assert found[found["writes"]]["part"].tolist() == ["m3", "m3"]
    assert found[found["writes"]]["right"].all() and not found[~found["writes"]]["named"].any()


@pytest.mark.slow
def test_a_mix_of_classes_is_named_after_one_of_them() -> None:
    """What a name cannot say: that nothing but the word is written."""
    found = score_names(Blueprint("all shared", seed=3), AMONG_CLASSES, n_null=99)
    mixed = found[~found["writes"] & found["named"]]
    assert len(mixed) > 5 and mixed["right"].mean() > 0.9


def test_another_read_out_leaves_what_the_class_is_read_by() -> None:
    planted = Opened(Blueprint("all shared", seed=2)).planted
    x = planted.pictures(2).tensors(as_tensor)
    plain, *others = (
        decompose(open_planted(_read_by(planted, reading)), x, by="head") for reading in READINGS
    )
    [writer] = [node for node, reader in planted.truth("A").edges if reader == "logits"]
    layer, head = writer[1:].split(".h")
    name = f"blocks.{layer}.attn.head.{head}"
    for each in others:
        torch.testing.assert_close(each[name], plain[name])
        loud = each.parts.std(dim=0).norm(dim=-1) > 1e-3
        assert int(loud.sum()) > 10 > int((plain.parts.std(dim=0).norm(dim=-1) > 1e-3).sum())
    basis = torch.linalg.qr(planted.classes.T)[0]
    mixed = others[1].parts - others[1].parts.mean(dim=0)
    # a constant is read too, in a direction of its own, and wavers with the last norm
    torch.testing.assert_close(mixed @ basis @ basis.T, mixed, rtol=0, atol=1e-3)
