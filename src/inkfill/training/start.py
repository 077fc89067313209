"""The network that a training begins with: a new one, or that of a checkpoint, for the channels of the images."""

from dataclasses import replace

import torch
from torch import Tensor

from inkfill import data
from inkfill.checkpoint import SHIPPED, find_checkpoint, load_network
from inkfill.data.images import channels_of
from inkfill.model import DRAWING, Recipe
from inkfill.training.config import TrainConfig
from inkfill.unet import UNet, UNetConfig

FOLDED = 4  # pixels that the network folds into channels


def first_network(config: TrainConfig, groups: tuple[data.Images, ...], fresh: bool) -> tuple[TrainConfig, UNet]:
    """The network that a run on images of these sizes begins with, and the settings with its shape.

    One that starts from a checkpoint takes its shape and noise levels too. Raises InputError for no such checkpoint.
    """
    channels, draws = channels_of(groups[0]), config.objective in DRAWING
    if not (config.start and fresh):
        shape = config.unet or UNetConfig.for_size(max(side for images in groups for side in images.shape[1:3]))
        shape = replace(shape, channels=channels, fresh=draws)
        return replace(config, unet=shape), UNet(shape, config.seed)
    net, found = load_network(SHIPPED if config.start == "shipped" else find_checkpoint(config.start))
    recipe = Recipe.read(found)
    shape = replace(net.config, channels=channels, fresh=draws)
    config = replace(config, unet=shape, schedule=recipe.schedule, T=recipe.T)
    started = UNet(shape, config.seed)  # what the checkpoint lacks begins anew
    mine = started.state_dict()
    theirs = {name: value for name, value in with_channels(net, channels).items() if name in mine}
    started.load_state_dict({**mine, **theirs})
    return config, started


def with_channels(net: UNet, channels: int) -> dict[str, Tensor]:
    """The weights of a network for images of other channels, which it takes for so many copies of one grey image.

    So a picture whose channels are alike comes out as the same picture in grey would, in each of them: what reads
    shares its weights out among the channels, and what writes writes to each.
    """
    weights, had = dict(net.state_dict()), net.config.channels
    if had == channels:
        return weights
    for name in ("stem_noisy.weight", "stem_fresh.weight", "stem_known.weight"):
        if name in weights:
            pixels, known_map = weights[name].split([FOLDED * had, weights[name].shape[1] - FOLDED * had], dim=1)
            one = pixels.unflatten(1, (had, FOLDED)).sum(1) / channels
            weights[name] = torch.cat([one.repeat(1, channels, 1, 1), known_map], 1)
    for name in ("head.weight", "head.bias"):
        one = weights[name].unflatten(0, (had, FOLDED)).mean(0)
        weights[name] = one.repeat(channels, *[1] * (one.ndim - 1))
    return weights
