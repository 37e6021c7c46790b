"""Every similarity measure against an independent computation, and all through one contract."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import procrustes as scipy_procrustes
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from interp.core.errors import DataError, NumericsError, SampleError, ShapeError, SpecificationError
from interp.probes import (
    MEASURES,
    SimilarityMeasure,
    cross_validated_cka,
    minibatch_cka,
    mutual_knn,
    predictivity,
    procrustes,
    pwcca,
    rsa,
    svcca,
)
from interp.probes.features.features import centred_rows
from interp.probes.representational_similarity.linear_agreement import STRENGTHS, _folds
from interp.probes.representational_similarity.measures import find_measure
from tests.probes.representational_similarity.test_cka import related, song
from tests.refusals import refuses

every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def turned(x: np.ndarray, seed: int = 3) -> np.ndarray:
    width = x.shape[1]
    return x @ np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


class TestAgainstAnotherComputation:
    def test_minibatch_cka_is_the_ratio_of_the_batches_mean_hsics(self) -> None:
        from interp.core.seeds import rng

        x, y = related(19)
        order = rng("minibatches", 4).permutation(19)
        batches = np.array_split(order, 3)

        def mean(a: np.ndarray, b: np.ndarray) -> float:
            parts = [song(a[rows] @ a[rows].T, b[rows] @ b[rows].T) for rows in batches]
            return float(np.average(parts, weights=[len(rows) for rows in batches]))

        expected = mean(x, y) / np.sqrt(mean(x, x) * mean(y, y))
        assert minibatch_cka(x, y, batch_size=8, seed=4) == pytest.approx(expected, abs=1e-10)

    @pytest.mark.parametrize("distance", ["correlation", "cosine", "euclidean"])
    def test_rsa_is_scipys_spearman_of_plain_dissimilarities(self, distance: str) -> None:
        x, y = related(9)

        def apart(z: np.ndarray) -> list[float]:
            z = z - z.mean(axis=0)
            ways = {
                "correlation": lambda a, b: 1 - np.corrcoef(a, b)[0, 1],
                "cosine": lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)),
                "euclidean": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
            }
            return [ways[distance](z[i], z[j]) for i in range(9) for j in range(i)]

        expected = stats.spearmanr(apart(x), apart(y)).statistic
        assert rsa(x, y, distance=distance) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("n", [30, 5])  # more rows than features, and fewer
    def test_procrustes_is_scipys_with_its_best_scale_undone(self, n: int) -> None:
        x, y = related(n, wide=7)
        padded = np.hstack([x, np.zeros((n, 3))])
        disparity = scipy_procrustes(padded, y)[2]  # 1 - |X'Y|_*^2, the scale of y being free
        assert procrustes(x, y) == pytest.approx(np.sqrt(1 - disparity), abs=1e-10)

    def test_svcca_is_the_mean_of_scikit_learns_canonical_correlations(self) -> None:
        x, y = related(80, wide=3)
        scores = CCA(3, scale=False, max_iter=20000, tol=1e-12).fit(x, y).transform(x, y)
        expected = np.mean([np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1] for i in range(3)])
        assert svcca(x, y, variance=1.0) == pytest.approx(expected, abs=1e-6)

    def test_svcca_drops_components_of_little_variance(self) -> None:
        x, y = related(80, wide=3)
        generator = np.random.default_rng(5)
        noisy = np.hstack([x, 1e-3 * generator.normal(size=(80, 20))])
        assert svcca(noisy, y) == pytest.approx(svcca(x, y), abs=1e-4)
        assert svcca(noisy, y, variance=1.0) > svcca(x, y) + 0.05

    def test_pwcca_weighs_eigenvalue_solutions_by_the_features_they_hold(self) -> None:
        x, y = (side - side.mean(axis=0) for side in related(60, wide=6))
        a, b, c = x.T @ x, y.T @ y, x.T @ y
        # canonical directions of x: A^-1 C B^-1 C' w = rho^2 w
        squares, w = np.linalg.eig(np.linalg.solve(a, c) @ np.linalg.solve(b, c.T))
        h = x @ np.real(w)
        h = h / np.linalg.norm(h, axis=0)
        weights = np.abs(h.T @ x).sum(axis=1)
        expected = weights @ np.sqrt(np.real(squares)) / weights.sum()
        assert pwcca(x, y) == pytest.approx(expected, abs=1e-10)

    def test_mutual_knn_counts_scikit_learns_common_neighbours(self) -> None:
        x, y = (side - side.mean(axis=0) for side in related(30))
        near = [
            NearestNeighbors(n_neighbors=4, metric="cosine").fit(side).kneighbors()[1]
            for side in (x, y)
        ]
        expected = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(*near, strict=True)])
        assert mutual_knn(x, y, k=4) == pytest.approx(expected)

    def test_predictivity_is_that_of_ridge_fitted_row_by_row(self) -> None:
        x, y = (centred_rows(side, "test") for side in related(24, wide=3))
        fold = _folds(24, None, 3, seed=2)
        missed = spread = 0.0
        for each in range(3):
            a, b = x[fold != each], y[fold != each]
            centre, level = a.mean(axis=0), b.mean(axis=0)
            a, b = a - centre, b - level

            def loss(alpha: float, a: np.ndarray = a, b: np.ndarray = b) -> float:
                rows = range(len(a))
                model = Ridge(alpha=alpha, fit_intercept=False)
                return sum(
                    ((b[i] - model.fit(np.delete(a, i, 0), np.delete(b, i, 0)).predict(a[[i]])[0])
                     ** 2).sum() for i in rows
                )  # fmt: skip

            alpha = min((a**2).sum() * np.array(STRENGTHS), key=loss)
            weights = np.linalg.solve(a.T @ a + alpha * np.eye(4), a.T @ b)
            told = level + (x[fold == each] - centre) @ weights
            missed += ((y[fold == each] - told) ** 2).sum()
            spread += ((y[fold == each] - level) ** 2).sum()
        found = predictivity(x, y, folds=3, seed=2)
        assert found == pytest.approx(1 - missed / spread, abs=1e-10)
        assert 0.1 < found < 0.9

    def test_predictivity_keeps_groups_together(self) -> None:
        """Copies of a row on both sides of a fold let a map be learnt by heart."""
        generator = np.random.default_rng(0)
        x, y = (np.repeat(generator.normal(size=(12, 20)), 4, axis=0) for _ in range(2))
        x, y = (side + 0.1 * generator.normal(size=side.shape) for side in (x, y))
        who = np.repeat(np.arange(12), 4)
        assert predictivity(x, y) > 0.9
        assert predictivity(x, y, groups=who) < 0.1

    def test_cross_validated_cka_by_tuples(self) -> None:
        x, y = related(8)
        generator = np.random.default_rng(1)
        two = [
            x + 0.1 * generator.normal(size=(2, *x.shape)),
            y + generator.normal(size=(2, *y.shape)),
        ]
        k = [[half @ half.T for half in side] for side in two]
        expected = song(k[0][0], k[1][0]) / np.sqrt(song(*k[0]) * song(*k[1]))
        assert cross_validated_cka(*two) == pytest.approx(expected, abs=1e-10)
        assert cross_validated_cka(two[0] + 1e3, 5 * two[1]) == pytest.approx(expected, abs=1e-8)

    def test_halves_that_disagree_have_no_cross_validated_cka(self) -> None:
        x = np.random.default_rng(0).normal(size=(2, 8, 3))
        x[1] = np.array([[0, 0, 0]] * 7 + [[1, 1, 1]])
        for seed in range(20):
            x[0] = np.random.default_rng(seed).normal(size=(8, 3))
            try:
                cross_validated_cka(x, x)
            except NumericsError as error:
                assert "do not agree" in str(error)
                return
        pytest.fail("no pair of unrelated halves gave a negative HSIC")


@every_measure
class TestContract:
    """What every measure promises, by its entry in the list."""

    def sides(self, measure: SimilarityMeasure) -> tuple[np.ndarray, np.ndarray]:
        return related(40)

    def test_is_one_with_itself(self, measure: SimilarityMeasure) -> None:
        x, _ = self.sides(measure)
        assert measure.estimate(x, x) == pytest.approx(1.0, abs=1e-4)

    def test_symmetry_is_as_declared(self, measure: SimilarityMeasure) -> None:
        x, y = self.sides(measure)
        there, back = measure.estimate(x, y), measure.estimate(y, x)
        assert (abs(there - back) < 1e-10) == measure.symmetric

    def test_ignores_scale_and_shift(self, measure: SimilarityMeasure) -> None:
        x, y = self.sides(measure)
        plain = measure.estimate(x, y)
        assert measure.estimate(x * 1e-12 + 1e-9, 1e12 * y) == pytest.approx(plain, abs=1e-9)
        assert measure.estimate(x + 1e4, y - 10) == pytest.approx(plain, abs=1e-8)

    def test_rotation_is_as_declared(self, measure: SimilarityMeasure) -> None:
        x, y = self.sides(measure)
        plain = measure.estimate(x, y)
        moved = max(
            abs(measure.estimate(x, turned(y)) - plain), abs(measure.estimate(turned(x), y) - plain)
        )
        assert (moved < 1e-9) == measure.rotation

    def test_order_of_the_rows_is_as_declared(self, measure: SimilarityMeasure) -> None:
        x, y = related(300)  # more than one batch
        order = np.random.default_rng(0).permutation(300)
        moved = abs(measure.estimate(x[order], y[order]) - measure.estimate(x, y))
        assert (moved < 1e-10) == measure.any_order

    def test_floor_on_noise_is_as_declared(self, measure: SimilarityMeasure) -> None:
        generator = np.random.default_rng(1)
        noise = [measure.estimate(*generator.normal(size=(2, 40, 8))) for _ in range(60)]
        low = np.mean(noise) < 3 * np.std(noise) / np.sqrt(60)
        assert low == measure.zero
        assert np.mean(noise) > -0.2  # an R^2 may fall a little below 0

    def test_finds_a_relation(self, measure: SimilarityMeasure) -> None:
        x, _ = self.sides(measure)
        generator = np.random.default_rng(2)
        y = turned(x) + 0.1 * generator.normal(size=x.shape)
        noise = [measure.estimate(*generator.normal(size=(2, 40, 4))) for _ in range(40)]
        if measure.rotation:
            assert measure.estimate(x, y) > max(noise)
        assert measure.estimate(x, x + 0.1 * generator.normal(size=x.shape)) > max(noise)

    def test_matrices_give_the_measure_as_an_inner_product(self, measure) -> None:
        if measure.matrix is None:
            return
        x, y = self.sides(measure)
        a, b = (measure.matrix(centred_rows(side, "test")) for side in (x, y))
        assert np.linalg.norm(a) == pytest.approx(1)
        assert (a * b).sum() == pytest.approx(measure.estimate(x, y), abs=1e-12)

    def test_has_a_matrix_or_takes_many_orders_at_once(self, measure: SimilarityMeasure) -> None:
        assert (measure.matrix is None) != (measure.in_orders is None)
        if measure.in_orders is None:
            return
        x, y = (centred_rows(side, "test") for side in self.sides(measure))
        generator = np.random.default_rng(0)
        orders = np.stack([np.arange(40), *(generator.permutation(40) for _ in range(4))])
        deal = np.zeros(40, dtype=int) if measure.deal is None else measure.deal(np.arange(40))
        found = measure.in_orders(x, y, orders, deal)
        expected = [measure.estimate(x, y[order]) for order in orders]
        np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_refuses_what_it_cannot_measure(self, measure: SimilarityMeasure) -> None:
        x, y = self.sides(measure)
        least = measure.least
        refuses(ShapeError, "40 and 39 rows", measure.estimate, x, y[:39])
        refuses(ShapeError, "two axes", measure.estimate, x[:, 0], y)
        refuses(SampleError, f"at least {least}", measure.estimate, x[: least - 1], y[: least - 1])
        refuses(NumericsError, "constant features", measure.estimate, x, np.full((40, 3), 0.1))
        y[4, 1] = np.nan
        refuses(NumericsError, "row 4", measure.estimate, x, y)


@pytest.mark.parametrize("measure", [svcca, pwcca])
def test_canonical_correlations_need_more_rows_than_dimensions(measure) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 15, 8))
    refuses(SampleError, r"more than 1[56] rows", measure, x, y)


def test_other_refusals_say_what_would_do() -> None:
    x, y = related(12)
    refuses(SpecificationError, "variance=0", svcca, x, y, variance=0)
    refuses(DataError, "Did you mean cosine", rsa, x, y, distance="cosin")
    with pytest.raises(NumericsError, match="row 3"):
        flat = x - x.mean(axis=0)
        flat[3] = 0
        flat[0] -= flat.sum(axis=0)
        mutual_knn(flat, y, k=3)
    refuses(NumericsError, "in every feature", rsa, x[:, :1], y)
    refuses(SampleError, "batches of 3", minibatch_cka, x, y, batch_size=3)
    refuses(SampleError, "2 groups", predictivity, x, y, groups=[0, 1] * 6)
    refuses(DataError, "mean rsa", find_measure, "rsaa", "compare")
    refuses(ShapeError, "3 halves", cross_validated_cka, np.zeros((3, 8, 2)), np.zeros((2, 8, 2)))
