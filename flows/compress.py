"""The Prefect flow: every stage of the chosen jobs as a task, in the order and with the caching that DVC knows.

`python -m flows.compress --job NAME` runs it without any server. It ends with code 0 when all is up to date, 2 when
the user's input is wrong (one line says what), 1 when a stage failed.
"""

# Prefect and DVC read their settings when they are imported.
# ruff: noqa: E402
from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flows import environment

environment.prepare()

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from act.artifacts import DEPLOY_ROOT, read_json
from act.errors import USER_ERROR_EXIT_CODE, InputError
from act.params import DEFAULT_PATH, Params, load
from flows.graph import Stage, jobs_of, read_stages
from flows.record import Record, path_of
from flows.run_stage import StageFailed, kill_all, run_stage
from flows.turnstile import Turnstile

RETRIES = 1
RETRY_DELAY_SECONDS = 3
MOST_STAGES_OF_A_RUN = 256


class CompressionFailed(Exception):
    """One or more stages failed.

    Attributes:
        user_error: whether every failure is the input's fault.
    """

    def __init__(self, failures: Sequence[StageFailed]) -> None:
        super().__init__("; ".join(str(failure) for failure in failures))
        self.user_error = all(failure.user_error for failure in failures)


class _Run:
    """What the tasks of one flow run share."""

    def __init__(self, stages: Sequence[Stage], limit: int) -> None:
        self.stages = stages
        self.turnstile = Turnstile(limit)
        self.records = {job: Record(job, [s for s in stages if s.job == job]) for job in jobs_of(stages)}
        self.outcomes: dict[str, str] = {}
        self.failures: dict[str, StageFailed] = {}
        self.emit: Callable[[str], None] = _print

    def needs_work(self, stage: Stage) -> bool:
        """Whether DVC must be asked: something before the stage ran, or its own inputs have changed."""
        return stage.stale or any(self.outcomes.get(name) == "ran" for name in stage.needs)


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try makes sense: never after a mistake of the user's."""
    error = state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
    return not (isinstance(error, StageFailed) and error.user_error)


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_SECONDS,
    retry_condition_fn=_may_pass,
)
def _stage(stage: Stage, run: _Run) -> State[Any]:
    """Bring one stage up to date."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = run.records[stage.job]
    number = f"[{run.stages.index(stage) + 1}/{len(run.stages)}]"
    if not run.needs_work(stage):
        run.emit(f"{number} {stage.name}: cached")
        run.outcomes[stage.name] = "cached"
        record.finish(stage.name, "cached", None, started)
        return Completed(name="Cached", message="DVC finds it unchanged")
    with run.turnstile.admit(stage.kind):
        run.emit(f"{number} {stage.name} ...")
        try:
            ran = run_stage(stage.name, Path.cwd(), lambda line: run.emit(f"  {stage.name} | {line}"))
        except StageFailed as failure:
            run.failures[stage.name] = failure
            record.finish(stage.name, "failed", None, started)
            raise
    run.failures.pop(stage.name, None)
    run.outcomes[stage.name] = ran.outcome
    record.finish(stage.name, ran.outcome, ran.seconds if ran.outcome == "ran" else None, started)
    run.emit(f"  {stage.name}: {'done' if ran.outcome == 'ran' else 'cached'} in {ran.seconds:.1f} s")
    return Completed(name="Completed" if ran.outcome == "ran" else "Cached")


_THREADS: TaskRunner[PrefectFuture[Any]] = ThreadPoolTaskRunner(max_workers=MOST_STAGES_OF_A_RUN)  # type: ignore[assignment]


@flow(name="compress", task_runner=_THREADS)
def compress(jobs: list[str], limit: int = 2) -> dict[str, str]:
    """Bring every stage of the jobs up to date.

    Args:
        jobs: names under `jobs` in params.yaml.
        limit: how many stages may run at the same time.

    Returns:
        The path of each job's manifest.

    Raises:
        InputError: the settings are wrong, or a job is unknown.
        CompressionFailed: a stage failed.
    """
    check(load(), jobs)
    with ExitStack() as stack:
        for job in sorted(set(jobs)):
            stack.enter_context(_only_one(job))
        run = _Run(read_stages(Path.cwd(), jobs), limit)
        if environment.has_server():
            run.emit = get_run_logger().info
        futures: dict[str, PrefectFuture[Any]] = {}
        for stage in run.stages:
            needed = [futures[name] for name in stage.needs]
            futures[stage.name] = _stage.submit(stage, run, return_state=False, wait_for=needed)
        for future in futures.values():
            future.wait()
        if environment.has_server():
            _publish(run)
        if run.failures:
            raise CompressionFailed(list(run.failures.values()))
    return {job: str(DEPLOY_ROOT / job / "manifest.json") for job in jobs}


def check(params: Params, jobs: Sequence[str]) -> None:
    """Refuse jobs that cannot start.

    Raises:
        InputError: no or an unknown job, or a path of a job that does not exist.
    """
    if not jobs:
        raise InputError(f"{DEFAULT_PATH}: no job named; there are: {', '.join(params.jobs)}")
    for name in jobs:
        if name not in params.jobs:
            raise InputError(
                f"{DEFAULT_PATH}: there is no job `{name}` under `jobs`; there are: {', '.join(params.jobs)}"
            )
        job = params.jobs[name]
        for key, path in (("model.path", job.model.path), ("data.path", job.data.path)):
            if not Path(path).exists():
                raise InputError(
                    f"{DEFAULT_PATH}: `jobs.{name}.{key}` is {path!r}, which does not exist; correct the path"
                )


@contextmanager
def _only_one(job: str) -> Iterator[None]:
    """Keep a second flow away from a job: DVC would fail in the middle of it.

    Raises:
        InputError: another flow is at work on the job.
    """
    path = path_of(job).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another flow is at work on job `{job}` in this checkout; wait for its end") from None
        yield


def _publish(run: _Run) -> None:
    """Show the result as artifacts on the Prefect server."""
    for job, record in run.records.items():
        rows = "\n".join(
            f"| {row.name} | {row.outcome} | {'' if row.seconds is None else f'{row.seconds:.1f}'} |"
            for row in record.rows.values()
        )
        create_markdown_artifact(
            key=f"compress-{job.lower().replace('_', '-')}",
            markdown=f"# {job}\n\n{summary(job)}\n\n| stage | outcome | seconds |\n| --- | --- | --- |\n{rows}\n",
            description="winner and stages",
        )


def summary(job: str) -> str:
    """One sentence on the winner, or that there is none yet."""
    try:
        manifest = read_json(DEPLOY_ROOT / job / "manifest.json")
        winner = manifest["winner"]
        return (
            f"{winner['name']} on {winner['engine']}: {winner['latency_ms']:.2f} ms, "
            f"{winner['speedup']['value']:.2f} times as fast as fp32, quality {winner['quality']:.4f} "
            f"(fp32 {winner['fp32_quality']:.4f})"
        )
    except (InputError, KeyError, TypeError):
        return "no result yet"


def _print(line: str) -> None:
    print(line, flush=True)


def _show_table(job: str) -> None:
    variants = read_json(DEPLOY_ROOT / job / "manifest.json")["variants"]
    print(f"\n{job}\n  {'engine':17} {'variant':20} {'latency':>10} {'speed-up':>9} {'quality':>8}  inside the budget")
    for variant in variants:
        label = f"  {variant['engine']:17} {variant['name']:20}"
        if variant["failure"] is not None:
            print(f"{label} {variant['failure']['kind']}: {variant['failure']['cause']}")
        else:
            print(
                f"{label} {variant['latency']['median_ms']:7.2f} ms {variant['speedup']['value']:8.2f}x "
                f"{variant['quality']['value']:8.4f}  {'yes' if variant['inside_budget'] else 'no'}"
            )


def _make_database() -> None:
    """A fresh database made by Prefect's own command is ready sooner than one that the first flow has to make."""
    home = Path(os.environ["PREFECT_HOME"])
    if environment.has_server() or (home / "prefect.db").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _end_at_once(number: int, _: object) -> None:
    """Leave no stage running behind: its process group would live on."""
    kill_all()
    print(f"stopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
    os._exit(128 + number)


def main() -> int:
    """Parse the command line, run the flow, and tell where the results are."""
    parser = argparse.ArgumentParser(prog="python -m flows.compress", description="Compress the models of some jobs.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", action="append", help="a job in params.yaml; may be given several times")
    which.add_argument("--all", action="store_true", help="all jobs")
    parser.add_argument("--limit", type=int, default=2, help="how many stages may run at the same time (default: 2)")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        params = load()
        jobs = list(params.jobs) if arguments.all else arguments.job
        check(params, jobs)
        if arguments.limit < 1:
            raise InputError("--limit must be at least 1")
        _make_database()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end_at_once)
        compress(jobs, limit=arguments.limit)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    except CompressionFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE if error.user_error else 1
    for job in jobs:
        _show_table(job)
        print(f"winner: {summary(job)}")
        print(f"manifest: {DEPLOY_ROOT / job / 'manifest.json'}")
        print(f"report:   {DEPLOY_ROOT / job / 'report.html'}")
    print(f"done in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
