"""Checkpoints are whole or absent, and a folder goes on only with its own specification."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

from interp.core.errors import CheckpointError, NumericsError, OutputError, SpecificationError
from interp.models.training.resume import (
    DECISIVE,
    differing,
    inputs,
    refuse_another,
    resume,
    save,
    write_params,
)
from tests.refusals import refuses

EPOCHS = Namespace(name="n", classes=(), keep=[0, 2, 4], epochs=4)


def trainee() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_only_the_latest_epoch_has_an_optimizer_and_it_goes_at_the_end(tmp_path: Path) -> None:
    model, optimizer = trainee()
    there = []
    for epoch in range(5):
        save(tmp_path, epoch, model, optimizer, None, EPOCHS)
        there.append(sorted(path.stem for path in tmp_path.iterdir()))
    kept = ["epoch_0", "epoch_2", "latest"]
    assert there == [kept[:1], kept[::2], kept, kept, ["epoch_0", "epoch_2", "epoch_4"]]
    save(tmp_path, 3, model, optimizer, None, EPOCHS)
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert latest["epoch"] == 3 and latest["optimizer"]["state"]
    assert "optimizer" not in torch.load(tmp_path / "epoch_2.pt", weights_only=True)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    (model, optimizer), (other, fresh) = trainee(), trainee()
    assert resume(tmp_path, other, fresh, None) == 0
    save(tmp_path, 1, model, optimizer, None, EPOCHS)
    assert resume(tmp_path, other, fresh, None) == 1
    assert torch.equal(other.weight, model.weight)  # type: ignore[arg-type]
    ours, theirs = optimizer.state_dict()["state"][0], fresh.state_dict()["state"][0]
    assert torch.equal(ours["exp_avg"], theirs["exp_avg"])


@pytest.mark.parametrize("epoch", [2, 3])
def test_checkpoints_are_whole_or_absent(tmp_path, monkeypatch, epoch) -> None:
    model, optimizer = trainee()
    save(tmp_path, 1, model, optimizer, None, EPOCHS)

    def cut(content: object, handle: object) -> None:
        handle.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    refuses(KeyboardInterrupt, "", save, tmp_path, epoch, model, optimizer, None, EPOCHS)
    assert not (tmp_path / f"epoch_{epoch}.pt").exists()
    assert resume(tmp_path, model, optimizer, None) == 1


def test_a_full_disk_is_said_in_our_words_and_loses_nothing(tmp_path: Path) -> None:
    """`/dev/full` takes no byte, as a full disk does."""
    model, optimizer = trainee()
    save(tmp_path, 1, model, optimizer, None, EPOCHS)
    (tmp_path / "writing.tmp").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"full.*Make room and run again"):
        save(tmp_path, 2, model, optimizer, None, EPOCHS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.pt"]
    assert resume(tmp_path, model, optimizer, None) == 1
    save(tmp_path, 2, model, optimizer, None, EPOCHS)
    assert resume(tmp_path, model, optimizer, None) == 2


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    model, optimizer = trainee()
    save(tmp_path, 1, model, optimizer, None, EPOCHS)
    nn.init.constant_(model.weight, float("inf"))  # type: ignore[arg-type]
    with pytest.raises(NumericsError, match="Lower the learning rate"):
        save(tmp_path, 2, model, optimizer, None, EPOCHS)
    assert not (tmp_path / "epoch_2.pt").exists()
    assert resume(tmp_path, model, optimizer, None) == 1


def test_a_broken_latest_is_refused(tmp_path: Path) -> None:
    model, optimizer = trainee()
    (tmp_path / "latest.pt").write_bytes(b"what is left of a disk")
    refuses(CheckpointError, "does not read", resume, tmp_path, model, optimizer, None)


WANTED = dict.fromkeys(DECISIVE, 1)


@pytest.mark.parametrize("name", DECISIVE)
def test_each_decisive_option_is_held_against_the_folder(tmp_path: Path, name: str) -> None:
    write_params(tmp_path, Namespace(**WANTED, workers=3))
    refuse_another(tmp_path, {**WANTED, "workers": 4})
    with pytest.raises(SpecificationError, match=rf"\({name} 1, now 2\)"):
        refuse_another(tmp_path, {**WANTED, name: 2})
    refuse_another(tmp_path / "no such folder", WANTED)


def test_values_survive_the_words_of_the_file(tmp_path: Path) -> None:
    values = {"lr": 1e-4, "eps": 1e-06, "milestones": [30, 50], "precision": "fp32"}
    values["wd"] = 0.1 + 0.2
    write_params(tmp_path, Namespace(**values))
    refuse_another(tmp_path, values)
    with pytest.raises(SpecificationError, match="milestones"):
        refuse_another(tmp_path, {**values, "milestones": []})


def test_inputs_are_known_by_content_wherever_they_lie(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "open_clip_config.json").write_text("{}")
        (tmp_path / place / "train.tsv").write_text("filepath\ttitle\n")
    ours, moved = (inputs(tmp_path / p, str(tmp_path / p / "train.tsv")) for p in ("a", "b"))
    assert ours == moved
    (tmp_path / "b" / "train.tsv").write_text("filepath\ttitle\nx.png\tcat\n")
    (tmp_path / "b" / "open_clip_config.json").write_text("{ }")
    changed = inputs(tmp_path / "b", str(tmp_path / "b" / "train.tsv"))
    assert len(differing(ours, changed)) == 2


def test_shards_are_known_by_the_list_that_they_were_made_from(tmp_path: Path) -> None:
    data = f"{tmp_path}/mixture-{{0..9}}.tar::base/{{0..9}}.tar"
    hashes = []
    for made_from in ("one list", "another", "one list"):
        (tmp_path / "made_from.txt").write_text(made_from)
        hashes.append(inputs(tmp_path, data)["data_hash"])
    assert hashes[0] == hashes[2] != hashes[1]
    assert inputs(tmp_path, data + "::more.tar")["data_hash"] not in hashes
