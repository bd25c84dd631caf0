"""What is refused before anything starts: unknown jobs, paths in params.yaml that do not exist, a stale ACT entry.

The keys and values of params.yaml are checked when it is read (`act.settings`).
"""

from collections.abc import Sequence
from pathlib import Path

from act.errors import InputError
from act.paddleslim.translate import refuse_lagging
from act.settings import DEFAULT_PATH, load


def check_jobs(jobs: Sequence[str] | None, limit: int) -> list[str]:
    """Return the jobs, all where None are named.

    Raises:
        InputError: a job is unknown or cannot start, or `limit`, of stages that run at once, is wrong.
    """
    known = load().jobs
    jobs = list(known if jobs is None else dict.fromkeys(jobs))
    if not jobs:
        raise InputError(f"{DEFAULT_PATH}: no job named; there are: {', '.join(known)}")
    for name in jobs:
        if name not in known:
            raise InputError(f"{DEFAULT_PATH}: there is no job `{name}` under `jobs`; there are: {', '.join(known)}")
        job = known[name]
        refuse_lagging(name, job)
        for key, path in (("model.path", job.model.path), ("data.path", job.data.path)):
            if not Path(path).exists():
                key = f"jobs.{name}.{key}"
                raise InputError(f"{DEFAULT_PATH}: `{key}` is {path!r}, which does not exist; correct the path")
    if limit < 1:
        raise InputError("--limit must be at least 1")
    return jobs
