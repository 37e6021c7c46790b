"""L1, L2 and L3: estimates computed a second way, true nulls kept, links found, refusals."""

from dataclasses import asdict
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.core.statistics.correlations import (
    SPEARMAN,
    expected_reach,
    permuted_interval,
    rank_link,
)
from interp.core.statistics.crossed_model import clustered, take_out
from interp.core.statistics.links import across_mixtures, among_classes, within_mixtures
from interp.core.statistics.reliability import complete_blocks, gain, of_cells, of_halves
from tests.verdicts.made_studies import ClassWorld, World, reject


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def dummies(*codes: np.ndarray) -> np.ndarray:
    """A column per class of every code."""
    return np.column_stack([np.eye(int(code.max()) + 1)[code] for code in codes])


def residual(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]


def test_l1_is_spearman_of_mixtures_means() -> None:
    drawn = World(l1=0.6).panels(stream())
    means = [drawn[name].mean(axis=(1, 2)) for name in ("sharing", "accuracy")]
    found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=99)
    assert found.value == pytest.approx(stats.spearmanr(*means).statistic)
    assert found.n == {"mixture": 10}


def test_a_domain_asked_twice_adds_nothing_to_l1() -> None:
    """Test domains are no replicates: the same numbers under two names say no more."""
    drawn = World(domains=1, l1=0.7).panels(stream(2))
    once = [drawn[name] for name in ("sharing", "accuracy")]
    twice = [np.repeat(each, 2, axis=1) for each in once]
    one, two = (across_mixtures(*each, n_permutations=999) for each in (once, twice))
    assert (one.value, one.p, one.low, one.high) == (two.value, two.p, two.low, two.high)


@pytest.mark.parametrize(
    ("asked", "world"),
    [(across_mixtures, World(l1=0.7, blocks=2)), (within_mixtures, World(l2=0.45, shared=0.9))],
    ids=["L1", "L2"],
)
def test_a_level_has_an_interval_that_its_p_agrees_with(asked: Any, world: World) -> None:
    clear = {True: 0, False: 0}
    for seed in range(60):
        drawn = world.panels(stream(seed))
        found = asked(drawn["sharing"], drawn["accuracy"], n_permutations=499)
        assert (found.low > 0 or found.high < 0) == (found.p <= 0.05)
        clear[found.p <= 0.05] += 1
    assert min(clear.values()) > 10


def test_permuted_intervals_end_where_permutations_would_reject() -> None:
    """Ends by the formula, against artanh less the permutations' own quantile."""
    drawn = stream().normal(scale=0.3, size=1999).clip(-0.99, 0.99)
    reach = np.arctanh(np.quantile(np.abs(drawn), 0.95))
    low, high = permuted_interval(0.6, drawn)
    assert np.arctanh(0.6) - np.arctanh(low) == pytest.approx(reach, rel=0.01)
    assert np.arctanh(high) - np.arctanh(0.6) == pytest.approx(reach, rel=0.01)
    ranked = permuted_interval(0.6, drawn, bend=SPEARMAN)
    for end in ranked:
        away = abs(np.arctanh(0.6) - np.arctanh(end)) / np.sqrt(1 + end**2 / 2)
        assert away == pytest.approx(reach, rel=0.01)
    assert np.isnan(permuted_interval(0.6, drawn[:18])).all()


@pytest.mark.slow
@pytest.mark.parametrize("free", [9, 18])
def test_the_expected_reach_is_that_of_permutations(free: int) -> None:
    found = []
    for seed in range(200):
        x, y = stream(seed).normal(size=(2, free + 1))
        orders = stream(seed).permuted(np.tile(np.arange(free + 1), (999, 1)), axis=1)
        centred = y - y.mean()
        drawn = x[orders] @ centred / np.sqrt(((x - x.mean()) ** 2).sum() * (centred**2).sum())
        found.append(np.quantile(np.abs(drawn), 0.95))
    assert np.tanh(expected_reach(free)) == pytest.approx(np.mean(found), abs=0.01)


def test_l1_moves_whole_mixtures() -> None:
    """All 120 orders of five mixtures, against the drawn ones."""
    drawn = World(mixtures=5, l1=0.8, noise=0.2).panels(stream(4))
    x, y = (drawn[name].mean(axis=(1, 2)) for name in ("sharing", "accuracy"))
    every = [abs(float(rank_link(x[list(order)], y))) for order in permutations(range(5))]
    exact = np.mean(np.array(every) >= every[0] - 1e-9)
    found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=20_000)
    assert found.p == pytest.approx(exact, abs=0.012)


def test_l1_given_a_number_is_a_partial_rank_correlation() -> None:
    drawn = [World(mixtures=40).panels(stream(seed))["sharing"] for seed in (1, 2, 3)]
    x, y, z = drawn[0] + 2 * drawn[2], drawn[1] + 2 * drawn[2], drawn[2]
    ranks = []
    for each in (x, y, z):
        ranks.append(stats.rankdata(each.mean(axis=(1, 2))))
    constant = np.column_stack([np.ones(40), ranks[2]])
    naive = stats.pearsonr(residual(ranks[0], constant), residual(ranks[1], constant)).statistic
    found = across_mixtures(x, y, given=z, n_permutations=99)
    assert found.value == pytest.approx(naive)
    assert across_mixtures(x, y, n_permutations=99).value > found.value + 0.2


def test_l2_is_the_slope_of_a_regression_on_dummies() -> None:
    drawn = World(blocks=6, l2=0.6, mixtures=4).panels(stream())
    m, d, b = (each.ravel() for each in np.indices(drawn["sharing"].shape))
    columns = dummies(m * 2 + d, b * 2 + d)
    x, y = (residual(drawn[name].ravel(), columns) for name in ("sharing", "accuracy"))
    halves = [residual(drawn[name].ravel(), columns) for name in ("half_1", "half_2")]
    known = np.cov(*halves, bias=True)[0, 1] / np.var(x)
    found = within_mixtures(
        drawn["sharing"], drawn["accuracy"], halves=(drawn["half_1"], drawn["half_2"])
    )
    assert found.reliability == pytest.approx(known)
    assert found.slope == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_l2_moves_the_blocks_of_each_mixture() -> None:
    """All 216 orders of three mixtures' three blocks, written out, against the drawn ones."""
    drawn = World(mixtures=3, l2=0.5, drawings=0.05).panels(stream(2))
    m, d, b = (each.ravel() for each in np.indices(drawn["sharing"].shape))
    columns = dummies(m * 2 + d, b * 2 + d)
    x, y = (residual(drawn[name].ravel(), columns) for name in ("sharing", "accuracy"))
    table = x.reshape(3, 2, 3)
    every = []
    for orders in product(permutations(range(3)), repeat=3):
        moved = np.stack([table[at][:, list(order)] for at, order in enumerate(orders)])
        every.append(abs(np.corrcoef(residual(moved.ravel(), columns), y)[0, 1]))
    exact = np.mean(np.array(every) >= every[0] - 1e-9)
    halves = (drawn["half_1"], drawn["half_2"])
    found = within_mixtures(drawn["sharing"], drawn["accuracy"], halves=halves, n_permutations=9999)
    assert found.p == pytest.approx(exact, abs=0.01)
    assert 0.1 < exact < 0.9


def test_l2_noise_is_known_from_intervals_where_there_are_no_halves() -> None:
    world = World(blocks=40, drawings=0.6)
    drawn = world.panels(stream())
    square = np.full(drawn["sharing"].shape, 0.6**2 / 2)
    both = [
        within_mixtures(drawn["sharing"], drawn["accuracy"], **known)
        for known in ({"halves": (drawn["half_1"], drawn["half_2"])}, {"sharing_error": square})
    ]
    true = 0.25 / (0.25 + 0.18)
    assert [each.reliability for each in both] == pytest.approx([true, true], abs=0.08)
    assert [each.reliability_kind for each in both] == ["halves of drawings", "intervals"]


def test_l3_is_a_regression_on_dummies_with_errors_clustered_twice() -> None:
    rows = ClassWorld(mixtures=4, classes=6, link=0.5).rows(stream())
    label = np.unique(rows["label"], return_inverse=True)[1]
    run = rows.groupby(["setting", "test_domain", "seed"]).ngroup().to_numpy()
    design = np.column_stack([rows["sharing"], rows["accuracy_natural"], dummies(label, run)])
    y = rows["accuracy"].to_numpy()
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    rest = y - design @ weights
    x = residual(rows["sharing"].to_numpy(), design[:, 1:])
    square = 0.0
    for code, sign in ((label, 1), (run, 1), (np.arange(len(y)), -1)):
        groups = int(code.max()) + 1
        scores = [float((x * rest)[code == each].sum()) for each in range(groups)]
        square += sign * np.square(scores).sum() * groups / (groups - 1)
    own = take_out([rows[n].to_numpy() for n in ("sharing", "accuracy", "accuracy_natural")],
                   [label, run])  # fmt: skip
    assert own.slope == pytest.approx(weights[0])
    assert clustered(own) >= np.sqrt(max(square, 0)) / (x @ x) - 1e-12
    found = among_classes(
        rows["sharing"], y, label=label, run=run, natural=rows["accuracy_natural"],
        halves=(rows["half_1"], rows["half_2"]),
    )  # fmt: skip
    assert found.slope == pytest.approx(weights[0])
    naive = np.corrcoef(x, residual(y, design[:, 1:]))[0, 1]
    assert found.value == pytest.approx(naive)


def test_an_easy_class_makes_no_link_in_l3() -> None:
    """Without class and run effects the same rows are strongly linked."""
    rows = ClassWorld(easy=3.0).rows(stream(1))
    assert np.corrcoef(rows["sharing"], rows["accuracy"])[0, 1] > 0.5
    run = rows.groupby(["setting", "test_domain", "seed"]).ngroup()
    found = among_classes(
        rows["sharing"], rows["accuracy"], label=rows["label"], run=run,
        natural=rows["accuracy_natural"],
    )  # fmt: skip
    assert found.low < 0 < found.high and abs(found.value) < 0.2


def test_reliability_is_the_planted_one() -> None:
    true, noise = stream().normal(size=(2, 20_000))
    halves = [true + noise, true + stream(5).normal(size=20_000)]
    assert of_halves(*halves) == pytest.approx(2 / 3, abs=0.02)
    drawn = World(mixtures=400, blocks=4, fold=3.0, noise=1.0).panels(stream())
    cells = of_cells(drawn["accuracy"])[0]
    assert cells == pytest.approx(1.25 / (1.25 + 1 / 4), abs=0.03)  # folds do not count as noise


def test_gain_is_what_a_group_that_was_left_out_shows() -> None:
    """Against a ridge written out; and noise, fitted, gains nothing."""
    x, z, rest = stream(2).normal(size=(3, 40))
    group = np.repeat(np.arange(8), 5)
    y = x + z + 0.3 * rest

    def missed(*columns: np.ndarray) -> float:
        total = 0.0
        for each in range(8):
            out = group == each
            design = np.column_stack(columns) / np.sqrt(
                (np.column_stack(columns)[~out] ** 2).mean(axis=0)
            )
            wide = np.vstack([design[~out], np.eye(len(columns))])
            longer = np.append(y[~out], np.zeros(len(columns)))
            weights = np.linalg.lstsq(wide, longer, rcond=None)[0]
            total += ((y[out] - design[out] @ weights) ** 2).sum()
        return total

    expected = (missed(z) - missed(x, z)) / (y**2).sum()
    assert gain(y, x, [z], [group]) == pytest.approx(expected)
    assert expected > 0.2
    lost = [gain(*stream(seed).normal(size=(2, 40)), [], [group]) for seed in range(20)]
    assert np.mean(lost) < 0


def test_true_nulls_are_rejected_as_often_as_they_say() -> None:
    """Naively, over all checkpoints as if each were a unit of its own, half of them are."""
    rejected = {"L1": 0, "naive": 0, "L2": 0, "L3": 0}
    n = 100
    for seed in range(n):
        drawn = World(mixtures=6, domains=2, blocks=6).panels(stream(seed))
        x, y = drawn["sharing"], drawn["accuracy"]
        rejected["L1"] += across_mixtures(x, y, seed=seed, n_permutations=199).p <= 0.05
        flat = [(each - each.mean(axis=(0, 2), keepdims=True)).ravel() for each in (x, y)]
        rejected["naive"] += stats.spearmanr(*flat).pvalue <= 0.05
        rejected["L2"] += within_mixtures(x, y, seed=seed, n_permutations=719).p <= 0.05
        rows = ClassWorld(blocks=1, mixtures=5).rows(stream(seed))
        run = rows.groupby(["setting", "test_domain"]).ngroup()
        rejected["L3"] += (
            among_classes(rows["sharing"], rows["accuracy"], label=rows["label"], run=run).p <= 0.05
        )
    most = stats.binom.ppf(0.999, n, 0.05)
    assert max(rejected["L1"], rejected["L2"], rejected["L3"]) <= most
    assert rejected["naive"] / n > 0.4


@pytest.mark.parametrize(
    ("level", "world", "least"),
    [("L1", World(mixtures=12, l1=0.9), 0.8), ("L2", World(blocks=6, l2=0.5), 0.8)],
)
def test_links_are_found_and_covered(level: str, world: World, least: float) -> None:
    decided, covered, n = 0, 0, 100
    for seed in range(n):
        drawn = world.panels(stream(seed))
        if level == "L1":
            found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=99)
            true = 6 / np.pi * np.arcsin(world.l1 / 2) * 0.96  # less the noise of means
        else:
            halves = (drawn["half_1"], drawn["half_2"])
            found = within_mixtures(drawn["sharing"], drawn["accuracy"], halves=halves)
            true = world.l2 * np.sqrt(0.25 / (0.25 + world.drawings**2 / 2))  # less noise
        decided += found.low > 0
        covered += found.low <= true <= found.high
    assert decided / n >= least
    assert covered >= stats.binom.ppf(0.001, n, 0.93)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["L1", "L2", "L3"])
def test_a_true_null_is_rejected_in_one_study_of_twenty(level: str) -> None:
    """.05 within .02, of 1000 studies of ten mixtures in three blocks (se .007)."""
    found = [reject(level, 0.0, blocks=3, seed=seed) for seed in range(1000)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.02)


@pytest.mark.slow
def test_three_blocks_of_ten_mixtures_find_a_correlation_of_a_half_within_mixtures() -> None:
    """Though nine tenths of a run's variance are the same in both test domains."""
    found = [reject("L2", 0.5, blocks=3, seed=seed) for seed in range(1000)]
    assert np.mean(found) >= 0.6


@pytest.mark.long
@pytest.mark.slow
def test_intervals_cover_as_they_say() -> None:
    covered = {"L1": 0, "L2": 0}
    for seed in range(1000):
        drawn = World(mixtures=12, l1=0.7, l2=0.5, shared=0.9).panels(stream(seed))
        x, y = drawn["sharing"], drawn["accuracy"]
        one = across_mixtures(x, y, n_permutations=399)
        link = (0.7 * 1.125 + 0.5 * 0.2375 / 3) / (1.125 + 0.2375 / 3 + 0.01 / 3)
        covered["L1"] += one.low <= 6 / np.pi * np.arcsin(link / 2) <= one.high
        halves = (drawn["half_1"], drawn["half_2"])
        two = within_mixtures(x, y, halves=halves, n_permutations=399)
        covered["L2"] += two.low <= 0.5 * np.sqrt(0.25 / 0.27) <= two.high
    assert all(0.93 < each / 1000 < 0.99 for each in covered.values()), covered


@pytest.mark.parametrize(
    ("tables", "error", "says"),
    [
        ((np.zeros((1, 2, 6)) + stream().normal(size=(1, 2, 6)),) * 2, SampleError, "1 mixture"),
        ((stream().normal(size=(9, 2, 3)), np.ones((9, 2, 3))), SampleError, "accuracy"),
        ((np.ones((9, 2, 3)), stream().normal(size=(9, 2, 3))), SampleError, "sharing"),
        ((np.ones((9, 2)), np.ones((9, 2))), ShapeError, "mixture by domain by block"),
        ((np.ones((9, 2, 3)), np.ones((8, 2, 3))), ShapeError, "one shape"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tables: tuple[np.ndarray, np.ndarray], error: type[Exception], says: str
) -> None:
    for ask in (across_mixtures, within_mixtures):
        with pytest.raises(error, match=says):
            ask(*tables)


def test_one_block_and_few_classes_are_refused() -> None:
    x = stream().normal(size=(9, 2, 1))
    with pytest.raises(SampleError, match="1 block"):
        within_mixtures(x, x)
    code = np.repeat(np.arange(2), 5)
    with pytest.raises(SampleError, match="classes = 2"):
        among_classes(np.arange(10.0), np.arange(10.0), label=code, run=np.tile(range(5), 2))
    with pytest.raises(NumericsError, match="accuracy"):
        among_classes([1.0, 2.0], [1.0, np.nan], label=[0, 1], run=[0, 1])
    label, run = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    with pytest.raises(SampleError, match="sharing that does not vary"):
        among_classes(label + run, stream().normal(size=20), label=label, run=run)
    with pytest.raises(ShapeError, match="one length"):
        among_classes([1.0, 2.0], [1.0], label=[0, 1], run=[0, 1])


def test_blocks_that_a_mixture_lacks_are_left_out_of_l1() -> None:
    """Half of the mixtures were run in block 0 alone, and blocks differ in their classes."""
    rejected = []
    for seed in range(60):
        generator = stream(seed)
        fold = 0.5 * generator.normal(size=(2, 1, 1, 3))
        sharing, accuracy = fold + 0.2 * generator.normal(size=(2, 12, 2, 3))
        for table in (sharing, accuracy):
            table[:6, :, 1:] = np.nan
        found = across_mixtures(sharing, accuracy, n_permutations=199, seed=seed)
        whole = across_mixtures(sharing[..., :1], accuracy[..., :1], n_permutations=199, seed=seed)
        assert (found.value, found.p) == (whole.value, whole.p)
        rejected.append(found.p < 0.05)
    assert np.mean(rejected) <= 0.12
    apart = stream().normal(size=(8, 2, 2))
    apart[:4, :, 0] = apart[4:, :, 1] = np.nan
    with pytest.raises(SampleError, match="block in common"):
        across_mixtures(apart, apart)


def test_complete_blocks_are_the_best_of_all_choices() -> None:
    """Against every choice of mixtures and blocks that leaves no number out."""
    for seed in range(40):
        table = np.zeros((5, 2, 6))
        table[stream(seed).random(table.shape) < 0.3] = np.nan
        best = (0, 0)
        for of, among in product(
            product([False, True], repeat=5), product([False, True], repeat=6)
        ):
            left = table[list(of)][:, :, list(among)]
            if left.size and np.isfinite(left).all():
                mixtures, _, blocks = left.shape
                best = max(best, ((mixtures - 1) * (blocks - 1), mixtures * blocks))
        found = [each.sum() for each in complete_blocks([table, np.zeros_like(table)])]
        assert np.isfinite(table[np.ix_(*_places(table))]).all()
        assert best == (np.prod(np.subtract(found, 1)), np.prod(found))


def _places(table: np.ndarray) -> list[np.ndarray]:
    mixtures, blocks = complete_blocks([table])
    return [np.flatnonzero(mixtures), np.arange(table.shape[1]), np.flatnonzero(blocks)]


def test_a_run_without_a_number_costs_l2_one_block_and_not_its_mixture() -> None:
    """With three mixtures a block is the lesser loss; with three blocks a mixture is."""
    for world, without in (
        (World(mixtures=3, blocks=6), np.s_[:, :, 1:]),
        (World(mixtures=6, blocks=3), np.s_[1:]),
    ):
        drawn = world.panels(stream())
        tables = [drawn[name] for name in ("sharing", "accuracy")]
        whole = within_mixtures(*(each[without] for each in tables), n_permutations=99)
        tables[0][0, 1, 0] = np.nan
        found = within_mixtures(*tables, n_permutations=99)
        np.testing.assert_equal(asdict(found), asdict(whole))  # what is no number is equal, too
