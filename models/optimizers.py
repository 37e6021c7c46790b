"""What moves the weights: an optimizer with its learning rate over the steps."""

from argparse import Namespace
from collections.abc import Callable, Sequence

import torch
from open_clip_train.scheduler import assign_learning_rate, cosine_lr
from torch import nn

Schedule = Callable[[int], float]
"""From a step to its learning rate, which it also sets in the optimizer."""


def build_optimizer(model: nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """AdamW without decay on gains, biases and the logit scale, as open_clip's `main` has it; or,
    for the supervised baseline, SGD with Nesterov momentum and one decay for all."""
    if args.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=args.lr, momentum=0.9, nesterov=True, weight_decay=args.wd
        )
    plain, decayed = [], []
    for name, parameter in model.named_parameters():
        free = any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
        (plain if parameter.ndim < 2 or free else decayed).append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": args.wd}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)


def build_schedule(optimizer: torch.optim.Optimizer, args: Namespace, steps: int) -> Schedule:
    """A cosine over all `steps` of all epochs, or a tenth of the rate after each milestone."""
    if not args.milestones:
        return cosine_lr(optimizer, args.lr, args.warmup, steps)
    return stepwise(
        optimizer, args.lr, args.warmup, [steps * m // args.epochs for m in args.milestones]
    )


def stepwise(
    optimizer: torch.optim.Optimizer, lr: float, warmup: int, milestones: Sequence[int]
) -> Schedule:
    """Rise over `warmup` steps; then a tenth of the rate after each milestone, in steps.

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
