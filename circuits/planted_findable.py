"""Which ways of finding circuits must see what is planted, which are blind to it, and why."""

from typing import NamedTuple

from interp.circuits.planted_expected import AnyBlueprint

EXACT, GRADIENT = 0.95, 0.9
"""Least AUROC of what exchanges activations, and of what estimates that from gradients."""


class Finding(NamedTuple):
    """What a method must do on a planted model: reach an AUROC of `least`, or nothing, and why."""

    least: float | None
    reason: str


FIXED = "RelP holds attention fixed, and a part is found by keys"
PLATEAU = "neurons stand where they have no slope, and plain gradients see none"
SATURATED = "training leaves neurons saturated, and plain gradients see little"
CHANCE = "drawn by chance"

WAYS = {
    "path patching": Finding(EXACT, "every edge is exchanged"),
    "resample ablation": Finding(EXACT, "every node or channel is exchanged"),
    "EAP": Finding(GRADIENT, "gradients at the clean picture"),
    "EAP-IG-inputs": Finding(GRADIENT, "gradients on the way from the partner's picture"),
    "EAP-IG-activations": Finding(GRADIENT, "gradients on the way from the partner's activations"),
    "integrated gradients": Finding(GRADIENT, "gradients on the way from the partner's channels"),
    "RelP": Finding(None, FIXED),
    "random": Finding(None, CHANCE),
}
"""Every way that is scored: of edges and nodes in transformers, of channels in ResNets."""


def findable(blueprint: AnyBlueprint, method: str) -> Finding:
    """What a method must do on a planted model.

    >>> from interp.circuits.planted import Blueprint
    >>> findable(Blueprint("all shared"), "EAP").least
    0.9
    >>> findable(Blueprint("all shared", tier="steep"), "EAP").least is None
    True
    """
    if method == "EAP" and blueprint.tier in ("steep", "trained"):
        return Finding(None, PLATEAU if blueprint.tier == "steep" else SATURATED)
    return WAYS[method]
