"""Crosscoders: features planted in one model are found, and where all are shared none is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from interp.core.artists import artist_halves
from interp.core.errors import LeakError, SampleError, ShapeError, SpecificationError
from interp.core.images import ImageTable
from interp.probes import Crosscoder, Features, crosscoder
from interp.probes.dictionaries.crosscoder import ONLY_A, ONLY_B, SHARED, _role
from tests.refusals import refuses

SITE = "hook_embedding"
FIT = {"site": SITE, "width": 24, "k": 3, "withheld": (), "steps": 1200, "n_permutations": 49}


def frame_of(n: int) -> pd.DataFrame:
    rows = [
        (f"c{c:02d}", "sketch" if a % 2 else "real", f"artist {a // 2}")
        for c in range(12)
        for a in range(n // 12)
    ]
    return pd.DataFrame(rows, columns=["label", "domain", "artist"])


def planted(
    shared: int, alone: int, *, seed: int = 0, n: int = 1200, width: int = 32, gain: float = 1.0
) -> tuple[list[Features], np.ndarray, np.ndarray]:
    """Two models with features of their own and features of both, each in its own coordinates.

    Returns their activations, their directions "model feature width", and which model has which.
    """
    generator = np.random.default_rng(seed)
    frame, m = frame_of(n), shared + 2 * alone
    z = (generator.random((len(frame), m)) < 0.12) * generator.gamma(4, size=(len(frame), m))
    ways = np.linalg.qr(generator.normal(size=(2, width, width)))[0][:, :m]
    own = np.ones((2, m))
    own[0, shared + alone :], own[1, shared : shared + alone] = 0, 0
    own[1] *= gain
    models = []
    for has, way in zip(own, ways, strict=True):
        values = (z * has) @ way + 0.3 * generator.normal(size=(len(frame), width))
        models.append(Features({SITE: values.astype(np.float32)}, frame))
    return models, ways, own


def truth(found: Crosscoder, ways: np.ndarray, own: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """The table's rows whose feature is a planted one, and which it is."""
    decoder = found.dictionaries[0].decoder.numpy()
    halves = decoder[:, : found.d_a], decoder[:, found.d_a :]
    best = sum(
        has[:, None] * (way @ half.T) for has, way, half in zip(own, ways, halves, strict=True)
    )
    best /= np.linalg.norm(own, axis=0)[:, None]
    rows = found.features.frame
    cosines = best[:, rows["feature"].astype(int)]
    known = cosines.max(axis=0) > 0.8
    return rows[known], cosines.argmax(axis=0)[known]


@pytest.mark.parametrize("seed", [0, 1])
def test_features_of_one_model_are_found(seed: int) -> None:
    models, ways, own = planted(10, 5, seed=seed)
    found = crosscoder(*models, **FIT)
    rows, which = truth(found, ways, own)
    assert len(set(which)) >= 18  # of 20
    expected = np.array([*[SHARED] * 10, *[ONLY_A] * 5, *[ONLY_B] * 5])[which]
    clear = rows["role"] != "unclear"
    assert (rows["role"][clear] == expected[clear]).all() and clear.mean() > 0.8
    assert roc_auc_score(expected == ONLY_A, -rows["value"]) > 0.95
    assert roc_auc_score(expected == ONLY_B, rows["value"]) > 0.95
    assert found.strengths().shape == (1200, 24)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_none_is_invented_where_all_are_shared(gain: float) -> None:
    """Nor where one model is louder: activations are scaled alike."""
    models, _, _ = planted(20, 0, seed=2, gain=gain)
    rows = crosscoder(*models, **FIT).features.frame
    assert not rows["role"].isin([ONLY_A, ONLY_B]).any()
    assert (rows["role"] == SHARED).mean() > 0.6
    assert (rows.loc[rows["role"] == SHARED, "p"] < 0.05).all()  # the weaker model carries it too


def test_the_share_is_that_of_plain_sums() -> None:
    models, _, _ = planted(6, 2, seed=3, n=600, width=12)
    found = crosscoder(*models, **{**FIT, "width": 12, "steps": 300, "seeds": (0, 1)})
    frame = models[0].frame
    deal = artist_halves(frame, ["real", "sketch"])
    own = frame[deal == 1].reset_index(drop=True)
    side = artist_halves(own, ["real", "sketch"], split=1)
    values, dictionary = found.values[deal == 1].astype(float), found.dictionaries[0]
    z = dictionary(found.values[deal == 1]).astype(float)
    decoder, bias = dictionary.decoder.double().numpy(), dictionary.decoder_bias.double().numpy()
    row = found.features.frame.iloc[0]
    j = int(row["feature"])

    def share(kept: np.ndarray) -> float:
        carried = []
        for here in (slice(None, found.d_a), slice(found.d_a, None)):
            ways = []
            for half in (0, 1):
                top = bottom = 0.0
                for n in np.flatnonzero((side == half) & kept):
                    rest = values[n] - bias - sum(
                        z[n, i] * decoder[i] for i in range(len(decoder)) if i != j
                    )  # fmt: skip
                    top, bottom = top + z[n, j] * rest[here], bottom + z[n, j] ** 2
                ways.append(top / bottom)
            carried.append(max(float(ways[0] @ ways[1]), 0.0))
        return carried[1] / sum(carried)

    assert row["value"] == pytest.approx(share(np.ones(len(own), dtype=bool)), abs=1e-5)
    labels = own["label"].to_numpy()
    left = [share(labels != name) for name in sorted(set(labels))]
    assert min(left) - 1e-5 <= row["value"] <= max(left) + 1e-5


def test_what_is_measured_was_not_trained_on() -> None:
    models, _, _ = planted(6, 2, seed=3, n=600, width=12)
    found = crosscoder(*models, **{**FIT, "width": 12, "steps": 5, "seeds": (0, 1)})
    deal = artist_halves(models[0].frame, ["real", "sketch"])
    assert found.dictionaries[0].facts["n_rows"] == (deal == 0).sum()
    assert (found.features.frame["n_pictures"] <= (deal == 1).sum()).all()


def test_what_is_too_faint_is_unclear_and_shares_are_not_clipped() -> None:
    """Both models' products within noise; and a share whose sums go below 0."""
    models, _, _ = planted(20, 0, seed=5)
    quiet = [
        Features({SITE: one.values[SITE][np.random.default_rng(n).permutation(1200)]}, one.frame)
        for n, one in enumerate(models)
    ]  # activations of other pictures: nothing in common between the models
    rows = crosscoder(*quiet, **{**FIT, "steps": 600}).features.frame
    assert not (rows["role"] == SHARED).any()
    assert _role(-0.05, 0.05, 0.5) == ONLY_A and _role(0.3, 0.7, 0.5) == "unclear"


def test_a_feature_that_other_seeds_do_not_find_is_unclear() -> None:
    generator = np.random.default_rng(4)
    frame = frame_of(1200)
    noise = [Features({SITE: generator.normal(size=(1200, 16)).astype("f4")}, frame) for _ in "ab"]
    rows = crosscoder(*noise, **{**FIT, "steps": 200}).features.frame
    assert (rows["role"] == "unclear").all()
    assert rows["reason"].isin(["not found again by another seed", ""]).all()


def test_what_cannot_be_compared_is_said() -> None:
    models, _, _ = planted(4, 1, n=240, width=8)
    brief = {**FIT, "width": 8, "steps": 5}
    refuses(SpecificationError, "two or more", crosscoder, *models, **{**brief, "seeds": (0,)})
    refuses(LeakError, "", crosscoder, *models, **{**brief, "withheld": None})
    refuses(ShapeError, "", crosscoder, models[0], models[1].rows(range(100)), **brief)
    few = [one.rows((one.frame["label"] < "c02").to_numpy()) for one in models]
    refuses(SampleError, "three", crosscoder, *few, **brief)


@pytest.mark.long
@pytest.mark.slow
def test_a_gallery_says_which_class_a_feature_tells() -> None:
    """One feature of both models fires for one class: it is found, told and shown."""
    models, _, _ = planted(3, 1)
    frame = models[0].frame.assign(path=[f"{n}" for n in range(1200)], split="test", caption="")
    generator = np.random.default_rng(5)
    strong = (frame["label"] == "c03").to_numpy() * generator.gamma(9, size=len(frame))
    ways = generator.normal(size=(2, 32))
    both = [
        Features({SITE: (m.values[SITE] + strong[:, None] * way).astype(np.float32)}, frame)
        for m, way in zip(models, ways, strict=True)
    ]
    found = crosscoder(*both, **FIT)  # type: ignore[arg-type]
    made = found.gallery(ImageTable(frame))
    assert made.kind == "feature" and len(made) == 24
    np.testing.assert_array_equal(made.values(2), found.strengths()[:, 2])
    own = int(np.argmax([np.corrcoef(z, strong)[0, 1] for z in found.strengths().T]))
    rows = made.table.frame
    told = rows[(rows["feature"] == own) & (rows["measure"] == "class selectivity")]
    assert set(told["label"]) == {"c03"} and (told["value"] > 0.9).all()
    assert (told["p"] < 0.05).all()
    others = rows[(rows["feature"] != own) & (rows["measure"] == "class selectivity")]
    assert others["value"].median() < 0.65
    assert set(made.shown(own, "real", most=5, least=0, quantiles=())["label"]) == {"c03"}
    refuses(ShapeError, "7 pictures", found.gallery, ImageTable(frame.head(7)))
