"""What tests of several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from act.engines.quiet import PATIENCE

# Tests compare no latencies, and side by side they would wait for one another.
os.environ[PATIENCE] = "0"


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests: a fresh one takes seconds to make."""
    return tmp_path_factory.mktemp("prefect")
