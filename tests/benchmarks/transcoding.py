"""Transcoders: an MLP's output written by a few features of what enters the MLP.

    z  = the strongest of x encoder + encoder_bias,    y^ = z decoder + decoder_bias

A sparse autoencoder writes an activation by features of itself; a transcoder writes what an MLP
makes of it, and so stands for the MLP's computation. Its weights are kept as a `Dictionary`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.core.errors import NumericsError, SampleError
from interp.core.seeds import rng
from interp.probes import BatchTopK, Dictionary, Features
from interp.probes.dictionaries.codes import Cells, training_rows

REDRAWN_AT = tuple(share / 100 for share in range(10, 75, 10))
"""Shares of the steps after which features that were not active are drawn anew."""

LEAST_VARIANCE = 1e-10
"""Directions of the input with a smaller share of the largest variance are not read."""


@dataclass(frozen=True)
class Recipe:
    """How a transcoder is trained: features, how many of them a token has on average, and Adam.

    The defaults are those of eight recipes whose circuits did best in two planted models of seed 3.
    """

    width: int = 32
    k: int = 2
    steps: int = 1000
    batch_size: int = 256
    rate: float = 5e-3


def train_transcoder(
    features: Features,
    reads: str,
    *,
    writes: str,
    recipe: Recipe,
    withheld: Cells | None = None,
    seed: int = 0,
) -> Dictionary:
    """Train a transcoder from one site's tokens to another's.

        minimise  mean over dimensions of (y - y^)^2 / variance of y

    Args:
        features: Tokens of pictures at both sites (`collect` with pool "token"), or vectors.
        reads: The site that enters the MLP.
        writes: The site of its output, as wide.
        recipe: Width, sparsity and descent.
        withheld: Cells (class, domain) that are left out; None takes them from a column `withheld`
            of the frame, and () says that nothing is withheld.
        seed: Seed of the first weights and of the order of tokens.

    Returns:
        The transcoder; `encode` takes tokens at `reads`, `reconstruct` says what stands at
        `writes`.

    Raises:
        LeakError: Where nothing says which cells are withheld.
        SampleError: For fewer tokens than features.
        NumericsError: For an output that does not vary, or a loss that is not finite.

    References:
        Transcoders: Dunefsky et al. 2024. BatchTopK: Bussmann et al. 2024.

    Notes:
        The input is whitened, which changes the descent and not what can be learned: whitening is
        linear and is folded into the encoder. Without it, what a layer norm hands on is dominated
        by a few loud directions, and features of the others are not found.
    """
    rows = training_rows(features.frame, withheld)
    chosen = features.rows(rows)
    x, y = (tokens_of(chosen, site) for site in (reads, writes))
    if len(x) < recipe.width:
        raise SampleError(
            f"train a transcoder of {recipe.width} features", f"{len(x)} tokens",
            f"at least {recipe.width}", "give more pictures, or ask for fewer features",
        )  # fmt: skip
    centre, white = _whitening(x)
    mean, scale = y.mean(dim=0), (y - y.mean(dim=0)).square().mean().sqrt()
    if not scale > 0:
        raise NumericsError(
            f"train a transcoder to {writes}", "an output that is the same for every token",
            "an output that varies", "choose another MLP, or check the model",
        )  # fmt: skip
    weights = _descend(((x - centre) @ white).float(), ((y - mean) / scale).float(), recipe, seed)
    encoder, encoder_bias, decoder, decoder_bias, threshold = (t.double() for t in weights)
    encoder, decoder_bias = white @ encoder, mean + scale * decoder_bias
    # a Dictionary takes its decoder's bias from what it reads, which an autoencoder should
    encoder_bias = encoder_bias + (decoder_bias - centre) @ encoder
    facts = {"reads": reads, "writes": writes, "k": recipe.k, "seed": seed, "n_rows": len(x)}
    return Dictionary(scale * encoder, decoder, scale * encoder_bias, decoder_bias,
                      scale * threshold, facts=facts)  # fmt: skip


def tokens_of(features: Features, site: str) -> Float[Tensor, "token d_model"]:
    """A site's tokens one below the other, in float64."""
    values = features.values[site]
    width = features.shapes[site][1] if site in features.shapes else values.shape[1]
    return torch.as_tensor(np.asarray(values, dtype=np.float64).reshape(-1, width))


def _whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and a map "d_in direction" after which all directions that vary have variance 1."""
    centre = x.mean(dim=0)
    variance, axes = torch.linalg.eigh((x - centre).T @ (x - centre) / len(x))
    varies = variance > LEAST_VARIANCE * variance[-1]
    return centre, axes[:, varies] / variance[varies].sqrt()


def _descend(x: Tensor, y: Tensor, recipe: Recipe, seed: int) -> list[Tensor]:
    """Encoder, its bias, decoder, its bias and threshold, by Adam; decoder rows keep norm 1."""
    generator, sparsity = rng("transcoder", seed), BatchTopK(recipe.k)
    encoder, decoder = (
        torch.nn.functional.normalize(
            torch.as_tensor(generator.normal(size=(recipe.width, d)), dtype=torch.float32), dim=1
        )
        for d in (x.shape[1], y.shape[1])
    )
    weights = [encoder.T.clone(), torch.zeros(recipe.width), decoder, torch.zeros(y.shape[1])]
    for tensor in weights:
        tensor.requires_grad_(True)
    adam = torch.optim.Adam(weights, lr=recipe.rate)
    checks = {round(share * recipe.steps) for share in REDRAWN_AT}
    fired, batches = torch.zeros(recipe.width, dtype=torch.bool), _batches(len(x), recipe, seed)
    for step in range(recipe.steps):
        rows = torch.as_tensor(next(batches))
        z = sparsity.select((x[rows] @ weights[0] + weights[1])[None])[0]
        loss = (z @ weights[2] + weights[3] - y[rows]).square().mean()
        if not torch.isfinite(loss):
            raise NumericsError("train a transcoder", "a loss that is no number", "a finite loss",
                                "lower the rate, or check the activations")  # fmt: skip
        adam.zero_grad(set_to_none=True)
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = recipe.rate * min(1.0, 5 * (1 - step / recipe.steps))
        with torch.no_grad():
            adam.step()
            weights[2] /= weights[2].norm(dim=1, keepdim=True)
        fired |= (z > 0).any(dim=0)
        if step + 1 in checks:
            _redraw(weights, adam, x, y, ~fired, generator, recipe.k)
            fired.zero_()
    with torch.no_grad():
        strength = (x @ weights[0] + weights[1]).flatten()
        n = min(recipe.k * len(x) + 1, strength.numel())
        threshold = strength.topk(n).values[-1].relu().expand(recipe.width)
    return [*(tensor.detach() for tensor in weights), threshold]


def _batches(n: int, recipe: Recipe, seed: int) -> Iterator[np.ndarray]:
    generator, size = rng("transcoder batches", seed), min(recipe.batch_size, n)
    while True:
        order = generator.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


@torch.no_grad()
def _redraw(
    weights: list[Tensor],
    adam: torch.optim.Adam,
    x: Tensor,
    y: Tensor,
    dead: Tensor,
    generator: np.random.Generator,
    k: int,
) -> None:
    """Let dead features read a token that is badly written, and write what it lacks."""
    some = torch.as_tensor(generator.permutation(len(x))[:4096])
    z = BatchTopK(k).select((x[some] @ weights[0] + weights[1])[None])[0]
    lacking = y[some] - z @ weights[2] - weights[3]
    chance = lacking.square().sum(dim=1).double().numpy()
    which = torch.nonzero(dead).flatten()
    if not len(which) or not chance.sum() > 0:
        return
    drawn = torch.as_tensor(generator.choice(len(some), len(which), p=chance / chance.sum()))
    size = weights[0][:, ~dead].norm(dim=0).mean() if (~dead).any() else 1.0
    unit = torch.nn.functional.normalize
    weights[0][:, which] = size * unit(x[some][drawn], dim=1).T
    weights[1][which] = 0
    weights[2][which] = unit(lacking[drawn], dim=1)
    for tensor, index in zip(weights[:3], ((slice(None), which), which, which), strict=True):
        for moment in ("exp_avg", "exp_avg_sq"):
            adam.state[tensor][moment][index] = 0


def quality(made: Dictionary, learned: Features, held_out: Features) -> pd.DataFrame:
    """Shares of the output's variance that are explained on held-out pictures, at equal size.

    Rows are the transcoder, principal components of the output and reduced-rank regression of the
    output on the input, fitted to the pictures of `learned`, with as many directions as the
    transcoder has active features on average (`active`, rounded up). `dead` is the share of its
    features that no held-out token activates.
    """
    reads, writes = str(made.facts["reads"]), str(made.facts["writes"])
    (x, y), (x_new, y_new) = (
        (tokens_of(each, reads), tokens_of(each, writes)) for each in (learned, held_out)
    )
    z = made.encode(x_new)
    active = float((z > 0).sum(dim=1).double().mean())
    rank = max(1, int(np.ceil(active)))
    made_by = {
        "transcoder": made.reconstruct(x_new, z),
        "pca": _components(y, y_new, rank),
        "reduced-rank regression": _regression(x, y, x_new, rank),
    }
    total = (y_new - y.mean(dim=0)).square().sum()
    rows = [
        {"code": name, "site": writes, "active": active if name == "transcoder" else float(rank),
         "explained": float(1 - (y_new - out).square().sum() / total),
         "dead": float((z <= 0).all(dim=0).double().mean()) if name == "transcoder" else np.nan}
        for name, out in made_by.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _components(y: Tensor, y_new: Tensor, rank: int) -> Tensor:
    mean = y.mean(dim=0)
    axes = torch.linalg.eigh((y - mean).T @ (y - mean)).eigenvectors[:, -rank:]
    return mean + (y_new - mean) @ axes @ axes.T


def _regression(x: Tensor, y: Tensor, x_new: Tensor, rank: int) -> Tensor:
    """The best linear map of that rank by least squares (Izenman 1975)."""
    centre, white = _whitening(x)
    x, x_new, mean = (x - centre) @ white, (x_new - centre) @ white, y.mean(dim=0)
    slope = x.T @ (y - mean) / len(x)  # the inputs are white
    axes = torch.linalg.svd(slope, full_matrices=False).Vh[:rank]
    return mean + x_new @ slope @ axes.T @ axes
