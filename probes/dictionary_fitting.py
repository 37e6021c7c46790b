"""The fitting of sparse autoencoders by Adam, several side by side, dead features redrawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.core.errors import NumericsError
from interp.core.progress import track
from interp.core.seeds import rng
from interp.probes.dictionaries import L1, BatchTopK, Dictionary, Sparsity, TopK

REDRAWN_AT = tuple(share / 100 for share in range(5, 75, 5))
"""Shares of the steps after which dead features are drawn anew; then they have time to settle."""


@dataclass(frozen=True)
class Training:
    """How many dictionaries of what width are trained, and how."""

    n: int
    width: int
    steps: int
    batch_size: int
    rate: float
    decay: float
    redraw: bool


@dataclass(frozen=True)
class Weights:
    """Weights of several dictionaries, in normalised coordinates."""

    encoder: Float[Tensor, "dictionary d_in width"]
    decoder: Float[Tensor, "dictionary width d_in"]
    encoder_bias: Float[Tensor, "dictionary one width"]
    decoder_bias: Float[Tensor, "dictionary one d_in"]

    def all(self) -> list[Tensor]:
        return [self.encoder, self.decoder, self.encoder_bias, self.decoder_bias]

    def strength(
        self, x: Float[Tensor, "dictionary row d_in"]
    ) -> Float[Tensor, "dictionary row width"]:
        return torch.baddbmm(self.encoder_bias, x - self.decoder_bias, self.encoder)

    def decode(
        self, features: Float[Tensor, "dictionary row width"]
    ) -> Float[Tensor, "dictionary row d_in"]:
        return torch.baddbmm(self.decoder_bias, features, self.decoder)


def begin(x: Tensor, width: int, seeds: Sequence[int]) -> Weights:
    """Random unit directions, the same for reading and writing; biases 0."""
    d_in = x.shape[1]
    drawn = np.stack([rng("dictionary", seed).normal(size=(width, d_in)) for seed in seeds])
    decoder = torch.nn.functional.normalize(torch.as_tensor(drawn).to(x), dim=-1)
    n = len(seeds)
    weights = Weights(
        decoder.transpose(1, 2).clone(), decoder, x.new_zeros(n, 1, width), x.new_zeros(n, 1, d_in)
    )
    for tensor in weights.all():
        tensor.requires_grad_(True)
    return weights


def fit(x: Tensor, sparsity: Sparsity, seeds: list[int], training: Training) -> Weights:
    """Adam on random batches, every seed with its own."""
    weights = begin(x, training.width, seeds)
    adam = torch.optim.Adam(weights.all(), lr=training.rate)
    batches = [_batches(len(x), training.batch_size, seed) for seed in seeds]
    checks = {round(share * training.steps) for share in REDRAWN_AT} if training.redraw else set()
    fired = torch.zeros(training.n, training.width, dtype=torch.bool, device=x.device)
    for step in track(range(training.steps), "dictionary"):
        rows = torch.as_tensor(np.stack([next(each) for each in batches]), device=x.device)
        codes = _step(weights, adam, x[rows], sparsity)
        left = (training.steps - step) / max(training.decay * training.steps, 1e-9)
        for group in adam.param_groups:
            group["lr"] = training.rate * min(1.0, left)
        fired |= (codes > 0).any(dim=1)
        if step + 1 in checks:
            _redraw(weights, adam, x, sparsity, ~fired, seeds, step)
            fired.zero_()
    return weights


def _batches(n: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of batches without end: every row once, in a new order each time round."""
    stream = rng("dictionary batches", seed)
    size = min(size, n)
    while True:
        order = stream.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def _step(
    weights: Weights,
    adam: torch.optim.Adam,
    x: Float[Tensor, "dictionary row d_in"],
    sparsity: Sparsity,
) -> Float[Tensor, "dictionary row width"]:
    """One step of Adam; decoder rows move along the sphere only."""
    codes = sparsity.select(weights.strength(x))
    loss = (weights.decode(codes) - x).square().mean(dim=(1, 2))
    if isinstance(sparsity, L1):
        loss = loss + sparsity.penalty * codes.sum(dim=2).mean(dim=1)
    if not torch.isfinite(loss).all():
        raise NumericsError(
            "train a dictionary", "a loss that is no number", "a finite loss",
            "lower the rate, or check the activations",
        )  # fmt: skip
    adam.zero_grad(set_to_none=True)
    loss.sum().backward()
    with torch.no_grad():
        slope, decoder = weights.decoder.grad, weights.decoder
        assert slope is not None
        slope -= (slope * decoder).sum(dim=-1, keepdim=True) * decoder
        adam.step()
        decoder /= decoder.norm(dim=-1, keepdim=True)
    return codes.detach()


@torch.no_grad()
def _redraw(
    weights: Weights,
    adam: torch.optim.Adam,
    x: Tensor,
    sparsity: Sparsity,
    dead: Tensor,
    seeds: list[int],
    step: int,
) -> None:
    """Point dead features at what badly reconstructed rows lack, and forget their momentum."""
    for place in torch.nonzero(dead.any(dim=1)).flatten().tolist():
        stream = rng("dictionary redraw", seeds[place], step)
        sample = x[torch.as_tensor(stream.permutation(len(x))[:4096], device=x.device)]
        one = Weights(*(tensor[place : place + 1] for tensor in weights.all()))
        lacking = sample - one.decode(sparsity.select(one.strength(sample[None])))[0]
        chance = lacking.square().sum(dim=1).double().cpu().numpy()
        which = torch.nonzero(dead[place]).flatten()
        if not chance.sum() > 0:  # nothing is lacking
            continue
        drawn = stream.choice(len(sample), size=len(which), p=chance / chance.sum())
        new = torch.nn.functional.normalize(lacking[torch.as_tensor(drawn).to(x.device)], dim=-1)
        alive = weights.encoder[place][:, ~dead[place]].norm(dim=0)
        size = alive.mean() if len(alive) else x.new_tensor(1.0)
        weights.decoder[place, which] = new
        weights.encoder[place][:, which] = size * new.T
        weights.encoder_bias[place, 0, which] = 0
        for tensor, index in (
            (weights.decoder, (place, which)),
            (weights.encoder, (place, slice(None), which)),
            (weights.encoder_bias, (place, 0, which)),
        ):
            for moment in ("exp_avg", "exp_avg_sq"):
                adam.state[tensor][moment][index] = 0


@torch.no_grad()
def folded(
    weights: Weights,
    place: int,
    mean: Tensor,
    scale: Tensor,
    sparsity: Sparsity,
    x: Tensor,
    facts: dict[str, object],
    *,
    unit_rows: bool = False,
) -> Dictionary:
    """One dictionary in the activations' own units: strengths are in them too."""
    encoder, decoder, encoder_bias, decoder_bias = (t[place].detach() for t in weights.all())
    threshold = torch.zeros_like(encoder_bias[0])
    if isinstance(sparsity, BatchTopK):
        one = Weights(*(tensor[place : place + 1] for tensor in weights.all()))
        threshold += _threshold(one, x, sparsity.k)
    return Dictionary(
        encoder, decoder, scale * encoder_bias[0], mean + scale * decoder_bias[0],
        scale * threshold, sparsity.k if isinstance(sparsity, TopK) else None, unit_rows,
        facts | {"sparsity": repr(sparsity)},
    )  # fmt: skip


def _threshold(weights: Weights, x: Tensor, k: int) -> Tensor:
    """The strength that k features a row exceed on average over the training rows."""
    strength = weights.strength(x[: max(1, 2**25 // weights.decoder.shape[1])][None])[0]
    n = min(k * len(strength) + 1, strength.numel())
    return strength.flatten().topk(n).values[-1].relu()
