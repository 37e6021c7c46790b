"""A loss that leaves negatives out: captions of some classes, for pictures of the test domain.

In CLIP's loss every other caption of a batch is a negative of a picture, so that a sketch is pushed
away from the classes that no sketch shows. Here these pairs are left out, or nothing else is kept.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.core.errors import SpecificationError
from interp.core.seeds import rng
from interp.core.storage.store import fingerprint
from interp.models.training.alignment import gathered, read_manifest
from interp.models.training.lists import read_tsv

IN_DOMAIN, OF_CLASS = 1, 2
"""What the mark of a row is the sum of: picture of the domain, caption of one of the classes."""


@dataclass(frozen=True)
class Negatives:
    """Pictures of a domain and the classes whose captions they do without.

    Args:
        kind: A word of `interp.data.mixtures.settings.NEGATIVES`.
        domain: The test domain.
        classes: The classes.
    """

    kind: str
    domain: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, tsv: Path, kind: str, *, seed: int) -> "Negatives":
        """Read domain and classes of a mixture from its `train.tsv` and `manifest.json`.

        Args:
            tsv: The mixture's `train.tsv`.
            kind: "masked" or "only" for the held-out classes, "masked-absent" for all without a
                picture in the domain, "masked-random" for as many seen classes as are held out.
            seed: Seed of these.

        Returns:
            The negatives in question.

        Raises:
            DataError: Without a manifest.
            SpecificationError: If the domain has no training pictures.
        """
        _, domain, held_out = read_manifest(tsv)
        labels = read_tsv(tsv, "label").assign(domain=read_tsv(tsv, "domain")["domain"])
        here = {*labels.loc[labels["domain"] == domain, "label"]}
        if not here:
            asked = f"leave negatives out for pictures of {domain} in {tsv.parent.name}"
            do = "choose a mixture that has some, such as cg-high"
            raise SpecificationError(asked, "no training pictures of it", "at least one", do)
        classes = held_out
        if kind == "masked-absent":
            classes = {*labels["label"]} - here - {""}
        elif kind == "masked-random":
            classes = {*rng("random negatives", seed).permutation(sorted(here))[: len(held_out)]}
        return cls(kind, domain, tuple(sorted(str(label) for label in classes)))

    @property
    def key(self) -> str:
        """A hash that differs where the loss does."""
        return fingerprint(self)

    def marks(self, tsv: Path) -> Int[Tensor, " row"]:
        """The mark of each row of a training list, as `MaskedLoss` takes it.

        Args:
            tsv: The mixture's `train.tsv`.

        Returns:
            A number per row.
        """
        domain = read_tsv(tsv, "domain")["domain"] == self.domain
        label = read_tsv(tsv, "label")["label"].isin(self.classes)
        return torch.tensor((IN_DOMAIN * domain + OF_CLASS * label).to_numpy())


class MaskedLoss(nn.Module):
    """CLIP's loss or that of labels, without some negatives.

    With pictures i, captions j, D the pictures of the domain and C the captions of the classes:

        loss = mean over i of [CE(s_i., i) + CE(s_.i, i)] / 2,   s_ij = -inf for i in D, j in C, i ≠ j

    With `only`, pictures of D teach nothing else than that they show none of C: their own captions
    leave the batch, and their term is -log of the probability that all captions but C get.

    Args:
        only: Whether to keep these negatives alone.
        columns: For a loss of labels, the numbers of the classes.

    >>> loss, text = MaskedLoss(), torch.eye(3)
    >>> marks = torch.tensor([IN_DOMAIN, OF_CLASS, 0])
    >>> images = torch.tensor([[0.0, 9.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    >>> scale = torch.tensor(1.0)
    >>> round(float(loss(marks, image_features=images, text_features=text, logit_scale=scale)["masked_loss"]), 2)
    0.3
    """  # noqa: E501

    def __init__(self, *, only: bool = False, columns: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.only, self._columns = only, columns

    def forward(
        self, marks: Int[Tensor, " batch"], output_dict: bool = True, **outputs: Tensor
    ) -> dict[str, Tensor]:
        """The loss by name, in the form of open_clip's epoch loop."""
        if "labels" in outputs:
            return {"masked_loss": self._of_labels(marks, outputs["logits"], outputs["labels"])}
        images, own = gathered(outputs["image_features"], marks)
        texts, _ = gathered(outputs["text_features"], marks)
        scores = outputs["logit_scale"] * images @ texts.T
        own = own.to(scores.device)
        domain, of_class = (own & IN_DOMAIN) > 0, (own & OF_CLASS) > 0
        part = only_negatives if self.only else without_negatives
        return {"masked_loss": part(scores, domain, of_class)}

    def _of_labels(self, marks: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        domain = (marks & IN_DOMAIN) > 0
        columns = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        columns[list(self._columns)] = True
        if self.only:
            rest = logits.masked_fill(columns, -math.inf).logsumexp(1)
            each = F.cross_entropy(logits, labels, reduction="none")
            return torch.where(domain, logits.logsumexp(1) - rest, each).mean()
        own = F.one_hot(labels, logits.shape[1]).bool()
        return F.cross_entropy(
            logits.masked_fill(domain[:, None] & columns & ~own, -math.inf), labels
        )


def without_negatives(
    scores: Float[Tensor, "image text"],
    domain: Bool[Tensor, " image"],
    of_class: Bool[Tensor, " text"],
) -> Float[Tensor, ""]:
    """CLIP's loss without the pairs of a domain's pictures and some classes' captions.

    Args:
        scores: Logits; own pairs lie on the diagonal.
        domain: Which pictures.
        of_class: Which captions.

    Returns:
        The mean over the batch, in nats.
    """
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(domain[:, None] & of_class & ~own, -math.inf)
    labels = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2


def only_negatives(
    scores: Float[Tensor, "image text"],
    domain: Bool[Tensor, " image"],
    of_class: Bool[Tensor, " text"],
) -> Float[Tensor, ""]:
    """CLIP's loss in which a domain's pictures are nothing but no picture of some classes.

    Args:
        scores: Logits; own pairs lie on the diagonal.
        domain: Which pictures; their captions are left out.
        of_class: Which captions are kept from them.

    Returns:
        The mean over the batch, in nats.
    """
    captions, own = ~domain, scores.diagonal()
    if not (captions & ~of_class).any():
        return 0.0 * scores.sum()
    every = scores.masked_fill(~captions, -math.inf).logsumexp(1)
    others = scores.masked_fill(~(captions & ~of_class), -math.inf).logsumexp(1)
    of_image = torch.where(domain, every - others, every - own)
    # a caption of other classes meets no picture of the domain
    pictures = scores.masked_fill(domain[:, None] & ~of_class, -math.inf)
    of_text = torch.where(captions, pictures.logsumexp(0) - own, 0.0)
    return (of_image.mean() + of_text.mean()) / 2
