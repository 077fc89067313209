"""Models that other libraries trained with their own code, as priors of inkfill's methods.

    .venv/bin/python reports/other_libraries.py measure [--minutes M] [--models NAME ...]
    .venv/bin/python reports/other_libraries.py page

A UNet2DModel of diffusers on 32x32 colour icons (Debian's fonts-noto-color-emoji), the U-Net of
denoising-diffusion-pytorch and a network of smalldiffusion on rendered digits (``pip install inkfill[peers]``; missing
libraries are skipped). Writes reports/other-libraries/; ``page`` also tabulates what other_libraries_targets.py wrote.
"""

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common import (
    Row,
    folder,
    icons,
    on_white,
    run,
    save,
    saved,
    show,
    shuffled,
    timed,
    with_error,
    write_tables,
)  # fmt: skip
from inkfill import data
from inkfill.app import figures
from inkfill.data import Images, masks
from inkfill.evaluation.metrics import crps
from inkfill.filling.inpaint import inpaint
from inkfill.methods import mean_methods
from inkfill.models import adapters
from inkfill.tables import markdown, table

REPORT, FOLDER = "other-libraries", Path("runs/other-libraries")
METHODS = {name: method for name, method in mean_methods().items() if method.needs != "conditional"}
SPECS = ("half:left", "box:0.4", "quadrants:3", "pixels:0.9")
EVALUATIONS = 48


def minutes_of(
    minutes: float, step: Callable[[Tensor], Tensor], images: Images, batch: int, channels_last: bool
) -> int:
    """Call ``step`` on batches of x0 for so many minutes; returns the number of steps."""
    rng, began, count = np.random.Generator(np.random.Philox(0)), time.monotonic(), 0
    while time.monotonic() - began < 60 * minutes:
        x0 = data.to_x0(images[rng.integers(len(images), size=batch)])
        step(x0.contiguous(memory_format=torch.channels_last) if channels_last else x0)
        count += 1
    return count


def of_diffusers(minutes: float) -> tuple[adapters.Foreign, Images, str]:
    """diffusers: UNet2DModel and DDPMScheduler as in their training example (noise, mean squared error, AdamW)."""
    import diffusers

    images = shuffled(on_white(icons((32, 32))))
    folder, steps = FOLDER / "diffusers", 0
    if not (folder / "model_index.json").exists():
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=32, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(64, 128, 128),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=16,
        )  # fmt: skip
        scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
        mean = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))

        def step(x0: Tensor) -> None:
            noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.mse_loss(net(scheduler.add_noise(x0, noise, t), t).sample.float(), noise)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            mean.update_parameters(net)

        steps = minutes_of(minutes, step, images[:-32], 32, channels_last=True)
        diffusers.DDPMPipeline(mean.module, scheduler).save_pretrained(folder)
    prior = adapters.from_diffusers(folder)
    return prior, images[-32:], f"diffusers {diffusers.__version__}, UNet2DModel, {steps:,} steps of 32 icons"


def of_lucidrains(minutes: float) -> tuple[adapters.Foreign, Images, str]:
    """denoising-diffusion-pytorch: its Unet and GaussianDiffusion, whose forward pass is its loss."""
    import denoising_diffusion_pytorch as library

    torch.manual_seed(0)
    digits = np.pad(data.rendered(4000, 64, 1).train, ((0, 0), (2, 2), (2, 2)))
    net = library.Unet(dim=32, dim_mults=(1, 2, 4), channels=1, flash_attn=False)
    diffusion = library.GaussianDiffusion(net, image_size=32, timesteps=1000, objective="pred_v")
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)

    def step(x0: Tensor) -> None:
        loss = diffusion((x0 + 1) / 2)  # it takes images from 0 to 1
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    steps = minutes_of(minutes, step, digits, 32, channels_last=False)
    net.eval().requires_grad_(False)
    prior = adapters.prior(net, diffusion.alphas_cumprod, predicts="v", image_size=(32, 32), multiple=4)
    held = np.pad(data.rendered(1, 32, 1).validation, ((0, 0), (2, 2), (2, 2)))
    return prior, held, f"denoising-diffusion-pytorch, Unet, {steps:,} steps of 32 rendered digits"


def of_smalldiffusion(minutes: float) -> tuple[adapters.Foreign, Images, str]:
    """smalldiffusion: its training loop and its Unet; its models read sigma and predict the noise."""
    import smalldiffusion as library

    torch.manual_seed(0)
    digits = data.to_x0(np.pad(data.rendered(4000, 64, 1).train, ((0, 0), (2, 2), (2, 2))))
    net = library.Unet(32, 1, 1, ch=32, ch_mult=(1, 2, 2), attn_resolutions=(8,))
    schedule = library.ScheduleLogLinear(N=1000, sigma_min=0.01, sigma_max=40)
    loader = torch.utils.data.DataLoader(digits, batch_size=32, shuffle=True)
    began, steps = time.monotonic(), 0
    for _ in library.training_loop(loader, net, schedule, epochs=10**6, lr=1e-3):
        steps += 1
        if time.monotonic() - began > 60 * minutes:
            break
    net.eval().requires_grad_(False)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        planes = sigma.view(-1, 1, 1, 1)
        return x - planes * net(x, planes)

    prior = adapters.prior_in_sigma(denoiser, 0.01, 40, image_size=(32, 32), multiple=4)
    held = np.pad(data.rendered(1, 32, 1).validation, ((0, 0), (2, 2), (2, 2)))
    return prior, held, f"smalldiffusion, Unet, {steps:,} steps of 32 rendered digits"


MODELS = {
    "diffusers": of_diffusers,
    "denoising_diffusion_pytorch": of_lucidrains,
    "smalldiffusion": of_smalldiffusion,
}


def crps_of(truth: Images, filled: Images, mask: Any) -> float:
    """CRPS over missing values, of grey or of colour channel by channel."""
    if truth.ndim == 3:
        return float(np.nanmean(crps(truth, filled, mask)))
    return float(np.mean([np.nanmean(crps(truth[..., c], filled[..., c], mask)) for c in range(truth.shape[3])]))


def scored(name: str, prior: adapters.Foreign, images: Images, samples: int = 2) -> list[Row]:
    """CRPS of every method, and a figure with a column for each."""
    rows: list[Row] = []
    mask = masks.fit_each([SPECS[i % len(SPECS)] for i in range(len(images))], images)
    columns = [[figures.masked(image, hole) for image, hole in zip(images, mask, strict=True)]]
    for method, about in METHODS.items():
        steps = max(2, about.steps_for(EVALUATIONS))
        fill = partial(inpaint, prior, images, mask, samples, method, steps, sampler="ancestral")
        filled, took = timed(fill)
        row = {"method": method, "steps": steps, "crps": crps_of(images, filled, mask)}
        rows.append(show(row | {"seconds": took / (len(images) * samples)}))
        columns.append([figures.tile(image) for image in filled[:, 0]])
    columns.append([figures.tile(image) for image in images])
    sheet = figures.sheet([list(row) for row in zip(*columns, strict=True)], ["masked", *METHODS, "original"], zoom=2)
    figures.save_picture(sheet, folder(REPORT) / f"{name}.png")
    return rows


def measure(minutes: float = 6.0, models: tuple[str, ...] = (*MODELS,)) -> None:
    """Train each library's network, and fill with it."""
    found = [part for part in saved(REPORT, "models") if part["model"] not in models]
    for name in models:
        if importlib.util.find_spec(name) is None:
            print(f"{name}: not installed")
            continue
        prior, images, about = MODELS[name](minutes)
        found.append({"model": name, "about": about, "rows": scored(name, prior, images[:8])})
    save(REPORT, "models", found)


def targets(rows: list[Row]) -> str:
    """Methods by library in lines, noises in columns."""
    noises = sorted({row["noise"] for row in rows})
    others = {row["method"].split(",")[0] for row in rows if row["library"] not in ("inkfill", "")}
    keys = dict.fromkeys((row["method"], row["library"]) for row in rows)
    lines = []
    for method, library in sorted(keys, key=lambda key: (key[0].split(",")[0], key[1] != "inkfill")):
        if method.split(",")[0] in (*others, "exact"):
            those = [row for row in rows if (row["method"], row["library"]) == (method, library)]
            cells = (with_error([r["sliced"] for r in those if r["noise"] == noise], ".3f") for noise in noises)
            lines.append([method, library, *cells])
    return markdown(["method", "library", *(f"noise {noise:g}" for noise in noises)], lines, left=2)


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    columns = {"method": ("method", "{}"), "steps": ("steps", "{:d}")}
    columns |= {"crps": ("CRPS", "{:.3f}"), "seconds": ("seconds per sample", "{:.2f}")}
    tables = {part["model"]: table(part["rows"], columns) for part in saved(REPORT, "models")}
    write_tables(REPORT, tables | {"targets": targets(saved(REPORT, "targets")["rows"])})


if __name__ == "__main__":
    run(measure, page)
