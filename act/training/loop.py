"""The loop of every training: steps, evaluations on a real engine, the best state, and a checkpoint to go on from.

The teacher's outputs are computed step by step: keeping those of all samples would need gigabytes. The best state is
kept, the start included, so that training can only improve. A training that is killed and begun again with its
checkpoint ends with the same bits as one that is not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.progress import Progress
from act.results.training import TrainingPoint
from act.samples.dataset import Array, Samples
from act.settings import TrainConfig
from act.training.checkpoint import Checkpoint
from act.training.graph import use_onednn
from act.training.program import TrainingProgram

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0

# The quality of what was trained so far: takes the trained weights, by name; higher is better.
Evaluate = Callable[[dict[str, Array]], float]
# Called after each step with its number, from 1; may change masks and weights.
AfterStep = Callable[[TrainingProgram, int], None]


@dataclass
class Fit:
    """The outcome of a training.

    Attributes:
        why: one sentence.
        quality_before: of the start.
        quality_after: of the best state; of the start, where nothing was better.
        weights: the trained weights of the best state; None where nothing was better than the start.
    """

    why: str
    quality_before: float
    quality_after: float
    history: list[TrainingPoint] = field(default_factory=list)
    weights: dict[str, Array] | None = None


@dataclass
class _State:
    """The state of the loop; all of it is in a checkpoint.

    Attributes:
        seconds: that the steps took, evaluations included.
        losses: since the last evaluation.
        history: for each evaluation what a `TrainingPoint` holds.
        best: best quality so far.
        trained: whether that is of a trained state, and not of the start.
        without_best: evaluations since then.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    trained: bool = False
    without_best: int = 0


class _Progress(Progress):
    """Shows steps, loss, best quality, and the time left at the present pace, evaluations included."""

    def __init__(self, label: str, total: int, done: int, seconds_left: float) -> None:
        super().__init__(label, total, done)
        self._before, self._deadline = done, self._began + seconds_left
        self._loss: float | None = None
        self._best: float | None = None

    def update(self, steps: int, loss: float | None, best: float | None) -> None:
        self._loss, self._best = loss, best
        self._show(steps)

    def line(self) -> str:
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        best = "" if self._best is None else f", best quality {self._best:.4f}"
        pace = (self._now() - self._began) / max(1, self._done - self._before)
        return f"step {self._done} of {self._total}{loss}{best}, {self._left(pace, self._deadline)}"


def count_steps(samples: Samples, settings: TrainConfig) -> int:
    """Return how many steps the settings ask for, without an early stop: the length of the learning-rate schedule."""
    steps = settings.epochs * len(samples.groups(settings.batch_size))
    return steps if settings.train_iter is None else min(steps, settings.train_iter)


class Loop:
    """Makes steps until all are made, or until there is a reason to stop.

    What is measured and kept may be a running mean of the weights (Polyak and Juditsky, 1992; exponential: Tarvainen
    and Valpola, 2017): a quantized weight near the middle between two integers jumps from one to the other at each
    step, and the mean does not (Nagel et al., "Overcoming oscillations in quantization-aware training", 2022).

    Args:
        program: of `build`, with `count_steps` steps.
        teachers: the models that the loss compares with.
        samples: unlabelled.
        evaluate: measures the quality, on the engine that will run the model.
        checkpoint: a folder for this training alone, from which a killed one goes on; the caller removes it in the end.
        after_step: for instance applies masks.
        counts: tells whether the state after a step may be returned (a model that is sparser step by step may not
            before the last); the start counts only where 0 does.
        mean_decay: of the running mean; 0: the last weights are measured and kept.
        label: what is trained, for the progress bar.
        checkpoint_seconds: between two checkpoints, at least; each evaluation makes one as well.
    """

    def __init__(
        self,
        program: TrainingProgram,
        teachers: Sequence[InferenceModel],
        samples: Samples,
        settings: TrainConfig,
        evaluate: Evaluate,
        *,
        checkpoint: Path | None = None,
        after_step: AfterStep | None = None,
        counts: Callable[[int], bool] = lambda _: True,
        mean_decay: float = 0.0,
        label: str = "training",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._program, self._processes = program, program.processes
        self._settings, self._evaluate = settings, evaluate
        self._teachers = [each.copy() for each in teachers]
        for each in self._teachers:
            use_onednn(each.program)
        self._after_step, self._counts = after_step, counts
        self._label, self._checkpoint_seconds = label, checkpoint_seconds
        self._samples, self._groups = samples, samples.groups(settings.batch_size)
        self._total = count_steps(samples, settings)
        self._limit = settings.time_limit_minutes * 60
        self._order: tuple[int, Any] = (-1, None)
        self._state = _State()
        self._best_weights: dict[str, Array] = {}
        self._decay, self._mean = mean_decay, program.weights() if mean_decay else {}
        self._checkpoint = None if checkpoint is None else Checkpoint(checkpoint, self._identity())

    def run(self) -> Fit:
        """Train, and return how that ended.

        Raises:
            InputError: the checkpoint is damaged, or of another training.
        """
        began = saved = time.monotonic()
        if self._resume():
            log.info("%s: goes on from step %d of %d", self._label, self._state.step, self._total)
        else:
            self._measure()
        before = self._state.seconds
        stopped = self._reason_to_stop()
        with _Progress(self._label, self._total, self._state.step, max(0.0, self._limit - before)) as progress:
            progress.update(0, None, self._state.best)
            while self._state.step < self._total and not stopped:
                loss = self._make_step()
                progress.update(1, loss, self._state.best)
                if not math.isfinite(loss):
                    stopped = f"stopped at step {self._state.step}: the loss is not finite; lower `learning_rate`"
                    break
                self._state.seconds = self._processes.agree(before + time.monotonic() - began)
                stopped = self._reason_to_stop()
                if stopped or self._evaluation_is_due():
                    # The loss of a step was measured before the step changed the weights.
                    if not all(np.isfinite(value).all() for value in self._weights().values()):
                        step = self._state.step
                        stopped = f"stopped at step {step}: the weights are not finite; lower `learning_rate`"
                        break
                    self._measure()
                    progress.update(0, loss, self._state.best)
                    stopped = stopped or self._reason_to_stop()
                elif time.monotonic() - saved < self._checkpoint_seconds:
                    continue
                self._save()
                saved = time.monotonic()
        return self._result(stopped)

    def _make_step(self) -> float:
        state = self._state
        epoch, index = divmod(state.step, len(self._groups))
        if self._order[0] != epoch:
            # An order of its own for each epoch, so that a resumed training needs no generator's state.
            self._order = epoch, np.random.default_rng((self._settings.seed, epoch)).permutation(len(self._groups))
        mine, share = self._processes.share(self._groups[self._order[1][index]])
        batch = self._samples.stack(mine)
        loss = self._program.step(batch, self._targets(batch), share)
        state.step += 1
        state.losses.append(loss)
        if self._after_step is not None and math.isfinite(loss):
            self._after_step(self._program, state.step)
        if self._decay:
            # A larger share in the first steps, to forget the start soon.
            weight = np.float32(1 - min(self._decay, (1 + state.step) / (10 + state.step)))
            for name, value in self._program.weights().items():
                self._mean[name] = (self._mean[name] + weight * (value - self._mean[name])).astype(np.float32)
        return loss

    def _targets(self, batch: Mapping[str, Array]) -> list[Array]:
        """Return the teachers' values that the loss compares with, each teacher run once."""
        wanted = list(zip(self._program.loss.teacher_numbers, self._program.loss.teacher_names))
        values: dict[tuple[int, str], Array] = {}
        for number, teacher in enumerate(self._teachers):
            names = [name for other, name in wanted if other == number]
            if names:
                values |= {(number, name): value for name, value in zip(names, teacher.run(batch, names))}
        return [values[each] for each in wanted]

    def _evaluation_is_due(self) -> bool:
        step = self._state.step
        if step == self._total:
            return True
        if self._settings.eval_iter is not None:
            return step % self._settings.eval_iter == 0
        steps, times = len(self._groups), self._settings.evaluations_per_epoch
        # Evenly over the epoch, whatever its number of steps, and at its end.
        return step * times // steps > (step - 1) * times // steps

    def _weights(self) -> dict[str, Array]:
        """Return what is measured, and kept where it is the best."""
        return dict(self._mean) if self._decay else self._program.weights()

    def _measure(self) -> None:
        """Measure the quality, and keep the weights where it is the best so far."""
        state, weights = self._state, self._weights()
        quality = self._processes.agree(self._evaluate(weights) if self._processes.first else 0.0)
        loss = float(np.mean(state.losses)) if state.losses else None
        state.history.append({"epoch": self._epoch(), "step": state.step, "loss": loss, "quality": quality})
        state.losses = []
        if not self._counts(state.step):
            return
        if state.best is None or quality > state.best:
            state.best, state.without_best, state.trained = quality, 0, state.step > 0
            self._best_weights = weights if state.trained else {}
        else:
            state.without_best += 1

    def _epoch(self) -> int:
        return math.ceil(self._state.step / len(self._groups))

    def _reason_to_stop(self) -> str:
        state, settings = self._state, self._settings
        if settings.target_metric is not None and state.best is not None and state.best >= settings.target_metric:
            return f"stopped at step {state.step}: the quality is at least {settings.target_metric:g}, as asked for"
        if settings.patience is not None and state.without_best >= settings.patience:
            return f"stopped at step {state.step}: {state.without_best} evaluations in a row were no better"
        if state.seconds > self._limit:
            return f"stopped in epoch {self._epoch()} at its time limit of {settings.time_limit_minutes:g} minutes"
        return ""

    def _result(self, stopped: str) -> Fit:
        state = self._state
        start = float(state.history[0]["quality"])
        after = start if state.best is None else state.best
        if state.trained and after > start:
            why = f"training raised the quality from {start:.4f} to {after:.4f}"
        elif state.trained:
            why = f"training ended at a quality of {after:.4f}, after {start:.4f} at its start"
        else:
            why = f"training found nothing better than its start ({start:.4f}), which is kept"
        history = [TrainingPoint.model_validate(point) for point in state.history]
        why = f"{why}; {stopped}" if stopped else why
        return Fit(why, start, after, history, self._best_weights if state.trained else None)

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self._settings.model_dump(),
            "processes": self._processes.count,
            "mean_decay": self._decay,
            "batches": [len(group) for group in self._groups],
            "teachers": list(zip(self._program.loss.teacher_numbers, self._program.loss.teacher_names)),
            "state": {name: [str(value.dtype), list(value.shape)] for name, value in self._program.state().items()},
        }

    def _save(self) -> None:
        if self._checkpoint is not None and self._processes.first:
            groups = {"state": self._program.state(), "best": self._best_weights, "mean": self._mean}
            self._checkpoint.save(asdict(self._state), groups)

    def _resume(self) -> bool:
        saved = self._checkpoint.load() if self._checkpoint is not None else None
        if saved is None:
            return False
        progress, groups = saved
        self._state = _State(**progress)
        self._program.restore(groups["state"], self._state.step)
        self._best_weights, self._mean = groups.get("best", {}), groups.get("mean", {})
        return True
