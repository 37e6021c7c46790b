"""Training on class labels: the image tower with a linear head, and its loss.

The labels of a mixture's TSV take the place of captions, and cross entropy that of the contrastive
loss. `interp.models.loading.supervised` opens what was trained.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


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
