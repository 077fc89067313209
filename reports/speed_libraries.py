"""inkfill beside other libraries: training speed of their U-Nets, and their inpainting methods on inkfill's weights.

    python -m venv runs/peers
    runs/peers/bin/pip install torch==2.13.0 torchvision==0.28.0 -e '.[peers]'
    runs/peers/bin/python reports/speed_libraries.py

Everything runs in one process, in turn. Training: each library's own U-Net and objective at about the same number of
parameters. Methods: every library gets inkfill's weights as its denoiser, with its own default settings. Writes
reports/speed/libraries.json.
"""

import contextlib
import io
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from math import inf
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# torchvision's compiled operators need CUDA. None is used here, but its import fails without them.
operators = torch.library.Library("torchvision", "FRAGMENT")
with contextlib.suppress(RuntimeError):
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import deepinv
import denoising_diffusion_pytorch as lucidrains
import diffusers
import smalldiffusion
from denoising_diffusion_pytorch.repaint import GaussianDiffusion as RePaintDiffusion

import inkfill
from common import Row, alternate, new_trainer, repeated, run, save, show, timed
from inkfill import data, defaults
from inkfill.core.denoiser import Denoiser
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer
from inkfill.data import masks
from inkfill.evaluation.metrics import crps, standard_error
from inkfill.files import file_hash
from inkfill.models.checkpoint import SHIPPED
from inkfill.models.model import Model
from inkfill.training.config import TrainConfig

LIBRARIES = ("diffusers", "denoising-diffusion-pytorch", "smalldiffusion", "deepinv")
MASKS = ("half:left", "box:10")
BATCH = 64

Network = tuple[nn.Module, Callable[[nn.Module, Any], Tensor]]  # and its loss, a mean


def diffusers_network() -> Network:
    """Its U-Net and the noise prediction error."""
    down, up = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D")
    shape = {"sample_size": 32, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 8}
    blocks = {"block_out_channels": (24, 48, 96), "down_block_types": down, "up_block_types": up}
    scheduler = diffusers.DDPMScheduler()

    def loss(net: nn.Module, batch: SimpleNamespace) -> Tensor:
        eps, t = torch.randn_like(batch.x0), torch.randint(1000, (len(batch.x0),))
        return F.mse_loss(net(scheduler.add_noise(batch.x0, eps, t), t).sample.float(), eps)

    return diffusers.UNet2DModel(**shape, **blocks), loss


def lucidrains_network() -> Network:
    """Its U-Net in its diffusion, a module that returns its loss."""
    net = lucidrains.Unet(dim=24, dim_mults=(1, 2, 4), channels=1)
    return lucidrains.GaussianDiffusion(net, image_size=32), lambda net, batch: net((batch.x0 + 1) / 2).float()


def smalldiffusion_network() -> Network:
    """Its U-Net and its loss."""
    net = smalldiffusion.Unet(32, 1, 1, ch=32, ch_mult=(1, 2, 3), num_res_blocks=1, attn_resolutions=(8,))
    draw = partial(smalldiffusion.generate_train_sample, schedule=smalldiffusion.ScheduleLogLinear(1000))
    return net, lambda net, batch: net.get_loss(*draw(batch.x0)[:3]).float()


def trainers(images: data.Images) -> dict[str, Trainer]:
    """Every network by its name and precision."""

    def draw(step: int) -> SimpleNamespace:
        chosen = stream(0, "peers", step).integers(len(images), size=BATCH)
        x0 = F.pad(data.to_x0(images[chosen]), (2, 2, 2, 2), value=-1.0)  # 32x32, which the other libraries need
        return SimpleNamespace(x0=x0, count=1.0)

    def peer(build: Callable[[], Network], dtype: torch.dtype) -> Trainer:
        net, loss = build()
        return Trainer(net, [torch.optim.Adam(net.parameters(), 1e-4)], draw, loss, clip=inf, ema=0.0, dtype=dtype)

    made = {"inkfill": new_trainer(TrainConfig(batch_size=BATCH), images)}
    builds = (diffusers_network, lucidrains_network, smalldiffusion_network)
    for name, build in zip(LIBRARIES, builds, strict=False):
        made |= {f"{name}, {str(dtype)[6:]}": peer(build, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return made


def time_training(images: data.Images, rounds: int) -> list[Row]:
    """Images per second of every network, two steps in each round."""
    made, rows = trainers(images), []
    times = alternate({name: repeated(partial(trainer.step, 1.0), 2) for name, trainer in made.items()}, rounds)
    for name, trainer in made.items():
        row = {"network": name, "parameters": sum(p.numel() for p in trainer.net.parameters())}
        rows.append(show({**row, "images_per_s": 2 * BATCH / median(times[name])}))
    return rows


class AsNoisePredictor(nn.Module):
    """The interface of diffusers: ``net(x, t).sample`` is the noise in x; t counts from 0."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, denoise: Denoiser, schedule: Schedule):
        super().__init__()
        self.denoise, self.schedule = denoise, schedule

    def forward(self, x: Tensor, t: Tensor) -> "AsNoisePredictor":
        timestep = int(t) + 1
        self.sample = self.schedule.eps_from_x0(x, timestep, self.denoise(x, timestep))
        return self


class AsCleanPredictor(nn.Module):
    """The interface of denoising-diffusion-pytorch, objective pred_x0."""

    channels = out_dim = 1
    self_condition = random_or_learned_sinusoidal_cond = False

    def __init__(self, denoise: Denoiser):
        super().__init__()
        self.denoise = denoise

    def forward(self, x: Tensor, t: Tensor, _: Tensor | None = None) -> Tensor:
        return self.denoise(x, int(t[0]) + 1)


class AsDenoiser(deepinv.models.Denoiser):
    """The interface of deepinv: an image in [0, 1] plus noise sigma in, the clean one out."""

    def __init__(self, denoise: Denoiser, schedule: Schedule):
        super().__init__()
        self.denoise, self.alpha_bar = denoise, schedule.alpha_bar
        self.sigmas = ((1 - self.alpha_bar) / self.alpha_bar).sqrt() / 2  # of timestep t, for images in [0, 1]

    def forward(self, x: Tensor, sigma: Tensor | float, **_: object) -> Tensor:
        wanted = torch.as_tensor(sigma, dtype=torch.float64).flatten()[0].clamp(min=1e-6)
        t = 1 + int((self.sigmas[1:].log() - wanted.log()).abs().argmin())
        noisy = (float(self.alpha_bar[t]) ** 0.5 * (2 * x - 1)).float()
        return ((self.denoise(noisy, t) + 1) / 2).to(x.dtype)


Peer = Callable[[Denoiser, Schedule, Tensor, Tensor], Tensor]  # fills images in [0, 1] where the mask is True (missing)


def diffusers_repaint(denoise: Denoiser, schedule: Schedule, images: Tensor, mask: Tensor) -> Tensor:
    """RePaint with diffusers' defaults."""
    betas = (1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]).float().numpy()
    scheduler = diffusers.RePaintScheduler(trained_betas=betas)
    pipeline = diffusers.RePaintPipeline(AsNoisePredictor(denoise, schedule), scheduler)
    filled = pipeline(2 * images - 1, (~mask).float(), generator=torch.manual_seed(0), output_type="np").images
    return torch.from_numpy(filled).permute(0, 3, 1, 2)


def lucidrains_repaint(denoise: Denoiser, schedule: Schedule, images: Tensor, mask: Tensor) -> Tensor:
    """RePaint of denoising-diffusion-pytorch."""
    settings = {"image_size": 28, "timesteps": 1000, "objective": "pred_x0", "beta_schedule": "cosine"}
    torch.manual_seed(0)
    return RePaintDiffusion(AsCleanPredictor(denoise), **settings).sample(gt=images, mask=(~mask).float())


def deepinv_fill(
    sampler: Callable[..., nn.Module], denoise: Denoiser, schedule: Schedule, images: Tensor, mask: Tensor
) -> Tensor:
    """A method of deepinv; it takes one mask for all images."""
    hole = deepinv.physics.Inpainting((1, 28, 28), mask=(~mask[:1]).float())
    return sampler(AsDenoiser(denoise, schedule))(hole(images), hole, seed=1)


PEERS: dict[str, Peer] = {
    "diffusers: RePaint": diffusers_repaint,
    "denoising-diffusion-pytorch: RePaint": lucidrains_repaint,
    "deepinv: DPS": partial(deepinv_fill, deepinv.sampling.DPS),
    "deepinv: DiffPIR": partial(
        deepinv_fill, partial(deepinv.sampling.DiffPIR, data_fidelity=deepinv.optim.data_fidelity.L2())
    ),
    "deepinv: DDRM": partial(deepinv_fill, deepinv.sampling.DDRM),
}
OWN: dict[str, tuple[str, int, dict[str, float]]] = {  # method, steps, settings
    "inkfill: conditional": ("conditional", defaults.STEPS, {}),
    **{f"inkfill: {name}": (name, 50, {}) for name in ("replacement", "repaint", "ddnm", "dps", "pigdm")},
    "inkfill: repaint as in the paper": ("repaint", 250, {"jump": 10, "repeats": 10}),
}


def by_peer(
    peer: Peer, model: Model, images: data.Images, mask: np.ndarray, samples: int, count: Callable[[int], object]
) -> data.Images:
    """Another library's samples, as one batch, [N, K, 28, 28]; ``count`` is called as in inpaint."""
    clean, hole = (torch.from_numpy(np.repeat(x, samples, 0)[:, None]) for x in (images, mask))
    clean = clean.float() / 255

    def denoise(x_t: Tensor, t: int) -> Tensor:
        count(len(x_t))
        return model.unconditional(x_t)(x_t, t)

    with contextlib.redirect_stderr(io.StringIO()):  # their progress bars
        x = peer(denoise, model.schedule, clean, hole).detach()
    x = torch.where(hole, x, clean.to(x.dtype))  # not all of them return the observed pixels
    return model.value_range.to_images(2 * x - 1).reshape(len(images), samples, 28, 28)


def compare_methods(digits: int, samples: int) -> list[Row]:
    """Seconds, NFE and CRPS of every method on every mask."""
    model, images, rows = inkfill.load(), data.load("mnist").validation[:digits], []
    for spec in MASKS:
        mask = masks.fit(spec, images)
        task, inpaint = (images, mask, samples), inkfill.inpaint
        fills = {name: partial(inpaint, model, *task, m, n, settings=s) for name, (m, n, s) in OWN.items()}
        fills |= {name: partial(by_peer, peer, model, *task) for name, peer in PEERS.items()}
        for name, fill in fills.items():
            spent: list[int] = []
            filled, took = timed(partial(fill, count=spent.append))
            each, found = digits * samples, crps(images, filled, mask)
            row = {"mask": spec, "method": name, "seconds": took / each, "evaluations": sum(spent) / each}
            rows.append(show({**row, "crps": float(found.mean()), "crps_se": standard_error(found)}))
    return rows


def main(rounds: int = 5, digits: int = 16, samples: int = 4) -> None:
    """Both tables."""
    about = {"checkpoint": file_hash(SHIPPED), "digits": digits, "samples": samples}
    found = {"versions": {name: version(name) for name in LIBRARIES}, **about}
    found["training"] = time_training(data.load("mnist").train, rounds)
    found["methods"] = compare_methods(digits, samples)
    save("speed", "libraries", found)


if __name__ == "__main__":
    run(main)
