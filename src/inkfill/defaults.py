"""Defaults that the command line shows in its help, kept where reading them needs no torch."""

VERSION = "0.2.0"
# DPM-Solver++(2M), its stochastic form, DDIM with eta 0, ancestral DDPM
SAMPLERS = ("dpmpp", "dpmpp-sde", "ddim", "ancestral")
SAMPLER = "dpmpp-sde"
STEPS = 8  # network evaluations per completion: more, up to 25, have no better CRPS (docs/speed.md)
NEW_STEPS = 16  # at least, for images from nothing, where the first levels decide everything (docs/models.md)
SAMPLES = 8  # completions per image
METHOD = "conditional"
OBJECTIVES = ("v", "eps", "few", "regression")
SCHEDULES = ("linear", "cosine")
DTYPES = ("float32", "bfloat16")
EVALUATION_MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9", "bbox:8")
FEW_IMAGES = 20_000  # training images: with more, learning by heart is no danger, and looking for it is dear
