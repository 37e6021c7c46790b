"""What causes what: patch activations from one run into another and measure what changes."""

from interp.circuits.ablation import ABLATIONS, ablate
from interp.circuits.chain import Chain
from interp.circuits.conversion import to_patching_result
from interp.circuits.corruptions import CORRUPTIONS
from interp.circuits.donors import draw_transplants, other_class
from interp.circuits.effects import effects, localise
from interp.circuits.gradients import node_scores
from interp.circuits.metrics import METRICS, Classifier, Metric, Target
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
from interp.circuits.screening import screen
from interp.circuits.sweep import sweep
from interp.circuits.transplant import transplant

__all__ = [
    "ABLATIONS",
    "CORRUPTIONS",
    "METRICS",
    "Chain",
    "Classifier",
    "Metric",
    "Target",
    "ablate",
    "draw_transplants",
    "effects",
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
    "localise",
    "node_scores",
    "other_class",
    "screen",
    "sweep",
    "to_patching_result",
    "transplant",
]
