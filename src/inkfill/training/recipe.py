"""The recipe that a run stores beside its weights."""

import math
from dataclasses import asdict, fields

import numpy as np

from inkfill import defaults
from inkfill.core.objectives import OBJECTIVES, SAMPLE
from inkfill.data.dataset import Dataset
from inkfill.data.images import (
    Images,
    ValueRange,
    black_floor,
    channels_of,
    check_transform,
    natural_range,
    nodata_words,
    range_of,
)
from inkfill.errors import InputError, remark
from inkfill.models.model import Recipe
from inkfill.training.config import TrainConfig

FEW_STEPS = 2  # default NFE of few-step models


def data_range(config: TrainConfig, dataset: Dataset) -> ValueRange:
    """The data range: as given, else that of the training images (:func:`range_of`). Raises InputError.

    Remarks on a value that is far from all others.
    """
    groups = dataset.groups
    images = groups[0] if len(groups) == 1 else np.concatenate([each.ravel() for each in groups])
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError("the training images have NaN or infinite values: give --data-mask nan, or finite images")
    if words := nodata_words(images, "--data-mask"):
        remark(f"values from {images.min():g} to {images.max():g}{words}")
    low, high = _found(images) if config.low is None or config.high is None else (config.low, config.high)
    if images.min() < low or images.max() > high:
        raise InputError(
            f"--range {low:g} {high:g}: values from {images.min():g} to {images.max():g} leave it: widen it"
        )
    check_transform(config.transform, np.array([low]))
    floor = black_floor(images) if (low, high) == natural_range(images.dtype) else 0.0
    return ValueRange(low, high, floor if config.floor is None else config.floor, config.transform)


def _found(images: Images) -> tuple[float, float]:
    """The data range of the training images, with a remark where it is a part of what their dtype implies."""
    (low, high), natural = range_of(images), natural_range(images.dtype)
    if natural and (low, high) != natural:
        share = (high - low) / (natural[1] - natural[0])
        part = f"values from {low:g} to {high:g}, {share:.1%} of the range of {images.dtype}"
        remark(f"{part}: they are the data range; for all of it, give --range {natural[0]:g} {natural[1]:g}")
    return low, high


def recipe_of(config: TrainConfig, dataset: Dataset, values: ValueRange, step: int) -> Recipe:
    """The recipe of the weights after ``step`` steps."""
    sizes = [(images.shape[1], images.shape[2]) for images in dataset.groups]
    named = {f.name for f in fields(Recipe)}
    few = OBJECTIVES[config.objective].gives == SAMPLE
    return Recipe(
        schedule=config.schedule,
        T=config.T,
        channels=channels_of(dataset.train),
        image_size=max(sizes, key=math.prod),
        least_size=(min(h for h, _ in sizes), min(w for _, w in sizes)) if len(sizes) > 1 else (0, 0),
        value_range=(values.low, values.high),
        number_type=dataset.train.dtype.name,
        floor=values.floor,
        transform=values.transform,
        black=_share_of_black(dataset, values.low),
        objective=config.objective,
        sampling_steps=FEW_STEPS if few else defaults.STEPS,
        trained_on=dataset.name,
        data_hash=dataset.fingerprint,
        step=step,
        batch_size=config.batch_size,
        training={name: value for name, value in asdict(config).items() if name not in named},
    )


def _share_of_black(dataset: Dataset, low: float) -> float:
    """The fraction of observed pixels at the lowest value."""
    groups = dataset.groups
    if dataset.holes:
        groups = tuple(images[~hole] for images, hole in zip(groups, dataset.holes_of_groups, strict=True))
    return sum(int((images == low).sum()) for images in groups) / sum(images.size for images in groups)
