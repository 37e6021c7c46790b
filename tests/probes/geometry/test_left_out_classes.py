"""Sums without each class equal those of tables from which the class was cut."""

import numpy as np
import pytest

from interp.probes.geometry.cell_products import (
    CellLayout,
    CellProducts,
    u_squares,
    without_each,
    without_each_meeting,
    without_each_own,
)
from interp.probes.representational_similarity.cka import u_centred

CLASSES, DOMAINS = 7, 3


def centred(table: np.ndarray) -> np.ndarray:
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    return table - rows - columns + table.mean()


def subsets() -> list[np.ndarray]:
    return [np.arange(CLASSES), *(np.delete(np.arange(CLASSES), c) for c in range(CLASSES))]


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, CellLayout]:
    """Cells of unequal sizes, in a far-off place."""
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 6, size=2 * CLASSES * DOMAINS)
    cell = np.repeat(np.arange(len(counts)), counts)
    label = cell // DOMAINS % CLASSES
    means = generator.normal(size=(len(counts), 11))
    x = means[cell] + generator.normal(size=(len(cell), 11)) + 5
    order = generator.permutation(len(cell))
    return x[order], CellLayout(np.arange(len(cell)), cell[order], label[order], (CLASSES, DOMAINS))


def naive(products: CellProducts, keep: np.ndarray) -> dict[str, list[float]]:
    """Everything of some classes, from a table that holds no others."""
    gram, n = products.gram[keep][:, :, keep], len(keep)
    everything = gram.mean()
    by_class = np.einsum("cdce->c", gram).mean() / DOMAINS**2
    by_domain = np.einsum("cdkd->d", gram).mean() / n**2
    by_cell = np.einsum("cdcd->", gram) / (n * DOMAINS)
    total = products.square[keep].mean() - everything
    within = np.einsum("cdkd->dck", gram)
    classes = gram.mean(axis=(1, 3))
    meet = centred(gram.mean(axis=(1, 2))) * centred(gram.mean(axis=(0, 3)).T)
    held = np.isin(products.label, keep)
    along = np.stack([products.residual[held] @ half[keep].T for half in products.means])
    along = along - along.mean(axis=2, keepdims=True)
    square = (u_centred(classes) * u_centred(classes.T)).sum() / (n * (n - 3))
    spread = products.spread[held].sum() * (n - 1)
    effect = np.trace(classes) - classes.mean() * n
    sums = [meet.sum() / DOMAINS, (along[0] * along[1]).sum(), spread, effect]
    domains = centred(gram.mean(axis=(0, 2)))
    sizes = [np.trace(domains), (domains * domains.T).sum() / (DOMAINS - 1)]
    return {
        "effects": [by_class - everything, by_domain - everything,
                    by_cell - by_class - by_domain + everything, total],
        "own": list(np.einsum("dcc->d", within) / n - within.mean(axis=(1, 2))),
        "angle": [*(each / (n - 1) for each in sums), square],
        "domain_sizes": [each / (DOMAINS - 1) for each in sizes],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["effects", "own", "angle", "domain_sizes"])
def test_products_without_a_class_are_those_of_the_others(made, name) -> None:
    products = CellProducts.of(*made)
    loops = np.array([naive(products, keep)[name] for keep in subsets()])
    assert np.ptp(loops, axis=0).min() > 0  # every class matters
    np.testing.assert_allclose(getattr(products, name)(), loops, rtol=1e-9, atol=1e-10)


def test_products_are_of_the_means_of_cells(made) -> None:
    x, layout = made
    moved = x - x.mean(axis=0)
    means = [moved[layout.cell == cell].mean(axis=0) for cell in range(2 * CLASSES * DOMAINS)]
    first, second = np.split(np.stack(means), 2)
    shape = (CLASSES, DOMAINS, CLASSES, DOMAINS)
    gram = CellProducts.of(*made).gram
    np.testing.assert_allclose(gram, (first @ second.T).reshape(shape), rtol=1e-9, atol=1e-10)


def test_pictures_are_counted_alike_by_products_and_by_scatters(made) -> None:
    """tr W^2 of few features goes another way than that of many."""
    x, layout = made
    few, many = (CellProducts.of(part, layout) for part in (x[:, :3], np.tile(x, 12)))
    for products in (few, many):
        first, second = (products.residual[layout.half == half] for half in (0, 1))
        wide = min(len(first), len(second)) <= first.shape[1]
        assert wide == (products is many)
        loop = sum((a @ b) ** 2 for a in first for b in second) / (CLASSES * DOMAINS) ** 2
        assert products.sizes_within()[1] == pytest.approx(loop, rel=1e-9)


def test_random_angles_are_those_of_all_directions_at_once(made) -> None:
    from interp.core.seeds import rng

    products = CellProducts.of(*made)
    weights = rng("directions within cells", 3).normal(size=(5, 2, len(products.spread)))
    along = np.stack([products.residual @ half.T for half in products.means])
    along = weights @ (along - along.mean(axis=2, keepdims=True))[:, None]
    length = ((weights @ products.residual) ** 2).sum(axis=(1, 2))
    expected = (along[0] * along[1]).sum(axis=(1, 2)) / (CLASSES - 1) / length
    np.testing.assert_allclose(products.random_angles(5, 3, 3), expected, rtol=1e-9)


def test_tables_without_a_class_are_summed_as_if_it_were_cut() -> None:
    generator = np.random.default_rng(2)
    table = generator.normal(size=(6, 6))
    gram = generator.normal(size=(6, 2, 6, 2))
    for place, keep in enumerate([np.arange(6), *(np.delete(np.arange(6), c) for c in range(6))]):
        part = table[np.ix_(keep, keep)]
        assert without_each(table)[place] == pytest.approx(part.sum())
        assert without_each_own(table)[place] == pytest.approx(np.trace(part))
        centred_both = u_centred(part) * u_centred(part.T)
        assert u_squares(table)[place] == pytest.approx(centred_both.sum())
        some = gram[keep][:, :, keep]
        met = centred(some.mean(axis=(1, 2))) * centred(some.mean(axis=(0, 3)).T)
        assert without_each_meeting(gram)[place] == pytest.approx(met.sum())
