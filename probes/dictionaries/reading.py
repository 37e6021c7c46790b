"""Dictionaries that others trained, whichever library wrote their files."""

from pathlib import Path
from typing import Any

from interp.core.errors import CheckpointError, SpecificationError
from interp.core.faces.doors import door
from interp.probes.dictionaries.dictionary import Dictionary
from interp.probes.dictionaries.saelens import (
    CONFIGURATION,
    WEIGHTS,
    folded_dictionary,
    read_saelens,
)
from interp.probes.dictionaries.torch_files import (
    Record,
    overcomplete_parts,
    prisma_parts,
    read_configuration,
    read_torch,
)

PRISMA = "config.json"


@door
def read_dictionary(
    path: str | Path,
    *,
    kind: str | None = None,
    k: int | None = None,
    threshold: float | None = None,
) -> Dictionary:
    """Read a sparse dictionary that SAELens, ViT-Prisma or overcomplete trained.

    Args:
        path: A folder of SAELens (`cfg.json`, `sae_weights.safetensors`) or ViT-Prisma
            (`config.json` and a `.pt` file); or a `.pt` file of ViT-Prisma or overcomplete.
        kind: The class of an overcomplete model of which only the state dict was saved: `SAE`,
            `TopKSAE`, `BatchTopKSAE` or `JumpSAE`. None where the file says it.
        k: The `top_k` of such a TopKSAE.
        threshold: The `running_threshold` of such a BatchTopKSAE.

    Returns:
        The dictionary, with the site among its facts where the file names it.

    Raises:
        CheckpointError: For files that are missing, cut short or of no such format, and for what a
            `Dictionary` cannot express, such as transcoders; the message names it.
        SpecificationError: For `kind`, `k` or `threshold` beside a file that says them.

    Notes:
        - No code of a file is run. Whole models and configurations are read as bare records.
        - Features are the library's own with two exceptions. Where decoder rows have another norm
          than 1, features are multiplied by it; for SAELens's rows of norm sqrt(d_in) see
          `write_saelens`.
        - A state dict of overcomplete does not say how rows are normalised; it is read as its
          default, norm 1.

    >>> import tempfile
    >>> import torch
    >>> file = f"{tempfile.mkdtemp()}/model.pt"
    >>> linear = "encoder.final_block.0."
    >>> weights = {f"{linear}weight": torch.eye(2), f"{linear}bias": torch.zeros(2)}
    >>> torch.save(weights | {"dictionary._weights": torch.eye(2)}, file)
    >>> read_dictionary(file, kind="TopKSAE", k=1)([[3.0, 1.0]]).tolist()
    [[3.0, 0.0]]
    """
    source = Path(path)
    words = {"kind": kind, "k": k, "threshold": threshold}
    if source.name in (CONFIGURATION, WEIGHTS, PRISMA):
        source = source.parent
    if source.is_dir() and not (source / PRISMA).exists():
        _refuse_words(source, words)
        return read_saelens(source)
    if source.is_dir():
        _refuse_words(source, words)
        return _of_prisma(source, read_torch(_weights_in(source)), source / PRISMA)
    held = read_torch(source)
    if isinstance(held, dict) and ("W_enc" in held or "state_dict" in held):
        _refuse_words(source, words)
        return _of_prisma(source, held, source.parent / PRISMA)
    if isinstance(held, Record):
        _refuse_words(source, words)
    elif not isinstance(held, dict) or "dictionary._weights" not in held:
        raise CheckpointError(
            f"read the dictionary in {source}",
            f"a {type(held).__name__} of unknown format",
            "a file of SAELens, ViT-Prisma or overcomplete",
            "check what wrote it",
        )
    said, weights = overcomplete_parts(source, held, kind=kind, k=k, threshold=threshold)
    return folded_dictionary(source, said, weights)


def _of_prisma(source: Path, held: Any, beside: Path) -> Dictionary:
    configuration = read_configuration(beside) if beside.exists() else None
    return folded_dictionary(source, *prisma_parts(source, held, configuration))


def _weights_in(folder: Path) -> Path:
    """The one file of weights in a folder of ViT-Prisma."""
    found = sorted(folder.glob("*.pt"))
    named = [path for path in found if path.name == "weights.pt"] or found
    if len(named) != 1:
        raise CheckpointError(
            f"read the dictionary in {folder}",
            f"{len(found)} files of weights beside {PRISMA}",
            "weights.pt",
            "name the file",
        )
    return named[0]


def _refuse_words(source: Path, words: dict[str, Any]) -> None:
    given = [f"{name}={value!r}" for name, value in words.items() if value is not None]
    if given:
        raise SpecificationError(
            f"read the dictionary in {source}",
            ", ".join(given),
            "nothing: the files say it",
            "leave it out",
        )
