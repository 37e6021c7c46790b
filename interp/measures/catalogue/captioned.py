"""How pictures and captions come to match: circuits of both towers, words, and patched captions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.circuits import Edges, Matches, Units, match_faithfulness, match_parts
from interp.circuits.cross_modal.matches import TEXT, VISUAL
from interp.circuits.edges.wire import OUTPUT, node_of
from interp.circuits.sharing.cuts import Cut
from interp.core.errors import DataError, SampleError
from interp.core.progress import say
from interp.core.sites import present
from interp.core.tower import Wired
from interp.declared import figures
from interp.declared.measures import TRAINED, MeasureSpec
from interp.measures.captions import CLASSES, DOMAINS, Captions, by_head, by_word, halves
from interp.measures.catalogue.circuits_within import ALONE, CHANNELS, size_words
from interp.measures.subject import Frames, Subject

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Sizes of circuits on the page's curve."""

MOST = 12
"""Parts of each tower that the page names."""


def measure(subject: Subject) -> Frames:
    """Tables `match_faithfulness`, `match_circuits`, `caption_patching` and `caption_words`."""
    clip = subject.clip
    if not isinstance(clip.text, Wired):
        say(f"captions left out: {type(clip.text).__name__} has no known parts")
        return {}
    captions = Captions(subject)
    if len(captions.classes) < 4:
        say(f"captions left out: {len(captions.classes)} classes with pictures in both domains")
        return {}
    found = {"caption_words": by_word(captions), "caption_patching": by_head(captions)}
    curves, parts = [], []
    cuts = _cuts(subject)
    for domain in subject.pair if cuts else ():
        try:
            find, test = (captions.read(cuts, pairs) for pairs in halves(captions, domain))
        except (DataError, SampleError) as error:
            say(f"matches in {domain} left out: {error}")
            continue
        scores = find.scores()
        tested = match_faithfulness(test, scores, shares=SHARES, seed=subject.seed)
        curves.append(tested.frame.assign(domain=domain))
        parts.append(drawn(find, scores).assign(domain=domain))
    if curves:
        found["match_faithfulness"] = pd.concat(curves, ignore_index=True)
        found["match_circuits"] = pd.concat(parts, ignore_index=True)
    return {name: subject.file(table) for name, table in found.items() if len(table)}


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
        named = "text " if tower == TEXT else "image " if isinstance(cut, Edges) else ""
        for name in ("node", "node_b"):
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

TEST_FIRST = figures.ChoiceSpec("Pictures", "domain", first=lambda rows, names: len(names) - 1)
"""Which pictures, those of the test domain shown first."""

KEPT = figures.FigureSpec(
    "match-faithfulness",
    "How much of the match is left when most of both towers is cut away",
    "curve",
    ("match_faithfulness",),
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
    y=figures.AxisSpec("share of the match that remains", percent=True, within=(-0.5, 1.6)),
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
    ("caption_words",),
    method="The direction of a caption is a sum over its words (norms, attention and gates held): "
    "what each adds to its pictures' logit over those of other classes, or of the other domain.",
    null="The same word in captions of other classes, or of the other domain.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Shares of the whole "
    "caption; they sum to 1. {withheld}",
    choices=(figures.TEST_DOMAIN, LAST_SETTING, TEST_FIRST),
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
    ("caption_patching",),
    method="Part by part, a caption's activation replaces that of a caption with another class, or "
    "with the word for another domain.",
    null="A caption of a third class, or a third domain; index 0 stands for it.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. 1 is what exchanging the "
    "whole caption does. {kinds} {withheld}",
    scale=figures.INDEX,
    choices=(figures.TEST_DOMAIN, LAST_SETTING, TEST_FIRST),
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
    tables=("match_faithfulness", "match_circuits", "caption_words", "caption_patching"),
    bare=("match_circuits",),
    of=(TRAINED,),
    option="circuits",
    seconds=2.5,
    sections=(SECTION,),
)
