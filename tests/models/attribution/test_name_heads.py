"""Heads named in words: the algorithm beside a naive one, the evidence, and planted models."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from interp.circuits.planted.vit import Planted, planted_vit
from interp.circuits.planted.world import CLASSES, as_tensor
from interp.core.artists import artist_sides
from interp.core.classifiers import Classifier
from interp.core.errors import (
    AlikeError,
    InterpError,
    NumericsError,
    SampleError,
    ShapeError,
    SpecificationError,
)
from interp.core.images import ImageTable
from interp.core.statistics.resampling import max_t
from interp.core.tables import Table
from interp.models import (
    decompose,
    load_clip,
    name_heads,
    open_tower,
    text_span,
    write_model_folder,
)
from interp.models.attribution.name_heads import ALL_DOMAINS, NO_NAME
from interp.models.attribution.text_span import (
    HalvedPart,
    _Complement,
    directions_of,
    held_out_words,
)
from tests.models.moved import RESNET, text, visual
from tests.refusals import refuses


def naive_span(parts: np.ndarray, texts: np.ndarray, n: int) -> tuple[list[int], list[float]]:
    """The greedy choice with plain loops: project, choose, take out of part and texts."""
    rows = [row - parts.mean(axis=0) for row in parts]
    words = [text / np.linalg.norm(text) for text in texts]
    total = sum(float(row @ row) for row in rows)
    chosen, explained = [], []
    for _ in range(n):
        scores = [sum(float(row @ word) ** 2 for row in rows) for word in words]
        best = int(np.argmax([-1 if place in chosen else s for place, s in enumerate(scores)]))
        unit = words[best] / np.linalg.norm(words[best])
        explained.append(sum(float(row @ unit) ** 2 for row in rows) / total)
        chosen.append(best)
        rows = [row - (row @ unit) * unit for row in rows]
        words = [word - (word @ unit) * unit for word in words]
    return chosen, explained


def random(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def vocabulary(embeddings: Tensor) -> Classifier:
    return Classifier(embeddings, [f"word {number}" for number in range(len(embeddings))])


@pytest.mark.parametrize(
    "seed, pictures, words, width", [(0, 30, 12, 8), (1, 6, 40, 20), (2, 9, 5, 5)]
)
def test_words_are_chosen_as_a_naive_loop_does(seed, pictures, words, width) -> None:
    texts = random(seed + 9, words, width)
    texts[1] = texts[0] + 0.01 * texts[2]  # a near synonym
    parts = random(seed, pictures, 3) @ random(seed + 5, 3, width) + 0.1 * random(
        seed, pictures, width
    )
    parts += 4 * random(seed + 3, pictures, 1) * texts[0]
    found = text_span(parts, vocabulary(texts * random(seed, words, 1).abs()), n=4)
    chosen, explained = naive_span(parts.numpy(), texts.numpy(), 4)
    assert list(found.words) == [f"word {place}" for place in chosen]
    np.testing.assert_allclose(found.explained, explained, rtol=1e-9)
    np.testing.assert_allclose(found.cumulative, np.cumsum(explained), rtol=1e-9)


def test_a_synonym_is_not_chosen_for_its_remainder() -> None:
    """Its remainder points where most variance is left, and is a hundredth of the word."""
    axes = torch.eye(3).double()
    texts = torch.stack([axes[0], axes[0] + 0.01 * axes[1], axes[2]])
    parts = random(0, 40, 3) * torch.tensor([9.0, 3.0, 1.0])
    assert "word 2" in text_span(parts, vocabulary(texts), n=2).words


WRONG_SPANS: dict[str, tuple[Callable[[], object], type[InterpError], str]] = {
    "fewer words than asked": (
        lambda: text_span(random(0, 9, 4), vocabulary(random(1, 2, 4)), n=3),
        SampleError, "2 words",
    ),
    "words all alike": (
        lambda: text_span(random(0, 9, 4), vocabulary(torch.ones(5, 4)), n=2),
        AlikeError, "in 1 directions",
    ),
    "words of another model": (
        lambda: text_span(random(0, 9, 4), vocabulary(random(1, 5, 6))), ShapeError, "same model",
    ),
    "NaN": (
        lambda: text_span(random(0, 9, 6) * torch.nan, vocabulary(random(1, 9, 6))),
        NumericsError, "NaN",
    ),
    "one picture": (
        lambda: text_span(random(0, 1, 6), vocabulary(random(1, 9, 6))), SampleError, "1 pictures",
    ),
    "the same in all": (
        lambda: text_span(torch.ones(9, 6), vocabulary(random(1, 9, 6))), AlikeError, "varies",
    ),
    "none asked": (
        lambda: text_span(random(0, 9, 6), vocabulary(random(1, 9, 6)), n=0), SampleError, "one or",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SPANS)
def test_a_wrong_span_says_what_would_be_right(name: str) -> None:
    call, kind, said = WRONG_SPANS[name]
    refuses(kind, said, call)


def halved(seed: int, *, width: int = 8, n: int = 24, rank: int = 3) -> HalvedPart:
    """A part that writes in a few random directions."""
    axes = random(seed, rank, width)
    rows = random(seed + 1000, 2 * n, rank) @ axes
    return HalvedPart(rows[:n], rows[n:], torch.arange(n) // 2)


def test_shares_leave_out_a_unit_as_dropping_its_rows_does() -> None:
    part, directions = halved(0), torch.linalg.qr(random(1, 8, 3))[0].T
    shares = part.shares(directions)
    for number in range(-1, 12):
        rows = part.confirming[part.unit != number]
        rows = rows - rows.mean(dim=0)
        expected = (rows @ directions.T).square().sum(dim=0) / rows.square().sum()
        np.testing.assert_allclose(shares[number + 1], expected, rtol=1e-9)


def test_the_null_keeps_the_words_to_one_another_and_leaves_what_is_taken() -> None:
    taken = torch.linalg.qr(random(0, 6, 2))[0].T
    complement, columns = _Complement(taken), random(1, 6, 4)
    inside = complement.into(columns)
    assert inside.shape == (4, 4)
    outside = columns - taken.T @ (taken @ columns)
    torch.testing.assert_close(complement.out_of(inside), outside)
    torch.testing.assert_close(inside.T @ inside, outside.T @ outside)


def test_the_null_is_the_best_of_words_that_are_turned() -> None:
    """Turned by turning the part the other way, in plain loops, from a stream of its own."""
    part, words = halved(3), directions_of(vocabulary(random(4, 5, 8)), 8, 1)
    [[found]] = held_out_words([part], words, n=1, n_null=600, seed=0)
    generator, drawn = np.random.default_rng(0), []
    for _ in range(600):
        turned = words @ torch.from_numpy(stats.ortho_group.rvs(8, random_state=generator))
        spread = part.choosing - part.choosing.mean(dim=0)
        best = int((spread @ turned.T).square().sum(dim=0).argmax())
        drawn.append(part.shares(turned[best][None])[0, 0])
    assert stats.ks_2samp(found.drawn, drawn).pvalue > 0.01
    assert found.terms[0, 1] == pytest.approx(found.drawn.mean())
    assert stats.ks_2samp(found.drawn, np.array(drawn) * 0.8).pvalue < 0.001


def test_value_and_ceiling_are_chosen_on_one_half_and_measured_on_the_other() -> None:
    part, words = halved(5), directions_of(vocabulary(random(6, 9, 8)), 8, 2)
    (first,), (second,) = held_out_words([part], words, n=2, n_null=20, seed=0)
    chosen = text_span(part.choosing, vocabulary(words), n=2)
    assert [f"word {each.place}" for each in (first, second)] == list(chosen.words)
    shares = part.shares(chosen.directions)
    np.testing.assert_allclose(first.terms[:, 0], shares[:, 0], rtol=1e-9)
    np.testing.assert_allclose(second.terms[:, 0], shares[:, 1], rtol=1e-9)
    rows = part.choosing - part.choosing.mean(dim=0)
    axes = torch.linalg.svd(rows, full_matrices=False)[2]
    assert first.terms[0, 2] == pytest.approx(part.shares(axes[:1])[0, 0])
    assert second.components == pytest.approx(part.shares(axes[:2])[0].sum())
    left = rows - rows @ chosen.directions[:1].T @ chosen.directions[:1]
    beside = torch.linalg.svd(left, full_matrices=False)[2][:1]
    assert second.terms[0, 2] == pytest.approx(part.shares(beside)[0, 0])


@pytest.mark.slow
def test_a_part_in_random_directions_has_a_name_as_rarely_as_p_says() -> None:
    """Three parts, one of them loud in one direction: in 5 % of studies any has a name."""
    n, named = 120, 0
    for study in range(n):
        parts = [
            halved(10 * study + place, n=12, rank=rank) for place, rank in enumerate((1, 3, 6))
        ]
        words = directions_of(vocabulary(random(-study - 1 & 0xFFFF, 6, 8)), 8, 1, centred=True)
        [found] = held_out_words(parts, words, n=1, n_null=39, seed=study)
        p = max_t(np.array([each.terms[0, 0] for each in found]),
                  np.stack([each.drawn for each in found], axis=1))  # fmt: skip
        named += bool(p.min() < 0.05)
    assert stats.binomtest(named, n, 1 / 40).pvalue > 0.001


def with_others(planted: Planted, n: int = 24) -> Classifier:
    words = torch.cat([planted.classes, random(7, n, planted.classes.shape[1])])
    return Classifier(words, [*CLASSES, *(f"other {number}" for number in range(n))])


def named(planted: Planted, words: Classifier, **options: Any) -> Table:
    tower, pictures = open_tower(planted.source), planted.pictures(12)
    return name_heads(tower, pictures, words, preprocess=as_tensor, **{"n_null": 99} | options)


@cache
def shared() -> Planted:
    return planted_vit("all shared", seed=1)


@cache
def own_words() -> Classifier:
    return with_others(shared())


@cache
def table() -> Table:
    return named(shared(), own_words())


def test_the_head_that_writes_the_class_is_named_after_classes_and_decoys_are_not() -> None:
    frame = table().frame
    [writer] = [node for node, reader in shared().truth("A").edges if reader == "logits"]
    nodes = "a" + frame["layer"].astype(str) + ".h" + frame["head"].astype(int).astype(str)
    own, others = frame[nodes == writer], frame[nodes != writer]
    assert len(own) == 9 and set(own["domain"]) == {"A", "B", ALL_DOMAINS}
    assert (
        set(own["verdict"]) <= set(CLASSES)
        and own.groupby("domain")["verdict"].nunique().eq(3).all()
    )
    assert (own["p"] == 0.01).all() and (own["same_name"] == "yes").all()
    assert (own["value"] > own["null"]).all() and (own["value"] < own["components"]).all()
    assert len(others) == 45 and set(others["verdict"]) == {NO_NAME}
    assert others["reason"].str.startswith("writes nothing").all() and others["value"].isna().all()


def test_words_that_nobody_writes_name_nothing() -> None:
    frame = named(shared(), vocabulary(random(3, 30, 32)), n_words=2).frame
    assert set(frame["verdict"]) == {NO_NAME}
    heard = frame[frame["written"] > 0.5]
    assert heard["reason"].str.contains("turned at random|before it is no name").all()
    assert (heard["same_name"] == "").all() and heard["word"].str.startswith("word").all()


def test_a_name_may_hold_in_one_domain_alone() -> None:
    """Of half the classes domain B's come from a head that is silent in A."""
    planted = planted_vit("dose", seed=2, dose=0.5)
    frame = named(planted, with_others(planted), n_words=1).frame
    silent = frame["written"] < 1e-6
    by_domain = frame.assign(silent=silent).groupby(["part", "domain"])["silent"].first().unstack()
    assert (by_domain["A"] & ~by_domain["B"]).sum() == 1
    alone = planted.truth("A").nodes
    assert {node for node, reader in planted.truth("B").edges if reader == "logits"} - alone
    separate = planted_vit("separate, one output", seed=1)
    own = named(separate, with_others(separate), n_words=1).frame
    own = own[(own["verdict"] != NO_NAME) & (own["domain"] != ALL_DOMAINS)]
    assert set(own["same_name"]) == {"not in A", "not in B"}


def test_mlps_are_named_too_where_they_write() -> None:
    planted = planted_vit("rewired", seed=1)
    frame = named(planted, with_others(planted), kinds=("head", "mlp"), n_words=1).frame
    written = frame[frame["verdict"] != NO_NAME]
    assert set(written["part"]) == {"blocks.3.mlp"} and set(written["verdict"]) <= set(CLASSES)
    assert set(frame["kind"]) == {"head", "mlp"} and frame["head"].isna().any()


def test_a_row_is_what_the_decomposition_says() -> None:
    pictures = shared().pictures(12)
    row = table().frame.query("domain == 'B' and written > .5 and rank == 1").iloc[0]
    tower = open_tower(shared().source)
    part = decompose(tower, pictures.tensors(as_tensor), by="head")[row["part"]].numpy()
    side, here = artist_sides(pictures.frame, seed=0), (pictures.domain == "B").to_numpy()
    words = own_words().embeddings / own_words().embeddings.norm(dim=1, keepdim=True)
    words = (words - words.mean(dim=0)).numpy()
    chosen, _ = naive_span(part[here & (side == 1)], words, 1)
    assert row["word"] == own_words().class_names[chosen[0]]
    again, _ = naive_span(part[here & (side == 0)], words, 1)
    assert row["word_again"] == own_words().class_names[again[0]]
    other = part[here & (side == 0)]
    other, word = other - other.mean(axis=0), words[chosen[0]] / np.linalg.norm(words[chosen[0]])
    assert row["value"] == pytest.approx(((other @ word) ** 2).sum() / (other**2).sum())
    assert row["n_units"] == len(other) and row["n_pictures"] == here.sum()


def test_seeds_repeat_and_units_are_drawings_where_they_are_known() -> None:
    pd.testing.assert_frame_equal(named(shared(), own_words()).frame, table().frame)
    pictures = shared().pictures(12)
    drawing = pictures.label + pictures.artist
    known = pictures.with_frame(pictures.frame.assign(drawing=drawing))
    options: Any = {"preprocess": as_tensor, "n_words": 1, "n_null": 20}
    frame = name_heads(open_tower(shared().source), known, own_words(), **options).frame
    assert set(frame["unit"]) == {"drawing"} and set(frame["n_units"]) == {16}  # by two artists


def test_within_one_class_a_head_is_named_by_what_varies_there() -> None:
    """How much of the class is written differs from picture to picture, and nothing else does."""
    pictures = shared().pictures(12).select(label="p0 q0")
    options: Any = {"preprocess": as_tensor, "n_null": 99, "n_words": 2}
    frame = name_heads(open_tower(shared().source), pictures, own_words(), **options).frame
    own = frame[frame["written"] > 0.5]
    assert set(frame["unit"]) == {"picture"} and set(own["n_units"]) == {6, 12}
    assert set(own.loc[own["rank"] == 1, "verdict"]) == {"p0 q0"}
    assert set(own.loc[own["rank"] == 2, "verdict"]) == {NO_NAME}


def squares(n: int = 24, colours: str = "red lime blue gray") -> ImageTable:
    names = (colours.split() * n)[:n]
    frame = pd.DataFrame({"path": range(n), "label": names, "domain": "real", "split": "test"})
    frame = frame.assign(caption="", artist=[f"artist {row // 4 % 4}" for row in range(n)])

    def read(row: pd.Series) -> Image.Image:
        picture = Image.new("RGB", (48, 48), row["label"])
        picture.paste("white", (int(row["path"]), 3, int(row["path"]) + 9, 20))
        return picture

    return ImageTable(frame, reader=read)


def test_the_small_vit_of_a_study_is_asked_in_its_own_words(tmp_path: Path) -> None:
    colours = "red lime blue gray black".split()
    folder = write_model_folder(
        tmp_path / "model", "vit-small", words=["a", "photo", "of", *colours], longest=6
    )
    clip = load_clip(f"local-dir:{folder}")
    with pytest.warns(UserWarning, match="does not know"):  # the full stop of "a photo of a cat."
        found = name_heads(clip, squares(), colours, n_words=1, n_null=20)
    assert len(found) == 16 and found.facts["error"] < 1e-4
    assert set(found.frame["domain"]) == {"real"} and (found.frame["same_name"] == "").all()


def tensor(picture: Image.Image) -> Tensor:
    return as_tensor(picture).float()


def vit(**more: Any) -> Any:
    return visual(patch_size=16, image_size=48, **more)[1].float()


def ask(tower: Any = None, words: Any = None, images: Any = None, **options: Any) -> Table:
    words = vocabulary(random(0, 9, 24)) if words is None else words
    images = squares() if images is None else images
    given = {"preprocess": tensor, "n_words": 1, "n_null": 20} | options
    return name_heads(tower or vit(), images, words, **given)


def test_a_resnet_has_the_heads_of_its_pool() -> None:
    tower = visual(RESNET)[1].float()
    noise = iter(random(1, 99, 3, 64, 64).float())
    frame = ask(tower, preprocess=lambda picture: next(noise)).frame
    assert len(frame) == tower.source.attnpool.num_heads and set(frame["kind"]) == {"head"}


def broken() -> Any:
    tower = vit()
    with torch.no_grad():
        tower.source.proj[0] = torch.nan
    return tower


def traced() -> Any:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 48 * 48, 24))
    return open_tower(net, example=torch.zeros(1, 3, 48, 48))


def one_artist() -> ImageTable:
    images = squares()
    return images.with_frame(images.frame.assign(artist="ann"))


WRONG: dict[str, tuple[Callable[[], object], type[InterpError], str]] = {
    "a traced tower": (lambda: ask(traced()), SpecificationError, "probes.collect"),
    "a text tower": (
        lambda: ask(text()[1]),
        SpecificationError, "HookedViT",
    ),
    "words for a tower": (lambda: ask(words=["a", "b", "c"]), SpecificationError, "zero_shot"),
    "a bare text": (lambda: ask(words="cat"), SpecificationError, "list"),
    "no preprocess": (lambda: ask(preprocess=None), SpecificationError, "preprocess"),
    "few turns": (lambda: ask(n_null=5), SpecificationError, "20 or more"),
    "an unknown kind": (lambda: ask(kinds=("heads",)), SpecificationError, "mean head"),
    "no kind": (lambda: ask(kinds=()), SpecificationError, "nothing"),
    "fewer words than asked": (lambda: ask(n_words=9), SampleError, "at least 10"),
    "two words of one direction": (
        lambda: ask(words=vocabulary(torch.ones(9, 24))), AlikeError, "0 directions",
    ),
    "words of another model": (
        lambda: ask(words=vocabulary(random(0, 9, 7))), ShapeError, "7 numbers",
    ),
    "one artist": (lambda: ask(images=one_artist()), SampleError, "more artists"),
    "no pictures": (lambda: ask(images=squares()[:0]), SampleError, "no pictures"),
    "one picture over and over": (
        lambda: ask(images=squares(), preprocess=lambda picture: torch.zeros(3, 48, 48)),
        AlikeError, "alike",
    ),
    "NaN": (lambda: ask(broken()), NumericsError, "NaN"),
    "training": (lambda: ask(vit(patch_dropout=0.5).train()), SpecificationError, "training"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_says_what_would_be_right(name: str) -> None:
    call, kind, said = WRONG[name]
    refuses(kind, said, call)
