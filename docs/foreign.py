"""docs/foreign.md: models that other libraries trained, filled with inkfill's methods.

    .venv/bin/python docs/foreign.py [--minutes M] [--model NAME ...]

Three networks, of three libraries, each trained by that library's own code for ``--minutes``: a ``UNet2DModel`` of
diffusers on 32x32 colour icons, the U-Net of denoising-diffusion-pytorch and a network of smalldiffusion on digits that
are rendered from fonts (``pip install inkfill[peers]``; what is not installed is left out). Needs Debian's package
fonts-noto-color-emoji. Networks are kept in runs/foreign; the page gets pictures and scores on held-out images.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pictures import icons, on_white, shuffled
from torch import Tensor

from inkfill.models import adapters
from inkfill import data
from inkfill.app import figures
from inkfill.files import written_whole
from inkfill.data import Images, masks
from inkfill.evaluation.metrics import crps
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.methods import MEAN_METHODS

DOCS = Path(__file__).parent
FOLDER = Path("runs/foreign")
METHODS = [name for name, method in MEAN_METHODS.items() if not method.conditional]
SPECS = ("half:left", "box:0.4", "quadrants:3", "pixels:0.9")
EVALUATIONS = 48


def minutes_of(
    minutes: float, step: Callable[[Tensor], Tensor], images: Images, batch: int, channels_last: bool
) -> int:
    """Call ``step`` on batches of x0 for so many minutes; gives the number of steps."""
    rng, began, count = np.random.Generator(np.random.Philox(0)), time.monotonic(), 0
    while time.monotonic() - began < 60 * minutes:
        x0 = data.to_x0(images[rng.integers(len(images), size=batch)])
        step(x0.contiguous(memory_format=torch.channels_last) if channels_last else x0)
        count += 1
    return count


def of_diffusers(minutes: float) -> tuple[adapters.Foreign, Images, str]:
    """diffusers: UNet2DModel and DDPMScheduler, as their training example has it (noise, mean squared error, AdamW)."""
    import diffusers

    pictures = shuffled(on_white(icons((32, 32))))
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

        steps = minutes_of(minutes, step, pictures[:-32], 32, channels_last=True)
        diffusers.DDPMPipeline(mean.module, scheduler).save_pretrained(folder)
    prior = adapters.from_diffusers(folder)
    return prior, pictures[-32:], f"diffusers {diffusers.__version__}, UNet2DModel, {steps:,} steps of 32 icons"


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
    """smalldiffusion: its training loop and its Unet; its models are told sigma and say the noise."""
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
        wide = sigma.view(-1, 1, 1, 1)
        return x - wide * net(x, wide)

    prior = adapters.prior_in_sigma(denoiser, 0.01, 40, image_size=(32, 32), multiple=4)
    held = np.pad(data.rendered(1, 32, 1).validation, ((0, 0), (2, 2), (2, 2)))
    return prior, held, f"smalldiffusion, Unet, {steps:,} steps of 32 rendered digits"


MODELS = {
    "diffusers": of_diffusers,
    "denoising_diffusion_pytorch": of_lucidrains,
    "smalldiffusion": of_smalldiffusion,
}


def score(truth: Images, filled: Images, mask: Any) -> float:
    """CRPS over missing values, of grey or of colour channel by channel."""
    if truth.ndim == 3:
        return float(np.nanmean(crps(truth, filled, mask)))
    return float(np.mean([np.nanmean(crps(truth[..., c], filled[..., c], mask)) for c in range(truth.shape[3])]))


def measured(name: str, prior: adapters.Foreign, images: Images, samples: int = 2) -> list[list[Any]]:
    """CRPS of every method by mask, and a picture: a column a method."""
    shown, rows = min(8, len(images)), []
    mask = masks.fit_each([SPECS[i % len(SPECS)] for i in range(len(images))], images)
    columns = [[figures.masked(image, hole) for image, hole in zip(images[:shown], mask, strict=False)]]
    for method in METHODS:
        steps = max(2, MEAN_METHODS[method].steps_for(EVALUATIONS))
        began = time.monotonic()
        filled = inpaint(prior, images, mask, samples, method, steps, sampler="ancestral")
        seconds = (time.monotonic() - began) / (len(images) * samples)
        rows.append([method, steps, f"{score(images, filled, mask):.4f}", f"{seconds:.2f}"])
        columns.append([figures.tile(picture) for picture in filled[:shown, 0]])
        print(name, rows[-1], flush=True)
    columns.append([figures.tile(image) for image in images[:shown]])
    sheet = figures.sheet([list(row) for row in zip(*columns, strict=True)], ["masked", *METHODS, "original"], zoom=2)
    figures.save_picture(sheet, DOCS / f"foreign-{name}.png")
    return rows


def main(minutes: float, models: list[str]) -> None:
    """Train, measure, write the page."""
    parts = []
    for name, make in ((name, MODELS[name]) for name in models):
        if importlib.util.find_spec(name) is None:
            parts.append(f"## {name}\n\n*Not installed here.*")
            continue
        prior, images, words = make(minutes)
        rows = measured(name, prior, images[:8])
        table = markdown(["method", "steps", "CRPS", "core-s each"], rows)
        parts.append(f"## {words}\n\n![{name}: methods side by side](foreign-{name}.png)\n\n{table}")
    text = (DOCS / "foreign.template.md").read_text()
    text = text.replace("{models}", "\n\n".join(parts)).replace("{minutes}", f"{minutes:g}")
    with written_whole(DOCS / "foreign.md") as temporary:
        temporary.write_text(text.replace("{evaluations}", str(EVALUATIONS)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="of training, each")
    parser.add_argument("--model", choices=list(MODELS), action="append", help="default: all")
    arguments = parser.parse_args()
    main(arguments.minutes, arguments.model or list(MODELS))
