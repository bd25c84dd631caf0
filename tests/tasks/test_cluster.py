"""Where trials run: what may be written, the same results everywhere, a clear end where a cluster cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from act.errors import InputError
from act.search.runners import run_here
from tasks.ptq_search import cluster as clusters
from tasks.ptq_search.cluster import TRIALS_ON, Cluster, as_they_end, run_on_cluster, with_runner
from tests.support.place import CHECKOUT


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("dask", "dask", None),
        ("ray", "ray", None),
        ("dask:tcp://127.0.0.1:8786", "dask", "tcp://127.0.0.1:8786"),
        ("dask:tcp://big-one.lab:8786", "dask", "tcp://big-one.lab:8786"),
        ("ray:ray://[fe80::1]:10001", "ray", "ray://[fe80::1]:10001"),
    ],
)
def test_what_may_be_written(monkeypatch: pytest.MonkeyPatch, text: str, kind: str, address: str | None) -> None:
    monkeypatch.setenv(TRIALS_ON, text)
    found = Cluster.from_environment()
    assert found is not None
    assert (found.kind, found.address) == (kind, address)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["Dask", "spark", "dask:", "dask:8786", "dask:ray://here:1", "ray:tcp://here:1", "dask:tcp://here", "dask \n"],
)
def test_the_rest_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(TRIALS_ON, text)
    with pytest.raises(InputError) as error:
        Cluster.from_environment()
    assert repr(text) in str(error.value)
    assert TRIALS_ON in str(error.value) and "`dask:tcp://HOST:PORT`" in str(error.value)


@pytest.mark.parametrize("text", [None, ""])
def test_unset_means_here(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.delenv(TRIALS_ON, raising=False)
    if text is not None:
        monkeypatch.setenv(TRIALS_ON, text)
    assert Cluster.from_environment() is None


def test_as_many_workers_as_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    cluster, asked = Cluster("dask", None), []
    here: list[Any] = []
    monkeypatch.setattr(clusters, "run_on_cluster", lambda *given: asked.append(given[:3]))
    for side_by_side, threads in ((2, 1), (32, 1), (32, 3), (4, 64)):
        with_runner(cluster, side_by_side, threads, print)
        with_runner(None, side_by_side, threads, here.append)
    assert asked == [(cluster, 2, 1), (cluster, 8, 1), (cluster, 2, 3), (cluster, 1, 64)]
    assert [(runner.func, runner.args[0]) for runner in here] == [(run_here, workers) for workers in (2, 8, 2, 1)]


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)
    place = Cluster.parse(kind, "here")
    with pytest.raises(InputError, match=f"ACT_TRIALS_ON is '{kind}', which needs the package `prefect-{kind}`"):
        run_on_cluster(place, 1, 1, lambda runner: runner)


def test_on_dask_nothing_waits_for_a_result_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that times out there spoils all later ones: dask/distributed issue 8514."""
    monkeypatch.setattr(clusters, "POLL_SECONDS", 0.0)

    class Future:
        def __init__(self, looks: int, result: Any) -> None:
            self.looks, self._result = looks, result

        @property
        def wrapped_future(self) -> Future:
            return self

        def done(self) -> bool:
            self.looks -= 1
            return self.looks < 0

        def result(self, timeout: float, raise_on_failure: bool) -> Any:
            assert self.looks < 0 and timeout > 1 and not raise_on_failure
            return self._result

    def ended(futures: dict[int, Future]) -> list[tuple[int, Any]]:
        return list(as_they_end(Cluster("dask", None), futures, time.monotonic() + 60, lambda: True))

    assert ended({0: Future(2, "a"), 1: Future(0, "b"), 2: Future(1, "c")}) == [(1, "b"), (2, "c"), (0, "a")]
    with pytest.raises(InputError, match="no samples"):
        ended({0: Future(1, InputError("no samples"))})


def test_a_search_is_the_same_on_dask(tmp_path: Path, prefect_home: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PREFECT_HOME": str(prefect_home)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "tests.support.dask_search", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted = found["one worker"]
    assert len(wanted) == 12 and any(failure for _, _, failure in wanted)
    assert found["several workers"] == wanted
    assert found["on dask"] == wanted
    assert found["killed after"] == 5
    assert found["resumed on dask"] == wanted
    assert found["resumed here"] == wanted
    assert "/nowhere/samples: no such folder" in found["no samples"]
    assert not found["kept without samples"], "a worker without samples says nothing of the trial"
