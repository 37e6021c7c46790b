"""Captions taken apart: what each word tells apart, and which parts of the text tower carry it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.circuits.cross_modal.matches import MatchMetric
from interp.circuits.discovery.curves import share_rows
from interp.circuits.patching.localise import effects
from interp.circuits.patching.sweep import sweep
from interp.core.images import ImageTable, Pairs
from interp.core.tower import Tower

CLASSES, DOMAINS = "classes", "domains"
"""What a caption tells apart: by its class word, and by its word for the domain."""

PARTS = {"blocks.*.attn.hook_z": ("layer", "head"), "blocks.*.hook_mlp_out": ("layer",)}
"""What is patched from one caption into another: each head, and each MLP."""


def caption_words(
    words: Mapping[str, Tensor],
    pictures: Mapping[str, Tensor],
    *,
    labels: Sequence[str],
    roles: Sequence[str],
    terms: Mapping[str, str],
    scale: float,
    seed: int = 0,
) -> pd.DataFrame:
    """What the words of a caption add to telling its pictures from others, in two domains.

    Pictures of a class are told from those of the other classes in their domain, and from those of
    the class in the other domain: `scale * <word, difference of the pictures' mean embeddings>`.

    Args:
        words: For each domain, what the words of each class's caption add to its unit direction,
            `class role d_embed`.
        pictures: For each domain the mean unit embedding of each class's pictures, `class d_embed`.
        labels: The classes.
        roles: What each word is in its caption.
        terms: What captions call each domain.
        scale: The logit scale.
        seed: Seed of p.

    Returns:
        A row for each domain, role and what is told apart: the share of the whole caption's logits
        that the word adds, mean over classes, with its null.
    """
    frames, n, names = [], len(labels), np.asarray(labels)
    for domain, other in (tuple(pictures), tuple(pictures)[::-1]):
        here = pictures[domain]
        rest = (here.sum(dim=0) - here) / (n - 1)
        for what, foil in ((CLASSES, rest), (DOMAINS, pictures[other])):
            direction = scale * (here - foil)
            own = _logits("crd,cd->cr", words[domain], direction)
            if what == CLASSES:
                every = _logits("krd,cd->ckr", words[domain], direction)
                null = (every.sum(axis=1) - own) / (n - 1)
                kind = "the same word in captions of the other classes"
            else:
                null = _logits("crd,cd->cr", words[other], direction)
                kind = f"the same word in a caption that says {terms[other]!r}"
            whole = np.broadcast_to(own.sum(axis=1)[:, None], own.shape)
            triples = np.stack([own, null, whole], axis=-1)
            frame = share_rows(
                triples,
                names,
                names[:, None],
                goals=np.ones(len(roles)),
                seed=seed,
                rounding=1e-6 * float(np.abs(triples).max()),
            )
            frame = frame.assign(part=list(roles), told_apart=what, domain=domain, null_kind=kind)
            frames.append(frame.assign(logits=float(whole[:, 0].mean())))
    return pd.concat(frames, ignore_index=True).assign(
        ceiling_kind="the whole caption",
        unit="class",
        n_units=n,
        n_runs=1,
        estimand="share of what a caption tells apart that a word adds, mean over classes",
        seed=seed,
    )


def _logits(pattern: str, words: Tensor, directions: Tensor) -> np.ndarray:
    return torch.einsum(pattern, words, directions).double().cpu().numpy()


@dataclass(frozen=True)
class Swap:
    """Captions of some classes in a domain, and what they are exchanged for.

    `texts` are the captions, their partners (of `foils`, in `other`), and donors that tell
    something else.
    """

    labels: Sequence[str]
    foils: Sequence[str]
    domain: str
    other: str
    texts: Sequence[Sequence[str]]
    null_kind: str

    @property
    def pairs(self) -> Pairs:
        """What the captions say, for tables."""
        n = len(self.labels)
        texts = [*self.texts[0], *self.texts[1]]
        frame = pd.DataFrame(
            {
                "path": texts,
                "label": [*self.labels, *self.foils],
                "domain": [self.domain] * n + [self.other] * n,
                "split": "captions",
                "caption": texts,
            }
        )
        same, differ = ("label", "domain") if self.domain != self.other else ("domain", "label")
        return Pairs(ImageTable(frame), np.arange(n), np.arange(n, 2 * n), (same,), (differ,))


def patched_captions(
    text: Tower, swap: Swap, tokens: Sequence[Tensor], direction: Tensor, *, seed: int = 0
) -> pd.DataFrame:
    """What each head and MLP of a text tower carries from one caption into another.

    Captions are patched part by part (Meng et al. 2022); the metric says how far a caption has gone
    over to the pictures of the clean one.

    Args:
        text: The text tower.
        swap: The captions.
        tokens: Those of `swap.texts`.
        direction: The logit scale times the pictures' mean unit embeddings of the captions, less
            those of their partners, `caption d_embed`.
        seed: Seed of p.

    Returns:
        The rows of `effects`, each with its `part`: `a0.h1` is head 1 of block 0, `m0` its MLP.
    """
    clean, corrupt, null = tokens
    with torch.no_grad():
        metric = MatchMetric(direction, F.normalize(text(corrupt), dim=-1))
    frames = []
    for sites, axes in PARTS.items():
        swept = sweep(
            text,
            clean=clean,
            corrupt=corrupt,
            null=null,
            null_kind=swap.null_kind,
            metric=metric,
            pairs=swap.pairs,
            sites=sites,
            axes=axes,
        )
        found = effects(swept, seed=seed).frame
        blocks = found["layer"].map("{:.0f}".format)
        heads = found["head"].map(".h{:.0f}".format) if "head" in axes else ""
        frames.append(found.assign(part=("a" if "head" in axes else "m") + blocks + heads))
    return pd.concat(frames, ignore_index=True)
