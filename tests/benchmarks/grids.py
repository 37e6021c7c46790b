"""The committed grids: which of their rows are kept, in one file."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pandas as pd

HERE = Path(__file__).with_name("grid")
TABLES = HERE.with_suffix(".zip")
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


ASKED = "candidates == 'all' and prompts == 'neutral' and classifier == 'text'"
"""The primary question: among all classes, by text, with neutral prompts."""


def committed(name: str) -> dict[str, pd.DataFrame]:
    """The tables that are kept of a grid."""
    with ZipFile(TABLES) as archive:
        own = [each for each in archive.namelist() if each.startswith(f"{name}/")]
        return {Path(each).stem: pd.read_csv(archive.open(each)) for each in own if ".csv" in each}


def facts(name: str) -> dict[str, Any]:
    """What is needed to make a grid again."""
    with ZipFile(TABLES) as archive:
        return json.loads(archive.read(f"{name}/facts.json"))


def written(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that are kept, in their order, rounded."""
    return frame[[column for column in (*LABELS, *NUMBERS) if column in frame]].round(5)
