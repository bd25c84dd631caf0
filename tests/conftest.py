"""What tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# A test is as fast as its folder, unless it says otherwise with a mark of its own; the rest is `unit`.
SPEEDS = {"tasks": "stage", "benchmarks": "stage", "flows": "e2e", "e2e": "e2e"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its speed."""
    for item in items:
        if not any(item.get_closest_marker(speed) for speed in ("unit", "stage", "e2e")):
            item.add_marker(SPEEDS.get(item.path.relative_to(TESTS).parts[0], "unit"))


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests: a fresh one takes seconds to make."""
    return tmp_path_factory.mktemp("prefect")
