"""open_clip's trainer, started through torchrun where open_clip's own `main` does not serve.

    torchrun --nproc-per-node 1 -m interp.models.launcher -- --model local-dir:FOLDER ...

The options are open_clip's (`open_clip_train.params`), and so are model, loss, data, schedule and
`train_one_epoch`. Only this differs from its `main`: DDP also runs on the CPU; the untrained model
is kept as `epoch_0.pt`; checkpoints are written under another name and renamed, so that a kill
never leaves a truncated one; convolutions run in channels_last; pictures take a quicker, equal way
to tensors; every epoch has a random stream of its own, so that a resumed run repeats an
uninterrupted one.
"""

import logging
import sys
import warnings
from argparse import Namespace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from open_clip import create_loss, create_model_and_transforms, get_tokenizer
from open_clip_train.data import get_data
from open_clip_train.distributed import init_distributed_device, is_master
from open_clip_train.file_utils import pt_load
from open_clip_train.logger import setup_logging
from open_clip_train.main import get_latest_checkpoint, random_seed
from open_clip_train.params import parse_args
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn

from interp.models.augmentation import quick


def main(argv: list[str]) -> None:
    """Train one CLIP, from its latest checkpoint if there is one."""
    args = prepare(argv)
    device = init_distributed_device(args)
    run = Path(args.logs) / args.name
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    log = str(run / "out.log") if is_master(args) else None
    setup_logging(log, logging.INFO if is_master(args) else logging.ERROR)
    model, transforms = build(args, device)
    optimizer = build_optimizer(model, args)
    scaler = torch.amp.GradScaler(device.type) if args.precision == "amp" else None
    if is_master(args):  # in open_clip's form; a checkpoint's architecture is read from here again
        lines = [f"{name}: {value}\n" for name, value in sorted(vars(args).items())]
        (run / "params.txt").write_text("".join(lines))
    start = resume(folder, model, optimizer, scaler, args)
    wrapped = parallel(model, args, device)
    random_seed(args.seed, args.rank)
    data = get_data(args, transforms, epoch=start, tokenizer=remembering(get_tokenizer(args.model)))
    steps = data["train"].dataloader.num_batches // args.accum_freq * args.epochs
    schedule, loss = cosine_lr(optimizer, args.lr, args.warmup, steps), create_loss(args)
    for epoch in range(start, args.epochs):
        random_seed(args.seed + 1_000_003 * epoch, args.rank)
        train_one_epoch(wrapped, data, loss, epoch, optimizer, scaler, schedule, None, args)
        save(folder, epoch + 1, model, optimizer, scaler, args)


def prepare(argv: list[str]) -> Namespace:
    """open_clip's options, with what its `main` derives from them."""
    args = parse_args(argv)
    args.distill = args.wandb = args.tensorboard = False
    # parse_args knows betas and eps by the model's name, and a local folder has none
    for name, usual in {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}.items():
        if getattr(args, name) is None:
            setattr(args, name, usual)
    return args


def build(args: Namespace, device: torch.device) -> tuple[nn.Module, tuple[Any, Any]]:
    """The model in channels_last, the same on every rank, and open_clip's two transforms."""
    random_seed(args.seed, 0)
    model, *transforms = create_model_and_transforms(
        args.model, precision=args.precision, device=device, output_dict=True, aug_cfg=args.aug_cfg
    )
    return model.to(memory_format=torch.channels_last), (quick(transforms[0]), transforms[1])


def build_optimizer(model: nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """AdamW without decay on gains, biases and the logit scale, as open_clip's `main` has it."""
    plain, decayed = [], []
    for name, parameter in model.named_parameters():
        free = any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
        (plain if parameter.ndim < 2 or free else decayed).append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": args.wd}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)


def parallel(model: nn.Module, args: Namespace, device: torch.device) -> nn.Module:
    """DDP where there is more than one rank; on the CPU it must not be told a device."""
    if not args.distributed:
        return model
    if args.use_bn_sync:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    ids = None if device.type == "cpu" else [device]
    return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def remembering(tokenize: Any) -> Any:
    """Tokenize each distinct caption once."""
    one = lru_cache(maxsize=200_000)(lambda text: tokenize([text])[0])

    def tokens(texts: list[str]) -> Tensor:
        return torch.stack([one(text) for text in texts])

    return tokens


def resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, args: Namespace
) -> int:
    """Go on from the latest checkpoint; without one, keep the untrained model as epoch 0."""
    latest = get_latest_checkpoint(str(folder), remote=False)
    if latest is None:
        save(folder, 0, model, optimizer, scaler, args)
        return 0
    checkpoint = pt_load(latest, map_location="cpu")
    model.load_state_dict(checkpoint["state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    if scaler is not None:
        scaler.load_state_dict(checkpoint["scaler"])
    logging.info(f"Resuming from epoch {checkpoint['epoch']}")
    return int(checkpoint["epoch"])


def save(
    folder: Path, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any,
    args: Namespace,
) -> None:  # fmt: skip
    """Write `epoch_k.pt` whole or not at all, then drop the one before unless it is to be kept."""
    if not is_master(args):
        return
    states = {"state_dict": model, "optimizer": optimizer, "scaler": scaler}
    content = {name: part.state_dict() for name, part in states.items() if part is not None}
    torch.save({"epoch": epoch, "name": args.name, **content}, folder / "writing.tmp")
    (folder / "writing.tmp").replace(folder / f"epoch_{epoch}.pt")
    before = epoch - 1
    if before > 0 and (args.save_frequency == 0 or before % args.save_frequency):
        (folder / f"epoch_{before}.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    main([word for word in sys.argv[1:] if word != "--"])  # torchrun hands its separator on
