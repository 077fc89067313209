"""inkfill: diffusion inpainting for small images.

>>> import inkfill
>>> model = inkfill.load()
>>> filled = inkfill.inpaint(model, images, "half:left", samples=8, seed=0)  # uint8 [N, 8, H, W]
>>> rows = inkfill.evaluate(model, images, "half:left", ["conditional", "biharmonic"])  # scores, a dictionary each

``import inkfill`` is cheap: torch is imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inkfill.defaults import VERSION as __version__

if TYPE_CHECKING:
    from inkfill.evaluation.protocol import evaluate
    from inkfill.filling.inpaint import inpaint, sample
    from inkfill.models import adapters
    from inkfill.models.model import load

__all__ = ["__version__", "adapters", "evaluate", "inpaint", "load", "sample"]

_HOME = {
    "evaluate": "inkfill.evaluation.protocol",
    "inpaint": "inkfill.filling.inpaint",
    "load": "inkfill.models.model",
    "sample": "inkfill.filling.inpaint",
}


def __getattr__(name: str) -> Any:
    if name == "adapters":
        return import_module("inkfill.models.adapters")
    if name not in _HOME:
        raise AttributeError(f"module 'inkfill' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
