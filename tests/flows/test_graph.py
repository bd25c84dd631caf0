"""The graph of stages: what belongs to a job."""

from __future__ import annotations

from flows.graph import Stage, needed_by


def test_a_job_needs_the_stages_of_another_whose_result_it_reads() -> None:
    def stage(name: str, *needs: str) -> Stage:
        kind, _, job = name.partition("@")
        return Stage(name, kind, job, needs, stale=False)

    stages = [
        stage("model.dvc"),
        stage("prepare@one", "model.dvc"),
        stage("report@one", "prepare@one"),
        stage("prepare@two", "report@one"),
        stage("prepare@three"),
    ]
    assert needed_by("one", stages) == ["model.dvc", "prepare@one", "report@one"]
    assert needed_by("two", stages) == ["model.dvc", "prepare@one", "report@one", "prepare@two"]
    assert needed_by("three", stages) == ["prepare@three"]
