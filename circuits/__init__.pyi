from .cross_modal.matches import Matches as Matches
from .cross_modal.matches import match_faithfulness as match_faithfulness
from .cross_modal.matches import match_parts as match_parts
from .cross_modal.matches import read_matches as read_matches
from .discovery.circuit import Circuit as Circuit
from .discovery.discover import DISCOVERERS as DISCOVERERS
from .discovery.discover import Runs as Runs
from .discovery.discover import discover as discover
from .discovery.faithfulness import faithfulness as faithfulness
from .discovery.faithfulness import minimality as minimality
from .domain_shift.by_class import shift_by_class as shift_by_class
from .domain_shift.carriers import CHOSEN_BY as CHOSEN_BY
from .domain_shift.carriers import shift_parts as shift_parts
from .domain_shift.shift import shift_domain as shift_domain
from .domain_shift.vectors import WAYS as WAYS
from .edges.attribute import METHODS as METHODS
from .edges.attribute import Attribution as Attribution
from .edges.attribute import attribute as attribute
from .edges.edge_mask_scores import edge_mask_scores as edge_mask_scores
from .edges.path_patch import edge_effects as edge_effects
from .edges.path_patch import path_patch as path_patch
from .edges.wire import Wiring as Wiring
from .edges.wire import wire as wire
from .patching.ablate import ABLATIONS as ABLATIONS
from .patching.ablate import ablate as ablate
from .patching.localise import effects as effects
from .patching.localise import localise as localise
from .patching.mean_activations import mean_activations as mean_activations
from .patching.screen import node_scores as node_scores
from .patching.screen import screen as screen
from .patching.stitch import Controls as Controls
from .patching.stitch import stitch as stitch
from .patching.sweep import sweep as sweep
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
from .patching.transplant import draw_transplants as draw_transplants
from .patching.transplant import transplant as transplant
from .planted.vit import planted_vit as planted_vit
from .sharing.circuit_stability import circuit_stability as circuit_stability
from .sharing.circuit_stability import consistent_parts as consistent_parts
from .sharing.circuit_stability import inclusion as inclusion
from .sharing.circuit_transfer import TRANSFER_SHARES as TRANSFER_SHARES
from .sharing.circuit_transfer import circuit_transfer as circuit_transfer
from .sharing.class_circuits import ClassCircuits as ClassCircuits
from .sharing.class_circuits import class_circuits as class_circuits
from .sharing.class_faithfulness import class_faithfulness as class_faithfulness
from .sharing.cuts import Cut as Cut
from .sharing.cuts import Edges as Edges
from .sharing.cuts import Units as Units
from .sharing.overlap import Scores as Scores
from .sharing.overlap import overlap as overlap
from .sharing.overlap_measures import MEASURES_OF_OVERLAP as MEASURES_OF_OVERLAP
from .sharing.overlap_measures import weisfeiler_lehman as weisfeiler_lehman
from .subspaces.das import das as das
from .subspaces.das import das_among as das_among
from .subspaces.das_between import das_between as das_between
from .subspaces.fit_subspace import fit_subspace as fit_subspace
from .subspaces.subspace import Subspace as Subspace
from .subspaces.subspace import interchange as interchange
from .tasks.metrics import METRICS as METRICS
from .tasks.metrics import Classifier as Classifier
from .tasks.metrics import Metric as Metric
from .tasks.metrics import Target as Target
from .tasks.pairs import CORRUPTIONS as CORRUPTIONS
from .tasks.pairs import other_class as other_class
from .tasks.pairs import read_pairs as read_pairs
from .toy import Chain as Chain
from .units.channel_circuit import ChannelCircuit as ChannelCircuit
from .units.channel_circuit import channel_circuit as channel_circuit
from .units.channel_edges import channel_edges as channel_edges
from .units.channel_scores import channel_scores as channel_scores
from .units.unit_faithfulness import unit_faithfulness as unit_faithfulness
from .units.unit_methods import UNIT_METHODS as UNIT_METHODS
from .units.unit_methods import mask_scores as mask_scores
