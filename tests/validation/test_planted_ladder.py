"""Measures held against planted truth: a few models here, all of them by `make truth`."""

import numpy as np
import pandas as pd
import pytest

from interp.circuits.planted.conditions import expected
from interp.circuits.planted.vit import Blueprint
from interp.probes import Features, transfer
from interp.validation import judge
from interp.validation.planted_ladder import COLUMNS, MEASURES, PlantedLadder, by_site, outcome
from interp.verdicts.judging import WHOLE
from interp.verdicts.rungs import RUNGS
from tests.benchmarks.judging import OUTCOMES, by_model, expected_by_band, summary


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("blueprint", "least"),
    [(Blueprint("all shared", 2), 12), (Blueprint("all separate", 2, tier="hard"), 8)],
)
def test_no_measure_says_the_wrong_thing(blueprint: Blueprint, least: int) -> None:
    cells = judge(blueprint)
    assert (
        list(cells) == COLUMNS and len(cells) == len(expected(blueprint)) - 1
    )  # R4 leaves out the last block
    counted = cells["outcome"].value_counts()
    assert counted.get("wrong", 0) == 0 and counted["right"] >= least
    undecided = cells[cells["outcome"] == "abstained"]
    assert (undecided["index"].notna() | (undecided["reason"] != "")).all()
    causal = cells[cells["measure"].isin(["das", "neuron transfer", "neuron overlap"])]
    decided = causal[causal["outcome"] != "reported"]
    assert (decided["outcome"] == "right").mean() >= 0.8


@pytest.mark.parametrize("dose", [0.3, 0.6])
def test_r2_and_r3_are_read_off_as_planted(dose: float) -> None:
    """The index of R3 is the dose, that of R2 its square; the same dose has the same answer."""
    parts = by_site("directions", PlantedLadder(Blueprint("dose of parts", 3, dose)))
    geometry = by_site("cka", PlantedLadder(Blueprint("dose of geometry", 3, dose)))
    r3, r2 = parts["blocks.2.hook_resid_post"], geometry["blocks.1.hook_resid_post"]
    assert r3.index == pytest.approx(dose, abs=0.02)
    assert r2.index == pytest.approx(dose**2, abs=0.02)
    assert r3.verdict == r2.verdict == "partly shared"


@pytest.mark.long
@pytest.mark.slow
def test_r5_and_r6_grow_with_the_dose_of_parts() -> None:
    indices = []
    for dose in (0.0, 0.3, 0.6, 1.0):
        planted = PlantedLadder(Blueprint("dose of parts", 3, dose))
        names = ("neuron overlap", "neuron transfer")
        indices.append([by_site(name, planted)[""].index for name in names])
    overlap, work = np.array(indices).T
    np.testing.assert_allclose(work, [0, 0.3, 0.6, 1.0], atol=0.1)
    assert (np.diff(overlap) > 0.05).all() and overlap[-1] == pytest.approx(1, abs=0.05)


def test_every_declared_measure_is_taken() -> None:
    assert {cell.measure for cell in expected(Blueprint("rotated code"))} == set(MEASURES)


def test_probes_are_judged_centred() -> None:
    """An offset of a whole domain is no reason to call directions separate."""
    cells = [
        (name, domain, artist) for name in "abcdef" for domain in "AB" for artist in "stuvwxyz"
    ]
    frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    points = 6.0 * np.eye(8)[frame["label"].map("abcdef".index)]
    points[frame["domain"] == "B"] += np.arange(8.0) ** 2
    points += np.random.default_rng(0).normal(size=points.shape)
    planted = PlantedLadder(Blueprint("all shared"))
    features = Features({"site": points.astype(np.float32)}, frame)
    vars(planted)["_tables"] = {"transfer": transfer(features).frame}
    assert by_site("probe transfer", planted)["site"].verdicts == "2 of 2 shared"


@pytest.mark.parametrize(
    ("answer", "verdict", "right"),
    [
        ("not shared", "unknown", "refused"),
        ("shared", "shared", "right"),
        ("shared", "not shared", "wrong"),
        ("not shared", "shared", "wrong"),
        ("not shared", "unknown", "abstained"),
        ("in part", "shared", "reported"),
        ("partly shared", "partly shared", "right"),
        ("partly shared", "shared", "wrong"),
        ("shared", "partly shared", "wrong"),
        ("blind", "not shared", "reported"),
    ],
)
def test_outcomes(answer: str, verdict: str, right: str) -> None:
    assert outcome(answer, verdict, np.nan if right == "refused" else 0.5) == right


def test_the_summary_counts_cells() -> None:
    cells = pd.DataFrame(
        {
            "condition": "rewired", "tier": "easy", "measure": "das", "expected": "shared",
            "outcome": ["right", "right", "refused"], "index": [1.0, 0.8, None],
        }
    )  # fmt: skip
    row = summary(cells).iloc[0]
    assert row[OUTCOMES].tolist() == [2, 0, 0, 1, 0]
    assert row["index"] == pytest.approx(0.9)


def cells(condition: str, said: dict[str, list[tuple[str, str]]]) -> pd.DataFrame:
    """Cells of one model: by measure, what was declared and what was said."""
    rows = [
        {
            "condition": condition, "tier": "easy", "dose": None, "seed": 1, "measure": measure,
            "expected": answer, "verdict": verdict, "index": 0.5,
        }
        for measure, each in said.items()
        for answer, verdict in each
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rung", "said", "outcome"),
    [
        ("R4", {"das": [("shared", "shared"), ("blind", "not shared")]}, "right"),
        ("R4", {"das": [("shared", "shared"), ("shared", "unknown")]}, "abstained"),
        ("R4", {"das": [("not shared", "shared"), ("not shared", "shared")]}, "wrong"),
        ("R4", {"das": [("shared", "shared"), ("not shared", "not shared")]}, None),
        ("R5", {"neuron overlap": [("in part", "shared")]}, None),
        ("R5", {"neuron overlap": [("partly shared", "partly shared")]}, "right"),
        ("R4", {"das": [("shared", "shared"), ("shared", "partly shared")]}, "wrong"),
        (
            "R6",
            {
                "neuron transfer": [("not shared", "not shared")],
                "circuit transfer": [("shared", "unknown")],
            },
            "right",
        ),
        (
            "R6",
            {
                "neuron transfer": [("shared", "shared")],
                "circuit transfer": [("shared", "not shared")],
            },
            "wrong",
        ),
    ],
)
def test_a_rung_is_judged_once_a_model(
    rung: str, said: dict[str, list[tuple[str, str]]], outcome: str | None
) -> None:
    found = by_model(cells("rewired", said))
    assert found["outcome"].tolist() == ([] if outcome is None else [outcome])
    assert set(found["rung"]) <= {rung} and rung in RUNGS


@pytest.mark.parametrize(
    ("indices", "outcome"),
    [([0.9, None, None], "refused"), ([0.9, 0.8, None], "right"), ([None] * 3, "refused")],
)
def test_sites_without_an_index_have_no_say(indices: list[float | None], outcome: str) -> None:
    verdicts = ["unknown" if index is None else "shared" for index in indices]
    frame = cells("rewired", {"das": [("shared", verdict) for verdict in verdicts]})
    found = by_model(frame.assign(index=np.array(indices, float)))
    assert found["outcome"].tolist() == [outcome]
    assert found["index"].isna().all() == (outcome == "refused")


def test_a_cut_that_unknown_leaves_the_index_to_the_other() -> None:
    said = {"circuit transfer": [("shared", "unknown")], "neuron transfer": [("shared", "shared")]}
    row = by_model(cells("rewired", said).assign(index=[0.1, 0.9])).iloc[0]
    assert row[["rung", "index", "verdict", "outcome"]].tolist() == ["R6", 0.9, "shared", "right"]


@pytest.mark.parametrize(
    ("condition", "right"),
    [
        ("all shared", {"middle": "blind", "early": "shared"}),
        ("late separate", {"early": "shared"}),
        ("all separate", {"early": "not shared"}),
    ],
)
def test_bands_are_declared_by_the_true_circuits(condition: str, right: dict[str, str]) -> None:
    planted = PlantedLadder(Blueprint(condition, 2))
    declared = expected_by_band(planted.planted, planted.tower, planted.blueprint.outlook)
    for band, answer in right.items():
        assert answer in declared["R5", band] == declared["R6", band]
    whole = {cell.measure: cell.answer for cell in expected(planted.blueprint)}
    assert declared["R5", WHOLE] == [whole["neuron overlap"]]
