"""Autoguidance: away from what a poorer network predicts (Karras et al. 2024, "Guiding a diffusion model with a bad
version of itself").

A small or briefly trained network errs where the better one errs, and more. Extrapolating from it to the better one
removes part of the error of both. The result is no posterior mean: it leads to a sharpened distribution, with fewer
malformed samples and less diversity.
"""

import torch
from torch import Tensor, nn

from inkfill.core.unet import UNet
from inkfill.errors import InputError

WEIGHT = 1.5  # chosen on validation digits (reports/guidance.md)
INTERVAL = (0.3, 1.0)  # of t / T: at low noise there is nothing to decide


class Guided(nn.Module):
    """guide + weight (net - guide) for t / T inside ``interval``, net elsewhere: called like a ``UNet``.

    Both networks predict v for the same x_t, in which x0 and eps are linear, so this extrapolates all three alike.
    Raises InputError for networks that do not fit together.
    """

    def __init__(
        self, net: UNet, guide: UNet, weight: float = WEIGHT, interval: tuple[float, float] = INTERVAL
    ) -> None:
        super().__init__()
        if net.config.latent or guide.config.latent:
            raise InputError("guidance: a few-step model predicts no mean: give networks trained with v or eps")
        if net.config.channels != guide.config.channels:
            raise InputError(
                f"guidance: networks for {net.config.channels} and {guide.config.channels} channels: they must agree"
            )
        self.net, self.guide, self.weight, self.interval = net, guide, weight, interval
        self.config = net.config

    def embed(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        """The response of the better network's stem to the observation (see ``UNet.embed``)."""
        return self.net.embed(known_pixels, known_map)

    def forward(
        self,
        x_t: Tensor,
        known_pixels: Tensor,
        known_map: Tensor,
        t: Tensor,
        embedded: Tensor | None = None,
        latent: Tensor | None = None,
    ) -> Tensor:
        v: Tensor = self.net(x_t, known_pixels, known_map, t, embedded)
        inside = (self.interval[0] <= t) & (t <= self.interval[1])
        if not inside.any():
            return v
        poorer: Tensor = self.guide(x_t, known_pixels, known_map, t)
        return torch.where(inside[:, None, None, None], poorer + self.weight * (v - poorer), v)
