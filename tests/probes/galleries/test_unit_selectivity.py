"""Selectivity of units: AUROCs as scikit-learn has them, chance where there is none, found else."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from interp.core.artists import artist_sides
from interp.probes.galleries.unit_selectivity import (
    Ranked,
    Selectivity,
    clusters,
    clusters_in,
    placements,
    traded,
)
from tests.probes.conftest import make_frame

DOMAINS = ("real", "sketch")


def of_noise(n_units: int, *, n_classes: int = 12, seed: int = 0, **more: Any) -> Selectivity:
    """Units that tell nothing apart; some numbers are equal, as a ReLU makes them."""
    frame = make_frame(n_classes, DOMAINS, n_artists=8, **more)
    draw = np.random.default_rng(seed)
    values = np.maximum(draw.normal(size=(len(frame), n_units)), -0.5).astype(np.float32)
    return Selectivity(values, draw.normal(size=(len(frame), 5)), frame, DOMAINS)


def test_aurocs_are_scikit_learns() -> None:
    told = of_noise(6)
    frame, sides = told.frame, artist_sides(told.frame)
    for domain in DOMAINS:
        for half in (0, 1):
            rows = ((frame["domain"] == domain) & (sides == half)).to_numpy()
            for place, name in enumerate(told.classes):
                mine = (frame["label"] == name)[rows]
                right = [roc_auc_score(mine, column) for column in told.values[rows].T]
                assert told._scores[domain, half][place, :6] == pytest.approx(right)


def test_a_class_is_chosen_by_some_artists_and_scored_on_others() -> None:
    """Value and null by hand, for a unit and two domains."""
    told = of_noise(3)
    row = told.by_class().query("feature == 1 and domain_a == 'real' and domain_b == 'sketch'")
    value, null, names = [], [], []
    for half in (0, 1):
        best = told._scores["real", half][:, 1].argmax()
        scores = told._scores["sketch", 1 - half][:, 1]
        names.append(told.classes[best])
        value.append(scores[best])
        null.append(np.delete(scores, best).mean())
    assert row["value"].item() == pytest.approx(np.mean(value))
    assert row["null"].item() == pytest.approx(np.mean(null))
    assert [row["label"].item(), row["label_again"].item()] == names


def test_placements_are_those_of_pairs() -> None:
    """From ranks as from all pairs, with equal numbers; and so is the variance."""
    draw = np.random.default_rng(1)
    values = draw.integers(4, size=(40, 7)).astype(float)
    codes = np.repeat(np.arange(4), 10)
    drawings = np.array([f"c{code} {number // 2}" for number, code in enumerate(codes)])
    ranked, of = Ranked(values), draw.integers(4, size=7)
    mine = codes[:, None] == of
    shares = ranked.placements(mine)
    variance = ranked.variance(mine, clusters(drawings), clusters(codes))
    assert ranked.aurocs_of(mine) == pytest.approx((shares * mine).sum(axis=0) / 10)
    assert clusters_in(mine, clusters(drawings)).tolist() == [5] * 7
    for unit, code in enumerate(of):
        own, others = values[codes == code], values[codes != code]
        above, below = (each[:, unit] for each in placements(own, others))
        np.testing.assert_allclose(shares[mine[:, unit], unit], above, rtol=1e-6)
        np.testing.assert_allclose(shares[~mine[:, unit], unit], 1 - below, rtol=1e-6)
        by_drawing = pd.Series(above - above.mean()).groupby(drawings[codes == code]).sum()
        by_class = pd.Series(below - below.mean()).groupby(codes[codes != code]).sum()
        right = sum(
            (sums**2).sum() * len(sums) / (len(sums) - 1) / size**2
            for sums, size in ((by_drawing, len(own)), (by_class, len(others)))
        )
        assert variance[unit] == pytest.approx(right)


def test_units_of_noise_are_at_chance() -> None:
    """The best of twelve classes looks selective on the drawings that chose it, and is not."""
    told = of_noise(400, copies=3)
    frame = told.by_class()
    assert frame["value"].mean() == pytest.approx(0.5, abs=0.01)
    assert 0.03 < (frame["p"] < 0.05).mean() < 0.07
    held = (frame["low"] <= 0.5) & (frame["high"] >= 0.5)
    assert 0.9 < held.mean() < 0.98
    best = told._scores["real", 0][:, :400].max(axis=0)
    assert best.mean() > 0.6
    apart = told.by_domain()
    assert apart["value"].mean() == pytest.approx(0.5, abs=0.01)
    assert 0.03 < (apart["p"] < 0.05).mean() < 0.08


def test_what_both_halves_choose_is_no_evidence_by_itself() -> None:
    """Of four classes both choose one by chance in a fourth of the units, and it scores in both."""
    frame = of_noise(1200, n_classes=4).by_class()
    own = frame[frame["domain_a"] == frame["domain_b"]]
    assert (own["p"] < 0.05).mean() < 0.06  # .04; .10 with the classes of the true halves


def test_a_unit_that_tells_a_class_is_found_where_it_does() -> None:
    """One tells c03 in both domains, one c05 in sketches alone, one the domain, one is dead."""
    told = of_noise(4)
    frame, values = told.frame, told.values.copy()
    values[:, 0] += 4 * (frame["label"] == "c03")
    values[:, 1] += 4 * ((frame["label"] == "c05") & (frame["domain"] == "sketch"))
    values[:, 2] += 4 * (frame["domain"] == "real")
    values[:, 3] = 0.25
    rows = Selectivity(values, told.random, frame, DOMAINS).by_class()
    rows = rows.set_index(["feature", "domain_a", "domain_b"]).sort_index()
    for a in DOMAINS:
        for b in DOMAINS:
            shared = rows.loc[0, a, b]
            assert shared["label"] == "c03" and shared["value"] > 0.98 and shared["p"] < 0.02
            assert shared["low"] > 0.9 and shared["high"] <= 1 and shared["n_units"] == 8
    private = rows.loc[1, "sketch", "sketch"]
    assert private["label"] == "c05" and private["value"] > 0.98
    assert rows.loc[1, "sketch", "real"]["value"] < 0.75
    dead = rows.loc[3]
    assert dead["reason"].str.startswith("the same for all").all() and (dead["label"] == "").all()
    assert dead["p"].isna().all() and dead["low"].isna().all()
    apart = Selectivity(values, told.random, frame, DOMAINS).by_domain().set_index("feature")
    assert apart.loc[2, "value"] > 0.98 and apart.loc[2, "low"] > 0.9 and apart.loc[2, "p"] < 0.05
    assert abs(apart.loc[0, "value"] - 0.5) < 0.1
    assert (apart["random"] - 0.5).abs().max() < 0.1


def test_a_unit_that_is_silent_in_one_domain_tells_nothing_there() -> None:
    """All pictures of a domain are equal: the first class would be chosen there, by its place."""
    told = of_noise(2)
    values = told.values.copy()
    values[:, 0] = np.where(told.frame["domain"] == "real", 0, values[:, 0])
    rows = Selectivity(values, told.random, told.frame, DOMAINS)
    mine = rows.by_class().query("feature == 0").set_index(["domain_a", "domain_b"])
    silent = mine["reason"] != ""
    assert silent.to_dict() == {(a, b): "real" in (a, b) for a in DOMAINS for b in DOMAINS}
    assert (mine["label"] == "").equals(silent) and mine["p"].isna().equals(silent)
    assert (rows.by_domain()["reason"] == "").all()


def test_random_units_stand_beside_each_unit() -> None:
    told = of_noise(2)
    random = np.tile(told.values[:, :1], (1, 5))
    random[told.frame["label"] == "c01"] += 9
    row = Selectivity(told.values, random, told.frame, DOMAINS).by_class().iloc[0]
    assert row["random"] > 0.98 and row["random_high"] >= row["random"]


def test_drawings_trade_places_with_others_of_their_artist_picture_by_picture() -> None:
    frame = make_frame(5, ("real",), n_artists=3, copies=2).sample(frac=1, random_state=0)
    frame = frame.reset_index(drop=True)
    trades = traded(frame, np.random.default_rng(0))
    orders = [next(trades) for _ in range(30)]
    for order in orders:
        assert sorted(order) == list(range(len(frame)))
        assert (frame["artist"].to_numpy()[order] == frame["artist"]).all()
        partners = pd.Series(frame["drawing"].to_numpy()[order]).groupby(frame["drawing"]).nunique()
        assert (partners == 1).all()
    assert len({tuple(order) for order in orders}) > 25
    alone = traded(frame.drop(columns=["drawing", "artist"]), np.random.default_rng(0))
    assert sorted(next(alone)) == list(range(len(frame)))
