"""How pictures and captions come to match: circuits of both towers, words, and patched captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.circuits import (
    Edges,
    Matches,
    Units,
    effects,
    match_faithfulness,
    match_parts,
    read_matches,
    sweep,
)
from interp.circuits.cross_modal.matches import TEXT, VISUAL, MatchMetric
from interp.circuits.discovery.curves import share_rows
from interp.circuits.edges.wiring import OUTPUT, node_of
from interp.circuits.sharing.components import Cut
from interp.core.artists import artist_sides
from interp.core.declarations.columns import Column
from interp.core.declarations.figures import (
    BLUE,
    GREY,
    INDEX,
    LAID_OVER,
    MODEL,
    ORANGE,
    OTHER,
    PICTURES,
    RAW,
    SETTING,
    TEST_DOMAIN,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    GistSpec,
    LineSpec,
    Row,
    Scale,
    SectionSpec,
    SeriesSpec,
)
from interp.core.declarations.measures import MeasureSpec
from interp.core.declarations.writing import number, percent
from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import LAST
from interp.core.tables import Table
from interp.core.tower import Wired
from interp.data.mixtures.templates import NEUTRAL_WORDS, sentence, words_for
from interp.measures.catalogue.circuits_within import CHANNELS
from interp.measures.opened import Frames, OpenedModel
from interp.measures.subjects import present
from interp.models import sentence_parts
from interp.models.loading.presets import token_numbers

TEMPLATE = "a TERM of a CLASS"
"""What captions say, with a word for the picture (TERM) and the class."""

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Sizes of circuits on the page's curve."""

MOST = 12
"""Parts of each tower that the page names."""

CLASSES, DOMAINS = "classes", "domains"
"""What a caption tells apart: by its class word, and by its word for the domain."""

CLASS_WORD, TERM_WORD = "class word", "word for the domain"
ROLES = (CLASS_WORD, TERM_WORD, "other words", "beginning and end", "biases")


def said(term: str, label: str) -> str:
    """A caption.

    >>> said("image", "ice_cream")
    'an image of an ice cream'
    """
    return sentence(TEMPLATE, term, label)


@dataclass(frozen=True)
class Captions:
    """The captions that an opened model is asked about, and what its pictures are on average."""

    opened: OpenedModel

    @cached_property
    def classes(self) -> list[str]:
        """The classes with pictures in both domains, sorted."""
        pictures = self.opened.analysed
        found = [set(pictures.select(domain=domain).label) for domain in self.opened.pair]
        return sorted(found[0] & found[1])

    def lengths(self, term: str) -> dict[str, int]:
        """How many tokens the caption of each class has."""
        texts = [said(term, label) for label in self.classes]
        rows = token_numbers(self.opened.subject.clip.tokenizer, texts)
        return dict(zip(self.classes, map(len, rows), strict=True))

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Captions as the text tower reads them."""
        clip = self.opened.subject.clip
        return clip.tokenizer(list(texts)).to(clip.device)

    def read(self, cuts: Sequence[Cut], pairs: Pairs) -> Matches:
        """The pictures of pairs with their captions, which name no domain."""
        clip = self.opened.subject.clip
        return read_matches(
            cuts,
            pairs,
            tokens=lambda table: self.tokens(
                [said(NEUTRAL_WORDS[0], name) for name in table.label]
            ),
            preprocess=clip.preprocess,
            scale=clip.logit_scale,
        )

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """The mean unit embedding of each class's pictures, `class d_embed`, by domain."""
        features, clip = self.opened.features, self.opened.subject.clip
        unit = F.normalize(torch.as_tensor(features.values[LAST]), dim=-1)
        labels, domains = (features.frame[name].to_numpy() for name in ("label", "domain"))
        return {
            domain: torch.stack(
                [
                    unit[torch.from_numpy((labels == label) & (domains == domain))].mean(dim=0)
                    for label in self.classes
                ]
            ).to(clip.device, clip.dtype)
            for domain in self.opened.pair
        }


def measure(opened: OpenedModel) -> Frames:
    """Tables `match_faithfulness`, `match_circuits`, `caption_patching` and `caption_words`."""
    clip = opened.subject.clip
    if not isinstance(clip.text, Wired):
        say(f"captions left out: {type(clip.text).__name__} has no known parts")
        return {}
    captions = Captions(opened)
    if len(captions.classes) < 4:
        say(f"captions left out: {len(captions.classes)} classes with pictures in both domains")
        return {}
    found = {"caption_words": by_word(captions), "caption_patching": by_head(captions)}
    curves, parts = [], []
    cuts = _cuts(opened)
    for domain in opened.pair if cuts else ():
        try:
            find, test = (captions.read(cuts, pairs) for pairs in _halves(captions, domain))
        except (DataError, SampleError) as error:
            say(f"matches in {domain} left out: {error}")
            continue
        scores = find.scores()
        tested = match_faithfulness(test, scores, shares=SHARES, seed=opened.subject.seed)
        curves.append(tested.frame.assign(domain=domain))
        parts.append(drawn(find, scores).assign(domain=domain))
    if curves:
        found["match_faithfulness"] = pd.concat(curves, ignore_index=True)
        found["match_circuits"] = pd.concat(parts, ignore_index=True)
    return {name: opened.subject.file(table) for name, table in found.items() if len(table)}


MATCH = "match"
"""The node in which the two towers' circuits meet."""


def drawn(matches: Matches, scores: Sequence[np.ndarray]) -> pd.DataFrame:
    """The strongest parts of both towers as edges that lead to one node, `match`.

    The image tower's nodes stand left of it and the text tower's right, from their inputs at the
    far ends. Channels, between which no edge is scored, lead to the match at once.
    """
    found = match_parts(matches, scores, most=max(len(cut.names) for cut in matches.cuts)).frame
    sides = []
    for tower, cut in zip((VISUAL, TEXT), matches.cuts, strict=True):
        own = found[found["tower"] == tower]
        side = _edges(cut, own.head(MOST)) if isinstance(cut, Edges) else _channels(cut, own)
        if tower == TEXT:
            side = side.assign(layer=-side["layer"], layer_b=-side["layer_b"])
        for name in ("node", "node_b"):
            named = "image " if tower == VISUAL and isinstance(cut, Edges) else ""
            named = "text " if tower == TEXT else named
            side[name] = [each if each == MATCH else f"{named}{each}" for each in side[name]]
        sides.append(side)
    rows = pd.concat(sides, ignore_index=True)
    edge = rows["node"] + "->" + rows["node_b"]
    return rows.assign(edge=edge, n_pictures=len(matches))


def _edges(cut: Edges, parts: pd.DataFrame) -> pd.DataFrame:
    """Edges between nodes, those into one head's query, key and value together."""
    wiring = cut.wiring
    layer = dict(zip(wiring.nodes, wiring.layers.tolist(), strict=True))
    before = -len(set(wiring.layers)) - 1  # the match stands at 0, what is before it below
    ends = [part.split("->") for part in parts["part"]]

    def placed(name: str) -> tuple[str, int]:
        if name == OUTPUT:
            return MATCH, 0
        block = layer[name]
        return f"{'input' if block < 0 else f'block {block}'}:{name}", before + block + 2

    rows = [
        (*placed(first), *placed(node_of(second)), score)
        for (first, second), score in zip(ends, parts["value"], strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["node", "layer", "node_b", "layer_b", "score"])
    return frame.groupby(["node", "layer", "node_b", "layer_b"], as_index=False)["score"].sum()


def _channels(cut: Cut, parts: pd.DataFrame) -> pd.DataFrame:
    """The best channels of each site, each with an edge to the match."""
    split = parts["part"].str.rpartition(".")
    rows = parts.assign(site=split[0], channel=split[2])
    sites = list(dict.fromkeys(name.rpartition(".")[0] for name in cut.names))
    rows = rows.groupby("site", sort=False).head(-(-MOST // len(sites)))
    return pd.DataFrame(
        {
            "node": rows["site"] + ":" + rows["channel"],
            "layer": [sites.index(site) - len(sites) for site in rows["site"]],
            "node_b": MATCH,
            "layer_b": 0,
            "score": rows["value"],
        }
    )


def _cuts(opened: OpenedModel) -> Sequence[Cut]:
    """Both towers taken apart, as circuits of classes take the image tower."""
    clip = opened.subject.clip
    if isinstance(clip.visual, Wired):
        return Edges(clip.visual), Edges(clip.text)
    sites = present(clip.visual, CHANNELS)
    if not sites:
        say(f"matches left out: {type(clip.visual).__name__} has neither parts nor known channels")
        return ()
    one = opened.analysed.tensors(clip.preprocess, [0]).to(clip.device, clip.dtype)
    return Units.of(clip.visual, sites, one), Edges(clip.text)


def _halves(captions: Captions, domain: str) -> list[Pairs]:
    """Pairs of two classes in one domain, whose captions are equally long, by halves of artists."""
    images, n = captions.opened.analysed, captions.opened.analysis.n_circuit_pairs
    lengths, side = captions.lengths(NEUTRAL_WORDS[0]), artist_sides(images.frame)
    here = ((images.domain == domain) & images.label.isin(captions.classes)).to_numpy()
    halves = []
    for half in (0, 1):
        own: ImageTable = images[here & (side == half)]
        own = own.with_frame(own.frame.assign(n_tokens=own.label.map(lengths)))
        halves.append(
            own.pairs(
                same=("domain", "n_tokens"), differ="label", n=n, seed=captions.opened.subject.seed
            )
        )
    return halves


def by_word(captions: Captions) -> pd.DataFrame:
    """What each word of a caption adds to telling its pictures from others, in both domains.

    Pictures of a class are told from those of the other classes in their domain, and from those of
    the class in the other domain: `scale * <word, difference of the pictures' mean embeddings>`.
    """
    opened, frames = captions.opened, []
    clip, classes = opened.subject.clip, captions.classes
    parts = {domain: _role_vectors(captions, domain) for domain in opened.pair}
    n = len(classes)
    for domain, other in (opened.pair, opened.pair[::-1]):
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
                triples, names, names[:, None], goals=np.ones(len(ROLES)),
                seed=opened.subject.seed, rounding=1e-6 * float(np.abs(triples).max()),
            )  # fmt: skip
            frame = frame.assign(part=list(ROLES), told_apart=what, domain=domain, null_kind=kind)
            frames.append(frame.assign(whole=float(whole[:, 0].mean())))
    pictures = opened.features.frame
    shown = pictures[pictures["domain"].isin(opened.pair) & pictures["label"].isin(classes)]
    rows = pd.concat(frames, ignore_index=True).assign(
        ceiling_kind="the whole caption", unit="class", n_units=n, n_pictures=len(shown), n_runs=1,
        n_drawings=shown["drawing"].nunique() if "drawing" in shown else len(shown),
        estimand="share of what a caption tells apart that a word adds, mean over classes",
        seed=opened.subject.seed,
    )  # fmt: skip
    return Table.with_evidence("caption_words", rows, {}).frame


def _role_vectors(captions: Captions, domain: str) -> Tensor:
    """What each role's words add to the direction of each class's caption, `class role d_embed`."""
    clip, term = captions.opened.subject.clip, words_for(domain)[0]
    parts = sentence_parts(clip, [said(term, label) for label in captions.classes])
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
    opened = captions.opened
    frames = []
    for asked, swap in _swaps(captions):
        for pattern, axes in (("blocks.*.attn.hook_z", ("layer", "head")),
                              ("blocks.*.hook_mlp_out", ("layer",))):  # fmt: skip
            swept = sweep(
                opened.subject.clip.text,
                clean=captions.tokens(swap.texts[0]),
                corrupt=captions.tokens(swap.texts[1]),
                null=captions.tokens(swap.texts[2]),
                null_kind=swap.null_kind,
                metric=swap.metric(captions),
                pairs=swap.pairs(),
                sites=pattern,
                axes=axes,
            )
            found = effects(swept, seed=opened.subject.seed).frame
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
        clip, at = captions.opened.subject.clip, captions.classes.index
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


def _swaps(captions: Captions) -> list[tuple[str, Swap]]:
    """Captions in which the class word is exchanged, and captions with that for the domain."""
    opened = captions.opened
    natural, test = opened.pair
    made = []
    term, lengths = NEUTRAL_WORDS[0], captions.lengths(NEUTRAL_WORDS[0])
    generator, chosen = rng("captions", opened.subject.seed), []
    for label in captions.classes:
        alike = [name for name in captions.classes if name != label
                 and lengths[name] == lengths[label]]  # fmt: skip
        if len(alike) >= 2:
            foil, third = generator.permutation(alike)[:2]
            chosen.append((label, str(foil), str(third)))
    if len(chosen) >= 4:
        labels, foils, thirds = zip(*chosen, strict=True)
        texts = [[said(term, name) for name in names] for names in (labels, foils, thirds)]
        for domain in opened.pair:
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
        for each in opened.images.domains
        if each not in opened.pair and captions.lengths(words_for(each)[0]) == length
    ]
    if captions.lengths(words_for(natural)[0]) != length or not thirds:
        say("captions of two domains left out: no words for them of as many tokens")
        return made
    same = captions.classes
    texts = [
        [said(each, name) for name in same] for each in (word, words_for(natural)[0], thirds[0])
    ]
    kind = f"a caption that says {thirds[0]!r}"
    made.append((DOMAINS, Swap(same, same, test, natural, texts, kind)))
    return made


def _sized(row: Row) -> str:
    ends = f" ({percent(row['low'])} to {percent(row['high'])})"
    index = f"<br>index {number(row['index'])}" if row["index"] == row["index"] else ""
    return f"{row['n_edges']:,.0f} parts: {percent(row['value'])}{ends}{index}"


ALONE = {"measure": "circuit alone"}
SIZES = {size: f"{100 * size:g} %" for size in (0.02, *SHARES, 1.0)}

TEST_FIRST = ChoiceSpec("Pictures", "domain", first=lambda rows, names: len(names) - 1)
"""Which pictures, those of the test domain shown first."""

KEPT = FigureSpec(
    "match-faithfulness",
    "How much of the match is left when most of both towers is cut away",
    "curve",
    ("match_faithfulness",),
    method="The best-scored parts of both towers (or of one, while the other is whole) alone carry "
    "what picture and caption say; all others run on as in those of another class.",
    null="Random circuits as large, with as many parts in each layer.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Circuits were chosen on "
    "pictures by other artists. 1 is the whole model's match. {kinds}",
    alt="Lines over {points} sizes of circuit, in both towers, in either, and at random",
    where=ALONE,
    needs=("value",),
    choices=(TEST_DOMAIN, MODEL, PICTURES),
    across="share",
    series=(
        SeriesSpec("in both towers", RAW, BLUE, {"tower": "both"}),
        SeriesSpec("in the image tower", RAW, ORANGE, {"tower": "visual"}, "dash", "x"),
        SeriesSpec("in the text tower", RAW, "#009E73", {"tower": "text"}, "dash", "diamond"),
        SeriesSpec("random, in both towers", Scale("null"), GREY, {"tower": "both"}, "dot",
                   mode="lines"),
    ),
    hover=_sized,
    x=AxisSpec("size, as a share of the parts", percent=True, log=True, ticks=SIZES),
    y=AxisSpec("share of the match that remains", percent=True, within=(-0.5, 1.6)),
    lines=(LineSpec(0), LineSpec(1)),
)  # fmt: skip

MEETING = FigureSpec(
    "match-circuit",
    "Which parts of both towers make the match",
    "circuit",
    ("match_circuits",),
    method="Every part is scored by the gradient along the way from the partner's picture or "
    "caption to the pair's own, in logits of the match.",
    null="None: scores are estimates. What such parts do alone is in the figure above.",
    caption="n = {pictures} pictures with their captions. The strongest parts of one model, "
    "{most} edges at most, as wide as their |score|: the image tower from the left, the text tower "
    "from the right. Of both domains: green what serves both, blue what serves natural pictures "
    "alone, orange the test domain's. a0.h1 is head 1 of block 0, m0 its MLP; numbers are "
    "channels. Scores have no interval here.",
    alt="Graph of up to {most} edges of two towers that meet in one node",
    needs=("score",),
    choices=(
        TEST_DOMAIN,
        MODEL,
        ChoiceSpec("Pictures", "domain", {LAID_OVER: LAID_OVER}),
        ChoiceSpec("Seed", "seed"),
    ),
)

WORDS = FigureSpec(
    "caption-words",
    "Which word of a caption tells its pictures apart",
    "forest",
    ("caption_words",),
    method="The direction of a caption is a sum over its words (norms, attention and gates held): "
    "what each adds to its pictures' logit over those of other classes, or of the other domain.",
    null="The same word in captions of other classes, or of the other domain.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Shares of the whole "
    "caption; they sum to 1. {withheld}",
    alt="{rows} kinds of words for {subjects} questions",
    choices=(TEST_DOMAIN, SETTING, TEST_FIRST),
    subjects="told_apart",
    subject_names={CLASSES: "telling classes apart", DOMAINS: "telling domains apart"},
    labels="part",
    x=AxisSpec("share of what the caption tells apart", percent=True, within=(-1.0, 2.0)),
    lines=(LineSpec(0), LineSpec(1)),
)

HEADS = FigureSpec(
    "caption-patching",
    "Which parts of the text tower carry the class word, and which the word for the domain",
    "forest",
    ("caption_patching",),
    method="Part by part, a caption's activation replaces that of a caption with another class, or "
    "with the word for another domain.",
    null="A caption of a third class, or a third domain; index 0 stands for it.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. 1 is what exchanging the "
    "whole caption does. {kinds} {withheld}",
    alt="{rows} parts of the text tower for {subjects} questions",
    scale=INDEX,
    choices=(TEST_DOMAIN, SETTING, TEST_FIRST),
    subjects="told_apart",
    subject_names={CLASSES: "another class", DOMAINS: "another domain"},
    labels="part",
    x=AxisSpec("share of the exchange beyond the null (index)", within=(-1.0, 2.0)),
    lines=(LineSpec(0), LineSpec(1)),
)

SECTION = SectionSpec(
    "captions",
    "How do pictures and captions come to match?",
    "Match = what a picture and its caption have beyond the pair exchanged with another class's: "
    "scale × ⟨v − v′, t − t′⟩ of unit embeddings. Both towers are cut; what a circuit leaves out "
    "runs on as in the other class's picture and caption.",
    (KEPT, MEETING, WORDS, HEADS),
    note="Where captions never name a domain (aligned captions, or a domain never trained on), the "
    "word for it is noise: then it tells nothing apart, and its figures are withheld.",
    optional=("match_faithfulness", "match_circuits", "caption_words", "caption_patching"),
    gist=GistSpec(
        "caption_words",
        "The word for a domain makes {range} of what tells a caption's pictures from those of the "
        "class in the other domain.",
        {"told_apart": DOMAINS, "part": TERM_WORD, "domain": OTHER},
        form="percent",
    ),
)

MEASURE = MeasureSpec(
    "captions",
    measure,
    tables=("match_faithfulness", "match_circuits", "caption_words", "caption_patching"),
    evidence=("match_faithfulness", "caption_words", "caption_patching"),
    option="circuits",
    seconds=2.5,
    columns={
        "told_apart": Column("what a caption is to tell apart: classes, or domains", "text",
                             key=True),
        "whole": Column("what the whole caption tells apart, in logits", "number"),
    },
    sections=(SECTION,),
)  # fmt: skip
