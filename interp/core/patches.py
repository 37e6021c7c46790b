"""A patch replaces part of an activation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from interp.core.errors import ShapeError, SiteError, listed


@dataclass(frozen=True)
class Patch:
    """The activation at `site`, where `where` says, becomes `value`.

    `where` gives an index for some of the site's axes; the axes it leaves out are replaced whole.

    >>> import torch
    >>> stream = torch.zeros(1, 3, 2)
    >>> patch = Patch("blocks.0.hook_resid_pre", torch.ones(2), where={"pos": 1})
    >>> patch.apply(stream, axes=("batch", "pos", "d_model"))[0, :, 0].tolist()
    [0.0, 1.0, 0.0]
    """

    site: str
    value: Tensor
    where: Mapping[str, int | slice | Tensor] = field(default_factory=dict)

    def apply(self, activation: Tensor, *, axes: tuple[str, ...]) -> Tensor:
        """A copy of `activation` with the patch in it; the original stays as it was."""
        index = part(self.where, axes=axes, site=self.site)
        patched = activation.clone()
        try:
            patched[index] = self.value.to(patched.dtype)
        except (RuntimeError, IndexError) as error:
            raise ShapeError(
                f"patch {self.site}",
                f"a value of shape {tuple(self.value.shape)} at {dict(self.where)}",
                f"a part of {dict(zip(axes, activation.shape, strict=True))}",
                f"give a value of that part's shape ({error})",
            ) from None
        return patched


def part(
    where: Mapping[str, int | slice | Tensor], *, axes: tuple[str, ...], site: str
) -> tuple[int | slice | Tensor, ...]:
    """Turn an index by axis name into an index by axis order."""
    unknown = set(where) - set(axes)
    if unknown:
        raise SiteError(
            f"index {site}",
            f"axis {listed(sorted(unknown))}",
            f"one of {listed(axes)}",
            "use the site's own axes",
        )
    return tuple(where.get(axis, slice(None)) for axis in axes)
