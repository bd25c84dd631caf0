"""Runs trials on a Dask or Ray cluster, where an environment variable names one, and here where none does.

The results are the same everywhere, so that no setting of a job names the cluster. It is reached through Prefect's task
runners, and Prefect is imported only when a cluster is asked for. The search itself knows nothing of it: it is given a
runner. The stage may have been started by a flow, and so opens a small flow of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from act.errors import InputError
from act.search.measure import KeptEngines, Result, TrialJob, measure
from act.search.runners import Ended, Measure, Runner, run_here
from tasks.ptq_search.server import temporary_server

TRIALS_ON = "ACT_TRIALS_ON"
ALLOWED = (
    "`dask` or `ray` (a temporary cluster on this machine), `dask:tcp://HOST:PORT` or `ray:ray://HOST:PORT` "
    "(one that runs already)"
)
_HOST_AND_PORT = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}"
_FORM = re.compile(rf"(dask)(?::(tcp://{_HOST_AND_PORT}))?|(ray)(?::(ray://{_HOST_AND_PORT}))?")

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20
NO_WORKER_SECONDS = 30
POLL_SECONDS = 0.1
# Until a result is here: on Ray that is how one looks whether there is one.
_RESULT_SECONDS = {"dask": 60.0, "ray": POLL_SECONDS}
# What a worker needs beside the engine's own time: starting, importing, receiving the model.
_SLACK_SECONDS = 120
_DRAIN_SECONDS = 10

# Must stand in the environment ahead of Prefect and Ray: nothing calls out, and the console is the progress bar's.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class TrialsLost(Exception):
    """Trials did not come back from the cluster, for no fault of their own."""


@dataclass(frozen=True)
class Cluster:
    """A cluster; `address` is that of its scheduler (Dask) or head (Ray), None for a temporary one on this machine."""

    kind: Literal["dask", "ray"]
    address: str | None

    @classmethod
    def parse(cls, text: str, origin: str) -> Cluster:
        """Read what the user wrote, in a form of `ALLOWED` or else `InputError`; `origin` says where."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputError(f"{origin} is {text!r}; allowed is {ALLOWED}")
        return cls("dask", match[2]) if match[1] else cls("ray", match[4])

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """Return the cluster that `ACT_TRIALS_ON` names; None where the variable is unset or empty."""
        text = os.environ.get(TRIALS_ON)
        return cls.parse(text, TRIALS_ON) if text else None

    def __str__(self) -> str:
        return f"{self.kind}:{self.address}" if self.address else self.kind


def with_runner(cluster: Cluster | None, side_by_side: int, threads: int, use: Callable[[Runner], object]) -> None:
    """Give a function a runner on the cluster, or here where there is none.

    The cores of this machine may run fewer trials at the same time than there are `side_by_side` in a round.
    """
    workers = min(side_by_side, max(1, len(os.sched_getaffinity(0)) // threads))
    if cluster is None:
        with KeptEngines() as engines:
            use(partial(run_here, workers, engines.measure))
    else:
        run_on_cluster(cluster, workers, threads, use)


# The flow's parameters go to the server, and the flow itself to every worker: neither may hold the search.
_SEARCH: ContextVar[Callable[[], None]] = ContextVar("search")


def _trials() -> None:
    _SEARCH.get()()


def run_on_cluster(
    cluster: Cluster, workers: int, threads: int, use: Callable[[Runner], object], work: Measure = measure
) -> None:
    """Give a function a runner on a cluster, in a flow run of its own; raise as a `Runner` does.

    Args:
        workers: how many trials may run at the same time, on a temporary cluster.
        threads: of a trial's engine.
        work: measures one trial; a function of a module, which the workers import.
    """
    failures: list[Exception] = []
    done = False

    def search() -> None:
        nonlocal done
        runner = _runner(cluster, threads, work)
        try:
            use(runner)
        except Exception as error:
            failures.append(error)
            raise
        done = True

    with _environment():
        try:
            task_runner = _task_runner(cluster, workers, threads)
            with server_for(cluster):
                from prefect import flow

                _SEARCH.set(search)
                flow(name="trials", task_runner=task_runner, persist_result=False, log_prints=False)(_trials)()
        except Exception as error:
            if done:  # nothing is lost by how the cluster ends
                log.warning("the search is done, but %s ended badly: %s", cluster.kind, error)
            elif isinstance(error, (InputError, TrialsLost)) or error in failures:
                raise
            else:
                raise _lost(cluster, error) from error


def _runner(cluster: Cluster, threads: int, work: Measure) -> Runner:
    """Return a runner behind the task runner of the present flow run: each trial is a task run."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None
    trial = task(name="trial", cache_policy=NO_CACHE, persist_result=False, retries=0, log_prints=False)(work)
    are_workers_left = _workers_left(cluster, context.task_runner)

    def run(jobs: Sequence[TrialJob], ended: Ended) -> None:
        cpus: AbstractContextManager[object] = nullcontext()  # a Dask worker takes one trial a thread
        if cluster.kind == "ray":
            cpus = importlib.import_module("prefect_ray.context").remote_options(num_cpus=threads)
        try:
            with cpus:
                futures = {index: trial.submit(job) for index, job in enumerate(jobs)}
        except Exception as error:
            raise _lost(cluster, error) from None
        deadline = time.monotonic() + sum(job.evaluation.time_limit_seconds + _SLACK_SECONDS for job in jobs)
        for index, result in as_they_end(cluster, futures, deadline, are_workers_left):
            ended(index, result)

    return run


def as_they_end(
    cluster: Cluster, futures: Mapping[int, Any], deadline: float, are_workers_left: Callable[[], bool]
) -> Iterator[tuple[int, Result]]:
    """Give each result with its index as it comes; raise as a `Runner` does.

    On Dask a future is asked for its result only when it has one: a wait that times out while the result is on its way
    makes all later ones fail (dask/distributed issue 8514).
    """
    pending, alive = dict(futures), time.monotonic()
    while pending:
        time.sleep(POLL_SECONDS)
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
        alive = now if are_workers_left() else alive
        if now > min(deadline, alive + NO_WORKER_SECONDS):
            why = "did not end them in their time" if now > deadline else "has no worker left (see their logs)"
            raise TrialsLost(f"{len(pending)} trials were lost: {cluster} {why}; start workers and run again")


def _lost(cluster: Cluster, error: BaseException) -> TrialsLost:
    return TrialsLost(
        f"trials were lost on {cluster}: {type(error).__name__}: {' '.join(str(error).split())}; its workers must be "
        "alive, have this checkout on their PYTHONPATH, and reach the Prefect server"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """Set what Prefect, Ray and the workers that they start read, as long as the search runs."""
    before = dict(os.environ)
    os.environ.update({"PREFECT_HOME": str(Path.cwd() / ".prefect"), **before, **_QUIET})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _task_runner(cluster: Cluster, workers: int, threads: int) -> Any:
    """Return Prefect's task runner for the cluster; `InputError` where its package is not installed."""
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


def _workers_left(cluster: Cluster, task_runner: Any) -> Callable[[], bool]:
    """Connect to the cluster and give what tells whether it has workers; `InputError` where it has none."""
    if cluster.kind == "ray":  # which tells of lost ones by itself
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
    """Provide the user's Prefect server, or one for as long as the search runs: left to itself, Prefect would start one
    more in each worker. A cluster elsewhere cannot use a server that only this machine reaches (`InputError`)."""
    with _environment():
        from prefect.events.worker import EventsWorker
        from prefect.settings import PREFECT_API_URL, temporary_settings

        address = PREFECT_API_URL.value()
        if not _is_here(cluster.address) and _is_here(address):
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
    """Tell whether an address, or none, means this machine and is of use there only."""
    return address is None or urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
