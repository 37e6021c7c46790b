"""What is represented, and whether it is the same across domains: features, similarity, probes."""

from interp.probes.canonical import pwcca, svcca
from interp.probes.cka import biased_cka, cka, cross_validated_cka, minibatch_cka, rbf_cka
from interp.probes.class_cosines import class_cosines
from interp.probes.codes import LinearCode, pca, units
from interp.probes.collecting import batches, collect, pixels
from interp.probes.dictionaries import L1, BatchTopK, Dictionary, TopK
from interp.probes.dictionary_quality import dictionary_quality, recovered_accuracy
from interp.probes.dictionary_stability import dictionary_stability, match_features
from interp.probes.dictionary_training import paper_dictionary, train_dictionaries
from interp.probes.directions import directions
from interp.probes.domains import domain_probes
from interp.probes.erasers import Eraser, erased, leace
from interp.probes.erasure import erasure
from interp.probes.factorisation import factorisation
from interp.probes.feature_ablation import ablate_shared
from interp.probes.feature_roles import feature_roles
from interp.probes.feature_sharing import class_sharing, feature_sharing
from interp.probes.features import PIXELS, Features
from interp.probes.halves import artist_halves
from interp.probes.layer_sums import LayerSums
from interp.probes.layers import layer_similarity
from interp.probes.left_out import leave_one_domain_out
from interp.probes.linear import LinearProbe
from interp.probes.measures import MEASURES, Measure
from interp.probes.neighbours import mutual_knn
from interp.probes.paper_sharing import paper_feature_sharing
from interp.probes.planning import classes_needed
from interp.probes.pooling import POOLS
from interp.probes.predictivity import predictivity
from interp.probes.procrustes import procrustes
from interp.probes.rsa import rsa
from interp.probes.saelens import read_saelens, write_saelens
from interp.probes.saved_features import open_features, save_features
from interp.probes.selectivity import selectivity
from interp.probes.separation import domain_distance, domain_test
from interp.probes.similarity import similarity
from interp.probes.transfer import transfer
from interp.probes.views import pca_view, umap_view

__all__ = [
    "L1",
    "MEASURES",
    "PIXELS",
    "POOLS",
    "BatchTopK",
    "Dictionary",
    "Eraser",
    "Features",
    "LayerSums",
    "LinearCode",
    "LinearProbe",
    "Measure",
    "TopK",
    "ablate_shared",
    "artist_halves",
    "batches",
    "biased_cka",
    "cka",
    "class_cosines",
    "class_sharing",
    "classes_needed",
    "collect",
    "cross_validated_cka",
    "dictionary_quality",
    "dictionary_stability",
    "directions",
    "domain_distance",
    "domain_probes",
    "domain_test",
    "erased",
    "erasure",
    "factorisation",
    "feature_roles",
    "feature_sharing",
    "layer_similarity",
    "leace",
    "leave_one_domain_out",
    "match_features",
    "minibatch_cka",
    "mutual_knn",
    "open_features",
    "paper_dictionary",
    "paper_feature_sharing",
    "pca",
    "pca_view",
    "pixels",
    "predictivity",
    "procrustes",
    "pwcca",
    "rbf_cka",
    "read_saelens",
    "recovered_accuracy",
    "rsa",
    "save_features",
    "selectivity",
    "similarity",
    "svcca",
    "train_dictionaries",
    "transfer",
    "umap_view",
    "units",
    "write_saelens",
]
