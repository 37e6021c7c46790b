"""docs/tables are what `python -m tests.benchmarks findings` prints, and numbers by hand."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import interp
from tests.benchmarks import predictions, saying
from tests.benchmarks.findings import KEPT, TABLES, tables


@pytest.fixture(scope="module")
def made() -> dict[str, pd.DataFrame]:
    return tables()


@pytest.mark.slow
def test_the_committed_tables_are_those_of_the_script(made: dict[str, pd.DataFrame]) -> None:
    """To the five digits that are written, but for the last of them on another machine."""
    assert set(made) == {path.stem for path in TABLES.glob("*.csv")}
    for name, frame in made.items():
        committed = pd.read_csv(TABLES / f"{name}.csv", keep_default_na=False, na_values=[""])
        again = pd.read_csv(_written(frame), keep_default_na=False, na_values=[""])
        pd.testing.assert_frame_equal(committed, again, rtol=2e-5, atol=1e-12, obj=name)


def _written(frame: pd.DataFrame) -> io.StringIO:
    return io.StringIO(frame.to_csv(index=False, float_format="%.5g"))


def _committed(name: str) -> pd.DataFrame:
    return pd.read_csv(TABLES / f"{name}.csv")


def test_a_contrast_by_hand() -> None:
    """CG high less CG low in the strong study: the value, and the plain t of its eight blocks."""
    answers = pd.read_csv(KEPT / "strong" / "answers.csv").query("candidates == 'all'")
    means = answers.groupby(["setting", "seed", "test_domain"])["value"].mean()
    blocks = (means["cg-high"] - means["cg-low"]).groupby("seed").mean()
    rows = _committed("claims").query("study == 'strong' and claim == 2 and candidates == 'all'")
    [row] = rows[rows["test_domain"] == "both"].to_dict("records")
    reach = stats.t.ppf(0.975, 7) * blocks.std() / np.sqrt(8)
    assert row["value"] == pytest.approx(blocks.mean(), abs=1e-5)
    assert row["paired_low"] == pytest.approx(blocks.mean() - reach, abs=1e-5)
    assert row["n_blocks"] == len(blocks) == 8


def test_labels_less_captions_by_hand() -> None:
    """In CG high, by the last runs of both studies."""
    accuracies = {}
    for kind, study, name in (("labels", "twin", "labels_runs"), ("captions", "strong", "runs")):
        runs = pd.read_csv(KEPT / study / f"{name}.csv").query("setting == 'cg-high'")
        by = ["seed", "test_domain"]
        accuracies[kind] = runs.drop_duplicates(by).set_index(by)["accuracy"]
    gap = (accuracies["labels"] - accuracies["captions"]).dropna().groupby("seed").mean()
    [row] = _committed("language_by_mixture").query("captions_of == 'cg-high'").to_dict("records")
    assert row["value"] == pytest.approx(gap.mean(), abs=1e-5) and row["n_blocks"] == len(gap) == 6


@pytest.mark.slow
def test_excess_biases_are_those_of_every_bias_tried() -> None:
    """One model of strong: the bias by trying each on its curve, less the same in photographs."""
    cell = {"setting": "cg-low", "test_domain": "sketch", "architecture": "resnet-small"}
    curves = interp.open_runs(saying.LARGE / "strong.zip", ["tradeoff"])["tradeoff"].frame
    own = curves[(curves[list(cell)] == list(cell.values())).all(axis=1) & (curves["epoch"] > 0)]
    best = {}
    for domain in ("sketch", "real"):
        here = own[(own["domain"] == domain) & (own["seed"] == 3)].reset_index(drop=True)
        pairs = zip(here["accuracy_seen"], here["accuracy_held_out"], strict=True)
        mean = [2 * s * h / (s + h) if s + h else 0.0 for s, h in pairs]
        place = mean.index(max(mean))
        best[domain] = (here["bias"][place] + here["bias"][place + 1]) / 2
    found = saying.biased(own)
    value = found[(found["measure"] == saying.EXCESS) & (found["seed"] == 3)]["value"].item()
    assert value == pytest.approx(best["sketch"] - best["real"])


def test_what_is_known_and_what_is_named_by_hand() -> None:
    rows = _committed("saying").query("study == 'strong' and architecture == 'resnet-small'")
    rows = rows[rows["less"].isna() & (rows["setting"] == "cg-low")].set_index("measure")["value"]
    claimed = _committed("accuracy").query("study == 'strong' and setting == 'cg-low'")
    claimed = claimed.query("test_domain == 'both'").set_index("candidates")["accuracy"]
    assert rows["as it is"] == pytest.approx(claimed["all"], abs=1e-4)
    assert rows["knowing"] == pytest.approx(claimed["held-out"], abs=1e-4)


def test_a_prediction_by_hand() -> None:
    """What the shift gains in CG low: paired answers of the archive, and the plain t of blocks."""
    rows = interp.open_runs(predictions.SAYING, ["domain_shift"])["domain_shift"].frame
    rows = rows[(rows["setting"] == "cg-low") & (rows["domain"] == rows["test_domain"])]
    rows = rows[(rows["way"] == "mean shift") & (rows["dose"] == 1) & (rows["layer"] == 2)]
    rows = rows[(rows["class_set"] == "held-out") & rows["site"].str.endswith("resid_post")]
    blocks = 100 * (rows["after"] - rows["before"]).groupby(rows["seed"]).mean()
    reach = stats.t.ppf(0.975, len(blocks) - 1) * blocks.std() / np.sqrt(len(blocks))
    [row] = (
        _committed("predictions").query("what == 'shift in CG low, held-out'").to_dict("records")
    )
    assert row["n_blocks"] == len(blocks) == len(rows) / 2
    assert row["value"] == pytest.approx(blocks.mean(), rel=1e-4)
    assert row["low"] == pytest.approx(blocks.mean() - reach, rel=1e-4)
