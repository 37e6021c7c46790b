"""Captions asked of an opened model: what each word tells apart, and which heads carry it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.circuits import Matches, effects, read_matches, sweep
from interp.circuits.cross_modal.matches import MatchMetric
from interp.circuits.discovery.curves import share_rows
from interp.circuits.sharing.cuts import Cut
from interp.core.artists import artist_sides
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import LAST
from interp.core.tables import Table
from interp.data.mixtures.templates import NEUTRAL_WORDS, sentence, words_for
from interp.measures.subject import Subject
from interp.models import sentence_parts
from interp.models.loading.presets import token_numbers

TEMPLATE = "a TERM of a CLASS"
"""What captions say, with a word for the picture (TERM) and the class."""

CLASSES, DOMAINS = "classes", "domains"
"""What a caption tells apart: by its class word, and by its word for the domain."""

CLASS_WORD, TERM_WORD = "class word", "word for the domain"
ROLES = (CLASS_WORD, TERM_WORD, "other words", "beginning and end", "biases")


def caption(term: str, label: str) -> str:
    """A caption.

    >>> caption("image", "ice_cream")
    'an image of an ice cream'
    """
    return sentence(TEMPLATE, term, label)


@dataclass(frozen=True)
class Captions:
    """The captions that an opened model is asked about, and what its pictures are on average."""

    subject: Subject

    @cached_property
    def classes(self) -> list[str]:
        """The classes with pictures in both domains, sorted."""
        pictures = self.subject.analysed
        found = [set(pictures.select(domain=domain).label) for domain in self.subject.pair]
        return sorted(found[0] & found[1])

    def lengths(self, term: str) -> dict[str, int]:
        """How many tokens the caption of each class has."""
        texts = [caption(term, label) for label in self.classes]
        rows = token_numbers(self.subject.clip.tokenizer, texts)
        return dict(zip(self.classes, map(len, rows), strict=True))

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Captions as the text tower reads them."""
        clip = self.subject.clip
        return clip.tokenizer(list(texts)).to(clip.device)

    def read(self, cuts: Sequence[Cut], pairs: Pairs) -> Matches:
        """The pictures of pairs with their captions, which name no domain."""
        clip = self.subject.clip
        return read_matches(
            cuts,
            pairs,
            tokens=lambda table: self.tokens(
                [caption(NEUTRAL_WORDS[0], name) for name in table.label]
            ),
            preprocess=clip.preprocess,
            scale=clip.logit_scale,
        )

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """The mean unit embedding of each class's pictures, `class d_embed`, by domain."""
        features, clip = self.subject.features, self.subject.clip
        unit = F.normalize(torch.as_tensor(features.values[LAST]), dim=-1)
        labels, domains = (features.frame[name].to_numpy() for name in ("label", "domain"))
        return {
            domain: torch.stack(
                [
                    unit[torch.from_numpy((labels == label) & (domains == domain))].mean(dim=0)
                    for label in self.classes
                ]
            ).to(clip.device, clip.dtype)
            for domain in self.subject.pair
        }


def halves(captions: Captions, domain: str) -> list[Pairs]:
    """Pairs of two classes in one domain, whose captions are equally long, by halves of artists."""
    images, n = captions.subject.analysed, captions.subject.analysis.n_circuit_pairs
    lengths, side = captions.lengths(NEUTRAL_WORDS[0]), artist_sides(images.frame)
    here = ((images.domain == domain) & images.label.isin(captions.classes)).to_numpy()
    halves = []
    for half in (0, 1):
        own: ImageTable = images[here & (side == half)]
        own = own.with_frame(own.frame.assign(n_tokens=own.label.map(lengths)))
        halves.append(
            own.pairs(same=("domain", "n_tokens"), differ="label", n=n, seed=captions.subject.seed)
        )
    return halves


def by_word(captions: Captions) -> pd.DataFrame:
    """What each word of a caption adds to telling its pictures from others, in both domains.

    Pictures of a class are told from those of the other classes in their domain, and from those of
    the class in the other domain: `scale * <word, difference of the pictures' mean embeddings>`.
    """
    subject, frames = captions.subject, []
    clip, classes = subject.clip, captions.classes
    parts = {domain: _role_vectors(captions, domain) for domain in subject.pair}
    n = len(classes)
    for domain, other in (subject.pair, subject.pair[::-1]):
        here, there = captions.means[domain], captions.means[other]
        rest = (here.sum(dim=0) - here) / (n - 1)
        told = {CLASSES: here - rest, DOMAINS: here - there}
        for what, directions in told.items():
            scaled = clip.logit_scale * directions
            own = torch.einsum("crd,cd->cr", parts[domain], scaled).double().cpu().numpy()
            if what == CLASSES:  # captions of the other classes
                every = torch.einsum("krd,cd->ckr", parts[domain], scaled).double().cpu().numpy()
                null = (every.sum(axis=1) - own) / (n - 1)
                kind = "the same word in captions of the other classes"
            else:
                null = torch.einsum("crd,cd->cr", parts[other], scaled).double().cpu().numpy()
                kind = f"the same word in a caption that says {words_for(other)[0]!r}"
            whole = np.broadcast_to(own.sum(axis=1)[:, None], own.shape)
            triples = np.stack([own, null, whole], axis=-1)
            names = np.asarray(classes)
            frame = share_rows(
                triples,
                names,
                names[:, None],
                goals=np.ones(len(ROLES)),
                seed=subject.seed,
                rounding=1e-6 * float(np.abs(triples).max()),
            )
            frame = frame.assign(part=list(ROLES), told_apart=what, domain=domain, null_kind=kind)
            frames.append(frame.assign(logits=float(whole[:, 0].mean())))
    pictures = subject.features.frame
    shown = pictures[pictures["domain"].isin(subject.pair) & pictures["label"].isin(classes)]
    rows = pd.concat(frames, ignore_index=True).assign(
        ceiling_kind="the whole caption",
        unit="class",
        n_units=n,
        n_pictures=len(shown),
        n_runs=1,
        n_drawings=shown["drawing"].nunique() if "drawing" in shown else len(shown),
        estimand="share of what a caption tells apart that a word adds, mean over classes",
        seed=subject.seed,
    )
    return Table.with_evidence("caption_words", rows, {}).frame


def _role_vectors(captions: Captions, domain: str) -> Tensor:
    """What each role's words add to the direction of each class's caption, `class role d_embed`."""
    clip, term = captions.subject.clip, words_for(domain)[0]
    parts = sentence_parts(clip, [caption(term, label) for label in captions.classes])
    spoken = [1, *(len(token_numbers(clip.tokenizer, [term])[0]) - 2,)]
    rows = []
    for vectors, rest in zip(parts.vectors, parts.rest, strict=True):
        # [start] an TERM of an CLASS [end]
        at = np.cumsum([0, 1, spoken[0], spoken[1], 2])
        roles = [
            vectors[at[4] : -1],
            vectors[at[2] : at[3]],
            torch.cat([vectors[at[1] : at[2]], vectors[at[3] : at[4]]]),
            vectors[[0, -1]],
        ]
        rows.append(torch.stack([*(each.sum(dim=0) for each in roles), rest]))
    return torch.stack(rows)


def by_head(captions: Captions) -> pd.DataFrame:
    """What each head and MLP of the text tower carries from one caption into another.

    Captions of two classes, and captions of two domains, are patched part by part (Meng et al.
    2022); the metric says how far a caption has gone over to the pictures of the clean one.
    """
    subject = captions.subject
    frames = []
    for asked, swap in swaps(captions):
        for pattern, axes in (
            ("blocks.*.attn.hook_z", ("layer", "head")),
            ("blocks.*.hook_mlp_out", ("layer",)),
        ):
            swept = sweep(
                subject.clip.text,
                clean=captions.tokens(swap.texts[0]),
                corrupt=captions.tokens(swap.texts[1]),
                null=captions.tokens(swap.texts[2]),
                null_kind=swap.null_kind,
                metric=swap.metric(captions),
                pairs=swap.pairs(),
                sites=pattern,
                axes=axes,
            )
            found = effects(swept, seed=subject.seed).frame
            head = found["head"] if "head" in found else pd.Series(np.nan, found.index)
            part = [
                f"m{layer:.0f}" if np.isnan(number) else f"a{layer:.0f}.h{number:.0f}"
                for layer, number in zip(found["layer"], head, strict=True)
            ]
            frames.append(found.assign(part=part, told_apart=asked, domain=swap.domain))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


@dataclass(frozen=True)
class Swap:
    """Classes and their foils, domains of their pictures, and captions.

    `texts` are the captions, their partners, and donors that tell something else.
    """

    labels: Sequence[str]
    foils: Sequence[str]
    domain: str
    other: str
    texts: Sequence[Sequence[str]]
    null_kind: str

    def metric(self, captions: Captions) -> MatchMetric:
        """How far a caption agrees with its pictures more than with its partner's, in logits."""
        clip, at = captions.subject.clip, captions.classes.index
        own = captions.means[self.domain][[at(label) for label in self.labels]]
        others = captions.means[self.other][[at(label) for label in self.foils]]
        with torch.no_grad():
            start = F.normalize(clip.text(captions.tokens(self.texts[1])), dim=-1)
        return MatchMetric(clip.logit_scale * (own - others), start)

    def pairs(self) -> Pairs:
        """What the captions say, for tables."""
        n = len(self.labels)
        frame = pd.DataFrame(
            {
                "path": [*self.texts[0], *self.texts[1]],
                "label": [*self.labels, *self.foils],
                "domain": [self.domain] * n + [self.other] * n,
                "split": "captions",
                "caption": [*self.texts[0], *self.texts[1]],
            }
        )
        same, differ = ("label", "domain") if self.domain != self.other else ("domain", "label")
        return Pairs(ImageTable(frame), np.arange(n), np.arange(n, 2 * n), (same,), (differ,))


def swaps(captions: Captions) -> list[tuple[str, Swap]]:
    """Captions in which the class word is exchanged, and captions with that for the domain."""
    subject = captions.subject
    natural, test = subject.pair
    made = []
    term, lengths = NEUTRAL_WORDS[0], captions.lengths(NEUTRAL_WORDS[0])
    generator, chosen = rng("captions", subject.seed), []
    for label in captions.classes:
        alike = [
            name for name in captions.classes if name != label and lengths[name] == lengths[label]
        ]
        if len(alike) >= 2:
            foil, third = generator.permutation(alike)[:2]
            chosen.append((label, str(foil), str(third)))
    if len(chosen) >= 4:
        labels, foils, thirds = zip(*chosen, strict=True)
        texts = [[caption(term, name) for name in names] for names in (labels, foils, thirds)]
        for domain in subject.pair:
            made.append(
                (
                    CLASSES,
                    Swap(labels, foils, domain, domain, texts, "the caption of a third class"),
                )
            )
    word = words_for(test)[0]
    length = captions.lengths(word)
    thirds = [
        words_for(each)[0]
        for each in subject.images.domains
        if each not in subject.pair and captions.lengths(words_for(each)[0]) == length
    ]
    if captions.lengths(words_for(natural)[0]) != length or not thirds:
        say("captions of two domains left out: no words for them of as many tokens")
        return made
    same = captions.classes
    texts = [
        [caption(each, name) for name in same] for each in (word, words_for(natural)[0], thirds[0])
    ]
    kind = f"a caption that says {thirds[0]!r}"
    made.append((DOMAINS, Swap(same, same, test, natural, texts, kind)))
    return made
