"""Numeric tables of the finished studies, written to docs/tables from the kept tables.

`large/findings/STUDY` has what is kept of a study's runs. Nothing is trained. docs/findings.md is
written by hand, with the numbers of these tables.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.statistics.correlations import spearman
from interp.core.statistics.index_of_sharing import LEVEL
from interp.core.statistics.replication import mean_t
from interp.core.statistics.resampling import holm
from interp.data.mixtures.settings import is_upper_bound
from interp.models import differences
from interp.models.evaluation.learning import trained_models
from tests.benchmarks import predictions, saying

KEPT = Path(__file__).parent / "large" / "findings"
TABLES = Path(__file__).parents[2] / "docs" / "tables"
INTERVENED = {"pilot": 1.0, "cause": 1.0, "gentle": 0.1}
"""Studies in which classes were aligned, and the weight of the term."""

CLAIMS = {
    ("leave-out-domain", "natural-only"): 1,
    ("cg-high", "cg-low"): 2,
    ("leave-out-domain", "cg-high"): 3,
    ("cg-high, half class overlap", "cg-high"): 4,
    ("cg-high, aligned captions", "cg-high"): 5,
    ("leave-out-domain, sketch", "leave-out-domain, quickdraw"): 6,
    ("cg-high, sketch", "cg-high, quickdraw"): 0,
    ("cg-high, aligned captions", "leave-out-domain"): 0,
    ("cg-high, 25 % of the seen cells", "cg-high"): 0,
    ("cg-high", "natural-only"): 0,
}
"""The planned family of docs/large_study.md by number; below it contrasts that were not planned."""

RUN = ["setting", "test_domain", "seed"]
BOTH, HELD_OUT = "both", "accuracy of held-out classes"
N_CLASSES = 40
WORTH = 0.05
"""A difference of accuracy worth having: five points."""

ENDS = ["value", "low", "high"]
CLAIM = "claim contrast candidates test_domain value low high p p_adjusted paired_low paired_high"
LINK = "level rung measure adjusted value low high p p_adjusted n_units n_runs reliability verdict"
CAUSE = "measure arm weight value low high p paired_low paired_high n_blocks n_runs"
PREDICTED = "predictor level value low high p p_adjusted foretold n_units n_runs"
PROGRESS = "rung measure trained value low high lead lead_low lead_high n_units n_runs"

Study = Mapping[str, pd.DataFrame]


def findings() -> str:
    """Write every table of numbers as CSV; return how many rows each has."""
    TABLES.mkdir(exist_ok=True)
    made = tables()
    for name, frame in made.items():
        frame.to_csv(TABLES / f"{name}.csv", index=False, float_format="%.5g")
    return "\n".join(f"{name}: {len(frame)} rows" for name, frame in made.items())


def tables() -> dict[str, pd.DataFrame]:
    """Every table by its name: what a row is of first, then its numbers."""
    studies = {path.name: read(path) for path in sorted(KEPT.iterdir())}
    weak, strong, twin = (studies[name] for name in ("weak", "strong", "twin"))

    def of_each(names: str, make: Callable[[Study], pd.DataFrame]) -> pd.DataFrame:
        parts = {name: make(studies[name]) for name in names.split()}
        return pd.concat(parts, names=["study"]).reset_index("study")

    asked = "pilot weak strong vit"
    labels = twin["labels_levels"][LINK.split()].assign(study="twin, labels")
    links = of_each("pilot weak strong vit twin", lambda own: own["levels"][LINK.split()])
    aligned = [
        causes(studies[name], weight).assign(study=name) for name, weight in INTERVENED.items()
    ]
    return {
        "accuracy": of_each(asked, accuracy),
        "claims": of_each(asked, lambda own: claims(own["answers"])),
        "claims_by_blocks": of_each("weak strong", lambda own: own["claims_by_blocks"]),
        "blocks_needed": of_each("weak strong vit", lambda own: own["blocks_needed"]),
        "errors": of_each(asked, errors),
        "links": pd.concat([links, labels]),
        "links_by_blocks": of_each("weak strong vit", lambda own: own["links"]),
        "links_without_a_mixture": of_each("weak strong", lambda own: own["without_a_mixture"]),
        "predictors": weak["foretelling"][PREDICTED.split()],
        "shared": of_each("weak strong vit", lambda own: shared(own["runs"])),
        "domains_apart": domains_apart(weak["runs"]),
        "mixtures_apart": of_each("weak strong", lambda own: own["mixtures_apart"]),
        "epochs": strong["lead_and_lag"][PROGRESS.split()].dropna(subset=["lead"]),
        "classes": classes(weak["classes"]),
        "classes_agreement": agreement(weak["classes"]),
        "units": units(strong["units"]),
        "features": features(strong),
        "causes": pd.concat(aligned)[["study", *CAUSE.split(), "verdict"]],
        "language": language(twin),
        "language_by_mixture": labels_by_mixture(twin["labels_runs"], strong["runs"]),
        "photographs": of_each("strong vit", lambda own: photographs(own, studies["vit"])),
        "saying": saying.table(),
        "predictions": predictions.table(),
        "halves": of_each("weak strong twin vit cause gentle", lambda own: halves(own["halves"])),
    }


def read(folder: Path) -> Study:
    """The kept tables of a study; answers and runs without models that did not learn.

    Such a model has no index of sharing at all, and nothing is judged for it.
    """
    words = ("control", "adjusted", "reason", "needed", "setting", "rung")
    frames = {}
    for path in sorted(folder.glob("*.csv")):
        frame = pd.read_csv(path, low_memory=False, dtype=dict.fromkeys(words, str))
        frames[path.stem] = frame.fillna({word: "" for word in words if word in frame})
    if "runs" in frames:
        known = frames["runs"].groupby(RUN)["index"].count()
        lost = known.index[known == 0]
        for name in ("answers", "runs"):
            here = pd.MultiIndex.from_frame(frames[name][RUN])
            frames[name] = frames[name][~here.isin(lost)]
    return frames


def accuracy(own: Study) -> pd.DataFrame:
    """Mean accuracy of held-out classes, blocks alike; of both test domains the mean of means."""
    keys = ["candidates", "setting", "test_domain"]
    means = own["answers"].groupby([*keys, "seed"])["value"].mean().groupby(keys)
    rows = means.agg(accuracy="mean", n_blocks="count").reset_index()
    if "alone" in own:  # kept as means of three blocks
        alone = own["alone"].rename(columns={"value": "accuracy"})
        rows = pd.concat([rows, alone.assign(candidates="held-out", n_blocks=3)])
    both = rows.groupby(keys[:2]).agg({"accuracy": "mean", "n_blocks": "min"}).reset_index()
    return pd.concat([rows, both.assign(test_domain=BOTH)]).sort_values(keys, kind="stable")


def claims(answers: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of mixtures, over both test domains and in each, and of domains in a mixture.

    `p_adjusted` is Holm's over the planned claims among all classes; these alone are decided.
    """
    rows = []
    for _, own in answers.groupby("candidates"):
        rows += _contrasts(own, dict.fromkeys(own["setting"], ""))
        apart = own.assign(setting=own["setting"] + ", " + own["test_domain"])
        apart["run"] = apart["setting"] + own["seed"].astype(str)
        # a domain that is hard in a block is hard for all mixtures: domains are kinds of their own
        kinds = dict(zip(apart["setting"], own["test_domain"], strict=True))
        rows += _contrasts(apart.assign(test_domain=BOTH, domain=BOTH), kinds)
    made = pd.DataFrame(rows).sort_values(["candidates", "test_domain"], kind="stable")
    family = (made["claim"] > 0) & (made["candidates"] == "all") & (made["test_domain"] == BOTH)
    made.loc[family, "p_adjusted"] = holm(made.loc[family, "p"].to_numpy(dtype=float))
    made.loc[~family, "p_adjusted"] = np.nan
    decisions = [decided(row) for row in made.to_dict("records")]
    return made[[*CLAIM.split(), "n_blocks", "n_runs"]].assign(decision=decisions)


def _contrasts(answers: pd.DataFrame, kinds: Mapping[str, str]) -> list[dict[str, object]]:
    """Every contrast whose mixtures are there; upper bounds are a kind of their own."""
    there = answers.groupby("setting")["seed"].agg(set).to_dict()
    pairs = [pair for pair in CLAIMS if set(pair) <= set(there)]
    kinds = {
        name: f"{kind} upper" if is_upper_bound(name) else kind for name, kind in kinds.items()
    }
    made = differences(answers, pairs, kinds=kinds)
    told = {
        f"{more} − {less}": (CLAIMS[more, less], len(there[more] & there[less]))
        for more, less in pairs
    }
    in_one = made["test_domain"].isin(answers["test_domain"])
    made = made.assign(
        contrast=made["setting"],
        claim=[told[name][0] for name in made["setting"]],
        n_blocks=[told[name][1] for name in made["setting"]],
        test_domain=made["test_domain"].where(in_one, BOTH),
    )
    return made.to_dict("records")


def decided(row: Mapping[str, float]) -> str:
    """What becomes of a planned claim that a difference is above zero.

    >>> decided({"value": 0.2, "high": 0.3, "p_adjusted": 0.01})
    'holds'
    >>> decided({"value": 0.01, "high": 0.04, "p_adjusted": 0.5})
    'does not hold'
    """
    if np.isnan(row["p_adjusted"]):
        return ""
    if row["p_adjusted"] < LEVEL:
        return "holds" if row["value"] > 0 else "the opposite holds"
    return "does not hold" if row["high"] < WORTH else "open"


def errors(own: Study) -> pd.DataFrame:
    """Of the errors on held-out classes, the share taken for seen classes, and by chance."""
    answers = own["answers"].query("candidates == 'all'").groupby(RUN)["value"]
    wrong, taken = 1 - answers.mean(), own["errors"].set_index(RUN)["value"]
    chance = (N_CLASSES - answers.size()) / (N_CLASSES - 1)
    rows = pd.DataFrame({"seen": taken / wrong.where(wrong > 0), "chance": chance}).dropna()
    means = rows.groupby("setting", sort=False)
    return means["seen"].agg(["mean", "min", "max"]).join(means["chance"].mean()).reset_index()


def shared(runs: pd.DataFrame) -> pd.DataFrame:
    """The index of middle layers: mean of mixtures, upper bounds aside, with the t of blocks."""
    runs = runs[~runs["setting"].map(is_upper_bound).astype(bool)]
    rows = []
    for (rung, measure), own in runs.groupby(["rung", "measure"]):
        known = own.dropna(subset=["index"])
        known = known if 2 * len(known) >= len(own) else known[:0]  # withheld in most
        blocks = known.groupby(["seed", "setting"])["index"].mean().groupby("seed").mean()
        counts = {"n_known": own["index"].count(), "n": len(own), "n_blocks": len(blocks)}
        rows.append({"rung": rung, "measure": measure, **_t(blocks), **counts})
    return pd.DataFrame(rows)


def _t(blocks: pd.Series) -> dict[str, float]:
    """The mean of blocks with its interval; nothing where there are none."""
    if blocks.empty:
        return dict.fromkeys(ENDS, np.nan)
    made = mean_t(blocks.to_numpy())
    return {"value": made.value, "low": made.low, "high": made.high}


def _quantities(runs: pd.DataFrame) -> pd.DataFrame:
    """Every run's accuracy of held-out classes and the index of every measure, one a row."""
    first = runs.drop_duplicates(RUN).assign(quantity=HELD_OUT, value=lambda f: f["accuracy"])
    rest = runs.assign(quantity=runs["rung"] + " " + runs["measure"], value=runs["index"])
    return pd.concat([part[[*RUN, "quantity", "value"]] for part in (first, rest)]).dropna()


def domains_apart(runs: pd.DataFrame) -> pd.DataFrame:
    """What sketch has more than quickdraw, mixture by mixture, paired by block."""
    keys = ["quantity", "setting"]
    wide = _quantities(runs).pivot(index=[*keys, "seed"], columns="test_domain", values="value")
    gap = (wide["sketch"] - wide["quickdraw"]).dropna().groupby(keys, sort=False)
    rows = {place: _t(part) | {"n_blocks": len(part)} for place, part in gap}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(keys).reset_index()


def classes(by_class: pd.DataFrame) -> pd.DataFrame:
    """What each class shares beyond others: mean, least and most over blocks, the most first."""
    made = by_class.groupby("label")["value"].agg(["mean", "min", "max", "count"])
    return made.sort_values("mean", ascending=False).reset_index()


def agreement(by_class: pd.DataFrame) -> pd.DataFrame:
    """Spearman's r of two blocks' order of classes, it and its ends averaged over pairs."""
    wide = by_class.pivot(index="label", columns="seed", values="value")
    pairs = [spearman(wide[one], wide[other]) for one, other in combinations(sorted(wide), 2)]
    rows = pd.DataFrame([{end: getattr(pair, end) for end in [*ENDS, "n"]} for pair in pairs])
    return rows.mean().to_frame().T.assign(n_pairs=len(pairs))


def units(made: pd.DataFrame) -> pd.DataFrame:
    """How many units are selective for a class where it was chosen, and in both domains."""
    chosen = np.where(made["domain_a"] == "real", "natural pictures", "test domain")
    roles = zip(made["role"], made["test_domain"], strict=True)
    role = [role.replace(f" {domain} ", " test domain ") for role, domain in roles]
    own = made.assign(chosen=chosen, role=role, told=made["p"] < LEVEL)
    unit = ["role", "chosen", *RUN, "feature", "label"]
    home = own[own["domain_a"] == own["domain_b"]].groupby(unit, sort=False)["told"].all()
    both = own.groupby(unit, sort=False)["told"].all()
    rows = pd.DataFrame({"selective": home, "in_both": both}).groupby(unit[:2], sort=False)
    return rows.sum().assign(n=rows.size()).reset_index()


def features(own: Study) -> pd.DataFrame:
    """What a class's features share, by code, and what features of both domains cost.

    The cost, in accuracy, is that of features used in both domains less that of as many used in
    photographs alone; `above` counts runs whose interval lies above 0.
    """
    codes = own["features"].drop(columns="value").rename(columns={"code": "of", "index": "value"})
    costs = own["ablated"].query("ablated == 'shared less private'").dropna(subset=["value"])
    rows = pd.concat([codes, costs.assign(of="cost", above=costs["low"] > 0)], ignore_index=True)
    means = rows.groupby(["setting", "of"], sort=False)
    above = means["above"].sum(min_count=1)
    return means["value"].agg(["mean", "min", "max", "count"]).assign(above=above).reset_index()


def causes(own: Study, weight: float) -> pd.DataFrame:
    """What aligned classes change, against wrong partners (shuffled) and against no term."""
    rows = own["intervention"]
    rows = rows[rows["arm"].str.contains(" − ") & (rows["weight"] == weight)]
    verdict = own["causes"].set_index("weight").loc[weight, "verdict"]
    return rows.assign(n_blocks=rows["n_runs"] // 2, verdict=verdict)


def language(twin: Study) -> pd.DataFrame:
    """Labels less captions by quantity, paired by block; p is Holm's over the rungs."""
    keys, ends = [*RUN, "quantity"], ["_captions", "_labels"]
    both = _quantities(twin["runs"]).merge(_quantities(twin["labels_runs"]), on=keys, suffixes=ends)
    rows = []
    for quantity, own in both.groupby("quantity", sort=False):
        gap = (own["value_labels"] - own["value_captions"]).groupby(own["seed"]).mean()
        means = {"captions": own["value_captions"].mean(), "labels": own["value_labels"].mean()}
        counts = {"n_blocks": len(gap), "n_models": 2 * trained_models(own).nunique()}
        p = {"p": stats.ttest_1samp(gap, 0).pvalue}
        rows.append({"quantity": quantity, **means, **_t(gap), **p, **counts})
    made = pd.DataFrame(rows)
    rungs = made["quantity"] != HELD_OUT
    return made.assign(p_adjusted=pd.Series(holm(made.loc[rungs, "p"]), made.index[rungs]))


def labels_by_mixture(labels: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """The same for accuracy, by mixture, against its own captions and against aligned ones."""
    of_labels, of_captions = (
        own.drop_duplicates(RUN).set_index(RUN)["accuracy"] for own in (labels, captions)
    )
    rows = []
    for setting in of_labels.index.unique("setting"):
        for against in (setting, f"{setting}, aligned captions"):
            if against in of_captions.index.unique("setting"):
                parts = {"captions": of_captions[against], "labels": of_labels[setting]}
                both = pd.DataFrame(parts).dropna()
                gap = (both["labels"] - both["captions"]).groupby("seed").mean()
                n = trained_models(both.reset_index().assign(setting=setting)).nunique()
                named = {"setting": setting, "captions_of": against}
                rows.append(
                    {**named, **both.mean(), **_t(gap), "n_blocks": len(gap), "n_models": 2 * n}
                )
    return pd.DataFrame(rows)


def photographs(own: Study, vit: Study) -> pd.DataFrame:
    """Accuracy of held-out classes in photographs over models of the ViT's mixtures."""
    runs = own["runs"].drop_duplicates(RUN)
    runs = runs[runs["setting"].isin(vit["runs"]["setting"])]
    means = runs.groupby(trained_models(runs))["accuracy_natural"].mean()
    return pd.DataFrame([{"accuracy": means.mean(), "n_models": len(means)}])


def halves(rows: pd.DataFrame) -> pd.DataFrame:
    """How many rows of all tables have p below 5 % between two halves of a study's blocks."""
    sums = rows[["tests", "below", "changed beyond noise"]].sum().to_dict()
    blocks = rows[["blocks_a", "blocks_b"]].iloc[0].to_dict()
    return pd.DataFrame([{**blocks, "tables": len(rows), **sums}])
