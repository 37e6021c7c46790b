"""Edits of activations at a site inside a tower, and what the model answers under them.

An edit is written for rows of features, as a dictionary sees them: the mean over tokens or places,
the class token, or every token. Whatever the features do not hold stays as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Required, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from interp.core.arguments import filled
from interp.core.errors import (
    NumericsError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import track
from interp.core.tower import Tower

Edit = Callable[[Tensor, np.ndarray], Tensor]
"""Takes features "picture token feature" (one token where they are pooled) and the pictures' row
numbers in the image table; gives what they become."""

Classifier = Callable[[Tensor], Tensor]
"""Takes embeddings "picture d_embed" to logits "picture class", as a zero-shot head does."""

AS_IT_IS = "as it is"
"""The edit that changes nothing."""

EDITED = ("mean", "class", "space", "token")
"""What an edit sees, as `POOLS` has it: the mean over tokens or places, the class token, the mean
of the tokens after it, or each of them. Weights of attention are not an edit's to follow."""


def tokens(activation: Tensor, axes: tuple[str, ...]) -> Tensor:
    """An activation as "batch token feature": a token is a position, a query or a place of a map.

    What has none of these axes is one token. Heads stand side by side.

    >>> tokens(torch.ones(2, 5, 3, 4), ("batch", "pos", "head", "d_head")).shape
    torch.Size([2, 5, 12])
    >>> tokens(torch.ones(2, 3, 4, 4), ("batch", "channel", "row", "column")).shape
    torch.Size([2, 16, 3])
    """
    check_axes(activation, axes)
    found = places(axes)
    if not found:
        return activation.flatten(1)[:, None]
    first = activation.movedim(found, list(range(1, len(found) + 1)))
    return first.flatten(1, len(found)).flatten(2)


def untokens(x: Tensor, like: Tensor, axes: tuple[str, ...]) -> Tensor:
    """The reverse of `tokens`: "batch token feature" in the shape of the activation `like`.

    >>> like, axes = torch.rand(2, 3, 4, 5), ("batch", "channel", "row", "column")
    >>> bool((untokens(tokens(like, axes), like, axes) == like).all())
    True
    """
    found = places(axes)
    if not found:
        return x.reshape(like.shape)
    ahead = list(range(1, len(found) + 1))
    return x.reshape(like.movedim(found, ahead).shape).movedim(ahead, found)


def places(axes: tuple[str, ...]) -> list[int]:
    """Which axes tell tokens apart, by number.

    >>> places(("batch", "channel", "row", "column"))
    [2, 3]
    """
    return [place for place, axis in enumerate(axes) if axis in ("pos", "query", "row", "column")]


def edited(activation: Tensor, axes: tuple[str, ...], pool: str, change: Edit) -> Tensor:
    """An activation whose features became what `change` makes of those of pictures 0, 1, ...

    `pool="mean"` moves all tokens (or places of a map) alike, so that their mean is what was asked
    for, `"space"` all but the first; `"class"` moves the first token; `"token"` each by itself.

    >>> map_ = torch.tensor([[[[1.0, 3.0]]]])  # one channel, one row, two columns: its mean is 2
    >>> axes = ("batch", "channel", "row", "column")
    >>> edited(map_, axes, "mean", lambda x, rows: x + 10).tolist()
    [[[[11.0, 13.0]]]]
    """
    check_known("edit a site", "pool", [pool], EDITED, SpecificationError)
    all_of_them = tokens(activation, axes)
    rows, n = np.arange(len(activation)), all_of_them.shape[1]
    is_map = bool({"row", "column"} & set(axes))
    if pool == "token":
        return untokens(change(all_of_them, rows), activation, axes)
    seen = slice(None)
    if not is_map and n > 1 and pool in ("class", "space"):
        seen = slice(0, 1) if pool == "class" else slice(1, None)
    mean = all_of_them[:, seen].mean(dim=1, keepdim=True)
    moved = all_of_them.clone()
    moved[:, seen] += change(mean, rows) - mean
    return untokens(moved, activation, axes)


@dataclass(frozen=True)
class EditedAnswers:
    """Logits "picture class" per edit, and which class each picture shows."""

    logits: Mapping[str, np.ndarray]
    truth: np.ndarray

    def right(self, edit: str) -> np.ndarray:
        """Which pictures are told right: their class has the largest logit."""
        return self.logits[edit].argmax(axis=1) == self.truth

    def margin(self, edit: str) -> np.ndarray:
        """The true class's logit less the largest of the others."""
        logits = self.logits[edit].astype(np.float64)
        rows = np.arange(len(logits))
        own = logits[rows, self.truth]
        others = logits.copy()
        others[rows, self.truth] = -np.inf
        return own - others.max(axis=1)


class AnsweringKeywords(TypedDict, total=False):
    """Who names the classes of pictures, and how these are read."""

    preprocess: Required[Preprocess]
    classifier: Required[Classifier]
    class_names: Required[Sequence[str]]
    pool: str
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Who names the classes of pictures, and how these are read.

    Args:
        preprocess: From a picture to what the tower takes.
        classifier: From embeddings to logits.
        class_names: The classes, in the order of the logits.
        pool: What an edit sees, a name in `EDITED`.
        batch_size: Pictures in a forward.
    """

    preprocess: Preprocess
    classifier: Classifier
    class_names: Sequence[str]
    pool: str = "mean"
    batch_size: int = 256


@torch.no_grad()
def edited_answers(
    tower: Tower,
    images: ImageTable,
    site: str,
    edits: Mapping[str, Edit],
    **answering: Unpack[AnsweringKeywords],
) -> EditedAnswers:
    """Run the pictures through the tower once per edit of `site`, and name their classes.

    The blocks before the site run once for all edits. An edit named "as it is" need not be given:
    it is the tower without a change.

    Raises `SiteError` for an unknown site, `SampleError` without pictures, `ShapeError` where the
    classifier's logits are not one per class name, `DataError` for a label that is no class name,
    `NumericsError` for logits that are no numbers.
    """
    check_known("edit a site", "site", [site], list(tower.sites), SiteError)
    how = filled(edited_answers, Answering, answering)
    names = list(how.class_names)
    check_known("name the classes of pictures", "label", images.labels, names)
    if not len(images):
        raise SampleError("edit a site", "no pictures", "at least one", "check the selection")
    made: dict[str, list[np.ndarray]] = {name: [] for name in (AS_IT_IS, *edits)}
    for rows, stream, start in _streams(tower, images, site, how.preprocess, how.batch_size):
        for name in made:
            hooks = []
            if name != AS_IT_IS:
                hooks = [(site, _hook(tower.axes(site), how.pool, edits[name], rows))]
            logits = how.classifier(tower.run_with_hooks(stream, fwd_hooks=hooks, **start))
            made[name].append(_checked(logits, names, name))
    place = {name: number for number, name in enumerate(names)}
    truth = np.array([place[label] for label in images.frame["label"]])
    return EditedAnswers({name: np.concatenate(parts) for name, parts in made.items()}, truth)


@torch.no_grad()
def site_rows(
    tower: Tower,
    images: ImageTable,
    site: str,
    *,
    preprocess: Preprocess,
    pool: str = "mean",
    batch_size: int = 256,
) -> Tensor:
    """What edits of a site see of every picture: "picture token feature", one token if pooled."""
    check_known("read a site", "site", [site], list(tower.sites), SiteError)
    found: list[Tensor] = []

    def keep(x: Tensor, rows: np.ndarray) -> Tensor:
        found.append(x.clone())
        return x

    for _, stream, start in _streams(tower, images, site, preprocess, batch_size):
        last = tower.layer(site) + 1
        stop = {"stop_at_layer": last} if last < tower.n_layers else {}
        hook = _hook(tower.axes(site), pool, keep, np.arange(len(stream)))
        tower.run_with_hooks(stream, fwd_hooks=[(site, hook)], **start, **stop)
    return torch.cat(found)


def _streams(
    tower: Tower, images: ImageTable, site: str, preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, dict[str, int]]]:
    """Batches: their rows, the stream that enters the site's block, and how to go on from it."""
    parameters = tower.parameters() if hasattr(tower, "parameters") else ()  # type: ignore
    like = next((p for p in parameters if p.is_floating_point()), torch.empty(0))
    layer = min(tower.layer(site), tower.n_layers)
    for start in track(range(0, len(images), batch_size), "edit a site"):
        rows = np.arange(start, min(start + batch_size, len(images)))
        x = images.tensors(preprocess, rows.tolist()).to(like.device, like.dtype)
        if layer > 0:
            yield rows, tower(x, stop_at_layer=layer), {"start_at_layer": layer}
        else:
            yield rows, x, {}


def _hook(axes: tuple[str, ...], pool: str, edit: Edit, rows: np.ndarray) -> Callable[..., Tensor]:
    def hook(activation: Tensor, *, hook: object = None) -> Tensor:
        return edited(activation, axes, pool, lambda x, places: edit(x, rows[places]))

    return hook


def _checked(logits: Tensor, names: Sequence[str], edit: str) -> np.ndarray:
    if logits.ndim != 2 or logits.shape[1] != len(names):
        right = f"(pictures, {len(names)}), one for each class name"
        do = "give the class names in the order of the classifier's logits"
        raise ShapeError("name classes", f"logits of shape {tuple(logits.shape)}", right, do)
    if not torch.isfinite(logits).all():
        given = f"logits that are no numbers ({edit})"
        do = "check the model, or what the edit puts in"
        raise NumericsError("name classes", given, "finite logits", do)
    return logits.detach().float().cpu().numpy()


def check_axes(activation: Tensor, axes: Iterable[str]) -> None:
    names = tuple(axes)
    if activation.ndim != len(names):
        given = f"shape {tuple(activation.shape)}"
        right = f"the axes {listed(names)}"
        raise SiteError("pool an activation", given, right, "correct the tower's `axes`")
    if names[:1] != ("batch",):
        given = f"the axes {listed(names)}"
        right = "a row per picture, so that `batch` comes first"
        raise SiteError("pool an activation", given, right, "choose another site")
