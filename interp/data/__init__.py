"""Where pictures come from, what is said of them, and which of them a model is trained on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
