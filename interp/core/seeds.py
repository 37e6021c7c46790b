"""Random streams by name, so that adding one does not shift the others."""

from hashlib import blake2b

import numpy as np


def rng(purpose: str, *seeds: int) -> np.random.Generator:
    """Open the random stream named `purpose` under `seeds`.

    Args:
        purpose: The name of the stream.
        *seeds: Whole numbers.

    Returns:
        A generator at the beginning of the stream.

    Notes:
        Two purposes give independent streams under the same seed, and a new purpose leaves all
        others unchanged, as with DomainBed's `seed_hash`.

    >>> bool(rng("warp", 7).integers(100) == rng("warp", 7).integers(100))
    True
    >>> bool(rng("warp", 7).random() == rng("style", 7).random())
    False
    """
    word = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng([word, *(int(seed) & 0xFFFFFFFFFFFFFFFF for seed in seeds)])
