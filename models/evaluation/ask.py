"""A model's answers when asked for the class of every picture, in a few columns.

Classes are chosen by their text (`ask`), or by classifiers of the same embeddings that are learned
from pictures (`ask_examples`). A text head may fail on a picture that is embedded well: a linear
probe trained on the test domain itself (an oracle) says what its embeddings hold, and a probe and
class means (prototypes) of natural pictures say what transfers without any text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from interp.core.classifiers import Classifier
from interp.core.errors import NumericsError, SampleError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.models.clip import Sentence, write

Prompts = Callable[[str], Sequence[Sentence]]
"""The templates to ask with for pictures of a domain."""

ALL, HELD_OUT, SEEN = "all", "held-out", "seen"
TEXT = "text"
"""The classifier that zero-shot answers come from; `ask_examples` has others."""


@runtime_checkable
class ZeroShotModel(Protocol):
    """What can be evaluated: `Clip`, or anything that embeds pictures and class names."""

    def embed(self, images: ImageTable, *, batch_size: int = 256) -> Tensor:
        """Embeddings of pictures, `batch d_embed`."""
        ...

    def zero_shot(self, class_names: Sequence[str], templates: Sequence[Sentence]) -> Classifier:
        """A classifier of class names."""
        ...


@dataclass(frozen=True)
class Embedded:
    """Pictures with their embeddings, computed once and used for several classifiers.

    Args:
        images: The pictures.
        vectors: Their embeddings, `picture d_embed`.
    """

    images: ImageTable
    vectors: Tensor

    @classmethod
    def of(cls, model: ZeroShotModel, images: ImageTable, *, batch_size: int = 256) -> "Embedded":
        """Embed pictures with a model.

        Args:
            model: What embeds them.
            images: The pictures.
            batch_size: Pictures embedded at a time.

        Returns:
            The pictures with their embeddings.

        Raises:
            SampleError: Without pictures.
        """
        if not len(images):
            raise SampleError("evaluate a model", "no pictures", "at least one", "give pictures")
        return cls(images, model.embed(images, batch_size=batch_size))

    @property
    def frame(self) -> pd.DataFrame:
        """The pictures' columns, with rows numbered like the embeddings."""
        return self.images.frame.reset_index(drop=True)


@dataclass(frozen=True)
class Answers:
    """The answers of a model, a row per picture, prompt set, classifier and set of candidates.

    Args:
        frame: Columns `label, domain, drawing, prompts, classifier, candidates, chosen, correct,
            rank, margin, best_of_kind`.
        held_out: The classes that were held out of training.
        n_classes: Number of all classes.

    Notes:
        `chosen` is the class with the highest logit (the first of equals), `rank` the position of
        the true class among the candidates, counted from 1. `margin` is the best logit of a seen
        class minus the best of a held-out one. `best_of_kind` says whether the true class beats all
        that are seen or held out as it is. The last two give the choice under any bias against seen
        classes without the logits. They are NaN where only held-out classes are candidates, or none
        is held out.
    """

    frame: pd.DataFrame
    held_out: tuple[str, ...]
    n_classes: int

    def n_candidates(self, candidates: str) -> int:
        """Number of classes to choose from, for a set of candidates."""
        return len(self.held_out) if candidates == HELD_OUT else self.n_classes

    def with_(self, others: Iterable["Answers"]) -> "Answers":
        """Append other answers to the same question."""
        frames = [self.frame, *(each.frame for each in others)]
        return Answers(pd.concat(frames, ignore_index=True), self.held_out, self.n_classes)


@dataclass(frozen=True)
class Question:
    """The classes to choose from, and which of them were held out of training.

    Args:
        class_names: The classes, in the order of the logits.
        held_out: Those that were held out.

    >>> pictures = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
    >>> Question(("cat", "dog"), ()).answers(pictures, torch.eye(2)).frame["chosen"].tolist()
    ['cat', 'dog']
    """

    class_names: tuple[str, ...]
    held_out: tuple[str, ...]

    def check(self, labels: Iterable[str]) -> None:
        """Refuse held-out classes and labels that are no candidates.

        Args:
            labels: The classes of the pictures.

        Raises:
            DataError: For a class that is no candidate.
        """
        check_known("hold out a class", "class", self.held_out, self.class_names)
        check_known("evaluate pictures", "class", dict.fromkeys(labels), self.class_names)

    def answers(
        self, pictures: pd.DataFrame, logits: Tensor, *, prompts: str = "", classifier: str = TEXT
    ) -> Answers:
        """Read answers off logits.

        Args:
            pictures: `label`, `domain` and perhaps `drawing` of each picture.
            logits: Logits `picture class`, in the order of `class_names`; -inf for a class that the
                classifier does not know.
            prompts: Name of the prompt set.
            classifier: Name of the classifier.

        Returns:
            The answers.

        Raises:
            NumericsError: For NaN.

        Notes:
            For pictures of held-out classes there is a second set of candidates, the held-out
            classes alone: a model's preference for seen classes then has no influence.
        """
        scores = logits.detach().double().cpu().numpy()
        if np.isnan(scores).any():
            asked = f"read the answers of the {classifier} classifier"
            given = f"{int(np.isnan(scores).any(axis=1).sum())} pictures whose logits are NaN"
            do = "look for NaN in the checkpoint, or evaluate in float32"
            raise NumericsError(asked, given, "finite embeddings", do)
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


@door
def ask(
    clip: ZeroShotModel,
    images: ImageTable | Embedded,
    prompt_sets: Mapping[str, Prompts],
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    batch_size: int = 256,
) -> Answers:
    """Classify every picture with a CLIP, among all classes and among the held-out ones.

    Args:
        clip: A `Clip`, or anything that embeds pictures and class names.
        images: Pictures, or pictures already embedded.
        prompt_sets: By name, the templates to use for a domain; each set is used for all domains.
        class_names: The classes to choose from.
        held_out: Those that were held out of training.
        batch_size: Pictures embedded at a time.

    Returns:
        The answers. Pictures are embedded once, and so are sentences that two prompt sets share.

    Raises:
        SampleError: Without pictures.
        DataError: For classes that are no candidates.
        NumericsError: For NaN.

    >>> class Toy:
    ...     def embed(self, images, *, batch_size=256):
    ...         return torch.eye(2)
    ...     def zero_shot(self, class_names, templates):
    ...         return Classifier(torch.eye(2), tuple(class_names), 100.0)
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["cat", "dog"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> prompts = {"photo": lambda domain: ["a photo of a {}."]}
    >>> answers = ask(Toy(), ImageTable(frame), prompts, class_names=["cat", "dog"], held_out=[])
    >>> answers.frame["correct"].tolist()
    [1.0, 1.0]
    """
    question = Question(tuple(class_names), tuple(held_out))
    if isinstance(images, ImageTable):
        check_known("hold out a class", "class", held_out, class_names)
        images = Embedded.of(clip, images, batch_size=batch_size)
    frame = images.frame
    question.check(frame["label"])
    heads: dict[tuple[str, ...], Classifier] = {}
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


LINEAR_OWN, LINEAR_NATURAL = "linear (own domain)", "linear (natural)"
PROTOTYPE = "prototype (natural)"

STRENGTH = 0.1
"""Inverse strength of the probes' penalty, fixed beforehand so that no test picture chooses it."""


def ask_examples(
    training: Embedded,
    test: Embedded,
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    natural: str = "real",
) -> Answers:
    """Classify test pictures with three classifiers learned from training pictures.

    Args:
        training: Embedded training pictures.
        test: Embedded test pictures.
        class_names: The classes to choose from.
        held_out: Those that were held out of the model's training.
        natural: The natural domain.

    Returns:
        The answers of all classifiers.

    Raises:
        DataError: For an unknown natural domain.
        SampleError: If nothing can be learned at all.

    Notes:
        - *linear (own domain)*: logistic regression on embeddings of the test picture's own domain
          and all classes, also held-out ones. It is an oracle: the ceiling of what can be read
          there.
        - *linear (natural)*: the same, learned from natural pictures alone.
        - *prototype (natural)*: cosine with the mean of each class's natural embeddings, normalised
          before and after.

        A classifier is left out where its pictures show fewer than two classes. A class without
        training pictures is never chosen.
    """
    question = Question(tuple(class_names), tuple(held_out))
    shown = training.frame
    question.check([*shown["label"], *test.frame["label"]])
    check_known("learn from natural pictures", "domain", [natural], training.images.domains)
    frame, parts = test.frame, []
    source = _rows(shown, natural)
    far = _fits(training, source)
    if far:
        probe = _logits_of_probe(training, source, test.vectors, class_names)
        near = prototypes(training.vectors[source], shown["label"].iloc[source], class_names)
        cosine = F.normalize(test.vectors.double(), dim=-1) @ near.T
        cosine = cosine.masked_fill(near.isnan().any(dim=-1), -torch.inf)
        parts += [
            question.answers(frame, probe, classifier=LINEAR_NATURAL),
            question.answers(frame, cosine, classifier=PROTOTYPE),
        ]
    for domain in test.images.domains:
        rows, own = _rows(frame, domain), _rows(shown, domain)
        if _fits(training, own):
            probe = _logits_of_probe(training, own, test.vectors[rows], class_names)
            parts.append(question.answers(frame.iloc[rows], probe, classifier=LINEAR_OWN))
    if not parts:
        asked = "learn classifiers from pictures"
        given = f"{len(shown)} training pictures with fewer than two classes in every domain"
        right = "two classes in a domain at least"
        raise SampleError(asked, given, right, "give more training pictures")
    return parts[0].with_(parts[1:])


def prototypes(
    vectors: Float[Tensor, "picture d_embed"],
    labels: Sequence[str] | pd.Series,
    class_names: Sequence[str],
) -> Float[Tensor, "classes d_embed"]:
    """The mean direction of each class's embeddings.

    Args:
        vectors: Embeddings.
        labels: The class of each.
        class_names: The classes wanted.

    Returns:
        Directions of norm 1; NaN for a class without pictures.

    >>> prototypes(torch.eye(2), ["cat", "cat"], ["cat"]).numpy().round(4).tolist()
    [[0.7071, 0.7071]]
    """
    directions = F.normalize(vectors.double(), dim=-1)
    known = np.asarray(labels)
    rows = [directions[np.flatnonzero(known == name).tolist()].mean(dim=0) for name in class_names]
    return F.normalize(torch.stack(rows), dim=-1)


def _rows(frame: pd.DataFrame, domain: str) -> list[int]:
    return np.flatnonzero((frame["domain"] == domain).to_numpy()).tolist()


def _fits(training: Embedded, rows: Sequence[int]) -> bool:
    return training.frame["label"].iloc[list(rows)].nunique() > 1


def _logits_of_probe(
    training: Embedded, rows: Sequence[int], vectors: Tensor, class_names: Sequence[str]
) -> Tensor:
    """Logits of a logistic regression on standardised directions; -inf for a class never seen."""
    chosen = list(rows)
    scaler = StandardScaler().fit(_directions(training.vectors[chosen]))
    probe = LogisticRegression(C=STRENGTH, max_iter=500, tol=1e-4)
    learned = scaler.transform(_directions(training.vectors[chosen]))
    probe.fit(learned, training.frame["label"].iloc[chosen].to_numpy(dtype=str))
    scores = np.asarray(probe.decision_function(scaler.transform(_directions(vectors))))
    if scores.ndim == 1:  # two classes: scikit-learn gives the second one's score
        scores = np.stack([-scores, scores], axis=1) / 2
    logits = np.full((len(vectors), len(class_names)), -np.inf)
    logits[:, [list(class_names).index(name) for name in probe.classes_]] = scores
    return torch.from_numpy(logits)


def _directions(vectors: Tensor) -> np.ndarray:
    return F.normalize(vectors.detach().double().cpu(), dim=-1).numpy()
