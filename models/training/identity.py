"""The identity of a training run: the options that decide its result, compared with a folder's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.core.errors import SpecificationError
from interp.core.storage.store import file_hash, fingerprint

STAMP = "made_from.txt"
"""Beside shards that were made from a list, the hash of that list."""

LATEST = "latest.pt"
"""Beside the kept epochs, the state that an unfinished run goes on from."""

DECISIVE = (
    "model_hash",
    "data_hash",
    "objective",
    "epochs",
    "global_batch",
    "lr",
    "wd",
    "beta2",
    "eps",
    "warmup",
    "milestones",
    "optimizer",
    "precision",
    "crop",
    "augment",
    "flip",
    "colour",
    "grey",
    "seed",
    "align",
    "align_site",
    "align_classes",
    "align_cells",
)
"""The options that decide what weights come out. Processes, workers, paths and device do not."""


def inputs(model_folder: Path, data: str) -> dict[str, str]:
    """Hashes of a model's configuration and of its training list, independent of their paths.

    Args:
        model_folder: The model folder.
        data: The path of a TSV, or patterns of shards joined by `::`.

    Returns:
        `model_hash` and `data_hash`.

    >>> sorted(inputs(Path("no such folder"), "shards-{0..9}.tar"))
    ['data_hash', 'model_hash']
    """
    files = sorted(model_folder.glob("*.json")) if model_folder.is_dir() else []
    stamps = [path.parent / STAMP for path in map(Path, data.split("::"))]
    shards = [
        (Path(part).name, *([stamp.read_text()] if stamp.is_file() else []))
        for part, stamp in zip(data.split("::"), stamps, strict=True)
    ]
    table = Path(data)
    return {
        "model_hash": fingerprint([(path.name, file_hash(path)) for path in files]),
        "data_hash": file_hash(table) if table.is_file() else fingerprint(shards),
    }


def differing(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The decisive options that differ between a run folder and a new specification.

    Args:
        recorded: Options of the folder.
        wanted: Options of the new run.

    Returns:
        A line per option, with both values.

    >>> differing({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
    ['lr 0.1, now 0.2']
    """
    return [
        f"{name} {recorded[name]}, now {wanted[name]}"
        for name in DECISIVE
        if name in recorded and name in wanted
        if str(recorded[name]) != str(wanted[name])
    ]


def refuse_another(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to continue in the folder of a run with another specification.

    Args:
        folder: The run's folder.
        wanted: Options of the new run.

    Raises:
        SpecificationError: With the options that differ.
    """
    from interp.models.loading.checkpoints import run_options

    unlike = differing(run_options(folder / "checkpoints" / LATEST), wanted)
    if unlike:
        raise SpecificationError(
            f"go on with the run {folder}",
            f"a folder of another specification ({'; '.join(unlike)})",
            "the options that the run was begun with",
            "choose another name, or delete the folder",
        )
