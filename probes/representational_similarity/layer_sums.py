"""CKA of all pairs of layers from sums over pictures: memory does not grow with their number.

Batches are added one after another. The sums of two processes add up to those of one.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, distributed

from interp.core.errors import NumericsError, SampleError, ShapeError

Batch = Mapping[str, np.ndarray | Tensor]

ROWS = 2048
"""Pictures whose products are made together: a product is added at one price for few or many."""


class LayerSums:
    """Sums from which exact CKA of every pair of layers follows, over any number of pictures.

        sum x_l,  sum x_l x_m',  sum a_l,  sum a_l a_m,  sum a_l x_m

    with x_l the features of a picture at layer l and a_l = |x_l|^2.

    Args:
        widths: Number of features of each layer, by name.
        other: The same for a second model that sees the same pictures: pairs are then one layer of
            each model. None takes all pairs of the first model's layers.
        device: Where the sums are kept.

    Notes:
        - The sums are kept in float64, about an origin near the mean, so that a large common mean
          costs no digits. Sums about any other origin follow from them exactly.
        - Products are made in the precision of the batch (with float32 the error of a CKA stays
          below 1e-6), of up to `ROWS` pictures at a time; pictures wait until there are so many.
        - Layers of width 768 take 4.7 MB a pair: 430 MB for 13 of them, and 82 MB for the pictures
          that wait.

    >>> x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    >>> sums = LayerSums({"early": 6, "late": 6})
    >>> for batch in x.split(40):
    ...     sums.update({"early": batch + 10, "late": 2 * batch})
    >>> sums.cka().round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        other: Mapping[str, int] | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.first = list(widths)
        self.second = None if other is None else list(other)
        sizes = [*widths.values(), *(other or {}).values()]
        alone = range(len(widths))
        if other is None:
            pairs = [(i, j) for i in alone for j in alone if i <= j]
        else:
            both = range(len(sizes))
            pairs = [(i, i) for i in both] + [(i, j) for i in alone for j in both if j not in alone]

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.n = zeros(1)
        self.origin = [zeros(d) for d in sizes]
        self.total = [zeros(d) for d in sizes]
        self.cross = {(i, j): zeros(sizes[i], sizes[j]) for i, j in pairs}
        self.length = zeros(len(sizes))
        self.lengths = zeros(len(sizes), len(sizes))
        self.weighted = [zeros(len(sizes), d) for d in sizes]
        self.room = [torch.empty(0, d, device=device) for d in sizes]
        self.waiting = 0  # rows of `room`, about the origin, that are not yet in `cross`

    def update(self, batch: Batch, other: Batch | None = None) -> None:
        """Add a batch of pictures.

        Args:
            batch: Features "picture feature" of each layer, by name.
            other: The same of the second model, where there is one.

        Raises:
            ShapeError: For features of another shape.
            NumericsError: For a NaN or infinity, naming the layer.
        """
        x = self._checked(batch, other)
        if not self.n:
            self.origin = [part.mean(dim=0).double() for part in x]
        x = self._put(x)
        a = torch.stack([torch.linalg.vecdot(part, part) for part in x]).double()
        bad = ~a.isfinite().all(dim=1)
        if bad.any():
            raise NumericsError(
                f"add a batch of {self._names()[int(bad.nonzero()[0])]}",
                "a NaN or infinity, or features too large for their precision",
                "finite features",
                "look at that layer",
            )
        self.n += len(x[0])
        self.length += a.sum(dim=1)
        self.lengths += a @ a.T
        weights = torch.cat([a, torch.ones_like(a[:1])]).to(x[0].dtype)
        for i, part in enumerate(x):
            *weighted, total = weights @ part
            self.weighted[i] += torch.stack(weighted)
            self.total[i] += total
        self.waiting += len(x[0])
        if self.waiting >= ROWS:
            self._multiply()

    def add(self, others: "LayerSums") -> None:
        """Add the sums of other pictures, say of another process; theirs change their origin."""
        if not self.n:
            self._move(others.origin)
        others._move(self.origin)
        for mine, theirs in zip(self._tensors(), others._tensors(), strict=True):
            mine += theirs

    def all_reduce(self) -> None:
        """Make every process hold the sums of all of them (`torch.distributed`)."""
        n, origin = self.n.clone(), [at * self.n for at in self.origin]
        for number in (n, *origin):
            distributed.all_reduce(number)
        self._move([at / n.clamp(min=1) for at in origin])
        for tensor in self._tensors():
            distributed.all_reduce(tensor)

    def cka(self) -> np.ndarray:
        """Debiased linear CKA of every pair of layers.

        Returns:
            The CKA "layer layer"; with two models, the rows are the layers of the first.

        Raises:
            SampleError: For fewer than four pictures.
            NumericsError: For constant features.
        """
        k = None if self.second is None else len(self.first)
        return ratios(self._hsic(), self._scale(), self._names(), k)

    def _hsic(self) -> np.ndarray:
        """n (n - 3) times unbiased HSIC of the pairs that are kept; NaN for others."""
        n = int(self.n)
        refuse_few(n)
        self._move([at + total / n for at, total in zip(self.origin, self.total, strict=True)])
        overlap = torch.full_like(self.lengths, torch.nan)
        for (i, j), product in self.cross.items():
            flat = product.flatten()
            overlap[i, j] = overlap[j, i] = flat @ flat
        outer = torch.outer(self.length, self.length) / ((n - 1) * (n - 2))
        return (overlap - n / (n - 2) * self.lengths + outer).cpu().numpy()

    def _scale(self) -> np.ndarray:
        """(sum a)^2, or what rounding about a distant origin can leave of it."""
        far = torch.stack([at.square().sum() for at in self.origin]) * self.n
        return torch.maximum(self.length**2, 1e-15 * far**2).cpu().numpy()

    def _put(self, x: list[Tensor]) -> list[Tensor]:
        """The batch about the origin, behind the rows that wait: memory is asked for only once."""
        n, kind = len(x[0]), x[0].dtype
        if self.waiting + n > len(self.room[0]) or kind != self.room[0].dtype:
            self._multiply()
        if n > len(self.room[0]) or kind != self.room[0].dtype:
            self.room = [part.new_empty(max(ROWS, n), part.shape[1]) for part in x]
        put = [room[self.waiting : self.waiting + n] for room in self.room]
        for part, origin, place in zip(x, self.origin, put, strict=True):
            torch.sub(part, origin.to(kind), out=place)
        return put

    def _multiply(self) -> None:
        """Add the products of the rows that wait."""
        if not self.waiting:
            return
        x = [room[: self.waiting] for room in self.room]
        for (i, j), product in self.cross.items():
            product += _product(x[i], x[j])
        self.waiting = 0

    def _move(self, origin: list[Tensor]) -> None:
        """The same sums about another origin: x becomes x - d, a becomes a - 2 x.d + |d|^2."""
        self._multiply()
        d = [to - at for to, at in zip(origin, self.origin, strict=True)]
        square = torch.stack([part.square().sum() for part in d])
        along = torch.stack([t @ part for t, part in zip(self.total, d, strict=True)])
        through = torch.zeros_like(self.lengths)  # sum of (x_l.d_l)(x_m.d_m)
        turned: dict[tuple[int, int], Tensor] = {}  # sum of (x_l.d_l) x_m
        for (i, j), product in self.cross.items():
            turned[i, j], turned[j, i] = product.T @ d[i], product @ d[j]
            through[i, j] = through[j, i] = turned[i, j] @ d[j]
            left = torch.stack([self.total[i], d[i]], dim=1)
            right = torch.stack([d[j], self.total[j] - self.n * d[j]])
            product.addmm_(left, right, alpha=-1)  # one pass over it, without temporaries
        bent = torch.stack([w @ part for w, part in zip(self.weighted, d, strict=True)], dim=1)
        slope = self.length - 2 * along
        self.lengths += 4 * through - 2 * (bent + bent.T) + self.n * torch.outer(square, square)
        self.lengths += torch.outer(slope, square) + torch.outer(square, slope)
        self.length = slope + self.n * square
        for j, weighted in enumerate(self.weighted):
            for i in range(len(d)):
                if (i, j) in turned:  # the other rows are of pairs that are not kept
                    weighted[i] -= 2 * turned[i, j]
            weighted += torch.outer(square, self.total[j]) - torch.outer(self.length, d[j])
            self.total[j] = self.total[j] - self.n * d[j]
        self.origin = [at.clone() for at in origin]

    def _tensors(self) -> list[Tensor]:
        """Everything that adds up."""
        several = [*self.total, *self.cross.values(), *self.weighted]
        return [self.n, self.length, self.lengths, *several]

    def _names(self) -> list[str]:
        return [*self.first, *(self.second or [])]

    def _checked(self, batch: Batch, other: Batch | None) -> list[Tensor]:
        """The layers' features in order, in one precision that matrices multiply in."""
        found = [batch.get(name) for name in self.first]
        found += [(other or {}).get(name) for name in self.second or []]
        n = len(found[0]) if found[0] is not None else 0
        x = []
        for name, part, at in zip(self._names(), found, self.origin, strict=True):
            given = torch.as_tensor(part if part is not None else np.empty(0))
            tensor = given.detach().to(at.device)
            if tensor.ndim != 2 or tensor.shape[1] != len(at) or len(tensor) != n:
                shape = "nothing" if part is None else f"shape {tuple(tensor.shape)}"
                right = f"(pictures, {len(at)}), as many pictures for each layer"
                do = "pool the activations to two axes"
                raise ShapeError(f"add a batch of {name}", shape, right, do)
            x.append(tensor)
        double = any(part.dtype == torch.float64 for part in x)
        return [part.double() if double else part.float() for part in x]


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x'y. On a processor NumPy makes it: where y is x it multiplies only half, torch all."""
    if x.device.type == "cpu":
        return torch.from_numpy(x.numpy().T @ y.numpy())
    return x.T @ y


def refuse_few(n: int) -> None:
    """Refuse fewer pictures than the unbiased estimator needs."""
    if n < 4:
        raise SampleError(
            "measure debiased CKA of layers", f"{n} rows", "at least 4", "give more pictures"
        )


def ratios(
    hsic: np.ndarray, scale: np.ndarray, names: list[str], n_first: int | None
) -> np.ndarray:
    """CKA of every pair of layers from HSIC; of the first model's with the second's where two are.

    Refuses layers whose HSIC with themselves is no more than rounding of what it is made of.
    """
    own = hsic.diagonal()
    wild = np.flatnonzero(~np.isfinite(own))
    if len(wild):
        given = "a NaN or infinity, or features too large for their precision"
        do = "look at that layer, or give float64"
        raise NumericsError(f"measure CKA of {names[wild[0]]}", given, "finite features", do)
    flat = np.flatnonzero(~(own > 1e-13 * scale))
    if len(flat):
        given = "constant features: every row is the same"
        right = "features that vary"
        raise NumericsError(f"measure CKA of {names[flat[0]]}", given, right, "leave this site out")
    ratio = hsic / np.sqrt(np.outer(own, own))
    return ratio if n_first is None else ratio[:n_first, n_first:]
