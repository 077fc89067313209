"""inkfill: diffusion inpainting, small enough to understand and to measure.

>>> import inkfill
>>> model = inkfill.load()
>>> filled = inkfill.inpaint(model, images, "half:left", samples=8, seed=0)  # uint8 [N, 8, H, W]

``import inkfill`` is cheap: torch is imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inkfill.defaults import VERSION as __version__

if TYPE_CHECKING:
    from inkfill.inpainting import inpaint, sample
    from inkfill.model import load

__all__ = ["__version__", "inpaint", "load", "sample"]

_HOME = {"load": "inkfill.model", "inpaint": "inkfill.inpainting", "sample": "inkfill.inpainting"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'inkfill' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
