"""Many multinomial logistic regressions at once, in torch, each to its own optimum.

Written for grids of probes: sites x domains x labellings. One at a time, most steps of a solver go
into finding the scale of the features; here features are preconditioned by the curvature that the
objective has at equal probabilities, so that 10 to 30 steps do. Steps are in float32, with float64
only to finish, and several labellings of the same rows share their matrix products.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.core.errors import NumericsError

MEMORY = 6
"""Pairs of steps that L-BFGS remembers; 3, 6 and 12 took equally many iterations."""

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
    judged by the last few steps. Measured: at most 3 times `tolerance` for C up to 1; 7 times at
    C = 10 and 72 times at C = 100, on classes that are told apart without error. With two classes
    the penalty counts twice: scikit-learn's objective, which has one vector of weights there. A
    class without rows has weights 0 and intercept -inf. Rows with a negative code are padding.

    Shapes: `inputs` "group row feature", `codes` "group labelling row" (0 .. n_classes - 1),
    `penalty` "group", `start` and the result "group labelling class feature+1" in float64, the
    intercept last. The device of the inputs does the work.

    >>> x = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]])
    >>> w = solve(x, torch.tensor([[[0, 0, 1, 1]]]), 2, penalty=torch.tensor([0.25]))
    >>> w.shape, bool(w[0, 0, 1, 0] > 0)
    (torch.Size([1, 1, 2, 2]), True)
    """
    bulk = _Problem.of(inputs.float(), codes, n_classes, penalty.float())
    found = bulk.minimise(start, max(tolerance, FLOAT32_REACHES), max_iter)
    if tolerance < FLOAT32_REACHES:
        fine = _Problem.of(inputs.double(), codes, n_classes, penalty.double())
        found = fine.minimise(found, tolerance, max_iter)
    absent = ~bulk.present[..., 0]
    found[..., -1] = found[..., -1].masked_fill(absent, -torch.inf)
    return found


@dataclass(frozen=True)
class _Problem:
    """The objective of every group and labelling, its gradient and its curvature.

    rows: "group row feature+1", ones last, all 0 in padding. truth: "group labelling class row",
    0 in padding. real: "group 1 1 row", 1 / n, or 0 in padding. present: "group labelling class 1".
    penalty: "group labelling 1 feature+1", 0 for the intercept. inverse: "group feature+1
    feature+1", of the curvature at equal probabilities.
    """

    rows: Tensor
    truth: Tensor
    real: Tensor
    present: Tensor
    penalty: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, inputs: Tensor, codes: Tensor, n_classes: int, penalty: Tensor) -> "_Problem":
        counts = codes[:, :1] >= 0
        real = counts[:, :, None].to(inputs.dtype)
        rows = torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1)
        if not bool(counts.all()):
            rows = rows * real[:, 0].mT
        n = real.sum(-1, keepdim=True)
        truth = torch.zeros(*codes.shape[:2], n_classes, codes.shape[2]).to(inputs)
        truth.scatter_(2, codes.clamp(min=0)[:, :, None], real.expand(-1, codes.shape[1], -1, -1))
        present = truth.amax(-1, keepdim=True) > 0
        twice = 1.0 + (present.sum(2, keepdim=True) == 2)
        ridge = twice * penalty[:, None, None, None].expand(*rows.shape[:1], 1, 1, rows.shape[-1])
        ridge[..., -1] = 0
        curvature = _lower_gram(rows) / (n[:, 0] * n_classes)
        curvature.diagonal(dim1=1, dim2=2).add_(ridge[:, 0, 0])
        # an intercept is not penalised, and in float32 a curvature may round to a singular one
        curvature.diagonal(dim1=1, dim2=2).mul_(1 + 8 * torch.finfo(inputs.dtype).eps)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(curvature))
        return cls(rows, truth, real / n, present, ridge, inverse)

    def minimise(self, start: Tensor | None, tolerance: float, max_iter: int) -> Tensor:
        """L-BFGS with a line search on scores, which are linear in the step: no matrix product."""
        w = torch.zeros(*self.truth.shape[:3], self.rows.shape[-1]).to(self.rows)
        scores = torch.zeros_like(self.truth)
        if start is not None:
            w = torch.where(self.present, start.to(w), 0)
            scores = self.scores(w)
        p = self.probabilities(scores)
        gradient = self.gradient(w, p)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        falls: list[Tensor] = []
        for _ in range(max_iter):  # a problem that has arrived takes steps of length 0
            step = -self.conditioned(gradient, pairs)
            slope = _dot(gradient, step)
            falls = [*falls, -slope / 2][-MEMORY:]
            going = _ahead(falls) >= tolerance
            if not bool(going.any()):
                break
            ahead = self.scores(step)
            length = self.length(w, step, scores, ahead, p, torch.where(going, slope, 0))
            step = length * step
            w, scores = w + step, scores + length * ahead
            p = self.probabilities(scores)
            before, gradient = gradient, self.gradient(w, p)
            change = gradient - before
            along = _dot(step, change)
            pairs = [*pairs, (step, change, torch.where(along > 0, 1 / along, 0))][-MEMORY:]
        else:
            raise NumericsError(
                "fit probes",
                f"a loss that still falls after {max_iter} steps",
                "an optimum",
                "choose a smaller C or a larger tolerance",
            )
        return w.double()

    def scores(self, w: Tensor) -> Tensor:
        """Scores "group labelling class row": one matrix product for all labellings of a group."""
        return (w.flatten(1, 2) @ self.rows.mT).reshape(self.truth.shape)

    def probabilities(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores.masked_fill(~self.present, -torch.inf), dim=2)

    def gradient(self, w: Tensor, p: Tensor) -> Tensor:
        residual = torch.where(self.present, p - self.truth, 0) * self.real
        return (residual.flatten(1, 2) @ self.rows).reshape(w.shape) + self.penalty * w

    def preconditioned(self, g: Tensor) -> Tensor:
        return (g.flatten(1, 2) @ self.inverse).reshape(g.shape)

    def conditioned(self, g: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """The gradient times L-BFGS's inverse curvature (two-loop recursion)."""
        shares = []
        for step, change, inverse in reversed(pairs):
            shares.append(inverse * _dot(step, g))
            g = g - shares[-1] * change
        g = self.preconditioned(g)
        if pairs:
            step, change, inverse = pairs[-1]
            # how much weaker the curvature has become on the last step; 1 where none was taken
            scale = _dot(step, change) / _dot(change, self.preconditioned(change))
            g = g * torch.where(inverse > 0, scale, 1)
        for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
            g = g + step * (share - inverse * _dot(change, g))
        return g

    def length(
        self, w: Tensor, step: Tensor, scores: Tensor, ahead: Tensor, p: Tensor, slope: Tensor
    ) -> Tensor:
        """Where along a step its slope has fallen to a half or less; 0 where the slope is 0.

        By Newton steps with a guard: the objective is convex, so its slope along the step only
        rises, and a root lies between a length of negative and one of positive slope.
        """
        ahead = torch.where(self.present, ahead, 0)
        curved = _dot(self.penalty * step, step)
        base = _dot(self.penalty * step, w) - _dot(self.truth * self.real, ahead)
        low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
        here, at, now = torch.zeros_like(slope), p, slope
        for _ in range(30):
            weighted = at * ahead
            mean = weighted.sum(2, keepdim=True)
            bend = _dot(weighted * self.real, ahead) - _dot(mean * self.real, mean) + curved
            here = torch.where(bend > 0, here - now / bend, 0)
            middle = torch.where(high.isinf(), 2 * low, (low + high) / 2)
            here = torch.where((here > low) & (here < high), here, middle)
            here = torch.where(slope < 0, here, 0)
            at = self.probabilities(scores + here * ahead)
            now = base + here * curved + _dot(at * self.real, ahead)
            if bool(((now.abs() <= -0.5 * slope) | (slope == 0)).all()):
                break
            low, high = torch.where(now < 0, here, low), torch.where(now > 0, here, high)
        return here


def _ahead(falls: list[Tensor]) -> Tensor:
    """How far the loss will still fall, if it goes on as in the last few steps (geometrically).

    The next step alone says too little where steps are short: with a weak penalty on classes that
    are told apart without error it was a fiftieth of what was left.
    """
    if len(falls) < 3:  # at a warm start L-BFGS knows nothing yet of the curvature
        return torch.where(falls[-1] > 0, torch.inf, 0)
    ratio = (falls[-1] / falls[0].clamp(min=1e-30)).clamp(0, 1) ** (1 / (len(falls) - 1))
    return falls[-1] / (1 - ratio.clamp(max=0.99))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the last two axes: "group labelling 1 1"."""
    return (a * b).sum((-2, -1), keepdim=True)


def _lower_gram(rows: Tensor) -> Tensor:
    """X'X below and on the diagonal, which is all that a Cholesky decomposition reads."""
    width = rows.shape[-1]
    block = max(64, -(-width // 6))
    gram = torch.zeros(rows.shape[0], width, width).to(rows)
    for start in range(0, width, block):
        columns = slice(start, start + block)
        gram[:, start:, columns] = rows[..., start:].mT @ rows[..., columns]
    return gram
