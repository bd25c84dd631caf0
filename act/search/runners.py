"""What runs the trials of a search: here threads, each driving an engine's process; a stage may give something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from act.search.measure import Result, TrialJob

Ended = Callable[[int, Result], None]
Measure = Callable[[TrialJob], Result]

Runner = Callable[[Sequence[TrialJob], Ended], None]
"""Runs independent jobs, as many at the same time as there is room for.

It tells of each result with its index among the jobs as it comes, in the caller's thread. It raises `InputError` where
a worker lacks the samples or cannot be used.
"""


def run_here(workers: int, work: Measure, jobs: Sequence[TrialJob], ended: Ended) -> None:
    """Run jobs as a `Runner` does, in threads of this process; `work` measures one."""
    with ThreadPoolExecutor(workers) as pool:
        indices = {pool.submit(work, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(indices):
                ended(indices[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
