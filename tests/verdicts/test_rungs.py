"""The registry of rungs: which rows judge each, by what rule, on data whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.core.statistics.index_of_sharing import found_beyond_null, sharing_index
from interp.probes import Features, directions, transfer
from interp.verdicts.judging import judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS

SITE = "blocks.1.hook_resid_post"
N_CLASSES, WIDTH, RANK, ARTISTS, PICTURES = 20, 64, 8, 6, 12


def made(
    *, cosine: float, offset: float = 0.0, noise: float = 1.0, loud_in_b: float = 1.0, seed: int = 0
) -> Features:
    """Classes along directions of a given cosine in A and B, with a domain offset and noise.

    In B the noise along the first quarter of all directions is louder.
    """
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(draw.normal(size=(WIDTH, WIDTH)))[0]
    first, second = turn[:, :RANK], turn[:, RANK : 2 * RANK]
    ways = {"A": first, "B": cosine * first + np.sqrt(1 - cosine**2) * second}
    codes = draw.normal(size=(N_CLASSES, RANK))
    codes -= codes.mean(axis=0)
    shift, loud = draw.normal(size=WIDTH), np.ones(WIDTH)
    loud[: WIDTH // 4] = loud_in_b
    rows, points = [], []
    for domain in "AB":
        for label in range(N_CLASSES):
            for picture in range(PICTURES):
                own = ways[domain] @ codes[label] + noise * draw.normal(size=WIDTH) * (
                    loud if domain == "B" else 1.0
                )
                points.append(own + (offset * shift if domain == "B" else 0.0))
                rows.append((f"class {label:02}", domain, f"artist {picture % ARTISTS}"))
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    return Features({SITE: np.array(points, dtype=np.float32)}, frame)


def judged(features: Features) -> pd.DataFrame:
    """The rows of R1 and R3, and those shown beside R3, by key."""
    words = {"n_permutations": 199, "seed": 0}
    frames = {
        "directions": directions(features, n_splits=2, **words).frame,
        "transfer": transfer(features, **words).frame,
    }
    beside = [
        one.select(frames[one.table]).assign(key=one.key)
        for rung in ("R1", "R3")
        for one in RUNGS[rung].measures
    ]
    return pd.concat([*beside, judged_rows(frames).assign(key="judged")], ignore_index=True)


@pytest.mark.parametrize(("cosine", "verdict"), [(1.0, "shared"), (0.0, "not shared")])
def test_directions_are_told_whatever_the_offset(cosine: float, verdict: str) -> None:
    """Probes that are not centred gave .28 for identical directions under an offset."""
    rows = judged(made(cosine=cosine, offset=4.0)).set_index("key")
    for key in ("R3", "R3 difference", "R3 probes"):
        own = rows.loc[[key]]
        assert (own["index"] - cosine).abs().max() < 0.2, key
    assert rows.loc["R3", "verdict"] == verdict
    assert (rows.loc[["judged"]].query("rung == 'R3'")["verdict"] == verdict).all()


def test_weak_classes_are_told_by_lda_and_unequal_noise_does_not_mislead() -> None:
    """Loud noise along some directions in one domain drowns mean differences, not LDA's cosines."""
    rows = judged(made(cosine=1.0, noise=1.5, loud_in_b=6.0)).set_index("key")
    assert rows.loc["R3", "verdict"] == "shared"
    assert rows.loc["R3 difference", "verdict"] == "unknown"


@pytest.mark.parametrize("seed", range(12))
def test_classes_without_correspondence_are_never_shared(seed: int) -> None:
    features = made(cosine=1.0, seed=seed)
    frame = features.frame.copy()
    order = np.random.default_rng(seed).permutation(N_CLASSES)
    in_b = frame["domain"] == "B"
    frame.loc[in_b, "label"] = frame.loc[in_b, "label"].map(
        {f"class {old:02}": f"class {new:02}" for old, new in enumerate(order)}
    )
    rows = judged(Features(dict(features.values), frame))
    assert "shared" not in set(rows[rows["key"] == "R3"]["verdict"])


def own_probes(value: float, low: float, high: float, p: float) -> pd.DataFrame:
    about = {"centred": False, "site": SITE, "depth": 0.5, "null": 0.05, "n_units": 20}
    about |= {"value": value, "low": low, "high": high, "p": p}
    return pd.DataFrame(
        {"train_domain": domain, "domain": domain, **about} for domain in ("A", "B")
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "verdict"),
    [
        (0.9, 0.8, 0.95, 0.001, "shared"),
        (0.16, 0.1, 0.22, 0.001, "shared"),  # little is read, but surely
        (0.08, 0.03, 0.13, 0.2, "not shared"),
        (0.08, 0.03, 0.13, 0.01, "unknown"),  # its own p finds the class
        (0.3, 0.0, 0.6, 0.2, "unknown"),
    ],
)
def test_r1_has_a_rule_of_its_own(
    value: float, low: float, high: float, p: float, verdict: str
) -> None:
    given = own_probes(value, low, high, p)
    rows = RUNGS["R1"].judged.select(given)
    assert rows["verdict"].tolist() == [verdict]
    few = RUNGS["R1"].judged.select(given.assign(n_drawings=5 * given["n_units"]))
    denied = verdict == "not shared"
    assert few["verdict"].tolist() == ["unknown" if denied else verdict]
    assert few["reason"].str.contains("fewer than 6 drawings").tolist() == [denied]
    assert (rows["domain_a"].item(), rows["domain_b"].item()) == ("A", "B")


def test_no_rung_denies_what_its_own_p_finds() -> None:
    left = [(0.12 + step, 0.0, 1.0) for step in (-0.01, 0.01, -0.005, 0.005, 0.0)]
    small = sharing_index(0.12, 0.0, 1.0, left_out=left)
    terms = {"value": 0.12, "null": 0.0, "ceiling": 1.0}
    assert small.verdict == "not shared"
    found = found_beyond_null(small, 0.01, **terms)
    assert found.verdict == "unknown" and "p = 0.01" in found.reason
    assert found_beyond_null(small, 0.3, **terms) is small
    assert found_beyond_null(small, float("nan"), **terms) is small
    below = {**terms, "null": 0.2}
    assert found_beyond_null(small, 0.01, **below) is small  # p finds less than nothing
    falling = {"value": -0.1, "null": 0.0, "ceiling": -1.0}  # a distance, which should fall
    assert found_beyond_null(small, 0.01, **falling).verdict == "unknown"


# R6: sufficient and necessary


def transfers(*told: tuple[str, float, str, float]) -> pd.DataFrame:
    """A table of circuits: for each site a verdict and an index kept, and the same knocked out."""
    rows = []
    for site, (kept, index, lost, other) in enumerate(told):
        for measure, verdict, value in (
            ("circuit transfer, mean over sizes", kept, index),
            ("circuit necessity, mean over sizes", lost, other),
        ):
            ends = {"index": value, "index_low": value - 0.05, "index_high": value + 0.05}
            reason = "weak" if np.isnan(value) else ""
            rows.append(
                {"measure": measure, "site": f"layer{site}", "domain_a": "A", "domain_b": "B"}
                | {"level": "channel", "verdict": verdict, "reason": reason, "p": 0.5, **ends}
                | {"value": value, "null": 0.0, "ceiling": 1.0}
            )
    return pd.DataFrame(rows)


NONE = float("nan")


@pytest.mark.parametrize(
    ("kept", "lost", "told", "index", "reason"),
    [
        (("shared", 0.9), ("shared", 0.8), "shared", 0.8, ""),
        (("shared", 0.7), ("shared", 0.8), "shared", 0.7, ""),
        (("shared", 0.9), ("partly shared", 0.5), "partly shared", 0.5, ""),
        (("partly shared", 0.6), ("shared", 0.7), "partly shared", 0.6, ""),
        (("shared", 0.9), ("not shared", 0.0), "not shared", 0.0, ""),
        (("not shared", 0.1), ("not shared", 0.0), "not shared", 0.0, ""),
        (("not shared", 0.1), ("shared", 0.8), "not shared", 0.1, ""),
        (("unknown", NONE), ("shared", 0.9), "unknown", NONE, "weak"),
        (("shared", 0.9), ("unknown", NONE), "unknown", NONE, "necessity: weak"),
        (("unknown", NONE), ("not shared", 0.1), "not shared", 0.1, ""),
        (("not shared", 0.1), ("unknown", NONE), "not shared", 0.1, ""),
        (("unknown", 0.4), ("shared", 0.8), "unknown", 0.4, ""),
        (("unknown", NONE), ("unknown", NONE), "unknown", NONE, "weak"),
    ],
)
def test_wiring_is_shared_where_circuits_are_sufficient_and_necessary(
    kept: tuple[str, float], lost: tuple[str, float], told: str, index: float, reason: str
) -> None:
    table = transfers((*kept, *lost))
    [row] = RUNGS["R6"].judged.select(table).to_dict("records")
    assert row["verdict"] == told and row["reason"] == reason
    np.testing.assert_equal([row["index"], row["value"]], [index, index])
    assert np.isnan(index) or row["index_high"] == pytest.approx(index + 0.05)
    rows = judged_rows({"circuit_transfer": table})
    assert rows["verdict"].tolist() == [told] and rows["rung"].tolist() == ["R6"]


def test_an_answer_keeps_the_interval_that_it_was_given_by() -> None:
    """Else a band would judge the other interval again, and say what one of the two denies."""
    table = transfers(("shared", 0.75, "unknown", 0.8), ("shared", 0.6, "partly shared", 0.65))
    wide = table["verdict"] == "unknown"
    table.loc[wide, ["index_low", "index_high"]] = 0.3, 1.3
    found = RUNGS["R6"].judged.select(table)
    assert found["verdict"].tolist() == ["unknown", "partly shared"]
    assert found["index"].tolist() == [0.8, 0.65] and found["index_low"].tolist() == [0.3, 0.6]
    both = [found.iloc[[0]], found.iloc[[0]].assign(domain_a="B", domain_b="A")]
    [told] = ladder_rows(judged_rows({"circuit_transfer": pd.concat(both)}))["verdict"]
    assert told == "unknown"


def test_reasons_that_differ_in_numbers_alone_are_told_once() -> None:
    table = transfers(("unknown", NONE, "unknown", NONE))
    rows = judged_rows({"circuit_transfer": table})
    sites = [rows.assign(site=f"layer{n}", reason=f"room is 0.{n}") for n in (1, 2)]
    other = rows.assign(site="layer3", reason="too few classes")
    [told] = ladder_rows(pd.concat([*sites, other]))["reason"]
    assert told == "room is 0.1 (and others with other numbers); too few classes"


def test_tables_read_back_say_the_same(tmp_path: Path) -> None:
    for told in (("shared", 0.9, "unknown", 0.5), ("shared", 0.9, "unknown", NONE)):
        table = transfers(told)
        table.to_csv(tmp_path / "table.csv", index=False)
        again = RUNGS["R6"].judged.select(pd.read_csv(tmp_path / "table.csv"))
        columns = ["verdict", "index", "reason"]
        pd.testing.assert_frame_equal(
            again[columns], RUNGS["R6"].judged.select(table)[columns], check_dtype=False
        )


def test_sites_of_wiring_are_joined_one_by_one_and_older_tables_are_as_they_were() -> None:
    table = transfers(("shared", 0.9, "shared", 0.8), ("shared", 0.9, "not shared", 0.0))
    found = RUNGS["R6"].judged.select(table)
    assert found["verdict"].tolist() == ["shared", "not shared"]
    half = table[(table["site"] == "layer0") | table["measure"].str.contains("transfer")]
    assert RUNGS["R6"].judged.select(half)["verdict"].tolist() == ["shared", "shared"]
    old = table[table["measure"].str.contains("transfer")].reset_index(drop=True)
    pd.testing.assert_frame_equal(RUNGS["R6"].judged.select(old), old)
    beside = {one.key: one.select(table)["index"].tolist() for one in RUNGS["R6"].beside[:2]}
    assert beside == {"R6 kept": [0.9, 0.9], "R6 knocked out": [0.8, 0.0]}


def test_r1_is_judged_in_the_domain_of_each_pair_that_is_harder_to_read() -> None:
    """At one site all three domains are read, at another two: every pair that there is, once."""
    read = {("low", "A"): 0.9, ("low", "B"): 0.6, ("low", "C"): 0.1, ("high", "A"): 0.5,
            ("high", "C"): 0.8}  # fmt: skip
    rows = [
        {"site": site, "train_domain": domain, "domain": domain, "centred": False, "value": value,
         "low": value - 0.05, "high": value + 0.05, "null": 0.1, "p": 0.5, "n_units": 20,
         "n_drawings": 200}
        for (site, domain), value in read.items()
    ]  # fmt: skip
    found = RUNGS["R1"].judged.select(pd.DataFrame(rows))
    told = {
        (row.site, row.domain_a, row.domain_b): (row.domain, row.verdict)
        for row in found.itertuples()
    }
    assert told == {
        ("low", "A", "B"): ("B", "shared"),
        ("low", "A", "C"): ("C", "not shared"),
        ("low", "B", "C"): ("C", "not shared"),
        ("high", "A", "C"): ("A", "shared"),
    }
    assert len(found) == len(told)
