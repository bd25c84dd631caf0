"""A program for `test_cluster.py`: searches with made-up qualities, on a small Dask cluster and here.

A process of its own, because Prefect reads its settings when it is imported. Prints one JSON object.
"""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import distributed

from act.engines.evaluation import Evaluation
from act.errors import InputError
from act.metrics import Quality
from act.results.ptq_search import Trial, TrialSettings
from act.search import sampler
from act.search.measure import Result, TrialJob
from act.search.runners import Runner, run_here
from act.search.sampler import ForestSampler
from act.search.search import Journal, Search
from act.settings import PtqSearch
from tasks.ptq_search.cluster import Cluster, run_on_cluster, server_for
from tests.support.small_space import SPACE

SETTINGS = PtqSearch(max_quant_count=12, side_by_side=3)
FP32 = Quality(0.8, [0.8] * 100)


class Killed(Exception):
    """Stands for a kill in the middle of a search."""


def work(job: TrialJob) -> Result:
    """Return a quality made of the setting; one setting fails."""
    setting = json.loads(job.files["setting"])
    if setting["ptq_algo"] == "mse" and setting["float_layers"] == 0:
        return Result(-math.inf, {}, 0, "crash: ended by SIGSEGV", 0)
    lost = 0.02 * (setting["ptq_algo"] == "avg") + 0.01 * setting["activation_symmetric"]
    return Result(0.8 - lost + 0.002 * setting["float_layers"], {}, 100, None, 0)


def search(journal: Path) -> Search:
    def job(setting: TrialSettings) -> TrialJob:
        files = {"setting": setting.model_dump_json().encode()}
        return TrialJob(Evaluation("openvino", "top1", Path("/nowhere/samples"), None), files, ".", FP32)

    return Search(ForestSampler(SPACE, 0), lambda s: 0.3 + 0.1 * s.activation_symmetric, job, FP32, Journal(journal))


def trials(journal: Path, runner: Runner, stop_after: int = 1000) -> list[Any]:
    found = search(journal)

    def progress(trial: Trial) -> None:
        if len(journal.read_text().splitlines()) >= stop_after:
            raise Killed

    found.run(SETTINGS, progress, runner)
    return [[trial.settings.model_dump(mode="json"), trial.quality, trial.failure] for trial in found.trials]


def on_dask(folder: Path, place: Cluster, answer: dict[str, Any]) -> None:
    def both(runner: Runner) -> None:
        answer["on dask"] = trials(folder / "dask", runner)
        answer["resumed on dask"] = trials(folder / "resumed", runner)

    run_on_cluster(place, 2, 1, both, work)
    try:
        run_on_cluster(place, 2, 1, lambda runner: trials(folder / "no_samples", runner))
    except InputError as error:
        answer["no samples"] = str(error)
    answer["kept without samples"] = (folder / "no_samples").exists()
    try:
        run_on_cluster(place, 2, 1, lambda runner: trials(folder / "killed", runner, stop_after=4), work)
    except Killed:
        answer["resumed here"] = trials(folder / "killed", partial(run_here, 2, work))


def main() -> None:
    folder = Path(sys.argv[1])
    sampler.TREES = 5  # nothing here depends on how good its suggestions are
    answer: dict[str, Any] = {
        "one worker": trials(folder / "one", partial(run_here, 1, work)),
        "several workers": trials(folder / "several", partial(run_here, 3, work)),
    }
    try:
        trials(folder / "resumed", partial(run_here, 2, work), stop_after=5)
    except Killed:
        answer["killed after"] = len((folder / "resumed").read_text().splitlines())
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:
        place = Cluster("dask", cluster.scheduler_address)
        with server_for(place):  # one for all three runners
            on_dask(folder, place, answer)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
