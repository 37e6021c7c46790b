"""Score the edges of a small transformer by EAP and EAP-IG in their authors' own library.

The library (Hanna, Pezzelle and Belinkov 2024) is the public repository hannamw/EAP-IG at commit
795f5607b25638935aec89aee3c1cb4bd9ed72f1. It needs an environment of its own:

    python3.11 -m venv eap-ig && . eap-ig/bin/activate
    pip install transformer_lens==2.18.0 torch==2.13.0 numpy==1.26.4 pyarrow==21.0.0
    pip install git+https://github.com/hannamw/EAP-IG@795f5607b25638935aec89aee3c1cb4bd9ed72f1
    python tests/circuits/edges/peer/generate_eap_ig.py

which writes `eap_ig_scores.npz` beside this file, the same bytes every time. The library is used as
it is, but for three things that its interface leaves no choice about: it makes tokens of texts
(ours are drawn), keeps its scores on a CUDA device, and rounds them to single precision.

Two of its definitions are not ours. EAP-IG-inputs takes gradients at corrupt + k/m (clean -
corrupt) for k = 0 ... m - 1, so at the corrupt end and not at the clean one. Up to its tag 0.2.0 k
went from 1 to m, as in the paper and as ours does. Every pair is therefore scored both ways: with
the two ends exchanged its inputs are ours.

EAP-IG-activations is left out. Component by component, the library runs the clean input with that
component's output at k/m of the way from corrupt to clean, k = 1 ... m; in every such run it adds
the products of parts and gradients for all edges, and it divides by components times steps. Ours
takes from those runs only the edges that leave the component, and divides by steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import eap.attribute  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from eap.graph import Graph  # pyright: ignore[reportMissingImports]
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

LAYERS, HEADS, WIDTH, HIDDEN, VOCABULARY, LENGTH = 3, 2, 16, 24, 20, 6
PAIRS, STEPS, RIGHT, WRONG = 4, 5, 7, 12


def draw_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random numbers for every parameter of open_clip's `TextTransformer`, under its names."""
    shapes = {
        "token_embedding.weight": (VOCABULARY, WIDTH),
        "positional_embedding": (LENGTH, WIDTH),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
        "text_projection": (WIDTH, VOCABULARY),
    }
    block = {
        "ln_1.weight": (WIDTH,),
        "ln_1.bias": (WIDTH,),
        "attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "attn.in_proj_bias": (3 * WIDTH,),
        "attn.out_proj.weight": (WIDTH, WIDTH),
        "attn.out_proj.bias": (WIDTH,),
        "ln_2.weight": (WIDTH,),
        "ln_2.bias": (WIDTH,),
        "mlp.c_fc.weight": (HIDDEN, WIDTH),
        "mlp.c_fc.bias": (HIDDEN,),
        "mlp.c_proj.weight": (WIDTH, HIDDEN),
        "mlp.c_proj.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        shapes |= {f"transformer.resblocks.{layer}.{k}": shape for k, shape in block.items()}
    gains = ("ln_1.weight", "ln_2.weight", "ln_final.weight")
    return {k: 0.3 * rng.standard_normal(s) + k.endswith(gains) for k, s in shapes.items()}


def build_model(weights: dict[str, np.ndarray]) -> HookedTransformer:
    """TransformerLens's transformer with these weights."""
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=LAYERS,
            n_heads=HEADS,
            d_model=WIDTH,
            d_head=WIDTH // HEADS,
            d_mlp=HIDDEN,
            d_vocab=VOCABULARY,
            n_ctx=LENGTH,
            act_fn="gelu",
            normalization_type="LN",
            use_attn_result=True,
            use_split_qkv_input=True,
            use_hook_mlp_in=True,
            dtype=torch.float64,
            device="cpu",
        )
    )
    named = {
        "embed.W_E": weights["token_embedding.weight"],
        "pos_embed.W_pos": weights["positional_embedding"],
        "ln_final.w": weights["ln_final.weight"],
        "ln_final.b": weights["ln_final.bias"],
        "unembed.W_U": weights["text_projection"],
        "unembed.b_U": np.zeros(VOCABULARY),
    }
    for layer in range(LAYERS):
        named |= name_block(weights, f"transformer.resblocks.{layer}.", f"blocks.{layer}.")
    tensors = {name: torch.from_numpy(value.copy()) for name, value in named.items()}
    missing, unknown = model.load_state_dict(tensors, strict=False)
    if unknown or any(not name.endswith(("mask", "IGNORE")) for name in missing):
        raise RuntimeError(f"weights missing: {missing}; unknown: {unknown}")
    return model


def name_block(weights: dict[str, np.ndarray], ours: str, theirs: str) -> dict[str, np.ndarray]:
    """The weights of one block under TransformerLens's names and in its shapes, head by head."""
    matrices = weights[f"{ours}attn.in_proj_weight"].reshape(3, HEADS, -1, WIDTH)
    constants = weights[f"{ours}attn.in_proj_bias"].reshape(3, HEADS, -1)
    named = {
        "ln1.w": weights[f"{ours}ln_1.weight"],
        "ln1.b": weights[f"{ours}ln_1.bias"],
        "ln2.w": weights[f"{ours}ln_2.weight"],
        "ln2.b": weights[f"{ours}ln_2.bias"],
        "attn.W_O": weights[f"{ours}attn.out_proj.weight"].T.reshape(HEADS, -1, WIDTH),
        "attn.b_O": weights[f"{ours}attn.out_proj.bias"],
        "mlp.W_in": weights[f"{ours}mlp.c_fc.weight"].T,
        "mlp.b_in": weights[f"{ours}mlp.c_fc.bias"],
        "mlp.W_out": weights[f"{ours}mlp.c_proj.weight"].T,
        "mlp.b_out": weights[f"{ours}mlp.c_proj.bias"],
    }
    for number, part in enumerate("QKV"):
        named[f"attn.W_{part}"] = matrices[number].swapaxes(1, 2)
        named[f"attn.b_{part}"] = constants[number]
    return {theirs + name: value for name, value in named.items()}


def loss(logits: Tensor, clean_logits: Tensor, lengths: Tensor, label: object) -> Tensor:
    """Minus the difference of two logits at the last position: what the library lowers."""
    return (logits[:, -1, WRONG] - logits[:, -1, RIGHT]).sum()


@contextmanager
def tokens_on_the_processor() -> Iterator[None]:
    """Let the library take token numbers for texts, and keep its scores where the model is."""
    allocate = torch.zeros

    def zeros(*size: int, device: object = None, **words: object) -> Tensor:
        return allocate(*size, **words)  # type: ignore[call-overload]

    def take(model: HookedTransformer, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        seen = torch.ones_like(tokens)
        return tokens, seen, seen.sum(1), tokens.shape[1]

    with patch.object(torch, "zeros", zeros), patch.object(eap.attribute, "tokenize_plus", take):
        yield


def score(
    model: HookedTransformer, clean: Tensor, corrupt: Tensor, method: str
) -> dict[str, float]:
    """The library's score of every edge for one pair, by name."""
    graph = Graph.from_model(model)
    graph.scores = graph.scores.double()  # it would round them to single precision
    pair = [(clean[None], corrupt[None], None)]
    with tokens_on_the_processor():
        eap.attribute.attribute(model, graph, pair, loss, method, ig_steps=STEPS, quiet=True)
    return {name: edge.score.item() for name, edge in graph.edges.items()}


def main() -> None:
    """Build the model, draw pairs, score them both ways, and write everything beside this file."""
    rng = np.random.default_rng(6)
    weights = draw_weights(rng)
    model = build_model(weights)
    one, other = rng.integers(0, VOCABULARY, (2, PAIRS, LENGTH))
    clean, corrupt = np.concatenate([one, other]), np.concatenate([other, one])
    pairs = list(zip(torch.from_numpy(clean), torch.from_numpy(corrupt), strict=True))
    found = {}
    for method in ("EAP", "EAP-IG-inputs"):
        scored = [score(model, *pair, method) for pair in pairs]
        found[method] = np.array([list(scores.values()) for scores in scored])
        found["edges"] = np.array(list(scored[0]))
    with torch.no_grad():
        logits = model(torch.from_numpy(clean))[:, -1].numpy()
    np.savez_compressed(
        Path(__file__).with_name("eap_ig_scores.npz"),
        **{f"weights/{name}": value for name, value in weights.items()},
        **found,
        clean=clean,
        corrupt=corrupt,
        logits=logits,
        answers=np.array([RIGHT, WRONG]),
        heads=np.array(HEADS),
        steps=np.array(STEPS),
    )


if __name__ == "__main__":
    main()
