"""`python -m benchmarks.paddle3`: whether Paddle 3's models come in as Paddle 3 runs them (after `make paddle3`).

Networks with drawn weights are written by Paddle 3 (`inference.json`) and by Paddle 2.6 (`.pdmodel`). Each import is
run beside Paddle 3's own predictor, and beside what Paddle 2.6 wrote of the same network, of which it must have the
same layers to quantize. With `--models FOLDER` the programs of Paddle 3 below a folder are imported and run, too.

Prints a line for each, writes `benchmarks/results/paddle3.json`, and ends with code 1, naming what was not reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.process import EngineProcess
from act.environments import PADDLE3
from act.errors import InputError
from act.formats import SourceModel
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.outputs import deviation
from act.program.passes.normalise import normalise
from act.samples.dataset import Array, Ragged, Samples
from benchmarks.bench import ROOT, conclude

RESULT = ROOT / "benchmarks" / "results" / "paddle3.json"
LARGEST_DEVIATION = 1e-5
LARGEST_MODEL_DEVIATION = 1e-3
LENGTHS: Mapping[int, int] = {1: 12, 2: 64, 3: 64}
"""Of axes of any length; 2 of the batch."""


def drawn(model: InferenceModel, seed: int = 0) -> dict[str, Array]:
    """Draw a batch of two samples."""
    rng, feeds = np.random.default_rng(seed), {}
    for spec in model.feed_specs():
        shape = [length if length > 0 else LENGTHS.get(axis, 2) for axis, length in enumerate(spec.shape)]
        whole = np.issubdtype(np.dtype(spec.dtype), np.integer)
        feeds[spec.name] = (rng.integers(0, 2, shape) if whole else rng.random(shape)).astype(spec.dtype)
    return feeds


def outputs_of(source: SourceModel, batch: Mapping[str, Array], folder: Path) -> list[Array]:
    """Run the file as it is."""
    Samples({name: Ragged.of(list(values)) for name, values in batch.items()}).save(folder)
    assert source.runtime is not None
    with EngineProcess(source.runtime, source.files[0], "fp32") as process:
        process.load()
        return [np.stack(list(output)) for output in process.outputs(folder, 2)]


def compare(program: Path, folder: Path, older: Path | None = None) -> dict[str, Any]:
    """Import a program and run it beside its file, and beside what Paddle 2.6 wrote of the same network."""
    started = time.perf_counter()
    try:
        source = SourceModel.find(program)
        model = source.load()
    except InputError as error:
        return {"refused": str(error)}
    result: dict[str, Any] = {"seconds": time.perf_counter() - started, "operators": len(model.ops)}
    batch = drawn(model)
    found = [np.asarray(each) for each in model.run(batch)]
    result["deviation"] = deviation(found, outputs_of(source, batch, folder / "samples"))
    if older is not None:
        known = SourceModel.find(older).load()
        values = [np.asarray(each) for each in known.run(dict(zip(known.feed_names, batch.values())))]
        result["deviation_of_paddle_2"] = deviation(found, values)
        result["same_layers"] = layers_of(model) == layers_of(known)
    return result


def layers_of(model: InferenceModel) -> list[tuple[str, tuple[int, ...]]]:
    normalised, _ = normalise(model)
    return [(layer.op_type, normalised.shape(layer.weight)) for layer in quantizable_layers(normalised)]


def main() -> int:
    """Parse the command line, measure, and say what was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paddle3", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="a folder with models of Paddle 3 somewhere below")
    parser.add_argument("--only", nargs="+", help="names of networks")
    arguments = parser.parse_args()
    if (lacking := PADDLE3.lacks()) is not None:
        print(lacking, file=sys.stderr)
        return 1
    script, misses, rows = ROOT / "benchmarks" / "paddle3_exports.py", [], {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        theirs, ours = place / "paddle3", place / "paddle2"
        for python, target in ((PADDLE3.python(), [theirs]), (sys.executable, [ours, "--weights", theirs])):
            done = subprocess.run([str(python), str(script), *map(str, target)], capture_output=True, text=True)
            if done.returncode:
                print(f"{script.name} under {python}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                return 1
        pairs: dict[str, tuple[Path, Path | None, float]] = {}
        pairs |= {path.name: (path, ours / path.name, LARGEST_DEVIATION) for path in sorted(theirs.iterdir())}
        for path in sorted(arguments.models.rglob("inference.json")) if arguments.models else ():
            pairs[path.parent.name] = (path, None, LARGEST_MODEL_DEVIATION)
        for name, (program, older, allowed) in pairs.items():
            if arguments.only and name not in arguments.only:
                continue
            (place / name).mkdir()
            rows[name] = row = compare(program, place / name, older)
            print(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
            misses += [f"{name}: {miss}" for miss in _misses(row, allowed)]
    return conclude(RESULT, {"networks": rows}, misses)


def _misses(row: Mapping[str, Any], allowed: float) -> list[str]:
    if "refused" in row:
        return [row["refused"]]
    far = [key for key in ("deviation", "deviation_of_paddle_2") if not row.get(key, 0) <= allowed]
    found = [f"{key} is {row[key]:.2g}, where {allowed:g} is allowed" for key in far]
    return found + ([] if row.get("same_layers", True) else ["has other layers to quantize than Paddle 2.6's"])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
