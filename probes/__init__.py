"""What is represented, and whether it is the same across domains: features, similarity, probes."""

from interp.probes.cka import biased_cka, cka, rbf_cka
from interp.probes.directions import directions
from interp.probes.domains import domain_probes
from interp.probes.features import PIXELS, Features, collect, pixels
from interp.probes.halves import artist_halves
from interp.probes.left_out import leave_one_domain_out
from interp.probes.linear import LinearProbe
from interp.probes.selectivity import selectivity
from interp.probes.similarity import similarity
from interp.probes.transfer import transfer

__all__ = [
    "PIXELS",
    "Features",
    "LinearProbe",
    "artist_halves",
    "biased_cka",
    "cka",
    "collect",
    "directions",
    "domain_probes",
    "leave_one_domain_out",
    "pixels",
    "rbf_cka",
    "selectivity",
    "similarity",
    "transfer",
]
