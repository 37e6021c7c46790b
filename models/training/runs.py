"""One training run: what goes in, where the result goes, and the command that makes it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.core.errors import DataError, SpecificationError
from interp.models.training.alignment import Pairing
from interp.models.training.identity import inputs
from interp.models.training.lists import Base, pack, pattern_of
from interp.models.training.recipes import Recipe, fast_precision

TOLD = "interp could not: "
"""What stands before an error of ours in the output of the launcher."""


@dataclass(frozen=True)
class Run:
    """One training run: a name, its model folder, its pictures, and where the result goes.

    `n_train` counts the rows of `tsv`. A `base` set of shards is trained on beside them; the TSV's
    pictures are then written as shards too, in `shards` beside it.
    """

    name: str
    model_folder: Path
    tsv: Path
    n_train: int
    out: Path
    recipe: Recipe
    base: Base | None = None

    @property
    def pictures(self) -> int:
        """How many pictures an epoch has, the base set's among them."""
        return self.n_train + (self.base.pictures if self.base else 0)

    @property
    def epochs(self) -> int:
        """How many epochs the run has."""
        return self.recipe.epochs_for(self.pictures)

    @property
    def kept(self) -> tuple[int, ...]:
        """The epochs whose checkpoints stay."""
        return self.recipe.kept(self.epochs)

    @property
    def folder(self) -> Path:
        """Everything that the run writes."""
        return self.out / self.name

    @property
    def checkpoints(self) -> Path:
        """The folder of `epoch_k.pt`."""
        return self.folder / "checkpoints"

    @property
    def final(self) -> Path:
        """The last checkpoint; it exists when the run is finished."""
        return self.checkpoints / f"epoch_{self.epochs}.pt"

    def check(self) -> None:
        """Refuse what cannot be trained on, before anything is started."""
        for path, what in ((self.tsv, "a training TSV"), (self.model_folder, "a model folder")):
            if not path.exists():
                raise DataError(
                    f"train {self.name}", f"{path}, which is not there", what, "check the path"
                )
        if self.base is not None and self.recipe.objective == "supervised":
            raise SpecificationError(
                f"train {self.name} on labels",
                f"the base set {self.base.pattern}, whose shards have captions only",
                "a mixture without a base set of shards",
                "leave the base set out",
            )

        if self.recipe.align:
            self._check_alignment()

    def _check_alignment(self) -> None:
        """Refuse a term for which classes, domains or the site are not there."""
        from interp.models.loading.load import create
        from interp.models.training.alignment import find_block

        if self.base is not None:
            raise SpecificationError(
                f"align classes in {self.name}",
                f"the base set {self.base.pattern}, whose shards carry no classes and domains",
                "a mixture without a base set of shards",
                "leave the base set out, or give it as a TSV",
            )
        Pairing.of(self.tsv)
        model = create(f"local-dir:{self.model_folder}", load_weights=False)
        find_block(model, self.recipe.align_site)

    def prepare(self) -> None:
        """Write the shards that a run with a base set needs, if they are not there."""
        if self.base is not None:
            pack(self.tsv, self._shards)

    @property
    def _shards(self) -> Path:
        return self.tsv.parent / "shards"

    @property
    def _data(self) -> dict[str, Any]:
        """The options that say where the pictures are."""
        if self.base is None:
            return {"train-data": self.tsv, "dataset-type": "csv"}
        return {
            "train-data": f"{pattern_of(self._shards, self.n_train)}::{self.base.pattern}",
            "dataset-type": "webdataset",
            "train-num-samples": self.pictures,
        }

    def decisive(self) -> dict[str, Any]:
        """The options that decide the result, as `params.txt` has them."""
        recipe = self.recipe
        plain = ("objective", "lr", "wd", "beta2", "eps", "warmup", "optimizer", "crop", "seed")
        return {
            **inputs(self.model_folder, str(self._data["train-data"])),
            **{name: getattr(recipe, name) for name in plain},
            "epochs": self.epochs,
            "global_batch": recipe.batch_size,
            "milestones": list(recipe.milestones),
            "augment": int(recipe.augment),
            **self._alignment,
            **({"align_cells": Pairing.of(self.tsv).key} if self.recipe.align else {}),
        }

    @property
    def _alignment(self) -> dict[str, Any]:
        """The options of the term that aligns classes; none where it has no weight."""
        names = ("align", "align_site", "align_classes") if self.recipe.align else ()
        return {name: getattr(self.recipe, name) for name in names}

    def options(self, *, device: str, world: int, track: bool) -> dict[str, Any]:
        """The launcher's options and their values."""
        recipe = self.recipe
        precision = fast_precision(device) if recipe.precision == "auto" else recipe.precision
        plain = ("lr", "wd", "beta2", "eps", "warmup", "objective", "optimizer", "crop", "seed")
        return {
            "model": f"local-dir:{self.model_folder}",
            **self._data,
            "csv-separator": "\t",
            "logs": self.out,
            "name": self.name,
            "epochs": self.epochs,
            "batch-size": recipe.share(world),
            "accum-freq": recipe.accumulate,
            **{name: getattr(recipe, name) for name in plain},
            "augment": int(recipe.augment),
            "milestones": list(recipe.milestones),
            "keep": list(self.kept),
            "precision": precision,
            "workers": recipe.workers,
            "device": device,
            "log-every-n-steps": 20,
            **{name.replace("_", "-"): value for name, value in self._alignment.items()},
            **({"report-to": "tensorboard"} if track else {}),
        }

    def command(
        self,
        *,
        device: str,
        processes: int = 1,
        nodes: int = 1,
        rendezvous: str = "HOST:29500",
        track: bool = False,
    ) -> list[str]:
        """The torchrun command that makes this run, for this machine or another.

        `processes` run on each of `nodes` machines, which meet at `rendezvous`, the address of one
        of them; give the same command on each. Shards that it reads are written first. Raises
        `SpecificationError` where the processes do not divide the batch.
        """
        self.prepare()
        world = processes * nodes
        options = self.options(device=device, world=world, track=track)
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        meeting = ["--standalone"]
        if nodes > 1:
            meeting = ["--nnodes", str(nodes), "--rdzv-backend", "c10d"]
            meeting += ["--rdzv-endpoint", rendezvous, "--rdzv-id", self.name]
        # each process then holds its share of the logits, and gradients cross between them
        local = ["--local-loss", "--gather-with-grad"] if world > 1 else []
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *meeting,
            "--nproc-per-node",
            str(processes),
            "-m",
            "interp.models.training.launcher",
            "--",
            *words,
            *local,
        ]
