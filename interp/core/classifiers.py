"""Classes as directions in the embedding: the one classifier that every function takes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import linear, normalize

from interp.core.errors import AlikeError, DataError, NumericsError, ShapeError, check_known, listed
from interp.core.faces.doors import check_fields, door


@dataclass(frozen=True, eq=False)
class Classifier:
    """Classes as directions, scored by scaled cosine.

    `logit[c] = scale * cos(embedding, embeddings[c])`.

    Args:
        embeddings: A direction per class, `class d_embed`, of any length.
        names: The class names, in the same order.
        scale: CLIP's exp(logit_scale); the default of 1 gives plain cosines.

    Raises:
        ShapeError: If there is not one embedding per name.
        DataError: Without a name, or with a name twice.
        NumericsError: For embeddings with NaN or infinity.

    Notes:
        `clip.zero_shot(names)` makes one of prompts. Every function that asks for a classifier
        takes it as it is. `predict`, `predict_proba` and `score` are scikit-learn's, on embeddings.
        `weight`, `class_names` and `logit_scale` are other names of the three arguments.

    >>> classifier = Classifier(torch.eye(2), ("cat", "dog"), scale=10.0)
    >>> pictures = torch.tensor([[0.0, 3.0]])
    >>> classifier(pictures).tolist(), classifier.predict(pictures).tolist()
    ([[0.0, 10.0]], ['dog'])
    """

    embeddings: Tensor
    names: Sequence[str]
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.names):
            given = f"class embeddings of shape {tuple(self.embeddings.shape)}"
            right = f"({len(self.names)}, d_embed)"
            do = "give one embedding per class name"
            raise ShapeError(f"score against {len(self.names)} classes", given, right, do)
        if not len(self.names) or len(set(self.names)) < len(self.names):
            given = f"the classes {listed(self.names) or 'of no name'}"
            right = "different names (two or more where one is scored against others)"
            raise DataError("score pictures against classes", given, right, "name every class once")
        if not bool(torch.isfinite(self.embeddings).all()):
            given = "class embeddings with NaN or infinity"
            do = "check the text tower and the prompts"
            raise NumericsError("score against classes", given, "finite numbers", do)

    @property
    def weight(self) -> Tensor:
        """The classes as directions."""
        return self.embeddings

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.names)

    @property
    def logit_scale(self) -> float:
        """The factor of the cosines."""
        return self.scale

    def __repr__(self) -> str:
        shown = listed(self.names, limit=6)
        return f"Classifier({len(self.names)} classes: {shown}; scale {self.scale:.4g})"

    def __call__(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch class"]:
        """The logits."""
        return self.logits(embedding)

    def cosine(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch class"]:
        """Cosine of every embedding with every class."""
        self.check_width(embedding)
        classes = self.embeddings.to(embedding)
        return normalize(embedding, dim=-1) @ normalize(classes, dim=-1).T

    def check_width(self, embedding: Tensor) -> None:
        """Refuse embeddings that are not as wide as the classes."""
        width = self.embeddings.shape[1]
        if not isinstance(embedding, Tensor) or embedding.shape[-1:] != (width,):
            given = getattr(embedding, "shape", None)
            raise ShapeError(
                f"score embeddings against {len(self.names)} classes",
                f"a {type(embedding).__name__}" + (f" of shape {tuple(given)}" if given else ""),
                f"a tensor of shape (batch, {width})",
                "pass what the classifier's own model makes of pictures",
            )

    def logits(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch class"]:
        """Scaled cosine of every embedding with every class."""
        return self.scale * self.cosine(embedding)

    def predict(self, embedding: Float[Tensor, "batch d_embed"]) -> np.ndarray:
        """The name of the class with the largest logit, for every embedding."""
        places = self.logits(embedding).argmax(dim=-1).cpu().numpy()
        return np.asarray(self.class_names, dtype=object)[places]

    def predict_proba(
        self, embedding: Float[Tensor, "batch d_embed"]
    ) -> Float[np.ndarray, "batch class"]:
        """The softmax of the logits."""
        return self.logits(embedding).detach().softmax(dim=-1).cpu().numpy()

    @door
    def score(self, embedding: Float[Tensor, "batch d_embed"], labels: Iterable[str]) -> float:
        """The share of embeddings whose class is predicted.

        Args:
            embedding: Embeddings of pictures.
            labels: Their classes, by name.

        Returns:
            Accuracy, 0 to 1.

        Raises:
            DataError: For a name that is no class of this classifier.
            ShapeError: If there is not one label per embedding.
        """
        said, true = self._answers(embedding, labels)
        return float((said == true).mean())

    @door
    def confusion(
        self, embedding: Float[Tensor, "batch d_embed"], labels: Iterable[str]
    ) -> pd.DataFrame:
        """How many pictures of each class are given each name.

        Args:
            embedding: Embeddings of pictures.
            labels: Their classes, by name.

        Returns:
            Counts: a row for each class, a column for each name that is given.
        """
        said, true = (
            pd.Categorical(names, self.class_names) for names in self._answers(embedding, labels)
        )
        return pd.crosstab(true, said, rownames=["label"], colnames=["predicted"], dropna=False)

    @door
    def score_by(
        self,
        embedding: Float[Tensor, "batch d_embed"],
        labels: Iterable[str],
        groups: Iterable[str],
    ) -> pd.DataFrame:
        """The accuracy in each group of pictures, such as each domain.

        Args:
            embedding: Embeddings of pictures.
            labels: Their classes, by name.
            groups: The group of each picture, for example `images.domain`.

        Returns:
            A row for each group: `value` (accuracy, 0 to 1), `low` and `high` (Wilson's 95 %
            interval over pictures), `n_pictures`.
        """
        said, true = self._answers(embedding, labels)
        rows = {}
        for group, hits in pd.Series(said == true).groupby(list(groups)):
            ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
            rows[group] = [hits.mean(), ends.low, ends.high, len(hits)]
        return pd.DataFrame.from_dict(rows, "index", columns=["value", "low", "high", "n_pictures"])

    def _answers(self, embedding: Tensor, labels: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """What is predicted and what is true, by name, where there is a label per embedding."""
        true = np.array(list(labels), dtype=object)
        self.numbers(true.tolist())
        if len(true) != len(embedding):
            given = f"{len(true)} labels for {len(embedding)} embeddings"
            right = "a label for each"
            raise ShapeError("score predictions", given, right, "give both in the same order")
        return self.predict(embedding), true

    @door
    def numbers(self, labels: Sequence[str]) -> Int[Tensor, "batch"]:
        """The places of class names.

        Args:
            labels: Class names, one per example.

        Returns:
            The place of each among `names`.

        Raises:
            DataError: For a name that is no class of this classifier.
        """
        check_known("score pictures", "class", sorted(set(labels)), self.names)
        place = {name: number for number, name in enumerate(self.names)}
        return torch.tensor([place[name] for name in labels], dtype=torch.long)

    def standardised(self, embedding: Float[Tensor, "batch d_embed"]) -> "Classifier":
        """The same classes in units of the model's own contrast between them.

        Args:
            embedding: Outputs of the model for some pictures.

        Returns:
            A classifier of another scale.

        Raises:
            AlikeError: If the logits do not differ between classes by more than rounding.
            NumericsError: If they are not finite.

        Notes:
            The unit is the root mean square, over pictures, of the standard deviation of a
            picture's logits over classes. In this unit the margins of differently trained models
            can be compared.
        """
        logits = self.logits(embedding)
        spread = logits.var(dim=-1, correction=0).mean().sqrt().item()
        rounding = torch.finfo(logits.dtype).eps * logits.abs().max().item()
        if not spread > rounding:
            kind = AlikeError if np.isfinite(spread) else NumericsError
            given = f"logits that spread {spread:.2g} over the classes"
            do = "check the class embeddings and the tower's output"
            raise kind("standardise a classifier", given, "logits that differ between classes", do)
        return replace(self, scale=self.scale / spread)


@dataclass(frozen=True, eq=False, repr=False)
class LinearClassifier(Classifier):
    """Classes as directions with an offset each, scored by a product.

    `logit[c] = scale * (embedding . embeddings[c] + bias[c])`.

    Args:
        embeddings: A direction per class, `class d_embed`.
        names: The class names, in the same order.
        scale: A factor of all logits.
        bias: An offset per class, `class`.

    Raises:
        ShapeError: If there is not one direction and one offset per name.
        DataError: Without a name, or with a name twice.
        NumericsError: For directions with NaN or infinity.

    Notes:
        What models without text are asked with: heads that were trained with them, or taught from
        pictures afterwards. Every function that asks for a classifier takes it.

    >>> head = LinearClassifier(torch.eye(2), ("cat", "dog"), bias=torch.tensor([0.5, 0.0]))
    >>> head(torch.tensor([[0.0, 3.0]])).tolist()
    [[0.5, 3.0]]
    """

    bias: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias.shape != (len(self.names),):
            given = f"offsets of shape {tuple(self.bias.shape)}"
            right = f"({len(self.names)},)"
            do = "give one per class name"
            raise ShapeError(f"score against {len(self.names)} classes", given, right, do)

    def logits(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch class"]:
        """Product of every embedding with every class, and its offset, scaled."""
        self.check_width(embedding)
        return self.scale * linear(
            embedding, self.embeddings.to(embedding), self.bias.to(embedding)
        )

    def of(self, names: Sequence[str]) -> "LinearClassifier":
        """The same for some of the classes.

        Args:
            names: The classes wanted.

        Returns:
            A classifier that chooses among them.

        Raises:
            DataError: For a class that it does not know.
        """
        check_known("choose among classes", "class", list(names), self.names)
        rows = [list(self.names).index(name) for name in names]
        return replace(
            self, embeddings=self.embeddings[rows], names=tuple(names), bias=self.bias[rows]
        )
