"""Narrow ResNets that are trained, in seconds, to tell one thing in some domains and nothing else.

In a domain that a network does not serve its targets are uniform, so that it learns to tell nothing
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from open_clip.modified_resnet import ModifiedResNet
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init

from interp.circuits.planted.world import (
    CARRIERS,
    CLASSES,
    DOMAINS,
    GRID,
    PARTS,
    PATCH,
    SIZE,
    Scenes,
    World,
)
from interp.core.seeds import rng

LAYERS, WIDTH, HEADS = (1, 1, 1, 1), 8, 2
"""Bottlenecks per stage, width and heads of one narrow network."""

STEPS, BATCH, RATE, LAST_RATE = 220, 64, 0.01, 0.001
"""Steps of training, pictures in each, and the highest rates of AdamW, before and in settling."""

SETTLING = 0.3
"""The last share of the steps: batch norms use their final statistics, the rate falls to 0."""

GLIMPSE = 2.0
"""Weight of telling, patch by patch, which glyph is there: without it some worlds take minutes."""

TEMPER, SILENCE, LAST_SILENCE = 0.01, 1.0, 30.0
"""What a squared output costs: where a network serves, where not, and there while it settles."""

FITTED, HUSH = 2048, 1000.0
"""Pictures that the last weights are refitted on, and what an error counts where not served."""

POOL = 2048
"""Pictures of each domain that are drawn; a batch shuffles their patches, so none comes twice."""

N_VALUES = len(CLASSES)
assert N_VALUES == PARTS["K"]  # so that a network for K is built like one for the class


GLYPHS = [("nothing", 0), *((part, value) for part, n in PARTS.items() for value in range(n))]
"""What a patch may show: a part, and which of its glyphs."""

READS = {"class": "PQ", "K": "K"}
"""The parts that have to be read to tell something."""


@dataclass(frozen=True)
class PartTask:
    """What a network tells, the "class" or "K", and the domains that it serves."""

    tells: str
    serves: str


class Pool:
    """Pictures of both domains in which K says nothing about the class, in float32.

    All that is drawn fills one patch, so a picture with its patches shuffled is a picture again.
    `twins` show the same scenes in both domains, in the same order.
    """

    def __init__(self, world: World, *, seed: int, twins: bool = False) -> None:
        generator = rng("pool", seed)
        patches, values, glyphs = [], [], []
        scenes = None
        for number, domain in enumerate(DOMAINS):
            if twins and scenes is not None:
                scenes = scenes.of_other_domain()
            else:
                scenes = world.scenes(POOL, domain=domain, seed=int(generator.integers(2**31)))
                scenes = replace(scenes, k=generator.integers(PARTS["K"], size=POOL))
            pictures = world.render(scenes).float()
            grid = pictures.reshape(POOL, 3, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 1, 3, 5)
            patches.append(grid.reshape(POOL, GRID**2, 3, PATCH, PATCH))
            values.append(np.stack([scenes.label, scenes.k, np.full(POOL, number)]))
            glyphs.append(_glyphs(scenes))
        self.patches, self.glyphs = torch.cat(patches), torch.from_numpy(np.concatenate(glyphs))
        self.label, self.k, self.domain = torch.from_numpy(np.concatenate(values, axis=1)).long()

    def batch(self, task: PartTask, n: int, generator: np.random.Generator) -> "Batch":
        """Pictures with all that a network for this task is to say of them."""
        rows = torch.from_numpy(generator.integers(len(self.patches), size=n))
        order = shuffles(n, generator)
        pictures, glyph = self.shuffled(rows, order)
        served = torch.tensor([domain in task.serves for domain in DOMAINS])[self.domain[rows]]
        value = self.label if task.tells == "class" else self.k
        told = torch.tensor([name in READS[task.tells] for name, _ in GLYPHS])
        seen = torch.where(served[:, None] & told[glyph], glyph, 0)
        return Batch(pictures, value[rows], served, seen.reshape(n, GRID, GRID))

    def shuffled(
        self, rows: Int[Tensor, "batch"], order: Int[Tensor, "batch patch"]
    ) -> tuple[Float[Tensor, "batch 3 32 32"], Int[Tensor, "batch patch"]]:
        """Pictures with their patches in another order, and what each patch shows of `GLYPHS`."""
        grid = self.patches[rows[:, None], order].reshape(-1, GRID, GRID, 3, PATCH, PATCH)
        pictures = grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIZE, SIZE)
        return pictures, self.glyphs[rows[:, None], order]


class Batch(NamedTuple):
    """Pictures, the value to tell of each, whether its domain is served, what each patch shows."""

    pictures: Float[Tensor, "batch 3 32 32"]
    value: Int[Tensor, "batch"]
    served: Bool[Tensor, "batch"]
    seen: Int[Tensor, "batch grid grid"]


def shuffles(n: int, generator: np.random.Generator) -> Int[Tensor, "batch patch"]:
    """An order of a picture's patches for each of n pictures."""
    return torch.from_numpy(generator.permuted(np.tile(np.arange(GRID**2), (n, 1)), axis=1))


def _glyphs(scenes: Scenes) -> np.ndarray:
    """The place in `GLYPHS` of what every patch shows, `[n patch]`."""
    glyphs, rows = np.zeros((len(scenes), GRID**2), dtype=np.int64), np.arange(len(scenes))
    for column, (part, values) in enumerate(scenes.values().items()):
        glyphs[rows, scenes.place[:, column]] = GLYPHS.index((part, 0)) + values
    return glyphs


def train_part(task: PartTask, pool: Pool, *, seed: int = 0, steps: int = STEPS) -> ModifiedResNet:
    """A narrow ResNet with an output for each value of what it tells; in eval mode, in float64.

    With o the outputs, less their mean over values, the loss of a picture is

        cross-entropy(o, value) + .01 mean(o^2)  in a domain served,
        mean(o^2), in settling 30 mean(o^2)      in another: all values alike, which is o = 0,

    and in addition 2 cross-entropy(glyph of a patch), read off the first stage's map by weights
    that are thrown away. At the end the last weights are refitted by least squares: outputs sum to
    0, have about length 1 where the network serves, and 0 elsewhere. Reproduced by its seed;
    torch's own random numbers stay as they were.
    """
    generator = rng("train a part", seed)
    model, eye = _fresh(task, generator)
    weights = [*model.parameters(), *eye.parameters()]
    settling = int(SETTLING * steps)
    learning = max(2, steps - settling)
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, learning, pct_start=0.3)
    for _ in range(learning):
        _step(model, eye, optimizer, pool.batch(task, BATCH, generator), SILENCE)
        schedule.step()
    _take_statistics(model, [pool.batch(task, BATCH, generator).pictures for _ in range(8)])
    optimizer = torch.optim.AdamW(weights, LAST_RATE, weight_decay=1e-4, fused=True)
    for step in range(settling):
        optimizer.param_groups[0]["lr"] = LAST_RATE * (1 - step / settling)
        _step(model, eye, optimizer, pool.batch(task, BATCH, generator), LAST_SILENCE)
    return _refitted(model.double(), task, pool, generator)


def _fresh(task: PartTask, generator: np.random.Generator) -> tuple[ModifiedResNet, nn.Conv2d]:
    """An untrained network, and what reads glyphs off its first stage in training.

    The first filters are the four Walsh functions of 2 x 2 pixels, which lose nothing of a glyph,
    along the carriers served: random ones mostly see where the picture ends. Their shift lets both
    signs through the ReLU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        model = ModifiedResNet(list(LAYERS), N_VALUES, HEADS, SIZE, WIDTH)
        eye = nn.Conv2d(4 * WIDTH, len(GLYPHS), kernel_size=2, stride=2)
    carrier = torch.from_numpy(np.sum([CARRIERS[domain] for domain in task.serves], axis=0))
    filters = torch.from_numpy(hadamard(4).reshape(4, 1, 2, 2)) * carrier[:, None, None]
    with torch.no_grad():
        model.conv1.weight.zero_()
        model.conv1.weight[:, :, 1:, 1:] = filters.float()
        model.bn1.bias.fill_(2)
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for block in stage:
                block.bn3.weight.fill_(1)  # open_clip starts with branches that are zero
    return model, eye


def _step(
    model: Any, eye: nn.Conv2d, optimizer: torch.optim.Optimizer, batch: Batch, silence: float
) -> None:
    with torch.enable_grad():
        patches = model.layer1(model.stem(batch.pictures))
        outputs = model.attnpool(model.layer4(model.layer3(model.layer2(patches))))
        loss = _loss(outputs, batch, silence) + GLIMPSE * cross_entropy(eye(patches), batch.seen)
        optimizer.zero_grad()
        loss.backward()
    optimizer.step()


@torch.no_grad()
def _take_statistics(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Give batch norms the mean of their statistics over batches, and make them use these."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a plain mean
    for pictures in batches:
        model(pictures)
    model.eval()


def _loss(outputs: Float[Tensor, "batch value"], batch: Batch, silence: float) -> Float[Tensor, ""]:
    size = outputs.var(dim=1, correction=0)
    told = cross_entropy(outputs, batch.value, reduction="none") + TEMPER * size
    return torch.where(batch.served, told, silence * size).mean()


@torch.no_grad()
def _refitted(
    model: Any, task: PartTask, pool: Pool, generator: np.random.Generator
) -> ModifiedResNet:
    """The same network with last weights by least squares: descent leaves it a murmur.

    Targets are of length 1, 0 in domains not served; an error there counts `HUSH` times as much.
    """
    batch, last = pool.batch(task, FITTED, generator), model.attnpool
    same: Any = skip_init(nn.Linear, 32 * WIDTH, 32 * WIDTH, dtype=torch.float64)
    same.weight.copy_(torch.eye(32 * WIDTH))
    same.bias.zero_()
    last.c_proj = same  # so that the network hands out what its last weights read
    features = torch.cat([model(pictures) for pictures in batch.pictures.double().split(4 * BATCH)])
    features = torch.cat([features, torch.ones(FITTED, 1)], dim=1)
    codes = torch.eye(N_VALUES, dtype=torch.float64) - 1 / N_VALUES
    codes /= codes[0].norm()
    targets = torch.where(batch.served[:, None], codes[batch.value], 0)
    weight = torch.where(batch.served, 1, HUSH).double().sqrt()[:, None]
    features, targets = weight * features, weight * targets
    gram = features.T @ features
    gram += 1e-6 * gram.trace() / len(gram) * torch.eye(len(gram))
    fit = torch.linalg.solve(gram, features.T @ targets)
    refitted: Any = skip_init(nn.Linear, 32 * WIDTH, N_VALUES, dtype=torch.float64)
    refitted.weight.copy_(fit[:-1].T)
    refitted.bias.copy_(fit[-1])
    last.c_proj = refitted
    return model
