"""The processes of a job started by torchrun, and their messages."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from inkfill.errors import InputError

PATIENCE = 300.0  # seconds to wait for another process
MEETING = 60.0  # seconds to wait at the start
GRACE = 60.0  # seconds to wait after a request to stop


@dataclass(frozen=True)
class Processes:
    """This process and the number of processes (torchrun sets RANK and WORLD_SIZE)."""

    rank: int
    world: int
    device: torch.device
    asked_to_stop: Callable[[], bool] = lambda: False

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the process that writes."""
        return self.rank == 0

    def slice(self, count: int) -> slice:
        """This process's share of ``count`` rows, as even as possible."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def add_gradients(self, net: nn.Module) -> None:
        """Sum gradients over processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        self._sum(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def total(self, value: float) -> float:
        """The sum of a number over processes, on every process."""
        if self.world == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        self._sum(summed)
        return float(summed)

    def from_first(self, value: float) -> float:
        """Rank 0's value, on every process."""
        return self.total(value if self.first else 0.0)

    def await_first(self) -> None:
        """Block until rank 0 arrives. While it works, rank 0 sends heartbeats so that nobody times out."""
        while not self.from_first(True):
            pass

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, on every process."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        with _one_line():
            dist.all_gather_object(values, value)
        return values

    def _sum(self, tensor: Tensor) -> None:
        """Sum over processes. It waits in Python, so that Ctrl-C works while another process hangs."""
        with _one_line():
            work = dist.all_reduce(tensor, async_op=True)
            began = time.monotonic()
            while not work.is_completed():
                waited = time.monotonic() - began
                if waited > (GRACE if self.asked_to_stop() else PATIENCE):
                    raise InputError(f"another process of this run has not answered for {waited:.0f} seconds: stopped")
                time.sleep(1e-4)
            work.wait()


@contextmanager
def _one_line(what: str = "has ended") -> Iterator[None]:
    """Turn an error of torch.distributed into an InputError."""
    try:
        yield
    except RuntimeError as error:  # torch raises it where a connection breaks
        raise InputError(f"another process of this run {what}: stopped ({str(error).splitlines()[0][:80]})") from None


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def processes(
    device: torch.device | None = None, asked_to_stop: Callable[[], bool] = lambda: False
) -> Iterator[Processes]:
    """Join the processes that torchrun started, or run alone.

    Each uses ``device``; by default a GPU of its own where there are any. ``asked_to_stop`` returns True after Ctrl-C.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        device = torch.device("cuda", local) if device.index is None else device
        torch.cuda.set_device(device)  # needs an index
    if world > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        with _one_line("did not come"):
            store, _, _ = next(rendezvous("env://", rank, world, timeout=timedelta(seconds=MEETING)))
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=2 * PATIENCE)
            )
    yield Processes(rank, world, device, asked_to_stop)
    if world > 1:  # not after an error: it would wait for a process that hangs
        dist.destroy_process_group()
