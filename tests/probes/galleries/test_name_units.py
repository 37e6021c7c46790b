"""Names of units: what is planted is named, chance is not, and bad words are refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from interp.circuits import Chain
from interp.core.artists import artist_sides
from interp.core.classifiers import Classifier
from interp.core.errors import SampleError, ShapeError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.probes import Gallery, name_units
from interp.probes.galleries.name_units import ALL_DOMAINS, NO_NAME
from interp.probes.galleries.peaks import Peaks
from tests.probes.conftest import make_frame
from tests.refusals import refuses
from tests.tables import picture_of

DOMAINS, CLASSES, NOISE = ("real", "sketch"), 10, 40
FRAME = make_frame(CLASSES, DOMAINS, n_artists=16, copies=2).assign(split="test", caption="")
PLACE = {path: row for row, path in enumerate(FRAME["path"])}
CLASS, PRIVATE, DOMAIN, DEAD = range(CLASSES), CLASSES, CLASSES + 1, CLASSES + 2
"""Units: one for each class in both domains, one for c05 in sketches alone, sketches, nothing."""


def concepts() -> np.ndarray:
    """Whether each picture shows each class and each domain, "picture concept"."""
    names = [FRAME["label"] == f"c{c:02d}" for c in range(CLASSES)]
    return np.stack([*names, *(FRAME["domain"] == name for name in DOMAINS)], axis=1).astype(float)


def of(values: np.ndarray) -> Gallery:
    peaks = Peaks(values, np.zeros(values.shape, int), None)
    return Gallery(
        ImageTable(FRAME, reader=picture_of),
        "s",
        "unit",
        peaks,
        DOMAINS,
        Table("gallery", pd.DataFrame()),
    )


def planted(seed: int = 0) -> Gallery:
    """What each unit tells, with noise; behind them units of noise alone."""
    draw = np.random.default_rng(seed)
    shows = concepts()
    told = np.column_stack([
        shows[:, :CLASSES], shows[:, 5] * shows[:, -1], shows[:, -1], np.zeros(len(FRAME)),
        np.zeros((len(FRAME), NOISE)),
    ])  # fmt: skip
    values = 3 * told + draw.normal(size=told.shape)
    values[:, DEAD] = 1
    return of(values)


def embedded(gallery: Gallery, *, seed: int = 0, n_words: int = 100) -> dict[str, Any]:
    """A tower whose embedding holds the concepts, and words for them among many others."""
    draw = np.random.default_rng(seed)
    directions = np.linalg.qr(draw.normal(size=(64, 64)))[0][: CLASSES + len(DOMAINS)]
    pictures = concepts() @ directions + 0.1 * draw.normal(size=(len(FRAME), 64))

    def preprocess(picture: Image.Image) -> Tensor:
        return torch.from_numpy(pictures[PLACE[picture.info["path"]]])[None]

    words = [*(f"c{c:02d}" for c in range(CLASSES)), *DOMAINS, *map(str, range(n_words))]
    others = draw.normal(size=(n_words, 64)) / 8
    table = Classifier(torch.from_numpy(np.vstack([directions, others])), words)
    return {"tower": Chain([nn.Identity()]), "words": table, "preprocess": preprocess}


def verdicts(table: Table, domain: str) -> pd.Series:
    own = table.frame[table.frame["domain"] == domain]
    return own.set_index("feature")["verdict"]


@pytest.mark.parametrize("by_text", [False, True])
def test_what_is_planted_is_named_and_chance_is_not(by_text: bool) -> None:
    shown = planted()
    table = name_units(shown, **(embedded(shown) if by_text else {}))
    for domain in (ALL_DOMAINS, *DOMAINS):
        named = verdicts(table, domain)
        right = [named[unit] == f"c{unit:02d}" for unit in CLASS]
        assert np.mean(right) >= (0.9 if by_text else 1)  # a word that lies near may win by luck
        assert named[DEAD] == NO_NAME
        assert (named.iloc[DEAD + 1 :] == NO_NAME).mean() >= 0.9
    assert verdicts(table, ALL_DOMAINS)[DOMAIN] == "sketch"
    assert verdicts(table, "sketch")[PRIVATE] == "c05"
    assert verdicts(table, "real")[PRIVATE] == NO_NAME
    same = table.frame.set_index(["feature", "domain"])["same_name"]
    assert same[0, "real"] == "yes" and same[PRIVATE, "sketch"] == "not in real"
    assert same[DEAD, "real"] == ""


def test_a_sparse_unit_is_not_named_by_the_pictures_that_come_first() -> None:
    """It is 0 for nearly all pictures; those that come first are none of its highest."""
    draw = np.random.default_rng(0)
    values = np.zeros((len(FRAME), 12))
    for unit in range(10):
        values[draw.choice(len(FRAME), 6, replace=False), unit] = 1.0
    values[:, 10] = (FRAME["label"] == "c02") * draw.random(len(FRAME))
    values[:, 11] = FRAME["domain"] == "real"  # equal to its highest in half of all pictures
    rows = name_units(of(values)).frame.query("domain == 'all domains'").set_index("feature")
    assert (rows["verdict"].iloc[:10] == NO_NAME).all() and (rows["word"].iloc[:10] == "").all()
    assert rows["reason"].iloc[:10].str.startswith("stands out in fewer than 5").all()
    assert rows["p"].iloc[:10].isna().all() and rows.loc[10, "verdict"] == "c02"
    assert rows.loc[11, "verdict"] == "real"


@pytest.mark.long
@pytest.mark.slow
def test_few_units_of_noise_have_a_name_in_any_run() -> None:
    """The level is that of the whole site: of twenty sites about one has a name somewhere."""
    named = 0
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=(len(FRAME), 15))
        table = name_units(of(values), seed=seed)
        named += (verdicts(table, ALL_DOMAINS) != NO_NAME).any()
    assert named <= 4


def test_a_value_is_scikit_learns_on_the_other_artists_drawings() -> None:
    shown = planted()
    table = name_units(shown).frame.set_index(["domain", "feature"])
    rows = np.flatnonzero((artist_sides(FRAME) == 1) & (FRAME["domain"] == "sketch"))
    for unit in (2, PRIVATE, DEAD + 3):
        row, values = table.loc["sketch", unit], shown.peaks.values[rows, unit]
        highest = np.zeros(len(rows), dtype=bool)
        highest[np.argsort(-values)[: round(0.1 * len(rows))]] = True  # no two are equal
        shows = (FRAME["label"] == row["word"]).to_numpy()[rows]
        assert row["value"] == pytest.approx(roc_auc_score(highest, shows), abs=1e-6)
        assert row["null"] == pytest.approx(0.5, abs=0.05) and row["n_pictures"] == len(rows)
    known = table[table["value"].notna()]
    assert len(known) == len(table) - 3  # one unit is the same for all pictures
    assert (known["low"] <= known["value"]).all() and (known["value"] <= known["high"]).all()
    assert 1 < table.loc["sketch", 2]["n_units"] <= round(0.1 * len(rows))


def test_words_that_cannot_name_are_refused() -> None:
    shown = planted()
    words = embedded(shown)
    refuses(SpecificationError, "all three", name_units, shown, words["tower"])
    refuses(SpecificationError, r"up to \.5", name_units, shown, top=0)
    refuses(SampleError, "2400 or more", name_units, shown, top=1 / 480)
    with pytest.raises(SampleError, match="1 word"):
        name_units(shown, **words | {"words": Classifier(torch.ones(1, 64), ["one"])})
    wrong = Classifier(torch.ones(2, 3) + torch.eye(2, 3), ["one", "two"])
    refuses(ShapeError, "", name_units, shown, **embedded(shown) | {"words": wrong})
