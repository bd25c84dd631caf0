"""The flow on toy pipelines: order, caching, failures, signals, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from act.errors import InputError
from flows.graph import read_stages
from tasks.ptq_search.server import temporary_server
from tests.support.commands import run_module
from tests.support.toy import GRAPH, Toy

Maker = Callable[..., Toy]


@pytest.fixture(scope="module")
def server(prefect_home: Path) -> Iterator[str]:
    """Give the address of a server of the user's, for runs that are not about one of their own."""
    with temporary_server(prefect_home) as address:
        yield address


def test_first_run_rerun_and_change(toy: Maker, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy("one")
    made.tell(
        {"select@one": {"seconds": 1, "meets": "export@one"}, "export@one": {"seconds": 1, "meets": "select@one"}}
    )

    done = made.run("--job", "one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(made.outcomes("one").values()) == {"ran"}
    spans = made.spans()
    for stage, needs in GRAPH.items():
        for need in needs:
            assert spans[f"{need}@one"][1] <= spans[f"{stage}@one"][0]
    select, export = spans["select@one"], spans["export@one"]
    assert min(select[1], export[1]) > max(select[0], export[0]), "independent stages run at the same time"
    assert "select@one | select@one at work" in done.stdout
    record = made.record("one")
    assert record["schema_version"] == 1
    seconds = {row["name"]: row["seconds"] for row in record["stages"]}
    assert seconds["select@one"] > 1

    monkeypatch.setenv("PREFECT_API_URL", server)
    rerun_and_change(made, seconds)

    clean = subprocess.run(
        ["git", "status", "--porcelain"], cwd=made.folder, check=True, capture_output=True, text=True
    )
    assert "artifacts" not in clean.stdout and ".prefect" not in clean.stdout


def rerun_and_change(made: Toy, seconds: dict[str, float]) -> None:
    done = made.run("--job", "one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(made.outcomes("one").values()) == {"cached"}
    assert {row["name"]: row["seconds"] for row in made.record("one")["stages"]} == seconds
    assert len(made.events()) == 2 * len(GRAPH), "no stage was started again"

    # `prepare` gives a new result; what comes after it gives the old ones and so is not passed on.
    (made.folder / "inputs" / "one.txt").write_text("second")
    assert made.run("--job", "one").returncode == 0
    assert made.outcomes("one") == {
        "prepare@one": "ran",
        "select@one": "ran",
        "export@one": "ran",
        "analyze@one": "cached",
        "report@one": "cached",
    }

    # DVC restores what it knows, and the stages after it must see it.
    (made.folder / "inputs" / "one.txt").write_text("first")
    assert made.run("--job", "one").returncode == 0
    assert set(made.outcomes("one").values()) == {"cached"}
    assert (made.folder / "artifacts" / "one" / "prepare" / "result").read_text() == "first"
    locked = yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]
    assert locked["select@one"]["deps"][0]["md5"] == locked["prepare@one"]["outs"][0]["md5"]


def test_two_jobs_with_a_mistake_in_one_and_a_stage_that_fails_in_passing(toy: Maker) -> None:
    made = toy("one", "two")
    mistake = {"exit": 2, "say": "error: params.yaml: `jobs.one.budget` is a joke"}
    made.tell({"select@one": mistake, "export@two": {"kill_self_once": True}})
    done = made.run("--all")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: select@one: params.yaml: `jobs.one.budget` is a joke"
    assert set(made.outcomes("two").values()) == {"ran"}
    outcomes = made.outcomes("one")
    assert outcomes["select@one"] == "failed"
    assert outcomes["analyze@one"] == outcomes["report@one"] == "waiting"
    assert outcomes["export@one"] == "ran"
    tries = [event.stage for event in made.events() if event.what == "begin"]
    assert tries.count("select@one") == 1, "the user's mistake is not tried again"
    assert tries.count("export@two") == 2
    assert "export@two ... once more, because its command was killed by SIGKILL" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_running(toy: Maker, number: signal.Signals) -> None:
    made = toy("one")
    made.tell({"prepare@one": {"child": True, "seconds": 60}})
    process = made.start("--job", "one")
    child = _child_of_a_stage(made)
    descendants = psutil.Process(process.pid).children(recursive=True)
    # As a terminal does on Ctrl-C: the whole foreground group.
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=45)  # a hang, not a timing: its stage sleeps for longer
    assert process.returncode == 128 + number
    assert err.strip() == f"error: stopped by {number.name}"
    gone, alive = psutil.wait_procs([*descendants, child], timeout=30)
    assert len(gone) >= 3 and not alive


def test_a_killed_flow_keeps_its_lock_until_its_stage_ends(
    toy: Maker, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy("one")
    made.tell({"prepare@one": {"child": True, "seconds": 60}})
    process = made.start("--job", "one")
    child = _child_of_a_stage(made)
    descendants = psutil.Process(process.pid).children(recursive=True)
    temporary = [one for one in descendants if "uvicorn" in one.cmdline()]
    try:
        process.kill()
        process.communicate(timeout=30)
        assert temporary and not psutil.wait_procs(temporary, timeout=30)[1], "the temporary server ends with the flow"
        done = made.run("--job", "one")
        assert done.returncode == 2
        assert done.stderr.startswith("error: another flow is at work on job `one`")
    finally:
        for one in (*descendants, child):
            try:
                one.kill()
            except psutil.NoSuchProcess:
                pass
    made.tell({})
    monkeypatch.setenv("PREFECT_API_URL", server)
    done = made.run("--job", "one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(made.outcomes("one").values()) == {"ran"}


def test_wrong_input_is_told_before_any_work(toy: Maker) -> None:
    made = toy("one", "two")
    params = yaml.safe_load((made.folder / "params.yaml").read_text())
    missing = {**params["jobs"]["two"], "model": {"path": "no/such"}}
    misspelt = {**missing, "budget": {"max_quality_dorp": 0.5}}
    for two, arguments, words in (
        (missing, ["--job", "three"], ["no job `three`", "one, two"]),
        (missing, ["--job", "one", "--limit", "0"], ["--limit", "1"]),
        (missing, ["--job", "two"], ["jobs.two.model.path", "no/such"]),
        (misspelt, ["--job", "two"], ["`jobs.two.budget.max_quality_dorp`"]),
    ):
        params["jobs"]["two"] = two
        (made.folder / "params.yaml").write_text(yaml.safe_dump(params))
        done = run_module("flows.compress", arguments, made.folder)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
        assert all(word in done.stderr for word in words)
    assert not made.events() and not (made.folder / "artifacts").exists()


def test_a_broken_pipeline_file_and_a_missing_source(toy: Maker, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "CRITICAL")
    made = toy("one")
    (made.folder / "inputs" / "one.txt").unlink()
    done = made.run("--job", "one")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: dvc.yaml: prepare@one needs inputs/one.txt, which does not exist"
    text = (made.folder / "dvc.yaml").read_text()
    (made.folder / "dvc.yaml").write_text(text.replace("foreach", "forech", 1))
    with pytest.raises(InputError, match=r"^dvc\.yaml: .*`dvc stage list` tells more") as error:
        read_stages(made.folder, ["one"])
    assert "\n" not in str(error.value)


def _child_of_a_stage(made: Toy) -> psutil.Process:
    deadline = time.monotonic() + 60
    file: Path = made.folder / "child.pid"
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return psutil.Process(int(file.read_text()))
