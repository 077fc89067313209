"""An evaluation: cells, their samples, their scores, and their provenance."""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from inkfill import defaults
from inkfill.core.denoiser import Prior
from inkfill.core.masks import parse
from inkfill.data import BYTES, Dataset, Images, ValueRange, as_images, read_images
from inkfill.data.images import Mask, array_hash, range_for
from inkfill.data.incomplete import blurred, of_files
from inkfill.data.masks import MaskInput, fit, holes_of, read_mask
from inkfill.errors import InputError
from inkfill.evaluation import metrics
from inkfill.evaluation.baselines import BASELINES, REGRESSION
from inkfill.evaluation.cells import Cell, Completed, complete, forget, kept, machine
from inkfill.evaluation.interpolation import SMOOTH
from inkfill.evaluation.scores import Judges, columns_for, intensities, score
from inkfill.files import claim, file_hash, locked, write_json
from inkfill.methods import METHODS
from inkfill.models.model import Model, load
from inkfill.processes import ALONE, Processes
from inkfill.progress import Bar, no_bar
from inkfill.tables import Columns

MEMORISED = 0.5  # ratio of :func:`memorisation` below which overfitting is reported


@dataclass(frozen=True)
class Result:
    """A cell with its samples and its row of scores."""

    cell: Cell
    done: Completed
    row: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """All results with their provenance."""

    images: Images
    results: list[Result]
    about: dict[str, Any]  # provenance, as in results.json
    summary: str  # one line for people
    values: ValueRange  # data range of the images

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table."""
        return [result.row for result in self.results]

    @property
    def columns(self) -> Columns:
        """The columns of the table of all rows."""
        return columns_for(self.values)

    @property
    def labelled(self) -> bool:
        """Whether the rows have label scores."""
        return bool(self.rows) and "vote" in self.rows[0]

    @property
    def generated(self) -> list[dict[str, Any]]:
        """The rows of unconditional samples (mask ``all``) that have label scores."""
        return [row for row in self.rows if "imbalance" in row]

    @property
    def advice(self) -> list[str]:
        """Conclusions in words: overfitting, and diffusion against smooth fills for every mask that has both.

        Diffusion is better where its CRPS is lower by more than two standard errors of either.
        """
        found = [
            f"{row['mask']}: {row['method']} overfits: distance to the nearest training image {row['copied']:.0%} of "
            "that of held-out images: use more images, less training, or --augment"
            for row in self.rows
            if row.get("copied", 1) < MEMORISED
        ]
        for mask in dict.fromkeys(row["mask"] for row in self.rows):
            rows = [row for row in self.rows if row["mask"] == mask and row["crps"] == row["crps"]]
            ranked = sorted(rows, key=lambda row: row["crps"])
            best = next((row for row in ranked if row["method"] in METHODS), None)
            base = next((row for row in ranked if row["method"] in SMOOTH), None)
            if best and base:
                found.append(_compared(mask, best, base))
        return found

    def write(self, path: Path) -> None:
        """Write ``results.json``."""
        write_json(path, {**self.about, "rows": self.rows})


def _compared(mask: str, best: dict[str, Any], base: dict[str, Any]) -> str:
    """The better of a diffusion method and a smooth fill, by their rows."""
    figures = f"CRPS {best['method']} {best['crps']:.4f}, {base['method']} {base['crps']:.4f}"
    if best["crps"] + 2 * max(best["crps_se"], base["crps_se"]) < base["crps"]:
        return f"{mask}: diffusion is better by {1 - best['crps'] / base['crps']:.0%} ({figures})"
    return f"{mask}: {base['method']} is as good and needs no training: use it ({figures})"


@dataclass(frozen=True)
class Networks:
    """The network to evaluate, and perhaps a regression network."""

    model: Prior
    regression: Model | None = None

    @classmethod
    def load(
        cls,
        checkpoint: Path | None,
        regression: Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> "Networks":
        """From files (default: the shipped weights). Raises InputError."""
        return cls(load(checkpoint, device, dtype), load(regression, device, dtype) if regression else None)

    def about(self, cell: Cell, dataset: Dataset) -> dict[str, str]:
        """Hashes of everything that the samples of a cell depend on, except the images."""
        if cell.method in BASELINES:
            return {"train": dataset.fingerprint}
        model = self.regression if cell.method == REGRESSION else self.model
        return {"weights": str(_hash(model)), "dtype": str(self.model.dtype)}


def _hash(model: Prior | None) -> str | None:
    """The hash of the file that a model was read from, or of the files of a diffusers folder; None for another."""
    source = model.source if model else None
    if source is None or not source.is_dir():
        return file_hash(source) if source else None
    files = sorted(path for path in source.rglob("*") if path.suffix in (".json", ".safetensors"))
    return array_hash(np.array([file_hash(path) for path in files]))


def plan(
    specs: Sequence[str],
    methods: Sequence[str | Callable[..., Tensor]],
    steps: Sequence[int],
    samples: int = defaults.SAMPLES,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    settings: Mapping[str, float] | None = None,
    value_range: tuple[float, float] | None = None,
    named: Container[str] = (),
) -> list[Cell]:
    """The cells of every mask, method and number of steps, without repetitions; baselines have no steps or settings.

    ``named`` has the names in ``specs`` of masks that :func:`run` is given. Raises InputError for an unknown mask,
    method or setting.
    """
    cells = []
    for spec in dict.fromkeys(specs):
        if spec not in named:
            parse(spec)
        for name in dict.fromkeys(methods):
            baseline = Cell(spec, name).is_baseline
            for count in (1,) if baseline else dict.fromkeys(steps):
                chosen = {} if baseline else dict(settings or {})
                cells.append(Cell(spec, name, count, samples, seed, sampler, chosen, value_range))
                cells[-1].check()
    return cells


def scorable(mask: Any) -> MaskInput:
    """A parsed mask under which the truth is known. Raises InputError for ``nan`` and ``alpha``."""
    given = read_mask(mask)
    if given.of_images:
        name = given.of_images
        raise InputError(f"--mask {name}: there is no truth to score: use --data-mask {name} and another --mask")
    return given


def file_masks(given: Sequence[MaskInput], dataset: Dataset, name: str, split: str) -> dict[str, Mask]:
    """The masks in files for the images of a split, by their text.

    A file or folder has one mask, one for each image of the split, or one for each image of the file or folder ``name``
    that the data set was read from. Raises InputError.
    """
    images, found = dataset.split(split), {}
    for mask in given:
        if mask.spec is None:
            fits = mask.count in (1, len(images)) and not mask.named
            found[mask.text] = fit(mask, images) if fits else of_files(dataset, name, mask)[split]
    return found


def run(
    networks: Networks,
    dataset: Dataset,
    split: str,
    count: int,
    cells: Sequence[Cell],
    out: Path | None = None,
    fresh: bool = False,
    group: Processes = ALONE,
    bar: Bar = no_bar,
    masks: Mapping[str, Mask] = MappingProxyType({}),
) -> Evaluation | None:
    """Draw and score the samples of every cell on the first ``count`` images of a split.

    Samples are stored in the folder ``out`` and reused; ``fresh`` discards earlier ones. ``masks`` has those that are
    no specs, by name, for all images of the split. Only rank 0 of ``group`` returns an evaluation. Raises InputError.
    """
    images, labels = dataset.split(split)[:count], dataset.labels.get(split)
    holes = dataset.holes[split][:count] if split in dataset.holes else None
    labels = labels[:count] if labels is not None else None
    judges = Judges.of(dataset) if group.first and labels is not None else None
    model, stored, results = networks.model, out if group.first else None, []
    if out and model.source is None:
        raise InputError("out: stored samples belong to a file of weights: load the model from one")
    if images.dtype.kind == "f" and np.isnan(images).any():
        raise InputError(f"{dataset.name}: the images have NaN values: give --data-mask nan")
    known = np.zeros(images.shape[:3], bool) if holes is None else holes
    values = range_for(images, known, model.value_range or BYTES, model.image_dtype, cells[0].value_range)
    data_hash = array_hash(images) + (array_hash(holes) if holes is not None else "")
    with locked(stored, "evaluate") if stored else nullcontext():
        if stored:
            claim(stored, "evaluate")
            if fresh:
                forget(stored)
        for i, cell in enumerate(cells):
            mask = masks[cell.mask][:count] if cell.mask in masks else None
            about = {"data": data_hash} if mask is None else {"data": data_hash, "mask": array_hash(mask)}
            title = f"{i + 1}/{len(cells)} {cell.mask} {cell.name}"
            with bar(len(images) * cell.samples // group.world, title) as progress:
                draw = partial(
                    complete, model, images, cell, dataset.train, networks.regression, group, progress, holes, mask
                )
                done = kept(out, cell, about | networks.about(cell, dataset), draw, group) if out else draw()
            if group.first:
                row = score(images, done, cell, labels, judges, values)
                small = 0 < len(dataset.train) <= defaults.FEW_IMAGES and dataset.train.shape[1:] == images.shape[1:]
                if small and not cell.is_baseline and done.mask.any():
                    row["copied"] = memorisation(images, done, dataset.train, values)
                results.append(Result(cell, done, row))
    if not group.first:
        return None
    provenance = {
        "inkfill": defaults.VERSION,
        "data": dataset.name,
        "data_hash": data_hash,
        "split": split,
        "checkpoint": model.source.name if model.source else None,
        "checkpoint_hash": _hash(model),
        "regression_hash": _hash(networks.regression),
        "machine": machine(model),
    }
    summary = (
        f"{dataset.name}, {split} split, {len(images)} images, K = {cell.samples}, seed {cell.seed}, "
        f"sampler {cell.sampler}"
    )
    return Evaluation(images, results, provenance, summary, values)


def memorisation(truth: Images, done: Completed, train: Images, values: ValueRange = BYTES) -> float:
    """Distance of samples to the nearest training image, over missing pixels, divided by that of the true images.

    Near 1 for new images, near 0 for memorised training images.
    """
    rows = np.flatnonzero(done.mask.reshape(len(truth), -1).any(1))[:100]
    near, mask = intensities(train, values), done.mask[rows]
    drawn, real = (
        float(metrics.nearest_distance(intensities(x[rows], values), near, mask).mean())
        for x in (done.filled[:, 0], truth)
    )
    return drawn / max(real, 1e-6)


def evaluate(
    model: Prior,
    images: Any,
    masks: Any = defaults.EVALUATION_MASKS,
    methods: str | Callable[..., Tensor] | Sequence[str | Callable[..., Tensor]] | None = None,
    steps: int | Sequence[int] | None = None,
    samples: int = defaults.SAMPLES,
    seed: int = 0,
    sampler: str | None = None,
    *,
    train: Any = None,
    regression: Model | None = None,
    settings: Mapping[str, float] | None = None,
    value_range: tuple[float, float] | None = None,
    bar: Bar = no_bar,
) -> list[dict[str, Any]]:
    """Score samples of complete images under masks: a row for each mask, method and number of steps.

    ``model`` is a trained model, a foreign model, an analytic prior or any other
    :class:`~inkfill.core.denoiser.Prior`. ``images`` are ``[N, H, W]`` or ``[N, H, W, C]``, or the path of a file or
    folder; NaN and masked values are filled and not scored. ``masks`` is a spec, the path of a mask file, a list of
    these, a bool array (True = missing), or a dictionary of any of them by name. ``methods`` are names of methods and
    baselines, or functions of a :class:`~inkfill.methods.Task`. Some baselines need ``train``, images to learn from,
    and ``regression`` its own network. ``methods``, ``steps`` and ``sampler`` default to those of the model.
    ``settings`` are keyword arguments of the methods; ``value_range`` is the data range (low, high), where dtype and
    training do not determine it; ``bar`` shows progress.

    Each row is a dictionary, so ``pandas.DataFrame(rows)`` is a table. Its keys include ``mask``, ``method``,
    ``steps``, ``evaluations`` (NFE), ``crps`` with its standard error ``crps_se`` (with the data range as [0, 1]),
    ``crps_units`` (in the images' values), ``energy``, ``coverage90``, ``psnr_mean``, ``psnr_sample`` and ``seconds``
    (core-seconds per sample; seconds on a GPU). An undefined metric, such as CRPS for one sample, is NaN. Masks and
    noise are those of ``inkfill evaluate`` and depend on ``seed``. Raises InputError.
    """
    given = as_images(read_images(Path(images)) if isinstance(images, (str, Path)) else images)
    parsed = {name: scorable(mask) for name, mask in _by_name(masks).items()}
    for mask in parsed.values():
        mask.check_count(len(given))
    holes, truth = holes_of(given), np.asarray(np.ma.getdata(given))
    truth = blurred(truth, holes) if holes.any() else truth
    drawn = {name: mask.draw(truth, seed) for name, mask in parsed.items()}
    learnt = truth[:0] if train is None else as_images(train)
    dataset = Dataset("images", learnt, truth[:0], truth, {}, holes={"test": holes} if holes.any() else {})
    methods = (model.method or defaults.METHOD) if methods is None else methods
    steps = (model.steps or defaults.STEPS) if steps is None else steps
    sampler = sampler or model.sampler or defaults.SAMPLER
    cells = plan(list(drawn), _several(methods), _several(steps), samples, seed, sampler, settings, value_range, drawn)
    if not cells:
        raise InputError("nothing to evaluate: give at least one mask, method and number of steps")
    found = run(Networks(model, regression), dataset, "test", len(truth), cells, bar=bar, masks=drawn)
    assert found is not None  # one process
    return found.rows


def _by_name(masks: Any) -> dict[str, Any]:
    """Masks by name: specs and paths by their text, one array as ``mask``."""
    if isinstance(masks, Mapping):
        return {str(name): mask for name, mask in masks.items()}
    several = [masks] if isinstance(masks, (str, Path)) else masks
    if isinstance(several, (list, tuple)) and all(isinstance(mask, (str, Path)) for mask in several):
        return {str(mask): mask for mask in several}
    return {"mask": masks}


def _several(given: Any) -> Sequence[Any]:
    """One thing as a sequence."""
    return given if isinstance(given, (list, tuple, range)) else [given]
