"""Attention heads named in words, with what a name is held against."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from interp.core.classifiers import Classifier
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.runs.batching import Batching
from interp.core.statistics.index_of_sharing import LEVEL
from interp.core.storage.pictures import Preprocess
from interp.core.tables import Table
from interp.models.attribution.decomposition import Decomposition, decompose
from interp.models.attribution.naming_rows import Naming, rows_of_names
from interp.models.clip import Clip
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.vit import HookedViT

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
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> words = Classifier(torch.eye(256)[:9], [f"word {number}" for number in range(9)])
    >>> clip = Clip(model, "ViT-S-32-alt")
    >>> table = name_heads(clip, images, words, n_words=1, n_null=20)
    >>> len(table), set(table.frame["verdict"]), set(table.frame["unit"])
    (72, {'no name'}, {'picture'})
    """
    tower, preprocess, words = _opened(model, words, preprocess)
    if n_null < FEWEST_DRAWS:
        raise SpecificationError(
            "name heads",
            f"n_null = {n_null}",
            f"{FEWEST_DRAWS} or more: with fewer no p is below {LEVEL}",
            "leave n_null at its default",
        )
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
        raise SpecificationError(
            "name heads",
            f"a {type(tower).__name__}, whose embedding is not taken apart",
            "a HookedViT, or a HookedResNet, whose heads are those of its attention pool",
            "for other towers read features instead: probes.collect, probes.directions",
        )
    if isinstance(words, Classifier):
        embedded = words
    elif isinstance(model, Clip):
        embedded = model.zero_shot(words)
    else:
        raise SpecificationError(
            "name heads",
            "words for a tower, which embeds none",
            "a Classifier of words, or a Clip",
            "pass clip, or words=clip.zero_shot(words)",
        )
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
