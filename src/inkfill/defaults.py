"""Defaults that need no torch to be read."""

VERSION = "0.3.0"
SAMPLER = "dpmpp-sde"
STEPS = 8  # NFE per sample; up to 25, more have no better CRPS (reports/speed.md)
NEW_STEPS = 16  # at least, for unconditional samples (docs/models.md)
SAMPLES = 8  # per image
METHOD = "conditional"
DTYPES = ("float32", "bfloat16")  # compute precision
EVALUATION_MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9", "bbox:8")
FEW_IMAGES = 20_000  # training images; with more, overfitting is not looked for
