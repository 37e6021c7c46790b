"""Training of sparse autoencoders on the pictures that may be trained on, several seeds at once.

A cell (class x domain) that the model never saw must not shape the features that it is judged by.
So a dictionary is trained only where it is known which cells are withheld.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.core.arguments import filled
from interp.core.errors import NumericsError, SampleError, SpecificationError
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.probes.dictionaries.dictionary import L1, BatchTopK, Dictionary, Sparsity, TopK
from interp.probes.dictionaries.linear_code import Cells, training_rows
from interp.probes.dictionaries.usage import only_site
from interp.probes.features.features import Features

REDRAWN_AT = tuple(share / 100 for share in range(5, 75, 5))
"""Shares of the steps after which dead features are drawn anew; then they have time to settle."""


class DescentKeywords(TypedDict, total=False):
    """How dictionaries descend to their loss."""

    steps: int
    batch_size: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How dictionaries descend to their loss.

    Args:
        steps: Steps of Adam.
        batch_size: Rows in a step.
        rate: Adam's learning rate.
    """

    steps: int = 2000
    batch_size: int = 512
    rate: float = 3e-3


@dataclass(frozen=True, kw_only=True)
class Training(Descent):
    """How many dictionaries of what width are trained, and how."""

    n: int
    width: int
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
    generator = rng("dictionary batches", seed)
    size = min(size, n)
    while True:
        order = generator.permutation(n)
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
        do = "lower the rate, or check the activations"
        raise NumericsError("train a dictionary", "a loss that is no number", "a finite loss", do)
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
        generator = rng("dictionary redraw", seeds[place], step)
        sample = x[torch.as_tensor(generator.permutation(len(x))[:4096], device=x.device)]
        one = Weights(*(tensor[place : place + 1] for tensor in weights.all()))
        lacking = sample - one.decode(sparsity.select(one.strength(sample[None])))[0]
        chance = lacking.square().sum(dim=1).double().cpu().numpy()
        which = torch.nonzero(dead[place]).flatten()
        if not chance.sum() > 0:  # nothing is lacking
            continue
        drawn = generator.choice(len(sample), size=len(which), p=chance / chance.sum())
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
        # the strength that k features a row exceed on average over the training rows
        strength = one.strength(x[: max(1, 2**25 // one.decoder.shape[1])][None])[0]
        n = min(sparsity.k * len(strength) + 1, strength.numel())
        threshold += strength.flatten().topk(n).values[-1].relu()
    return Dictionary(
        encoder,
        decoder,
        scale * encoder_bias[0],
        mean + scale * decoder_bias[0],
        scale * threshold,
        sparsity.k if isinstance(sparsity, TopK) else None,
        unit_rows,
        facts | {"sparsity": repr(sparsity)},
    )


@door
def train_dictionaries(
    features: Features,
    site: str,
    sparsity: Sparsity,
    *,
    width: int,
    withheld: Cells | None = None,
    seeds: Sequence[int] = (0,),
    device: str | torch.device | None = None,
    **descent: Unpack[DescentKeywords],
) -> list[Dictionary]:
    """Train sparse autoencoders on a site's activations, one per seed.

        minimise  mean over dimensions of (x - x^)^2 + penalty * sum of strengths

    The second term is for `L1` only; `TopK` and `BatchTopK` keep few features instead. `Dictionary`
    has the formula of x^.

    Args:
        features: Features "picture d_in" per site.
        site: The site.
        sparsity: How features are kept few: `L1`, `TopK` or `BatchTopK`.
        width: Number of features of a dictionary.
        withheld: Cells (class, domain) that are left out; None takes them from a column `withheld`
            of the frame, and () says that nothing is withheld.
        seeds: Seeds, one per dictionary.
        steps: Steps of Adam.
        batch_size: Pictures per step.
        rate: Learning rate, which falls to 0 over the last fifth of the steps.
        device: Where training runs; None takes the processor.

    Returns:
        A dictionary per seed.

    Raises:
        SiteError: For a site that the features do not have.
        LeakError: Where nothing says which cells are withheld, or where the frame withholds cells
            that `withheld` does not name.
        SampleError: For fewer pictures that are not withheld than `width`.
        NumericsError: For activations that are the same in every picture, or a loss that is not
            finite.
        SpecificationError: For a width below 1 or below k.

    References:
        The redrawing of dead features: Bricken et al. 2023, "Towards monosemanticity".

    Notes:
        - x is centred and scaled to variance 1 per dimension on average, so that one rate and
          penalty fit all sites. Both are folded back into the weights. Decoder rows keep norm 1.
        - A feature that no row has used in the last twentieth of the steps is dead and is drawn
          anew: its directions become what a badly reconstructed row lacks. This stops after 70 % of
          the steps.
        - Seeds train side by side in batched products. Each has its own first weights and order of
          rows, and gives what it would give alone. Training is in float32 or float64, as the
          activations are.

    >>> import numpy as np, pandas as pd
    >>> from interp.probes import TopK
    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"label": "cat", "domain": ["real", "sketch"] * 50})
    >>> features = Features({"hook_embedding": generator.normal(size=(100, 4))}, frame)
    >>> first, second = train_dictionaries(
    ...     features, "hook_embedding", TopK(1), width=8, withheld=[("cat", "sketch")],
    ...     seeds=(0, 1), steps=20)
    >>> first.width, first.facts["n_rows"]
    (8, 50)
    """
    given = filled(train_dictionaries, Descent, descent)
    rows = training_rows(features.frame, withheld)
    x = torch.as_tensor(features.values[only_site(features, site)][rows]).to(device)
    _refuse(x, width, sparsity, site)
    mean, scale = x.mean(dim=0), (x - x.mean(dim=0)).square().mean().sqrt()
    if not scale > 1e-7 * mean.abs().max():
        raise NumericsError(
            f"train a dictionary of {site}",
            "activations that are the same for every picture",
            "activations that vary",
            "choose another site, or check the model",
        )
    training = Training(n=len(seeds), width=width, decay=0.2, redraw=True, **asdict(given))
    weights = fit((x - mean) / scale, sparsity, list(seeds), training)
    facts = _facts(features, site, withheld, len(x), given.steps)
    return [
        folded(weights, place, mean, scale, sparsity, (x - mean) / scale, facts | {"seed": seed})
        for place, seed in enumerate(seeds)
    ]


def paper_dictionary(
    features: Features,
    site: str = "hook_embedding",
    *,
    withheld: Cells | None = None,
    seed: int = 0,
    steps: int = 2000,
    device: str | torch.device | None = None,
) -> Dictionary:
    """Train the sparse autoencoder of Kempf et al. with their settings.

        f = ReLU(W_e (x - b) + b_e),  x^ = W_d f + b
        loss = mean over dimensions of (x - x^)^2 + 1e-4 * sum of f

    on rows x divided by their norm.

    Args:
        features: Features "picture d_in" per site.
        site: The site; the default is the paper's.
        withheld: Cells (class, domain) that are left out; None takes them from a column `withheld`
            of the frame, and () says that nothing is withheld.
        seed: Seed of weights and order of rows.
        steps: Steps of Adam.
        device: Where training runs; None takes the processor.

    Returns:
        The dictionary, with four features per dimension.

    Raises:
        SiteError: For a site that the features do not have.
        LeakError: Where nothing says which cells are withheld, or where the frame withholds cells
            that `withheld` does not name.
        SampleError: For fewer pictures that are not withheld than features.
        NumericsError: For a loss that is not finite.

    References:
        Kempf et al. 2025, arXiv 2502.09507.

    Notes:
        Decoder rows have norm 1. Adam runs at 1e-4 on batches of 2048. Nothing is done about dead
        features. The paper's dictionary saw the withheld cells; this one does not.

    >>> import numpy as np, pandas as pd
    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"label": "cat", "domain": ["real"] * 50})
    >>> features = Features({"hook_embedding": generator.normal(size=(50, 4))}, frame)
    >>> paper_dictionary(features, withheld=(), steps=5).width
    16
    """
    rows = training_rows(features.frame, withheld)
    x = torch.as_tensor(features.values[only_site(features, site)][rows]).to(device)
    width, sparsity = 4 * x.shape[1], L1(1e-4)
    _refuse(x, width, sparsity, site)
    x = torch.nn.functional.normalize(x, dim=-1)
    training = Training(
        n=1, width=width, steps=steps, batch_size=2048, rate=1e-4, decay=0.0, redraw=False
    )
    weights = fit(x, sparsity, [seed], training)
    facts = _facts(features, site, withheld, len(x), steps) | {"seed": seed}
    nothing = torch.zeros_like(x[0]), torch.ones_like(x[0, 0])
    return folded(weights, 0, *nothing, sparsity, x, facts, unit_rows=True)


def _facts(
    features: Features, site: str, withheld: Cells | None, n_rows: int, steps: int
) -> dict[str, object]:
    if withheld is None:
        marked = features.frame[features.frame["withheld"].to_numpy(dtype=bool)]
        withheld = sorted(set(zip(marked["label"], marked["domain"], strict=True)))
    return {
        "site": site,
        "pool": features.facts.get("pool", ""),
        "fingerprint": features.facts.get("fingerprint", ""),
        "withheld": [list(cell) for cell in withheld],
        "n_rows": n_rows,
        "steps": steps,
    }


def _refuse(x: Tensor, width: int, sparsity: Sparsity, site: str) -> None:
    k = 1 if isinstance(sparsity, L1) else sparsity.k
    if width < max(1, k):
        given = f"width {width} and {sparsity}"
        right = f"a width of at least {max(1, k)}"
        do = "ask for more features or a smaller k"
        raise SpecificationError(f"train a dictionary of {site}", given, right, do)
    if len(x) < width:
        given = f"{len(x)} pictures that are not withheld"
        right = f"at least {width}: with fewer, a feature can be a single picture"
        do = "give more pictures, or ask for fewer features"
        raise SampleError(f"train a dictionary of {width} features", given, right, do)
