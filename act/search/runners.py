"""What runs the trials of a round: threads here that each drive an engine's process, or a cluster.

Every runner gives the same results for the same jobs.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from act.search.cluster import Cluster
from act.search.measure import Result, TrialJob, measure

T = TypeVar("T")
Ended = Callable[[int, Result], None]
Measure = Callable[[TrialJob], Result]


class TrialsLost(Exception):
    """Trials did not come back from the cluster, for no fault of their own."""


class Runner(ABC):
    """Runs trials."""

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
    """Threads of this process, one for each trial that may run at the same time."""

    def __init__(self, workers: int, work: Measure = measure) -> None:
        self.workers = workers
        self.work = work

    def run(self, jobs: Sequence[TrialJob], ended: Ended = lambda _index, _result: None) -> list[Result]:
        results: dict[int, Result] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            places = {pool.submit(self.work, job): index for index, job in enumerate(jobs)}
            try:
                for future in as_completed(places):
                    results[places[future]] = future.result()
                    ended(places[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [results[index] for index in range(len(jobs))]


def with_runner(cluster: Cluster | None, side_by_side: int, threads: int, use: Callable[[Runner], T]) -> T:
    """Return what a function makes of a runner on the cluster, or here where there is none.

    Args:
        side_by_side: trials of a round.
        threads: of a trial's engine.

    Raises:
        InputError, TrialsLost: as `Runner.run`, and where the cluster cannot be used.
    """
    from act.search import prefect_runner

    workers = min(side_by_side, max(1, len(os.sched_getaffinity(0)) // threads))
    if cluster is None:
        return use(LocalRunner(workers))
    return prefect_runner.run_on_cluster(cluster, workers, threads, use)
