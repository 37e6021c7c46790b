"""Encoders without text: opened by name or as modules, taught classes, refused where they must."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision.transforms import v2

from interp.core.classifiers import LinearClassifier
from interp.core.errors import CheckpointError, DataError, SampleError, ShapeError
from interp.core.errors import SpecificationError as Refused
from interp.core.images import ImageTable
from interp.models import load_encoder, taught_head
from interp.models.loading.load_encoder import load_any
from tests.refusals import refuses

SMALL = "timm:test_vit"


def reads(image: Any) -> torch.Tensor:
    sized = v2.functional.resize(v2.functional.to_image(image), [16, 16])
    return v2.functional.to_dtype(sized, torch.float32, scale=True) - 0.5


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def test_a_head_says_what_its_learner_says() -> None:
    generator = np.random.default_rng(0)
    names = np.repeat(["a", "b", "c"], 20)
    vectors = torch.from_numpy(generator.normal(size=(60, 5)) + 2 * (names == "b")[:, None])
    learner = LogisticRegression()
    head = taught_head(vectors, names, learner)
    np.testing.assert_allclose(head(vectors), learner.decision_function(vectors.numpy()))
    assert head.predict(vectors).tolist() == learner.predict(vectors.numpy()).tolist()
    two = taught_head(vectors[:40], names[:40], LogisticRegression())
    assert two.score(vectors[:40], names[:40]) > 0.9 and two.names == ("a", "b")
    refuses(SampleError, "two classes", taught_head, vectors[:20], names[:20])


def test_classes_count_alike_however_many_pictures_there_are() -> None:
    generator = np.random.default_rng(1)
    names = np.repeat(["many", "few"], [400, 10])
    vectors = torch.from_numpy(generator.normal(size=(410, 3)) + 1.5 * (names == "few")[:, None])
    middle = torch.stack([vectors[names == name].mean(dim=0) for name in ("many", "few")]).mean(0)
    logits = taught_head(vectors, names)(middle[None])
    assert float(logits.max() - logits.min()) < 1e-6


def test_an_encoder_is_asked_once_it_was_taught(small_images: ImageTable) -> None:
    encoder = load_encoder(net(), preprocess=reads)
    shown = small_images.select(split="train", domain="real")
    refuses(Refused, "teach", encoder.zero_shot, ["cat"])
    taught = encoder.teach(shown)
    names = list(small_images.labels[:3])
    head = taught.zero_shot(names)
    assert head.names == tuple(names)
    vectors = taught.embed(shown)
    whole = taught.zero_shot(list(small_images.labels))(vectors)
    columns = [list(small_images.labels).index(name) for name in names]
    torch.testing.assert_close(head(vectors), whole[:, columns])
    refuses(DataError, "no such class", taught.zero_shot, ["no such class"])
    assert taught.certify().frame["ok"].all()


def test_weights_may_come_from_a_file(tmp_path: Path) -> None:
    first = timm.create_model("test_vit", num_classes=0).eval()
    path = tmp_path / "weights.pt"
    torch.save(first.state_dict(), path)
    again = load_any(path, model=SMALL)
    x = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(first(x), again.visual(x))
    assert "blocks.0.attn.hook_z" in again.visual.sites and not again.traced
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    traced = load_any(path, model="timm:test_resnet")
    assert traced.visual.block_sites[0] == "layer1.0" and "ResNet" in traced.traced
    torch.save(first.state_dict(), path)
    refuses(CheckpointError, "weights of this model", load_any, path, model="timm:test_resnet")


def test_what_cannot_be_opened_is_said() -> None:
    refuses(CheckpointError, "torchvision does not know", load_encoder, "torchvision:resnet19")
    refuses(CheckpointError, "load_clip", load_encoder, "RN50")
    refuses(Refused, "preprocess", load_encoder, net())
    refuses(ShapeError, "offsets", LinearClassifier, torch.eye(2), ("a", "b"), bias=torch.zeros(3))
