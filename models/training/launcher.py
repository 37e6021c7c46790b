"""open_clip's trainer with a main function of its own, for one process or under torchrun.

    python -m interp.models.training.launcher -- --model local-dir:FOLDER ...
    torchrun --nproc-per-node 4 -m interp.models.training.launcher -- --model local-dir:FOLDER ...

The options are open_clip's (`open_clip_train.params`) and those of `OWN`. Model, loss, shards,
cosine and `train_one_epoch` are open_clip's. It differs from open_clip's `main` in this:

- DDP also runs on the CPU, and every step's loss is recorded;
- the untrained model is kept, checkpoints are atomic, and only the latest holds the optimizer;
- convolutions run in channels_last, and pictures are decoded once and converted faster;
- the order of pictures and their crops depend on seed and epoch alone, so that a resumed run
  repeats an uninterrupted one and two processes repeat one;
- the loss can be that of labels, leave negatives out, and have a term that aligns classes.
"""

import argparse
import ctypes
import errno
import json
import logging
import os
import signal
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from open_clip import create_loss, create_model_and_transforms, get_tokenizer
from open_clip_train.distributed import init_distributed_device, is_master
from open_clip_train.logger import setup_logging
from open_clip_train.main import random_seed
from open_clip_train.params import parse_args
from open_clip_train.scheduler import assign_learning_rate, cosine_lr
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.transforms import Compose

from interp.core.errors import InterpError, OutputError, SpecificationError
from interp.models.loading.load_classifier import LabelledTower, LabelLoss
from interp.models.loading.presets import remembering
from interp.models.training.alignment import AlignedLoss, Alignment, Pairing, Watched, find_block
from interp.models.training.data import feed, quick, varied
from interp.models.training.journal import Journal, tensorboard
from interp.models.training.lists import classes_of, numbering
from interp.models.training.masked_loss import MaskedLoss, Negatives
from interp.models.training.recipes import (
    NEGATIVES,
    OBJECTIVES,
    OPTIMIZERS,
    PARTNERS,
    PRECISIONS,
    VARIED,
)
from interp.models.training.resume import alone, inputs, refuse_another, resume, save, write_params
from interp.models.training.run import TOLD

Schedule = Callable[[int], float]
"""From a step to its learning rate, which it also sets in the optimizer."""


def build_schedule(optimizer: torch.optim.Optimizer, args: Namespace, steps: int) -> Schedule:
    """Create a cosine schedule of all epochs' steps, or a stepwise one if there are milestones."""
    if not args.milestones:
        return cosine_lr(optimizer, args.lr, args.warmup, steps)
    return stepwise(
        optimizer, args.lr, args.warmup, [steps * m // args.epochs for m in args.milestones]
    )


def stepwise(
    optimizer: torch.optim.Optimizer, lr: float, warmup: int, milestones: Sequence[int]
) -> Schedule:
    """Create a schedule that rises over the warmup and falls to a tenth after each milestone.

    Args:
        optimizer: The optimizer whose rate is set.
        lr: The largest rate.
        warmup: Number of steps of the warmup.
        milestones: Steps at which the rate falls.

    Returns:
        The schedule.

    >>> sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> [round(stepwise(sgd, 1.0, 2, [3, 4])(step), 4) for step in range(5)]
    [0.5, 1.0, 1.0, 0.1, 0.01]
    """

    def schedule(step: int) -> float:
        passed = sum(step >= milestone for milestone in milestones)
        rate = lr * (step + 1) / warmup if step < warmup else lr * 0.1**passed
        assign_learning_rate(optimizer, rate)
        return rate

    return schedule


_PARENT_DIED = 1  # Linux's PR_SET_PDEATHSIG


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends.

    A torchrun that is killed with SIGKILL cannot end its workers itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)


OWN: dict[str, dict[str, Any]] = {
    "objective": {"choices": OBJECTIVES, "default": "clip"},
    "optimizer": {"choices": OPTIMIZERS, "default": "adamw"},
    "precision": {"choices": PRECISIONS, "default": "fp32"},
    "milestones": {"type": json.loads, "default": []},  # epochs after which the rate falls
    "keep": {"type": json.loads, "default": []},  # epochs whose weights stay
    "crop": {"type": float, "default": 0.9},
    "augment": {"type": int, "default": 1},
    **{name: {"type": float, "default": 0.0} for name in VARIED},  # augmentation beside crops
    "align": {"type": float, "default": 0.0},  # weight of the term that aligns classes
    "align-site": {"default": ""},
    "align-classes": {"choices": PARTNERS, "default": "own"},
    "negatives": {"choices": tuple(NEGATIVES), "default": "all"},  # pairs that the loss leaves out
}


def main(argv: list[str]) -> None:
    """Train one model, from its latest checkpoint if there is one.

    Args:
        argv: Options of the command line.
    """
    args = prepare(argv)
    device = init_distributed_device(args)
    args.global_batch = args.batch_size * args.world_size * args.accum_freq
    run = Path(args.logs) / args.name
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    log = str(run / "out.log") if is_master(args) else None
    setup_logging(log, logging.INFO if is_master(args) else logging.ERROR)
    # the flash kernel of CPUs takes a quarter of a small model's step
    kernels = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with alone(run) if is_master(args) else nullcontext(), kernels:
        if args.distributed:
            torch.distributed.barrier()  # until the first rank has the folder
        if is_master(args):
            refuse_another(run, vars(args))
        if not (run / "checkpoints" / f"epoch_{args.epochs}.pt").exists():
            train(args, device, run)


def train(args: Namespace, device: torch.device, run: Path) -> None:
    """Create the model and train it for the epochs that are left.

    Args:
        args: The launcher's options.
        device: Where to train.
        run: The run's folder.
    """
    folder = run / "checkpoints"
    if is_master(args):
        write_params(run, args)
    model, transform = build(args, device)
    optimizer = build_optimizer(model, args)
    scaler = torch.amp.GradScaler(device.type) if args.precision == "amp" else None
    term = build_term(args, device)
    start = resume(folder, model, optimizer, scaler, term)
    logging.info(f"Resuming from epoch {start}" if start else "Starting at epoch 0")
    if is_master(args) and not start:
        save(folder, 0, model, optimizer, scaler, args, term)
    shown, loss, marks = model, build_loss(args), None
    if args.negatives != "all":
        shown = Watched(model, labels=bool(args.classes))
        loss, marks = build_masked_loss(args)
    if term is not None:
        shown = Watched(model, find_block(model, args.align_site), labels=bool(args.classes))
        loss, marks = AlignedLoss(loss, term, args.align), mark_rows(args)
    wrapped = in_parallel(shown, args, device)
    data = {"train": feed(args, transform, build_target(args), epoch=start, marks=marks)}
    loader = data["train"].dataloader
    steps = loader.num_batches // args.accum_freq * args.epochs  # type: ignore[attr-defined]
    schedule, journal = build_schedule(optimizer, args, steps), Journal(run, args, start)
    data["train"].dataloader = journal.feeding(loader)
    steer, judge, writer = journal.steering(schedule), journal.judging(loss), tensorboard(run, args)
    for epoch in range(start, args.epochs):
        random_seed(args.seed + 1_000_003 * epoch, args.rank)
        train_one_epoch(wrapped, data, judge, epoch, optimizer, scaler, steer, None, args, writer)
        journal.close(epoch + 1)
        if is_master(args):
            save(folder, epoch + 1, model, optimizer, scaler, args, term)


def prepare(argv: list[str]) -> Namespace:
    """Parse open_clip's options and our own, and add what its `main` derives from them.

    Args:
        argv: Options of the command line.

    Returns:
        All options.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, form in OWN.items():
        parser.add_argument(f"--{name}", **form)
    own, rest = parser.parse_known_args(argv)
    args = parse_args(rest)
    vars(args).update(vars(own))
    args.distill = args.wandb = False
    args.tensorboard = "tensorboard" in args.report_to
    # parse_args knows betas and eps by the model's name, and a local folder has none
    for name, usual in {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}.items():
        if getattr(args, name) is None:
            setattr(args, name, usual)
    args.keep = sorted({0, args.epochs, *own.keep})
    args.local_world = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    args.classes = classes_of(Path(args.train_data)) if args.objective == "supervised" else ()
    tsv, masked = Path(args.train_data), args.negatives != "all"
    args.align_cells = Pairing.of(tsv).key if args.align else ""
    args.negative_cells = Negatives.of(tsv, args.negatives, seed=args.seed).key if masked else ""
    vars(args).update(inputs(Path(args.model.removeprefix("local-dir:")), args.train_data))
    return args


def build(args: Namespace, device: torch.device) -> tuple[nn.Module, Compose]:
    """Create the model in channels_last, the same on every rank, and its pictures' transform."""
    random_seed(args.seed, 0)
    precision = "fp32" if args.precision == "fp64" else args.precision
    model, *transforms = create_model_and_transforms(
        args.model,
        precision=precision,
        device=device,
        output_dict=True,
        aug_cfg={**args.aug_cfg, "scale": (args.crop, 1.0)},
    )
    transform = transforms[0 if args.augment else 1]
    if args.augment:
        transform = varied(transform, **{name: getattr(args, name) for name in VARIED})
    transform = quick(transform)
    if args.objective == "supervised":
        visual = model.visual
        with torch.no_grad():
            width = visual.eval()(torch.zeros(1, 3, *_pair(visual.image_size), device=device))
        model = LabelledTower(visual, len(args.classes), width.shape[-1]).to(device)
    if args.precision == "fp64":
        model, transform = model.double(), Compose([*transform.transforms, Tensor.double])
    return model.to(memory_format=torch.channels_last), transform  # pyright: ignore[reportCallIssue]


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def build_target(args: Namespace) -> Callable[[list[str]], Tensor]:
    """The function from the words of a row to tokens, or to the number of its class."""
    if args.objective == "supervised":
        return numbering(args.classes)
    return remembering(get_tokenizer(args.model))


def build_loss(args: Namespace) -> nn.Module:
    """open_clip's contrastive loss, or the cross entropy of labels."""
    return LabelLoss() if args.objective == "supervised" else create_loss(args)


def build_masked_loss(args: Namespace) -> tuple[nn.Module, Tensor]:
    """The loss without some negatives, and the mark of each row of the training list."""
    tsv = Path(args.train_data)
    asked = Negatives.of(tsv, args.negatives, seed=args.seed)
    columns = tuple(n for n, label in enumerate(args.classes) if label in asked.classes)
    return MaskedLoss(only=asked.kind == "only", columns=columns), asked.marks(tsv)


def build_term(args: Namespace, device: torch.device) -> Alignment | None:
    """The term that aligns the classes of two domains, or None if it has no weight."""
    if not args.align:
        return None
    n_classes = len(Pairing.of(Path(args.train_data)).classes)
    return Alignment(n_classes, separates=args.align < 0, every=args.accum_freq, device=device)


def mark_rows(args: Namespace) -> Tensor:
    """The mark of each row of the training list: its class and domain in the alignment term."""
    pairing = Pairing.of(Path(args.train_data))
    return pairing.marks(Path(args.train_data), args.align_classes == "shuffled", seed=args.seed)


def in_parallel(model: nn.Module, args: Namespace, device: torch.device) -> nn.Module:
    """Wrap the model in DDP if there is more than one rank."""
    if not args.distributed:
        return model
    if args.use_bn_sync:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    ids = None if device.type == "cpu" else [device]
    return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def launch(argv: list[str]) -> int:
    """Train, and report an error of ours in one line that the parent process reads.

    Args:
        argv: Options of the command line.

    Returns:
        The exit status: 0, or 2 after an error of ours.
    """
    try:
        main([word for word in argv if word != "--"])  # torchrun hands its separator on
    except (InterpError, OSError) as error:
        if isinstance(error, OSError):
            if error.errno != errno.ENOSPC:
                raise
            error = OutputError("train", "a disk that is full", "free space", "make room")
        parts = [error.asked, error.given, error.right, error.do]
        print(TOLD + json.dumps([type(error).__name__, *parts]), flush=True)
        return 2
    return 0


MUON_RATE = 20.0
"""How many times AdamW's rate Muon's is; its updates have length 1 in every direction."""


def build_optimizer(model: nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """Create AdamW as in open_clip, Muon beside it, or SGD for the supervised baseline.

    Args:
        model: The model.
        args: The launcher's options.

    Returns:
        AdamW without decay on gains, biases and the logit scale, all else but the matrices of
        transformer blocks under "muon"; or SGD with Nesterov momentum and one decay for all.

    Raises:
        SpecificationError: For "muon" with a torch that has none.
    """
    if args.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=args.lr, momentum=0.9, nesterov=True, weight_decay=args.wd
        )
    plain, decayed, matrices = [], [], []
    for name, parameter in model.named_parameters():
        free = any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
        in_block = args.optimizer == "muon" and "resblocks" in name
        kind = plain if parameter.ndim < 2 or free else matrices if in_block else decayed
        kind.append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": args.wd}]
    betas = (args.beta1, args.beta2)
    adamw = torch.optim.AdamW(groups, lr=args.lr, betas=betas, eps=args.eps, fused=True)
    if not matrices:
        return adamw
    if not hasattr(torch.optim, "Muon"):
        raise SpecificationError(
            "train with muon", f"torch {torch.__version__}", "torch 2.9 or newer", "install it"
        )
    muon = torch.optim.Muon(matrices, lr=args.lr, weight_decay=args.wd)
    return WithMuon(adamw, muon)


class WithMuon(torch.optim.Optimizer):
    """AdamW, and Muon for the matrices of transformer blocks, as one optimizer with one rate.

    Muon (Jordan et al. 2024) makes the update of a matrix orthogonal. It takes `MUON_RATE` times
    the rate that is set, and as much less of the decay, so that decay is AdamW's.

    Args:
        adamw: The optimizer of all that are no such matrices.
        muon: The optimizer of the matrices.
    """

    def __init__(self, adamw: torch.optim.Optimizer, muon: torch.optim.Optimizer) -> None:
        self.parts = {"adamw": adamw, "muon": muon}
        for group in muon.param_groups:
            group["weight_decay"] /= MUON_RATE
        super().__init__([*adamw.param_groups, *muon.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step with both."""
        loss = self.parts["adamw"].step(closure)
        [group] = self.parts["muon"].param_groups
        rate = group["lr"]
        group["lr"] = MUON_RATE * rate
        self.parts["muon"].step()
        group["lr"] = rate
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of both."""
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, object]:
        """The states of both."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: Mapping[str, dict[str, object]]) -> None:
        """Go on from the states of both."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    end_with_parent()
    sys.exit(launch(sys.argv[1:]))
