"""The whole chain on the classifier: what it leaves behind, and what a rerun, a change and a kill do."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.workspace import JOB, Workspace

MACHINE = f"machine@{JOB}"
STAGES = [
    "prepare",
    "analyze",
    "select",
    "prune",
    "calibrate",
    "ptq_search",
    "refine",
    "plan",
    "qat",
    "export",
    "benchmark",
    "report",
]


def outcomes(workspace: Workspace) -> dict[str, str]:
    stages = workspace.read(f"artifacts/flow/{JOB}.json")["stages"]
    return {stage["name"].split("@")[0]: stage["outcome"] for stage in stages}


def model_files(folder: Path) -> dict[str, str]:
    """Checksum of every model file, calibration table and scheme below a folder."""
    wanted = (".pdmodel", ".pdiparams", ".onnx", ".txt")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in wanted or path.parent.name == "schemes"
    }


def test_the_flow_leaves_the_documented_result(compressed: Workspace) -> None:
    deploy = compressed.folder / "deploy" / JOB
    for name in ("model.pdmodel", "model.pdiparams", "calibration_table.txt", "quant_model.onnx", "report.html"):
        assert (deploy / name).stat().st_size > 0
    manifest = compressed.read(f"deploy/{JOB}/manifest.json")
    assert manifest["schema_version"] == 1
    assert manifest["job"] == JOB
    assert set(outcomes(compressed)) == {"machine", *STAGES}


def test_int8_files_are_about_a_quarter(compressed: Workspace) -> None:
    export = compressed.folder / "artifacts" / JOB / "export"
    int8_folder = export / compressed.read(f"artifacts/{JOB}/export/candidates.json")["deploy"]
    for name in ("model.pdiparams", "onnx"):
        fp32 = export / "fp32" / ("model.onnx" if name == "onnx" else name)
        int8 = int8_folder / ("quant_model.onnx" if name == "onnx" else name)
        assert int8.stat().st_size < 0.45 * fp32.stat().st_size  # half a MB: names and shapes weigh, too


def test_every_trial_is_kept_and_the_best_go_on(compressed: Workspace) -> None:
    found = compressed.read(f"artifacts/{JOB}/ptq_search/trials.json")
    assert len(found["trials"]) == 6
    assert sum(found["importance"].values()) == pytest.approx(1) or not any(found["importance"].values())
    assert len(found["sensitivity"]) > 40
    candidates = compressed.read(f"artifacts/{JOB}/ptq_search/candidates.json")["candidates"]
    assert set(found["front"]) <= {candidate["trial"] for candidate in candidates}
    best = max(trial["quality"] for trial in found["trials"] if trial["failure"] is None)
    assert candidates[0]["quality"] == best
    keep = compressed.read(f"artifacts/{JOB}/plan/plan.json")["keep"]
    exported = compressed.read(f"artifacts/{JOB}/export/candidates.json")["candidates"]
    assert sorted(entry["name"] for entry in exported if entry["precision"] == "int8") == sorted(keep)
    assert not list((compressed.folder / "artifacts" / JOB / ".ptq_search_checkpoint").glob("*"))


def test_the_calibration_table_names_tensors_and_thresholds(compressed: Workspace) -> None:
    lines = (compressed.folder / "deploy" / JOB / "calibration_table.txt").read_text().splitlines()
    assert len(lines) > 20
    for line in lines:
        _, scale = line.split(" ")
        assert float(scale) > 0


def test_the_checkout_stays_clean_but_for_the_lock(compressed: Workspace) -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=compressed.folder, check=True, capture_output=True, text=True
    ).stdout
    assert {line[3:] for line in status.splitlines()} <= {"dvc.lock", "params.yaml"}


def test_a_rerun_does_no_work(compressed: Workspace) -> None:
    done = compressed.run("-m", "dvc", "repro")
    assert re.findall("Running stage '(.*)'", done.stdout) == [MACHINE], "which writes the same bytes"
    done = compressed.run("-m", "flows.compress", "--job", JOB)
    assert done.returncode == 0
    assert set(outcomes(compressed).values()) == {"cached"}


@pytest.mark.parametrize("module", ["reporting/page.py", "training/loop.py", "engines/process.py"])
def test_a_comment_makes_stale_only_what_its_room_makes(compressed: Workspace, module: str) -> None:
    """What `dvc.yaml` says; tests/test_house.py holds that against the imports, for every module."""
    file = compressed.folder / "act" / module
    described = yaml.safe_load((compressed.folder / "dvc.yaml").read_text())["stages"]
    places = {f"act/{module.split('/')[0]}", f"act/{module}"}
    expected = {f"{stage}@{JOB}" for stage in STAGES if places & set(described[stage]["do"]["deps"])}
    before = file.read_bytes()
    try:
        file.write_bytes(before + b"# A comment.\n")
        assert compressed.stale() == {MACHINE, *expected}
    finally:
        file.write_bytes(before)


def test_another_machine_measures_anew_and_the_same_one_does_not(compressed: Workspace) -> None:
    with changed(compressed, "machine.json"):
        timed = {f"{stage}@{JOB}" for stage in ("analyze", "select", "benchmark")}
        assert compressed.stale() == {MACHINE, *timed}, "and not `prune`, which takes nothing out"
    with changed(compressed, "prune_machine.json"):
        assert f"prune@{JOB}" in compressed.stale()


@contextmanager
def changed(workspace: Workspace, name: str) -> Iterator[None]:
    """Let an artefact of the job end in an empty line meanwhile."""
    file = workspace.folder / "artifacts" / JOB / name
    before = file.read_bytes()
    file.unlink()  # it may be a link into DVC's cache
    file.write_bytes(before + b"\n")
    try:
        yield
    finally:
        file.unlink()
        file.write_bytes(before)


def test_dvc_shows_metrics_and_plots(compressed: Workspace, tmp_path: Path) -> None:
    done = compressed.run("-m", "dvc", "metrics", "show")
    assert done.returncode == 0 and "speedup" in done.stdout
    done = compressed.run("-m", "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plots" / "index.html").is_file()


def test_a_change_redoes_only_what_it_touches(compressed: Workspace) -> None:
    # Another figure that changes no decision: less than one sample's share of the quality.
    compressed.change(f"jobs.{JOB}.budget.max_quality_drop", 0.0101)
    try:
        done = compressed.run("-m", "flows.compress", "--job", JOB)
        assert done.returncode == 0, done.stdout + done.stderr
        ran = {name for name, outcome in outcomes(compressed).items() if outcome == "ran"}
        assert {"select", "report"} <= ran
        assert not ran & {"prepare", "analyze", "calibrate", "ptq_search", "export", "benchmark"}

        compressed.change(f"jobs.{JOB}.ptq_search.max_quant_count", 5)
        stale = {name.split("@")[0] for name in compressed.stale()}
        assert "ptq_search" in stale
        assert not stale & {"prepare", "analyze", "calibrate"}
    finally:
        compressed.change(f"jobs.{JOB}.budget.max_quality_drop", 0.01)
        compressed.change(f"jobs.{JOB}.ptq_search.max_quant_count", 6)


def test_a_killed_run_is_finished_by_the_next_with_the_same_bytes(compressed: Workspace, tmp_path: Path) -> None:
    other = compressed.copy(tmp_path / "other")
    other.forget(STAGES[STAGES.index("ptq_search") :])
    artifacts = other.folder / "artifacts" / JOB
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", f"export@{JOB}"],
        cwd=other.folder,
        env=other.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 400
    while not list(artifacts.glob(".ptq_search.partial-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = other.run("-m", "dvc", "repro", f"export@{JOB}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'prepare@" in done.stdout and "Running stage 'prepare@" not in done.stdout
    first, second = (model_files(w.folder / "artifacts" / JOB) for w in (compressed, other))
    assert len(first) > 8
    assert first == second


# Runs the stages named on stdin, and writes how each ended. In the place of `act.artifacts.replace_folder` stands one
# that dies as a kill before the end of the block would make it die. Each is a fork, which spares it Paddle's import.
KILLED_WHILE_WRITING = """
import contextlib, os, runpy, signal, sys
from act import artifacts

replace_folder = artifacts.replace_folder

@contextlib.contextmanager
def die(final):
    with replace_folder(final) as folder:
        (folder / "begun").write_text("{", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)
        yield folder

artifacts.replace_folder = die
import act.program.paddle_setup
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        sys.argv = [line, "--job", sys.argv[1]]
        try:
            runpy.run_module("tasks." + line.strip(), run_name="__main__")
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed(compressed: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], int]]:
    """Give what runs a stage that is killed while it writes, and returns how it ended."""
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, JOB]
    log = tmp_path_factory.mktemp("killed") / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            cwd=compressed.folder,
            env=compressed.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        lines, answers = process.stdin, process.stdout

        def run(stage: str) -> int:
            print(stage, file=lines, flush=True)
            answer = answers.readline()
            assert answer, log.read_text()
            return int(answer)

        yield run
        lines.close()


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_leaves_nothing_that_looks_whole(
    compressed: Workspace, killed: Callable[[str], int], stage: str
) -> None:
    artifacts = compressed.folder / "artifacts" / JOB
    deployed = model_files(compressed.folder / "deploy")
    kept = (artifacts / stage).rename(artifacts / f"kept-{stage}")

    def partial() -> list[Path]:
        """What is half written: of `report`, the deploy folder comes first."""
        return [*artifacts.glob(f".{stage}.partial-*"), *(compressed.folder / "deploy").glob(f".{JOB}.partial-*")]

    try:
        assert killed(stage) == -signal.SIGKILL
        assert not (artifacts / stage).exists()
        assert partial()
        assert model_files(compressed.folder / "deploy") == deployed
    finally:
        for folder in partial():
            shutil.rmtree(folder)
        kept.rename(artifacts / stage)
