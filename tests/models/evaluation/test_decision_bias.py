"""The decision bias: the one that was put into logits is found, by domain, and what it hides."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp import decision_bias, models
from interp.core.artists import artist_halves
from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.models.evaluation.decision_bias import OTHERS, POINTS, Split
from interp.models.evaluation.tradeoff import harmonic_mean
from tests.models.evaluation.test_tradeoff import HELD_OUT, NAMES, among_all, asked, at, curve
from tests.refusals import refuses

WITHHELD = np.isin(NAMES, HELD_OUT)


class Scorer:
    """Pictures whose embedding is their logits, with a bias against some classes in sketches."""

    def __init__(self, frame: pd.DataFrame, bias: float, signal: float = 4.0, seed: int = 0):
        names = sorted(set(frame["label"]))
        own = pd.Index(names).get_indexer(frame["label"])
        logits = rng("logits", seed).normal(size=(len(frame), len(names)))
        logits[np.arange(len(frame)), own] += signal
        held = np.isin(names, CLASSES[:4])
        logits[(frame["domain"] == "sketch").to_numpy()] -= bias * held
        self.logits = torch.tensor(logits)

    def embed(self, images: Any, *, batch_size: int = 256) -> torch.Tensor:
        return self.logits

    def zero_shot(self, class_names: Any, templates: Any) -> Any:
        return lambda vectors: vectors


CLASSES = [f"class {n:02}" for n in range(16)]


def pictures(n: int = 12) -> ImageTable:
    """`n` drawings of each class by six artists, in two domains."""
    cells = [
        (c, d, f"artist {k % 6}") for d in ("real", "sketch") for c in CLASSES for k in range(n)
    ]
    frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    return ImageTable(frame.assign(path="", split="test", caption=""))


def measured(bias: float, *, seed: int = 0, **more: Any) -> pd.DataFrame:
    images = pictures()
    clip = Scorer(images.frame, bias, seed=seed)
    found = decision_bias(clip, images, CLASSES[:4], n_resamples=199, seed=seed, **more)
    rows = found.table.frame
    return (
        rows[rows["domain"] == "sketch"]
        .set_index(["measure", "class_set", "calibration"])
        .sort_index()
    )


def test_a_bias_that_was_put_in_is_found_and_what_it_hides() -> None:
    rows = measured(5.0)
    excess = rows.loc[(models.EXCESS_BIAS, "", "")]
    assert excess["value"] == pytest.approx(5.0, abs=0.7)
    assert excess["low"] < 5.0 < excess["high"] and excess["p"] <= 0.01
    assert abs(excess["null"]) < 0.5
    held = rows.loc[("balanced top-1", "held-out")]["value"]
    assert held["as it is"] < 0.3 < 0.9 < held["bias set on other pictures"]
    assert held["among held-out classes"] > 0.9
    seen = rows.loc[("balanced top-1", "seen")]["value"]
    assert seen["bias set on other pictures"] > seen["as it is"] - 0.1


def test_without_a_bias_there_is_none() -> None:
    found = [measured(0.0, seed=seed).loc[(models.EXCESS_BIAS, "", "")] for seed in range(12)]
    assert np.mean([row["low"] <= 0 <= row["high"] for row in found]) > 0.8
    assert np.mean([row["p"] < 0.1 for row in found]) < 0.4
    assert abs(np.mean([row["value"] for row in found])) < 0.3


def test_margins_are_those_of_the_exact_curve() -> None:
    """Two ways: the table of answers, and biased logits themselves."""
    answers, logits, labels = asked(bias=0.7)
    true = pd.Index(NAMES).get_indexer(labels)
    split, once = Split.of(logits, true, WITHHELD), np.ones((1, len(NAMES)))
    exact = curve(among_all(answers), HELD_OUT)
    assert split.area(once)[0] == pytest.approx(exact.area)
    grid = np.linspace(-6, 6, 4001)
    both = np.array([at(logits, labels, bias) for bias in grid])
    for bias in (-1.0, 0.0, 0.4):
        assert np.ravel(split.accuracy(bias, once)) == pytest.approx(at(logits, labels, bias))
    score = harmonic_mean(*both.T)
    [best] = split.best(once)
    assert harmonic_mean(*map(np.array, at(logits, labels, best))) >= score.max() - 1e-12
    allowed = both[both[:, 0] >= at(logits, labels, 0.0)[0] - POINTS - 1e-9]
    assert split.at_cost(POINTS, once)[0] == pytest.approx(allowed[:, 1].max())
    assert split.accuracy(np.inf, once)[1] == pytest.approx(both[-1, 1])


def test_a_draw_of_classes_is_as_if_their_pictures_came_so_often() -> None:
    _, logits, labels = asked()
    true = pd.Index(NAMES).get_indexer(labels)
    times = np.array([2, 1, 0, 1, 1, 3, 0, 1])
    split = Split.of(logits, true, WITHHELD)
    seen, held = (float(each[0]) for each in split.accuracy(0.2, times[None]))
    by_class = [at(logits[true == c], labels[true == c], 0.2) for c in range(len(NAMES))]
    right = np.array([pair[int(kind)] for pair, kind in zip(by_class, WITHHELD, strict=True)])
    for found, kind in ((seen, ~WITHHELD), (held, WITHHELD)):
        assert found == pytest.approx(np.average(right[kind], weights=times[kind]))


def test_the_bias_of_a_half_is_set_on_pictures_by_the_other_artists() -> None:
    """By hand: the best bias of each half's artists, used on the other half."""
    images = pictures(6)
    clip = Scorer(images.frame, 1.0, signal=1.0)
    rows = decision_bias(clip, images, CLASSES[:4], n_draws=9, n_resamples=9).table.frame
    here = (images.frame["domain"] == "sketch").to_numpy()
    half = artist_halves(images.frame, ["real", "sketch"])[here]
    logits, labels = clip.logits.numpy()[here], images.frame["label"][here]
    true, held = pd.Index(CLASSES).get_indexer(labels), np.arange(16) < 4
    moved = logits.copy()
    for side in (0, 1):
        own = half == side
        split = Split.of(logits[own], true[own], held)
        moved[~own] -= split.best(np.ones((1, 16)))[0] * ~held
    right = pd.Series(moved.argmax(axis=1) == true).groupby(true).mean()
    own = rows[(rows["domain"] == "sketch") & (rows["calibration"] == OTHERS)]
    found = own.set_index("class_set")["value"]
    assert found["held-out"] == pytest.approx(right[:4].mean())
    assert found["seen"] == pytest.approx(right[4:].mean())


def test_several_prompt_sets_and_domains_stand_beside_one_another() -> None:
    images = pictures()
    prompts = {"neutral": lambda domain: ["{}"], "domain-specific": lambda domain: [domain + " {}"]}
    clip = Scorer(images.frame, 2.0)
    found = decision_bias(clip, images, {"sketch": CLASSES[:4]}, prompts=prompts, n_resamples=9)
    rows = found.table.frame
    assert set(rows["prompts"]) == {*prompts} and set(rows["domain"]) == {"sketch"}
    assert set(found.curves.frame["domain"]) == {"sketch"}
    other = decision_bias(Scorer(images.frame, 0.0), images, CLASSES[:4], n_resamples=9)
    figure = found.plot("gated", plain=other)
    assert {"gated", "plain"} <= {trace.name for trace in figure.data}
    assert "n = 16 classes" in figure.layout.meta["caption"]


def test_classes_that_are_unseen_in_a_domain_follow_from_counts() -> None:
    cells = [(c, d, 20) for c in "abcd" for d in ("real", "sketch", "art")]
    counts = pd.DataFrame(cells, columns=["label", "domain", "n_pictures"])
    counts.loc[(counts["label"] == "a") & (counts["domain"] == "sketch"), "n_pictures"] = 1
    counts = counts[~((counts["label"] == "b") & (counts["domain"] == "art"))]
    assert models.unseen(counts) == {"art": ["b"], "sketch": ["a"]}
    assert models.unseen(counts, share=0.0) == {"art": ["b"]}


def test_one_held_out_class_has_no_interval_and_none_is_refused() -> None:
    images = pictures()
    clip = Scorer(images.frame, 2.0)
    rows = decision_bias(clip, images, CLASSES[:1], n_draws=9, n_resamples=9).table.frame
    shares = rows[rows["measure"] == "balanced top-1"]
    assert shares["low"].isna().all() and shares["value"].notna().any()
    assert shares["reason"].str.contains("one class of a kind").all()
    for held_out in ([], CLASSES):
        refuses(SampleError, "seen and held-out", decision_bias, clip, images, held_out)
    refuses(DataError, "class 01", decision_bias, clip, images, ["clas 01"])
    refuses(DataError, "photo", decision_bias, clip, images, CLASSES[:2], natural="photo")
