"""Units named in words: by the text tower, or by the classes and domains of their pictures.

A word is chosen on the drawings of half the artists and measured on those of the others.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy import stats

from interp.core.artists import artist_sides, n_drawings
from interp.core.classifiers import Classifier
from interp.core.errors import SampleError, SpecificationError
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.index_of_sharing import LEVEL
from interp.core.statistics.resampling import Interval
from interp.core.storage.pictures import Preprocess
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.features.collect import collect
from interp.probes.galleries.gallery import Gallery
from interp.probes.galleries.unit_selectivity import (
    Ranked,
    clusters,
    clusters_in,
    drawing_column,
    drawing_of,
    traded,
)

ALL_DOMAINS, NO_NAME = "all domains", "no name"
"""What `domain` says of all pictures together, and the verdict where no word holds."""

TOP, FEWEST = 0.1, 5
"""The share of the pictures that a unit is named by, and how many there must be of them."""

N_PERMUTATIONS = 199
EMBEDDING = "hook_embedding"


@door
def name_units(
    gallery: Gallery,
    tower: Tower | None = None,
    words: Classifier | None = None,
    *,
    preprocess: Preprocess | None = None,
    top: float = TOP,
    seed: int = 0,
) -> Table:
    """Name every unit of a gallery in a word, or say that no word does better than chance.

        value = how often a picture that the unit puts among its highest scores higher for the word
                than another picture: the AUROC, on drawings by artists that did not choose the word
                (the word for which the unit's highest score most above the others)
        null  = the same where the unit's numbers trade places between drawings of an artist

    Args:
        gallery: The gallery.
        tower: The image tower whose embedding words are held against; with `words`.
        words: Words as directions in the embedding, such as `clip.zero_shot(words, templates)`.
            None names units by the classes and domains of their pictures, without a tower.
        preprocess: From a picture to the tower's input; with `words`.
        top: The share of the pictures, of each half of the artists, that are a unit's highest.
        seed: Seed of the deal of artists and of the trades.

    Returns:
        A table with a row for each unit in each domain, and in all together. `word` is the best on
        one half of the artists, `word_again` the best on the other, `verdict` the word or
        "no name", `same_name` whether it holds in the other domains too.

    Raises:
        SpecificationError: For words without a tower or preprocess, or a share that is none.
        SampleError: For too few pictures or artists, or fewer than two words.
        ShapeError: For words embedded by another model.

    Notes:
        p lets the unit's numbers trade places between whole drawings of one artist, and is adjusted
        over all units (the largest AUROC of any of them). A word is a name where p is below .05.
        What all words have in common is taken off every picture's scores.

        Words are chosen from what a unit's highest pictures show, not from what it does: a name is
        no cause.

        After CLIP-Dissect (Oikarinen and Weng 2023), with the choice and the measurement on
        different artists.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"] * 40, "domain": "real", "split": "test",
    ...                       "caption": "", "artist": sorted("abcdefgh" * 10)})
    >>> frame = frame.assign(path=frame.index.astype(str))
    >>> from interp.core.images import ImageTable
    >>> from interp.probes.galleries.peaks import Peaks
    >>> values = np.stack([frame["label"] == "dog", frame.index % 7], axis=1).astype(float)
    >>> shown = Gallery(ImageTable(frame), "s", "unit", Peaks(values, values.astype(int), None),
    ...                 ("real",), Table("gallery", pd.DataFrame()))
    >>> name_units(shown, top=0.25).frame[["word", "verdict"]].values.tolist()
    [['dog', 'dog'], ['cat', 'no name']]
    """
    frame = gallery.images.frame.reset_index(drop=True)
    if not 0 < top <= 0.5:
        raise SpecificationError(
            "name units", f"top={top}", "a share of the pictures, up to .5", f"take {TOP}"
        )
    named, scores = _scores(gallery, tower, words, preprocess)
    if len(named) < 2:
        raise SampleError("name units", f"{len(named)} word", "two or more", "give more words")
    scores = scores - scores.mean(axis=1, keepdims=True)
    side, domain = artist_sides(frame, seed=seed), frame["domain"].to_numpy(object)
    every = {name: np.flatnonzero(domain == name) for name in gallery.domains}
    if len(every) > 1:
        every = {ALL_DOMAINS: np.arange(len(frame)), **every}
    found = {
        name: _InDomain(
            name,
            [rows[side[rows] == half] for half in (0, 1)],
            frame,
            gallery.peaks.values,
            scores,
            top,
            seed,
        )
        for name, rows in every.items()
    }
    rows = pd.concat([_rows(found, name, named, gallery) for name in found], ignore_index=True)
    facts = {"words": list(named), "top": top, "seed": seed, "n_permutations": N_PERMUTATIONS}
    return Table.with_evidence("unit names", rows, facts)


def _scores(
    gallery: Gallery, tower: Tower | None, words: Classifier | None, preprocess: Preprocess | None
) -> tuple[list[str], np.ndarray]:
    """The words, and how much each picture scores for each, "picture word"."""
    if words is None and tower is None:
        frame = gallery.images.frame
        kinds = [frame[name].astype(str).to_numpy(object) for name in ("label", "domain")]
        of = [(word, kind) for kind in kinds for word in sorted(set(kind))]
        shows = np.stack([kind == word for word, kind in of], axis=1).astype(np.float32)
        return [word for word, _ in of], shows
    if words is None or tower is None or preprocess is None:
        given = "words without a tower, or a tower without words or preprocess"
        right = "all three, or none to name units by classes and domains"
        do = "name_units(gallery, clip.visual, clip.zero_shot(words), preprocess=clip.preprocess)"
        raise SpecificationError("name units by a text tower", given, right, do)
    features = collect(tower, gallery.images, EMBEDDING, preprocess=preprocess)
    embedding = torch.from_numpy(np.ascontiguousarray(features.values[EMBEDDING]))
    with torch.no_grad():
        logits = words.logits(embedding.to(words.embeddings))
    return list(words.names), logits.cpu().numpy().astype(np.float32)


@dataclass(frozen=True, eq=False)
class _InDomain:
    """The pictures of a domain in two halves of the artists: a word is chosen by the first."""

    name: str
    halves: list[np.ndarray]
    frame: pd.DataFrame
    values: np.ndarray
    scores: np.ndarray
    top: float
    seed: int

    def __post_init__(self) -> None:
        n = min(map(len, self.halves))
        if self.top * n < FEWEST:
            raise SampleError(
                f"name units in {self.name}",
                f"{n} pictures in a half of the artists",
                f"{int(np.ceil(FEWEST / self.top))} or more, for {FEWEST} that are a unit's "
                "highest",
                "add pictures, or raise `top`",
            )

    @cached_property
    def highest(self) -> list[np.ndarray]:
        """Of each half, which pictures are among each unit's highest, "picture unit"."""
        made = []
        for rows in self.halves:
            values, n = self.values[rows], len(rows)
            last = -np.partition(-values, round(self.top * n) - 1, axis=0)[round(self.top * n) - 1]
            mine = values >= last
            many = mine.sum(axis=0) > n / 2  # equal to half of all or more, such as 0
            made.append(np.where(many, values > last, mine))
        return made

    @cached_property
    def silent(self) -> np.ndarray:
        """Units that stand out in too few pictures of a half to be named."""
        return np.min([mine.sum(axis=0) for mine in self.highest], axis=0) < FEWEST

    @cached_property
    def best(self) -> list[np.ndarray]:
        """The word that each half would choose: by how much more the unit's highest score for it.

        In scores, not in ranks: by ranks, words that lie near the right one do as well.
        """
        chosen = []
        for rows, mine in zip(self.halves, self.highest, strict=True):
            scores, n = self.scores[rows], mine.sum(axis=0)[:, None].clip(1)
            above = mine.T.astype(np.float32) @ scores
            rest = scores.sum(axis=0) - above
            chosen.append((above / n - rest / (len(rows) - n)).argmax(axis=1))
        return chosen

    def measured(self, word: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Value, null, adjusted p and standard error of each unit's word, on the second half."""
        rows, mine = self.halves[1], self.highest[1]
        frame, ranked = self.frame.iloc[rows], Ranked(self.scores[rows][:, word])
        value = ranked.aurocs_of(mine)
        trades = traded(frame, rng("trades of units", self.seed))
        drawn = np.stack([ranked.aurocs_of(mine[next(trades)]) for _ in range(N_PERMUTATIONS)])
        drawn[:, self.silent] = -np.inf
        beyond = (drawn.max(axis=1)[:, None] >= value - 1e-12).sum(axis=0)
        by_drawing = clusters(drawing_of(frame))
        with np.errstate(divide="ignore", invalid="ignore"):  # of no picture, where it is silent
            error = np.sqrt(ranked.variance(mine, by_drawing, by_drawing))
        p = np.where(self.silent, np.nan, (1 + beyond) / (1 + N_PERMUTATIONS))
        null = np.where(self.silent, np.nan, drawn.mean(axis=0))
        return value, null, p, error


def _rows(
    found: dict[str, _InDomain], name: str, words: list[str], gallery: Gallery
) -> pd.DataFrame:
    """The rows of all units in one domain."""
    here = found[name]
    word, again = here.best
    value, null, p, error = here.measured(word)
    others = [each for each in found if each not in (name, ALL_DOMAINS)]
    fails = {each: ~(found[each].measured(word)[2] < LEVEL) for each in others}
    pictures = here.frame.iloc[here.halves[1]]
    drawings = clusters_in(here.highest[1], clusters(drawing_of(pictures)))
    about = Evidence(
        estimand="this site; the word is chosen on other artists' drawings",
        null_kind="the unit's numbers trade places between drawings of an artist",
        seed=here.seed,
        n_units=0,
        n_pictures=len(pictures),
        n_drawings=n_drawings(pictures),
        unit=drawing_column(pictures),
    )
    reach = stats.t.ppf(0.975, np.maximum(drawings - 1, 1)) * error
    rows = []
    for unit in range(len(word)):
        held = p[unit] < LEVEL
        ends = np.clip([value[unit] - reach[unit], value[unit] + reach[unit]], 0, 1)
        silent = here.silent[unit]
        reason = f"stands out in fewer than {FEWEST} pictures of a half" if silent else ""
        missing = [each for each in others if fails[each][unit]]
        row = about.row(
            Interval(float(value[unit]), float(error[unit]), *map(float, ends)),
            null=float(null[unit]),
            p=float(p[unit]),
            reason=reason,
        )
        same = f"not in {', '.join(missing)}" if missing else "yes" if others else ""
        rows.append(
            {
                "site": gallery.site,
                "code": gallery.kind,
                "feature": unit,
                "measure": "name",
                "domain": name,
                "word": "" if silent else words[word[unit]],
                "word_again": "" if silent else words[again[unit]],
                **row,
                "verdict": words[word[unit]] if held else NO_NAME,
                "same_name": same if held else "",
                "n_units": drawings[unit],
            }
        )
    return pd.DataFrame(rows)
