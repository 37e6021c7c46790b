"""The supervised baseline: CLIP's image tower, a ReLU and a linear head, trained on class labels.

It is trained by the same launcher as CLIP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from interp.core.classifiers import LinearClassifier
from interp.core.errors import CheckpointError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.models.clip import Clip
from interp.models.loading.checkpoints import check_finite, fill, read_classes, read_weights
from interp.models.towers.hooked import HookedTower


@dataclass(frozen=True, eq=False, repr=False)
class LinearHead(LinearClassifier):
    """The trained head, called on embeddings to give the logits of the classes.

    `logit[c] = scale * (relu(embedding) . embeddings[c] + bias[c])`.
    """

    def logits(self, embedding: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch class"]:
        """The logits, of embeddings before the ReLU."""
        return super().logits(F.relu(embedding))


class SupervisedModel:
    """A trained supervised baseline with hooked image tower, head and class names.

    Args:
        clip: The CLIP whose image tower is used; its untrained text tower is not.
        head: The trained head.

    Notes:
        `visual(pixels)` is the embedding before the ReLU, `head(visual(pixels))` the logits. It has
        `embed` and `zero_shot` like a `Clip`, so `interp.models.ask` takes it.
    """

    def __init__(self, clip: Clip, head: LinearHead) -> None:
        """Keep the image tower of `clip`, and the head."""
        self._clip, self.head = clip, head

    def __repr__(self) -> str:
        return f"SupervisedModel({self._clip.architecture!r}, {len(self.class_names)} classes)"

    @cached_property
    def visual(self) -> HookedTower:
        """The image tower, with hooks on every activation."""
        return self._clip.visual

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.head.class_names

    def certify(self, **options: int) -> Table:
        """Compare the image tower with open_clip's, site by site; see `interp.models.certify`.

        Args:
            **options: Options of `interp.models.certify`.

        Returns:
            One row per site and check.
        """
        from interp.models.certificate.certify import certify

        facts = {"architecture": self._clip.architecture}
        return Table("certificate", certify(self.visual, **options), facts)

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """The transform of a picture to `channel row column`."""
        return self._clip.preprocess

    def embed(self, images: ImageTable, *, batch_size: int = 256) -> Tensor:
        """Embed the pictures of a table before the ReLU, without gradients.

        Args:
            images: The pictures.
            batch_size: Pictures embedded at a time.

        Returns:
            Embeddings `batch d_embed` in table order.
        """
        return self._clip.embed(images, batch_size=batch_size)

    def zero_shot(
        self, class_names: Sequence[str], templates: Sequence[object] = ()
    ) -> LinearClassifier:
        """The head's rows for some of its classes.

        Args:
            class_names: The classes wanted.
            templates: Ignored, since the head has no text.

        Returns:
            A head for these classes.

        Raises:
            CheckpointError: For a class that it was not trained on.
        """
        check_known("classify", "class", class_names, self.class_names, CheckpointError)
        return self.head.of(class_names)


@door
def load_classifier(
    path: str | Path,
    *,
    model: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SupervisedModel:
    """Open the checkpoint of a supervised run.

    Args:
        path: The checkpoint.
        model: Its architecture; None reads it from the run or a configuration beside it.
        device: Where the parameters are put.
        dtype: The format that weights are converted to.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: For a file that is missing, cut short, or no classifier.

    >>> load_classifier("no such/epoch_1.pt", model="RN50")
    Traceback (most recent call last):
    ...
    interp.core.errors.CheckpointError: Cannot open no such/epoch_1.pt: given a file that does ...
    """
    from interp.models.loading.load_clip import architecture_of, create

    source = Path(path)
    weights, classes = read_weights(source), read_classes(source)
    if not {"head.weight", "head.bias"} <= weights.keys() or len(classes) != len(
        weights["head.bias"]
    ):
        asked = f"open {source} as a classifier"
        given = "weights without a linear head and its class names"
        right = "the checkpoint of a supervised run"
        raise CheckpointError(asked, given, right, "open a CLIP with load_clip")
    architecture = model or architecture_of(source)
    clip_model = create(architecture, load_weights=False)
    tower = {
        name.removeprefix("visual."): value
        for name, value in weights.items()
        if name.startswith("visual.")
    }
    fill(clip_model.visual, tower, source, architecture)  # type: ignore[arg-type]
    check_finite(clip_model, str(source))
    clip_model.eval().to(device=device, dtype=dtype)
    head = LinearHead(weights["head.weight"], tuple(classes), bias=weights["head.bias"])
    return SupervisedModel(Clip(clip_model, architecture), head)


class LabelledTower(nn.Module):
    """An image tower with a linear head for class labels, as the launcher trains it.

    Args:
        visual: The image tower.
        n_classes: Number of classes.
        width: Size of the embedding.
    """

    def __init__(self, visual: nn.Module, n_classes: int, width: int) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, n_classes)
        # open_clip's epoch loop clamps and reports one; it has no part in the loss
        self.logit_scale: Tensor
        self.register_buffer("logit_scale", torch.zeros(()), persistent=False)

    def forward(
        self, images: Float[Tensor, "batch channel height width"], labels: Int[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        """The logits beside their labels, in the form of open_clip's epoch loop."""
        logits = self.head(F.relu(self.visual(images)))
        return {"logits": logits, "labels": labels, "logit_scale": self.logit_scale}


class LabelLoss(nn.Module):
    """Cross entropy, with the arguments that open_clip's epoch loop gives a loss."""

    def forward(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        logit_scale: Tensor,
        output_dict: bool = True,
    ) -> dict[str, Tensor]:
        """The mean over the batch, in nats; the loop passes `logit_scale` and `output_dict`."""
        return {"loss_of_labels": F.cross_entropy(logits, labels)}
