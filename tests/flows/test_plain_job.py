"""The stages of one job without DVC: which are run again once something was learned."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from act.artifacts import read_json
from act.errors import USER_ERROR_EXIT_CODE, InputError
from flows.record import path_of
from flows.stages import Ended, PlainJob, ProcessGroups

STAGES = list(PlainJob("mine", Path(), print).stages)
LATER = STAGES[STAGES.index("select") + 1 :]


class Commands(ProcessGroups):
    """Does what it is told instead of running a stage's command."""

    def __init__(self, do: Callable[[str], int]) -> None:
        super().__init__()
        self.ran: list[str] = []
        self._do = do

    def run(self, stage: str, command: Sequence[str], *_: Any, **__: Any) -> Ended:
        assert command[1:] == ["-m", f"tasks.{stage}", "--job", "mine"]
        self.ran.append(stage)
        return Ended(self._do(stage), ["error: params.yaml: no such job"])


@pytest.mark.parametrize("chosen", [b"the same", b"another"])
def test_what_was_carried_out_is_not_carried_out_twice(tmp_path: Path, chosen: bytes) -> None:
    strategy = tmp_path / "artifacts" / "mine" / "select" / "strategy.json"
    strategy.parent.mkdir(parents=True)
    strategy.write_bytes(b"the same")

    def do(stage: str) -> int:
        strategy.write_bytes(chosen)
        return 0

    commands = Commands(do)
    PlainJob("mine", tmp_path, print, groups=commands).run_again()
    assert commands.ran == (["select", "report"] if chosen == b"the same" else ["select", *LATER])
    assert STAGES[-1] == "report"
    outcomes = {row["name"]: row["outcome"] for row in read_json(tmp_path / path_of("mine"))["stages"]}
    assert outcomes == {name: "ran" if name in commands.ran else "cached" for name in STAGES}


def test_what_failed_is_noted_and_ends_the_run(tmp_path: Path) -> None:
    commands = Commands(lambda stage: USER_ERROR_EXIT_CODE if stage == "analyze" else 0)
    with pytest.raises(InputError, match="^params.yaml: no such job$"):
        PlainJob("mine", tmp_path, print, groups=commands).run_once()
    rows = {row["name"]: row for row in read_json(tmp_path / path_of("mine"))["stages"]}
    before = set(commands.ran) - {"analyze"}
    assert {name for name in rows if rows[name]["outcome"] == "ran"} == before
    assert {name for name in rows if rows[name]["seconds"] is not None} == before
    assert rows["analyze"]["outcome"] == "failed" and rows["report"]["outcome"] == "waiting"


def test_what_an_earlier_strategy_made_is_taken_back(tmp_path: Path) -> None:
    made = tmp_path / "artifacts" / "mine"
    strategy, pruned, deployed = made / "select" / "strategy.json", made / "prune" / "x", tmp_path / "deploy/mine/y"
    chosen = iter(["first", "second", "first", "third"])

    def do(stage: str) -> int:
        if stage == "select":
            put(strategy, next(chosen))
        if stage == "prune":
            put(pruned, strategy.read_text())
        if stage == "report":
            put(deployed, strategy.read_text())
        return 0

    def put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    commands = Commands(do)
    job = PlainJob("mine", tmp_path, print, groups=commands)
    job.run_once()
    for stages in (LATER, ["report"], LATER):
        commands.ran.clear()
        job.run_again()
        assert commands.ran == ["select", *stages]
        assert pruned.read_text() == deployed.read_text() == strategy.read_text()


@pytest.mark.stage
def test_all_that_a_stage_has_started_ends_with_it(tmp_path: Path) -> None:
    lines: list[str] = []
    child = "subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    script = f"import subprocess, sys; print({child}.pid, flush=True); sys.exit(3)"
    ended = ProcessGroups().run("mine", [sys.executable, "-c", script], tmp_path, lines.append)
    assert ended.code == 3
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(lines[0])).wait(timeout=30)
