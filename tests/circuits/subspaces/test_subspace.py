"""Subspaces on towers whose causal directions are known, and the fast path against the slow one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp.circuits import Chain, Classifier, Metric, Subspace, Target, fit_subspace, interchange
from interp.circuits.patching.engine import hold
from interp.circuits.subspaces.fit_subspace import bytes_with_gradients
from interp.core.errors import NumericsError, SampleError, ShapeError, SiteError, SpecificationError
from tests.circuits.conftest import Function, TinyViT, open_text, open_vit
from tests.refusals import refuses

N, D = 192, 8


def turned() -> Tensor:
    return torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(4)).double())[
        0
    ]


def reads_two() -> tuple[Chain, Tensor, Classifier]:
    """Of eight turned directions the output is made of the first two, by a nonlinearity."""
    basis = turned()
    ends = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    pool = Function(lambda x: torch.tanh(2 * x[:, 0] @ basis[:, :2]))
    return Chain([nn.Identity()], pool=pool), basis, Classifier(ends, tuple("abcd"))


def task(seed: int = 0, loud: float = 3.0) -> dict[str, Any]:
    """Pairs; directions 2 and 3 tell the class as well, louder, but nothing reads them."""
    tower, basis, head = reads_two()
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, N, D, generator=draw).double()
    hidden[..., 2:4] = loud * (hidden[..., :2] + 0.5 * hidden[..., 2:4])
    base, source = (hidden @ basis.T)[:, :, None]
    says = tower(source)
    labels = head.logits(says).argmax(dim=1)
    return {
        "tower": tower,
        "site": "blocks.0.hook_resid_post",
        "base": base,
        "source": source,
        "metric": Metric("kl", Target(head, labels, clean=says)),
        "k": 2,
    }


def overlap(basis: Tensor, truth: Tensor) -> float:
    """The smallest cosine of the principal angles."""
    return float(torch.linalg.svdvals(basis.T @ truth).min())


@pytest.mark.parametrize("loud", [0.0, 1.0, 3.0])
def test_the_subspace_that_is_read_is_found_beside_a_louder_one_that_is_not(loud: float) -> None:
    words = task(loud=loud)
    found, basis = fit_subspace(**words, steps=200), turned()
    assert overlap(found.basis, basis[:, :2]) > 0.99
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(2).double())
    source = words["source"][:, 0]
    means = torch.stack([source[words["metric"].target.labels == c].mean(0) for c in range(4)])
    loudest = torch.linalg.svd(means - means.mean(0))[2][:2].T
    assert (overlap(loudest, basis[:, :2]) < 0.8) == (loud > 0)  # class means would not do


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits start anywhere but at the gradients."""

    def anywhere(among: Tensor, read: Tensor, k: int) -> Tensor:
        draw = torch.randn(len(among.T), k, generator=torch.Generator().manual_seed(1))
        return torch.linalg.qr(draw.to(among)).Q

    monkeypatch.setattr("interp.circuits.subspaces.fit_subspace._start", anywhere)


@pytest.mark.usefixtures("far")
def test_a_fit_that_starts_far_off_arrives() -> None:
    found = fit_subspace(**task(loud=0.0), steps=200, span=1.0)
    assert overlap(found.basis, turned()[:, :2]) > 0.99
    assert found.losses[-5:].mean() < 0.01 * found.losses[0]


@pytest.mark.usefixtures("far")
def test_a_larger_metric_is_sought_where_it_is_no_distance() -> None:
    words = task(loud=0.0)
    margin = Metric("mean_margin", words["metric"].target)
    found = fit_subspace(**{**words, "metric": margin}, steps=100, span=1.0)
    assert overlap(found.basis, turned()[:, :2]) > 0.95
    assert found.losses[-1] < found.losses[0]


class Towards:
    """Rewards any movement of the first output towards the source, the further the better."""

    name = "towards"

    def __init__(self, wanted: Tensor) -> None:
        self.wanted = wanted

    def __call__(self, out: Tensor) -> Tensor:
        return out[:, 0] * self.wanted

    def __getitem__(self, rows: Any) -> "Towards":
        return Towards(self.wanted[rows])


def one_of_eight(reads: list[int], moves: list[float], **words: Any) -> Subspace:
    """A direction fitted where the output reads `reads`' sum, and sources move by `moves`, alike.

    In the basis of `turned`, not of the activations.
    """
    basis = turned()
    pool = Function(lambda x: (x[:, 0] @ basis[:, reads]).sum(1, keepdim=True) * torch.ones(1, 2))
    draw = torch.Generator().manual_seed(0)
    hidden = 1e-3 * torch.randn(2, N, D, generator=draw).double()
    code = torch.randn(2, N, 1, generator=draw).double()
    hidden[..., : len(moves)] += code * torch.tensor(moves).double()
    base, source = (hidden @ basis.T)[:, :, None]
    tower = Chain([nn.Identity()], pool=pool)
    wanted = Towards((code[1] - code[0])[:, 0].sign())
    found = fit_subspace(
        tower,
        "blocks.0.hook_resid_post",
        base=base,
        source=source,
        metric=wanted,
        k=1,
        steps=100,
        **words,
    )
    found.basis[:] = basis.T @ found.basis
    return found


def test_a_copy_that_nobody_reads_is_left_out() -> None:
    """Sources always move along 0 and 1 together, and 0 alone is read: parts of both do as well."""
    assert abs(float(one_of_eight([0], [1.0, 1.0], span=1.0).basis[1, 0])) > 0.3
    assert abs(float(one_of_eight([0], [1.0, 1.0]).basis[0, 0])) > 0.999


def test_a_reader_of_two_directions_is_found_whichever_varies() -> None:
    """Sources move along 0 alone, and the sum of 0 and 1 is read: `das` tells the two apart."""
    found = one_of_eight([0, 1], [1.0]).basis[:2, 0].abs()
    torch.testing.assert_close(found, torch.full((2,), 0.5**0.5).double(), atol=0.01, rtol=0)


def plain_swap(base: np.ndarray, source: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """One vector at a time, on features last."""
    moved = base.copy()
    for place in np.ndindex(base.shape[:-1]):
        for direction in basis.T:
            moved[place] += direction * (direction @ (source[place] - base[place]))
    return moved


@pytest.mark.parametrize(
    ("axes", "where", "last"),
    [
        (("batch", "pos", "d_model"), {"pos": 1}, (0, 1, 2)),
        (("batch", "pos", "d_model"), {}, (0, 1, 2)),
        (("batch", "channel", "row", "column"), {}, (0, 2, 3, 1)),
        (("batch", "channel", "row", "column"), {"row": 1}, (0, 2, 3, 1)),
        (("batch", "pos", "head", "d_head"), {"pos": 1, "head": 0}, (0, 1, 2, 3)),
    ],
)
def test_swap_is_a_plain_recomputation(axes, where, last) -> None:
    generator = np.random.default_rng(0)
    sizes = {"batch": 3, "channel": 4, "d_model": 4, "d_head": 4}
    shape = [sizes.get(axis, 2) for axis in axes]
    base, source = generator.normal(size=(2, *shape))
    basis = np.linalg.qr(generator.normal(size=(4, 2)))[0]
    subspace = Subspace("somewhere", axes, torch.from_numpy(basis), where)
    kept = base.copy()
    got = subspace.swap(torch.from_numpy(base), torch.from_numpy(source)).numpy()
    whole = plain_swap(base.transpose(last), source.transpose(last), basis)
    whole = whole.transpose(np.argsort(last))
    index = tuple(where.get(axis, slice(None)) for axis in axes)
    wanted = base.copy()
    wanted[index] = whole[index]
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert (base == kept).all()
    with pytest.raises(ShapeError, match="interchange a subspace"):
        subspace.swap(torch.from_numpy(base), torch.from_numpy(source[..., :1]))


def slow(tower: Any, subspace: Subspace, base: Tensor, source: Tensor) -> Tensor:
    """Hooks on the whole tower, two full runs."""
    _, cache = tower.run_with_cache(source, names_filter=[subspace.site])

    def replace(activation: Tensor, hook: object) -> Tensor:
        return subspace.swap(activation, cache[subspace.site])

    return tower.run_with_hooks(base, fwd_hooks=[(subspace.site, replace)])


def random_subspace(tower: Any, site: str, x: Tensor, where: Mapping[str, int]) -> Subspace:
    _, cache = tower.run_with_cache(x, names_filter=[site])
    axes = tuple(tower.axes(site))
    width = dict(zip(axes, cache[site].shape, strict=True))
    d = next(width[axis] for axis in ("d_model", "d_head", "d_embed", "channel") if axis in width)
    draw = torch.randn(d, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Subspace(site, axes, torch.linalg.qr(draw)[0], where)


@pytest.mark.parametrize(
    ("site", "where", "handed_on"),
    [
        ("hook_embed", {"pos": 0}, True),
        ("blocks.0.hook_resid_post", {}, True),
        ("blocks.1.hook_resid_post", {"pos": 2}, True),
        ("blocks.2.hook_resid_post", {"pos": 0}, True),
        ("blocks.1.hook_resid_pre", {"pos": 0}, False),
        ("blocks.1.hook_mlp_out", {}, False),
        ("blocks.1.attn.hook_z", {"pos": 0, "head": 1}, False),
        ("hook_embedding", {}, False),
    ],
)
def test_from_the_site_on_is_the_whole_tower_with_a_hook(
    vit: TinyViT, vit_inputs: dict[str, Tensor], site: str, where: dict, handed_on: bool
) -> None:
    base, source = vit_inputs["clean"], vit_inputs["corrupt"]
    subspace = random_subspace(vit, site, base, where)
    got = interchange(vit, subspace, base=base, source=source, batch_size=2)
    torch.testing.assert_close(got, slow(vit, subspace, base, source), atol=1e-12, rtol=0)
    assert hold(vit, site, base, rows=3).handed_on == handed_on
    assert (got - vit(base)).abs().max() > 1e-4


def test_the_real_towers_and_maps_agree_with_the_slow_path(maps, map_inputs) -> None:
    real = open_vit()
    torch.manual_seed(5)
    one, two = torch.randn(2, 4, 3, 16, 16).double()
    text = open_text()
    tokens = torch.randint(1, 19, (2, 4, 6))
    tokens[:, torch.arange(4), torch.tensor([3, 5, 4, 2])] = 19
    cases: list[tuple[Any, str, dict[str, int], Tensor, Tensor]] = [
        (real, "blocks.1.hook_resid_post", {"pos": 0}, one, two),
        (real, "blocks.2.attn.hook_z", {"pos": 0, "head": 0}, one, two),
        (real, "ln_final.hook_normalized", {"pos": 0}, one, two),
        (text, "blocks.0.hook_resid_post", {}, tokens[0], tokens[1]),
        (maps, "blocks.1.hook_resid_post", {}, map_inputs["clean"], map_inputs["corrupt"]),
    ]
    for tower, site, where, base, source in cases:
        subspace = random_subspace(tower, site, base, where)
        got = interchange(tower, subspace, base=base, source=source, batch_size=3)
        torch.testing.assert_close(got, slow(tower, subspace, base, source), atol=1e-11, rtol=0)


def test_a_site_that_only_looks_handed_on_is_not() -> None:
    """The block adds nothing to small activations, so that its entry has its exit's values."""
    tower = Chain([Function(lambda x: torch.relu(x - 50))])
    small, large = torch.rand(3, 1, 2).double(), 100 * torch.ones(3, 1, 2).double()
    assert not hold(tower, "blocks.0.hook_resid_pre", small, rows=3).handed_on
    first = Subspace(
        "blocks.0.hook_resid_pre", ("batch", "pos", "d_model"), torch.eye(2)[:, :1].double()
    )
    got = interchange(tower, first, base=small, source=large)
    assert got[:, 0].tolist() == [150.0] * 3


def test_seeds_and_memory(vit: TinyViT) -> None:
    torch.manual_seed(2)
    base, source = torch.randn(2, 20, 4).double()
    head = Classifier(torch.eye(5).double(), tuple("abcde"))
    says = vit(source).detach()
    alike = Metric("kl", Target(head, head.logits(says).argmax(1), clean=says))
    words: dict[str, Any] = {"base": base, "source": source, "metric": alike, "k": 2, "steps": 5}
    words |= {"where": {"pos": 0}, "batch_size": 8}
    site = "blocks.0.hook_mlp_out"
    one, again = (fit_subspace(vit, site, **words) for _ in range(2))
    assert torch.equal(one.basis, again.basis) and len(one.losses) == 5
    other = fit_subspace(vit, site, **words, seed=1)
    assert not torch.allclose(one.basis, other.basis)
    needed = bytes_with_gradients(vit, site, base)
    tight = fit_subspace(vit, site, **words, memory=3 * needed)
    torch.testing.assert_close(tight.basis, one.basis, atol=1e-10, rtol=0)


def test_refusals(vit: TinyViT) -> None:
    words = task()
    refuses(SpecificationError, "k = 0, right would be 1 to 8", fit_subspace, **{**words, "k": 0})
    refuses(SpecificationError, "k = 9", fit_subspace, **{**words, "k": 9})
    with pytest.raises(SiteError, match="hook_resid_past"):
        fit_subspace(**{**words, "site": "blocks.0.hook_resid_past"})
    refuses(SiteError, "axis rank", fit_subspace, **words, where={"rank": 0})
    refuses(ShapeError, "pos 7", fit_subspace, **words, where={"pos": 7})
    refuses(SpecificationError, "batch and d_model", fit_subspace, **words, where={"d_model": 1})
    refuses(SpecificationError, "0 steps", fit_subspace, **words, steps=0)
    refuses(SpecificationError, "span=0", fit_subspace, **words, span=0.0)
    refuses(ShapeError, "one shape", fit_subspace, **{**words, "source": words["source"][:3]})
    few = {name: words[name][:2] for name in ("base", "source", "metric")}
    refuses(SampleError, "2 activations", fit_subspace, **{**words, **few})
    broken = words["source"].clone()
    broken[3, 0, 1] = float("nan")
    refuses(NumericsError, "hook_resid_post", fit_subspace, **{**words, "source": broken})
    with pytest.raises(SiteError, match="batch, head, query, key"):
        fit_subspace(
            vit,
            "blocks.0.attn.hook_pattern",
            base=torch.randn(9, 4).double(),
            source=torch.randn(9, 4).double(),
            metric=lambda out: out[:, 0],
            k=1,
        )
