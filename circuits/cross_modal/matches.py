"""How a picture and its caption come to match: parts of both towers scored by one number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.circuits.discovery.curves import curve_table, units_of
from interp.circuits.patching.localise import by_class, class_mean, leave_out
from interp.circuits.sharing.circuit_runs import shuffled_in_groups
from interp.circuits.sharing.cuts import Cut
from interp.circuits.sharing.overlap_measures import best_of_groups
from interp.circuits.tasks.metrics import Rows
from interp.circuits.tasks.pairs import PairTask, embed, read
from interp.core.arguments import check_counts, check_shares
from interp.core.errors import (
    AlikeError,
    SampleError,
    ShapeError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Pairs, Preprocess
from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife
from interp.core.tables import Table

VISUAL, TEXT = "visual", "text"  # the two towers
ASKED = "match pictures and captions"
Both = tuple[Tensor, Tensor]
"""Clean inputs of a tower, and their corrupt partners."""


@dataclass(frozen=True, eq=False)
class MatchMetric:
    """A metric of one tower: how far its output agrees with what is told apart by the other.

    score = <output / |output| - start, direction>

    Args:
        direction: For each example, `batch d_embed`.
        start: The unit output of the corrupt run, which scores 0, `batch d_embed`.
    """

    direction: Float[Tensor, "batch d_embed"]
    start: Float[Tensor, "batch d_embed"]
    name: str = "match"

    def __call__(self, outputs: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch"]:
        """One number per output."""
        direction, start = self.direction.to(outputs), self.start.to(outputs)
        return ((F.normalize(outputs, dim=-1) - start) * direction).sum(dim=-1)

    def __getitem__(self, rows: Rows) -> "MatchMetric":
        """The metric of some of the examples."""
        return MatchMetric(self.direction[rows], self.start[rows], self.name)


@dataclass(frozen=True, eq=False)
class Matches:
    r"""Pictures and their captions, each with a partner, and how well each pair matches.

    $$m = s\,\langle v - v',\, t - t' \rangle = z(x, y) - z(x', y) - z(x, y') + z(x', y')$$

    with unit embeddings v of a picture x and t of its caption y, their partners primed, and z the
    logit: what the pair has beyond the two that were exchanged.

    Args:
        cuts: The image tower and the text tower, taken apart: `Edges(tower)`, or `Units.of(...)`
            for heads, neurons, channels, or (axis "pos" of the first stream) words.
        pictures: Preprocessed pictures and their partners.
        captions: Tokens of their captions, and of the partners'.
        scale: The logit scale.
        pairs: What the pictures show, which makes classes the units; None makes each pair a unit.
        batch_size: Examples in a forward.

    Raises:
        SampleError: Without a pair.
        ShapeError: If there is not a caption for every picture.
        AlikeError: For a picture or a caption that is its own partner.

    Notes:
        The metric of either tower, `of("visual")` and `of("text")`, is 0 for its corrupt
        input and m for its clean one while the other tower has both of its own. So scores of parts
        of both towers have one unit, and each tower's sum to about m by integrated gradients.

    >>> from interp.circuits import Chain, Edges
    >>> cuts = Edges(Chain([torch.nn.Identity()])), Edges(Chain([torch.nn.Identity()]))
    >>> here, there = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> matches = Matches(cuts, (here, there), (here, there), scale=10.0)
    >>> matches.whole.tolist()  # 10 - 0 - 0 + 10
    [20.0]
    """

    cuts: tuple[Cut, Cut]
    pictures: Both
    captions: Both
    scale: float = 1.0
    pairs: Pairs | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        counts = [len(x) for x in (*self.pictures, *self.captions)]
        if not counts[0]:
            raise SampleError(ASKED, "no pair", "one or more", "give more pictures")
        if len(set(counts)) > 1 or len(self.pairs or self.pictures[0]) != counts[0]:
            given = "{} pictures with {} partners, {} captions with {}".format(*counts)
            raise ShapeError(ASKED, given, "as many of each", "give them in the same order")
        read = {"pictures": self.pictures, "captions": self.captions}
        for what, (clean, corrupt) in read.items():
            alike = clean.shape == corrupt.shape and (clean == corrupt).flatten(1).all(dim=1)
            if bool(torch.as_tensor(alike).any()):
                places = torch.as_tensor(alike).nonzero()[:, 0].tolist()
                given = f"{what} that are their own partners (pair {listed(places)})"
                right = "two different ones in each pair"
                raise AlikeError(ASKED, given, right, "leave these pairs out")

    def __repr__(self) -> str:
        n, level = len(self), [cut.level for cut in self.cuts]
        return f"Matches({n} pictures and captions; {level[0]}s and {level[1]}s)"

    def __len__(self) -> int:
        return len(self.pictures[0])

    @property
    def inputs(self) -> dict[str, Both]:
        """What each tower reads: clean inputs and their partners."""
        return {VISUAL: self.pictures, TEXT: self.captions}

    @cached_property
    def ends(self) -> dict[str, Both]:
        """For each tower the unit embeddings of its clean and of its corrupt inputs."""
        ends, size = {}, self.batch_size
        for cut, (tower, both) in zip(self.cuts, self.inputs.items(), strict=True):
            outputs = (embed(cut.tower, x, batch_size=size) for x in both)
            clean, corrupt = (F.normalize(each, dim=-1) for each in outputs)
            ends[tower] = clean, corrupt
        return ends

    @property
    def whole(self) -> Float[Tensor, "example"]:
        """How well each pair matches in the model as it is, in logits."""
        return self.of(VISUAL).metric(self.ends[VISUAL][0])

    def of(self, tower: str) -> PairTask:
        """The question to one tower alone, while the other has its clean and its corrupt output.

        Args:
            tower: "visual" or "text".

        Returns:
            Inputs, metric and pairs; its `words` are keyword arguments of `attribute` and `sweep`.

        Raises:
            SpecificationError: For another tower.
        """
        check_known(ASKED, "tower", [tower], (VISUAL, TEXT), SpecificationError)
        other = TEXT if tower == VISUAL else VISUAL
        direction = self.scale * (self.ends[other][0] - self.ends[other][1])
        clean, corrupt = self.inputs[tower]
        metric = MatchMetric(direction, self.ends[tower][1])
        return PairTask(clean=clean, corrupt=corrupt, metric=metric, pairs=self.pairs)

    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """How much each part of the image tower, and of the text tower, adds to the match.

        Returns:
            Scores in logits, `example part`, for each tower.
        """
        visual, text = self.cuts
        return visual.score(self.of(VISUAL)), text.score(self.of(TEXT))

    def run(
        self, pictures: np.ndarray | None, captions: np.ndarray | None
    ) -> Float[np.ndarray, "circuit example"]:
        """The match when only some parts of the towers carry what their own input makes of them.

        Args:
            pictures: Which parts of the image tower are kept, `circuit part`, Booleans; None keeps
                all.
            captions: Which parts of the text tower, likewise, for as many circuits.

        Returns:
            The match of each circuit and example, in logits: 0 where a tower keeps nothing.
        """
        both = self.moved(VISUAL, pictures) * self.moved(TEXT, captions)
        return self.scale * both.sum(dim=-1).double().cpu().numpy()

    def moved(self, tower: str, kept: np.ndarray | None) -> Tensor:
        """How far some of a tower's parts move its unit output, `circuit example d_embed`.

        Args:
            tower: "visual" or "text".
            kept: Which parts are kept, `circuit part`, Booleans; None keeps all.

        Returns:
            The output less that of the corrupt run.
        """
        clean, corrupt = self.ends[tower]
        if kept is None:
            return (clean - corrupt)[None]
        cut = self.cuts[tower == TEXT]
        return F.normalize(cut.embed(*self.inputs[tower], kept), dim=-1) - corrupt


@door
def read_matches(
    cuts: Sequence[Cut],
    pairs: Pairs,
    *,
    tokens: Callable[[ImageTable], Tensor],
    preprocess: Preprocess,
    scale: float = 1.0,
    batch_size: int = 32,
) -> Matches:
    """Read the pictures of pairs, and the captions that belong to them.

    Args:
        cuts: The image tower and the text tower, taken apart.
        pairs: Pictures and their partners, from `ImageTable.pairs`.
        tokens: From a table to the tokens of a caption for each of its rows, such as `lambda
            table: clip.tokenizer([f"a photo of a {name}" for name in table.label])`.
        preprocess: From a picture to the image tower's input.
        scale: The logit scale, `clip.logit_scale`.
        batch_size: Examples in a forward.

    Returns:
        The matches.

    Raises:
        ShapeError: If there is not a caption for every picture.
        AlikeError: For a caption that is its partner's too.

    >>> from PIL import Image
    >>> from interp.circuits import Chain, Edges
    >>> names = ["red", "blue"]
    >>> frame = pd.DataFrame({"path": names, "label": names, "domain": "flat", "split": "test",
    ...                       "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> said = {"red": [1.0, 0.0, 0.0], "blue": [0.0, 0.0, 1.0]}  # what stands for a caption
    >>> read_matches(
    ...     [Edges(Chain([torch.nn.Identity()]))] * 2, images.pairs(same="domain", differ="label"),
    ...     tokens=lambda table: torch.tensor([[said[name]] for name in table.label]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255).whole.tolist()
    [2.0, 2.0]
    """
    first, second = cuts
    like = next(first.tower.parameters(), torch.zeros(()))  # type: ignore[attr-defined]
    device = next(second.tower.parameters(), like).device  # type: ignore[attr-defined]
    clean, corrupt = (
        read(pairs.images, rows, preprocess, like)
        for rows in (pairs.clean_rows, pairs.corrupt_rows)
    )
    texts, others = (tokens(table).to(device) for table in (pairs.clean, pairs.corrupt))
    return Matches((first, second), (clean, corrupt), (texts, others), scale, pairs, batch_size)


@door
def match_parts(
    matches: Matches, scores: Sequence[np.ndarray] | None = None, *, most: int = 40
) -> Table:
    """Find the parts of both towers that add most to the match of pictures and captions.

    Args:
        matches: The pairs.
        scores: Their `matches.scores()`; None takes them.
        most: How many parts of each tower are listed, those with the largest |value| first.

    Returns:
        A row per part: `tower`, `part`, `value` (mean over classes of its score, in logits) with
        its jackknife interval, `share` (of the mean match) and
        `rank` in its tower. Facts tell how many parts each tower has.

    Notes:
        Scores are estimates by the method of the cut. `match_faithfulness` tells what such parts do
        alone, in runs.

    >>> from interp.circuits import Chain, Edges
    >>> cuts = Edges(Chain([torch.nn.Identity()])), Edges(Chain([torch.nn.Identity()]))
    >>> here, there = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> table = match_parts(Matches(cuts, (here, there), (here, there)))
    >>> table.frame.groupby("tower")["part"].count().to_dict()  # three edges in each
    {'text': 3, 'visual': 3}
    """
    labels, roles = units_of(matches.pairs, len(matches))
    whole = float(class_mean(matches.whole.double().cpu().numpy()[:, None], labels)[0])
    frames = []
    given = matches.scores() if scores is None else scores
    for tower, cut, own in zip((VISUAL, TEXT), matches.cuts, given, strict=True):
        value = class_mean(own, labels)
        best = np.argsort(-np.abs(value), kind="stable")[:most]
        left = leave_out(own[:, best], labels, roles)
        spread = [jackknife(float(value[part]), left[:, place]) for place, part in enumerate(best)]
        columns = {
            "tower": tower,
            "part": [cut.names[part] for part in best],
            "rank": np.arange(1, len(best) + 1),
            "value": value[best],
            "low": [each.low for each in spread],
            "high": [each.high for each in spread],
            "share": value[best] / whole,
        }
        frames.append(pd.DataFrame(columns))
    frame = pd.concat(frames, ignore_index=True)
    parts = dict(zip((VISUAL, TEXT), map(len, (c.names for c in matches.cuts)), strict=True))
    facts = {"match": whole, "parts": parts}
    return Table("match_parts", frame.assign(n_pictures=len(matches)), facts)


MATCH_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of circuits, as shares of each tower's parts."""

BOTH = "both"  # what a row is called whose circuit spans both towers


@door
def match_faithfulness(
    matches: Matches,
    scores: Sequence[np.ndarray],
    *,
    shares: Sequence[float] = MATCH_SHARES,
    n_random: int = 3,
    seed: int = 0,
) -> Table:
    """Measure how much of the match of pictures and captions the best parts of two towers keep.

    value = match(circuit) / match(model); index = (value - null) / (ceiling - null)

    Args:
        matches: The pairs to test with.
        scores: For each tower its parts' scores, `example part` or `part`, such as
            `other_matches.scores()` of other pictures.
        shares: Sizes of circuits as shares of each tower's parts, rounded up; those with the
            largest |mean score| over examples are kept.
        n_random: Random circuits for each, which have as many parts in each group (layer).
        seed: Seed of the random circuits.

    Returns:
        The rows, areas and evidence of `faithfulness`, three times, told apart by `tower`: circuits
        of both towers; of the image tower while captions are whole; of the text tower while
        pictures are whole. `n_edges` counts what is kept, `share` is of all parts.

    Raises:
        ShapeError: For scores that are not one per part.
        SpecificationError: For a share outside (0, 1], or no random circuit.

    Notes:
        What is left out runs on as in the partner's picture and caption: their match is 0. The
        match is bilinear, so a circuit of both towers that keeps a share a of what the picture
        tells and b of what the caption tells keeps about a b.

    >>> import torch
    >>> from interp.circuits import Chain, Edges
    >>> cuts = Edges(Chain([torch.nn.Identity()])), Edges(Chain([torch.nn.Identity()]))
    >>> here, there = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> matches = Matches(cuts, (here, there), (here, there))
    >>> table = match_faithfulness(matches, matches.scores(), shares=[1.0])
    >>> table.frame[["tower", "measure", "value"]].to_numpy().tolist()[0]
    ['both', 'circuit alone', 1.0]
    """
    check_shares(ASKED, shares, whole=True)
    check_counts(ASKED, random_circuits=n_random)
    labels = units_of(matches.pairs, len(matches))[0]
    generator = rng("random circuits of two towers", seed)
    masks, moved = {}, {}
    for tower, cut, own in zip((VISUAL, TEXT), matches.cuts, scores, strict=True):
        kept = _best(cut, np.asarray(own), shares)
        drawn = shuffled_in_groups(np.repeat(kept, n_random, axis=0), cut.groups, generator)
        masks[tower] = np.concatenate([kept, ~kept, drawn, ~drawn])
        moved[tower] = matches.moved(tower, masks[tower])
    whole = {tower: matches.moved(tower, None) for tower in moved}
    ends_of = {
        BOTH: (moved[VISUAL], moved[TEXT]),
        VISUAL: (moved[VISUAL], whole[TEXT]),
        TEXT: (whole[VISUAL], moved[TEXT]),
    }
    ends = np.stack([matches.whole.double().cpu().numpy(), np.zeros(len(matches))])
    n = len(shares)
    totals = {tower: masks[tower].shape[1] for tower in masks}
    frames = []
    for name, (a, b) in ends_of.items():
        inside = [tower for tower in masks if name in (BOTH, tower)]
        table = curve_table(
            (matches.scale * (a * b).sum(dim=-1)).double().cpu().numpy(),
            ends,
            np.sum([masks[tower][:n].sum(axis=1) for tower in inside], axis=0),
            matches.of(inside[0]),
            total=sum(totals[tower] for tower in inside),
            n_random=n_random,
            null_kind=f"mean of {n_random} random circuits with as many parts in each group",
            seed=seed,
            facts={},
        )
        frames.append(table.frame.assign(tower=name))
    facts = {"parts": totals, "match": float(by_class(ends[0], labels).mean())}
    return Table.with_evidence("match_faithfulness", pd.concat(frames, ignore_index=True), facts)


def _best(cut: Cut, scores: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Which parts each circuit keeps, `share part`."""
    n = len(cut.names)
    if scores.shape[-1] != n or scores.ndim > 2:
        given = f"scores of shape {scores.shape}"
        right = f"one for each of the {n} parts, of any number of examples"
        do = "take the scores from matches of the same towers"
        raise ShapeError("test circuits of two towers", given, right, do)
    mean = scores.reshape(-1, n).mean(axis=0)[None]
    return np.concatenate(
        [best_of_groups(mean, np.zeros(n), share, negligible=0) for share in shares]
    )
