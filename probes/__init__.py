"""What is represented, and whether it is the same across domains: features, similarity, probes."""

from interp.probes.canonical import pwcca, svcca
from interp.probes.cka import biased_cka, cka, cross_validated_cka, minibatch_cka, rbf_cka
from interp.probes.factorisation import factorisation
from interp.probes.features import PIXELS, Features, collect, pixels
from interp.probes.halves import artist_halves
from interp.probes.layer_sums import LayerSums
from interp.probes.layers import layer_similarity
from interp.probes.linear import LinearProbe
from interp.probes.measures import MEASURES, Measure
from interp.probes.neighbours import mutual_knn
from interp.probes.planning import classes_needed
from interp.probes.predictivity import predictivity
from interp.probes.procrustes import procrustes
from interp.probes.rsa import rsa
from interp.probes.similarity import similarity
from interp.probes.transfer import transfer

__all__ = [
    "MEASURES",
    "PIXELS",
    "Features",
    "LayerSums",
    "LinearProbe",
    "Measure",
    "artist_halves",
    "biased_cka",
    "cka",
    "classes_needed",
    "collect",
    "cross_validated_cka",
    "factorisation",
    "layer_similarity",
    "minibatch_cka",
    "mutual_knn",
    "pixels",
    "predictivity",
    "procrustes",
    "pwcca",
    "rbf_cka",
    "rsa",
    "similarity",
    "svcca",
    "transfer",
]
