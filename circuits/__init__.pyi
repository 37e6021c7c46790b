from .cross_modal.joint_curves import match_faithfulness as match_faithfulness
from .cross_modal.matches import Matches as Matches
from .cross_modal.matches import match_parts as match_parts
from .cross_modal.matches import read_matches as read_matches
from .discovery.circuit import Circuit as Circuit
from .discovery.criteria import faithfulness as faithfulness
from .discovery.criteria import minimality as minimality
from .discovery.graph_kernel import weisfeiler_lehman as weisfeiler_lehman
from .discovery.searching import DISCOVERERS as DISCOVERERS
from .discovery.searching import Runs as Runs
from .discovery.searching import discover as discover
from .edges.edge_attribution import METHODS as METHODS
from .edges.edge_attribution import Attribution as Attribution
from .edges.edge_attribution import attribute as attribute
from .edges.learned_edge_masks import edge_mask_scores as edge_mask_scores
from .edges.path_patching import edge_effects as edge_effects
from .edges.path_patching import path_patch as path_patch
from .edges.wiring import Wiring as Wiring
from .edges.wiring import wire as wire
from .patching.ablation import ABLATIONS as ABLATIONS
from .patching.ablation import ablate as ablate
from .patching.baselines import mean_activations as mean_activations
from .patching.localisation import effects as effects
from .patching.localisation import localise as localise
from .patching.screening import node_scores as node_scores
from .patching.screening import screen as screen
from .patching.stitched_runs import Controls as Controls
from .patching.stitches import stitch as stitch
from .patching.sweeping import sweep as sweep
from .patching.transformer_lens import (
    get_act_patch_attn_head_k_all_pos as get_act_patch_attn_head_k_all_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_k_by_pos as get_act_patch_attn_head_k_by_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_out_all_pos as get_act_patch_attn_head_out_all_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_out_by_pos as get_act_patch_attn_head_out_by_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_pattern_all_pos as get_act_patch_attn_head_pattern_all_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_pattern_by_pos as get_act_patch_attn_head_pattern_by_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_pattern_dest_src_pos as get_act_patch_attn_head_pattern_dest_src_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_q_all_pos as get_act_patch_attn_head_q_all_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_q_by_pos as get_act_patch_attn_head_q_by_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_v_all_pos as get_act_patch_attn_head_v_all_pos,
)
from .patching.transformer_lens import (
    get_act_patch_attn_head_v_by_pos as get_act_patch_attn_head_v_by_pos,
)
from .patching.transformer_lens import get_act_patch_attn_out as get_act_patch_attn_out
from .patching.transformer_lens import get_act_patch_mlp_out as get_act_patch_mlp_out
from .patching.transformer_lens import get_act_patch_resid_mid as get_act_patch_resid_mid
from .patching.transformer_lens import get_act_patch_resid_pre as get_act_patch_resid_pre
from .patching.transformer_lens import to_patching_result as to_patching_result
from .patching.transplants import transplant as transplant
from .planted.vit import planted_vit as planted_vit
from .sharing.components import Cut as Cut
from .sharing.components import Edges as Edges
from .sharing.components import Units as Units
from .sharing.overlap_measures import MEASURES_OF_OVERLAP as MEASURES_OF_OVERLAP
from .sharing.per_class import ClassCircuits as ClassCircuits
from .sharing.per_class import class_circuits as class_circuits
from .sharing.redrawn_circuits import circuit_stability as circuit_stability
from .sharing.redrawn_circuits import consistent_parts as consistent_parts
from .sharing.redrawn_circuits import inclusion as inclusion
from .sharing.shared_parts import Scores as Scores
from .sharing.shared_parts import overlap as overlap
from .sharing.transfer_faithfulness import TRANSFER_SHARES as TRANSFER_SHARES
from .sharing.transfer_faithfulness import circuit_transfer as circuit_transfer
from .sharing.work_alone import class_faithfulness as class_faithfulness
from .subspaces.alignment_search import das as das
from .subspaces.alignment_search import das_among as das_among
from .subspaces.between_models import das_between as das_between
from .subspaces.fitting import fit_subspace as fit_subspace
from .subspaces.subspace import Subspace as Subspace
from .subspaces.subspace import interchange as interchange
from .tasks.corruptions import CORRUPTIONS as CORRUPTIONS
from .tasks.metrics import METRICS as METRICS
from .tasks.metrics import Classifier as Classifier
from .tasks.metrics import Metric as Metric
from .tasks.metrics import Target as Target
from .tasks.pairs import draw_transplants as draw_transplants
from .tasks.pairs import other_class as other_class
from .tasks.pairs import read_pairs as read_pairs
from .toy import Chain as Chain
from .units.channel_attribution import channel_scores as channel_scores
from .units.channel_circuits import ChannelCircuit as ChannelCircuit
from .units.channel_circuits import channel_circuit as channel_circuit
from .units.channel_wiring import channel_edges as channel_edges
from .units.learned_masks import mask_scores as mask_scores
from .units.masked_units import unit_faithfulness as unit_faithfulness
from .units.unit_methods import UNIT_METHODS as UNIT_METHODS
