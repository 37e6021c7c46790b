"""The numerics certificate: a hooked tower held against open_clip, site by site."""
