"""An engine's crash, hang, absence or nonsense is one `EngineFailure`, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from act.engines.process import EngineFailure, EngineProcess
from act.samples.dataset import Ragged, Samples
from tests.support.engines import run_by

ROOT = Path(__file__).parents[2]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    values = [np.arange(length, dtype=np.float32) for length in (3, 3, 3, 2)]
    counts = [np.array([length], dtype=np.int64) for length in (1, 2, 3, 4)]
    folder = tmp_path / "samples"
    Samples({"values": Ragged.of(values), "counts": Ragged.of(counts)}, Ragged.of([np.array(2)] * 4)).save(folder)
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., EngineProcess]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("FAKE_ENGINE_PIDS", str(tmp_path / "pids"))

    def make(name: str, seconds: float = 30) -> EngineProcess:
        run_by(monkeypatch, "onnxruntime", f"tests.support.{name}")
        return EngineProcess("onnxruntime", tmp_path, "fp32", 1, seconds)

    return make


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_well_behaved_engine(fake: Callable[..., EngineProcess], samples: Path) -> None:
    with fake("fake_engines:Doubles") as engine:
        info = engine.load()
        assert (info.version, info.precisions) == ("1", ["fp32"])
        assert info.description == {"threads_variable": "1"}
        assert info.peak_rss_bytes > 1_000_000
        warm = engine.warm_up(samples, batch=1, seconds=0.1)
        assert warm.runs > 10 and 0 < warm.first_seconds < warm.seconds
        assert engine.throughput(samples, batch=2, streams=2, seconds=0.01) > 0
        taken = engine.time(samples, batch=2, runs=5)
        assert len(taken) == 5 and min(taken) > 0
        doubled, counts = engine.outputs(samples, batch=2)
        assert [list(row) for row in doubled] == [[0, 2, 4]] * 3 + [[0, 2]]
        assert [list(row) for row in counts] == [[2], [4], [6], [8]] and counts.dtype == np.int64
        quality = engine.quality(samples, "top1", batch=3)
        assert quality.scores == [1, 1, 1, 0] and quality.value == 0.75
        assert engine.quality(samples, "top1", count=2).scores == [1, 1]
        accuracy = engine.quality(samples, {"name": "accuracy", "output": 0})
        assert accuracy.value == 0.75 and accuracy.head(2).value == 1


@pytest.mark.parametrize(
    ("name", "kind", "cause"),
    [
        ("fake_engines:Aborts", "crash", "ended by SIGABRT: illegal instruction in kernel 7"),
        ("fake_engines:Exits", "crash", "exit code 3"),
        ("fake_engines:GivesNan", "wrong_output", "NaN"),
        ("not_installed:Engine", "missing", "a_package_that_nobody_has"),
    ],
)
def test_misbehaviour_is_a_failure_with_its_cause(
    fake: Callable[..., EngineProcess], samples: Path, name: str, kind: str, cause: str
) -> None:
    with fake(name) as engine, pytest.raises(EngineFailure) as failure:
        engine.load()
        engine.quality(samples, "top1")
    assert failure.value.kind == kind
    assert cause in failure.value.cause
    assert "\n" not in failure.value.cause


def test_a_time_out_kills_the_whole_group(fake: Callable[..., EngineProcess], samples: Path, tmp_path: Path) -> None:
    with fake("fake_engines:Hangs", seconds=3) as engine:
        engine.load()
        for _ in range(2):  # the second call knows at once that the process is gone
            with pytest.raises(EngineFailure) as failure:
                engine.warm_up(samples, batch=1)
            assert failure.value.kind == "timeout" and "3 s" in failure.value.cause
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert pids and wait_for(lambda: not any(map(is_running, pids)))  # a killed process takes a moment to go


def test_the_worker_dies_with_its_parent(samples: Path, tmp_path: Path) -> None:
    script = (
        "import dataclasses, sys; from pathlib import Path; from act.engines import onnxruntime\n"
        "from act.engines.process import EngineProcess\n"
        "onnxruntime.SPEC = dataclasses.replace(onnxruntime.SPEC, runtime='tests.support.fake_engines:Hangs')\n"
        "with EngineProcess('onnxruntime', Path('.'), 'fp32') as engine:\n"
        "    engine.load(); engine.warm_up(Path(sys.argv[1]), 1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_ENGINE_PIDS": str(tmp_path / "pids")}
    parent = subprocess.Popen([sys.executable, "-c", script, str(samples)], env=environment, cwd=ROOT)
    assert wait_for((tmp_path / "pids").exists, 30) and wait_for(lambda: " " in (tmp_path / "pids").read_text())
    worker, grandchild = map(int, (tmp_path / "pids").read_text().split())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not is_running(worker))
    assert wait_for(lambda: not is_running(grandchild))


def test_an_unknown_precision_and_use_outside_with(fake: Callable[..., EngineProcess], tmp_path: Path) -> None:
    fake("fake_engines:Doubles")
    with EngineProcess("onnxruntime", tmp_path, "bf16") as engine, pytest.raises(EngineFailure) as failure:
        engine.load()
    assert failure.value.kind == "unsupported" and "fp32" in failure.value.cause
    with pytest.raises(RuntimeError, match="context manager"):
        EngineProcess("onnxruntime", tmp_path, "fp32").load()


def test_missing_samples_are_an_error_and_the_engine_lives_on(
    fake: Callable[..., EngineProcess], samples: Path, tmp_path: Path
) -> None:
    with fake("fake_engines:Doubles") as engine:
        engine.load()
        with pytest.raises(EngineFailure) as failure:
            engine.quality(tmp_path / "nowhere", "top1")
        assert failure.value.kind == "error" and "nowhere" in failure.value.cause
        assert engine.quality(samples, "top1").value == 0.75
