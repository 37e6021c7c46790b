"""Planted models as files: weights and pictures for any tool, and their answers apart."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from interp.circuits.planted.vit import CONFIG, Blueprint, read_planted, write_planted
from interp.circuits.planted.world import as_tensor
from interp.core.errors import DataError
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.storage.store import complete
from interp.validation.puzzles import (
    PICTURES,
    VERSION,
    SharingPuzzle,
    circuit_puzzles,
    open_planted,
    place_of,
    planted_answers,
    sharing_puzzle,
)

ANSWERS = "answers.json"


@door
def write_benchmark(folder: str | Path, models: Sequence[Blueprint]) -> list[Path]:
    """Write planted models as files that need no code of ours.

    Args:
        folder: Where to; a folder is made in it for each model, named by its number.
        models: What to plant: `interp.validation.blueprints()`.

    Returns:
        The folders. In each: `model.safetensors`, the float64 weights of an open_clip
        `VisionTransformer` whose arguments are in `config.json`; `pictures.safetensors`, `pictures`
        (bytes, `picture row column rgb`), `label`, `domain` and `artist` as places in the lists of
        `config.json`, and `classes`, the directions of the classes; and `answers.json`, which a
        method is not to read: what is shared by rung, and the true edges and nodes.

    Raises:
        OutputError: If the folder cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     [folder] = write_benchmark(place, [Blueprint("all shared", seed=0)])
    ...     sorted(path.name for path in folder.iterdir())
    ['answers.json', 'config.json', 'model.safetensors', 'pictures.safetensors']
    """
    written = []
    for number, blueprint in enumerate(track(models, "write planted models")):
        target = Path(folder) / f"{number:04d}"
        if not target.exists():
            with complete(target) as draft:
                _write(draft, blueprint)
        written.append(target)
    return written


def _write(folder: Path, blueprint: Blueprint) -> None:
    puzzle = sharing_puzzle(blueprint)
    source: Any = puzzle.tower.source  # type: ignore[attr-defined]
    facts = {"version": VERSION, "pictures": PICTURES}
    write_planted(folder, source, puzzle.images, puzzle.classifier, **facts)
    found = [
        {"domain": domain, "kind": kind, "parts": sorted(inside)}
        for kind in ("edge", "node")
        for domain, _, inside in circuit_puzzles(blueprint, kind)
    ]
    answers = place_of(blueprint) | {"shared": planted_answers(blueprint), "circuits": found}
    (folder / ANSWERS).write_text(json.dumps(answers, indent=1))


@door
def open_benchmark(folder: str | Path) -> Iterator[tuple[str, SharingPuzzle, dict[str, Any]]]:
    """Open planted models from the files that `write_benchmark` wrote, one after another.

    Args:
        folder: The folder.

    Yields:
        The name of each model's folder, its puzzle, and its answers.

    Raises:
        DataError: For a folder without a model, or one that cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     _ = write_benchmark(place, [Blueprint("all shared", seed=0)])
    ...     [(name, puzzle, answers)] = open_benchmark(place)
    >>> name, len(puzzle.images), answers["shared"]["R6"]
    ('0000', 192, 'shared')
    """
    folders = sorted(path.parent for path in Path(folder).glob(f"*/{CONFIG}"))
    if not folders:
        right = "a folder that write_benchmark wrote"
        raise DataError("open planted models", f"{folder}, which has none", right, "check the path")
    return ((each.name, *_read(each)) for each in folders)


def _read(folder: Path) -> tuple[SharingPuzzle, dict[str, Any]]:
    try:
        answers = json.loads((folder / ANSWERS).read_text())
        source, images, classifier = read_planted(folder)
    except Exception as error:  # files of any kind
        given = f"{folder} ({type(error).__name__}: {str(error).splitlines()[0]})"
        right = "the four files that write_benchmark wrote"
        raise DataError("open a planted model", given, right, "write it again") from None
    return SharingPuzzle(open_planted(source), images, classifier, as_tensor), answers
