"""The baseline: it learns labels, opens again, and answers as its weights say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from interp.core.errors import CheckpointError, SpecificationError
from interp.core.images import ImageTable
from interp.models import Run, accuracy, ask, load_classifier, load_clip
from interp.models.loading.load_classifier import LabelledTower, LabelLoss
from interp.models.training.journal import read_journal
from interp.models.training.lists import Base
from tests.refusals import refuses

Launch = Callable[[Run], None]
SGD = {"objective": "supervised", "optimizer": "sgd", "lr": 0.1, "wd": 1e-4}


@pytest.fixture
def trained(toy: Any, launch: Launch, tmp_path: Path) -> Run:
    run = toy.run(tmp_path, epochs=20, precision="fp32", **SGD)
    launch(run)
    return run


def table(toy: Any) -> ImageTable:
    rows = pd.read_csv(toy.tsv, sep="\t", keep_default_na=False)
    frame = rows.rename(columns={"filepath": "path"}).assign(split="test", caption="")
    return ImageTable(frame, Path("/"), "toy", "toy")


def test_it_learns_the_labels(toy: Any, trained: Run) -> None:
    losses = read_journal(trained.folder).frame["loss"]
    assert losses.iloc[0] == pytest.approx(np.log(3), abs=0.5) and losses.iloc[-1] < 0.2
    images = table(toy)
    frames = {}
    for name in ("epoch_0", "epoch_20"):
        model = load_classifier(trained.checkpoints / f"{name}.pt")
        got = ask(model, images, {"none": lambda _: ()}, class_names=images.labels, held_out=())  # type: ignore[arg-type]
        first = accuracy(got).query("measure == 'balanced top-1'")
        frames[name] = first.set_index("class_set")["value"]
    assert frames["epoch_20"]["all"] == 1.0 and frames["epoch_0"]["all"] < 0.8


def test_logits_are_those_of_a_naive_recomputation(toy: Any, trained: Run) -> None:
    model = load_classifier(trained.final)
    weights = torch.load(trained.final, weights_only=True)
    assert weights["classes"] == ["green", "null", "red"] == list(model.class_names)
    state = weights["state_dict"]
    bare = open_clip.create_model(f"local-dir:{toy.model}").eval()
    inside = {name[7:]: value for name, value in state.items() if name.startswith("visual.")}
    bare.visual.load_state_dict(inside)
    _, _, evaluation = open_clip.create_model_and_transforms(f"local-dir:{toy.model}")
    path = pd.read_csv(toy.tsv, sep="\t")["filepath"][7]
    pixels = evaluation(Image.open(path))[None]
    with torch.no_grad():
        embedding = bare.visual(pixels)[0].numpy()
        logits = model.head(model.visual(pixels))[0].numpy()
    for row, name in enumerate(model.class_names):
        naive = float(state["head.bias"][row])
        for place, value in enumerate(embedding.tolist()):
            naive += max(value, 0.0) * float(state["head.weight"][row, place])
        assert logits[row] == pytest.approx(naive, abs=1e-5), name


def test_the_tower_is_hooked(trained: Run) -> None:
    model = load_classifier(trained.final, dtype=torch.float64)
    embedding, cache = model.visual.run_with_cache(torch.zeros(2, 3, 16, 16, dtype=torch.float64))
    assert torch.equal(cache["hook_embedding"], embedding)
    assert "blocks.1.hook_resid_post" in cache


def test_the_loss_is_the_mean_cross_entropy() -> None:
    torch.manual_seed(0)
    model = LabelledTower(nn.Flatten(), 3, 12)
    labels = torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        outputs = model(torch.randn(4, 3, 2, 2), labels)
    (loss,) = LabelLoss()(**outputs, output_dict=True).values()
    chances = torch.softmax(outputs["logits"], dim=-1)
    naive = -sum(float(chances[row, label].log()) for row, label in enumerate(labels)) / 4
    assert float(loss) == pytest.approx(naive, abs=1e-6)
    assert "logit_scale" not in model.state_dict()


def test_a_head_can_be_asked_about_some_of_its_classes(trained: Run) -> None:
    model = load_classifier(trained.final)
    embedding = torch.randn(2, 16)
    both = model.zero_shot(["red", "green"])
    assert torch.allclose(both(embedding), model.head(embedding)[:, [2, 0]])
    refuses(CheckpointError, "class 'blue'", model.zero_shot, ["blue"])


def test_each_loader_names_the_other(toy: Any, trained: Run, launch: Launch) -> None:
    refuses(CheckpointError, r"no text tower.*load_classifier", load_clip, trained.final)
    clip = toy.run(trained.out, name="clip", epochs=1)
    launch(clip)
    refuses(CheckpointError, r"without a linear head.*load_clip", load_classifier, clip.final)


def test_a_run_on_labels_resumes_and_keeps_its_classes(toy, launch, tmp_path) -> None:
    run = toy.run(tmp_path, epochs=2, accumulate=2, milestones=(1,), **SGD)
    launch(run)
    assert read_journal(run.folder).frame["lr"].tolist()[2:] == pytest.approx([0.01, 0.01])
    assert torch.load(run.checkpoints / "epoch_0.pt", weights_only=True)["classes"]


def test_captions_alone_cannot_be_trained_on_as_labels(toy: Any, tmp_path: Path) -> None:
    run = toy.run(tmp_path, base=Base("shards/{0..9}.tar", 10), **SGD)
    refuses(SpecificationError, "captions only", run.check)
