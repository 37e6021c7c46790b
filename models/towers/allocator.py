"""Control of the C library's memory, so that a full cache costs little more than a bare run.

Nearly all of the cost of a cache is the system handing out fresh pages for buffers that were freed
a moment before. glibc decides that for the whole process.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from interp.core.progress import say

# numbers of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ADAPTED = 2**25  # bytes
_KEPT = 2**31 - 1  # mallopt takes an int
_SOME = 2**30
_OF_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

_lock = Lock()
_depth = 0


@cache
def keep_some_memory() -> None:
    """Let the process keep up to 1 GiB of freed memory, from the first tower that is opened.

    Notes:
        glibc returns freed memory beyond its trim threshold to the system, and every cached run
        then asks for all of its pages again: a sixth of a forward of a ViT-B/32. Buffers of 32 MiB
        and more are still the system's. The setting is the process's; it is left alone where the
        environment has one (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`),
        and other allocators ignore it.
    """
    library = _glibc()
    if library is not None and not any(name in os.environ for name in _OF_USERS):
        _set(library, _ADAPTED, _SOME)


@contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Keep freed memory in the process for the length of a `with` block.

    Returns:
        A context that yields True, or False where there is no glibc.

    Notes:
        Inside, glibc serves every buffer from its heap and returns nothing to the system: the
        process stays as large as it ever was. At the end the heap is trimmed, and the thresholds
        are those of `keep_some_memory`: 32 MiB (mmap) and 1 GiB (trim).

        It acts on the whole process, all threads and libraries. Blocks may be nested. Without glibc
        (Linux) it changes nothing and says so in a line.

    >>> with keep_freed_memory() as kept:  # doctest: +SKIP
    ...     for batch in batches:
    ...         embedding, cache = clip.visual.run_with_cache(batch)
    """
    global _depth
    library = _glibc()
    if library is None:
        say(f"keep_freed_memory does nothing here: it needs glibc, this is {platform.system()}")
        yield False
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(library, _KEPT, _KEPT)
    try:
        yield True
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                _set(library, _ADAPTED, _SOME)
                library.malloc_trim(0)


def _glibc() -> Any:
    """The C library of this process if it is glibc, else None."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set(library: Any, mmap: int, trim: int) -> None:
    # older releases refuse an mmap threshold above half a heap, which is 32 MiB
    if not library.mallopt(_MMAP_THRESHOLD, mmap):
        library.mallopt(_MMAP_THRESHOLD, _ADAPTED)
    library.mallopt(_TRIM_THRESHOLD, trim)
