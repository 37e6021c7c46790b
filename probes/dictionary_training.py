"""Training sparse autoencoders on the pictures that may be trained on, several seeds at once.

A cell (class x domain) that the model never saw must not shape the features it is judged by. So a
dictionary is trained only where it is known which cells are withheld.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.core.errors import NumericsError, SampleError, SpecificationError
from interp.probes.dictionaries import L1, Dictionary, Sparsity
from interp.probes.dictionary_fitting import Training, fit, folded
from interp.probes.feature_usage import only_site
from interp.probes.features import Features
from interp.probes.withheld import Cells, training_rows


def train_dictionaries(
    features: Features,
    site: str,
    sparsity: Sparsity,
    *,
    width: int,
    withheld: Cells | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 2000,
    batch_size: int = 512,
    rate: float = 3e-3,
    device: str | torch.device | None = None,
) -> list[Dictionary]:
    """Sparse autoencoders of a site's activations, one per seed.

    minimises  mean over dimensions of (x - x^)^2 + penalty * sum of strengths  (`L1`), or the first
    term alone with few features kept (`TopK`, `BatchTopK`; the `Dictionary` has the formula), by
    Adam at `rate`, which falls to 0 over the last fifth. x is centred and scaled to variance 1 per
    dimension on average, which makes one rate and penalty fit all sites; both are folded back in.
    Decoder rows keep norm 1.

    A feature that no row of the last twentieth of the steps used is dead, and drawn anew: its
    directions become what a badly reconstructed row lacks (the resampling of Bricken et al. 2023).

    `withheld` names the cells (class, domain) that are left out; None takes them from a column
    `withheld` of the frame. With neither, or with cells that the frame withholds and you do not,
    it is refused: `withheld=()` says that nothing is withheld.

    Seeds train side by side in batched products; each has its own first weights and order of rows,
    and gives what it gives alone. float32 or float64, as the activations are.

    Raises `LeakError` as said, `SampleError` for fewer rows than `width`, `NumericsError` for
    activations that are the same in every row, `SpecificationError` for widths below 1 or k.

    >>> import numpy as np, pandas as pd
    >>> from interp.probes import TopK
    >>> stream = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"label": "cat", "domain": ["real", "sketch"] * 50})
    >>> features = Features({"hook_embedding": stream.normal(size=(100, 4))}, frame)
    >>> first, second = train_dictionaries(
    ...     features, "hook_embedding", TopK(1), width=8, withheld=[("cat", "sketch")],
    ...     seeds=(0, 1), steps=20)
    >>> first.width, first.facts["n_rows"]
    (8, 50)
    """
    rows = training_rows(features.frame, withheld)
    x = torch.as_tensor(features.values[only_site(features, site)][rows]).to(device)
    _refuse(x, width, sparsity, site)
    mean, scale = x.mean(dim=0), (x - x.mean(dim=0)).square().mean().sqrt()
    if not scale > 1e-7 * mean.abs().max():
        raise NumericsError(
            f"train a dictionary of {site}", "activations that are the same for every picture",
            "activations that vary", "choose another site, or check the model",
        )  # fmt: skip
    training = Training(len(seeds), width, steps, batch_size, rate, decay=0.2, redraw=True)
    weights = fit((x - mean) / scale, sparsity, list(seeds), training)
    facts = _facts(features, site, withheld, len(x), steps)
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
    """The sparse autoencoder of Kempf et al. 2025, with their settings.

    On rows divided by their norm: f = ReLU(W_e (x - b) + b_e), x^ = W_d f + b, four features per
    dimension, decoder rows of norm 1, loss = mean over dimensions of the squared error + 1e-4 times
    the sum of f, Adam at 1e-4, batches of 2048. Nothing is done about dead features. Theirs saw the
    withheld cells; here `withheld` is that of `train_dictionaries`, and so are the errors.

    >>> import numpy as np, pandas as pd
    >>> stream = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"label": "cat", "domain": ["real"] * 50})
    >>> features = Features({"hook_embedding": stream.normal(size=(50, 4))}, frame)
    >>> paper_dictionary(features, withheld=(), steps=5).width
    16
    """
    rows = training_rows(features.frame, withheld)
    x = torch.as_tensor(features.values[only_site(features, site)][rows]).to(device)
    width, sparsity = 4 * x.shape[1], L1(1e-4)
    _refuse(x, width, sparsity, site)
    x = torch.nn.functional.normalize(x, dim=-1)
    training = Training(1, width, steps, 2048, 1e-4, decay=0.0, redraw=False)
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
        raise SpecificationError(
            f"train a dictionary of {site}", f"width {width} and {sparsity}",
            f"a width of at least {max(1, k)}", "ask for more features or a smaller k",
        )  # fmt: skip
    if len(x) < width:
        raise SampleError(
            f"train a dictionary of {width} features", f"{len(x)} pictures that are not withheld",
            f"at least {width}: with fewer, a feature can be a single picture",
            "give more pictures, or ask for fewer features",
        )  # fmt: skip
