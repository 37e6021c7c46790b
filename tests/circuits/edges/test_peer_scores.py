"""EAP and EAP-IG beside the scores that their authors' own library gives the same transformer.

`peer/generate_eap_ig.py` wrote the numbers, and says how the library's definitions differ.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor

from interp.circuits import attribute, wire
from interp.models.towers.text import HookedText

Peer = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def peer() -> Peer:
    with np.load(Path(__file__).with_name("peer") / "eap_ig_scores.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def tower(peer: Peer) -> HookedText:
    """open_clip's text transformer, with the weights that the library was given."""
    weights = {
        name.removeprefix("weights/"): torch.from_numpy(value)
        for name, value in peer.items()
        if name.startswith("weights/")
    }
    vocabulary, width = weights["token_embedding.weight"].shape
    source = TextTransformer(
        context_length=len(weights["positional_embedding"]),
        vocab_size=vocabulary,
        width=width,
        heads=int(peer["heads"]),
        layers=sum(name.endswith("ln_1.weight") for name in weights),
        mlp_ratio=len(weights["transformer.resblocks.0.mlp.c_fc.bias"]) / width,
        output_dim=vocabulary,
        pool_type="last",
    ).double()
    source.load_state_dict(weights, strict=True)
    return HookedText(source.eval())


def score(tower: HookedText, peer: Peer, method: str, *, exchanged: bool = False) -> np.ndarray:
    """Our scores `[pair edge]`, edges in the library's order."""
    ends = torch.from_numpy(peer["clean"]), torch.from_numpy(peer["corrupt"])
    clean, corrupt = reversed(ends) if exchanged else ends
    right, wrong = peer["answers"]

    def lead(output: Tensor) -> Tensor:
        return output[:, right] - output[:, wrong]

    found = attribute(
        tower, clean=clean, corrupt=corrupt, metric=lead, method=method, steps=int(peer["steps"])
    )
    return found.values[:, [found.wiring.edge(str(name)) for name in peer["edges"]]]


def test_both_libraries_run_the_same_model_over_the_same_edges(tower, peer) -> None:
    assert sorted(wire(tower).names) == sorted(peer["edges"].tolist())
    with torch.no_grad():
        logits = tower(torch.from_numpy(peer["clean"])).numpy()
    np.testing.assert_allclose(logits, peer["logits"], rtol=0, atol=1e-10)
    assert all(np.ptp(value) > 0.1 for name, value in peer.items() if name.startswith("weights/"))


def test_every_edge_has_the_librarys_eap_score(tower: HookedText, peer: Peer) -> None:
    theirs = peer["EAP"]
    bar = 1e-6 * np.abs(theirs).max(axis=1, keepdims=True)
    assert (np.abs(score(tower, peer, "EAP") - theirs) <= bar).all()


def test_every_edge_has_the_librarys_eap_ig_score(tower: HookedText, peer: Peer) -> None:
    """Of the m + 1 inputs on the way ours leave out the corrupt end, and the library's the clean.

    So its scores are minus ours of the pair with its ends exchanged. For the pair as it is, one of
    the m gradients differs: ours is above by 1/m of EAP at the clean end less EAP at the corrupt
    one (a plus below: to exchange the ends turns the sign). The last line sees that it matters.
    """
    theirs, method = peer["EAP-IG-inputs"], "EAP-IG-inputs"
    bar = 1e-6 * np.abs(theirs).max(axis=1, keepdims=True)
    assert (np.abs(score(tower, peer, method, exchanged=True) + theirs) <= bar).all()
    ours = score(tower, peer, method)
    ends = score(tower, peer, "EAP") + score(tower, peer, "EAP", exchanged=True)
    assert (np.abs(ours - ends / peer["steps"] - theirs) <= bar).all()
    assert (np.abs(ours - theirs).max(axis=1) > 1e4 * bar[:, 0]).all()
