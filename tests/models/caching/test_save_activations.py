"""What is read and saved is what a plain run holds, to the bit, also when it was interrupted."""

import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from interp.circuits import Chain
from interp.core.errors import (
    DataError,
    NumericsError,
    OutputError,
    SampleError,
    ShapeError,
    SiteError,
    SpecificationError,
)
from interp.core.images import ImageTable
from interp.core.storage.activations import FACTS, ActivationWriter
from interp.core.tower import part
from interp.models.caching import save_activations as storing
from interp.models.caching.keep import Keep, forecast, read
from interp.models.caching.save_activations import describe_tower, save_activations
from interp.models.caching.saved_activations import SavedActivations, convert_shards
from tests.refusals import refuses


def plain(tower: Any, x: Tensor, names: Any = None) -> dict[str, Tensor]:
    with torch.no_grad():
        return tower.run_with_cache(x, names_filter=names)[1]


@pytest.mark.parametrize("pos", [0, [4, 1], slice(1, None, 2), torch.tensor([2]), None])
@pytest.mark.parametrize("head", [None, 1, [1, 0]])
def test_a_selection_is_a_part_of_the_whole(pos, head, small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit", 2)
    sites = ["blocks.1.*", "hook_embedding"]
    kept, whole = read(tower, x, Keep(sites, pos=pos, head=head)), plain(tower, x, sites)
    for site, value in kept.items():
        axes, wanted = tower.axes(site), whole[site]
        for name, places in (("pos", pos), ("query", pos), ("head", head)):
            if name in axes and places is not None:
                if not isinstance(places, slice):  # a single place keeps its axis
                    places = torch.atleast_1d(torch.as_tensor(places))
                wanted = wanted[part({name: places}, axes=axes, site=site)]
        assert torch.equal(value, wanted), site


def test_the_format_is_chosen(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit", 2)
    kept = read(tower, x, Keep("blocks.*.hook_resid_post", dtype=torch.float16, device="cpu"))
    for site, value in plain(tower, x, list(kept)).items():
        assert kept[site].dtype == torch.float16
        assert torch.equal(kept[site], value.half())


@pytest.mark.parametrize(("site", "ran"), [("hook_full_embed", 0), ("blocks.1.attn.hook_z", 2)])
def test_no_block_runs_after_the_last_site(site, ran, small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit", 2)
    runs: list[int] = []
    for number, block in enumerate(tower.chain):
        block.register_forward_pre_hook(lambda *_, number=number: runs.append(number))
    read(tower, x, Keep(site))
    assert runs == list(range(ran))
    read(tower, x, Keep("hook_embedding"))
    assert runs[ran:] == list(range(3))


def test_what_is_kept_holds_no_more_memory_than_it_shows(kind, small_tower, small_batch):
    tower, x = small_tower(kind), small_batch(kind)
    sites = "attnpool.*" if kind == "resnet" else "blocks.1.*"
    for keep in (Keep(sites), Keep(sites, head=0), Keep(sites, pos=slice(0, 1))):
        for site, value in read(tower, x, keep).items():
            assert value.untyped_storage().nbytes() == value.nbytes, site
    if kind == "vit":  # a plain cache does: q is a view of the product that holds k and v too
        q = plain(tower, x)["blocks.1.attn.hook_q"]
        assert q.untyped_storage().nbytes() == 3 * q.nbytes


def test_reading_leaves_no_hook_and_no_graph(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit", 2)
    kept = read(tower, x, Keep())
    assert not any(value.requires_grad for value in kept.values())
    assert not any(point._forward_hooks for point in tower.hook_points())


def test_selections_that_select_nothing_are_refused(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit", 2)
    refuses(SiteError, "axis head", read, tower, x, Keep("blocks.*.hook_resid_post", head=0))
    refuses(SiteError, "axis pos or query", read, tower, x, Keep("hook_embedding", pos=0))
    refuses(SiteError, "Try blocks", read, tower, x, Keep("blocks.9.hook_resid_post"))
    for pos in (17, [0, 17], slice(17, None)):
        refuses(ShapeError, "0 to 16", read, tower, x, Keep("hook_embed", pos=pos))
    for pos in (-1, [], [0, -1]):
        refuses(ShapeError, "counted from 0", Keep, "hook_embed", pos=pos)
    # twins that are in range
    read(tower, x, Keep("blocks.*.attn.hook_z", head=0, pos=[0, 16]))


def test_numbers_too_large_for_the_kept_format_are_refused(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit", 2) * 1e7
    refuses(NumericsError, "at most", read, tower, x, Keep("hook_embed", dtype=torch.float16))
    assert read(tower, x, Keep("hook_embed", dtype=torch.bfloat16))["hook_embed"].isfinite().all()


def test_the_infinities_of_a_causal_mask_are_no_overflow(small_tower, small_batch):
    tower, x = small_tower("text"), small_batch("text", 2)
    site = "blocks.0.attn.hook_attn_scores"
    assert read(tower, x, Keep(site, dtype=torch.float16))[site].isinf().any()


class Mute(Chain):
    """A tower none of whose sites fires."""

    def forward(self, x: Tensor, **words: Any) -> Tensor:
        return x


def test_any_tower_that_keeps_the_protocol_is_read(tmp_path):
    """Each block of this one doubles the stream."""
    tower, x = Chain([nn.Identity()] * 2), torch.arange(24.0).reshape(4, 3, 2)
    kept = read(tower, x, Keep("blocks.*.hook_resid_pre", pos=1))
    assert torch.equal(kept["blocks.0.hook_resid_pre"], x[:, 1:2])
    assert torch.equal(kept["blocks.1.hook_resid_pre"], 2 * x[:, 1:2])
    keep = Keep("blocks.1.hook_resid_pre")
    saved = save_activations(tower, x, tmp_path, keep, batch_size=3)
    assert torch.equal(saved["blocks.1.hook_resid_pre"].tensor(), 2 * x)
    assert forecast(tower, x, keep).total == x.nbytes
    refuses(SiteError, "blocks.1.hook_resid_pre", read, Mute([nn.Identity()]), x, keep)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shards(folder: Path) -> list[tuple[int, int]]:
    """First row and end of what was written at a time, as the journal notes it."""
    lines = (folder / "rows-0.txt").read_text().split("\n")
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines if line]


def save(tower: Any, x: Any, folder: Path, keep: Keep | None = None, **options: Any) -> Any:
    """Two rows to a batch, four to a shard."""
    keep = Keep("blocks.*.hook_resid_post") if keep is None else keep
    one = sum(value.nbytes for value in read(tower, small(x), keep).values())
    return save_activations(
        tower, x, folder, keep, **{"batch_size": 2, "shard_size": 4 * one, **options}
    )


def small(x: Any) -> Tensor:
    return (x if isinstance(x, Tensor) else x[0])[:1]


class Interrupted(Exception):
    pass


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the run die in the middle of the shard after so many."""
    calls = 0

    def stop(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > min(2 * after + 1, 4):
            raise Interrupted
        return read(*args)

    monkeypatch.setattr(storing, "read", stop)


def test_what_is_saved_is_what_a_plain_run_holds(kind, small_tower, small_batch, tmp_path):
    tower, x = small_tower(kind), small_batch(kind, 10)
    saved = save(tower, x, tmp_path, Keep())
    assert saved.finished and saved.n_rows == 10
    # a file per site, what they are, and which rows were written when
    assert len(files(tmp_path)) == len(saved) + 2
    batches = [plain(tower, x[start : start + 2]) for start in range(0, 10, 2)]
    assert saved.sites == tuple(batches[0])
    for site in saved:
        wanted = torch.cat([batch[site] for batch in batches])
        assert torch.equal(saved[site].tensor(), wanted), site
        assert saved[site].shape == tuple(wanted.shape) and saved.axes(site) == tower.axes(site)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_an_interrupted_run_goes_on_to_the_same_files(
    after, known, small_tower, small_batch, tmp_path, monkeypatch
):
    tower, x = small_tower("vit"), small_batch("vit", 10)

    def examples() -> Any:  # batches of another size than the run's own
        parts = [x[:3], x[3:4], x[4:9], x[9:]]
        return parts if known else iter(parts)

    one = read(tower, x[:1], Keep("hook_embed"))["hook_embed"].nbytes
    options: Any = {"batch_size": 2, "shard_size": 4 * one}
    whole = save_activations(tower, examples(), tmp_path / "a", Keep("hook_embed"), **options)
    assert shards(tmp_path / "a") == [(0, 4), (4, 8), (8, 10)]
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        with pytest.raises(Interrupted):
            save_activations(tower, examples(), tmp_path / "b", Keep("hook_embed"), **options)
    if after:
        half = SavedActivations(tmp_path / "b")
        assert not half.finished and half.n_rows == 4 * after
        assert torch.equal(half["hook_embed"].tensor(), whole["hook_embed"][: 4 * after])
    with next((tmp_path / "b").glob("*.npy")).open("ab") as file:  # of a run that was killed
        file.write(b"half a shard")
    runs: list[int] = []
    monkeypatch.setattr(storing, "read", lambda *args: runs.append(1) or read(*args))
    save_activations(tower, examples(), tmp_path / "b", Keep("hook_embed"), **options)
    assert len(runs) == 5 - 2 * after  # what was complete is not computed again
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_finished_folder_is_only_opened(small_tower, small_batch, tmp_path, monkeypatch):
    tower, x = small_tower("vit"), small_batch("vit")
    save(tower, x, tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(storing, "read", None)
    assert save(tower, x, tmp_path).finished
    assert files(tmp_path) == before


@pytest.fixture
def pictures(tmp_path: Path) -> ImageTable:
    generator = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(7)]
    (tmp_path / "pictures").mkdir()
    for name in names:
        pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    frame = pd.DataFrame({"path": names, "label": "a", "domain": "b", "split": "c", "caption": ""})
    return ImageTable(frame, tmp_path / "pictures")


def preprocess(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1) / 255.0)


def test_an_image_table_is_streamed(pictures, small_tower, tmp_path):
    tower, keep = small_tower("vit"), Keep("blocks.1.attn.hook_z", head=1, pos=0)
    options: Any = {"preprocess": preprocess, "batch_size": 3}
    saved = save_activations(tower, pictures, tmp_path / "out", keep, **options)
    x = pictures.tensors(preprocess).float()
    wanted = torch.cat([read(tower, x[i : i + 3], keep)["blocks.1.attn.hook_z"] for i in (0, 3, 6)])
    assert torch.equal(saved["blocks.1.attn.hook_z"].tensor(), wanted)
    with pytest.raises(OutputError, match="another examples"):
        save_activations(tower, pictures[:6], tmp_path / "out", keep, **options)
    with pytest.raises(OutputError, match="another examples"):  # preprocessed in another way
        options["preprocess"] = lambda picture: preprocess(picture) * 2
        save_activations(tower, pictures, tmp_path / "out", keep, **options)
    with pytest.raises(SpecificationError, match="no preprocess"):
        save_activations(tower, pictures, tmp_path / "out", keep)
    with pytest.raises(SampleError, match="no examples"):
        save_activations(tower, pictures[:0], tmp_path / "new", keep, preprocess=preprocess)


def test_another_run_in_the_same_folder_is_refused(small_tower, small_batch, tmp_path):
    tower, x, keep = small_tower("vit"), small_batch("vit"), Keep("hook_embed", pos=0)
    save(tower, x, tmp_path, keep)
    for other, examples, what, name in (
        (small_tower("vit", seed=1), x, keep, "tower"),
        (tower, x + 1, keep, "examples"),
        (tower, x[:6], keep, "examples"),
        (tower, x, Keep("hook_embed", pos=1), "selection"),
        (tower, x, Keep("hook_embed", pos=0, dtype=torch.float16), "selection"),
    ):
        refuses(OutputError, f"another {name}", save, other, examples, tmp_path, what)
    save(tower, x, tmp_path, keep)


def test_one_changed_weight_is_another_tower(small_tower):
    tower = small_tower("resnet")
    before = describe_tower(tower)
    assert describe_tower(small_tower("resnet")) == before
    with torch.no_grad():
        tower.source.bn1.running_mean[0] += 1e-6  # a buffer
    assert describe_tower(tower) != before


def test_what_is_cut_short_is_refused(small_tower, small_batch, tmp_path):
    tower, x = small_tower("vit"), small_batch("vit")
    save(tower, x, tmp_path / "good")
    name = "001-blocks.1.hook_resid_post.npy"
    facts, data = (tmp_path / "good" / FACTS).read_bytes(), files(tmp_path / "good")[name]
    for harmed, content, words in (
        (name, data[:-1], "does not read"),
        (name, None, "No such file"),
        (name, b"\xff" * len(data), "does not read"),
        (name, data.replace(b"<f4", b"<i4"), "int32 of shape"),
        (name, data.replace(b"(8,", b"(7,"), "float32 of shape .7"),
        (FACTS, facts[:-5], "does not read"),
        (FACTS, None, "does not read"),
        (FACTS, b"{}", "without all of"),
        (FACTS, b"[]", "without all of"),
        (FACTS, facts.replace(b'"version": 2', b'"version": 9'), "format version 9"),
    ):
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "good", folder)
        if content is None:
            (folder / harmed).unlink()
        else:
            (folder / harmed).write_bytes(content)
        refuses(DataError, words, SavedActivations, folder)
        if (folder / FACTS).exists():
            refuses(DataError, words, save, tower, x, folder)


def test_a_disk_that_is_too_small_is_refused_before_the_run(
    small_tower, small_batch, tmp_path, monkeypatch
):
    tower, x, keep = small_tower("vit"), small_batch("vit"), Keep("hook_embed")
    one = read(tower, x[:1], keep)["hook_embed"].nbytes

    def free(n_bytes: int) -> None:
        usage = type("usage", (), {"free": n_bytes})
        monkeypatch.setattr("interp.core.storage.store.shutil.disk_usage", lambda _: usage)

    free(8 * one - 1)
    with monkeypatch.context() as patch:
        patch.setattr(storing, "read", None)
        refuses(OutputError, "for each", save, tower, x, tmp_path, keep)
    assert not list(tmp_path.iterdir())
    stream: Iterator[Tensor] = iter([x[:4], x[4:]])  # of unknown length: a shard at a time
    free(4 * one - 1)
    with pytest.raises(OutputError, match="activations of 4 examples"):
        save_activations(tower, stream, tmp_path, keep, batch_size=4, shard_size=4 * one)
    free(8 * one)
    assert save(tower, x, tmp_path, keep).finished


def test_a_shard_that_cannot_be_written_leaves_nothing_half_done(
    small_tower, small_batch, tmp_path, monkeypatch
):
    tower, x = small_tower("vit"), small_batch("vit")

    for number, words in ((errno.ENOSPC, "a disk that is full"), (errno.EIO, "error")):

        def refuse(*_: Any, number: int = number) -> Any:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(ActivationWriter, "_handle", refuse)
            refuses(OutputError, words, save, tower, x, tmp_path)
        assert SavedActivations(tmp_path).n_rows == 0
    keep = Keep("hook_embed")  # the folder is free for another run
    assert save(tower, x, tmp_path, keep).finished and len(files(tmp_path)) == 3


def test_out_of_memory_halves_the_batch(small_tower, small_batch, tmp_path, monkeypatch):
    tower, x = small_tower("vit").double(), small_batch("vit").double()
    seen: list[int] = []

    def limited(tower: Any, batch: Tensor, keep: Keep) -> dict[str, Tensor]:
        seen.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("too much")
        return read(tower, batch, keep)

    limit = 2
    monkeypatch.setattr(storing, "read", limited)
    keep = Keep("hook_embedding")
    saved = save_activations(tower, x, tmp_path / "a", keep, batch_size=8)
    assert seen == [8, 4, 2, 2, 2, 2]
    whole = plain(tower, x)["hook_embedding"]
    torch.testing.assert_close(saved["hook_embedding"].tensor(), whole, rtol=1e-12, atol=1e-12)
    limit = 0
    refuses(torch.OutOfMemoryError, "", save_activations, tower, x, tmp_path / "b", keep)


def test_a_nan_and_what_is_no_batch_are_refused(small_tower, small_batch, tmp_path):
    tower, x = small_tower("vit"), small_batch("vit")
    x[5, 0, 0, 0] = torch.nan
    refuses(NumericsError, r"NaN in 1 of .* 4 examples, the first its 1", save, tower, x, tmp_path)
    for wrong in ([x, "picture"], iter(["picture"]), [torch.tensor(1.0)]):
        refuses(ShapeError, "iterable of tensors", save_activations, tower, wrong, tmp_path, Keep())
    refuses(SampleError, "no examples", save_activations, tower, [], tmp_path, Keep())
    for option in ("batch_size", "shard_size"):
        with pytest.raises(SpecificationError, match=f"{option} = 0"):
            save_activations(tower, x, tmp_path, Keep(), **{option: 0})


def test_rows_are_read_as_a_tensor_gives_them(small_tower, small_batch, tmp_path):
    tower, x = small_tower("vit"), small_batch("vit", 10)
    saved = save(tower, x, tmp_path)["blocks.1.hook_resid_post"]
    whole = saved.tensor()
    assert len(saved) == 10 and saved.dtype == whole.dtype
    mask = torch.arange(10) % 3 == 0
    for rows in (
        0, -1, 7, slice(2, 9), slice(None), slice(8, 2), slice(1, None, 3), slice(None, None, 9),
        [9, 0, 4, 4], [], np.array([1, 8]), np.int64(3), torch.tensor([5]), mask, mask.numpy(),
    ):  # fmt: skip
        assert torch.equal(saved[rows], whole[rows]), rows
    assert torch.equal(saved[::-1], whole.flip(0))
    assert [len(batch) for batch in saved.batches(4)] == [4, 4, 2]
    assert torch.equal(torch.cat(list(saved.batches(3))), whole)
    for rows in (10, -11, [0, 10], mask[:9], 1.5, [[0]]):
        with pytest.raises(SampleError, match="read rows"):
            saved[rows]
    refuses(SampleError, "batch_size 0", next, saved.batches(0))


def test_only_the_rows_asked_for_are_read(small_tower, small_batch, tmp_path):
    saved = save(small_tower("vit"), small_batch("vit", 10), tmp_path)["blocks.1.hook_resid_post"]
    one = saved[0].nbytes

    def most(read: Any) -> int:
        tracemalloc.start()
        read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert most(lambda: saved[3:5]) < 4 * one < most(saved.tensor)
    assert most(lambda: list(map(len, saved.batches(2)))) < 6 * one


def save_shards(folder: Path, tower: Any, x: Tensor, keep: Keep, finished: bool = True) -> None:
    """Activations in the form before this one: shards of four rows, and an index."""
    now = save(tower, x, folder.with_name("now"), keep)
    facts = json.loads((now.folder / FACTS).read_text())
    index = {"version": 1, "finished": finished, "identity": facts["identity"], "shards": []}
    index |= {"rows_per_shard": 4, "sites": facts["sites"]}
    folder.mkdir()
    for number in range(2 if finished else 1):
        path = folder / f"activations-{number:05d}.safetensors"
        values = {site: now[site][4 * number : 4 * number + 4] for site in now}
        save_file(values, path)
        index["shards"].append({"rows": 4, "bytes": path.stat().st_size})
    (folder / "index.json").write_text(json.dumps(index, indent=1))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_shards_as_they_were_saved_before_are_converted(dtype, small_tower, small_batch, tmp_path):
    tower, x = small_tower("vit"), small_batch("vit")
    keep = Keep("blocks.*.hook_resid_post", pos=0, dtype=dtype)
    old, now = tmp_path / "old", tmp_path / "now"
    save_shards(old, tower, x, keep)
    for use in (SavedActivations, lambda folder: save(tower, x, folder, keep)):
        refuses(DataError, r"convert_shards\(.*old', a new folder", use, old)
    converted = convert_shards(old, tmp_path / "new")
    assert converted.finished and files(tmp_path / "new") == files(now)
    assert save(tower, x, tmp_path / "new", keep).finished  # of the same run
    shutil.rmtree(now)
    save_shards(tmp_path / "half", tower, x, keep, finished=False)
    half = convert_shards(tmp_path / "half", tmp_path / "whole")
    assert not half.finished and half.n_rows == 4
    save(tower, x, tmp_path / "whole", keep)
    assert files(tmp_path / "whole") == files(now)
    next(old.glob("activations-00001*")).write_bytes(b"cut")
    refuses(DataError, "do not read", convert_shards, old, tmp_path / "newer")
    refuses(DataError, "do not read", convert_shards, now, tmp_path / "newest")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_format_comes_back(dtype, small_tower, small_batch, tmp_path):
    tower, x = small_tower("vit"), small_batch("vit")
    keep = Keep("blocks.*.hook_resid_post", dtype=dtype)
    saved = save(tower, x, tmp_path, keep)["blocks.1.hook_resid_post"]
    wanted = torch.cat([read(tower, x[i : i + 2], keep)[saved.site] for i in range(0, 8, 2)])
    assert saved.dtype == dtype and saved[:].dtype == dtype
    assert torch.equal(saved.tensor(), wanted) and torch.equal(saved[[3, 1]], wanted[[3, 1]])


def test_unknown_sites_are_refused_and_known_ones_listed(small_tower, small_batch, tmp_path):
    saved = save(small_tower("vit"), small_batch("vit"), tmp_path)
    assert "blocks.0.hook_resid_post" in saved and "blocks.0.hook_z" not in saved
    assert repr(saved) == "SavedActivations(3 sites, 8 rows)"
    assert saved.identity["tower"]["kind"] == "HookedViT of VisionTransformer"
    with pytest.raises(SiteError, match="mean blocks"):
        saved["blocks.0.hook_resid_pos"]
