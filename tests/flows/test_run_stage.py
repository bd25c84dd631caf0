"""One stage through DVC: what its log tells of its end, and which failures are whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flows.run_stage import ProcessGroups, StageFailed, run_stage
from tests.flows.conftest import Toy


@pytest.mark.parametrize(
    ("orders", "cause", "message"),
    [
        ({"exit": 2, "say": "error: the model is cut short"}, "input", "the model is cut short"),
        (
            {"exit": 1, "say": "Traceback\nValueError: no good"},
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
        run_stage("prepare@one", made.folder, ProcessGroups(), lines.append)
    assert failure.value.cause == cause
    assert failure.value.message == message
    assert lines[0] == "prepare@one at work", "DVC's own chatter is left out"


def test_ends_well(toy: Callable[..., Toy]) -> None:
    made = toy("one")
    lines: list[str] = []
    assert run_stage("prepare@one", made.folder, ProcessGroups(), lines.append).how == "ran"
    assert run_stage("prepare@one", made.folder, ProcessGroups(), lines.append).how == "unchanged"
    assert lines == ["prepare@one at work"]


def test_nothing_starts_once_all_was_killed(toy: Callable[..., Toy]) -> None:
    made = toy("one")
    groups = ProcessGroups()
    groups.kill_all()
    with pytest.raises(StageFailed) as failure:
        run_stage("prepare@one", made.folder, groups, print)
    assert failure.value.cause == "stopped"
    assert not made.events()
