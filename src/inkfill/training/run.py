"""A training run in a folder: data, clock, saves, resumption, and the loop.

All randomness of step i (images, masks, timesteps, noise) depends on ``(seed, i)`` for the whole global batch, and each
process takes its rows. So a killed and resumed run, or a run on another number of processes, sees the same batches.
"""

import contextlib
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkfill import data, defaults, progress
from inkfill.core import masks
from inkfill.core.objectives import ESTIMATE, OBJECTIVES, Batch
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet
from inkfill.data.augment import augmented
from inkfill.data.datasets import check_name
from inkfill.data.images import ValueRange, channel_words, channels_of, size_words
from inkfill.errors import InputError, encodable, shown
from inkfill.files import file_hash, locked
from inkfill.models.checkpoint import find_checkpoint, save_network, save_state
from inkfill.models.model import Model, Recipe, find_device, find_dtype, load
from inkfill.processes import Processes, processes
from inkfill.training import few
from inkfill.training.batches import Batches, Source
from inkfill.training.config import TrainConfig
from inkfill.training.folder import RunFolder
from inkfill.training.network import first_network
from inkfill.training.recipe import data_range, recipe_of
from inkfill.training.rounds import Rounds
from inkfill.training.stop import StopRequest
from inkfill.training.validation import validation_losses

DIVERGED = "the loss or the weights are not finite at step {}: lower --learning-rate (the last save is kept)"
MIN_STEPS = 500  # optimiser steps; with fewer a network is of no use
LOG_EVERY = 50  # steps
VALIDATE_EVERY, VALIDATE_FEW_EVERY = 1000, 250  # steps; the second with few training images
RISEN = 1.05  # ratio of validation loss to its minimum that counts as overfitting

OnValidation = Callable[[int, Model, data.Dataset], object]


@dataclass
class Run:
    """A trainer with its data, its folder and its clock."""

    config: TrainConfig
    folder: RunFolder
    dataset: data.Dataset
    values: ValueRange
    source: Source
    trainer: Trainer
    group: Processes
    seconds: float = 0.0  # training time, without pauses between a stop and its resumption
    decaying: bool = False  # whether the state before the decay of the rate is saved

    def __post_init__(self) -> None:
        self._looked = time.monotonic()

    def share(self) -> float:
        """The finished fraction of the run: of its steps, or of its minutes by rank 0's clock."""
        now = time.monotonic()
        self.seconds, self._looked = self.seconds + now - self._looked, now
        if not self.config.minutes:
            return self.trainer.done / self.config.steps
        return self.group.from_first(min(1.0, self.seconds / (60 * self.config.minutes)))

    def advance(self) -> None:
        """Let the source change its images: rank 0 works, the others wait.

        The run is saved before, so that a kill meanwhile continues from the same weights, and after.
        """
        if self.group.first:
            self.save()
            self.source.advance(self.model, lambda: self.group.from_first(False))
        self.group.await_first()
        if not self.group.first:
            self.source.resume(self.source.begun + 1)
        if self.group.first:
            self.save()

    def save(self) -> None:
        """Write weights and state. Raises InputError, and writes nothing, if the weights are not finite."""
        if not self.trainer.finite():
            raise InputError(DIVERGED.format(self.trainer.done))
        self.save_weights(self.folder.model)
        save_state(self.folder.state, self.state())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            **self.trainer.state(),
            "config": json.dumps(asdict(self.config)),
            "data": self.dataset.fingerprint,
            "seconds": self.seconds,
            "rounds": self.source.begun,
            "decaying": self.decaying,
        }

    def save_weights(self, path: Path) -> None:
        """Write the EMA weights."""
        ema: UNet = self.trainer.ema  # type: ignore[assignment]
        save_network(path, ema, ema.state_dict(), self.recipe().to_json())

    def recipe(self) -> Recipe:
        """The recipe of the current weights."""
        return recipe_of(self.config, self.dataset, self.values, self.trainer.done)

    def model(self) -> Model:
        """The EMA weights as a model."""
        return Model(self.trainer.ema, self.recipe(), self.group.device, self.trainer.dtype)  # type: ignore[arg-type]

    def validate(self) -> dict[str, float]:
        """The losses on held-out images, logged; the weights are kept if the loss is the lowest so far."""
        images, holes = self.dataset.validation, self.dataset.holes.get("validation")
        objective, trainer = OBJECTIVES[self.config.objective], self.trainer
        found = validation_losses(trainer.ema, objective, self.source.batches, images, holes, trainer.dtype)
        if found["validation"] < self.folder.least_loss():
            self.save_weights(self.folder.best)
        self.folder.log(trainer.done, found)
        return found


# ---- assembly --------------------------------------------------------------------------------------------------------


def _prepared(
    config: TrainConfig, folder: RunFolder, group: Processes, state: dict[str, Any] | None, quiet: bool
) -> Run:
    """The run with its data loaded and its folder ready. Raises InputError before any file is changed."""
    if config.batch_size % group.world:
        raise InputError(
            f"--batch-size {config.batch_size}: must be a multiple of {group.world}, the number of processes"
        )
    dataset = data.load(config.data, config.data_mask, config.seed)
    if state is not None and state.get("data") != dataset.fingerprint:
        raise InputError(
            f"--resume {folder.path}: trained on other images than {config.data} holds now: start a new run"
        )
    for images in dataset.groups:
        height, width = images.shape[1:3]
        masks.parse(config.masks).draw(1, height, width, stream(0), images[:1])  # raises if it does not fit
        augmented(config.augment, stream(0), images[:1])  # raises if it does not fit
    try:
        run = _assembled(config, folder, dataset, group, state, quiet)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError) or state is None:
            raise
        raise InputError(
            f"{folder.state}: not whole ({str(error).splitlines()[0][:80]}): start again with --overwrite"
        ) from None
    if group.first:
        pairs = _pairs_folder(config, folder, dataset) if config.teacher else None
        folder.prepare(state is None, run.trainer.done, pairs)
    return run


def _assembled(
    config: TrainConfig,
    folder: RunFolder,
    dataset: data.Dataset,
    group: Processes,
    state: dict[str, Any] | None,
    quiet: bool,
) -> Run:
    """The parts of a run, restored from ``state`` if given."""
    config, net = first_network(config, dataset.groups, fresh=state is None)
    dtype = find_dtype(config.dtype or None, group.device)
    config = replace(config, dtype=str(dtype).removeprefix("torch."))
    values, objective = data_range(config, dataset), OBJECTIVES[config.objective]
    batches = Batches(
        schedule=Schedule.named(config.schedule, config.T),
        spec=masks.parse(config.masks),
        values=values,
        size=config.batch_size,
        augment=config.augment,
        device=group.device,
        make=objective.draw or Batch.draw,
        planes=net.config.planes,
    )
    if config.teacher:
        batches = few.with_pairs(batches, _teacher_pairs(config, folder, dataset, group, quiet), dataset.train)
    source = Source(batches, dataset)
    if dataset.holes:
        source = Rounds(batches, dataset, folder.rounds, config.rounds, config.seed, quiet)

    def draw(step: int) -> Any:
        return source.draw(stream(config.seed, "train", step), group.slice(config.batch_size))

    net = net.to(group.device)
    bfloat16 = config.dtype == "bfloat16"
    both = optimisers(net, config.learning_rate, config.muon_rate, config.weight_decay, bfloat16)
    trainer = Trainer(net, both, draw, objective.errors, config.clip, config.ema, dtype, group.add_gradients)
    run = Run(config, folder, dataset, values, source, trainer, group)
    if state is not None:
        trainer.restore(state)
        source.resume(int(state["rounds"]))
        run.seconds, run.decaying = float(state["seconds"]), bool(state.get("decaying"))
    return run


def _pairs_folder(config: TrainConfig, folder: RunFolder, dataset: data.Dataset) -> Path:
    """The folder of a teacher's samples, named after its weights, the images, masks and seed."""
    of = (file_hash(find_checkpoint(config.teacher)), dataset.fingerprint, config.masks, config.seed)
    return folder.pairs / hashlib.sha256(repr(of).encode()).hexdigest()[:16]


def _teacher_pairs(
    config: TrainConfig, folder: RunFolder, dataset: data.Dataset, group: Processes, quiet: bool
) -> few.Pairs:
    """The teacher's samples; rank 0 makes those that are missing. Raises InputError."""
    if dataset.other_sizes:
        raise InputError("--teacher: requires training images of one size")
    spec, path = masks.parse(config.masks), _pairs_folder(config, folder, dataset)

    def pairs(beat: Callable[[], object]) -> few.Pairs:
        def teacher() -> Model:
            return load(config.teacher, str(group.device))

        return few.find_pairs(path, teacher, dataset.train, spec, config.pairs, config.seed, quiet, beat)

    first = pairs(lambda: group.from_first(False)) if group.first else None
    group.await_first()
    return first or pairs(lambda: None)


# ---- the loop --------------------------------------------------------------------------------------------------------


def train(
    config: TrainConfig,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    save_seconds: float = 60.0,
    validate_every: int | None = None,
    quiet: bool = False,
    on_validation: OnValidation | None = None,
    device: str | None = None,
    more_minutes: float = 0,
    more_steps: int = 0,
) -> bool:
    """Train into the folder ``out``. Returns True if the run finished, False if a signal stopped it.

    ``resume`` continues from the last save, with its settings; ``more_minutes`` or ``more_steps`` then extend a run
    with ``decay`` below 1 from its state before the decay. Without ``overwrite`` a folder with a run or a model is
    refused. ``out`` gets ``model.safetensors`` (the EMA weights), ``state.pt`` (for resuming) and ``metrics.jsonl``.
    Validation runs every ``validate_every`` steps (by default 1,000, or 250 with few images); rank 0 then calls
    ``on_validation(step, model, dataset)``. If the validation loss rises again (overfitting), ``best.safetensors``
    keeps the weights of its minimum. Raises InputError.
    """
    stop, folder = StopRequest(), RunFolder(out)
    with ExitStack() as stack:
        group = stack.enter_context(processes(find_device(device) if device else None, stop.asked))
        say = _say if group.first and not quiet else lambda text: None
        if group.first:
            folder.check(resume, overwrite)
        config, state = folder.resumed(more_minutes, more_steps) if resume else (config, None)
        config.check()
        check_name(config.data)
        if group.first:
            stack.enter_context(locked(out, "train"))
        say(f"training {_minutes(config) if config.minutes else f'{config.steps:,} steps'} into {out}")
        run = _prepared(config, folder, group, state, quiet)
        say(_described(run))
        stack.enter_context(stop.listening())
        total = None if config.minutes else config.steps
        hidden = not group.first or quiet
        bar = stack.enter_context(progress.bar(total, initial=run.trainer.done, unit="step", disable=hidden))
        few_images = sum(len(each) for each in run.dataset.groups) <= defaults.FEW_IMAGES
        every = validate_every or (VALIDATE_FEW_EVERY if few_images else VALIDATE_EVERY)
        finished = _loop(run, stop, bar, save_seconds, every, on_validation)
    done = run.trainer.done
    if not finished:
        say(f"stopped at step {done:,}: continue with inkfill train --out {out} --resume")
    else:
        say(f"finished: {folder.model}")
    if finished and done < MIN_STEPS:
        say(f"{done:,} steps are too few for useful samples: train longer")
    if finished and group.first:
        _say_overfitting(folder, say)
    return finished


def _loop(
    run: Run,
    stop: StopRequest,
    bar: Any,
    save_seconds: float,
    validate_every: int,
    on_validation: OnValidation | None,
) -> bool:
    """Train until the run is finished (True) or asked to stop (False), with logs, validation and saves."""
    trainer, group = run.trainer, run.group
    losses: list[Tensor] = []
    began = saved = time.monotonic()
    first, share = trainer.done, run.share()
    while share < 1:
        if run.source.due(share):
            run.advance()
        if run.config.decays(share) and not run.decaying:
            if group.first:
                save_state(run.folder.constant, run.state())
            run.decaying = True
        rate = run.config.rate(trainer.done, share)
        losses.append(trainer.step(rate))
        bar.update()
        share, done = run.share(), trainer.done
        last = share >= 1
        if done % LOG_EVERY == 0 or last:
            loss = group.total(float(torch.stack(losses).mean()))
            if not math.isfinite(loss):
                raise InputError(DIVERGED.format(done))
            speed = (done - first) * run.config.batch_size / (time.monotonic() - began)
            bar.set_postfix_str(f"{share:.0%}, loss {loss:.4f}, {speed:.0f} images/s")
            if group.first:
                run.folder.log(done, {"loss": loss, "rate": rate, "images_per_s": speed, "seconds": run.seconds})
            losses = []
        if group.first and (done % validate_every == 0 or last):
            _validate(run, bar, on_validation)
        # Processes exchange the request every ten steps, so that all leave the loop at the same step.
        stopped = (group.world == 1 or done % 10 == 0) and group.total(stop.asked()) > 0
        if group.first and (stopped or last or time.monotonic() - saved > save_seconds):
            run.save()
            saved = time.monotonic()
        if stopped and not last:
            return False
    return True


def _validate(run: Run, bar: Any, on_validation: OnValidation | None) -> None:
    found, done = run.validate(), run.trainer.done
    if not bar.disable:
        bar.write(f"step {done}: validation loss {found['validation']:.5f}", file=bar.fp)
    if on_validation and OBJECTIVES[run.config.objective].gives != ESTIMATE:
        try:
            on_validation(done, run.model(), run.dataset)
        except OSError:  # a figure that cannot be written must not lose the steps
            run.save()
            raise


# ---- messages --------------------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed standard output must not end the run
        print(encodable(shown(text), sys.stdout), flush=True)


def _say_overfitting(folder: RunFolder, say: Callable[[str], None]) -> None:
    """Advice if the validation loss has risen since its minimum; otherwise the last weights are the best."""
    losses = folder.validations()
    if not losses:  # the file was deleted
        return
    (least, step), (last, _) = min(losses), losses[-1]
    if last < RISEN * least:
        folder.best.unlink(missing_ok=True)
        return
    say(
        f"overfitting: the validation loss was lowest at step {step:,} ({least:.4f}) and is {last:.4f} now: use "
        f"{folder.best} (step {step:,}), more images, or --augment"
    )


def _described(run: Run) -> str:
    """Data, data range and network of a run, in one line."""
    dataset, net = run.dataset, run.trainer.net
    counts = ", ".join(f"{len(each):,} images of {size_words(each)}" for each in dataset.groups)
    parameters = sum(p.numel() for p in net.parameters()) / 1e6
    return (
        f"data {dataset.name}: {counts} ({len(dataset.validation):,} held out for validation and "
        f"{len(dataset.test):,} for testing), {channel_words(channels_of(dataset.train))}, {dataset.train.dtype} from "
        f"{run.values.low:g} to {run.values.high:g}; {parameters:.2f} M parameters; {run.config.dtype} on "
        f"{run.group.device}"
    )


def _minutes(config: TrainConfig) -> str:
    return f"for {config.minutes:g} minute{'s' if config.minutes != 1 else ''} by the clock"
