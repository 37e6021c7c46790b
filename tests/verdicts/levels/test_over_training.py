"""Lead and lag over training: planted courses come out, by two ways, and chance leads nowhere."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.seeds import rng
from interp.verdicts.levels.over_training import HELD_OUT, SEEN, lead_and_lag

EPOCHS = (0, 2, 4, 8)
ASKED = {"candidates": "all", "prompts": "neutral", "classifier": "text", "control": ""}
Course = Callable[[int, int, int], float]
"""A number from mixture, block and epoch."""


def frames(
    sharing: Course, held_out: Course, *, mixtures: int = 4, blocks: int = 3
) -> dict[str, pd.DataFrame]:
    """Tables of a study in which R2 and accuracy take these courses; an upper bound misleads."""
    rungs, accuracies = [], []
    for m in range(mixtures + 1):
        setting = f"mixture {m}" if m < mixtures else "upper-bound-high"
        for b in range(blocks):
            for epoch in EPOCHS:
                run = {"setting": setting, "test_domain": "sketch", "seed": b, "epoch": epoch}
                own = sharing(m, b, epoch) if m < mixtures else 100.0
                place = {"domain_a": "sketch", "domain_b": "real", "control": "", "rung": "R2"}
                rungs.append({**run, **place, "measure": "debiased CKA", "band": "middle",
                              "index": own} )  # fmt: skip
                rungs.append({**rungs[-1], "band": "late", "index": -9.0})
                rungs.append({**rungs[-1], "band": "middle", "domain_a": "clipart"})
                own = held_out(m, b, epoch) if m < mixtures else 100.0
                values = {"held-out": own, "seen": epoch / 8, "all": 7.0}
                accuracies += [
                    {**run, **ASKED, "domain": domain, "class_set": each, "index": value,
                     "measure": "balanced top-1"}
                    for each, value in values.items() for domain in ("sketch", "real")
                    for value in [value if domain == "sketch" else 3.0]
                ]  # fmt: skip
    every, accuracy = pd.DataFrame(rungs), pd.DataFrame(accuracies)
    last = every["epoch"] == EPOCHS[-1]
    return {"rungs": every[last], "rungs_by_epoch": every[~last], "epochs": accuracy}


def rows(made: dict[str, pd.DataFrame], rung: str = "R2", measure: str = "") -> pd.DataFrame:
    found = lead_and_lag(made).frame
    return found[(found["rung"] == rung) & (found["measure"].isin([measure or "debiased CKA"]))]


def test_what_leads_leads_by_as_much_as_was_planted() -> None:
    """All runs alike: sharing is there after a quarter, accuracy comes in proportion."""
    made = frames(lambda m, b, e: (1 + m + b) * min(1.0, e / 2), lambda m, b, e: (1 + b) * e / 8)
    found = rows(made)
    assert found["trained"].tolist() == [0.25, 0.5, 1.0]
    assert found["value"].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(found["lead"], [0.75, 0.5, np.nan], atol=1e-12)
    np.testing.assert_allclose(found["lead_low"][:-1], [0.75, 0.5], atol=1e-9)
    assert set(found["unit"]) == {"block"} and set(found["n_runs"]) == {12}
    lagging = rows(frames(lambda m, b, e: (1 + b) * e / 8, lambda m, b, e: min(1.0, e / 2)))
    np.testing.assert_allclose(lagging["lead"], [-0.75, -0.5, np.nan], atol=1e-12)
    own = rows(made, "", HELD_OUT)
    assert own["lead"].iloc[:2].eq(0).all() and len(rows(made, "", SEEN)) == 3


def test_intervals_are_jackknifes_of_sums_over_blocks() -> None:
    drawn = rng("lead and lag", 0).uniform(0.2, 1, size=(2, 4, 5, 9))
    made = frames(
        lambda m, b, e: drawn[0, m, b, e] * (1 + e), lambda m, b, e: drawn[1, m, b, e], blocks=5
    )
    found = rows(made)
    for place, epoch in enumerate(EPOCHS[1:-1]):

        def lead(blocks: list[int], epoch: int = epoch) -> float:
            own, accuracy = drawn[0][:, blocks], drawn[1][:, blocks]
            reached = own[..., epoch].sum() * (1 + epoch) / (own[..., 8].sum() * 9)
            return float(reached - accuracy[..., epoch].sum() / accuracy[..., 8].sum())

        left = np.array([lead([b for b in range(5) if b != out]) for out in range(5)])
        error = np.sqrt(4 / 5 * ((left - left.mean()) ** 2).sum())
        reach = stats.t.ppf(0.975, 4) * error
        row = found.iloc[place]
        assert row["lead"] == pytest.approx(lead(list(range(5))))
        assert row["lead_high"] - row["lead"] == pytest.approx(reach)


@pytest.mark.slow
def test_chance_leads_as_often_as_it_says() -> None:
    generator, false = rng("nothing leads", 0), 0
    for _ in range(200):
        noise = generator.normal(1, 0.2, size=(2, 4, 6, 9))
        found = rows(
            frames(lambda m, b, e, n=noise: e / 8 * n[0, m, b, e],
                   lambda m, b, e, n=noise: e / 8 * n[1, m, b, e], blocks=6)
        )  # fmt: skip
        row = found.iloc[0]
        false += not row["lead_low"] <= 0 <= row["lead_high"]
    assert 1 <= false <= 20  # a twentieth of 200


def test_one_block_has_its_models_and_gaps_are_left_out() -> None:
    made = frames(lambda m, b, e: e * (1 + m), lambda m, b, e: e, blocks=1)
    found = rows(made)
    assert set(found["unit"]) == {"model"} and set(found["n_units"]) == {4}
    gone = made["rungs_by_epoch"].query("setting == 'mixture 1' and epoch == 4").index
    made["rungs_by_epoch"].loc[gone, "index"] = np.nan
    assert set(rows(made)["n_runs"]) == {3}
    assert lead_and_lag({**made, "epochs": pd.DataFrame()}).frame.empty
    assert lead_and_lag({"rungs": made["rungs"]}).frame.empty


def test_what_the_untrained_model_shares_is_no_progress() -> None:
    """An index that begins at .4 and grows in proportion is neither ahead nor behind."""
    made = frames(lambda m, b, e: 0.4 + 0.5 * e / 8, lambda m, b, e: e / 8)
    assert (rows(made)["lead"].iloc[:2] > 0.1).all()  # from 0, where no untrained index is known
    assert set(rows(made)["reason"]) == {"the untrained model has no index: counted from 0"}
    last = made["rungs"]
    floor = last[last["setting"] == "mixture 0"].assign(setting="", control="epoch 0", epoch=0)
    floor["index"] = 0.4
    made["rungs"] = pd.concat([last, floor], ignore_index=True)
    found = rows(made)
    np.testing.assert_allclose(found["value"], [0.25, 0.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(found["lead"].iloc[:2], 0, atol=1e-12)
    assert set(found["reason"]) == {""}


def test_a_model_of_natural_pictures_is_one_model_in_all_domains() -> None:
    made = frames(lambda m, b, e: e * (1 + m), lambda m, b, e: e * (2 + m), blocks=1)
    for name, table in made.items():
        places = [column for column in ("domain_a", "domain") if column in table]
        other = table.assign(test_domain="quickdraw")
        other[places] = other[places].replace("sketch", "quickdraw")
        both = pd.concat([table, other], ignore_index=True)
        made[name] = both.replace({"setting": {"mixture 0": "natural-only"}})
    found = rows(made)
    assert set(found["n_units"]) == set(found["n_runs"]) == {7}  # of eight rows
