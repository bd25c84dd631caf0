"""A Dask or Ray cluster that runs trials, reached through Prefect's task runners.

This is the one place of `act` that knows Prefect, which is imported only when a cluster is asked for. It runs inside a
stage that a flow may have started, and so opens a small flow of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from act.errors import InputError
from act.search.cluster import TRIALS_ON, Cluster
from act.search.measure import Result, TrialJob, measure
from act.search.runners import Ended, Measure, Runner, TrialsLost
from act.search.server import temporary_server

CONNECT_SECONDS = 20
NO_WORKER_SECONDS = 30
_POLL_SECONDS = 0.1
# Until a result is here: on Ray that is how one looks whether there is one.
_RESULT_SECONDS = {"dask": 60.0, "ray": _POLL_SECONDS}
# What a worker needs beside the engine's own time: starting, importing, receiving the model.
_SLACK_SECONDS = 120
_DRAIN_SECONDS = 10
_STOP_SECONDS = 30

# Must stand in the environment before Prefect and Ray are imported: nothing calls out, and the console is the
# progress bar's.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class PrefectRunner(Runner):
    """A Dask or Ray cluster behind Prefect's task runner: each trial is a task run.

    One flow run lasts as long as the runner is open, in a thread of its own that takes rounds from the caller's.

    Args:
        cluster: which one.
        workers: how many trials may run at the same time, on a temporary cluster.
        threads: of a trial's engine.
        work: measures one trial; a function of a module, which the workers import.
    """

    def __init__(self, cluster: Cluster, workers: int, threads: int, work: Measure = measure) -> None:
        self.cluster = cluster
        self.workers = max(1, workers)
        self.threads = threads
        self.work = work
        self.rounds: queue.SimpleQueue[Sequence[TrialJob] | None] = queue.SimpleQueue()
        # A result with its place, None at the start of the flow and at the end of a round, or what went wrong.
        self.news: queue.SimpleQueue[tuple[int, Result] | BaseException | None] = queue.SimpleQueue()
        self.stopped = False
        # In the caller's context, where settings of Prefect may have been changed for a while.
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep_flow,), name="trials", daemon=True)

    def __enter__(self) -> Runner:
        self._thread.start()
        try:
            self._next()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def run(self, jobs: Sequence[TrialJob], ended: Ended = lambda _index, _result: None) -> list[Result]:
        if self.stopped:
            raise TrialsLost("an earlier failure has stopped this runner")
        results: dict[int, Result] = {}
        self.rounds.put(jobs)
        try:
            while (news := self._next()) is not None:
                index, results[index] = news
                ended(index, results[index])
        except BaseException:
            # What is still under way must not be taken for results of another round.
            self.stopped = True
            raise
        return [results[index] for index in range(len(jobs))]

    def _next(self) -> tuple[int, Result] | None:
        news = self.news.get()
        if isinstance(news, BaseException):
            raise news
        return news

    def _stop(self) -> None:
        self.stopped = True
        self.rounds.put(None)
        self._thread.join(_STOP_SECONDS)

    def _keep_flow(self) -> None:
        try:
            with ExitStack() as stack:
                stack.enter_context(_environment())
                task_runner = _task_runner(self)
                stack.enter_context(server_for(self.cluster))
                _RUNNER.set(self)
                from prefect import flow

                trials = flow(name="trials", task_runner=task_runner, persist_result=False, log_prints=False)(_trials)
                trials()
        except (InputError, TrialsLost) as error:
            self.news.put(error)
        except BaseException as error:
            self.news.put(_lost(self.cluster, error))


# The flow's parameters go to the server, and the flow itself to every worker: neither may hold the runner.
_RUNNER: ContextVar[PrefectRunner] = ContextVar("runner")


def _trials() -> None:
    """Run the rounds of the runner that opened this flow, until there are no more."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext

    runner = _RUNNER.get()
    trial = task(name="trial", cache_policy=NO_CACHE, persist_result=False, retries=0, log_prints=False)(runner.work)
    context = FlowRunContext.get()
    assert context is not None
    are_workers_left = _workers_left(runner, context.task_runner)
    runner.news.put(None)
    while (jobs := runner.rounds.get()) is not None:
        with _submitting(runner, context.task_runner):
            futures = {index: trial.submit(job) for index, job in enumerate(jobs)}
        deadline = time.monotonic() + sum(job.time_limit_seconds + _SLACK_SECONDS for job in jobs)
        for index, result in _as_they_end(runner, futures, deadline, are_workers_left):
            runner.news.put((index, result))
        runner.news.put(None)


def _as_they_end(
    runner: PrefectRunner, futures: Mapping[int, Any], deadline: float, are_workers_left: Callable[[], bool]
) -> Iterator[tuple[int, Result]]:
    """Give each result with its place as it comes.

    On Dask a future is asked for its result only when it has one: a wait that times out while the result is on its way
    makes all later ones fail (dask/distributed issue 8514).

    Raises:
        InputError, TrialsLost: as `Runner.run`.
    """
    pending, alive = dict(futures), time.monotonic()
    while pending:
        if runner.stopped:
            raise TrialsLost("the search was stopped")
        time.sleep(_POLL_SECONDS)
        for index, future in list(pending.items()):
            if runner.cluster.kind == "dask" and not future.wrapped_future.done():
                continue
            try:
                outcome = future.result(timeout=_RESULT_SECONDS[runner.cluster.kind], raise_on_failure=False)
            except TimeoutError:
                continue
            except Exception as error:
                # The cluster's own failures come this way, the trial's as an outcome.
                raise _lost(runner.cluster, error) from None
            if isinstance(outcome, BaseException):
                runner.news.put(outcome)
                raise outcome
            del pending[index]
            yield index, outcome
        now = time.monotonic()
        if are_workers_left():
            alive = now
        if now - alive > NO_WORKER_SECONDS or now > deadline:
            why = (
                "has no worker left (see their logs)"
                if now - alive > NO_WORKER_SECONDS
                else "did not end them in their time"
            )
            raise TrialsLost(f"{len(pending)} trials were lost: {runner.cluster} {why}; start workers and run again")


def _lost(cluster: Cluster, error: BaseException) -> TrialsLost:
    return TrialsLost(
        f"trials were lost on {cluster}: {type(error).__name__}: {' '.join(str(error).split())}; its workers must be "
        "alive, have this checkout on their PYTHONPATH, and reach the Prefect server"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """Set what Prefect, Ray and the workers that they start read, as long as the runner is open."""
    settings = {"PREFECT_HOME": str(Path.cwd() / ".prefect"), **os.environ, **_QUIET}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _task_runner(runner: PrefectRunner) -> Any:
    """Return Prefect's task runner for the cluster.

    Raises:
        InputError: its package is not installed.
    """
    cluster = runner.cluster
    package = f"prefect-{cluster.kind}"
    try:
        module = importlib.import_module(package.replace("-", "_"))
        importlib.import_module("distributed" if cluster.kind == "dask" else "ray")
    except ImportError as error:
        raise InputError(
            f"{TRIALS_ON} is {str(cluster)!r}, which needs the package `{package}`: {error}; install it, or leave the "
            "variable unset to run the trials here"
        ) from None
    if cluster.kind == "ray":
        return module.RayTaskRunner(address=cluster.address, init_kwargs=_ray_settings(runner))
    # Other libraries send what all loggers say to the console.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # A model larger than 10 MB is no mistake here.
    warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
    if cluster.address is not None:
        return module.DaskTaskRunner(address=cluster.address, client_kwargs={"timeout": CONNECT_SECONDS})
    local = {
        "n_workers": runner.workers,
        "threads_per_worker": 1,
        "dashboard_address": None,
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # else a fixed port, which may be taken
        "memory_limit": 0,  # the engine is a process of its own, which Dask does not see
        "silence_logs": logging.CRITICAL,  # of the workers
    }
    return module.DaskTaskRunner(cluster_kwargs=local)


def _ray_settings(runner: PrefectRunner) -> dict[str, Any]:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if runner.cluster.address is not None:
        return quiet
    return {**quiet, "num_cpus": runner.workers * runner.threads, "include_dashboard": False}


@contextmanager
def _submitting(runner: PrefectRunner, task_runner: Any) -> Iterator[None]:
    """Let Ray know how many CPUs a trial takes; a Dask worker takes one trial a thread."""
    if runner.cluster.kind == "dask":
        yield
        return
    options = importlib.import_module("prefect_ray.context").remote_options
    with options(num_cpus=runner.threads):
        yield


def _workers_left(runner: PrefectRunner, task_runner: Any) -> Callable[[], bool]:
    """Connect to the cluster; give a function that tells whether it has workers (Ray tells of lost ones by itself).

    Raises:
        InputError: nothing answers at its address, or it has no worker.
    """
    if runner.cluster.kind == "ray":
        return lambda: True
    try:
        client = task_runner.client
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise InputError(
            f"{TRIALS_ON} is {str(runner.cluster)!r}, but within {CONNECT_SECONDS} s no Dask scheduler with a worker "
            f"answered there ({' '.join(str(error).split())}); start `dask scheduler` and `dask worker`"
        ) from None
    return lambda: bool(client.nthreads())


@contextmanager
def server_for(cluster: Cluster) -> Iterator[None]:
    """Provide the user's Prefect server, or one for as long as the runner is open.

    The workers report to it; left to itself, Prefect would start one more in each of them.

    Raises:
        InputError: the cluster is elsewhere, where a server that only this machine reaches is of no use.
    """
    with _environment():
        from prefect.events.worker import EventsWorker
        from prefect.settings import PREFECT_API_URL, temporary_settings

        address = PREFECT_API_URL.value()
        if not _is_here(cluster.address) and (address is None or _is_here(address)):
            raise InputError(
                f"{TRIALS_ON} is {str(cluster)!r}, whose workers report to a Prefect server, but PREFECT_API_URL "
                f"{'is not set' if address is None else f'is {address!r}'}: run `prefect server start --host 0.0.0.0` "
                "and set it to an address that the workers reach"
            )
        if address is not None:
            yield
            return
        with temporary_server(Path(os.environ["PREFECT_HOME"])) as address:
            try:
                with temporary_settings({PREFECT_API_URL: address}):
                    yield
            finally:
                # What a process has yet to tell a server that is gone would hold up its end for minutes.
                EventsWorker.drain_all(timeout=_DRAIN_SECONDS)


def _is_here(address: str | None) -> bool:
    """Tell whether an address means this machine and is of use there only."""
    return address is None or urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
