"""A row of evidence holds its type's columns, and judges as its parts do."""

import numpy as np
import pytest

from interp.core.statistics.evidence_rows import Evidence, evidence, leaving_out
from interp.core.statistics.index_of_sharing import UNKNOWN, sharing_index
from interp.core.statistics.resampling import Interval, jackknife
from interp.core.tables import COLUMNS, EVIDENCE

ABOUT = Evidence(
    estimand="this model", null_kind="chance", ceiling_kind="halves", seed=3, n_units=6,
    n_pictures=12, n_drawings=9,
)  # fmt: skip


def terms(n: int = 6) -> np.ndarray:
    """Value, null and ceiling of n classes, then with each left out."""
    generator = np.random.default_rng(0)
    return leaving_out([0.7, 0.1, 0.9] + 0.01 * generator.normal(size=(n, 3)))


def test_a_row_has_every_column_of_evidence_and_no_undeclared_one() -> None:
    for row in (ABOUT.row(Interval(1.0, 0.1, 0.8, 1.2), null=0.0), ABOUT.with_verdict(terms())):
        assert set(EVIDENCE) <= set(row) <= set(COLUMNS)
        assert (row["unit"], row["n_runs"], row["seed"], row["n_drawings"]) == ("class", 1, 3, 9)


def test_a_judged_row_is_that_of_jackknife_and_index() -> None:
    whole, left = terms()[0], terms()[1:]
    row = ABOUT.with_verdict(
        terms(), p=0.01, notes=["", "one class left out", "one class left out"]
    )
    spread, index = jackknife(whole[0], left[:, 0]), sharing_index(*whole, left_out=left)
    assert (row["value"], row["low"], row["high"]) == (spread.value, spread.low, spread.high)
    assert (row["index"], row["index_low"], row["verdict"]) == (
        index.value,
        index.low,
        index.verdict,
    )
    assert (row["null"], row["ceiling"], row["p"]) == (whole[1], whole[2], 0.01)
    assert row["reason"] == "one class left out"


def test_what_is_refused_has_no_index_but_a_reason() -> None:
    row = ABOUT.with_verdict(terms(), refused="constant features", notes=["two classes left out"])
    assert np.isnan([row["index"], row["index_low"], row["index_high"]]).all()
    assert row["verdict"] == UNKNOWN and np.isfinite(row["value"])
    assert row["reason"] == "constant features; two classes left out"


def test_another_index_may_be_given() -> None:
    index = sharing_index(0.1, 0.0, 1.0, left_out=[[0.1, 0.0, 1.0]] * 5)
    row = ABOUT.with_verdict(terms(), index=index)
    assert row["index"] == 0.1 and row["verdict"] == "not shared"


def test_one_row_alone_is_that_of_the_type() -> None:
    found = Interval(1.0, 0.1, 0.8, 1.2)
    common = {name: getattr(ABOUT, name) for name in ABOUT.__dataclass_fields__}
    alone = evidence(found, null=0.5, ceiling=2.0, index=0.25, p=0.1, reason="few", **common)
    assert alone == ABOUT.row(found, null=0.5, ceiling=2.0, index=0.25, p=0.1, reason="few")


@pytest.mark.parametrize("shape", [(5,), (5, 3), (1, 2)])
def test_leaving_out_is_a_loop_over_units(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    loop = [values.mean(axis=0)]
    loop += [
        np.delete(values, n, axis=0).sum(axis=0) / max(shape[0] - 1, 1) for n in range(shape[0])
    ]
    np.testing.assert_allclose(leaving_out(values), loop, atol=1e-12)


def test_nothing_to_leave_out_is_no_number() -> None:
    assert np.isnan(leaving_out(np.empty((0, 3)))).all() and leaving_out([]).shape == (1,)
