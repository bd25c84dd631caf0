"""Two processes of Paddle's own launcher train as one does: the same weights in both, and those of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from act.samples.dataset import Array, Ragged, Samples
from act.settings import Distillation, TrainConfig
from act.training.distillation import distillation_loss, plan_distillation
from act.training.loop import Loop, count_steps
from act.training.processes import Processes, processes
from act.training.program import build, trainable_weights
from tests.support.small_training import convolutions

CHECKOUT = Path(__file__).parents[2]
SAMPLES = Samples({"x": Ragged.of(list(np.random.default_rng(1).normal(size=(13, 1, 8, 8)).astype(np.float32)))})
SETTINGS = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-2, patience=3)


def train(folder: Path, largest_batch: int | None = None) -> None:
    """Train on batches of 4, 4, 4 and 1 samples, and write the weights and what was measured."""
    samples = replace(SAMPLES, largest_batch=largest_batch)
    rank = processes().rank
    teacher, student = convolutions(), convolutions(seed=5)
    parts = plan_distillation(Distillation(loss="soft_label"), student, [teacher], SAMPLES.stack([0]))
    names = trainable_weights(student, None)
    steps = count_steps(samples, SETTINGS)
    in_parts = largest_batch is not None
    program = build(student, None, distillation_loss(parts), names, SETTINGS, steps, in_parts=in_parts)
    measured: list[int] = []

    def evaluate(weights: dict[str, Array]) -> float:
        measured.append(rank)
        return len(measured) / 10

    result = Loop(program, [teacher], samples, SETTINGS, evaluate, checkpoint=folder / "checkpoint").run()
    assert measured == ([0, 0, 0] if rank == 0 else [])
    assert result.quality_after == 0.3
    losses = np.array([row.loss for row in result.history[1:]])
    np.savez(folder / f"{rank}.npz", losses=losses, **program.weights())


LARGEST_BATCHES = {"whole": None, "in parts": 1}


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes trained in each way, one after the other: to start them takes longer."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom tests.training.test_processes import LARGEST_BATCHES, train\n"
        f"for name, largest_batch in LARGEST_BATCHES.items():\n    train(Path({str(folder)!r}) / name, largest_batch)\n"
    )
    for name in LARGEST_BATCHES:
        (folder / name).mkdir()
    launcher = [sys.executable, "-W", "ignore", "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    launcher += ["--backend", "gloo", "--log_dir", str(folder / "log"), str(script)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(launcher, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    logs = "\n".join(path.read_text() for path in (folder / "log").glob("workerlog.*"))
    assert done.returncode == 0, logs
    return folder


@pytest.mark.parametrize("way", LARGEST_BATCHES)
def test_two_processes_do_what_one_does(in_two: Path, way: str, tmp_path: Path) -> None:
    train(tmp_path, LARGEST_BATCHES[way])
    first, second, alone = (
        np.load(file) for file in (in_two / way / "0.npz", in_two / way / "1.npz", tmp_path / "0.npz")
    )
    start = convolutions(seed=5)
    for name in alone.files:
        assert np.array_equal(first[name], second[name])
        if name == "losses":
            assert first[name] == pytest.approx(alone[name], rel=1e-4)
        else:
            moved = np.abs(alone[name] - start.weight(name)).max()
            assert np.abs(first[name] - alone[name]).max() < 0.02 * moved


def test_each_sample_belongs_to_one_process() -> None:
    shares = [Processes(rank, 2).share([4, 7, 9]) for rank in range(2)]
    assert shares == [([4, 7], 2 / 3), ([9], 1 / 3)]
    assert [Processes(rank, 2).share([5]) for rank in range(2)] == [([5], 0.5), ([5], 0.5)]
    assert Processes().share([1, 2]) == ([1, 2], 1.0)


@pytest.mark.parametrize(
    ("rank", "endpoints", "fragment"),
    [("x", "127.0.0.1:1,127.0.0.1:2", "PADDLE_TRAINER_ID 'x'"), ("0", "10.0.0.1:1,10.0.0.2:1", "several machines")],
)
def test_another_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, rank: str, endpoints: str, fragment: str
) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", endpoints)
    with pytest.raises(InputError, match=fragment):
        processes.__wrapped__()
