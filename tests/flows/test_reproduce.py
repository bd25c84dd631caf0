"""One stage through DVC: how it ended, and which failures are whose."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from flows.stages import ProcessGroups, StageFailed, reproduce
from tests.support.toy import Toy


@pytest.mark.parametrize(
    ("orders", "cause", "message"),
    [
        ({"exit": 2, "say": "error: the model is cut short"}, "input", "the model is cut short"),
        (
            {"exit": 1, "child": True, "say": "Traceback\nValueError: no good"},
            "command",
            "its command exited with 1: ValueError: no good",
        ),
        ({"kill_self_once": True}, "outside", "its command was killed by SIGKILL; is there enough memory?"),
    ],
)
def test_a_failure_is_told_in_one_line(
    toy: Callable[..., Toy], orders: dict[str, Any], cause: str, message: str
) -> None:
    made = toy("one")
    made.tell({"prepare@one": orders})
    lines: list[str] = []
    with pytest.raises(StageFailed) as failure:
        reproduce("prepare@one", made.folder, ProcessGroups(), lines.append)
    assert failure.value.cause == cause
    assert failure.value.message == message
    assert lines[0] == "prepare@one at work", "DVC's own chatter is left out"
    if "child" in orders:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int((made.folder / "child.pid").read_text())).wait(timeout=30)


def test_ends_well(toy: Callable[..., Toy]) -> None:
    made = toy("one")
    lines: list[str] = []
    assert reproduce("prepare@one", made.folder, ProcessGroups(), lines.append) == "ran"
    assert reproduce("prepare@one", made.folder, ProcessGroups(), lines.append) == "unchanged"
    assert lines == ["prepare@one at work"]
    result = made.folder / "artifacts" / "one" / "prepare"
    shutil.rmtree(result)
    assert reproduce("prepare@one", made.folder, ProcessGroups(), lines.append) == "restored"
    assert (result / "result").read_text() == "first"
    for text in ("second", "first"):
        (made.folder / "inputs" / "one.txt").write_text(text)
        how = reproduce("prepare@one", made.folder, ProcessGroups(), lines.append)
        assert how == ("ran" if text == "second" else "restored")


def test_what_dvc_refuses_is_told(toy: Callable[..., Toy]) -> None:
    made = toy("one")
    with pytest.raises(StageFailed, match="nonsense") as failure:
        reproduce("nonsense", made.folder, ProcessGroups(), print)
    assert failure.value.cause == "command"


def test_nothing_starts_once_all_was_killed(toy: Callable[..., Toy]) -> None:
    made = toy("one")
    groups = ProcessGroups()
    groups.kill_all()
    with pytest.raises(StageFailed) as failure:
        reproduce("prepare@one", made.folder, groups, print)
    assert failure.value.cause == "stopped"
    assert not made.events()
