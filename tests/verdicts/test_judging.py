"""What a ladder withholds."""

import numpy as np
import pandas as pd
import pytest

from interp.verdicts.judging import climb
from interp.verdicts.levels.across_checkpoints import from_tables
from tests.verdicts.levels.test_across_checkpoints import tables


def test_nothing_is_judged_for_a_model_that_did_not_learn() -> None:
    given = tables()
    own = given["accuracy"]
    seen = own[own["class_set"] == "seen"].assign(domain="real", n_units=10, n_drawings=60)
    told = seen.assign(value=np.where(seen["setting"] == "a", 0.08, 0.6))
    given["accuracy"] = pd.concat([own.assign(n_units=10, n_drawings=60), told])
    runs = from_tables(given)[0].set_index("setting")["index"]
    assert np.isnan(runs["a"]) and runs["b"] == pytest.approx(0.4)
    ladder = climb(given)["ladder"]
    first = ladder[(ladder["setting"] == "a") & (ladder["control"] == "")]
    assert (
        first["index"].isna().all()
        and first["reason"].str.contains("not shown to have learned").all()
    )
    rest = ladder[(ladder["setting"] == "b") & (ladder["control"] == "")]
    assert rest["index"].notna().all() and (rest["reason"] == "").all()
    assert ladder[ladder["control"] == "epoch 0"]["index"].notna().all()
