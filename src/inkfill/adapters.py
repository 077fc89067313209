"""Foreign models in: anybody's diffusion model as a prior, on which every method runs.

    prior = adapters.prior(net, alphas_cumprod, predicts="eps", channels=3)      # a module that predicts noise
    prior = adapters.prior_in_sigma(denoiser, channels=3)                        # EDM and k-diffusion: D(x, sigma)
    prior = adapters.from_diffusers("folder/")                                   # a UNet2DModel with its scheduler
    inkfill.inpaint(prior, images, mask, method="repaint")

A foreign model counts its levels from 0, ``alphas_cumprod[0]`` being its least noise; here level 0 is the clean image,
so its level i is level i + 1.
"""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inkfill.checkpoint import read_json
from inkfill.data.images import BYTES, CHANNELS, ValueRange
from inkfill.data.readers import reason
from inkfill.denoiser import Denoiser
from inkfill.errors import InputError, shown
from inkfill.schedule import Schedule

Predict = Callable[[Tensor, Tensor], Tensor]
PREDICTS = ("eps", "v", "x0", "score")
NO_SIGNAL = 2.0**-24  # at most: alpha_bar in place of 0, where a schedule was rescaled to end without signal
SIGMA_LEVELS, RHO = 1000, 7.0  # levels of a model in sigma, and how they are spaced (Karras et al. 2022, eq. 5)
logger = logging.getLogger("inkfill")


class Foreign:
    """A foreign model as a :class:`~inkfill.denoiser.Prior`: it has no conditional denoiser, and clean images in
    [-1, 1] unless it is told otherwise."""

    value_range: ValueRange = BYTES
    number_type = "uint8"
    sampler = "dpmpp-sde"
    steps = 50
    method = "ddnm"

    def __init__(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        channels: int,
        image_size: tuple[int, int] | None = None,
        multiple: int = 1,
        bounded: bool = True,
        device: torch.device | str = "cpu",
        name: str = "a foreign model",
    ):
        if channels not in CHANNELS:
            raise InputError(f"a model of {channels} channels: images have 1 to 4")
        self.schedule, self.channels, self.image_size, self.bounded = schedule, channels, image_size, bounded
        self.device, self.name = torch.device(device), name
        self._denoise, self._multiple = denoise, multiple

    def __repr__(self) -> str:
        size = "any size" if self.image_size is None else "x".join(map(str, self.image_size))
        return f"<inkfill prior: {shown(self.name)}, {CHANNELS[self.channels]} images of {size}, T = {self.schedule.T}>"

    def unconditional(self, like: Tensor) -> Denoiser:
        """E[x0 given x_t]. Images whose sides the network cannot take are mirrored at their lower and right edges, and
        cut back."""
        height, width = like.shape[-2:]
        below, right = -height % self._multiple, -width % self._multiple
        if below >= height or right >= width:
            raise InputError(f"images of {height}x{width} are too small for this model")
        if not below and not right:
            return self._denoise
        return lambda x_t, t: self._denoise(F.pad(x_t, (0, right, 0, below), mode="reflect"), t)[..., :height, :width]


def prior(
    predict: Predict,
    alpha_bar: Tensor,
    predicts: str = "eps",
    channels: int = 1,
    image_size: tuple[int, int] | None = None,
    multiple: int = 1,
    bounded: bool = True,
    device: torch.device | str = "cpu",
    name: str = "a foreign model",
) -> Foreign:
    """Any callable ``predict(x_t, t)`` that was trained on ``x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps``.

    ``x_t`` is float32 ``[B, C, H, W]``, ``t`` int64 ``[B]``. ``alpha_bar`` is the model's own table: where it starts at
    exactly 1 its index is our level; elsewhere (diffusers' ``alphas_cumprod``) our level t is its index t - 1, which is
    said once. ``predicts`` is eps, v (Salimans and Ho 2022), x0 or score. ``multiple``: what the sides of its images
    must divide by. ``bounded``: predictions are clipped to [-1, 1]. Raises InputError.
    """
    if predicts not in PREDICTS:
        raise InputError(f"unknown prediction {shown(str(predicts))!r}: choose {', '.join(PREDICTS)}")
    schedule, offset = _levels(torch.as_tensor(alpha_bar))
    if offset:
        logger.info("level t here is the model's timestep t - 1")

    def denoise(x_t: Tensor, t: int) -> Tensor:
        level = torch.full((len(x_t),), t - offset, dtype=torch.int64, device=x_t.device)
        return _x0(schedule, x_t, t, predict(x_t, level).to(x_t.dtype), predicts)

    return Foreign(denoise, schedule, channels, image_size, multiple, bounded, device, name)


def _levels(table: Tensor) -> tuple[Schedule, int]:
    """A model's table as a schedule, and how much later its levels are counted. One that ends at 0 ends just above."""
    table = table.detach().double().cpu().reshape(-1)
    offset = 0 if len(table) and table[0] == 1 else 1
    table = torch.cat([torch.ones(offset, dtype=torch.float64), table])
    if len(table) > 1 and table[-1] == 0:
        table = torch.cat([table[:-1], (table[-2:-1] / 2).clamp(max=NO_SIGNAL)])
    return Schedule(table), offset


def _x0(schedule: Schedule, x_t: Tensor, t: int, found: Tensor, predicts: str) -> Tensor:
    """The posterior mean from what a model predicts."""
    if found.shape != x_t.shape:
        raise InputError(f"the model gave {list(found.shape)} for images {list(x_t.shape)}: shapes must agree")
    if predicts == "x0":
        return found
    if predicts == "v":
        return schedule.x0_from_v(x_t, t, found)
    if predicts == "score":  # eps = -sqrt(1 - alpha_bar) score (Song et al. 2021)
        found = -(float(1 - schedule.alpha_bar[t]) ** 0.5) * found
    return schedule.x0_from_eps(x_t, t, found)


def prior_in_sigma(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    channels: int = 1,
    image_size: tuple[int, int] | None = None,
    multiple: int = 1,
    bounded: bool = True,
    device: torch.device | str = "cpu",
    name: str = "a model in sigma",
) -> Foreign:
    """A denoiser ``D(x, sigma) -> x0`` of x = x0 + sigma noise, sigma ``[B]`` (EDM: Karras et al. 2022; k-diffusion).

    The change of variables is exact: with alpha_bar = 1 / (1 + sigma^2), x_t / sqrt(alpha_bar) is x at that sigma.
    Level t of 1,000 is at the sigmas of their eq. 5 from ``sigma_min`` up to ``sigma_max``. Raises InputError.
    """
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"sigma from {sigma_min:g} to {sigma_max:g}: 0 < sigma_min < sigma_max is needed")
    share = torch.linspace(0, 1, SIGMA_LEVELS, dtype=torch.float64)
    sigmas = (sigma_min ** (1 / RHO) + share * (sigma_max ** (1 / RHO) - sigma_min ** (1 / RHO))) ** RHO
    schedule = Schedule(torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + sigmas**2)]))

    def denoise(x_t: Tensor, t: int) -> Tensor:
        sigma = sigmas[t - 1].to(x_t.device, x_t.dtype).expand(len(x_t))
        scale = float(schedule.alpha_bar[t]) ** 0.5
        return _x0(schedule, x_t, t, denoiser(x_t / scale, sigma).to(x_t.dtype), "x0")

    return Foreign(denoise, schedule, channels, image_size, multiple, bounded, device, name)


# ---- diffusers -------------------------------------------------------------------------------------------------------

PREDICTION_TYPES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def is_diffusers(path: Path) -> bool:
    """Whether a folder says that it is a pipeline of diffusers, or a model of it."""
    return (path / "model_index.json").is_file()


def from_diffusers(source: Any, device: torch.device | str = "cpu") -> Foreign:
    """An unconditional pipeline of diffusers (a local folder, or the object): ``UNet2DModel`` with its scheduler.

    Of the scheduler its noise levels are taken, what the model predicts, and how predictions are clipped; samplers are
    ours. Weights must be safetensors. Raises InputError for a pipeline with text or latents, for an unknown prediction,
    and for a folder that is none.
    """
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError:
        raise InputError("models of diffusers need the package diffusers: pip install diffusers") from None
    if isinstance(source, (str, Path)):
        net, scheduler = _read_pipeline(Path(source), diffusers)
    else:
        net, scheduler = getattr(source, "unet", None), dict(getattr(getattr(source, "scheduler", None), "config", {}))
    if net is None or not isinstance(net, diffusers.UNet2DModel):
        raise InputError(f"{type(net).__name__} is no UNet2DModel: only unconditional models of diffusers can be used")
    predicts = PREDICTION_TYPES.get(str(scheduler.get("prediction_type", "epsilon")))
    if predicts is None:
        raise InputError(f"unknown prediction type {shown(str(scheduler.get('prediction_type')))!r}")
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
    try:
        table = diffusers.DDPMScheduler(**{key: scheduler[key] for key in kept if key in scheduler}).alphas_cumprod
        _levels(table)
    except (ValueError, TypeError, NotImplementedError, RuntimeError, KeyError, IndexError, OverflowError) as error:
        raise InputError(f"its scheduler cannot be read ({reason(error)[:100]})") from None
    size = net.config.sample_size
    size = (size, size) if isinstance(size, int) else tuple(size) if size else None
    return prior(
        _clipped(_predictor(net.eval().requires_grad_(False).to(device)), scheduler, table, predicts),
        table,
        predicts,
        net.config.in_channels,
        size,
        2 ** (len(net.config.block_out_channels) - 1),
        bool(scheduler.get("clip_sample", True)),
        device,
        f"{type(net).__name__} of diffusers",
    )


def _read_pipeline(folder: Path, diffusers: Any) -> tuple[Any, dict[str, Any]]:
    """The network and the scheduler's settings from a folder."""
    if not is_diffusers(folder):
        raise InputError(f"{folder}: no pipeline of diffusers, there is no model_index.json")
    index = read_json(folder / "model_index.json")
    parts = {name for name, value in index.items() if isinstance(value, list)} if isinstance(index, dict) else set()
    for part, what in (("text_encoder", "text"), ("vae", "latents"), ("vqvae", "latents"), ("image_encoder", "images")):
        if part in parts:
            raise InputError(f"{folder}: a pipeline with {what}: only unconditional models of pixels can be used")
    if not {"unet", "scheduler"} <= parts:
        raise InputError(f"{folder}: a pipeline without unet and scheduler")
    config = read_json(folder / "unet" / "config.json")
    if isinstance(config, dict) and config.get("_class_name") == "InkfillUNet":
        raise InputError(f"{folder}: exported by inkfill: give the .safetensors that it was made from")
    if not isinstance(config, dict) or config.get("_class_name") != "UNet2DModel":
        raise InputError(f"{folder}: its unet is no UNet2DModel: only unconditional models of pixels can be used")
    if not list((folder / "unet").glob("*.safetensors")):
        raise InputError(f"{folder}: its weights are no safetensors, and pickles are never read: save them again")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if not isinstance(scheduler, dict):
        raise InputError(f"{folder}: its scheduler has no settings")
    try:
        _check_size(folder, config, diffusers)
        net = diffusers.UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: its unet cannot be read ({reason(error)[:100]})") from None
    return net, scheduler


def _check_size(folder: Path, config: dict[str, Any], diffusers: Any) -> None:
    """Raise InputError for a configuration of more weights than the folder holds, before there is memory for them."""
    blocks = config.get("block_out_channels", [])
    numbers = [config.get("layers_per_block", 1), *(blocks if isinstance(blocks, list) else [blocks])]
    if not all(isinstance(n, int) and 0 < n <= 2**14 for n in numbers) or numbers[0] > 64 or len(numbers) > 16:
        raise InputError(f"{folder}: its unet is of a shape that no network has")
    with torch.device("meta"):
        needed = sum(p.numel() for p in diffusers.UNet2DModel.from_config(config).parameters())
    held = sum(file.stat().st_size for file in (folder / "unet").glob("*.safetensors"))
    if needed > held:  # of any number type a weight takes a byte at least
        raise InputError(f"{folder}: its unet cannot be read (it holds fewer weights than it says)")


def _predictor(net: Any) -> Predict:
    """A call of a UNet2DModel. Raises InputError for one that needs more than an image and a level."""
    config = net.config
    if config.in_channels not in CHANNELS:
        raise InputError(f"a model of {config.in_channels} channels: images have 1 to 4")
    if config.num_class_embeds or config.class_embed_type:
        raise InputError("a model that needs class labels: only unconditional models can be used")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise InputError(f"a model of {config.in_channels} channels in and {config.out_channels} out")

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        out: Tensor = net(x_t, t).sample
        return out[:, : config.in_channels]  # a learnt variance stands behind the mean, and is left out

    return predict


def _clipped(predict: Predict, scheduler: dict[str, Any], table: Tensor, predicts: str) -> Predict:
    """Dynamic thresholding, where the scheduler has it (Saharia et al. 2022, section 2.3), as a prediction again."""
    if not scheduler.get("thresholding"):
        return predict
    schedule, offset = _levels(table)
    ratio, most = scheduler.get("dynamic_thresholding_ratio", 0.995), scheduler.get("sample_max_value", 1.0)
    if not (isinstance(ratio, (int, float)) and 0 <= ratio <= 1 and isinstance(most, (int, float))):
        raise InputError(f"its scheduler cannot be read (thresholding by {ratio!r} and {most!r})")

    def thresholded(x_t: Tensor, t: Tensor) -> Tensor:
        level = int(t[0]) + offset
        x0 = _x0(schedule, x_t, level, predict(x_t, t), predicts)
        s = x0.flatten(1).abs().quantile(ratio, 1).clamp(1, max(1, most)).view(-1, 1, 1, 1)
        x0 = x0.clamp(-s, s) / s
        if predicts == "x0":
            return x0
        eps = schedule.eps_from_x0(x_t, level, x0)
        return eps if predicts == "eps" else schedule.v_from_eps(x0, level, eps)

    return thresholded
