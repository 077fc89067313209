"""Foreign models in: any diffusion model as a prior for every training-free method.

    prior = adapters.prior(net, alphas_cumprod, predicts="eps", channels=3)      # a module that predicts noise
    prior = adapters.prior_in_sigma(denoiser, channels=3)                        # EDM and k-diffusion: D(x, sigma)
    prior = adapters.from_diffusers("folder/")                                   # a UNet2DModel with its scheduler
    inkfill.inpaint(prior, images, mask, method="repaint")

Foreign models count timesteps from 0, the least noise; here timestep 0 is the clean image, so their i is our i + 1.
"""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from inkfill.core.denoiser import Denoiser, Prior
from inkfill.core.schedule import PREDICTIONS, Schedule
from inkfill.data.images import BYTES, CHANNELS, MIN_SIDE
from inkfill.errors import InputError, reason, shown
from inkfill.files import read_json

Predict = Callable[[Tensor, Tensor], Tensor]
NO_SIGNAL = 2.0**-24  # alpha_bar instead of 0, where a schedule was rescaled to zero terminal SNR
SIGMA_TIMESTEPS, RHO = 1000, 7.0  # timesteps of a model in sigma, and their spacing (Karras et al. 2022, eq. 5)
logger = logging.getLogger("inkfill")


class About(TypedDict, total=False):
    """A foreign network. ``image_size`` is height and width; its sides must divide by ``multiple``; ``bounded`` means
    that predictions are clipped to [-1, 1]."""

    channels: int
    image_size: tuple[int, int] | None
    multiple: int
    bounded: bool
    device: torch.device | str
    name: str


class Foreign(Prior):
    """A foreign model as a prior: one channel and images in [-1, 1] by default, and no conditional denoiser."""

    value_range, sampler, steps, method = BYTES, "dpmpp-sde", 50, "ddnm"

    def __init__(self, denoise: Denoiser, schedule: Schedule, **about: Unpack[About]):
        self.channels, self.image_size = about.get("channels", 1), about.get("image_size")
        if self.channels not in CHANNELS:
            raise InputError(f"a model of {self.channels} channels: images have 1 to 4")
        self.schedule, self.bounded = schedule, about.get("bounded", True)
        self.device, self.name = torch.device(about.get("device", "cpu")), about.get("name", "a foreign model")
        self._denoise, self._multiple = denoise, about.get("multiple", 1)

    def __repr__(self) -> str:
        size = "any size" if self.image_size is None else "x".join(map(str, self.image_size))
        return f"<inkfill prior: {shown(self.name)}, {CHANNELS[self.channels]} images of {size}, T = {self.schedule.T}>"

    def unconditional(self, like: Tensor) -> Denoiser:
        """E[x0 given x_t]. Sides are padded by reflection to a multiple that the network takes, and cropped back."""
        height, width = like.shape[-2:]
        below, right = -height % self._multiple, -width % self._multiple
        if below >= height or right >= width:
            raise InputError(f"images of {height}x{width} are too small for this model")
        if not below and not right:
            return self._denoise
        return lambda x_t, t: self._denoise(F.pad(x_t, (0, right, 0, below), mode="reflect"), t)[..., :height, :width]


def prior(predict: Predict, alpha_bar: Tensor, predicts: str = "eps", **about: Unpack[About]) -> Foreign:
    """Any callable ``predict(x_t, t)`` trained on ``x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps``.

    ``x_t`` is float32 ``[B, C, H, W]``, ``t`` int64 ``[B]``. ``alpha_bar`` is the model's own table. If it starts at
    exactly 1, its index is our timestep; otherwise (diffusers' ``alphas_cumprod``) our timestep t is its index t - 1,
    and a log line says so. ``predicts`` is eps, v (Salimans and Ho 2022), x0 or score. ``about`` is :class:`About`.
    Raises InputError.
    """
    if predicts not in PREDICTIONS:
        raise InputError(f"unknown prediction {shown(str(predicts))!r}: choose {', '.join(PREDICTIONS)}")
    schedule, offset = _schedule(torch.as_tensor(alpha_bar))
    if offset:
        logger.info("timestep t here is the model's timestep t - 1")

    def denoise(x_t: Tensor, t: int) -> Tensor:
        index = torch.full((len(x_t),), t - offset, dtype=torch.int64, device=x_t.device)
        return schedule.x0_from(predicts, x_t, t, _checked(predict(x_t, index), x_t))

    return Foreign(denoise, schedule, **about)


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
    **about: Unpack[About],
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
EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
NO_BETAS = (  # they have betas among their settings in some versions, and do not use them
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "CMStochasticIterativeScheduler",
    "KarrasVeScheduler",
)


def is_diffusers(path: Path) -> bool:
    """Whether a folder is a diffusers pipeline."""
    return (path / "model_index.json").is_file()


def from_diffusers(source: Any, device: torch.device | str = "cpu") -> Foreign:
    """An unconditional diffusers pipeline (a local folder, or the object): ``UNet2DModel`` with its scheduler.

    The scheduler defines the noise schedule, the prediction type and clipping; the samplers are ours. Weights must be
    safetensors. Raises InputError for a pipeline with text or latents and for an unsupported scheduler.
    """
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError:
        raise InputError("diffusers models need the package diffusers: pip install diffusers") from None
    if isinstance(source, (str, Path)):
        net, scheduler = _read_pipeline(Path(source), diffusers)
    else:
        net, given = getattr(source, "unet", None), getattr(source, "scheduler", None)
        scheduler = {"_class_name": type(given).__name__, **dict(getattr(given, "config", {}))}
    if net is None or not isinstance(net, diffusers.UNet2DModel):
        raise InputError(f"{type(net).__name__}: not a UNet2DModel: only unconditional diffusers models are supported")
    about: About = {
        "channels": net.config.in_channels,
        "image_size": _image_size(net.config.sample_size),
        "multiple": 2 ** (len(net.config.block_out_channels) - 1),
        "bounded": bool(scheduler.get("clip_sample", True)),
        "device": device,
        "name": f"{type(net).__name__} of diffusers",
    }
    predict = _predictor(net.eval().requires_grad_(False).to(device))
    kind = str(scheduler.get("_class_name", "DDPMScheduler"))
    if kind in EDM_SCHEDULERS:
        return _preconditioned(predict, scheduler, about)
    if kind in NO_BETAS or not {"beta_schedule", "trained_betas", "beta_start"} & {*scheduler}:
        raise InputError(
            f"{shown(kind)}: not a schedule of betas or an EDM one: give a model trained with one of these"
        )
    return prior(predict, *_table(scheduler, diffusers), **about)


def _table(scheduler: dict[str, Any], diffusers: Any) -> tuple[Tensor, str]:
    """alphas_cumprod and the prediction type of a scheduler with betas. Raises InputError."""
    predicts = PREDICTION_TYPES.get(str(scheduler.get("prediction_type", "epsilon")))
    if predicts is None:
        raise InputError(f"unknown prediction type {shown(str(scheduler.get('prediction_type')))!r}")
    if scheduler.get("thresholding"):
        raise InputError("dynamic thresholding is not supported: set thresholding to false in the scheduler")
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
    try:
        table = diffusers.DDPMScheduler(**{key: scheduler[key] for key in kept if key in scheduler}).alphas_cumprod
        _schedule(table)
    except (ValueError, TypeError, NotImplementedError, RuntimeError, KeyError, IndexError, OverflowError) as error:
        raise InputError(f"the scheduler cannot be read ({reason(error)[:100]})") from None
    return table, predicts


def _image_size(size: Any) -> tuple[int, int] | None:
    """Height and width from a network's ``sample_size``. Raises InputError for anything else."""
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else size
    if sides is None:
        return None
    if not (isinstance(sides, tuple) and len(sides) == 2 and all(isinstance(n, int) and n >= MIN_SIDE for n in sides)):
        raise InputError(f"the unet's sample_size cannot be {shown(str(size)[:40])}: at least {MIN_SIDE} is needed")
    return sides


def _preconditioned(predict: Predict, scheduler: dict[str, Any], about: About) -> Foreign:
    """A network with EDM's preconditioning: D = c_skip x + c_out F(c_in x, ln(sigma) / 4) (Karras et al. 2022, eq. 7).

    diffusers negates c_out for v prediction. Raises InputError.
    """
    names = ("sigma_data", "sigma_min", "sigma_max")
    found = [scheduler.get(name, default) for name, default in zip(names, (0.5, 0.002, 80.0), strict=True)]
    if not all(isinstance(value, (int, float)) and 0 < value < 1e6 for value in found):
        raise InputError(f"the scheduler cannot be read ({', '.join(names)}: {found})")
    data, least, most = map(float, found)
    sign = -1.0 if scheduler.get("prediction_type") == "v_prediction" else 1.0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        total = s**2 + data**2
        output = predict(x / total.sqrt(), sigma.log() / 4)
        return data**2 / total * x + sign * s * data / total.sqrt() * output

    return prior_in_sigma(denoiser, least, most, **about)


def _read_pipeline(folder: Path, diffusers: Any) -> tuple[Any, dict[str, Any]]:
    """The network and the scheduler's settings of a folder."""
    if not is_diffusers(folder):
        raise InputError(f"{folder}: not a diffusers pipeline: it has no model_index.json")
    index = read_json(folder / "model_index.json")
    parts = {name for name, value in index.items() if isinstance(value, list)} if isinstance(index, dict) else set()
    for part, what in (("text_encoder", "text"), ("vae", "latents"), ("vqvae", "latents"), ("image_encoder", "images")):
        if part in parts:
            raise InputError(f"{folder}: a pipeline with {what}: only unconditional pixel-space models are supported")
    if not {"unet", "scheduler"} <= parts:
        raise InputError(f"{folder}: a pipeline needs unet and scheduler")
    config = read_json(folder / "unet" / "config.json")
    if isinstance(config, dict) and config.get("_class_name") == "InkfillUNet":
        raise InputError(f"{folder}: exported by inkfill: give the .safetensors it was exported from")
    if not isinstance(config, dict) or config.get("_class_name") != "UNet2DModel":
        raise InputError(
            f"{folder}: its unet is not a UNet2DModel: only unconditional pixel-space models are supported"
        )
    if not list((folder / "unet").glob("*.safetensors")):
        raise InputError(
            f"{folder}: its weights are not safetensors, and pickles are never read: save them as safetensors"
        )
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if not isinstance(scheduler, dict):
        raise InputError(f"{folder}: its scheduler has no settings")
    try:
        _check_size(folder, config, diffusers)
        net = diffusers.UNet2DModel.from_pretrained(
            folder / "unet", use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: its unet cannot be read ({reason(error)[:100]})") from None
    return net, scheduler


def _check_size(folder: Path, config: dict[str, Any], diffusers: Any) -> None:
    """Raise InputError for a configuration of more weights than the folder holds, before allocating them."""
    blocks = config.get("block_out_channels", [])
    numbers = [config.get("layers_per_block", 1), *(blocks if isinstance(blocks, list) else [blocks])]
    if not all(isinstance(n, int) and 0 < n <= 2**14 for n in numbers) or numbers[0] > 64 or len(numbers) > 16:
        raise InputError(f"{folder}: impossible unet configuration")
    with torch.device("meta"):
        needed = sum(p.numel() for p in diffusers.UNet2DModel.from_config(config).parameters())
    held = sum(file.stat().st_size for file in (folder / "unet").glob("*.safetensors"))
    if needed > held:  # a weight takes at least one byte
        raise InputError(f"{folder}: its unet cannot be read (fewer weights than its configuration needs)")


def _predictor(net: Any) -> Predict:
    """A call of a UNet2DModel. Raises InputError for one that needs more than an image and a timestep."""
    config = net.config
    if config.in_channels not in CHANNELS:
        raise InputError(f"a model of {config.in_channels} channels: images have 1 to 4")
    if config.num_class_embeds or config.class_embed_type:
        raise InputError("a model with class labels: only unconditional models are supported")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise InputError(f"a model of {config.in_channels} channels in and {config.out_channels} out")

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        out: Tensor = net(x_t, t).sample
        return out[:, : config.in_channels]  # without the learned variance, which follows the mean

    return predict
