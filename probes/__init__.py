"""What is represented, and whether it is the same across domains: features, similarity, probes."""

from interp.probes.cka import biased_cka, cka, rbf_cka
from interp.probes.dictionaries import L1, BatchTopK, Dictionary, TopK
from interp.probes.dictionary_quality import dictionary_quality, recovered_accuracy
from interp.probes.dictionary_training import paper_dictionary, train_dictionaries
from interp.probes.features import PIXELS, Features, collect, pixels
from interp.probes.halves import artist_halves
from interp.probes.linear import LinearProbe
from interp.probes.similarity import similarity
from interp.probes.transfer import transfer

__all__ = [
    "L1",
    "PIXELS",
    "BatchTopK",
    "Dictionary",
    "Features",
    "LinearProbe",
    "TopK",
    "artist_halves",
    "biased_cka",
    "cka",
    "collect",
    "dictionary_quality",
    "paper_dictionary",
    "pixels",
    "rbf_cka",
    "recovered_accuracy",
    "similarity",
    "train_dictionaries",
    "transfer",
]
