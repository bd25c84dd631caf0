"""A Dask or Ray cluster that runs trials, reached through Prefect's task runners.

This is the one place of `act` that knows Prefect, which is imported only when a cluster is asked for. It runs inside a
stage that a flow may have started, and so opens a small flow of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from act.errors import InputError
from act.search.cluster import TRIALS_ON, Cluster
from act.search.measure import Result, TrialJob, measure
from act.search.runners import Ended, Measure, Runner, TrialsLost
from act.search.server import temporary_server

T = TypeVar("T")

CONNECT_SECONDS = 20
NO_WORKER_SECONDS = 30
_POLL_SECONDS = 0.1
# Until a result is here: on Ray that is how one looks whether there is one.
_RESULT_SECONDS = {"dask": 60.0, "ray": _POLL_SECONDS}
# What a worker needs beside the engine's own time: starting, importing, receiving the model.
_SLACK_SECONDS = 120
_DRAIN_SECONDS = 10

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


def _runner(cluster: Cluster, threads: int, work: Measure) -> Runner:
    """Return a runner behind the task runner of the present flow run: each trial is a task run.

    Raises:
        InputError: nothing answers at the cluster's address, or it has no worker.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None
    trial = task(name="trial", cache_policy=NO_CACHE, persist_result=False, retries=0, log_prints=False)(work)
    are_workers_left = _workers_left(cluster, context.task_runner)

    def run(jobs: Sequence[TrialJob], ended: Ended) -> None:
        try:
            with _submitting(cluster, threads):
                futures = {index: trial.submit(job) for index, job in enumerate(jobs)}
        except Exception as error:
            raise _lost(cluster, error) from None
        deadline = time.monotonic() + sum(job.evaluation.time_limit_seconds + _SLACK_SECONDS for job in jobs)
        for index, result in as_they_end(cluster, futures, deadline, are_workers_left):
            ended(index, result)

    return run


# The flow's parameters go to the server, and the flow itself to every worker: neither may hold the search.
_SEARCH: ContextVar[Callable[[], None]] = ContextVar("search")


def _trials() -> None:
    _SEARCH.get()()


def run_on_cluster(
    cluster: Cluster, workers: int, threads: int, use: Callable[[Runner], T], work: Measure = measure
) -> T:
    """Return what a function makes of a runner on a cluster; it is called in a flow run of its own.

    Args:
        workers: how many trials may run at the same time, on a temporary cluster.
        threads: of a trial's engine.
        work: measures one trial; a function of a module, which the workers import.

    Raises:
        InputError: the cluster cannot be used as it is.
        TrialsLost: it failed, or so did Prefect.
    """
    results: list[T] = []
    failures: list[Exception] = []

    def search() -> None:
        runner = _runner(cluster, threads, work)
        try:
            results.append(use(runner))
        except Exception as error:
            failures.append(error)
            raise

    with _environment():
        try:
            task_runner = _task_runner(cluster, workers, threads)
            with server_for(cluster):
                from prefect import flow

                _SEARCH.set(search)
                flow(name="trials", task_runner=task_runner, persist_result=False, log_prints=False)(_trials)()
        except Exception as error:
            if isinstance(error, (InputError, TrialsLost)) or error in failures:
                raise
            raise _lost(cluster, error) from error
    return results[0]


def as_they_end(
    cluster: Cluster, futures: Mapping[int, Any], deadline: float, are_workers_left: Callable[[], bool]
) -> Iterator[tuple[int, Result]]:
    """Give each result with its place as it comes.

    On Dask a future is asked for its result only when it has one: a wait that times out while the result is on its way
    makes all later ones fail (dask/distributed issue 8514).

    Raises:
        InputError, TrialsLost: as of a `Runner`.
    """
    pending, alive = dict(futures), time.monotonic()
    while pending:
        time.sleep(_POLL_SECONDS)
        for index, future in list(pending.items()):
            if cluster.kind == "dask" and not future.wrapped_future.done():
                continue
            try:
                outcome = future.result(timeout=_RESULT_SECONDS[cluster.kind], raise_on_failure=False)
            except TimeoutError:
                continue
            except Exception as error:
                # The cluster's own failures come this way, the trial's as an outcome.
                raise _lost(cluster, error) from None
            if isinstance(outcome, BaseException):
                raise outcome
            del pending[index]
            yield index, outcome
        now = time.monotonic()
        if are_workers_left():
            alive = now
        why = "has no worker left (see their logs)" if now - alive > NO_WORKER_SECONDS else ""
        if why or now > deadline:
            why = why or "did not end them in their time"
            raise TrialsLost(f"{len(pending)} trials were lost: {cluster} {why}; start workers and run again")


def _lost(cluster: Cluster, error: BaseException) -> TrialsLost:
    return TrialsLost(
        f"trials were lost on {cluster}: {type(error).__name__}: {' '.join(str(error).split())}; its workers must be "
        "alive, have this checkout on their PYTHONPATH, and reach the Prefect server"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """Set what Prefect, Ray and the workers that they start read, as long as the search runs."""
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


def _task_runner(cluster: Cluster, workers: int, threads: int) -> Any:
    """Return Prefect's task runner for the cluster.

    Raises:
        InputError: its package is not installed.
    """
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
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if cluster.address is None:
            quiet |= {"num_cpus": workers * threads, "include_dashboard": False}
        return module.RayTaskRunner(address=cluster.address, init_kwargs=quiet)
    # Other libraries send what all loggers say to the console.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # A model larger than 10 MB is no mistake here.
    warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
    if cluster.address is not None:
        return module.DaskTaskRunner(address=cluster.address, client_kwargs={"timeout": CONNECT_SECONDS})
    local = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "dashboard_address": None,
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # else a fixed port, which may be taken
        "memory_limit": 0,  # the engine is a process of its own, which Dask does not see
        "silence_logs": logging.CRITICAL,  # of the workers
    }
    return module.DaskTaskRunner(cluster_kwargs=local)


def _submitting(cluster: Cluster, threads: int) -> AbstractContextManager[object]:
    """Let Ray know how many CPUs a trial takes; a Dask worker takes one trial a thread."""
    if cluster.kind == "dask":
        return nullcontext()
    options: AbstractContextManager[object] = importlib.import_module("prefect_ray.context").remote_options(
        num_cpus=threads
    )
    return options


def _workers_left(cluster: Cluster, task_runner: Any) -> Callable[[], bool]:
    """Connect to the cluster; give a function that tells whether it has workers (Ray tells of lost ones by itself).

    Raises:
        InputError: nothing answers at its address, or it has no worker.
    """
    if cluster.kind == "ray":
        return lambda: True
    try:
        client = task_runner.client
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise InputError(
            f"{TRIALS_ON} is {str(cluster)!r}, but within {CONNECT_SECONDS} s no Dask scheduler with a worker "
            f"answered there ({' '.join(str(error).split())}); start `dask scheduler` and `dask worker`"
        ) from None
    return lambda: bool(client.nthreads())


@contextmanager
def server_for(cluster: Cluster) -> Iterator[None]:
    """Provide the user's Prefect server, or one for as long as the search runs.

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
