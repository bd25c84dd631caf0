"""The largest resident memory of drawing and of calibrating, with few and with many samples."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from act.results.select import Strategy
from benchmarks.bench import BATCH, ROOT, Bench, run_stage

COUNTS = (64, 2000, 10_000)
LARGEST_GROWTH = 1.10


def memory(bench: Bench) -> tuple[dict[str, Any], list[str]]:
    """Measure the peaks of the stages `prepare` and `calibrate`; only the second has a limit."""
    rows: dict[int, dict[str, float]] = {}
    print("\nPeak memory by the number of calibration samples, MiB")
    print("  samples    calibrate   prepare, and its seconds")
    for count in COUNTS:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            rows[count] = _peaks(bench, count, Path(folder))
        row = rows[count]
        print(f"  {count:7,} {row['calibrate']:12.0f} {row['prepare']:9.0f} {row['prepare_seconds']:8.0f} s")
    peaks = [row["calibrate"] for row in rows.values()]
    grown = max(peaks) / min(peaks)
    misses = []
    if grown > LARGEST_GROWTH:
        misses.append(f"{bench.name}: calibrating takes {grown:.2f} times as much memory with some numbers of samples")
    return {"peak_mib": rows, "ratio": grown}, misses


def _peaks(bench: Bench, count: int, folder: Path) -> dict[str, float]:
    job = copy.deepcopy(bench.job)
    job["data"].update(calibration=count, evaluation=1)
    job["calibration"] = {"batch_size": BATCH, "batch_num": [-(-count // BATCH)]}
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {"many": job}}), encoding="utf-8")
    (folder / "examples").symlink_to(ROOT / "examples")
    started = time.perf_counter()
    drawing = _peak("prepare", folder)
    seconds = time.perf_counter() - started
    artifacts = folder / "artifacts" / "many"
    shutil.copytree(artifacts / "prepare" / "model", artifacts / "prune" / "model")
    select = artifacts / "select"
    select.mkdir()
    strategy = Strategy(
        strategy=[],
        prune=[],
        quantize=True,
        search=True,
        train=False,
        train_always=False,
        engine="openvino",
        why="to be measured",
    )
    strategy.write(select / "strategy.json")
    return {"calibrate": _peak("calibrate", folder), "prepare": drawing, "prepare_seconds": seconds}


def _peak(module: str, folder: Path) -> float:
    """Return the largest resident memory of a stage, in MiB."""
    code = (
        "import runpy\n"
        f"runpy.run_module('tasks.{module}', run_name='__main__')\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    return int(run_stage(module, "many", folder, code).split("VmHWM:")[1].split()[0]) / 1024
