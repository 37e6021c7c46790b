"""Control of the C library's memory, so that a full cache costs little more than a bare run.

Nearly all of the cost of a cache is the system handing out fresh pages for buffers that were freed
a moment before. glibc decides that for the whole process.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import torch

from interp.core.progress import say

# numbers of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ADAPTED = 2**25  # bytes; the trim threshold follows at twice that
_KEPT = 2**31 - 1  # mallopt takes an int

_lock = Lock()
_depth = 0


@cache
def free_a_large_buffer() -> None:
    """Free a buffer just under 32 MiB once in a process, so that glibc keeps freed memory.

    Notes:
        glibc adapts to what is freed: from then on it serves buffers of that size from its heap and
        keeps up to twice as much of it free. Before, it returned all but the size of the largest
        activation after every run. A cache of up to 64 MiB then costs no page faults. The buffer's
        pages are never touched. Other allocators ignore this.
    """
    torch.empty(_ADAPTED - 2**16, dtype=torch.uint8)


@contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Keep freed memory in the process for the length of a `with` block.

    Returns:
        A context that yields True, or False where there is no glibc.

    Notes:
        Inside, glibc serves every buffer from its heap and returns nothing to the system: the
        process stays as large as it ever was. At the end the heap is trimmed and the thresholds are
        set to 32 MiB (mmap) and 64 MiB (trim), where glibc's own adaptation ends. It adapts no more
        once a program has set a threshold, and at its first defaults every large buffer would fault
        again.

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
            _set(library, _KEPT)
    try:
        yield True
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                _set(library, _ADAPTED)
                library.malloc_trim(0)


def _glibc() -> Any:
    """The C library of this process if it is glibc, else None."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set(library: Any, threshold: int) -> None:
    # older releases refuse an mmap threshold above half a heap, which is 32 MiB
    if not library.mallopt(_MMAP_THRESHOLD, threshold):
        library.mallopt(_MMAP_THRESHOLD, _ADAPTED)
    library.mallopt(_TRIM_THRESHOLD, min(2 * threshold, _KEPT))
