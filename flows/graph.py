"""The graph of stages as DVC has it, read from `dvc.yaml`, the only description."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage import Stage as DvcStage

from act.errors import InputError
from tasks.machine.__main__ import are_noted

# It warns of locks that a killed run has left and that it removes by itself: no news for the user.
logging.getLogger("dvc.rwlock").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Stage:
    """A stage as DVC knows it, like `prepare@recogniser`, or `model.dvc` for a file that `dvc add` tracks."""

    name: str
    kind: str  # the name without the job
    job: str  # empty where it belongs to none
    needs: tuple[str, ...]  # names of the stages whose results it reads
    stale: bool  # whether DVC would run it now, its inputs being as they are


def read_stages(root: Path, jobs: Collection[str]) -> list[Stage]:
    """Return all stages of these jobs and what they need, each after those that it needs.

    Raises:
        InputError: DVC cannot read the pipeline, or a file that it starts from does not exist.
    """
    try:
        # Waits for the lock: another DVC command holds it for moments only.
        with Repo(str(root), _wait_for_lock=True) as repo:
            graph = get_active_graph(repo.index.graph)
            ordered = plan_repro(graph, [stage for stage in graph if stage.addressing.partition("@")[2] in jobs])
            _refuse_missing_sources(ordered)
            status = repo.status()
            stages = []
            for stage in ordered:
                name = stage.addressing
                kind, _, job = name.partition("@")
                needs = tuple(sorted(need.addressing for need in graph.successors(stage)))
                changes = status.get(name, [])
                # What DVC always runs notes what is outside the checkout, and need not run while that is the same.
                stale = not are_noted(root, job) if changes == ["always changed"] else bool(changes)
                stages.append(Stage(name, kind, job, needs, stale))
            return stages
    except DvcException as error:
        raise InputError(f"dvc.yaml: {' '.join(str(error).split())}; `dvc stage list` tells more") from None


def needed_by(job: str, stages: Sequence[Stage]) -> list[str]:
    """Return the names of a job's stages and of all that they need, in order; they may be of other jobs."""
    needed = {stage.name for stage in stages if stage.job == job}
    for stage in reversed(stages):
        if stage.name in needed:
            needed.update(stage.needs)
    return [stage.name for stage in stages if stage.name in needed]


def _refuse_missing_sources(stages: Collection[DvcStage]) -> None:
    """Refuse what DVC would find missing only when it comes to the stage, which may be after hours of work."""
    made = [Path(out.fs_path) for stage in stages for out in stage.outs]
    for stage in stages:
        for dep in stage.deps:
            path = Path(dep.fs_path)
            if not any(path.is_relative_to(out) or out.is_relative_to(path) for out in made) and not dep.exists:
                raise InputError(f"dvc.yaml: {stage.addressing} needs {dep.def_path}, which does not exist")
