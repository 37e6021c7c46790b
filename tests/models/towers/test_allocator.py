"""Freed memory is kept inside the block and given back after it; buffers are filled again."""

import ctypes
import os
import resource
import subprocess
import sys

import pytest
import torch

from interp.core.errors import SiteError
from interp.models.caching.keep import Keep, kept_buffers, read
from interp.models.towers import open_tower as opening
from interp.models.towers.open_tower import keep_freed_memory

glibc = pytest.mark.skipif(opening._glibc() is None, reason="needs glibc")

# In a process of its own, since the setting and the heap belong to the process.
COUNT = """
import resource, torch
from interp.models.towers.open_tower import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # 48 MiB at a time: more than any threshold that glibc adapts itself to
    for _ in range(4):
        torch.zeros(12 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

faults()
outside = faults()
with keep_freed_memory() as kept:
    with keep_freed_memory():
        faults()
    inside, full = faults(), resident()
print(kept, outside, inside, full - resident(), faults())
"""


@glibc
def test_freed_memory_is_kept_inside_and_given_back_after():
    run = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    kept, *numbers = run.stdout.split()
    outside, inside, given_back, after = map(int, numbers)
    pages = 4 * 48 * 2**20 // resource.getpagesize()
    assert kept == "True"
    assert outside > 0.9 * pages / 512  # with huge pages there are 512 times fewer
    assert inside < outside / 10  # the inner block's end did not end it
    assert given_back > 40 * 2**20
    assert after > 0.9 * outside


# A hundred and sixty buffers of 1 MiB, as a cache of a ViT-B/32 would be.
LEARN = """
import resource, torch
from interp.models.towers.open_tower import keep_some_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffers = [torch.zeros(2**18) for _ in range(160)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_some_memory()
for _ in range(6):  # until the heap has grown to what they need
    faults()
print(before, faults())
"""


@pytest.mark.long
@pytest.mark.slow
@glibc
def test_memory_that_is_kept_spares_the_faults_of_many_buffers():
    run = subprocess.run([sys.executable, "-c", LEARN], capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    assert (
        before > 160 * 2**20 / resource.getpagesize() / 512 / 2
    )  # with huge pages, 512 times fewer
    assert after < before / 5


@pytest.mark.long
@glibc
def test_a_setting_of_the_users_is_left_alone():
    run = subprocess.run(
        [sys.executable, "-c", LEARN], capture_output=True, text=True, check=True,
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": str(2**17)},
    )  # fmt: skip
    before, after = map(int, run.stdout.split())
    assert after > before / 2


def test_elsewhere_it_does_nothing_and_says_so(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(opening, "_glibc", lambda: None)
    monkeypatch.setattr(opening, "say", said.append)
    with keep_freed_memory() as kept:
        assert not kept
    assert len(said) == 1 and "needs glibc" in said[0]


def test_the_setting_ends_when_the_block_raises(monkeypatch):
    calls: list[int] = []

    class Library(ctypes.CDLL):
        def __init__(self) -> None: ...

        def mallopt(self, name: int, value: int) -> int:
            calls.append(value)
            return 1

        def malloc_trim(self, pad: int) -> int:
            calls.append(pad)
            return 1

    monkeypatch.setattr(opening, "_glibc", Library)
    monkeypatch.setattr(ctypes, "CDLL", None)
    with pytest.raises(ZeroDivisionError), keep_freed_memory():
        assert calls == [2**31 - 1] * 2
        raise ZeroDivisionError
    assert calls[2:] == [2**25, 2**30, 0]


def test_kept_buffers_hold_what_a_plain_run_holds(kind, small_tower, small_batch):
    tower, x = small_tower(kind), small_batch(kind)
    with kept_buffers(tower) as cache:
        for batch in (x[:4], x[4:]):
            embedding = tower(batch)
            wanted, plain = tower.run_with_cache(batch)
            assert torch.equal(embedding, wanted)
            assert list(cache) == list(plain)
            for site, value in plain.items():
                assert torch.equal(cache[site], value), site


def test_a_run_writes_into_the_buffers_of_the_last(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit")
    with kept_buffers(tower, Keep("blocks.*.hook_resid_post", pos=[0, 2])) as cache:
        tower(x[:4])
        before = {site: (value, value.clone()) for site, value in cache.items()}
        tower(x[4:])
        for site, (value, old) in before.items():
            assert cache[site] is value
            assert not torch.equal(value, old)
        tower(x[:3])  # another shape needs another buffer
        assert all(len(cache[site]) == 3 for site in cache)
        assert all(len(value) == 4 for value, _ in before.values())


def test_kept_buffers_take_a_selection_in_another_format(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit")
    keep = Keep("blocks.1.*", pos=[3, 0], head=1, dtype=torch.float16)
    with torch.no_grad(), kept_buffers(tower, keep) as cache:
        tower(x)
        tower(x)
    wanted = read(tower, x, keep)
    for site, value in wanted.items():
        assert torch.equal(cache[site], value) and cache[site].dtype == torch.float16


def test_buffers_made_in_inference_mode_are_not_written_outside_it(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit")
    with kept_buffers(tower) as cache:
        with torch.inference_mode():
            tower(x)
        tower(x)
        assert not any(value.is_inference() for value in cache.values())


def test_kept_buffers_leave_no_hook_and_refuse_what_never_fires(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit")
    with kept_buffers(tower), torch.no_grad():
        tower(x)
    assert not any(point._forward_hooks for point in tower.hook_points())
    with pytest.raises(SiteError, match="never came there"):
        with kept_buffers(tower, Keep("blocks.2.hook_resid_post")):
            tower(x, stop_at_layer=1)
