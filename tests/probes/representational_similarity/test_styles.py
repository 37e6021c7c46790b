"""Artists have styles, and a style is no class: what must not be taken for sharing.

The trap is to deal artists into halves anew for each class. Who is not in one half of a class is
then in the other, so that the styles of two halves, and of two domains, differ between classes
alike.
"""

import numpy as np
import pandas as pd
import pytest

from interp.core.artists import artist_halves
from interp.core.statistics.index_of_sharing import SHARED
from interp.probes import Features, directions, factorisation, similarity, transfer


def styled(seed: int, *, classes: float, common: bool = True, k: int = 20) -> Features:
    """Pictures of k classes by five of seven artists each, who have a style of their own.

    `classes` scales what the class adds, the same in both domains; 0 is no class at all. `common`
    styles are the same in both domains.
    """
    generator = np.random.default_rng(seed)
    rows = [
        (f"c{c:02d}", domain, f"artist{a}", f"artist{a}/c{c:02d}")
        for c in range(k)
        for a in generator.choice(7, 5, replace=False)
        for domain in ("real", "sketch")
        for _ in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist", "drawing"])
    code, artist, drawing = (
        pd.factorize(frame[name])[0] for name in ("label", "artist", "drawing")
    )
    first, second = generator.normal(size=(2, 7, 64))
    sketch = (frame["domain"] == "sketch").to_numpy()[:, None]
    x = np.where(sketch & (not common), second[artist], first[artist])
    x = x + generator.normal(size=(drawing.max() + 1, 64))[drawing] + generator.normal(size=x.shape)
    x = x + classes * generator.normal(size=(k, 64))[code]
    return Features({"site": x.astype(np.float32)}, frame, {"site": 0}, {"site": 0.5})


def per_class(features: Features) -> Features:
    """The same with artists known by class only: they are then dealt anew for each class."""
    frame = features.frame.assign(artist=features.frame["artist"] + features.frame["label"])
    return Features(features.values, frame, features.layers, features.depths)


def test_an_artist_stands_on_one_side() -> None:
    frame = styled(0, classes=0.0).frame
    for split in range(5):
        half = artist_halves(frame, ["real", "sketch"], split=split)
        used = frame[half >= 0].assign(half=half[half >= 0])
        assert used.groupby("artist")["half"].nunique().max() == 1
        assert used["label"].nunique() == 20
        counts = used.groupby(["label", "domain", "half"]).size().unstack()
        assert (counts[0] == counts[1]).all()
    deals = {tuple(artist_halves(frame, ["real", "sketch"], split=split)) for split in range(5)}
    assert len(deals) >= 3


def test_artists_of_one_class_fill_up_the_other_half() -> None:
    frame = pd.DataFrame(
        [("cat", "ann"), ("cat", "bob"), ("dog", "ann"), ("dog", "cem"), ("fox", "dan"),
         ("fox", "eve")],
        columns=["label", "artist"],
    ).assign(domain="real")  # fmt: skip
    for split in range(8):
        half = artist_halves(frame, ["real"], split=split)
        assert half[0] == half[2]  # ann
        assert (half[[0, 2, 4]] != half[[1, 3, 5]]).all()


@pytest.mark.parametrize("common", [True, False])
def test_styles_are_no_geometry(common: bool) -> None:
    found, trapped = [], []
    for seed in range(12):
        features = styled(seed, classes=0.0, common=common)
        options = {"n_permutations": 99, "n_splits": 3}
        found.append(similarity(features, **options).frame.iloc[0])
        trapped.append(similarity(per_class(features), **options).frame.iloc[0])
    right, wrong = pd.DataFrame(found), pd.DataFrame(trapped)
    assert abs(right["value"].mean()) < 0.02 and abs(right["ceiling"].mean()) < 0.03
    # p < .05 in more than 4 of 12 by chance: once in 5,000 times
    assert (right["p"] <= 0.05).sum() <= 4 and SHARED not in set(right["verdict"])
    # the trap: agreement out of nothing, in nearly every study
    assert wrong["value"].mean() > 0.06 and (wrong["p"] <= 0.05).sum() >= 10


@pytest.mark.slow
@pytest.mark.parametrize("common", [True, False])
def test_styles_move_no_index(common: bool) -> None:
    """Classes that both domains share fully have an index of 1, whatever the artists' styles."""
    measured = [
        directions(styled(seed, classes=0.7, common=common), n_permutations=99, n_splits=3).frame
        for seed in range(6)
    ]
    cosine = pd.concat(measured).query("measure == 'cosine of mean differences'")
    assert cosine["index"].mean() == pytest.approx(1.0, abs=0.05)
    assert set(cosine["verdict"]) == {SHARED}


def test_styles_are_neither_class_nor_interaction() -> None:
    shares = {"class": [], "interaction": []}
    for seed in range(8):
        features = styled(seed, classes=0.0, common=False)
        rows = factorisation(features, n_permutations=19, n_splits=3).frame.set_index("factor")
        for factor, values in shares.items():
            values.append(rows.loc[factor, "value"])
    assert abs(np.mean(shares["class"])) < 0.005
    assert abs(np.mean(shares["interaction"])) < 0.005


def test_probes_do_not_learn_styles_for_classes() -> None:
    features = styled(1, classes=0.0)
    rows = transfer(features, n_null=2, n_permutations=99).frame
    assert rows["value"].mean() == pytest.approx(1 / 20, abs=0.03)
