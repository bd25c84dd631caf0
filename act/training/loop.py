"""The loop of every training: steps, evaluations on a real engine, the best state, and a checkpoint to go on from.

The teacher's outputs are computed step by step: keeping those of all samples would need gigabytes. The best state is
kept, the start included, so that training can only improve. A training that is killed and begun again with its
checkpoint ends with the same bits as one that is not.
"""

import hashlib
import json
import logging
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from act.errors import InputError
from act.program.model import InferenceModel
from act.progress import Progress
from act.results.training import TrainingPoint
from act.samples.dataset import Array, Samples
from act.settings import TrainConfig
from act.training.graph import use_onednn
from act.training.program import TrainingProgram

log = logging.getLogger(__name__)

# The quality of what was trained so far: takes the trained weights, by name; higher is better.
Evaluate = Callable[[dict[str, Array]], float]
# Called after each step with its number, from 1; may change masks and weights.
AfterStep = Callable[[TrainingProgram, int], None]


@dataclass
class Fit:
    """The outcome of a training."""

    why: str  # one sentence
    quality_before: float
    quality_after: float  # of the best state, which may be the start
    history: list[TrainingPoint] = field(default_factory=list)
    weights: dict[str, Array] | None = None  # the trained ones of the best state; None where that is the start


class _State(BaseModel):
    """The state of the loop; all of it is in a checkpoint."""

    step: int = 0
    seconds: float = 0.0  # that the steps took, evaluations included
    losses: list[float] = []  # since the last evaluation
    history: list[TrainingPoint] = []
    best: float | None = None  # quality so far
    trained: bool = False  # whether that is of a trained state, and not of the start
    without_best: int = 0  # evaluations since then


class _Progress(Progress):
    """Shows steps, loss, best quality, and the time left at the present pace, evaluations included."""

    def __init__(self, label: str, total: int, done: int, seconds_left: float) -> None:
        super().__init__(label, total, seconds_left, done)
        self._before = done
        self._said = ""

    def update(self, steps: int, loss: float | None, best: float | None) -> None:
        self._said = "" if loss is None else f", loss {loss:.4g}"
        self._said += "" if best is None else f", best quality {best:.4f}"
        self._show(steps)

    def line(self) -> str:
        pace = (self._now() - self._began) / max(1, self._done - self._before)
        return f"step {self._done} of {self._total}{self._said}, {self._left(pace)}"


def count_steps(samples: Samples, settings: TrainConfig) -> int:
    """Return how many steps the settings ask for, without an early stop: the length of the learning-rate schedule."""
    steps = settings.epochs * len(samples.uncapped_groups(settings.batch_size))
    return steps if settings.train_iter is None else min(steps, settings.train_iter)


class Checkpoint:
    """A training on disk, to go on from: one `.npz` that is replaced whole, whenever the process is killed.

    Its folder is made when there is something to keep. The identity is what the training is made of, as plain values; a
    checkpoint of another one is refused.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._path = folder / "checkpoint.npz"
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def save(self, progress: Mapping[str, Any], groups: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the checkpoint by plain values and groups of arrays by name."""
        names = [(group, name) for group, arrays in groups.items() for name in arrays]
        index = json.dumps({"identity": self._identity, "names": names, "progress": progress})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            # By number: names of variables may hold what an archive's must not.
            numbered = {str(number): groups[group][name] for number, (group, name) in enumerate(names)}
            np.savez(file, index=np.array(index), **numbered)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._path)

    def load(self) -> tuple[dict[str, Any], dict[str, dict[str, Array]]] | None:
        """Return what was saved last; None where nothing was.

        One that is damaged, or of another training, is an `InputError`.
        """
        if not self._path.exists():
            return None
        cure = f"remove the folder {self._path.parent} to train from the start"
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                index = json.loads(str(arrays["index"]))
                if index["identity"] != self._identity:
                    raise InputError(f"{self._path}: of a training with other settings or another model; {cure}")
                groups: dict[str, dict[str, Array]] = {}
                for number, (group, name) in enumerate(index["names"]):
                    groups.setdefault(group, {})[name] = arrays[str(number)]
            return index["progress"], groups
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{self._path}: damaged checkpoint: {error}; {cure}") from None


@dataclass
class Loop:
    """Makes steps until all are made, or until there is a reason to stop.

    What is measured and kept may be a running mean of the weights (Polyak and Juditsky, 1992; exponential: Tarvainen
    and Valpola, 2017): a quantized weight near the middle between two integers jumps from one to the other at each
    step, and the mean does not (Nagel et al., "Overcoming oscillations in quantization-aware training", 2022).

    Attributes:
        program: of `build`, with `count_steps` steps; in parts where the samples' `largest_batch` is below a batch.
        evaluate: measures the quality, on the engine that will run the model.
        checkpoint: a folder for this training alone, from which a killed one goes on; the caller removes it in the end.
        after_step: for instance applies masks.
        counts: tells whether the state after a step may be returned (a model that is sparser step by step may not
            before the last); the start counts only where 0 does.
        mean_decay: of the running mean; 0: the last weights are measured and kept.
        label: what is trained, for the progress bar.
        checkpoint_seconds: between two checkpoints, at least; each evaluation makes one as well.
    """

    program: TrainingProgram
    teachers: Sequence[InferenceModel]
    samples: Samples
    settings: TrainConfig
    evaluate: Evaluate
    _: KW_ONLY
    checkpoint: Path | None = None
    after_step: AfterStep | None = None
    counts: Callable[[int], bool] | None = None
    mean_decay: float = 0.0
    label: str = "training"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        self.teachers = [each.copy() for each in self.teachers]
        for each in self.teachers:
            use_onednn(each.program)
        self._processes, self._groups = self.program.processes, self.samples.uncapped_groups(self.settings.batch_size)
        self._total, self._limit = count_steps(self.samples, self.settings), self.settings.time_limit_minutes * 60
        self._state = _State()
        self._best_weights: dict[str, Array] = {}
        self._mean = self.program.weights() if self.mean_decay else {}
        self._checkpoint = None if self.checkpoint is None else Checkpoint(self.checkpoint, self._identity())

    def run(self) -> Fit:
        """Train, and return how that ended; `InputError` where the checkpoint is of no use."""
        began = saved = time.monotonic()
        if self._resume():
            log.info("%s: goes on from step %d of %d", self.label, self._state.step, self._total)
        else:
            self._measure()
        state, before = self._state, self._state.seconds
        stopped = self._reason_to_stop()
        with _Progress(self.label, self._total, state.step, max(0.0, self._limit - before)) as progress:
            progress.update(0, None, state.best)
            while state.step < self._total and not stopped:
                loss = self._make_step()
                progress.update(1, loss, state.best)
                if not math.isfinite(loss):
                    stopped = f"stopped at step {state.step}: the loss is not finite; lower `learning_rate`"
                    break
                state.seconds = self._processes.agree(before + time.monotonic() - began)
                stopped = self._reason_to_stop()
                if stopped or self._evaluation_is_due():
                    # The loss of a step was measured before the step changed the weights.
                    if not all(np.isfinite(value).all() for value in self._weights().values()):
                        stopped = f"stopped at step {state.step}: the weights are not finite; lower `learning_rate`"
                        break
                    self._measure()
                    progress.update(0, loss, state.best)
                    stopped = stopped or self._reason_to_stop()
                elif time.monotonic() - saved < self.checkpoint_seconds:
                    continue
                self._save()
                saved = time.monotonic()
        return self._result(stopped)

    def _make_step(self) -> float:
        state, program = self._state, self.program
        epoch, index = divmod(state.step, len(self._groups))
        # An order of its own for each epoch, so that a resumed training needs no generator's state.
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self._groups))
        mine, share = self._processes.share(self._groups[order[index]])
        if program.backward is None:
            loss = program.step(self._feeds(mine), share)
        else:
            parts = ((self._feeds(part), len(part) / len(mine)) for part in self.samples.parts(mine))
            loss = program.step_in_parts(parts, share)
        state.step += 1
        state.losses.append(loss)
        if self.after_step is not None and math.isfinite(loss):
            self.after_step(program, state.step)
        if self.mean_decay:
            # A larger share in the first steps, to forget the start soon.
            weight = np.float32(1 - min(self.mean_decay, (1 + state.step) / (10 + state.step)))
            for name, value in program.weights().items():
                self._mean[name] = (self._mean[name] + weight * (value - self._mean[name])).astype(np.float32)
        return loss

    def _feeds(self, indices: Sequence[int]) -> dict[str, Array]:
        """Return what the program takes for some samples: them, and what the loss compares with."""
        batch = self.samples.stack(indices)
        return {**batch, **self.program.loss.targets(self.teachers, batch)}

    def _evaluation_is_due(self) -> bool:
        step = self._state.step
        if step == self._total:
            return True
        if self.settings.eval_iter is not None:
            return step % self.settings.eval_iter == 0
        steps, times = len(self._groups), self.settings.evaluations_per_epoch
        # Evenly over the epoch, whatever its number of steps, and at its end.
        return step * times // steps > (step - 1) * times // steps

    def _weights(self) -> dict[str, Array]:
        """Return what is measured, and kept where it is the best."""
        return dict(self._mean) if self.mean_decay else self.program.weights()

    def _measure(self) -> None:
        """Measure the quality, and keep the weights where it is the best so far."""
        state, weights = self._state, self._weights()
        quality = self._processes.agree(self.evaluate(weights) if self._processes.first else 0.0)
        loss = float(np.mean(state.losses)) if state.losses else None
        state.history.append(TrainingPoint(epoch=self._epoch(), step=state.step, loss=loss, quality=quality))
        state.losses = []
        if self.counts is not None and not self.counts(state.step):
            return
        if state.best is None or quality > state.best:
            state.best, state.without_best, state.trained = quality, 0, state.step > 0
            self._best_weights = weights if state.trained else {}
        else:
            state.without_best += 1

    def _epoch(self) -> int:
        return math.ceil(self._state.step / len(self._groups))

    def _reason_to_stop(self) -> str:
        state, settings = self._state, self.settings
        if settings.target_metric is not None and state.best is not None and state.best >= settings.target_metric:
            return f"stopped at step {state.step}: the quality is at least {settings.target_metric:g}, as asked for"
        if settings.patience is not None and state.without_best >= settings.patience:
            return f"stopped at step {state.step}: {state.without_best} evaluations in a row were no better"
        if state.seconds > self._limit:
            return f"stopped in epoch {self._epoch()} at its time limit of {settings.time_limit_minutes:g} minutes"
        return ""

    def _result(self, stopped: str) -> Fit:
        state = self._state
        start = state.history[0].quality
        after = start if state.best is None else state.best
        if state.trained and after > start:
            why = f"training raised the quality from {start:.4f} to {after:.4f}"
        elif state.trained:
            why = f"training ended at a quality of {after:.4f}, after {start:.4f} at its start"
        else:
            why = f"training found nothing better than its start ({start:.4f}), which is kept"
        why = f"{why}; {stopped}" if stopped else why
        return Fit(why, start, after, state.history, self._best_weights if state.trained else None)

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(),
            "processes": self._processes.count,
            "mean_decay": self.mean_decay,
            "batches": [len(part) for group in self._groups for part in self.samples.parts(group)],
            "compared": self.program.loss.compared,
            "state": {name: [str(value.dtype), list(value.shape)] for name, value in self.program.state().items()},
        }

    def _save(self) -> None:
        if self._checkpoint is not None and self._processes.first:
            groups = {"state": self.program.state(), "best": self._best_weights, "mean": self._mean}
            self._checkpoint.save(self._state.model_dump(), groups)

    def _resume(self) -> bool:
        saved = self._checkpoint.load() if self._checkpoint is not None else None
        if saved is None:
            return False
        progress, groups = saved
        self._state = _State.model_validate(progress)
        self.program.restore(groups["state"], self._state.step)
        self._best_weights, self._mean = groups.get("best", {}), groups.get("mean", {})
        return True
