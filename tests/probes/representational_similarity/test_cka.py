"""Similarity estimators against independent loops, closed forms and the known noise floor."""

import numpy as np
import pytest

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.probes import biased_cka, cka, rbf_cka


def song(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased HSIC by its definition: averages over tuples of different rows, in plain loops."""
    n = len(k)
    two = [k[i, j] * m[i, j] for i in range(n) for j in range(n) if i != j]
    three, four = [], []
    for i in range(n):
        for j in range(n):
            for q in range(n):
                if len({i, j, q}) < 3:
                    continue
                three.append(k[i, j] * m[i, q])
                four += [k[i, j] * m[q, r] for r in range(n) if r not in (i, j, q)]
    return float(np.mean(two) + np.mean(four) - 2 * np.mean(three))


def by_loop(k: np.ndarray, m: np.ndarray) -> float:
    return song(k, m) / np.sqrt(song(k, k) * song(m, m))


def related(n: int, seed: int = 0, wide: int = 7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 4))
    y = x[:, :2] @ generator.normal(size=(2, wide)) + generator.normal(size=(n, wide))
    return x, y


@pytest.mark.parametrize("cosine", [0.3, 0.6, 0.9])
def test_codes_with_a_cosine_have_its_square_as_cka(cosine: float) -> None:
    """Why R2 goes by the squares of the other rungs' bars."""
    generator = np.random.default_rng(1)
    x, own = generator.normal(size=(2, 400, 30))
    y = cosine * x + np.sqrt(1 - cosine**2) * own
    assert cka(x, y) == pytest.approx(cosine**2, abs=0.04)


@pytest.mark.parametrize(("n", "wide"), [(4, 2), (8, 7), (9, 40)])
def test_debiased_cka_is_the_average_over_tuples_of_different_rows(n: int, wide: int) -> None:
    x, y = related(n, seed=n, wide=wide)
    assert cka(x, y) == pytest.approx(by_loop(x @ x.T, y @ y.T), abs=1e-10)


def test_gram_and_feature_forms_agree() -> None:
    x, y = related(40, wide=6)  # 4 x 6 features against 40 x 40 rows: the feature form
    padded = np.hstack([y, np.zeros((40, 4000))])  # the same geometry, by the Gram form
    assert cka(x, padded) == pytest.approx(cka(x, y), abs=1e-12)


def test_rbf_cka_is_the_average_over_tuples_with_median_kernels() -> None:
    x, y = related(8)

    def kernel(z: np.ndarray) -> np.ndarray:
        squared = ((z[:, None] - z[None]) ** 2).sum(axis=-1)
        sigma2 = np.median(squared[np.triu_indices(len(z), k=1)])
        return np.exp(-squared / (2 * sigma2))

    assert rbf_cka(x, y) == pytest.approx(by_loop(kernel(x), kernel(y)), abs=1e-10)


def test_biased_cka_is_the_normalised_overlap_of_centred_grams() -> None:
    x, y = related(12)
    h = np.eye(12) - 1 / 12
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert biased_cka(x, y) == pytest.approx(expected, abs=1e-12)


def test_noise_floor_at_15_classes_of_width_1024() -> None:
    generator = np.random.default_rng(1)
    noise = [generator.normal(size=(2, 15, 1024)) for _ in range(300)]
    debiased = np.array([cka(*pair) for pair in noise])
    biased = np.array([biased_cka(*pair) for pair in noise])
    assert abs(debiased.mean()) < 3 * debiased.std() / np.sqrt(300)
    assert 0.08 < debiased.std() < 0.13
    assert biased.mean() == pytest.approx(0.986, abs=0.002)


@pytest.mark.parametrize("measure", [cka, biased_cka, rbf_cka])
class TestEveryEstimator:
    def test_is_one_with_itself_and_symmetric(self, measure) -> None:
        x, y = related(20)
        assert measure(x, x) == pytest.approx(1.0, abs=1e-12)
        assert measure(x, y) == pytest.approx(measure(y, x), abs=1e-12)

    def test_ignores_rotation_scale_and_shift_but_not_other_maps(self, measure) -> None:
        x, y = related(20)
        turn = np.linalg.qr(np.random.default_rng(3).normal(size=(7, 7)))[0]
        assert measure(x, 5 * (y @ turn) - 2) == pytest.approx(measure(x, y), abs=1e-10)
        assert abs(measure(x, y * np.arange(1, 8)) - measure(x, y)) > 1e-3

    @pytest.mark.parametrize("mean", [10.0, 1e4])
    def test_survives_a_common_mean_far_above_the_spread(self, measure, mean: float) -> None:
        x, y = related(20)
        tolerance = 1e-9 if mean > 100 else 1e-12
        assert measure(x + mean, y - mean) == pytest.approx(measure(x, y), abs=tolerance)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_survives_extreme_scales(self, measure, scale: float) -> None:
        x, y = related(20)
        assert measure(scale * x, y) == pytest.approx(measure(x, y), abs=1e-10)

    def test_refuses_what_it_cannot_measure(self, measure) -> None:
        x, y = related(6)
        with pytest.raises(ShapeError, match="6 and 5 rows"):
            measure(x, y[:5])
        with pytest.raises(ShapeError, match="two axes"):
            measure(x[:, 0], y)
        with pytest.raises(SampleError, match="rows"):
            measure(x[:1], y[:1])
        with pytest.raises(NumericsError, match="constant features"):
            measure(x, np.full((6, 3), 0.1))
        y[4, 1] = np.nan
        with pytest.raises(NumericsError, match="row 4"):
            measure(x, y)


@pytest.mark.parametrize("measure", [cka, rbf_cka])
def test_debiased_estimators_need_four_rows(measure) -> None:
    x, y = related(3)
    with pytest.raises(SampleError, match="at least 4"):
        measure(x, y)


def test_float32_features_give_float64_results() -> None:
    x, y = (side.astype(np.float32) for side in related(20))
    assert cka(x, y) == pytest.approx(cka(x.astype(float), y.astype(float)), abs=1e-15)


def test_a_row_bootstrap_takes_duplicates_for_agreement() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 15, 64))
    draws = [generator.integers(15, size=15) for _ in range(200)]
    assert np.mean([cka(x[rows], y[rows]) for rows in draws]) > 0.4  # the truth is 0
