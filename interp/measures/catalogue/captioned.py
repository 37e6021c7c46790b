"""How pictures and captions come to match: circuits of both towers, words, and patched captions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.circuits import Edges, Matches, Units, match_faithfulness, read_matches
from interp.circuits.cross_modal.captions import (
    CLASSES,
    DOMAINS,
    Swap,
    caption_words,
    patched_captions,
)
from interp.circuits.cross_modal.match_graph import match_graph
from interp.circuits.sharing.cuts import Cut
from interp.core.artists import artist_sides
from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import LAST, present
from interp.core.tables import Table
from interp.core.tower import Wired
from interp.data.mixtures.templates import NEUTRAL_WORDS, sentence, words_for
from interp.declared import figures
from interp.declared.measures import TRAINED, MeasureSpec
from interp.measures.catalogue.circuits_within import ALONE, CHANNELS, size_words
from interp.measures.subject import Frames, Subject
from interp.models import sentence_parts
from interp.models.loading.presets import token_numbers

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Sizes of circuits on the page's curve."""

ROLES = ("class word", "word for the domain", "other words", "beginning and end", "biases")


def measure(subject: Subject) -> Frames:
    """Tables `match_faithfulness`, `match_circuits`, `caption_patching` and `caption_words`."""
    if not isinstance(subject.clip.text, Wired):
        say(f"captions left out: {type(subject.clip.text).__name__} has no known parts")
        return {}
    captions = Captions(subject)
    if len(captions.classes) < 4:
        say(f"captions left out: {len(captions.classes)} classes with pictures in both domains")
        return {}
    found = {"caption_words": captions.by_word(), "caption_patching": captions.by_head()}
    curves, parts = [], []
    cuts = _cuts(subject)
    for domain in subject.pair if cuts else ():
        try:
            find, test = (captions.read(cuts, pairs) for pairs in captions.halves(domain))
        except (DataError, SampleError) as error:
            say(f"matches in {domain} left out: {error}")
            continue
        scores = find.scores()
        tested = match_faithfulness(test, scores, shares=SHARES, seed=subject.seed)
        curves.append(tested.frame.assign(domain=domain))
        parts.append(match_graph(find, scores).assign(domain=domain))
    if curves:
        found["match_faithfulness"] = pd.concat(curves, ignore_index=True)
        found["match_circuits"] = pd.concat(parts, ignore_index=True)
    return {name: subject.file(table) for name, table in found.items() if len(table)}


def caption(term: str, label: str) -> str:
    """A caption, with a word for the picture and its class.

    >>> caption("image", "ice_cream")
    'an image of an ice cream'
    """
    return sentence("a TERM of a CLASS", term, label)


@dataclass(frozen=True)
class Captions:
    """The captions that an opened model is asked about, and what its pictures are on average."""

    subject: Subject

    @cached_property
    def classes(self) -> list[str]:
        """The classes with pictures in both domains, sorted."""
        counts = self.subject.analysed.counts().reindex(columns=list(self.subject.pair))
        return sorted(counts.index[(counts > 0).all(axis=1)])

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
        clip, term = self.subject.clip, NEUTRAL_WORDS[0]
        return read_matches(
            cuts,
            pairs,
            tokens=lambda table: self.tokens([caption(term, name) for name in table.label]),
            preprocess=clip.preprocess,
            scale=clip.logit_scale,
        )

    def halves(self, domain: str) -> list[Pairs]:
        """Pairs of two classes with captions of one length in a domain, by halves of artists."""
        images, lengths = self.subject.analysed, self.lengths(NEUTRAL_WORDS[0])
        side = artist_sides(images.frame)
        here = ((images.domain == domain) & images.label.isin(self.classes)).to_numpy()
        own: list[ImageTable] = [images[here & (side == half)] for half in (0, 1)]
        n, seed = self.subject.analysis.n_circuit_pairs, self.subject.seed
        return [
            half.with_frame(half.frame.assign(n_tokens=half.label.map(lengths))).pairs(
                same=("domain", "n_tokens"), differ="label", n=n, seed=seed
            )
            for half in own
        ]

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """The mean unit embedding of each class's pictures, `class d_embed`, by domain."""
        features, clip = self.subject.features, self.subject.clip
        unit = F.normalize(torch.as_tensor(features.values[LAST]), dim=-1)
        rows = features.frame.reset_index(drop=True).groupby(["domain", "label"]).indices
        return {
            domain: torch.stack(
                [unit[rows[domain, label]].mean(dim=0) for label in self.classes]
            ).to(clip.device, clip.dtype)
            for domain in self.subject.pair
        }

    def by_word(self) -> pd.DataFrame:
        """What each word of a caption adds to telling its pictures from others, in both domains."""
        subject = self.subject
        rows = caption_words(
            {domain: self._roles(domain) for domain in subject.pair},
            self.means,
            labels=self.classes,
            roles=ROLES,
            terms={domain: words_for(domain)[0] for domain in subject.pair},
            scale=subject.clip.logit_scale,
            seed=subject.seed,
        )
        shown = subject.features.frame
        shown = shown[shown["domain"].isin(subject.pair) & shown["label"].isin(self.classes)]
        drawings = shown["drawing"].nunique() if "drawing" in shown else len(shown)
        counted = rows.assign(n_pictures=len(shown), n_drawings=drawings)
        return Table.with_evidence("caption_words", counted, {}).frame

    def _roles(self, domain: str) -> Tensor:
        """What each role's words add to a caption's unit direction, `class role d_embed`."""
        clip, term = self.subject.clip, words_for(domain)[0]
        parts = sentence_parts(clip, [caption(term, label) for label in self.classes])
        spoken = len(token_numbers(clip.tokenizer, [term])[0]) - 2
        rows = []
        for vectors, rest in zip(parts.vectors, parts.rest, strict=True):
            # [start] an TERM of an CLASS [end]
            others = torch.cat([vectors[1:2], vectors[2 + spoken : 4 + spoken]])
            roles = [vectors[4 + spoken : -1], vectors[2 : 2 + spoken], others, vectors[[0, -1]]]
            rows.append(torch.stack([*(each.sum(dim=0) for each in roles), rest]))
        return torch.stack(rows)

    def by_head(self) -> pd.DataFrame:
        """What each head and MLP of the text tower carries from one caption into another."""
        clip, frames = self.subject.clip, []
        for told_apart, swap in self.swaps():
            ends = [
                self.means[domain][[self.classes.index(name) for name in names]]
                for domain, names in ((swap.domain, swap.labels), (swap.other, swap.foils))
            ]
            tokens = [self.tokens(texts) for texts in swap.texts]
            direction = clip.logit_scale * (ends[0] - ends[1])
            found = patched_captions(clip.text, swap, tokens, direction, seed=self.subject.seed)
            frames.append(found.assign(told_apart=told_apart, domain=swap.domain))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def swaps(self) -> Iterator[tuple[str, Swap]]:
        """Captions in which the class word is exchanged, and captions with that for the domain."""
        natural, test = self.subject.pair
        lengths = self.lengths(NEUTRAL_WORDS[0])
        generator, chosen = rng("captions", self.subject.seed), []
        for label in self.classes:
            alike = [n for n in self.classes if n != label and lengths[n] == lengths[label]]
            if len(alike) >= 2:
                chosen.append((label, *map(str, generator.permutation(alike)[:2])))
        if len(chosen) >= 4:
            several = [list(names) for names in zip(*chosen, strict=True)]
            texts = [[caption(NEUTRAL_WORDS[0], name) for name in names] for names in several]
            for domain in self.subject.pair:
                kind = "the caption of a third class"
                yield CLASSES, Swap(several[0], several[1], domain, domain, texts, kind)
        others = [each for each in self.subject.images.domains if each not in self.subject.pair]
        own, *rest = (words_for(domain)[0] for domain in (test, natural, *others))
        length = self.lengths(own)
        partner, *thirds = (word if self.lengths(word) == length else "" for word in rest)
        third = next(filter(None, thirds), "")
        if not (partner and third):
            say("captions of two domains left out: no words for them of as many tokens")
            return
        texts = [[caption(word, name) for name in self.classes] for word in (own, partner, third)]
        kind = f"a caption that says {third!r}"
        yield DOMAINS, Swap(self.classes, self.classes, test, natural, texts, kind)


def _cuts(subject: Subject) -> Sequence[Cut]:
    """Both towers taken apart, as circuits of classes take the image tower."""
    clip = subject.clip
    if isinstance(clip.visual, Wired):
        return Edges(clip.visual), Edges(clip.text)
    sites = present(clip.visual, CHANNELS)
    if not sites:
        say(f"matches left out: {type(clip.visual).__name__} has neither parts nor known channels")
        return ()
    one = subject.analysed.tensors(clip.preprocess, [0]).to(clip.device, clip.dtype)
    return Units.of(clip.visual, sites, one), Edges(clip.text)


LAST_SETTING = figures.ChoiceSpec("Setting", "setting", first=lambda rows, names: len(names) - 1)
"""Which setting, the last one first: its captions name the most domains."""

"""Which pictures, those of the test domain shown first."""

KEPT = figures.FigureSpec(
    "match-faithfulness",
    "How much of the match is left when most of both towers is cut away",
    "curve",
    method="The best-scored parts of both towers (or of one, while the other is whole) alone carry "
    "what picture and caption say; all others run on as in those of another class.",
    null="Random circuits as large, with as many parts in each layer.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Circuits were chosen on "
    "pictures by other artists. 1 is the whole model's match. {kinds}",
    where=ALONE,
    needs=("value",),
    choices=figures.OF_MODEL,
    across="share",
    series=(
        figures.SeriesSpec("in both towers", figures.RAW, figures.BLUE, {"tower": "both"}),
        figures.SeriesSpec(
            "in the image tower", figures.RAW, figures.ORANGE, {"tower": "visual"}, "dash", "x"
        ),
        figures.SeriesSpec(
            "in the text tower", figures.RAW, figures.GREEN, {"tower": "text"}, "dash", "diamond"
        ),
        figures.null_series("random, in both towers", {"tower": "both"}),
    ),
    hover=size_words,
    x=figures.size_axis("size, as a share of the parts", (0.02, *SHARES, 1.0)),
    y=figures.AxisSpec("share of the match that remains", within=(-0.5, 1.6)),
    lines=figures.NONE_TO_WHOLE,
)

MEETING = figures.FigureSpec(
    "match-circuit",
    "Which parts of both towers make the match",
    "circuit",
    ("match_circuits",),
    method="Every part is scored by the gradient along the way from the partner's picture or "
    "caption to the pair's own, in logits of the match.",
    null="None: scores are estimates. What such parts do alone is in the figure above.",
    caption="n = {pictures} pictures with their captions. The strongest parts of one model (the "
    "first, of several blocks or seeds), {most} edges at most, as wide as their |score|: the image "
    "tower from the left, the text tower from the right. Of both domains: green what serves both, "
    "blue what serves natural pictures alone, orange the test domain's. a0.h1 is head 1 of block "
    "0, m0 its MLP; numbers are channels. Scores have no interval here.",
    needs=("score",),
    choices=figures.OF_CIRCUIT,
    keep=("first block",),
)

WORDS = figures.FigureSpec(
    "caption-words",
    "Which word of a caption tells its pictures apart",
    "forest",
    method="The direction of a caption is a sum over its words (norms, attention and gates held): "
    "what each adds to its pictures' logit over those of other classes, or of the other domain.",
    null="The same word in captions of other classes, or of the other domain.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Shares of the whole "
    "caption; they sum to 1. {withheld}",
    choices=(figures.TEST_DOMAIN, LAST_SETTING, figures.TEST_FIRST),
    subjects="told_apart",
    subject_names={CLASSES: "telling classes apart", DOMAINS: "telling domains apart"},
    labels="part",
    x=figures.AxisSpec("share of what the caption tells apart", percent=True, within=(-1.0, 2.0)),
    lines=figures.NONE_TO_WHOLE,
)

HEADS = figures.FigureSpec(
    "caption-patching",
    "Which parts of the text tower carry the class word, and which the word for the domain",
    "forest",
    method="Part by part, a caption's activation replaces that of a caption with another class, or "
    "with the word for another domain.",
    null="A caption of a third class, or a third domain; index 0 stands for it.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. 1 is what exchanging the "
    "whole caption does. {kinds} {withheld}",
    scale=figures.INDEX,
    choices=(figures.TEST_DOMAIN, LAST_SETTING, figures.TEST_FIRST),
    subjects="told_apart",
    subject_names={CLASSES: "another class", DOMAINS: "another domain"},
    labels="part",
    x=figures.AxisSpec("share of the exchange beyond the null (index)", within=(-1.0, 2.0)),
    lines=figures.NONE_TO_WHOLE,
)

SECTION = figures.SectionSpec(
    "captions",
    "How do pictures and captions come to match?",
    "Match = what a picture and its caption have beyond the pair exchanged with another class's: "
    "scale × ⟨v − v′, t − t′⟩, where v and t are the unit embeddings of picture and caption, v′ "
    "and t′ those of another class's. Both towers are cut: all that a circuit leaves out has the "
    "activations of the other class's picture and caption.",
    (KEPT, MEETING, WORDS, HEADS),
    note="Where captions never name a domain (aligned captions, or a domain never trained on), the "
    "word for it is noise: then it tells nothing apart, and its figures are withheld.",
    also=("text tower", "words of captions", "image and text", "cross-modal circuits"),
    gist=figures.GistSpec(
        "match_faithfulness",
        "Half of the image tower's parts keep {range} of the match of a picture and its caption, "
        "the rest running as in another class.",
        ALONE | {"tower": "visual", "share": 0.5},
        form="percent",
    ),
)

MEASURE = MeasureSpec(
    "captions",
    measure,
    bare=("match_circuits",),
    of=(TRAINED,),
    option="circuits",
    seconds=2.5,
    sections=(SECTION,),
)
