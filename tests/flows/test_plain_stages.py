"""The stages of one job without DVC: which are run again once something was learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from act.artifacts import read_json
from act.errors import USER_ERROR_EXIT_CODE, InputError
from flows import plain_stages
from flows.record import path_of

STAGES = plain_stages.commands("mine")
LATER = list(STAGES)[list(STAGES).index("select") + 1 :]


@pytest.mark.parametrize("chosen", [b"the same", b"another"])
def test_what_was_carried_out_is_not_carried_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bytes
) -> None:
    strategy = tmp_path / "artifacts" / "mine" / "select" / "strategy.json"
    strategy.parent.mkdir(parents=True)
    strategy.write_bytes(b"the same")
    ran: list[str] = []

    def run(command: list[str], *_: object) -> tuple[list[str], int]:
        ran.append(next(name for name, each in STAGES.items() if each == command))
        strategy.write_bytes(chosen)
        return [], 0

    monkeypatch.setattr(plain_stages, "_run", run)
    plain_stages.run_again("mine", tmp_path, lambda line: None)
    names = list(STAGES)
    assert ran == (["select", "report"] if chosen == b"the same" else names[names.index("select") :])
    assert names[-1] == "report"
    outcomes = {row["name"]: row["outcome"] for row in read_json(tmp_path / path_of("mine"))["stages"]}
    assert outcomes == {name: "ran" if name in ran else "cached" for name in names}


def test_what_failed_is_noted_and_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *_: object) -> tuple[list[str], int]:
        return ["error: params.yaml: no such job"], USER_ERROR_EXIT_CODE if command == STAGES["analyze"] else 0

    monkeypatch.setattr(plain_stages, "_run", run)
    with pytest.raises(InputError, match="^params.yaml: no such job$"):
        plain_stages.run("mine", tmp_path, lambda line: None)
    rows = read_json(tmp_path / path_of("mine"))["stages"]
    assert [row["outcome"] for row in rows] == ["ran", "failed", *["waiting"] * (len(STAGES) - 2)]
    assert [row["seconds"] is not None for row in rows[:2]] == [True, False]


def test_what_an_earlier_strategy_made_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "artifacts" / "mine"
    strategy, pruned, deployed = made / "select" / "strategy.json", made / "prune" / "x", tmp_path / "deploy/mine/y"
    chosen = iter(["first", "second", "first", "third"])
    ran: list[str] = []

    def run(command: list[str], *_: object) -> tuple[list[str], int]:
        ran.append(next(name for name, each in STAGES.items() if each == command))
        if ran[-1] == "select":
            put(strategy, next(chosen))
        if ran[-1] == "prune":
            put(pruned, strategy.read_text())
        if ran[-1] == "report":
            put(deployed, strategy.read_text())
        return [], 0

    def put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(plain_stages, "_run", run)
    plain_stages.run("mine", tmp_path, lambda line: None)
    for stages in (LATER, ["report"], LATER):
        ran.clear()
        plain_stages.run_again("mine", tmp_path, lambda line: None)
        assert ran == ["select", *stages]
        assert pruned.read_text() == deployed.read_text() == strategy.read_text()
