"""open_clip's trainer, started through torchrun where open_clip's own `main` does not serve.

    torchrun --nproc-per-node 1 -m interp.models.launcher -- --model local-dir:FOLDER ...

The options are open_clip's (`open_clip_train.params`), and so are model, loss, data, schedule and
`train_one_epoch`. Only this differs from its `main`: DDP also runs on the CPU; the untrained model
is kept as `epoch_0.pt`; checkpoints are written under another name and renamed, so that a kill
never leaves a truncated one; convolutions run in channels_last; every epoch has a random stream of
its own, so that a resumed run repeats an uninterrupted one.
"""

import argparse
import logging
import sys
import warnings
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


def main(argv: list[str]) -> None:
    """Train one CLIP, from its latest checkpoint if there is one."""
    args = prepare(argv)
    device = init_distributed_device(args)
    run = Path(args.logs) / args.name
    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    args.checkpoint_path = str(checkpoints)
    args.log_path = str(run / "out.log") if is_master(args) else None
    setup_logging(args.log_path, logging.INFO if is_master(args) else logging.ERROR)
    model, transforms = build(args, device)
    optimizer = build_optimizer(model, args)
    scaler = torch.amp.GradScaler(device.type) if args.precision == "amp" else None
    wrapped = parallel(model, args, device)
    if is_master(args):
        write_params(run / "params.txt", args)
    start = resume(checkpoints, model, optimizer, scaler, args)
    random_seed(args.seed, args.rank)
    data = get_data(args, transforms, epoch=start, tokenizer=remembering(get_tokenizer(args.model)))
    steps = data["train"].dataloader.num_batches // args.accum_freq * args.epochs
    schedule = cosine_lr(optimizer, args.lr, args.warmup, steps)
    loss = create_loss(args)
    for epoch in range(start, args.epochs):
        random_seed(args.seed + 1_000_003 * epoch, args.rank)
        train_one_epoch(wrapped, data, loss, epoch, optimizer, scaler, schedule, None, args)
        save(checkpoints, epoch + 1, model, optimizer, scaler, args)
    logging.info("Finished training")


def prepare(argv: list[str]) -> argparse.Namespace:
    """open_clip's options, with what its `main` derives from them."""
    args = parse_args(argv)
    args.distill = False
    args.wandb = args.tensorboard = False
    # parse_args looks up betas and eps by the model's name, and there is none for a local folder
    args.lr = args.lr if args.lr is not None else 1e-3
    args.beta1 = 0.9 if args.beta1 is None else args.beta1
    args.beta2 = 0.98 if args.beta2 is None else args.beta2
    args.eps = 1e-6 if args.eps is None else args.eps
    return args


def build(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, tuple[Any, Any]]:
    """The model in channels_last, the same on every rank, and open_clip's two transforms."""
    random_seed(args.seed, 0)
    model, train_transform, eval_transform = create_model_and_transforms(
        args.model,
        args.pretrained,
        precision=args.precision,
        device=device,
        output_dict=True,
        aug_cfg=args.aug_cfg,
        force_image_size=args.force_image_size,
    )
    return model.to(memory_format=torch.channels_last), (train_transform, eval_transform)


def build_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW without decay on gains, biases and the logit scale, as open_clip's `main` has it."""
    parameters = [item for item in model.named_parameters() if item[1].requires_grad]
    plain = [
        p
        for name, p in parameters
        if p.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
    ]
    kept = {id(p) for p in plain}
    decayed = [p for _, p in parameters if id(p) not in kept]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": args.wd}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)


def parallel(model: nn.Module, args: argparse.Namespace, device: torch.device) -> nn.Module:
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


def write_params(path: Path, args: argparse.Namespace) -> None:
    """`params.txt` in open_clip's form, from which a checkpoint's architecture is read again."""
    path.write_text("".join(f"{name}: {value}\n" for name, value in sorted(vars(args).items())))


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    args: argparse.Namespace,
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
    folder: Path,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    args: argparse.Namespace,
) -> None:
    """Write `epoch_k.pt` whole or not at all, then drop the one before unless it is to be kept."""
    if not is_master(args):
        return
    content = {
        "epoch": epoch,
        "name": args.name,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    if scaler is not None:
        content["scaler"] = scaler.state_dict()
    torch.save(content, folder / "writing.tmp")
    (folder / "writing.tmp").replace(folder / f"epoch_{epoch}.pt")
    before = epoch - 1
    if before > 0 and (args.save_frequency == 0 or before % args.save_frequency):
        (folder / f"epoch_{before}.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    main([word for word in sys.argv[1:] if word != "--"])  # torchrun hands its separator on
