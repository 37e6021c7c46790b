"""Passes over the data: pooled, on disk as in memory, stopped and gone on with, by two ranks."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.core.edits.edits import tokens, untokens
from interp.core.errors import DataError, OutputError, SiteError, SpecificationError
from interp.core.images import ImageTable
from interp.core.parallel import Rank
from interp.probes import POOLS, batches, collect
from interp.probes.features.pooling import attention_weights, pooled, pooling_site
from tests.probes.toy import Toy, noise, preprocess
from tests.refusals import refuses

ROOT = Path(__file__).parents[3]
MAP = ("batch", "channel", "row", "column")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageTable:
    return noise(tmp_path_factory.mktemp("pictures"))


def read(images: ImageTable, folder: Path | None = None, tower: Toy | None = None, **options):
    """All sites of the toy, five pictures at a time; its pattern has no key for a map's mean."""
    options = {"preprocess": preprocess, "batch_size": 5} | options
    sites = [site for site in Toy.sites if options.get("pool") != "attention" or site != "map"]
    return collect(tower or Toy(), images, sites, folder=folder, **options)


def only(folder: Path) -> Path:
    (found,) = folder.glob("features-*")
    return found


class TestPooling:
    def test_space_leaves_the_first_token_out_and_averages_maps(self, images) -> None:
        got, raw = read(images, pool="space").values, images.tensors(preprocess).numpy()
        np.testing.assert_allclose(got["tokens"], raw.reshape(12, 3, 16)[:, :, 1:].mean(axis=2))
        np.testing.assert_allclose(got["map"], raw.mean(axis=(2, 3)), rtol=1e-6)

    def test_token_keeps_all_and_averages_to_mean(self, images) -> None:
        kept, mean = read(images, pool="token"), read(images)
        for site in kept.sites:
            n, width = kept.shapes[site]
            np.testing.assert_allclose(
                kept.values[site].reshape(12, n, width).mean(axis=1), mean.values[site], rtol=1e-5
            )
        apart = kept.tokens("heads")
        assert len(apart) == 12 * 16 and apart.frame["pos"].tolist() == [*range(16)] * 12
        assert apart.frame["path"].tolist()[15:17] == ["0.png", "1.png"]
        raw = images.tensors(preprocess).numpy().reshape(12, 3, 16)
        np.testing.assert_array_equal(apart.values["heads"][16 + 3, :3], raw[1, :, 3])

    def test_attention_weighs_tokens_as_the_last_pattern_does(self, images) -> None:
        got, raw = read(images, pool="attention").values, images.tensors(preprocess).numpy()
        x = raw.reshape(12, 3, 16).astype(float)
        for picture in range(12):
            weights = [x[picture, :, 0] @ x[picture, :, key] for key in range(16)]
            expected = sum(w * x[picture, :, key] for key, w in enumerate(weights))
            np.testing.assert_allclose(got["tokens"][picture], expected, rtol=1e-5)

    def test_attention_on_a_map_deals_the_mean_out_and_takes_windows(self) -> None:
        torch.manual_seed(0)
        x, pattern = torch.rand(2, 3, 4, 6), torch.rand(2, 4, 1, 5).softmax(-1)
        got = pooled(x, MAP, "attention", attention_weights(pattern))
        w = pattern[:, :, 0].mean(dim=1)
        for picture in range(2):
            expected = w[picture, 0] * x[picture].mean(dim=(1, 2))
            for row in range(2):
                for column in range(2):
                    window = x[picture, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
                    expected += w[picture, 1 + 2 * row + column] * window.mean(dim=(1, 2))
            torch.testing.assert_close(got[picture], expected)

    def test_attention_on_the_last_map_of_a_resnet_is_what_its_pool_weighs(self) -> None:
        from open_clip.modified_resnet import ModifiedResNet

        from interp.models.towers.resnet import HookedResNet

        torch.manual_seed(0)
        tower = HookedResNet(ModifiedResNet((1, 1, 1, 1), 16, 4, image_size=64, width=8)).eval()
        assert pooling_site(tower) == "attnpool.hook_pattern"
        with torch.no_grad():
            _, cache = tower.run_with_cache(torch.randn(2, 3, 64, 64))
        x = cache["layer4.0.hook_resid_post"].flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)  # as the pool itself lays them out
        pattern = cache["attnpool.hook_pattern"]
        expected = torch.stack([pattern[:, h, 0, :, None].mul(x).sum(dim=1) for h in range(4)])
        got = pooled(
            cache["layer4.0.hook_resid_post"], MAP, "attention", attention_weights(pattern)
        )
        torch.testing.assert_close(got, expected.mean(dim=0))
        finer = pooled(cache["stem.hook_act1"], MAP, "attention", attention_weights(pattern))
        assert finer.shape == (2, 4)

    @pytest.mark.parametrize(
        "axes", [MAP, ("batch", "pos", "head", "d_head"), ("batch", "head", "query", "key")]
    )
    def test_tokens_can_be_put_back(self, axes) -> None:
        x = torch.rand(2, 3, 4, 5)
        torch.testing.assert_close(untokens(tokens(x, axes), x, axes), x)

    def test_attention_refuses_what_it_cannot_weigh(self, images) -> None:
        with pytest.raises(SiteError, match="5 tokens under weights of 4 keys"):
            pooled(torch.ones(1, 5, 2), ("batch", "pos", "d"), "attention", torch.ones(1, 4))
        with pytest.raises(SiteError, match="3 x 4"):
            pooled(torch.ones(1, 2, 3, 4), MAP, "attention", torch.ones(1, 5))
        with pytest.raises(SpecificationError, match="no weights"):
            pooled(torch.ones(1, 5, 2), ("batch", "pos", "d"), "attention")
        blind = Toy()
        blind.sites = ("map", "tokens")
        refuses(SiteError, "pattern", read, images, tower=blind, pool="attention")


class TestBatches:
    def test_are_what_collect_keeps_and_nothing_is_kept(self, images) -> None:
        kept, seen, done = read(images), [], 0
        for rows, values in batches(Toy(), images, "*", preprocess=preprocess, batch_size=5):
            assert not any(reference() is not None for reference in seen)  # the last batch is gone
            seen = [weakref.ref(matrix) for matrix in values.values()]
            for site in values:
                expected = kept.values[site][rows.start : rows.stop]
                np.testing.assert_array_equal(values[site], expected)
            done = rows.stop
        assert done == 12 and len(seen) == 5

    def test_kept_features_hand_on_the_same(self, images) -> None:
        kept = read(images)
        ours = [(rows, values["heads"].sum()) for rows, values in kept.batches(5)]
        theirs = [
            (rows, values["heads"].sum())
            for rows, values in batches(Toy(), images, "*", preprocess=preprocess, batch_size=5)
        ]
        assert ours == theirs


class Stops(Toy):
    """A tower whose process ends at the third batch."""

    def run_with_cache(self, x: Tensor, **options):
        if len(self.calls) == 3:  # the first picture, and two batches
            raise KeyboardInterrupt
        return super().run_with_cache(x, **options)


class TestFolder:
    @pytest.mark.parametrize("pool", POOLS)
    def test_on_disk_as_in_memory_and_opened_again(self, images, tmp_path, pool) -> None:
        first, plain = read(images, tmp_path, pool=pool), read(images, pool=pool)
        again = Toy()
        second = read(images, tmp_path, again, pool=pool)
        assert [n for n, _ in again.calls] == [1]  # the first picture, to see that it is the same
        for site, matrix in plain.values.items():
            np.testing.assert_array_equal(matrix, first.values[site])
            np.testing.assert_array_equal(matrix, second.values[site])
            assert isinstance(second.values[site], np.memmap)
        assert second.shapes == plain.shapes

    def test_a_stopped_pass_goes_on_where_it_stopped(self, images, tmp_path) -> None:
        refuses(KeyboardInterrupt, "", read, images, tmp_path, Stops())
        assert only(tmp_path).suffix == ".part"
        again = Toy()
        again.load_state_dict(Stops().state_dict())
        again.__class__ = type("Stops", (Toy,), {})  # the name is in the key
        got = read(images, tmp_path, again)
        assert [n for n, _ in again.calls] == [1, 2]
        np.testing.assert_array_equal(got.values["heads"], read(images).values["heads"])

    @pytest.mark.parametrize("stopped", [False, True])
    def test_a_folder_without_a_version_is_opened_and_gone_on_with(
        self, images, tmp_path, stopped
    ) -> None:
        """Facts had no version once: sites had a width each, and files their final size."""
        tower = Stops() if stopped else Toy()
        if stopped:
            refuses(KeyboardInterrupt, "", read, images, tmp_path, tower)
        else:
            read(images, tmp_path, tower)
        folder = only(tmp_path)
        facts = json.loads((folder / "facts.json").read_text())
        widths = {site: about["shape"][0] for site, about in facts["sites"].items()}
        for file, width in zip(sorted(folder.glob("*.npy")), widths.values(), strict=True):
            written = np.fromfile(file, np.float32, offset=128)
            whole = np.zeros((12, width), np.float32)
            whole.ravel()[: len(written)] = written
            np.save(file, whole)
        old = {**facts["identity"], "rows": 12, "sites": widths}
        (folder / "facts.json").write_text(json.dumps(old, indent=1))
        again = Toy()
        again.__class__ = type(type(tower).__name__, (Toy,), {})
        got = read(images, tmp_path, again)
        assert [n for n, _ in again.calls] == ([1, 2] if stopped else [1])
        for site, matrix in read(images).values.items():
            np.testing.assert_array_equal(got.values[site], matrix)

    @pytest.mark.parametrize("harm", ["bytes", "line", "facts"])
    def test_what_was_half_written_is_done_again(self, images, tmp_path, harm) -> None:
        refuses(KeyboardInterrupt, "", read, images, tmp_path, Stops())
        part = only(tmp_path)
        if harm == "bytes":  # pages that a crashed machine never wrote
            with next(part.glob("*heads.npy")).open("r+b") as file:
                file.seek(-4 * 6 * 4, os.SEEK_END)  # row 6 of 10, each 6 numbers
                file.write(bytes(4 * 6))
        elif harm == "line":  # a journal cut off within its second line
            journal = part / "rows-0.txt"
            journal.write_text(journal.read_text()[:-4])
        else:
            (part / "facts.json").write_text("{}")
        again = Toy()
        again.__class__ = type("Stops", (Toy,), {})
        got = read(images, tmp_path, again)
        assert [n for n, _ in again.calls] == ([1, 5, 5, 2] if harm == "facts" else [1, 5, 2])
        for site, matrix in read(images).values.items():
            np.testing.assert_array_equal(got.values[site], matrix)

    def test_another_model_picture_pool_or_preprocess_has_another_folder(
        self, images, tmp_path
    ) -> None:
        other = Toy()
        torch.nn.init.constant_(other.weight, 2.0)
        for number, (tower, table, options) in enumerate([
            (Toy(), images, {}),
            (other, images, {}),
            (Toy(), images[::-1], {}),
            (Toy(), images, {"pool": "class"}),
            (Toy(), images, {"preprocess": lambda picture: preprocess(picture) / 2}),
        ]):  # fmt: skip
            got = read(table, tmp_path, tower, **options)
            assert len(list(tmp_path.iterdir())) == number + 1
            plain = read(table, None, tower, **options)
            np.testing.assert_array_equal(got.values["tokens"], plain.values["tokens"])

    def test_a_change_that_leaves_no_trace_in_weights_is_noticed(self, images, tmp_path) -> None:
        class Same(Toy):
            scale = 1.0

            def run_with_cache(self, x: Tensor, **options):
                out, cache = super().run_with_cache(x, **options)
                return out, {name: self.scale * value for name, value in cache.items()}

        read(images, tmp_path, Same())
        Same.scale = 1.01
        refuses(DataError, r"differ by 1\.0%", read, images, tmp_path, Same())

    def test_a_pass_is_on_the_disk_before_it_counts_as_complete(
        self, images, tmp_path, monkeypatch
    ) -> None:
        synced: list[bool] = []

        def fsync(_: int) -> None:
            synced.append(only(tmp_path).suffix == ".part")

        monkeypatch.setattr("interp.core.storage.activations.os.fsync", fsync)
        read(images, tmp_path)
        # each site's file, under the unfinished name: its rows, then their number
        assert synced == [True] * 2 * len(Toy.sites)

    def test_a_broken_file_and_a_folder_that_is_none_are_named(self, images, tmp_path) -> None:
        read(images, tmp_path)
        file = next(only(tmp_path).glob("*map.npy"))
        file.write_bytes(file.read_bytes()[:-8])
        refuses(DataError, "Delete the folder", read, images, tmp_path)
        (tmp_path / "file").write_text("")
        refuses(OutputError, "activations", read, images, tmp_path / "file")

    def test_a_full_disk_is_said_beforehand_and_when_it_happens(
        self, images, tmp_path, monkeypatch
    ) -> None:
        class Usage:
            free = 100

        with monkeypatch.context() as patch:
            patch.setattr("interp.core.storage.store.shutil.disk_usage", lambda _: Usage)
            refuses(OutputError, "free", read, images, tmp_path)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("interp.core.storage.activations.ActivationWriter._handle", full)
            refuses(OutputError, "disk that is full", read, images, tmp_path)
        assert len(read(images, tmp_path)) == 12

    def test_a_tower_without_weights_cannot_be_told_apart(self, images, tmp_path) -> None:
        class Bare(Toy):
            def __getattribute__(self, name: str):
                if name in ("state_dict", "cfg"):
                    raise AttributeError(name)
                return super().__getattribute__(name)

        refuses(SpecificationError, "state_dict", read, images, tmp_path, Bare())


def test_shares_of_ranks_are_disjoint_and_hold_every_row() -> None:
    for n in (0, 1, 7, 12):
        for count in (1, 2, 5):
            rows = [row for place in range(count) for row in Rank(place, count).share(n)]
            assert rows == list(range(n))


WORKER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from interp.core.errors import NumericsError
from interp.core.parallel import summed, this_rank
from interp.probes.features.collect import batches, collect
from tests.probes.toy import Toy, noise, preprocess
from interp.core.images import ImageTable
import pandas as pd

pictures, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
images = ImageTable(pd.read_json(pictures / "frame.json", dtype=False), pictures)
toy = Toy()
options = {"preprocess": preprocess, "batch_size": 4}
if mode == "killed":
    plain = toy.run_with_cache
    def run(x, **names):
        if len(toy.calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(x, **names)
    toy.run_with_cache = run
    collect(toy, images, "*", folder=out, **options)
place = this_rank().place
np.savez(out / f"memory-{place}.npz", **collect(toy, images, "*", **options).values)
toy.calls.clear()
stored = collect(toy, images, "*", folder=out, **options)
np.savez(out / f"disk-{place}.npz", **stored.values)
ran = sum(n for n, _ in toy.calls)
total = summed(sum(v["tokens"].sum(axis=0) for _, v in batches(toy, images, "*", **options)))
toy.poison = 7.0  # in the second rank's share
try:
    collect(toy, images, "*", **options)
except NumericsError as error:
    np.savez(out / f"more-{place}.npz", total=total, ran=ran, error=str(error))
"""


def start(images: ImageTable, out: Path, mode: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(images.root), str(out), mode]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_pass_is_finished_by_two_ranks_that_agree_with_one(images, tmp_path) -> None:
    images.frame.to_json(images.root / "frame.json")
    alone = start(images, tmp_path, "killed")
    alone.communicate()
    assert alone.returncode == -signal.SIGKILL
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        start(images, tmp_path, "ranks", RANK=str(place), WORLD_SIZE="2",
              MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for place in (0, 1)
    ]  # fmt: skip
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    plain = read(images).values
    for place in (0, 1):
        for kind in ("memory", "disk"):
            with np.load(tmp_path / f"{kind}-{place}.npz") as found:
                for site, matrix in plain.items():
                    np.testing.assert_allclose(found[site], matrix, rtol=1e-6)
        with np.load(tmp_path / f"more-{place}.npz") as found:
            np.testing.assert_allclose(found["total"], plain["tokens"].sum(axis=0), rtol=1e-6)
            assert "7.png" in str(found["error"])  # both ranks stop for what one has met
            assert found["ran"] == (3, 7)[place]  # 4 of 12 were there; each ran the first again
