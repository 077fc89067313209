"""Several processes on one job: what torchrun starts, and what they tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Processes:
    """This process among those of the run (torchrun sets RANK and WORLD_SIZE)."""

    rank: int
    world: int
    device: torch.device

    def slice(self, batch_size: int) -> slice:
        """This process's rows of a global batch."""
        share = batch_size // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def add_gradients(self, net: nn.Module) -> None:
        """Sum gradients over processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def total(self, value: float) -> float:
        """The sum of a number over processes, known to all of them."""
        if self.world == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return float(summed)

    def leads(self, value: bool) -> bool:
        """What the first process says, known to all of them."""
        return self.total(float(value and self.rank == 0)) > 0


@contextmanager
def processes(cpu: bool = False) -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one; on a GPU each where there are any."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available() and not cpu
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(rank, world, device)
    finally:
        if world > 1:
            dist.destroy_process_group()
