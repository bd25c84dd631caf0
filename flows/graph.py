"""The graph of stages as DVC has it: `dvc.yaml` is the only description, and this module only reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo

from act.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One stage of one job.

    Attributes:
        name: as DVC names it, like `prepare@recogniser`.
        needs: names of the stages whose results it reads.
        stale: whether DVC would run it now, its inputs being as they are.
    """

    name: str
    needs: tuple[str, ...]
    stale: bool

    @property
    def kind(self) -> str:
        """The stage without its job."""
        return self.name.partition("@")[0]

    @property
    def job(self) -> str:
        """The job without the stage."""
        return self.name.partition("@")[2]


def read_stages(root: Path, jobs: Collection[str]) -> list[Stage]:
    """All stages of these jobs, each after those that it needs.

    Raises:
        InputError: DVC cannot read the pipeline.
    """
    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            ordered = [stage for stage in networkx.dfs_postorder_nodes(graph) if _job(stage.addressing) in jobs]
            stale = repo.status(targets=[stage.addressing for stage in ordered])
            return [
                Stage(
                    stage.addressing,
                    tuple(sorted(need.addressing for need in graph.successors(stage))),
                    stage.addressing in stale,
                )
                for stage in ordered
            ]
    except DvcException as error:
        raise InputError(f"dvc.yaml: {' '.join(str(error).split())}") from None


def jobs_of(stages: Sequence[Stage]) -> list[str]:
    """The jobs that the stages belong to, in order of appearance."""
    return list(dict.fromkeys(stage.job for stage in stages))


def _job(name: str) -> str:
    return name.partition("@")[2]
