"""What runs the trials of a round: threads here that each drive an engine's process, or a cluster.

The results are the same wherever the trials run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TypeVar

from act.search.cluster import Cluster
from act.search.measure import Result, TrialJob, measure

T = TypeVar("T")
Ended = Callable[[int, Result], None]
Measure = Callable[[TrialJob], Result]

Runner = Callable[[Sequence[TrialJob], Ended], None]
"""Runs independent jobs, as many at the same time as there is room for.

It tells of each result with its place among the jobs as it comes, in the caller's thread. It raises `InputError` where
a worker lacks the samples or the cluster cannot be used, and `TrialsLost` where a worker died or never answered.
"""


class TrialsLost(Exception):
    """Trials did not come back from the cluster, for no fault of their own."""


def run_here(workers: int, work: Measure, jobs: Sequence[TrialJob], ended: Ended) -> None:
    """Run jobs as a `Runner` does, in threads of this process; `work` measures one."""
    with ThreadPoolExecutor(workers) as pool:
        places = {pool.submit(work, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(places):
                ended(places[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def with_runner(cluster: Cluster | None, side_by_side: int, threads: int, use: Callable[[Runner], T]) -> T:
    """Return what a function makes of a runner on the cluster, or here where there is none.

    Args:
        side_by_side: trials of a round.
        threads: of a trial's engine.
    """
    from act.search import prefect_runner

    workers = workers_for(side_by_side, threads)
    if cluster is None:
        return use(partial(run_here, workers, measure))
    return prefect_runner.run_on_cluster(cluster, workers, threads, use)


def workers_for(side_by_side: int, threads: int) -> int:
    """Return how many trials of a round the cores of this machine can run at the same time."""
    return min(side_by_side, max(1, len(os.sched_getaffinity(0)) // threads))
