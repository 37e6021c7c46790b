"""Similarity estimators against independent loops, closed forms and the known noise floor."""

import numpy as np
import pytest

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


def test_float32_features_give_float64_results() -> None:
    x, y = (side.astype(np.float32) for side in related(20))
    assert cka(x, y) == pytest.approx(cka(x.astype(float), y.astype(float)), abs=1e-15)
