"""Faults of `mutants.csv`, one at a time, in a copy of the code, which tests and examples find.

Slow tests are asked where the quick ones pass.

    python -m tests.mutants            # all, in about an hour of one core
    python -m tests.mutants probes/    # those of one room

It ends with exit status 1 if a fault is not found, or its line is no longer there.
"""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree, ignore_patterns

ROOT = Path(__file__).parent.parent
COPIED = ("interp", "models", "probes", "circuits", "tests", "docs")
NOT_COPIED = ignore_patterns("__pycache__", "*.zip", "site")


def outcome(file: str, right: str, wrong: str, tests: str) -> str:
    """Whether tests find the fault: "found", "slowly", "missed", or "gone"."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        for name in COPIED:
            copytree(ROOT / name, copy / name, ignore=NOT_COPIED, symlinks=True)
        for name in ("conftest.py", "pyproject.toml", "README.md", "CHANGELOG.md"):
            (copy / name).write_bytes((ROOT / name).read_bytes())
        text = (copy / file).read_text()
        if text.count(right) != 1 or not (copy / tests).exists():
            return "gone"
        (copy / file).write_text(text.replace(right, wrong))
        surroundings = {**os.environ, "PYTHONPATH": place}
        for marks in ("not slow and not long", "slow or long"):
            run = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-m", marks, tests, file]
            done = subprocess.run(run, cwd=copy, env=surroundings, capture_output=True)
            if done.returncode in (1, 2):
                return "found" if marks.startswith("not") else "slowly"
    return "missed"


def main(room: str = "") -> int:
    """Try the faults of a room, and print what became of each."""
    rows = csv.DictReader((ROOT / "tests" / "mutants.csv").open(newline=""))
    outcomes = []
    for mutant in rows:
        if mutant["file"].startswith(room):
            outcomes.append(outcome(**mutant))
            print(f"{outcomes[-1]:7} {mutant['file']}: {mutant['wrong']}", flush=True)
    n = outcomes.count("found") + outcomes.count("slowly")
    print(f"{n} of {len(outcomes)} faults found")
    return int(n < len(outcomes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
