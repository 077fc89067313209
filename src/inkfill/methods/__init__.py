"""Inpainting methods: functions of a :class:`Task` that return x0, registered by name in ``METHODS``.

*Guided* methods turn one denoiser into another, *chains* edit the state between steps, *optimised* methods fit it, and
*particle* methods propose and weight.
"""

from inkfill.methods import guided, chains, optimised, particles  # noqa: I001 (the registry's order: conditional first)
from inkfill.methods.registry import METHODS, Method, find_method, mean_methods, method
from inkfill.methods.task import Task

__all__ = [
    "METHODS", "Method", "Task", "chains", "find_method", "guided", "mean_methods", "method", "optimised", "particles",
]  # fmt: skip
