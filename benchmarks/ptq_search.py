"""`python -m benchmarks.ptq_search`: our PTQ search beside NNCF and Paddle's quantizer, on four models.

The PP-OCRv4 recogniser, the PP-OCR direction classifier, the PP-OCRv4 text detector, and a MobileNetV1 that is trained
on MNIST first (`benchmarks.mobilenet`; needs npm). All systems get the same normalised fp32 model and the same 64
unlabelled samples; quality is measured on others, which no search sees: lines and pages from another seed, MNIST's
test images. `benchmarks.search` has the rule by which ours must lose less than NNCF. Threshold rules one by one,
Paddle's quantizer and memory are compared on the recogniser only.

Prints tables, writes `benchmarks/results/ptq_search.json`, and ends with code 1, naming each figure that was not
reached. Takes about half an hour on 2 cores, a third of it Paddle's `KL` and `mse`, and minutes more to train once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from act import machine
from act.errors import exit_on_input_error
from benchmarks.bench import ROOT, SUBJECTS, Bench, conclude
from benchmarks.memory import memory
from benchmarks.search import search
from benchmarks.thresholds import beside_paddle, thresholds

RESULT = ROOT / "benchmarks" / "results" / "ptq_search.json"
WITH_MORE_PARTS = "recogniser"


def main() -> int:
    """Run everything; 1 when a figure was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ptq_search", description="PTQ search beside others.")
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), help="(default: all)")
    parser.add_argument("--without-paddle", action="store_true", help="leave out Paddle's quantizer, which is slow")
    parser.add_argument("--without-memory", action="store_true", help="leave out the passes over 10,000 samples")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    results: dict[str, Any] = {"machine": machine.describe(), "models": {}}
    misses: list[str] = []
    with exit_on_input_error():
        for model in dict.fromkeys(arguments.models):
            results["models"][model], missed = _compare(
                model, not arguments.without_paddle, not arguments.without_memory
            )
            misses += missed
    return conclude(RESULT, results, misses)


def _compare(model: str, with_paddle: bool, with_memory: bool) -> tuple[dict[str, Any], list[str]]:
    """Run all parts for one model."""
    more = model == WITH_MORE_PARTS
    parts = [
        *([thresholds] if more else []),
        *([beside_paddle] if more and with_paddle else []),
        search,
        *([memory] if more and with_memory else []),
    ]
    results: dict[str, Any] = {}
    misses: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, Path(folder))
        for part in parts:
            results[part.__name__], missed = part(bench)
            sys.stdout.flush()
            misses += missed
    return results, misses


if __name__ == "__main__":
    sys.exit(main())
