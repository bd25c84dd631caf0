"""The zoo's models are sane, and the comparison of exports names exactly the figures that were missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from act.machine import INT8_FLAGS
from benchmarks import zoo
from benchmarks.export import misses

VNNI = frozenset(INT8_FLAGS)


def test_a_classifier_is_made_once_with_folded_batch_norms_and_sane_outputs(tmp_path: Path) -> None:
    made = zoo.prepared("pp_lcnet", tmp_path)
    written = made.folder.stat().st_mtime_ns
    model = made.model()
    assert not any(op.type == "batch_norm" for op in model.ops)
    (outputs,) = model.run(next(made.calibration().batches(4)))
    assert outputs.shape == (4, 1000)
    assert 0.01 < np.abs(outputs).max() < 100
    assert zoo.prepared("pp_lcnet", tmp_path).folder.stat().st_mtime_ns == written


def measured(times_fp32: float, times_peer: float, size: int = 25, failure: str | None = None) -> dict[str, Any]:
    ours = {
        "bytes": size,
        "failure": failure,
        "times_fp32": {"value": times_fp32},
        "times_peer": {"value": times_peer},
    }
    return {"onnxruntime": {"fp32": {"bytes": 100, "failure": None}, "ours": ours}}


def test_a_run_that_reaches_everything_misses_nothing() -> None:
    assert misses({"resnet50": measured(3.3, 0.98), "pp_lcnet": measured(1.1, 1.01)}, VNNI) == []


def test_each_missed_figure_is_named() -> None:
    models = {
        "resnet50": measured(3.1, 0.9, size=31),
        "squeezenet": measured(9.0, 0.99),
        "pp_lcnet": measured(0, 0, failure="crash: SIGSEGV"),
    }
    found = misses(models, VNNI)
    wanted = ("SIGSEGV", "3.10 times as fast as fp32, 3.2", "11.1% slower than quantize_static", "0.31 times the size")
    assert len(found) == 5
    assert all(any(part in miss for miss in found) for part in (*wanted, "faster than quantize_static on 0 of 3"))


def test_a_figure_that_the_cpu_cannot_reach_is_not_asked_for() -> None:
    assert misses({"resnet50": measured(1.0, 1.1)}, frozenset()) == []


def test_a_file_for_arm_that_is_missing_or_large_is_named_and_a_crash_on_x86_is_not() -> None:
    def lite(fp32: dict[str, Any], int8: dict[str, Any]) -> dict[str, Any]:
        crashed = {"failure": "crash: ended by SIGSEGV", "bytes": 1}
        return {"paddle_lite": {"fp32": {**crashed, "arm": fp32}, "ours": {**crashed, "arm": int8}}}

    def file(size: int) -> dict[str, Any]:
        return {"bytes": size, "failure": None}

    missing = {"failure": "missing: Paddle Lite's environment is not there"}
    assert misses({"a": lite(file(1000), file(300))}, VNNI) == []
    assert misses({"a": lite(file(1000), file(310))}, VNNI) == [
        "a for ARM: 0.31 times the size of fp32, 0.3 are allowed"
    ]
    assert misses({"a": lite(file(1000), missing)}, VNNI) == [f"a for ARM, ours: {missing['failure']}"]
