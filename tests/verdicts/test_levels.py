"""L1, L2 and L3: estimates computed a second way, true nulls kept, links found, refusals."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.verdicts.l1_mixtures import across_mixtures, rank_link
from interp.verdicts.l2_runs import within_mixtures
from interp.verdicts.l3_classes import among_classes, clustered, take_out
from interp.verdicts.reliability import gain, of_cells, of_halves
from tests.verdicts.made_studies import ClassWorld, World


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def dummies(*codes: np.ndarray) -> np.ndarray:
    """A column per class of every code."""
    return np.column_stack([np.eye(int(code.max()) + 1)[code] for code in codes])


def residual(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]


def test_l1_is_spearman_of_centred_cell_means() -> None:
    drawn = World(l1=0.6).panels(stream())
    x, y = (drawn[name].mean(axis=2) for name in ("sharing", "accuracy"))
    flat = [(each - each.mean(axis=0)).ravel() for each in (x, y)]
    found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=99)
    assert found.value == pytest.approx(stats.spearmanr(*flat).statistic)


def test_l1_moves_whole_mixtures() -> None:
    """All 120 orders of five mixtures, against the drawn ones."""
    drawn = World(mixtures=5, l1=0.8, noise=0.2).panels(stream(4))
    x, y = (drawn[name].mean(axis=2) for name in ("sharing", "accuracy"))
    every = [abs(float(rank_link(x[list(order)], y))) for order in permutations(range(5))]
    exact = np.mean(np.array(every) >= every[0] - 1e-9)
    found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=20_000)
    assert found.p == pytest.approx(exact, abs=0.012)


def test_l1_given_a_number_is_a_partial_rank_correlation() -> None:
    drawn = [World().panels(stream(seed))["sharing"] for seed in (1, 2, 3)]
    x, y, z = drawn[0] + 2 * drawn[2], drawn[1] + 2 * drawn[2], drawn[2]
    ranks = []
    for each in (x, y, z):
        cells = each.mean(axis=2)
        ranks.append(stats.rankdata((cells - cells.mean(axis=0)).ravel()))
    constant = np.column_stack([np.ones(20), ranks[2]])
    naive = stats.pearsonr(residual(ranks[0], constant), residual(ranks[1], constant)).statistic
    found = across_mixtures(x, y, given=z, n_permutations=99)
    assert found.value == pytest.approx(naive)
    assert across_mixtures(x, y, n_permutations=99).value > found.value + 0.2


def test_l2_is_the_slope_of_a_regression_on_dummies_divided_by_reliability() -> None:
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
    assert found.slope == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0] / known)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1] / np.sqrt(known))


def test_l2_leaves_out_one_block_at_a_time() -> None:
    """The closed form of sums without a block, against whole tables without it."""
    drawn = World(blocks=5, l2=0.5).panels(stream())
    x, y = drawn["sharing"], drawn["accuracy"]
    left = []
    for out in range(5):
        rows = []
        for each in (x, y):
            rest = np.delete(each, out, axis=2)
            own = rest - rest.mean(axis=2, keepdims=True) - rest.mean(axis=0, keepdims=True)
            rows.append((own + rest.mean(axis=(0, 2), keepdims=True)).ravel())
        left.append(np.arctanh(np.corrcoef(*rows)[0, 1]))
    found = within_mixtures(x, y, halves=(x, x))
    error = np.sqrt(4 / 5 * ((np.array(left) - np.mean(left)) ** 2).sum())
    half = stats.t.ppf(0.975, 4) * error
    assert np.arctanh(found.high) - np.arctanh(found.value) == pytest.approx(half)


def test_l2_noise_is_known_from_intervals_where_there_are_no_halves() -> None:
    world = World(blocks=40, drawings=0.6)
    drawn = world.panels(stream())
    square = np.full(drawn["sharing"].shape, 0.6**2 / 2)
    both = [
        within_mixtures(drawn["sharing"], drawn["accuracy"], **known)
        for known in (
            {"halves": (drawn["half_1"], drawn["half_2"])},
            {"sharing_error": square},
        )
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
    assert found.slope == pytest.approx(weights[0] / found.reliability)
    naive = np.corrcoef(x, residual(y, design[:, 1:]))[0, 1]
    assert found.value == pytest.approx(naive / np.sqrt(found.reliability))


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
    [
        ("L1", World(mixtures=12, l1=0.9), 0.8),
        ("L2", World(blocks=6, l2=0.5), 0.8),
    ],
)
def test_links_are_found_and_covered(level: str, world: World, least: float) -> None:
    decided, covered, n = 0, 0, 100
    for seed in range(n):
        drawn = world.panels(stream(seed))
        if level == "L1":
            found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=99)
            true = 6 / np.pi * np.arcsin(world.l1 / 2) * 0.93  # less the noise of cell means
        else:
            halves = (drawn["half_1"], drawn["half_2"])
            found = within_mixtures(drawn["sharing"], drawn["accuracy"], halves=halves)
            true = world.l2
        decided += found.low > 0
        covered += found.low <= true <= found.high
    assert decided / n >= least
    assert covered >= stats.binom.ppf(0.001, n, 0.93)


@pytest.mark.long
@pytest.mark.slow
def test_rates_power_and_coverage_over_many_studies() -> None:
    n = 2000
    p, covered, two = [], [], []
    for seed in range(n):
        drawn = World(mixtures=10, blocks=3).panels(stream(seed))
        found = across_mixtures(drawn["sharing"], drawn["accuracy"], n_permutations=399)
        p.append(found.p)
        covered.append(found.low <= 0 <= found.high)
        six = World(mixtures=4, blocks=6).panels(stream(seed))
        two.append(within_mixtures(six["sharing"], six["accuracy"], n_permutations=719).p)
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) < 0.015
    assert abs(np.mean(np.array(two) <= 0.05) - 0.05) < 0.015
    assert 0.93 < np.mean(covered) < 0.99


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
    with pytest.raises(SampleError, match="2 classes"):
        among_classes(np.arange(10.0), np.arange(10.0), label=code, run=np.tile(range(5), 2))
    with pytest.raises(NumericsError, match="accuracy"):
        among_classes([1.0, 2.0], [1.0, np.nan], label=[0, 1], run=[0, 1])
    label, run = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    with pytest.raises(SampleError, match="sharing that does not vary"):
        among_classes(label + run, stream().normal(size=20), label=label, run=run)
    with pytest.raises(ShapeError, match="one length"):
        among_classes([1.0, 2.0], [1.0], label=[0, 1], run=[0, 1])
