"""The numerics certificate: a hooked tower compared with open_clip, site by site."""
