"""`python -m benchmarks.training`: what training and pruning win back, and how fast what comes of them is.

Parts: `recogniser` (quantization-aware training with distillation beside PaddleSlim's), `mobilenet` (channels pruned,
with and without int8; zeros in single weights) and `transformer` (heads and width pruned, with int8). Each measures on
samples that took no part in training, on OpenVINO with one thread; models are timed in turns of random order.

Prints tables, writes `benchmarks/results/training.json`, and ends with code 1, naming each figure that was not reached.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from act import machine
from act.errors import exit_on_input_error
from benchmarks.bench import ROOT, conclude

RESULT = ROOT / "benchmarks" / "results" / "training.json"
# Modules with a function `compare`, which takes an empty folder and returns results and misses.
PARTS = ("recogniser", "mobilenet", "transformer")
THREADS = 2


def main() -> int:
    """Run the parts; 1 when a figure was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Training beside others.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != str(THREADS):
        # Paddle reads it when it is imported.
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.training", *sys.argv[1:]], environment)
    os.chdir(ROOT)
    results: dict[str, Any] = {"machine": machine.describe(), "parts": {}}
    misses: list[str] = []
    with exit_on_input_error():
        for part in dict.fromkeys(arguments.parts):
            module = importlib.import_module(f"benchmarks.training.{part}")
            with tempfile.TemporaryDirectory() as folder:
                results["parts"][part], missed = module.compare(Path(folder))
            sys.stdout.flush()
            misses += [f"{part}: {miss}" for miss in missed]
    return conclude(RESULT, results, misses)


if __name__ == "__main__":
    sys.exit(main())
