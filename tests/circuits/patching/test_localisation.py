"""Effects: by hand, by scipy, by simulation of true nulls, and on pictures from a table."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from interp.circuits import ABLATIONS, Chain, Classifier, ablate, effects, localise, other_class
from interp.circuits.patching.localise import class_mean, leave_out, max_t_p
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.core.statistics.resampling import sign_flip_p
from interp.core.tables import EVIDENCE, Table
from tests.circuits.conftest import CLASSES, Function
from tests.refusals import refuses


def raw(
    effect: np.ndarray,
    gap: np.ndarray,
    labels: list[str],
    null: np.ndarray | None = None,
    direction: str = "denoise",
) -> Table:
    """A sweep's table of one site, with the effects `[cell example]` and gaps `[example]` given."""
    cells, n = effect.shape
    base, donor = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    frame = pd.DataFrame(
        {
            "measure": f"activation patching, {direction}",
            "site": "blocks.0.hook_resid_pre",
            "layer": 0,
            "depth": 0.0,
            "pos": np.repeat(np.arange(cells), n),
            "example": np.tile(np.arange(n), cells),
            "value": 5 + effect.ravel(),
            f"{base}_metric": 5.0,
            f"{donor}_metric": 5 + np.tile(gap, cells),
            "clean_label": labels * cells,
            "corrupt_label": labels * cells,
            "pairing": "as given",
            "metric": "margin",
        }
    )
    if null is not None:
        frame = frame.assign(null=5 + null.ravel(), null_kind="strangers")
    return Table("sweep", frame)


def test_means_are_over_classes_and_the_index_by_hand() -> None:
    labels = ["ant", "ant", "ant", "bee", "cat", "dog"]
    effect = np.array([[1.0, 2.0, 3.0, 4.0, 4.0, 2.0]])  # class means 2, 4, 4, 2
    gap = np.array([4.0, 4.0, 4.0, 8.0, 8.0, 4.0])  # class means 4, 8, 8, 4
    row = effects(raw(effect, gap, labels)).frame.iloc[0]
    assert (row["value"], row["null"], row["ceiling"]) == (3.0, 0.0, 6.0)
    assert row["index"] == pytest.approx(0.5) and row["index_low"] == pytest.approx(0.5)
    assert (row["unit"], row["n_units"], row["n_pictures"]) == ("class", 4, 6)
    assert row["low"] <= 3.0 <= row["high"] and row["reason"] == ""
    assert row["null_kind"].startswith("no patch")
    null = np.full((1, 6), 1.0)
    floored = effects(raw(effect, gap, labels, null)).frame.iloc[0]
    assert floored["index"] == pytest.approx((3 - 1) / (6 - 1))
    assert floored["null_kind"] == "strangers"


def test_a_small_gap_has_no_index_but_a_raw_effect_and_a_reason() -> None:
    labels = list("abcdef")
    gap = np.array([1.0, -1.0, 2.0, -2.0, 0.5, 0.5])
    row = effects(raw(np.full((1, 6), 0.3), gap, labels)).frame.iloc[0]
    assert row["value"] == pytest.approx(0.3) and np.isnan(row["index"])
    assert "less than 3 of its standard errors" in row["reason"]
    harm = np.full((1, 6), -9.0)  # null donors that do harm make room, but no gap
    row = effects(raw(np.full((1, 6), 0.3), gap, labels, harm)).frame.iloc[0]
    assert np.isnan(row["index"]) and "the gap between the runs" in row["reason"]


def test_one_pair_is_reported_with_a_reason() -> None:
    row = effects(raw(np.ones((1, 1)), np.ones(1), ["ant"])).frame.iloc[0]
    assert row["value"] == 1.0 and "1 units" in row["reason"]
    assert np.isnan(row[["low", "high", "index", "p"]].astype(float)).all()


def test_a_falling_metric_and_noising_have_an_index_too() -> None:
    labels = list("abcde")
    for direction in ("denoise", "noise"):
        table = raw(np.full((1, 5), -1.0), np.full(5, -2.0), labels, direction=direction)
        row = effects(table).frame.iloc[0]
        assert (row["value"], row["ceiling"], row["index"]) == (-1.0, -2.0, 0.5)


def test_rows_may_come_in_any_order_but_not_with_gaps() -> None:
    generator = np.random.default_rng(0)
    table = raw(generator.normal(1, 0.1, (3, 8)), np.full(8, 2.0), list("aabbccdd"))
    shuffled = Table("sweep", table.frame.sample(frac=1, random_state=1))
    one, two = (effects(t).frame.sort_values("pos") for t in (table, shuffled))
    np.testing.assert_allclose(one["index"], two["index"])
    refuses(DataError, "different examples", effects, Table("sweep", table.frame.iloc[1:]))
    refuses(SampleError, "no rows", effects, Table("sweep", table.frame.iloc[:0]))


def test_max_t_is_the_sign_flip_test_for_one_cell() -> None:
    means = np.random.default_rng(1).normal(0.4, 1, (9, 1))
    assert max_t_p(means)[0] == pytest.approx(sign_flip_p(means[:, 0]), abs=1e-12)


@pytest.mark.parametrize("n_classes", [8, 20])
def test_max_t_keeps_its_level_over_cells(n_classes: int) -> None:
    """Of true nulls over 12 correlated cells, 5 % are rejected somewhere; of a real one, most."""
    generator = np.random.default_rng(2)
    hits = []
    for _ in range(200):
        common = generator.normal(size=(n_classes, 1))
        means = common + generator.normal(size=(n_classes, 12))
        hits.append(
            [
                max_t_p(means, n_resamples=499).min() <= 0.05,
                max_t_p(means + np.eye(12)[3] * 6, n_resamples=499)[3] <= 0.05,
            ]
        )
    false, true = np.mean(hits, axis=0)
    assert false < 0.10 and true > 0.9


def test_leaving_a_class_out_takes_it_from_every_role() -> None:
    labels, partners = np.array(list("abcd")), np.array(list("bcda"))
    values = np.array([1.0, 2.0, 4.0, 8.0])
    roles = np.stack([labels, partners], axis=1)
    assert leave_out(values, labels, roles).tolist() == [3.0, 6.0, 4.5, 1.5]
    assert class_mean(values, labels) == 3.75
    assert np.isnan(leave_out(values[:1], labels[:1], roles[:1])).all()


@pytest.fixture
def reader() -> Chain:
    """Position 1 holds the colours; block 0 reads the class code, block 1 rests."""

    def embed(colour: Tensor) -> Tensor:
        tokens = torch.zeros(len(colour), 2, 6, dtype=colour.dtype)
        tokens[:, 1, 5] = (colour[:, 0] + colour[:, 2]) / 40 - 1
        return tokens

    def read(stream: Tensor) -> Tensor:
        write = torch.zeros_like(stream)
        level = stream[:, 1, 5:]
        write[:, 0, :5] = torch.relu(1 - (level - torch.arange(5, dtype=stream.dtype)).abs())
        return write

    return Chain(
        [Function(read), Function(torch.zeros_like)],
        embed=Function(embed),
        pool=Function(lambda x: x[:, 0, :5]),
    )


@pytest.fixture
def head() -> Classifier:
    return Classifier(torch.eye(5).double(), CLASSES, scale=1.0)


def test_localise_finds_where_the_class_is(pictures, reader, head, colours) -> None:
    pairs = pictures.pairs(same=("style", "domain"), differ="label", n=20, seed=1)
    table = localise(reader, pairs, classifier=head, preprocess=colours)
    frame = table.frame
    assert frame["pairing"].unique().tolist() == ["same domain, other label; aligned"]
    assert frame["metric"].unique().tolist() == ["logit_difference"]
    assert set(frame["clean_domain"] == frame["corrupt_domain"]) == {True}
    found = effects(table).frame.set_index(["layer", "pos"])
    assert set(EVIDENCE) <= set(found.columns)
    index = dict(zip(found.index, found["index"].to_numpy().round(6), strict=True))
    assert index == {(0, 0): 0.0, (0, 1): 1.0, (1, 0): 1.0, (1, 1): 0.0}
    # a third class takes the corrupt class away, and brings nothing of the clean one: half the gap
    fed = found.iloc[1]
    np.testing.assert_allclose(fed["null"], fed["ceiling"] / 2)
    p = dict(zip(found.index, found["p"], strict=True))
    assert (p[0, 1], p[0, 0]) == (0.0625, 1.0)
    assert int(found["n_drawings"].to_numpy().max()) <= 20 and set(found["n_pictures"]) == {20}


def test_same_class_in_two_domains_has_no_gap_in_a_tower_that_reads_both(
    pictures: ImageTable, reader: Chain, head: Classifier, colours: Callable
) -> None:
    pairs = pictures.pairs(same=("drawing", "warp"), differ="domain", n=15)
    table = localise(reader, pairs, classifier=head, preprocess=colours)
    assert table.frame["pairing"].unique().tolist() == ["same label, other domain; aligned"]
    assert table.frame["metric"].unique().tolist() == ["margin"]
    found = effects(table).frame
    np.testing.assert_allclose(found["ceiling"], 0, atol=1e-12)
    assert bool(found["index"].isna().all()) and "" not in set(found["reason"])
    with pytest.raises(SpecificationError, match="share their class"):
        localise(reader, pairs, classifier=head, preprocess=colours, metric="logit_difference")


def test_null_donors_are_strangers_in_the_clean_domain(pictures: ImageTable) -> None:
    pairs = pictures.pairs(same="domain", differ="label", seed=3)
    rows, again = other_class(pairs, seed=5), other_class(pairs, seed=5)
    assert rows is not None and again is not None and rows.tolist() == again.tolist()
    strangers = pictures[rows]
    assert (strangers.domain.to_numpy() == pairs.clean.domain.to_numpy()).all()
    for side in (pairs.clean, pairs.corrupt):
        assert (strangers.label.to_numpy() != side.label.to_numpy()).all()
    two = pictures.select(label=["ant", "bee"]).pairs(same="domain", differ="label")
    assert other_class(two) is None


@pytest.mark.parametrize("kind", ABLATIONS)
def test_an_ablation_has_its_evidence(kind: str) -> None:
    """What is lost is the whole metric, in classes of which each has two inputs of one value."""
    x = torch.tensor([4.0, 4.0, 5.0, 5.0, 6.0, 6.0, 7.0, 7.0])[:, None, None]
    labels = list("aabbccdd")
    donors = torch.zeros_like(x) if kind == "resample" else None
    table = ablate(
        Chain([torch.nn.Identity()]),
        x,
        metric=lambda out: out[:, 0],
        kind=kind,
        sites="hook_embed",
        labels=labels,
        donors=donors,
    )
    row = effects(table).frame.iloc[0]
    assert row["unit"] == "class" and row["n_units"] == 4
    if kind in ("resample", "zero"):
        assert row["value"] == pytest.approx(-2 * 5.5)
    if kind == "resample":
        assert row["ceiling"] == row["value"] and row["index"] == 1
    else:
        assert np.isnan(row["index"]) and "constant" in row["reason"]
