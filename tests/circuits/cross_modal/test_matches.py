"""Circuits of both towers: sum rules, plain loops over hooks, planted parts and their twins."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from interp.circuits import (
    Chain,
    Edges,
    Matches,
    Units,
    attribute,
    match_faithfulness,
    match_parts,
    read_matches,
)
from interp.core.errors import AlikeError, SampleError, ShapeError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import EVIDENCE
from tests.circuits.conftest import Function, open_text, open_vit
from tests.refusals import refuses

SCALE = 3.0


@pytest.fixture(scope="module")
def inputs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    torch.manual_seed(40)
    pictures = torch.randn(2, 5, 3, 16, 16).double()
    tokens = torch.randint(1, 19, (2, 5, 6))
    tokens[:, :, 4] = 19  # where the texts end: the largest token
    return (pictures[0], pictures[1]), (tokens[0], tokens[1])


def of_edges(inputs: Any, **options: Any) -> Matches:
    return Matches(
        (Edges(open_vit(), **options), Edges(open_text(), **options)), *inputs, scale=SCALE
    )


def of_units(inputs: Any, *, vision: tuple[str, str], text: tuple[str, str]) -> Matches:
    cuts = (
        Units.of(tower, site, x[0], axis=axis)
        for tower, (site, axis), x in zip(
            (open_vit(), open_text()), (vision, text), inputs, strict=True
        )
    )
    first, second = cuts
    return Matches((first, second), *inputs, scale=SCALE)


HEADS = ("blocks.*.attn.hook_z", "head")


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def test_the_match_is_what_the_pair_has_beyond_the_exchanged_ones(inputs: Any) -> None:
    (x, x_), (y, y_) = inputs
    vision, text = open_vit(), open_text()
    v, v_, t, t_ = unit(vision(x)), unit(vision(x_)), unit(text(y)), unit(text(y_))

    def logit(a: Tensor, b: Tensor) -> Tensor:
        return SCALE * (a * b).sum(dim=1)

    whole = logit(v, t) - logit(v_, t) - logit(v, t_) + logit(v_, t_)
    torch.testing.assert_close(of_edges(inputs).whole, whole, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_scores_of_each_tower_sum_to_the_match(inputs: Any) -> None:
    """Edges that leave the input pass on all of its effect; so do the words, by integration."""
    matches = of_edges(inputs, steps=400)
    for scores, cut in zip(matches.scores(), matches.cuts, strict=True):
        leave = scores[:, cut.wiring.edges[:, 0] == 0]  # type: ignore[attr-defined]
        np.testing.assert_allclose(leave.sum(axis=1), matches.whole.numpy(), atol=0.02)
    words = of_units(inputs, vision=HEADS, text=("blocks.0.hook_resid_pre", "pos"))
    text = words.cuts[1]
    fine = Units(text.tower, text.widths, "pos", steps=400)  # type: ignore[attr-defined]
    by_word = fine.score(words.of("text"))
    np.testing.assert_allclose(by_word.sum(axis=1), words.whole.numpy(), atol=0.02)
    assert (by_word[:, 5] == 0).all()  # behind the end of the text nothing is read


def test_scores_are_those_of_attribute_with_the_other_tower_held(inputs: Any) -> None:
    (x, x_), (y, y_) = inputs
    vision, text = open_vit(), open_text()
    told = SCALE * (unit(text(y)) - unit(text(y_))).detach()
    lone = [
        attribute(
            vision,
            clean=x[[i]],
            corrupt=x_[[i]],
            method="exact",
            metric=lambda out, i=i: unit(out) @ told[i],
        ).values[0]
        for i in range(len(x))
    ]
    found = of_edges(inputs, method="exact").scores()[0]
    np.testing.assert_allclose(found, np.stack(lone), atol=1e-10)


def by_hooks(tower: Any, clean: Tensor, corrupt: Tensor, kept: np.ndarray) -> Tensor:
    """A run of `clean` in which heads that are not kept have their corrupt output."""
    sites = [site for site in tower.sites if site.endswith("attn.hook_z")]
    held = tower.run_with_cache(corrupt, names_filter=sites)[1]
    hooks: list[tuple[str, Callable[..., Tensor]]] = []
    for site, own in zip(sites, kept.reshape(len(sites), -1), strict=True):
        there = torch.as_tensor(own)[None, None, :, None]
        hooks.append((site, lambda z, hook, there=there, old=held[site]: z.where(there, old)))
    return tower.run_with_hooks(clean, fwd_hooks=hooks)


def test_runs_of_heads_in_both_towers_equal_a_plain_loop_over_hooks(inputs: Any) -> None:
    matches = of_units(inputs, vision=HEADS, text=HEADS)
    generator = np.random.default_rng(41)
    drawn = [generator.random((4, len(cut.names))) < 0.5 for cut in matches.cuts]
    found = matches.run(*drawn)
    for row in range(4):
        moved = []
        for cut, (clean, corrupt), kept in zip(matches.cuts, inputs, drawn, strict=True):
            out = by_hooks(cut.tower, clean, corrupt, kept[row])
            moved.append(unit(out) - unit(cut.tower(corrupt)))
        slow = SCALE * (moved[0] * moved[1]).sum(dim=1)
        np.testing.assert_allclose(found[row], slow.detach().numpy(), atol=1e-10)


def test_nothing_kept_in_either_tower_leaves_no_match(inputs: Any) -> None:
    matches = of_edges(inputs)
    whole = matches.whole.numpy()
    np.testing.assert_allclose(matches.run(None, None)[0], whole, atol=1e-12)
    for tower, cut in enumerate(matches.cuts):
        kept: list[np.ndarray | None] = [None, None]
        for share, left in ((True, whole), (False, 0 * whole)):
            kept[tower] = np.full((1, len(cut.names)), share)
            np.testing.assert_allclose(matches.run(*kept)[0], left, atol=1e-12)


def maps() -> Chain:
    """A tower of maps whose output is its three channels."""
    pool = Function(lambda x: x.mean(dim=(2, 3)))
    return Chain([nn.Identity()], pool=pool, axes=("batch", "channel", "row", "column"))


def shown(carrier: int, n: int = 8) -> tuple[Tensor, Tensor]:
    """Inputs whose channel `carrier` differs between partners; the others are noise for both."""
    torch.manual_seed(42 + carrier)
    both = torch.randn(1, n, 3, 1, 1).repeat(2, 1, 1, 1, 1) / 4
    both[0, :, carrier], both[1, :, carrier] = 3.0, -3.0
    return both[0], both[1]


@pytest.mark.parametrize("told", [(0, 0), (0, 1)])
def test_the_channels_that_carry_it_are_found_and_do_the_work(told: tuple[int, int]) -> None:
    """Both towers tell the classes apart by channel 0; or by two channels, which do not match."""
    cut = Units.of(maps(), "blocks.0.hook_resid_post", shown(0)[0], steps=200)
    matches = Matches((cut, cut), shown(told[0]), shown(told[1]), scale=10.0)
    if told[0] != told[1]:
        assert matches.whole.abs().max() < 0.05 * 40
        return
    parts = match_parts(matches).frame.query("rank == 1")
    assert parts["part"].tolist() == ["blocks.0.hook_resid_post.0"] * 2
    assert (parts["share"] > 0.95).all() and (parts["low"] > 0).all()
    table = match_faithfulness(matches, matches.scores(), shares=[1 / 3, 1.0], n_random=8)
    assert set(EVIDENCE) <= set(table.frame.columns)
    rows = table.frame.set_index(["tower", "measure", "n_edges"])["value"]
    for tower, n in (("both", 2), ("visual", 1), ("text", 1)):
        assert rows[tower, "circuit alone", n] == pytest.approx(1, abs=0.05)
        assert rows[tower, "model without the circuit", n] == pytest.approx(0, abs=0.05)
    wrong = [np.array([0.0, 1.0, 0.1])] * 2  # the twin: a circuit of a channel that tells nothing
    table = match_faithfulness(matches, wrong, shares=[1 / 3], n_random=2).frame
    assert table.query("measure == 'circuit alone'")["value"].abs().max() < 0.05


def test_curves_keep_a_circuit_in_one_tower_or_in_both(inputs: Any) -> None:
    (x, x_), captions = inputs
    turned = (of_edges(inputs).whole < 0)[:, None, None, None]  # so that every pair matches
    pictures = x_.where(turned, x), x.where(turned, x_)
    often = [torch.cat([side] * 4) for side in (*pictures, *captions)]  # a match beyond its error
    matches = of_edges(((often[0], often[1]), (often[2], often[3])))
    scores = matches.scores()
    table = match_faithfulness(matches, scores, shares=[0.25], n_random=2).frame
    kept = []
    for own in scores:
        mean = np.abs(own.mean(axis=0))
        kept.append((mean >= np.sort(mean)[-int(np.ceil(mean.size / 4))])[None])
    rows = table.set_index(["tower", "measure"])["value"]
    whole = matches.whole.mean()
    cuts = {"visual": (0,), "text": (1,), "both": (0, 1)}
    for tower, inside in cuts.items():
        for measure, masks in (
            ("circuit alone", kept),
            ("model without the circuit", [~own for own in kept]),
        ):
            asked = [own if place in inside else None for place, own in enumerate(masks)]
            assert rows[tower, measure] == pytest.approx(matches.run(*asked)[0].mean() / whole)


def test_scores_may_be_of_other_pictures(inputs: Any) -> None:
    """A mean over examples says the same as the examples."""
    matches = of_edges(inputs)
    scores = matches.scores()
    one, two = (
        match_faithfulness(matches, given, shares=[0.3], n_random=2).frame["value"]
        for given in (scores, [each.mean(axis=0) for each in scores])
    )
    pd.testing.assert_series_equal(one, two)


def test_pictures_and_captions_are_read_from_pairs() -> None:
    names = ["red", "lime", "blue", "white"]
    frame = pd.DataFrame(
        {"path": names, "label": names, "domain": "flat", "split": "test", "caption": ""}
    )
    images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    pairs = images.pairs(same="domain", differ="label")
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])

    def tokens(table: ImageTable) -> Tensor:
        return colours[[names.index(name) for name in table.label]][:, None]

    cut = Edges(Chain([nn.Identity()]))
    matches = read_matches(
        [cut, cut],
        pairs,
        tokens=tokens,
        scale=2.0,
        preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255,
    )
    v, v_ = (
        unit(colours[[names.index(n) for n in side.label]]) for side in (pairs.clean, pairs.corrupt)
    )
    torch.testing.assert_close(matches.whole, 2 * ((v - v_) ** 2).sum(dim=1))
    table = match_faithfulness(matches, matches.scores(), shares=[1.0], n_random=1).frame
    assert (table["unit"] == "class").all() and (table["n_units"] == 4).all()


def test_what_cannot_be_matched_is_said(inputs: Any) -> None:
    pictures, captions = inputs
    cuts = Edges(open_vit()), Edges(open_text())
    with pytest.raises(AlikeError, match=r"captions .*\(pair 0, 1, 2"):
        Matches(cuts, pictures, (captions[0], captions[0]))
    with pytest.raises(ShapeError, match="5 pictures with 5 partners, 4 captions with 4"):
        Matches(cuts, pictures, (captions[0][:4], captions[1][:4]))
    with pytest.raises(SampleError):
        Matches(cuts, (pictures[0][:0], pictures[1][:0]), (captions[0][:0], captions[1][:0]))
    matches = Matches(cuts, pictures, captions)
    refuses(SpecificationError, "visual", matches.of, "pictures")
    refuses(ShapeError, r"\(3,\)", match_faithfulness, matches, [np.ones(3), np.ones(3)])
    for wrong in ({"shares": [0.0]}, {"shares": []}, {"n_random": 0}):
        refuses(SpecificationError, "", match_faithfulness, matches, matches.scores(), **wrong)


def test_texts_that_end_elsewhere_than_their_partners_are_refused(inputs: Any) -> None:
    """A run that goes on from the other's stream would be read at the wrong place."""
    captions = inputs[1][0], inputs[1][1].clone()
    captions[1][2, 5] = 19
    captions[1][2, 4] = 1
    text = open_text()
    with pytest.raises(SpecificationError, match=r"end at different places \(pair 2\)"):
        attribute(text, clean=captions[0], corrupt=captions[1], metric=lambda out: out[:, 0])
    cut = Edges(text)
    with pytest.raises(SpecificationError, match=r"end at different places \(pair 2\)"):
        cut.embed(*captions, np.eye(len(cut.names), dtype=bool)[:1])
