"""Foreign models in: any diffusion model as a prior for every training-free method.

    prior = adapters.prior(net, alphas_cumprod, predicts="eps", channels=3)      # a module that predicts noise
    prior = adapters.prior_in_sigma(denoiser, channels=3)                        # EDM and k-diffusion: D(x, sigma)
    prior = adapters.from_diffusers("folder/")                                   # a UNet2DModel with its scheduler
    inkfill.inpaint(prior, images, mask, method="repaint")

Foreign models count timesteps from 0, the least noise; here timestep 0 is the clean image, so their i is our i + 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inkfill.core.denoiser import Denoiser, Prior
from inkfill.core.schedule import PREDICTIONS, Schedule
from inkfill.core.unet import MAX_CHANNELS
from inkfill.data.images import BYTES, MIN_SIDE, channel_words
from inkfill.errors import InputError, needed, reason, shown
from inkfill.files import read_json

Predict = Callable[[Tensor, Tensor], Tensor]
FLOWS = ("flow", "flow-reversed")
NO_SIGNAL = 2.0**-24  # alpha_bar instead of 0, where a schedule was rescaled to zero terminal SNR
SIGMA_TIMESTEPS, RHO = 1000, 7.0  # timesteps of a model in sigma, and their spacing (Karras et al. 2022, eq. 5)


@dataclass(eq=False)
class Foreign(Prior):
    """A foreign model as a prior: one channel and images in [-1, 1] by default, and no conditional denoiser."""

    denoise: Denoiser
    schedule: Schedule
    channels: int = 1
    image_size: tuple[int, int] | None = None  # height and width
    multiple: int = 1  # the sides must divide by it
    bounded: bool = True  # predictions are clipped to [-1, 1]
    device: torch.device | str = "cpu"  # type: ignore[assignment]
    name: str = "a foreign model"
    value_range, sampler, steps, method = BYTES, "dpmpp-sde", 50, "ddnm"

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise InputError(f"a model of {self.channels} channels: images have 1 to {MAX_CHANNELS}")

    def __repr__(self) -> str:
        size = "any size" if self.image_size is None else "x".join(map(str, self.image_size))
        kind = channel_words(self.channels)
        return f"<inkfill prior: {shown(self.name)}, {kind} images of {size}, T = {self.schedule.T}>"

    def unconditional(self, like: Tensor) -> Denoiser:
        """E[x0 given x_t]. Sides are padded by reflection to a multiple that the network takes, and cropped back."""
        height, width = like.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below >= height or right >= width:
            raise InputError(f"images of {height}x{width} are too small for this model")
        if not below and not right:
            return self.denoise
        return lambda x_t, t: self.denoise(F.pad(x_t, (0, right, 0, below), mode="reflect"), t)[..., :height, :width]


def prior(predict: Predict, alpha_bar: Tensor | None = None, predicts: str = "eps", **about: Any) -> Foreign:
    """Any callable ``predict(x_t, t)`` trained on ``x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps``.

    ``x_t`` is float32 ``[B, C, H, W]``, ``t`` int64 ``[B]``. ``alpha_bar`` is the model's own table. If it starts at
    exactly 1, its index is our timestep; otherwise (diffusers' ``alphas_cumprod``) our timestep t is its index t - 1.
    ``predicts`` is eps, v (Salimans and Ho 2022), x0 or score. ``about`` are the other fields of :class:`Foreign`.

    Flow models (Lipman et al. 2023) have no table and take t float ``[B]`` in [0, 1]: ``flow`` predicts z - x0 for
    x_t = (1 - t) x0 + t z, ``flow-reversed`` predicts x0 - z for x_t = t x0 + (1 - t) z. Raises InputError.
    """
    if predicts in FLOWS and alpha_bar is None:
        return prior_in_sigma(_denoiser_of_flow(predict, predicts), **about)
    if predicts not in PREDICTIONS:
        raise InputError(f"unknown prediction {shown(str(predicts))!r}: choose {', '.join((*PREDICTIONS, *FLOWS))}")
    if alpha_bar is None:
        raise InputError(f"a model that predicts {predicts} needs its table of alpha_bar")
    schedule, offset = _schedule(torch.as_tensor(alpha_bar))

    def denoise(x_t: Tensor, t: int) -> Tensor:
        index = torch.full((len(x_t),), t - offset, dtype=torch.int64, device=x_t.device)
        return schedule.x0_from(predicts, x_t, t, _checked(predict(x_t, index), x_t))

    return Foreign(denoise, schedule, **about)


def _denoiser_of_flow(velocity: Predict, predicts: str) -> Callable[[Tensor, Tensor], Tensor]:
    """D(x, sigma) of a flow: x_t is (1 - t) x at t = sigma / (1 + sigma), and x0 is x_t less t times its velocity."""

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        t = sigma / (1 + sigma)
        x_t, share = x * (1 - t)[:, None, None, None], t[:, None, None, None]
        if predicts == "flow":
            return x_t - share * _checked(velocity(x_t, t), x_t)
        return x_t + share * _checked(velocity(x_t, 1 - t), x_t)

    return denoiser


def _schedule(table: Tensor) -> tuple[Schedule, int]:
    """A model's table as a schedule, and the offset of its index. A final 0 becomes a small positive number."""
    table = table.detach().double().cpu().reshape(-1)
    offset = 0 if len(table) and table[0] == 1 else 1
    table = torch.cat([torch.ones(offset, dtype=torch.float64), table])
    if len(table) > 1 and table[-1] == 0:
        table = torch.cat([table[:-1], (table[-2:-1] / 2).clamp(max=NO_SIGNAL)])
    return Schedule(table), offset


def _checked(output: Tensor, x_t: Tensor) -> Tensor:
    """A model's output in the dtype of x_t. Raises InputError for another shape."""
    if output.shape != x_t.shape:
        raise InputError(f"the model returned {list(output.shape)} for images {list(x_t.shape)}: shapes must agree")
    return output.to(x_t.dtype)


def prior_in_sigma(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    **about: Any,
) -> Foreign:
    """A denoiser ``D(x, sigma) -> x0`` of x = x0 + sigma noise, sigma ``[B]`` (EDM: Karras et al. 2022; k-diffusion).

    The change of variables is exact: with alpha_bar = 1 / (1 + sigma^2), x_t / sqrt(alpha_bar) is x at that sigma. The
    1,000 timesteps are the sigmas of their eq. 5 from ``sigma_min`` to ``sigma_max``. Raises InputError.
    """
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"sigma from {sigma_min:g} to {sigma_max:g}: 0 < sigma_min < sigma_max is needed")
    share = torch.linspace(0, 1, SIGMA_TIMESTEPS, dtype=torch.float64)
    sigmas = (sigma_min ** (1 / RHO) + share * (sigma_max ** (1 / RHO) - sigma_min ** (1 / RHO))) ** RHO
    schedule = Schedule(torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + sigmas**2)]))

    def denoise(x_t: Tensor, t: int) -> Tensor:
        sigma = sigmas[t - 1].to(x_t.device, x_t.dtype).expand(len(x_t))
        scale = float(schedule.alpha_bar[t]) ** 0.5
        return _checked(denoiser(x_t / scale, sigma), x_t)

    return Foreign(denoise, schedule, **about)


# ---- diffusers -------------------------------------------------------------------------------------------------------

PREDICTION_TYPES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
BETAS = ("beta_schedule", "trained_betas", "beta_start", "beta_end", "num_train_timesteps", "rescale_betas_zero_snr")
BROKEN = (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, OverflowError)  # as diffusers says


def is_diffusers(path: Path) -> bool:
    """Whether a folder is a diffusers pipeline."""
    return (path / "model_index.json").is_file()


def from_diffusers(source: Any, device: torch.device | str = "cpu") -> Foreign:
    """An unconditional diffusers pipeline (a local folder, or the object): ``UNet2DModel`` with its scheduler.

    The scheduler defines the noise schedule, the prediction type and clipping; the samplers are ours. Weights must be
    safetensors. Raises InputError for a pipeline with text or latents and for a scheduler without betas.
    """
    diffusers = needed("diffusers", "inkfill[diffusers]")
    if isinstance(source, (str, Path)):
        net, scheduler = _read_pipeline(Path(source), diffusers)
    else:
        net, given = getattr(source, "unet", None), getattr(source, "scheduler", None)
        scheduler = {"_class_name": type(given).__name__, **dict(getattr(given, "config", {}))}
    if not isinstance(net, diffusers.UNet2DModel):
        raise InputError(f"{type(net).__name__}: not a UNet2DModel: only unconditional diffusers models are supported")
    config, channels = net.config, net.config.in_channels
    if config.num_class_embeds or config.class_embed_type:
        raise InputError("a model with class labels: only unconditional models are supported")
    if config.out_channels not in (channels, 2 * channels):
        raise InputError(f"a model of {channels} channels in and {config.out_channels} out")
    net.eval().requires_grad_(False).to(device)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        out: Tensor = net(x_t, t).sample
        return out[:, :channels]  # without the learned variance, which follows the mean

    found = prior(
        predict,
        *_table(scheduler, diffusers),
        channels=channels,
        image_size=_image_size(config.sample_size),
        multiple=2 ** (len(config.block_out_channels) - 1),
        bounded=bool(scheduler.get("clip_sample", True)),
        device=device,
        name="UNet2DModel of diffusers",
    )
    found.source = Path(source) if isinstance(source, (str, Path)) else None
    return found


def _table(scheduler: dict[str, Any], diffusers: Any) -> tuple[Tensor, str]:
    """alphas_cumprod and the prediction type of a scheduler with betas. Raises InputError."""
    kind, prediction = (str(scheduler.get(name)) for name in ("_class_name", "prediction_type"))
    betas = {name: scheduler[name] for name in BETAS if name in scheduler}
    if not {*BETAS[:3]} & {*betas}:
        raise InputError(f"{shown(kind)}: not a schedule of betas: give a model trained with one")
    predicts = PREDICTION_TYPES.get(prediction if "prediction_type" in scheduler else "epsilon")
    if predicts is None:
        raise InputError(f"unknown prediction type {shown(prediction)!r}")
    if scheduler.get("thresholding"):
        raise InputError("dynamic thresholding is not supported: set thresholding to false in the scheduler")
    try:
        table = diffusers.DDPMScheduler(**betas).alphas_cumprod
        _schedule(table)
    except BROKEN as error:
        raise InputError(f"the scheduler cannot be read ({reason(error)[:100]})") from None
    return table, predicts


def _image_size(size: Any) -> tuple[int, int] | None:
    """Height and width from a network's ``sample_size``. Raises InputError for anything else."""
    sides = [size, size] if isinstance(size, int) else size
    if sides is None:
        return None
    if isinstance(sides, (list, tuple)) and len(sides) == 2:
        height, width = sides
        if isinstance(height, int) and isinstance(width, int) and min(sides) >= MIN_SIDE:
            return height, width
    raise InputError(f"the unet's sample_size cannot be {shown(str(size)[:40])}: at least {MIN_SIDE} is needed")


def _read_pipeline(folder: Path, diffusers: Any) -> tuple[Any, dict[str, Any]]:
    """The network and the scheduler's settings of a folder. Raises InputError."""
    files = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
    index, config, scheduler = (read_json(folder / name) for name in files)
    if not all(isinstance(settings, dict) for settings in (index, config, scheduler)):
        raise InputError(f"{folder}: its JSON files hold no settings")
    parts = {name for name, value in index.items() if isinstance(value, list)}
    if parts != {"unet", "scheduler"} or config.get("_class_name") != "UNet2DModel":
        raise InputError(
            f"{folder}: a pipeline of {shown(', '.join(sorted(parts)))} with a {shown(config.get('_class_name'))}: "
            "only unconditional pixel-space pipelines are supported, a UNet2DModel and its scheduler"
        )
    weights = list((folder / "unet").glob("*.safetensors"))
    if not weights:
        raise InputError(f"{folder}: no weights in safetensors, and pickles are never read: save them as safetensors")
    try:
        _check_size(config, sum(file.stat().st_size for file in weights), diffusers)
        net = diffusers.UNet2DModel.from_pretrained(
            folder / "unet", use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except BROKEN as error:
        raise InputError(f"{folder}: its unet cannot be read ({reason(error)[:100]})") from None
    return net, scheduler


def _check_size(config: dict[str, Any], held: int, diffusers: Any) -> None:
    """Raise ValueError for a network of more weights than ``held`` bytes, before allocating them."""
    blocks, layers = config.get("block_out_channels", []), config.get("layers_per_block", 1)
    numbers = [layers, *blocks] if isinstance(blocks, list) else [None]
    if not all(isinstance(n, int) and 0 < n <= 2**14 for n in numbers) or layers > 64 or len(blocks) > 16:
        raise ValueError("impossible configuration")
    with torch.device("meta"):
        net = diffusers.UNet2DModel.from_config(config)
    if sum(p.numel() for p in net.parameters()) > held:  # a weight takes at least one byte
        raise ValueError("fewer weights than its configuration needs")
