"""The stages of one job without DVC: which are run again once something was learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import plain_stages

STAGES = plain_stages.commands("mine")


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
