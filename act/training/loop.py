"""The loop of every training: steps, evaluations on a real engine, the best state, and a checkpoint to go on from.

The teacher's outputs are computed step by step: a forward pass in fp32 is a small part of a step, and keeping the
outputs of all samples would need gigabytes. The best state is kept, the start included, so that training can only
improve. A training that is killed and begun again with its checkpoint ends with the same bits as one that is not.

What is measured, and kept, may be a running mean of the weights instead of the last ones (Polyak and Juditsky, 1992;
in its exponential form Tarvainen and Valpola, 2017): a quantized weight near the middle between two integers jumps
from one to the other at each step, and the mean does not (Nagel et al., "Overcoming oscillations in
quantization-aware training", 2022).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.samples.dataset import Array, Samples
from act.settings import TrainConfig
from act.training.checkpoint import Checkpoint
from act.training.graph import use_onednn
from act.training.program import TrainingProgram
from act.training.progress import Progress

CHECKPOINT_SECONDS = 60.0
HISTORY_FIELDS = ("epoch", "step", "loss", "quality")

# The quality of what was trained so far: takes the trained weights, by name; higher is better.
Evaluate = Callable[[dict[str, Array]], float]
# Called after each step with its number, from 1; may change masks and weights.
AfterStep = Callable[[TrainingProgram, int], None]


@dataclass
class Fit:
    """How training ended.

    Attributes:
        why: one sentence.
        quality_before: of the start.
        quality_after: of the best state; of the start, where nothing was better.
        steps: that were made.
        history: for each evaluation `epoch`, `step`, mean `loss` since the one before, and `quality`; the start is
            step 0 without a loss.
        weights: the trained weights of the best state; None where nothing was better than the start.
    """

    why: str
    quality_before: float
    quality_after: float
    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Array] | None = None


@dataclass
class Mean:
    """The exponential mean of weights over the steps of a training.

    Attributes:
        decay: what share of the mean stays at a step; less in the first ones, so that the start is soon forgotten.
        values: by name; before the first step, the weights of the start.
    """

    decay: float
    values: dict[str, Array]

    def add(self, weights: Mapping[str, Array], step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: its number, from 1.
        """
        share = np.float32(1 - min(self.decay, (1 + step) / (10 + step)))
        for name, value in weights.items():
            self.values[name] = (self.values[name] + share * (value - self.values[name])).astype(np.float32)

    def copy(self) -> dict[str, Array]:
        """The mean as it is now, which later steps do not change."""
        return dict(self.values)


def count_steps(samples: Samples, settings: TrainConfig) -> int:
    """How many steps the settings ask for, without an early stop: the length of the learning-rate schedule."""
    steps = settings.epochs * len(samples.groups(settings.batch_size))
    return steps if settings.train_iter is None else min(steps, settings.train_iter)


def fit(
    program: TrainingProgram,
    teacher: InferenceModel | Sequence[InferenceModel],
    samples: Samples,
    settings: TrainConfig,
    evaluate: Evaluate,
    *,
    checkpoint: Path | None = None,
    after_step: AfterStep | None = None,
    counts: Callable[[int], bool] | None = None,
    mean_decay: float = 0.0,
    label: str = "training",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Fit:
    """Train until the steps are made, or until there is a reason to stop.

    Args:
        program: of `build`, with `count_steps` steps.
        teacher: the model, or the models, that the loss compares with.
        samples: unlabelled.
        settings: epochs, evaluations and reasons to stop.
        evaluate: measures the quality, on the engine that will run the model.
        checkpoint: a folder for this training alone, from which a killed one goes on; the caller removes it in the end.
        after_step: for instance applies masks.
        counts: whether the state after a step is one that may be returned (a model that is sparser step by step is none
            before the last); the start counts only where 0 does. All do when left out.
        mean_decay: of the running mean of the weights that is measured and kept; 0: the last weights are.
        label: what is trained, for the progress bar.
        checkpoint_seconds: between two checkpoints, at least; each evaluation makes one as well.

    Raises:
        InputError: the checkpoint is damaged, or of another training.
    """
    counts = counts or (lambda _: True)
    loop = _Loop(program, teacher, samples, settings, evaluate, checkpoint, after_step, counts, mean_decay)
    return loop.run(label, checkpoint_seconds)


class _Loop:
    def __init__(
        self,
        program: TrainingProgram,
        teacher: InferenceModel | Sequence[InferenceModel],
        samples: Samples,
        settings: TrainConfig,
        evaluate: Evaluate,
        checkpoint: Path | None,
        after_step: AfterStep | None,
        counts: Callable[[int], bool],
        mean_decay: float,
    ) -> None:
        self._program, self._settings, self._evaluate = program, settings, evaluate
        self._processes = program.processes
        teachers = [teacher] if isinstance(teacher, InferenceModel) else teacher
        self._teachers = [each.copy() for each in teachers]
        for each in self._teachers:
            use_onednn(each.program)
        self._after_step, self._counts = after_step, counts
        self._samples, self._groups = samples, samples.groups(settings.batch_size)
        self._total = count_steps(samples, settings)
        self._order: tuple[int, Any] = (0, None)
        # What a checkpoint holds.
        self._step = 0
        self._seconds = 0.0
        self._losses: list[float] = []
        self._history: list[dict[str, Any]] = []
        self._best: float | None = None
        self._best_weights: dict[str, Array] | None = None
        self._without_best = 0
        self._mean = Mean(mean_decay, program.weights()) if mean_decay else None
        self._checkpoint = None if checkpoint is None else Checkpoint(checkpoint, self._identity())

    def run(self, label: str, checkpoint_seconds: float) -> Fit:
        began = time.monotonic()
        if self._resume():
            print(f"{label}: goes on from step {self._step} of {self._total}", flush=True)
        else:
            self._measure()
        before = self._seconds
        limit = self._settings.time_limit_minutes * 60
        saved = time.monotonic()
        stopped = self._reason_to_stop(limit)
        with Progress(label, self._total, self._step, max(0.0, limit - before)) as progress:
            if self._best is not None:
                progress.evaluated(self._best)
            while self._step < self._total and not stopped:
                loss = self._make_step()
                progress.step(loss)
                if not math.isfinite(loss):
                    stopped = f"stopped at step {self._step}: the loss is not finite; lower `learning_rate`"
                    break
                self._seconds = self._processes.agree(before + time.monotonic() - began)
                stopped = self._reason_to_stop(limit)
                if stopped or self._due():
                    if not self._measurable():
                        stopped = f"stopped at step {self._step}: the weights are not finite; lower `learning_rate`"
                        break
                    self._measure()
                    if self._best is not None:
                        progress.evaluated(self._best)
                    stopped = stopped or self._reason_to_stop(limit)
                    self._save()
                    saved = time.monotonic()
                elif time.monotonic() - saved >= checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
        return self._result(stopped)

    def _make_step(self) -> float:
        epoch, place = divmod(self._step, len(self._groups))
        if self._order[0] != epoch + 1:
            # An order of its own for each epoch, so that a resumed training needs no generator's state.
            shuffled = np.random.default_rng((self._settings.seed, epoch)).permutation(len(self._groups))
            self._order = (epoch + 1, shuffled)
        mine, share = self._processes.share(self._groups[self._order[1][place]])
        batch = self._samples.stack(mine)
        loss = self._program.step(batch, self._targets(batch), share)
        self._step += 1
        self._losses.append(loss)
        if self._after_step is not None and math.isfinite(loss):
            self._after_step(self._program, self._step)
        if self._mean is not None:
            self._mean.add(self._program.weights(), self._step)
        return loss

    def _targets(self, batch: Mapping[str, Array]) -> list[Array]:
        numbers, names = self._program.teacher_numbers, self._program.teacher_names
        found: dict[tuple[int, str], Array] = {}
        for number, teacher in enumerate(self._teachers):
            wanted = [name for other, name in zip(numbers, names) if other == number]
            if wanted:
                found |= {(number, name): value for name, value in zip(wanted, teacher.run(batch, wanted))}
        return [found[number, name] for number, name in zip(numbers, names)]

    def _due(self) -> bool:
        if self._step == self._total:
            return True
        if self._settings.eval_iter is not None:
            return self._step % self._settings.eval_iter == 0
        steps, times = len(self._groups), self._settings.evaluations_per_epoch
        # Evenly over the epoch, whatever its number of steps, and at its end.
        return self._step * times // steps > (self._step - 1) * times // steps

    def _weights(self) -> dict[str, Array]:
        """What is measured, and kept where it is the best."""
        return self._program.weights() if self._mean is None else self._mean.copy()

    def _measurable(self) -> bool:
        """Whether all weights are numbers: a step's loss is that before the step, and says nothing of what it did."""
        return all(bool(np.isfinite(value).all()) for value in self._weights().values())

    def _measure(self) -> None:
        """Measure the quality, and keep the state where it is the best so far."""
        weights = self._weights()
        quality = self._processes.agree(self._evaluate(weights) if self._processes.first else 0.0)
        loss = float(np.mean(self._losses)) if self._losses else None
        epoch = math.ceil(self._step / len(self._groups))
        self._history.append({"epoch": epoch, "step": self._step, "loss": loss, "quality": quality})
        self._losses = []
        if not self._counts(self._step):
            return
        if self._best is None or quality > self._best:
            self._best, self._without_best = quality, 0
            self._best_weights = weights if self._step > 0 else None
        else:
            self._without_best += 1

    def _reason_to_stop(self, limit: float) -> str:
        settings, epoch = self._settings, math.ceil(self._step / len(self._groups))
        if settings.target_metric is not None and self._best is not None and self._best >= settings.target_metric:
            return f"stopped at step {self._step}: the quality is at least {settings.target_metric:g}, as asked for"
        if settings.patience is not None and self._without_best >= settings.patience:
            return f"stopped at step {self._step}: {self._without_best} evaluations in a row were no better"
        if self._seconds > limit:
            return f"stopped in epoch {epoch} at its time limit of {settings.time_limit_minutes:g} minutes"
        return ""

    def _result(self, stopped: str) -> Fit:
        start = float(self._history[0]["quality"])
        after = start if self._best is None else self._best
        if self._best_weights is not None and after > start:
            why = f"training raised the quality from {start:.4f} to {after:.4f}"
        elif self._best_weights is not None:
            why = f"training ended at a quality of {after:.4f}, after {start:.4f} at its start"
        else:
            why = f"training found nothing better than its start ({start:.4f}), which is kept"
        if stopped:
            why += f"; {stopped}"
        return Fit(why, start, after, self._step, self._history, self._best_weights)

    def _identity(self) -> dict[str, Any]:
        state = self._program.state()
        return {
            "settings": self._settings.model_dump(),
            "processes": self._processes.count,
            "mean_decay": 0.0 if self._mean is None else self._mean.decay,
            "batches": [len(group) for group in self._groups],
            "teachers": list(zip(self._program.teacher_numbers, self._program.teacher_names)),
            "state": {name: [str(value.dtype), list(value.shape)] for name, value in state.items()},
        }

    def _save(self) -> None:
        if self._checkpoint is None or not self._processes.first:
            return
        progress = {
            "step": self._step,
            "seconds": self._seconds,
            "losses": self._losses,
            "history": self._history,
            "best": self._best,
            "trained": self._best_weights is not None,
            "without_best": self._without_best,
        }
        mean = {} if self._mean is None else self._mean.values
        groups = {"state": self._program.state(), "best": self._best_weights or {}, "mean": mean}
        self._checkpoint.save(progress, groups)

    def _resume(self) -> bool:
        found = self._checkpoint.load() if self._checkpoint is not None else None
        if found is None:
            return False
        progress, groups = found
        self._program.restore(groups["state"], progress["step"])
        self._step, self._seconds = progress["step"], progress["seconds"]
        self._losses, self._history = progress["losses"], progress["history"]
        self._best, self._without_best = progress["best"], progress["without_best"]
        self._best_weights = groups["best"] if progress["trained"] else None
        if self._mean is not None:
            self._mean.values = groups["mean"]
        return True
