"""Engines stay on the cores that have least to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from act.timing import pinning


def test_all_threads_of_a_process_stay_where_they_are_put() -> None:
    code = "import threading, sys; threading.Thread(target=sys.stdin.read).start(); print('ready', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        core = pinning.all_cores()[-1]
        pinning.pin(process.pid, [core])
        tasks = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        found = [os.sched_getaffinity(task) for task in tasks]
        pinning.pin(process.pid, pinning.all_cores())
        freed = [os.sched_getaffinity(task) for task in tasks]
        process.stdin.close()
    assert len(tasks) > 1 and found == [{core}] * len(tasks)
    assert freed == [set(pinning.all_cores())] * len(tasks)


def test_a_process_that_is_gone_does_not_matter() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    pinning.pin(process.pid, pinning.all_cores())


def test_the_core_that_works_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Made up, because on a machine where tests run side by side every core works.
    looks = [{0: 100, 1: 100, 2: 100}, {0: 130, 1: 102, 2: 148}]
    monkeypatch.setattr(pinning, "all_cores", lambda: [0, 1, 2])
    monkeypatch.setattr(pinning, "_busy", lambda: looks.pop(0))
    assert pinning.quietest_cores(1, seconds=0) == [1]
    looks = [{0: 100, 1: 100, 2: 100}, {0: 105, 1: 130, 2: 105}]
    assert pinning.quietest_cores(1, seconds=0) == [2]  # of equals the last
    looks = [{0: 100, 1: 100, 2: 100}, {0: 105, 1: 130, 2: 105}]
    assert pinning.quietest_cores(2, seconds=0) == [0, 2]


def test_where_there_are_no_more_cores_all_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pinning.quietest_cores(10_000, seconds=0) == pinning.all_cores()
    monkeypatch.setattr(pinning, "_busy", dict)
    assert pinning.quietest_cores(1, seconds=0) == pinning.all_cores()
