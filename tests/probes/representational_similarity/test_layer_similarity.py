"""All pairs of layers at once: exact against float64 and plain calls, in sums that add up."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from interp.core.errors import DataError, NumericsError, SampleError, ShapeError
from interp.probes import MEASURES, Features, LayerSums, cka, layer_similarity, minibatch_cka
from interp.probes.representational_similarity.layer_similarity import (
    gram_hsic,
    gram_work,
    sums_work,
)
from tests.refusals import refuses


def layered(
    n: int = 300, width: int = 12, layers: int = 4, mean: float = 10.0, seed: int = 0
) -> dict[str, np.ndarray]:
    """Layers of decreasing likeness to a common signal, with a mean far above their spread."""
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=(n, width))
    values = {}
    for layer in range(layers):
        shared = 1 - layer / layers
        own = generator.normal(size=(n, width + layer))
        own[:, :width] = np.sqrt(shared) * signal + np.sqrt(1 - shared) * own[:, :width]
        values[f"layer{layer}"] = (own + mean * generator.choice([-1, 1], width + layer)).astype(
            "f4"
        )
    return values


def features(values: dict[str, np.ndarray]) -> Features:
    n = len(next(iter(values.values())))
    frame = pd.DataFrame({"label": ["cat"] * n, "domain": ["real"] * n})
    return Features(values, frame.assign(path=[f"{row}.png" for row in range(n)]))


def plain(first: dict[str, np.ndarray], second: dict[str, np.ndarray], measure=cka) -> np.ndarray:
    return np.array([[measure(first[s], second[t]) for t in second] for s in first])


def summed(values: dict[str, np.ndarray], *, rows: slice = slice(None), batch: int = 64):
    sums = LayerSums({name: matrix.shape[1] for name, matrix in values.items()})
    part = {name: matrix[rows] for name, matrix in values.items()}
    for start in range(0, len(next(iter(part.values()))), batch):
        sums.update({name: matrix[start : start + batch] for name, matrix in part.items()})
    return sums


def doubled(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: matrix.astype(float) for name, matrix in values.items()}


@pytest.mark.parametrize(("n", "width"), [(4, 9), (15, 200), (300, 12), (700, 40)])
@pytest.mark.parametrize("mean", [0.0, 10.0])
class TestBothFormsAreExact:
    def test_in_float32(self, n: int, width: int, mean: float) -> None:
        values = layered(n, width, mean=mean)
        expected = plain(doubled(values), doubled(values))
        hsic, _ = gram_hsic([torch.from_numpy(matrix) for matrix in values.values()])
        own = hsic.diagonal()
        np.testing.assert_allclose(hsic / np.sqrt(np.outer(own, own)), expected, atol=1e-6, rtol=0)
        # with many more features than rows the sums cancel: there the Gram form is the cheaper
        tolerance = 1e-6 if n > width else 2e-5
        np.testing.assert_allclose(summed(values).cka(), expected, atol=tolerance, rtol=0)

    def test_in_float64(self, n: int, width: int, mean: float) -> None:
        values = doubled(layered(n, width, mean=mean))
        expected = plain(values, values)
        np.testing.assert_allclose(summed(values).cka(), expected, atol=1e-12, rtol=0)
        hsic, _ = gram_hsic([torch.from_numpy(matrix) for matrix in values.values()])
        own = hsic.diagonal()
        np.testing.assert_allclose(hsic / np.sqrt(np.outer(own, own)), expected, atol=1e-12, rtol=0)


def test_a_mean_of_a_thousand_times_the_spread_costs_no_digit_of_float32() -> None:
    values = layered(300, 12, mean=1000.0)
    exact = plain(doubled(values), doubled(values))
    assert np.abs(layer_similarity(features(values)).to_numpy() - exact).max() < 1e-6


@pytest.mark.parametrize(("n", "width", "form"), [(40, 12, "grams"), (400, 6, "sums")])
def test_the_cheaper_form_is_taken_and_both_give_cka(n: int, width: int, form: str) -> None:
    values = layered(n, width)
    widths = [matrix.shape[1] for matrix in values.values()]
    assert (gram_work(n, widths, []) < sums_work(n, widths, [])) == (form == "grams")
    found = layer_similarity(features(values))
    assert found.index.tolist() == found.columns.tolist() == list(values)
    np.testing.assert_allclose(found, plain(values, values), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n", [40, 400])
def test_two_models_meet_layer_by_layer(n: int) -> None:
    first, second = layered(n), layered(n, width=7, layers=2, seed=1)
    second["layer0"] += first["layer0"][:, :7]
    found = layer_similarity(features(first), features(second))
    np.testing.assert_allclose(found, plain(first, second), atol=1e-6, rtol=0)
    assert found.shape == (4, 2) and found.loc["layer0", "layer0"] > 0.2


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sums_of_two_shards_are_those_of_one_pass(dtype: str) -> None:
    values = {name: matrix.astype(dtype) for name, matrix in layered(300).items()}
    for matrix in values.values():  # shards of unlike means
        matrix[:90] += 3
    whole = summed(values).cka()
    left, right = summed(values, rows=slice(90)), summed(values, rows=slice(90, None))
    left.add(right)
    tolerance = 1e-6 if dtype == "f4" else 1e-12
    np.testing.assert_allclose(left.cka(), whole, atol=tolerance, rtol=0)
    empty = summed(values, rows=slice(0))
    empty.add(right)
    np.testing.assert_allclose(empty.cka(), right.cka(), atol=1e-12, rtol=0)


def _share(rank: int, folder: str) -> None:
    """A process of two: its share of the pictures, then everybody's sums."""
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    sums = summed(layered(300), rows=slice(0, 90) if rank == 0 else slice(90, None))
    sums.all_reduce()
    np.save(f"{folder}/{rank}.npy", sums.cka())
    distributed.destroy_process_group()


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_give_one_process_numbers(tmp_path) -> None:
    spawn(_share, (str(tmp_path),), nprocs=2)
    one = summed(layered(300)).cka()
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), one, atol=1e-6, rtol=0)


def test_reading_the_sums_leaves_them_as_they_were() -> None:
    values = layered(200)
    sums = summed(values, rows=slice(100))
    sums.cka()
    sums.update({name: matrix[100:] for name, matrix in values.items()})
    np.testing.assert_allclose(sums.cka(), summed(values).cka(), atol=1e-6, rtol=0)


def test_memory_of_the_sums_does_not_grow_with_the_pictures(monkeypatch) -> None:
    monkeypatch.setattr("interp.probes.representational_similarity.layer_sums.ROWS", 200)
    sums = LayerSums({"layer0": 12, "layer1": 13})

    def held() -> tuple[int, int]:
        return sum(t.numel() for t in [*sums._tensors(), *sums.room]), sums.waiting

    sizes, waiting = set(), []
    for start in range(0, 2000, 64):
        sums.update({name: m[start : start + 64] for name, m in layered(2000, layers=2).items()})
        sizes.add(held()[0])
        waiting.append(held()[1])
    assert len(sizes) == 1
    assert max(waiting) == 192 and waiting[3] == 64  # they gather, and are added up


@pytest.mark.parametrize("sizes", [(10, 90, 100, 3, 97), (250, 50), (1,) * 300, (40, 200, 60)])
def test_batches_of_any_sizes_count_the_same(sizes: tuple[int, ...], monkeypatch) -> None:
    """They fill the room that waiting rows have, outgrow it, or no longer fit behind others."""
    monkeypatch.setattr("interp.probes.representational_similarity.layer_sums.ROWS", 100)
    values = doubled(layered(300))
    sums, start = LayerSums({name: matrix.shape[1] for name, matrix in values.items()}), 0
    for size in sizes:
        sums.update({name: matrix[start : start + size] for name, matrix in values.items()})
        start += size
    np.testing.assert_allclose(sums.cka(), plain(values, values), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [40, 400])
def test_layers_of_two_precisions_meet_in_the_finer(n: int) -> None:
    values = layered(n)
    mixed = {**values, "layer1": values["layer1"].astype(float)}
    found = layer_similarity(features(mixed))
    np.testing.assert_allclose(found, plain(doubled(values), doubled(values)), atol=1e-12, rtol=0)


def test_batches_may_change_their_precision() -> None:
    values = layered(300)
    sums = summed(values, rows=slice(130))
    sums.update({name: matrix[130:].astype(float) for name, matrix in values.items()})
    np.testing.assert_allclose(sums.cka(), plain(doubled(values), doubled(values)), atol=1e-6)


def test_features_that_carry_gradients_count_the_same() -> None:
    values = layered(100)
    sums = LayerSums({name: matrix.shape[1] for name, matrix in values.items()})
    sums.update({name: torch.tensor(matrix, requires_grad=True) for name, matrix in values.items()})
    np.testing.assert_array_equal(sums.cka(), summed(values, batch=100).cka())


def test_a_refused_batch_leaves_the_sums_as_they_were() -> None:
    values = doubled(layered(200))
    sums, wrong = summed(values, rows=slice(100)), {k: m[100:].copy() for k, m in values.items()}
    wrong["layer3"][7] = np.nan
    refuses(NumericsError, "layer3", sums.update, wrong)
    sums.update({name: matrix[100:] for name, matrix in values.items()})
    np.testing.assert_allclose(sums.cka(), plain(values, values), atol=1e-12, rtol=0)


def test_pictures_that_wait_are_not_those_of_a_buffer_filled_anew() -> None:
    values = doubled(layered(200))
    sums = LayerSums({name: matrix.shape[1] for name, matrix in values.items()})
    buffer = {name: np.empty((50, matrix.shape[1])) for name, matrix in values.items()}
    for start in range(0, 200, 50):
        for name, matrix in values.items():
            buffer[name][:] = matrix[start : start + 50]
        sums.update(buffer)
    np.testing.assert_allclose(sums.cka(), plain(values, values), atol=1e-12, rtol=0)


def test_minibatches_are_those_of_the_plain_estimator() -> None:
    values = layered(150)
    found = layer_similarity(features(values), measure="minibatch_cka", batch_size=32, seed=5)
    expected = plain(values, values, lambda x, y: minibatch_cka(x, y, batch_size=32, seed=5))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"cka", "minibatch_cka"}))
def test_every_other_measure_is_its_plain_estimate(name: str, capfd, monkeypatch) -> None:
    monkeypatch.setattr("interp.core.progress._quiet", False)
    first, second = layered(60, width=5, layers=2), layered(60, width=6, layers=2, seed=1)
    estimate = MEASURES[name].estimate
    alone = layer_similarity(features(first), measure=name)
    np.testing.assert_allclose(alone, plain(first, first, estimate), atol=1e-10)
    said = capfd.readouterr().err
    assert "about" in said and MEASURES[name].title in said  # the cost, beforehand
    both = layer_similarity(features(first), features(second), measure=name)
    np.testing.assert_allclose(both, plain(first, second, estimate), atol=1e-10)


class TestRefusals:
    def test_of_other_pictures(self) -> None:
        first, second = features(layered(20)), features(layered(20))
        second.frame["path"] = second.frame["path"][::-1].to_numpy()
        refuses(ShapeError, "the same pictures in the same order", layer_similarity, first, second)

    def test_of_unknown_measures(self) -> None:
        refuses(DataError, "mean cka", layer_similarity, features(layered(20)), measure="ckaa")

    @pytest.mark.parametrize("n", [20, 400])
    def test_of_constant_layers(self, n: int) -> None:
        values = layered(n)
        values["layer2"][:] = 7.3
        refuses(NumericsError, r"layer2.*constant features", layer_similarity, features(values))

    @pytest.mark.parametrize("measure", ["cka", "minibatch_cka", "rbf_cka"])
    def test_of_too_few_rows(self, measure: str) -> None:
        refuses(SampleError, "at least 4", layer_similarity, features(layered(3)), measure=measure)

    def test_of_values_out_of_range(self) -> None:
        values = layered(20)
        values["layer1"] *= np.float32(1e30)
        assert layer_similarity(features(values)).notna().all(axis=None)  # scaled first
        refuses(NumericsError, r"layer1.*too large", summed, values)
        with pytest.raises(NumericsError, match=r"layer1.*too large"):
            layer_similarity(features(values), measure="minibatch_cka")

    def test_of_batches_of_other_shapes(self) -> None:
        sums = LayerSums({"early": 3, "late": 2})
        refuses(ShapeError, "nothing", sums.update, {"early": np.zeros((5, 3))})
        with pytest.raises(ShapeError, match=r"late.*\(5, 3\)"):
            sums.update({"early": np.zeros((5, 3)), "late": np.zeros((5, 3))})
        with pytest.raises(ShapeError, match=r"\(4, 2\)"):
            sums.update({"early": np.zeros((5, 3)), "late": np.zeros((4, 2))})
        with pytest.raises(NumericsError, match="late"):
            sums.update({"early": np.zeros((5, 3)), "late": np.full((5, 2), np.nan)})
        refuses(SampleError, "at least 4", sums.cka)
