"""A distribution of somebody else's that adds entries to the registries of `act`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

# Modules of two tests have two names: those of the first stay imported.
_serial = itertools.count()


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, entries: Mapping[str, Mapping[str, str]]) -> None:
    """Put a distribution on the path of this process and of those it starts, until the test ends.

    Args:
        folder: where its files go.
        entries: for each kind (`metrics`, `readers`, ...) the source of each entry's module.
    """
    information = folder / "toys-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    serial = next(_serial)
    lines = []
    for kind, sources in entries.items():
        lines.append(f"[act_pipeline.{kind}]")
        for name, source in sources.items():
            module = f"toy{serial}_{kind}_{name}"
            (folder / f"{module}.py").write_text(source)
            lines.append(f"{name} = {module}")
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
    path = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
