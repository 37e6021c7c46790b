"""Attention heads named in words, with what a name is held against."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.core.artists import artist_sides
from interp.core.classifiers import Classifier
from interp.core.errors import AlikeError, SampleError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.parallel import Batching
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.index_of_sharing import LEVEL, Index, sharing_index
from interp.core.statistics.resampling import Interval, max_t
from interp.core.storage.pictures import Preprocess
from interp.core.tables import Table
from interp.models.attribution.decompose import Decomposition, decompose
from interp.models.attribution.text_span import (
    HalvedPart,
    HeldOutWord,
    directions_of,
    held_out_words,
)
from interp.models.clip import Clip
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.vit import HookedViT

NO_NAME = "no name"
"""The verdict on a part, or a word of it, that does no better than chance."""

ALL_DOMAINS = "all domains"
"""What the column `domain` says of pictures of several domains together."""

SILENT = 1e-6
"""A part that varies by less than this share of the embedding's variance writes nothing."""

ESTIMAND = (
    "share of the variance of what a part writes into the embedding that a word explains beyond "
    "the words before it, chosen on one half of the artists and measured on the other"
)


@dataclass(frozen=True, eq=False)
class Naming:
    """What names are chosen from, and how: `n_words` of a part, `n_null` random turns, a seed."""

    words: Classifier
    n_words: int
    n_null: int
    seed: int


def rows_of_names(
    parts: Decomposition, frame: pd.DataFrame, naming: Naming
) -> list[dict[str, object]]:
    """The rows of `name_heads`: each part and word, in each domain and in all together.

    Raises what `name_heads` raises of words, pictures and artists.
    """
    own = parts.parts
    words = directions_of(naming.words, own.shape[-1], naming.n_words, centred=True)
    words = words.to(own.device)
    side = artist_sides(frame, seed=naming.seed)
    found = {
        domain: _NamedParts.of(_written_parts(parts, frame, side, domain, rows), words, naming)
        for domain, rows in _domains(frame)
    }
    return [row for domain in found for row in _rows(domain, found, words, naming)]


def _domains(frame: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Every domain's pictures; of several, all pictures first."""
    names = frame["domain"].astype(str).to_numpy(object)
    domains = sorted(set(names))
    if len(domains) > 1:
        yield ALL_DOMAINS, np.arange(len(frame))
    for domain in domains:
        yield domain, np.flatnonzero(names == domain)


@dataclass(frozen=True, eq=False)
class _WrittenParts:
    """What parts write on some pictures, in halves, of those that write anything.

    `written` is each part's variance as a share of the embedding's, in the half with less. `halved`
    has the parts by their places in `labels`.
    """

    pictures: pd.DataFrame
    unit: str
    n_units: int
    labels: pd.DataFrame
    written: np.ndarray
    halved: Mapping[int, HalvedPart]


def _written_parts(
    parts: Decomposition, frame: pd.DataFrame, side: np.ndarray, domain: str, rows: np.ndarray
) -> _WrittenParts:
    """The pictures in `rows`; side 1, which has the more artists, chooses."""
    halves = [rows[side[rows] == number] for number in (1, 0)]
    if min(map(len, halves)) < 2:
        asked = f"name heads in {domain}"
        given = f"{len(halves[0])} and {len(halves[1])} pictures by two halves of the artists"
        right = "two or more each: one half chooses the words, the other measures them"
        raise SampleError(asked, given, right, "give pictures by more artists, or drop the domain")
    device = parts.parts.device
    unit, number = _units(frame.iloc[halves[1]])
    chosen = [torch.from_numpy(half).to(device) for half in halves]
    written = np.min([_written(parts, half) for half in chosen], axis=0)
    first, second = (parts.parts[half] for half in chosen)
    units = torch.from_numpy(number).to(device)
    halved = {
        int(place): HalvedPart(first[:, place], second[:, place], units)
        for place in np.flatnonzero(written >= SILENT)
    }
    labels = parts.labels[["kind", "layer", "head"]].astype({"layer": int, "head": float})
    labels.insert(0, "part", parts.names)
    n_units = int(number.max()) + 1
    return _WrittenParts(frame.iloc[rows], unit, n_units, labels, written, halved)


def _written(parts: Decomposition, rows: Tensor) -> Float[np.ndarray, "part"]:
    """The variance of each part on some pictures, as a share of the embedding's."""
    of_parts = parts.parts[rows].double().var(dim=0, correction=0).sum(dim=-1)
    whole = parts.embedding[rows].double()
    variance = whole.var(dim=0, correction=0).sum()
    if not variance > 1e-12 * whole.square().sum(dim=-1).mean():
        given = f"{len(rows)} pictures that the tower embeds alike"
        do = "give other pictures, or look at the tower's weights"
        raise AlikeError("name heads", given, "pictures whose embeddings differ", do)
    return (of_parts / variance).cpu().numpy()


def _units(frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """What intervals leave out, and its number for each picture: drawings where they are known."""
    alone = pd.Series([f"picture {row}" for row in range(len(frame))], index=frame.index)
    known = frame["drawing"] if "drawing" in frame else pd.Series(None, frame.index, dtype=object)
    number, _ = pd.factorize(known.astype(object).where(known.notna(), alone))
    return "drawing" if known.notna().to_numpy().any() else "picture", number


@dataclass(frozen=True, eq=False)
class _NamedParts:
    """The words of all parts in one domain: for each step, a word of each part that writes."""

    written: _WrittenParts
    steps: list[list[HeldOutWord]]

    @classmethod
    def of(
        cls, written: _WrittenParts, words: Float[Tensor, "word d_embed"], naming: Naming
    ) -> "_NamedParts":
        """Choose the words and measure them."""
        given = {"n": naming.n_words, "n_null": naming.n_null, "seed": naming.seed}
        return cls(written, list(held_out_words(list(written.halved.values()), words, **given)))

    @cached_property
    def places(self) -> dict[int, int]:
        """Where each part that writes stands among these."""
        return {part: place for place, part in enumerate(self.written.halved)}

    @cached_property
    def p(self) -> list[np.ndarray]:
        """By step the p of each part that writes, adjusted for all of them."""
        return [self._adjusted(step, _values(step)) for step in self.steps]

    def _adjusted(self, step: Sequence[HeldOutWord], values: np.ndarray) -> np.ndarray:
        return max_t(values, np.stack([word.drawn for word in step], axis=1)) if step else values

    def is_name(self, part: int, rank: int) -> bool:
        """Whether a part's word, and each before it, does better than chance."""
        return all(p[self.places[part]] < LEVEL for p in self.p[: rank + 1])

    def named_by(self, part: int, direction: Float[Tensor, "d_embed"]) -> bool:
        """Whether a word that was chosen elsewhere does better than the best by chance."""
        if part not in self.places:
            return False
        place, values = self.places[part], _values(self.steps[0])
        values[place] = self.written.halved[part].shares(direction[None])[0, 0]
        return bool(self._adjusted(self.steps[0], values)[place] < LEVEL)


def _values(step: Sequence[HeldOutWord]) -> np.ndarray:
    return np.array([word.terms[0, 0] for word in step])


def _rows(
    domain: str,
    found: Mapping[str, _NamedParts],
    words: Float[Tensor, "word d_embed"],
    naming: Naming,
) -> Iterator[dict[str, object]]:
    named = found[domain]
    about = _about(named.written, naming)
    labels = named.written.labels.to_dict("records")
    for part, (label, written) in enumerate(zip(labels, named.written.written, strict=True)):
        told = {"measure": "word", "domain": domain, **label, "written": written}
        if part not in named.places:
            yield told | _silent(about, written)
            continue
        place, cumulative = named.places[part], 0.0
        for rank, step in enumerate(named.steps):
            word, is_name = step[place], named.is_name(part, rank)
            cumulative += float(word.terms[0, 0])
            row = _evidence(about, word, named.p[rank][place], is_name)
            row |= _word_columns(word, is_name, naming.words.class_names)
            row |= {"rank": rank + 1, "cumulative": cumulative, "components": word.components}
            row["same_name"] = ""
            if is_name:
                row["same_name"] = _elsewhere(domain, found, part, words[word.place])
            yield told | row


def _about(written: _WrittenParts, naming: Naming) -> Evidence:
    """What all rows of a domain have in common."""
    return Evidence(
        estimand=ESTIMAND,
        null_kind=f"best of {len(naming.words.names)} words turned at random, mean of "
        f"{naming.n_null} turns; p by max-T over {len(written.halved)} parts",
        ceiling_kind="first principal component of what the words before it leave",
        unit=written.unit,
        seed=naming.seed,
        **counts_of(written.pictures, written.n_units),
    )


def _word_columns(word: HeldOutWord, is_name: bool, names: Sequence[str]) -> dict[str, object]:
    verdict = names[word.place] if is_name else NO_NAME
    return {"word": names[word.place], "word_again": names[word.again], "verdict": verdict}


def _evidence(about: Evidence, word: HeldOutWord, p: float, is_name: bool) -> dict[str, object]:
    value, null, ceiling = word.terms[0].tolist()
    # sharing is not what is asked: the verdict is a word
    index = replace(sharing_index(value, null, ceiling, left_out=word.terms[1:]), verdict="")
    why = "the word before it is no name"
    if not p < LEVEL:
        why = f"no better than the best of the words turned at random (p = {p:.2g})"
    return about.with_verdict(word.terms, index=index, p=float(p), notes=["" if is_name else why])


def _silent(about: Evidence, written: float) -> dict[str, object]:
    """The one row of a part that writes nothing."""
    reason = f"writes nothing: {written:.1g} of the embedding's variance"
    none = np.nan
    index = Index(none, none, none, "", "")
    row = about.row(Interval(none, none, none, none), null=none, index=index)
    empty: dict[str, object] = {"word": "", "word_again": "", "same_name": "", "verdict": NO_NAME}
    return row | empty | {"rank": 1, "cumulative": none, "components": none, "reason": reason}


def _elsewhere(
    domain: str, found: Mapping[str, _NamedParts], part: int, direction: Float[Tensor, "d_embed"]
) -> str:
    """Whether a word names the part in the other domains too; nothing where there are none."""
    others = [name for name in found if name not in (domain, ALL_DOMAINS)]
    missing = [name for name in others if not found[name].named_by(part, direction)]
    return f"not in {listed(missing)}" if missing else "yes" if others else ""


FEWEST_DRAWS = 20
"""With fewer draws of the null no p is below the level."""


@door
def name_heads(
    model: Clip | nn.Module,
    images: ImageTable,
    words: Classifier | Sequence[str],
    *,
    kinds: Sequence[str] = ("head",),
    n_words: int = 3,
    preprocess: Preprocess | None = None,
    n_null: int = 199,
    batch_size: int = 64,
    seed: int = 0,
) -> Table:
    """Name every attention head in words, or say that no word names it better than chance.

        value   = share of the variance of the head's contribution along the word, on pictures by
                  artists that did not choose it
        null    = the same of the best of all words, turned at random
        ceiling = the same of the first principal component of what the words before it leave

    Args:
        model: A `Clip`, or an image tower (`HookedViT`, `HookedResNet`) with `words` as a
            classifier.
        images: Pictures by two artists or more.
        words: The vocabulary: words, which the `Clip` embeds as "a photo of a ...", or a classifier
            of them, such as `clip.zero_shot(words, templates)`. Three or more.
        kinds: Kinds of parts to name: `head`, `mlp`, `bias`, `embed` and others of
            `decompose(by="head")`.
        n_words: How many words a part may have.
        preprocess: From a picture to the tower's input; None takes the `Clip`'s.
        n_null: Random turns of the words.
        batch_size: Pictures per forward. The batch is halved when memory runs out.
        seed: Seed of turns and of the deal of artists.

    Returns:
        A table with a row for each part and word, in each domain and, where there are several, in
        all together. `verdict` is the word, or "no name".

    Raises:
        SpecificationError: For a tower that cannot be decomposed, an unknown kind of part, words to
            embed without a `Clip`, no `preprocess`, or fewer than 20 turns.
        SampleError: For too few words, pictures or artists.
        ShapeError: For words embedded by another model.
        AlikeError: For words that are all alike, or pictures that the tower embeds alike.
        NumericsError: For embeddings with NaN.

    Notes:
        - Words are chosen as by `text_span`, on one half of the artists, without what all words
          have in common: a name says what sets a word apart from the others. `word_again` is the
          word that the other half would have chosen.
        - The null turns all words together, so they lie to one another as they did, and the luck of
          the best of so many is in it. p is adjusted for all parts (max-T). A word is a name where
          p is below .05 and the word before it is one.
        - `written` is the part's variance as a share of the embedding's. Below a millionth the part
          writes nothing and has no name.
        - Intervals leave out one drawing of the measuring half at a time. Classes are taken as
          given: a word that names one class rests on it alone.
        - `same_name` says whether the word names the part in every domain: its share there is held
          against that domain's own null.
        - A name says along what a part writes, not what would happen without it. It does not say
          that the word alone is written: a part that writes a mix of words is named after one. In
          an embedding where words and parts both keep to few directions, words in general do better
          than turned ones; then look at `word_again`, and at how near the ceiling the value is.
        - After Gandelsman, Efros & Steinhardt 2024, "Interpreting CLIP's image representation via
          text-based decomposition".

    >>> import open_clip
    >>> from PIL import Image
    >>> shades = ["black", "gray", "white", "red", "lime", "blue"] * 4
    >>> frame = pd.DataFrame({"path": range(24), "label": shades, "domain": "real",
    ...                       "split": "test", "caption": "", "artist": list("abcd") * 6})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (64, 64), row["label"]))
    >>> _ = torch.manual_seed(0)
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> words = Classifier(torch.eye(256)[:9], [f"word {number}" for number in range(9)])
    >>> clip = Clip(model, "ViT-S-32-alt")
    >>> table = name_heads(clip, images, words, n_words=1, n_null=20)
    >>> len(table), set(table.frame["verdict"]), set(table.frame["unit"])
    (72, {'no name'}, {'picture'})
    """
    tower, preprocess, words = _opened(model, words, preprocess)
    if n_null < FEWEST_DRAWS:
        given = f"n_null = {n_null}"
        right = f"{FEWEST_DRAWS} or more: with fewer no p is below {LEVEL}"
        raise SpecificationError("name heads", given, right, "leave n_null at its default")
    parts, error = _contributions(tower, images, preprocess, kinds, batch_size)
    naming = Naming(words, n_words, n_null, seed)
    rows = rows_of_names(parts, images.frame, naming)
    facts = {"words": list(words.class_names), "kinds": list(kinds), "n_words": n_words}
    facts |= {"n_null": n_null, "seed": seed, "error": error}
    return Table.with_evidence("named heads", pd.DataFrame(rows), facts)


def _opened(
    model: Clip | nn.Module, words: Classifier | Sequence[str], preprocess: Preprocess | None
) -> tuple[nn.Module, Preprocess, Classifier]:
    """The image tower, its preprocessing, and the words embedded."""
    tower = model.visual if isinstance(model, Clip) else model
    if not isinstance(tower, (HookedViT, HookedResNet)):
        given = f"a {type(tower).__name__}, whose embedding is not taken apart"
        right = "a HookedViT, or a HookedResNet, whose heads are those of its attention pool"
        do = "for other towers read features instead: probes.collect, probes.directions"
        raise SpecificationError("name heads", given, right, do)
    if isinstance(words, Classifier):
        embedded = words
    elif isinstance(model, Clip):
        embedded = model.zero_shot(words)
    else:
        given = "words for a tower, which embeds none"
        do = "pass clip, or words=clip.zero_shot(words)"
        raise SpecificationError("name heads", given, "a Classifier of words, or a Clip", do)
    found = preprocess or (model.preprocess if isinstance(model, Clip) else None)
    if found is None:
        raise SpecificationError(
            "name heads", "a tower without preprocess", "both", "pass preprocess=clip.preprocess"
        )
    return tower, found, embedded


def _contributions(
    tower: nn.Module,
    images: ImageTable,
    preprocess: Preprocess,
    kinds: Sequence[str],
    batch_size: int,
) -> tuple[Decomposition, float]:
    """What parts of some kinds write into every embedding, and the largest error of all parts."""
    if not len(images):
        raise SampleError("name heads", "no pictures", "some", "give pictures by two artists")
    like = next(tower.parameters())

    def work(rows: slice) -> tuple[Decomposition, float]:
        batch = images.tensors(preprocess, range(rows.start, rows.stop))
        whole = decompose(tower, batch.to(like.device, like.dtype), by="head")
        known = list(dict.fromkeys(whole.labels["kind"]))
        check_known("name parts", "kind of part", kinds or ["nothing"], known, SpecificationError)
        keep = np.flatnonzero(whole.labels["kind"].isin(list(kinds)))
        names = tuple(whole.names[place] for place in keep)
        own = whole.parts[:, keep], names, whole.labels.iloc[keep], whole.embedding
        return Decomposition(*own), whole.error

    made = Batching(batch_size).each(len(images), work)
    first = made[0][0]
    parts = torch.cat([each.parts for each, _ in made])
    embedding = torch.cat([each.embedding for each, _ in made])
    error = max(each for _, each in made)
    return replace(first, parts=parts, embedding=embedding), error
