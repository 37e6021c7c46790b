"""Zero-shot heads: class names and prompts become a classifier of image embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.core.errors import SampleError
from interp.core.progress import track

Sentence = str | Callable[[str], str]
"""A prompt: text with `{}` (or CLASS) where the class name goes, or a function of the name."""


@dataclass(frozen=True)
class ZeroShotHead:
    """A text classifier, computed once: `head(embedding)` are the logits of every class.

    logits = exp(logit_scale) cos(image, class), where a class is the renormalised mean of the
    normalised embeddings of its prompts (Radford et al. 2021).
    """

    class_names: tuple[str, ...]
    weight: Float[Tensor, "classes d_embed"]
    logit_scale: float

    def __call__(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch classes"]:
        return self.logit_scale * self.cosine(embedding)

    def cosine(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch classes"]:
        """Cosine of each picture with each class."""
        weight = self.weight.to(embedding)
        return F.normalize(embedding, dim=-1) @ weight.T


def build_head(
    encode: Callable[[Sequence[str]], Tensor],
    class_names: Sequence[str],
    templates: Sequence[Sentence],
    logit_scale: float,
    *,
    batch_size: int = 512,
) -> ZeroShotHead:
    """Ensemble prompts into a head; `encode` maps sentences to embeddings, `batch d_embed`."""
    if not class_names or not templates:
        raise SampleError(
            "build a zero-shot head",
            f"{len(class_names)} classes and {len(templates)} templates",
            "at least one of each",
            "name classes and templates",
        )
    sentences = [write(template, name) for name in class_names for template in templates]
    starts = range(0, len(sentences), batch_size)
    long = len(starts) > 4  # short work draws no bar
    with torch.no_grad():
        parts = [
            F.normalize(encode(sentences[start : start + batch_size]), dim=-1)
            for start in (track(starts, "embed prompts") if long else starts)
        ]
    each = torch.cat(parts).unflatten(0, (len(class_names), len(templates)))
    return ZeroShotHead(tuple(class_names), F.normalize(each.mean(dim=1), dim=-1), logit_scale)


def write(template: Sentence, name: str) -> str:
    """Put a class name into a template.

    >>> write("a photo of a {}.", "ice cream")
    'a photo of a ice cream.'
    """
    if not isinstance(template, str):
        return template(name)
    slot = "{}" if "{}" in template else "CLASS"
    return template.replace(slot, name.replace("_", " "))
