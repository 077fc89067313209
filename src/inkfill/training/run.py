"""A training in a folder: data, the clock, saves, resumption, and the loop, which reads top to bottom.

Everything random at step i (which images, which masks, which levels, which noise) comes from ``(seed, i)`` for the
whole global batch, and each process takes its slice. So a killed run that is resumed, or the same run on another
number of processes, sees exactly the same batches.
"""

import contextlib
import hashlib
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inkfill import data, defaults, progress
from inkfill.checkpoint import (
    UNFINISHED,
    check_utf8,
    file_hash,
    find_checkpoint,
    load_state,
    locked,
    parse_json,
    save_network,
    save_state,
    written_whole,
)
from inkfill.data import masks
from inkfill.data.augment import augmented
from inkfill.data.datasets import check_name
from inkfill.data.images import BYTES, CHANNELS, Mask, ValueRange, channels_of, range_of, size_words
from inkfill.errors import InputError, shown
from inkfill.model import DENOISING, DRAWING, Model, Recipe, find_dtype, load
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.training.config import TrainConfig
from inkfill.training.few import Pairs, draw_few, find_pairs
from inkfill.training.objectives import BATCHES, OBJECTIVES, REPORTED, draw_batch
from inkfill.training.processes import Processes, processes
from inkfill.training.rounds import Rounds
from inkfill.training.start import first_network
from inkfill.training.trainer import Trainer, optimisers
from inkfill.unet import UNet

DIVERGED = "the loss or the weights are not finite at step {}: lower --learning-rate (last save kept)"
FEW = 500  # steps; completions of networks that made fewer are of no use (docs/speed.md)
FEW_STEPS = 2  # evaluations of few-step weights that are the default
HELD_OUT = {"validation": "validation", "test": "testing"}
LOG_EVERY = 50  # steps
VALIDATE_EVERY, OF_FEW = 1000, 250  # steps; the second where there are few images
RISEN = 1.05  # of the least validation loss, from which on a run is said to learn by heart

OnValidation = Callable[[int, Model, data.Dataset], object]


class Run:
    """What stands between a trainer and its folder. ``state`` is that of a run to go on with. Raises InputError."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        dataset: data.Dataset,
        group: Processes,
        state: dict[str, Any] | None,
        quiet: bool = False,
    ):
        self.out, self.dataset, self.group, self.quiet = out, dataset, group, quiet
        config, net = first_network(config, dataset.groups, fresh=state is None)
        self.values = _values(config, dataset.groups)
        self.config = config = replace(config, dtype=str(find_dtype(config.dtype or None, group.device))[6:])
        self.schedule = Schedule.named(config.schedule, config.T)
        self.spec = masks.parse(config.masks)
        self.pairs = self._taught() if config.teacher else None
        self.rounds = Rounds(out / "rounds", dataset, config.rounds, config.seed, quiet) if dataset.holes else None
        net = net.to(group.device)
        dtype = find_dtype(config.dtype, group.device)
        objective, both = OBJECTIVES[config.objective], optimisers(config, net)
        self.trainer = Trainer(net, both, self.draw, objective, config.clip, config.ema, dtype, group)
        self.seconds = 0.0  # spent in training so far, pauses between a stop and its resumption not counted
        if state is not None:
            self.trainer.restore(state)
            if self.rounds:
                self.rounds.resume(int(state["rounds"]))
            self.seconds = float(state["seconds"])
        self._looked = time.monotonic()

    @property
    def state_file(self) -> Path:
        """For resuming."""
        return self.out / "state.pt"

    @property
    def model_file(self) -> Path:
        """For use: the running mean of the weights."""
        return self.out / "model.safetensors"

    @property
    def best_file(self) -> Path:
        """The weights of the validation whose loss was the least; gone at the end, if that is the last."""
        return self.out / "best.safetensors"

    @property
    def metrics_file(self) -> Path:
        """A line of JSON every so many steps."""
        return self.out / "metrics.jsonl"

    def draw(self, step: int) -> Any:
        """This process's share of the batch of a step."""
        config, group = self.config, self.group
        part, rng = group.slice(config.batch_size), stream(config.seed, "train", step)
        if self.pairs is not None:
            images, pairs = self.dataset.train, self.pairs
            return draw_few(config, self.schedule, images, self.spec, rng, part, group.device, self.values, pairs)
        if self.rounds is not None:
            images, holes, filled = self.rounds.images, self.rounds.holes, self.rounds.begun > 0
            return draw_batch(
                config, self.schedule, images, self.spec, rng, part, group.device, self.values, holes, filled
            )
        images, draw = _of_one_size(self.dataset.groups, rng), BATCHES[config.objective]
        return draw(config, self.schedule, images, self.spec, rng, part, group.device, self.values)

    def _pairs_folder(self) -> Path:
        """Where the teacher's completions are: other weights, images, masks or seeds have other ones."""
        of = (
            file_hash(find_checkpoint(self.config.teacher)),
            self.dataset.fingerprint,
            self.config.masks,
            self.config.seed,
        )
        return self.out / "pairs" / hashlib.sha256(repr(of).encode()).hexdigest()[:16]

    def _taught(self) -> Pairs:
        """The teacher's completions, made by the first process where they are not there."""
        config, dataset, group = self.config, self.dataset, self.group
        if dataset.other_sizes:
            raise InputError("a teacher needs training images of one size")

        def teacher() -> Model:
            return load(config.teacher, str(group.device))

        def pairs(met: Callable[[], object]) -> Pairs:
            folder = self._pairs_folder()
            return find_pairs(folder, teacher, dataset.train, self.spec, config.pairs, config.seed, self.quiet, met)

        first = pairs(lambda: group.from_first(False)) if group.first else None
        group.await_first()
        return first or pairs(lambda: None)

    def next_round(self) -> None:
        """Complete the training images with the network of now; the first process does, and the others wait for it.

        The run is saved before, so that a kill in the middle goes on from the same weights, and after.
        """
        assert self.rounds is not None
        if self.group.first:
            self.save()
            self.rounds.begin(self.model, lambda: self.group.from_first(False))
        self.group.await_first()
        if not self.group.first:
            self.rounds.resume(self.rounds.begun + 1)
        if self.group.first:
            self.save()

    def share(self) -> float:
        """How much of the run is over: of its steps, or of its minutes by the first process's clock."""
        now = time.monotonic()
        self.seconds, self._looked = self.seconds + now - self._looked, now
        if not self.config.minutes:
            return self.trainer.done / self.config.steps
        return self.group.from_first(min(1.0, self.seconds / (60 * self.config.minutes)))

    def prepare(self, fresh: bool) -> None:
        """Make the folder ready to go on with, or to start in."""
        if fresh:
            for written_over in (self.state_file, self.best_file):
                written_over.unlink(missing_ok=True)
            shutil.rmtree(self.out / "rounds", ignore_errors=True)
            mine = self._pairs_folder() if self.config.teacher else None
            for pairs in (self.out / "pairs").glob("*") if mine else ():
                if pairs != mine:
                    shutil.rmtree(pairs, ignore_errors=True)
        ours = [self.out.glob(f"{UNFINISHED}{name}-*") for name in ("state", "model", "best", "metrics")]
        within = [(self.out / name).rglob(f"{UNFINISHED}*") for name in ("completions", "rounds", "pairs")]
        for unfinished in [path for paths in (*ours, *within) for path in paths]:  # a kill in the middle of a write
            unfinished.unlink()
        _cut_metrics(self.metrics_file, self.trainer.done)

    def save(self) -> None:
        """Write weights and state. Raises InputError, and writes nothing, where the weights are not finite."""
        if not self.trainer.finite():
            raise InputError(DIVERGED.format(self.trainer.done))
        state = self.trainer.state()
        settings = json.dumps(asdict(self.config))
        save_network(self.model_file, self.trainer.ema, state["ema"], self.recipe().to_json())  # type: ignore[arg-type]
        save_state(
            self.state_file,
            {
                **state,
                "config": settings,
                "data": self.dataset.fingerprint,
                "seconds": self.seconds,
                "rounds": self.rounds.begun if self.rounds else 0,
            },
        )

    def recipe(self) -> Recipe:
        """What the weights are at this moment."""
        config, train, groups = self.config, self.dataset.train, self.dataset.groups
        sizes = [(images.shape[1], images.shape[2]) for images in groups]
        named = {f.name for f in fields(Recipe)}
        return Recipe(
            schedule=config.schedule,
            T=config.T,
            channels=channels_of(train),
            image_size=max(sizes, key=math.prod),
            least_size=(min(h for h, _ in sizes), min(w for _, w in sizes)) if len(sizes) > 1 else (0, 0),
            value_range=(self.values.low, self.values.high),
            number_type=train.dtype.name,
            floor=self.values.floor,
            black=_share_of_black(self.dataset, self.values.low),
            objective=config.objective,
            sampling_steps=FEW_STEPS if config.objective in DRAWING else defaults.STEPS,
            trained_on=self.dataset.name,
            data_hash=self.dataset.fingerprint,
            step=self.trainer.done,
            batch_size=config.batch_size,
            training={name: value for name, value in asdict(config).items() if name not in named},
        )

    def model(self) -> Model:
        """The running mean of the weights, ready for use."""
        return Model(self.trainer.ema, self.recipe(), self.group.device, self.trainer.dtype)  # type: ignore[arg-type]

    def log(self, row: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps({"step": self.trainer.done, **row}) + "\n")

    def validate(self) -> dict[str, float]:
        """Losses on held-out images, logged; the weights are kept if they are the best so far."""
        trainer = self.trainer
        images, holes = self.dataset.validation, self.dataset.holes.get("validation")
        found = validation_losses(trainer.ema, self.config, images, trainer.dtype, self.values, holes)
        if found["validation"] < min((loss for loss, _ in validations(self.metrics_file)), default=math.inf):
            ema: UNet = trainer.ema  # type: ignore[assignment]
            save_network(self.best_file, ema, ema.state_dict(), self.recipe().to_json())
        self.log(found)
        return found


def _share_of_black(dataset: data.Dataset, low: float) -> float:
    """Of the pixels that were seen."""
    if dataset.holes:
        return float((dataset.train[~dataset.holes["train"]] == low).mean())
    return sum(int((images == low).sum()) for images in dataset.groups) / sum(g.size for g in dataset.groups)


def _of_one_size(groups: tuple[data.Images, ...], rng: np.random.Generator) -> data.Images:
    """The images that a batch is of: those of one size, each size as often as it has images."""
    if len(groups) == 1:
        return groups[0]
    counts = np.array([len(images) for images in groups])
    return groups[rng.choice(len(groups), p=counts / counts.sum())]


def _values(config: TrainConfig, groups: tuple[data.Images, ...]) -> ValueRange:
    """What black and white are: as given, or as the number type or the training images say. Raises InputError."""
    images = groups[0] if len(groups) == 1 else np.concatenate([each.ravel() for each in groups])
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError("the training images have NaN or infinite values: train on images that are whole")
    low, high = range_of(images) if config.low is None or config.high is None else (config.low, config.high)
    if images.min() < low or images.max() > high:
        raise InputError(f"values from {images.min():g} to {images.max():g} leave the range from {low:g} to {high:g}")
    return ValueRange(low, high, data.black_floor(images))


def validation_losses(
    net: nn.Module,
    config: TrainConfig,
    images: data.Images,
    dtype: torch.dtype = torch.float32,
    values: ValueRange = BYTES,
    holes: Mask | None = None,
) -> dict[str, float]:
    """Error on held-out images (of the noise, of the regression, of draws), all and by tenths of the levels.

    The same draws at every call.
    """
    spec, schedule = masks.parse(config.masks), Schedule.named(config.schedule, config.T)
    device = next(net.parameters()).device
    fixed = replace(config, batch_size=250)
    errors, counts = torch.zeros(10), torch.zeros(10)
    net.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        for part in range(8):
            rng = stream(0, "validation", part)
            draw, more = BATCHES[config.objective], {} if holes is None else {"holes": holes}
            batch = draw(fixed, schedule, images, spec, rng, device=device, values=values, **more)
            rows = REPORTED[config.objective](net, batch).sum((1, 2, 3)).cpu()
            tenth = (batch.t - 1) * 10 // schedule.T
            errors.index_add_(0, tenth, rows)
            counts.index_add_(0, tenth, batch.weights)
    losses = {f"validation_{i}": float(errors[i] / counts[i].clamp(min=1)) for i in range(10)}
    return {"validation": float(errors.sum() / counts.sum().clamp(min=1)), **losses}


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
) -> bool:
    """Train into the folder ``out``; True when the run is finished, False when it was asked to stop before.

    ``resume`` goes on from the last save and takes every setting from there; without ``overwrite`` a folder that holds
    a run or a model is refused. ``out`` gets ``model.safetensors`` (the EMA weights, for use), ``state.pt`` (for
    resuming) and ``metrics.jsonl``. ``on_validation(step, model, dataset)`` is called after every validation, by one
    process; by default every 1,000 steps, of few images every 250. Where the loss on held-out images rises again,
    because the others are learnt by heart, ``best.safetensors`` has the weights from before. Raises InputError.
    """
    stop = StopRequest()
    with ExitStack() as stack:
        group = stack.enter_context(processes(asked_to_stop=stop.asked))
        say = _say if group.first and not quiet else lambda text: None
        if group.first:
            _check_folder(out, resume, overwrite)
        config, state = _resumed(out) if resume else (config, None)
        config.check()
        check_name(config.data)
        if group.first:
            stack.enter_context(locked(out, "train"))
        say(f"training {'for ' + _minutes(config) if config.minutes else f'{config.steps:,} steps'} into {out}")
        run = _prepared(config, out, group, state, quiet)
        say(_described(run))
        stack.enter_context(stop.listening())
        bar = stack.enter_context(
            progress.bar(
                None if config.minutes else config.steps,
                initial=run.trainer.done,
                unit="step",
                disable=not group.first or quiet,
            )
        )
        images = sum(len(each) for each in run.dataset.groups)
        every = validate_every or (OF_FEW if images <= defaults.FEW_IMAGES else VALIDATE_EVERY)
        finished = _loop(run, stop, bar, save_seconds, every, on_validation)
    done = run.trainer.done
    if not finished:
        say(f"stopped at step {done:,}; go on with: inkfill train --out {out} --resume")
    else:
        say(f"finished: {run.model_file}")
    if finished and done < FEW:
        say(f"only {done:,} steps were made, which is too few to be of use: train for longer")
    if finished and group.first:
        _say_by_heart(run, say)
    return finished


def validations(metrics: Path) -> list[tuple[float, int]]:
    """The losses on held-out images that a run has logged, each with its step."""
    rows = [json.loads(line) for line in metrics.open()] if metrics.exists() else []
    return [(row["validation"], row["step"]) for row in rows if "validation" in row]


def _say_by_heart(run: Run, say: Callable[[str], None]) -> None:
    """A word of advice where the validation loss has risen again since it was least; else the last weights are best."""
    losses = validations(run.metrics_file)
    if not losses:  # the file was deleted
        return
    (least, step), (last, _) = min(losses), losses[-1]
    if last < RISEN * least:
        run.best_file.unlink(missing_ok=True)
        return
    say(
        f"the loss on images that are held out was least at step {step:,} ({least:.4f}) and is {last:.4f} now: the "
        f"others are being learnt by heart. {run.best_file} has the weights of step {step:,}; or take more images, or "
        "--augment"
    )


def _loop(
    run: Run,
    stop: "StopRequest",
    bar: Any,
    save_seconds: float,
    validate_every: int,
    on_validation: OnValidation | None,
) -> bool:
    """Step until the run is over (True) or asked to stop (False); log, validate and save on the way."""
    trainer, group = run.trainer, run.group
    losses: list[Tensor] = []
    began = saved = time.monotonic()
    first, share = trainer.done, run.share()
    while share < 1:
        if run.rounds and run.rounds.due(share):
            run.next_round()
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
                run.log({"loss": loss, "rate": rate, "images_per_s": speed, "seconds": run.seconds})
            losses = []
        if group.first and (done % validate_every == 0 or last):
            found = run.validate()
            if not bar.disable:
                bar.write(f"step {done}: validation loss {found['validation']:.5f}", file=bar.fp)
            if on_validation and run.config.objective in (*DENOISING, *DRAWING):
                try:
                    on_validation(done, run.model(), run.dataset)
                except OSError:  # of pictures that cannot be written: the steps are not lost with them
                    run.save()
                    raise
        # Processes ask each other now and then, so that all leave the loop at the same step.
        stopped = (group.world == 1 or done % 10 == 0) and group.total(stop.asked()) > 0
        if group.first and (stopped or last or time.monotonic() - saved > save_seconds):
            run.save()
            saved = time.monotonic()
        if stopped and not last:
            return False
    return True


class StopRequest:
    """Whether a signal (Ctrl-C, SIGTERM, a terminal that closed) asked a run to stop.

    It is heard inside ``listening``, and acted upon after the step.
    """

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        """Whether it was."""
        return self._asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals here, where the run can save; elsewhere they end the process at once, as ever."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread can be signalled
            yield
            return
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
        numbers = [getattr(signal, name) for name in names]
        caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup
        before = [signal.signal(number, self._note) for number in caught]
        try:
            yield
        finally:
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self._asked = True


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed standard output is no reason to lose a run
        print(shown(text), flush=True)


def _described(run: Run) -> str:
    """What a run trains on, with what black and white are, and what it trains."""
    images, net = run.dataset.train, run.trainer.net
    counts = ", ".join(f"{len(each):,} images of {size_words(each)}" for each in run.dataset.groups)
    parameters = sum(p.numel() for p in net.parameters()) / 1e6
    held = " and ".join(f"{len(run.dataset.split(name)):,} for {word}" for name, word in HELD_OUT.items())
    return (
        f"data {run.dataset.name}: {counts} ({held} are held out), {CHANNELS[channels_of(images)]}, "
        f"{images.dtype} from {run.values.low:g} (black) to {run.values.high:g} (white); "
        f"{parameters:.2f} M parameters; {run.config.dtype} on {run.group.device}"
    )


def _minutes(config: TrainConfig) -> str:
    return f"{config.minutes:g} minute{'s' if config.minutes != 1 else ''} by the clock"


def _check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder for the run")
    check_utf8(out)
    held = [name for name in ("state.pt", "model.safetensors") if (out / name).exists()]
    if resume and "state.pt" not in held:
        raise InputError(f"{out}: nothing to resume, {out / 'state.pt'} does not exist: start without --resume")
    if held and not resume and not overwrite:
        go_on = "--resume to go on, " if "state.pt" in held else ""
        raise InputError(f"{out} holds {held[0]} already: give {go_on}--overwrite to start again, or another --out")


def _resumed(out: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Settings and state of the run in a folder. Raises InputError."""
    path = out / "state.pt"
    state = load_state(path)
    try:
        return TrainConfig.read(parse_json(state["config"], path)), state
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a state of this version of inkfill train ({error})") from None


def _prepared(config: TrainConfig, out: Path, group: Processes, state: dict[str, Any] | None, quiet: bool) -> Run:
    """The run, with its data loaded and its folder ready. Raises InputError before anything is touched."""
    if config.batch_size % group.world:
        raise InputError(f"batch_size {config.batch_size} cannot be shared by {group.world} processes")
    dataset = data.load(config.data, config.data_mask, config.seed)
    if state is not None and state.get("data") != dataset.fingerprint:
        raise InputError(f"{out}: was trained on other images than {config.data} holds now: not resumed")
    for images in dataset.groups:
        height, width = images.shape[1:3]
        masks.parse(config.masks).draw(1, height, width, stream(0), images[:1])  # says if it does not fit
        augmented(config.augment, stream(0), images[:1])  # and so does this
    try:
        run = Run(config, out, dataset, group, state, quiet)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError) or state is None:
            raise
        raise InputError(f"{out}: its state is not whole ({str(error).splitlines()[0][:80]})") from None
    if group.first:
        run.prepare(fresh=state is None)
    return run


def _cut_metrics(path: Path, step: int) -> None:
    """Drop what a killed run logged after its last save (and a half-written last line)."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    with written_whole(path) as temporary:
        temporary.write_text("".join(kept))
