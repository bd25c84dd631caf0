"""The graph of stages as DVC has it, read from `dvc.yaml`, the only description."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A stage as DVC names it, like `prepare@recogniser`, or `model.dvc` for a file that `dvc add` tracks.

    Attributes:
        needs: names of the stages whose results it reads.
        stale: whether DVC would run it now, its inputs being as they are.
    """

    name: str
    needs: tuple[str, ...]
    stale: bool

    @property
    def kind(self) -> str:
        """Return the stage without its job."""
        return self.name.partition("@")[0]

    @property
    def job(self) -> str:
        """Return its job; empty where it belongs to none."""
        return _job_of(self.name)


def read_stages(root: Path, jobs: Collection[str]) -> list[Stage]:
    """Return all stages of these jobs and what they need, each after those that it needs.

    Raises:
        InputError: DVC cannot read the pipeline, or a file that it starts from does not exist.
    """
    try:
        # Waits for the lock: another DVC command holds it for moments only.
        with Repo(str(root), _wait_for_lock=True) as repo:
            graph = get_active_graph(repo.index.graph)
            ordered = plan_repro(graph, [stage for stage in graph if _job_of(stage.addressing) in jobs])
            _refuse_missing_sources(ordered)
            status = repo.status()

            return [
                Stage(
                    stage.addressing,
                    tuple(sorted(need.addressing for need in graph.successors(stage))),
                    _is_stale(stage.addressing, status.get(stage.addressing, []), root),
                )
                for stage in ordered
            ]
    except DvcException as error:
        raise InputError(f"dvc.yaml: {' '.join(str(error).split())}; `dvc stage list` tells more") from None


def _is_stale(stage: str, changes: Collection[Any], root: Path) -> bool:
    """Tell whether a stage must run; one that DVC always runs, where what it notes has changed."""
    return not are_noted(root, _job_of(stage)) if changes == ["always changed"] else bool(changes)


def _job_of(name: str) -> str:
    return name.partition("@")[2]


def _refuse_missing_sources(stages: Collection[DvcStage]) -> None:
    """Refuse what DVC would find missing only when it comes to the stage, which may be after hours of work."""
    made = [Path(out.fs_path) for stage in stages for out in stage.outs]
    for stage in stages:
        for dep in stage.deps:
            path = Path(dep.fs_path)
            if not any(path.is_relative_to(out) or out.is_relative_to(path) for out in made) and not dep.exists:
                raise InputError(f"dvc.yaml: {stage.addressing} needs {dep.def_path}, which does not exist")
