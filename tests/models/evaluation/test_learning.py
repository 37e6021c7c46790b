"""Whether a model learned: by drawings, on its own training domains, above one constant class."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.models.evaluation.learning import learning, that_learned, wilson

ASKED = {
    "candidates": "all", "prompts": "neutral", "classifier": "text", "control": "",
    "measure": "balanced top-1", "class_set": "seen", "n_runs": 1, "epoch": 8, "seed": 0,
    "test_domain": "sketch", "n_units": 10, "n_pictures": 240, "n_drawings": 60,
}  # fmt: skip


def row(setting: str, domain: str, value: float, **more: object) -> dict[str, object]:
    return {**ASKED, "setting": setting, "domain": domain, "value": value, **more}


def learned(rows: list[dict[str, object]], mixtures: pd.DataFrame | None = None) -> dict[str, bool]:
    told = learning(pd.DataFrame(rows), mixtures)
    return dict(zip(told["setting"], told["learned"], strict=True))


@pytest.mark.parametrize(("right", "n"), [(0, 20), (7, 60), (30, 60), (60, 60)])
def test_wilson_is_scipys(right: int, n: int) -> None:
    known = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((known.low, known.high))


def test_one_constant_class_is_no_learning() -> None:
    """10 classes by 6 drawings: one class always right, and others never."""
    drawings = np.repeat(np.arange(10), 6)
    constant = float(pd.Series(drawings == 3).groupby(drawings).mean().mean())
    assert constant == pytest.approx(0.1)
    assert learned([row("a", "real", constant), row("b", "real", 0.3)]) == {"a": False, "b": True}


def test_drawings_count_and_not_their_renderings() -> None:
    few, many = row("few", "real", 0.15), row("many", "real", 0.15, n_drawings=600)
    assert learned([few, many]) == {"few": False, "many": True}


def test_only_training_domains_are_asked() -> None:
    """Natural pictures at chance, and a domain that it was never trained on, or was."""
    rows = [
        row(setting, domain, value)
        for setting in ("foreign", "own")
        for domain, value in (("real", 0.1), ("sketch", 0.6))
    ]
    mixtures = pd.DataFrame(
        {"setting": setting, "test_domain": "sketch", "seed": 0, "domain": domain, "n_pictures": n}
        for setting, domain, n in (
            ("foreign", "real", 9), ("foreign", "sketch", 0),
            ("own", "real", 9), ("own", "sketch", 9),
        )
    )  # fmt: skip
    assert learned(rows, mixtures) == {"foreign": False, "own": True}
    assert learned(rows) == {"foreign": False, "own": False}


def test_the_last_epoch_of_single_models_answers() -> None:
    rows = [
        row("a", "real", 0.1, epoch=0, control="epoch 0"), row("a", "real", 0.1, epoch=4),
        row("a", "real", 0.5), row("a", "real", 0.1, n_runs=3),
        row("a", "real", 0.1, prompts="paper"), row("a", "real", 0.1, class_set="held-out"),
    ]  # fmt: skip
    assert learned(rows) == {"a": True}
    assert learning(pd.DataFrame()).empty


def test_untrained_models_and_those_that_learned_are_left() -> None:
    told = learning(pd.DataFrame([row("a", "real", 0.1), row("b", "real", 0.5)]))
    untrained = row("a", "real", 0, control="epoch 0")
    rows = pd.DataFrame([row("a", "sketch", 0.1), row("b", "sketch", 0.2), untrained])
    left = that_learned(rows, told)
    assert left[["setting", "control"]].values.tolist() == [["b", ""], ["a", "epoch 0"]]
    assert len(that_learned(left, told[:0])) == 2
