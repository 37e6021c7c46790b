"""Which vision transformers of timm and torchvision are hooked, and why others are traced."""

import warnings
from collections import Counter

import timm
import torch
import torchvision

from interp.models.loading.plain_transformers import compare_forms, read_parts
from interp.models.towers.transformer import Unhooked

FAMILIES = ("vision_transformer", "deit", "vision_transformer_hybrid", "beit", "eva",
            "vision_transformer_sam", "vision_transformer_relpos", "cait", "xcit")  # fmt: skip
"""timm's modules of vision transformers at one resolution."""


def encoders() -> str:
    """How many fit by their parts, the reasons of the others, and how far a full-size one is off.

    Networks are made without memory, since their parts are enough.
    """
    lines = []
    theirs = torchvision.models.list_models(module=torchvision.models, include="vit_*")
    made = {
        "torchvision": [(name, torchvision.models.get_model) for name in theirs],
        "timm": [
            (name, timm.create_model)
            for name in timm.list_models()
            if timm.model_entrypoint(name).__module__.split(".")[-1] in FAMILIES
        ],
    }
    for library, each in made.items():
        found: Counter[str] = Counter()
        for name, make in each:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                net = make(name)
            net.head = net.heads = torch.nn.Identity()
            try:
                read_parts(net)
                found["hooked"] += 1
            except Unhooked as error:
                found[error.given] += 1
        lines.append(f"{library}: {len(each)} networks")
        lines += [f"  {count:>3} {why}" for why, count in found.most_common()]
    net = timm.create_model("vit_base_patch16_224", num_classes=0)
    output, slope = compare_forms(net)
    return "\n".join([*lines, f"ViT-B/16: outputs {output:.0e}, gradients {slope:.0e}"])
