"""Engines stay on the cores that have least to do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.benchmark import pinning


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


@pytest.mark.skipif(len(pinning.all_cores()) < 2, reason="needs two cores")
def test_the_core_that_works_is_not_taken() -> None:
    busy = pinning.all_cores()[-1]  # the one that would be taken of equals
    stop = threading.Event()

    def work() -> None:
        os.sched_setaffinity(0, [busy])
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        chosen = pinning.quietest_cores(1, seconds=0.5)
    finally:
        stop.set()
        thread.join()
    assert chosen != [busy]


def test_where_there_are_no_more_cores_all_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pinning.quietest_cores(10_000, seconds=0) == pinning.all_cores()
    monkeypatch.setattr(pinning, "_busy", dict)
    assert pinning.quietest_cores(1, seconds=0) == pinning.all_cores()
