"""What a model answers when it is asked for the class of every picture, kept in a few columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.core.errors import NumericsError, SampleError, check_known
from interp.core.images import ImageTable
from interp.models.clip import Sentence, ZeroShotHead, write

Prompts = Callable[[str], Sequence[Sentence]]
"""The templates to ask with for pictures of a domain."""

ALL, HELD_OUT, SEEN = "all", "held-out", "seen"
TEXT = "text"
"""The classifier that zero-shot answers come from; `image_classifiers` beside it has others."""


@runtime_checkable
class ZeroShotModel(Protocol):
    """What answers: `interp.models.clip.Clip`, or anything that embeds pictures and class names."""

    def embed(self, images: ImageTable, *, batch_size: int = 256) -> Tensor:
        """Embeddings of pictures, `batch d_embed`."""
        ...

    def zero_shot(self, class_names: Sequence[str], templates: Sequence[Sentence]) -> ZeroShotHead:
        """A classifier of class names."""
        ...


@dataclass(frozen=True)
class Embedded:
    """Pictures with their embeddings `picture d_embed`, computed once and asked many questions."""

    images: ImageTable
    vectors: Tensor

    @classmethod
    def of(cls, model: ZeroShotModel, images: ImageTable, *, batch_size: int = 256) -> "Embedded":
        """Embed pictures; `SampleError` where there are none."""
        if not len(images):
            raise SampleError("evaluate a model", "no pictures", "at least one", "give pictures")
        return cls(images, model.embed(images, batch_size=batch_size))

    @property
    def frame(self) -> pd.DataFrame:
        """The pictures' columns, numbered as the embeddings are."""
        return self.images.frame.reset_index(drop=True)


@dataclass(frozen=True)
class Answers:
    """What a model answered: one row per picture, prompt set, classifier and set of candidates.

    Columns: `label, domain, drawing, prompts, classifier, candidates`; `chosen`, the class with the
    highest logit (the first of equals), and `correct`; `rank`, the place of the true class among
    the candidates, from 1; `margin`, the best logit of a seen class minus the best of a held-out
    one; `best_of_kind`, whether the true class beats all that are seen or held out as it is. The
    last two say what would be chosen under any bias against seen classes, without the logits; they
    are NaN where only held-out classes are candidates, or where none is held out.
    """

    frame: pd.DataFrame
    held_out: tuple[str, ...]
    n_classes: int

    def n_candidates(self, candidates: str) -> int:
        """How many classes were to choose from."""
        return len(self.held_out) if candidates == HELD_OUT else self.n_classes

    def with_(self, others: Iterable["Answers"]) -> "Answers":
        """These answers and others to the same question, in one table."""
        frames = [self.frame, *(each.frame for each in others)]
        return Answers(pd.concat(frames, ignore_index=True), self.held_out, self.n_classes)


@dataclass(frozen=True)
class Question:
    """The classes to choose from, and which of them were held out of training."""

    class_names: tuple[str, ...]
    held_out: tuple[str, ...]

    def check(self, labels: Iterable[str]) -> None:
        """Refuse held-out classes and pictures of classes that are no candidates."""
        check_known("hold out a class", "class", self.held_out, self.class_names)
        check_known("evaluate pictures", "class", dict.fromkeys(labels), self.class_names)

    def answers(
        self, pictures: pd.DataFrame, logits: Tensor, *, prompts: str = "", classifier: str = TEXT
    ) -> Answers:
        """Read answers off logits `picture class`, in the order of `class_names`.

        The held-out classes are also a choice among themselves, for their own pictures: a model
        that prefers classes it has seen is then not held back by that. A class of which a
        classifier knows nothing has the logit -inf. Raises `NumericsError` for NaN.
        """
        scores = logits.detach().double().cpu().numpy()
        if np.isnan(scores).any():
            raise NumericsError(
                f"read the answers of the {classifier} classifier",
                f"{int(np.isnan(scores).any(axis=1).sum())} pictures whose logits are NaN",
                "finite embeddings",
                "look for NaN in the checkpoint, or evaluate in float32",
            )
        named = {"prompts": prompts, "classifier": classifier}
        frame = pictures[[c for c in ("label", "domain", "drawing") if c in pictures]]
        parts = [_read(frame, scores, self.class_names, self.held_out).assign(**named)]
        own = np.flatnonzero(frame["label"].isin(self.held_out))
        if len(self.held_out) > 1 and len(own):
            columns = np.array([self.class_names.index(label) for label in self.held_out])
            narrow = _read(frame.iloc[own], scores[np.ix_(own, columns)], self.held_out, ())
            parts.append(narrow.assign(candidates=HELD_OUT, **named))
        return Answers(pd.concat(parts, ignore_index=True), self.held_out, len(self.class_names))


def _read(
    frame: pd.DataFrame, scores: np.ndarray, names: Sequence[str], held_out: Sequence[str]
) -> pd.DataFrame:
    """Answers among all of `names`; equal logits count as ordered by column, as in argmax."""
    true = np.array([names.index(label) for label in frame["label"]])
    chosen = scores.argmax(axis=1)
    own = np.take_along_axis(scores, true[:, None], axis=1)
    before = np.arange(len(names)) < true[:, None]
    above = (scores > own) | ((scores == own) & before)
    withheld = np.isin(names, held_out)
    margin = best = np.full(len(frame), np.nan)
    if withheld.any() and not withheld.all():
        margin = scores[:, ~withheld].max(axis=1) - scores[:, withheld].max(axis=1)
        same_kind = withheld[None, :] == withheld[true][:, None]
        best = (~(above & same_kind).any(axis=1)).astype(float)
    return frame.assign(
        candidates=ALL,
        chosen=np.asarray(names, dtype=object)[chosen],
        correct=(chosen == true).astype(float),
        rank=1 + above.sum(axis=1),
        margin=margin,
        best_of_kind=best,
    )


def ask(
    clip: ZeroShotModel,
    images: ImageTable | Embedded,
    prompt_sets: Mapping[str, Prompts],
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    batch_size: int = 256,
) -> Answers:
    """Ask a CLIP for the class of every picture, among all classes and among the held-out ones.

    Every prompt set asks about every domain's pictures; sentences that two of them share are
    embedded once, and so are the pictures. Raises `SampleError` without pictures, `DataError` for
    classes that are no candidates, `NumericsError` for NaN.
    """
    question = Question(tuple(class_names), tuple(held_out))
    if isinstance(images, ImageTable):
        check_known("hold out a class", "class", held_out, class_names)
        images = Embedded.of(clip, images, batch_size=batch_size)
    frame = images.frame
    question.check(frame["label"])
    heads: dict[tuple[str, ...], ZeroShotHead] = {}
    parts = []
    for name, prompts in prompt_sets.items():
        for domain in images.images.domains:
            rows = np.flatnonzero((frame["domain"] == domain).to_numpy())
            templates = prompts(domain)
            key = tuple(write(template, label) for label in class_names for template in templates)
            if key not in heads:
                heads[key] = clip.zero_shot(class_names, templates)
            with torch.no_grad():
                logits = heads[key](images.vectors[rows.tolist()])
            parts.append(question.answers(frame.iloc[rows], logits, prompts=name))
    return parts[0].with_(parts[1:])
