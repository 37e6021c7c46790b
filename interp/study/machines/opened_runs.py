"""Finished runs opened as tables: what `--tables` kept, all runs under one another."""

import json
from collections.abc import Sequence
from pathlib import Path

from interp.core.errors import DataError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.tables import Table, read_frames
from interp.study.machines.finished_runs import FACTS

LAST, ALL = "last", "all"


@door
def open_runs(
    folder: str | Path, tables: Sequence[str] = (), *, epochs: str = LAST, architecture: str = ""
) -> dict[str, Table]:
    """Open the tables of finished runs, which a study kept by `--tables`.

    Args:
        folder: The folder, with a folder for each run.
        tables: Names of tables; empty takes all that there are.
        epochs: "last" takes each run's last epoch, and the untrained model where it was measured;
            "all" every kept epoch.
        architecture: Runs of this one alone ("resnet-small, supervised" are those on labels); empty
            takes all.

    Returns:
        Tables by name, the rows of all runs under one another: `setting`, `test_domain`, `seed`
        (the block), `architecture`, `epoch` and `control` tell them apart. `interp.verdict` takes
        them as they are.

    Raises:
        DataError: If no finished run is there.
        SpecificationError: For a table or an architecture that no run has, or other epochs.

    >>> open_runs("no such folder")
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot open finished runs: given no such folder, where none is...
    """
    check_known("open finished runs", "choice of epochs", [epochs], (LAST, ALL), SpecificationError)
    runs = sorted(path.parent for path in Path(folder).glob(f"*/{FACTS}"))
    if not runs:
        raise DataError(
            "open finished runs",
            f"{folder}, where none is",
            "a folder that `interp-report run --tables` filled",
            "check the path",
        )
    about = {run: json.loads((run / FACTS).read_text(encoding="utf-8")) for run in runs}
    if architecture:
        known = sorted({str(each.get("architecture", "")) for each in about.values()})
        check_known("open finished runs", "architecture", [architecture], known, SpecificationError)
        runs = [run for run in runs if about[run]["architecture"] == architecture]
    paths: dict[str, list[Path]] = {}
    for model in [each for run in runs for each in _models(run, int(about[run]["epochs"]), epochs)]:
        for path in sorted(model.glob("*.csv.gz")):
            paths.setdefault(path.name.removesuffix(".csv.gz"), []).append(path)
    check_known("open finished runs", "table", tables, sorted(paths), SpecificationError)
    chosen = list(tables) or sorted(paths)
    facts = {"runs": str(folder), "n_runs": len(runs), "epochs": epochs}
    return {name: Table(name, read_frames(paths[name]), facts) for name in chosen}


def _models(run: Path, last: int, epochs: str) -> list[Path]:
    """The folders of a run's models: of kept epochs, the untrained one's first."""
    found = {path: int(path.name.split("-")[1]) for path in run.glob("epoch-*-*")}
    kept = sorted(found, key=lambda path: (found[path], path.name))
    return [path for path in kept if epochs == ALL or found[path] in (0, last)]
