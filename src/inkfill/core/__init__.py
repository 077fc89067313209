"""The method: schedule, U-Net, masks, objectives, training step, samplers, and inpainting in one loop."""
