"""The logit lens: the answer that a tower would give if it stopped after each block.

Every residual stream is read through the tower's own last norm and projection, as if the blocks
above it added nothing (nostalgebraist 2020, "interpreting GPT: the logit lens").
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from interp.core.classifiers import Classifier
from interp.core.errors import ShapeError, SiteError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.sites import Site, find_sites
from interp.models.attribution.decompose import decompose
from interp.models.attribution.transformer_parts import read_out
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import check_opened
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.vit import HookedViT

STREAMS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
"""The sites that a lens reads."""


def lens_sites(tower: HookedTower) -> list[str]:
    """The streams that the lens reads by default: before the first block and after each block.

    Args:
        tower: A hooked tower with blocks.

    Returns:
        Site names in tower order.

    >>> import open_clip
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> lens_sites(open_tower(model, "visual"))[:2]
    ['blocks.0.hook_resid_pre', 'blocks.0.hook_resid_post']
    """
    names = [str(block.name) for block in tower.chain]
    return [f"{names[0]}.hook_resid_pre", *(f"{name}.hook_resid_post" for name in names)]


@torch.no_grad()
def lens_embeddings(
    tower: object, x: Tensor, *, sites: str | Iterable[str] | None = None
) -> Float[Tensor, "layer batch d_embed"]:
    """Read an embedding off each residual stream through the tower's own read-out.

    Args:
        tower: A hooked transformer or ResNet.
        x: Pictures or tokens, as the tower takes them.
        sites: Residual streams, by name or pattern; None takes those of `lens_sites`.

    Returns:
        Embeddings without gradients and not normalised, a row per stream in tower order. The last
        stream gives the tower's own embedding, to the bit.

    Raises:
        SiteError: For a site that is no residual stream.

    Notes:
        A ResNet's streams differ in shape and only the last fits the pool. There the row of a block
        is the sum of the parts up to it (`decompose(tower, x, by="layer")`) and of the pool's
        constants, which holds later gates and the pool's attention as they are in the whole run.
    """
    opened = check_opened("read streams through the lens", tower)
    wanted = _streams(opened, sites)
    if isinstance(opened, HookedResNet):
        return _cumulative(opened, x, wanted)
    _, cache = opened.run_with_cache(x, names_filter=wanted)
    # one at a time: a stack of all would be multiplied in another order, and differ in bits
    last = opened.n_layers
    return torch.stack([opened(cache[site], start_at_layer=last, tokens=x) for site in wanted])


@door
def logit_lens(
    tower: object, x: Tensor, head: Classifier, *, sites: str | Iterable[str] | None = None
) -> Float[Tensor, "layer batch classes"]:
    """The logits of every class at each residual stream, `head` applied to `lens_embeddings`.

    Args:
        tower: A hooked transformer or ResNet.
        x: Pictures or tokens, as the tower takes them.
        head: The text classifier of the same model.
        sites: Residual streams, by name or pattern; None takes those of `lens_sites`.

    Returns:
        Logits, a row per stream in tower order.

    Raises:
        SiteError: For a site that is no residual stream.

    >>> import open_clip, torch
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> tower, x = open_tower(model, "visual"), torch.zeros(1, 3, 64, 64)
    >>> head = Classifier(torch.eye(256)[:2], ("cat", "dog"), 100.0)
    >>> lens = logit_lens(tower, x, head)
    >>> with torch.no_grad():
    ...     lens.shape, torch.equal(lens[-1], head(tower(x)))
    (torch.Size([13, 1, 2]), True)
    """
    return torch.stack([head(row) for row in lens_embeddings(tower, x, sites=sites)])


def logit_attrs(
    cache: Any,
    residual_stack: Tensor,
    head: Classifier,
    labels: Sequence[str],
    foils: Sequence[str] | None = None,
) -> Float[Tensor, "component batch"]:
    """What parts of the last residual stream add to a class's logit, as `cache.logit_attrs(...)`.

    exp(logit_scale) <read-out of the part, label - foil> / |embedding|, with pooling and norms held
    at their values in the run.

    Args:
        cache: What `run_with_cache` returned for a hooked transformer.
        residual_stack: Parts of the stream, `component batch pos d_model`, as
            `cache.stack_head_results()` or `cache.decompose_resid()` gives them.
        head: The text classifier of the same model.
        labels: A class per picture, or one for all.
        foils: The class whose logit is subtracted, per picture or one for all; None subtracts none.

    Returns:
        Logits per part and picture. Parts that sum to the stream give logits that sum to the
        classifier's, but for the read-out's own biases; `decompose` has these as parts too.

    Raises:
        SpecificationError: For another kind of tower, or a class that the head does not have.
        ShapeError: For a stack of another shape, or a number of labels that fits no batch.
        SiteError: For a cache without the sites that the read-out needs.

    >>> import open_clip
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> head = Classifier(torch.eye(256)[:2], ("cat", "dog"), 100.0)
    >>> with torch.no_grad():
    ...     _, cache = open_tower(model, "visual").run_with_cache(torch.rand(3, 3, 64, 64))
    >>> heads = cache.stack_head_results(layer=1)
    >>> cache.logit_attrs(heads, head, ["cat"], ["dog"]).shape
    torch.Size([6, 3])
    """
    asked = "attribute logits to parts of the stream"
    tower, embedding = cache.tower, cache["hook_embedding"]
    if not isinstance(tower, (HookedViT, HookedText)):
        given = f"a cache of a {type(tower).__name__}"
        right = "one of a hooked transformer, whose stream is read out at once"
        raise SpecificationError(asked, given, right, "use decompose(tower, x).logits(head)")
    n, last = len(embedding), cache[f"blocks.{tower.n_layers - 1}.hook_resid_post"]
    if residual_stack.ndim != 4 or residual_stack.shape[1:] != last.shape:
        given = f"a stack of shape {tuple(residual_stack.shape)}"
        right = f"(component, {', '.join(map(str, last.shape))}), with every position of the stream"
        raise ShapeError(asked, given, right, "leave pos_slice out")
    reading = read_out(tower, cache.input, cache)
    direction = _directions(asked, head, labels, n).to(reading.matrix)
    if foils is not None:
        direction = direction - _directions(asked, head, foils, n).to(direction)
    added = torch.stack([reading(part) for part in residual_stack])
    scale = head.logit_scale / embedding.to(added).norm(dim=-1)
    return einsum(
        added, direction, scale, "component batch d_embed, batch d_embed, batch -> component batch"
    )


def _directions(
    asked: str, head: Classifier, names: Sequence[str], n: int
) -> Float[Tensor, "batch d_embed"]:
    names = [names] * n if isinstance(names, str) else list(names)
    names = names * n if len(names) == 1 else names
    if len(names) != n:
        raise ShapeError(
            asked, f"{len(names)} classes", f"{n}, one per picture, or one for all", "count them"
        )
    check_known(asked, "class", names, head.class_names, SpecificationError)
    return head.weight[[head.class_names.index(name) for name in names]]


def _streams(tower: HookedTower, sites: str | Iterable[str] | None) -> list[str]:
    if sites is None:
        return lens_sites(tower)
    patterns = [sites] if isinstance(sites, (str, Site)) else list(sites)
    streams = find_sites([str(pattern) for pattern in patterns], tower.sites)
    wrong = [site for site in streams if not site.endswith(STREAMS)]
    if wrong:
        right = f"sites that end in {listed(STREAMS)}"
        do = "for what a head or an MLP adds, use decompose"
        raise SiteError("read a stream through the lens", listed(wrong, limit=3), right, do)
    return streams


def _cumulative(
    tower: HookedResNet, x: Tensor, sites: list[str]
) -> Float[Tensor, "layer batch d_embed"]:
    kept: dict[str, Tensor] = {}
    last = tower.n_layers

    def keep(stream: Tensor, hook: object) -> None:
        kept["stream"] = stream

    with tower.hooks(fwd_hooks=[(lens_sites(tower)[-1], keep)]):
        whole = decompose(tower, x, by="layer")
    # the sum would be right but for rounding, and so would the run, whose attention is opened
    embedding = tower(kept["stream"], start_at_layer=last)
    layers = whole.labels["layer"].to_numpy(dtype=int)
    rows = []
    for site in sites:
        below = tower.layer(site) - (1 if site.endswith("hook_resid_pre") else 0)
        upto = torch.as_tensor((layers <= below) | (layers == last), device=x.device)
        total = whole.parts[:, upto].sum(dim=1).to(embedding)
        rows.append(embedding if below == last - 1 else total)
    return torch.stack(rows)
