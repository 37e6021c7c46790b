"""All measures, in the order of the page: a new one is listed here, and nowhere else."""

from interp.declared.measures import MeasureSpec
from interp.measures.catalogue import (
    added_effects,
    captioned,
    certified,
    circuits_within,
    class_probes,
    dictionary_features,
    domain_geometry,
    domain_shift,
    erased_domain,
    layer_contents,
    mechanisms,
    multiverse,
    patched_sites,
    steered,
    transplanted,
    zero_shot,
)

MEASURES: tuple[MeasureSpec, ...] = (
    zero_shot.MEASURE,
    zero_shot.DECISION_BIAS,
    domain_shift.MEASURE,
    domain_geometry.MEASURE,
    class_probes.MEASURE,
    layer_contents.MEASURE,
    layer_contents.DIRECTIONS,
    added_effects.MEASURE,
    dictionary_features.MEASURE,
    erased_domain.MEASURE,
    steered.MEASURE,
    patched_sites.MEASURE,
    circuits_within.MEASURE,
    captioned.MEASURE,
    transplanted.MEASURE,
    mechanisms.MEASURE,
    mechanisms.PAIRS,
    multiverse.MEASURE,
    certified.MEASURE,
)
