"""What causes what: patch activations from one run into another and measure what changes."""

from interp.circuits.ablation import ABLATIONS, ablate
from interp.circuits.attribution import METHODS, Attribution, attribute
from interp.circuits.chain import Chain
from interp.circuits.channel_circuit import ChannelCircuit, channel_circuit
from interp.circuits.channel_edges import channel_edges
from interp.circuits.channels import channel_scores
from interp.circuits.circuit_transfer import TRANSFER_SHARES, circuit_transfer
from interp.circuits.class_circuits import (
    ClassCircuits,
    circuit_stability,
    class_circuits,
    inclusion,
)
from interp.circuits.conversion import to_patching_result
from interp.circuits.corruptions import CORRUPTIONS
from interp.circuits.cuts import Cut, Edges, Units
from interp.circuits.das import das, das_among
from interp.circuits.discovery import DISCOVERERS, Runs, discover
from interp.circuits.donors import draw_transplants, other_class
from interp.circuits.effects import effects, localise
from interp.circuits.faithfulness import faithfulness, minimality
from interp.circuits.gradients import node_scores
from interp.circuits.graphs import Circuit
from interp.circuits.kernels import weisfeiler_lehman
from interp.circuits.metrics import METRICS, Classifier, Metric, Target
from interp.circuits.overlap import MEASURES as MEASURES_OF_OVERLAP
from interp.circuits.overlap import Scores, overlap
from interp.circuits.pairing import read_pairs
from interp.circuits.patching import (
    get_act_patch_attn_head_k_all_pos,
    get_act_patch_attn_head_k_by_pos,
    get_act_patch_attn_head_out_all_pos,
    get_act_patch_attn_head_out_by_pos,
    get_act_patch_attn_head_pattern_all_pos,
    get_act_patch_attn_head_pattern_by_pos,
    get_act_patch_attn_head_pattern_dest_src_pos,
    get_act_patch_attn_head_q_all_pos,
    get_act_patch_attn_head_q_by_pos,
    get_act_patch_attn_head_v_all_pos,
    get_act_patch_attn_head_v_by_pos,
    get_act_patch_attn_out,
    get_act_patch_mlp_out,
    get_act_patch_resid_mid,
    get_act_patch_resid_pre,
)
from interp.circuits.paths import edge_effects, path_patch
from interp.circuits.screening import screen
from interp.circuits.segments import mean_activations
from interp.circuits.subspace_fitting import fit_subspace
from interp.circuits.subspaces import Subspace, interchange
from interp.circuits.sweep import sweep
from interp.circuits.transplant import transplant
from interp.circuits.units import unit_faithfulness
from interp.circuits.wiring import Wiring, wire

__all__ = [
    "ABLATIONS",
    "CORRUPTIONS",
    "DISCOVERERS",
    "MEASURES_OF_OVERLAP",
    "METHODS",
    "METRICS",
    "TRANSFER_SHARES",
    "Attribution",
    "Chain",
    "ChannelCircuit",
    "Circuit",
    "ClassCircuits",
    "Classifier",
    "Cut",
    "Edges",
    "Metric",
    "Runs",
    "Scores",
    "Subspace",
    "Target",
    "Units",
    "Wiring",
    "ablate",
    "attribute",
    "channel_circuit",
    "channel_edges",
    "channel_scores",
    "circuit_stability",
    "circuit_transfer",
    "class_circuits",
    "das",
    "das_among",
    "discover",
    "draw_transplants",
    "edge_effects",
    "effects",
    "faithfulness",
    "fit_subspace",
    "get_act_patch_attn_head_k_all_pos",
    "get_act_patch_attn_head_k_by_pos",
    "get_act_patch_attn_head_out_all_pos",
    "get_act_patch_attn_head_out_by_pos",
    "get_act_patch_attn_head_pattern_all_pos",
    "get_act_patch_attn_head_pattern_by_pos",
    "get_act_patch_attn_head_pattern_dest_src_pos",
    "get_act_patch_attn_head_q_all_pos",
    "get_act_patch_attn_head_q_by_pos",
    "get_act_patch_attn_head_v_all_pos",
    "get_act_patch_attn_head_v_by_pos",
    "get_act_patch_attn_out",
    "get_act_patch_mlp_out",
    "get_act_patch_resid_mid",
    "get_act_patch_resid_pre",
    "inclusion",
    "interchange",
    "localise",
    "mean_activations",
    "minimality",
    "node_scores",
    "other_class",
    "overlap",
    "path_patch",
    "read_pairs",
    "screen",
    "sweep",
    "to_patching_result",
    "transplant",
    "unit_faithfulness",
    "weisfeiler_lehman",
    "wire",
]
