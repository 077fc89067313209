"""Training, from noise drawn to weights written, in one loop that reads top to bottom.

Everything random at step i (which images, which masks, which levels, which noise) comes from ``(seed, i)`` for the
whole global batch, and each process takes its slice. So a killed run that is resumed, or the same run on another
number of processes, sees exactly the same batches.
"""

import copy
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from inkfill import data, masks
from inkfill.checkpoint import SHIPPED, load_network, load_state, save_network, save_state, unet_config, written_whole
from inkfill.errors import InputError
from inkfill.muon import Muon
from inkfill.processes import Processes, processes
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.unet import UNet, UNetConfig

DIVERGED = "the loss is not finite at step {}: lower --learning-rate (last save kept)"


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run. A run is its settings: two runs with the same ones end in the same weights."""

    data: str = "auto"  # data set: auto, mnist, rendered, or a path
    masks: str = "training"  # mask mixture, as a spec
    steps: int = 14_000  # optimiser steps
    batch_size: int = 64  # images per step, over all processes
    muon_rate: float = 0.02  # Muon (matrices and convolutions inside the network), at the top of its curve; 0: AdamW
    learning_rate: float = 3e-3  # AdamW (everything else), at the top of its curve
    warmup: int = 200  # steps of linear warm-up, before the cosine decay to zero
    weight_decay: float = 0.01  # of both, decoupled
    objective: str = "noise"  # "noise" is diffusion; "regression" predicts the missing pixels at once, for comparison
    weighting: str = "v"  # of the noise error by level: "v" divides it by alpha_bar, "noise" does not
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.9995  # decay of the running mean of the weights, once it is warm
    schedule: str = "cosine"  # noise schedule
    T: int = 1000  # noise levels
    bfloat16: bool = True  # autocast of the network to bfloat16; weights and loss stay float32
    seed: int = 0  # of everything random
    start: str = ""  # checkpoint to start from, "shipped" or a path: its weights, its shape and its noise levels
    unet: UNetConfig = field(default_factory=UNetConfig)

    def check(self) -> None:
        """Raise InputError, in one line, for a setting that cannot work."""
        for name, low, high in (
            ("steps", 1, 10**8),
            ("batch_size", 1, 2**16),
            ("learning_rate", 1e-8, 1.0),
            ("muon_rate", 0.0, 1.0),
            ("warmup", 0, 10**8),
            ("T", 2, 10**6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be from {low:g} to {high:g}, not {value:g}")
        if self.weighting not in ("v", "noise"):
            raise InputError(f"unknown weighting {self.weighting!r}: choose v or noise")
        if self.objective not in ("noise", "regression"):
            raise InputError(f"unknown objective {self.objective!r}: choose noise or regression")
        masks.parse(self.masks)
        Schedule.named(self.schedule, self.T)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "TrainConfig":
        """Read back what ``asdict`` gave, from JSON."""
        return cls(**{**settings, "unet": unet_config(settings["unet"])})


@dataclass(frozen=True)
class Batch:
    """What one step is computed from; tensors ``[B, 1, H, W]`` and ``t`` int64 ``[B]``."""

    x0: Tensor
    mask: Tensor
    t: Tensor
    eps: Tensor
    missing: float  # missing pixels in the global batch: what the loss is divided by


def draw_batch(
    config: TrainConfig,
    images: data.Images,
    spec: masks.MaskSpec,
    rng: np.random.Generator,
    part: slice = slice(None),
    device: torch.device | str = "cpu",
) -> Batch:
    """Draw a global batch from ``rng`` and give the rows in ``part``.

    t is uniform over 1..T, one draw from each of B equal strata: the same marginal, with less variance.
    """
    size, (height, width) = config.batch_size, images.shape[1:]
    chosen = images[rng.integers(len(images), size=size)]
    mask = spec.draw(size, height, width, rng, chosen)
    strata = (rng.permutation(size) + rng.random(size)) / size
    t = 1 + np.floor(strata * config.T).astype(np.int64)
    eps = rng.standard_normal((size, 1, height, width), dtype=np.float32)
    return Batch(
        x0=data.to_x0(chosen[part]).to(device),
        mask=torch.from_numpy(mask[part, None]).to(device),
        t=torch.from_numpy(t[part]),
        eps=torch.from_numpy(eps[part]).to(device),
        missing=max(1.0, float(mask.sum())),
    )


def regression_errors(net: UNet, batch: Batch, bfloat16: bool) -> Tensor:
    """(x0 - x0_hat)^2 where pixels are missing, from the known pixels alone: float32 ``[B, 1, H, W]``.

    The reference that diffusion is measured against: the same network at level T, with nothing in the noisy plane.
    There v is -x0, so what ``Model.conditional`` makes of the output is the prediction.
    """
    known = (~batch.mask).float()
    with torch.autocast(batch.x0.device.type, torch.bfloat16, enabled=bfloat16):
        v = net(torch.zeros_like(batch.x0), batch.x0 * known, known, torch.ones(1, device=batch.x0.device))
    return (batch.x0 + v).square() * batch.mask


def squared_errors(net: UNet, schedule: Schedule, batch: Batch, bfloat16: bool, weighting: str = "noise") -> Tensor:
    """(eps - eps_hat)^2 where pixels are missing, 0 elsewhere: float32 ``[B, 1, H, W]``.

    The simple objective of Ho et al. 2020, eq. 14. The network's output is read as v (Salimans and Ho 2022), which
    keeps its target at unit scale at every level; the error is that of the noise. With weighting "v" each level's noise
    error is divided by alpha_bar, which makes it the error of v: levels that are nearly all noise then count, and it is
    there that a sampler decides which digit it draws.
    """
    x_t = schedule.q_sample(batch.x0, batch.t, batch.eps)
    known = (~batch.mask).float()
    level = (batch.t / schedule.T).float().to(x_t.device)
    with torch.autocast(x_t.device.type, torch.bfloat16, enabled=bfloat16):
        v = net(x_t, batch.x0 * known, known, level)
    if weighting == "v":  # eps - eps_hat = sqrt(alpha_bar) (true v - v): the division, done without dividing by 0
        return (schedule.v_from_eps(batch.x0, batch.t, batch.eps) - v).square() * batch.mask
    return (batch.eps - schedule.eps_from_v(x_t, batch.t, v)).square() * batch.mask


def rate(config: TrainConfig, step: int) -> float:
    """Share of the top learning rates at a step: linear warm-up, then a cosine to zero."""
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    return warm * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))


def optimisers(config: TrainConfig, net: UNet) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and convolutions between the first and the last layer, AdamW for everything else.

    ``initial_lr`` of each group is its top learning rate.
    """
    outer = ("stem", "head", "time.layers")
    inner = [p for name, p in net.named_parameters() if p.ndim > 1 and not name.startswith(outer)]
    inner = inner if config.muon_rate > 0 else []
    chosen = {id(p) for p in inner}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
    ]
    if inner:
        made.append(Muon(inner, config.muon_rate, config.weight_decay, bfloat16=config.bfloat16))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return made


def validation_losses(net: UNet, schedule: Schedule, config: TrainConfig, images: data.Images) -> dict[str, float]:
    """Noise loss on held-out images, all of it and by tenths of the levels; the same draws at every call."""
    spec = masks.parse(config.masks)
    device = next(net.parameters()).device
    fixed = replace(config, batch_size=250)
    errors, counts = torch.zeros(10), torch.zeros(10)
    net.eval()
    with torch.no_grad():
        for part in range(8):
            batch = draw_batch(fixed, images, spec, stream(0, "validation", part), device=device)
            if config.objective == "regression":
                found = regression_errors(net, batch, config.bfloat16)
            else:
                found = squared_errors(net, schedule, batch, config.bfloat16)
            rows = found.sum((1, 2, 3)).cpu()
            tenth = (batch.t - 1) * 10 // schedule.T
            errors.index_add_(0, tenth, rows)
            counts.index_add_(0, tenth, batch.mask.sum((1, 2, 3)).float().cpu())
    losses = {f"validation_{i}": float(errors[i] / counts[i].clamp(min=1)) for i in range(10)}
    return {"validation": float(errors.sum() / counts.sum().clamp(min=1)), **losses}


# ---- the run ---------------------------------------------------------------------------------------------------------


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that gets the signal number when Ctrl-C or SIGTERM asks the run to stop; the step is finished first."""
    asked: list[int] = []
    caught = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda got, _: asked.append(got)) for number in caught]
    try:
        yield asked
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)


def train(
    config: TrainConfig,
    out: Path,
    minutes: float | None = None,
    resume: bool = False,
    save_seconds: float = 60.0,
    look_every: int = 1000,
    quiet: bool = False,
) -> bool:
    """Train into the folder ``out``; True when the run is finished, False when it was asked to stop before.

    ``minutes`` sets ``config.steps`` from the speed measured at the start. ``resume`` goes on from the last save and
    takes every setting from there. ``out`` gets ``model.safetensors`` (the EMA weights, for use), ``state.pt`` (for
    resuming), ``metrics.jsonl`` and ``completions/`` (pictures on validation images). Raises InputError.
    """
    with processes() as here, stop_signals() as asked:
        state_file, metrics_file = out / "state.pt", out / "metrics.jsonl"
        state = None
        if resume:
            if not state_file.exists():
                raise InputError(f"{out}: nothing to resume, {state_file} does not exist: start without --resume")
            state = load_state(state_file)
            try:
                config = TrainConfig.from_dict(json.loads(state["config"]))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{state_file}: not a state of this version of inkfill train ({error})") from None
        config.check()
        if config.batch_size % here.world:
            raise InputError(f"batch_size {config.batch_size} cannot be shared by {here.world} processes")
        dataset = data.load(config.data)
        if state is not None and state["data"] != dataset.fingerprint():
            raise InputError(f"{out}: was trained on other images than {config.data} holds now: not resumed")
        schedule = Schedule.named(config.schedule, config.T)
        spec = masks.parse(config.masks)
        draw_batch(config, dataset.train, spec, stream(0))  # says now if a mask does not fit

        if config.start and state is None:
            net, recipe = load_network(SHIPPED if config.start == "shipped" else Path(config.start))
            net = net.requires_grad_(True).to(here.device)
            config = replace(config, unet=net.config, schedule=recipe["schedule"], T=recipe["T"])
            schedule = Schedule.named(config.schedule, config.T)
        else:
            with torch.random.fork_rng(devices=[]):  # the one use of torch's global generator: initial weights
                torch.manual_seed(config.seed)
                net = UNet(config.unet).to(here.device)
        part = here.slice(config.batch_size)

        def step_gradient(i: int) -> Tensor:
            batch = draw_batch(config, dataset.train, spec, stream(config.seed, "train", i), part, here.device)
            if config.objective == "regression":
                errors = regression_errors(net, batch, config.bfloat16)
            else:
                errors = squared_errors(net, schedule, batch, config.bfloat16, config.weighting)
            loss = errors.sum() / batch.missing
            net.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            here.add_gradients(net)
            return loss.detach()

        def advance(i: int, both: list[torch.optim.Optimizer]) -> Tensor:
            loss = step_gradient(i)
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            for optimiser in both:
                optimiser.step()
            return loss

        if minutes is not None and state is None:
            fresh, trial = copy.deepcopy(net.state_dict()), optimisers(config, net)
            config = replace(config, steps=_steps_in(minutes, lambda i: advance(i, trial), here))
            net.load_state_dict(fresh)
        both = optimisers(config, net)
        average = copy.deepcopy(net).requires_grad_(False)
        first = 0
        if state is not None:
            net.load_state_dict(state["net"])
            average.load_state_dict(state["average"])
            for optimiser, saved_state in zip(both, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved_state)
            first = state["step"]

        leader, floor = here.rank == 0, data.black_floor(dataset.train)
        if leader:
            out.mkdir(parents=True, exist_ok=True)
            if state is None:
                state_file.unlink(missing_ok=True)  # of a run that is written over
            for unfinished in [*out.glob(".state-*"), *out.glob(".model-*")]:  # a kill in the middle of a write
                unfinished.unlink()
            _cut_metrics(metrics_file, first)
        count = sum(p.numel() for p in net.parameters())
        print_ = print if leader and not quiet else lambda *_, **__: None
        print_(f"data {dataset.name}: {len(dataset.train):,} images; {count / 1e6:.2f} M parameters; on {here.device}")

        def save(step: int) -> None:
            if not leader:
                return
            recipe = {**asdict(config), "step": step, "trained_on": dataset.name, "data_hash": dataset.fingerprint()}
            recipe["image_size"] = list(dataset.train.shape[1:])
            recipe["floor"] = floor
            save_network(out / "model.safetensors", average, average.state_dict(), recipe)
            save_state(
                state_file,
                {
                    "config": json.dumps(asdict(config)),
                    "data": dataset.fingerprint(),
                    "step": step,
                    "net": net.state_dict(),
                    "average": average.state_dict(),
                    "optimisers": [optimiser.state_dict() for optimiser in both],
                },
            )

        losses: list[Tensor] = []
        saved = began = time.monotonic()
        bar = tqdm(total=config.steps, initial=first, unit="step", disable=not leader or quiet, dynamic_ncols=True)
        for step in range(first, config.steps):
            net.train()
            for optimiser in both:
                for group in optimiser.param_groups:
                    group["lr"] = group["initial_lr"] * rate(config, step)
            losses.append(advance(step, both))
            with torch.no_grad():
                decay = min(config.ema, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
            done = step + 1
            last = done == config.steps
            bar.update()

            if done % 50 == 0 or last:
                loss = here.total(float(torch.stack(losses).mean()))
                speed = (done - first) * config.batch_size / (time.monotonic() - began)
                if not math.isfinite(loss):
                    raise InputError(DIVERGED.format(done))
                bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} images/s")
                if leader:
                    _append(
                        metrics_file,
                        {"step": done, "loss": loss, "rate": rate(config, step), "images_per_s": speed},
                    )
                losses = []
            if leader and (done % look_every == 0 or last):
                found = validation_losses(average, schedule, config, dataset.validation)
                _append(metrics_file, {"step": done, **found})
                bar.write(f"step {done}: validation loss {found['validation']:.5f}", file=sys.stderr)
                if config.objective == "noise":
                    _completions(average, config, dataset, out / "completions" / f"{done:07d}.png")
            # Processes ask each other now and then, so that all leave the loop at the same step.
            stop = (here.world == 1 or done % 10 == 0) and here.total(len(asked)) > 0
            if stop or last or time.monotonic() - saved > save_seconds:
                if losses and not torch.stack(losses).isfinite().all():
                    raise InputError(DIVERGED.format(done))
                save(done)
                saved = time.monotonic()
            if stop and not last:
                bar.close()
                print_(f"stopped at step {done} of {config.steps}; go on with: inkfill train --out {out} --resume")
                return False
        bar.close()
        print_(f"finished: {out / 'model.safetensors'}")
        return True


def _steps_in(minutes: float, advance: Any, here: Processes) -> int:
    """How many steps fit, from the time of twelve; the same number on every process."""
    for i in range(2):
        advance(i)
    began = time.monotonic()
    for i in range(10):
        float(advance(i))
    fit = torch.tensor(max(1, int(60 * minutes / ((time.monotonic() - began) / 10 * 1.04))), device=here.device)
    if here.world > 1:
        dist.broadcast(fit, 0)
    return int(fit)


def _append(path: Path, row: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _cut_metrics(path: Path, step: int) -> None:
    """Drop what a killed run logged after its last save (and a half-written last line)."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    with written_whole(path) as temporary:
        temporary.write_text("".join(kept))


def _completions(net: UNet, config: TrainConfig, dataset: data.Dataset, path: Path) -> None:
    """A small picture of completions of validation images, to see that training goes well."""
    from inkfill.denoiser import Model
    from inkfill.figures import gallery, save_picture
    from inkfill.inpainting import fit_mask, inpaint

    device = next(net.parameters()).device
    model = Model(copy.deepcopy(net), asdict(config), device, torch.bfloat16 if config.bfloat16 else torch.float32)
    images = dataset.validation[:8]
    specs = [s for s in ("half:left", "box:0.5", "pixels:0.9", "all") for _ in range(2)]
    mask = np.concatenate([fit_mask(s, images[i : i + 1], i) for i, s in enumerate(specs[: len(images)])])
    filled = inpaint(model, images, mask, samples=4)
    save_picture(gallery(images, mask, filled), path)
