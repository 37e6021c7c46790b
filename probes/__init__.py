"""What is represented, and whether it is the same across domains: features, similarity, probes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
