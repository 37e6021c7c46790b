"""Channel scores, edges and circuits: by hand, naively, by sum rules, planted, refused."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from interp.circuits import (
    Chain,
    Classifier,
    Metric,
    Target,
    channel_circuit,
    channel_edges,
    channel_scores,
    mean_activations,
)
from interp.circuits.units.channel_circuit import PAPER_SITES
from interp.circuits.units.channel_edges import Wanted
from interp.circuits.units.channel_scores import by_unit, unit_axis
from interp.core.errors import (
    DataError,
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
)
from interp.models.towers.resnet import HookedResNet
from tests.benchmarks.channels import reference_edges
from tests.circuits.conftest import Function, TinyViT, bent
from tests.models.moved import RESNET, TEXT, moved
from tests.refusals import refuses

MAP = ("batch", "channel", "row", "column")


@pytest.fixture(scope="module")
def resnet() -> HookedResNet:
    torch.manual_seed(0)
    net = moved(CLIP(6, RESNET | {"layers": (2, 1, 1, 1)}, TEXT)).visual
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # no channel is shut in every picture
            norm: Any = module
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, 0.0, 0.5)
    return HookedResNet(net)


@pytest.fixture
def pictures() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: 3 * torch.randn(3, 3, 64, 64).double() for name in ("clean", "corrupt")}


def mixed(*rows: list[float]) -> nn.Conv2d:
    """A convolution of single pixels with these weights, `[new_channel channel]`."""
    weight = torch.tensor(rows)
    conv = nn.Conv2d(weight.shape[1], len(weight), 1, bias=False)
    conv.weight = nn.Parameter(weight[:, :, None, None])
    return conv


def check_close(found: Tensor, expected: Tensor, bar: float = 1e-10) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= bar * float(expected.abs().max())


def edges_of(
    tower: Any, x: Tensor, up: str, down: str, baseline: Any = "zero", **words: Any
) -> Tensor:
    return channel_edges(tower, x, upstream=up, downstream=down, baseline=baseline, **words)


def scores_of(tower: Any, x: Tensor, sites: Any, **words: Any) -> dict[str, Tensor]:
    words = {"metric": bent, "baseline": "zero"} | words
    return channel_scores(tower, x, sites=sites, **words)


@pytest.fixture
def by_hand() -> Chain:
    """Two channels; block 0 adds 2 u + v to channel 1, the output is the sum over two pixels."""
    pool = Function(lambda x: x.sum(dim=(2, 3)))
    return Chain([mixed([0.0, 0.0], [2.0, 1.0])], axes=MAP, pool=pool)


HAND = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # u = (1, 2), v = (3, 0)


def test_scores_are_the_integers_of_the_blackboard(by_hand: Chain) -> None:
    # F = 10 out_0 + out_1 = 10 sum u + sum (2 u + 2 v); the sums are 3 and 3
    scores = scores_of(by_hand, HAND, "*", metric=lambda out: 10 * out[:, 0] + out[:, 1])
    assert {site: values[:, 0].tolist() for site, values in scores.items()} == {
        "hook_embed": [36, 6],
        "blocks.0.hook_resid_pre": [36, 6],
        "blocks.0.hook_mlp_out": [0, 9],  # 2 u + v alone sums to 9
        "blocks.0.hook_resid_post": [30, 12],
        "hook_embedding": [30, 12],
    }


def test_edges_are_the_integers_of_the_blackboard(by_hand: Chain) -> None:
    # written to channel 1 is g = 2 u + v = (5, 4). Two steps: k = 0 has no change, k = 1 moves g by
    # -g / 2, so dL/dg = 2/2 (-g / 2) = (-2.5, -2), and by u twice that. Times -u: 5 + 8 = 13 from
    # u, 7.5 from v, divided by two steps
    edges = edges_of(by_hand, HAND, "hook_embed", "blocks.0.hook_mlp_out", steps=2)
    assert (2 * edges[:, :, 0]).tolist() == [[0, 13], [0, 7.5]]


def naive_scores(
    tower: Any, x: Tensor, site: str, metric: Callable, steps: int, zero: Tensor | None, axis: str
) -> Tensor:
    """One full run per step and example."""
    columns = []
    for row in range(len(x)):
        _, cache = tower.run_with_cache(x[row : row + 1], names_filter=[site])
        a = cache[site].detach()
        a0 = torch.zeros_like(a) if zero is None else zero[row % len(zero)][None]
        total = torch.zeros_like(a)
        for step in range(steps):
            at = (a0 + step / steps * (a - a0)).requires_grad_()
            hook = (site, lambda activation, hook, at=at: at.clone())
            out = tower.run_with_hooks(x[row : row + 1], fwd_hooks=[hook])
            total += torch.autograd.grad(metric(out).sum(), at)[0]
        whole = (a - a0) * total / steps
        columns.append(by_unit(whole, unit_axis(tower, site, axis)).sum(dim=(0, 2)))
    return torch.stack(columns, dim=1)


SCORED = [
    ("maps", "*", "channel", 1),
    ("maps", "blocks.*.hook_mlp_out", "column", 64),
    ("vit", "blocks.*.attn.hook_z", "head", 64),
    ("vit", "blocks.1.hook_*", "d_model", 3),
    ("resnet", PAPER_SITES, "channel", 32),
    ("resnet", "layer*.0.hook_act2", "channel", 2),
]


@pytest.mark.parametrize("kind", ["zero", "corrupt", "mean"])
@pytest.mark.parametrize(("name", "sites", "axis", "batch_size"), SCORED)
def test_scores_equal_the_naive_loop(request, name, sites, axis, batch_size, kind) -> None:
    tower = request.getfixturevalue(name)
    inputs = request.getfixturevalue("pictures" if name == "resnet" else f"{name[:3]}_inputs")
    x, other = inputs["clean"][:3], inputs["corrupt"][:3]
    baseline = {"zero": "zero", "corrupt": other, "mean": mean_activations(tower, other, sites="*")}
    found = scores_of(
        tower, x, sites, baseline=baseline[kind], axis=axis, steps=4, batch_size=batch_size
    )
    _, cache = tower.run_with_cache(other, names_filter=list(found))
    assert list(found) == [site for site in tower.sites if site in found]
    for site, scores in found.items():
        zero = {"zero": None, "corrupt": cache[site], "mean": cache[site].mean(0, keepdim=True)}
        check_close(scores, naive_scores(tower, x, site, bent, 4, zero[kind], axis))


PAIRS = [
    ("maps", "hook_embed", "blocks.0.hook_resid_post"),
    ("maps", "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"),
    ("maps", "blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"),
    ("maps", "blocks.2.hook_resid_pre", "hook_embedding"),
    ("resnet", "stem.hook_act2", "stem.hook_pool"),
    ("resnet", "stem.hook_pool", "layer1.0.hook_resid_post"),
    ("resnet", "layer1.0.hook_resid_post", "layer1.1.hook_resid_post"),
    ("resnet", "layer2.0.hook_act1", "layer2.0.hook_out"),
    ("resnet", "layer3.0.hook_resid_post", "layer4.0.hook_act2"),
    ("resnet", "layer4.0.hook_resid_post", "hook_embedding"),
]


@pytest.mark.parametrize("contrastive", [False, True])
@pytest.mark.parametrize(("name", "upstream", "downstream"), PAIRS)
def test_edges_equal_one_run_per_channel(request, name, upstream, downstream, contrastive) -> None:
    """Both from few senders to many receivers, and the other way round; in chunks, too."""
    tower = request.getfixturevalue(name)
    inputs = request.getfixturevalue("pictures" if name == "resnet" else "map_inputs")
    x, other = inputs["clean"][:3], inputs["corrupt"][:3]
    baseline = other if contrastive else "zero"
    expected = reference_edges(
        tower, x, Wanted(upstream, downstream, (2, 0, 1), (0, 2, 1)), baseline=baseline, steps=4
    )
    assert float(expected.abs().max()) > 0
    usual = {"baseline": baseline, "steps": 4}
    for senders, receivers in (((2, 0), (0, 2, 1)), ((2, 0, 1), (0, 2))):
        for words in ({}, {"memory": 2**22, "batch_size": 2}):
            chosen: dict[str, Any] = {"senders": senders, "receivers": receivers}
            found = edges_of(tower, x, upstream, downstream, **chosen, **usual, **words)
            check_close(found, expected[: len(senders), : len(receivers)])


def test_labels_follow_their_batch_and_steps(resnet, pictures) -> None:
    torch.manual_seed(4)
    head = Classifier(torch.randn(3, 6).double(), ("ant", "bee", "cat"))
    metric, site = Metric("true_class_cosine", Target(head, [0, 2, 1])), "layer2.0.hook_out"
    found = [
        scores_of(resnet, pictures["clean"], site, metric=metric, batch_size=size)[site]
        for size in (1, 2, 3, 50)
    ]
    for other in found[1:]:
        check_close(other, found[0])


@pytest.mark.parametrize("linear", [True, False])
def test_edges_into_a_channel_sum_to_its_mean_squared_change(maps, map_inputs, linear) -> None:
    if linear:
        maps = Chain([nn.Conv2d(3, 3, 3, padding=1).double()], axes=MAP).eval()
    x, other = map_inputs["clean"], map_inputs["corrupt"]
    names = ["hook_embed", "blocks.0.hook_resid_post"]
    steps = 7 if linear else 400
    edges = edges_of(maps, x, names[0], names[1], baseline=other, steps=steps)
    with torch.no_grad():
        ends = [
            maps.run_with_cache(each, names_filter=names[1:])[1][names[1]] for each in (x, other)
        ]
    change = (ends[1] - ends[0]).square().mean(dim=(2, 3)).T
    bar = 1e-10 if linear else 5e-3
    check_close(edges.sum(dim=0), (steps - 1) / steps * change, bar)


def planted(weight: float) -> Chain:
    """Channel 4 of the input drives channel 7 of the block; nothing else drives another channel."""
    rows = torch.zeros(10, 10)
    rows[7, 4] = weight
    conv = mixed(*rows.tolist())
    pool = Function(lambda x: x.sum(dim=(2, 3)))
    return Chain([nn.Sequential(conv, nn.ReLU())], axes=MAP, pool=pool)


@pytest.mark.parametrize("weight", [5.0, 0.0])
def test_a_planted_edge_is_found_and_no_other(weight: float) -> None:
    torch.manual_seed(7)
    x = torch.rand(4, 10, 3, 3) + 0.5
    edges = edges_of(planted(weight), x, "hook_embed", "blocks.0.hook_mlp_out")
    strong = (edges.abs() > 1e-6).nonzero()[:, :2].unique(dim=0).tolist()
    assert strong == ([[4, 7]] if weight else [])
    stream = "blocks.0.hook_resid_post"
    sites, reads = ["hook_embed", stream, "hook_embedding"], lambda out: out[:, 7]
    circuit = channel_circuit(planted(weight), x, metric=reads, sites=sites, keep=0.2, fan_in=1)
    assert (4 in circuit.nodes["hook_embed"]) == bool(weight)
    assert next(iter(circuit.nodes[stream])) == 7
    own = [edge for edge in circuit.edges if (edge.downstream, edge.channel_d) == (stream, 7)]
    # without the planted edge, only the stream itself
    assert {edge.channel_u for edge in own} == ({4} if weight else {7})


@pytest.mark.slow
def test_the_paper_s_circuit(resnet: HookedResNet, pictures: dict[str, Tensor]) -> None:
    x = pictures["clean"]
    circuit = channel_circuit(resnet, x, metric=bent)
    names = list(circuit.nodes)
    assert names[0] == "stem.hook_act1" and names[-1] == "hook_embedding" and len(names) == 10
    scores = channel_scores(resnet, x, metric=bent, sites=names, baseline="zero")
    for site, kept in circuit.nodes.items():
        means = scores[site].mean(dim=1)
        assert len(kept) == -(-len(means) // 10)  # a tenth, rounded up
        least = min(abs(score) for score in kept.values())
        assert int((means.abs() > least).sum()) < len(kept)
        assert list(kept.values()) == [float(means[channel]) for channel in kept]
    for up, down in pairwise(names):
        edges = channel_edges(resnet, x, upstream=up, downstream=down, baseline="zero").mean(-1)
        for d in circuit.nodes[down]:
            among = sorted(circuit.nodes[up], key=lambda u, d=d, e=edges: -abs(float(e[u, d])))
            found = [
                e.channel_u for e in circuit.edges if e.downstream == down and e.channel_d == d
            ]
            assert found == among[:3]


def test_a_circuit_as_a_table(resnet: HookedResNet, pictures: dict[str, Tensor]) -> None:
    circuit = channel_circuit(resnet, pictures["clean"], metric=bent)
    table = circuit.to_table()
    counts = table.frame["measure"].value_counts()
    assert counts["node"] == sum(len(kept) for kept in circuit.nodes.values())
    assert counts["edge"] == len(circuit.edges)
    edge = circuit.edges[-1]
    row = table.frame.iloc[-1]
    assert row["node"] == f"{edge.upstream}:{edge.channel_u}" and row["value"] == edge.score
    assert row["node_b"] == f"hook_embedding:{edge.channel_d}"
    assert table.facts["baseline"] == "zero" and table.describe()["node_b"]


def test_a_cosine_under_the_zero_baseline_ranks_by_the_product(resnet, pictures) -> None:
    """Its gradient at the zero embedding is the class direction, divided by almost nothing."""
    torch.manual_seed(4)
    x, head = pictures["clean"], Classifier(torch.randn(2, 6).double(), ("ant", "bee"))
    metric = Metric("true_class_cosine", Target(head, [0, 0, 0]))
    scores = channel_scores(resnet, x, metric=metric, sites="hook_embedding", baseline="zero")
    products = (resnet(x) * head.embeddings[0]).detach().T
    found = scores["hook_embedding"]
    assert float(found.abs().min()) > 1e6
    check_close(found / found.abs().max(), products / products.abs().max(), 1e-6)


def test_blocks_before_a_site_run_once(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    """Block passes: one walk, one trial per site of one example, and the suffix for each step."""
    sites, steps = "blocks.*.hook_resid_post", 4
    scores_of(vit, vit_inputs["clean"], sites, axis="pos", steps=steps)
    walked, trial, tried = 5 * 3, 3, 5 * 3
    assert sum(vit.passed) == tried + walked + trial + steps * 5 * (2 + 1 + 0)


def test_edges_run_no_block_but_the_one_between(resnet, pictures) -> None:
    rows = [0] * resnet.n_layers
    for place, block in enumerate(resnet.chain):
        point: Any = block.hook_resid_pre
        point.listener = lambda name, value, place=place: rows.__setitem__(
            place, rows[place] + len(value)
        )
    try:
        edges_of(resnet, pictures["clean"], "layer2.0.hook_resid_post", "layer3.0.hook_resid_post")
    finally:
        for block in resnet.chain:
            point = block.hook_resid_pre
            point.listener = None
    shapes, trial, walked, steps = 1, 1, 3, 9
    assert rows == [4, 4, shapes + trial + walked, shapes + 3 + 3 * steps, 0]


EDGE: dict[str, Any] = {
    "upstream": "blocks.0.hook_resid_post",
    "downstream": "blocks.1.hook_resid_post",
    "baseline": "zero",
}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"upstream": "blocks.0.hook_resid"}, SiteError, "hook_resid_post"),
        ({"downstream": "blocks.7.hook_resid_post"}, SiteError, "mean"),
        ({"downstream": "hook_embed"}, SiteError, "order"),
        ({"downstream": "blocks.0.hook_resid_post"}, SiteError, "order"),
        ({"downstream": "blocks.2.hook_resid_post"}, SiteError, "neighbouring"),
        ({"steps": 1}, SpecificationError, "2 or more"),
        ({"senders": []}, SpecificationError, "at least one"),
        ({"receivers": [3]}, ShapeError, "0 to 2"),
        ({"receivers": [1, 1]}, ShapeError, "once"),
        ({"memory": 10}, SpecificationError, "budget"),
        ({"batch_size": 0}, SpecificationError, "at least 1"),
        ({"baseline": "one"}, SpecificationError, "zero"),
        ({"baseline": torch.zeros(1, 3, 4, 5).double()}, ShapeError, "one shape"),
        ({"baseline": {"hook_embed": torch.zeros(1, 3, 4, 5)}}, DataError, "hook_embed"),
        ({"baseline": {EDGE["upstream"]: torch.zeros(2, 3, 4, 5)}}, ShapeError, "1 or 4"),
        ({"baseline": {EDGE["upstream"]: torch.zeros(1, 3, 4, 5) / 0}}, NumericsError, "NaN"),
    ],
)
def test_edges_that_cannot_be_scored(maps, map_inputs, change, error, words) -> None:
    refuses(error, words, channel_edges, maps, map_inputs["clean"], **{**EDGE, **change})


@pytest.mark.parametrize("channels", [([0], [0, 1]), ([0, 1], [0])])
def test_sites_without_a_path_between_them(channels: tuple[list[int], list[int]]) -> None:
    tower = Chain([Function(torch.zeros_like), Function(lambda x: 1 - x.detach())], axes=MAP)
    chosen = dict(zip(("senders", "receivers"), channels, strict=True))
    sites = "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"
    refuses(SiteError, "depend", edges_of, tower, torch.ones(1, 4, 2, 2), *sites, **chosen)


def test_transformers_have_no_channels(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    x = vit_inputs["clean"]
    with pytest.raises(SiteError, match="pos"):
        channel_scores(vit, x, metric=bent, sites="blocks.0.hook_resid_pre", baseline="zero")
    refuses(SiteError, "channel", channel_edges, vit, x, **EDGE)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"sites": "layer1.0.hook_out"}, SiteError, "Try"),
        ({"axis": "head"}, SiteError, "channel"),
        ({"axis": "batch"}, SiteError, "channel, row"),
        ({"steps": 0}, SpecificationError, "1 or more"),
        ({"metric": lambda out: torch.ones(len(out))}, SpecificationError, "ignores"),
        ({"metric": lambda out: out.detach()[:, 0]}, SpecificationError, "differentiable"),
        ({"metric": lambda out: out.sum()}, ShapeError, "one number per example"),
        ({"metric": lambda out: out[:, 0] + (0 * out[:, 0]).sqrt()}, NumericsError, "NaN"),
    ],
)
def test_scores_that_cannot_be_made(maps, map_inputs, change, error, words) -> None:
    usual = {"metric": bent, "sites": "blocks.*.hook_resid_post", "baseline": "zero"}
    refuses(error, words, channel_scores, maps, map_inputs["clean"], **{**usual, **change})


def test_inputs_that_are_none_or_no_numbers(maps: Chain, map_inputs: dict[str, Any]) -> None:
    x = map_inputs["clean"].clone()
    words: dict[str, Any] = {"metric": bent, "sites": "hook_embed"}
    refuses(SampleError, "", channel_scores, maps, x[:0], **words, baseline="zero")
    refuses(DataError, "equal", channel_scores, maps, x, **words, baseline=x.clone())
    x[0, 0, 0, 0] = torch.nan
    refuses(NumericsError, "", channel_scores, maps, x, **words, baseline="zero")
    refuses(NumericsError, "", channel_edges, maps, x, **EDGE)
    block: Any = maps.blocks[1]
    with torch.no_grad():
        block.body[0].weight[0] = torch.inf
    refuses(NumericsError, r"blocks\.1", channel_edges, maps, map_inputs["clean"], **EDGE)


@pytest.mark.parametrize(
    "change", [{"keep": 0}, {"keep": -1}, {"keep": 1.5}, {"fan_in": 0}, {"steps": 1}]
)
def test_circuits_of_nothing(maps, map_inputs, change) -> None:
    with pytest.raises(SpecificationError):
        channel_circuit(maps, map_inputs["clean"], metric=bent, sites="*_resid_post", **change)


def test_circuits_of_sites_that_do_not_adjoin(maps: Chain, map_inputs: dict[str, Any]) -> None:
    with pytest.raises(SiteError, match="neighbouring"):
        channel_circuit(
            maps, map_inputs["clean"], metric=bent, sites=["hook_embed", "blocks.2.hook_resid_post"]
        )
