"""The studies of the large study: read from the tables of finished runs, and what is kept of them.

`large/NAME.toml` is a study, `large/NAME` has the tables of its finished runs, and
`large/findings/NAME` what its findings are made of.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from interp.core.arguments import spoken_numbers
from interp.core.statistics.index_of_sharing import LEVEL
from interp.data.mixtures.settings import is_upper_bound
from interp.models.evaluation.learned_models import trained_models
from interp.probes.galleries.unit_selectivity import FOR_CLASS
from tests.benchmarks import contrasts
from tests.benchmarks.grids import ASKED, HERE

LARGE = Path(__file__).parents[1] / "large"
KEPT = LARGE / "findings"
STUDIES = {
    "weak": "weak", "strong": "strong", "twin": "strong", "vit": "vit",
    "cause": "cause", "gentle": "gentle",
}  # fmt: skip
"""Every study, and the folder that the tables of its runs are in."""

INTERVENED = ("pilot", "cause", "gentle")
"""Studies in which classes are aligned; of the pilot alone anything else is kept."""

SUPERVISED = ", supervised"


def finished_blocks(name: str) -> int:
    """How many blocks of a study are finished, from the first on, by the files of their runs.

    The twin's have the strong study's captions beside their labels.
    """
    if name == "pilot":  # whose runs lie elsewhere
        return asked_blocks(name)
    blocks = Counter(runs(name).values())
    whole, asked = 0, runs_of_a_block(name)
    while blocks[whole] == asked:
        whole += 1
    return min(whole, finished_blocks("strong")) if name == "twin" else whole


def runs(name: str) -> dict[str, int]:
    """The folders of a study's own finished runs, each with its block."""
    found = {}
    for path in sorted((LARGE / STUDIES[name]).glob("*/run.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["architecture"].endswith(SUPERVISED) == (name == "twin"):
            found[path.parent.name] = int(about["seed"])
    return found


def runs_of_a_block(name: str) -> int:
    """How many runs a block of a study is to have in its folder."""
    from interp.study.specification import Specification

    spec = Specification.from_toml(LARGE / f"{name}.toml")
    arms = len(spec.intervention.arms) if spec.intervention.setting else 0
    return len(spec.mixtures.test_domains) * (len(spec.mixtures.settings) + arms)


def asked_blocks(name: str) -> int:
    """How many blocks a study is to have; the twin's end with the sixth."""
    from interp.study.specification import Specification

    if name == "pilot":
        return 3
    return 6 if name == "twin" else Specification.from_toml(LARGE / f"{name}.toml").blocks


def held_out_in(name: str) -> str:
    """How many classes a block of a study holds out from its test domain.

    >>> held_out_in("weak"), held_out_in("cause")
    ('5', '3 or 4')
    """
    from interp.study.specification import Specification

    spec = Specification.from_toml(LARGE / f"{name}.toml")
    least, more = divmod(spec.images.n_classes, spec.folds or spec.blocks)
    return f"{least} or {least + 1}" if more else f"{least}"


def is_kept(name: str) -> bool:
    """Whether what is kept of a study was read from the runs that are finished now, as now."""
    path = KEPT / name / "read_from.txt"
    return path.exists() and path.read_text(encoding="utf-8") == read_from(name)


READING = 8
"""Raise where what is kept of a study changes, so that it is read again."""


Tables: TypeAlias = Mapping[str, Mapping[str, pd.DataFrame]]
"""Every study's tables, by name."""


def read_from(name: str) -> str:
    """The runs of a study's finished blocks, and how they are read."""
    n = finished_blocks(name)
    own = [run for run, block in runs(name).items() if block < n]
    return "\n".join([f"reading {READING}", *own]) + "\n"


def command(name: str, some: range | None = None) -> str:
    """The command that makes a study's page from the tables of its finished blocks, or of some."""
    verb = "grid" if name in INTERVENED else "run"
    blocks = spoken_numbers(some or range(finished_blocks(name)))
    return (
        f"interp-report {verb} tests/benchmarks/large/{name}.toml --tables "
        f"tests/benchmarks/large/{STUDIES[name]} --blocks {blocks}"
    )


def read(name: str, blocks: range | None = None) -> Any:
    """The result of a study's finished blocks (or some), from the tables of their runs alone."""
    from interp.study.studies import Study

    if not finished_blocks(name):
        raise ValueError(f"no block of {name} is finished")

    study = Study.from_toml(LARGE / f"{name}.toml")
    carry_out = study.grid if name in INTERVENED else study.run
    asked = blocks or range(finished_blocks(name))
    part = f"-{spoken_numbers(asked)}" if blocks else ""
    return carry_out(
        Path("interp-report") / "large" / f"{name}{part}",
        tables=LARGE / STUDIES[name],
        blocks=asked,
        command=command(name, asked),
    )


def first_block(name: str) -> Any:
    """The first block of a study; its pictures are drawn when they are asked for."""
    from interp.study.blocks import open_blocks
    from interp.study.specification import Specification

    spec = Specification.from_toml(LARGE / f"{name}.toml")
    return open_blocks(spec, rendered=False, numbers=[0])[0]


def halves(name: str) -> pd.DataFrame:
    """How many rows of each table differ beyond noise between two halves of a study's blocks."""
    from interp.study.comparing.row_by_row import compare_results

    n = finished_blocks(name)
    parts = range(n // 2), range(n // 2, n)
    found = compare_results(*(read(name, part) for part in parts))
    p = found.table.frame.dropna(subset=["p"]).groupby("table")["p"]
    counts = found.counts().assign(tests=p.size(), below=p.agg(lambda own: (own < LEVEL).sum()))
    told = {"blocks_a": spoken_numbers(parts[0]), "blocks_b": spoken_numbers(parts[1])}
    return counts.fillna({"tests": 0, "below": 0}).reset_index().assign(**told)


LEAST_OF_HALVES = 4
"""Of fewer blocks, a half has one, whose spread nobody knows."""


def kept(result: Any) -> dict[str, pd.DataFrame]:
    """What findings are made of, from a study's result: a few small tables.

    `answers`: accuracy of every held-out class in its test domain; `errors`: pictures of these that
    are taken for seen classes. `runs`: what every run shares, beside its accuracies; `profile`: the
    same by layer; `classes`: by class; `units`: what single units tell; `features`: what a
    dictionary's features share, `ablated` what their removal costs. `epochs`: accuracy and
    sharing of earlier epochs. `levels`, `foretelling`, `lead_and_lag` and what an intervention
    found. Of runs that learned labels `labels_runs` and `labels_levels`.
    """
    from interp.verdicts.levels.across_checkpoints import from_tables

    frames = {name: table.frame for name, table in result.tables.items()}
    made = {
        "answers": of_classes(frames["accuracy_by_class"]),
        "errors": errors(frames["accuracy"]),
    }
    if "rungs" in frames:
        made["runs"] = from_tables(frames)[0]
        made["profile"] = _own_pair(frames["rungs"])
    if "class_sharing" in frames:
        made["classes"] = _of_each_class(frames["class_sharing"])
    if "unit_galleries" in frames:
        made["units"] = _told_by_units(frames["unit_galleries"])
    if "feature_sharing" in frames:
        made["features"] = _of_runs(frames["feature_sharing"].query(FEATURES), SHARED)
        made["ablated"] = _of_runs(frames["feature_ablation"].query(ABLATED), COSTS)
    if "epochs" in frames:
        made["epochs"] = _accuracy_by_epoch(frames["epochs"])
    if "rungs_by_epoch" in frames:
        made["rungs_by_epoch"] = _own_pair(frames["rungs_by_epoch"])
    same = ("levels", "foretelling", "lead_and_lag", "intervention")
    made |= {name: frames[name] for name in same if name in frames}
    if "intervention" in made:
        made["causes"] = made.pop("levels")
    for labelled in map(kept, result.replications):
        made |= {f"labels_{name}": labelled[name] for name in ("runs", "levels")}
    return made


def of_classes(by_class: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of held-out classes in the test domain, with the run that each row is of."""
    frame = by_class.fillna({"control": ""})
    here = (frame["domain"] == frame["test_domain"]) & (frame["class_set"] == "held-out")
    asked = (frame["prompts"] == "neutral") & (frame["classifier"] == "text")
    own = frame[(frame["control"] == "") & here & asked].reset_index(drop=True)
    return own.assign(run=trained_models(own))[ANSWERS]


def errors(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The share of held-out classes' pictures that every run takes for seen classes."""
    asked = accuracy.query(ASKED).fillna({"control": ""})
    asked = asked[(asked["control"] == "") & (asked["measure"] == "held-out taken for seen")]
    own = asked[(asked["domain"] == asked["test_domain"]) & (asked["n_runs"] == 1)]
    return own[["setting", "test_domain", "seed", "value"]]


ANSWERS = [
    "setting", "test_domain", "seed", "domain", "label", "candidates", "prompts", "classifier",
    "value", "n_pictures", "run",
]  # fmt: skip


def _own_pair(rungs: pd.DataFrame) -> pd.DataFrame:
    """What every run and control shares between the natural and its test domain, by layer."""
    a, b, test = (rungs[name] for name in ("domain_a", "domain_b", "test_domain"))
    own = ((a == "real") & (b == test)) | ((b == "real") & (a == test))
    rows = rungs[own & (rungs["rung"] != "R1")]
    keys = ["setting", "test_domain", "seed", "epoch", "control", "rung", "measure", "band", "site"]
    means = rows.groupby([*keys, "depth"], dropna=False, sort=False)
    return means[["index", "index_low", "index_high"]].mean().reset_index()


def _of_each_class(sharing: pd.DataFrame) -> pd.DataFrame:
    """What each seen class shares beyond other classes, by block: the mean over mixtures."""
    rows = sharing[(sharing["class_set"] == "seen") & ~sharing["setting"].map(is_upper_bound)]
    rows = rows[rows["control"].fillna("") == ""]
    means = rows.groupby(["label", "seed"])["beyond"].agg(value="mean", n_runs="count")
    return means.reset_index()


def _told_by_units(galleries: pd.DataFrame) -> pd.DataFrame:
    """Which class each unit tells: chosen in one domain, told in the same or in the other."""
    own = (galleries["measure"] == FOR_CLASS) & (galleries["control"].fillna("") == "")
    return galleries.loc[own, TOLD]


TOLD = [
    "setting", "test_domain", "seed", "site", "role", "feature", "chosen_for", "domain_a",
    "domain_b", "label", "value", "low", "high", "p", "n_units", "unit",
]  # fmt: skip


def _of_runs(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows of trained runs alone, without their controls."""
    return frame.loc[frame["control"].fillna("") == "", columns]


FEATURES = "measure == 'shared mass' and centred and reading == 'one code'"
ABLATED = "measure == 'accuracy drop' and domain == test_domain"
RUN = ["setting", "test_domain", "seed"]
SHARED = [*RUN, "code", "width", "domain_a", "domain_b", "value", "null", "ceiling", "index"]
COSTS = [*RUN, "ablated", "removed", "value", "low", "high", "n_units", "unit"]


def _accuracy_by_epoch(epochs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of seen and held-out classes in the test domain, after every kept epoch."""
    asked = epochs.query(ASKED).query("measure == 'balanced top-1'").fillna({"control": ""})
    own = asked[(asked["domain"] == asked["test_domain"]) & (asked["class_set"] != "all")]
    return own[["setting", "test_domain", "seed", "epoch", "class_set", "value"]]


def keep(name: str, made: dict[str, pd.DataFrame]) -> None:
    """Write a study's tables in place of those that were there."""
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    for before in folder.glob("*.csv"):
        before.unlink()
    for table, frame in made.items():
        keep_one(name, table, frame)
    (folder / "read_from.txt").write_text(read_from(name), encoding="utf-8")


def keep_one(name: str, table: str, frame: pd.DataFrame) -> None:
    """Write one of a study's tables, rounded to five digits."""
    frame.to_csv(KEPT / name / f"{table}.csv", index=False, float_format="%.5g")


def tables(name: str) -> dict[str, pd.DataFrame]:
    """What is kept of a study; nothing where no block of it is finished.

    Nothing is judged for a model that did not learn: `answers` and `runs` are without it, and it is
    named in `failed`.
    """
    words = ("control", "adjusted", "reason", "needed", "setting", "rung")
    found = {}
    for path in sorted((KEPT / name).glob("*.csv")):
        frame = pd.read_csv(path, low_memory=False, dtype=dict.fromkeys(words, str))
        found[path.stem] = frame.fillna({word: "" for word in words if word in frame})
    return found | _without_failed(found) if "runs" in found else found


def _without_failed(found: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Answers and runs of models that learned, and which did not.

    `interp.verdict` asks that of every model, and gives one that did not learn no index at all.
    """
    without = found["runs"].groupby(RUN)["index"].count() == 0
    failed = without.index[without].to_frame(index=False)
    lost = pd.MultiIndex.from_frame(failed)
    kept = {
        name: found[name][~pd.MultiIndex.from_frame(found[name][RUN]).isin(lost)]
        for name in ("answers", "runs")
    }
    return kept | {"failed": failed}


N_CLASSES = 40
"""Classes of the label set, in every study."""


def pilot() -> dict[str, pd.DataFrame]:
    """The same of the grid of ten mixtures and three blocks, made before.

    Answers among held-out classes alone are kept as means of mixtures, `alone`.
    """
    folder, caused = HERE / "resnet", contrasts.intervened()
    answers = pd.read_csv(folder / "accuracy_by_class.csv").query(OWN)
    accuracy = pd.read_csv(folder / "accuracy.csv").assign(control="")
    levels = pd.read_csv(folder / "levels.csv").fillna({"adjusted": "", "needed": "", "reason": ""})
    return {
        "answers": answers.assign(run=trained_models(answers)),
        "errors": errors(accuracy),
        "alone": accuracy.query(ALONE)[["setting", "test_domain", "value"]],
        "levels": levels,
        "intervention": caused["intervention"],
        "causes": caused["levels"],
    }


ALONE = (
    "candidates == 'held-out' and class_set == 'held-out' and domain == test_domain and "
    "prompts == 'neutral' and measure == 'balanced top-1'"
)
"""Held-out classes in the test domain with no others to choose from, means over blocks."""

OWN = "domain == test_domain and class_set == 'held-out'"
"""Held-out classes in the test domain."""
