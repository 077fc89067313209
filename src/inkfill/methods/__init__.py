"""Inpainting methods: functions of a :class:`Task` that return x0, and their registry.

*Guided* methods turn one denoiser into another, *chains* edit the state between steps, *particle* methods propose and
weigh.
"""

from inkfill.methods.chains import dps, few, repaint, repaint_path, replacement
from inkfill.methods.guided import conditional, ddnm, mmps, pigdm
from inkfill.methods.particles import mcgdiff, run_filter, tds
from inkfill.methods.registry import MEAN_METHODS, METHODS, Method, find_method
from inkfill.methods.task import Task

__all__ = [
    "MEAN_METHODS", "METHODS", "Method", "Task", "conditional", "ddnm", "dps", "few", "find_method", "mcgdiff", "mmps",
    "pigdm", "repaint", "repaint_path", "replacement", "run_filter", "tds",
]  # fmt: skip
