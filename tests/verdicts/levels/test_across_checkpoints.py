"""The verdict across checkpoints on made studies: words, conditions, what would decide."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.core.errors import DataError, SpecificationError
from interp.core.statistics.correlations import Link
from interp.core.tables import COLUMNS
from interp.verdicts.levels.across_checkpoints import Verdict, from_tables, verdict
from interp.verdicts.wording import disagreement, judge_link, licence
from tests.verdicts.made_studies import ClassWorld, World


def told(world: World, seed: int = 0, classes: pd.DataFrame | None = None, **more: Any) -> Verdict:
    return verdict(world.runs(np.random.default_rng(seed), **more), classes, n_permutations=999)


def row(found: Verdict, level: str, adjusted: str = "") -> Any:
    frame = found.table.frame
    return frame[(frame["level"] == level) & (frame["adjusted"] == adjusted)].iloc[0]


LINKED = World(mixtures=14, blocks=6, l1=0.97, l2=0.7, own=0.2)
CLASSES = ClassWorld(link=0.6)


def test_links_at_every_level_are_said_in_the_words_of_their_level() -> None:
    found = told(LINKED, classes=CLASSES.rows(np.random.default_rng(0)))
    for level, words in (
        ("L1", "across mixtures, generalization goes with sharing"),
        ("L2", "within a mixture, generalization goes with sharing"),
        ("L3", "classes that are shared more are recognised better"),
    ):
        assert row(found, level)["verdict"] == "goes together", found.sentence(level)
        assert words in found.sentence(level)
        assert found.needed(level) == row(found, level)["reason"] == ""
        assert "because" not in found.sentence(level)
    assert found.headline == ""


def test_a_link_against_is_said_so() -> None:
    against = replace(LINKED, l1=-0.97, l2=-0.7)
    found = told(against, classes=ClassWorld(link=-0.6).rows(np.random.default_rng(0)))
    assert [row(found, level)["verdict"] for level in ("L1", "L2", "L3")] == ["goes against"] * 3
    assert "recognised worse" in found.sentence("L3")


def test_opposite_signs_are_the_headline() -> None:
    """Simpson: mixtures that share more do better, and of their runs those that share less."""
    found = told(replace(LINKED, l2=-0.7))
    assert row(found, "L1")["verdict"] == "goes together"
    assert row(found, "L2")["verdict"] == "goes against"
    assert "with sharing across mixtures, but against it within a mixture" in found.headline
    undecided = found.table.frame.assign(verdict="unknown")
    assert disagreement(undecided) == ""


def test_no_link_is_told_from_none_seen() -> None:
    many = World(mixtures=12, blocks=24, noise=1.0)
    found = told(many, seed=1, classes=replace(CLASSES, link=0.0).rows(np.random.default_rng(0)))
    assert row(found, "L2")["verdict"] == row(found, "L3")["verdict"] == "does not go together"
    assert "neither better nor worse" in found.sentence("L3")
    assert row(found, "L1")["verdict"] == "unknown"  # 12 mixtures cannot show that nothing is


@pytest.mark.long
@pytest.mark.slow
def test_false_links_are_rare() -> None:
    """Over levels and studies without any link; and with one they are not."""
    said = {"none": 0, "some": 0}
    for seed in range(40):
        for name, world in (
            ("none", World(mixtures=9, blocks=6)),
            ("some", World(mixtures=9, blocks=6, l1=0.95, l2=0.6, own=0.2)),
        ):
            found = verdict(world.runs(np.random.default_rng(seed)), n_permutations=199)
            words = found.table.frame[found.table.frame["level"].isin(["L1", "L2"])]["verdict"]
            said[name] += int(words.isin(["goes together", "goes against"]).sum())
    assert said["none"] <= 8 and said["some"] >= 56  # of 80; .999 quantile of a rate of .05


@pytest.mark.parametrize(
    ("world", "level", "why"),
    [
        (replace(LINKED, mixtures=4), "L1", "4 mixtures, at least 8"),
        (replace(LINKED, blocks=2), "L2", "2 blocks, at least 3"),
        (replace(LINKED, l1=0.0, mixtures=9), "L1", "holds both 0 and"),
    ],
)
def test_the_failing_condition_is_named(world: World, level: str, why: str) -> None:
    found = told(world)
    assert row(found, level)["verdict"] == "unknown"
    assert why in row(found, level)["reason"]
    assert row(found, level)["needed"] and row(found, level)["needed"] in found.sentence(level)
    assert "is unknown" in found.sentence(level)


def test_noise_hides_a_link_and_makes_none() -> None:
    for world, level in ((replace(LINKED, drawings=0.9), "L2"), (replace(LINKED, noise=4.0), "L1")):
        found = row(told(world), level)
        assert found["reliability"] < 0.6 and found["verdict"] == "goes together"
    none = Link(0.0, -0.2, 0.2, 0.9, {"block": 9}, {"block": 3}, reliability=0.9)
    assert judge_link(none, 1.0)[0] == "does not go together"
    for noisy in (replace(none, reliability=0.5), replace(none, reliability=float("nan"))):
        verdict_, reason = judge_link(noisy, 1.0)
        assert verdict_ == "unknown" and "reliability" in reason
    # at a reliability of .64 a link of .3 is seen as one of .24
    assert judge_link(replace(none, reliability=0.64), 1.0)[0] == "does not go together"
    assert judge_link(replace(none, high=0.25, reliability=0.64), 1.0)[0] == "unknown"


def test_a_sign_that_one_mixture_carries_is_no_sign() -> None:
    sure = {"mixture": 10}
    link = Link(0.6, 0.2, 0.8, 0.01, sure, {"mixture": 8}, reliability=0.9, flips="cg-high")
    assert judge_link(link, 0.02) == ("unknown", "the sign is another without cg-high")
    assert judge_link(replace(link, flips=""), 0.02)[0] == "goes together"
    assert judge_link(replace(link, flips=""), 0.06)[0] == "unknown"
    assert judge_link(replace(link, low=-0.1, high=0.2), 0.9) == ("does not go together", "")
    assert (
        judge_link(replace(link, narrow="sharing spreads little", flips=""), 0.02)[0] == "unknown"
    )


def test_outlier_mixture_flips_the_sign() -> None:
    runs = World(mixtures=9, l1=-0.9, noise=0.1, own=0.1).runs(np.random.default_rng(0))
    one = runs["setting"] == "mixture 3"
    runs.loc[one, ["index", "accuracy"]] += 100
    blocks = verdict(runs, n_permutations=99).table.frame
    link = blocks[blocks["level"] == "L2"].iloc[0]
    assert link["verdict"] == "unknown"
    assert set(verdict(runs, n_permutations=99).together.frame["n_runs"]) == {3}


def test_models_that_a_level_leaves_out_are_not_counted() -> None:
    """L2 loses a block of three mixtures for one run; one of natural pictures is one model."""
    runs = World(mixtures=3, blocks=6).runs(np.random.default_rng(0))
    runs["setting"] = runs["setting"].replace({"mixture 0": "natural-only"})
    gap = (runs["setting"] == "mixture 1") & (runs["seed"] == 2)
    runs.loc[runs.index[gap][0], "index"] = np.nan
    found = verdict(runs, n_permutations=99)
    domains = runs["test_domain"].nunique()
    assert row(found, "L1")["n_runs"] == 6 + 2 * 6 * domains - 2  # block 2 of one domain
    assert row(found, "L2")["n_runs"] == 5 + 2 * 5 * domains
    assert row(found, "L2")["n_units"] == 5
    whole = verdict(runs[runs["seed"] != 2], n_permutations=99)
    for name in ("value", "p", "gain"):
        assert row(found, "L2")[name] == pytest.approx(row(whole, "L2")[name])


def test_mixtures_without_a_block_in_common_are_told_as_such() -> None:
    """Each mixture has blocks of its own: no number, and what it takes to have one."""
    runs = World(mixtures=9, blocks=2).runs(np.random.default_rng(0))
    other = runs["setting"].isin(["mixture 0", "mixture 1"]) == (runs["seed"] == 0)
    found = verdict(runs[~other], n_permutations=99)
    own = row(found, "L1")
    assert np.isnan(own["value"]) and "without a block in common" in own["reason"]
    assert own["needed"] == "at least 8 mixtures"


def test_a_number_held_constant_takes_a_common_cause_out() -> None:
    """Seen-class accuracy makes both: adjusted for it nothing is left, and there is no gain."""
    generator = np.random.default_rng(3)
    runs = World(mixtures=14, blocks=3, noise=0.2).runs(generator)
    cause = runs["setting"].map(
        dict(zip(runs["setting"].unique(), generator.normal(size=14), strict=True))
    )
    runs["accuracy_seen"] = cause + 0.01 * generator.normal(size=len(runs))
    for name in ("index", "half_1", "half_2", "accuracy"):
        runs[name] = 0.3 * runs[name] + 3 * cause
    found = verdict(runs, n_permutations=999)
    assert row(found, "L1")["verdict"] == "goes together"
    adjusted = row(found, "L1", "accuracy of seen classes")
    assert adjusted["verdict"] == "unknown" and abs(adjusted["value"]) < 0.6
    assert row(found, "L1")["gain"] < 0.01
    if row(found, "L1")["gain"] <= 0:
        assert "adds nothing" in found.sentence("L1")


def test_rungs_are_one_family_within_a_level_and_never_across() -> None:
    runs = [World(l1=0.8).runs(np.random.default_rng(s)).assign(measure=f"m{s}") for s in range(3)]
    frame = verdict(pd.concat(runs), n_permutations=499).table.frame
    for _, rows in frame.groupby("level"):
        assert len(set(rows["family"])) == 1
        p = rows["p"].dropna().sort_values().to_numpy()
        adjusted = rows["p_adjusted"].dropna().sort_values().to_numpy()
        if len(p):
            assert adjusted[0] == pytest.approx(min(1, 3 * p[0]))


def test_more_mixtures_decide_as_foretold() -> None:
    """The named number of mixtures does decide, four times in five."""
    world = World(mixtures=8, blocks=4, l1=0.75, noise=0.3, own=0.3)
    link = next(
        found
        for seed in range(20)
        for found in [row(told(world, seed), "L1")]
        if found["verdict"] == "unknown" and 0.5 < found["value"] < 0.8
    )
    assert "mixtures" in link["needed"]
    many = int(link["needed"].split()[0].replace("more", "40"))
    assert many > 8
    decided = [row(told(replace(world, mixtures=many), seed), "L1") for seed in range(10)]
    assert np.mean([each["low"] > 0 for each in decided]) > 0.6


def test_cells_say_their_means_and_intervals() -> None:
    runs = World(mixtures=3, blocks=4).runs(np.random.default_rng(0))
    cell = verdict(runs, n_permutations=99).together.frame.iloc[0]
    own = runs[(runs["setting"] == cell["setting"]) & (runs["test_domain"] == cell["test_domain"])]
    half = 3.1824463 * own["accuracy"].std() / 2  # t with 3 degrees of freedom
    assert cell["accuracy"] == pytest.approx(own["accuracy"].mean())
    assert cell["accuracy_high"] - cell["accuracy"] == pytest.approx(half, rel=1e-4)
    assert cell["n_runs"] == 4 and cell["unit"] == "block"


def test_one_of_everything_is_answered_with_what_is_missing() -> None:
    alone = World(mixtures=1, domains=1, blocks=1)
    found = told(alone)
    assert set(found.table.frame["verdict"]) == {"unknown"}
    assert "1 mixture" in row(found, "L1")["reason"] and "1 block" in row(found, "L2")["reason"]
    assert found.needed("L1").startswith("at least 8 mixtures")
    default = told(World(mixtures=4, domains=1, blocks=1))
    assert "4 mixtures" in row(default, "L1")["reason"]
    assert default.needed("L2") == "at least 3 blocks, 6 or more where they can be had"
    same = told(World(mixtures=9), accuracy=0.5)
    assert "the same for all" in row(same, "L1")["reason"]
    assert set(found.table.frame.columns) <= set(COLUMNS)


def test_what_cannot_be_read_is_refused() -> None:
    runs = World().runs(np.random.default_rng(0))
    with pytest.raises(DataError, match="without accuracy"):
        verdict(runs.drop(columns="accuracy"))
    with pytest.raises(DataError, match="rows more than models"):
        verdict(pd.concat([runs, runs]))
    with pytest.raises(DataError, match="sharing"):
        verdict(runs, pd.DataFrame({"setting": ["a"]}))
    found = verdict(runs, n_permutations=9)
    with pytest.raises(SpecificationError, match="level"):
        found.sentence("L7")
    with pytest.raises(SpecificationError, match="R3"):
        found.sentence("L1", "R6")
    with pytest.raises(DataError, match="accuracy among"):
        from_tables({})
    assert interp.verdict is interp.verdict is verdict


def test_only_an_intervention_says_because() -> None:
    for words in ("goes together", "goes against", "does not go together", "unknown"):
        assert all("because" not in licence(level, words) for level in ("L1", "L2", "L3"))
    assert all("because" in licence("L4", words) for words in ("goes together", "goes against"))


def tables() -> dict[str, pd.DataFrame]:
    """Two mixtures, one block: indices that only the right rows give."""
    place = [{"setting": s, "test_domain": "sketch", "seed": 0} for s in ("a", "b")]
    own = {"domain_a": "real", "domain_b": "sketch", "measure": "debiased CKA", "control": ""}
    own |= {"verdict": "", "reason": "", "n_units": 8, "index_low": 0.0, "index_high": 1.0}
    sites = [("layer1", 0.4, 0.2), ("layer2", 0.6, 0.4), ("layer3", 0.9, 9.0)]
    sites += [("hook_embedding", 0.5, 9.0)]
    shared = [
        at | own | {"site": site, "depth": depth, "index": index + 0.1 * n}
        for n, at in enumerate(place)
        for site, depth, index in sites
    ]
    other = [one | {"domain_b": "clipart", "index": 9.0} for one in shared]
    floor = [one | {"setting": "", "control": "epoch 0", "index": 0.05} for one in shared[:4]]
    asked = {"candidates": "all", "prompts": "neutral", "classifier": "text", "control": ""}
    asked |= {"measure": "balanced top-1", "n_runs": 1, "low": 0.1, "high": 0.9}
    reached = [
        at | asked | {"domain": domain, "class_set": which, "value": value + 0.01 * n}
        for n, at in enumerate(place)
        for domain, which, value in (
            ("sketch", "held-out", 0.3), ("sketch", "seen", 0.5), ("real", "held-out", 0.7),
        )
    ]  # fmt: skip
    wrong = [one | {"prompts": "paper"} for one in reached] + [
        one | {"n_runs": 2} for one in reached
    ]
    return {
        "similarity": pd.DataFrame([*shared, *other, *floor]),
        "accuracy": pd.DataFrame([*reached, *wrong]),
    }


def test_frames_are_made_from_the_middle_layers_and_the_primary_question() -> None:
    runs, classes = from_tables(tables())
    assert classes.empty and len(runs) == 2
    assert runs["index"].tolist() == pytest.approx([0.3, 0.4])
    assert runs["epoch_0"].tolist() == pytest.approx([0.05, 0.05])
    assert runs["accuracy"].tolist() == pytest.approx([0.3, 0.31])
    assert runs["accuracy_seen"].tolist() == pytest.approx([0.5, 0.51])
    assert runs["accuracy_natural"].tolist() == pytest.approx([0.7, 0.71])


def test_across_mixtures_both_parts_of_accuracy_are_asked_where_they_are_known() -> None:
    """Knowing goes with sharing here, the bias does not: the sum of both is no question."""
    runs = LINKED.runs(np.random.default_rng(0))
    noise = np.random.default_rng(1).normal(size=len(runs))
    found = verdict(runs.assign(knowing=runs["accuracy"], bias=noise), n_permutations=199)
    rows = found.table.frame.query("level == 'L1' and adjusted == ''").set_index("outcome")
    assert rows["verdict"].to_dict() == {"knowing": "goes together", "bias": "unknown"}
    assert rows.loc["bias", "family"].startswith("L1 over rungs of bias")
    assert "across mixtures, knowing held-out classes goes with" in found.sentence("L1")
    assert "the bias against held-out classes" in found.sentence("L1", outcome="bias")
    assert set(found.table.frame.query("level == 'L2'")["outcome"]) == {"accuracy"}


def test_the_parts_of_accuracy_are_those_of_the_neutral_prompt_in_the_test_domain() -> None:
    given = tables()
    here = {"test_domain": "sketch", "domain": "sketch", "seed": 0, "prompts": "neutral"}
    known = here | {"measure": "balanced top-1", "calibration": "among held-out classes"}
    said = here | {"measure": "excess bias", "calibration": ""}
    given["decision_bias"] = pd.DataFrame(
        [
            row | {"setting": setting, "control": "", "value": number + shift} | other
            for setting, shift in (("a", 0.0), ("b", 0.1))
            for row, number in ((known, 0.8), (said, 3.0))
            for other in ({}, {"domain": "real", "value": 9.0}, {"prompts": "paper", "value": 9.0})
        ]
    )
    runs, _ = from_tables(given)
    assert runs["knowing"].tolist() == pytest.approx([0.8, 0.9])
    assert runs["bias"].tolist() == pytest.approx([3.0, 3.1])


def test_classes_meet_their_own_accuracy() -> None:
    given = tables()
    labels = [f"class {n}" for n in range(4)]
    at = {"setting": "a", "test_domain": "sketch", "seed": 0}
    given["class_sharing"] = pd.DataFrame(
        at | {"label": label, "measure": "cosine", "beyond": 0.1 * n, "half_1": 0.2, "half_2": 0.4}
        | {"class_set": "held-out" if n < 2 else "seen"}
        for n, label in enumerate(labels)
    )  # fmt: skip
    asked = {"candidates": "all", "prompts": "neutral", "classifier": "text", "control": ""}
    given["accuracy_by_class"] = pd.DataFrame(
        at | asked | {"label": label, "domain": domain, "value": n + (domain == "real")}
        | {"class_set": "held-out" if n < 2 else "seen"}
        for n, label in enumerate(labels)
        for domain in ("sketch", "real", "clipart")
    )  # fmt: skip
    _, classes = from_tables(given)
    assert classes["label"].tolist() == labels[:2]
    assert classes["sharing"].tolist() == pytest.approx([0.0, 0.1])
    assert classes["accuracy"].tolist() == [0, 1]
    assert classes["accuracy_natural"].tolist() == [1, 2]


def test_directions_bring_the_halves_of_their_own_sites() -> None:
    """Those of the pair in the middle layers, of both kinds of direction; not of the embedding."""
    given = tables()
    kinds = ("cosine of LDA directions", "cosine of mean differences")
    rows = given["similarity"].assign(p=0.5, half_1=given["similarity"]["index"], half_2=0.2)
    given["directions"] = pd.concat(
        [rows.assign(measure=kind, half_2=0.2 * n) for n, kind in enumerate(kinds, start=1)]
    )
    runs = from_tables(given)[0].set_index(["measure", "setting"])
    for kind, half_2 in zip(kinds, (0.2, 0.4), strict=True):
        assert runs.loc[kind, "half_1"].tolist() == pytest.approx([0.3, 0.4])
        assert runs.loc[kind, "half_2"].tolist() == pytest.approx([half_2] * 2)
    assert runs.loc["debiased CKA", "half_1"].isna().all()
    given["similarity"] = rows.assign(half_2=0.6)
    runs = from_tables(given)[0].set_index(["measure", "setting"])
    assert runs.loc["debiased CKA", "half_1"].tolist() == pytest.approx([0.3, 0.4])
    assert runs.loc["debiased CKA", "half_2"].tolist() == pytest.approx([0.6, 0.6])


def test_a_table_of_directions_without_rows_has_no_halves() -> None:
    given = tables()
    empty = given["similarity"].iloc[:0].assign(half_1=0.0, half_2=0.0)
    runs, _ = from_tables(given | {"directions": empty})
    assert len(runs) == 2 and runs["half_1"].isna().all()


def test_older_tables_have_halves_of_mean_differences_over_seen_classes() -> None:
    given = tables()
    given["directions"] = given["similarity"].assign(measure="cosine of mean differences")
    at = {"test_domain": "sketch", "seed": 0, "label": "cat"}
    given["class_sharing"] = pd.DataFrame(
        at | {"setting": s, "class_set": which, "half_1": half, "half_2": 2 * half}
        for s in ("a", "b")
        for which, half in (("seen", 0.1), ("seen", 0.3), ("held-out", 0.9))
    )
    runs = from_tables(given)[0].set_index(["measure", "setting"])
    assert runs.loc["cosine of mean differences", "half_1"].tolist() == pytest.approx([0.2, 0.2])
    assert runs.loc["cosine of mean differences", "half_2"].tolist() == pytest.approx([0.4, 0.4])


def test_a_measure_without_any_index_says_so() -> None:
    runs = pd.DataFrame(
        {
            "setting": ["a", "b"], "test_domain": "sketch", "seed": 0, "rung": "R2",
            "measure": "CKA", "index": np.nan, "accuracy": [0.1, 0.2],
        }
    )  # fmt: skip
    table = verdict(runs, n_permutations=99).table.frame
    asked = table[table["level"].isin(["L1", "L2"])]
    assert set(asked["verdict"]) == {"unknown"} and len(asked) == 2
    assert asked["reason"].str.contains("no model has index").all() and asked["needed"].all()
