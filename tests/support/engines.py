"""Engines that another class runs than their own, and exports of one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act import registry
from act.engines.check import Checker
from act.engines.writer import Alternatives, Export
from act.program.model import InferenceModel
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme
from act.results.export import ExportedCandidate


def run_by(monkeypatch: pytest.MonkeyPatch, engine: str, runtime: str) -> None:
    """Let an engine be run by another class, `module:Class`."""
    module = registry.ENGINES.load(engine)
    monkeypatch.setattr(module, "SPEC", replace(module.SPEC, runtime=runtime))


def export(
    name: str,
    model: InferenceModel,
    scheme: Scheme | None,
    folder: Path,
    checker: Checker,
    engines: Sequence[str] = (),
    alternatives: Mapping[str, Mapping[str, Range]] | None = None,
) -> dict[str, Any]:
    """Write one candidate below a folder, and return its entry."""
    export = Export(name, model, scheme, folder / name, checker, engines, {}, Alternatives(lambda: alternatives or {}))
    return export.write().model_dump()


def exported_by(
    name: str, model: InferenceModel, folder: Path, checker: Checker, engines: Sequence[str]
) -> ExportedCandidate:
    """Write an fp32 candidate below a folder, and return what was written."""
    return Export(name, model, None, folder / name, checker, engines).write()
