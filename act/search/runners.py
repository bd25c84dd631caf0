"""What runs the trials of a round: threads here that each drive an engine's process, or a cluster.

Every runner gives the same results for the same jobs.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType

from act.search.cluster import Cluster
from act.search.measure import Result, TrialJob, measure

Ended = Callable[[int, Result], None]
Measure = Callable[[TrialJob], Result]


class TrialsLost(Exception):
    """Trials did not come back from the cluster, for no fault of their own."""


class Runner(ABC):
    """Runs trials; a context manager."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def run(self, jobs: Sequence[TrialJob], ended: Ended = lambda _index, _result: None) -> list[Result]:
        """Run jobs, as many at the same time as there is room for.

        Args:
            jobs: independent of one another.
            ended: told of each result with its place in `jobs` as it comes, in the caller's thread.

        Returns:
            The results in the order of `jobs`.

        Raises:
            InputError: a worker lacks the samples, or the cluster cannot be used.
            TrialsLost: a worker died or never answered.
        """


class LocalRunner(Runner):
    """Threads of this process.

    Args:
        workers: how many trials may run at the same time.
        work: measures one.
    """

    def __init__(self, workers: int, work: Measure = measure) -> None:
        self._workers = max(1, workers)
        self._work = work

    def run(self, jobs: Sequence[TrialJob], ended: Ended = lambda _index, _result: None) -> list[Result]:
        results: dict[int, Result] = {}
        with ThreadPoolExecutor(self._workers) as pool:
            places = {pool.submit(self._work, job): index for index, job in enumerate(jobs)}
            try:
                for future in as_completed(places):
                    results[places[future]] = future.result()
                    ended(places[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [results[index] for index in range(len(jobs))]


def choose(cluster: Cluster | None, side_by_side: int, threads: int) -> Runner:
    """Return the runner for a search.

    Args:
        cluster: None for this process.
        side_by_side: trials of a round.
        threads: of a trial's engine.
    """
    from act.search.prefect_runner import PrefectRunner

    workers = min(side_by_side, max(1, len(os.sched_getaffinity(0)) // threads))
    return LocalRunner(workers) if cluster is None else PrefectRunner(cluster, workers, threads)
