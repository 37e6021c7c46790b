"""The verdict across checkpoints on the committed ResNet grid: L1, L2, L3, and their cells."""

from pathlib import Path

import pandas as pd

from tests.benchmarks.grids import HERE

GRID = HERE / "resnet"


def levels() -> None:
    """Write `levels.csv` and `together.csv` beside the grid's tables; print what they say.

    Reads the committed tables alone: half a minute.
    """
    from interp.verdicts.across_checkpoints import verdict

    found = verdict(*frames(GRID))
    for table in (found.table, found.together):
        table.frame.round(4).to_csv(GRID / f"{table.name}.csv", index=False)
    for row in found.table.frame.itertuples():
        sentence = found.sentence(row.level, row.rung, measure=row.measure, adjusted=row.adjusted)
        print(f"levels: {row.level}: {row.verdict}. {sentence}")
    if found.headline:
        print(f"levels: {found.headline}")


def frames(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames `runs` and `classes` from the tables committed in a folder."""
    from interp.verdicts.across_checkpoints import from_tables

    shared = pd.read_csv(folder / "sharing.csv")
    shared = shared.assign(domain_a="real", domain_b=shared["test_domain"])
    tables = {
        "accuracy": pd.read_csv(folder / "accuracy.csv"),
        "similarity": shared[shared["measure"] == "debiased CKA"],
        "directions": shared[shared["measure"] != "debiased CKA"],
    }
    for name in ("class_sharing", "accuracy_by_class", "exposure_classes"):
        if (folder / f"{name}.csv").exists():
            tables[name] = pd.read_csv(folder / f"{name}.csv")
    return from_tables(tables)
