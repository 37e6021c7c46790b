"""Heatmaps: which patches of a picture and which words of a sentence make their logit."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from interp.core.classifiers import Classifier
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.faces.late import late
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import track
from interp.core.storage.pictures import by_batch
from interp.core.tower import check_evaluation, parameters_at_rest
from interp.models.attribution.placed_logits import (
    FINE,
    Grid,
    by_attention,
    by_covering,
    direct_vectors,
    grid_of,
    integrated,
    straight,
    where_places_count,
)
from interp.models.attribution.sentence_parts import ASKED, SpokenSentences, read_sentences
from interp.models.clip import Clip
from interp.models.towers.hooked import HookedTower
from interp.models.towers.text import HookedText

if TYPE_CHECKING:
    import plotly.graph_objects as go

Pictures = ImageTable | Tensor | Image.Image | Sequence[Image.Image]

METHODS = ("integrated gradients", "straight", "direct", "gradient x attention", "occlusion")
"""Ways to a heatmap."""

EXACT = ("straight", "direct")
"""Those whose shares, with what biases add, sum to the logit."""

SUMS = METHODS[:3]
"""Those whose shares have a sum."""

BY_PIXELS = ("integrated gradients", "occlusion")
"""Those that need no sites, and take any grid of patches."""


@dataclass(frozen=True, eq=False)
class LogitQuestion:
    """Pictures, and the directions whose logits are explained.

    Args:
        tower: The image tower.
        directions: `sentence d_embed`, times the logit scale.
        names: A sentence or class for each direction.
        source: A table of pictures, or preprocessed pictures.
        preprocess: From a picture to `channel row column`; None where `source` is preprocessed.
        drawn: The picture of a row, to draw on.
    """

    tower: nn.Module
    directions: Float[Tensor, "sentence d_embed"]
    names: tuple[str, ...]
    source: ImageTable | Tensor
    preprocess: Preprocess | None
    drawn: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """The preprocessed pictures."""
        if isinstance(self.source, Tensor):
            made: Iterable[Tensor] = self.source.split(batch_size)
        else:
            assert self.preprocess is not None
            made = self.source.batches(self.preprocess, batch_size=batch_size)
        like = self.directions
        for batch in made:
            yield batch.to(like.device, like.dtype)

    def logits(self, x: Tensor) -> Float[Tensor, "batch sentence"]:
        """The logits of preprocessed pictures."""
        return F.normalize(self.tower(x), dim=-1) @ self.directions.T


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """What patches and words add to the logit of each picture and sentence, as `explain` finds it.

    Args:
        question: What was asked.
        method: How it was answered.
        logits: The logits, `picture sentence`.
        patches: What each patch adds, `picture sentence row column`.
        rest: What the patches leave of the logit: other places (a class token) and biases; by
            integrated gradients the logit of a plain picture; NaN where shares have no sum.
        words: The words of each sentence; empty where classes were given.
        by_word: For each sentence what its words add, `picture word`.
        pairs: For each sentence what each word adds by way of each patch, `picture word row
            column`; empty unless asked for.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> classes = Classifier(torch.eye(2, 256), ["cat", "dog"])
    >>> explain(Clip(model, "ViT-S-32-alt"), torch.rand(1, 3, 64, 64), classes)
    Heatmaps(1 pictures x 2 sentences, 2 x 2 patches, integrated gradients)
    """

    question: LogitQuestion
    method: str
    logits: Float[Tensor, "picture sentence"]
    patches: Float[Tensor, "picture sentence row column"]
    rest: Float[Tensor, "picture sentence"]
    words: tuple[tuple[str, ...], ...] = ()
    by_word: tuple[Tensor, ...] = field(default=())
    pairs: tuple[Tensor, ...] = field(default=())

    def __repr__(self) -> str:
        n, sentences, rows, columns = self.patches.shape
        return (
            f"Heatmaps({n} pictures x {sentences} sentences, {rows} x {columns} patches, "
            f"{self.method})"
        )

    def plot(self, picture: int = 0, *, title: str = "") -> "go.Figure":
        """Draw the maps of all sentences over a picture, with the words below.

        Args:
            picture: The picture's place.
            title: The figure's title.

        Returns:
            A plotly figure; orange adds to the logit, blue takes from it.
        """
        return late("draw_heatmaps")(self, picture, title)

    def plot_pairs(self, picture: int = 0, sentence: int = 0, *, title: str = "") -> "go.Figure":
        """Draw what each word of a sentence finds in a picture, a map a word.

        Args:
            picture: The picture's place.
            sentence: The sentence's place.
            title: The figure's title.

        Returns:
            A plotly figure.

        Raises:
            SpecificationError: For maps that were made without `pairs`.
        """
        return late("draw_pairs")(self, picture, sentence, title)


@door
def explain(
    model: Clip | HookedTower,
    pictures: Pictures,
    sentences: str | Sequence[str] | Classifier,
    *,
    method: str = METHODS[0],
    contrast: bool = False,
    pairs: bool = False,
    layer: int | None = None,
    grid: Grid | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 16,
) -> Heatmaps:
    """Find which patches of each picture, and which words of each sentence, make their logit.

    logit = exp(logit_scale) <picture, sentence> / (|picture| |sentence|), the lengths held at their
    values. Both embeddings are sums over places, and so is their product over pairs of places.

    Args:
        model: A `Clip`, or an image tower where `sentences` is a classifier.
        pictures: A table, pictures, or preprocessed pictures `batch channel row column`.
        sentences: Texts, or a classifier such as `clip.zero_shot(classes)`, whose classes then
            stand for sentences and have no words.
        method: "integrated gradients" go from a plain picture of the mean colour to the picture
            (Sundararajan, Taly & Yan 2017). "straight" takes norms, attention and activation
            functions for the linear maps that they are at this input, and shares the logit among
            the places of the input (Ali et al. 2022; a rule of layerwise relevance propagation).
            "direct" counts what the embedding reads from each place itself (Gandelsman, Efros &
            Steinhardt 2024). "gradient x attention" rolls weighted attention out (Chefer, Gur &
            Wolf 2021). "occlusion" covers patch after patch with the mean colour. The first and the
            last need no hooks; words beside them are those of "straight".
        contrast: Whether to explain each sentence less the mean of the others.
        pairs: Whether to find what each word adds by way of each patch too.
        layer: For "straight": the block before which places are counted. None is the second of a
            transformer, and in a ResNet the last before which the map has six rows or more.
        grid: For the first and the last: rows and columns of patches. None takes a ViT's own, else
            6 x 6.
        preprocess: From a picture to `channel row column`, where `model` is a bare tower.
        batch_size: Pictures run at a time.

    Returns:
        The maps. `plot()` draws them; `deletion_insertion` says how far they are to be trusted.

    Raises:
        SpecificationError: For an unknown method; one that the tower or `pairs` does not allow; a
            sentence longer than the context; a bare tower without a classifier; one sentence to
            contrast; or a tower in training mode.
        SampleError: Without a picture.
        DataError: For words that a tokenizer of whole words does not know.

    Notes:
        "straight" and "direct" are exact: the patches and `rest` (class token and biases) sum to
        the logit, and so do the words, with the text tower's biases. A place counts with all that
        is carried away from it; in "direct", with what the embedding takes from it in a single
        step, so that what a class token has gathered counts for the class token. A detector that
        is saturated answers by its bias, where "straight" finds nothing in its input: begin at a
        later `layer`, or integrate.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> clip = Clip(model, "ViT-S-32-alt")
    >>> maps = explain(clip, torch.rand(1, 3, 64, 64), ["a cat", "a dog"], method="straight")
    >>> maps.patches.shape, maps.words[0]
    (torch.Size([1, 2, 2, 2]), ('[start of text]', 'a', 'cat', '[end of text]'))
    >>> whole = maps.patches.sum(dim=(2, 3)) + maps.rest
    >>> bool(torch.allclose(whole, maps.logits))
    True
    """
    check_known(ASKED, "method", [method], METHODS, SpecificationError)
    if pairs and method not in EXACT:
        right = f"{' or '.join(EXACT)}, which are sums over pairs"
        do = f"leave pairs out, or use method={EXACT[0]!r}"
        raise SpecificationError(ASKED, f"pairs by method={method!r}", right, do)
    question, spoken = _question(model, pictures, sentences, preprocess, method)
    if contrast:
        question = replace(question, directions=_less_others(question.directions))
    if pairs and spoken is None:
        given = "pairs without words that are known"
        right = "sentences, and a text tower of open_clip's own kind"
        raise SpecificationError(ASKED, given, right, "leave pairs out")
    if not len(question):
        raise SampleError(ASKED, "no pictures", "one or more", "check the selection")
    tower = model.visual if isinstance(model, Clip) else model
    check_evaluation(tower, ASKED)
    ways = _Ways(tower, method, layer, grid)
    total = -(-len(question) // batch_size)
    found = [
        ways.answer(x, question, spoken if pairs else None)
        for x in track(question.batches(batch_size), "explain", total=total)
    ]
    logits, patches, embedding = (torch.cat(each) for each in list(zip(*found, strict=True))[:3])
    rest = logits - patches.sum(dim=(2, 3))
    if method not in SUMS:
        rest = rest * torch.nan
    maps = Heatmaps(question, method, logits, patches, rest)
    if spoken is None:
        return maps
    by_pair = [torch.cat(each) for each in zip(*(one[3] for one in found), strict=True)]
    return replace(
        maps,
        words=spoken.sentences.words,
        by_word=tuple(spoken.shares(embedding)),
        pairs=tuple(by_pair),
    )


@dataclass(frozen=True, eq=False)
class _Ways:
    """A method on an image tower: from pictures to what each patch adds."""

    tower: HookedTower
    method: str
    layer: int | None
    asked_grid: Grid | None

    @property
    def start(self) -> int:
        """The block before whose input places are counted."""
        if self.method == "straight":
            return where_places_count(self.tower) if self.layer is None else self.layer
        return self.tower.n_layers if self.method == "direct" else 0

    @cached_property
    def grid(self) -> tuple[Grid, int]:
        """Rows and columns of the patches, and how many places stand before them."""
        grid, first = grid_of(self.tower, self.start)
        if self.method in BY_PIXELS:
            asked = self.asked_grid or (grid if grid and first else (FINE, FINE))
            if len(asked) != 2 or min(asked) < 1:
                right = "two whole numbers from 1"
                raise SpecificationError(ASKED, f"grid={asked}", right, "write (6, 6)")
            return asked, 0
        n_layers = self.tower.n_layers
        if not isinstance(self.start, int) or not 0 <= self.start <= n_layers:
            given, right = f"layer={self.start!r}", f"0 to {n_layers}"
            raise SpecificationError(ASKED, given, right, "leave it out")
        if grid is None or grid[0] * grid[1] < 2:
            kind = type(self.tower).__name__
            raise SpecificationError(
                ASKED,
                f"{self.method!r} for a {kind} "
                + ("whose places are not known" if grid is None else "whose last map is one place"),
                "a tower whose places form a grid there",
                "use method='occlusion'" + ("" if grid is None else " or 'straight'"),
            )
        return grid, first

    def answer(
        self, x: Tensor, question: LogitQuestion, spoken: SpokenSentences | None
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Logits, what each patch adds, unit embeddings, and each sentence's pairs if asked for."""
        (rows, columns), first = self.grid
        with torch.no_grad():
            embedding = self.tower(x)
        length = embedding.norm(dim=-1)[:, None, None]
        unit = F.normalize(embedding, dim=-1)
        logits = unit @ question.directions.T

        def patches(shares: Float[Tensor, "batch direction place"]) -> Tensor:
            return rearrange(
                shares[..., first : first + rows * columns].detach(),
                "batch direction (row column) -> batch direction row column",
                row=rows,
            )

        if self.method == "occlusion":
            with torch.no_grad():
                falls = by_covering(question.logits, x, (rows, columns))
            return logits, patches(falls), unit, []
        if self.method == "integrated gradients":
            n, grid = len(question.directions), (rows, columns)
            with parameters_at_rest(self.tower):
                return logits, patches(integrated(question.logits, x, n, grid)), unit, []
        if self.method == "gradient x attention":
            return logits, patches(by_attention(self.tower, x, question.directions)), unit, []
        wanted = [question.directions, *(spoken.vectors if spoken else ())]
        shares = self._along(x, torch.cat(wanted)) / length
        own, *by_word = patches(shares).split([len(each) for each in wanted], dim=1)
        return logits, own, unit, by_word

    def _along(self, x: Tensor, directions: Tensor) -> Float[Tensor, "batch direction place"]:
        if self.method == "straight":
            return straight(self.tower, x, directions, self.start)
        return einsum(
            direct_vectors(self.tower, x),
            directions,
            "batch place d_embed, direction d_embed -> batch direction place",
        )


def _question(
    model: Clip | HookedTower,
    pictures: Pictures,
    sentences: str | Sequence[str] | Classifier,
    preprocess: Preprocess | None,
    method: str,
) -> tuple[LogitQuestion, SpokenSentences | None]:
    """The question in one form, with the sentences where they are texts."""
    clip = model if isinstance(model, Clip) else None
    tower = model.visual if isinstance(model, Clip) else model
    like = next(tower.parameters())
    source, preprocess, drawn = _pictures(pictures, clip, preprocess)
    if isinstance(sentences, Classifier):
        directions = F.normalize(sentences.embeddings.to(like), dim=-1) * sentences.scale
        names = tuple(sentences.names)
        return LogitQuestion(tower, directions, names, source, preprocess, drawn), None
    if clip is None:
        given = f"sentences for a bare {type(tower).__name__}"
        right = "a Clip, whose text tower reads them, or a classifier in their place"
        raise SpecificationError(ASKED, given, right, "pass clip instead of clip.visual")
    texts = [sentences] if isinstance(sentences, str) else list(sentences)
    read = read_sentences(clip.tokenizer, texts)
    with torch.no_grad():
        embedded = clip.encode_text(read.tokens)
    directions = F.normalize(embedded, dim=-1) * clip.logit_scale
    question = LogitQuestion(tower, directions, tuple(texts), source, preprocess, drawn)
    if not isinstance(clip.text, HookedText):
        return question, None
    return question, SpokenSentences(read, clip.text, clip.logit_scale, method)


def _less_others(
    directions: Float[Tensor, "sentence d_embed"],
) -> Float[Tensor, "sentence d_embed"]:
    n = len(directions)
    if n < 2:
        asked = "contrast a sentence with others"
        raise SpecificationError(asked, "a single one", "two or more", "add others")
    return directions - (directions.sum(dim=0) - directions) / (n - 1)


def _pictures(
    pictures: Pictures, clip: Clip | None, preprocess: Preprocess | None
) -> tuple[ImageTable | Tensor, Preprocess | None, Callable[[int], Image.Image]]:
    """Pictures as a table or tensor, their transform, and each as it is drawn."""
    if isinstance(pictures, Tensor):
        return pictures, None, partial(_picture, pictures)
    transform = preprocess or (clip.preprocess if clip else None)
    if transform is None:
        given = "pictures for a bare tower"
        right = "a preprocess= from a picture to the tower's input, or preprocessed pictures"
        raise SpecificationError(ASKED, given, right, "pass preprocess, or a Clip")
    if isinstance(pictures, ImageTable):
        return pictures, transform, pictures.picture
    some = [pictures] if isinstance(pictures, Image.Image) else list(pictures)
    each, together = by_batch(transform)
    made = together([each(one) for one in some]) if some else torch.empty(0)
    return made, None, some.__getitem__


def _picture(pictures: Tensor, row: int) -> Image.Image:
    """A preprocessed picture, its darkest and lightest number as black and white."""
    own = pictures[row].detach().float().cpu()
    low, high = own.min(), own.max()
    shade = (own - low) / (high - low).clamp(min=1e-6) * 255
    return Image.fromarray(shade.byte().permute(1, 2, 0).numpy())
