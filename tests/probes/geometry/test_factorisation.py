"""Shares of variance and angles of planted class and domain effects, and by plain loops."""

import numpy as np
import pandas as pd
import pytest

from interp.core.artists import artist_halves
from interp.core.errors import SampleError
from interp.core.statistics.resampling import jackknife
from interp.probes import Features, factorisation
from tests.refusals import refuses

NAMES = ("real", "sketch", "quickdraw")


def additive(
    frame: pd.DataFrame,
    *,
    of_class: float = 1.0,
    of_domain: float = 1.0,
    of_both: float = 0.0,
    noise: float = 1.0,
    cosine: float = 0.0,
    rank: int = 4,
    width: int = 40,
    seed: int = 0,
) -> Features:
    """Effects of known variance; classes in `rank` axes, domains at a known angle to them."""
    generator = np.random.default_rng(seed)
    label, domain = (pd.factorize(frame[name])[0] for name in ("label", "domain"))
    n, k = label.max() + 1, domain.max() + 1

    def scaled(effects: np.ndarray, variance: float) -> np.ndarray:
        effects = effects - effects.mean(axis=0)
        size = (effects**2).sum(axis=1).mean()
        return effects * np.sqrt(variance / size) if variance else 0 * effects

    classes = np.zeros((n, width))
    classes[:, :rank] = generator.normal(size=(n, rank))
    axis = np.zeros(width)
    axis[0], axis[rank] = cosine, np.sqrt(1 - cosine**2)
    domains = scaled(np.arange(k)[:, None] * axis, of_domain)
    both = generator.normal(size=(n, k, width))
    both -= both.mean(axis=0) + both.mean(axis=1, keepdims=True) - both.mean(axis=(0, 1))
    both *= np.sqrt(of_both / (both**2).sum(axis=2).mean())
    x = scaled(classes, of_class)[label] + domains[domain] + both[label, domain]
    x = x + np.sqrt(noise / width) * generator.normal(size=x.shape)
    turn = np.linalg.qr(generator.normal(size=(width, width)))[0]
    return Features({"site0": (x @ turn + 5).astype(np.float32)}, frame)


def found(features: Features, **options) -> pd.DataFrame:
    options = {"n_splits": 2, "n_permutations": 99} | options
    return factorisation(features, **options).frame.set_index("factor")


def by_loops(features: Features, split: int, without: str = "") -> dict[str, float]:
    """The definition: effects of each half by pandas, products of the halves by loops."""
    half = artist_halves(features.frame, sorted(set(features.frame["domain"])), split=split)
    frame, x = features.frame, features.values["site0"].astype(float)
    keep = (frame["label"] != without).to_numpy()
    means = [
        pd.DataFrame(x[keep & (half == side)])
        .groupby([frame["label"][keep & (half == side)].to_numpy(),
                  frame["domain"][keep & (half == side)].to_numpy()]).mean()
        for side in (0, 1)
    ]  # fmt: skip
    grand = [m.mean() for m in means]
    classes = [m.groupby(level=0).mean() - g for m, g in zip(means, grand, strict=True)]
    domains = [m.groupby(level=1).mean() - g for m, g in zip(means, grand, strict=True)]
    effect = {
        "class": np.mean([classes[0].loc[c] @ classes[1].loc[c] for c in classes[0].index]),
        "domain": np.mean([domains[0].loc[d] @ domains[1].loc[d] for d in domains[0].index]),
    }
    both = [
        m - g - c.reindex(m.index, level=0) - d.reindex(m.index, level=1)
        for m, g, c, d in zip(means, grand, classes, domains, strict=True)
    ]
    cells = both[0].index
    effect["interaction"] = np.mean([both[0].loc[cell] @ both[1].loc[cell] for cell in cells])
    used = keep & (half >= 0)
    squares = pd.Series((x[used] ** 2).sum(axis=1)).groupby(
        [frame["label"][used].to_numpy(), frame["domain"][used].to_numpy()]
    )
    effect["total"] = squares.mean().mean() - grand[0] @ grand[1]
    return {name: float(size) for name, size in effect.items()}


def test_shares_and_intervals_are_those_of_plain_loops(frame_of) -> None:
    features = additive(frame_of(7, NAMES), of_both=0.5, cosine=0.5)
    rows = found(features, n_splits=1)
    effect = by_loops(features, 0)
    left = [by_loops(features, 0, c) for c in sorted(set(features.frame["label"]))]
    for factor in ("class", "domain", "interaction"):
        value = effect[factor] / effect["total"]
        spread = jackknife(value, [each[factor] / each["total"] for each in left])
        assert rows.loc[factor, "value"] == pytest.approx(value, abs=1e-6)
        assert rows.loc[factor, "low"] == pytest.approx(spread.low, abs=1e-5)
    shares = rows.loc[["class", "domain", "interaction", "residual"], "value"]
    assert shares.sum() == pytest.approx(1.0)
    between = effect["class"] + effect["interaction"]
    assert rows.loc["class", "null"] == pytest.approx(between / 3 / effect["total"], abs=1e-6)
    index = (effect["class"] - between / 3) / (between - between / 3)
    assert rows.loc["class", "index"] == pytest.approx(index, abs=1e-5)


def test_planted_shares_come_back_without_bias_whatever_the_noise(frame_of) -> None:
    frame = frame_of(12, NAMES)
    for noise in (1.0, 8.0):
        rows = [
            found(additive(frame, of_class=1.0, of_domain=2.0, of_both=0.5, noise=noise, seed=seed),
                  n_permutations=9)["value"]
            for seed in range(6)
        ]  # fmt: skip
        values = pd.concat(rows, axis=1).T
        total = 3.5 + noise
        planted = {"class": 1.0, "domain": 2.0, "interaction": 0.5, "residual": noise}
        for factor, variance in planted.items():
            error = values[factor].std() / np.sqrt(len(values))
            assert abs(values[factor].mean() - variance / total) < 3.5 * error + 0.003, factor


def test_nothing_is_found_in_noise_and_a_planted_class_is(frame_of) -> None:
    frame = frame_of(10)
    none = pd.concat(
        found(additive(frame, of_class=0, of_domain=0, seed=seed), n_splits=1) for seed in range(20)
    )
    for factor in ("class", "domain", "interaction"):
        value = none.loc[factor, "value"]
        assert abs(value.mean()) < 3.5 * value.std() / np.sqrt(20)
    assert 0.2 < none.loc["class", "p"].mean() < 0.8
    assert (none.loc["class", "p"] <= 0.05).mean() < 0.2
    assert (none.loc["class and domain", "reason"].str.contains("no direction")).mean() > 0.8
    some = found(additive(frame, of_class=0.5, of_domain=0.5))
    assert some.loc["class", "p"] == 0.01 and some.loc["domain", "p"] == 0.01
    assert some.loc["class", "verdict"] == "shared"


def test_class_effects_of_each_domain_alone_are_not_shared(planted) -> None:
    apart = pd.concat(found(planted(0.0, seed=seed), n_splits=1) for seed in range(6)).loc["class"]
    assert abs(apart["index"].mean()) < 0.12 and "shared" not in set(apart["verdict"])
    assert apart["p"].mean() > 0.2
    together = found(planted(1.0, rotate=False)).loc["class"]
    assert together["index"] == pytest.approx(1.0, abs=0.1) and together["verdict"] == "shared"


def test_a_domain_whose_classes_are_alike_has_no_class_index(planted) -> None:
    features = planted(1.0, rotate=False)
    values = features.values["site0"].copy()
    at = (features.frame["domain"] == "sketch").to_numpy()
    values[at] = np.random.default_rng(5).normal(size=values[at].shape)
    row = found(Features({"site0": values}, features.frame)).loc["class"]
    assert row["verdict"] == "unknown" and np.isnan(row["index"])
    assert row["reason"] == "classes of sketch do not differ by 3 standard errors"
    assert found(features).loc["class", "verdict"] == "shared"


@pytest.mark.parametrize("cosine", [0.0, 0.6, 1.0])
def test_planted_angles_come_back(frame_of, cosine: float) -> None:
    frame = frame_of(16, NAMES)
    rows = pd.concat(
        found(additive(frame, cosine=cosine, noise=2.0, seed=seed), n_permutations=9)
        for seed in range(8)
    ).loc["class and domain"]
    error = rows["value"].std() / np.sqrt(len(rows))
    assert error < 0.2
    assert abs(rows["value"].mean() - cosine**2) < 3 * error + 0.02
    assert rows["null"].mean() == pytest.approx(4 / 40, abs=0.02)  # 4 axes of 40, isotropic noise
    assert (rows["ceiling"] == 1).all() and (rows["verdict"] == "").all()
    assert (rows["p"] < 0.05).all() if cosine else (rows["p"] > 0.5).all()


def test_every_missing_number_has_a_reason(frame_of) -> None:
    features = additive(frame_of(8))
    values = {**features.values, "flat": np.ones_like(features.values["site0"])}
    table = factorisation(Features(values, features.frame), n_splits=1, n_permutations=9).frame
    assert len(table) == 10
    for column in ("value", "null", "ceiling", "p"):
        assert (table["reason"][table[column].isna()] != "").all()
    assert table[table["site"] == "flat"]["value"].isna().all()


def test_too_few_classes_or_domains_are_refused(frame_of) -> None:
    refuses(SampleError, "4 classes", factorisation, additive(frame_of(4)))
    refuses(SampleError, "1 domains", factorisation, additive(frame_of(8, ("real",)), of_domain=0))
