"""What tests of the flows share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.toy import Toy


@pytest.fixture
def toy(tmp_path: Path, prefect_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Toy]:
    """Return what makes a toy with the jobs named."""
    monkeypatch.setenv("PREFECT_HOME", str(prefect_home))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return lambda *jobs: Toy(tmp_path / "toy", list(jobs))
