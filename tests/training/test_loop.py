"""The loop keeps the best state, stops where it has a reason to, and goes on after a kill as if there had been none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.program.model import InferenceModel
from act.samples.dataset import Array, Ragged, Samples
from act.settings import Schedule, TrainConfig
from act.training.loop import Fit, Loop, count_steps
from act.training.program import TrainingProgram, build, trainable_weights, with_weights
from tests.support.small_training import convolutions, default_loss

CHECKOUT = Path(__file__).parents[2]
PICTURES = np.random.default_rng(1).normal(size=(12, 1, 8, 8)).astype(np.float32)
SAMPLES = Samples({"x": Ragged.of(list(PICTURES))})
SETTINGS = TrainConfig(epochs=3, batch_size=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def teacher() -> InferenceModel:
    return convolutions()


def spoiled(teacher: InferenceModel) -> InferenceModel:
    """The teacher with other weights in its first layer, so that there is something to win."""
    student = teacher.copy()
    name = trainable_weights(teacher, None)[0]
    noise = np.random.default_rng(0).normal(size=student.weight(name).shape).astype(np.float32)
    student.set_weight(name, student.weight(name) + np.float32(0.1) * noise)
    return student


def training(teacher: InferenceModel, settings: TrainConfig, **more: Any) -> TrainingProgram:
    student = spoiled(teacher)
    return build(
        student, None, default_loss, trainable_weights(student, None), settings, count_steps(SAMPLES, settings), **more
    )


def closeness(teacher: InferenceModel) -> Any:
    wanted = teacher.run({"x": PICTURES})[0]
    student = spoiled(teacher)
    return lambda weights: -float(np.abs(with_weights(student, weights).run({"x": PICTURES})[0] - wanted).mean())


def train(teacher: InferenceModel, settings: TrainConfig, evaluate: Any = None, **more: Any) -> Fit:
    loop = Loop(training(teacher, settings), [teacher], SAMPLES, settings, evaluate or closeness(teacher), **more)
    return loop.run()


def qualities(*given: float) -> Any:
    values: Iterator[float] = iter(given)
    return lambda _: next(values)


def test_training_in_fp32_comes_nearer_to_its_teacher(teacher: InferenceModel) -> None:
    result = train(teacher, SETTINGS)
    assert result.quality_after > result.quality_before / 2  # both are negative
    assert [row.step for row in result.history] == [0, 3, 6, 9]
    assert result.weights is not None
    assert closeness(teacher)(result.weights) == result.quality_after


def test_the_best_state_is_returned_and_not_the_last(teacher: InferenceModel) -> None:
    seen: list[dict[str, Array]] = []
    given = iter([0.5, 0.6, 0.9, 0.7])

    def evaluate(weights: dict[str, Array]) -> float:
        seen.append(weights)
        return next(given)

    result = train(teacher, SETTINGS, evaluate)
    assert result.quality_after == 0.9 and result.weights is not None
    assert all(np.array_equal(result.weights[name], value) for name, value in seen[2].items())
    assert any(not np.array_equal(result.weights[name], value) for name, value in seen[3].items())


def test_what_is_measured_is_the_mean_of_the_last_weights(teacher: InferenceModel) -> None:
    seen: list[dict[str, Array]] = []
    steps: list[dict[str, Array]] = []

    def evaluate(weights: dict[str, Array]) -> float:
        seen.append(weights)
        return float(len(seen))

    program = training(teacher, SETTINGS)
    before = program.weights()
    loop = Loop(
        program,
        [teacher],
        SAMPLES,
        SETTINGS,
        evaluate,
        after_step=lambda program, _: steps.append(program.weights()),
        mean_decay=0.3,
    )
    result = loop.run()
    assert result.weights is not None
    for name, start in before.items():
        mean = start
        for number, weights in enumerate(steps, start=1):
            share = 1 - min(0.3, (1 + number) / (10 + number))
            mean = mean + share * (weights[name] - mean)
            if number == 3:
                assert np.allclose(seen[1][name], mean, atol=1e-6)
        assert np.allclose(result.weights[name], mean, atol=1e-6)
        assert not np.array_equal(result.weights[name], steps[-1][name])


def test_it_evaluates_when_it_is_told_to_and_at_the_end(teacher: InferenceModel) -> None:
    settings = SETTINGS.model_copy(update={"eval_iter": 2, "train_iter": 5})
    result = train(teacher, settings)
    assert [row.step for row in result.history] == [0, 2, 4, 5]
    assert [row.epoch for row in result.history] == [0, 1, 2, 2]


@pytest.mark.parametrize("times, steps", [(1, [0, 3, 6]), (2, [0, 2, 3, 5, 6]), (8, [0, 1, 2, 3, 4, 5, 6])])
def test_it_evaluates_evenly_over_an_epoch(teacher: InferenceModel, times: int, steps: list[int]) -> None:
    settings = SETTINGS.model_copy(update={"evaluations_per_epoch": times, "epochs": 2})
    result = train(teacher, settings, lambda _: 0.0)
    assert [row.step for row in result.history] == steps


def test_it_stops_early(teacher: InferenceModel) -> None:
    patient = SETTINGS.model_copy(update={"epochs": 50, "patience": 2})
    result = train(teacher, patient, qualities(0.5, 0.6, 0.6, 0.55, 0.9))
    assert len(result.history) == 4 and "no better" in result.why and result.quality_after == 0.6
    aiming = SETTINGS.model_copy(update={"epochs": 50, "target_metric": 0.7})
    result = train(teacher, aiming, qualities(0.5, 0.6, 0.7, 0.9))
    assert len(result.history) == 3 and "as asked for" in result.why


def test_a_state_that_does_not_count_is_not_returned(teacher: InferenceModel) -> None:
    result = train(teacher, SETTINGS, qualities(0.9, 0.8, 0.3, 0.2), counts=lambda step: step >= 6)
    assert result.quality_before == 0.9 and result.quality_after == 0.3 and result.weights is not None


def test_what_is_masked_stays_zero(teacher: InferenceModel) -> None:
    name = trainable_weights(teacher, None)[0]
    mask = np.random.default_rng(0).random(teacher.weight(name).shape) > 0.5
    program = training(teacher, SETTINGS, masks={name: mask})
    before = program.weights()[name]
    result = Loop(program, [teacher], SAMPLES, SETTINGS, qualities(0, 1, 2, 3)).run()
    assert result.weights is not None
    assert np.all(result.weights[name][~mask] == 0)
    assert np.all(result.weights[name][mask] != before[mask])
    program.set_mask(name, np.zeros_like(mask))
    assert np.all(program.weights()[name] == 0)


def run_and_save(folder: str, killed_at: int) -> None:
    """In a process of its own: train with checkpoints, and write what came of it."""
    teacher = convolutions()
    settings = TrainConfig(
        epochs=3,
        batch_size=4,
        learning_rate=1e-2,
        optimizer="AdamW",
        weight_decay=0.01,
        learning_rate_schedule=Schedule(type="PolynomialDecay", warmup_steps=2),
    )

    def after_step(program: TrainingProgram, step: int) -> None:
        if step == 2:
            name = program.trained[0]
            program.set_mask(name, np.abs(program.weights()[name]) > 0.05)
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    here = Path(folder)
    program = training(teacher, settings)
    loop = Loop(
        program,
        [teacher],
        SAMPLES,
        settings,
        closeness(teacher),
        checkpoint=here / "checkpoint",
        after_step=after_step,
        mean_decay=0.5,
        checkpoint_seconds=0,
    )
    result = loop.run()
    assert result.weights is not None
    np.savez(here / "state.npz", **{str(place): value for place, value in enumerate(program.state().values())})
    np.savez(here / "best.npz", **{str(place): value for place, value in enumerate(result.weights.values())})
    (here / "history.json").write_text(json.dumps([[row.model_dump() for row in result.history], result.why]))


# Trains in the folder that is named. Each that is killed is a fork, which spares it Paddle's import.
KILLED_AND_WHOLE = """
import os, sys
from tests.training.test_loop import run_and_save

for name, step in (("five", 5), ("six", 6)):
    child = os.fork()
    if child == 0:
        run_and_save(f"{sys.argv[1]}/{name}", step)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for name in ("whole", "five", "six"):
    run_and_save(f"{sys.argv[1]}/{name}", 0)
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    for name in ("whole", "five", "six"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-W", "ignore", "-c", KILLED_AND_WHOLE, str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == [str(-signal.SIGKILL)] * 2, done.stderr
    whole, five, six = (saved_by(tmp_path / name) for name in ("whole", "five", "six"))
    assert (tmp_path / "five" / "checkpoint" / "checkpoint.npz").exists()
    assert whole == five == six


def saved_by(folder: Path) -> list[bytes]:
    with np.load(folder / "state.npz") as state:
        values = [state[place].tobytes() for place in state.files]
    return [(folder / "best.npz").read_bytes(), (folder / "history.json").read_bytes(), *values]


def test_a_checkpoint_that_does_not_fit_is_refused(teacher: InferenceModel, tmp_path: Path) -> None:
    train(teacher, SETTINGS, checkpoint=tmp_path / "kept")
    other = SETTINGS.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match=r"checkpoint\.npz: of a training with other settings"):
        train(teacher, other, checkpoint=tmp_path / "kept")
    (arrays,) = (tmp_path / "kept").glob("*.npz")
    arrays.write_bytes(arrays.read_bytes()[:200])
    with pytest.raises(InputError, match="damaged checkpoint"):
        train(teacher, SETTINGS, checkpoint=tmp_path / "kept")
