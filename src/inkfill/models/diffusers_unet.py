"""The U-Net as a diffusers model, for the folders that ``inkfill export`` writes.

    from diffusers import DDPMPipeline
    DDPMPipeline.from_pretrained("folder/")(batch_size=16)      # unconditional samples, by diffusers' samplers

Both packages must be installed. Every pixel is missing; the model predicts v.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from inkfill.core.unet import UNet, UNetConfig


class InkfillUNet(ModelMixin, ConfigMixin):
    """``net(sample, timestep).sample`` is v with every pixel missing.

    ``timestep`` counts from 0 to T - 1 as in diffusers: their timestep t is t + 1 here.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: tuple[int, int] = (28, 28),
        in_channels: int = 1,
        out_channels: int = 1,
        num_train_timesteps: int = 1000,
        unet: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.net = UNet(UNetConfig.read(unet or {}))

    def forward(self, sample: Tensor, timestep: Tensor | int) -> UNet2DOutput:
        """v of a batch; the rows may share one timestep."""
        t = torch.as_tensor(timestep, device=sample.device).float().reshape(-1) + 1
        nothing = torch.zeros_like(sample)
        return UNet2DOutput(self.net(sample, nothing, nothing[:, :1], t / self.config.num_train_timesteps))
