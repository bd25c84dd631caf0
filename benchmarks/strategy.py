"""`python -m benchmarks.strategy`: whether the strategy that is chosen is the one that trying all would have found.

Part `choice`: of the variants that `benchmarks.latency_model` measured and predicted (run it first), each model's
fastest is chosen as the pipeline chooses, and compared with the fastest that was measured. The pipeline measures the
whole model in every precision; what is pruned it predicts, and corrects by how wrong the prediction of the whole is.
Here predictions come from models that saw neither, and it is told beside what prediction alone would choose.

Part `speedups`: the pipeline is asked for 2, 3 and 4 times the speed of fp32 on MobileNetV1, trained on MNIST, and must
give each within 10 %, or say that it cannot; with the accuracy that it costs. More than that is no miss where nothing
was pruned: int8 is then the least that changes the model, and as fast as it is.

Prints tables, writes `benchmarks/results/strategy.json`, and ends with code 1, naming each figure that was not reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from act import machine
from act.artifacts import read_json
from act.errors import InputError, exit_on_input_error
from benchmarks import mobilenet
from benchmarks.bench import ROOT, conclude
from benchmarks.latency_model import PRUNED, Case
from benchmarks.latency_model import RESULT as MEASURED
from benchmarks.training.mobilenet import write_samples
from flows.stages import PlainJob

RESULT = ROOT / "benchmarks" / "results" / "strategy.json"
PARTS = ("choice", "speedups")
MOST_SLOWER = 1.05
SPEEDUPS = (2.0, 3.0, 4.0)
NEAR = 0.10
JOB = "mobilenet"


def main() -> int:
    """Run the parts; 1 when a figure was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategy", description="The choice of strategy.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--speedups", nargs="+", type=float, default=list(SPEEDUPS), help="(default: 2 3 4)")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"machine": machine.describe()}
    misses: list[str] = []
    with exit_on_input_error():
        if "choice" in arguments.parts:
            results["choice"], missed = _choice()
            misses += missed
        if "speedups" in arguments.parts:
            results["speedups"], missed = _speedups(arguments.speedups)
            misses += missed
    return conclude(RESULT, results, misses)


def _choice() -> tuple[list[dict[str, Any]], list[str]]:
    if not MEASURED.is_file():
        raise InputError(f"{MEASURED}: no such file; run `python -m benchmarks.latency_model` first")
    by_model: dict[str, list[Case]] = defaultdict(list)
    for told in json.loads(MEASURED.read_text(encoding="utf-8"))["cases"]:
        case = Case(**{each.name: told[each.name] for each in fields(Case)})
        by_model[case.model].append(case)
    rows, misses = [], []
    print(
        f"\n{'model':22}{'chosen':34}{'ms':>8}   {'fastest of all':34}{'ms':>8}{'slower by':>11}{'by prediction':>15}"
    )
    for name, cases in by_model.items():
        whole = {(case.engine, case.variant): case for case in cases if not case.variant.endswith(PRUNED)}
        chosen = min(cases, key=lambda case: _expected(case, whole))
        blind = min(cases, key=lambda case: case.predicted["ours"])
        fastest = min(cases, key=lambda case: case.seconds)
        slower, slower_blind = (case.seconds / fastest.seconds for case in (chosen, blind))
        told = [f"{case.variant} on {case.engine}" for case in (chosen, fastest, blind)]
        times = [case.seconds * 1e3 for case in (chosen, fastest, blind)]
        shown = f"{told[0]:34}{times[0]:8.3f}   {told[1]:34}{times[1]:8.3f}"
        print(f"{name:22}{shown}{slower - 1:>+11.1%}{slower_blind - 1:>+15.1%}")
        names = dict(zip(("chosen", "fastest", "by_prediction"), told))
        rows.append({"model": name, **names, "ms": times, "variants": len(cases)})
        if slower > MOST_SLOWER:
            misses.append(f"{name}: {told[0]} was chosen, {slower - 1:.1%} slower than {told[1]}")
    near = sum(row["ms"][2] <= MOST_SLOWER * row["ms"][1] for row in rows)
    print(f"prediction alone, of what was never measured, chooses within 5 % of the fastest for {near} of {len(rows)}")
    return rows, misses


def _expected(case: Case, whole: Mapping[tuple[str, str], Case]) -> float:
    """Return the latency that the pipeline goes by: measured, or predicted and corrected."""
    if not case.variant.endswith(PRUNED):
        return case.seconds
    known = whole[case.engine, case.variant.removesuffix(PRUNED)]
    return case.predicted["ours"] * known.seconds / known.predicted["ours"]


def _speedups(wanted: list[float]) -> tuple[list[dict[str, Any]], list[str]]:
    rows, misses = [], []
    for speedup in wanted:
        with tempfile.TemporaryDirectory() as folder:
            row = _ask_for(speedup, Path(folder))
        rows.append(row)
        over = row["speedup"] / speedup - 1
        if over < -NEAR and row["reachable"]:
            misses.append(
                f"{speedup:g} times as fast: {row['speedup']:.2f} is given, and nothing said that it cannot be"
            )
        if over > NEAR and row["pruned"]:
            misses.append(f"{speedup:g} times as fast: {row['speedup']:.2f} is given, more was pruned than asked for")
    print(f"\n{'asked for':>10}{'given':>8}{'accuracy':>10}{'fp32':>8}{'tries':>7}  what was done")
    for row in rows:
        accuracy = f"{row['quality']:10.4f}{row['fp32_quality']:8.4f}"
        print(f"{row['asked']:>10g}{row['speedup']:8.2f}{accuracy}{row['tries']:7}  {row['winner']}; {row['verdict']}")
    return rows, misses


def _ask_for(speedup: float, folder: Path) -> dict[str, Any]:
    source = mobilenet.ensure()
    write_samples(folder)
    job: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["jobs"]["classifier"]
    job |= {
        "model": {"path": str(source / "model")},
        "data": {"reader": "arrays", "path": str(folder / "search")},
        "metric": "top1",
        "target": {"engines": ["openvino"], "threads": 1},
        "budget": {"max_quality_drop": 0.01, "min_speedup": speedup},
        "strategy": "auto",
        "calibration": {"batch_num": [8]},
        "ptq_search": {"max_quant_count": 6},
        "refine": {"methods": []},
        "prune": {"epochs": 3, "learning_rate": 5e-4},
        "qat": {},
        "benchmark": {},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {JOB: job}}), encoding="utf-8")
    (folder / "latency").symlink_to(ROOT / "latency")
    PlainJob(JOB, folder, _print).run()
    manifest = read_json(folder / "deploy" / JOB / "manifest.json")
    told = read_json(folder / "artifacts" / JOB / "options" / "options.json")
    winner = manifest["winner"]
    return {
        "asked": speedup,
        "speedup": winner["speedup"]["value"] if winner["speedup"] else 1.0,
        "quality": winner["quality"],
        "fp32_quality": winner["reference_quality"],
        "winner": f"{winner['name']} on {winner['engine']}",
        "tries": max(1, len(told["attempts"])),
        "attempts": [{key: each[key] for key in each if key != "strategy"} for each in told["attempts"]],
        "verdict": told["verdict"],
        "reachable": told["reachable"],
        "pruned": read_json(folder / "artifacts" / JOB / "prune" / "prune.json")["pruned"],
    }


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
