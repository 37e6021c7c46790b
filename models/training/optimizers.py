"""Optimizers of a run: AdamW, Muon for the matrices of transformer blocks beside it, or SGD."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from interp.core.errors import SpecificationError

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

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the states of both."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]
