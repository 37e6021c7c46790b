"""The committed grids: how they are made again, and which of their rows are kept, in one file."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZIP_LZMA, ZipFile, ZipInfo

import pandas as pd

HERE = Path(__file__).with_name("grid")
TABLES = HERE.with_suffix(".zip")
KEPT = ("accuracy", "differences", "epochs", "mixtures")
KEPT += ("intervention", "intervention_classes", "intervention_directions", "levels")
FACTS = ("title", "command", "specification", "spec_hash", "versions", "seconds", "machine")
LABELS = [
    "architecture", "setting", "test_domain", "domain", "class_set", "candidates", "prompts",
    "classifier", "label", "measure", "arm", "weight", "level", "rung", "adjusted", "epoch",
    "seed", "n_runs", "site", "depth", "domain_a", "domain_b",
]  # fmt: skip
NUMBERS = [
    "value", "low", "high", "null", "index", "p", "p_adjusted", "family", "unit", "n_units",
    "degrees", "n_settings", "paired_low", "paired_high", "paired_p",
    "n_pictures", "n_train", "steps", "verdict", "reason", "licence", "needed",
]  # fmt: skip


def grids() -> None:
    """Make the grids (four hours on two cores), and keep their small tables."""
    from interp.study.study import Study

    for name in ("resnet", "vit", "intervention", "training"):
        out = Path("interp-report") / "benchmarks" / f"grid-{name}"
        file = HERE / f"{name}.toml"
        command = f"interp-report grid tests/benchmarks/grid/{name}.toml"
        keep(Study.from_toml(file).grid(out, command=command).folder, name)
        compared = committed(name).get("differences", pd.DataFrame())
        for row in compared.query(ASKED).itertuples() if len(compared) else ():
            print(f"{name}: {row.setting} in {row.test_domain}: {100 * row.value:+.1f} points")


ASKED = "candidates == 'all' and prompts == 'neutral' and classifier == 'text'"
"""The primary question: among all classes, by text, with neutral prompts."""

BY_CLASS = [
    "setting", "test_domain", "seed", "domain", "label", "class_set", "candidates", "prompts",
    "classifier", "value", "n_pictures",
]  # fmt: skip


def committed(name: str) -> dict[str, pd.DataFrame]:
    """The tables that are kept of a grid."""
    with ZipFile(TABLES) as archive:
        own = [each for each in archive.namelist() if each.startswith(f"{name}/")]
        return {Path(each).stem: pd.read_csv(archive.open(each)) for each in own if ".csv" in each}


def facts(name: str) -> dict[str, Any]:
    """What is needed to make a grid again."""
    with ZipFile(TABLES) as archive:
        return json.loads(archive.read(f"{name}/facts.json"))


def keep(made: Path, grid: str) -> None:
    """Write the rows of a grid that README speaks of, and the facts needed to repeat it.

    Rows over all blocks, whatever is asked; of single runs the primary question alone.
    """
    with ZipFile(TABLES) as archive:
        members = {each: archive.read(each).decode() for each in archive.namelist()}
    members = {each: text for each, text in members.items() if not each.startswith(f"{grid}/")}
    for name in [each for each in KEPT if (made / "tables" / f"{each}.csv").exists()]:
        frame = pd.read_csv(made / "tables" / f"{name}.csv", keep_default_na=False, na_values=[""])
        if name in ("accuracy", "epochs"):
            frame = frame[frame["control"].isna()]
            pooled = frame["n_runs"] > 1
            frame = frame[pooled | frame.index.isin(frame.query(ASKED).index)]
        if name == "epochs":
            here = frame["domain"].isin([*frame["test_domain"].unique(), "real"])
            frame = frame[here & (frame["measure"] == "balanced top-1")]
        frame = frame.query(ASKED) if name == "differences" else frame
        members[f"{grid}/{name}.csv"] = written(frame).to_csv(index=False)
    members[f"{grid}/accuracy_by_class.csv"] = classes(made).to_csv(index=False)
    known = json.loads((made / "facts.json").read_text())
    own = {key: known[key] for key in FACTS}
    members[f"{grid}/facts.json"] = json.dumps(own, indent=1) + "\n"
    with ZipFile(TABLES, "w") as archive:
        for each in sorted(members):
            archive.writestr(ZipInfo(each), members[each], ZIP_LZMA)


def written(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that are kept, in their order, rounded."""
    return frame[[column for column in (*LABELS, *NUMBERS) if column in frame]].round(5)


def classes(made: Path) -> pd.DataFrame:
    """The accuracy of every held-out class, in its test domain and in natural pictures."""
    table = made / "tables" / "accuracy_by_class.csv"
    frame = pd.read_csv(table, keep_default_na=False, na_values=[""], low_memory=False)
    frame = frame[frame["control"].isna()].query(f"{ASKED} and class_set == 'held-out'")
    here = (frame["domain"] == frame["test_domain"]) | (frame["domain"] == "real")
    return frame.loc[here, BY_CLASS].round(4)
