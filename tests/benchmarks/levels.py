"""The verdict across checkpoints: on the committed ResNet grid, and its power on made studies."""

from pathlib import Path

import pandas as pd

from tests.benchmarks.grids import HERE
from tests.verdicts.made_studies import reject

GRID = HERE / "resnet"
POWER = Path(__file__).with_name("level_power.csv")
LINKS = (0.0, 0.3, 0.5, 0.7)


def level_power(studies: int = 1000) -> None:
    """Write `level_power.csv`: how often L1 to L3 find a link of made studies, and find none.

    Ten mixtures in two test domains; where r = 0, the share is of false positives. r is the
    correlation between mixtures (L1), between the runs of a mixture (L2, nine tenths of a run's
    variance common to both domains), and between the classes of a run (L3), before the noise of
    measuring; 399 permutations, alone by p. Some minutes.
    """
    rows = []
    for level in ("L1", "L2", "L3"):
        for blocks in (3, 6, 12):
            found = {
                f"r = {link:g}": sum(
                    reject(level, link, blocks=blocks, seed=seed) for seed in range(studies)
                )
                / studies
                for link in LINKS
            }
            rows.append({"level": level, "mixtures": 10, "blocks": blocks, **found})
            shown = ", ".join(f"{name}: {share:.3f}" for name, share in found.items())
            print(f"level power: {level}, {blocks} blocks of 10 mixtures: {shown}", flush=True)
    pd.DataFrame(rows).assign(studies=studies).round(3).to_csv(POWER, index=False)


def levels() -> None:
    """Write `levels.csv`, `together.csv` and `foretelling.csv` beside the grid's tables.

    Prints what the levels say. Reads the committed tables alone: half a minute.
    """
    from interp.verdicts.levels.across_checkpoints import from_tables, verdict
    from interp.verdicts.levels.rival_predictors import foretelling, predictors

    tables = committed(GRID)
    found = verdict(*from_tables(tables))
    for table in (found.table, found.together, foretelling(predictors(tables))):
        table.frame.round(4).to_csv(GRID / f"{table.name}.csv", index=False)
    for row in found.table.frame.itertuples():
        sentence = found.sentence(row.level, row.rung, measure=row.measure, adjusted=row.adjusted)
        print(f"levels: {row.level}: {row.verdict}. {sentence}")
    if found.headline:
        print(f"levels: {found.headline}")


def committed(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables committed in a folder, by the names that a study gives them."""
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
    return tables
