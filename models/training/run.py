"""One training run: its inputs, where its result goes, and the command that trains it."""

import sys
from dataclasses import dataclass
from pathlib import Path

from interp.core.errors import DataError, SpecificationError
from interp.models.training.alignment import Pairing
from interp.models.training.lists import Base, pack, pattern_of
from interp.models.training.masked_loss import Negatives
from interp.models.training.recipes import VARIED, Recipe, fast_precision
from interp.models.training.resume import inputs

TOLD = "interp could not: "
"""What stands before an error of ours in the output of the launcher."""


@dataclass(frozen=True)
class Run:
    """One training run: a name, its model folder, its pictures, and where the result goes.

    Args:
        name: The run's name and the name of its folder.
        model_folder: The model folder, as `write_model_folder` makes it.
        tsv: The training list.
        n_train: Number of rows of `tsv`.
        out: The folder of runs.
        recipe: How to train.
        base: Shards that are trained on as well; the TSV's pictures are then written as shards too,
            in `shards` beside it.

    >>> folders = Path("models/vit-small"), Path("mixtures/cg-high/train.tsv")
    >>> run = Run("cg-high-0", *folders, 4000, Path("runs"), Recipe(epochs=4))
    >>> run.final.as_posix(), run.kept_epochs
    ('runs/cg-high-0/checkpoints/epoch_4.pt', (0, 4))
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
        """Number of pictures in an epoch, the base set included."""
        return self.n_train + (self.base.pictures if self.base else 0)

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return self.recipe.epochs_for(self.pictures)

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The epochs whose checkpoints are kept."""
        return self.recipe.kept_epochs(self.epochs)

    @property
    def folder(self) -> Path:
        """The folder of everything that the run writes."""
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
        """Refuse inputs that cannot be trained on, before anything is started.

        Raises:
            DataError: If the training list or the model folder is missing.
            SpecificationError: For a base set of shards with labels or an alignment term.
        """
        for path, what in ((self.tsv, "a training TSV"), (self.model_folder, "a model folder")):
            if not path.exists():
                raise DataError(
                    f"train {self.name}", f"{path}, which is not there", what, "check the path"
                )
        if self.base is not None and self.recipe.objective == "supervised":
            asked = f"train {self.name} on labels"
            given = f"the base set {self.base.pattern}, whose shards have captions only"
            right = "a mixture without a base set of shards"
            raise SpecificationError(asked, given, right, "leave the base set out")

        if self.base is not None and (self.recipe.align or self._masked):
            given = f"the base set {self.base.pattern}, whose shards carry no classes and domains"
            right = "a mixture without a base set of shards"
            do = "leave the base set out, or give it as a TSV"
            doing = "align classes" if self.recipe.align else "leave negatives out"
            raise SpecificationError(f"{doing} in {self.name}", given, right, do)
        if self._masked:
            self._negatives  # noqa: B018 - refuses a mixture without pictures of the domain
        if self.recipe.align:
            self._check_alignment()

    def _check_alignment(self) -> None:
        """Refuse an alignment term whose classes, domains or site do not exist."""
        from interp.models.loading.load_clip import create
        from interp.models.training.alignment import find_block

        Pairing.of(self.tsv)
        model = create(f"local-dir:{self.model_folder}", load_weights=False)
        find_block(model, self.recipe.align_site)

    def prepare(self) -> None:
        """Write the shards that a run with a base set needs, if they do not exist."""
        if self.base is not None:
            pack(self.tsv, self._shards)

    @property
    def _shards(self) -> Path:
        return self.tsv.parent / "shards"

    @property
    def _data(self) -> dict[str, object]:
        """The options that say where the pictures are."""
        if self.base is None:
            return {"train-data": self.tsv, "dataset-type": "csv"}
        return {
            "train-data": f"{pattern_of(self._shards, self.n_train)}::{self.base.pattern}",
            "dataset-type": "webdataset",
            "train-num-samples": self.pictures,
        }

    def decisive(self) -> dict[str, object]:
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
            **self._varied,
            **self._alignment,
            **self._masked,
            **({"align_cells": Pairing.of(self.tsv).key} if self.recipe.align else {}),
            **({"negative_cells": self._negatives.key} if self._masked else {}),
        }

    @property
    def _negatives(self) -> Negatives:
        """The negatives that the loss leaves out."""
        return Negatives.of(self.tsv, self.recipe.negatives, seed=self.recipe.seed)

    @property
    def _varied(self) -> dict[str, object]:
        """The options of augmentation beside crops that are asked for."""
        return {name: value for name in VARIED if (value := getattr(self.recipe, name))}

    @property
    def _masked(self) -> dict[str, object]:
        """The option of a loss without some negatives; none where it has all."""
        kind = self.recipe.negatives
        return {} if kind == "all" else {"negatives": kind}

    @property
    def _alignment(self) -> dict[str, object]:
        """The options of the term that aligns classes; none where it has no weight."""
        names = ("align", "align_site", "align_classes") if self.recipe.align else ()
        return {name: getattr(self.recipe, name) for name in names}

    def options(self, *, device: str, world: int, track: bool) -> dict[str, object]:
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
            "keep": list(self.kept_epochs),
            "precision": precision,
            "workers": recipe.workers,
            "device": device,
            "log-every-n-steps": 20,
            **self._varied,
            **self._masked,
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
        """The command that trains this run, on this machine or another.

        Several processes meet through torchrun; one starts at once.

        Args:
            device: Where to train.
            processes: Processes on each machine.
            nodes: Number of machines; give the same command on each.
            rendezvous: Address of one of the machines, where they meet.
            track: Whether to write TensorBoard files.

        Returns:
            The words of the command. Shards that it reads are written first.

        Raises:
            SpecificationError: If the processes do not divide the batch.
        """
        self.prepare()
        world = processes * nodes
        options = self.options(device=device, world=world, track=track)
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        launcher = ["-m", "interp.models.training.launcher", "--", *words]
        if world == 1:
            return [sys.executable, *launcher]
        meeting = ["--standalone"]
        if nodes > 1:
            meeting = ["--nnodes", str(nodes), "--rdzv-backend", "c10d"]
            meeting += ["--rdzv-endpoint", rendezvous, "--rdzv-id", self.name]
        meeting += ["--nproc-per-node", str(processes)]
        # each process then holds its share of the logits, and gradients cross between them
        local = ["--local-loss", "--gather-with-grad"]
        return [sys.executable, "-m", "torch.distributed.run", *meeting, *launcher, *local]
