"""inkfill: diffusion inpainting, small enough to understand and to measure.

>>> import inkfill
>>> model = inkfill.load()
>>> filled = inkfill.inpaint(model, images, "half:left", samples=8, seed=0)  # uint8 [N, 8, H, W]

``import inkfill`` is cheap: torch is imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inkfill.denoiser import load
    from inkfill.inpainting import inpaint, sample

__version__ = "0.1.0"
__all__ = ["__version__", "inpaint", "load", "sample"]

_HOME = {"load": "inkfill.denoiser", "inpaint": "inkfill.inpainting", "sample": "inkfill.inpainting"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'inkfill' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
