"""Training on images of any dtype: the recipe, and what the trained network draws."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from helpers import TINY, images_of
from inkfill import data
from inkfill.errors import InputError
from inkfill.filling.inpaint import sample
from inkfill.models.model import load
from inkfill.training.config import TrainConfig
from inkfill.training.recipe import data_range
from inkfill.training.run import train


@pytest.mark.parametrize(("dtype", "channels"), [("float32", 1), ("uint16", 1), ("uint8", 3), ("uint8", 4)])
def test_dtype_channels_size_and_range_are_those_of_the_training_images(tmp_path, dtype, channels):
    images = images_of(dtype, (40, 10, 15) if channels == 1 else (40, 10, 15, channels))
    images = images * 40 - 20 if dtype == "float32" else images
    np.save(tmp_path / "a.npy", images)
    config = TrainConfig(data=str(tmp_path / "a.npy"), steps=2, batch_size=4, warmup=1, unet=TINY)
    train(config, tmp_path / "run", quiet=True)
    model = load(tmp_path / "run" / "model.safetensors")
    assert (model.channels, model.image_size, model.image_dtype) == (channels, (10, 15), dtype)
    if dtype == "float32":
        dataset = data.load(str(tmp_path / "a.npy"))
        assert model.recipe.value_range == (dataset.train.min(), dataset.train.max())
    new = sample(model, 2, steps=1)
    assert new.shape == (2, *images.shape[1:])
    assert new.dtype == images.dtype


def test_a_given_data_range_must_hold_the_images():
    images = images_of("float32", (40, 10, 15)) * 40 - 20
    dataset = data.Dataset("x", images, images, images, {})
    assert (data_range(TrainConfig(low=-1e5, high=1e5), dataset).low) == -1e5
    with pytest.raises(InputError, match="leave it: widen it"):
        data_range(TrainConfig(low=0.0, high=0.5), dataset)
    broken = replace(dataset, train=np.where(images > 0, np.nan, images))
    with pytest.raises(InputError, match="--data-mask nan"):
        data_range(TrainConfig(), broken)


def test_metadata_have_the_dtype_and_the_data_range(tmp_path):
    np.save(tmp_path / "a.npy", images_of("float32", (40, 12, 12)))
    config = TrainConfig(data=str(tmp_path / "a.npy"), steps=1, batch_size=4, unet=TINY, low=0.0, high=1.0)
    train(config, tmp_path / "run", quiet=True)
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["inkfill"])["recipe"]
    assert recipe["number_type"] == "float32"
    assert recipe["value_range"] == [0.0, 1.0]
