"""Planted tables of what lies behind accuracy: trade-off, exposure, robustness, epochs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

TEXT = {"test_domain": "sketch", "prompts": "neutral", "classifier": "text"}
TEXT |= {"control": "", "seed": 0, "epoch": 8}
N = {"unit": "class", "n_units": 60, "n_pictures": 960, "n_drawings": 120, "n_runs": 1}


def evaluation_tables(accuracy: Mapping[str, float]) -> dict[str, pd.DataFrame]:
    """The optional tables of a study whose settings have these accuracies in sketches."""
    return {
        "tradeoff": _tradeoff(accuracy),
        "exposure": _exposure(accuracy),
        "exposure_classes": _exposure_classes(accuracy),
        "robustness": _robustness(accuracy),
        "epochs": _epochs(accuracy),
    }


def classifier_rows(accuracy: Mapping[str, float]) -> pd.DataFrame:
    """Rows of an accuracy table that a newer run has: other classifiers, other measures."""
    rows = []
    for setting, value in accuracy.items():
        for place, classifier in enumerate(("text", "prototype (natural)", "linear (own domain)")):
            for measure in ("balanced top-1", "balanced top-5", "macro-F1"):
                own = value + 0.1 * place + 0.3 * (measure == "balanced top-5")
                rows.append(
                    {**TEXT, **N, "setting": setting, "domain": "sketch", "class_set": "held-out"}
                    | {"candidates": "all", "classifier": classifier, "measure": measure}
                    | {"prompts": "" if place else "neutral", "null": 1 / 60, "null_kind": "chance"}
                    | {"value": own, "low": own - 0.05, "high": own + 0.05}
                )
        rows.append(
            {**TEXT, **N, "setting": setting, "domain": "sketch", "class_set": "all"}
            | {"candidates": "all", "measure": "AUSUC", "null": 0.001, "null_kind": "random logits"}
            | {"value": value / 2, "low": value / 2 - 0.05, "high": value / 2 + 0.05}
        )
    return pd.DataFrame(rows)


def _tradeoff(accuracy: Mapping[str, float]) -> pd.DataFrame:
    turn = np.linspace(0, np.pi / 2, 41)
    return pd.concat(
        [
            pd.DataFrame({
                **TEXT, "setting": setting, "domain": "sketch", "candidates": "all",
                "seed": block, "bias": np.linspace(-8, 8, 41),
                "accuracy_seen": (value + 0.3) * np.cos(turn),
                "accuracy_held_out": (value + 0.2 + 0.02 * block) * np.sin(turn),
                "n_units": 60, "n_pictures": 960,
            })
            for setting, value in accuracy.items()
            for block in (0, 1)
        ],
        ignore_index=True,
    )  # fmt: skip


def _exposure(accuracy: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {**TEXT, **N, "setting": setting, "domain": "sketch", "candidates": "all"}
            | {"class_set": "all", "exposed_in": where, "measure": "Spearman", "null": 0.0}
            | {"value": np.nan if where == "natural" else value}
            | {"low": value - 0.2, "high": value + 0.2, "p": 0.01}
            | {"reason": "every class was trained on equally often" if where == "natural" else ""}
            for setting, value in accuracy.items()
            for where in ("all domains", "natural")
        ]
    )


def _exposure_classes(accuracy: Mapping[str, float]) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {**TEXT, "setting": setting, "domain": "sketch", "candidates": "all"}
            | {"label": f"class_{c:02d}", "class_set": "held-out" if c < 15 else "seen"}
            | {"exposed_in": where, "n_pictures": 16}
            | {"exposure": 100 if where == "natural" else 100 + 20 * (c % 20)}
            | {"value": float(np.clip(value + 0.01 * (c % 20) + generator.normal(0, 0.1), 0, 1))}
            for setting, value in accuracy.items()
            for where in ("all domains", "natural")
            for c in range(60)
        ]
    )


def _robustness(accuracy: Mapping[str, float]) -> pd.DataFrame:
    rows = []
    for place, (setting, value) in enumerate(accuracy.items()):
        for block in range(3):
            inside = 0.35 + 0.1 * place + 0.04 * block
            expected = 0.6 * inside
            rows.append(
                {**TEXT, "setting": setting, "domain_a": "real", "domain_b": "sketch"}
                | {"seed": block, "accuracy_in": inside, "accuracy_out": value + 0.02 * block}
                | {"expected": expected, "expected_low": expected - 0.04}
                | {"expected_high": expected + 0.04, "fitted": place == 0, "unit": "model"}
                | {"value": value + 0.02 * block - expected, "low": -0.1, "high": 0.1}
                | {"n_units": 3, "null": 0.0, "measure": "effective robustness"}
            )
    return pd.DataFrame(rows)


def _epochs(accuracy: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {**TEXT, **N, "setting": setting, "domain": "sketch", "candidates": "all"}
            | {"class_set": classes, "measure": measure, "seed": block, "epoch": epoch}
            | {"value": own, "low": own - 0.03, "high": own + 0.03, "null": 1 / 60}
            for setting, value in accuracy.items()
            for classes in ("held-out", "seen")
            for block in (0, 1)
            for epoch in (0, 4, 8)
            for measure in ("balanced top-1", "macro-F1")
            for own in [value * epoch / 8 + 0.02 + 0.02 * block + 0.1 * (classes == "seen")]
        ]
    )
