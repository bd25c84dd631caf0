"""Entries of the registries are found by name, from inside the package and from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from act.registry import ENGINES, THRESHOLDS, Registry, plugged_in
from tests.support import plugins


def test_naming_entries_imports_none_of_them() -> None:
    code = "import sys; from act.registry import ENGINES; print(ENGINES.names(), 'act.engines.openvino' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'openvino'" in printed and printed.endswith("False\n")


def test_entries_are_folders_or_modules_without_an_underscore() -> None:
    assert "process" not in ENGINES.names() and "onnxruntime" in ENGINES.names()
    assert "__init__" not in THRESHOLDS.names() and "hist" in THRESHOLDS.names()


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"Input should be .*'onnxruntime', .* or 'tensorrt'$"):
        ENGINES.check("abacus")
    with pytest.raises(ValueError, match="Input should be"):
        ENGINES.load("abacus")


def test_an_entry_from_outside_is_found_here_and_in_processes_that_are_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plugins.install(monkeypatch, tmp_path, {"thresholds": {"half": "SHARE = 0.5", "hist": "raise AssertionError"}})
    assert THRESHOLDS.check("half") == "half"
    assert THRESHOLDS.load("half").SHARE == 0.5
    assert THRESHOLDS.load("hist").__name__ == "act.quantization.thresholds.hist"  # one's own goes first
    assert Registry("act.metrics").names().count("half") == 0
    code = "from act.registry import THRESHOLDS; print(THRESHOLDS.load('half').SHARE)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0.5\n"


def test_the_version_of_a_plug_in_counts_for_whom_it_can_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plugins.install(monkeypatch, tmp_path / "a", {"metrics": {"brier": ""}})
    assert plugged_in(["brier", "top1"]) == {"toys": "1.0"} and plugged_in(["top1"]) == {}
    plugins.install(monkeypatch, tmp_path / "b", {"formats": {"odd": ""}})
    assert plugged_in([]) == {"toys": "1.0"}, "formats are tried without being named"
