"""inkfill beside the libraries that people would otherwise use: same machine, same run, alternating.

    python -m venv runs/peers
    runs/peers/bin/pip install torch==2.13.0 torchvision==0.28.0 -e '.[peers]'
    runs/peers/bin/python benchmarks/peers.py [--original runs/original/model.safetensors] [--out docs/speed/peers.json]

Two tables. Networks: images a second in training, of each library's own U-Net and its own objective (Adam, noise
prediction), at about inkfill's number of parameters. Methods: every library gets inkfill's weights as its denoiser, so
that the method and its bookkeeping are compared and not the network; settings are each library's defaults.
"""

import argparse
import contextlib
import functools
import io
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# torchvision's compiled operators are built for CUDA and do not load beside a CPU build of torch. None is used here, but
# importing it stops at the first that it does not find.
operators = torch.library.Library("torchvision", "FRAGMENT")
with contextlib.suppress(RuntimeError):
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import deepinv  # noqa: E402
import denoising_diffusion_pytorch as lucidrains  # noqa: E402
import smalldiffusion  # noqa: E402
from deepinv.optim.data_fidelity import L2  # noqa: E402
from denoising_diffusion_pytorch.repaint import GaussianDiffusion as RePaintDiffusion  # noqa: E402
from diffusers import DDPMScheduler, RePaintPipeline, RePaintScheduler, UNet2DModel  # noqa: E402
from inkfill.metrics import crps  # noqa: E402

import inkfill  # noqa: E402
import original  # noqa: E402
import speed  # noqa: E402
from inkfill import data, defaults  # noqa: E402
from inkfill.checkpoint import SHIPPED, file_hash, written_whole  # noqa: E402
from inkfill.denoiser import Model  # noqa: E402
from inkfill.inpainting import METHODS, fit_mask, inpaint, repaint  # noqa: E402
from inkfill.rng import stream  # noqa: E402
from inkfill.schedule import Schedule  # noqa: E402

LIBRARIES = ("diffusers", "denoising-diffusion-pytorch", "smalldiffusion", "deepinv")
MASKS = ("half:left", "box:10")
BATCH = 64


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# ---- networks in training --------------------------------------------------------------------------------------------


def training_steps(images: data.Images) -> dict[str, tuple[int, Callable[[], None]]]:
    """Name: parameters, and a function that makes one step on 64 images."""
    rng = stream(0, "peers")

    def batch() -> Tensor:
        return F.pad(data.to_x0(images[rng.integers(len(images), size=BATCH)]), (2, 2, 2, 2), value=-1.0)

    def step(net: nn.Module, loss: Callable[[Tensor], Tensor], bfloat16: bool) -> Callable[[], None]:
        adam = torch.optim.Adam(net.parameters(), 1e-4)

        def once() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                value = loss(batch())
            adam.zero_grad()
            value.float().backward()
            adam.step()

        return once

    def diffusers(bfloat16: bool) -> tuple[int, Callable[[], None]]:
        net = UNet2DModel(
            sample_size=32,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(24, 48, 96),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )
        scheduler = DDPMScheduler()

        def loss(x0: Tensor) -> Tensor:
            eps, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
            return F.mse_loss(net(scheduler.add_noise(x0, eps, t), t).sample.float(), eps)

        return parameters(net), step(net, loss, bfloat16)

    def lucid(bfloat16: bool) -> tuple[int, Callable[[], None]]:
        net = lucidrains.Unet(dim=24, dim_mults=(1, 2, 4), channels=1)
        diffusion = lucidrains.GaussianDiffusion(net, image_size=32)
        return parameters(net), step(net, lambda x0: diffusion((x0 + 1) / 2), bfloat16)

    def small(bfloat16: bool) -> tuple[int, Callable[[], None]]:
        net = smalldiffusion.Unet(32, 1, 1, ch=32, ch_mult=(1, 2, 3), num_res_blocks=1, attn_resolutions=(8,))
        schedule = smalldiffusion.ScheduleLogLinear(1000)

        def loss(x0: Tensor) -> Tensor:
            return net.get_loss(*smalldiffusion.generate_train_sample(x0, schedule)[:3])

        return parameters(net), step(net, loss, bfloat16)

    def first(bfloat16: bool) -> tuple[int, Callable[[], None]]:
        net, schedule = original.new_network(), Schedule.named("cosine", original.LEVELS)
        adam = torch.optim.Adam(net.parameters(), original.RATE)

        return parameters(net), lambda: original.advance(net, adam, images, schedule, 0, bfloat16)

    ours, steps = speed.TrainingStep(images), itertools.count()
    made = {"inkfill": (parameters(ours.net), lambda: ours(next(steps)))}
    peers = {"diffusers": diffusers, "denoising-diffusion-pytorch": lucid, "smalldiffusion": small, "original": first}
    for name, peer in peers.items():
        for bfloat16 in (False, True):
            made[f"{name}, {'bfloat16' if bfloat16 else 'float32'}"] = peer(bfloat16)
    return made


def time_training(images: data.Images, rounds: int) -> list[dict]:
    steps = training_steps(images)
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, (_, once) in steps.items():
            size = original.BATCH if name.startswith("original") else BATCH
            began = time.perf_counter()
            for _ in range(2):
                once()
            if turn > 0:  # the first warms up
                speeds[name].append(2 * size / (time.perf_counter() - began))
    rows = []
    for name, (count, _) in steps.items():
        rows.append({"network": name, "parameters": count, "images_per_s": statistics.median(speeds[name])})
        print(rows[-1], flush=True)
    return rows


# ---- methods on the same weights -------------------------------------------------------------------------------------


class AsNoisePredictor(nn.Module):
    """Diffusers' interface: ``net(x, t).sample`` is the noise in x; t from 0. Counts its evaluations."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = int(t) + 1
        a = float(self.model.schedule.alpha_bar[level])
        x0 = self.model.unconditional(x)(x, level)
        self.sample = (x - a**0.5 * x0) / (1 - a) ** 0.5
        return self


class AsCleanPredictor(nn.Module):
    """denoising-diffusion-pytorch's interface, for its objective pred_x0."""

    channels = out_dim = 1
    self_condition = random_or_learned_sinusoidal_cond = False

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, _: Tensor | None = None) -> Tensor:
        return self.model.unconditional(x)(x, int(t[0]) + 1)


class AsDenoiser(deepinv.models.Denoiser):
    """Deepinv's interface: an image in [0, 1] with noise sigma on it in, the clean one out."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model
        a = model.schedule.alpha_bar.double()
        self.sigmas = ((1 - a) / a).sqrt() / 2  # of level t, on the scale of [0, 1]

    def forward(self, x: Tensor, sigma: Tensor | float, **_: object) -> Tensor:
        wanted = torch.as_tensor(sigma, dtype=torch.float64).flatten()[0].clamp(min=1e-6)
        t = 1 + int((self.sigmas[1:].log() - wanted.log()).abs().argmin())
        a = float(self.model.schedule.alpha_bar[t])
        noisy = (a**0.5 * (2 * x - 1)).float()
        return ((self.model.unconditional(noisy)(noisy, t) + 1) / 2).to(x.dtype)


Fill = Callable[
    [Tensor, Tensor], Tensor
]  # clean images in [0, 1] and mask (True = missing), [B, 1, H, W], to completions


def peer_methods(model: Model) -> dict[str, Fill]:
    alpha_bar = model.schedule.alpha_bar.double()
    betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).float().numpy()

    def diffusers_repaint(images: Tensor, mask: Tensor) -> Tensor:
        pipeline = RePaintPipeline(AsNoisePredictor(model), RePaintScheduler(trained_betas=betas))
        pipeline.set_progress_bar_config(disable=True)
        filled = pipeline(2 * images - 1, (~mask).float(), generator=torch.manual_seed(0), output_type="np").images
        return torch.from_numpy(filled).permute(0, 3, 1, 2)

    def lucid_repaint(images: Tensor, mask: Tensor) -> Tensor:
        diffusion = RePaintDiffusion(
            AsCleanPredictor(model), image_size=28, timesteps=1000, objective="pred_x0", beta_schedule="cosine"
        )
        torch.manual_seed(0)
        return diffusion.sample(gt=images, mask=(~mask).float())

    def physics(images: Tensor, mask: Tensor) -> tuple[Tensor, deepinv.physics.Inpainting]:
        hole = deepinv.physics.Inpainting((1, 28, 28), mask=(~mask[:1]).float())
        return hole(images), hole

    def dps(images: Tensor, mask: Tensor) -> Tensor:
        return deepinv.sampling.DPS(AsDenoiser(model))(*physics(images, mask), seed=1)

    def diffpir(images: Tensor, mask: Tensor) -> Tensor:
        return deepinv.sampling.DiffPIR(AsDenoiser(model), L2())(*physics(images, mask), seed=1)

    def ddrm(images: Tensor, mask: Tensor) -> Tensor:
        return deepinv.sampling.DDRM(AsDenoiser(model))(*physics(images, mask), seed=1)

    return {
        "diffusers: RePaint": diffusers_repaint,
        "denoising-diffusion-pytorch: RePaint": lucid_repaint,
        "deepinv: DPS": dps,
        "deepinv: DiffPIR": diffpir,
        "deepinv: DDRM": ddrm,
    }


def completions(
    model: Model, images: data.Images, spec: str, samples: int, net: original.Original | None
) -> dict[str, Callable[[], np.ndarray]]:
    """Every method by name: what fills the images, uint8 [N, K, 28, 28]."""
    mask = fit_mask(spec, images, 0)
    clean, hole = (torch.from_numpy(np.repeat(x, samples, 0)[:, None]) for x in (images, mask))
    clean = clean.float() / 255

    def peer(fill: Fill) -> np.ndarray:
        with contextlib.redirect_stderr(io.StringIO()):  # their progress bars
            x = fill(clean, hole).detach()
        x = torch.where(hole, x, clean.to(x.dtype)).clamp(0, 1)  # not all of them keep what is known
        values = (x * 255).round().byte().numpy()
        values[values <= model.recipe.get("floor", 0)] = 0  # as inkfill does, so that backgrounds are alike
        return values.reshape(len(images), samples, 28, 28)

    METHODS["250/10/10"] = replace(METHODS["repaint"], run=functools.partial(repaint, jump=10, repeats=10))
    own = {"inkfill: conditional": ("conditional", defaults.STEPS)}
    own |= {f"inkfill: {name}": (name, 50) for name in ("replacement", "repaint", "ddnm", "dps", "pigdm")}
    own["inkfill: repaint as in the paper"] = ("250/10/10", 250)
    made: dict[str, Callable[[], np.ndarray]] = {
        name: functools.partial(inpaint, model, images, mask, samples, *setting) for name, setting in own.items()
    }
    made |= {name: functools.partial(peer, fill) for name, fill in peer_methods(model).items()}
    if net is not None and spec == original.MASK:
        made["original"] = lambda: original.complete(net, images, samples).filled
    return made


def compare_methods(digits: int, samples: int, first: Path | None) -> list[dict]:
    model, images = inkfill.load(), data.load("mnist").validation[:digits]
    net, rows = original.load(first)[0] if first else None, []
    for spec in MASKS:  # a turn each
        for name, fill in completions(model, images, spec, samples, net).items():
            model.evaluations, began = 0, time.perf_counter()
            filled = fill()
            row: dict[str, float | str] = {"mask": spec, "method": name}
            row["seconds"] = (time.perf_counter() - began) / (digits * samples)
            row["evaluations"] = model.evaluations / (digits * samples) or original.LEVELS
            found = crps(images, filled, fit_mask(spec, images, 0))
            row |= {"crps": float(found.mean()), "crps_se": float(found.std(ddof=1) / digits**0.5)}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="alternations in training")
    parser.add_argument("--digits", type=int, default=16, help="validation digits")
    parser.add_argument("--samples", type=int, default=4, help="completions a digit; all go through as one batch")
    parser.add_argument("--original", type=Path, help="checkpoint of benchmarks/original.py")
    parser.add_argument("--out", type=Path, help="write the tables here, as JSON")
    arguments = parser.parse_args()
    result = {
        "versions": {name: version(name) for name in LIBRARIES},
        "checkpoint": file_hash(SHIPPED),
        "digits": arguments.digits,
        "samples": arguments.samples,
        "training": time_training(data.load("mnist").train, arguments.rounds),
        "methods": compare_methods(arguments.digits, arguments.samples, arguments.original),
    }
    if arguments.out:
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
