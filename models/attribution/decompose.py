"""Exact decomposition of an embedding by layer, head or source token, and of each class's logit.

The parts say what was written and read, not what would happen without it. For causal effects there
is patching.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from interp.core.classifiers import Classifier
from interp.core.errors import (
    NumericsError,
    SampleError,
    ShapeError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import door
from interp.core.statistics.resampling import column_intervals
from interp.core.tables import Table
from interp.core.tower import check_evaluation
from interp.models.attribution.resnet_parts import resnet_pieces
from interp.models.attribution.transformer_parts import EmbeddingPiece, transformer_pieces
from interp.models.towers.open_tower import check_opened
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.vit import HookedViT

GRANULARITIES = ("layer", "component", "head", "token", "place")
"""What a part may be."""

COLUMNS = ("kind", "layer", "head", "pos")
"""What is said of each part."""

BARS = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""The largest relative error of the sum that is let pass, by the tower's format.

Looser than what is found (1e-14, 1e-6): this is to catch a hook that makes the sum wrong, and must
not refuse a model with a few enormous activations.
"""


@dataclass(frozen=True)
class Decomposition:
    """Parts of an embedding that sum to it, with their names.

    Args:
        parts: The parts, `batch part d_embed`.
        names: The name of each part.
        labels: A row per part with `kind` (embed, pos_embed, attn, mlp, head, token, place, block,
            stem, bias), `layer` (-1 before the blocks, n_layers after them), `head` and `pos` (the
            source position). Cells that do not apply are missing.
        embedding: The tower's own embedding, `batch d_embed`.

    >>> labels = pd.DataFrame({"kind": ["embed", "mlp"], "layer": [-1, 0]})
    >>> parts = torch.ones(1, 2, 3)
    >>> whole = Decomposition(parts, ("embed", "mlp"), labels, parts.sum(dim=1))
    >>> whole.error, whole["mlp"].tolist()
    (0.0, [[1.0, 1.0, 1.0]])
    """

    parts: Float[Tensor, "batch part d_embed"]
    names: tuple[str, ...]
    labels: pd.DataFrame
    embedding: Float[Tensor, "batch d_embed"]

    def __repr__(self) -> str:
        n, parts, width = self.parts.shape
        shown = listed(self.names, limit=4)
        return f"Decomposition({n} embeddings of {width} in {parts} parts: {shown})"

    @property
    def total(self) -> Float[Tensor, "batch d_embed"]:
        """The sum of the parts."""
        return self.parts.sum(dim=1)

    @property
    def error(self) -> float:
        """The largest |sum of parts - embedding| / |embedding| over the batch."""
        embedding = self.embedding.to(self.parts)
        return float(((self.total - embedding).norm(dim=-1) / embedding.norm(dim=-1)).max())

    def __getitem__(self, name: str) -> Float[Tensor, "batch d_embed"]:
        """The part with a name such as `blocks.3.mlp`."""
        check_known("find a part", "part", [name], self.names, SpecificationError)
        return self.parts[:, self.names.index(name)]

    def logits(self, head: Classifier) -> Float[Tensor, "batch part classes"]:
        """What each part adds to each logit (direct logit attribution).

        exp(logit_scale) <part, class> / |embedding|, so the sum over parts is `head(embedding)`.

        Args:
            head: The text classifier, `classes d_embed`.

        Returns:
            Logits per part and class.

        Raises:
            ShapeError: If the head is for embeddings of another size.
        """
        weight = self._class_weight(head)
        norm = self.embedding.to(self.parts).norm(dim=-1)
        along = einsum(
            self.parts, weight, "batch part d_embed, classes d_embed -> batch part classes"
        )
        return along.mul_(head.logit_scale / norm[:, None, None])

    def grouped(self, by: str | Sequence[str]) -> "Decomposition":
        """Sum the parts that agree in one or several columns of `labels`.

        Args:
            by: A column, or several. `"layer"` gives one part per layer; `["head", "layer"]` gives
                one per head and another for what no head wrote.

        Returns:
            A decomposition with the same total. Names are made of the values: `layer.3.head.5`.

        Raises:
            SpecificationError: For an unknown column.
        """
        columns = [by] if isinstance(by, str) else list(by)
        check_known("group parts", "column", columns or ["nothing"], COLUMNS, SpecificationError)
        keys = self.labels[columns].astype(object).where(self.labels[columns].notna(), None)
        group_of_part, groups = pd.factorize(
            pd.Series(list(keys.itertuples(index=False, name=None)))
        )
        index = torch.as_tensor(group_of_part, device=self.parts.device)
        batch, _, d_embed = self.parts.shape
        summed = self.parts.new_zeros(batch, len(groups), d_embed).index_add_(1, index, self.parts)
        same = self.labels.groupby(group_of_part).nunique(dropna=False) == 1
        first = self.labels[~pd.Series(group_of_part).duplicated()].reset_index(drop=True)
        labels = first.where(same).fillna({"kind": "sum"})  # what its members do not share is lost
        names = tuple(_group_name(columns, group) for group in groups)
        return Decomposition(summed, names, labels, self.embedding)

    def summary(self, head: Classifier, labels: Sequence[str], *, seed: int = 0) -> Table:
        """How much each part favours the true class, with an interval.

        value = the part's logit of the picture's own class minus the mean of its logits of all
        other classes, averaged over the pictures of a class and then over classes.

        Args:
            head: The text classifier.
            labels: The true class of each picture.
            seed: Seed of the bootstrap.

        Returns:
            One row per part. The values of all parts sum to the value of the whole.

        Raises:
            ShapeError: If there is not a label for each picture.
            DataError: For a class that the head does not know.
            SampleError: With fewer than two classes to choose from.

        Notes:
            The interval is a bootstrap over whole classes, or over pictures where all are of one
            class.
        """
        values = self._margins(head, labels).double().cpu().numpy()
        classes = len(set(labels))
        unit = "class" if classes > 1 else "picture"
        n_units = classes if classes > 1 else len(labels)
        groups = np.asarray(labels) if classes > 1 else None
        spread = column_intervals(values, groups, seed=seed)
        frame = pd.DataFrame(
            {
                "part": self.names,
                **{name: self.labels[name].to_numpy() for name in COLUMNS},
                "measure": "logit of the true class minus the mean of the others",
                "value": [each.value for each in spread],
                "low": [each.low for each in spread],
                "high": [each.high for each in spread],
                "unit": unit,
                "n_units": n_units,
                "n_pictures": len(labels),
                "seed": seed,
                "reason": "" if n_units > 1 else "one picture: no interval",
            }
        )
        facts = {
            "classes": list(head.class_names),
            "logit_scale": head.logit_scale,
            "error": self.error,
        }
        return Table("direct logit attribution", frame, facts)

    def _margins(self, head: Classifier, labels: Sequence[str]) -> Float[Tensor, "batch part"]:
        if len(labels) != len(self.parts) or not len(labels):
            given = f"{len(labels)} labels for {len(self.parts)} pictures"
            do = "pass the labels of the batch that was decomposed"
            raise ShapeError("summarise parts", given, "a class name for each picture", do)
        check_known("summarise parts", "class", labels, head.class_names)
        weight, n = self._class_weight(head), len(head.class_names)
        if n < 2:
            raise SampleError(
                "summarise parts", f"a head of {n} class", "two or more", "name more classes"
            )
        own = weight[[head.class_names.index(label) for label in labels]]
        others = (weight.sum(dim=0) - own) / (n - 1)
        norm = self.embedding.to(self.parts).norm(dim=-1, keepdim=True)
        direction = (own - others) * head.logit_scale / norm
        return einsum(self.parts, direction, "batch part d_embed, batch d_embed -> batch part")

    def _class_weight(self, head: Classifier) -> Float[Tensor, "classes d_embed"]:
        if head.weight.shape[-1] != self.parts.shape[-1]:
            asked = "attribute logits to parts"
            given = f"a head for embeddings of {head.weight.shape[-1]} numbers"
            right = f"one for {self.parts.shape[-1]}"
            raise ShapeError(asked, given, right, "take the head from the same model")
        return head.weight.to(self.parts)


def _group_name(columns: Sequence[str], values: Sequence[object]) -> str:
    words = [
        str(value) if column == "kind" else f"{column}.{value}"
        for column, value in zip(columns, values, strict=True)
        if value is not None
    ]
    return ".".join(words) or "rest"


@door
def decompose(tower: nn.Module, x: Tensor, *, by: str = "component") -> Decomposition:
    """Split the embedding of a batch into parts that sum to it, from one run of the tower.

    Args:
        tower: A `HookedViT`, `HookedText` or `HookedResNet` in evaluation mode.
        x: Pictures or tokens, as the tower takes them.
        by: What a part is, from coarse to fine. `layer` is a block, attention and MLP together.
            `component` is the attention (with its output bias) or the MLP of a block. `head` is one
            head; MLPs and output biases `b_O` are parts of their own. `token` is one head from one
            source position; the rest is as for `head`. `place` is a position: what all heads read
            there, and what embeddings and MLPs write there; biases are parts of their own.

    Returns:
        The parts, `batch part d_embed`, without gradients. Half precision is summed in float32.

    Raises:
        SpecificationError: For a tower of another kind, or one in training mode whose dropout or
            batch norm would make the parts meaningless.
        NumericsError: If the parts do not sum to the embedding, for example because an installed
            hook replaces a stream.

    Notes:
        Embeddings, positions and biases are parts of their own, so the sum is exact up to rounding.
        The map from the stream to the embedding is linear once the last norm's scale is held at its
        value, as in TransformerLens's `apply_ln_to_stack`. Parts at other positions count as far as
        the pooling reads them.

        In a ResNet, `layer` and `component` are alike: the part of a bottleneck is its branch
        (`hook_out`), carried to the embedding with later ReLU gates and the pool's attention
        pattern held fixed. `head` is a head of the attention pool, `token` a head and a position of
        the last map: `pos` 1 is the upper left, counted by rows. The mean of the map, which the
        pool also attends to, is shared out over the positions.

        Parts by token follow Gandelsman, Efros & Steinhardt 2024, "Interpreting CLIP's image
        representation via text-based decomposition".

    >>> import open_clip, torch
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> parts = decompose(open_tower(model.eval(), "visual"), torch.zeros(1, 3, 64, 64))
    >>> parts.names[:4], parts.parts.shape
    (('embed', 'pos_embed', 'ln_pre.b', 'blocks.0.attn'), torch.Size([1, 28, 256]))
    >>> parts.error < 1e-5
    True
    """
    check_known("decompose an embedding", "granularity", [by], GRANULARITIES, SpecificationError)
    split = _splitter(tower)
    check_evaluation(tower, "decompose an embedding")
    with torch.no_grad():
        embedding, pieces = split(x, by=by)
        whole = _assemble(embedding, pieces)
    bar = BARS.get(embedding.dtype, 1e-3)
    if len(embedding) and not whole.error <= bar:  # a NaN is no smaller than anything
        given = f"parts whose sum is off by {whole.error:.2g} of the embedding"
        right = f"at most {bar:g} in {str(embedding.dtype).removeprefix('torch.')}"
        do = "remove hooks that replace streams (tower.reset_hooks()), and look for NaN weights"
        raise NumericsError("decompose an embedding", given, right, do)
    return whole


def _splitter(tower: object) -> Callable[..., tuple[Tensor, list[EmbeddingPiece]]]:
    check_opened("decompose an embedding", tower)
    if isinstance(tower, HookedResNet):
        return partial(resnet_pieces, tower)
    if isinstance(tower, (HookedViT, HookedText)):
        return partial(transformer_pieces, tower)
    given = f"a {type(tower).__name__}"
    right = "a HookedViT, HookedText or HookedResNet, whose read-out is known"
    raise SpecificationError("decompose an embedding", given, right, "patch its sites instead")


def _assemble(embedding: Tensor, pieces: Sequence[EmbeddingPiece]) -> Decomposition:
    labels = [label for piece in pieces for label in piece.labels]
    wide = torch.promote_types(embedding.dtype, torch.float32)
    # one buffer, filled piece by piece: a list of pieces and their concatenation would be twice it
    shape = (len(embedding), len(labels), embedding.shape[-1])
    parts = torch.empty(shape, dtype=wide, device=embedding.device)
    start = 0
    for piece in pieces:
        stop = start + len(piece.labels)
        parts[:, start:stop] = piece.make().reshape(len(embedding), stop - start, -1)
        start = stop
    frame = pd.DataFrame([list(label[1:]) for label in labels], columns=list(COLUMNS))
    frame = frame.astype({"layer": "Int64", "head": "Int64", "pos": "Int64"})
    return Decomposition(parts, tuple(label.name for label in labels), frame, embedding)
