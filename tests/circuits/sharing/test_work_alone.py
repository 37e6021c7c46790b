"""What circuits do alone on other drawings, held against wrong targets; and steady parts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp.circuits import ClassCircuits, class_faithfulness, consistent_parts, inclusion
from interp.circuits.sharing.class_faithfulness import ABSENT, OTHERS
from interp.core.errors import SpecificationError
from interp.core.tables import EVIDENCE
from tests.circuits.planted_models import found, model
from tests.circuits.sharing.test_transfer_faithfulness import scrambled


def neurons() -> ClassCircuits:
    return found("all shared", "d_mlp", "A")


def test_circuits_of_classes_do_more_than_those_of_a_wrong_target() -> None:
    table = class_faithfulness(neurons(), shares=(0.05, 0.1), n_null=2)
    assert set(EVIDENCE) <= set(table.frame)
    for row in table.frame.itertuples():
        assert row.value > 0.95 and row.null < 0.6 and row.index > 0.9
        assert row.random < row.value and not row.reason and row.ceiling == 1


def test_a_circuit_for_a_wrong_target_is_called_a_bias() -> None:
    """The twin: circuits under other classes' names, and those of a readout for the class's own."""
    right = neurons()
    wrong = replace(right, values=tuple(_of_next_class(right, side) for side in (0, 1)))
    frame = class_faithfulness(wrong, shares=(0.05, 0.1)).frame
    assert frame["index"].isna().all() and frame["index_low"].isna().all()
    assert frame["reason"].str.contains("a bias, or what all classes have in common").all()
    assert right.readouts is not None
    seen = [
        each._replace(asked=half.pairs.clean.label.tolist(), values=values)
        for each, half, values in zip(right.readouts, right.halves, right.values, strict=True)
    ]
    absent = replace(right, readouts=(seen[0], seen[1]))
    told = class_faithfulness(absent, shares=(0.1,)).frame.iloc[0]
    assert told["null_kind"] == ABSENT and told["null"] == pytest.approx(told["value"])
    assert np.isnan(told["index"]) and told["reason"].startswith(ABSENT)


def _of_next_class(circuits: ClassCircuits, side: int) -> np.ndarray:
    """For each example the mean scores of the next class."""
    classes = circuits.classes
    means = circuits.scores.means(classes)[:, side]
    labels = circuits.halves[side].pairs.clean.label
    return np.stack([means[(classes.index(name) + 1) % len(classes)] for name in labels])


def test_a_row_is_what_a_plain_loop_gives() -> None:
    circuits, share = scrambled(neurons(), 1), 0.1
    row = class_faithfulness(circuits, shares=(share,), n_null=7).frame.iloc[0]
    kept = circuits.masks(share)
    sums: dict[str, list[tuple[float, ...]]] = {name: [] for name in circuits.classes}
    for side, read in enumerate(circuits.halves):
        for place, name in enumerate(read.pairs.clean.label):
            one, c = read[np.array([place])], circuits.classes.index(name)
            masks = [kept[c, 1 - side], *(kept[o, 1 - side] for o in range(8) if o != c)]
            values, ends = circuits.cut.run(one, np.stack(masks)[:, None])
            own, *others = values[:, 0] - ends[1, 0]
            sums[name].append((own, float(np.mean(others)), ends[0, 0] - ends[1, 0]))
    own, other, gap = np.mean([np.mean(each, axis=0) for each in sums.values()], axis=0)
    assert row["value"] == pytest.approx(own / gap, abs=1e-9)
    if row["null_kind"] == OTHERS:
        assert row["null"] == pytest.approx(other / gap, abs=1e-9)
    else:
        assert row["null"] > other / gap


def test_sizes_and_nulls_that_cannot_be_are_refused() -> None:
    for words in ({"shares": (1.0,)}, {"shares": ()}, {"n_null": 0}):
        with pytest.raises(SpecificationError, match="alone"):
            class_faithfulness(neurons(), **words)  # type: ignore[arg-type]


def test_signed_circuits_hold_only_what_raises_the_metric() -> None:
    circuits = scrambled(neurons(), 2)
    means = circuits.scores.means(circuits.classes)
    signed, plain = circuits.masks(0.2, signed=True), circuits.masks(0.2)
    assert (means[signed] > 0).all() and (means[plain] < 0).any()
    assert (signed.sum(axis=-1) <= plain.sum(axis=-1)).all()
    lowest = np.where(signed, means, np.inf)
    for group in np.unique(circuits.cut.groups):
        here = circuits.cut.groups == group
        left_out = np.where(signed, -np.inf, means)[..., here].max(axis=-1)
        full = signed[..., here].sum(axis=-1) == plain[..., here].sum(axis=-1)
        assert (lowest[..., here].min(axis=-1) >= left_out)[full].all()
        assert (left_out <= 0)[~full].all()  # fewer only where no other part raises it
    negative = replace(circuits, values=tuple(-np.abs(each) for each in circuits.values))
    assert not negative.masks(0.5, signed=True).any() and negative.masks(0.5).any()


def noisy(level: str, noise: float = 2.0) -> ClassCircuits:
    """The scores of each picture under noise, in units of their deviation."""
    generator, circuits = np.random.default_rng(5), found("all shared", level, "A")
    values = tuple(
        each + noise * generator.normal(size=each.shape) * each.std() for each in circuits.values
    )
    return replace(circuits, values=values)


@pytest.mark.parametrize("level", ["edge", "d_mlp"])
def test_true_parts_are_consistent_and_decoys_are_not(level: str) -> None:
    planted, _ = model("all shared")
    circuits = noisy(level, 0.5)
    truth: Any = planted.truth("A")
    if level == "edge":
        true = np.isin(circuits.cut.names, [f"{u}->{v}" for u, v in truth.edges | truth.cue])
    else:
        inside = {f"blocks.{layer}.mlp.hook_post.{unit}" for layer, unit in truth.neurons}
        true = np.isin(circuits.cut.names, list(inside))
    share = 0.2 if level == "edge" else 0.1
    chosen, plain = consistent_parts(circuits, share=share, bar=0.9), circuits.masks(share)
    assert (chosen & ~plain).sum() == 0  # what is nearly always in is in the circuit itself
    assert chosen[..., true].mean() > 2 * chosen[..., ~true].mean()
    assert chosen[..., ~true].mean() < 0.7 * plain[..., ~true].mean()
    precise = [each[..., true].sum() / each.sum() for each in (chosen, plain)]
    assert precise[0] > precise[1]
    rows = inclusion(circuits, share=share, n=50).frame
    assert roc_auc_score(true, rows["value"]) > 0.8


def test_noise_is_not_consistent_and_certainty_is() -> None:
    circuits = found("all shared", "d_mlp", "A")
    generator = np.random.default_rng(1)
    blind = tuple(generator.normal(size=each.shape) for each in circuits.values)
    assert consistent_parts(replace(circuits, values=blind), bar=0.95).mean() < 0.02
    sure = replace(circuits, values=tuple(_of_next_class(circuits, side) for side in (0, 1)))
    assert np.array_equal(consistent_parts(sure, bar=1.0, n=20), sure.masks(0.1))


def test_the_bar_and_the_seed_count() -> None:
    circuits = noisy("d_mlp")
    low, high = (consistent_parts(circuits, bar=bar) for bar in (0.5, 0.9))
    assert (high <= low).all() and high.sum() < low.sum()
    assert np.array_equal(low, consistent_parts(circuits, bar=0.5))
    assert not np.array_equal(low, consistent_parts(circuits, bar=0.5, seed=1))
    for words in ({"bar": 0.0}, {"bar": 1.5}, {"share": 0.0}, {"n": 0}):
        with pytest.raises(SpecificationError, match="draw circuits again"):
            consistent_parts(circuits, **words)  # type: ignore[arg-type]
