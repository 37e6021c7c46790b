"""What is represented, and whether it is the same across domains: features, similarity, probes."""

from interp.probes.cka import biased_cka, cka, rbf_cka
from interp.probes.codes import LinearCode, pca, units
from interp.probes.dictionaries import L1, BatchTopK, Dictionary, TopK
from interp.probes.dictionary_quality import dictionary_quality, recovered_accuracy
from interp.probes.dictionary_stability import dictionary_stability, match_features
from interp.probes.dictionary_training import paper_dictionary, train_dictionaries
from interp.probes.feature_ablation import ablate_shared
from interp.probes.feature_roles import feature_roles
from interp.probes.feature_sharing import class_sharing, feature_sharing
from interp.probes.features import PIXELS, Features, collect, pixels
from interp.probes.halves import artist_halves
from interp.probes.linear import LinearProbe
from interp.probes.paper_sharing import paper_feature_sharing
from interp.probes.saelens import read_saelens, write_saelens
from interp.probes.similarity import similarity
from interp.probes.transfer import transfer

__all__ = [
    "L1",
    "PIXELS",
    "BatchTopK",
    "Dictionary",
    "Features",
    "LinearCode",
    "LinearProbe",
    "TopK",
    "ablate_shared",
    "artist_halves",
    "biased_cka",
    "cka",
    "class_sharing",
    "collect",
    "dictionary_quality",
    "dictionary_stability",
    "feature_roles",
    "feature_sharing",
    "match_features",
    "paper_dictionary",
    "paper_feature_sharing",
    "pca",
    "pixels",
    "rbf_cka",
    "read_saelens",
    "recovered_accuracy",
    "similarity",
    "train_dictionaries",
    "transfer",
    "units",
    "write_saelens",
]
