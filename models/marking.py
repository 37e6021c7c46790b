"""Which pictures of a training list the intervention is about: seen classes, in two domains.

A row is known by one number, its mark: domain * classes + class, or -1 for a row that the loss term
never sees. Held-out classes, other domains and base sets are such rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from interp.core.errors import DataError, SpecificationError
from interp.core.seeds import rng
from interp.core.store import fingerprint
from interp.models.lists import read_tsv

LEAST_CLASSES = 3
"""Two classes less their mean are opposites in every domain: there is nothing to align."""


@dataclass(frozen=True)
class Pairing:
    """The natural and the test domain, and the seen classes (C1) that have pictures in both."""

    natural: str
    domain: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, tsv: Path) -> "Pairing":
        """The pairing of a mixture, from its `train.tsv` and the `manifest.json` beside it.

        Raises `DataError` without a manifest, and `SpecificationError` where fewer than three seen
        classes stand in both domains, as when the test domain is left out.
        """
        natural, domain, held_out = _read_manifest(tsv)
        here = read_tsv(tsv, "label").assign(domain=read_tsv(tsv, "domain")["domain"])
        found = [set(here.loc[here["domain"] == name, "label"]) for name in (natural, domain)]
        classes = tuple(sorted((found[0] & found[1]) - held_out - {""}))
        if len(classes) < LEAST_CLASSES:
            raise SpecificationError(
                f"align classes between {natural} and {domain} in {tsv.parent.name}",
                f"{len(classes)} seen classes with training pictures in both",
                f"at least {LEAST_CLASSES}, since the effect is read at equal C1 x {domain}",
                "choose a mixture with seen classes in the test domain, such as cg-high",
            )
        return cls(natural, domain, classes)

    @property
    def key(self) -> str:
        """What tells it from every other pairing."""
        return fingerprint(self)

    def marks(self, tsv: Path, shuffled: bool, *, seed: int) -> Int[Tensor, " row"]:
        """The mark of each row.

        With `shuffled`, a class of the test domain goes by the number of another, so that every
        class meets a wrong partner, the same in the whole run (`derangement` by `seed`).
        """
        own = list(range(len(self.classes)))
        told = derangement(len(self.classes), seed) if shuffled else own
        number = {
            (domain, label): place * len(self.classes) + numbers[n]
            for place, (domain, numbers) in enumerate([(self.natural, own), (self.domain, told)])
            for n, label in enumerate(self.classes)
        }
        labels, domains = read_tsv(tsv, "label")["label"], read_tsv(tsv, "domain")["domain"]
        return torch.tensor([number.get(cell, -1) for cell in zip(domains, labels, strict=True)])


def _read_manifest(tsv: Path) -> tuple[str, str, set[str]]:
    """Natural domain, test domain and held-out classes of a mixture."""
    path = tsv.parent / "manifest.json"
    try:
        said = json.loads(path.read_text())["specification"]
        return str(said["natural"]), str(said["test_domain"]), set(said["held_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"align classes in {tsv}",
            f"no manifest that says which are held out ({type(error).__name__}: {error})",
            f"{path.name} of the mixture beside it",
            "make the mixture again",
        ) from None


def derangement(n: int, seed: int) -> Sequence[int]:
    """A permutation that leaves none of n numbers in its place: one cycle, drawn by `seed`.

    >>> sorted(derangement(4, 0)), any(k == each for k, each in enumerate(derangement(4, 0)))
    ([0, 1, 2, 3], False)
    """
    order = rng("shuffled partners", seed).permutation(n).tolist()
    after = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [after[number] for number in range(n)]
