"""What is represented, and whether it is the same across domains: features, similarity, probes."""

from interp.probes.cka import biased_cka, cka, rbf_cka
from interp.probes.collecting import batches, collect, pixels
from interp.probes.erasers import Eraser, erased, leace
from interp.probes.erasure import erasure
from interp.probes.features import PIXELS, Features
from interp.probes.halves import artist_halves
from interp.probes.linear import LinearProbe
from interp.probes.pooling import POOLS
from interp.probes.separation import domain_distance, domain_test
from interp.probes.similarity import similarity
from interp.probes.transfer import transfer
from interp.probes.views import pca_view, umap_view

__all__ = [
    "PIXELS",
    "POOLS",
    "Eraser",
    "Features",
    "LinearProbe",
    "artist_halves",
    "batches",
    "biased_cka",
    "cka",
    "collect",
    "domain_distance",
    "domain_test",
    "erased",
    "erasure",
    "leace",
    "pca_view",
    "pixels",
    "rbf_cka",
    "similarity",
    "transfer",
    "umap_view",
]
