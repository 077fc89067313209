"""This library's U-Net in the clothes of a model of diffusers, for the folders that ``inkfill export`` writes.

    from diffusers import DDPMPipeline
    DDPMPipeline.from_pretrained("folder/")(batch_size=16)      # new images, from nothing, with their samplers

It needs both packages. Unconditional: everything is missing. What it predicts is v.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from inkfill.unet import UNet, UNetConfig


@dataclass
class Prediction(BaseOutput):
    """``sample``: v, float32 ``[B, C, H, W]``."""

    sample: Tensor


class InkfillUNet(ModelMixin, ConfigMixin):
    """``net(sample, timestep).sample`` is v for images of which nothing is known.

    ``timestep`` is in the counting of diffusers, from 0 to T - 1: its timestep t is level t + 1 here.
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

    def forward(self, sample: Tensor, timestep: Tensor | int, return_dict: bool = True) -> Any:
        """v of a batch; all rows may share one timestep."""
        level = (
            torch.as_tensor(timestep, device=sample.device).float().reshape(-1) + 1
        ) / self.config.num_train_timesteps
        nothing = torch.zeros_like(sample)
        v = self.net(sample, nothing, nothing[:, :1], level)
        return Prediction(sample=v) if return_dict else (v,)
