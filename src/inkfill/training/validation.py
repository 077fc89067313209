"""The validation loss."""

from dataclasses import replace

import torch
from torch import nn

from inkfill.core.objectives import Objective
from inkfill.core.rng import stream
from inkfill.data.images import Images, Mask
from inkfill.training.batches import Batches

SIZE, PARTS = 250, 8  # images per batch, and batches


def validation_losses(
    net: nn.Module,
    objective: Objective,
    batches: Batches,
    images: Images,
    holes: Mask | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """The reported error of an objective on validation images: its mean, and its means over tenths of the timesteps.

    All calls use the same masks, timesteps and noise.
    """
    schedule, device = batches.schedule, next(net.parameters()).device
    batches = replace(batches, size=SIZE, augment="", device=device, make=objective.draw or type(batches).make)
    errors, counts = torch.zeros(10), torch.zeros(10)
    net.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        for part in range(PARTS):
            batch = batches.draw(images, stream(0, "validation", part), holes=holes)
            rows = objective.reported(net, batch).sum((1, 2, 3)).cpu()
            tenth = (batch.t - 1) * 10 // schedule.T
            errors.index_add_(0, tenth, rows)
            counts.index_add_(0, tenth, batch.weights)
    losses = {f"validation_{i}": float(errors[i] / counts[i].clamp(min=1)) for i in range(10)}
    return {"validation": float(errors.sum() / counts.sum().clamp(min=1)), **losses}
