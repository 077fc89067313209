"""The initial network of a run: new, or from a checkpoint, for the channels of the images."""

from dataclasses import replace

import torch
from torch import Tensor

from inkfill import data
from inkfill.core.objectives import OBJECTIVES, SAMPLE
from inkfill.core.unet import UNet, UNetConfig
from inkfill.data.images import channels_of
from inkfill.models.checkpoint import find_checkpoint, load_network
from inkfill.models.model import Recipe
from inkfill.training.config import TrainConfig

FOLDED = 4  # pixels folded into channels by the stem


def first_network(config: TrainConfig, groups: tuple[data.Images, ...], fresh: bool) -> tuple[TrainConfig, UNet]:
    """The initial network for images of these sizes, and the settings with its architecture.

    ``config.start``, read if ``fresh``, sets architecture and noise schedule too. Raises InputError if it is missing.
    """
    channels, latent = channels_of(groups[0]), OBJECTIVES[config.objective].gives == SAMPLE
    if not (config.start and fresh):
        shape = config.unet or UNetConfig.for_size(max(side for images in groups for side in images.shape[1:3]))
        shape = replace(shape, channels=channels, planes=channels, latent=latent)
        return replace(config, unet=shape), UNet(shape, config.seed)
    net, found = load_network(find_checkpoint(config.start))
    recipe = Recipe.read(found)
    shape = replace(net.config, channels=channels, planes=channels, latent=latent)
    config = replace(config, unet=shape, schedule=recipe.schedule, T=recipe.T)
    started = UNet(shape, config.seed)  # parameters that the checkpoint lacks stay as initialised
    weights = started.state_dict()
    weights |= {name: value for name, value in with_channels(net, started).items() if name in weights}
    started.load_state_dict(weights)
    return config, started


def with_channels(net: UNet, new: UNet) -> dict[str, Tensor]:
    """The weights of a network adapted to the channels and mask planes of a new one.

    On images of equal channels and masks it equals the network on their grey version: input weights are divided among
    channels, output weights repeated. The new network's random weights read differences between channels; without them
    all channels would keep equal gradients.
    """
    weights, own, had, now = net.state_dict(), new.state_dict(), net.config, new.config
    found = dict(weights)
    for name in ("stem_noisy.weight", "stem_latent.weight", "stem_known.weight"):
        if name in weights and name in own:
            (old, old_map), (random, random_map) = (
                x.tensor_split([FOLDED * c], 1) for x, c in ((weights[name], had.channels), (own[name], now.channels))
            )
            pixels = spread(old, random, had.channels, now.channels)
            planes = spread(old_map, random_map, had.planes, now.planes) if name == "stem_known.weight" else old_map
            found[name] = torch.cat([pixels, planes], 1)
    if had.channels != now.channels:
        for name in ("head.weight", "head.bias"):
            one = weights[name].unflatten(0, (had.channels, FOLDED)).mean(0)
            found[name] = one.repeat(now.channels, *[1] * (one.ndim - 1))
    return found


def spread(old: Tensor, random: Tensor, had: int, now: int) -> Tensor:
    """Input weights for ``had`` planes divided among ``now`` planes, plus what the random ones read of differences."""
    if had == now:
        return old
    random = random.view(-1, now, FOLDED, *random.shape[2:])
    one = old.view(-1, had, FOLDED, *old.shape[2:]).sum(1, keepdim=True) / now
    return (one + random - random.mean(1, keepdim=True)).flatten(1, 2)
