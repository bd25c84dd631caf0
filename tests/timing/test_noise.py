"""A noisy machine is noticed, by each sign."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import psutil

from act.timing.noise import Watch, verdict

STEADY = np.full((10, 3), 0.01)
# How much longer each round takes.
MOVING = STEADY * np.linspace(1, 1.3, 10)[:, None]


def test_each_sign_of_noise_is_said() -> None:
    quiet = verdict(0.03, {"openvino": STEADY})
    assert not quiet.noisy and quiet.cause is None and quiet.by_engine == {"openvino": 0}
    assert "used 0.50 of its" in str(verdict(0.5, {"openvino": STEADY}).cause)
    assert "moved by 21% between rounds" in str(verdict(0.0, {"openvino": MOVING}).cause)
    assert " and " in str(verdict(0.5, {"openvino": MOVING}).cause)
    assert not verdict(0.0, {"a": STEADY, "b": STEADY, "c": MOVING}).noisy, "none speaks alone"
    assert not verdict(0.0, {}).noisy


def test_processor_time_of_others_is_what_is_not_ours() -> None:
    code = "import sys, time; began = time.monotonic(); print(flush=True)\nwhile time.monotonic() < began + 60: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        ours, unknown, began = Watch([busy.pid]), Watch([]), time.monotonic()
        process = psutil.Process(busy.pid)
        enough = process.cpu_times().user + 0.5
        while process.cpu_times().user < enough:
            time.sleep(0.01)
        difference = unknown.cores_used_by_others() - ours.cores_used_by_others()
        seconds = difference * (time.monotonic() - began)
        busy.kill()
    assert seconds > 0.2, "what the child used is not others' for whom it is known"
    ours.look()  # a process that is gone keeps what it had used
    assert ours.cores_used_by_others() >= 0
