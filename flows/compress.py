"""The Prefect flow: every stage of the chosen jobs as a task, in the order and with the caching that DVC knows.

`python -m flows.compress --job NAME` runs it without any server. It ends with code 0 when all is up to date, 2 when
the user's input is wrong (one line says what), 1 when a stage failed.
"""

# Prefect and DVC read their settings when they are imported.
# ruff: noqa: E402
import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from flows import environment

environment.prepare()

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from act.errors import USER_ERROR_EXIT_CODE, InputError
from act.results.flow import Outcome
from act.settings import DEFAULT_PATH, load_job
from act.strategy import attempts
from flows import act_config, result
from flows.check_jobs import check_jobs
from flows.graph import Stage, needed_by, read_stages
from flows.record import Record, path_of
from flows.stages import ProcessGroups, StageFailed, Turnstile, reproduce
from tasks.ptq_search.cluster import ALLOWED, TRIALS_ON, Cluster
from tasks.ptq_search.server import refuse_unreachable, temporary_server
from tasks.select.learn import has_learned

# These start inference engines or train, and so depend on what else the machine does; the others only read and write.
MAY_FAIL_IN_PASSING = ("analyze", "prune", "ptq_search", "refine", "qat", "export", "benchmark")
DEFAULT_LIMIT = 2
MOST_STAGES_OF_A_RUN = 256


class CompressionFailed(Exception):
    """One or more stages failed."""


class _Run:
    """The state that the tasks of one flow run share."""

    def __init__(self, stages: Sequence[Stage], jobs: Sequence[str], limit: int, locks: Sequence[int]) -> None:
        self.stages = stages
        self.turnstile = Turnstile(limit)
        # A stage that uses Prefect itself must find the server of this very run.
        server = PREFECT_API_URL.value()
        self.groups = ProcessGroups(locks, {PREFECT_API_URL.name: server} if server else {})
        self.records = {job: Record(job, needed_by(job, stages)) for job in jobs}
        self.touched: set[str] = set()
        self.failures: dict[str, StageFailed] = {}
        self.emit = _emitter()

    def finish(self, stage: str, outcome: Outcome, seconds: float | None = None) -> None:
        """Note how a stage ended, for each job that needs it."""
        for record in self.records.values():
            if stage in record.rows:
                record.finish(stage, outcome, seconds)


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether another try makes sense: never after a mistake of the user's."""
    error = state.data
    if not isinstance(error, StageFailed):
        return False
    kind = error.stage.partition("@")[0]
    return error.cause == "outside" or (error.cause == "command" and kind in MAY_FAIL_IN_PASSING)


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    retries=1,
    retry_delay_seconds=3,
    retry_condition_fn=_may_pass,
)
def _stage(stage: Stage, run: _Run) -> State[Any]:
    """Bring one stage up to date."""
    name, how, seconds = stage.name, "unchanged", 0.0
    label = f"[{run.stages.index(stage) + 1}/{len(run.stages)}] {name}"
    if stage.stale or not run.touched.isdisjoint(stage.needs):
        with run.turnstile.admit(stage.kind):
            before = run.failures.pop(name, None)
            run.emit(f"{label} ..." + (f" once more, because {before.message}" if before else ""))
            label = f"  {name}"
            began = time.monotonic()
            try:
                how = reproduce(name, Path.cwd(), run.groups, lambda line: run.emit(f"{label} | {line}"))
            except StageFailed as failure:
                run.failures[name] = failure
                run.finish(name, "failed")
                raise
            seconds = time.monotonic() - began
    if how != "unchanged":
        run.touched.add(name)
    ran = how == "ran"
    run.finish(name, "ran" if ran else "cached", seconds if ran else None)
    run.emit(f"{label}: done in {seconds:.1f} s" if ran else f"{label}: cached")
    return Completed() if ran else Completed(name="Cached", message=f"DVC finds it {how}")


_THREADS: TaskRunner[PrefectFuture[Any]] = ThreadPoolTaskRunner(max_workers=MOST_STAGES_OF_A_RUN)  # type: ignore[assignment]


@flow(name="compress", task_runner=_THREADS)
def compress(jobs: list[str], limit: int = DEFAULT_LIMIT) -> dict[str, str]:
    """Bring every stage of the jobs up to date; where a budget is missed, try the strategies that could still meet it.

    Args:
        jobs: names under `jobs` in params.yaml.
        limit: how many stages may run at the same time.

    Returns:
        The path of each job's manifest.

    Raises:
        InputError: the settings are wrong, a job is unknown, or what failed is the input's fault alone.
        CompressionFailed: a stage failed.
    """
    jobs = check_jobs(jobs, limit)
    attempts.make_files(jobs)
    with ExitStack() as stack:
        locks = [stack.enter_context(_only_one(job)) for job in sorted(jobs)]
        ahead = jobs
        while ahead:
            _bring_up_to_date(ahead, limit, locks)
            ahead = [job for job in ahead if has_learned(job, load_job(job), _emitter())]
    return {job: str(result.manifest_of(job)) for job in jobs}


def _bring_up_to_date(jobs: Sequence[str], limit: int, locks: Sequence[int]) -> None:
    """Run every stage that is stale, tell how each job ended, and raise what failed."""
    run = _Run(read_stages(Path.cwd(), jobs), jobs, limit, locks)
    try:
        futures: dict[str, PrefectFuture[Any]] = {}
        for stage in run.stages:
            needed = [futures[name] for name in stage.needs]
            futures[stage.name] = _stage.submit(stage, run, return_state=False, wait_for=needed)
        for future in futures.values():
            future.wait()
    finally:
        # Nothing is left to kill unless the flow was cancelled or stopped by a signal.
        run.groups.kill_all()
    for job in jobs:
        shown = result.lines(job, run.records[job])
        for line in shown:
            run.emit(line)
        if environment.has_server():
            result.publish(job, shown)
    if failures := run.failures.values():
        is_users = all(failure.cause == "input" for failure in failures)
        raise (InputError if is_users else CompressionFailed)("; ".join(map(str, failures)))


@contextmanager
def _only_one(job: str) -> Iterator[int]:
    """Refuse a second flow on a job, where DVC would fail in the middle of it; give the lock's descriptor."""
    path = path_of(job).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another flow is at work on job `{job}` in this checkout, or a stage that a killed flow left behind; "
                "wait for its end"
            ) from None
        yield file.fileno()


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add `--limit` and `--trials-on`, which say how the stages run."""
    parser.add_argument(
        "--limit", type=int, default=DEFAULT_LIMIT, help="how many stages may run at once (default: %(default)s)"
    )
    parser.add_argument("--trials-on", metavar="CLUSTER", help=f"where the search's trials run: {ALLOWED}")


def choose_cluster(trials_on: str | None) -> None:
    """Set where the trials of this process's stages run, if `--trials-on` is given; refuse what is of no known form."""
    if trials_on is not None:
        os.environ[TRIALS_ON] = str(Cluster.parse(trials_on, "--trials-on"))
    Cluster.from_environment()


def _emitter() -> Callable[[str], None]:
    """Return what takes a line of the flow's output: Prefect's logger where the user has a server, else stdout."""
    return get_run_logger().info if environment.has_server() else partial(print, flush=True)


def _leave(number: int, _: object) -> NoReturn:
    """End by way of every `finally`, before and after the flow, where Prefect does not catch the signal itself."""
    raise TerminationSignal(number)


def main() -> int:
    """Parse the command line, run the flow, and tell where the results are."""
    parser = argparse.ArgumentParser(prog="python -m flows.compress", description="Compress the models of some jobs.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", action="append", help="a job in params.yaml; may be given several times")
    which.add_argument("--all", action="store_true", help="all jobs")
    parser.add_argument(
        "--act-config",
        type=Path,
        metavar="FILE",
        help="first write what this ACT configuration says into the job's entry",
    )
    add_run_options(parser)
    arguments = parser.parse_args()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    try:
        if arguments.act_config is not None:
            if len(arguments.job or []) != 1:
                raise InputError("--act-config: name the one job that the file is for, with --job")
            [job] = arguments.job
            for change in act_config.write(job, act_config.entry_of(arguments.act_config, job, {})):
                print(f"{DEFAULT_PATH}: {change}")
        jobs = check_jobs(arguments.job, arguments.limit)
        choose_cluster(arguments.trials_on)
        with ExitStack() as stack:
            if environment.has_server():
                refuse_unreachable(os.environ["PREFECT_API_URL"])
            else:
                address = stack.enter_context(temporary_server(Path(os.environ["PREFECT_HOME"])))
                stack.enter_context(temporary_settings({PREFECT_API_URL: address}))
            compress(jobs, limit=arguments.limit)
    except (InputError, CompressionFailed, OSError) as error:
        # OSError: the disk is full, a file may not be written, the temporary server did not start.
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE if isinstance(error, InputError) else 1
    except (KeyboardInterrupt, TerminationSignal) as stop:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        print(f"error: stopped by {number.name}", file=sys.stderr)
        return 128 + number
    print(f"done in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
