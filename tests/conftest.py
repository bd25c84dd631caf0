"""What tests of several rooms share."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parent
SLOWEST_FIRST = ("e2e", "stage", "unit")
# The speed of a folder's or a file's tests where it is not `unit`; a slower one may be marked at the test itself.
SPEEDS = {
    "benchmarks": "stage",
    "e2e": "e2e",
    "engines/test_engines.py": "stage",
    "engines/test_fusion.py": "stage",
    "engines/test_paddle_lite_writer.py": "stage",
    "engines/test_process.py": "stage",
    "engines/test_tensorrt.py": "stage",
    "engines/test_toy_engine.py": "stage",
    "formats/onnx": "stage",
    "formats/onnx/test_importer.py": "unit",
    "formats/onnx/test_reading.py": "unit",
    "flows": "e2e",
    "flows/test_act_config.py": "stage",
    "flows/test_graph.py": "unit",
    "flows/test_plain_job.py": "unit",
    "flows/test_profile.py": "unit",
    "flows/test_turnstile.py": "unit",
    "program/test_growth.py": "stage",
    "pruning/test_channel.py": "stage",
    "pruning/test_combinations.py": "stage",
    "pruning/test_timing.py": "stage",
    "quantization/test_scheme.py": "stage",
    "quantization/test_sensitivity.py": "stage",
    "reporting/test_report_in_browser.py": "e2e",
    "search/test_runners.py": "stage",
    "search/test_sampler.py": "stage",
    "search/test_search.py": "stage",
    "strategy/test_profile.py": "stage",
    "strategy/test_profile_measure.py": "stage",
    "tasks": "stage",
    "timing/test_infer.py": "stage",
    "timing/test_benchmark.py": "stage",
    "training": "stage",
}


def speed_of(file: Path) -> str:
    """Return the speed of a file's tests."""
    path = file.relative_to(TESTS)
    return next((SPEEDS[str(place)] for place in (path, *path.parents) if str(place) in SPEEDS), "unit")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what `-m unit` deselects anyway: to import it takes longer than many of those tests."""
    is_test = collection_path.name.startswith("test_")
    return True if is_test and config.getoption("markexpr") == "unit" != speed_of(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its speed, and have the slow ones go first: they would be what several processes wait for."""
    missing = [place for place in SPEEDS if not (TESTS / place).exists()]
    assert not missing, f"tests/conftest.py: nothing is at {missing}"
    for item in items:
        if not any(item.get_closest_marker(speed) for speed in SLOWEST_FIRST):
            item.add_marker(speed_of(item.path))
    items.sort(key=lambda item: next(at for at, speed in enumerate(SLOWEST_FIRST) if item.get_closest_marker(speed)))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Fail where tests leave processes behind, whoever adopted those: they inherit a mark."""
    mark = os.environ["ACT_TESTS_MARK"] = uuid.uuid4().hex
    yield
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # Python's own, which ends with this process, is none of ours.
            if process.environ().get("ACT_TESTS_MARK") == mark and "resource_tracker" not in str(process.cmdline()):
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive, f"left running: {alive}"


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Prefect database for this process's tests: a copy, for to make one takes ten seconds of a core."""
    from tasks.ptq_search.server import temporary_server

    own = tmp_path_factory.getbasetemp()
    made = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "prefect"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            unfinished = made.with_suffix(".partial")
            with temporary_server(unfinished):
                pass
            unfinished.rename(made)
    return shutil.copytree(made, tmp_path_factory.mktemp("home") / "prefect")


@pytest.fixture(scope="module")
def brief_baseline() -> Iterator[None]:
    """Let `analyze` measure the job's model in as few rounds as it takes, where no test asks how steady they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("act.strategy.profile.measure.BASELINE_SECONDS", 0.0)
        yield
