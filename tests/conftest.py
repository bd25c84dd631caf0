"""What tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests: a fresh one takes seconds to make."""
    return tmp_path_factory.mktemp("prefect")
