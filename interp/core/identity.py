"""What a tower is, as a hash: by it one model's numbers are told from another's."""

from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import SpecificationError


def weights_hash(tower: Any, *, asked: str, leave_out: str) -> str:
    """A hash of all parameters and buffers under their names.

    `asked` and `leave_out` are for the error where a tower has no `state_dict`: what was to be
    done, and which argument to do without.

    >>> one, two = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    >>> words = {"asked": "tell models apart", "leave_out": "folder"}
    >>> weights_hash(one, **words) == weights_hash(two, **words)
    False
    """
    if not hasattr(tower, "state_dict"):
        raise SpecificationError(
            asked,
            f"a {type(tower).__name__} without a state_dict, so that models cannot be told apart",
            "a torch module",
            f"leave {leave_out}= out, or derive the tower from torch.nn.Module",
        )
    digest = blake2b(digest_size=8)
    for name, value in sorted(tower.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(name.encode())
            digest.update(tensor_hash(value).encode())
    return digest.hexdigest()


def tensor_hash(value: Tensor) -> str:
    """A hash of a tensor's shape, format and content, wherever it is."""
    digest = blake2b(f"{value.dtype} {tuple(value.shape)}".encode(), digest_size=8)
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
