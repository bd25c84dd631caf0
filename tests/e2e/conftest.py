"""What tests of the whole chain share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.workspace import JOB, Workspace, small_workspace


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> Workspace:
    """Return a workspace in which the flow has run to its end."""
    workspace = small_workspace(tmp_path_factory.mktemp("compressed"))
    shutil.copytree(prefect_home, workspace.folder / ".prefect")
    done = workspace.run("-m", "flows.compress", "--job", JOB)
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace
