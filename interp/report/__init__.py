"""Tables and plates become figures, and figures one self-contained HTML page; no model is seen."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
