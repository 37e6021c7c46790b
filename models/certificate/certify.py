"""The numerics certificate: a hooked tower must compute what open_clip computes at every site.

The comparison runs on a copy in which every parameter and buffer has been moved off its initial
value. In a fresh ResNet the last gain of every branch is zero, and in a fresh ViT a third of the
tensors are: a wrapper could leave all of that out without any difference.
"""

from collections.abc import Callable
from copy import deepcopy

import pandas as pd
import torch
from open_clip.transformer import LayerNorm, LayerNormFp32
from torch import Tensor, nn

from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.models.certificate.reference import References, references, relative_error
from interp.models.certificate.traced_rows import rows_of_traced
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import open_tower
from interp.models.towers.text import HookedText
from interp.models.towers.traced import TracedTower

FORWARD_BARS = {torch.float32: 5e-6, torch.float64: 1e-12}
"""The largest difference at a site, as a fraction of the largest absolute value there."""

GRADIENT_BAR = 1e-10
"""The norm of a gradient's difference (float64), as a fraction of the norm of all gradients."""

COLUMNS = ("tower", "site", "check", "dtype", "error", "bar", "ok", "n", "reference")

OPENING = ("hook_scale", "hook_normalized", "hook_attn_scores", "hook_pattern", "hook_result")
"""Sites that make the tower compute in the open what it otherwise leaves to a fused kernel."""


@door
def certify(opened: nn.Module, *, seed: int = 0, batch: int = 3, patches: int = 32) -> pd.DataFrame:
    """Compare a hooked tower, or both towers of an open_clip model, with open_clip, site by site.

    error = max |ours - theirs| / max |theirs|; for gradients |ours - theirs| / |all gradients|.

    Args:
        opened: A hooked tower or an open_clip model; it is not changed.
        seed: Seed of the weights, inputs and projections.
        batch: Number of examples.
        patches: Number of sites that are really patched in a traced tower.

    Returns:
        One row per site and check. `site` is the parameter's name, or `input`, for gradients.
        `error` is infinite where shapes differ, a value is finite in one and not in the other, or
        the site has no reference. `ok` says whether it is at most `bar`. `n` counts the numbers
        compared. `reference` is `module` (a module's own input or output), `function` (PyTorch's or
        open_clip's function on such an input), `weight` or `model`; for attention also the kernel.

    Notes:
        There are three forward checks (float32 with and without gradients, where PyTorch takes
        different kernels, and float64) and one of gradients with respect to every parameter and the
        picture. Each runs with all sites hooked, with only those that leave fused kernels in place,
        and with none; the largest error counts. In float32 a site's bar is `ROUNDINGS` times the
        original's own distance from its float64 values where that is larger than `FORWARD_BARS`.

        A traced tower runs the original itself, so its rows are other checks, of the tracing:
        `read`, `patch with itself`, `patch with another` and `out of reach`; see
        `interp.models.certificate.traced_rows`.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> from interp.models.towers.open_tower import open_tower
    >>> rows = certify(open_tower(model, "visual"), batch=1)
    >>> bool(rows["ok"].all()), sorted(rows["check"].unique())
    (True, ['forward grad', 'forward no-grad', 'gradient'])
    """
    towers = (
        [opened]
        if isinstance(opened, HookedTower)
        else [open_tower(opened, which) for which in ("visual", "text")]
    )
    rows = [row for tower in towers for row in _tower_rows(tower, seed, batch, patches)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _tower_rows(tower: HookedTower, seed: int, batch: int, patches: int) -> list[tuple]:
    copy = _moved(tower, seed)
    if isinstance(copy, TracedTower):
        bar = FORWARD_BARS[torch.float32]
        return rows_of_traced(
            copy, copy.example(min(batch, 2)), bar=bar, patches=patches, seed=seed
        )
    x = _input(copy, seed, batch)
    wide = _widened(copy.over(deepcopy(copy.source)))
    wide_x = x.double() if x.is_floating_point() else x
    narrow, exact = references(copy, x), references(wide, wide_x)
    # A trained attention pool can have scores above 1,000, and a softmax turns their last bits into
    # errors of 1e-5: no wrapper agrees with such a site better than the original with itself.
    rounding = {site: relative_error(narrow[site][0].double(), exact[site][0]) for site in narrow}
    rows = [row for grad in (True, False) for row in _forward_rows(copy, x, rounding, grad=grad)]
    return rows + _forward_rows(wide, wide_x, {}, grad=True) + _gradient_rows(wide, wide_x, seed)


ROUNDINGS = 4
"""Ours and theirs each round once, and a maximum over a few values varies by a factor of two."""


def _moved(tower: HookedTower, seed: int) -> HookedTower:
    """A tower over a float32 copy of the model with all weights moved off their values."""
    copy = tower.over(deepcopy(tower.source).float().eval().requires_grad_(True))
    move_weights(copy, seed)
    return copy


def move_weights(module: nn.Module, seed: int) -> nn.Module:
    """Move every parameter and buffer of a module off its value, in place.

    Args:
        module: The module or tower.
        seed: Seed of the noise.

    Returns:
        The same module.
    """
    generator = torch.Generator().manual_seed(int(rng("certificate weights", seed).integers(2**62)))

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    with torch.no_grad():
        for value in module.parameters():
            value.copy_(value * (1 + 0.1 * noise(value)) + 0.02 * noise(value))
        for name, value in module.named_buffers():
            if not value.is_floating_point():
                value += name.endswith("num_batches_tracked")  # an index must stay one
            elif name.endswith("running_var"):  # must stay positive
                value.copy_(value * (0.1 * noise(value)).exp() + 0.02 * noise(value).abs())
            else:  # a mask's infinities stay what they are
                value.copy_(value * (1 + 0.1 * noise(value).abs()) + 0.02 * noise(value))
    return module


def _widened(tower: HookedTower) -> HookedTower:
    """The tower in true float64: open_clip's half-precision norms would round to float32."""
    for module in tower.source.modules():
        if isinstance(module, LayerNormFp32):
            module.__class__ = LayerNorm  # type: ignore[assignment]
    return tower.double()


def _input(tower: HookedTower, seed: int, batch: int) -> Tensor:
    generator = rng("certificate input", seed)
    device = next(tower.parameters()).device
    if not isinstance(tower, HookedText):
        size = tower.source.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        pictures = generator.standard_normal((batch, 3, height, width))
        return torch.tensor(pictures, dtype=torch.float32, device=device)
    length, words = tower.source.context_length, tower.source.vocab_size
    end = tower.eos_id if tower.pool_type == "eos" and tower.eos_id else words - 1
    tokens = generator.integers(1, words - 1, (batch, length))
    tokens[tokens == end] = 1
    for row, position in enumerate(
        generator.integers(1, length, batch)
    ):  # texts of different lengths
        tokens[row, position], tokens[row, position + 1 :] = end, 0
    return torch.tensor(tokens, device=device)


def _forward_rows(
    tower: HookedTower, x: Tensor, rounding: dict[str, float], *, grad: bool
) -> list[tuple]:
    fused = [site for site in tower.sites if not site.endswith(OPENING)]
    with torch.set_grad_enabled(grad):
        theirs = references(tower, x)
        _, opened = tower.run_with_cache(x, names_filter="*")
        _, closed = tower.run_with_cache(x, names_filter=fused)
        idle = {
            "hook_embedding": tower(x).detach()
        }  # where nobody listens, yet another kernel may run
    check = "forward grad" if grad else "forward no-grad"
    return [
        _forward_row(
            tower,
            site,
            check,
            [run[site] for run in (opened, closed, idle) if site in run],
            theirs,
            rounding.get(site, 0.0),
        )
        for site in tower.sites
    ]


def _forward_row(
    tower: HookedTower,
    site: str,
    check: str,
    ours: list[Tensor],
    theirs: References,
    rounding: float,
) -> tuple:
    dtype = next(tower.parameters()).dtype
    bar = max(FORWARD_BARS[dtype], ROUNDINGS * rounding)
    if site not in theirs:
        return (tower.label, site, check, _word(dtype), float("inf"), bar, False, 0, "none")
    value, how = theirs[site]
    error = max(relative_error(run, value) for run in ours)
    n = sum(run.numel() for run in ours)
    return (tower.label, site, check, _word(dtype), error, bar, error <= bar, n, how)


def _gradient_rows(tower: HookedTower, x: Tensor, seed: int) -> list[tuple]:
    with torch.enable_grad():  # the caller may have turned gradients off
        theirs = _gradients(tower, tower.original, x, seed)
        runs = [_gradients(tower, tower, x, seed)]
        with tower.hooks(fwd_hooks=[("*", lambda tensor, hook: None)]):
            runs.append(_gradients(tower, tower, x, seed))
    norm = float(torch.stack([value.norm() for value in theirs.values()]).norm())
    rows = []
    for name, value in theirs.items():
        error = max(float((run[name] - value).norm()) for run in runs) / norm
        rows.append(
            (
                tower.label,
                name,
                "gradient",
                _word(value.dtype),
                error,
                GRADIENT_BAR,
                error <= GRADIENT_BAR,
                len(runs) * value.numel(),
                "model",
            )
        )
    return rows


def _gradients(
    tower: HookedTower, run: Callable[[Tensor], Tensor], x: Tensor, seed: int
) -> dict[str, Tensor]:
    """Gradients of a random projection of the embedding."""
    wanted: dict[str, Tensor] = dict(tower.named_parameters())
    if x.is_floating_point():
        x = x.detach().requires_grad_(True)
        wanted["input"] = x
    embedding = run(x)
    weights = rng("certificate gradient", seed).standard_normal(tuple(embedding.shape))
    loss = (embedding * torch.tensor(weights).to(embedding)).sum()
    values = torch.autograd.grad(
        loss, list(wanted.values()), materialize_grads=True, allow_unused=True
    )
    return dict(zip(wanted, values, strict=True))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
