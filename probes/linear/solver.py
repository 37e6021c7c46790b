"""Many multinomial logistic regressions at once, in torch, each to its own optimum.

Written for grids of probes: sites x domains x labellings. One at a time, most steps of a solver go
into finding the scale of the features; here features are preconditioned by the curvature that the
objective is expected to have at its optimum, so that 5 to 20 steps do. Steps are in float32, with
float64 only to finish, and several labellings of the same rows share their matrix products.

Tried in vain: preconditioning by a half or a quarter of the rows (half as many steps again at
C = 1, or twice as many), and by the true mean curvature of the classes at the optimum (fewer steps
only where classes are easiest). Turning the rows, so that no preconditioning is left, took longer
than it spares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.core.errors import NumericsError

MEMORY = 4
"""Pairs of steps that L-BFGS remembers; 4, 6 and 10 took equally many steps."""

TOWARDS_RIDGE = 0.75
"""How far the preconditioner's curvature lies from the most to the least, logarithmically.

Steps to a millionth of a nat (400 rows, 150 features, 10 classes, C = 1 and 10) at 0, .5, .75, 1:
told apart 34, 16, 11, 9 and 28, 17, 9, 7; overlapping 20, 18, 16, 15 and 25, 23, 21, 18. With many
rows of 60 features and overlapping classes 1 is too far: 9, 9, 11, 15.
"""

REMEMBERED = 6
"""Steps by which it is judged how far the loss will still fall."""

FLOAT32_REACHES = 1e-7
"""The fall of the loss that float32 still resolves; below it float64 goes on."""


def solve(
    inputs: Tensor,
    codes: Tensor,
    n_classes: int,
    *,
    penalty: Tensor,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iter: int = 500,
) -> Tensor:
    """Weights and intercepts that minimise the penalised log loss of every group and labelling.

        mean_i -log softmax(W x_i + b)[y_i]  +  penalty |W|^2 / 2

    by L-BFGS (Nocedal 1980), until it is expected to fall by less than `tolerance` to its optimum,
    judged by the last few steps. Measured for C of .001 to 10, classes that overlap and classes
    told apart: at most 2 times `tolerance`, 3.1 times where it is 1e-4. With two classes the
    penalty counts twice: scikit-learn's objective, which has one vector of weights there. A class
    without rows has weights 0 and intercept -inf. Rows with a negative code are padding.

    Shapes: `inputs` "group row feature", `codes` "group labelling row" (0 .. n_classes - 1),
    `penalty` "group", `start` and the result "group labelling class feature+1" in float64, the
    intercept last. The device of the inputs does the work.

    >>> x = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]])
    >>> w = solve(x, torch.tensor([[[0, 0, 1, 1]]]), 2, penalty=torch.tensor([0.25]))
    >>> w.shape, bool(w[0, 0, 1, 0] > 0)
    (torch.Size([1, 1, 2, 2]), True)
    """
    bulk = _Problem.of(inputs, codes, n_classes, penalty.float())
    found = bulk.minimise(start, max(tolerance, FLOAT32_REACHES), max_iter)
    if tolerance < FLOAT32_REACHES:
        fine = _Problem.of(inputs, codes, n_classes, penalty.double())
        found = fine.minimise(found, tolerance, max_iter)
    absent = ~bulk.present[..., 0]
    found[..., -1] = found[..., -1].masked_fill(absent, -torch.inf)
    return found


@dataclass(frozen=True)
class _Problem:
    """The objective of every group and labelling, its gradient and its curvature.

    rows: "group row feature+1", ones last, all 0 in padding. truth: "group labelling class row",
    0 in padding. n: "group 1 1 1", rows that are not padding; padded ones have scores and
    gradients of 0. present: "group labelling class 1". penalty: "group labelling 1 feature+1", 0
    for the intercept. inverse: "group feature+1 feature+1", of the curvature that is expected.
    """

    rows: Tensor
    truth: Tensor
    n: Tensor
    present: Tensor
    penalty: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, inputs: Tensor, codes: Tensor, n_classes: int, penalty: Tensor) -> "_Problem":
        counts = codes[:, :1] >= 0
        real = counts[:, :, None].to(penalty.dtype)
        rows = _with_ones(inputs, penalty.dtype)
        if not bool(counts.all()):
            rows *= real[:, 0].mT
        n = real.sum(-1, keepdim=True)
        truth = torch.zeros(*codes.shape[:2], n_classes, codes.shape[2]).to(rows)
        truth.scatter_(2, codes.clamp(min=0)[:, :, None], real.expand(-1, codes.shape[1], -1, -1))
        present = truth.amax(-1, keepdim=True) > 0
        twice = 1.0 + (present.sum(2, keepdim=True) == 2)
        ridge = twice * penalty[:, None, None, None].expand(*rows.shape[:1], 1, 1, rows.shape[-1])
        ridge[..., -1] = 0
        inverse = _inverse(_lower_gram(rows).div_(n[:, 0]), ridge[:, 0, 0], n_classes)
        return cls(rows, truth, n, present, ridge, inverse)

    def minimise(self, start: Tensor | None, tolerance: float, max_iter: int) -> Tensor:
        """L-BFGS with a line search on scores, which are linear in the step.

        A step passes the rows twice: for the scores ahead, and for the gradient where it ends.
        """
        w = torch.zeros(*self.truth.shape[:3], self.rows.shape[-1]).to(self.rows)
        scores = torch.zeros_like(self.truth)
        if start is not None:
            w = torch.where(self.present, start.to(w), 0)
            scores = self.scores(w)
        # an absent class keeps its -inf: its weights and steps are exactly 0
        scores = scores.masked_fill(~self.present, -torch.inf)
        p = torch.softmax(scores, dim=2)
        gradient = self.gradient(w, p)
        turned = self.preconditioned(gradient)
        pairs: list[_Pair] = []
        falls: list[Tensor] = []
        for _ in range(max_iter):  # a problem that has arrived takes steps of length 0
            step = -_conditioned(gradient, turned, pairs)
            slope = _dot(gradient, step)
            falls = [*falls, -slope / 2][-REMEMBERED:]
            going = _ahead(falls) >= tolerance
            if not bool(going.any()):
                break
            ahead = self.scores(step)
            length, p = self.search(step, scores, ahead, p, torch.where(going, slope, 0))
            step = length * step
            w, scores = w + step, torch.addcmul(scores, length, ahead)
            before, gradient = gradient, self.gradient(w, p)
            was, turned = turned, self.preconditioned(gradient)
            pairs = [*pairs, _Pair.of(step, gradient - before, turned - was)][-MEMORY:]
        else:
            given = f"a loss that still falls after {max_iter} steps"
            do = "choose a smaller C or a larger tolerance"
            raise NumericsError("fit probes", given, "an optimum", do)
        return w.double()

    def scores(self, w: Tensor) -> Tensor:
        """Scores "group labelling class row": one matrix product for all labellings of a group."""
        return (w.flatten(1, 2) @ self.rows.mT).reshape(self.truth.shape)

    def gradient(self, w: Tensor, p: Tensor) -> Tensor:
        loss = ((p - self.truth).flatten(1, 2) @ self.rows).reshape(w.shape)
        return loss / self.n + self.penalty * w

    def preconditioned(self, g: Tensor) -> Tensor:
        return (g.flatten(1, 2) @ self.inverse).reshape(g.shape)

    def search(
        self, step: Tensor, scores: Tensor, ahead: Tensor, p: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where along a step its slope has fallen to a half or less, and the probabilities there.

        By Newton steps with a guard: the objective is convex, so its slope along the step only
        rises, and a root lies between a length of negative and one of positive slope. The length
        is 0 where the slope is 0.
        """
        curved = _dot(self.penalty * step, step)
        weighted, mean = _weighted(p, ahead)
        base = slope - mean.sum(-1, keepdim=True) / self.n
        low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
        here, at, now = torch.zeros_like(slope), p, slope
        for _ in range(30):
            bend = (_dot(weighted, ahead) - _dot(mean, mean)) / self.n + curved
            here = torch.where(bend > 0, here - now / bend, 0)
            middle = torch.where(high.isinf(), 2 * low, (low + high) / 2)
            here = torch.where((here > low) & (here < high), here, middle)
            here = torch.where(slope < 0, here, 0)
            at = torch.softmax(torch.addcmul(scores, here, ahead), dim=2)
            weighted, mean = _weighted(at, ahead)
            now = base + here * curved + mean.sum(-1, keepdim=True) / self.n
            if bool(((now.abs() <= -0.5 * slope) | (slope == 0)).all()):
                break
            low, high = torch.where(now < 0, here, low), torch.where(now > 0, here, high)
        return here, at


class _Pair(NamedTuple):
    """A step, the change of the gradient over it, and that change preconditioned.

    inverse: 1 / (step . change), or 0 where no step was taken. scale: how much weaker the
    curvature along it was than the preconditioner's, or 1.
    """

    step: Tensor
    change: Tensor
    turned: Tensor
    inverse: Tensor
    scale: Tensor

    @classmethod
    def of(cls, step: Tensor, change: Tensor, turned: Tensor) -> "_Pair":
        along = _dot(step, change)
        inverse = torch.where(along > 0, 1 / along, 0)
        scale = torch.where(along > 0, along / _dot(change, turned), 1)
        return cls(step, change, turned, inverse, scale)


def _conditioned(g: Tensor, turned: Tensor, pairs: list[_Pair]) -> Tensor:
    """The gradient times L-BFGS's inverse curvature (two-loop recursion).

    `turned` is the preconditioned gradient. What the first loop takes from the gradient it takes,
    preconditioned, from there as well, which spares two matrix products a step.
    """
    shares = []
    for pair in reversed(pairs):
        share = pair.inverse * _dot(pair.step, g)
        shares.append(share)
        g = torch.addcmul(g, share, pair.change, value=-1)
        turned = torch.addcmul(turned, share, pair.turned, value=-1)
    if pairs:
        turned = turned * pairs[-1].scale
    for pair, share in zip(pairs, reversed(shares), strict=True):
        turned = torch.addcmul(turned, share - pair.inverse * _dot(pair.change, turned), pair.step)
    return turned


def _ahead(falls: list[Tensor]) -> Tensor:
    """How far the loss will still fall, if it goes on as in the last few steps (geometrically).

    The next step alone says too little where steps are short: with a weak penalty on classes that
    are told apart without error it was a fiftieth of what was left.
    """
    if len(falls) < 3:  # at a warm start L-BFGS knows nothing yet of the curvature
        return torch.where(falls[-1] > 0, torch.inf, 0)
    ratio = (falls[-1] / falls[0].clamp(min=1e-30)).clamp(0, 1) ** (1 / (len(falls) - 1))
    return falls[-1] / (1 - ratio.clamp(max=0.99))


def _weighted(p: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """What each class adds to a row's mean of `ahead`, and that mean, "group labelling 1 row"."""
    weighted = p * ahead
    return weighted, weighted.sum(2, keepdim=True)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the last two axes: "group labelling 1 1"."""
    return (a * b).sum((-2, -1), keepdim=True)


def _inverse(gram: Tensor, ridge: Tensor, n_classes: int) -> Tensor:
    """Inverse of the curvature that is expected at the optimum: part of the gram, and the ridge.

    The loss curves as gram / n_classes at equal probabilities, and ever less the surer a probe
    becomes: 1/17 to 1/160 of that was left at the optimum of 2000 rows of 768 features at C = 1,
    5/6 to 1/4 at C = .01. A weak ridge lets probes become sure, so the share kept falls with it;
    the share at which gram and ridge are equal on average is the least that still matters.
    """
    there = gram.diagonal(dim1=1, dim2=2)[:, :-1]
    mean = there.sum(-1) / (there > 0).sum(-1).clamp(min=1)  # padded features do not count
    share = (n_classes * ridge[:, 0] / mean).pow(TOWARDS_RIDGE).clamp(1e-4, 1)
    curvature = gram.mul_((share / n_classes)[:, None, None])
    curvature.diagonal(dim1=1, dim2=2).add_(ridge)
    # an intercept is not penalised, and in float32 a curvature may round to a singular one
    curvature.diagonal(dim1=1, dim2=2).mul_(1 + 8 * torch.finfo(gram.dtype).eps)
    return torch.cholesky_inverse(torch.linalg.cholesky(curvature))


def _with_ones(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows with a 1 behind the features, each beginning at a multiple of 64 bytes or more.

    With 769 numbers packed, the product of a gradient took half as long again.
    """
    groups, n, width = inputs.shape
    room = -(-(width + 1) // 16) * 16
    rows = torch.empty(groups, n, room, dtype=dtype, device=inputs.device)[..., : width + 1]
    rows[..., :-1] = inputs
    rows[..., -1] = 1
    return rows


def _lower_gram(rows: Tensor) -> Tensor:
    """X'X below and on the diagonal, which is all that a Cholesky decomposition reads."""
    width = rows.shape[-1]
    block = max(64, -(-width // 512) * 64)  # four to eight, and 769 is an odd width
    gram = torch.zeros(rows.shape[0], width, width).to(rows)
    for start in range(0, width, block):
        columns = slice(start, start + block)
        gram[:, start:, columns] = rows[..., start:].mT @ rows[..., columns]
    return gram


def ridge(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores "row labelling" of ridge regressions of many labellings of the same rows at once.

    Features are standardised on the rows of `train`, the penalty is one mean eigenvalue of their
    Gram matrix, and labels are centred: the scores have no intercept.

    >>> x = np.array([[-1.0], [1.0]])
    >>> ridge(x, 3 * x, x).tolist()
    [[-2.0], [2.0]]
    """
    z, new = _standardised(train, test)
    if not z.shape[1]:
        return np.zeros((len(test), labels.shape[1]))
    centred = labels - labels.mean(axis=0)
    if len(z) > z.shape[1]:  # the same scores, from a system of features instead of pictures
        return new @ np.linalg.solve(_penalised_scatter(z), z.T @ centred / z.shape[1])
    solved = np.linalg.solve(_penalised_gram(z), centred)
    return new @ (z.T @ solved) / z.shape[1]


def ridge_without(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Scores "row group" of `ridge` on one labelling, each group of training rows left out.

    Groups in sorted order. Features are standardised, and labels centred, as with all rows. With M
    the penalised Gram matrix, H its inverse and a = H y, leaving out the rows B gives the others
    a_A - H_AB H_BB^-1 a_B: no system is solved again. With more pictures than features, H is
    1 - z S^-1 z' / width, with S the penalised scatter of the features, and is never made.

    >>> x = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    >>> ridge_without(x, x[:1], x[:, 0], np.array([0, 0, 1, 1])).round(3).tolist()
    [[-0.667, -0.667]]
    """
    z, new = _standardised(train, test)
    names = np.unique(groups)
    if not z.shape[1]:
        return np.zeros((len(test), len(names)))
    centred = labels - labels.mean()
    if len(z) > z.shape[1]:
        return new @ _weights_without(z, centred, [groups == name for name in names])
    inverse = np.linalg.inv(_penalised_gram(z))
    whole = inverse @ centred
    solved = np.zeros((len(z), len(names)))
    for place, name in enumerate(names):
        out = groups == name
        fix = np.linalg.solve(inverse[np.ix_(out, out)], whole[out])
        solved[~out, place] = whole[~out] - inverse[np.ix_(~out, out)] @ fix
    return new @ (z.T @ solved) / z.shape[1]


def _weights_without(z: np.ndarray, labels: np.ndarray, outs: Sequence[np.ndarray]) -> np.ndarray:
    """Weights "feature group" with each group of rows left out, from a system of features."""
    width = z.shape[1]
    # M = S^-1 / width: all rows weigh M z'y, and S^-1 loses what the rows left out had in it
    inverse = np.linalg.inv(_penalised_scatter(z)) / width
    whole = inverse @ (z.T @ labels)
    found = np.empty((width, len(outs)))
    for place, out in enumerate(outs):
        part = z[out]
        spread = part @ inverse
        fix = np.linalg.solve(np.eye(len(part)) - spread @ part.T, part @ whole - labels[out])
        found[:, place] = whole + spread.T @ fix
    return found


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the mean and deviation of `train`, without features that do not vary there."""
    mean, scale = train.mean(axis=0), train.std(axis=0)
    varies = scale > 1e-10 * max(float(np.abs(train).max()), np.finfo(float).tiny)
    z, new = ((part - mean)[:, varies] / scale[varies] for part in (train, test))
    return z, new


def _penalised_gram(z: np.ndarray) -> np.ndarray:
    """The Gram matrix, of mean eigenvalue 1, with a penalty of as much."""
    return z @ z.T / z.shape[1] + np.eye(len(z))


def _penalised_scatter(z: np.ndarray) -> np.ndarray:
    """The products of features instead, over as many features, with the same penalty."""
    return z.T @ z / z.shape[1] + np.eye(z.shape[1])
