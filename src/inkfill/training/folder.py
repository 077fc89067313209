"""The folder of a run: weights, state, metrics."""

import contextlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkfill.errors import InputError
from inkfill.files import UNFINISHED, check_utf8, claim, claimed, contents, parse_json, written_whole
from inkfill.models.checkpoint import load_state
from inkfill.training.config import TrainConfig


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, and its metrics."""

    path: Path

    @property
    def state(self) -> Path:
        """The training state, for resuming."""
        return self.path / "state.pt"

    @property
    def constant(self) -> Path:
        """The training state before the rate decays, for extending the run."""
        return self.path / "constant.pt"

    @property
    def model(self) -> Path:
        """The EMA weights, for use."""
        return self.path / "model.safetensors"

    @property
    def best(self) -> Path:
        """The EMA weights of the lowest validation loss; removed at the end of a run without overfitting."""
        return self.path / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """JSON lines: losses and speed."""
        return self.path / "metrics.jsonl"

    @property
    def rounds(self) -> Path:
        """The imputed images of EM rounds."""
        return self.path / "rounds"

    @property
    def pairs(self) -> Path:
        """The samples of teachers, a folder each."""
        return self.path / "pairs"

    @property
    def figures(self) -> Path:
        """Samples of validation images, a figure per validation."""
        return self.path / "completions"

    def check(self, resume: bool, overwrite: bool) -> None:
        """Raise InputError for a folder that cannot be resumed, or that would be replaced without ``overwrite``."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path}: is a file: give a folder")
        check_utf8(self.path)
        mine = (self.state, self.model)
        others = () if claimed(self.path, "train") else (self.best, self.metrics, self.rounds, self.pairs, self.figures)
        held = [each.name for each in (*mine, *others) if each.exists()]
        if resume and self.state.name not in held:
            raise InputError(
                f"--out {self.path}: nothing to resume: {self.state} does not exist: start without --resume"
            )
        if held and not resume and not overwrite:
            go_on = "--resume to continue, " if self.state.name in held else ""
            raise InputError(
                f"--out {self.path}: holds {held[0]}: give {go_on}--overwrite to start again, or another folder"
            )

    def resumed(self, minutes: float = 0, steps: int = 0) -> tuple[TrainConfig, dict[str, Any]]:
        """Settings and state of the run, to go on for ``minutes`` or ``steps`` more if given. Raises InputError."""
        state = load_state(self.state)
        try:
            if (minutes or steps) and state.get("decaying"):
                state = load_state(self.constant)
            config = TrainConfig.read(parse_json(state["config"], self.state))
            return config.extended(minutes, steps, state) if minutes or steps else config, state
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.state}: not a state of this version of inkfill train ({error}): start again without --resume"
            ) from None

    def prepare(self, fresh: bool, step: int, pairs: Path | None) -> None:
        """Make the folder ready: remove an older run if ``fresh``, unfinished files, and metrics after ``step``.

        ``pairs`` is the folder of this run's teacher samples, which stays. Files of other names are never removed.
        """
        claim(self.path, "train")
        if fresh:
            for old in (self.state, self.constant, self.best):
                old.unlink(missing_ok=True)
            _remove(self.rounds, r"\d{2,4}/\d{5}\.np[yz]")
            if pairs:
                _remove(self.pairs, rf"(?!{pairs.name})[0-9a-f]{{16}}/\d{{5}}\.npz")
        beside = [self.path.glob(f"{UNFINISHED}{name}-*") for name in ("state", "constant", "model", "best", "metrics")]
        within = [(self.path / name).rglob(f"{UNFINISHED}*") for name in ("completions", "rounds", "pairs")]
        for unfinished in [path for paths in (*beside, *within) for path in paths]:  # left by a kill
            unfinished.unlink()
        self._cut_metrics(step)

    def log(self, step: int, row: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with self.metrics.open("a") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")

    def validations(self) -> list[tuple[float, int]]:
        """The logged validation losses, each with its step."""
        rows = [json.loads(line) for line in self.metrics.read_text().splitlines()] if self.metrics.exists() else []
        return [(row["validation"], row["step"]) for row in rows if "validation" in row]

    def least_loss(self) -> float:
        """The lowest validation loss so far."""
        return min((loss for loss, _ in self.validations()), default=math.inf)

    def _cut_metrics(self, step: int) -> None:
        """Drop the lines that a killed run logged after its last save, and a half-written last line."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        with written_whole(self.metrics) as temporary:
            temporary.write_text("".join(kept))


def _remove(folder: Path, pattern: str) -> None:
    """Remove the files below a folder whose relative paths match, and the folders that are empty then."""
    for name in contents(folder) if folder.is_dir() else ():
        if re.fullmatch(pattern, name):
            (folder / name).unlink()
    for place in sorted({folder, *folder.glob("*")}, reverse=True):
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
