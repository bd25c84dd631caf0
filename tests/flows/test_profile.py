"""The flow that measures a table: what it tells, without measuring anything."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from act.errors import InputError
from flows import profile as module


def answer(monkeypatch: pytest.MonkeyPatch, code: int, out: str = "", err: str = "") -> list[list[str]]:
    started: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(subprocess, "run", run)
    return started


def test_it_runs_the_command_and_returns_what_that_says(monkeypatch: pytest.MonkeyPatch) -> None:
    started = answer(monkeypatch, 0, "latency/table.jsonl: 1 thread(s)\n")
    assert module.profile.fn("openvino/cpu", [1, 2], 3) == "latency/table.jsonl: 1 thread(s)"
    assert started[0][1:] == [
        *("-m", "act.strategy.profile", "--target", "openvino/cpu"),
        *("--threads", "1", "2", "--networks", "3"),
    ]


def test_mistakes_and_failures_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 2, err="error: --target: no such engine\n")
    with pytest.raises(InputError, match="^--target: no such engine$"):
        module.profile.fn("nonsense")
    answer(monkeypatch, 1, err="it broke\n")
    with pytest.raises(RuntimeError, match="ended with 1: it broke"):
        module.profile.fn("openvino/cpu")
