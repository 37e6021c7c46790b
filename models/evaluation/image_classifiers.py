"""Classifiers of the same embeddings that are learned from pictures instead of text.

A text head may fail on a picture that is embedded well. A linear probe trained on the test domain
itself (an oracle) says what its embeddings hold. A probe and class means (prototypes) of natural
pictures say what transfers without any text.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from interp.core.errors import SampleError, check_known
from interp.models.evaluation.predictions import Answers, Embedded, Question

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
        raise SampleError(
            "learn classifiers from pictures",
            f"{len(shown)} training pictures with fewer than two classes in every domain",
            "two classes in a domain at least",
            "give more training pictures",
        )
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
