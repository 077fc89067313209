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
    weights = started.state_dict()
    weights |= {name: value for name, value in with_channels(net, started).items() if name in weights}
    started.load_state_dict(weights)
    return config, started


def with_channels(net: UNet, new: UNet) -> dict[str, Tensor]:
    """The weights of a network for the channels of a new one, which it takes for so many copies of one grey image.

    So a picture whose channels are alike comes out as the same picture in grey would, in each of them: what reads
    shares its weights out among the channels, and what writes writes to each. How channels differ is read by the new
    network's own random weights: without them all channels would be alike for ever, as their gradients are.
    """
    weights, own, had, channels = net.state_dict(), new.state_dict(), net.config.channels, new.config.channels
    if had == channels:
        return dict(weights)
    found = dict(weights)
    for name in ("stem_noisy.weight", "stem_fresh.weight", "stem_known.weight"):
        if name in weights and name in own:
            (old, known_map), (random, _) = (
                x.tensor_split([FOLDED * c], 1) for x, c in ((weights[name], had), (own[name], channels))
            )
            random = random.unflatten(1, (channels, FOLDED))
            one = old.unflatten(1, (had, FOLDED)).sum(1, keepdim=True) / channels
            pixels = (one + random - random.mean(1, keepdim=True)).flatten(1, 2)
            found[name] = torch.cat([pixels, known_map], 1)
    for name in ("head.weight", "head.bias"):
        one = weights[name].unflatten(0, (had, FOLDED)).mean(0)
        found[name] = one.repeat(channels, *[1] * (one.ndim - 1))
    return found
